/* The tree of a JSON text: the second half of json_parse(). */
#ifndef PULSE_BASE_JSON_TREE_H
#define PULSE_BASE_JSON_TREE_H

#include <stddef.h>

#include <json-c/json.h>

/* Of text that json_check() has accepted, and of no other. 0 or -ENOMEM. The caller puts *ret with
 * json_object_put(); it is NULL for the text `null`. */
int json_tree_build(const char *text, size_t len, struct json_object **ret);

#endif
