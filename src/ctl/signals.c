/* A handler needs a static object. */
#include "ctl/signals.h"

#include <stddef.h>

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

void signals_catch(sigset_t *ret_unblocked)
{
    static const int numbers[] = { SIGINT, SIGTERM };
    const struct sigaction action = { .sa_handler = on_signal };
    sigset_t blocked;
    (void) sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction old;
        /* A shell lets background jobs ignore SIGINT; so it stays. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        (void) sigaction(numbers[i], &action, NULL);
        (void) sigaddset(&blocked, numbers[i]);
    }
    (void) sigprocmask(SIG_BLOCK, &blocked, ret_unblocked);
}

int signals_caught(void)
{
    return caught;
}
