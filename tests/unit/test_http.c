/* Exchanges with a server that says what the test wants, on the same loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "dispatch/http.h"

#define KEY "s3cret-key"
#define REQUESTS_MAX 8

/* The loop stops whenever something has happened that a test may wait for. */

/* What the server does once a whole request has come. */
struct answer {
    const char *text;
    size_t padding; /* so many blanks after the text */
    bool flood;     /* blanks without end */
    bool close;
    bool reset;
    bool deaf; /* listens no more */
};

struct peer {
    uv_tcp_t tcp;
    struct fixture *f;
    struct buf request;
};

struct got {
    bool done;
    enum transport transport;
    bool sent, truncated;
    int status;
    char *trouble, *body, *deprecation, *sunset;
    size_t body_len;
    int64_t retry_after_ms;
};

struct fixture {
    uv_loop_t loop;
    uv_tcp_t listener;
    int port;
    struct http *http;
    struct http_options options;
    char base_url[64];
    const struct answer *answers; /* the next one */
    char *requests[REQUESTS_MAX];
    size_t n_requests;
    size_t n_connections, n_closed;
    struct got got;
};

/* --- The server --- */

static void on_peer_closed(uv_handle_t *handle)
{
    struct peer *peer = handle->data;
    peer->f->n_closed++;
    uv_stop(&peer->f->loop);
    buf_finish(&peer->request);
    free(peer);
}

static void peer_close(struct peer *peer)
{
    if (!uv_is_closing((uv_handle_t *) &peer->tcp))
        uv_close((uv_handle_t *) &peer->tcp, on_peer_closed);
}

static void on_written(uv_write_t *write, int status)
{
    free(write->data);
    free(write);
    assert_true(status <= 0);
}

static void peer_write(struct peer *peer, const char *text, size_t padding)
{
    size_t len = strlen(text) + padding;
    uv_write_t *write = calloc(1, sizeof(*write));
    char *data = malloc(len + 1);
    memcpy(data, text, strlen(text));
    memset(data + strlen(text), ' ', padding);
    write->data = data;
    uv_buf_t buf = uv_buf_init(data, (unsigned) len);
    assert_int_equal(uv_write(write, (uv_stream_t *) &peer->tcp, &buf, 1, on_written), 0);
}

/* Ends when the client closes. */
static void on_flooded(uv_write_t *write, int status)
{
    static char blanks[65536];
    memset(blanks, ' ', sizeof(blanks));
    struct peer *peer = write->data;
    if (status < 0) {
        free(write);
        peer_close(peer);
        return;
    }
    uv_buf_t buf = uv_buf_init(blanks, sizeof(blanks));
    if (uv_write(write, (uv_stream_t *) &peer->tcp, &buf, 1, on_flooded) < 0) {
        free(write);
        peer_close(peer);
    }
}

static void peer_answer(struct peer *peer)
{
    struct fixture *f = peer->f;
    assert_true(f->n_requests < REQUESTS_MAX);
    const struct answer *answer = f->answers++;
    f->requests[f->n_requests++] = strdup(buf_cstr(&peer->request));
    buf_clear(&peer->request);
    if (answer->deaf)
        uv_close((uv_handle_t *) &f->listener, NULL);
    if (answer->text != NULL)
        peer_write(peer, answer->text, answer->padding);
    if (answer->flood) {
        uv_write_t *write = calloc(1, sizeof(*write));
        write->data = peer;
        on_flooded(write, 0);
    }
    if (answer->reset)
        (void) uv_tcp_close_reset(&peer->tcp, on_peer_closed);
    else if (answer->close)
        peer_close(peer);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char space[65536];
    (void) handle;
    (void) size;
    *buf = uv_buf_init(space, sizeof(space));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *peer = stream->data;
    if (n < 0) {
        peer_close(peer);
        return;
    }
    assert_int_equal(buf_append(&peer->request, buf->base, (size_t) n), 0);
    /* Whatever follows a CONNECT is TLS, and is not read. */
    const char *text = buf_cstr(&peer->request);
    if (text != NULL && strstr(text, "\r\n\r\n") != NULL)
        peer_answer(peer);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct fixture *f = listener->data;
    assert_int_equal(status, 0);
    struct peer *peer = calloc(1, sizeof(*peer));
    peer->f = f;
    buf_init(&peer->request, 1 << 20);
    (void) uv_tcp_init(&f->loop, &peer->tcp);
    peer->tcp.data = peer;
    assert_int_equal(uv_accept(listener, (uv_stream_t *) &peer->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *) &peer->tcp, on_alloc, on_read), 0);
    f->n_connections++;
}

