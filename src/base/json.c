/* The strict scanner, and writing of strings. Any thread. */
#include "base/json.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_tree.h"

/* A member's name, as a 64-bit FNV-1a hash of its unescaped bytes. Whoever goes to the length of
 * making two names collide is told that their own text has a repeated member. */
struct name {
    uint64_t hash;
    size_t offset;
};

#define NAMES_ON_STACK 32

struct scanner {
    const char *text;
    size_t len;
    size_t at;
    unsigned depth;
    const char *what; /* the first fault, at `at` */
    bool no_memory;

    /* The names of all objects that are open, innermost last. */
    struct name *names;
    size_t n_names;
    size_t names_size;
    struct name first_names[NAMES_ON_STACK];
};

static bool scan_value(struct scanner *s);

static bool fault(struct scanner *s, const char *what)
{
    s->what = what;
    return false;
}

static bool unexpected(struct scanner *s)
{
    return fault(s, s->at < s->len ? "unexpected character" : "unexpected end");
}

/* The next byte, or -1 at the end. */
static int peek(const struct scanner *s)
{
    return s->at < s->len ? (unsigned char) s->text[s->at] : -1;
}

static void skip_blanks(struct scanner *s)
{
    int c;
    while ((c = peek(s)) == ' ' || c == '\t' || c == '\n' || c == '\r')
        s->at++;
}

/* --- Strings --- */

static uint64_t hash_byte(uint64_t hash, unsigned char c)
{
    return (hash ^ c) * UINT64_C(0x100000001b3);
}

static uint64_t hash_code_point(uint64_t hash, uint32_t c)
{
    if (c < 0x80)
        return hash_byte(hash, (unsigned char) c);
    if (c < 0x800) {
        hash = hash_byte(hash, (unsigned char) (0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            hash = hash_byte(hash, (unsigned char) (0xe0 | c >> 12));
        } else {
            hash = hash_byte(hash, (unsigned char) (0xf0 | c >> 18));
            hash = hash_byte(hash, (unsigned char) (0x80 | (c >> 12 & 0x3f)));
        }
        hash = hash_byte(hash, (unsigned char) (0x80 | (c >> 6 & 0x3f)));
    }
    return hash_byte(hash, (unsigned char) (0x80 | (c & 0x3f)));
}

/* The four digits after \u. */
static bool scan_hex4(struct scanner *s, uint32_t *ret)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(s);
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t) (c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t) (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t) (c - 'A' + 10);
        else
            return fault(s, "bad escape in a string");
        value = value << 4 | digit;
        s->at++;
    }
    *ret = value;
    return true;
}

static bool scan_unicode_escape(struct scanner *s, uint32_t *ret)
{
    size_t start = s->at - 2;
    uint32_t c;
    if (!scan_hex4(s, &c))
        return false;
    if (c >= 0xd800 && c < 0xdc00 && s->len - s->at >= 2 && s->text[s->at] == '\\' &&
        s->text[s->at + 1] == 'u') {
        s->at += 2;
        uint32_t low;
        if (!scan_hex4(s, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c >= 0xd800 && c < 0xe000) {
        s->at = start;
        return fault(s, "half a surrogate pair in a string");
    }
    if (c == 0) {
        s->at = start;
        return fault(s, "U+0000 in a string");
    }
    *ret = c;
    return true;
}

/* Behind a backslash. */
static bool scan_escape(struct scanner *s, uint32_t *ret)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";

    int c = peek(s);
    if (c == 'u') {
        s->at++;
        return scan_unicode_escape(s, ret);
    }
    const char *letter = c > 0 ? strchr(letters, c) : NULL;
    if (letter == NULL)
        return fault(s, "bad escape in a string");
    *ret = (unsigned char) meanings[letter - letters];
    s->at++;
    return true;
}

static bool scan_string(struct scanner *s, uint64_t *ret_hash)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    s->at++;
    for (;;) {
        int c = peek(s);
        if (c < 0)
            return fault(s, "unexpected end");
        if (c == '"')
            break;
        if (c < 0x20)
            return fault(s, "control character in a string");
        if (c == '\\') {
            s->at++;
            uint32_t code_point;
            if (!scan_escape(s, &code_point))
                return false;
            hash = hash_code_point(hash, code_point);
            continue;
        }
        size_t n = json_utf8_length(s->text + s->at, s->len - s->at);
        if (n == 0)
            return fault(s, "not UTF-8");
        for (; n > 0; n--)
            hash = hash_byte(hash, (unsigned char) s->text[s->at++]);
    }
    s->at++;
    *ret_hash = hash;
    return true;
}

