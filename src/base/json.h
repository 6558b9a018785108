/* Strict JSON (RFC 8259) on top of json-c.
 *
 * json-c 0.16 lets duplicate members, single quotes, NaN and trailing text pass and cuts strings
 * at \u0000. A scanner of our own therefore accepts or refuses the text first; json_tree.c then
 * builds json-c's tree from it. */
#ifndef PULSE_BASE_JSON_H
#define PULSE_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

#include "base/buf.h"

#define JSON_MAX_DEPTH 16

/* What was found wrong: a constant text ("repeated member", "not UTF-8") and where. */
struct json_fault {
    const char *what;
    size_t offset;
};

/* 0 when `text` is exactly one JSON value: valid UTF-8, no duplicate members in an object, no
 * U+0000 in a string, at most JSON_MAX_DEPTH deep. -EINVAL with *reterr_fault (may be NULL)
 * otherwise, or -ENOMEM. */
int json_check(const char *text, size_t len, struct json_fault *reterr_fault);

/* json_check(), then the tree; the caller puts it with json_object_put(). The JSON text `null`
 * gives NULL. 0, -EINVAL or -ENOMEM. */
int json_parse(const char *text, size_t len, struct json_object **ret,
               struct json_fault *reterr_fault);

/* The member as a string owned by `object`, or NULL when it is missing or no string. */
const char *json_get_string(struct json_object *object, const char *member);

/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; control characters and
 * DEL are escaped, so the result never breaks a line or drives a terminal. */
int json_append_string(struct buf *b, const char *s, size_t len);

/* The same for a C string; NULL is written as null. */
int json_append_cstr(struct buf *b, const char *s);

/* Whether a sequence of that length (as json_utf8_length() has it) ends a line or drives a terminal,
 * for one reader or another: C0, DEL, C1, U+2028 and U+2029. */
bool json_is_control(const char *s, size_t n);

/* Length of the valid UTF-8 sequence at s (1 to 4), or 0. No surrogates, nothing overlong. */
size_t json_utf8_length(const char *s, size_t len);

#endif