/* --- The client --- */

static char *copy(const char *text)
{
    return text != NULL ? strdup(text) : NULL;
}

static void forget(struct got *got)
{
    free(got->trouble);
    free(got->body);
    free(got->deprecation);
    free(got->sunset);
    *got = (struct got){ 0 };
}

static void on_done(void *userdata, void *context, const struct reply *reply)
{
    struct fixture *f = userdata;
    assert_ptr_equal(context, &f->got);
    assert_string_equal(reply->api_key, KEY);
    f->got = (struct got){
        .done = true,
        .transport = reply->transport,
        .sent = reply->sent,
        .truncated = reply->truncated,
        .status = reply->status,
        .trouble = copy(reply->trouble),
        .body = malloc(reply->body_len + 1),
        .body_len = reply->body_len,
        .deprecation = copy(reply->deprecation),
        .sunset = copy(reply->sunset),
        .retry_after_ms = reply->retry_after_ms,
    };
    uv_stop(&f->loop);
    memcpy(f->got.body, reply->body, reply->body_len);
    f->got.body[reply->body_len] = '\0';
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int len = sizeof(address);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    (void) uv_tcp_init(&f->loop, &f->listener);
    f->listener.data = f;
    assert_int_equal(uv_tcp_bind(&f->listener, (struct sockaddr *) &address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *) &f->listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&f->listener, (struct sockaddr *) &address, &len), 0);
    f->port = ntohs(address.sin_port);
    (void) snprintf(f->base_url, sizeof(f->base_url), "http://127.0.0.1:%d", f->port);

    assert_int_equal(http_create(&f->http, &f->loop, on_done, f), 0);
    f->options = (struct http_options){
        .base_url = f->base_url,
        .api_key = KEY,
        .ca_file = "",
        .proxy = "",
        .connect_timeout_ms = 60000,
        .timeout_ms = 60000,
        .max_connections = 4,
    };
    assert_int_equal(http_configure(f->http, &f->options), 0);
    *state = f;
    return 0;
}

static void on_stopped(void *userdata)
{
    *(bool *) userdata = true;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    bool stopped = false;
    http_stop(f->http, on_stopped, &stopped);
    if (!uv_is_closing((uv_handle_t *) &f->listener))
        uv_close((uv_handle_t *) &f->listener, NULL);
    (void) uv_run(&f->loop,
                  UV_RUN_DEFAULT); /* ends: the client's sockets are closed, and so ours */
    assert_true(stopped);
    assert_int_equal(f->n_closed, f->n_connections);
    http_destroy(f->http);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    for (size_t i = 0; i < f->n_requests; i++)
        free(f->requests[i]);
    forget(&f->got);
    free(f);
    return 0;
}

static const struct got *exchange(struct fixture *f, enum http_method method)
{
    forget(&f->got);
    assert_int_equal(http_send(f->http, method, "/job/a", &f->got), 0);
    while (!f->got.done)
        (void) uv_run(&f->loop, UV_RUN_DEFAULT);
    return &f->got;
}

static void use_proxy(struct fixture *f, const char *proxy)
{
    f->options.proxy = proxy;
    assert_int_equal(http_configure(f->http, &f->options), 0);
}

/* --- The tests --- */

