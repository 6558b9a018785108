/* Exchanges, what they are made with, and what came of them. Runs on the loop thread. */
#include "dispatch/http.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "dispatch/http_private.h"

/* What is the same for all exchanges that began under one configuration. */
struct profile {
    size_t refs;
    char *base_url;
    char *ca_file;
    char *proxy; /* without user and password */
    /* Still percent-encoded; NULL = none. */
    char *proxy_user;
    char *proxy_password;
    char *api_key;
    long connect_timeout_ms;
    long timeout_ms;
    struct curl_slist *headers;
};

/* One exchange, with an easy handle of its own: libcurl before 8.1.0 keeps a pointer to the last
 * header of the reply before, and follows it when the next reply's first header begins with a blank
 * (curl issue 11101). Connections are the multi handle's, and are kept. */
struct exchange {
    struct http *http;
    struct profile *profile;
    CURL *easy;
    struct buf body;
    bool head_complete; /* the empty line after the headers came */
    unsigned sends;     /* curl sends again by itself when a kept connection proves to be dead */
    bool too_long;      /* the body has more than fits */
    void *context;
    char trouble[CURL_ERROR_SIZE];
    TAILQ_ENTRY(exchange) link;
};
TAILQ_HEAD(exchange_list, exchange);

struct http {
    struct http_loop loop;
    http_done_fn done;
    void *userdata;
    struct profile *profile;
    struct exchange_list active;
};

/* --- Profiles --- */

static void free_secret(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void profile_unref(struct profile *p)
{
    if (p == NULL || --p->refs > 0)
        return;
    free(p->base_url);
    free(p->ca_file);
    free(p->proxy);
    free_secret(p->proxy_user);
    free_secret(p->proxy_password);
    free_secret(p->api_key);
    for (struct curl_slist *s = p->headers; s != NULL; s = s->next)
        explicit_bzero(s->data, strlen(s->data)); /* the key is among them */
    curl_slist_free_all(p->headers);
    free(p);
}

static int add_header(struct curl_slist **headers, const char *text)
{
    struct curl_slist *grown = curl_slist_append(*headers, text);
    if (grown == NULL)
        return -ENOMEM;
    *headers = grown;
    return 0;
}

static int make_headers(struct profile *p, const char *api_key)
{
    char *key = NULL;
    if (asprintf(&key, "x-api-key: %s", api_key) < 0)
        return -ENOMEM;
    int r = add_header(&p->headers, key);
    explicit_bzero(key, strlen(key));
    free(key);
    if (r == 0)
        r = add_header(&p->headers, "Accept: application/json");
    /* An empty POST is no form, and curl would say that it is one. */
    if (r == 0)
        r = add_header(&p->headers, "Content-Type:");
    if (r == 0)
        r = add_header(&p->headers, "Expect:");
    return r;
}

/* curl gets user and password apart: it shows a proxy's URL in its messages, and goes past a proxy
 * whose user or password it can't decode. */
static int set_proxy(struct profile *p, const char *url)
{
    const char *scheme_end = strstr(url, "://");
    const char *user = scheme_end != NULL ? scheme_end + 3 : url;
    const char *at = memrchr(user, '@', strcspn(user, "/?#"));
    if (at == NULL) {
        p->proxy = strdup(url);
        return p->proxy != NULL ? 0 : -ENOMEM;
    }
    size_t user_len = strcspn(user, ":@");
    const char *password = user[user_len] == ':' ? user + user_len + 1 : at;
    p->proxy_user = strndup(user, user_len);
    p->proxy_password = strndup(password, (size_t) (at - password));
    if (p->proxy_user == NULL || p->proxy_password == NULL ||
        asprintf(&p->proxy, "%.*s%s", (int) (user - url), url, at + 1) < 0) {
        p->proxy = NULL;
        return -ENOMEM;
    }
    return 0;
}

static struct profile *profile_create(const struct http_options *options)
{
    struct profile *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    *p = (struct profile){
        .refs = 1,
        .base_url = strdup(options->base_url),
        .ca_file = strdup(options->ca_file),
        .api_key = strdup(options->api_key),
        .connect_timeout_ms = (long) options->connect_timeout_ms,
        .timeout_ms = (long) options->timeout_ms,
    };
    if (p->base_url == NULL || p->ca_file == NULL || p->api_key == NULL ||
        set_proxy(p, options->proxy) < 0 || make_headers(p, options->api_key) < 0) {
        profile_unref(p);
        return NULL;
    }
    return p;
}

/* --- Exchanges --- */

static void exchange_destroy(struct exchange *x)
{
    if (x == NULL)
        return;
    if (x->easy != NULL)
        curl_easy_cleanup(x->easy);
    profile_unref(x->profile);
    buf_finish(&x->body);
    free(x);
}

/* What is not taken ends the exchange, and its connection with it. */
static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
    struct exchange *x = userdata;
    size_t len = size * n, room = HTTP_BODY_MAX - x->body.len;
    x->too_long = len > room;
    if (buf_append(&x->body, data, x->too_long ? room : len) < 0) {
        x->too_long = false;
        return 0;
    }
    return x->too_long ? 0 : len;
}

