/* What a string setting has to mean: URLs and paths. Pure, but for a look at the CA file. */
#include "model/config_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fs.h"

/* A hundred times the system's. */
#define CA_FILE_MAX ((size_t) 32 * 1024 * 1024)
#define URL_MAX 2048
#define HOST_MAX 253
#define PATH_LENGTH_MAX 4095

/* Pieces of a URL; they point into it. */
struct url {
    const char *scheme;
    size_t scheme_len;
    const char *host; /* an IPv6 address without its brackets */
    size_t host_len;
    bool bracketed;
    bool user_info;
    const char *rest; /* path, query and fragment */
};

static int refuse(struct buf *why, const char *what)
{
    (void) buf_append_str(why, what);
    return -EINVAL;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_hex(char c)
{
    return c != '\0' && strchr("0123456789abcdefABCDEF", c) != NULL;
}

/* Only what RFC 3986 allows; what looks different to different readers (a backslash, a blank, a
 * byte that is not ASCII) is not in it. */
static int check_characters(const char *text, struct buf *why)
{
    for (size_t i = 0; text[i] != '\0'; i++) {
        bool known = is_alnum(text[i]) || strchr("-._~:/?#[]@!$&'()*+,;=%", text[i]) != NULL;
        bool whole = text[i] != '%' || (is_hex(text[i + 1]) && is_hex(text[i + 2]));
        if (!known || !whole) {
            (void) buf_printf(why, "byte %zu is not allowed in a URL", i + 1);
            return -EINVAL;
        }
    }
    if (strlen(text) > URL_MAX) {
        (void) buf_printf(why, "is longer than %d bytes", URL_MAX);
        return -EINVAL;
    }
    return 0;
}

static int check_port(const char *text, size_t len, struct buf *why)
{
    long port = 0;
    for (size_t i = 0; i < len && port <= 65535; i++)
        port = text[i] >= '0' && text[i] <= '9' ? port * 10 + (text[i] - '0') : 65536;
    if (len == 0 || port < 1 || port > 65535)
        return refuse(why, "its port is not from 1 to 65535");
    return 0;
}

/* "127.0.0.1" and the like as the kernel reads it; not 127.1, not 0x7f.0.0.1. */
static bool read_address(int family, const struct url *url, void *ret_address)
{
    char text[INET6_ADDRSTRLEN];
    if (url->host_len >= sizeof(text))
        return false;
    memcpy(text, url->host, url->host_len);
    text[url->host_len] = '\0';
    return inet_pton(family, text, ret_address) == 1;
}

static int check_host(const struct url *url, struct buf *why)
{
    struct in6_addr address;
    if (url->bracketed) {
        if (!read_address(AF_INET6, url, &address))
            return refuse(why, "there is no IPv6 address in its brackets");
        return 0;
    }

    bool name = false;
    for (size_t i = 0; i < url->host_len; i++) {
        if (is_alnum(url->host[i]))
            name = true;
        else if (strchr("-._", url->host[i]) == NULL)
            return refuse(why, "its host is not a name or an address");
    }
    if (!name || url->host_len > HOST_MAX)
        return refuse(why, "its host is not a name or an address");
    return 0;
}

static int split_url(const char *text, struct url *ret, struct buf *why)
{
    int r = check_characters(text, why);
    if (r < 0)
        return r;

    const char *colon = strstr(text, "://");
    if (colon == NULL || colon == text)
        return refuse(why, "is not a URL");
    struct url url = { .scheme = text, .scheme_len = (size_t) (colon - text) };

    const char *authority = colon + 3;
    url.rest = authority + strcspn(authority, "/?#");
    const char *host = authority;
    const char *user_end = memrchr(authority, '@', (size_t) (url.rest - authority));
    if (user_end != NULL) {
        url.user_info = true;
        host = user_end + 1;
    }

    const char *host_end = NULL;
    if (*host == '[') {
        url.bracketed = true;
        host++;
        host_end = memchr(host, ']', (size_t) (url.rest - host));
        if (host_end == NULL)
            return refuse(why, "there is no IPv6 address in its brackets");
    } else {
        host_end = memchr(host, ':', (size_t) (url.rest - host));
        if (host_end == NULL)
            host_end = url.rest;
    }
    url.host = host;
    url.host_len = (size_t) (host_end - host);
    r = check_host(&url, why);
    if (r < 0)
        return r;

    const char *port = url.bracketed ? host_end + 1 : host_end;
    if (port < url.rest && *port != ':')
        return refuse(why, "its host is not a name or an address");
    if (port < url.rest)
        r = check_port(port + 1, (size_t) (url.rest - port - 1), why);
    if (r < 0)
        return r;
    *ret = url;
    return 0;
}

static bool scheme_is(const struct url *url, const char *scheme)
{
    return strlen(scheme) == url->scheme_len &&
           strncasecmp(url->scheme, scheme, url->scheme_len) == 0;
}

static bool to_this_machine(const struct url *url)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (url->bracketed)
        return read_address(AF_INET6, url, &v6) && IN6_IS_ADDR_LOOPBACK(&v6);
    if (read_address(AF_INET, url, &v4))
        return ntohl(v4.s_addr) >> 24 == 127;
    return url->host_len == strlen("localhost") &&
           strncasecmp(url->host, "localhost", url->host_len) == 0;
}

