/* The watchdog is fed while work moves, not while it does not, and again when it does. */
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

#include "base/log.h"
#include "daemon/watchdog.h"

/* The service manager's end. */
struct manager {
    char directory[32];
    struct sockaddr_un address;
    int fd;
};

static int setup(void **state)
{
    static struct manager m;
    m = (struct manager){ .directory = "/tmp/pulse-dog.XXXXXX",
                          .address = { .sun_family = AF_UNIX } };
    if (mkdtemp(m.directory) == NULL)
        return -1;
    (void) snprintf(m.address.sun_path, sizeof(m.address.sun_path), "%s/notify", m.directory);
    m.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (m.fd < 0 || bind(m.fd, (struct sockaddr *) &m.address, sizeof(m.address)) < 0)
        return -1;
    (void) setenv("NOTIFY_SOCKET", m.address.sun_path, 1);
    (void) unsetenv("WATCHDOG_PID");
    *state = &m;
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}

static int teardown(void **state)
{
    struct manager *m = *state;
    (void) close(m->fd);
    (void) unlink(m->address.sun_path);
    (void) rmdir(m->directory);
    return 0;
}

static size_t fed(const struct manager *m)
{
    char text[64];
    size_t n = 0;
    ssize_t len;
    while ((len = recv(m->fd, text, sizeof(text), 0)) > 0) {
        assert_int_equal(len, strlen("WATCHDOG=1"));
        assert_memory_equal(text, "WATCHDOG=1", strlen("WATCHDOG=1"));
        n++;
    }
    return n;
}

struct work {
    struct manager *manager;
    struct watchdog watchdog;
    unsigned asked;
    size_t fed_before[7];
};

/* Moves but for the third and the fourth time; the sixth ends it. */
static bool moves(void *userdata)
{
    struct work *work = userdata;
    work->fed_before[work->asked++] = fed(work->manager);
    if (work->asked == 6)
        watchdog_close(&work->watchdog);
    return work->asked != 3 && work->asked != 4;
}

static void run(struct work *work)
{
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    watchdog_init(&work->watchdog, &loop, moves, work);
    if (!uv_is_active((uv_handle_t *) &work->watchdog.timer))
        watchdog_close(&work->watchdog);
    (void) uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_fed_while_work_moves(void **state)
{
    struct work work = { .manager = *state };
    (void) setenv("WATCHDOG_USEC", "4000", 1);
    run(&work);
    static const size_t expected[] = { 0, 1, 1, 0, 0, 1 };
    assert_int_equal(work.asked, 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(work.fed_before[i], expected[i]);
    assert_int_equal(fed(work.manager), 1);
}

static void test_nobody_watches(void **state)
{
    struct work work = { .manager = *state };
    (void) unsetenv("WATCHDOG_USEC");
    run(&work);
    assert_int_equal(work.asked, 0);
    /* Another process's. */
    (void) setenv("WATCHDOG_USEC", "4000", 1);
    (void) setenv("WATCHDOG_PID", "1", 1);
    run(&work);
    assert_int_equal(work.asked, 0);
    assert_int_equal(fed(work.manager), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fed_while_work_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_watches, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
