/* JSON-RPC 2.0: bytes to calls, and results to answers. Pure, knows no socket.
 *
 * https://www.jsonrpc.org/specification */
#ifndef PULSE_INTAKE_RPC_H
#define PULSE_INTAKE_RPC_H

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

#include "base/buf.h"

enum rpc_error {
    RPC_PARSE = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD = -32601,
    RPC_PARAMS = -32602,
    RPC_INTERNAL = -32603,
    RPC_QUEUE_FULL = -32001,
    RPC_STORAGE_UNAVAILABLE = -32002,
    RPC_PERMISSION_DENIED = -32003,
    RPC_SHUTTING_DOWN = -32004,
    RPC_TOO_MANY_CLIENTS = -32005,
    RPC_BAD_CONFIGURATION = -32006,
};

/* What a line from a client is. */
enum rpc_form {
    RPC_FORM_LINE,   /* a request line: a bare job ID or an object without "jsonrpc" */
    RPC_FORM_SINGLE, /* a JSON-RPC object */
    RPC_FORM_BATCH,  /* a JSON-RPC array, perhaps empty */
    RPC_FORM_BROKEN, /* starts as JSON, is none */
};

/* *ret_root is the parsed object or array for SINGLE and BATCH (put it with json_object_put()),
 * else NULL. For BROKEN `reterr` says what is wrong. -ENOMEM is the only error. */
int rpc_classify(const char *text, size_t len, enum rpc_form *ret_form,
                 struct json_object **ret_root, struct buf *reterr);

/* An id comes back as it was, up to so many bytes of JSON text; numbers within 64 bits. */
#define RPC_ID_MAX 1024

/* One call. Strings and objects are borrowed from the root. */
struct rpc_call {
    const char *method;
    struct json_object *params; /* an object, or NULL when absent */
    char id[RPC_ID_MAX + 1];    /* the id as JSON text; "null" when unknown */
    bool notification;          /* no id: never answered */
};

/* 0, or an rpc_error with a sentence in `reterr`; `ret` then holds the id as far as it could be
 * read. What is no valid request is no notification either, and is answered; only for RPC_PARAMS
 * (params as an array: all are by name) may `notification` be true, and then it is not. */
int rpc_read_call(struct json_object *value, struct rpc_call *ret, struct buf *reterr);

/* {"jsonrpc":"2.0","result":RESULT,"id":ID}, without newline. `result` is JSON text. */
int rpc_append_result(struct buf *b, const char *id, const char *result, size_t len);

/* {"jsonrpc":"2.0","error":{…},"id":ID}. `data` (what to do about it) is added for -32001 to -32006
 * by itself, and so is the error's word before the `message` ("queue_full: …") unless the message
 * starts with it. NULL stands for the word alone. */
int rpc_append_error(struct buf *b, const char *id, enum rpc_error code, const char *message);

/* {"error":{…}}, the answer to a request line. */
int rpc_append_line_error(struct buf *b, enum rpc_error code, const char *message);

/* {"jsonrpc":"2.0","method":METHOD,"params":PARAMS}, a notification to the client. */
int rpc_append_notification(struct buf *b, const char *method, const char *params, size_t len);

#endif
