/* A client's line to calls: a request line, a JSON-RPC call, or a batch. Private to the socket's
 * files; see control_core.h. */
#ifndef PULSE_INTAKE_MESSAGE_H
#define PULSE_INTAKE_MESSAGE_H

#include <stddef.h>

#include "intake/client.h"
#include "intake/rpc.h"

/* Runs a line. A batch is only opened; the line must then stay where it is until its calls were
 * run. */
void message_run(struct client *client, const char *line, size_t len);

/* Runs the next call of the batch that is open. */
void message_run_batch(struct client *client);

/* Answers a line that can't be run with an error, in the form that it looks like. */
void message_refuse(struct client *client, const char *line, size_t len, enum rpc_error code,
                    const char *message);

#endif
