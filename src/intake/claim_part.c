/* A claimed file's lines: a part of them at a time becomes a put. Runs on the loop thread.
 *
 * A line counts once its newline is there, or once no writer has the file open: a prefix of a job ID
 * is a legal job ID. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "intake/claim_private.h"
#include "model/line.h"
#include "intake/spool_line.h"

/* So much of a line is read again to show it. */
#define SHOWN_MAX 1024
/* What a line costs at least, in bytes of the budget. */
#define LINE_COST 128
#define SKIP_WINDOWS 4

/* Bytes of the file from the claim's offset on. */
struct window {
    const char *data;
    size_t len;
    bool ends; /* where the file ended when it was read */
};

static struct spool_line_file line_file(const struct claim *c)
{
    return (struct spool_line_file){
        .uuid = c->uuid,
        .name = c->name,
        .now_ms = clock_steady_ms(),
        .deadline_s = c->shared->deadline_s,
    };
}

/* --- The part in the making --- */

static void clear(struct claim_shared *shared)
{
    for (size_t i = 0; i < shared->n; i++)
        request_destroy(shared->requests[i]);
    shared->n = 0;
}

static void begin(struct claim *c)
{
    clear(c->shared);
    c->next_offset = c->offset;
    c->next_number = c->number;
    c->next_bad = c->bad;
    c->next_ends = false;
}

static enum claim_next out_of_memory(struct claim *c)
{
    clear(c->shared);
    return claim_stuck(c, "can't be read", -ENOMEM);
}

static void add(struct claim *c, struct request *req, bool bad, off_t offset, uint64_t number)
{
    struct claim_shared *shared = c->shared;
    if (bad && number > c->logged_number) {
        log_warning("spool: '%s' %s", c->name, req->message);
        c->logged_number = number;
    }
    shared->requests[shared->n] = req;
    shared->items[shared->n++] = (struct claim_item){
        .offset = offset,
        .number = number,
        .bad = bad,
    };
    c->next_bad += bad;
}

static int add_line(struct claim *c, const struct spool_line_file *file, const char *text,
                    size_t len, off_t offset)
{
    struct request *req;
    bool bad;
    int r = spool_line_request(file, c->next_number + 1, text, len, &req, &bad);
    if (r < 0)
        return r;
    c->next_number++;
    if (req != NULL)
        add(c, req, bad, offset, c->next_number);
    return 0;
}

static bool is_full(const struct claim *c)
{
    return c->shared->n >= c->shared->part_lines || c->next_bad >= CLAIM_BAD_LINES_MAX;
}

/* --- Its commit --- */

/* The part is dealt with. */
static void advance(struct claim *c)
{
    c->offset = c->next_offset;
    c->number = c->next_number;
    c->bad = c->next_bad;
    c->named = c->phase == CLAIM_NAMED;
    if (c->named)
        c->phase = CLAIM_ENDING;
    else if (c->bad >= CLAIM_BAD_LINES_MAX)
        c->phase = CLAIM_CUTTING;
    else
        c->phase = c->next_ends ? CLAIM_ENDING : CLAIM_READING;
}

static void count(struct claim *c, const struct queue_put_result *result, bool bad)
{
    if (result->outcome != PUT_ACCEPTED || bad)
        return;
    c->shared->stats.accepted++;
    c->shared->stats.coalesced += result->coalesced;
}

/* The lines of a part are back. True when some were refused. */
static bool lines_back(struct claim *c, const struct queue_put *put)
{
    size_t done = 0, disowned = 0;
    unsigned bad = c->bad;
    for (; done < put->n_requests && put->results[done].outcome != PUT_LEFT; done++) {
        struct claim_item *item = &c->items[done];
        count(c, &put->results[done], item->bad);
        if (put->results[done].outcome == PUT_OTHER_JOB) {
            c->items[disowned++] = *item;
            bad++;
        }
        bad += item->bad;
    }

    bool refused = done < put->n_requests;
    if (refused) {
        /* Goes on with the first line that was left. */
        if (c->phase == CLAIM_READING) {
            c->offset = c->items[done].offset;
            c->number = c->items[done].number - 1;
        }
        c->bad = bad;
    } else {
        c->next_bad = bad;
        advance(c);
    }
    c->n_items = disowned;
    if (disowned > 0) {
        c->resume_phase = c->phase;
        c->phase = CLAIM_DISOWNED;
    }
    return refused;
}

