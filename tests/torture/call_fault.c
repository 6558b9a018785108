/* Loaded into the daemon by LD_PRELOAD: counts its system calls, whoever makes them, and lets the one
 * that it is told fail, or all from that one on until it is told to let go; or transfer but a part.
 * A seccomp filter traps the calls, so that those that the C library makes for itself are seen, too;
 * the handler of SIGSYS then makes the call, or does not. Told by the first bytes of the file
 * $CALL_FAULT, which the test maps, too; where it failed goes to $CALL_FAULT.where.
 *
 * A trap while SIGSYS is blocked ends the process: whoever blocks all signals gets all but that one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#include "fault.h"

enum { N_RECORDS = 1 << 18 };

/* As in fail_points.py, in this order. */
enum kind {
    OPEN, CREAT, CLOSE, READ, PREAD, RECV, WRITE, PWRITE, SEND, WRITE_STDERR, WAKE, RENAME, LINK,
    UNLINK, MKDIR, FSYNC, FDATASYNC, FTRUNCATE, FALLOCATE, MMAP, MMAP_ANON, SOCKET, CONNECT, ACCEPT,
    BIND, LISTEN, SETSOCKOPT, GETSOCKOPT, EPOLL_CREATE, EPOLL_ADD, EPOLL_WAIT, POLL, EVENTFD,
    TIMERFD_CREATE, TIMERFD_SETTIME, INOTIFY_INIT, INOTIFY_ADD, PIPE, GETDENTS, STAT, FSTAT, CHMOD,
    LEASE, LOCK, DUP, CLONE, GETRANDOM, N_KINDS, NONE = N_KINDS
};

/* As in fail_points.py. */
struct control {
    _Atomic uint64_t armed;     /* 0: nothing is counted */
    _Atomic uint64_t kind;      /* of what fails */
    _Atomic uint64_t fail_at;   /* the Nth of the kind; 0: none */
    _Atomic uint64_t for_good;  /* and all that follow */
    _Atomic uint64_t error;     /* errno; 0: it transfers half of what it was asked to */
    _Atomic uint64_t struck;    /* how many failed */
    _Atomic uint64_t recording; /* kind and a hash of the call stack for each */
    _Atomic uint64_t n_records;
    _Atomic uint64_t counts[N_KINDS];
    uint64_t records[N_RECORDS][2];
};

static struct control *control;
static uintptr_t sanitizer_begin, sanitizer_end;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

/* The one place from where calls are let through. */
__asm__(".text\n"
        ".local real_call\n"
        ".type real_call, @function\n"
        "real_call:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        "real_call_end:\n"
        "    ret\n");
extern long real_call(long number, long a, long b, long c, long d, long e, long f);
extern const char real_call_end[];

static const int trapped[] = {
    SYS_open, SYS_openat, SYS_creat, SYS_close, SYS_read, SYS_readv, SYS_pread64, SYS_preadv,
    SYS_recvfrom, SYS_recvmsg, SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_sendto,
    SYS_sendmsg, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink,
    SYS_symlinkat, SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_mkdir, SYS_mkdirat, SYS_fsync,
    SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_mmap, SYS_socket, SYS_socketpair, SYS_connect,
    SYS_accept, SYS_accept4, SYS_bind, SYS_listen, SYS_setsockopt, SYS_getsockopt, SYS_getsockname,
    SYS_getpeername, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait, SYS_poll,
    SYS_ppoll, SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_inotify_init1,
    SYS_inotify_add_watch, SYS_pipe2, SYS_getdents64, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx,
    SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink, SYS_readlinkat, SYS_fstat, SYS_chmod,
    SYS_fchmod, SYS_fchmodat, SYS_chown, SYS_lchown, SYS_fchown, SYS_fchownat, SYS_fcntl, SYS_flock,
    SYS_dup, SYS_dup2, SYS_dup3, SYS_getrandom,
};

/* What a descriptor is. A datagram or an event is never cut short. */
enum thing { REGULAR, STREAM, DATAGRAM, OTHER };

static enum thing thing_of(long fd)
{
    struct stat st;
    if (real_call(SYS_fstat, fd, (long) &st, 0, 0, 0, 0) < 0)
        return OTHER;
    if (S_ISREG(st.st_mode))
        return REGULAR;
    int type = 0;
    socklen_t len = sizeof(type);
    if (!S_ISSOCK(st.st_mode))
        return OTHER;
    (void) real_call(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, (long) &type, (long) &len, 0);
    return type == SOCK_STREAM ? STREAM : DATAGRAM;
}

static enum kind transfer(long fd, enum kind of_file, enum kind of_socket)
{
    if (of_file == WRITE && fd == STDERR_FILENO)
        return WRITE_STDERR;
    enum thing thing = thing_of(fd);
    return thing == REGULAR ? of_file : thing == OTHER ? WAKE : of_socket;
}