static int check_base_url(char *value, struct buf *why)
{
    struct url url;
    int r = split_url(value, &url, why);
    if (r < 0)
        return r;
    if (!scheme_is(&url, "https") && !scheme_is(&url, "http"))
        return refuse(why, "must start with https://, or with http:// to this machine");
    if (url.user_info)
        return refuse(why, "must not have user info (before the @)");
    if (strchr(url.rest, '#') != NULL)
        return refuse(why, "must not have a fragment (#)");
    if (strchr(url.rest, '?') != NULL)
        return refuse(why, "must not have a query (?)");
    if (strpbrk(url.rest, "[]") != NULL)
        return refuse(why, "must not have brackets in its path");
    if (scheme_is(&url, "http") && !to_this_machine(&url))
        return refuse(why, "plain http is for localhost, 127.0.0.0/8 and [::1] only, since the key "
                           "would travel in clear: use https");

    size_t len = strlen(value);
    if (value[len - 1] == '/')
        value[--len] = '\0';
    if (value[len - 1] == '/')
        return refuse(why, "must not end in more than one slash");
    return 0;
}

/* The reasons never show the value: it may have a password. */
static int check_proxy(char *value, struct buf *why)
{
    static const char *const schemes[] = {
        "http", "https", "socks4", "socks4a", "socks5", "socks5h"
    };
    struct url url;

    if (value[0] == '\0')
        return 0;
    int r = split_url(value, &url, why);
    if (r < 0)
        return r;
    bool known = false;
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        known = known || scheme_is(&url, schemes[i]);
    if (!known)
        return refuse(why, "must start with http://, https://, socks4://, socks4a://, socks5:// "
                           "or socks5h://");
    if (url.rest[0] != '\0' && strcmp(url.rest, "/") != 0)
        return refuse(why, "must end after its host and port");
    if (strstr(value, "%00") != NULL)
        return refuse(why, "must not have a NUL byte (%00) in its user or password");
    return 0;
}

int config_check_proxy(const struct config *config, struct buf *why)
{
    struct url base;
    struct url proxy;
    struct buf ignored;

    if (config->api.proxy[0] == '\0')
        return 0;
    buf_init(&ignored, 0);
    if (split_url(config->api.base_url, &base, &ignored) < 0 ||
        split_url(config->api.proxy, &proxy, &ignored) < 0)
        return 0; /* reported before */
    if (scheme_is(&base, "http") && !to_this_machine(&proxy))
        return refuse(why, "with a plain http api.base_url the proxy must be on this machine, "
                           "since the key would travel in clear");
    return 0;
}

