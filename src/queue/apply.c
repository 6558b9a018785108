/* What each operation does to the database and to the map of chains. Runs on the writer thread,
 * inside a transaction; after a rollback the map is read anew, and what is held is applied again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "queue/writer.h"

#define FILL_STEP 5000
#define FOLLOWERS_STEP 250
/* Followers settled in one transaction; more go on in the next, so that nobody waits long. */
#define FOLLOWERS_MAX 5000

/* --- The map of chains --- */

struct chain {
    int64_t id;
    bool joined; /* somebody follows, or did */
};

static uint64_t chain_key(const struct writer *w, const char *job_id, size_t len)
{
    return u64map_hash(w->hash_key, job_id, len);
}

static bool chain_get(const struct writer *w, const char *job_id, struct chain *ret)
{
    uint64_t value;
    if (!u64map_get(w->chains, chain_key(w, job_id, strlen(job_id)), &value))
        return false;
    *ret = (struct chain){ .id = (int64_t) (value >> 1), .joined = value & 1 };
    return true;
}

static int chain_put(struct writer *w, const char *job_id, size_t len, int64_t id, bool joined)
{
    uint64_t value = (uint64_t) id << 1 | (joined ? 1 : 0);
    return u64map_put(w->chains, chain_key(w, job_id, len), value);
}

/* Whether others may follow: the map knows, but not while it is being read, and not of a second chain
 * of one job, which a crash amid the settlement of a long chain may leave. */
static bool chain_may_be_joined(const struct writer *w, const struct request *req)
{
    struct chain chain;
    bool known = !w->filling && chain_get(w, req->job_id, &chain) && chain.id == req->chain;
    return !known || chain.joined;
}

/* Only when the entry is of this chain: a later request may have begun another. */
static void chain_remove(struct writer *w, const struct request *req)
{
    struct chain chain;
    if (chain_get(w, req->job_id, &chain) && chain.id == req->chain)
        u64map_remove(w->chains, chain_key(w, req->job_id, strlen(req->job_id)));
}

/* --- Outcomes --- */

/* The line of a settled request, for the log and for whoever watches. */
static int settled_add(struct writer *w, struct op *op, const struct request *req)
{
    size_t from = w->lines.len;
    if (!w->lines_broken) {
        int r = request_append_result(&w->lines, req);
        if (r == 0)
            r = buf_append_char(&w->lines, '\n');
        w->lines_broken = r < 0;
        if (w->lines_first == 0)
            w->lines_first = req->n;
    }

    struct op_settled *grown = op->settled;
    if ((op->n_settled & (op->n_settled - 1)) == 0) { /* full at each power of two */
        size_t size = op->n_settled > 0 ? op->n_settled * 2 : 1;
        grown = realloc(op->settled, size * sizeof(*grown));
        if (grown == NULL)
            return -ENOMEM;
        op->settled = grown;
    }
    struct op_settled *s = &grown[op->n_settled];
    *s = (struct op_settled){
        .seq = req->seq,
        .n = req->n,
        .request_id = strdup(req->request_id),
        .job_id = strdup(req->job_id),
        .outcome = req->outcome,
    };
    op->n_settled++;
    if (s->request_id == NULL || s->job_id == NULL)
        return -ENOMEM;

    bool watched = u64map_get(w->watched, u64map_mix((uint64_t) req->seq), NULL);
    if (!watched && !w->all_watched)
        return 0;
    if (!w->lines_broken) {
        s->line_len = w->lines.len - from - 1;
        s->line = malloc(s->line_len + 1);
        if (s->line == NULL)
            return -ENOMEM;
        memcpy(s->line, w->lines.data + from, s->line_len);
        s->line[s->line_len] = '\0';
        return 0;
    }
    struct buf b;
    buf_init(&b, 1 << 20);
    int r = request_append_result(&b, req);
    s->line = buf_steal(&b, &s->line_len);
    return r;
}

