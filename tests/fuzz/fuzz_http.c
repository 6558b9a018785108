/* What comes over the wire: the input, after its first byte, is all that a server answers before it
 * ends the connection. libcurl reads it, dispatch/http.c makes a reply of it. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "dispatch/http.h"
#include "policy/retry.h"
#include "policy/verdict.h"

#define KEY "s3cret-of-the-fuzzer"
#define RETRY_AFTER_MAX_MS (INT64_C(1000) * INT32_MAX)

/* One process, one server and one client, on one loop. */
struct scene {
    uv_loop_t loop;
    uv_tcp_t listener;
    struct http *http;
    const char *text; /* the answer */
    size_t len;
    bool reset; /* instead of an orderly end */
    size_t n_peers;
    size_t n_done;
};

struct peer {
    uv_tcp_t tcp;
    uv_write_t write;
    struct scene *scene;
    char request[4096];
    size_t request_len;
    bool answered;
};

/* --- The server --- */

static void on_closed(uv_handle_t *handle)
{
    struct peer *peer = handle->data;
    peer->scene->n_peers--;
    free(peer);
}

static void end(struct peer *peer)
{
    if (!uv_is_closing((uv_handle_t *) &peer->tcp))
        uv_close((uv_handle_t *) &peer->tcp, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
    struct peer *peer = write->data;
    (void) status;
    if (!peer->scene->reset || uv_is_closing((uv_handle_t *) &peer->tcp) ||
        uv_tcp_close_reset(&peer->tcp, on_closed) < 0)
        end(peer);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct peer *peer = handle->data;
    (void) size;
    *ret = uv_buf_init(peer->request + peer->request_len,
                       (unsigned) (sizeof(peer->request) - peer->request_len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *peer = stream->data;
    (void) buf;
    if (n < 0) {
        end(peer);
        return;
    }
    peer->request_len += (size_t) n;
    if (peer->answered || memmem(peer->request, peer->request_len, "\r\n\r\n", 4) == NULL)
        return;
    peer->answered = true;
    peer->write.data = peer;
    uv_buf_t answer = uv_buf_init((char *) peer->scene->text, (unsigned) peer->scene->len);
    CHECK(uv_write(&peer->write, stream, &answer, 1, on_written) == 0);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct scene *s = listener->data;
    CHECK(status == 0);
    struct peer *peer = calloc(1, sizeof(*peer));
    peer->scene = s;
    CHECK(uv_tcp_init(&s->loop, &peer->tcp) == 0);
    peer->tcp.data = peer;
    s->n_peers++;
    CHECK(uv_accept(listener, (uv_stream_t *) &peer->tcp) == 0);
    CHECK(uv_read_start((uv_stream_t *) &peer->tcp, on_alloc, on_read) == 0);
}

/* --- What has to hold --- */

static const char *find(const struct scene *s, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 0; i + n <= s->len; i++)
        if (strncasecmp(s->text + i, what, n) == 0)
            return s->text + i;
    return NULL;
}

static size_t count(const struct scene *s, const char *what)
{
    size_t n = 0;
    for (size_t i = 0; i + strlen(what) <= s->len; i++)
        n += strncasecmp(s->text + i, what, strlen(what)) == 0;
    return n;
}

/* With one head and nothing but a length in it, a whole body has that length. */
static void check_length(const struct scene *s, const struct reply *reply)
{
    const char *header = find(s, "\ncontent-length:");
    if (header == NULL || count(s, "\ncontent-length:") != 1 || count(s, "HTTP/") != 1 ||
        find(s, "transfer-encoding") != NULL || reply->status < 200 || reply->status == 204 ||
        reply->status == 304)
        return;
    const char *end_of_head = find(s, "\r\n\r\n");
    if (end_of_head == NULL || header > end_of_head || find(s, "\n\n") != NULL ||
        find(s, "\n\r") != end_of_head + 1)
        return;
    char number[24] = "";
    const char *from = header + strlen("\ncontent-length:");
    size_t len = (size_t) (s->text + s->len - from);
    memcpy(number, from, len < sizeof(number) ? len : sizeof(number) - 1);
    char *after = NULL;
    unsigned long long want = strtoull(number, &after, 10);
    if (after != number && *after == '\r' && strpbrk(number, "-+") == NULL)
        CHECK(reply->body_len == want);
}

static void check_body(const struct scene *s, const struct reply *reply)
{
    CHECK(reply->body != NULL && reply->body_len <= HTTP_BODY_MAX);
    CHECK(!reply->truncated ||
          (reply->transport == TRANSPORT_FAILED && reply->body_len == HTTP_BODY_MAX));
    if (find(s, "chunked") == NULL && reply->body_len > 0)
        CHECK(memmem(s->text, s->len, reply->body, reply->body_len) != NULL);
    if (reply->transport == TRANSPORT_OK)
        check_length(s, reply);
}

static void check_headers(const struct scene *s, const struct reply *reply)
{
    int64_t after_ms = reply->retry_after_ms;
    CHECK(after_ms >= 0 && after_ms <= RETRY_AFTER_MAX_MS);
    CHECK(after_ms == 0 || find(s, "retry-after") != NULL);
    CHECK(reply->deprecation == NULL || find(s, "deprecation") != NULL);
    CHECK(reply->sunset == NULL || find(s, "sunset") != NULL);

    struct retry_policy policy = { .base_delay_ms = 1000, .max_delay_ms = 300000 };
    int64_t delay_ms = retry_delay_ms(&policy, (unsigned) s->len, s->len * 7919, after_ms);
    CHECK(delay_ms >= 1 && delay_ms <= policy.max_delay_ms);
    CHECK(delay_ms >= (after_ms < policy.max_delay_ms ? after_ms : policy.max_delay_ms));
}

/* A connection that ends amid the last head has brought no reply. */
static void check_head(const struct scene *s, const struct reply *reply)
{
    if (reply->transport != TRANSPORT_OK || reply->body_len > 0 || reply->status == 204 ||
        reply->status == 304 || find(s, "content-length") != NULL ||
        find(s, "transfer-encoding") != NULL)
        return;
    size_t at = s->len - 5;
    while (at > 0 && (s->text[at - 1] != '\n' || strncasecmp(s->text + at, "HTTP/", 5) != 0))
        at--;
    const char *head = s->text + at;
    CHECK(memmem(head, s->len - at, "\n\r", 2) != NULL ||
          memmem(head, s->len - at, "\n\n", 2) != NULL);
}

static void on_done(void *userdata, void *context, const struct reply *reply)
{
    struct scene *s = userdata;
    CHECK(context == s);
    s->n_done++;
    uv_stop(&s->loop);

    bool ok = reply->transport == TRANSPORT_OK;
    CHECK(ok == (reply->trouble == NULL));
    CHECK(ok || reply->trouble[0] != '\0');
    CHECK(!ok || (reply->sent && reply->status >= 200 && reply->status <= 999));
    CHECK(!ok || (s->len > 5 && strncasecmp(s->text, "HTTP/", 5) == 0));
    /* For curl, whatever line begins with a CR is the empty one. */
    CHECK(!ok || memmem(s->text, s->len, "\n\r", 2) != NULL ||
          memmem(s->text, s->len, "\n\n", 2) != NULL);
    CHECK(reply->transport != TRANSPORT_TIMEOUT && reply->transport != TRANSPORT_TLS);
    CHECK(strcmp(reply->api_key, KEY) == 0);
    check_head(s, reply);
    check_body(s, reply);
    check_headers(s, reply);

    struct judgement j;
    CHECK(verdict_judge(reply, "job-1", &j) == 0);
    CHECK(j.kind != REPLY_BELIEVED || find(s, "job-1") != NULL || find(s, "\\u00") != NULL ||
          find(s, "chunked") != NULL);
    judgement_finish(&j);
}

/* --- The scene --- */

static struct scene *scene(void)
{
    static struct scene s;
    if (s.http != NULL)
        return &s;
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int len = sizeof(address);
    CHECK(uv_loop_init(&s.loop) == 0);
    CHECK(uv_tcp_init(&s.loop, &s.listener) == 0);
    s.listener.data = &s;
    CHECK(uv_tcp_bind(&s.listener, (struct sockaddr *) &address, 0) == 0);
    CHECK(uv_listen((uv_stream_t *) &s.listener, 16, on_connection) == 0);
    CHECK(uv_tcp_getsockname(&s.listener, (struct sockaddr *) &address, &len) == 0);

    char base_url[64];
    (void) snprintf(base_url, sizeof(base_url), "http://127.0.0.1:%d", ntohs(address.sin_port));
    const struct http_options options = {
        .base_url = base_url,
        .api_key = KEY,
        .ca_file = "",
        .proxy = "",
        .connect_timeout_ms = 60000,
        .timeout_ms = 60000,
        .max_connections = 1,
    };
    CHECK(http_create(&s.http, &s.loop, on_done, &s) == 0);
    CHECK(http_configure(s.http, &options) == 0);
    return &s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scene *s = scene();
    if (size == 0)
        return 0;
    s->text = (const char *) data + 1;
    s->len = size - 1;
    s->reset = data[0] == 'R';
    s->n_done = 0;
    enum http_method method = data[0] == 'D' ? HTTP_DELETE : data[0] == 'G' ? HTTP_GET : HTTP_POST;
    CHECK(http_send(s->http, method, "/cancel/job-1", s) == 0);
    while (s->n_done == 0)
        (void) uv_run(&s->loop, UV_RUN_ONCE);
    CHECK(s->n_done == 1);
    /* Until the server's end is closed, so that the next exchange finds no connection half open. */
    while (s->n_peers > 0)
        (void) uv_run(&s->loop, UV_RUN_ONCE);
    (void) uv_run(&s->loop, UV_RUN_NOWAIT);
    CHECK(s->n_done == 1);
    return 0;
}
