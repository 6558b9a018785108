/* Everything that reaches a terminal goes through output_append_text(): job IDs of bad lines, file
 * names and server messages come from strangers. */
#include "ctl/output.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "base/json.h"
#include "ctl/when.h"

#define TEXT_MAX ((size_t) 1024 * 1024)

void output_init(struct output *out)
{
    (void) setlocale(LC_ALL, "");
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    out->terminal = isatty(STDOUT_FILENO) == 1;
    out->colour = out->terminal && (no_color == NULL || no_color[0] == '\0') && term != NULL &&
                  strcmp(term, "dumb") != 0;
}

void output_vcomplain(const char *fmt, va_list args)
{
    struct buf text;
    char *message = NULL;
    buf_init(&text, TEXT_MAX);
    if (vasprintf(&message, fmt, args) < 0)
        message = NULL;
    /* Line by line: advice may stand on lines of its own. */
    for (char *line = message; line != NULL;) {
        char *next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        (void) output_append_text(&text, line, 0);
        (void) buf_append_char(&text, '\n');
        line = next;
    }
    const char *shown = buf_cstr(&text);
    (void) fflush(stdout);
    (void) fprintf(stderr, "pulse-cancelctl: %s", shown != NULL ? shown : "out of memory\n");
    free(message);
    buf_finish(&text);
}

void output_complain(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    output_vcomplain(fmt, args);
    va_end(args);
}

int output_columns(int fd)
{
    struct winsize size;
    return isatty(fd) == 1 && ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* --- Text --- */

static wchar_t code_point(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *) s;
    unsigned c = n == 1 ? u[0] : u[0] & (0xffU >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (u[i] & 0x3fU);
    return (wchar_t) c;
}

static bool locale_is_utf8(void)
{
    return MB_CUR_MAX > 1 && mblen("\xc3\xa9", 2) == 2;
}

size_t output_append_text(struct buf *b, const char *s, size_t max_width)
{
    bool utf8 = locale_is_utf8();
    size_t len = strlen(s);
    size_t width = 0;
    size_t cut_len = 0; /* where the "~" would stand: after the last but one column */
    size_t cut_width = 0;
    bool cuttable = false;
    size_t start = b->len;

    for (size_t i = 0; i < len;) {
        size_t n = json_utf8_length(s + i, len - i);
        wchar_t c = n > 0 ? code_point(s + i, n) : L'\0';
        int columns = c < 0x20 || c == 0x7f || (n > 1 && !utf8) ? -1 : n == 1 ? 1 : wcwidth(c);
        if (max_width > 0 && width < max_width) {
            cut_len = b->len - start;
            cut_width = width;
            cuttable = true;
        }
        if (max_width > 0 && width + (columns < 0 ? 1 : (size_t) columns) > max_width && cuttable) {
            b->len = start + cut_len;
            (void) buf_append_char(b, '~');
            return cut_width + 1;
        }
        if (columns < 0)
            (void) buf_append_char(b, '?');
        else
            (void) buf_append(b, s + i, n);
        width += columns < 0 ? 1 : (size_t) columns;
        i += n > 0 ? n : 1;
    }
    return width;
}

static const char *style_begin(enum style style)
{
    switch (style) {
    case STYLE_PLAIN:
        return "";
    case STYLE_STRONG:
        return "\033[1m";
    case STYLE_DIM:
        return "\033[2m";
    case STYLE_GOOD:
        return "\033[32m";
    case STYLE_WARN:
        return "\033[33m";
    case STYLE_BAD:
        return "\033[31m";
    }
    return "";
}

static void put_cut(const struct output *out, FILE *file, enum style style, const char *text,
                    size_t width, size_t max_width)
{
    struct buf b;
    buf_init(&b, TEXT_MAX);
    size_t shown = output_append_text(&b, text, max_width);
    bool styled = out->colour && style != STYLE_PLAIN;
    if (styled)
        (void) fputs(style_begin(style), file);
    if (b.len > 0)
        (void) fwrite(b.data, 1, b.len, file);
    if (styled)
        (void) fputs("\033[0m", file);
    buf_finish(&b);
    if (shown < width)
        (void) fprintf(file, "%*s", (int) (width - shown), "");
}

void output_put(const struct output *out, FILE *file, enum style style, const char *text,
                size_t width)
{
    put_cut(out, file, style, text, width, 0);
}

enum style output_style_of(const char *name)
{
    static const struct {
        const char *name;
        enum style style;
    } styles[] = {
        { "cancelled", STYLE_GOOD },   { "too_late", STYLE_WARN },  { "withdrawn", STYLE_WARN },
        { "queued", STYLE_PLAIN },     { "in_flight", STYLE_WARN }, { "waiting", STYLE_WARN },
        { "not_found", STYLE_BAD },    { "forbidden", STYLE_BAD },  { "rejected", STYLE_BAD },
        { "unauthorized", STYLE_BAD }, { "failed", STYLE_BAD },     { "expired", STYLE_BAD },
        { "invalid", STYLE_BAD },
    };
    for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++)
        if (strcmp(styles[i].name, name) == 0)
            return styles[i].style;
    return STYLE_PLAIN;
}

const char *output_count(int64_t n, char text[static OUTPUT_COUNT_MAX])
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%" PRId64, n < 0 ? -n : n);
    size_t at = 0;
    if (n < 0)
        text[at++] = '-';
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

