/* A rejected key: reading it anew, and telling the operator. Loop thread. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon_private.h"

/* One complaint about a key file that can't be used is enough while it stays as it is. */
static void complain_once(struct daemon *d, const char *text)
{
    if (d->key_trouble != NULL && strcmp(d->key_trouble, text) == 0)
        return;
    free(d->key_trouble);
    d->key_trouble = strdup(text);
    log_warning("daemon: the key in force stays: %s", text);
}

bool daemon_renew_key(void *userdata)
{
    struct daemon *d = userdata;
    struct buf err;
    buf_init(&err, 4096);
    int r = config_renew_key(d->config, d->config_file, &err);
    if (r > 0) {
        log_info("daemon: there is a new key");
        r = daemon_configure_dispatch(d, d->config) < 0 ? 0 : r;
    } else if (r < 0 && buf_cstr(&err) != NULL) {
        complain_once(d, buf_cstr(&err));
    }
    if (r >= 0) {
        free(d->key_trouble);
        d->key_trouble = NULL;
    }
    buf_finish(&err);
    return r > 0;
}

int daemon_append_key_advice(const struct daemon *d, struct buf *b)
{
    int r = buf_printf(b, "Key rejected by %s (%s); ", d->config->api.base_url,
                       d->key_code != NULL ? d->key_code : "401");
    if (r == 0)
        r = d->config->key_is_credential
                ? buf_append_str(b, "put a valid one where the service's copy is made from, "
                                    "/etc/pulse-canceld/api-key as shipped, and restart it")
                : buf_printf(b, "put a valid one into %s", d->config->api.key_file);
    return r;
}

void daemon_key_changed(void *userdata, const char *code, const char *message)
{
    struct daemon *d = userdata;
    free(d->key_code);
    d->key_code = code != NULL ? strdup(code) : NULL;
    struct buf text;
    buf_init(&text, 8192);
    if (code == NULL)
        log_info("daemon: sending goes on: the key is accepted, or may be");
    else if (daemon_append_key_advice(d, &text) == 0)
        log_error("daemon: nothing is sent: %s. Requests wait, and their deadlines count. A key of "
                  "another environment is rejected, too. The API says: %s",
                  buf_cstr(&text), message != NULL ? message : "nothing");
    buf_finish(&text);
    daemon_tell_status(d);
}
