/* Which request cancels a job. Pure. Any thread. */
#include "policy/endpoint.h"

#include <stdbool.h>
#include <string.h>

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void endpoint_path(enum endpoint endpoint, const char *job_id,
                   char ret_path[static ENDPOINT_PATH_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = stpcpy(ret_path, endpoint == ENDPOINT_JOB ? "/job/" : "/cancel/");
    for (const char *p = job_id; *p != '\0'; p++) {
        unsigned char c = (unsigned char) *p;
        if (is_unreserved(c)) {
            *out++ = *p;
            continue;
        }
        *out++ = '%';
        *out++ = hex[c >> 4];
        *out++ = hex[c & 15];
    }
    *out = '\0';
}

bool endpoint_may_be_gone(const struct judgement *first)
{
    if (first->kind != REPLY_REFUSED)
        return false;
    switch (first->http_status) {
    case 404:
        return !first->envelope;
    case 405:
    case 410:
    case 501:
        return true;
    default:
        return false;
    }
}

enum endpoint_proof endpoint_second_answer(const struct judgement *second)
{
    if (second->names_job || second->envelope)
        return ENDPOINT_GONE;
    /* A rejected key is rejected whatever the route. */
    bool counts = second->verdict == VERDICT_RETRY || second->http_status == 401;
    return counts ? ENDPOINT_FAILED : ENDPOINT_STANDS;
}
