/* The server's replies: what is made of status, headers and body, up to the result line.
 *
 * The input's fields: the HTTP status; flags by letters (Sent, Resent, beLieved; transport Failed,
 * too long "Z", Timeout, TLS "X"); the job ID; the key; what curl says; Deprecation; Sunset; then
 * the body. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "model/config.h"
#include "policy/deprecation.h"
#include "policy/endpoint.h"
#include "policy/verdict.h"
#include "policy/verify.h"

struct fields {
    char *flags, *job_id, *key, *trouble, *deprecation, *sunset;
};

static bool has(const struct fields *f, char flag)
{
    return strchr(f->flags, flag) != NULL;
}

/* Neither stars, which mask it, nor anything that no key file may hold. */
static void make_key(char *key)
{
    if (!fuzz_is_plain(key) || strpbrk(key, " *") != NULL || strlen(key) < 8)
        key[0] = '\0';
}

static bool shows_key(const char *text, const char *key)
{
    return text != NULL && key[0] != '\0' && strstr(text, key) != NULL;
}

static void check_judgement(const struct reply *reply, const char *job_id,
                            const struct judgement *j)
{
    bool ok = reply->transport == TRANSPORT_OK;
    bool success = reply->status >= 200 && reply->status < 300;
    CHECK(j->counts == (ok || reply->sent));
    CHECK((j->kind == REPLY_NONE) == (!ok && !reply->sent));
    CHECK((j->kind == REPLY_LOST) == (!ok && reply->sent));
    CHECK((j->kind == REPLY_REFUSED) == (ok && !success));
    CHECK(j->kind != REPLY_BELIEVED || (ok && reply->status == 200 && j->names_job));
    CHECK((j->error_code == NULL) == (j->kind == REPLY_BELIEVED));
    CHECK((j->error_message == NULL) == (j->error_code == NULL));
    CHECK(!shows_key(j->message, reply->api_key) && !shows_key(j->error_code, reply->api_key) &&
          !shows_key(j->error_message, reply->api_key));

    /* Final is only what the contract says is. */
    int s = reply->status;
    bool retried = !ok || (success && j->kind != REPLY_BELIEVED) || s == 408 || s == 425 ||
                   s == 429 || (s >= 500 && s != 501);
    CHECK((j->verdict == VERDICT_RETRY) == retried);

    struct json_object *root = NULL, *named = NULL;
    bool whole = json_parse(reply->body, reply->body_len, &root, NULL) == 0 &&
                 json_object_is_type(root, json_type_object);
    bool ours = whole && json_object_object_get_ex(root, "job_id", &named) &&
                json_object_is_type(named, json_type_string) &&
                strcmp(json_object_get_string(named), job_id) == 0;
    CHECK((j->kind == REPLY_BELIEVED) == (ok && s == 200 && ours));
    json_object_put(root);
}

static void check_endpoint(const struct judgement *j)
{
    bool gone = endpoint_may_be_gone(j);
    CHECK(!gone || (j->kind == REPLY_REFUSED && (j->http_status == 404 || j->http_status == 405 ||
                                                 j->http_status == 410 || j->http_status == 501)));
    CHECK(endpoint_second_answer(j) != ENDPOINT_GONE || j->envelope || j->names_job);
}

static void check_verify(const struct reply *reply, const char *job_id, const struct fields *f,
                         const struct judgement *j, struct request *req)
{
    struct finding finding;
    bool believed = has(f, 'L');
    req->trail.believed = believed;
    req->trail.server_errors = has(f, 'R');
    for (int mode = API_VERIFY_NEVER; mode <= API_VERIFY_ALWAYS; mode++)
        CHECK(!verify_wanted((enum api_verify) mode, &req->trail, j, has(f, 'S')) ||
              (mode != API_VERIFY_NEVER && j->kind != REPLY_NONE));
    verify_note(&req->trail, j);

    CHECK(verify_read(reply, job_id, believed, &finding) == 0);
    CHECK(!finding.decided || finding.outcome == OUTCOME_CANCELLED ||
          finding.outcome == OUTCOME_TOO_LATE);
    CHECK(!finding.decided || reply->status == 200 || (reply->status == 404 && believed));
    CHECK(!finding.decided || reply->transport == TRANSPORT_OK || reply->truncated);
    CHECK(!shows_key(finding.job_status, reply->api_key));
    CHECK(request_set_text(&req->job_status, finding.job_status) == 0);
    free(finding.job_status);
}

