/* A request to cancel one job: what is kept of it, and its state machine.
 *
 * One owner at a time: intake makes it, the queue takes it, dispatch holds it, the queue takes the
 * settlement and frees it. Others hold its `seq` or `request_id`, never a pointer. */
#ifndef PULSE_MODEL_REQUEST_H
#define PULSE_MODEL_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "base/heap.h"

#define JOB_ID_MAX 255
#define REQUEST_ID_MAX 128
#define DEADLINE_S_MAX 2592000
/* Text kept from a server is cut at this many bytes. */
#define REQUEST_TEXT_MAX 4096

enum source { SOURCE_SPOOL, SOURCE_SOCKET, SOURCE_NATS };

enum endpoint { ENDPOINT_NONE, ENDPOINT_CANCEL, ENDPOINT_JOB };

enum outcome {
    OUTCOME_CANCELLED,
    OUTCOME_TOO_LATE,
    OUTCOME_NOT_FOUND,
    OUTCOME_UNAUTHORIZED,
    OUTCOME_FORBIDDEN,
    OUTCOME_REJECTED,
    OUTCOME_FAILED,
    OUTCOME_EXPIRED,
    OUTCOME_INVALID,
    OUTCOME_WITHDRAWN,
};
#define OUTCOME_COUNT (OUTCOME_WITHDRAWN + 1)

enum request_state { REQUEST_QUEUED, REQUEST_IN_FLIGHT, REQUEST_WAITING, REQUEST_DONE };
#define REQUEST_STATE_COUNT (REQUEST_DONE + 1)

/* What the next step depends on besides the last reply; of the whole chain. */
struct trail {
    bool doubtful; /* an attempt may have taken effect without our knowing */
    bool
        believed; /* the last reply was a 200 that is believed, and only the job's status is wanted */
    bool ask;     /* ask for the job's status before the next attempt */
    bool final;   /* `ask`: http_status is the outcome if the job's status decides nothing */
    unsigned server_errors; /* consecutive replies 500 */
};

struct request {
    /* Set when the request is made. The strings belong to the request. */
    char *request_id;
    char *job_id; /* for OUTCOME_INVALID the offending line, any bytes */
    char *origin; /* file name (any bytes), or "uid=N pid=N" */
    enum source source;
    int64_t accepted_at_ms; /* steady UTC, as are all times here */
    int64_t deadline_at_ms;

    /* Given by the queue. */
    int64_t seq;   /* order of acceptance; 0 before the commit */
    int64_t chain; /* seq of the request that began the chain of attempts it belongs to */
    bool follows;  /* another request of the chain leads */

    /* What has become of it so far. */
    enum request_state state;
    unsigned attempts;       /* counted ones since acceptance */
    unsigned chain_attempts; /* counted ones of the whole chain */
    int64_t due_at_ms;       /* next attempt; 0 when it is not waiting */
    struct trail trail;
    int http_status;        /* of the last reply; 0 = none yet */
    enum endpoint endpoint; /* of the last counted attempt */
    char *job_status;       /* what GET /job said last; NULL = never asked */
    char *message;          /* NULL = none */
    char *error_code;       /* of the last failure; NULL = none */
    char *error_message;

    /* The outcome, once state is REQUEST_DONE. */
    int64_t n;
    int64_t done_at_ms;
    enum outcome outcome;
    char *coalesced_with; /* NULL = it led at the end */

    /* In memory only; dispatch's. */
    unsigned connect_failures; /* consecutive; of asking for its status, too */
    struct heap_node wake;
    TAILQ_ENTRY(request) link;
};
TAILQ_HEAD(request_list, request);

/* Copies the strings. `job_id_len` because an offending line may contain anything (its NUL bytes
 * become '?'). NULL when out of memory. */
struct request *request_create(enum source source, const char *request_id, const char *job_id,
                               size_t job_id_len, const char *origin, int64_t accepted_at_ms,
                               int64_t deadline_at_ms);
void request_destroy(struct request *req);

/* Attempts of its chain before it joined. */
unsigned request_base(const struct request *req);

/* Gives a follower the attempts of its leader, and what has come of those that were made since it
 * joined; `whole`: what has come of all, since it ends with the leader. 0 or -ENOMEM. */
int request_inherit(struct request *req, const struct request *leader, bool whole);

/* Replaces a string of the request by a copy of `text` (NULL = none), cut at REQUEST_TEXT_MAX
 * bytes but not inside a UTF-8 sequence. 0 or -ENOMEM. */
int request_set_text(char **field, const char *text);

/* The only place where a state changes. Aborts on a transition that the table does not have. */
void request_set_state(struct request *req, enum request_state state);
bool request_may_become(enum request_state from, enum request_state to);

/* 1 to 255 bytes of A-Z a-z 0-9 . _ ~ : -, and neither "." nor "..". */
bool job_id_valid(const char *s, size_t len);
/* 1 to 128 bytes of A-Z a-z 0-9 . _ : - */
bool request_id_valid(const char *s, size_t len);

/* The result line of a REQUEST_DONE request, one JSON object without the newline. */
int request_append_result(struct buf *b, const struct request *req);

/* The item that `status` and `list` show: the above plus "state":"done" once done. `state` is
 * passed in, for whether a request is in flight only dispatch knows. */
int request_append_item(struct buf *b, const struct request *req, enum request_state state);

/* Their names in the contract. The *_from_name functions return -EINVAL for an unknown one. */
const char *source_name(enum source source);
const char *outcome_name(enum outcome outcome);
const char *endpoint_name(enum endpoint endpoint); /* NULL for ENDPOINT_NONE */
const char *request_state_name(enum request_state state);
int outcome_from_name(const char *name);
int request_state_from_name(const char *name);

#endif