#define OK                                                                                         \
    {                                                                                              \
        .text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"                                   \
    }
#define FLOOD                                                                                      \
    {                                                                                              \
        .text = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{\"status\": \"x\"",        \
        .flood = true,                                                                             \
    }

static const enum http_method methods[] = { HTTP_POST, HTTP_DELETE, HTTP_GET };

static void test_methods(void **state)
{
    static const char *const starts[] = { "POST /job/a HTTP/1.1\r\n", "DELETE /job/a HTTP/1.1\r\n",
                                          "GET /job/a HTTP/1.1\r\n" };
    static const struct answer answers[] = { OK, OK, OK, OK, OK, OK };
    struct fixture *f = *state;
    f->answers = answers;
    for (size_t i = 0; i < 6; i++) {
        const struct got *got = exchange(f, methods[i % 3]);
        assert_int_equal(got->transport, TRANSPORT_OK);
        assert_true(got->sent);
        assert_int_equal(got->status, 200);
        assert_string_equal(got->body, "{}");
        assert_null(got->trouble);
        assert_memory_equal(f->requests[i], starts[i % 3], strlen(starts[i % 3]));
        assert_non_null(strstr(f->requests[i], "\r\nx-api-key: " KEY "\r\n"));
    }
    assert_int_equal(f->n_connections, 1);
}

static void test_a_body_of_the_most(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n{}", .padding = 65534 },
    };
    struct fixture *f = *state;
    f->answers = answers;
    const struct got *got = exchange(f, HTTP_GET);
    assert_int_equal(got->transport, TRANSPORT_OK);
    assert_false(got->truncated);
    assert_int_equal(got->body_len, HTTP_BODY_MAX);
}

/* The server goes on for ever: only a closed connection ends it. */
static void test_a_longer_body_is_cut(void **state)
{
    static const struct answer answers[] = { FLOOD, FLOOD, FLOOD };
    struct fixture *f = *state;
    f->answers = answers;
    for (size_t i = 0; i < 3; i++) {
        const struct got *got = exchange(f, methods[i]);
        assert_int_equal(got->transport, TRANSPORT_FAILED);
        assert_true(got->truncated);
        assert_true(got->sent);
        assert_int_equal(got->status, 200);
        assert_int_equal(got->body_len, HTTP_BODY_MAX);
        assert_memory_equal(got->body, "{\"status\": \"x\" ", 15);
        assert_string_equal(got->trouble, "the reply's body is longer than 64 KiB");
        while (f->n_closed < i + 1)
            (void) uv_run(&f->loop, UV_RUN_DEFAULT);
    }
}

static void test_a_body_with_one_byte_too_many(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n{}", .padding = 65535 },
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
    };
    struct fixture *f = *state;
    f->answers = answers;
    assert_true(exchange(f, HTTP_GET)->truncated);
    assert_int_equal(f->got.body_len, HTTP_BODY_MAX);
    assert_false(exchange(f, HTTP_GET)->truncated);
    assert_int_equal(f->got.transport, TRANSPORT_OK);
    assert_int_equal(f->got.body_len, 0);
    assert_int_equal(f->n_connections, 2);
}

/* One that ends too soon is not one that is too long. */
static void test_a_body_that_breaks_off(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", .close = true },
    };
    struct fixture *f = *state;
    f->answers = answers;
    const struct got *got = exchange(f, HTTP_GET);
    assert_int_equal(got->transport, TRANSPORT_FAILED);
    assert_false(got->truncated);
    assert_string_equal(got->body, "{}");
}

static void test_headers_of_the_reply(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDeprecation: @1688169599\r\n"
                  "sunset:  Sat, 31 Dec 2033 23:59:59 GMT \r\n\r\n" },
        { .text = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nSunset: soon\r\n\r\n" },
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Deprecation: @1\r\n\r\n" },
        { .close = true },
        { .close = true }, /* curl tries a kept connection's once more */
    };
    struct fixture *f = *state;
    f->answers = answers;
    const struct got *got = exchange(f, HTTP_POST);
    assert_string_equal(got->deprecation, "@1688169599");
    assert_string_equal(got->sunset, "Sat, 31 Dec 2033 23:59:59 GMT");
    got = exchange(f, HTTP_POST);
    assert_null(got->deprecation);
    assert_string_equal(got->sunset, "soon");
    got = exchange(f, HTTP_POST);
    assert_null(got->deprecation);
    assert_null(got->sunset);
    got = exchange(f, HTTP_POST);
    assert_int_equal(got->status, 0);
    assert_null(got->deprecation);
}

