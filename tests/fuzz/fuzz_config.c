/* The configuration file, from its text to checked settings. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/json.h"
#include "base/log.h"
#include "model/config.h"
#include "model/config_private.h"

#define KEY "s3cret-of-the-fuzzer"

struct place {
    const char *file, *key_file;
    char credentials[128];
};

static const struct place *place(void)
{
    static struct place p;
    if (p.file == NULL) {
        p.file = fuzz_path("pulse.conf");
        p.key_file = fuzz_path("api-key");
        fuzz_write_file(p.key_file, KEY "\n", strlen(KEY "\n"));
        (void) snprintf(p.credentials, sizeof(p.credentials), "%.*s",
                        (int) (strrchr(p.key_file, '/') - p.key_file), p.key_file);
        CHECK(setenv("CREDENTIALS_DIRECTORY", p.credentials, 1) == 0);
        log_set_level(LOG_LEVEL_ERROR);
    }
    return &p;
}

static const void *field_of(const struct config *config, const struct setting *setting)
{
    return (const char *) config + setting->offset;
}

/* --- URLs, as curl takes them --- */

static char *part_of(CURLU *url, CURLUPart part)
{
    char *text = NULL;
    return curl_url_get(url, part, &text, 0) == CURLUE_OK ? text : NULL;
}

