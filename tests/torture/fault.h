/* What alloc_fault.c and call_fault.c share: the file that the test maps, too, and the call stack of
 * what fails. Nothing here wants memory: the caller may hold malloc()'s locks. For one file only. */
#ifndef FAULT_H
#define FAULT_H

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_FRAMES = 64, N_FRAMES_HASHED = 24 };

static char where[4096];

/* Maps the file that this variable of the environment names; FILE.where is for the call stack. */
static void *map_control(const char *variable, size_t size)
{
    const char *path = getenv(variable);
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        _exit(98);
    (void) snprintf(where, sizeof(where), "%s.where", path);
    void *frames[1];
    (void) backtrace(frames, 1); /* loads what it needs */
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void) close(fd);
    if (map == MAP_FAILED)
        _exit(97);
    return map;
}

/* FILE OFFSET SYMBOL for each frame, innermost first. */
static void tell_where(void)
{
    void *frames[N_FRAMES];
    int n = backtrace(frames, N_FRAMES);
    int fd = open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    for (int i = 0; i < n && fd >= 0; i++) {
        Dl_info info = { 0 };
        char line[1024];
        if (dladdr(frames[i], &info) == 0)
            continue;
        int len = snprintf(line, sizeof(line), "%s %#lx %s\n", info.dli_fname,
                           (unsigned long) ((char *) frames[i] - (char *) info.dli_fbase),
                           info.dli_sname != NULL ? info.dli_sname : "?");
        (void) !write(fd, line, (size_t) len);
    }
    if (fd >= 0)
        (void) close(fd);
}

/* The same for the same call stack, but for this function's and its caller's frames. */
static uint64_t hash_stack(void)
{
    void *frames[N_FRAMES_HASHED];
    int depth = backtrace(frames, N_FRAMES_HASHED);
    uint64_t hash = 14695981039346656037U;
    for (int i = 2; i < depth; i++)
        hash = (hash ^ (uintptr_t) frames[i]) * 1099511628211U;
    return hash;
}

#endif
