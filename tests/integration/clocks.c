/* Preloaded into a daemon under test: its clocks are those of the machine plus what a shared page
 * says. The test sets the page; `struct page` is `Clocks.PAGE` in clocks.py.
 *
 * With `until_ns` set, waiting is not waited for: where epoll_wait() would sleep and nothing comes,
 * all clocks go on to the end of the sleep at once, until they have come that far. While a server owes
 * an answer, or another thread works, time runs as it does elsewhere. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS INT64_C(1000000000)
/* Long enough for what is on its way: an answer to a test, a commit of the writer. */
#define PATIENCE_MS 1
/* A thread that waits for less is in the midst of something. */
#define MIDST_NS INT64_C(100000000)

struct page {
    _Atomic int64_t wall_ns;  /* added to CLOCK_REALTIME only */
    _Atomic int64_t boot_ns;  /* added to CLOCK_REALTIME and CLOCK_BOOTTIME: sleeping, as it were */
    _Atomic int64_t all_ns;   /* added to these and CLOCK_MONOTONIC */
    _Atomic int64_t until_ns; /* of all_ns */
};

static struct page *page;
static atomic_int owed;    /* answers */
static atomic_int threads; /* started by the daemon; none of them ends before it does */
static atomic_int idle;    /* of these */
static atomic_int woken;   /* but may not know it yet */

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int (*real_epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_recv)(int, void *, size_t, int);
static int (*real_cond_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t,
                                  const struct timespec *);
static int (*real_cond_wait)(pthread_cond_t *, pthread_mutex_t *);
static int (*real_cond_signal)(pthread_cond_t *);
static int (*real_create)(pthread_t *, const pthread_attr_t *, void *(*) (void *), void *);

__attribute__((constructor)) static void begin(void)
{
    static struct page nothing;
    page = &nothing;
    *(void **) &real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    *(void **) &real_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    *(void **) &real_epoll_pwait = dlsym(RTLD_NEXT, "epoll_pwait");
    *(void **) &real_send = dlsym(RTLD_NEXT, "send");
    *(void **) &real_recv = dlsym(RTLD_NEXT, "recv");
    *(void **) &real_cond_clockwait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    /* Of these there are two. */
    *(void **) &real_cond_wait = dlvsym(RTLD_NEXT, "pthread_cond_wait", "GLIBC_2.3.2");
    *(void **) &real_cond_signal = dlvsym(RTLD_NEXT, "pthread_cond_signal", "GLIBC_2.3.2");
    *(void **) &real_create = dlsym(RTLD_NEXT, "pthread_create");
    const char *path = getenv("PULSE_TEST_CLOCKS");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void) close(fd);
    if (shared == MAP_FAILED)
        abort();
    page = shared;
}

static int64_t shift_of(clockid_t id)
{
    if (page == NULL) /* before the constructor */
        return 0;
    switch (id) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return page->wall_ns + page->boot_ns + page->all_ns;
    case CLOCK_BOOTTIME:
        return page->boot_ns + page->all_ns;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
        return page->all_ns;
    default:
        return 0;
    }
}

static void add(struct timespec *t, int64_t ns)
{
    ns += t->tv_nsec;
    t->tv_sec += ns / SECOND_NS;
    t->tv_nsec = ns % SECOND_NS;
    if (t->tv_nsec < 0) {
        t->tv_nsec += SECOND_NS;
        t->tv_sec--;
    }
}

int clock_gettime(clockid_t id, struct timespec *ret)
{
    if (real_clock_gettime == NULL)
        *(void **) &real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real_clock_gettime(id, ret);
    if (r == 0)
        add(ret, shift_of(id));
    return r;
}

time_t time(time_t *ret)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_REALTIME, &now);
    if (ret != NULL)
        *ret = now.tv_sec;
    return now.tv_sec;
}

/* --- Other threads --- */

