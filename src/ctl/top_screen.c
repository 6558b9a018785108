/* Drawing by ncurses, the wide one. Lines are cut at the right edge, and what does not fit below is
 * left out, failures first. */
#include "ctl/top_screen.h"

#include <curses.h>
#include <term.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "ctl/output.h"
#include "ctl/stats.h"

#define LINE_MAX_BYTES ((size_t) 16 * 1024)
#define LABEL_WIDTH 17
#define NUMBER_WIDTH 11
/* Where curves begin: label, number, average, two blanks. */
#define SPARK_COLUMN (LABEL_WIDTH + 2 * NUMBER_WIDTH + 2)

/* Pairs of colours; 0 is the terminal's own. */
enum pair { PAIR_PLAIN, PAIR_GOOD, PAIR_WARN, PAIR_BAD, PAIR_CURVE };

struct top_screen {
    SCREEN *screen;
    bool colour;
    bool unicode;
    int line; /* the next one */
};

/* --- The terminal --- */

static void init_colours(struct top_screen *s)
{
    if (!s->colour || !has_colors() || start_color() == ERR || use_default_colors() == ERR) {
        s->colour = false;
        return;
    }
    (void) init_pair(PAIR_GOOD, COLOR_GREEN, -1);
    (void) init_pair(PAIR_WARN, COLOR_YELLOW, -1);
    (void) init_pair(PAIR_BAD, COLOR_RED, -1);
    (void) init_pair(PAIR_CURVE, COLOR_CYAN, -1);
}

/* A terminal that is known, and has a cursor to move (TERM=dumb has none). */
static bool is_screen(void)
{
    int error;
    if (setupterm(NULL, STDOUT_FILENO, &error) == ERR)
        return false;
    bool known = tigetstr("cup") != NULL;
    (void) del_curterm(cur_term);
    return known;
}

int top_screen_open(struct top_screen **ret, bool colour)
{
    if (!is_screen())
        return -ENOTTY;
    struct top_screen *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    s->screen = newterm(NULL, stdout, stdin);
    if (s->screen == NULL) {
        free(s);
        return -ENOTTY;
    }
    s->colour = colour;
    s->unicode = MB_CUR_MAX > 1;
    (void) cbreak();
    (void) noecho();
    (void) nodelay(stdscr, TRUE);
    (void) keypad(stdscr, TRUE);
    (void) curs_set(0);
    init_colours(s);
    *ret = s;
    return 0;
}

void top_screen_close(struct top_screen *s)
{
    if (s == NULL)
        return;
    (void) endwin();
    delscreen(s->screen);
    free(s);
}

enum top_key top_screen_key(struct top_screen *s)
{
    (void) s;
    switch (getch()) {
    case ERR:
        return TOP_KEY_NONE;
    case 'q':
    case 'Q':
        return TOP_KEY_QUIT;
    case ' ':
        return TOP_KEY_FREEZE;
    default: /* KEY_RESIZE among them */
        return TOP_KEY_REDRAW;
    }
}

/* --- Pieces of lines --- */

static attr_t look(const struct top_screen *s, enum pair pair, attr_t more)
{
    return (s->colour ? COLOR_PAIR(pair) : A_NORMAL) | more;
}

/* `text` at a column, cut at the right edge. */
static void put(const struct top_screen *s, int line, int column, attr_t attributes,
                const char *text)
{
    (void) s;
    if (line >= LINES || column >= COLS)
        return;
    struct buf b;
    buf_init(&b, LINE_MAX_BYTES);
    (void) output_append_text(&b, text, (size_t) (COLS - column));
    (void) attrset(attributes);
    (void) mvaddnstr(line, column, b.len > 0 ? b.data : "", (int) b.len);
    (void) attrset(A_NORMAL);
    buf_finish(&b);
}

static void put_right(const struct top_screen *s, int line, int end, attr_t attributes,
                      const char *text)
{
    put(s, line, end - (int) strlen(text), attributes, text);
}

/* 0.3, 12.3, 1,234. */
static const char *rate_text(double rate, char text[static OUTPUT_COUNT_MAX])
{
    if (rate >= 100)
        return output_count((int64_t) (rate + 0.5), text);
    (void) snprintf(text, OUTPUT_COUNT_MAX, "%.1f", rate);
    return text;
}

/* --- The parts --- */

