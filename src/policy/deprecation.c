/* Deprecation and Sunset in words. Pure. Any thread. */
#include "policy/deprecation.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policy/verdict.h"

/* A Structured Field Date (RFC 9651): "@" and seconds since 1970. */
static bool read_date(const char *text, char *ret, size_t size)
{
    if (text[0] != '@' || strspn(text + 1, "0123456789") != strlen(text + 1) || text[1] == '\0' ||
        strlen(text) > 12)
        return false;
    time_t at = (time_t) strtoll(text + 1, NULL, 10);
    struct tm tm;
    return gmtime_r(&at, &tm) != NULL && strftime(ret, size, "%Y-%m-%d", &tm) > 0;
}

/* The header's value, cut; masked first, since a key across the cut would not be found. */
#define SHOWN_MAX 65

static void show(const char *value, const char *api_key, char ret[static SHOWN_MAX])
{
    char *copy = strdup(value);
    if (copy != NULL)
        verdict_mask(copy, api_key);
    (void) snprintf(ret, SHOWN_MAX, "%s", copy != NULL ? copy : "?");
    free(copy);
}

void deprecation_describe(const char *deprecation, const char *sunset, const char *api_key,
                          char ret_text[static DEPRECATION_TEXT_MAX])
{
    char since[128] = "", until[128] = "", date[32], shown[SHOWN_MAX];
    if (deprecation != NULL && read_date(deprecation, date, sizeof(date))) {
        (void) snprintf(since, sizeof(since), " since %s", date);
    } else if (deprecation != NULL) {
        show(deprecation, api_key, shown);
        (void) snprintf(since, sizeof(since), " (Deprecation: %s)", shown);
    }
    if (sunset != NULL) {
        show(sunset, api_key, shown);
        (void) snprintf(until, sizeof(until), ", to be removed on %s", shown);
    }
    (void) snprintf(ret_text, DEPRECATION_TEXT_MAX, "%s%s", since, until);
}
