/* The table of settings, and libconfig's tree walked along it. Runs on the loop thread. */
#include "model/config.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libconfig.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "model/config_private.h"

#define FILE_MAX (1024 * 1024)
#define SHOWN_MAX 16

static const char *const endpoint_names[] = { "auto", "cancel", "job", NULL };
static const char *const verify_names[] = { "never", "ambiguous", "always", NULL };
static const char *const unauthorized_names[] = { "fail", "hold", NULL };
/* In the order of enum log_level. */
static const char *const level_names[] = { "error", "warning", "info", "debug", NULL };

#define AT(member) .offset = offsetof(struct config, member)
#define STRING(member, text)                                                                       \
    .name = #member, .type = SETTING_STRING, AT(member), .default_text = (text)
#define INT(member, low, high, text)                                                               \
    .name = #member, .type = SETTING_INT, AT(member), .min = (low), .max = (high),                 \
    .default_text = (text)
#define BOOL(member, text) .name = #member, .type = SETTING_BOOL, AT(member), .default_text = (text)
#define ENUM(member, values, text)                                                                 \
    .name = #member, .type = SETTING_ENUM, AT(member), .names = (values), .default_text = (text)
#define MODE(member, text)                                                                         \
    .name = #member, .type = SETTING_MODE, AT(member), .max = 0777, .default_text = (text)
#define RELOADS .reloadable = true

const struct setting config_settings[] = {
    { STRING(api.base_url, "https://api.runpulse.com"), RELOADS },
    { ENUM(api.endpoint, endpoint_names, "auto"), RELOADS },
    { STRING(api.key_file, "/etc/pulse-canceld/api-key"), RELOADS },
    { STRING(api.ca_file, ""), RELOADS },
    { STRING(api.proxy, ""), RELOADS },
    { INT(api.connect_timeout_ms, 1, 600000, "5000"), RELOADS },
    { INT(api.timeout_ms, 1, 600000, "30000"), RELOADS },
    { ENUM(api.verify, verify_names, "ambiguous"), RELOADS },
    { ENUM(api.on_unauthorized, unauthorized_names, "fail"), RELOADS },
    { STRING(spool.directory, "/var/spool/pulse-canceld") },
    { INT(spool.max_file_bytes, 1, 1073741824, "16777216") },
    { INT(spool.settle_ms, 0, 600000, "2000") },
    { INT(spool.rescan_interval_s, 1, 86400, "60") },
    { STRING(socket.path, "/run/pulse-canceld/socket") },
    { MODE(socket.mode, "0660") },
    { STRING(socket.group, "") },
    { STRING(socket.admin_group, "") },
    { INT(socket.max_clients, 1, 100000, "1024") },
    { STRING(queue.database, "/var/lib/pulse-canceld/queue.db") },
    { INT(queue.max_pending, 1, 100000000, "1000000"), RELOADS },
    { INT(queue.history_days, 1, 3650, "30"), RELOADS },
    { INT(dispatch.max_in_flight, 1, 1000, "16"), RELOADS },
    { BOOL(dispatch.adaptive, "true"), RELOADS },
    { INT(dispatch.rate_per_s, 0, 1000000, "0"), RELOADS },
    { INT(dispatch.shutdown_grace_s, 0, 3600, "35"), RELOADS },
    { INT(retry.max_attempts, 1, 1000, "10"), RELOADS },
    { INT(retry.base_delay_ms, 1, 3600000, "1000"), RELOADS },
    { INT(retry.max_delay_ms, 1, 86400000, "300000"), RELOADS },
    { INT(retry.deadline_s, 1, 2592000, "3600"), RELOADS },
    { STRING(results.path, "/var/log/pulse-canceld/results.log") },
    { ENUM(log.level, level_names, "info"), RELOADS },
    { .name = NULL },
};
#define SETTINGS (sizeof(config_settings) / sizeof(config_settings[0]) - 1)

/* One file being read. */
struct reading {
    struct config_report report;
    struct config *config;
    unsigned lines[SETTINGS]; /* where each setting is; 0 = it has its default */
};

/* A file's name or a setting's value may hold anything, and it has to stay one line. */
static int append_line(struct buf *b, const char *text)
{
    int r = 0;
    for (; *text != '\0' && r == 0; text++) {
        unsigned char c = (unsigned char) *text;
        r = c < ' ' || c == 0x7f ? buf_printf(b, "\\x%02x", c) : buf_append_char(b, *text);
    }
    return r;
}

