/* subscribe: a client is told each outcome from now on. Private to the socket's files; see
 * control_core.h.
 *
 * What a client does not read in time is not kept for it, only counted: once it has caught up, it is
 * told how many it missed. */
#ifndef PULSE_INTAKE_SUBSCRIBE_H
#define PULSE_INTAKE_SUBSCRIBE_H

#include <json-c/json.h>

#include "intake/call.h"
#include "queue/queue.h"

struct client;
struct control;

void subscribe_run(struct call *call, struct json_object *params);

/* An outcome for all subscribers. May close any client. */
void subscribe_settled(struct control *c, const struct queue_settled *settled);

/* Some of what was to be sent is gone: says what was missed, if there is room again. */
void subscribe_drained(struct client *client);

/* The client is told nothing more. */
void subscribe_end(struct client *client);

#endif
