/* The text of the configuration on its way to libconfig.
 *
 * libconfig 1.5 reads 4294967297 as 1, ends a file in silence at a comment that is not closed, drops
 * \x00 from strings, says "syntax error" at the place where it noticed, and leaks a string there. So
 * its grammar is walked over here first:
 *
 *     file = { setting }      setting = NAME ("=" | ":") value [";" | ","]
 *     value = plain | "{" { setting } "}" | "[" list "]" | "(" list ")"
 *     list = [plain { "," plain }]      plain = BOOL | NUMBER | STRING { STRING } */
#include "model/config_private.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PATH_SIZE 128
#define DEPTH_MAX 8

enum token_kind {
    TOKEN_END,
    TOKEN_BLANK, /* a comment, too */
    TOKEN_NAME,
    TOKEN_BOOL,
    TOKEN_INTEGER, /* without an L behind it */
    TOKEN_NUMBER,  /* any other */
    TOKEN_STRING,
    TOKEN_MARK, /* a single character */
    TOKEN_FAULT,
};

struct token {
    enum token_kind kind;
    const char *start;
    size_t len;
    unsigned line;    /* where it starts */
    const char *what; /* for FAULT */
};

struct parser {
    const struct config_report *report; /* NULL: faults are nobody's business */
    struct buf *out;                    /* NULL likewise */
    const char *at;
    const char *end;
    unsigned line;
    struct token token;   /* the one to be looked at, never BLANK or FAULT */
    char path[PATH_SIZE]; /* "group.setting", of the setting being read */

    unsigned wanted_line; /* the last path that begins there goes to `found` */
    char *found;
    size_t found_size;
};

/* --- Tokens --- */

static int at(const struct parser *p, size_t offset)
{
    return offset < (size_t) (p->end - p->at) ? (unsigned char) p->at[offset] : -1;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool starts_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*';
}

static bool continues_name(int c)
{
    return starts_name(c) || is_digit(c) || c == '-' || c == '_';
}

