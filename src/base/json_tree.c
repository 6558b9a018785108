/* The tree, from text that the scanner has accepted, so that all that can be missing is memory. Any
 * thread.
 *
 * json-c 0.16 has a parser of its own, but goes on when it gets no memory: a member is missing then,
 * a value is null, a string lacks a part; or it crashes. A request with half of its members is not
 * the one that was sent. Numbers become what json-c makes of them. */
#include "base/json_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct builder {
    const char *at;
    const char *end;
    size_t len; /* of the whole text: no part of it is longer */
};

static int build_value(struct builder *b, struct json_object **ret);

static void skip_blanks(struct builder *b)
{
    while (b->at < b->end && (*b->at == ' ' || *b->at == '\t' || *b->at == '\n' || *b->at == '\r'))
        b->at++;
}

/* Past this byte and the blanks around it, if it comes next. */
static bool skip(struct builder *b, char c)
{
    skip_blanks(b);
    if (b->at == b->end || *b->at != c)
        return false;
    b->at++;
    skip_blanks(b);
    return true;
}

/* --- Strings --- */

/* The four digits after \u. */
static uint32_t read_hex4(struct builder *b)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = *b->at++;
        value = value << 4 | (uint32_t) (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

static int append_code_point(struct buf *text, uint32_t c)
{
    char utf8[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        utf8[i] = (char) (0x80 | (c & 0x3f));
    utf8[0] = (char) (leads[n] | c);
    return buf_append(text, utf8, n);
}

/* Behind a backslash. */
static int read_escape(struct builder *b, struct buf *text)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";

    char c = *b->at++;
    if (c != 'u')
        return buf_append_char(text, meanings[strchr(letters, c) - letters]);
    uint32_t code_point = read_hex4(b);
    if (code_point >= 0xd800 && code_point < 0xdc00) {
        b->at += strlen("\\u");
        code_point = 0x10000 + ((code_point - 0xd800) << 10) + (read_hex4(b) - 0xdc00);
    }
    return append_code_point(text, code_point);
}

/* Unescaped. `text` is empty before. */
static int read_string(struct builder *b, struct buf *text)
{
    int r = 0;
    b->at++;
    while (r == 0 && *b->at != '"') {
        size_t n = 0;
        while (b->at[n] != '"' && b->at[n] != '\\')
            n++;
        r = buf_append(text, b->at, n);
        b->at += n;
        if (r == 0 && *b->at == '\\') {
            b->at++;
            r = read_escape(b, text);
        }
    }
    b->at++;
    return r;
}

static int build_string(struct builder *b, struct json_object **ret)
{
    struct buf text;
    buf_init(&text, b->len);
    int r = read_string(b, &text);
    if (r == 0) {
        *ret = json_object_new_string_len(text.len > 0 ? text.data : "", (int) text.len);
        r = *ret != NULL ? 0 : -ENOMEM;
    }
    buf_finish(&text);
    return r;
}

/* --- Numbers and words --- */

/* As json-c does it: integers stop at the ends of their 64 bits, a double keeps its own digits. */
static struct json_object *new_number(const char *text)
{
    int64_t number = 0;
    uint64_t natural = 0;
    if (strpbrk(text, ".eE") != NULL)
        return json_object_new_double_s(strtod(text, NULL), text);
    if (text[0] == '-') {
        (void) json_parse_int64(text, &number);
        return json_object_new_int64(number);
    }
    (void) json_parse_uint64(text, &natural);
    return natural <= INT64_MAX ? json_object_new_int64((int64_t) natural)
                                : json_object_new_uint64(natural);
}

static int build_number(struct builder *b, struct json_object **ret)
{
    size_t n = 0;
    while (b->at + n < b->end && strchr("+-.0123456789Ee", b->at[n]) != NULL)
        n++;
    struct buf digits;
    buf_init(&digits, b->len + 1); /* and the NUL */
    int r = buf_append(&digits, b->at, n);
    const char *text = r == 0 ? buf_cstr(&digits) : NULL;
    *ret = text != NULL ? new_number(text) : NULL;
    buf_finish(&digits);
    b->at += n;
    return *ret != NULL ? 0 : -ENOMEM;
}

static int build_boolean(struct builder *b, bool value, struct json_object **ret)
{
    b->at += strlen(value ? "true" : "false");
    *ret = json_object_new_boolean(value);
    return *ret != NULL ? 0 : -ENOMEM;
}

/* --- Objects and arrays --- */

static int add_member(struct builder *b, struct json_object *object)
{
    struct json_object *value = NULL;
    struct buf name;
    buf_init(&name, b->len);
    int r = read_string(b, &name);
    const char *text = r == 0 ? buf_cstr(&name) : NULL;
    if (text == NULL)
        r = -ENOMEM;
    if (r == 0) {
        (void) skip(b, ':');
        r = build_value(b, &value);
    }
    if (r == 0 &&
        json_object_object_add_ex(object, text, value, JSON_C_OBJECT_ADD_KEY_IS_NEW) < 0) {
        json_object_put(value);
        r = -ENOMEM;
    }
    buf_finish(&name);
    return r;
}

static int add_element(struct builder *b, struct json_object *array)
{
    struct json_object *value = NULL;
    int r = build_value(b, &value);
    if (r == 0 && json_object_array_add(array, value) < 0) {
        json_object_put(value);
        r = -ENOMEM;
    }
    return r;
}

static int build_container(struct builder *b, bool object, struct json_object **ret)
{
    char close = object ? '}' : ']';
    struct json_object *container = object ? json_object_new_object() : json_object_new_array();
    if (container == NULL)
        return -ENOMEM;

    int r = 0;
    (void) skip(b, object ? '{' : '[');
    while (r == 0 && !skip(b, close)) {
        r = object ? add_member(b, container) : add_element(b, container);
        (void) skip(b, ',');
    }
    if (r == 0)
        *ret = container;
    else
        json_object_put(container);
    return r;
}

static int build_value(struct builder *b, struct json_object **ret)
{
    skip_blanks(b);
    switch (*b->at) {
    case '{':
        return build_container(b, true, ret);
    case '[':
        return build_container(b, false, ret);
    case '"':
        return build_string(b, ret);
    case 't':
        return build_boolean(b, true, ret);
    case 'f':
        return build_boolean(b, false, ret);
    case 'n':
        b->at += strlen("null");
        *ret = NULL;
        return 0;
    default:
        return build_number(b, ret);
    }
}

int json_tree_build(const char *text, size_t len, struct json_object **ret)
{
    struct builder b = { .at = text, .end = text + len, .len = len };
    struct json_object *root = NULL;
    int r = build_value(&b, &root);
    if (r == 0)
        *ret = root;
    return r;
}