static bool is_this_machine(const char *host)
{
    struct in_addr v4;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
        return true;
    return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* Where the key may go in clear is decided by curl's reading of the URL, not by ours. */
static void check_base_url(const char *text)
{
    CURLU *url = curl_url();
    CHECK_TEXT(curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK, text, strlen(text));
    char *scheme = part_of(url, CURLUPART_SCHEME), *host = part_of(url, CURLUPART_HOST);
    char *user = part_of(url, CURLUPART_USER), *query = part_of(url, CURLUPART_QUERY);
    char *fragment = part_of(url, CURLUPART_FRAGMENT);
    CHECK(scheme != NULL && host != NULL);
    if (strcmp(scheme, "http") == 0) {
        /* curl makes [0:0::1] short by itself only when it connects. */
        struct in6_addr v6;
        char inner[64];
        bool six = host[0] == '[' && strlen(host) < sizeof(inner);
        if (six) {
            (void) snprintf(inner, sizeof(inner), "%.*s", (int) strlen(host) - 2, host + 1);
            six = inet_pton(AF_INET6, inner, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
        }
        CHECK_TEXT(six || is_this_machine(host), text, strlen(text));
    } else {
        CHECK_TEXT(strcmp(scheme, "https") == 0, text, strlen(text));
    }
    CHECK_TEXT(user == NULL && query == NULL && fragment == NULL, text, strlen(text));
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(query);
    curl_free(fragment);
    curl_url_cleanup(url);
}

/* --- What is accepted --- */

static void check_setting(const struct config *config, const struct setting *setting)
{
    const void *field = field_of(config, setting);
    int n = 0;
    switch (setting->type) {
    case SETTING_STRING:
        CHECK(*(char *const *) field != NULL);
        return;
    case SETTING_INT:
        CHECK(*(const int64_t *) field >= setting->min && *(const int64_t *) field <= setting->max);
        return;
    case SETTING_BOOL:
        return;
    case SETTING_ENUM:
        while (setting->names[n] != NULL)
            n++;
        CHECK(*(const int *) field >= 0 && *(const int *) field < n);
        return;
    case SETTING_MODE:
        CHECK(*(const mode_t *) field <= 0777);
        return;
    }
}

/* The string as libconfig reads it: bytes as they are, but for quotes and backslashes. */
static void write_string(struct buf *b, const char *text)
{
    CHECK(buf_append_char(b, '"') == 0);
    for (; *text != '\0'; text++)
        CHECK((strchr("\"\\", *text) != NULL ? buf_printf(b, "\\%c", *text)
                                             : buf_append_char(b, *text)) == 0);
    CHECK(buf_append_char(b, '"') == 0);
}

static void write_setting(struct buf *b, const struct config *config, const struct setting *setting)
{
    const void *field = field_of(config, setting);
    const char *dot = strchr(setting->name, '.');
    CHECK(buf_printf(b, "  %s = ", dot + 1) == 0);
    switch (setting->type) {
    case SETTING_STRING:
        write_string(b, *(char *const *) field);
        break;
    case SETTING_INT:
        CHECK(buf_append_int(b, *(const int64_t *) field) == 0);
        break;
    case SETTING_BOOL:
        CHECK(buf_append_str(b, *(const bool *) field ? "true" : "false") == 0);
        break;
    case SETTING_ENUM:
        write_string(b, setting->names[*(const int *) field]);
        break;
    case SETTING_MODE:
        CHECK(buf_printf(b, "\"%04o\"", (unsigned) *(const mode_t *) field) == 0);
        break;
    }
    CHECK(buf_append_str(b, ";\n") == 0);
}

static bool same(const struct config *a, const struct config *b, const struct setting *setting)
{
    const void *x = field_of(a, setting), *y = field_of(b, setting);
    switch (setting->type) {
    case SETTING_STRING:
        return strcmp(*(char *const *) x, *(char *const *) y) == 0;
    case SETTING_INT:
        return *(const int64_t *) x == *(const int64_t *) y;
    case SETTING_BOOL:
        return *(const bool *) x == *(const bool *) y;
    case SETTING_ENUM:
        return *(const int *) x == *(const int *) y;
    case SETTING_MODE:
        return *(const mode_t *) x == *(const mode_t *) y;
    }
    return false;
}

static void write_config(struct buf *b, const struct config *config)
{
    const char *group = "";
    for (const struct setting *s = config_settings; s->name != NULL; s++) {
        size_t len = strcspn(s->name, ".");
        if (strncmp(s->name, group, len + 1) != 0)
            CHECK(buf_printf(b, "%s%.*s = {\n", group[0] != '\0' ? "};\n" : "", (int) len,
                             s->name) == 0);
        group = s->name;
        write_setting(b, config, s);
    }
    CHECK(buf_append_str(b, "};\n") == 0);
}

/* Written out, it is read as the same; and a number that is only the same in 32 bits is not. */
static void check_again(struct config *config)
{
    struct buf b, why;
    struct config *again = NULL;
    buf_init(&b, 1 << 20);
    buf_init(&why, 8192);
    write_config(&b, config);
    fuzz_write_file(place()->file, b.data, b.len);
    int r = config_load(place()->file, &again, &why);
    CHECK_TEXT(r == 0, b.data, b.len);
    for (const struct setting *s = config_settings; s->name != NULL; s++)
        CHECK_TEXT(same(config, again, s), b.data, b.len);
    CHECK(config_restart_needed(config, again, &why) == 0);
    config_unload(again);

    config->api.timeout_ms += INT64_C(1) << 32;
    buf_clear(&b);
    write_config(&b, config);
    fuzz_write_file(place()->file, b.data, b.len);
    CHECK_TEXT(config_load(place()->file, &again, &why) == -EINVAL, b.data, b.len);
    buf_finish(&b);
    buf_finish(&why);
}

static void check_accepted(struct config *config)
{
    for (const struct setting *s = config_settings; s->name != NULL; s++)
        check_setting(config, s);
    CHECK(strcmp(config->api_key, KEY) == 0);
    check_base_url(config->api.base_url);
    size_t len = strlen(config->api.base_url);
    CHECK(config->spool.directory[0] == '/' && config->results.path[0] == '/');
    CHECK(strlen(config->socket.path) <= 107);
    CHECK(len > 0);
    check_again(config);
}

/* One line, `FILE[:LINE]: …`. */
static void check_refused(const char *why)
{
    size_t len = strlen(place()->file);
    CHECK_TEXT(strncmp(why, place()->file, len) == 0 && why[len] == ':', why, strlen(why));
    CHECK_TEXT(strlen(why) > len + 2, why, strlen(why));
    CHECK_TEXT(strchr(why, '\n') == NULL, why, strlen(why));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct place *p = place();
    struct config *config = NULL;
    struct buf why;
    buf_init(&why, 8192);
    fuzz_write_file(p->file, (const char *) data, size);
    int r = config_load(p->file, &config, &why);
    if (r == 0) {
        CHECK(why.len == 0);
        check_accepted(config);
    } else {
        CHECK(r == -EINVAL && config == NULL);
        check_refused(buf_cstr(&why));
        /* Unless the text itself has it. */
        CHECK(strstr(buf_cstr(&why), KEY) == NULL || memmem(data, size, KEY, strlen(KEY)) != NULL ||
              memchr(data, '\\', size) != NULL);
    }
    config_unload(config);
    buf_finish(&why);

    char name[64];
    char *exact = fuzz_copy((const char *) data, size);
    for (unsigned line = 1; line < 4; line++) {
        memset(name, 'x', sizeof(name));
        config_text_name(exact, size, line, name, sizeof(name));
        CHECK(memchr(name, '\0', sizeof(name)) != NULL && fuzz_is_plain(name));
    }
    free(exact);
    return 0;
}
