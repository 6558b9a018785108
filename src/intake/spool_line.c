/* Lines to requests. The request_id of line 3 of a claim is `UUID.3`: reading the file again after a
 * crash makes the same ones. */
#include "intake/spool_line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "model/line.h"

/* More of an offending line is never kept; request_create() cuts at JOB_ID_MAX, at a character. */
#define OFFENDING_MAX (JOB_ID_MAX * 2)
#define WHAT_MAX 1024

static void make_id(const struct spool_line_file *file, uint64_t number,
                    char ret[static REQUEST_ID_MAX + 1])
{
    (void) snprintf(ret, REQUEST_ID_MAX + 1, "%s.%" PRIu64, file->uuid, number);
}

int spool_line_invalid(const struct spool_line_file *file, uint64_t number, const char *text,
                       size_t len, const char *what, struct request **ret)
{
    char id[REQUEST_ID_MAX + 1];
    make_id(file, number, id);
    struct request *req =
        request_create(SOURCE_SPOOL, id, text, len < OFFENDING_MAX ? len : OFFENDING_MAX,
                       file->name, file->now_ms, file->now_ms + file->deadline_s * 1000);
    if (req == NULL)
        return -ENOMEM;

    char message[WHAT_MAX + 64];
    (void) snprintf(message, sizeof(message), "line %" PRIu64 ": %s", number, what);
    if (request_set_text(&req->message, message) < 0 ||
        request_set_text(&req->error_message, message) < 0 ||
        request_set_text(&req->error_code, "invalid_request") < 0) {
        request_destroy(req);
        return -ENOMEM;
    }
    request_set_state(req, REQUEST_DONE);
    req->outcome = OUTCOME_INVALID;
    req->done_at_ms = file->now_ms;
    *ret = req;
    return 0;
}

static int make_valid(const struct spool_line_file *file, uint64_t number, const struct line *line,
                      struct request **ret)
{
    char id[REQUEST_ID_MAX + 1];
    if (line->request_id[0] == '\0')
        make_id(file, number, id);
    int64_t deadline_s = line->deadline_s > 0 ? line->deadline_s : file->deadline_s;
    struct request *req = request_create(
        SOURCE_SPOOL, line->request_id[0] != '\0' ? line->request_id : id, line->job_id,
        strlen(line->job_id), file->name, file->now_ms, file->now_ms + deadline_s * 1000);
    if (req == NULL)
        return -ENOMEM;
    *ret = req;
    return 0;
}

int spool_line_request(const struct spool_line_file *file, uint64_t number, const char *text,
                       size_t len, struct request **ret, bool *ret_bad)
{
    *ret = NULL;
    *ret_bad = false;
    line_trim(&text, &len);
    if (len == 0 || text[0] == '#')
        return 0;

    struct line line;
    struct buf what;
    buf_init(&what, WHAT_MAX);
    int r = line_parse(text, len, &line, &what);
    if (r == 0) {
        r = make_valid(file, number, &line, ret);
    } else if (r == -EINVAL) {
        const char *why = what.len > 0 ? buf_cstr(&what) : "not a request line";
        r = why != NULL ? spool_line_invalid(file, number, text, len, why, ret) : -ENOMEM;
        *ret_bad = r == 0;
    }
    buf_finish(&what);
    return r;
}

int spool_line_name(const struct spool_line_file *file, struct request **ret, bool *ret_bad)
{
    /* Not line_parse(): a name is a job ID or nothing, never JSON. */
    size_t len = strlen(file->name);
    *ret_bad = !job_id_valid(file->name, len);
    if (*ret_bad)
        return spool_line_invalid(file, 1, file->name, len,
                                  "the file is empty, and its name is not a job ID", ret);
    struct line line = { 0 };
    memcpy(line.job_id, file->name, len);
    return make_valid(file, 1, &line, ret);
}