static void check_result(const struct reply *reply, const struct judgement *j, struct request *req)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    request_set_state(req, REQUEST_DONE);
    req->n = 1;
    req->done_at_ms = 1700000001000;
    req->outcome = j->outcome;
    req->http_status = j->http_status;
    CHECK(request_set_text(&req->message, j->message) == 0);
    CHECK(request_set_text(&req->error_code, j->error_code) == 0);
    CHECK(request_set_text(&req->error_message, j->error_message) == 0);
    CHECK(request_append_result(&b, req) == 0);
    CHECK(b.len < 256 * 1024); /* or the log's recovery would take it for torn */
    json_object_put(fuzz_check_result(b.data, b.len));
    CHECK(!shows_key(req->message, reply->api_key) && !shows_key(req->error_code, reply->api_key) &&
          !shows_key(req->error_message, reply->api_key));
    buf_finish(&b);
}

/* The words around the headers, in which a key of a few letters may be. */
#define OURS " since 0123456789-, to be removed on (Deprecation: )"

static void check_headers(const struct reply *reply)
{
    char text[DEPRECATION_TEXT_MAX];
    memset(text, 'x', sizeof(text));
    deprecation_describe(reply->deprecation, reply->sunset, reply->api_key, text);
    CHECK(!shows_key(text, reply->api_key) || shows_key(OURS, reply->api_key));
    CHECK(memchr(text, '\0', sizeof(text)) != NULL);
    CHECK((text[0] == '\0') == (reply->deprecation == NULL && reply->sunset == NULL));
}

static struct reply make_reply(const struct fields *f, int status, const char *body, size_t len)
{
    enum transport transport = has(f, 'T')                                 ? TRANSPORT_TIMEOUT
                               : has(f, 'X')                               ? TRANSPORT_TLS
                               : has(f, 'F') || has(f, 'Z') || status == 0 ? TRANSPORT_FAILED
                                                                           : TRANSPORT_OK;
    return (struct reply){
        .transport = transport,
        .sent = transport == TRANSPORT_OK || has(f, 'S'),
        .resent = has(f, 'R'),
        .trouble = transport != TRANSPORT_OK ? f->trouble : NULL,
        .status = status,
        .body = body,
        .body_len = len,
        .truncated = transport == TRANSPORT_FAILED && has(f, 'Z'),
        .api_key = f->key,
        .deprecation = f->deprecation[0] != '\0' ? f->deprecation : NULL,
        .sunset = f->sunset[0] != '\0' ? f->sunset : NULL,
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { .at = (const char *) data, .left = size };
    int status = (int) (fuzz_number(&in) % 1000);
    struct fields f = { .flags = fuzz_field(&in) };
    f.job_id = fuzz_field(&in);
    f.key = fuzz_field(&in);
    f.trouble = fuzz_field(&in);
    f.deprecation = fuzz_field(&in);
    f.sunset = fuzz_field(&in);
    make_key(f.key);
    const char *job_id = fuzz_is_job_id(f.job_id) ? f.job_id : "job-1";
    char *body = fuzz_copy(in.at, in.left);
    struct reply reply = make_reply(&f, status < 0 ? -status : status, body, in.left);

    struct judgement j;
    struct request *req = request_create(SOURCE_SOCKET, "r", job_id, strlen(job_id), "uid=0 pid=1",
                                         1700000000000, 1700003600000);
    CHECK(verdict_judge(&reply, job_id, &j) == 0);
    check_judgement(&reply, job_id, &j);
    check_endpoint(&j);
    check_verify(&reply, job_id, &f, &j, req);
    check_headers(&reply);
    check_result(&reply, &j, req);

    char path[ENDPOINT_PATH_MAX];
    endpoint_path(ENDPOINT_CANCEL, job_id, path);
    CHECK(strncmp(path, "/cancel/", 8) == 0 && strpbrk(path + 8, "/:?# ") == NULL);

    request_destroy(req);
    judgement_finish(&j);
    free(body);
    free(f.flags);
    free(f.job_id);
    free(f.key);
    free(f.trouble);
    free(f.deprecation);
    free(f.sunset);
    return 0;
}