const char *output_span(int64_t seconds, char text[static OUTPUT_SPAN_MAX])
{
    int days = (int) (seconds / 86400);
    int rest = (int) (seconds % 86400);
    int len = days > 0 ? snprintf(text, OUTPUT_SPAN_MAX, "%dd ", days) : 0;
    (void) snprintf(text + len, OUTPUT_SPAN_MAX - (size_t) len, "%02d:%02d:%02d", rest / 3600,
                    rest / 60 % 60, rest % 60);
    return text;
}

const char *output_time(const char *utc, char text[static OUTPUT_TIME_MAX])
{
    int64_t ms;
    struct tm tm;
    time_t seconds;
    if (when_parse(utc, 0, &ms) < 0 || (seconds = ms / 1000, localtime_r(&seconds, &tm) == NULL) ||
        strftime(text, OUTPUT_TIME_MAX, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        (void) snprintf(text, OUTPUT_TIME_MAX, "%.30s", utc);
    return text;
}

/* --- Results --- */

#define OUTCOME_WIDTH 12
#define JOB_WIDTH 28

void output_result(const struct output *out, struct json_object *result, bool with_time)
{
    const char *time = json_get_string(result, "time");
    const char *job = json_get_string(result, "job_id");
    const char *outcome = json_get_string(result, "outcome");
    const char *message = json_get_string(result, "message");
    struct json_object *error = json_object_object_get(result, "error");
    int64_t attempts = json_object_get_int64(json_object_object_get(result, "attempts"));
    if (outcome == NULL)
        outcome = "?";

    char text[OUTPUT_TIME_MAX];
    if (with_time) {
        output_put(out, stdout, STYLE_DIM, output_time(time != NULL ? time : "?", text), 0);
        (void) fputs("  ", stdout);
    }
    output_put(out, stdout, output_style_of(outcome), outcome, OUTCOME_WIDTH);
    (void) fputs("  ", stdout);
    if (message == NULL && error != NULL)
        message = json_get_string(error, "message");
    if (strcmp(outcome, "cancelled") == 0)
        message = NULL;
    output_put(out, stdout, STYLE_PLAIN, job != NULL ? job : "?",
               attempts > 1 || message != NULL ? JOB_WIDTH : 0);
    if (attempts > 1)
        (void) printf("  %" PRId64 " attempts", attempts);
    if (message != NULL) {
        (void) fputs("  ", stdout);
        output_put(out, stdout, STYLE_PLAIN, message, 0);
    }
    (void) fputc('\n', stdout);
}

/* --- Tables --- */

void table_init(struct table *t, size_t n_columns, const char *const *titles)
{
    *t = (struct table){ .n_columns = n_columns };
    for (size_t i = 0; i < n_columns; i++)
        t->titles[i] = titles[i];
}

void table_finish(struct table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->styles);
    *t = (struct table){ 0 };
}

int table_add(struct table *t, enum style style, const char *text)
{
    if (t->n_cells == t->size) {
        size_t size = t->size > 0 ? t->size * 2 : 64;
        char **cells = reallocarray(t->cells, size, sizeof(*cells));
        if (cells == NULL)
            return -ENOMEM;
        t->cells = cells;
        enum style *styles = reallocarray(t->styles, size, sizeof(*styles));
        if (styles == NULL)
            return -ENOMEM;
        t->styles = styles;
        t->size = size;
    }
    char *copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    t->styles[t->n_cells] = style;
    t->cells[t->n_cells++] = copy;
    return 0;
}

int table_addf(struct table *t, enum style style, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return table_add(t, style, text);
}

static size_t width_of(const char *text)
{
    struct buf b;
    buf_init(&b, TEXT_MAX);
    size_t width = output_append_text(&b, text, 0);
    buf_finish(&b);
    return width;
}

static void print_row(const struct table *t, const struct output *out, const size_t *widths,
                      char *const *cells, const enum style *styles, size_t columns)
{
    size_t used = 0;
    for (size_t i = 0; i < t->n_columns; i++) {
        const char *text = cells != NULL ? cells[i] : t->titles[i];
        enum style style = cells != NULL ? styles[i] : STYLE_STRONG;
        bool last = i + 1 == t->n_columns;
        size_t max = last && columns > used + 8 ? columns - used : 0;
        if (t->right[i])
            (void) printf("%*s", (int) (widths[i] - width_of(text)), "");
        put_cut(out, stdout, style, text, last || t->right[i] ? 0 : widths[i], max);
        (void) fputs(last ? "\n" : "  ", stdout);
        used += widths[i] + 2;
    }
}

void table_print(const struct table *t, const struct output *out)
{
    size_t widths[TABLE_COLUMNS_MAX] = { 0 };
    size_t column = 0;
    for (size_t i = 0; i < t->n_columns; i++)
        widths[i] = width_of(t->titles[i]);
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t width = width_of(t->cells[i]);
        if (width > widths[column])
            widths[column] = width;
        column = column + 1 < t->n_columns ? column + 1 : 0;
    }
    size_t columns = (size_t) output_columns(STDOUT_FILENO);
    print_row(t, out, widths, NULL, NULL, columns);
    for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
        print_row(t, out, widths, t->cells + i, t->styles + i, columns);
}
