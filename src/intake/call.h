/* One call of a client, from its reading to its answer.
 *
 * Whoever runs a call ends it by call_result() or call_error(), now or later; after that it is
 * gone. Its client may vanish before: the call then ends in silence. Private to the socket's files;
 * see control_core.h. */
#ifndef PULSE_INTAKE_CALL_H
#define PULSE_INTAKE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "intake/rpc.h"

struct client;
struct control;

enum call_form {
    CALL_SILENT, /* a notification, or nobody listens any more */
    CALL_SINGLE,
    CALL_BATCH,
    CALL_LINE, /* a bare line: answered in the order of the lines */
};

/* The answer to a batch: sent when all its calls are answered. */
struct batch {
    struct buf text;
    size_t n_open;
    bool complete; /* all its calls have been begun */
};

/* How much a call counts towards the limits. */
struct call_load {
    unsigned weight;   /* towards the client's unanswered calls */
    size_t n_requests; /* in a put that is under way */
    size_t n_waits;    /* outcomes that are waited for */
};

struct call {
    struct control *control;
    struct client *client; /* NULL once it has gone */
    enum call_form form;
    char *id;            /* JSON text */
    struct batch *batch; /* BATCH */
    struct buf text;     /* LINE: the answer, until its turn */
    bool ready;          /* LINE: `text` is all of it */
    LIST_ENTRY(call) link;
    TAILQ_ENTRY(call) line_link;
    struct call_load load;
    size_t held; /* bytes of the client's held_texts that are this call's */
    /* While set, nobody needs the call but its client: when that goes, `abandon` frees what runs
     * the call, but not the call. */
    void (*abandon)(void *owner);
    void *owner;
};
LIST_HEAD(call_list, call);
TAILQ_HEAD(call_line_list, call);

/* NULL when out of memory. `id` is JSON text (NULL for LINE), `batch` only for BATCH. */
struct call *call_create(struct client *client, enum call_form form, const char *id,
                         struct batch *batch);

void call_set_load(struct call *call, struct call_load load);

/* `bytes` of its answer are kept until the rest is there. */
void call_hold(struct call *call, size_t bytes);

/* `result` is JSON text. */
void call_result(struct call *call, const char *result, size_t len);
void call_error(struct call *call, enum rpc_error code, const char *message);

/* The client no longer listens to the call, which may thereby end. */
void call_silence(struct call *call);

/* The client goes. The call was silenced and goes on. */
void call_orphan(struct call *call);

/* For the client's `batch` and `batch_next`: begins an answer, and says that all calls were begun.
 * batch_create() returns NULL when out of memory; batch_complete() may send or free the answer. */
struct batch *batch_create(void);
void batch_complete(struct client *client, struct batch *batch);

#endif