static enum kind kind_of(long number, const long *a)
{
    switch (number) {
    case SYS_open:
        return a[1] & O_CREAT ? CREAT : OPEN;
    case SYS_openat:
        return a[2] & O_CREAT ? CREAT : OPEN;
    case SYS_creat:
        return CREAT;
    case SYS_close:
        return thing_of(a[0]) == REGULAR ? CLOSE : NONE;
    case SYS_read:
    case SYS_readv:
        return transfer(a[0], READ, RECV);
    case SYS_pread64:
    case SYS_preadv:
        return PREAD;
    case SYS_recvfrom:
    case SYS_recvmsg:
        return RECV;
    case SYS_write:
    case SYS_writev:
        return transfer(a[0], WRITE, SEND);
    case SYS_pwrite64:
    case SYS_pwritev:
        return PWRITE;
    case SYS_sendto:
    case SYS_sendmsg:
        return SEND;
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
        return RENAME;
    case SYS_link:
    case SYS_linkat:
    case SYS_symlink:
    case SYS_symlinkat:
        return LINK;
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
        return UNLINK;
    case SYS_mkdir:
    case SYS_mkdirat:
        return MKDIR;
    case SYS_fsync:
        return FSYNC;
    case SYS_fdatasync:
        return FDATASYNC;
    case SYS_ftruncate:
        return FTRUNCATE;
    case SYS_fallocate:
        return FALLOCATE;
    case SYS_mmap:
        return a[3] & MAP_ANONYMOUS ? MMAP_ANON : MMAP;
    case SYS_socket:
    case SYS_socketpair:
        return SOCKET;
    case SYS_connect:
        return CONNECT;
    case SYS_accept:
    case SYS_accept4:
        return ACCEPT;
    case SYS_bind:
        return BIND;
    case SYS_listen:
        return LISTEN;
    case SYS_setsockopt:
        return SETSOCKOPT;
    case SYS_getsockopt:
    case SYS_getsockname:
    case SYS_getpeername:
        return GETSOCKOPT;
    case SYS_epoll_create1:
        return EPOLL_CREATE;
    case SYS_epoll_ctl:
        return a[1] == EPOLL_CTL_ADD ? EPOLL_ADD : NONE;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
        return EPOLL_WAIT;
    case SYS_poll:
    case SYS_ppoll:
        return POLL;
    case SYS_eventfd2:
        return EVENTFD;
    case SYS_timerfd_create:
        return TIMERFD_CREATE;
    case SYS_timerfd_settime:
        return TIMERFD_SETTIME;
    case SYS_inotify_init1:
        return INOTIFY_INIT;
    case SYS_inotify_add_watch:
        return INOTIFY_ADD;
    case SYS_pipe2:
        return PIPE;
    case SYS_getdents64:
        return GETDENTS;
    case SYS_newfstatat:
        return a[1] != 0 && *(const char *) a[1] == '\0' ? FSTAT : STAT;
    case SYS_stat:
    case SYS_lstat:
    case SYS_statx:
    case SYS_access:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_readlink:
    case SYS_readlinkat:
        return STAT;
    case SYS_fstat:
        return FSTAT;
    case SYS_chmod:
    case SYS_fchmod:
    case SYS_fchmodat:
    case SYS_chown:
    case SYS_lchown:
    case SYS_fchown:
    case SYS_fchownat:
        return CHMOD;
    case SYS_fcntl:
        if (a[1] == F_SETLEASE)
            return LEASE;
        if (a[1] == F_SETLK || a[1] == F_OFD_SETLK)
            return LOCK;
        return a[1] == F_DUPFD || a[1] == F_DUPFD_CLOEXEC ? DUP : NONE;
    case SYS_flock:
        return LOCK;
    case SYS_dup:
    case SYS_dup2:
    case SYS_dup3:
        return DUP;
    case SYS_getrandom:
        return GETRANDOM;
    default:
        return NONE;
    }
}

static __attribute__((noinline)) void record(enum kind kind)
{
    uint64_t hash = hash_stack();
    uint64_t at = atomic_fetch_add(&control->n_records, 1);
    if (at < N_RECORDS) {
        control->records[at][0] = kind;
        control->records[at][1] = hash;
    }
}

/* Whether this one is to fail. */
static bool strikes(enum kind kind)
{
    if (kind == NONE || control == NULL || inside || atomic_load(&control->armed) == 0)
        return false;
    inside = true;
    uint64_t n = atomic_fetch_add(&control->counts[kind], 1) + 1;
    if (atomic_load(&control->recording) != 0)
        record(kind);
    uint64_t at = atomic_load(&control->fail_at);
    bool yes = kind == atomic_load(&control->kind) && at != 0 &&
               (n == at || (n > at && atomic_load(&control->for_good) != 0));
    inside = false;
    return yes;
}

static void struck(void)
{
    if (atomic_fetch_add(&control->struck, 1) > 0)
        return;
    inside = true;
    tell_where();
    inside = false;
}

