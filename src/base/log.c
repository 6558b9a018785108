/* The daemon's own log. Any thread: a message is one write(2), so lines do not mix. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"

/* Longer messages are cut. Escaped it is at most four times as much, which is less than the 48 KiB
 * at which the journal would cut a line in two. */
#define MESSAGE_MAX 8192

static atomic_int max_level = LOG_LEVEL_INFO;
static atomic_bool to_journal;

/* As systemd.exec(5) has it: "DEVICE:INODE" of the stream that leads to the journal. A daemon whose
 * stderr was redirected after that still has the variable, hence the comparison. */
void log_init(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    uintmax_t device = 0;
    uintmax_t inode = 0;
    char rest = '\0';

    bool match = stream != NULL && fstat(STDERR_FILENO, &st) == 0 &&
                 sscanf(stream, "%ju:%ju%c", &device, &inode, &rest) == 2 &&
                 device == (uintmax_t) st.st_dev && inode == (uintmax_t) st.st_ino;
    atomic_store(&to_journal, match);
}

void log_set_level(enum log_level level)
{
    atomic_store(&max_level, (int) level);
}

static const char *prefix_of(enum log_level level, bool journal)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return journal ? "<3>" : "error: ";
    case LOG_LEVEL_WARNING:
        return journal ? "<4>" : "warning: ";
    case LOG_LEVEL_INFO:
        return journal ? "<6>" : "info: ";
    case LOG_LEVEL_DEBUG:
        return journal ? "<7>" : "debug: ";
    }
    return "";
}

/* Length of the next piece that is safe to show as it is, or 0. C1 controls (U+0080 to U+009F, of
 * which U+009B starts a terminal's command) are none. */
static size_t safe_length(const char *s, size_t len)
{
    size_t n = json_utf8_length(s, len);
    unsigned char c = (unsigned char) s[0];
    if (n == 1 && (c < 0x20 || c == 0x7f))
        return 0;
    if (n == 2 && c == 0xc2 && (unsigned char) s[1] < 0xa0)
        return 0;
    return n;
}

static size_t sanitise(const char *text, size_t len, char *out)
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;

    for (size_t i = 0; i < len;) {
        size_t n = safe_length(text + i, len - i);
        for (size_t k = 0; k < n; k++)
            out[at++] = text[i + k];
        if (n == 0) {
            unsigned char c = (unsigned char) text[i];
            out[at++] = '\\';
            out[at++] = 'x';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
            n = 1;
        }
        i += n;
    }
    return at;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if ((int) level > atomic_load_explicit(&max_level, memory_order_relaxed))
        return;
    int saved_errno = errno;

    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t) n;
    bool cut = len >= sizeof(message);
    if (cut)
        len = sizeof(message) - 1;

    char line[MESSAGE_MAX * 4 + 32];
    size_t at = 0;
    for (const char *p = prefix_of(level, atomic_load(&to_journal)); *p != '\0'; p++)
        line[at++] = *p;
    at += sanitise(message, len, line + at);
    for (int i = 0; cut && i < 3; i++)
        line[at++] = '.';
    line[at++] = '\n';

    /* There is nowhere to report that the log does not work. */
    (void) fs_write_all(STDERR_FILENO, line, at, NULL);
    errno = saved_errno;
}