/* Gives `n` and writes the outcome. *ret_anew is false when it had ended with its chain before. */
static int settle_one(struct writer *w, struct op *op, struct request *req, bool *ret_anew)
{
    if (req->state != REQUEST_DONE)
        request_set_state(req, REQUEST_DONE);
    /* The clock may have been set back between two lives of the daemon, and nothing ends before it
     * has come. */
    if (req->done_at_ms < req->accepted_at_ms)
        req->done_at_ms = req->accepted_at_ms;
    req->n = w->last_n + 1;
    int r = store_settle(w->store, req, ret_anew);
    if (r < 0 || !*ret_anew)
        return r;
    w->last_n++;
    w->count--;
    return settled_add(w, op, req);
}

/* The outcome of the leader becomes a follower's. */
static int settle_follower(struct writer *w, struct op *op, struct request *follower,
                           const struct request *leader)
{
    follower->outcome = leader->outcome;
    follower->done_at_ms = leader->done_at_ms;
    int r = request_inherit(follower, leader, true);
    if (r == 0)
        r = request_set_text(&follower->coalesced_with, leader->request_id);
    bool anew = false;
    return r == 0 ? settle_one(w, op, follower, &anew) : r;
}

/* --- The next one in a chain --- */

/* The oldest follower takes over what its leader has come to. -ENOENT when there is none. */
static int promote_next(struct writer *w, const struct request *leader, struct request **ret)
{
    struct request *next = NULL;
    size_t n = 0;
    int r = store_fetch_followers(w->store, leader->chain, 1, &next, &n);
    if (r < 0)
        return r;
    if (n == 0)
        return -ENOENT;

    next->follows = false;
    next->due_at_ms = leader->due_at_ms;
    if (next->due_at_ms != 0)
        request_set_state(next, REQUEST_WAITING);
    r = request_inherit(next, leader, false);
    if (r == 0)
        r = store_promote(w->store, next);
    if (r < 0) {
        request_destroy(next);
        return r;
    }
    *ret = next;
    return 0;
}

/* Settles up to FOLLOWERS_MAX of the leader's followers; the operation continues when some may be
 * left. The leader comes last, so that a crash leaves no chain without one. */
static int settle_followers(struct writer *w, struct op *op, const struct request *leader)
{
    struct request *followers[FOLLOWERS_STEP];
    size_t total = 0, n = 0;
    do {
        int r = store_fetch_followers(w->store, leader->chain, FOLLOWERS_STEP, followers, &n);
        if (r < 0)
            return r;
        for (size_t i = 0; i < n; i++) {
            if (r == 0)
                r = settle_follower(w, op, followers[i], leader);
            request_destroy(followers[i]);
        }
        if (r < 0)
            return r;
        total += n;
    } while (n == FOLLOWERS_STEP && total < FOLLOWERS_MAX);
    op->continues = n == FOLLOWERS_STEP;
    return 0;
}

static int settle_chain(struct writer *w, struct op *op)
{
    struct request *leader = op->request;
    bool joined = chain_may_be_joined(w, leader);
    /* From the first step on: who comes now did not take part in its attempts. */
    chain_remove(w, leader);
    int r = joined ? settle_followers(w, op, leader) : 0;
    if (r < 0 || op->continues)
        return r;
    bool anew = false;
    return settle_one(w, op, leader, &anew);
}

static int settle_alone(struct writer *w, struct op *op)
{
    struct request *req = op->request;
    bool anew = false;
    int r = settle_one(w, op, req, &anew);
    if (r < 0 || !anew)
        return r;
    if (req->follows) {
        /* It may have been made leader while this operation was on its way. */
        struct request *leader = NULL;
        r = store_find_leader(w->store, req->chain, &leader);
        request_destroy(leader);
        if (r != -ENOENT)
            return r;
    }
    r = chain_may_be_joined(w, req) ? promote_next(w, req, &op->promoted) : -ENOENT;
    if (r != -ENOENT)
        return r;
    chain_remove(w, req);
    return 0;
}

/* Whether a commit that was reported as failed has become durable all the same; then all that it did
 * has, and the operation says what that was. */