/* --- Numbers and words --- */

static bool scan_digits(struct scanner *s)
{
    size_t start = s->at;
    int c;
    while ((c = peek(s)) >= '0' && c <= '9')
        s->at++;
    return s->at > start || unexpected(s);
}

static bool scan_number(struct scanner *s)
{
    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (!scan_digits(s))
        return false;
    if (peek(s) == '.') {
        s->at++;
        if (!scan_digits(s))
            return false;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (!scan_digits(s))
            return false;
    }
    return true;
}

static bool scan_word(struct scanner *s, const char *word)
{
    for (; *word != '\0'; word++, s->at++)
        if (peek(s) != (unsigned char) *word)
            return unexpected(s);
    return true;
}

/* --- Objects and arrays --- */

static bool push_name(struct scanner *s, uint64_t hash, size_t offset)
{
    if (s->n_names == s->names_size) {
        size_t size = s->names_size * 2;
        struct name *names = reallocarray(NULL, size, sizeof(*names));
        if (names == NULL) {
            s->no_memory = true;
            return fault(s, "out of memory");
        }
        memcpy(names, s->names, s->n_names * sizeof(*names));
        if (s->names != s->first_names)
            free(s->names);
        s->names = names;
        s->names_size = size;
    }
    s->names[s->n_names++] = (struct name){ .hash = hash, .offset = offset };
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct name *x = a;
    const struct name *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorted, since a megabyte of text may hold a hundred thousand members. */
static bool check_names(struct scanner *s, size_t first)
{
    size_t n = s->n_names - first;
    struct name *names = s->names + first;
    size_t repeated = SIZE_MAX;

    s->n_names = first;
    if (n < 2)
        return true;
    qsort(names, n, sizeof(*names), compare_names);
    for (size_t i = 1; i < n; i++)
        if (names[i].hash == names[i - 1].hash && names[i].offset < repeated)
            repeated = names[i].offset;
    if (repeated == SIZE_MAX)
        return true;
    s->at = repeated;
    return fault(s, "repeated member");
}

static bool scan_member(struct scanner *s)
{
    size_t offset = s->at;
    uint64_t hash;
    if (peek(s) != '"')
        return unexpected(s);
    if (!scan_string(s, &hash) || !push_name(s, hash, offset))
        return false;
    skip_blanks(s);
    if (peek(s) != ':')
        return unexpected(s);
    s->at++;
    return scan_value(s);
}

/* An object or an array, from its opening to its closing bracket. */
static bool scan_container(struct scanner *s, bool object)
{
    int close = object ? '}' : ']';
    size_t first_name = s->n_names;

    if (s->depth == JSON_MAX_DEPTH)
        return fault(s, "too deeply nested");
    s->depth++;
    s->at++;
    skip_blanks(s);
    if (peek(s) != close) {
        for (;;) {
            if (!(object ? scan_member(s) : scan_value(s)))
                return false;
            if (peek(s) != ',')
                break;
            s->at++;
            skip_blanks(s);
        }
        if (peek(s) != close)
            return unexpected(s);
    }
    s->at++;
    s->depth--;
    return check_names(s, first_name);
}

/* With the blanks around it. */
static bool scan_value(struct scanner *s)
{
    uint64_t hash;
    bool good;

    skip_blanks(s);
    switch (peek(s)) {
    case '{':
        good = scan_container(s, true);
        break;
    case '[':
        good = scan_container(s, false);
        break;
    case '"':
        good = scan_string(s, &hash);
        break;
    case 't':
        good = scan_word(s, "true");
        break;
    case 'f':
        good = scan_word(s, "false");
        break;
    case 'n':
        good = scan_word(s, "null");
        break;
    default:
        good = scan_number(s);
        break;
    }
    if (good)
        skip_blanks(s);
    return good;
}

int json_check(const char *text, size_t len, struct json_fault *reterr_fault)
{
    struct scanner s = { .text = text, .len = len, .names_size = NAMES_ON_STACK };
    s.names = s.first_names;

    bool good = scan_value(&s);
    if (good && s.at < s.len)
        good = fault(&s, "text after the value");
    if (s.names != s.first_names)
        free(s.names);
    if (good)
        return 0;
    if (reterr_fault != NULL)
        *reterr_fault = (struct json_fault){ .what = s.what, .offset = s.at };
    return s.no_memory ? -ENOMEM : -EINVAL;
}

int json_parse(const char *text, size_t len, struct json_object **ret,
               struct json_fault *reterr_fault)
{
    if (len > INT_MAX / 2) {
        if (reterr_fault != NULL)
            *reterr_fault = (struct json_fault){ .what = "too long", .offset = INT_MAX / 2 };
        return -EINVAL;
    }
    int r = json_check(text, len, reterr_fault);
    return r == 0 ? json_tree_build(text, len, ret) : r;
}

const char *json_get_string(struct json_object *object, const char *member)
{
    struct json_object *value;
    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, member, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}

/* --- Writing --- */

size_t json_utf8_length(const char *s, size_t len)
{
    if (len == 0)
        return 0;
    const unsigned char *u = (const unsigned char *) s;
    unsigned char lead = u[0];
    if (lead < 0x80)
        return 1;

    size_t n;
    unsigned char low = 0x80;  /* bounds of the second byte: nothing overlong, no surrogates, */
    unsigned char high = 0xbf; /* nothing above U+10FFFF */
    if (lead >= 0xc2 && lead <= 0xdf) {
        n = 2;
    } else if ((lead & 0xf0) == 0xe0) {
        n = 3;
        low = lead == 0xe0 ? 0xa0 : low;
        high = lead == 0xed ? 0x9f : high;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        n = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (len < n || u[1] < low || u[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool json_is_control(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *) s;
    if (n == 1)
        return u[0] < 0x20 || u[0] == 0x7f;
    if (n == 2)
        return u[0] == 0xc2 && u[1] < 0xa0;
    return n == 3 && u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9);
}

static bool needs_escape(const char *s, size_t n)
{
    return json_is_control(s, n) || s[0] == '"' || s[0] == '\\';
}

static int append_escaped(struct buf *b, const unsigned char *s, size_t n)
{
    static const char letters[] = "\"\\\b\f\n\r\t";
    static const char escapes[] = "\"\\bfnrt";

    const char *letter = s[0] != '\0' ? strchr(letters, s[0]) : NULL;
    if (n == 1 && letter != NULL) {
        char pair[2] = { '\\', escapes[letter - letters] };
        return buf_append(b, pair, 2);
    }
    unsigned c = s[0];
    if (n == 2)
        c = (s[0] & 0x1fU) << 6 | (s[1] & 0x3fU);
    else if (n == 3)
        c = (s[0] & 0x0fU) << 12 | (s[1] & 0x3fU) << 6 | (s[2] & 0x3fU);
    return buf_printf(b, "\\u%04x", c);
}

static int append_text(struct buf *b, const char *s, size_t len)
{
    size_t plain = 0; /* start of the bytes that can be copied as they are */
    int r = 0;

    for (size_t i = 0; i < len && r == 0;) {
        size_t n = json_utf8_length(s + i, len - i);
        const unsigned char *u = (const unsigned char *) s + i;
        if (n > 0 && !needs_escape(s + i, n)) {
            i += n;
            continue;
        }
        r = buf_append(b, s + plain, i - plain);
        if (r == 0)
            r = n > 0 ? append_escaped(b, u, n) : buf_append_str(b, "\xef\xbf\xbd");
        i += n > 0 ? n : 1;
        plain = i;
    }
    return r < 0 ? r : buf_append(b, s + plain, len - plain);
}

int json_append_string(struct buf *b, const char *s, size_t len)
{
    size_t before = b->len;
    int r = buf_append_char(b, '"');
    if (r == 0)
        r = append_text(b, s, len);
    if (r == 0)
        r = buf_append_char(b, '"');
    if (r < 0)
        b->len = before;
    return r;
}

int json_append_cstr(struct buf *b, const char *s)
{
    return s == NULL ? buf_append_str(b, "null") : json_append_string(b, s, strlen(s));
}
