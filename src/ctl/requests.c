/* Pages of requests as tables. */
#include "ctl/requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "ctl/call.h"
#include "ctl/options.h"
#include "ctl/target.h"
#include "model/request.h"

#define PARAMS_MAX 4096
/* What the daemon gives at a time. */
#define PAGE_MAX 1000
#define LIMIT_DEFAULT 100

static const char *const titles[] = { "JOB",          "STATE",   "TRIES", "ACCEPTED",
                                      "NEXT OR DONE", "REQUEST", "DETAIL" };
enum { N_TITLES = sizeof(titles) / sizeof(titles[0]), TRIES_COLUMN = 2 };

/* The outcome, once there is one. */
static const char *state_of(struct json_object *item)
{
    const char *outcome = json_get_string(item, "outcome");
    const char *state = json_get_string(item, "state");
    return outcome != NULL ? outcome : state != NULL ? state : "?";
}

/* The server's word, or the last failure's. */
static const char *detail_of(struct json_object *item)
{
    static const char *const members[] = { "error", "last_error" };
    for (size_t i = 0; i < 2; i++) {
        struct json_object *error = json_object_object_get(item, members[i]);
        const char *message = error != NULL ? json_get_string(error, "message") : NULL;
        if (message != NULL && message[0] != '\0')
            return message;
    }
    const char *message = json_get_string(item, "message");
    return message != NULL ? message : "";
}

static int add_time(struct table *t, struct json_object *item, const char *member)
{
    char text[OUTPUT_TIME_MAX];
    const char *time = json_get_string(item, member);
    return table_add(t, STYLE_PLAIN, time != NULL ? output_time(time, text) : "-");
}

static int add_item(struct table *t, struct json_object *item)
{
    const char *state = state_of(item);
    const char *job = json_get_string(item, "job_id");
    const char *request = json_get_string(item, "request_id");
    bool done = json_get_string(item, "outcome") != NULL;
    int r = table_add(t, STYLE_PLAIN, job != NULL ? job : "?");
    if (r == 0)
        r = table_add(t, output_style_of(state), state);
    if (r == 0)
        r = table_addf(t, STYLE_PLAIN, "%" PRId64,
                       json_object_get_int64(json_object_object_get(item, "attempts")));
    if (r == 0)
        r = add_time(t, item, "accepted_at");
    if (r == 0)
        r = add_time(t, item, done ? "time" : "next_attempt_at");
    if (r == 0)
        r = table_add(t, STYLE_DIM, request != NULL ? request : "?");
    return r == 0 ? table_add(t, STYLE_PLAIN, detail_of(item)) : r;
}

static int add_items(struct table *t, struct json_object *items)
{
    size_t n = json_object_is_type(items, json_type_array) ? json_object_array_length(items) : 0;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = add_item(t, json_object_array_get_idx(items, i));
    return r;
}

static enum ctl_exit out_of_memory(void)
{
    output_complain("out of memory");
    return CTL_NOT_CANCELLED;
}

/* --- status --- */

static enum ctl_exit status_one(const struct invocation *inv, struct connection *c,
                                const struct target *target, void *userdata)
{
    struct table *t = userdata;
    struct answer a;
    enum ctl_exit status = call_run(inv, c, "status", target->params, CALL_SLOW_MS, &a);
    if (status != CTL_OK)
        return status;
    bool json = invocation_has(inv, OPTION_JSON);
    if (json)
        call_print_json(&a);
    else if (json_object_is_type(a.result, json_type_array) &&
             json_object_array_length(a.result) == 0)
        output_complain("%s: no request for it is known (older ones may be in the results log: "
                        "'pulse-cancelctl results')",
                        target->name);
    else if (add_items(t, a.result) < 0)
        status = out_of_memory();
    answer_finish(&a);
    return status;
}

enum ctl_exit requests_status(const struct invocation *inv)
{
    struct table t;
    table_init(&t, N_TITLES, titles);
    t.right[TRIES_COLUMN] = true;
    enum ctl_exit status = target_each(inv, status_one, &t);
    if (t.n_cells > 0)
        table_print(&t, inv->out);
    table_finish(&t);
    return status;
}

/* --- list --- */