static int check_path(char *value, struct buf *why)
{
    if (value[0] != '/')
        return refuse(why, "must be an absolute path");
    if (strlen(value) > PATH_LENGTH_MAX) {
        (void) buf_printf(why, "is longer than %d bytes", PATH_LENGTH_MAX);
        return -EINVAL;
    }
    return 0;
}

/* The path of a file, which must have a name. */
static int check_file(char *value, struct buf *why)
{
    int r = check_path(value, why);
    if (r < 0)
        return r;
    const char *name = strrchr(value, '/') + 1;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return refuse(why, "must be the path of a file, not of a directory");
    return 0;
}

static int check_directory(char *value, struct buf *why)
{
    int r = check_path(value, why);
    if (r < 0)
        return r;
    size_t len = strlen(value);
    while (len > 1 && value[len - 1] == '/')
        value[--len] = '\0';
    if (len == 1)
        return refuse(why, "must not be the root directory");
    return 0;
}

static int check_socket(char *value, struct buf *why)
{
    const size_t max = sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1;

    int r = check_file(value, why);
    if (r == 0 && strlen(value) > max) {
        (void) buf_printf(why, "is longer than %zu bytes, the most a socket's path may have", max);
        r = -EINVAL;
    }
    return r;
}

/* A certificate in PEM: its first line, at the start of a line, and its last. */
static bool holds_certificate(const char *text, size_t len)
{
    static const char *const kinds[] = { "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE" };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char first[64], last[64];
        size_t first_len = (size_t) snprintf(first, sizeof(first), "-----BEGIN %s-----", kinds[i]);
        size_t last_len = (size_t) snprintf(last, sizeof(last), "\n-----END %s-----", kinds[i]);
        const char *end = text + len;
        const char *at = text;
        while ((at = memmem(at, (size_t) (end - at), first, first_len)) != NULL) {
            bool starts = at == text || at[-1] == '\n';
            at += first_len;
            if (starts && memmem(at, (size_t) (end - at), last, last_len) != NULL)
                return true;
        }
    }
    return false;
}

/* libcurl says that a file holds none only when it connects, and the same way as for a server with
 * the wrong certificate. What is in a certificate is left to it. */
static int check_ca_file(char *value, struct buf *why)
{
    if (value[0] == '\0')
        return 0;
    int r = check_file(value, why);
    if (r < 0)
        return r;
    struct stat st;
    if (stat(value, &st) == 0 && !S_ISREG(st.st_mode)) {
        (void) buf_printf(why, "%s: is not a regular file", value);
        return -EINVAL;
    }
    char *text = NULL;
    size_t len = 0;
    r = fs_read_file(value, CA_FILE_MAX, &text, &len);
    if (r < 0) {
        (void) buf_printf(why, "%s: cannot be read: %s", value, strerror(-r));
        return -EINVAL;
    }
    bool good = holds_certificate(text, len);
    free(text);
    if (good)
        return 0;
    (void) buf_printf(why, "%s: holds no certificate in PEM (from -----BEGIN CERTIFICATE----- on)",
                      value);
    return -EINVAL;
}

/* "" = none is set. */
static int check_group(char *value, struct buf *why)
{
    struct group entry, *found = NULL;
    char text[16384];
    if (value[0] == '\0')
        return 0;
    if (getgrnam_r(value, &entry, text, sizeof(text), &found) == 0 && found != NULL)
        return 0;
    (void) buf_printf(why, "there is no group of this name; make it with groupadd");
    return -EINVAL;
}

int config_check_string(const char *name, char *value, struct buf *why)
{
    static const struct {
        const char *name;
        int (*check)(char *value, struct buf *why);
    } checks[] = {
        { "api.base_url", check_base_url },     { "api.key_file", check_file },
        { "api.ca_file", check_ca_file },       { "api.proxy", check_proxy },
        { "spool.directory", check_directory }, { "socket.path", check_socket },
        { "queue.database", check_file },       { "results.path", check_file },
        { "socket.group", check_group },        { "socket.admin_group", check_group },
    };

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (strcmp(checks[i].name, name) == 0)
            return checks[i].check(value, why);
    return 0;
}
