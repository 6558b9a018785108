/* Times to milliseconds of UTC. */
#include "ctl/when.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* So much before now is no time that anybody means. */
#define AGO_MAX_S (INT64_C(100) * 366 * 86400)

/* Exactly `n` digits. */
static bool digits(const char **at, int n, int *ret)
{
    int value = 0;
    for (int i = 0; i < n; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        value = value * 10 + ((*at)[i] - '0');
    }
    *at += n;
    *ret = value;
    return true;
}

static bool sign(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

static bool parse_date(const char **at, struct tm *tm)
{
    if (!digits(at, 4, &tm->tm_year) || !sign(at, '-') || !digits(at, 2, &tm->tm_mon) ||
        !sign(at, '-') || !digits(at, 2, &tm->tm_mday))
        return false;
    tm->tm_year -= 1900;
    tm->tm_mon -= 1;
    return tm->tm_mon >= 0 && tm->tm_mon <= 11 && tm->tm_mday >= 1 && tm->tm_mday <= 31;
}

static bool parse_clock(const char **at, struct tm *tm, int *ret_ms)
{
    if (!digits(at, 2, &tm->tm_hour) || !sign(at, ':') || !digits(at, 2, &tm->tm_min))
        return false;
    if (sign(at, ':')) {
        if (!digits(at, 2, &tm->tm_sec))
            return false;
        if (sign(at, '.')) {
            int digit;
            int scale = 100;
            if (!digits(at, 1, &digit))
                return false;
            do {
                *ret_ms += digit * scale;
                scale /= 10;
            } while (digits(at, 1, &digit));
        }
    }
    return tm->tm_hour <= 23 && tm->tm_min <= 59 && tm->tm_sec <= 60;
}

/* Behind a time: Z or an offset, in seconds; *ret_local when there is neither. */
static bool parse_zone(const char **at, int *ret_offset_s, bool *ret_local)
{
    int hours;
    int minutes;
    *ret_local = false;
    if (sign(at, 'Z'))
        return true;
    if (**at != '+' && **at != '-') {
        *ret_local = true;
        return true;
    }
    int direction = *(*at)++ == '-' ? -1 : 1;
    if (!digits(at, 2, &hours) || !sign(at, ':') || !digits(at, 2, &minutes) || hours > 23 ||
        minutes > 59)
        return false;
    *ret_offset_s = direction * (hours * 3600 + minutes * 60);
    return true;
}

static int parse_absolute(const char *text, int64_t *ret_ms)
{
    struct tm tm = { .tm_isdst = -1 };
    int ms = 0;
    int offset_s = 0;
    bool local = true;

    if (!parse_date(&text, &tm))
        return -EINVAL;
    if ((sign(&text, 'T') || sign(&text, ' ')) &&
        (!parse_clock(&text, &tm, &ms) || !parse_zone(&text, &offset_s, &local)))
        return -EINVAL;
    if (*text != '\0')
        return -EINVAL;
    int day = tm.tm_mday;
    time_t seconds = local ? mktime(&tm) : timegm(&tm);
    /* 2026-02-30 would quietly become another day. */
    if (tm.tm_mday != day)
        return -EINVAL;
    *ret_ms = ((int64_t) seconds - offset_s) * 1000 + ms;
    return 0;
}

static int64_t midnight(int64_t now_ms, int days_back)
{
    time_t now = now_ms / 1000;
    struct tm tm;
    if (localtime_r(&now, &tm) == NULL)
        return now_ms;
    tm.tm_hour = 0;
    tm.tm_min = 0;
    tm.tm_sec = 0;
    tm.tm_mday -= days_back;
    tm.tm_isdst = -1;
    return (int64_t) mktime(&tm) * 1000;
}

static int parse_ago(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    static const struct {
        char letter;
        int64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };

    int64_t n = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && n <= AGO_MAX_S; at++)
        n = n * 10 + (*at - '0');
    if (at == text || *at == '\0' || at[1] != '\0')
        return -EINVAL;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (units[i].letter != *at)
            continue;
        if (n > AGO_MAX_S / units[i].seconds)
            return -EINVAL;
        *ret_ms = now_ms - n * units[i].seconds * 1000;
        return 0;
    }
    return -EINVAL;
}

int when_parse(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    if (strcmp(text, "now") == 0)
        *ret_ms = now_ms;
    else if (strcmp(text, "today") == 0)
        *ret_ms = midnight(now_ms, 0);
    else if (strcmp(text, "yesterday") == 0)
        *ret_ms = midnight(now_ms, 1);
    else if (parse_ago(text, now_ms, ret_ms) < 0)
        return parse_absolute(text, ret_ms);
    return 0;
}
