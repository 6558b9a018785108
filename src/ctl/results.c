/* Lines of the results log that meet all conditions. The daemon need not run for it. */
#include "ctl/results.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/log_reader.h"
#include "ctl/options.h"
#include "ctl/when.h"
#include "model/request.h"

#define LINES_MAX 100000

struct filter {
    const struct invocation *inv; /* its arguments are the jobs; none = all */
    bool outcomes[OUTCOME_COUNT];
    bool any_outcome;
    char since[CLOCK_TEXT_MAX]; /* as the log writes times, which compare as texts; "" = any */
    char until[CLOCK_TEXT_MAX];
};

/* The last lines, while it is not known yet which they are. */
struct tail {
    char **lines;
    size_t size; /* 0 = all lines are shown at once */
    size_t n;    /* that came by */
};

/* --- The filter --- */

static enum ctl_exit read_outcomes(struct filter *f)
{
    const char *at = f->inv->values[OPTION_OUTCOME];
    f->any_outcome = at == NULL;
    while (at != NULL) {
        char name[32];
        size_t len = strcspn(at, ",");
        (void) snprintf(name, sizeof(name), "%.*s", (int) len, at);
        int outcome = outcome_from_name(name);
        if (outcome < 0)
            return options_misused(f->inv, "there is no outcome '%s'", name);
        f->outcomes[outcome] = true;
        at = at[len] == ',' ? at + len + 1 : NULL;
    }
    return CTL_OK;
}

static enum ctl_exit read_time(struct filter *f, enum option_id id, const char *name, char *ret)
{
    int64_t ms;
    const char *text = f->inv->values[id];
    if (text == NULL)
        return CTL_OK;
    if (when_parse(text, clock_wall_ms(), &ms) < 0)
        return options_misused(
            f->inv,
            "--%s takes a time as 2026-11-24, '2026-11-24 18:49', "
            "2026-11-24T18:49:17Z, today, yesterday, 90s, 15m, 2h or 7d, not '%s'",
            name, text);
    clock_format(ms, ret);
    return CTL_OK;
}

static bool named(const struct filter *f, const char *job)
{
    for (size_t i = 0; i < f->inv->n_arguments; i++)
        if (strcmp(f->inv->arguments[i], job) == 0)
            return true;
    return f->inv->n_arguments == 0;
}

static bool meets(const struct filter *f, struct json_object *result)
{
    const char *job = json_get_string(result, "job_id");
    const char *name = json_get_string(result, "outcome");
    const char *time = json_get_string(result, "time");
    int outcome = name != NULL ? outcome_from_name(name) : -1;
    if (job == NULL || time == NULL || !named(f, job))
        return false;
    if (!f->any_outcome && (outcome < 0 || !f->outcomes[outcome]))
        return false;
    return (f->since[0] == '\0' || strcmp(time, f->since) >= 0) &&
           (f->until[0] == '\0' || strcmp(time, f->until) < 0);
}

/* Cheap, before a line is parsed: most lines of a large log are none of those that are wanted. A
 * job ID is written into the line as it is. */
static bool may_meet(const struct filter *f, const char *line, size_t len)
{
    for (size_t i = 0; i < f->inv->n_arguments; i++) {
        const char *job = f->inv->arguments[i];
        if (!job_id_valid(job, strlen(job)) || memmem(line, len, job, strlen(job)) != NULL)
            return true;
    }
    return f->inv->n_arguments == 0;
}

/* --- Showing --- */

static void show(const struct invocation *inv, const char *line, size_t len,
                 struct json_object *result)
{
    if (invocation_has(inv, OPTION_JSON)) {
        (void) fwrite(line, 1, len, stdout);
        (void) fputc('\n', stdout);
    } else {
        output_result(inv->out, result, true);
    }
}

static int tail_keep(struct tail *t, const char *line, size_t len)
{
    char *copy = strndup(line, len);
    if (copy == NULL)
        return -ENOMEM;
    free(t->lines[t->n % t->size]);
    t->lines[t->n++ % t->size] = copy;
    return 0;
}

static void tail_show(struct tail *t, const struct invocation *inv)
{
    size_t first = t->n > t->size ? t->n - t->size : 0;
    for (size_t i = first; i < t->n; i++) {
        struct json_object *result = NULL;
        const char *line = t->lines[i % t->size];
        if (json_parse(line, strlen(line), &result, NULL) == 0)
            show(inv, line, strlen(line), result);
        json_object_put(result);
    }
}

/* 0 or -ENOMEM. */
static int take_line(const struct filter *f, struct tail *t, const char *line, size_t len)
{
    struct json_object *result = NULL;
    int r = 0;
    if (!may_meet(f, line, len) || json_parse(line, len, &result, NULL) < 0)
        return 0;
    if (meets(f, result)) {
        if (t->size > 0)
            r = tail_keep(t, line, len);
        else
            show(f->inv, line, len, result);
    }
    json_object_put(result);
    return r;
}

/* --- The command --- */

static enum ctl_exit explain(const char *path, int error)
{
    if (error == -EACCES)
        output_complain(
            "%s: no permission to read it\n"
            "Use sudo, or become a member of the group 'pulse-canceld' (sudo usermod -aG "
            "pulse-canceld USER) and log in anew.",
            path);
    else
        output_complain("%s: %s\n"
                        "Name the results log with --file PATH: it is results.path in the daemon's "
                        "configuration.",
                        path, strerror(-error));
    return CTL_NOT_CANCELLED;
}

static enum ctl_exit read_log(const struct filter *f, struct tail *t, const char *path)
{
    struct log_reader *reader;
    int r = log_reader_open(&reader, path);
    if (r < 0)
        return explain(path, r);
    const char *line;
    size_t len;
    int64_t n;
    while ((r = log_reader_next(reader, &line, &len, &n)) > 0 && ferror(stdout) == 0) {
        r = take_line(f, t, line, len);
        if (r < 0)
            break;
    }
    if (t->size > 0)
        tail_show(t, f->inv);
    bool incomplete = log_reader_incomplete(reader);
    log_reader_close(reader);
    if (r < 0)
        output_complain("%s: %s", path, strerror(-r));
    return r < 0 || incomplete ? CTL_NOT_CANCELLED : CTL_OK;
}

enum ctl_exit results_show(const struct invocation *inv)
{
    struct filter f = { .inv = inv };
    struct tail t = { .size = 0 };
    int64_t lines = 0;
    enum ctl_exit status = read_outcomes(&f);
    if (status == CTL_OK)
        status = read_time(&f, OPTION_SINCE, "since", f.since);
    if (status == CTL_OK)
        status = read_time(&f, OPTION_UNTIL, "until", f.until);
    if (status != CTL_OK)
        return status;
    if (invocation_has(inv, OPTION_LINES) &&
        !options_number(inv, OPTION_LINES, 1, LINES_MAX, &lines))
        return CTL_USAGE;

    if (lines > 0) {
        t.size = (size_t) lines;
        t.lines = calloc(t.size, sizeof(*t.lines));
        if (t.lines == NULL)
            return explain("results", -ENOMEM);
    }
    const char *path = inv->values[OPTION_FILE];
    status = read_log(&f, &t, path != NULL ? path : CTL_DEFAULT_LOG);
    for (size_t i = 0; i < t.size; i++)
        free(t.lines[i]);
    free(t.lines);
    return status;
}
