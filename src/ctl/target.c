/* What is no ID is found before anything is asked of the daemon. */
#include "ctl/target.h"

#include <string.h>

#include "ctl/call.h"
#include "ctl/options.h"
#include "model/request.h"

#define PARAMS_MAX 4096

static enum ctl_exit check(const struct invocation *inv)
{
    const char *request_id = inv->values[OPTION_REQUEST_ID];
    const char *outcome = inv->values[OPTION_OUTCOME];
    int kinds = (inv->n_arguments > 0) + (request_id != NULL) + (outcome != NULL);
    if (kinds != 1)
        return options_misused(inv, kinds == 0 ? "which requests? %s" : "too much at once: give %s",
                               inv->command->arguments);
    for (size_t i = 0; i < inv->n_arguments; i++)
        if (!job_id_valid(inv->arguments[i], strlen(inv->arguments[i])))
            return options_misused(inv,
                                   "'%s' is not a job ID (1 to %d bytes of A-Z a-z 0-9 . _ ~ : -)",
                                   inv->arguments[i], JOB_ID_MAX);
    if (request_id != NULL && !request_id_valid(request_id, strlen(request_id)))
        return options_misused(inv,
                               "'%s' is not a request ID (1 to %d bytes of A-Z a-z 0-9 . _ : -)",
                               request_id, REQUEST_ID_MAX);
    if (outcome != NULL && outcome_from_name(outcome) < 0)
        return options_misused(inv, "there is no outcome '%s'", outcome);
    return CTL_OK;
}

struct target_run {
    const struct invocation *inv;
    struct connection *c;
    enum ctl_exit (*run)(const struct invocation *inv, struct connection *c,
                         const struct target *target, void *userdata);
    void *userdata;
};

static enum ctl_exit run_one(const struct target_run *run, const char *member, const char *value)
{
    struct buf params;
    buf_init(&params, PARAMS_MAX);
    enum ctl_exit status = CTL_NOT_CANCELLED;
    if (call_append_param(&params, member, value) == 0 && buf_cstr(&params) != NULL) {
        const struct target target = {
            .params = buf_cstr(&params),
            .name = value,
            .is_request = strcmp(member, "request_id") == 0,
            .is_outcome = strcmp(member, "outcome") == 0,
        };
        status = run->run(run->inv, run->c, &target, run->userdata);
    } else {
        output_complain("out of memory");
    }
    buf_finish(&params);
    return status;
}

enum ctl_exit target_each(const struct invocation *inv,
                          enum ctl_exit (*run)(const struct invocation *inv, struct connection *c,
                                               const struct target *target, void *userdata),
                          void *userdata)
{
    enum ctl_exit status = check(inv);
    if (status != CTL_OK)
        return status;
    struct connection c;
    const struct target_run each = { .inv = inv, .c = &c, .run = run, .userdata = userdata };
    connection_init(&c);
    status = call_connect(inv, &c);
    if (status == CTL_OK && inv->values[OPTION_REQUEST_ID] != NULL)
        status = run_one(&each, "request_id", inv->values[OPTION_REQUEST_ID]);
    else if (status == CTL_OK && inv->values[OPTION_OUTCOME] != NULL)
        status = run_one(&each, "outcome", inv->values[OPTION_OUTCOME]);
    for (size_t i = 0; i < inv->n_arguments && status == CTL_OK; i++)
        status = run_one(&each, "job_id", inv->arguments[i]);
    connection_close(&c);
    return status;
}
