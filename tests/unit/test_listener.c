/* The listening socket: who may connect, and what may lie at its path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "intake/listener.h"

struct place {
    char dir[32];
    char path[64];
    struct buf error;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    (void) strcpy(place->dir, "/tmp/pulse-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    (void) snprintf(place->path, sizeof(place->path), "%s/socket", place->dir);
    buf_init(&place->error, 1024);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    (void) unlink(place->path);
    assert_int_equal(rmdir(place->dir), 0);
    buf_finish(&place->error);
    free(place);
    return 0;
}

static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    int r = connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
    (void) close(fd);
    return r;
}

static void made_with_its_mode_and_removed(void **state)
{
    struct place *place = *state;
    struct listener l;
    struct stat st;
    assert_int_equal(listener_open(&l, place->path, 0640, "", &place->error), 0);
    assert_int_equal(lstat(place->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(connect_to(place->path), 0);
    listener_finish(&l);
    assert_false(is_there(place->path));
}

static void live_daemon_is_left_alone(void **state)
{
    struct place *place = *state;
    struct listener live, second;
    assert_int_equal(listener_open(&live, place->path, 0600, "", &place->error), 0);
    assert_int_equal(listener_open(&second, place->path, 0600, "", &place->error), -EADDRINUSE);
    assert_non_null(strstr(buf_cstr(&place->error), "live daemon"));
    assert_int_equal(connect_to(place->path), 0);
    listener_finish(&live);
}

static void dead_daemons_socket_is_replaced(void **state)
{
    struct place *place = *state;
    struct listener dead, l;
    assert_int_equal(listener_open(&dead, place->path, 0600, "", &place->error), 0);
    (void) close(dead.fd);
    free(dead.path);
    assert_int_equal(connect_to(place->path), -ECONNREFUSED);
    assert_int_equal(listener_open(&l, place->path, 0600, "", &place->error), 0);
    assert_int_equal(connect_to(place->path), 0);
    listener_finish(&l);
}

static void anothers_socket_is_not_removed(void **state)
{
    struct place *place = *state;
    struct listener first, second;
    assert_int_equal(listener_open(&first, place->path, 0600, "", &place->error), 0);
    assert_int_equal(unlink(place->path), 0);
    assert_int_equal(listener_open(&second, place->path, 0600, "", &place->error), 0);
    listener_finish(&first);
    assert_int_equal(connect_to(place->path), 0);
    listener_finish(&second);
    assert_false(is_there(place->path));
}

static void what_is_no_socket_is_left_alone(void **state)
{
    struct place *place = *state;
    struct listener l;
    int fd = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void) close(fd);
    assert_int_equal(listener_open(&l, place->path, 0600, "", &place->error), -EEXIST);
    assert_true(is_there(place->path));
}

static void unknown_group(void **state)
{
    struct place *place = *state;
    struct listener l;
    assert_int_equal(listener_open(&l, place->path, 0660, "no-such-group", &place->error), -EINVAL);
    assert_non_null(strstr(buf_cstr(&place->error), "no-such-group"));
    assert_false(is_there(place->path));
}

static void longest_path(void **state)
{
    struct place *place = *state;
    char path[109];
    size_t len = (size_t) snprintf(path, sizeof(path), "%s/", place->dir);
    memset(path + len, 'p', sizeof(path) - 1 - len);
    path[108] = '\0';
    struct listener l;
    assert_int_equal(listener_open(&l, path, 0600, "", &place->error), -ENAMETOOLONG);
    assert_non_null(strstr(buf_cstr(&place->error), "107"));
    path[107] = '\0';
    assert_int_equal(listener_open(&l, path, 0600, "", &place->error), 0);
    listener_finish(&l);
    assert_false(is_there(path));
}

static void a_passed_socket_stays(void **state)
{
    struct place *place = *state;
    struct listener made, passed;
    assert_int_equal(listener_open(&made, place->path, 0600, "", &place->error), 0);
    assert_int_equal(listener_adopt(&passed, dup(made.fd), &place->error), 0);
    listener_finish(&passed);
    assert_true(is_there(place->path));
    listener_finish(&made);

    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(listener_adopt(&passed, pair[0], &place->error), -EINVAL);
    (void) close(pair[1]);
    int inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(listener_adopt(&passed, inet, &place->error), -EPROTOTYPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(made_with_its_mode_and_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(live_daemon_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dead_daemons_socket_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(anothers_socket_is_not_removed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_socket_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unknown_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(longest_path, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_passed_socket_stays, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
