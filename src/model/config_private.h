/* What the parts of the configuration share among themselves. */
#ifndef PULSE_MODEL_CONFIG_PRIVATE_H
#define PULSE_MODEL_CONFIG_PRIVATE_H

#include <stddef.h>

#include "base/buf.h"
#include "model/config.h"

/* Where a fault is reported: the configuration file's name, and the caller's buffer. */
struct config_report {
    const char *file;
    struct buf *reterr;
};

/* Writes `FILE:LINE: setting: what is wrong`, without the LINE that is 0 and the setting that is
 * NULL. Always -EINVAL. */
int config_fault(const struct config_report *report, unsigned line, const char *setting,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* For a file that could not be read: `r` when the next try may well find it readable, as it is;
 * else -EINVAL, as for a wrong one. */
int config_unreadable(int r);

/* --- config_text.c --- */

/* The file's text as libconfig 1.5 reads it without mistakes: every integer is marked as a 64-bit
 * one. What libconfig would take in silence (a NUL, a comment or string without end) is refused.
 * 0, -EINVAL (reported) or -ENOMEM. */
int config_text_prepare(const struct config_report *report, const char *text, size_t len,
                        struct buf *ret);

/* The last setting that is named on a line, "group.setting" or "group", for an error of libconfig's
 * that does not name it; "" when there is none. */
void config_text_name(const char *text, size_t len, unsigned line, char *ret_name, size_t size);

/* --- config_check.c --- */

/* Checks what a string means, by the setting's name, and drops a base URL's trailing slash.
 * 0, or -EINVAL with the reason in `why`. */
int config_check_string(const char *name, char *value, struct buf *why);

/* What no setting shows alone: plain http through a proxy elsewhere. */
int config_check_proxy(const struct config *config, struct buf *why);

/* --- config_key.c --- */

/* Reads the API key into config->api_key. `line` is that of api.key_file, or 0. */
int config_read_key(const struct config_report *report, unsigned line, struct config *config);

#endif