/* Such a line goes on with the header before it, which must not be one of the reply before: libcurl
 * before 8.1.0 keeps a pointer to that in its handle (curl issue 11101). */
static void test_a_first_header_that_goes_on(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Last: of the reply\r\n\r\n" },
        { .text = "HTTP/1.1 200 OK\r\n\tSunset: soon\r\nContent-Length: 2\r\n\r\n{}" },
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" },
    };
    struct fixture *f = *state;
    f->answers = answers;
    (void) exchange(f, HTTP_POST);
    /* Some versions refuse it, others take it for a header. */
    const struct got *got = exchange(f, HTTP_POST);
    assert_true(got->transport == TRANSPORT_FAILED || strcmp(got->body, "{}") == 0);
    got = exchange(f, HTTP_POST);
    assert_int_equal(got->transport, TRANSPORT_OK);
    assert_string_equal(got->body, "[]");
}

/* The head of a 1xx is not the reply's, however HTTP is spelt. */
static void test_a_head_that_is_cut_short(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nSunset: s", .close = true },
        { .text = "HTTP/1.1 100 Continue\r\n\r\nhttp/1.1 404 No\r\nSunset: s", .close = true },
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        f->answers = &answers[i];
        assert_int_equal(exchange(f, HTTP_POST)->transport, TRANSPORT_FAILED);
    }
}

/* What is no answer must not be taken for a refusal, which is final. */
static void test_no_status(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/200 OK\r\nContent-Length: 0\r\n\r\n", .close = true },
        { .text = "HTTP/1.1 101 Switching Protocols\r\n\r\n", .close = true },
        { .text = "HTTP/1.1 099 No\r\n\r\n", .close = true },
        { .text = "HTTP/2 40000 No\r\n\r\n", .close = true },
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        f->answers = &answers[i];
        const struct got *got = exchange(f, HTTP_POST);
        assert_int_equal(got->transport, TRANSPORT_FAILED);
        assert_true(got->sent);
        assert_non_null(got->trouble);
    }
}

