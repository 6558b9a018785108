/* The daemon's own log. Any thread: one line at a time, so they do not mix.
 *
 * Stderr may be a pipe or a socket whose other end does not read. The daemon does not stand still for
 * its log: it waits a moment, then drops lines until there is room, and says how many. O_NONBLOCK is
 * not for us to set, since whoever has the same stderr would get it too. */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
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

/* Enough for a reader that is only slow; nobody else is to notice. */
#define PATIENCE_MS 100

static atomic_int max_level = LOG_LEVEL_INFO;
static atomic_bool to_journal;

static struct {
    pthread_mutex_t mutex;
    bool may_block; /* stderr is no file */
    bool stuck;     /* there was no room for a while */
    bool mid_line;  /* the last line went out in part */
    uint64_t dropped;
} target = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* As systemd.exec(5) has it: "DEVICE:INODE" of the stream that leads to the journal. A daemon whose
 * stderr was redirected after that still has the variable, hence the comparison. */
void log_init(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    uintmax_t device = 0;
    uintmax_t inode = 0;
    char rest = '\0';

    bool known = fstat(STDERR_FILENO, &st) == 0;
    bool match = stream != NULL && known &&
                 sscanf(stream, "%ju:%ju%c", &device, &inode, &rest) == 2 &&
                 device == (uintmax_t) st.st_dev && inode == (uintmax_t) st.st_ino;
    atomic_store(&to_journal, match);
    (void) pthread_mutex_lock(&target.mutex);
    target.may_block = known && !S_ISREG(st.st_mode);
    (void) pthread_mutex_unlock(&target.mutex);
}

bool log_is_journal(void)
{
    return atomic_load(&to_journal);
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

/* Length of the next piece that is safe to show as it is, or 0. */
static size_t safe_length(const char *s, size_t len)
{
    size_t n = json_utf8_length(s, len);
    return n > 0 && !json_is_control(s, n) ? n : 0;
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

static bool has_room(void)
{
    if (!target.may_block)
        return true;
    struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };
    int n;
    do
        n = poll(&fd, 1, target.stuck ? 0 : PATIENCE_MS);
    while (n < 0 && errno == EINTR);
    target.stuck = n == 0;
    return !target.stuck;
}

/* In pieces: a pipe that has room takes PIPE_BUF bytes at once, and of more perhaps only a part. */
static bool put(const char *line, size_t len)
{
    size_t done = 0;
    while (done < len) {
        size_t n = len - done;
        size_t written = 0;
        if (target.may_block && n > PIPE_BUF)
            n = PIPE_BUF;
        bool good = has_room() && fs_write_all(STDERR_FILENO, line + done, n, &written) == 0;
        done += written;
        if (!good)
            break;
    }
    if (done > 0)
        target.mid_line = done < len;
    return done == len;
}

/* What was dropped is told before the next line that goes out. */
static void emit(const char *line, size_t len)
{
    (void) pthread_mutex_lock(&target.mutex);
    if (target.dropped > 0) {
        char note[128];
        int n = snprintf(note, sizeof(note),
                         "%s%slog: %ju lines were dropped, since there was no room for them\n",
                         target.mid_line ? "\n" : "",
                         prefix_of(LOG_LEVEL_WARNING, atomic_load(&to_journal)),
                         (uintmax_t) target.dropped);
        if (put(note, (size_t) n))
            target.dropped = 0;
    }
    /* There is nowhere to report that the log does not work. */
    if (target.dropped > 0 || !put(line, len))
        target.dropped++;
    (void) pthread_mutex_unlock(&target.mutex);
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

    emit(line, at);
    errno = saved_errno;
}
