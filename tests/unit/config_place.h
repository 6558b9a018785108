/* What the tests of the configuration share: a directory with a file, a key and credentials. */
#ifndef PULSE_TESTS_CONFIG_PLACE_H
#define PULSE_TESTS_CONFIG_PLACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "model/config.h"

#define KEY "sk-test-0123456789"

/* A directory with a configuration, a key and a credentials directory. */
struct place {
    char directory[64];
    char file[128];
    char key_file[128];
    char credentials[128];
    char credential[160];
};

static inline void write_file(const char *path, const char *text, size_t len, mode_t mode)
{
    (void) unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fs_write_all(fd, text, len, NULL), 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static inline int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    (void) snprintf(p->directory, sizeof(p->directory), "/tmp/pulse-config-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    (void) snprintf(p->file, sizeof(p->file), "%s/pulse.conf", p->directory);
    (void) snprintf(p->key_file, sizeof(p->key_file), "%s/key", p->directory);
    (void) snprintf(p->credentials, sizeof(p->credentials), "%s/credentials", p->directory);
    (void) snprintf(p->credential, sizeof(p->credential), "%s/api-key", p->credentials);
    assert_int_equal(mkdir(p->credentials, 0700), 0);
    write_file(p->credential, KEY "\n", strlen(KEY "\n"), 0400);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", p->credentials, 1), 0);
    *state = p;
    return 0;
}

static inline int teardown(void **state)
{
    struct place *p = *state;
    (void) unsetenv("CREDENTIALS_DIRECTORY");
    (void) unlink(p->file);
    (void) unlink(p->key_file);
    (void) unlink(p->credential);
    (void) rmdir(p->credentials);
    assert_int_equal(rmdir(p->directory), 0);
    free(p);
    return 0;
}

/* The file's text must be good. */
static inline struct config *load_good(struct place *p, const char *text)
{
    struct config *config = NULL;
    struct buf err;
    buf_init(&err, 8192);
    write_file(p->file, text, strlen(text), 0644);
    int r = config_load(p->file, &config, &err);
    if (r != 0)
        fail_msg("%d: %s\nin: %s", r, buf_cstr(&err), text);
    assert_int_equal(err.len, 0);
    buf_finish(&err);
    return config;
}

/* The error must be `FILE` and then `what`. */
static inline void assert_bad(struct place *p, const char *text, size_t len, const char *what)
{
    struct config *config = NULL;
    struct buf err;
    char expected[8192];
    buf_init(&err, 8192);
    if (text != NULL)
        write_file(p->file, text, len, 0644);
    int r = config_load(p->file, &config, &err);
    (void) snprintf(expected, sizeof(expected), "%s%s", p->file, what);
    if (r != -EINVAL || strcmp(buf_cstr(&err), expected) != 0)
        fail_msg("%d: '%s'\ninstead of '%s'\nin: %s", r, buf_cstr(&err), expected, text);
    assert_null(config);
    assert_null(strstr(buf_cstr(&err), KEY));
    buf_finish(&err);
}

#endif
