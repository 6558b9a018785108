/* Loaded into the daemon by LD_PRELOAD: counts every allocation, whoever makes it, and lets the one
 * that it is told fail, once. Told by the first bytes of the file $ALLOC_FAULT, which the test maps,
 * too; where it failed goes to $ALLOC_FAULT.where. The real functions are the next ones, so that an
 * AddressSanitizer in the daemon still sees every block. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

enum { N_RECORDS = 1 << 20 };

/* As in alloc_script.py. */
struct control {
    _Atomic uint64_t armed; /* 0: nothing is counted */
    _Atomic uint64_t count;
    _Atomic uint64_t fail_at;   /* the Nth fails; 0: none does */
    _Atomic uint64_t failed;    /* how many did */
    _Atomic uint64_t recording; /* one hash of the call stack for each */
    uint64_t stacks[N_RECORDS];
};

static struct control *control;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);

/* For what dlsym() itself may want. Never given back. */
static _Alignas(64) char early[1 << 16];
static size_t early_len;

static void *early_alloc(size_t size)
{
    char *block = early + early_len;
    early_len += (size + 63) / 64 * 64;
    if (early_len > sizeof(early))
        _exit(99);
    return block;
}

static bool is_early(const void *block)
{
    return (const char *) block >= early && (const char *) block < early + sizeof(early);
}

/* False while it is at work itself. */
static bool resolve(void)
{
    static bool resolving;
    if (real_aligned_alloc != NULL)
        return true;
    if (resolving)
        return false;
    resolving = true;
    *(void **) &real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **) &real_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **) &real_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **) &real_free = dlsym(RTLD_NEXT, "free");
    *(void **) &real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    *(void **) &real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    resolving = false;
    return true;
}

static __attribute__((noinline)) void record(uint64_t n)
{
    uint64_t hash = hash_stack();
    if (n <= N_RECORDS)
        control->stacks[n - 1] = hash;
}

/* Whether this one is to fail. */
static bool fails(void)
{
    if (control == NULL || inside || atomic_load(&control->armed) == 0)
        return false;
    int saved = errno;
    inside = true;
    uint64_t n = atomic_fetch_add(&control->count, 1) + 1;
    bool fail = n == atomic_load(&control->fail_at);
    if (atomic_load(&control->recording) != 0)
        record(n);
    if (fail) {
        tell_where();
        (void) atomic_fetch_add(&control->failed, 1);
    }
    inside = false;
    errno = fail ? ENOMEM : saved;
    return fail;
}

void *malloc(size_t size)
{
    if (!resolve())
        return early_alloc(size);
    return fails() ? NULL : real_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (!resolve())
        return early_alloc(n * size);
    return fails() ? NULL : real_calloc(n, size);
}

void *realloc(void *block, size_t size)
{
    if (!resolve())
        return early_alloc(size);
    return fails() ? NULL : real_realloc(block, size);
}

void *reallocarray(void *block, size_t n, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, total);
}

void free(void *block)
{
    if (!is_early(block) && resolve())
        real_free(block);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    return !resolve() || fails() ? ENOMEM : real_posix_memalign(ret, alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return !resolve() || fails() ? NULL : real_aligned_alloc(alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

/* A sanitizer's own would not come by here. */
char *strndup(const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    char *copy = malloc(len + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *strdup(const char *text)
{
    return strndup(text, SIZE_MAX - 1);
}

__attribute__((constructor)) static void begin(void)
{
    control = map_control("ALLOC_FAULT", sizeof(struct control));
}