struct page {
    int64_t limit;
    char after[32]; /* "" = from the beginning */
};

static int append_params(struct buf *b, const struct invocation *inv, const struct page *page)
{
    static const enum option_id filters[] = { OPTION_STATE, OPTION_OUTCOME };
    static const char *const members[] = { "state", "outcome" };
    int r = buf_printf(b, "{\"limit\":%" PRId64, page->limit < PAGE_MAX ? page->limit : PAGE_MAX);
    for (size_t i = 0; i < 2 && r == 0; i++) {
        if (inv->values[filters[i]] == NULL)
            continue;
        r = buf_printf(b, ",\"%s\":", members[i]);
        if (r == 0)
            r = json_append_cstr(b, inv->values[filters[i]]);
    }
    if (r == 0 && page->after[0] != '\0')
        r = buf_append_str(b, ",\"after\":");
    if (r == 0 && page->after[0] != '\0')
        r = json_append_cstr(b, page->after);
    return r == 0 ? buf_append_char(b, '}') : r;
}

static enum ctl_exit show_page(const struct invocation *inv, const struct answer *a, bool first)
{
    if (invocation_has(inv, OPTION_JSON)) {
        call_print_json(a);
        return CTL_OK;
    }
    struct table t;
    table_init(&t, N_TITLES, titles);
    t.right[TRIES_COLUMN] = true;
    int r = add_items(&t, json_object_object_get(a->result, "requests"));
    if (r == 0 && t.n_cells > 0)
        table_print(&t, inv->out);
    else if (r == 0 && first)
        (void) puts("No such requests.");
    table_finish(&t);
    return r < 0 ? out_of_memory() : CTL_OK;
}

/* One page; page->after becomes "" at the end. */
static enum ctl_exit list_page(const struct invocation *inv, struct connection *c,
                               struct page *page, bool first)
{
    struct buf params;
    struct answer a;
    buf_init(&params, PARAMS_MAX);
    enum ctl_exit status = append_params(&params, inv, page) == 0 && buf_cstr(&params) != NULL
                               ? call_run(inv, c, "list", buf_cstr(&params), CALL_SLOW_MS, &a)
                               : out_of_memory();
    buf_finish(&params);
    if (status != CTL_OK)
        return status;
    status = show_page(inv, &a, first);
    struct json_object *requests = json_object_object_get(a.result, "requests");
    const char *next = json_get_string(a.result, "next");
    if (json_object_is_type(requests, json_type_array))
        page->limit -= (int64_t) json_object_array_length(requests);
    (void) snprintf(page->after, sizeof(page->after), "%s", next != NULL ? next : "");
    answer_finish(&a);
    return status;
}

enum ctl_exit requests_list(const struct invocation *inv)
{
    const char *state = inv->values[OPTION_STATE];
    const char *outcome = inv->values[OPTION_OUTCOME];
    const char *after = inv->values[OPTION_AFTER];
    struct page page = { .limit = LIMIT_DEFAULT };
    if (invocation_has(inv, OPTION_LIMIT) &&
        !options_number(inv, OPTION_LIMIT, 1, INT64_MAX, &page.limit))
        return CTL_USAGE;
    if (state != NULL && request_state_from_name(state) < 0)
        return options_misused(inv, "there is no state '%s'", state);
    if (outcome != NULL && outcome_from_name(outcome) < 0)
        return options_misused(inv, "there is no outcome '%s'", outcome);
    if (after != NULL && (strlen(after) >= sizeof(page.after) || after[0] == '\0'))
        return options_misused(inv, "--after takes what a list named, not '%s'", after);
    if (after != NULL)
        (void) snprintf(page.after, sizeof(page.after), "%s", after);

    struct connection c;
    connection_init(&c);
    enum ctl_exit status = call_connect(inv, &c);
    bool first = true;
    while (status == CTL_OK && (first || (page.limit > 0 && page.after[0] != '\0'))) {
        status = list_page(inv, &c, &page, first);
        first = false;
    }
    connection_close(&c);
    if (status == CTL_OK && page.after[0] != '\0' && !invocation_has(inv, OPTION_JSON)) {
        (void) fflush(stdout);
        (void) fprintf(stderr, "There are more: --after %s goes on there.\n", page.after);
    }
    return status;
}
