/* Kills the daemon when it is about to make its Nth call of those that change something: loaded into it
 * by tests/boot/kills.py, under the packaged unit's sandbox, which lets nobody trace it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* One of the few places that the unit may write to. */
#define CONTROL_PATH "/var/lib/pulse-canceld/.kill-at"

/* Shared with kills.py, and outlives the process. */
struct control {
    _Atomic uint64_t kill_at[2]; /* 0 = not; the second one counts from the restart on */
    _Atomic uint64_t count;
    _Atomic uint64_t kills;
};

static struct control *control;

__attribute__((constructor)) static void find_control(void)
{
    int fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void) close(fd);
    if (map != MAP_FAILED)
        control = map;
}

static void one_more(void)
{
    if (control == NULL)
        return;
    uint64_t count = atomic_fetch_add(&control->count, 1) + 1;
    if (count != atomic_load(&control->kill_at[0]))
        return;
    atomic_store(&control->kill_at[0], atomic_exchange(&control->kill_at[1], 0));
    atomic_store(&control->count, 0);
    atomic_fetch_add(&control->kills, 1);
    (void) kill(getpid(), SIGKILL);
}

/* The next one of this name, after it was counted. */
#define WRAP(type, name, params, args)                                                             \
    type name params                                                                               \
    {                                                                                              \
        static type(*_Atomic real) params;                                                         \
        if (real == NULL)                                                                          \
            real = (type(*) params) dlsym(RTLD_NEXT, #name);                                       \
        one_more();                                                                                \
        return real args;                                                                          \
    }

WRAP(ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len))
WRAP(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t len, off64_t at), (fd, data, len, at))
WRAP(ssize_t, send, (int fd, const void *data, size_t len, int flags), (fd, data, len, flags))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, renameat2, (int a, const char *from, int b, const char *to, unsigned how),
     (a, from, b, to, how))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
