/* libcurl's multi interface on a libuv loop. Runs on the loop thread.
 *
 * curl's own connections keep their poll handle from opening to closing of the socket, also while
 * they are idle between two requests: that saves two epoll_ctl() a request. The sockets that curl
 * polls without having opened them through us (its resolver's) lose it when curl says REMOVE, since
 * nobody tells when they are closed.
 *
 * libcurl 7.88 does not tell either when it closes a connection that is still being made (curl pull
 * request 11439), as at a timeout: at REMOVE such a socket is not there any more, and its descriptor may
 * be another file's, or that of curl's next socket, which it may take for the one before and then does
 * not ask to poll. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "dispatch/http_private.h"

struct http_sock {
    uv_poll_t poll;
    struct http_loop *loop;
    curl_socket_t fd;
    bool ours; /* made by on_open_socket(); then the socket's identity is known: */
    dev_t device;
    ino_t inode;
    bool connected; /* curl has wanted to read from it */
    bool wanted;    /* curl waits for it; otherwise it is a connection at rest */
    int events;
};

/* --- Sockets --- */

static void on_sock_closed(uv_handle_t *handle);

static void sock_close(struct http_sock *s)
{
    s->loop->socks[s->fd] = NULL;
    s->loop->unconnected |= s->ours && !s->connected;
    uv_close((uv_handle_t *) &s->poll, on_sock_closed);
}

static struct http_sock *sock_find(struct http_loop *l, curl_socket_t fd)
{
    return (size_t) fd < l->n_socks ? l->socks[fd] : NULL;
}

