/* Strict JSON: what is accepted, what is written, and a look at what is cut short. */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_peek.h"

/* json-c's own opinion, as strict as it gets. */
static struct json_object *strictly(const char *text, size_t len)
{
    struct json_tokener *t = json_tokener_new_ex(JSON_MAX_DEPTH + 2);
    json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *root = json_tokener_parse_ex(t, text, (int) len);
    if (json_tokener_get_error(t) == json_tokener_continue)
        root = json_tokener_parse_ex(t, " ", 1);
    bool good = json_tokener_get_error(t) == json_tokener_success;
    json_tokener_free(t);
    if (good)
        return root != NULL ? root : json_object_new_boolean(0);
    json_object_put(root);
    return NULL;
}

/* json-c's own parser makes the same tree: order of members, digits and all. */
static bool same_text(struct json_object *a, struct json_object *b)
{
    char *text = strdup(json_object_to_json_string_ext(a, JSON_C_TO_STRING_PLAIN));
    bool same = strcmp(text, json_object_to_json_string_ext(b, JSON_C_TO_STRING_PLAIN)) == 0;
    free(text);
    return same && json_object_equal(a, b);
}

/* Whatever is read is written as JSON that reads the same. */
static void check_round_trip(struct json_object *root)
{
    const char *text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN);
    struct json_object *again = NULL;
    CHECK_TEXT(json_parse(text, strlen(text), &again, NULL) == 0, text, strlen(text));
    CHECK_TEXT(json_object_equal(root, again), text, strlen(text));
    json_object_put(again);
}

/* As many as there are colons: json-c makes one of two that have the same name. */
static size_t count_members(struct json_object *value)
{
    size_t n = 0;
    if (json_object_is_type(value, json_type_array))
        for (size_t i = 0; i < json_object_array_length(value); i++)
            n += count_members(json_object_array_get_idx(value, i));
    if (!json_object_is_type(value, json_type_object))
        return n;
    json_object_object_foreach(value, name, member)
    {
        (void) name;
        n += 1 + count_members(member);
    }
    return n;
}

static size_t count_colons(const char *text, size_t len)
{
    size_t n = 0;
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        n += !quoted && text[i] == ':';
        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted && text[i] == '\\')
            i++;
    }
    return n;
}

static bool check_value(const char *text, size_t len)
{
    struct json_fault fault = { .what = NULL };
    int r = json_check(text, len, &fault);
    struct json_object *root = NULL;
    int parsed = json_parse(text, len, &root, NULL);
    CHECK(r == parsed);
    if (r == 0) {
        struct json_object *strict = strictly(text, len);
        CHECK_TEXT(strict != NULL, text, len);
        CHECK_TEXT(root == NULL || same_text(root, strict), text, len);
        json_object_put(strict);
        check_round_trip(root);
        CHECK_TEXT(count_members(root) == count_colons(text, len), text, len);
    } else {
        CHECK(r == -EINVAL && root == NULL);
        CHECK(fault.what != NULL && fault.offset <= len);
    }
    json_object_put(root);
    return r == 0;
}

/* Any bytes become a string that reads as what of them is UTF-8. NUL is never among them: what is
 * written comes from C strings. */
static void check_writing(char *text, size_t len)
{
    struct buf b;
    for (size_t i = 0; i < len; i++)
        text[i] = text[i] != '\0' ? text[i] : '?';
    buf_init(&b, 6 * len + 2);
    CHECK(json_append_string(&b, text, len) == 0);
    struct json_object *root = fuzz_check_json(b.data, b.len);
    CHECK(json_object_is_type(root, json_type_string));

    const char *read = json_object_get_string(root);
    size_t at = 0, end = (size_t) json_object_get_string_len(root);
    for (size_t i = 0; i < len;) {
        size_t n = json_utf8_length(text + i, len - i);
        const char *want = n > 0 ? text + i : "\xef\xbf\xbd";
        size_t want_len = n > 0 ? n : 3;
        CHECK(end - at >= want_len && memcmp(read + at, want, want_len) == 0);
        at += want_len;
        i += n > 0 ? n : 1;
    }
    CHECK(at == end);
    json_object_put(root);
    buf_finish(&b);
}

/* What the tree has as `status`, if the text is whole. */
static void check_peek_whole(const char *text, size_t len, int r, const char *found)
{
    struct json_object *root = NULL;
    if (json_parse(text, len, &root, NULL) < 0)
        return;
    const char *has = json_get_string(root, "status");
    if (!json_object_is_type(root, json_type_object))
        CHECK(r == -EINVAL);
    else if (r == 0)
        CHECK(has != NULL && strcmp(has, found) == 0);
    else if (has != NULL)
        CHECK(memmem(text, len, "\\u00", 4) != NULL); /* its name is spelt with escapes */
    json_object_put(root);
}

/* A text that is cut short says what the whole says, or less; a repeated member is only seen when
 * it is there. */
static void check_peek(const char *text, size_t len)
{
    char *whole = NULL;
    int r = json_peek_string(text, len, "status", &whole);
    CHECK(r == 0 || r == -ENOENT || r == -EINVAL);
    check_peek_whole(text, len, r, whole);
    for (size_t cut = len; cut-- > 0 && len - cut < 200;) {
        char *exact = fuzz_copy(text, cut), *part = NULL;
        int rc = json_peek_string(exact, cut, "status", &part);
        if (rc == 0)
            CHECK(r == -EINVAL || (r == 0 && strcmp(part, whole) == 0));
        free(part);
        free(exact);
    }
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy((const char *) data, size);
    if (check_value(text, size)) {
        /* Blanks around it change nothing, another value behind it does. */
        char *more = malloc(size + 3);
        memcpy(more + 1, text, size);
        more[0] = more[size + 1] = ' ';
        CHECK(json_check(more, size + 2, NULL) == 0);
        more[size + 2] = '0';
        CHECK(json_check(more, size + 3, NULL) == -EINVAL);
        free(more);
    }
    check_peek(text, size);
    check_writing(text, size);
    free(text);
    return 0;
}
