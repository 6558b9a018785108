/* HTTP exchanges: libcurl's multi interface driven by libuv. Knows nothing of jobs.
 *
 * Runs on the loop thread. Concurrency is capped by the caller, since curl's timeout counts time
 * queued inside it (curl issue 6744). HTTP/1.1 with keep-alive only; redirects are not followed,
 * proxies come only from the options, .netrc is not read, TLS is always verified. */
#ifndef PULSE_DISPATCH_HTTP_H
#define PULSE_DISPATCH_HTTP_H

#include <stdint.h>

#include <uv.h>

#include "policy/verdict.h"

/* A reply body is read up to this many bytes; a longer one is a transport failure that has its
 * beginning. */
#define HTTP_BODY_MAX 65536

struct http;

struct http_options {
    const char *base_url; /* without trailing slash */
    const char *api_key;
    const char *ca_file; /* "" = the system's */
    const char *proxy;   /* "" = none */
    int64_t connect_timeout_ms;
    int64_t timeout_ms;
    int64_t max_connections; /* kept alive */
};

enum http_method { HTTP_POST, HTTP_DELETE, HTTP_GET };

/* `context` is the exchange's. The reply is valid only during the call; new exchanges may be started
 * in it, but not http_stop(). */
typedef void (*http_done_fn)(void *userdata, void *context, const struct reply *reply);

/* 0 or -errno. */
int http_create(struct http **ret, uv_loop_t *loop, http_done_fn done, void *userdata);

/* For exchanges that start from now on. Everything is copied. 0 or -ENOMEM. */
int http_configure(struct http *h, const struct http_options *options);

/* `path` begins with a slash and is already encoded. 0, or -ENOMEM and `done` is not called. */
int http_send(struct http *h, enum http_method method, const char *path, void *context);

/* Drops what is under way without calling its `done`, closes all, then calls `stopped`. */
void http_stop(struct http *h, void (*stopped)(void *userdata), void *userdata);

/* After http_stop()'s `stopped`; accepts NULL. */
void http_destroy(struct http *h);

#endif
