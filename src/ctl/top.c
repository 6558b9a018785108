/* The loop of top: asks for stats each second, listens for outcomes, looks for keys. */
#include "ctl/top.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/signals.h"
#include "ctl/top_model.h"
#include "ctl/top_screen.h"

#define INTERVAL_MS 1000
#define SILENCE_MS 5000
#define CALL_MAX 256

enum { ID_SUBSCRIBE = 1, ID_STATS = 2 };

struct top {
    const struct invocation *inv;
    struct connection connection;
    struct top_model model;
    struct top_screen *screen; /* NULL with --json */
    sigset_t unblocked;
    int64_t next_ask_ms;
    int64_t answered_at_ms;
    int64_t asked_at_ms; /* 0 = nothing is asked */
    int error;           /* why there is no connection */
    bool frozen;
    bool quit;
    bool dirty;
};

/* 0 or -errno. */
static int ask(struct top *t, int64_t id, const char *method)
{
    struct buf text;
    buf_init(&text, CALL_MAX);
    int r = call_append(&text, id, method, NULL);
    if (r == 0)
        r = connection_send(&t->connection, text.data, text.len);
    buf_finish(&text);
    return r;
}

/* --- Answers --- */

static void on_note(struct top *t, const struct answer *a)
{
    if (strcmp(a->method, "outcome") == 0 && a->params != NULL)
        top_model_take_result(&t->model, json_object_get(a->params));
    else if (strcmp(a->method, "missed") == 0)
        t->model.missed += json_object_get_int64(json_object_object_get(a->params, "count"));
}

static void on_stats(struct top *t, const struct answer *a)
{
    t->answered_at_ms = clock_mono_ms();
    t->asked_at_ms = 0;
    t->dirty = true;
    if (t->screen == NULL) {
        call_print_json(a);
        (void) fflush(stdout);
    } else {
        top_model_take_stats(&t->model, json_object_get(a->result), t->answered_at_ms);
    }
}

/* 0 or -errno. */
static int take_answers(struct top *t)
{
    const char *line;
    size_t len;
    while (connection_line(&t->connection, &line, &len)) {
        struct answer a;
        int r = answer_parse(line, len, &a);
        if (r < 0)
            return r;
        if (a.method != NULL)
            on_note(t, &a);
        else if (a.id == ID_STATS && a.result != NULL)
            on_stats(t, &a);
        answer_finish(&a);
    }
    return 0;
}

/* --- The connection --- */

static int connect_again(struct top *t)
{
    int r = connection_open(&t->connection, t->inv->values[OPTION_SOCKET]);
    t->asked_at_ms = 0;
    /* The numbers alone are enough for --json. */
    return r == 0 && t->screen != NULL ? ask(t, ID_SUBSCRIBE, "subscribe") : r;
}

static void lose(struct top *t, int error)
{
    connection_close(&t->connection);
    t->error = error;
    t->dirty = true;
}

static void ask_if_due(struct top *t, int64_t now_ms)
{
    if (now_ms < t->next_ask_ms)
        return;
    t->next_ask_ms = now_ms + INTERVAL_MS;
    t->dirty = true;
    if (t->connection.fd < 0) {
        t->error = connect_again(t);
        if (t->error < 0)
            return;
    }
    /* One question at a time: a daemon that is slow gets no queue of them. */
    if (t->asked_at_ms != 0)
        return;
    int r = ask(t, ID_STATS, "stats");
    if (r < 0)
        lose(t, r);
    else
        t->asked_at_ms = now_ms;
}

static const char *trouble_of(const struct top *t, int64_t now_ms)
{
    if (t->connection.fd < 0)
        return "the daemon can't be reached; trying again";
    if (t->asked_at_ms != 0 && now_ms - t->asked_at_ms > SILENCE_MS)
        return "the daemon does not answer";
    return NULL;
}

/* --- The loop --- */

/* True when one was pressed, or the terminal has another size. */
static bool take_keys(struct top *t)
{
    enum top_key key;
    bool any = false;
    while ((key = top_screen_key(t->screen)) != TOP_KEY_NONE) {
        any = true;
        switch (key) {
        case TOP_KEY_QUIT:
            t->quit = true;
            break;
        case TOP_KEY_FREEZE:
            t->frozen = !t->frozen;
            break;
        case TOP_KEY_NONE:
        case TOP_KEY_REDRAW:
            break;
        }
    }
    return any;
}

static void step(struct top *t)
{
    int64_t now_ms = clock_mono_ms();
    ask_if_due(t, now_ms);
    if (t->screen != NULL && t->dirty && !t->frozen)
        top_screen_draw(t->screen, &t->model, false, trouble_of(t, now_ms));
    t->dirty = false;

    int64_t left_ms = t->next_ask_ms - now_ms;
    int r = connection_wait(&t->connection, left_ms > 0 ? (int) left_ms : 0, &t->unblocked,
                            t->screen != NULL ? STDIN_FILENO : -1, NULL);
    if (t->connection.fd >= 0) {
        int taken = take_answers(t);
        if (r == -EINTR)
            r = 0;
        if (r < 0 || taken < 0 || t->connection.ended)
            lose(t, r < 0 ? r : taken);
    }
    if (t->screen != NULL && take_keys(t)) {
        t->dirty = true;
        if (t->frozen)
            top_screen_draw(t->screen, &t->model, true, NULL);
    }
}

static enum ctl_exit run(struct top *t)
{
    signals_catch(&t->unblocked);
    while (!t->quit && signals_caught() == 0 && ferror(stdout) == 0) {
        step(t);
        if (t->screen == NULL && t->connection.fd < 0) {
            connection_explain(t->inv->values[OPTION_SOCKET], t->error);
            return CTL_UNREACHABLE;
        }
    }
    return signals_caught() != 0 ? (enum ctl_exit)(CTL_SIGNALLED + signals_caught()) : CTL_OK;
}

enum ctl_exit top_run(const struct invocation *inv)
{
    bool json = invocation_has(inv, OPTION_JSON);
    struct top t = { .inv = inv };
    if (!json && (!inv->out->terminal || isatty(STDIN_FILENO) != 1))
        return options_misused(inv, "top needs a terminal; 'pulse-cancelctl stats' and "
                                    "'pulse-cancelctl top --json' don't");
    connection_init(&t.connection);
    top_model_init(&t.model);
    enum ctl_exit status = call_connect(inv, &t.connection);
    if (status == CTL_OK && !json) {
        int r = top_screen_open(&t.screen, inv->out->colour);
        if (r == 0)
            r = ask(&t, ID_SUBSCRIBE, "subscribe");
        if (r < 0) {
            top_screen_close(t.screen);
            connection_close(&t.connection);
            return options_misused(inv, "this terminal can't show it (TERM); use 'pulse-cancelctl "
                                        "stats' or 'pulse-cancelctl top --json'");
        }
    }
    if (status == CTL_OK)
        status = run(&t);
    top_screen_close(t.screen);
    top_model_finish(&t.model);
    connection_close(&t.connection);
    return status;
}
