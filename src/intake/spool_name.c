/* Names in the spool directory. Pure, any thread. */
#include "intake/spool_name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define UUID_LEN (UUID_TEXT_MAX - 1)
#define MARK_CONTENT '-'
#define MARK_EMPTY '+'

static bool ends_with(const char *name, size_t len, const char *end)
{
    size_t end_len = strlen(end);
    return len >= end_len && memcmp(name + len - end_len, end, end_len) == 0;
}

bool spool_name_ignored(const char *name)
{
    if (name[0] == '.' || name[0] == '\0' || strcmp(name, REJECTED_DIRECTORY) == 0)
        return true;
    size_t len = strlen(name);
    return ends_with(name, len, ".tmp") || ends_with(name, len, ".part") ||
           ends_with(name, len, ".swp") || ends_with(name, len, "~");
}

uint64_t spool_name_hash(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char) *name) * UINT64_C(0x100000001b3);
    return h != 0 ? h : 1;
}

bool claim_name_format(char ret[static NAME_MAX + 1], const char *uuid, bool was_empty,
                       const char *name)
{
    char mark = was_empty ? MARK_EMPTY : MARK_CONTENT;
    int len = snprintf(ret, NAME_MAX + 1, "%s%c%s", uuid, mark, name);
    if (len <= NAME_MAX)
        return true;
    (void) snprintf(ret, NAME_MAX + 1, "%s%s", uuid, was_empty ? "+" : "");
    return false;
}

static bool is_uuid(const char *text)
{
    for (size_t i = 0; i < UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (text[i] == '\0' || strchr(dash ? "-" : "0123456789abcdef", text[i]) == NULL)
            return false;
    }
    return true;
}

int claim_name_parse(const char *text, struct claim_name *ret)
{
    if (!is_uuid(text))
        return -EINVAL;
    char mark = text[UUID_LEN];
    if (mark != '\0' && mark != MARK_CONTENT && mark != MARK_EMPTY)
        return -EINVAL;
    const char *name = mark != '\0' ? text + UUID_LEN + 1 : "";
    if (mark == MARK_CONTENT && name[0] == '\0')
        return -EINVAL;

    *ret = (struct claim_name){
        .was_empty = mark == MARK_EMPTY,
        .name = name[0] != '\0' ? name : NULL,
    };
    memcpy(ret->uuid, text, UUID_LEN);
    return 0;
}

void reject_name_format(char ret[static NAME_MAX + 1], const char *name, const char *uuid,
                        unsigned attempt)
{
    char suffix[UUID_TEXT_MAX + 1] = "";
    if (attempt == REJECT_NAME_ATTEMPTS - 1)
        (void) snprintf(suffix, sizeof(suffix), ".%s", uuid);
    else if (attempt > 0)
        (void) snprintf(suffix, sizeof(suffix), ".%u", attempt % 10);

    size_t len = strlen(name);
    size_t room = NAME_MAX - strlen(suffix) - strlen(REASON_SUFFIX);
    if (len > room) {
        len = room;
        /* Not inside a UTF-8 sequence. */
        while (len > 1 && ((unsigned char) name[len] & 0xc0) == 0x80)
            len--;
    }
    (void) snprintf(ret, NAME_MAX + 1, "%.*s%s", (int) len, name, suffix);
}