static bool disowned_back(struct claim *c, const struct queue_put *put)
{
    for (size_t i = 0; i < put->n_requests; i++) {
        if (put->results[i].outcome == PUT_LEFT)
            return true;
        if (put->results[i].outcome == PUT_OTHER_JOB)
            log_error("spool: '%s' line %ju: its own request_id belongs to another job; it gets no "
                      "result",
                      c->name, (uintmax_t) c->items[i].number);
    }
    c->n_items = 0;
    c->phase = c->resume_phase;
    return false;
}

static void put_done(struct queue_put *put, int status, void *userdata)
{
    struct claim *c = userdata;
    struct claim_shared *shared = c->shared;
    bool refused = status < 0;
    shared->open_requests -= put->n_requests;
    if (put->sync_error < 0)
        (void) claim_stuck(c, "its name can't be synced", put->sync_error);
    if (!refused) {
        c->synced = true;
        refused = c->phase == CLAIM_DISOWNED ? disowned_back(c, put) : lines_back(c, put);
        if (!refused)
            claim_resume_kept(c, put);
    }
    shared->woken(c, refused, shared->userdata);
}

static int hand_over(struct claim *c, struct queue_put *put)
{
    struct claim_shared *shared = c->shared;
    put->sync_fds[0] = c->synced ? -1 : c->dir->claimed_fd;
    put->sync_fds[1] = c->synced ? -1 : c->dir->fd;
    claim_resume_keep(c, put);
    put->done = put_done;
    put->userdata = c;
    memcpy(put->requests, shared->requests, shared->n * sizeof(shared->requests[0]));
    shared->n = 0;
    int r = queue_put(shared->queue, put);
    if (r < 0) {
        queue_put_destroy(put);
        return r;
    }
    shared->open_requests += put->n_requests;
    return 0;
}

static enum claim_next submit(struct claim *c)
{
    struct claim_shared *shared = c->shared;
    if (shared->n == 0) {
        advance(c);
        return CLAIM_MORE;
    }
    /* The put syncs .claimed/ and the spool directory; a directory of the claim's own, which only a
     * very long name needs, is synced here. */
    if (!c->synced && c->holder != NULL && fsync(c->holder_fd) < 0) {
        int r = -errno;
        clear(shared);
        return claim_stuck(c, "its name can't be synced", r);
    }
    size_t size = shared->n * sizeof(*c->items);
    struct claim_item *items = malloc(size);
    struct queue_put *put = queue_put_create(shared->n);
    if (items == NULL || put == NULL) {
        free(items);
        queue_put_destroy(put);
        return out_of_memory(c);
    }
    memcpy(items, shared->items, size);
    free(c->items);
    c->items = items;
    c->n_items = shared->n;

    int r = hand_over(c, put);
    if (r == -ENOMEM)
        return claim_stuck(c, "can't be put into the queue", r);
    return r < 0 ? CLAIM_REFUSED : CLAIM_PUT;
}

/* --- Phases --- */

enum claim_next claim_part_name(struct claim *c)
{
    struct stat st;
    int r = claim_is_quiet(c, &st);
    if (r < 0)
        return claim_stuck(c, "can't be looked at", r);
    if (st.st_size > 0) {
        if (c->fd < 0)
            return claim_reject(c, REJECT_UNREADABLE, 0);
        c->phase = CLAIM_READING;
        return CLAIM_MORE;
    }
    if (r == 0)
        return CLAIM_WRITER;
    if (!c->was_empty)
        return claim_reject(c, REJECT_EMPTIED, 0);

