/* The loop of cancel: lines in, calls out, answers in, in bounded memory.
 *
 * Waiting is done by calls with `wait`, as many as the window holds, and not by `subscribe`: such a
 * call repeated after a restart of the daemon is answered by the result, even when that was decided
 * while nobody was connected. */
#include "ctl/cancel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/cancel_private.h"
#include "ctl/options.h"
#include "ctl/signals.h"

/* Below what the daemon lets one client wait for (16,384), above what it sends at once (1,000). */
#define WINDOW_WAITING 8192
/* Enough for its groups of commits (128 calls of a client). */
#define WINDOW_NO_WAIT 1024

#define RECONNECT_S_DEFAULT 30
#define RECONNECT_S_MAX 86400
#define RECONNECT_INTERVAL_MS 100
#define REPEAT_MS 1000
#define TICK_MS 100

/* --- Answers --- */

static bool is_final(const struct answer *a)
{
    return json_get_string(a->result, "outcome") != NULL;
}

static void on_error(struct cancel *c, struct slot *slot, const struct answer *a)
{
    int64_t code = answer_error_code(a);
    const char *message = json_get_string(a->error, "message");
    if (slot != NULL && code == CALL_SHUTTING_DOWN) {
        window_postpone(&c->window, slot);
        return;
    }
    if (slot != NULL && code == CALL_PARAMS && c->source.from_file)
        cancel_report_bad(c, slot->number, slot->job_id, message != NULL ? message : "refused");
    else
        cancel_report_refused(c, a);
    if (slot != NULL)
        window_done(&c->window, slot);
    else
        c->turned_away = true;
}

static void on_answer(struct cancel *c, const struct answer *a)
{
    if (cancel_why_answered(c, a))
        return;
    cancel_why_reset(c);
    struct slot *slot = window_find(&c->window, a->id);
    if (a->error != NULL) {
        on_error(c, slot, a);
    } else if (slot == NULL) {
        return;
    } else if (c->wait && !is_final(a)) {
        /* The plain answer of a daemon that stops, and will not wait for the result. */
        window_postpone(&c->window, slot);
    } else {
        if (c->wait)
            cancel_report_result(c, a);
        else
            cancel_report_queued(c, a);
        window_done(&c->window, slot);
    }
}

/* 0, or -errno when the connection is of no use any more. */
static int take_answers(struct cancel *c)
{
    const char *line;
    size_t len;
    while (connection_line(&c->connection, &line, &len)) {
        struct answer a;
        int r = answer_parse(line, len, &a);
        if (r < 0)
            return r;
        on_answer(c, &a);
        answer_finish(&a);
    }
    return 0;
}

/* --- The connection --- */

static bool may_come_back(int error)
{
    return error == -ENOENT || error == -ECONNREFUSED || error == -EAGAIN || error == -ETIMEDOUT ||
           error == -ECONNRESET || error == -EINTR;
}

/* The connection is gone: another one, for as long as it may take. */
static void reconnect(struct cancel *c)
{
    const char *path = c->inv->values[OPTION_SOCKET];
    int64_t end_ms = clock_mono_ms() + c->reconnect_ms;
    bool told = false;
    int r;
    connection_close(&c->connection);
    window_repeat(&c->window, true);
    c->repeat_at_ms = 0;
    while ((r = connection_open(&c->connection, path)) < 0) {
        if (!may_come_back(r) || clock_mono_ms() >= end_ms) {
            progress_clear(&c->progress);
            connection_explain(path, r);
            c->lost = true;
            return;
        }
        if (!told) {
            progress_clear(&c->progress);
            output_complain("the daemon went away; trying to reach it again for up to %lld s",
                            (long long) (c->reconnect_ms / 1000));
            told = true;
        }
        (void) connection_wait(&c->connection, RECONNECT_INTERVAL_MS, &c->unblocked, -1, NULL);
        if (signals_caught() != 0)
            return;
    }
    cancel_why_reset(c);
    if (told)
        output_complain("the daemon is back");
}

/* --- The loop --- */

