/* One member of a JSON object that may be cut short, without building a tree: for bodies of which only
 * the beginning is read, and of which most does not matter. */
#ifndef PULSE_BASE_JSON_PEEK_H
#define PULSE_BASE_JSON_PEEK_H

#include <stddef.h>

/* The string that the object at the beginning of `text` has as `member`, at its top level; the caller
 * frees it. 0; -ENOENT when there is none as far as the text goes, or it is no string; -EINVAL when
 * the text is no object, or has the member twice; -ENOMEM. What comes after the member is looked
 * through only for a second one. */
int json_peek_string(const char *text, size_t len, const char *member, char **ret);

#endif
