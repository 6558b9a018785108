/* Request lines: the input is a spool file, line by line. */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/line.h"
#include "intake/spool_line.h"

#define UUID "0123abcd-0000-4000-8000-000000000000"
#define NOW_MS 1700000000000
#define DEADLINE_S 3600

static void check_accepted(const struct line *line)
{
    CHECK(fuzz_is_job_id(line->job_id));
    CHECK(line->request_id[0] == '\0' || fuzz_is_request_id(line->request_id));
    CHECK(line->deadline_s >= 0 && line->deadline_s <= 2592000);
}

/* What the line says, looked up in another way. */
static void check_said(const char *text, size_t len, const struct line *line)
{
    if (text[0] != '{') {
        CHECK(strlen(line->job_id) == len && memcmp(line->job_id, text, len) == 0);
        CHECK(line->request_id[0] == '\0' && line->deadline_s == 0);
        return;
    }
    char *string = strndup(text, len);
    struct json_object *root = json_tokener_parse(string), *value;
    int known = 1;
    CHECK(strcmp(fuzz_string(root, "job_id"), line->job_id) == 0);
    if (json_object_object_get_ex(root, "request_id", &value)) {
        CHECK(strcmp(json_object_get_string(value), line->request_id) == 0);
        known++;
    } else {
        CHECK(line->request_id[0] == '\0');
    }
    if (json_object_object_get_ex(root, "deadline_s", &value)) {
        CHECK(json_object_get_int64(value) == line->deadline_s);
        known++;
    } else {
        CHECK(line->deadline_s == 0);
    }
    CHECK(json_object_object_length(root) == known);
    json_object_put(root);
    free(string);
}

static int check_parse(const char *text, size_t len)
{
    struct line line, untouched;
    struct buf why;
    buf_init(&why, 512);
    memset(&line, 0x55, sizeof(line));
    memcpy(&untouched, &line, sizeof(line));
    int r = line_parse(text, len, &line, &why);
    CHECK(r == 0 || r == -EINVAL);
    if (r == 0) {
        CHECK(why.len == 0);
        check_accepted(&line);
        check_said(text, len, &line);
    } else {
        CHECK(why.len > 0 && fuzz_is_plain(buf_cstr(&why)));
        CHECK(memcmp(&line, &untouched, sizeof(line)) == 0);
    }
    buf_finish(&why);
    return r;
}

/* As the params of a `cancel`. */
static void check_object(const char *text, size_t len, int parsed)
{
    struct json_object *root = NULL;
    if (json_parse(text, len, &root, NULL) < 0)
        return;
    struct line line;
    struct buf why;
    bool wait = false;
    buf_init(&why, 512);
    int r = line_from_object(root, &line, &wait, &why);
    if (r == 0)
        check_accepted(&line);
    else
        CHECK(why.len > 0 && fuzz_is_plain(buf_cstr(&why)));
    /* The params may hold more than a line, never less. */
    CHECK(parsed < 0 || text[0] != '{' || r == 0);
    json_object_put(root);
    buf_finish(&why);
}

static void check_line_of_result(const struct request *req, const char *number)
{
    struct buf b;
    buf_init(&b, 65536);
    CHECK(request_append_result(&b, req) == 0);
    struct json_object *root = fuzz_check_result(b.data, b.len);
    CHECK(strcmp(fuzz_string(root, "outcome"), "invalid") == 0);
    CHECK(strncmp(fuzz_string(root, "message"), number, strlen(number)) == 0);
    CHECK(strlen(fuzz_string(root, "job_id")) <= JOB_ID_MAX);
    json_object_put(root);
    buf_finish(&b);
}

static void check_request(const struct request *req, bool bad, uint64_t n)
{
    char id[64], number[32];
    (void) snprintf(id, sizeof(id), UUID ".%llu", (unsigned long long) n);
    (void) snprintf(number, sizeof(number), "line %llu: ", (unsigned long long) n);
    CHECK(fuzz_is_request_id(req->request_id));
    CHECK(req->accepted_at_ms == NOW_MS);
    if (bad) {
        CHECK(req->state == REQUEST_DONE && req->outcome == OUTCOME_INVALID);
        CHECK(strcmp(req->request_id, id) == 0);
        check_line_of_result(req, number);
    } else {
        CHECK(req->state == REQUEST_QUEUED);
        CHECK(fuzz_is_job_id(req->job_id));
        CHECK(req->deadline_at_ms > NOW_MS);
    }
}

static void run_line(const struct spool_line_file *file, uint64_t n, const char *text, size_t len)
{
    struct request *req = NULL;
    bool bad = false;
    CHECK(spool_line_request(file, n, text, len, &req, &bad) == 0);
    line_trim(&text, &len);
    CHECK(len == 0 || (strchr(" \t\r", text[0]) == NULL || text[0] == '\0'));
    CHECK((req == NULL) == (len == 0 || text[0] == '#'));

    char *exact = fuzz_copy(text, len);
    int r = check_parse(exact, len);
    check_object(exact, len, r);
    free(exact);
    if (req != NULL) {
        CHECK(bad == (r < 0));
        check_request(req, bad, n);
    }
    request_destroy(req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { .at = (const char *) data, .left = size };
    struct spool_line_file file = { .uuid = UUID, .now_ms = NOW_MS, .deadline_s = DEADLINE_S };
    char *name = fuzz_field(&in);
    file.name = name;

    struct request *req = NULL;
    bool bad = false;
    CHECK(spool_line_name(&file, &req, &bad) == 0);
    CHECK(bad == !fuzz_is_job_id(name));
    check_request(req, bad, 1);
    request_destroy(req);

    for (uint64_t n = 1; in.left > 0; n++) {
        const char *newline = memchr(in.at, '\n', in.left);
        size_t len = newline != NULL ? (size_t) (newline - in.at) : in.left;
        char *exact = fuzz_copy(in.at, len);
        run_line(&file, n, exact, len);
        free(exact);
        in.at += len + (newline != NULL);
        in.left -= len + (newline != NULL);
    }
    free(name);
    return 0;
}
