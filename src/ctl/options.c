/* Options of all commands are taken before and after the command's name, as they come. */
#include "ctl/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_MAX_OPTIONS (OPTION_COUNT + COMMAND_OPTIONS_MAX + 1)
/* Above every letter: what getopt_long() returns for an option is this plus its id. */
#define ID_BASE 256

const struct option_spec ctl_options[] = {
    { OPTION_SOCKET, 's', "socket", "PATH",
      "the daemon's socket (default: " CTL_DEFAULT_SOCKET ")" },
    { OPTION_JSON, 'j', "json", NULL, "print the daemon's answers, one JSON document a line" },
    { OPTION_HELP, 'h', "help", NULL, "print this, then exit" },
    { OPTION_VERSION, 'V', "version", NULL, "print the version, then exit" },
    { .name = NULL },
};

const struct command *command_find(const char *name)
{
    for (const struct command *c = ctl_commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

/* --- Help --- */

/* Where help's right column begins, and ends. */
#define HELP_COLUMN 26
#define HELP_WIDTH 79

/* Word by word; `column` is where the cursor is, and `indent` where further lines begin. */
static void print_wrapped(const char *text, int column, int indent)
{
    bool first = true;
    while (*text != '\0') {
        int len = (int) strcspn(text, " ");
        if (!first && column + 1 + len > HELP_WIDTH) {
            (void) printf("\n%*s", indent, "");
            column = indent;
            first = true;
        }
        (void) printf("%s%.*s", first ? "" : " ", len, text);
        column += len + !first;
        first = false;
        text += len + (text[len] == ' ');
    }
    (void) fputc('\n', stdout);
}

static void print_option(const struct option_spec *option)
{
    char text[64];
    int len = 0;
    if (option->letter != 0)
        len = snprintf(text, sizeof(text), "  -%c, --%s", option->letter, option->name);
    else
        len = snprintf(text, sizeof(text), "      --%s", option->name);
    if (option->argument != NULL)
        len += snprintf(text + len, sizeof(text) - (size_t) len, " %s", option->argument);
    if (len + 2 > HELP_COLUMN)
        (void) printf("%s\n%*s", text, HELP_COLUMN, "");
    else
        (void) printf("%-*s", HELP_COLUMN, text);
    print_wrapped(option->help, HELP_COLUMN, HELP_COLUMN);
}

static void print_options(const struct option_spec *options)
{
    for (const struct option_spec *option = options; option->name != NULL; option++)
        print_option(option);
}

static void print_help(void)
{
    (void) puts("Usage: pulse-cancelctl [OPTION]... COMMAND [ARGUMENT]...");
    print_wrapped("Cancels Pulse jobs through pulse-canceld, shows what becomes of them, and "
                  "controls the daemon.",
                  0, 0);
    (void) puts("\nCommands:");
    for (const struct command *c = ctl_commands; c->name != NULL; c++)
        (void) printf("  %-*s%s\n", HELP_COLUMN - 2, c->name, c->summary);
    (void) puts("\nOptions, before or after the command:");
    print_options(ctl_options);
    (void) puts("\n'pulse-cancelctl COMMAND --help' tells more about each.\n");
    print_wrapped("Exit status: 0 all were cancelled, or the command worked; 1 some were not "
                  "cancelled; 2 wrong usage; 3 the daemon can't be reached; 4 the daemon refused.",
                  0, 0);
}

static void print_command_help(const struct command *c)
{
    (void) printf("Usage: pulse-cancelctl %s [OPTION]...%s%s\n", c->name,
                  c->arguments[0] != '\0' ? " " : "", c->arguments);
    print_wrapped(c->description, 0, 0);
    (void) puts("\nOptions:");
    print_options(c->options);
    print_options(ctl_options);
}

/* --- Parsing --- */

struct parser {
    struct option longs[LONG_MAX_OPTIONS];
    char letters[4 * LONG_MAX_OPTIONS];
    size_t n_letters;
    const struct option_spec *by_letter[256];
};

static void add_options(struct parser *p, const struct option_spec *options)
{
    size_t n = 0;
    while (p->longs[n].name != NULL)
        n++;
    for (const struct option_spec *option = options; option->name != NULL; option++) {
        p->longs[n++] = (struct option){
            .name = option->name,
            .has_arg = option->argument != NULL ? required_argument : no_argument,
            .val = ID_BASE + (int) option->id,
        };
        if (option->letter != 0) {
            p->letters[p->n_letters++] = option->letter;
            if (option->argument != NULL)
                p->letters[p->n_letters++] = ':';
            p->by_letter[(unsigned char) option->letter] = option;
        }
    }
}

static int usage_hint(const struct command *c)
{
    (void) fprintf(stderr, "Try 'pulse-cancelctl %s%s--help'.\n", c != NULL ? c->name : "",
                   c != NULL ? " " : "");
    return CTL_USAGE;
}

/* Reads options up to the command (`c` NULL), or all of them. -1 to go on, else the exit status. */
static int read_options(int argc, char **argv, const struct command *c, struct invocation *inv)
{
    /* "+": stop at the command, whose options are not known before. */
    struct parser p = { .letters = "" };
    if (c == NULL)
        p.letters[p.n_letters++] = '+';
    add_options(&p, ctl_options);
    if (c != NULL)
        add_options(&p, c->options);

    optind = 0; /* glibc: begin anew, with the signs in front of the letters looked at again */
    int option;
    while ((option = getopt_long(argc, argv, p.letters, p.longs, NULL)) != -1) {
        if (option == '?')
            return usage_hint(c);
        enum option_id id = option >= ID_BASE ? (enum option_id)(option - ID_BASE)
                                              : p.by_letter[(unsigned char) option]->id;
        if (id == OPTION_HELP) {
            if (c != NULL)
                print_command_help(c);
            else
                print_help();
            return CTL_OK;
        }
        if (id == OPTION_VERSION) {
            (void) puts("pulse-cancelctl " PULSE_VERSION);
            return CTL_OK;
        }
        inv->values[id] = optarg != NULL ? optarg : "";
    }
    return -1;
}

int options_parse(int argc, char **argv, struct output *out, struct invocation *ret)
{
    *ret = (struct invocation){ .out = out };
    int status = read_options(argc, argv, NULL, ret);
    if (status >= 0)
        return status;
    if (optind >= argc) {
        (void) fputs("pulse-cancelctl: which command? To begin with: cancel, status, list, stats\n",
                     stderr);
        return usage_hint(NULL);
    }

    /* The command's name stands where getopt expects the program's. */
    int first = optind;
    char *program = argv[0];
    ret->command = command_find(argv[first]);
    if (ret->command == NULL) {
        output_complain("there is no command '%s'", argv[first]);
        return usage_hint(NULL);
    }
    argv[first] = program;
    status = read_options(argc - first, argv + first, ret->command, ret);
    if (status >= 0)
        return status;

    ret->arguments = argv + first + optind;
    ret->n_arguments = (size_t) (argc - first - optind);
    if (ret->values[OPTION_SOCKET] == NULL)
        ret->values[OPTION_SOCKET] = CTL_DEFAULT_SOCKET;
    if (ret->n_arguments > ret->command->max_arguments)
        return (int) options_misused(ret, "unexpected argument '%s'",
                                     ret->arguments[ret->command->max_arguments]);
    if (ret->n_arguments < ret->command->min_arguments)
        return (int) options_misused(ret, "%s is missing", ret->command->arguments);
    return -1;
}

bool options_number(const struct invocation *inv, enum option_id id, int64_t min, int64_t max,
                    int64_t *ret)
{
    const char *text = inv->values[id];
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value >= min && value <= max) {
        *ret = value;
        return true;
    }
    for (const struct option_spec *option = inv->command->options; option->name != NULL; option++)
        if (option->id == id)
            (void) options_misused(inv, "--%s takes an integer from %lld to %lld, not '%s'",
                                   option->name, (long long) min, (long long) max, text);
    return false;
}

enum ctl_exit options_misused(const struct invocation *inv, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    output_vcomplain(fmt, args);
    va_end(args);
    return (enum ctl_exit) usage_hint(inv->command);
}