static void test_retry_after(void **state)
{
    static const struct {
        struct answer answer;
        int64_t ms;
    } cases[] = {
        { { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n" }, 7000 },
        { { .text =
                "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nRetry-After: 99999999999999999999\r\n\r\n" },
          (int64_t) INT32_MAX * 1000 },
        { { .text = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n" }, 7000 },
        { { .text = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" }, 0 },
        { { .text = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: soon\r\n\r\n" }, 0 },
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f->answers = &cases[i].answer;
        assert_int_equal(exchange(f, HTTP_POST)->retry_after_ms, cases[i].ms);
    }
}

/* curl sends once more by itself when a kept connection is reset before any of the reply. */
static void test_a_kept_connection_that_dies(void **state)
{
    static const struct answer answers[] = {
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" },
        { .reset = true },
        { .text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" },
        { .reset = true, .deaf = true },
    };
    struct fixture *f = *state;
    f->answers = answers;
    (void) exchange(f, HTTP_POST);
    const struct got *got = exchange(f, HTTP_POST);
    assert_int_equal(got->transport, TRANSPORT_OK);
    assert_true(got->sent);
    assert_string_equal(got->body, "[]");
    assert_int_equal(f->n_requests, 3);
    assert_int_equal(f->n_connections, 2);
    /* Sent once, and not again since nobody listens: it went out all the same. */
    got = exchange(f, HTTP_POST);
    assert_int_equal(got->transport, TRANSPORT_FAILED);
    assert_true(got->sent);
    assert_int_equal(f->n_requests, 4);
    assert_int_equal(f->n_connections, 2);
    /* And this one did not. */
    got = exchange(f, HTTP_POST);
    assert_int_equal(got->transport, TRANSPORT_FAILED);
    assert_false(got->sent);
}

/* Whatever curl thinks of a proxy's user and password: it never shows them, and never does without
 * the proxy. */
static void test_secrets_of_a_proxy(void **state)
{
    static const char *const user_infos[] = {
        "user:s3same@",  "user:s3same@x@",  "user@x:s3same@", "user:s3same%00@", "user:s3same%0a@",
        "s3same%00:p@",  ":s3same@",        "s3same@",        "s3same:@",        "@",
        "user:s3same[@", "user:s3same%ff@",
    };
    static const char *const schemes[] = {
        "http", "https", "socks4", "socks4a", "socks5", "socks5h"
    };
    struct fixture *f = *state;
    uv_close((uv_handle_t *) &f->listener, NULL);
    f->options.base_url = "https://127.0.0.2:1";
    for (size_t i = 0; i < sizeof(user_infos) / sizeof(user_infos[0]); i++) {
        for (size_t j = 0; j < sizeof(schemes) / sizeof(schemes[0]); j++) {
            char proxy[96];
            (void) snprintf(proxy, sizeof(proxy), "%s://%s127.0.0.1:%d", schemes[j], user_infos[i],
                            f->port);
            use_proxy(f, proxy);
            const struct got *got = exchange(f, HTTP_POST);
            assert_int_equal(got->transport, TRANSPORT_FAILED);
            assert_false(got->sent);
            assert_null(strstr(got->trouble, "s3same"));
            assert_null(strstr(got->trouble, "127.0.0.2"));
        }
    }
}

/* The CONNECT is no request of ours. */
static void test_a_proxy_that_does_not_connect(void **state)
{
    static const struct {
        struct answer answer;
        enum transport transport;
    } cases[] = {
        { { .text =
                "HTTP/1.1 407 Who are you\r\nContent-Length: 4\r\n"
                "Proxy-Authenticate: Basic realm=x\r\nSunset: soon\r\nRetry-After: 9\r\n\r\nnope" },
          TRANSPORT_FAILED },
        { { .text = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            .close = true },
          TRANSPORT_FAILED },
        { { .close = true }, TRANSPORT_FAILED },
        { { .reset = true }, TRANSPORT_FAILED },
        { { .text = "HTTP/1.1 200 OK\r\n\r\n", .close = true }, TRANSPORT_TLS },
        { { .text = "HTTP/1.1 200 OK\r\n\r\nno TLS, this", .close = true }, TRANSPORT_TLS },
    };
    struct fixture *f = *state;
    char proxy[64];
    (void) snprintf(proxy, sizeof(proxy), "http://user:pa%%40ss@127.0.0.1:%d", f->port);
    f->options.base_url = "https://api.invalid";
    use_proxy(f, proxy);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f->answers = &cases[i].answer;
        const struct got *got = exchange(f, HTTP_POST);
        assert_int_equal(got->transport, cases[i].transport);
        assert_false(got->sent);
        assert_int_equal(got->status, 0);
        assert_int_equal(got->body_len, 0);
        assert_null(got->sunset);
        assert_int_equal(got->retry_after_ms, 0);
        assert_null(strstr(got->trouble, "pa"));
        assert_memory_equal(f->requests[i], "CONNECT api.invalid:443 HTTP/1.1\r\n", 34);
        assert_null(strstr(f->requests[i], KEY));
        /* user:pa@ss */
        assert_non_null(strstr(f->requests[i], "Proxy-Authorization: Basic dXNlcjpwYUBzcw==\r\n"));
    }
    assert_int_equal(f->n_requests, sizeof(cases) / sizeof(cases[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_methods, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_body_of_the_most, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_longer_body_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_body_with_one_byte_too_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_body_that_breaks_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_headers_of_the_reply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_first_header_that_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_head_that_is_cut_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_status, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_retry_after, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_kept_connection_that_dies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_secrets_of_a_proxy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_proxy_that_does_not_connect, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