int config_fault(const struct config_report *report, unsigned line, const char *setting,
                 const char *fmt, ...)
{
    struct buf text;
    buf_init(&text, 16384);
    int r = append_line(&text, report->file);
    if (r == 0 && line > 0)
        r = buf_printf(&text, ":%u", line);
    if (r == 0)
        r = buf_append_str(&text, ": ");
    if (r == 0 && setting != NULL)
        r = buf_printf(&text, "%s: ", setting);

    char *what = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&what, fmt, args);
    va_end(args);
    if (r == 0 && n >= 0)
        (void) append_line(&text, what);
    if (n >= 0)
        free(what);
    /* Cut rather than not at all. */
    size_t room = report->reterr->max - report->reterr->len;
    (void) buf_append(report->reterr, text.data, text.len < room ? text.len : room);
    buf_finish(&text);
    return -EINVAL;
}

/* --- Values --- */

static void *field_of(const struct config *config, const struct setting *setting)
{
    return (char *) config + setting->offset;
}

static int set_string(struct config *config, const struct setting *setting, const char *text)
{
    char **field = field_of(config, setting);
    char *copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

static int set_enum(struct config *config, const struct setting *setting, const char *text)
{
    for (int i = 0; setting->names[i] != NULL; i++) {
        if (strcmp(setting->names[i], text) == 0) {
            *(int *) field_of(config, setting) = i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Octal digits and nothing else: strtol would take "+0660" and "0660 ". */
static int set_mode(struct config *config, const struct setting *setting, const char *text)
{
    size_t len = strlen(text);
    mode_t mode = 0;
    if (len < 1 || len > 4)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '7')
            return -EINVAL;
        mode = mode << 3 | (mode_t) (text[i] - '0');
    }
    if ((int64_t) mode > setting->max)
        return -EINVAL;
    *(mode_t *) field_of(config, setting) = mode;
    return 0;
}

/* From the table's own text. */
static int set_default(struct config *config, const struct setting *setting)
{
    const char *text = setting->default_text;
    switch (setting->type) {
    case SETTING_STRING:
        return set_string(config, setting, text);
    case SETTING_INT:
        *(int64_t *) field_of(config, setting) = strtoll(text, NULL, 10);
        return 0;
    case SETTING_BOOL:
        *(bool *) field_of(config, setting) = strcmp(text, "true") == 0;
        return 0;
    case SETTING_ENUM:
        return set_enum(config, setting, text);
    case SETTING_MODE:
        return set_mode(config, setting, text);
    }
    return -EINVAL;
}

static bool same_value(const struct config *a, const struct config *b,
                       const struct setting *setting)
{
    const void *x = field_of(a, setting);
    const void *y = field_of(b, setting);
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

/* --- Faults of a value --- */

/* "an integer from 1 to 600000", for "must be … , not …". */
static void append_wanted(struct buf *b, const struct setting *setting)
{
    switch (setting->type) {
    case SETTING_STRING:
        (void) buf_append_str(b, "a string");
        break;
    case SETTING_INT:
        (void) buf_printf(b, "an integer from %" PRId64 " to %" PRId64, setting->min, setting->max);
        break;
    case SETTING_BOOL:
        (void) buf_append_str(b, "true or false");
        break;
    case SETTING_ENUM:
        for (int i = 0; setting->names[i] != NULL; i++) {
            bool last = setting->names[i + 1] == NULL;
            (void) buf_printf(b, "%s\"%s\"", i == 0 ? "" : last ? " or " : ", ", setting->names[i]);
        }
        break;
    case SETTING_MODE:
        (void) buf_append_str(b, "an octal string from \"0\" to \"0777\", such as \"0660\"");
        break;
    }
}

static void append_found(struct buf *b, const config_setting_t *node)
{
    const char *text;

    switch (config_setting_type(node)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        (void) buf_append_int(b, config_setting_get_int64(node));
        break;
    case CONFIG_TYPE_FLOAT:
        (void) buf_append_str(b, "a number with a fraction");
        break;
    case CONFIG_TYPE_STRING:
        /* A long one may be the key, in a wrong place. */
        text = config_setting_get_string(node);
        if (strlen(text) <= SHOWN_MAX)
            (void) json_append_cstr(b, text);
        else
            (void) buf_printf(b, "a string of %zu bytes", strlen(text));
        break;
    case CONFIG_TYPE_BOOL:
        (void) buf_append_str(b, config_setting_get_bool(node) ? "true" : "false");
        break;
    case CONFIG_TYPE_GROUP:
        (void) buf_append_str(b, "a group");
        break;
    default:
        (void) buf_append_str(b, "a list");
        break;
    }
}

static int refuse_value(const struct reading *reading, const struct setting *setting,
                        const config_setting_t *node)
{
    struct buf text;
    buf_init(&text, 4096);
    (void) buf_append_str(&text, "must be ");
    append_wanted(&text, setting);
    (void) buf_append_str(&text, ", not ");
    append_found(&text, node);
    const char *what = buf_cstr(&text);
    int r = config_fault(&reading->report, config_setting_source_line(node), setting->name, "%s",
                         what != NULL ? what : "has a wrong value");
    buf_finish(&text);
    return r;
}

/* --- The walk --- */

/* 0, -EINVAL for a value of another type or out of range (not reported yet), -ENOMEM. */
static int read_value(struct config *config, const struct setting *setting,
                      const config_setting_t *node)
{
    int type = config_setting_type(node);
    switch (setting->type) {
    case SETTING_STRING:
        if (type != CONFIG_TYPE_STRING)
            return -EINVAL;
        return set_string(config, setting, config_setting_get_string(node));
    case SETTING_INT:
        if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64)
            return -EINVAL;
        int64_t number = config_setting_get_int64(node);
        if (number < setting->min || number > setting->max)
            return -EINVAL;
        *(int64_t *) field_of(config, setting) = number;
        return 0;
    case SETTING_BOOL:
        if (type != CONFIG_TYPE_BOOL)
            return -EINVAL;
        *(bool *) field_of(config, setting) = config_setting_get_bool(node);
        return 0;
    case SETTING_ENUM:
        if (type != CONFIG_TYPE_STRING)
            return -EINVAL;
        return set_enum(config, setting, config_setting_get_string(node));
    case SETTING_MODE:
        if (type != CONFIG_TYPE_STRING)
            return -EINVAL;
        return set_mode(config, setting, config_setting_get_string(node));
    }
    return -EINVAL;
}

static int read_setting(struct reading *reading, const char *group, const config_setting_t *node)
{
    const char *name = config_setting_name(node);
    size_t group_len = strlen(group);

    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &config_settings[i];
        if (strncmp(setting->name, group, group_len) != 0 || setting->name[group_len] != '.' ||
            strcmp(setting->name + group_len + 1, name) != 0)
            continue;
        reading->lines[i] = config_setting_source_line(node);
        int r = read_value(reading->config, setting, node);
        return r == -EINVAL ? refuse_value(reading, setting, node) : r;
    }
    return config_fault(&reading->report, config_setting_source_line(node), NULL,
                        "%s.%s: unknown setting", group, name);
}

static bool group_known(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < SETTINGS; i++)
        if (strncmp(config_settings[i].name, name, len) == 0 && config_settings[i].name[len] == '.')
            return true;
    return false;
}

