/* What a reply to a cancel request means. Pure. */
#ifndef PULSE_POLICY_VERDICT_H
#define PULSE_POLICY_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/request.h"

/* How the exchange went below HTTP. */
enum transport {
    TRANSPORT_OK,     /* a whole reply came */
    TRANSPORT_FAILED, /* resolve, connect, reset, truncated or oversized body, no HTTP */
    TRANSPORT_TIMEOUT,
    TRANSPORT_TLS, /* the certificate does not verify, or no TLS at all */
};

/* What came back. The texts are borrowed for the call. */
struct reply {
    enum transport transport;
    bool sent;           /* the request went out, at least in part */
    bool resent;         /* twice: its kept connection ended before the first byte of a reply */
    const char *trouble; /* transport other than OK: what curl says */
    int status;          /* HTTP; 0 when there was none */
    const char *body;
    size_t body_len;
    bool truncated;         /* the body is longer; these are its first bytes. Transport FAILED */
    const char *api_key;    /* it was sent with this one, which is masked in texts; "" = none */
    int64_t retry_after_ms; /* Retry-After as a delay; 0 = none */
    /* Headers as they came (RFC 9745, RFC 8594); NULL = none. */
    const char *deprecation;
    const char *sunset;
};

enum verdict { VERDICT_DONE, VERDICT_RETRY };

enum reply_kind {
    REPLY_NONE,       /* the request did not go out */
    REPLY_LOST,       /* it did, at least in part, and no whole reply came */
    REPLY_BELIEVED,   /* a 200 that names our job */
    REPLY_UNBELIEVED, /* any other 2xx */
    REPLY_REFUSED,    /* any other status */
};

struct judgement {
    enum reply_kind kind;
    enum verdict verdict;
    bool counts;    /* as an attempt */
    bool envelope;  /* REFUSED: with the server's error envelope */
    bool names_job; /* a 2xx whose body names our job */
    enum outcome outcome;
    int http_status; /* 0 when no reply came */
    /* NULL = none; freed by judgement_finish(). */
    char *message;
    char *error_code;
    char *error_message;
};

/* 0 or -ENOMEM. */
int verdict_judge(const struct reply *reply, const char *job_id, struct judgement *ret);
void judgement_finish(struct judgement *j);

/* What a status other than 2xx means: VERDICT_DONE with the outcome, or VERDICT_RETRY. */
enum verdict verdict_of_status(int status, enum outcome *ret_outcome);

/* Whether the body is the server's error envelope, {"error": {"code": string, "message": string}}. */
bool verdict_has_envelope(const struct reply *reply);

/* Replaces each occurrence of `key` in place by asterisks. */
void verdict_mask(char *text, const char *key);

#endif