/* curl takes a connection that is closed amid the headers for the end of the reply. It does not mind
 * in which letters HTTP is written. */
static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
    struct exchange *x = userdata;
    if (n > 5 && strncasecmp(line, "HTTP/", 5) == 0)
        x->head_complete = false; /* again after a 1xx */
    else if (n > 0 && (line[0] == '\r' || line[0] == '\n'))
        x->head_complete = true;
    return size * n;
}

/* The request is about to go out. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is curl's. */
static int on_send(void *userdata, char *ip, char *local_ip, int port, int local_port)
{
    struct exchange *x = userdata;
    (void) ip;
    (void) local_ip;
    (void) port;
    (void) local_port;
    x->sends++;
    return CURL_PREREQFUNC_OK;
}

static CURLcode set_options(struct exchange *x)
{
    const struct profile *p = x->profile;
    CURL *easy = x->easy;
    CURLcode rc = CURLE_OK;
#define SET(option, value) (rc = rc == CURLE_OK ? curl_easy_setopt(easy, option, value) : rc)
    SET(CURLOPT_PRIVATE, x);
    SET(CURLOPT_ERRORBUFFER, x->trouble);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
    SET(CURLOPT_PATH_AS_IS, 1L);
    /* Both "" rather than unset: otherwise curl looks into the environment. */
    SET(CURLOPT_PROXY, p->proxy);
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_PROXYUSERNAME, p->proxy_user);
    SET(CURLOPT_PROXYPASSWORD, p->proxy_password);
    /* The key is not for a proxy that only has to make a tunnel. */
    SET(CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE);
    /* Whatever the system's OpenSSL is configured to put up with. */
    SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (p->ca_file[0] != '\0') {
        SET(CURLOPT_CAINFO, p->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
    SET(CURLOPT_USERAGENT, "pulse-canceld/" PULSE_VERSION);
    SET(CURLOPT_HTTPHEADER, p->headers);
    SET(CURLOPT_CONNECTTIMEOUT_MS, p->connect_timeout_ms);
    SET(CURLOPT_TIMEOUT_MS, p->timeout_ms);
    /* Else it waits, and the loop with it, until a resolver that has run out of time comes back. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_PREREQFUNCTION, on_send);
    SET(CURLOPT_PREREQDATA, x);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, x);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, x);
#undef SET
    return rc == CURLE_OK ? http_loop_adopt(&x->http->loop, easy) : rc;
}

static CURLcode set_request(struct exchange *x, enum http_method method, const char *url)
{
    CURL *easy = x->easy;
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_URL, url);
    if (rc != CURLE_OK)
        return rc;
    switch (method) {
    case HTTP_POST:
        (void) curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
        (void) curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
        return curl_easy_setopt(easy, CURLOPT_POST, 1L);
    case HTTP_DELETE:
        (void) curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    case HTTP_GET:
        return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    return CURLE_BAD_FUNCTION_ARGUMENT;
}

static struct exchange *exchange_create(struct http *h)
{
    struct exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return NULL;
    x->http = h;
    x->profile = h->profile;
    x->profile->refs++;
    buf_init(&x->body, HTTP_BODY_MAX);
    x->easy = curl_easy_init();
    if (x->easy == NULL || set_options(x) != CURLE_OK) {
        exchange_destroy(x);
        return NULL;
    }
    return x;
}

int http_send(struct http *h, enum http_method method, const char *path, void *context)
{
    struct exchange *x = exchange_create(h);
    if (x == NULL)
        return -ENOMEM;
    x->context = context;

    struct buf url;
    buf_init(&url, 65536);
    bool ok = buf_append_str(&url, x->profile->base_url) == 0 && buf_append_str(&url, path) == 0 &&
              buf_cstr(&url) != NULL && set_request(x, method, buf_cstr(&url)) == CURLE_OK;
    buf_finish(&url);
    if (!ok || curl_multi_add_handle(h->loop.multi, x->easy) != CURLM_OK) {
        exchange_destroy(x);
        return -ENOMEM;
    }
    TAILQ_INSERT_TAIL(&h->active, x, link);
    return 0;
}

/* --- Replies --- */

static enum transport transport_of(CURLcode rc)
{
    switch ((int) rc) {
    case CURLE_OK:
        return TRANSPORT_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return TRANSPORT_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return TRANSPORT_TLS;
    default:
        return TRANSPORT_FAILED;
    }
}

static const char *trouble_of(const struct exchange *x, CURLcode rc)
{
    if (x->too_long)
        return "the reply's body is longer than 64 KiB";
    if (rc == CURLE_WRITE_ERROR)
        return "out of memory for the reply";
    return x->trouble[0] != '\0' ? x->trouble : curl_easy_strerror(rc);
}

/* NULL when there is none; valid until the handle is used again. */
static const char *header_of(CURL *easy, const char *name)
{
    struct curl_header *header;
    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK ? header->value
                                                                                   : NULL;
}

/* curl reads a number of seconds that is too large for it as none. */
static int64_t retry_after_of(CURL *easy)
{
    curl_off_t seconds = 0;
    (void) curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    const char *text = seconds == 0 ? header_of(easy, "Retry-After") : NULL;
    if (text != NULL && strlen(text) > 9 && strspn(text, "0123456789") == strlen(text))
        seconds = INT32_MAX;
    return (int64_t) (seconds < INT32_MAX ? seconds : INT32_MAX) * 1000;
}

static void on_done(void *userdata, CURL *easy, CURLcode rc)
{
    struct http *h = userdata;
    struct exchange *x = NULL;
    (void) curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &x);
    long status = 0, request_size = 0;
    if (rc == CURLE_OK && !x->head_complete) {
        (void) strcpy(x->trouble, "the reply ends amid its headers");
        rc = CURLE_PARTIAL_FILE;
    }
    (void) curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    /* curl lets "HTTP/200 OK" pass, without a status, and "HTTP/2 40000". */
    if (rc == CURLE_OK && (status < 200 || status > 999)) {
        (void) strcpy(x->trouble, "the reply has no status, or one that ends no exchange");
        rc = CURLE_WEIRD_SERVER_REPLY;
    }
    (void) curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &request_size);
    curl_off_t pretransfer_us = 0;
    (void) curl_easy_getinfo(x->easy, CURLINFO_PRETRANSFER_TIME_T, &pretransfer_us);
    struct reply reply = {
        .transport = transport_of(rc),
        /* The size counts CONNECT too, but only a connection that is up begins a transfer. */
        .sent = request_size > 0 && pretransfer_us > 0,
        .resent = x->sends > 1,
        .trouble = rc != CURLE_OK ? trouble_of(x, rc) : NULL,
        .status = (int) status,
        .body = x->body.len > 0 ? x->body.data : "",
        .body_len = x->body.len,
        .truncated = x->too_long,
        .api_key = x->profile->api_key,
    };
    if (status > 0) {
        reply.retry_after_ms = retry_after_of(x->easy);
        reply.deprecation = header_of(x->easy, "Deprecation");
        reply.sunset = header_of(x->easy, "Sunset");
    }
    (void) curl_multi_remove_handle(h->loop.multi, x->easy);
    TAILQ_REMOVE(&h->active, x, link);
    h->done(h->userdata, x->context, &reply);
    exchange_destroy(x);
}