/* The first half of it, or all when that is nothing. */
static long half(long number, const long *a)
{
    struct msghdr message;
    struct iovec first;
    bool vector = number == SYS_readv || number == SYS_writev || number == SYS_preadv ||
                  number == SYS_pwritev;
    bool is_message = number == SYS_recvmsg || number == SYS_sendmsg;
    bool whole = thing_of(a[0]) != REGULAR && thing_of(a[0]) != STREAM;
    if (!whole && (vector || is_message)) {
        if (is_message)
            message = *(struct msghdr *) a[1];
        const struct iovec *vectors = is_message ? message.msg_iov : (const struct iovec *) a[1];
        first = vectors[0];
        whole = first.iov_len < 2;
        first.iov_len /= 2;
    } else if (!whole) {
        whole = a[2] < 2;
    }
    if (whole)
        return real_call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    struck();
    if (vector)
        return real_call(number, a[0], (long) &first, 1, a[3], a[4], a[5]);
    if (!is_message)
        return real_call(number, a[0], a[1], a[2] / 2, a[3], a[4], a[5]);
    message.msg_iov = &first;
    message.msg_iovlen = 1;
    long n = real_call(number, a[0], (long) &message, a[2], a[3], a[4], a[5]);
    if (number == SYS_recvmsg) {
        struct msghdr *theirs = (struct msghdr *) a[1];
        theirs->msg_namelen = message.msg_namelen;
        theirs->msg_controllen = message.msg_controllen;
        theirs->msg_flags = message.msg_flags;
    }
    return n;
}

static void on_trap(int signum, siginfo_t *info, void *context)
{
    (void) signum;
    greg_t *r = ((ucontext_t *) context)->uc_mcontext.gregs;
    uintptr_t from = (uintptr_t) r[REG_RIP];
    long number = info->si_syscall;
    const long a[6] = { r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9] };
    bool ours = inside || (from >= sanitizer_begin && from < sanitizer_end);
    if (ours || control == NULL || atomic_load(&control->armed) == 0 ||
        !strikes(kind_of(number, a))) {
        r[REG_RAX] = real_call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        return;
    }
    long error = (long) atomic_load(&control->error);
    if (error == 0) {
        r[REG_RAX] = half(number, a);
        return;
    }
    struck();
    if (number == SYS_close) /* it is closed whatever it says */
        (void) real_call(number, a[0], 0, 0, 0, 0, 0);
    r[REG_RAX] = -error;
}

/* --- What goes another way --- */

/* A new thread begins with all signals blocked: its clone() can't be trapped. */
int pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*) (void *), void *);
    *(void **) &real = dlsym(RTLD_NEXT, "pthread_create");
    if (strikes(CLONE)) {
        struck();
        return (int) atomic_load(&control->error);
    }
    return real(ret, attr, run, arg);
}

static const sigset_t *without_ours(const sigset_t *set, sigset_t *copy)
{
    if (set == NULL)
        return NULL;
    *copy = *set;
    (void) sigdelset(copy, SIGSYS);
    return copy;
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    int (*real)(int, const sigset_t *, sigset_t *);
    *(void **) &real = dlsym(RTLD_NEXT, "pthread_sigmask");
    sigset_t copy;
    return real(how, how == SIG_UNBLOCK ? set : without_ours(set, &copy), old);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    int (*real)(int, const sigset_t *, sigset_t *);
    *(void **) &real = dlsym(RTLD_NEXT, "sigprocmask");
    sigset_t copy;
    return real(how, how == SIG_UNBLOCK ? set : without_ours(set, &copy), old);
}

int sigaction(int signum, const struct sigaction *act, struct sigaction *old)
{
    int (*real)(int, const struct sigaction *, struct sigaction *);
    *(void **) &real = dlsym(RTLD_NEXT, "sigaction");
    struct sigaction copy;
    if (act != NULL) {
        copy = *act;
        (void) sigdelset(&copy.sa_mask, SIGSYS);
        act = &copy;
    }
    return real(signum, act, old);
}

/* --- The beginning --- */

static int look_for_sanitizer(struct dl_phdr_info *info, size_t size, void *userdata)
{
    (void) size;
    (void) userdata;
    if (strstr(info->dlpi_name, "libasan") == NULL)
        return 0;
    sanitizer_begin = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && end > sanitizer_end)
            sanitizer_end = end;
    }
    return 1;
}

static void trap_calls(void)
{
    enum { N_TRAPPED = sizeof(trapped) / sizeof(trapped[0]) };
    const uint64_t gate = (uintptr_t) real_call_end;
    struct sock_filter filter[N_TRAPPED + 8];
    size_t n = 0;
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N_TRAPPED; i++)
        filter[n++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                    (unsigned) trapped[i], N_TRAPPED - i, 0);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter) BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    filter[n++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) gate, 0, 3);
    filter[n++] = (struct sock_filter) BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    filter[n++] =
        (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) (gate >> 32), 0, 1);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    const struct sock_fprog program = { .len = (unsigned short) n, .filter = filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(96);
}

__attribute__((constructor)) static void begin(void)
{
    control = map_control("CALL_FAULT", sizeof(struct control));
    (void) dl_iterate_phdr(look_for_sanitizer, NULL);
    /* Nested, for what the handler itself calls. */
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };
    (void) sigaction(SIGSYS, &action, NULL);
    trap_calls();
}