int pthread_create(pthread_t *restrict ret, const pthread_attr_t *restrict attr,
                   void *(*run)(void *), void *restrict arg)
{
    atomic_fetch_add(&threads, 1);
    return real_create(ret, attr, run, arg);
}

int pthread_cond_signal(pthread_cond_t *cond)
{
    atomic_store(&woken, 1);
    return real_cond_signal(cond);
}

/* Whoever goes to wait has seen what there was to do. */
int pthread_cond_wait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex)
{
    atomic_store(&woken, 0);
    atomic_fetch_add(&idle, 1);
    int r = real_cond_wait(cond, mutex);
    atomic_fetch_sub(&idle, 1);
    return r;
}

/* libuv's are by CLOCK_MONOTONIC. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    struct timespec at = *until, now;
    add(&at, -shift_of(CLOCK_MONOTONIC));
    (void) real_clock_gettime(CLOCK_MONOTONIC, &now);
    bool is_long = (at.tv_sec - now.tv_sec) * SECOND_NS + at.tv_nsec - now.tv_nsec > MIDST_NS;
    atomic_store(&woken, 0);
    atomic_fetch_add(&idle, is_long ? 1 : 0);
    int r = real_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &at);
    atomic_fetch_sub(&idle, is_long ? 1 : 0);
    return r;
}

/* --- Who owes what --- */

static bool is_http(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int error = errno;
    bool yes = getpeername(fd, (struct sockaddr *) &address, &len) == 0 &&
               (address.ss_family == AF_INET || address.ss_family == AF_INET6);
    errno = error;
    return yes;
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    ssize_t n = real_send(fd, data, len, flags);
    if (n > 0 && is_http(fd))
        atomic_fetch_add(&owed, 1);
    return n;
}

/* An answer of these tests comes in one piece, as does a request. */
ssize_t recv(int fd, void *data, size_t len, int flags)
{
    ssize_t n = real_recv(fd, data, len, flags);
    if ((n >= 0 || (errno != EAGAIN && errno != EINTR)) && atomic_load(&owed) > 0 &&
        (n <= 0 || is_http(fd)))
        atomic_fetch_sub(&owed, 1);
    return n;
}

/* --- Clocks that were set --- */

/* The kernel's word for that is a timer that is canceled; here a pipe takes its place. */
static int pipe_fd = -1;

int timerfd_create(int id, int flags)
{
    const char *path = getenv("PULSE_TEST_CLOCKS_PIPE");
    if (id != CLOCK_REALTIME || path == NULL) {
        errno = EINVAL;
        return -1;
    }
    (void) flags;
    pipe_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return pipe_fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *ret)
{
    (void) flags, (void) value, (void) ret;
    errno = EINVAL;
    return fd == pipe_fd ? 0 : -1;
}

/* --- Skipping --- */

static int wait_events(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    int64_t left_ns = page != NULL ? page->until_ns - page->all_ns : 0;
    if (left_ns <= 0 || timeout_ms == 0)
        return real_epoll_wait(fd, events, max, timeout_ms);

    int short_ms = timeout_ms > 0 && timeout_ms < PATIENCE_MS ? timeout_ms : PATIENCE_MS;
    int n = real_epoll_wait(fd, events, max, short_ms);
    if (n != 0 || short_ms == timeout_ms)
        return n;
    if (atomic_load(&owed) > 0 || atomic_load(&woken) != 0 ||
        atomic_load(&idle) < atomic_load(&threads))
        return real_epoll_wait(fd, events, max, short_ms); /* libuv goes on waiting for the rest */
    int64_t ns = (int64_t) (timeout_ms - short_ms) * 1000000;
    if (timeout_ms < 0 || ns > left_ns)
        ns = left_ns;
    atomic_fetch_add(&page->all_ns, ns);
    return 0;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    return wait_events(fd, events, max, timeout_ms);
}

int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout_ms,
                const sigset_t *signals)
{
    if (signals != NULL)
        return real_epoll_pwait(fd, events, max, timeout_ms, signals);
    return wait_events(fd, events, max, timeout_ms);
}