/* --- Life --- */

int http_create(struct http **ret, uv_loop_t *loop, http_done_fn done, void *userdata)
{
    struct http *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return -ENOMEM;
    h->done = done;
    h->userdata = userdata;
    TAILQ_INIT(&h->active);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(h);
        return -ENOMEM;
    }
    int r = http_loop_init(&h->loop, loop, on_done, h);
    if (r < 0) {
        curl_global_cleanup();
        free(h);
        return r;
    }
    *ret = h;
    return 0;
}

int http_configure(struct http *h, const struct http_options *options)
{
    struct profile *p = profile_create(options);
    if (p == NULL)
        return -ENOMEM;
    profile_unref(h->profile);
    h->profile = p;
    (void) curl_multi_setopt(h->loop.multi, CURLMOPT_MAXCONNECTS, (long) options->max_connections);
    return 0;
}

void http_stop(struct http *h, void (*stopped)(void *userdata), void *userdata)
{
    struct exchange *x;
    while ((x = TAILQ_FIRST(&h->active)) != NULL) {
        TAILQ_REMOVE(&h->active, x, link);
        (void) curl_multi_remove_handle(h->loop.multi, x->easy);
        exchange_destroy(x);
    }
    http_loop_stop(&h->loop, stopped, userdata);
}

void http_destroy(struct http *h)
{
    if (h == NULL)
        return;
    profile_unref(h->profile);
    http_loop_finish(&h->loop);
    free(h);
    curl_global_cleanup();
}
