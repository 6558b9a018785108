/* Options and exit codes. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "model/config.h"

enum {
    EXIT_USAGE = 2,
    EXIT_CONFIG = 78, /* EX_CONFIG of sysexits.h; the unit does not restart on it */
};

static const char usage[] =
    "Usage: pulse-canceld [OPTION]...\n"
    "Cancels Pulse jobs that are dropped into a spool directory or sent to a socket,\n"
    "and writes one outcome for each into a results log.\n"
    "\n"
    "  -c, --config FILE   configuration file (default: " CONFIG_DEFAULT_FILE ")\n"
    "  -t, --test-config   check configuration and key, then exit\n"
    "  -V, --version       print the version, then exit\n"
    "  -h, --help          print this, then exit\n";

struct arguments {
    const char *config_file;
    bool test_config;
};

/* Who asked and gets no answer is told so. Returns the exit status. */
static int print(const char *text, const char *more)
{
    if (fputs(text, stdout) >= 0 && fputs(more, stdout) >= 0 && fflush(stdout) == 0)
        return EXIT_SUCCESS;
    (void) fprintf(stderr, "pulse-canceld: standard output can't be written: %s\n",
                   strerror(errno));
    return EXIT_FAILURE;
}

/* -1 to go on, else the exit status. */
static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },
        { "test-config", no_argument, NULL, 't' },
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    *ret = (struct arguments){ .config_file = CONFIG_DEFAULT_FILE };
    int option;
    while ((option = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            ret->config_file = optarg;
            break;
        case 't':
            ret->test_config = true;
            break;
        case 'V':
            return print("pulse-canceld " PULSE_VERSION "\n", "");
        case 'h':
            return print(usage, "");
        default:
            (void) fputs("Try 'pulse-canceld --help'.\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        (void) fprintf(stderr,
                       "pulse-canceld: unexpected argument '%s'\nTry 'pulse-canceld --help'.\n",
                       argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

/* Descriptors 0 to 2 must not become a database or a socket that log lines are written to. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        (void) close(fd);
}

/* libuv ends the process without a word when the kernel has no memory or descriptor for it. No lock
 * here: the one who aborts may hold the log's. */
static const char *abort_prefix; /* set before the handler is */

static void on_abort(int signum)
{
    static const char text[] = "can't go on (see above; else a library ran out of memory, "
                               "descriptors or threads); a restart loses nothing\n";
    (void) !write(STDERR_FILENO, abort_prefix, strlen(abort_prefix));
    (void) !write(STDERR_FILENO, text, sizeof(text) - 1);
    /* Whoever sent it, it is the end: abort() would see to that, kill() would not. */
    (void) signal(signum, SIG_DFL);
    (void) raise(signum);
}

int main(int argc, char **argv)
{
    daemon_block_signals();
    open_standard_descriptors();
    struct arguments arguments;
    int status = parse_arguments(argc, argv, &arguments);
    if (status >= 0)
        return status;

    log_init();
    /* The key is in our memory: no core files, and nobody of our own user attaches. */
    (void) prctl(PR_SET_DUMPABLE, 0);
    /* libcurl would write down what decrypts the connections, and with them the key. */
    (void) unsetenv("SSLKEYLOGFILE");
    (void) signal(SIGPIPE, SIG_IGN);
    abort_prefix = log_is_journal() ? "<3>" : "error: ";
    (void) signal(SIGABRT, on_abort);
    (void) umask(007);

    struct config *config = NULL;
    struct buf err;
    buf_init(&err, 4096);
    int r = config_load(arguments.config_file, &config, &err);
    if (r < 0) {
        const char *text = buf_cstr(&err);
        log_error("%s", text != NULL && text[0] != '\0' ? text : "out of memory");
        buf_finish(&err);
        /* What is not the configuration's fault may be over at the next start. */
        return r == -EINVAL ? EXIT_CONFIG : EXIT_FAILURE;
    }
    buf_finish(&err);
    if (arguments.test_config) {
        config_unload(config);
        return print(arguments.config_file, ": configuration and key are good\n");
    }
    return daemon_run(arguments.config_file, config);
}