static void draw_head(struct top_screen *s, const struct top_model *m)
{
    char text[256];
    char span[OUTPUT_SPAN_MAX];
    const char *version = json_get_string(m->stats, "version");
    const char *endpoint = json_get_string(m->stats, "endpoint");
    (void) snprintf(text, sizeof(text),
                    " pulse-canceld %.20s   pid %" PRId64 "   up %s   endpoint %.20s",
                    version != NULL ? version : "?", stats_number(m->stats, NULL, "pid"),
                    output_span(stats_number(m->stats, NULL, "uptime_s"), span),
                    endpoint != NULL ? endpoint : "?");
    (void) attrset(A_REVERSE);
    (void) mvhline(0, 0, ' ' | A_REVERSE, COLS);
    put(s, 0, 0, A_REVERSE, text);

    time_t now = time(NULL);
    struct tm tm;
    char clock[16];
    if (localtime_r(&now, &tm) != NULL && strftime(clock, sizeof(clock), " %H:%M:%S ", &tm) > 0 &&
        (int) (strlen(text) + strlen(clock)) < COLS)
        put_right(s, 0, COLS, A_REVERSE, clock);
    s->line = 1;
}

static void draw_notices(struct top_screen *s, const struct top_model *m)
{
    char text[STATS_NOTICE_MAX];
    size_t n = 0;
    for (; stats_notice(m->stats, n, text); n++)
        put(s, s->line++, 1, look(s, PAIR_BAD, A_BOLD), text);
    if (n == 0)
        put(s, s->line++, 1, look(s, PAIR_GOOD, A_NORMAL),
            stats_sum(m->stats, "pending") > 0 ? "Sending." : "Idle: nothing is pending.");
    s->line++;
}

static void draw_series(struct top_screen *s, const struct top_model *m, enum top_series series,
                        const char *label)
{
    char text[OUTPUT_COUNT_MAX];
    struct buf spark;
    bool rate = series <= TOP_RETRIES;
    double now = top_model_now(m, series);
    put(s, s->line, 1, A_NORMAL, label);
    put_right(s, s->line, LABEL_WIDTH + NUMBER_WIDTH, A_BOLD,
              rate ? rate_text(now, text) : output_count((int64_t) now, text));
    if (rate)
        put_right(s, s->line, LABEL_WIDTH + 2 * NUMBER_WIDTH, A_NORMAL,
                  rate_text(top_model_average(m, series), text));
    int width = COLS - SPARK_COLUMN - 1;
    if (width > 0) {
        buf_init(&spark, LINE_MAX_BYTES);
        top_model_append_spark(&spark, m, series, (size_t) width, s->unicode);
        const char *curve = buf_cstr(&spark);
        put(s, s->line, SPARK_COLUMN,
            look(s, series == TOP_OTHERS && now > 0 ? PAIR_BAD : PAIR_CURVE, A_NORMAL),
            curve != NULL ? curve : "");
        buf_finish(&spark);
    }
    s->line++;
}

static void draw_all_series(struct top_screen *s, const struct top_model *m)
{
    static const char *const labels[TOP_SERIES_COUNT] = {
        [TOP_ACCEPTED] = "Accepted/s",   [TOP_ATTEMPTS] = "Attempts/s",
        [TOP_CANCELLED] = "Cancelled/s", [TOP_OTHERS] = "Not cancelled/s",
        [TOP_RETRIES] = "Retries/s",     [TOP_BACKLOG] = "Backlog",
        [TOP_IN_FLIGHT] = "In flight",
    };
    char text[64];
    int width = COLS - SPARK_COLUMN - 1;
    put_right(s, s->line, LABEL_WIDTH + NUMBER_WIDTH, A_UNDERLINE, "now");
    put_right(s, s->line, LABEL_WIDTH + 2 * NUMBER_WIDTH, A_UNDERLINE, "average");
    (void) snprintf(text, sizeof(text), "last %d s", width < TOP_SAMPLES ? width : TOP_SAMPLES);
    if (width > (int) strlen(text))
        put(s, s->line, SPARK_COLUMN, A_UNDERLINE, text);
    s->line++;
    for (size_t i = 0; i < TOP_SERIES_COUNT; i++)
        draw_series(s, m, (enum top_series) i, labels[i]);
    s->line++;
}

