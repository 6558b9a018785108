/* Deprecation and Sunset in words. Pure. Any thread. */
#include "policy/deprecation.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

void deprecation_describe(const char *deprecation, const char *sunset,
                          char ret_text[static DEPRECATION_TEXT_MAX])
{
    char since[128] = "", until[128] = "", date[32];
    if (deprecation != NULL && read_date(deprecation, date, sizeof(date)))
        (void) snprintf(since, sizeof(since), " since %s", date);
    else if (deprecation != NULL)
        (void) snprintf(since, sizeof(since), " (Deprecation: %.64s)", deprecation);
    if (sunset != NULL)
        (void) snprintf(until, sizeof(until), ", to be removed on %.64s", sunset);
    (void) snprintf(ret_text, DEPRECATION_TEXT_MAX, "%s%s", since, until);
}
