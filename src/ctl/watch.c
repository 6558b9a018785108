/* watch: subscribes, and prints each outcome as it comes, for ever. */
#include "ctl/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "ctl/call.h"
#include "ctl/signals.h"

static void show_missed(const struct invocation *inv, const struct answer *a)
{
    char count[OUTPUT_COUNT_MAX];
    int64_t n = json_object_get_int64(json_object_object_get(a->params, "count"));
    if (invocation_has(inv, OPTION_JSON))
        (void) printf("{\"missed\":%.*s}\n", (int) a->text_len, a->text);
    (void) fflush(stdout);
    output_complain(
        "missed %s %s, because they were not read fast enough; the results log has them: "
        "'pulse-cancelctl results'",
        output_count(n, count), n == 1 ? "outcome" : "outcomes");
}

static void show_note(const struct invocation *inv, const struct answer *a)
{
    if (a->method == NULL || a->params == NULL)
        return;
    if (strcmp(a->method, "missed") == 0)
        show_missed(inv, a);
    else if (strcmp(a->method, "outcome") == 0 && invocation_has(inv, OPTION_JSON))
        call_print_json(a);
    else if (strcmp(a->method, "outcome") == 0)
        output_result(inv->out, a->params, true);
}

/* 0 or -errno. */
static int show_lines(const struct invocation *inv, struct connection *c)
{
    const char *line;
    size_t len;
    while (connection_line(c, &line, &len)) {
        struct answer a;
        int r = answer_parse(line, len, &a);
        if (r < 0)
            return r == -EINVAL ? -EPROTO : r;
        show_note(inv, &a);
        answer_finish(&a);
    }
    /* Whoever reads us wants each as soon as it is there. */
    return fflush(stdout) == 0 ? 0 : -errno;
}

static enum ctl_exit follow(const struct invocation *inv, struct connection *c)
{
    sigset_t unblocked;
    int r = 0;
    signals_catch(&unblocked);
    while (r >= 0 && signals_caught() == 0 && !c->ended && ferror(stdout) == 0) {
        r = show_lines(inv, c);
        if (r == 0)
            r = connection_wait(c, -1, &unblocked, -1, NULL);
        if (r == -EINTR)
            r = 0;
    }
    (void) show_lines(inv, c);
    if (signals_caught() != 0)
        return (enum ctl_exit)(CTL_SIGNALLED + signals_caught());
    if (ferror(stdout) != 0)
        return CTL_NOT_CANCELLED;
    output_complain(
        "the daemon ended the connection: it stops or restarts\n"
        "Watch again once it runs ('systemctl status pulse-canceld'); what came between "
        "is in the results log.");
    return CTL_UNREACHABLE;
}

enum ctl_exit watch_run(const struct invocation *inv)
{
    struct connection c;
    struct answer a;
    connection_init(&c);
    enum ctl_exit status = call_connect(inv, &c);
    if (status == CTL_OK)
        status = call_run(inv, &c, "subscribe", NULL, CALL_QUICK_MS, &a);
    if (status == CTL_OK) {
        answer_finish(&a);
        status = follow(inv, &c);
    }
    connection_close(&c);
    return status;
}