    begin(c);
    struct spool_line_file file = line_file(c);
    struct request *req;
    bool bad;
    if (spool_line_name(&file, &req, &bad) < 0)
        return out_of_memory(c);
    add(c, req, bad, 0, 1);
    c->next_number = 1;
    return submit(c);
}

/* What comes after the last newline at the end of the file. */
static enum claim_next take_tail(struct claim *c, const struct spool_line_file *file,
                                 const char *text, size_t len)
{
    off_t offset = c->next_offset;
    off_t end = offset + (off_t) len;
    struct stat st;
    int r = claim_is_quiet(c, &st);
    if (r < 0) {
        clear(c->shared);
        return claim_stuck(c, "can't be looked at", r);
    }
    if (r == 1 && st.st_size < end) {
        clear(c->shared);
        return claim_reject(c, REJECT_REWRITTEN, (int64_t) c->number);
    }
    if (r == 1 && st.st_size == end) {
        if (add_line(c, file, text, len, offset) < 0)
            return out_of_memory(c);
        c->next_offset = end;
        c->next_ends = true;
    } else if (c->next_offset == c->begin_offset) {
        return r == 1 ? CLAIM_MORE : CLAIM_WRITER;
    }
    return submit(c);
}

/* *ret_too_long when not even one line ends in the window. */
static enum claim_next take_lines(struct claim *c, const struct window *w, bool *ret_too_long)
{
    static const char mark[] = "\xef\xbb\xbf";
    *ret_too_long = false;
    begin(c);
    struct spool_line_file file = line_file(c);

    size_t pos = 0;
    if (c->offset == 0 && w->len >= 3 && memcmp(w->data, mark, 3) == 0)
        pos = 3;
    c->begin_offset = c->next_offset = c->offset + (off_t) pos;
    while (!is_full(c)) {
        const char *text = w->data + pos;
        const char *end = memchr(text, '\n', w->len - pos);
        if (end == NULL)
            break;
        if (add_line(c, &file, text, (size_t) (end - text), c->next_offset) < 0)
            return out_of_memory(c);
        pos += (size_t) (end - text) + 1;
        c->next_offset = c->offset + (off_t) pos;
    }
    if (is_full(c))
        return submit(c);
    if (!w->ends && c->next_offset == c->begin_offset) {
        *ret_too_long = true;
        return CLAIM_MORE;
    }
    c->next_ends = w->ends && pos == w->len;
    if (w->ends && pos < w->len)
        return take_tail(c, &file, w->data + pos, w->len - pos);
    return submit(c);
}

/* A line that the usual window can't hold, up to the longest. */
static enum claim_next take_long_line(struct claim *c, struct claim_budget *budget)
{
    char *data = malloc(CLAIM_LINE_MAX + 1);
    if (data == NULL)
        return claim_stuck(c, "can't be read", -ENOMEM);
    enum claim_next next;
    ssize_t n = claim_read_at(c, data, CLAIM_LINE_MAX + 1, c->offset);
    if (n < 0) {
        next = claim_stuck(c, "can't be read", (int) n);
    } else {
        budget->bytes -= n;
        struct window w = { .data = data, .len = (size_t) n, .ends = n <= CLAIM_LINE_MAX };
        bool too_long;
        next = take_lines(c, &w, &too_long);
        if (too_long) {
            c->look_offset = c->offset + n;
            c->phase = CLAIM_SKIPPING;
        }
    }
    free(data);
    return next;
}

enum claim_next claim_part_read(struct claim *c, struct claim_budget *budget)
{
    ssize_t n = claim_read_at(c, c->shared->window, CLAIM_WINDOW, c->offset);
    if (n < 0)
        return claim_stuck(c, "can't be read", (int) n);
    struct window w = { .data = c->shared->window, .len = (size_t) n, .ends = n < CLAIM_WINDOW };
    if (!c->checked) {
        if (!w.ends) { /* it has grown */
            c->phase = CLAIM_CHECKING;
            return CLAIM_MORE;
        }
        const char *nul = memchr(w.data, '\0', w.len);
        if (nul != NULL)
            return claim_reject(c, REJECT_NUL, nul - w.data + 1);
    }

