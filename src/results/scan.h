/* Reading a results log: which of its lines are good, where the good part ends, and cutting the
 * rest. Private to results/. Reads in bounded pieces. */
#ifndef PULSE_RESULTS_SCAN_H
#define PULSE_RESULTS_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/request.h"
#include "queue/queue.h"

/* More than any line the daemon writes: four texts of REQUEST_TEXT_MAX, escaped. */
#define SCAN_LINE_MAX (256 * 1024)

/* What a log should look like. The database has every line after `floor_n`, so what is doubtful
 * there can be cut and written again; lines up to it may exist nowhere else and are kept. */
struct scan_from {
    int64_t offset;   /* where to begin */
    int64_t expect_n; /* number of the line there; 0 = any */
    int64_t floor_n;
};

struct scan {
    int64_t size;                     /* of the file */
    int64_t end;                      /* after the last good line */
    int64_t last_n;                   /* the highest good one; 0 = not one good line */
    char last_id[REQUEST_ID_MAX + 1]; /* request_id of that line; "" = not found in it */
    int64_t highest_n;                /* of any line that parses, in order or not */
    bool no_newline;                  /* the last good line lacks its newline, and only that */
};

/* 0 or -errno. */
int scan_log(int fd, const struct scan_from *from, struct scan *ret);

/* -EEXIST, with a sentence, when there is a line that the database can't have given out. `check`
 * may be NULL. */
int scan_check_database(const struct scan *scan, const char *path, int64_t max_n,
                        const struct queue_log_check *check, struct buf *reterr);

/* Makes the file end after its last good line. `fd` was opened with O_APPEND; `path` is for the
 * warning. 0 or -errno. */
int scan_repair(int fd, const char *path, const struct scan *scan);

/* 1 when the line that ends at `offset` is number `n` (or when both are where a log begins), 0 when
 * it isn't, -errno. */
int scan_line_before(int fd, int64_t offset, int64_t n);

/* 1 when a file without one line that parses is what a crash may leave of our first writes: empty, or
 * the beginning of a line, with NULs for each sector that was not written, whatever came after it.
 * 0 when it is somebody else's. -errno. */
int scan_is_wreck(int fd);

/* The number of the first line, by its first bytes only; 0 when it doesn't begin like ours. */
int64_t scan_first_n(int fd);

#endif
