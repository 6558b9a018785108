/* A temporary directory with a results log, for the tests of results/. */
#ifndef PULSE_TESTS_RESULTS_PLACE_H
#define PULSE_TESTS_RESULTS_PLACE_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "results/results.h"

#define CONTENT_MAX 65536

struct place {
    char dir[32];
    char log_path[64];
    struct results *results;
    struct queue_log log;
};

static inline int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    strcpy(p->dir, "/tmp/results-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void) snprintf(p->log_path, sizeof(p->log_path), "%s/r.log", p->dir);
    assert_int_equal(results_create(&p->results, p->log_path), 0);
    results_get_log(p->results, &p->log);
    *state = p;
    return 0;
}

static inline int teardown(void **state)
{
    struct place *p = *state;
    results_destroy(p->results);

    char command[64];
    (void) snprintf(command, sizeof(command), "rm -rf %s", p->dir);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static inline void path_of(const struct place *p, const char *name, char ret_path[static 128])
{
    (void) snprintf(ret_path, 128, "%s/%s", p->dir, name);
}

static inline size_t put_lines(char *text, int first, int last)
{
    size_t len = 0;
    for (int n = first; n <= last; n++)
        len +=
            (size_t) sprintf(text + len, "{\"n\":%d,\"job_id\":\"job-%d\",\"x\":[1,null]}\n", n, n);
    return len;
}

static inline size_t read_all(const char *path, char *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, CONTENT_MAX);
    assert_true(n >= 0 && n < CONTENT_MAX);
    (void) close(fd);
    return (size_t) n;
}

static inline void write_whole(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static inline void assert_content(const char *what, const char *path, const char *want,
                                  size_t want_len)
{
    static char got[CONTENT_MAX];
    size_t len = read_all(path, got);
    if (len != want_len || memcmp(got, want, len) != 0)
        fail_msg("%s: %s has %zu bytes: %.*s", what, path, len, (int) len, got);
}

#endif