    bool too_long;
    off_t from = c->offset;
    enum claim_next next = take_lines(c, &w, &too_long);
    if (too_long)
        return take_long_line(c, budget);
    int64_t used = c->next_offset - from;
    int64_t lines = (int64_t) (next == CLAIM_PUT ? c->n_items : 0) * LINE_COST;
    budget->bytes -= used > lines ? used : lines;
    c->checked = c->checked || next == CLAIM_PUT;
    return next;
}

static enum claim_next take_too_long(struct claim *c, off_t next_offset, bool ends)
{
    char text[SHOWN_MAX];
    ssize_t n = claim_read_at(c, text, sizeof(text), c->offset);
    if (n < 0)
        return claim_stuck(c, "can't be read", (int) n);
    begin(c);
    struct spool_line_file file = line_file(c);
    struct request *req;
    if (spool_line_invalid(&file, c->number + 1, text, (size_t) n, "longer than 1 MiB", &req) < 0)
        return out_of_memory(c);
    add(c, req, true, c->offset, c->number + 1);
    c->next_number = c->number + 1;
    c->next_offset = next_offset;
    c->next_ends = ends;
    return submit(c);
}

enum claim_next claim_part_skip(struct claim *c, struct claim_budget *budget)
{
    char *window = c->shared->window;
    for (int i = 0; i < SKIP_WINDOWS; i++) {
        ssize_t n = claim_read_at(c, window, CLAIM_WINDOW, c->look_offset);
        if (n < 0)
            return claim_stuck(c, "can't be read", (int) n);
        budget->bytes -= n;
        const char *end = memchr(window, '\n', (size_t) n);
        if (end != NULL)
            return take_too_long(c, c->look_offset + (end - window) + 1, false);
        c->look_offset += n;
        if (n == CLAIM_WINDOW)
            continue;

        struct stat st;
        int r = claim_is_quiet(c, &st);
        if (r < 0)
            return claim_stuck(c, "can't be looked at", r);
        if (r == 0)
            return CLAIM_WRITER;
        if (st.st_size < c->look_offset)
            return claim_reject(c, REJECT_REWRITTEN, (int64_t) c->number);
        if (st.st_size == c->look_offset)
            return take_too_long(c, c->look_offset, true);
    }
    return CLAIM_MORE;
}

/* The line again, without its newline. */
static ssize_t read_line(const struct claim *c, const struct claim_item *item,
                         char text[static SHOWN_MAX])
{
    ssize_t n = claim_read_at(c, text, SHOWN_MAX, item->offset);
    if (n <= 0)
        return n;
    const char *end = memchr(text, '\n', (size_t) n);
    return end != NULL ? end - text : n;
}

enum claim_next claim_part_disown(struct claim *c)
{
    static const char what[] = "request_id belongs to another job";
    clear(c->shared);
    struct spool_line_file file = line_file(c);
    for (size_t i = 0; i < c->n_items; i++) {
        const struct claim_item *item = &c->items[i];
        char line[SHOWN_MAX];
        ssize_t n = c->fd >= 0 ? read_line(c, item, line) : 0;
        if (n < 0) {
            clear(c->shared);
            return claim_stuck(c, "can't be read", (int) n);
        }
        const char *text = line;
        size_t len = (size_t) n;
        line_trim(&text, &len);
        struct request *req;
        if (spool_line_invalid(&file, item->number, text, len, what, &req) < 0)
            return out_of_memory(c);
        if (item->number > c->logged_disowned) {
            log_warning("spool: '%s' %s", c->name, req->message);
            c->logged_disowned = item->number;
        }
        c->shared->requests[c->shared->n] = req;
        c->shared->items[c->shared->n++] = *item;
    }
    return submit(c);
}
