/* The service manager's protocol, by libsystemd. */
#include "daemon/notify.h"

#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include <systemd/sd-daemon.h>

#include "base/json.h"

int notify_listen_fd(struct buf *reterr)
{
    int n = sd_listen_fds(1);
    if (n == 0)
        return -1;
    if (n < 0) {
        (void) buf_append_str(reterr, "$LISTEN_FDS can't be read");
        return -EINVAL;
    }
    int fd = SD_LISTEN_FDS_START;
    if (n > 1 || sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) <= 0) {
        (void) buf_append_str(reterr, "the service manager must pass one listening Unix stream "
                                      "socket (ListenStream= with a path, once)");
        return -EINVAL;
    }
    return fd;
}

void notify_ready(void)
{
    (void) sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    (void) sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                      (long long) now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void notify_stopping(void)
{
    (void) sd_notify(0, "STOPPING=1");
}

/* Texts of a server may be in it, and a line of their own would be another message to the service
 * manager, which shows it on terminals, and takes nothing that is not UTF-8. */
void notify_status(const char *text)
{
    char *line = strdup(text);
    size_t len = strlen(text);
    for (size_t i = 0; line != NULL && i < len;) {
        size_t n = json_utf8_length(line + i, len - i);
        if (n == 0 || json_is_control(line + i, n))
            memset(line + i, '?', n > 0 ? n : 1);
        i += n > 0 ? n : 1;
    }
    if (line != NULL)
        (void) sd_notifyf(0, "STATUS=%s", line);
    free(line);
}

void notify_watchdog(void)
{
    (void) sd_notify(0, "WATCHDOG=1");
}

uint64_t notify_watchdog_ms(void)
{
    uint64_t interval_us = 0;
    return sd_watchdog_enabled(0, &interval_us) > 0 ? interval_us / 1000 : 0;
}