static int read_group(struct reading *reading, config_setting_t *group)
{
    const char *name = config_setting_name(group);
    unsigned line = config_setting_source_line(group);

    if (!group_known(name))
        return config_fault(&reading->report, line, name, "unknown setting");
    if (config_setting_type(group) != CONFIG_TYPE_GROUP)
        return config_fault(&reading->report, line, name, "must be a group, as in %s = { ... };",
                            name);
    for (int i = 0; i < config_setting_length(group); i++) {
        int r = read_setting(reading, name, config_setting_get_elem(group, (unsigned) i));
        if (r < 0)
            return r;
    }
    return 0;
}

static int refuse_syntax(const struct reading *reading, const config_t *parser, const char *text,
                         size_t len)
{
    char name[160];
    unsigned line = config_error_line(parser) > 0 ? (unsigned) config_error_line(parser) : 0;
    const char *what = config_error_text(parser);

    config_text_name(text, len, line, name, sizeof(name));
    if (what == NULL)
        what = "cannot be parsed";
    else if (strcmp(what, "duplicate setting name") == 0)
        what = "is set more than once, or its group is: change the line that is there";
    return config_fault(&reading->report, line, name[0] != '\0' ? name : NULL, "%s", what);
}

/* The text, and along the tree every setting that is in it. */
static int read_text(struct reading *reading, const char *text, size_t len)
{
    struct buf prepared;
    config_t parser;
    const char *prepared_text;

    config_init(&parser);
    buf_init(&prepared, 2 * FILE_MAX);
    int r = config_text_prepare(&reading->report, text, len, &prepared);
    if (r < 0)
        goto out;
    prepared_text = buf_cstr(&prepared);
    if (prepared_text == NULL) {
        r = -ENOMEM;
        goto out;
    }
    if (config_read_string(&parser, prepared_text) != CONFIG_TRUE) {
        r = refuse_syntax(reading, &parser, text, len);
        goto out;
    }

    config_setting_t *root = config_root_setting(&parser);
    for (int i = 0; r == 0 && i < config_setting_length(root); i++)
        r = read_group(reading, config_setting_get_elem(root, (unsigned) i));
out:
    config_destroy(&parser);
    buf_finish(&prepared);
    return r;
}

