/* JSON-RPC calls to the daemon, and what their answers mean. */
#ifndef PULSE_CTL_CALL_H
#define PULSE_CTL_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "base/buf.h"
#include "ctl/command.h"
#include "ctl/connection.h"

/* The daemon's error codes that more than one command has to know. */
enum {
    CALL_PARAMS = -32602,
    CALL_METHOD = -32601,
    CALL_QUEUE_FULL = -32001,
    CALL_SHUTTING_DOWN = -32004,
};

/* Quick ones answer from memory; others may read the whole database. */
#define CALL_QUICK_MS 10000
#define CALL_SLOW_MS 120000

/* One line of the daemon's. Text points into that line: valid as long as it is. */
struct answer {
    struct json_object *root;
    int64_t id;                 /* -1 = none, or none of ours */
    struct json_object *result; /* of `root`, as are the next two; NULL = none */
    struct json_object *error;
    struct json_object *params; /* of a notification */
    const char *method;         /* of a notification */
    const char *text;           /* of the result, the error or the params, as it came */
    size_t text_len;
};

/* 0, -EINVAL when it is no such line, -ENOMEM. answer_finish() frees. */
int answer_parse(const char *line, size_t len, struct answer *ret);
void answer_finish(struct answer *a);
int64_t answer_error_code(const struct answer *a);

/* {"jsonrpc":"2.0","id":ID,"method":METHOD,"params":PARAMS}; PARAMS is JSON text, NULL = none. */
int call_append(struct buf *b, int64_t id, const char *method, const char *params);

/* {"NAME":"VALUE"}, for params; VALUE NULL = {}. */
int call_append_param(struct buf *b, const char *name, const char *value);

/* Calls, and waits for the answer. CTL_OK with an answer that has a result; otherwise what is wrong
 * was said, and is the exit status. The answer is valid until the connection's next use. */
enum ctl_exit call_run(const struct invocation *inv, struct connection *c, const char *method,
                       const char *params, int timeout_ms, struct answer *ret);

/* Connects or says why not. */
enum ctl_exit call_connect(const struct invocation *inv, struct connection *c);

/* Says what the daemon refused, and what to do about it; `what` (may be NULL) was asked. With
 * --json, standard output gets the error as well. Always CTL_REFUSED. */
enum ctl_exit call_refused(const struct invocation *inv, const struct answer *a, const char *what);

/* For --json: the text of the result, and a newline. */
void call_print_json(const struct answer *a);

/* The commonest command: a connection, a call, its answer. `show` prints the result. */
enum ctl_exit call_once(const struct invocation *inv, const char *method, const char *params,
                        int timeout_ms,
                        void (*show)(const struct invocation *inv, struct json_object *result));

#endif
