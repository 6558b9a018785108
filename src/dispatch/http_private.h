/* libcurl's multi interface on a libuv loop: sockets and timer, nothing of what is transferred.
 *
 * Runs on the loop thread. */
#ifndef PULSE_DISPATCH_HTTP_PRIVATE_H
#define PULSE_DISPATCH_HTTP_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include <curl/curl.h>
#include <uv.h>

struct http_sock;

struct http_loop {
    uv_loop_t *uv;
    CURLM *multi;
    uv_timer_t timer;
    struct http_sock **socks; /* by descriptor */
    size_t n_socks;
    size_t open_handles;
    bool unconnected; /* a socket was closed before it was connected, since curl was called */
    void (*done)(void *userdata, CURL *easy, CURLcode rc);
    void *userdata;
    bool stopping;
    void (*stopped)(void *userdata);
    void *stopped_userdata;
};

/* `done` has to take the handle out of the multi, and may add others, but not stop the loop. 0 or
 * -ENOMEM; when it fails there is nothing to finish. */
int http_loop_init(struct http_loop *l, uv_loop_t *uv,
                   void (*done)(void *userdata, CURL *easy, CURLcode rc), void *userdata);

/* Once for a new handle: its sockets are this loop's. */
CURLcode http_loop_adopt(struct http_loop *l, CURL *easy);

/* Closes all connections; no handle may be in the multi any more. `stopped` once all is closed. */
void http_loop_stop(struct http_loop *l, void (*stopped)(void *userdata), void *userdata);

/* After http_loop_stop()'s `stopped`. */
void http_loop_finish(struct http_loop *l);

#endif
