/* Bytes to request: the request line of the spool directory, the socket and the client.
 *
 * Pure: a bare job ID, or {"job_id": "…", "request_id": "…", "deadline_s": 60}. */
#ifndef PULSE_MODEL_LINE_H
#define PULSE_MODEL_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "model/request.h"

struct line {
    char job_id[JOB_ID_MAX + 1];
    char request_id[REQUEST_ID_MAX + 1]; /* "" = none was given */
    int64_t deadline_s;                  /* 0 = none was given */
};

/* Parses one line without its newline and surrounding blanks. 0, or -EINVAL with a sentence for
 * the sender in `reterr` (it names the member; control characters of the input never reach it), or
 * -ENOMEM, which says nothing about the line. */
int line_parse(const char *text, size_t len, struct line *ret, struct buf *reterr);

/* The same from the members of an object; `wait` is allowed too and stored when ret_wait is given
 * (else an unknown member). For JSON-RPC params. */
int line_from_object(struct json_object *object, struct line *ret, bool *ret_wait,
                     struct buf *reterr);

/* Cuts a trailing CR, blanks and tabs at both ends. */
void line_trim(const char **text, size_t *len);

#endif
