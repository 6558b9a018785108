/* Where cancel's requests come from, and the request_ids they get: PREFIX.LINE, so that the same
 * file sent again with the same PREFIX makes no second requests. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/uuid.h"
#include "ctl/cancel_private.h"
#include "ctl/options.h"

/* Room for a dot and the number of a line. */
#define PREFIX_MAX (REQUEST_ID_MAX - 20)

static enum ctl_exit check_arguments(const struct invocation *inv)
{
    for (size_t i = 0; i < inv->n_arguments; i++)
        if (!job_id_valid(inv->arguments[i], strlen(inv->arguments[i])))
            return options_misused(inv,
                                   "'%s' is not a job ID (1 to %d bytes of A-Z a-z 0-9 . _ ~ : -); "
                                   "nothing was sent",
                                   inv->arguments[i], JOB_ID_MAX);
    return CTL_OK;
}

static enum ctl_exit read_prefix(struct cancel_source *s)
{
    const char *given = s->inv->values[OPTION_REQUEST_ID];
    bool single = !s->from_file && s->inv->n_arguments == 1;
    size_t max = single ? REQUEST_ID_MAX : PREFIX_MAX;
    if (given == NULL) {
        char uuid[UUID_TEXT_MAX];
        uuid7_make(clock_wall_ms(), uuid);
        (void) snprintf(s->prefix, sizeof(s->prefix), "%s", uuid);
        return CTL_OK;
    }
    if (!request_id_valid(given, strlen(given)) || strlen(given) > max)
        return options_misused(s->inv,
                               "--request-id takes 1 to %zu bytes of A-Z a-z 0-9 . _ : -, not '%s'",
                               max, given);
    (void) snprintf(s->prefix, sizeof(s->prefix), "%s", given);
    s->prefix_given = true;
    return CTL_OK;
}

static enum ctl_exit open_file(struct cancel_source *s, const char *path)
{
    struct stat st;
    s->fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (s->fd >= 0 && (fstat(s->fd, &st) < 0 || S_ISDIR(st.st_mode))) {
        errno = EISDIR;
        (void) close(s->fd);
        s->fd = -1;
    }
    if (s->fd < 0)
        return options_misused(s->inv, "can't read %s: %s; nothing was sent", path,
                               strerror(errno));
    input_init(&s->input, s->fd);
    return CTL_OK;
}

enum ctl_exit cancel_source_open(struct cancel_source *ret, const struct invocation *inv)
{
    const char *path = inv->values[OPTION_FILE];
    bool has_dash = inv->n_arguments == 1 && strcmp(inv->arguments[0], "-") == 0;
    *ret = (struct cancel_source){ .inv = inv, .fd = -1 };
    if (path == NULL && has_dash)
        path = "-";
    else if (path != NULL && inv->n_arguments > 0)
        return options_misused(inv, "give jobs or --file, not both");
    if (path == NULL && inv->n_arguments == 0)
        return options_misused(inv,
                               "which jobs? Give job IDs, --file FILE, or - for standard input");
    if (invocation_has(inv, OPTION_DEADLINE) &&
        !options_number(inv, OPTION_DEADLINE, 1, DEADLINE_S_MAX, &ret->deadline_s))
        return CTL_USAGE;

    ret->from_file = path != NULL;
    enum ctl_exit status = read_prefix(ret);
    if (status != CTL_OK)
        return status;
    return path != NULL ? open_file(ret, path) : check_arguments(inv);
}

void cancel_source_close(struct cancel_source *s)
{
    if (!s->from_file || s->fd < 0)
        return;
    input_finish(&s->input);
    if (s->fd != STDIN_FILENO)
        (void) close(s->fd);
}

int64_t cancel_source_count(struct cancel_source *s)
{
    struct stat st;
    if (!s->from_file)
        return (int64_t) s->inv->n_arguments;
    off_t start = lseek(s->fd, 0, SEEK_CUR);
    if (start < 0 || fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return -1;
    struct input counted;
    input_init(&counted, s->fd);
    int64_t n = input_count(&counted);
    input_finish(&counted);
    if (lseek(s->fd, start, SEEK_SET) < 0)
        s->error = -errno;
    return n < 0 ? -1 : n;
}

static bool next_argument(struct cancel_source *s, struct input_line *ret)
{
    if (s->next_argument == s->inv->n_arguments) {
        s->ended = true;
        return false;
    }
    const char *job = s->inv->arguments[s->next_argument++];
    input_line_read(job, strlen(job), s->next_argument, ret);
    return true;
}

static bool next_line(struct cancel_source *s, struct input_line *ret)
{
    if (input_next(&s->input, ret))
        return true;
    s->ended = s->input.ended || s->error != 0;
    return false;
}

bool cancel_source_next(struct cancel_source *s, struct input_line *ret)
{
    if (!(s->from_file ? next_line(s, ret) : next_argument(s, ret)))
        return false;
    struct line *line = &ret->line;
    if (line->deadline_s == 0)
        line->deadline_s = s->deadline_s;
    if (line->request_id[0] == '\0' && !s->from_file && s->inv->n_arguments == 1)
        (void) snprintf(line->request_id, sizeof(line->request_id), "%s", s->prefix);
    else if (line->request_id[0] == '\0')
        (void) snprintf(line->request_id, sizeof(line->request_id), "%.*s.%" PRIu64, PREFIX_MAX,
                        s->prefix, ret->number);
    return true;
}

int cancel_source_fd(const struct cancel_source *s)
{
    return s->from_file && !s->ended ? s->fd : -1;
}

void cancel_source_read(struct cancel_source *s)
{
    int r = input_read(&s->input);
    if (r < 0)
        s->error = r;
}