static int check_values(const struct reading *reading)
{
    struct buf why;
    buf_init(&why, 4 * FILE_MAX);

    int r = 0;
    size_t i;
    for (i = 0; i < SETTINGS && r == 0; i++) {
        const struct setting *setting = &config_settings[i];
        if (setting->type == SETTING_STRING)
            r = config_check_string(setting->name, *(char **) field_of(reading->config, setting),
                                    &why);
        if (r == 0 && strcmp(setting->name, "api.proxy") == 0)
            r = config_check_proxy(reading->config, &why);
    }
    if (r < 0) {
        const char *what = buf_cstr(&why);
        (void) config_fault(&reading->report, reading->lines[i - 1], config_settings[i - 1].name,
                            "%s", what != NULL ? what : "has a wrong value");
    }
    buf_finish(&why);
    return r;
}

int config_unreadable(int r)
{
    switch (-r) {
    case EIO:
    case EINTR:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ESTALE:
        return r;
    default:
        return -EINVAL;
    }
}

static unsigned line_of(const struct reading *reading, const char *name)
{
    for (size_t i = 0; i < SETTINGS; i++)
        if (strcmp(config_settings[i].name, name) == 0)
            return reading->lines[i];
    return 0;
}

static int read_file(struct reading *reading)
{
    char *text = NULL;
    size_t len = 0;
    int r = fs_read_file(reading->report.file, FILE_MAX, &text, &len);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        (void) config_fault(&reading->report, 0, NULL, "cannot be read: %s", strerror(-r));
        return config_unreadable(r);
    }
    r = read_text(reading, text, len);
    free(text);
    return r;
}

int config_load(const char *file, struct config **ret, struct buf *reterr)
{
    struct reading reading = { .report = { .file = file, .reterr = reterr } };
    reading.config = calloc(1, sizeof(*reading.config));
    if (reading.config == NULL)
        return -ENOMEM;

    int r = 0;
    for (size_t i = 0; i < SETTINGS && r == 0; i++)
        r = set_default(reading.config, &config_settings[i]);
    if (r == 0)
        r = read_file(&reading);
    if (r == 0)
        r = check_values(&reading);
    if (r == 0)
        r = config_read_key(&reading.report, line_of(&reading, "api.key_file"), reading.config);
    if (r == 0) {
        *ret = reading.config;
        reading.config = NULL;
    }
    config_unload(reading.config);
    return r;
}

void config_unload(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < SETTINGS; i++)
        if (config_settings[i].type == SETTING_STRING)
            free(*(char **) field_of(config, &config_settings[i]));
    if (config->api_key != NULL)
        explicit_bzero(config->api_key, strlen(config->api_key));
    free(config->api_key);
    free(config);
}

int config_restart_needed(const struct config *old_config, const struct config *new_config,
                          struct buf *b)
{
    int n = 0;
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &config_settings[i];
        if (setting->reloadable || same_value(old_config, new_config, setting))
            continue;
        if (n > 0)
            (void) buf_append_str(b, ", ");
        (void) buf_append_str(b, setting->name);
        n++;
    }
    return n;
}