static int has_lasted(struct writer *w, const struct op *op, bool *ret)
{
    struct request *done = NULL;
    size_t found = 0;
    if (op->n_settled == 0)
        return 0;
    int r = store_fetch_results(w->store, op->settled[0].n - 1, 1, &done, &found);
    if (r < 0 || found == 0)
        return r;
    *ret = done->n == op->settled[0].n && done->seq == op->settled[0].seq;
    request_destroy(done);
    return 0;
}

static int apply_settle(struct writer *w, struct op *op)
{
    bool lasted = false;
    int r = has_lasted(w, op, &lasted);
    if (r < 0 || lasted)
        return r;
    op_reset(op);
    return op->whole_chain ? settle_chain(w, op) : settle_alone(w, op);
}

static int apply_retry(struct writer *w, struct op *op)
{
    return store_update(w->store, op->request);
}

/* --- Puts --- */

/* Finds the chain that the request joins, if any. */
static int join_chain(struct writer *w, struct request *req)
{
    req->chain = req->seq;
    req->follows = false;

    struct chain chain;
    if (!chain_get(w, req->job_id, &chain))
        return 0;
    struct request *leader = NULL;
    int r = store_find_leader(w->store, chain.id, &leader);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    /* Two job IDs with one hash must not share an outcome. */
    if (strcmp(leader->job_id, req->job_id) == 0) {
        req->chain = chain.id;
        req->follows = true;
        req->chain_attempts = leader->chain_attempts;
    }
    request_destroy(leader);
    return 0;
}

static int find_known(struct writer *w, const struct queue_put *put, const struct request *req,
                      struct queue_put_result *result)
{
    int r = store_find(w->store, req->request_id, &result->known, NULL);
    if (r < 0)
        return r;
    struct request *known = result->known;
    bool same = strcmp(known->job_id, req->job_id) == 0;
    result->outcome = same ? PUT_KNOWN : PUT_OTHER_JOB;
    if (!same) {
        request_destroy(known);
        result->known = NULL;
    } else if (put->watch && known->state != REQUEST_DONE) {
        r = u64map_put(w->watched, u64map_mix((uint64_t) known->seq), 1);
    }
    return r;
}

static int put_done(struct writer *w, struct op *op, struct request *req)
{
    req->chain = req->seq;
    req->n = w->last_n + 1;
    int r = store_insert(w->store, req);
    if (r < 0)
        return r;
    w->last_seq++;
    w->last_n++;
    return settled_add(w, op, req);
}

/* `retry_of` is the seq of the finished request that this one retries; 0 = none. */
static int put_pending(struct writer *w, const struct queue_put *put, struct request *req,
                       int64_t retry_of, struct queue_put_result *result)
{
    int r = retry_of != 0 ? store_mark_retried(w->store, retry_of) : 0;
    if (r == -EEXIST) {
        result->outcome = PUT_RETRIED;
        return 0;
    }
    result->outcome = PUT_ACCEPTED;
    if (r == 0)
        r = join_chain(w, req);
    if (r == 0)
        r = store_insert(w->store, req);
    if (r < 0)
        return r;
    w->last_seq++;
    w->count++;
    result->coalesced = req->follows;
    r = chain_put(w, req->job_id, strlen(req->job_id), req->chain, req->follows);
    if (r == 0 && put->watch)
        r = u64map_put(w->watched, u64map_mix((uint64_t) req->seq), 1);
    return r;
}

static int put_one(struct writer *w, struct op *op, size_t i, int64_t max_pending)
{
    struct request *req = op->put->requests[i];
    struct queue_put_result *result = &op->put->results[i];
    int64_t retry_of = op->put->retry_of != NULL ? op->put->retry_of[i] : 0;
    bool done = req->state == REQUEST_DONE;
    if (!done && w->count >= max_pending) {
        int r = find_known(w, op->put, req, result);
        if (r == -ENOENT)
            result->outcome = PUT_LEFT;
        return r == -ENOENT ? 0 : r;
    }

    req->seq = w->last_seq + 1;
    result->outcome = PUT_ACCEPTED;
    int r = done ? put_done(w, op, req) : put_pending(w, op->put, req, retry_of, result);
    return r == -EEXIST ? find_known(w, op->put, req, result) : r;
}