static void draw_limits(struct top_screen *s, const struct top_model *m)
{
    char text[512];
    char count[OUTPUT_COUNT_MAX];
    char rate[OUTPUT_COUNT_MAX + 8] = "no limit";
    const char *breaker = json_get_string(m->stats, "breaker");
    if (json_object_object_get(m->stats, "rate_per_s") != NULL)
        (void) snprintf(rate, sizeof(rate), "%s/s",
                        output_count(stats_number(m->stats, NULL, "rate_per_s"), count));
    (void) snprintf(
        text, sizeof(text),
        "Limits: %" PRId64 " in flight, rate %s, breaker %.20s   Waiting for a retry: %s",
        stats_number(m->stats, NULL, "in_flight_limit"), rate, breaker != NULL ? breaker : "?",
        output_count(stats_number(m->stats, "pending", "waiting"), count));
    put(s, s->line++, 1, A_NORMAL, text);
    (void) snprintf(text, sizeof(text), "Socket: %s clients",
                    output_count(stats_number(m->stats, "socket", "clients"), count));
    size_t len = strlen(text);
    (void) snprintf(text + len, sizeof(text) - len, "   Spool: %s files taken",
                    output_count(stats_number(m->stats, "spool", "files"), count));
    len = strlen(text);
    (void) snprintf(text + len, sizeof(text) - len, ", %s rejected",
                    output_count(stats_number(m->stats, "spool", "rejected"), count));
    put(s, s->line++, 1, A_NORMAL, text);
    s->line++;
}

static enum pair pair_of(const char *outcome)
{
    return output_style_of(outcome) == STYLE_WARN ? PAIR_WARN : PAIR_BAD;
}

static void draw_failure(struct top_screen *s, struct json_object *result)
{
    char time[OUTPUT_TIME_MAX];
    const char *at = json_get_string(result, "time");
    const char *job = json_get_string(result, "job_id");
    const char *outcome = json_get_string(result, "outcome");
    const char *message = json_get_string(result, "message");
    struct json_object *error = json_object_object_get(result, "error");
    if (message == NULL && error != NULL)
        message = json_get_string(error, "message");
    output_time(at != NULL ? at : "", time);
    /* The clock alone: these are of today. */
    const char *blank = strchr(time, ' ');
    put(s, s->line, 1, A_NORMAL, blank != NULL ? blank + 1 : time);

    struct buf b;
    int job_width = COLS >= 110 ? 40 : 24;
    buf_init(&b, LINE_MAX_BYTES);
    (void) output_append_text(&b, job != NULL ? job : "?", (size_t) job_width);
    const char *shown = buf_cstr(&b);
    put(s, s->line, 11, A_NORMAL, shown != NULL ? shown : "?");
    buf_finish(&b);
    put(s, s->line, 12 + job_width, look(s, pair_of(outcome), A_NORMAL), outcome);
    put(s, s->line, 26 + job_width, A_NORMAL, message != NULL ? message : "");
    s->line++;
}

static void draw_failures(struct top_screen *s, const struct top_model *m)
{
    char text[96];
    char count[OUTPUT_COUNT_MAX];
    int last = LINES - 1;
    if (s->line >= last)
        return;
    if (m->missed > 0)
        (void) snprintf(text, sizeof(text),
                        "Latest failures (%s outcomes came too fast to be shown)",
                        output_count(m->missed, count));
    else
        (void) snprintf(text, sizeof(text), "Latest failures%s",
                        m->n_failures == 0 ? ": none since this began" : "");
    put(s, s->line++, 1, A_BOLD, text);
    size_t kept = m->n_failures < TOP_FAILURES ? m->n_failures : TOP_FAILURES;
    for (size_t i = 0; i < kept && s->line < last; i++)
        draw_failure(s, m->failures[(m->n_failures - 1 - i) % TOP_FAILURES]);
}

void top_screen_draw(struct top_screen *s, const struct top_model *m, bool frozen,
                     const char *trouble)
{
    (void) erase();
    if (m->stats != NULL) {
        draw_head(s, m);
        draw_notices(s, m);
        draw_all_series(s, m);
        draw_limits(s, m);
        draw_failures(s, m);
    }
    put(s, LINES - 1, 1, A_DIM, frozen ? "q quit   space go on" : "q quit   space freeze");
    if (trouble != NULL)
        put(s, LINES - 1, 25, look(s, PAIR_BAD, A_BOLD), trouble);
    else if (frozen)
        put(s, LINES - 1, 25, look(s, PAIR_WARN, A_BOLD), "frozen");
    (void) refresh();
}
