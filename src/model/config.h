/* The settings: one table of {name, type, range, default, reloadable} that the parser, the check of
 * unknown settings, the reload and the tests all walk. */
#ifndef PULSE_MODEL_CONFIG_H
#define PULSE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

#define CONFIG_DEFAULT_FILE "/etc/pulse-canceld/pulse-canceld.conf"

enum api_endpoint { API_ENDPOINT_AUTO, API_ENDPOINT_CANCEL, API_ENDPOINT_JOB };
enum api_verify { API_VERIFY_NEVER, API_VERIFY_AMBIGUOUS, API_VERIFY_ALWAYS };
enum api_on_unauthorized { API_UNAUTHORIZED_FAIL, API_UNAUTHORIZED_HOLD };

/* Numbers are kept as int64_t and enumerations and log levels as int, so that the table can point
 * into the structure. Strings belong to the configuration. */
struct config {
    struct {
        char *base_url; /* without its trailing slash */
        int endpoint;   /* enum api_endpoint */
        char *key_file;
        char *ca_file; /* "" = the system's */
        char *proxy;   /* "" = none */
        int64_t connect_timeout_ms;
        int64_t timeout_ms;
        int verify;          /* enum api_verify */
        int on_unauthorized; /* enum api_on_unauthorized */
    } api;
    struct {
        char *directory;
        int64_t max_file_bytes;
        int64_t settle_ms;
        int64_t rescan_interval_s;
    } spool;
    struct {
        char *path;
        mode_t mode;
        char *group;       /* "" = unchanged */
        char *admin_group; /* "" = only root and the daemon's own user */
        int64_t max_clients;
    } socket;
    struct {
        char *database;
        int64_t max_pending;
        int64_t history_days;
    } queue;
    struct {
        int64_t max_in_flight;
        bool adaptive;
        int64_t rate_per_s; /* 0 = no limit */
        int64_t shutdown_grace_s;
    } dispatch;
    struct {
        int64_t max_attempts;
        int64_t base_delay_ms;
        int64_t max_delay_ms;
        int64_t deadline_s;
    } retry;
    struct {
        char *path;
    } results;
    struct {
        int level; /* enum log_level */
    } log;

    char *api_key;          /* the content of the key file; never logged */
    bool key_is_credential; /* it is the service manager's, who has it read only at a start */
};

/* Reads FILE and the key it names (or $CREDENTIALS_DIRECTORY/api-key). On failure returns -EINVAL
 * and puts one line `FILE:LINE: setting: what is wrong` (no `:LINE` where there is none) into
 * `reterr`; -ENOMEM, -EIO, -EMFILE and the like when that is no fault of the configuration's, then
 * perhaps without a line. The caller frees with config_unload(). */
int config_load(const char *file, struct config **ret, struct buf *reterr);

/* Reads the key anew. 1 when it is another one; 0; -EINVAL with a text as above in `reterr`, or
 * -ENOMEM: then the old one stays. */
int config_renew_key(struct config *config, const char *file, struct buf *reterr);

/* Wipes the key, and accepts NULL. (libconfig has a config_destroy() of its own.) */
void config_unload(struct config *config);

/* Appends the names, separated by ", ", of the settings that differ and need a restart, and returns
 * how many there are. */
int config_restart_needed(const struct config *old_config, const struct config *new_config,
                          struct buf *b);

/* One row of the table, for tests and tools. */
enum setting_type {
    SETTING_STRING,
    SETTING_INT,
    SETTING_BOOL,
    SETTING_ENUM,
    SETTING_MODE,
};

struct setting {
    const char *name; /* "api.base_url" */
    enum setting_type type;
    size_t offset; /* into struct config */
    int64_t min, max;
    const char *default_text; /* as in the configuration file, strings without quotes */
    const char *const *names; /* of an enumeration's values, NULL-terminated */
    bool reloadable;
};

/* Ends with a row whose name is NULL. */
extern const struct setting config_settings[];

#endif