static int keep_note(struct writer *w, const char *name, int64_t value)
{
    return value != 0 ? store_set_meta(w->store, name, value) : store_drop_meta(w->store, name);
}

static int apply_put(struct writer *w, struct op *op)
{
    struct queue_put *put = op->put;
    if (op->status < 0) /* its directories could not be synced */
        return 0;

    uv_mutex_lock(&w->mutex);
    int64_t max_pending = w->max_pending;
    uv_mutex_unlock(&w->mutex);

    /* A single request may be one that is known; put_one() finds out. */
    if (put->atomic && put->n_requests > 1 && w->count + (int64_t) put->n_requests > max_pending) {
        op->status = -EXFULL;
        return 0;
    }
    bool full = false;
    for (size_t i = 0; i < put->n_requests; i++) {
        struct queue_put_result *result = &put->results[i];
        if (full) {
            result->outcome = PUT_LEFT;
            continue;
        }
        int r = put_one(w, op, i, max_pending);
        if (r < 0)
            return r;
        full = result->outcome == PUT_LEFT;
        if (full && i == 0)
            op->status = -EXFULL;
        if (result->outcome == PUT_OTHER_JOB && put->atomic)
            op->status = -EEXIST; /* nothing else is in such a put, see queue.h */
    }
    int r = 0;
    for (size_t i = 0; i < put->n_notes && !full && r == 0; i++)
        r = keep_note(w, put->notes[i].name, put->notes[i].value);
    return r;
}

/* --- Fetches --- */

static int apply_fetch(struct writer *w, struct op *op)
{
    op->requests = calloc(op->limit + 1, sizeof(struct request *));
    if (op->requests == NULL)
        return -ENOMEM;
    op->next_at_ms = INT64_MAX;
    int r = 0;
    switch (op->order) {
    case QUEUE_FRESH:
        return store_fetch_fresh(w->store, op->after.seq, op->limit, op->requests, &op->n_requests);
    case QUEUE_BY_DUE:
        r = store_fetch_due(w->store, op->after, op->until_ms, op->limit, op->requests,
                            &op->n_requests);
        return r == 0 ? store_next_due(w->store, op->until_ms, &op->next_at_ms) : r;
    case QUEUE_BY_DEADLINE:
        r = store_fetch_expired(w->store, op->after, op->until_ms, op->limit, op->requests,
                                &op->n_requests);
        return r == 0 ? store_next_deadline(w->store, op->until_ms, &op->next_at_ms) : r;
    }
    return r;
}

int apply_op(struct writer *w, struct op *op)
{
    switch (op->kind) {
    case OP_PUT:
        return apply_put(w, op);
    case OP_RETRY:
        return apply_retry(w, op);
    case OP_SETTLE:
        return apply_settle(w, op);
    case OP_FETCH:
        return apply_fetch(w, op);
    case OP_REOPEN_LOG:
        w->reopen_log = true;
        return 0;
    case OP_SET_NOTE:
        return keep_note(w, op->name, op->value);
    case OP_FLUSH:
        return store_flush(w->store, op->due_at_ms, &op->n);
    case OP_BARRIER:
        return 0;
    case OP_STORAGE:
    case OP_STOPPED:
        break;
    }
    return 0;
}

/* --- Filling the map --- */

static int fill_one(void *userdata, const char *job_id, size_t len, int64_t chain, bool follows)
{
    struct writer *w = userdata;
    uint64_t value = 0;
    bool known = u64map_get(w->chains, chain_key(w, job_id, len), &value);
    bool joined = follows || (known && value & 1);
    return chain_put(w, job_id, len, chain, joined);
}

int apply_fill_step(struct writer *w)
{
    bool end = false;
    int r = store_walk_pending(w->store, &w->fill_position, FILL_STEP, fill_one, w, &end);
    if (r == 0 && end)
        w->filling = false;
    return r;
}
