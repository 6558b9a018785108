/* What cancel says: a line for each job or only for those that went wrong, a summary, advice. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/cancel_private.h"

int64_t cancel_tally_done(const struct cancel_tally *t)
{
    int64_t n = t->unknown_outcomes + t->queued + t->known + t->bad_lines + t->refused;
    for (size_t i = 0; i < OUTCOME_COUNT; i++)
        n += t->outcomes[i];
    return n;
}

/* --- While it goes on --- */

void cancel_report_bad(struct cancel *c, uint64_t number, const char *job_id, const char *what)
{
    progress_clear(&c->progress);
    output_complain("line %" PRIu64 "%s%s: %s", number, job_id != NULL ? ": " : "",
                    job_id != NULL ? job_id : "", what);
    c->tally.bad_lines++;
    c->progress.bad++;
}

void cancel_report_result(struct cancel *c, const struct answer *a)
{
    const char *name = json_get_string(a->result, "outcome");
    int outcome = outcome_from_name(name);
    bool good = outcome == (int) OUTCOME_CANCELLED;
    if (outcome >= 0)
        c->tally.outcomes[outcome]++;
    else
        c->tally.unknown_outcomes++;
    c->progress.bad += !good;
    if (!c->json && good && !c->verbose)
        return;
    progress_clear(&c->progress);
    if (c->json)
        call_print_json(a);
    else
        output_result(c->inv->out, a->result, false);
}

void cancel_report_queued(struct cancel *c, const struct answer *a)
{
    const char *outcome = json_get_string(a->result, "outcome");
    const char *state = json_get_string(a->result, "state");
    struct json_object *coalesced = NULL;
    /* Only the answer to a new request says whether it joined another. */
    if (json_object_object_get_ex(a->result, "coalesced", &coalesced))
        c->tally.queued++;
    else
        c->tally.known++;
    c->tally.coalesced += json_object_get_boolean(coalesced);
    if (!c->json && !c->verbose)
        return;
    progress_clear(&c->progress);
    if (c->json) {
        call_print_json(a);
        return;
    }
    const char *job = json_get_string(a->result, "job_id");
    const char *request = json_get_string(a->result, "request_id");
    const char *shown = outcome != NULL ? outcome : state != NULL ? state : "?";
    output_put(c->inv->out, stdout, output_style_of(shown), shown, 12);
    (void) fputs("  ", stdout);
    output_put(c->inv->out, stdout, STYLE_PLAIN, job != NULL ? job : "?", 28);
    (void) fputs("  ", stdout);
    output_put(c->inv->out, stdout, STYLE_DIM, request != NULL ? request : "?", 0);
    (void) fputc('\n', stdout);
}

void cancel_report_refused(struct cancel *c, const struct answer *a)
{
    progress_clear(&c->progress);
    /* All that is under way may be refused for the same reason: said once. */
    if (!c->refused || c->json)
        (void) call_refused(c->inv, a, NULL);
    c->refused = true;
    c->tally.refused++;
    c->progress.bad++;
}

/* --- The end --- */

static void put_count(struct cancel *c, int64_t n, const char *name, bool *first)
{
    char count[OUTPUT_COUNT_MAX];
    if (n == 0)
        return;
    (void) printf("%s%s ", *first ? "" : ", ", output_count(n, count));
    output_put(c->inv->out, stdout, output_style_of(name), name, 0);
    *first = false;
}

static void put_summary(struct cancel *c)
{
    const struct cancel_tally *t = &c->tally;
    bool first = true;
    for (size_t i = 0; i < OUTCOME_COUNT; i++)
        put_count(c, t->outcomes[i], outcome_name((enum outcome) i), &first);
    put_count(c, t->unknown_outcomes, "of an unknown outcome", &first);
    put_count(c, t->queued, "queued", &first);
    put_count(c, t->coalesced, "of them with another request for the same job", &first);
    put_count(c, t->known, "known already", &first);
    put_count(c, t->bad_lines, t->bad_lines == 1 ? "bad line" : "bad lines", &first);
    put_count(c, t->refused, "refused", &first);
    int64_t elapsed_ms = clock_mono_ms() - c->progress.started_at_ms;
    (void) printf("%s (%" PRId64 ".%" PRId64 " s)\n", first ? "Nothing to do" : "",
                  elapsed_ms / 1000, elapsed_ms % 1000 / 100);
}

static size_t lines_in(const struct buf *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->len; i++)
        n += b->data[i] == '\n';
    return n;
}

/* How to go on where it ended early. */
static void advise_repeat(const struct cancel *c)
{
    const struct cancel_source *s = &c->source;
    if (s->from_file || s->inv->n_arguments > 1)
        (void) fprintf(stderr,
                       "To go on, repeat the command with '--request-id %s': nothing is asked for "
                       "twice.\n",
                       s->prefix);
    else
        (void) fprintf(stderr, "To wait again: pulse-cancelctl cancel --request-id %s %s\n",
                       s->prefix, s->inv->arguments[0]);
}

static void advise_interrupted(const struct cancel *c)
{
    char count[OUTPUT_COUNT_MAX];
    int64_t sent = (int64_t) window_count_sent(&c->window, lines_in(&c->connection.out));
    (void) fprintf(stderr,
                   "Interrupted. %s %s sent and not answered yet: the daemon goes on with what it "
                   "has queued.\n",
                   output_count(sent, count), sent == 1 ? "request was" : "requests were");
    if (c->source.from_file)
        (void) fputs("Look at them with 'pulse-cancelctl list' or 'pulse-cancelctl status JOB'. "
                     "What was not read yet is not queued.\n",
                     stderr);
    else
        (void) fprintf(stderr, "Look at %s with 'pulse-cancelctl status %s'.\n",
                       sent == 1 ? "it" : "them",
                       c->inv->n_arguments == 1 ? c->inv->arguments[0] : "JOB");
    advise_repeat(c);
}

enum ctl_exit cancel_report_end(struct cancel *c, int signal)
{
    const struct cancel_tally *t = &c->tally;
    progress_clear(&c->progress);
    bool single = !c->source.from_file && c->inv->n_arguments == 1;
    bool told = single && cancel_tally_done(t) == 1;
    bool nothing = signal != 0 && cancel_tally_done(t) == 0;
    if (!c->json && !told && !nothing)
        put_summary(c);
    (void) fflush(stdout);

    if (c->source.error != 0)
        output_complain("the file can't be read to its end: %s", strerror(-c->source.error));
    if (signal != 0) {
        advise_interrupted(c);
        return (enum ctl_exit)(CTL_SIGNALLED + signal);
    }
    if (c->lost) {
        advise_repeat(c);
        return CTL_UNREACHABLE;
    }
    if (c->refused) {
        if (!single)
            advise_repeat(c);
        return CTL_REFUSED;
    }
    int64_t good = c->wait ? t->outcomes[OUTCOME_CANCELLED] : t->queued + t->known;
    return good == cancel_tally_done(t) && c->source.error == 0 ? CTL_OK : CTL_NOT_CANCELLED;
}
