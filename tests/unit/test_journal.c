/* Outcomes in the daemon's own log: which are told at which level, and how many in a second. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/journal.h"

/* What is logged goes to a file; cmocka's own messages go where they went. */
struct place {
    FILE *file;
    int kept_stderr;
};

static int setup(void **state)
{
    static struct place place;
    (void) unsetenv("JOURNAL_STREAM");
    log_init();
    log_set_level(LOG_LEVEL_DEBUG);
    place.file = tmpfile();
    place.kept_stderr = dup(STDERR_FILENO);
    *state = &place;
    return place.file == NULL || dup2(fileno(place.file), STDERR_FILENO) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    (void) dup2(place->kept_stderr, STDERR_FILENO);
    (void) close(place->kept_stderr);
    (void) fclose(place->file);
    return 0;
}

/* How many lines have `word`. */
static size_t lines_with(struct place *place, const char *word)
{
    char line[1024];
    size_t n = 0;
    rewind(place->file);
    while (fgets(line, sizeof(line), place->file) != NULL)
        n += strstr(line, word) != NULL;
    return n;
}

static void test_levels(void **state)
{
    static const struct {
        enum outcome outcome;
        enum log_level level;
        const char *line;
    } cases[] = {
        { OUTCOME_CANCELLED, LOG_LEVEL_DEBUG,
          "debug: outcome: cancelled of job 'j' (request r)\n" },
        { OUTCOME_TOO_LATE, LOG_LEVEL_INFO, "info: outcome: too_late of job 'j' (request r)\n" },
        { OUTCOME_NOT_FOUND, LOG_LEVEL_INFO, "info: outcome: not_found of job 'j' (request r)\n" },
        { OUTCOME_WITHDRAWN, LOG_LEVEL_INFO, "info: outcome: withdrawn of job 'j' (request r)\n" },
        { OUTCOME_UNAUTHORIZED, LOG_LEVEL_WARNING, "warning: outcome: unauthorized of job" },
        { OUTCOME_FORBIDDEN, LOG_LEVEL_WARNING, "warning: outcome: forbidden of job" },
        { OUTCOME_REJECTED, LOG_LEVEL_WARNING, "warning: outcome: rejected of job" },
        { OUTCOME_FAILED, LOG_LEVEL_WARNING, "warning: outcome: failed of job" },
        { OUTCOME_EXPIRED, LOG_LEVEL_WARNING, "warning: outcome: expired of job" },
        { OUTCOME_INVALID, LOG_LEVEL_WARNING, "warning: outcome: invalid of job" },
    };
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), OUTCOME_COUNT);
    struct journal j;
    journal_init(&j, NULL);
    assert_int_equal(j.fd, -1);
    for (size_t i = 0; i < OUTCOME_COUNT; i++) {
        enum log_level below = cases[i].level - 1;
        journal_outcome(&j, below, 0, "j", "r", cases[i].outcome);
        assert_int_equal(lines_with(*state, cases[i].line), 0);
        journal_outcome(&j, cases[i].level, 0, "j", "r", cases[i].outcome);
        assert_int_equal(lines_with(*state, cases[i].line), 1);
    }
}

static void tell(struct journal *j, int64_t now_ms, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        journal_outcome(j, LOG_LEVEL_INFO, now_ms, "j", "r", OUTCOME_FAILED);
}

static void test_flood(void **state)
{
    struct journal j;
    journal_init(&j, NULL);
    /* What is not told at this level takes no room. */
    for (unsigned i = 0; i < 1000; i++)
        journal_outcome(&j, LOG_LEVEL_INFO, 5000, "j", "r", OUTCOME_CANCELLED);
    tell(&j, 5000, JOURNAL_OUTCOMES_PER_S);
    assert_int_equal(lines_with(*state, "outcomes: more than"), 0);
    tell(&j, 5999, 1000);
    assert_int_equal(lines_with(*state, "outcome: failed"), JOURNAL_OUTCOMES_PER_S);
    assert_int_equal(lines_with(*state, "outcomes: more than"), 1);
    /* A flood that goes on is told once, a new one again. */
    tell(&j, 6000, 1000);
    assert_int_equal(lines_with(*state, "outcome: failed"), 2 * JOURNAL_OUTCOMES_PER_S);
    assert_int_equal(lines_with(*state, "outcomes: more than"), 1);
    tell(&j, 7000, 1);
    tell(&j, 8000, 1000);
    assert_int_equal(lines_with(*state, "outcome: failed"), 3 * JOURNAL_OUTCOMES_PER_S + 1);
    assert_int_equal(lines_with(*state, "outcomes: more than"), 2);
    tell(&j, 20000, 1000);
    assert_int_equal(lines_with(*state, "outcomes: more than"), 3);
}

/* Takes one datagram; 0 when there is none. */
static size_t receive(int fd, char *text, size_t size)
{
    ssize_t n = recv(fd, text, size, MSG_DONTWAIT);
    return n < 0 ? 0 : (size_t) n;
}

static void assert_field(const char *text, size_t len, const char *name, const char *value)
{
    char field[1024];
    uint64_t value_len = htole64(strlen(value));
    int n = snprintf(field, sizeof(field), "\n%s\n", name);
    memcpy(field + n, &value_len, sizeof(value_len));
    size_t at = (size_t) n + sizeof(value_len);
    at += (size_t) snprintf(field + at, sizeof(field) - at, "%s\n", value);
    assert_non_null(memmem(text, len, field, at));
}

static void test_fields(void **state)
{
    char directory[] = "/tmp/pulse-journal.XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", directory);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *) &address, sizeof(address)), 0);

    struct journal j;
    journal_init(&j, address.sun_path);
    journal_outcome(&j, LOG_LEVEL_INFO, 0, "j\nPRIORITY=0", "r", OUTCOME_INVALID);
    char text[4096];
    size_t len = receive(fd, text, sizeof(text));
    static const char start[] =
        "PRIORITY=4\nSYSLOG_IDENTIFIER=pulse-canceld\nPULSE_OUTCOME=invalid\n";
    assert_memory_equal(text, start, strlen(start));
    assert_field(text, len, "MESSAGE", "outcome: invalid of job 'j\nPRIORITY=0' (request r)");
    assert_field(text, len, "PULSE_REQUEST_ID", "r");
    assert_field(text, len, "PULSE_JOB_ID", "j\nPRIORITY=0");

    journal_outcome(&j, LOG_LEVEL_INFO, 0, "j", "r", OUTCOME_NOT_FOUND);
    len = receive(fd, text, sizeof(text));
    assert_memory_equal(text, "PRIORITY=5\n", 11);
    assert_field(text, len, "PULSE_JOB_ID", "j");
    journal_outcome(&j, LOG_LEVEL_INFO, 0, "j", "r", OUTCOME_CANCELLED);
    assert_int_equal(receive(fd, text, sizeof(text)), 0);

    /* One that does not read is not waited for: this ends. */
    for (int64_t second = 1; second < 100; second++)
        tell(&j, second * 1000, JOURNAL_OUTCOMES_PER_S);
    assert_true(receive(fd, text, sizeof(text)) > 0);
    assert_int_equal(lines_with(*state, "outcome"), 0);

    journal_finish(&j);
    (void) close(fd);
    (void) unlink(address.sun_path);
    (void) rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