static bool is_blank(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void fault(struct token *t, const char *what)
{
    t->kind = TOKEN_FAULT;
    t->what = what;
}

static void lex_comment(const struct parser *p, struct token *t)
{
    t->kind = TOKEN_BLANK;
    if (at(p, 0) == '#' || at(p, 1) == '/') {
        while (at(p, t->len) >= 0 && at(p, t->len) != '\n')
            t->len++;
        return;
    }
    size_t n = 2;
    while (at(p, n) >= 0 && !(at(p, n) == '*' && at(p, n + 1) == '/'))
        n++;
    if (at(p, n) < 0)
        fault(t, "a comment starts here that does not end");
    else
        t->len = n + 2;
}

static void lex_string(const struct parser *p, struct token *t)
{
    size_t n = 1;
    t->kind = TOKEN_STRING;
    while (at(p, n) != '"') {
        if (at(p, n) < 0) {
            fault(t, "a string starts here that does not end");
            return;
        }
        if (at(p, n) == '\\') {
            if ((at(p, n + 1) | 0x20) == 'x' && at(p, n + 2) == '0' && at(p, n + 3) == '0') {
                fault(t, "a string holds a NUL (\\x00)");
                return;
            }
            n++;
        }
        n++;
    }
    t->len = n + 1;
}

static void lex_number(const struct parser *p, struct token *t)
{
    size_t n = at(p, 0) == '-' || at(p, 0) == '+';
    bool floating = false;

    if (n == 0 && at(p, 0) == '0' && (at(p, 1) | 0x20) == 'x') {
        n = 2;
        while (is_hex(at(p, n)))
            n++;
    } else {
        int c;
        while (is_digit(c = at(p, n)) || c == '.' || (c | 0x20) == 'e' ||
               (floating && (c == '-' || c == '+'))) {
            floating = floating || !is_digit(c);
            n++;
        }
    }
    t->kind = floating || at(p, n) == 'L' ? TOKEN_NUMBER : TOKEN_INTEGER;
    while (at(p, n) == 'L')
        n++;
    t->len = n;
}

static void lex_name(const struct parser *p, struct token *t)
{
    while (continues_name(at(p, t->len)))
        t->len++;
    bool word = (t->len == 4 && strncasecmp(t->start, "true", 4) == 0) ||
                (t->len == 5 && strncasecmp(t->start, "false", 5) == 0);
    t->kind = word ? TOKEN_BOOL : TOKEN_NAME;
}

static void lex(const struct parser *p, struct token *ret)
{
    int c = at(p, 0);
    int digit = at(p, c == '-' || c == '+' ? 1 : 0);

    *ret = (struct token){ .kind = TOKEN_MARK, .start = p->at, .len = 1, .line = p->line };
    if (c < 0) {
        ret->kind = TOKEN_END;
        ret->len = 0;
    } else if (c == '\0') {
        fault(ret, "the file has a NUL byte");
    } else if (is_blank(c)) {
        ret->kind = TOKEN_BLANK;
    } else if (starts_name(c)) {
        lex_name(p, ret);
    } else if (is_digit(digit) || digit == '.') {
        lex_number(p, ret);
    } else if (c == '"') {
        lex_string(p, ret);
    } else if (c == '#' || (c == '/' && (at(p, 1) == '/' || at(p, 1) == '*'))) {
        lex_comment(p, ret);
    } else if (c == '@') {
        fault(ret, "@include is not supported: put all settings into one file");
    }
}

/* --- Grammar --- */

static int refuse(const struct parser *p, unsigned line, const char *setting, const char *what)
{
    if (p->report == NULL)
        return -EINVAL;
    return config_fault(p->report, line, setting[0] != '\0' ? setting : NULL, "%s", what);
}

/* Copies a token to the output and steps behind it. */
static int take(struct parser *p, const struct token *t)
{
    int r = 0;
    if (p->out != NULL)
        r = buf_append(p->out, t->start, t->len);
    if (r == 0 && p->out != NULL && t->kind == TOKEN_INTEGER)
        r = buf_append_char(p->out, 'L');
    for (size_t i = 0; i < t->len; i++)
        p->line += t->start[i] == '\n';
    p->at += t->len;
    return r;
}

/* Takes the current token and the blanks behind it. */
static int advance(struct parser *p)
{
    int r = take(p, &p->token);
    for (;;) {
        if (r < 0)
            return r;
        lex(p, &p->token);
        if (p->token.kind == TOKEN_FAULT)
            return refuse(p, p->token.line, "", p->token.what);
        if (p->token.kind != TOKEN_BLANK)
            return 0;
        r = take(p, &p->token);
    }
}

static bool is_mark(const struct parser *p, char c)
{
    return p->token.kind == TOKEN_MARK && p->token.start[0] == c;
}

static bool is_plain(const struct parser *p)
{
    return p->token.kind == TOKEN_BOOL || p->token.kind == TOKEN_INTEGER ||
           p->token.kind == TOKEN_NUMBER || p->token.kind == TOKEN_STRING;
}

static int parse_plain(struct parser *p)
{
    if (!is_plain(p))
        return refuse(p, p->token.line, p->path, "its value is missing, or can't be read");
    bool string = p->token.kind == TOKEN_STRING;
    int r = advance(p);
    while (r == 0 && string && p->token.kind == TOKEN_STRING)
        r = advance(p);
    return r;
}

static int parse_list(struct parser *p, char close)
{
    unsigned line = p->token.line;
    int r = advance(p);
    if (r == 0 && !is_mark(p, close))
        r = parse_plain(p);
    while (r == 0 && is_mark(p, ',')) {
        r = advance(p);
        if (r == 0)
            r = parse_plain(p);
    }
    if (r == 0 && !is_mark(p, close))
        return refuse(p, line, p->path, "its list has no end");
    return r < 0 ? r : advance(p);
}

static int parse_setting(struct parser *p, unsigned depth);

static int parse_group(struct parser *p, unsigned depth)
{
    unsigned line = p->token.line;
    if (depth == DEPTH_MAX)
        return refuse(p, line, p->path, "too deeply nested");
    int r = advance(p);
    while (r == 0 && p->token.kind == TOKEN_NAME)
        r = parse_setting(p, depth + 1);
    if (r < 0)
        return r;
    if (p->token.kind == TOKEN_END)
        return refuse(p, line, p->path, "its group has no end: a } is missing");
    if (!is_mark(p, '}'))
        return refuse(p, p->token.line, p->path, "the name of a setting, or }, is expected");
    return advance(p);
}

static int parse_value(struct parser *p, unsigned depth)
{
    if (is_mark(p, '{'))
        return parse_group(p, depth);
    if (is_mark(p, '['))
        return parse_list(p, ']');
    if (is_mark(p, '('))
        return parse_list(p, ')');
    return parse_plain(p);
}

/* Something else than a = follows the name that ends the path. */
static int refuse_name(const struct parser *p, unsigned line)
{
    char what[PATH_SIZE + 64] = "a = is missing behind it";
    bool dotted = p->token.len > 0 && p->token.start[0] == '.';
    if (dotted && strchr(p->path, '.') == NULL)
        (void) snprintf(what, sizeof(what),
                        "a = is missing behind it (as in %s = { NAME = VALUE; };)", p->path);
    return refuse(p, line, p->path, what);
}

/* The current token is its name. */
static int parse_setting(struct parser *p, unsigned depth)
{
    size_t path_len = strlen(p->path);
    unsigned line = p->token.line;
    int name_len = p->token.len < PATH_SIZE ? (int) p->token.len : PATH_SIZE;

    (void) snprintf(p->path + path_len, sizeof(p->path) - path_len, "%s%.*s",
                    path_len > 0 ? "." : "", name_len, p->token.start);
    if (line == p->wanted_line && p->found != NULL)
        (void) snprintf(p->found, p->found_size, "%s", p->path);

    int r = advance(p);
    if (r == 0 && !is_mark(p, '=') && !is_mark(p, ':'))
        r = refuse_name(p, line);
    if (r == 0)
        r = advance(p);
    if (r == 0)
        r = parse_value(p, depth);
    if (r == 0 && (is_mark(p, ';') || is_mark(p, ',')))
        r = advance(p);
    p->path[path_len] = '\0';
    return r;
}

static int parse_file(struct parser *p)
{
    p->token = (struct token){ .kind = TOKEN_BLANK, .start = p->at };
    int r = advance(p);
    while (r == 0 && p->token.kind == TOKEN_NAME)
        r = parse_setting(p, 0);
    if (r == 0 && p->token.kind != TOKEN_END)
        r = refuse(p, p->token.line, "", "the name of a setting is expected");
    return r;
}

int config_text_prepare(const struct config_report *report, const char *text, size_t len,
                        struct buf *ret)
{
    struct parser p = { .report = report, .out = ret, .at = text, .end = text + len, .line = 1 };
    return parse_file(&p);
}

void config_text_name(const char *text, size_t len, unsigned line, char *ret_name, size_t size)
{
    struct parser p = {
        .at = text,
        .end = text + len,
        .line = 1,
        .wanted_line = line,
        .found = ret_name,
        .found_size = size,
    };
    ret_name[0] = '\0';
    (void) parse_file(&p);
}