static struct http_sock *sock_create(struct http_loop *l, curl_socket_t fd, bool ours)
{
    if ((size_t) fd >= l->n_socks) {
        size_t n = (size_t) fd * 2 + 16;
        struct http_sock **grown = realloc(l->socks, n * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        memset(grown + l->n_socks, 0, (n - l->n_socks) * sizeof(*grown));
        l->socks = grown;
        l->n_socks = n;
    }
    struct http_sock *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    *s = (struct http_sock){ .loop = l, .fd = fd, .ours = ours };
    if (uv_poll_init_socket(l->uv, &s->poll, fd) < 0) {
        free(s);
        return NULL;
    }
    s->poll.data = s;
    l->socks[fd] = s;
    l->open_handles++;
    return s;
}

static bool sock_is_open(const struct http_sock *s)
{
    struct stat st;
    return fstat(s->fd, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode;
}

static int on_close_socket(void *userdata, curl_socket_t fd)
{
    struct http_sock *s = sock_find(userdata, fd);
    if (s != NULL)
        sock_close(s); /* stops polling at once; the memory goes later */
    return close(fd);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static int sock_poll(struct http_sock *s, int events)
{
    s->wanted = true;
    s->connected |= (events & UV_READABLE) != 0;
    if (events == s->events)
        return 0;
    s->events = events;
    return uv_poll_start(&s->poll, events, on_poll);
}

/* Watches a new socket; like `old`, if there is one, which was closed without a word. */
static int sock_watch(struct http_loop *l, curl_socket_t fd, struct http_sock *old)
{
    int events = old != NULL && old->wanted ? old->events : 0;
    if (old != NULL)
        sock_close(old);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    struct http_sock *s = sock_create(l, fd, true);
    if (s == NULL)
        return -ENOMEM;
    s->device = st.st_dev;
    s->inode = st.st_ino;
    return events != 0 ? sock_poll(s, events) : 0;
}

static curl_socket_t on_open_socket(void *userdata, curlsocktype purpose,
                                    struct curl_sockaddr *address)
{
    struct http_loop *l = userdata;
    (void) purpose;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    if (sock_watch(l, fd, sock_find(l, fd)) < 0) {
        (void) on_close_socket(l, fd);
        return CURL_SOCKET_BAD;
    }
    return fd;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata,
                          void *socket_userdata)
{
    struct http_loop *l = userdata;
    (void) easy;
    (void) socket_userdata;
    struct http_sock *s = sock_find(l, fd);

    if (what == CURL_POLL_REMOVE) {
        if (s != NULL && s->ours && sock_is_open(s))
            s->wanted = false;
        else if (s != NULL)
            sock_close(s);
        return 0;
    }
    if (s == NULL)
        s = sock_create(l, fd, false);
    if (s == NULL)
        return -1;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return sock_poll(s, events) < 0 ? -1 : 0;
}

/* --- What the loop brings --- */

static void act(struct http_loop *l, curl_socket_t fd, int mask)
{
    int running, left;
    CURLMsg *msg;
    l->unconnected = false;
    CURLMcode rc = curl_multi_socket_action(l->multi, fd, mask, &running);
    /* libcurl before 8.4 goes on to the next address of the host when it is called again, and asks for
     * that call too late (curl issue 11920): only this function makes it look at what it did not ask
     * for. (It may forget another handle's timer that runs out meanwhile; after any next event it is
     * looked at all the same.) */
    while (rc == CURLM_OK && l->unconnected) {
        l->unconnected = false;
        CURL_IGNORE_DEPRECATION(rc = curl_multi_socket_all(l->multi, &running);)
    }
    if (rc != CURLM_OK) {
        /* It has forgotten a socket or a timer by now, and an exchange with it. */
        log_error("dispatch: libcurl can't go on: %s",
                  rc == CURLM_OUT_OF_MEMORY ? "out of memory" : curl_multi_strerror(rc));
        abort();
    }
    while ((msg = curl_multi_info_read(l->multi, &left)) != NULL)
        if (msg->msg == CURLMSG_DONE)
            l->done(l->userdata, msg->easy_handle, msg->data.result);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_sock *s = poll->data;
    struct http_loop *l = s->loop;
    if (!s->wanted) {
        /* The server closed a connection at rest, or talks out of turn: curl finds out when it
         * wants to use it. */
        s->events = 0;
        (void) uv_poll_stop(poll);
        return;
    }
    int mask = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
               (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (status < 0) {
        s->events = 0; /* libuv has stopped the handle */
        /* A whole reply may lie before the error, as when the server resets after it. */
        mask = CURL_CSELECT_IN | CURL_CSELECT_ERR;
    }
    act(l, s->fd, mask); /* may close `s` */
}

static void on_timer(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* No curl function may be called from here (curl issue 3537). */
static int on_curl_timer(CURLM *multi, long timeout_ms, void *userdata)
{
    struct http_loop *l = userdata;
    (void) multi;
    if (timeout_ms < 0)
        (void) uv_timer_stop(&l->timer);
    else if (!uv_is_closing((uv_handle_t *) &l->timer))
        (void) uv_timer_start(&l->timer, on_timer, (uint64_t) timeout_ms, 0);
    return 0;
}

/* --- Life --- */

int http_loop_init(struct http_loop *l, uv_loop_t *uv,
                   void (*done)(void *userdata, CURL *easy, CURLcode rc), void *userdata)
{
    *l = (struct http_loop){ .uv = uv, .done = done, .userdata = userdata };
    l->multi = curl_multi_init();
    if (l->multi == NULL)
        return -ENOMEM;
    (void) curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    (void) curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
    (void) curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    (void) curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    (void) curl_multi_setopt(l->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
    (void) uv_timer_init(uv, &l->timer);
    l->timer.data = l;
    l->open_handles = 1;
    return 0;
}

CURLcode http_loop_adopt(struct http_loop *l, CURL *easy)
{
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, l);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, l);
    return rc;
}

static void handle_closed(struct http_loop *l)
{
    if (--l->open_handles == 0 && l->stopping)
        l->stopped(l->stopped_userdata);
}

static void on_sock_closed(uv_handle_t *handle)
{
    struct http_sock *s = handle->data;
    struct http_loop *l = s->loop;
    free(s);
    handle_closed(l);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

void http_loop_stop(struct http_loop *l, void (*stopped)(void *userdata), void *userdata)
{
    l->stopping = true;
    l->stopped = stopped;
    l->stopped_userdata = userdata;
    /* Closes the connections, and so calls back for each socket; resolver sockets too. */
    (void) curl_multi_cleanup(l->multi);
    l->multi = NULL;
    for (size_t i = 0; i < l->n_socks; i++)
        if (l->socks[i] != NULL)
            sock_close(l->socks[i]);
    uv_close((uv_handle_t *) &l->timer, on_timer_closed);
}

void http_loop_finish(struct http_loop *l)
{
    free(l->socks);
    *l = (struct http_loop){ 0 };
}
