/* A walk over the top level of a JSON object. Values are skipped by their quotes and brackets alone:
 * whether they are good JSON does not matter here. Any thread. */
#include "base/json_peek.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/json.h"

struct place {
    const char *at, *end;
};

static void skip_blanks(struct place *p)
{
    while (p->at < p->end && strchr(" \t\r\n", *p->at) != NULL && *p->at != '\0')
        p->at++;
}

static bool skip_char(struct place *p, char c)
{
    skip_blanks(p);
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

/* At a quote; false when the text ends within the string. */
static bool skip_string(struct place *p)
{
    for (p->at++; p->at < p->end; p->at++) {
        if (*p->at == '\\')
            p->at++;
        else if (*p->at == '"') {
            p->at++;
            return true;
        }
    }
    p->at = p->end;
    return false;
}

/* To the comma or the bracket after it; false when the text ends before that. */
static bool skip_value(struct place *p)
{
    for (size_t depth = 0; p->at < p->end; p->at++) {
        switch (*p->at) {
        case '"':
            if (!skip_string(p))
                return false;
            p->at--;
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return true;
            depth--;
            break;
        case ',':
            if (depth == 0)
                return true;
            break;
        default:
            break;
        }
    }
    return false;
}

static int copy_string(const char *quoted, size_t len, char **ret)
{
    struct json_object *string = NULL;
    int r = json_parse(quoted, len, &string, NULL);
    if (r == 0) {
        *ret = strdup(json_object_get_string(string));
        r = *ret != NULL ? 0 : -ENOMEM;
    }
    json_object_put(string);
    return r;
}

/* The next name and value; false at the end of the object or of the text. */
static bool next_member(struct place *p, struct place *ret_name, struct place *ret_value)
{
    skip_blanks(p);
    if (p->at == p->end || *p->at != '"')
        return false;
    ret_name->at = p->at + 1;
    if (!skip_string(p))
        return false;
    ret_name->end = p->at - 1;
    if (!skip_char(p, ':'))
        return false;
    skip_blanks(p);
    ret_value->at = p->at;
    bool whole = p->at < p->end && *p->at == '"' ? skip_string(p) : skip_value(p);
    ret_value->end = p->at;
    return whole;
}

int json_peek_string(const char *text, size_t len, const char *member, char **ret)
{
    struct place p = { .at = text, .end = text + len };
    if (!skip_char(&p, '{'))
        return -EINVAL;

    struct place name, value, found = { .at = NULL };
    size_t member_len = strlen(member);
    while (next_member(&p, &name, &value)) {
        size_t name_len = (size_t) (name.end - name.at);
        if (name_len == member_len && memcmp(name.at, member, member_len) == 0) {
            if (found.at != NULL)
                return -EINVAL;
            found = value;
        }
        if (!skip_char(&p, ','))
            break;
    }
    if (found.at == NULL || *found.at != '"')
        return -ENOENT;
    return copy_string(found.at, (size_t) (found.end - found.at), ret);
}
