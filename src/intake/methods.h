/* The methods that clients call, one row of a table each. Private to the socket's files; see
 * control_core.h. */
#ifndef PULSE_INTAKE_METHODS_H
#define PULSE_INTAKE_METHODS_H

#include <stdbool.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "intake/call.h"
#include "intake/control_core.h"
#include "model/line.h"

/* Such a call reads the database on a thread of the pool, perhaps a thousand rows: a client gets few
 * at a time. */
#define METHODS_READ_WEIGHT 32

/* Runs the method of that name. `params` is NULL or an object; both are borrowed until the return.
 * Takes the call. */
void methods_run(struct call *call, const char *name, struct json_object *params);

/* Runs a bare request line: a cancel. */
void methods_run_line(struct call *call, const struct line *line);

/* Of the request as the database has it, what dispatch knows better. */
enum request_state methods_state(const struct control *c, const struct request *req,
                                 int64_t leader_seq);

/* The start of the object that answers for an accepted request: {"request_id":…,"job_id":…, up to
 * where the next member's comma goes. */
int methods_append_accepted(struct buf *b, const struct request *req);

/* The error for what a function of the queue returned. Ends the call. */
void methods_refuse(struct call *call, int r);

/* Both end the call and return true when they refuse it: params where none are taken, and what can't
 * be kept because of storage trouble. */
bool methods_refuse_params(struct call *call, struct json_object *params);
bool methods_refuse_in_trouble(struct call *call);

#endif