static void take_lines(struct cancel *c)
{
    struct input_line line;
    if (c->window.n_used == 0)
        cancel_why_reset(c);
    while (!c->refused && !window_full(&c->window) && cancel_source_next(&c->source, &line)) {
        if (line.problem[0] != '\0') {
            cancel_report_bad(c, line.number, NULL, line.problem);
        } else if (window_add(&c->window, &line) < 0) {
            output_complain("out of memory");
            c->refused = true;
        }
    }
}

static bool is_done(const struct cancel *c)
{
    return c->window.n_used == 0 && (c->refused || c->source.ended);
}

static int timeout_of(const struct cancel *c)
{
    return c->progress.on || !TAILQ_EMPTY(&c->window.again) ? TICK_MS : cancel_why_timeout(c);
}

static void repeat_postponed(struct cancel *c)
{
    int64_t now_ms = clock_mono_ms();
    if (TAILQ_EMPTY(&c->window.again)) {
        c->repeat_at_ms = 0;
    } else if (c->repeat_at_ms == 0) {
        c->repeat_at_ms = now_ms + REPEAT_MS;
    } else if (now_ms >= c->repeat_at_ms) {
        window_repeat(&c->window, false);
        c->repeat_at_ms = 0;
    }
}

static void step(struct cancel *c)
{
    bool more = false;
    bool listens = !c->refused && !window_full(&c->window);
    int r = window_send(&c->window, &c->connection);
    if (r == 0)
        r = cancel_why_ask(c);
    /* Whoever reads us has each result before we wait for the next. */
    (void) fflush(stdout);
    if (r == 0)
        r = connection_wait(&c->connection, timeout_of(c), &c->unblocked,
                            listens ? cancel_source_fd(&c->source) : -1, &more);
    if (r == -EINTR)
        return;
    if (r >= 0 && more)
        cancel_source_read(&c->source);
    int taken = take_answers(c);
    repeat_postponed(c);
    take_lines(c);
    if ((r < 0 || taken < 0 || c->connection.ended) && !is_done(c) && !c->turned_away)
        reconnect(c);
    c->progress.done = cancel_tally_done(&c->tally);
    progress_draw(&c->progress, clock_mono_ms());
}

static enum ctl_exit run(struct cancel *c)
{
    enum ctl_exit status = call_connect(c->inv, &c->connection);
    if (status != CTL_OK)
        return status;
    cancel_why_reset(c);
    take_lines(c);
    while (!is_done(c) && !c->lost && !c->turned_away && signals_caught() == 0)
        step(c);
    c->progress.done = cancel_tally_done(&c->tally);
    return cancel_report_end(c, is_done(c) ? 0 : signals_caught());
}

enum ctl_exit cancel_run(const struct invocation *inv)
{
    int64_t reconnect_s = RECONNECT_S_DEFAULT;
    if (invocation_has(inv, OPTION_RECONNECT) &&
        !options_number(inv, OPTION_RECONNECT, 0, RECONNECT_S_MAX, &reconnect_s))
        return CTL_USAGE;

    struct cancel c = {
        .inv = inv,
        .json = invocation_has(inv, OPTION_JSON),
        .wait = !invocation_has(inv, OPTION_NO_WAIT),
        .reconnect_ms = reconnect_s * 1000,
    };
    connection_init(&c.connection);
    enum ctl_exit status = cancel_source_open(&c.source, inv);
    if (status == CTL_OK) {
        c.verbose = !c.source.from_file;
        if (window_init(&c.window, c.wait ? WINDOW_WAITING : WINDOW_NO_WAIT, c.wait) < 0) {
            output_complain("out of memory");
            status = CTL_NOT_CANCELLED;
        }
    }
    if (status == CTL_OK) {
        progress_init(&c.progress, cancel_source_count(&c.source), clock_mono_ms());
        if (!c.wait)
            c.progress.bad_name = "refused";
        signals_catch(&c.unblocked);
        status = run(&c);
    }
    progress_clear(&c.progress);
    connection_close(&c.connection);
    window_finish(&c.window);
    cancel_source_close(&c.source);
    return status;
}
