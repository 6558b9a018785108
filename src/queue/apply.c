/* What each operation does to the database and to the map of chains. Runs on the writer thread,
 * inside a transaction; after a rollback the map is read anew. */
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
        .outcome = req->outcome,
    };
    if (s->request_id == NULL)
        return -ENOMEM;
    op->n_settled++;

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

/* Of an outcome whose line is written from the database. */
static int tell_again(struct writer *w, struct op *op, const struct request *done)
{
    bool broken = w->lines_broken;
    w->lines_broken = true;
    int r = settled_add(w, op, done);
    w->lines_broken = broken;
    return r;
}

/* Gives `n` and writes the outcome. */
static int settle_one(struct writer *w, struct op *op, struct request *req)
{
    if (req->state != REQUEST_DONE)
        request_set_state(req, REQUEST_DONE);
    req->n = w->last_n + 1;
    bool changed = false;
    int r = store_settle(w->store, req, &changed);
    if (r < 0)
        return r;
    if (changed) {
        w->last_n++;
        w->count--;
        return settled_add(w, op, req);
    }

    /* It was settled as a follower while this operation was on its way. */
    if (!op->repeated)
        return 0;
    /* A commit that was reported as failed has become durable all the same: tell what it says. */
    struct request *done = NULL;
    r = store_find(w->store, req->request_id, &done, NULL);
    if (r < 0)
        return r;
    req->n = done->n;
    r = tell_again(w, op, done);
    request_destroy(done);
    return r;
}

static int copy_failure(struct request *to, const struct request *from)
{
    to->http_status = from->http_status;
    to->endpoint = from->endpoint;
    int r = request_set_text(&to->job_status, from->job_status);
    if (r == 0)
        r = request_set_text(&to->message, from->message);
    if (r == 0)
        r = request_set_text(&to->error_code, from->error_code);
    if (r == 0)
        r = request_set_text(&to->error_message, from->error_message);
    return r;
}

/* The outcome of the leader becomes a follower's; the attempts since it joined are its own. */
static int settle_follower(struct writer *w, struct op *op, struct request *follower,
                           const struct request *leader)
{
    unsigned base = follower->chain_attempts - follower->attempts;
    follower->chain_attempts = leader->chain_attempts;
    follower->attempts = leader->chain_attempts - base;
    follower->outcome = leader->outcome;
    follower->done_at_ms = leader->done_at_ms;
    int r = copy_failure(follower, leader);
    if (r == 0)
        r = request_set_text(&follower->coalesced_with, leader->request_id);
    return r == 0 ? settle_one(w, op, follower) : r;
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

    unsigned base = next->chain_attempts - next->attempts;
    next->chain_attempts = leader->chain_attempts;
    next->attempts = leader->chain_attempts - base;
    next->follows = false;
    next->due_at_ms = leader->due_at_ms;
    if (next->due_at_ms != 0 && next->state == REQUEST_QUEUED)
        request_set_state(next, REQUEST_WAITING);
    if (next->attempts > 0)
        r = copy_failure(next, leader);
    if (r == 0)
        r = store_promote(w->store, next);
    if (r < 0) {
        request_destroy(next);
        return r;
    }
    *ret = next;
    return 0;
}

/* Settles up to FOLLOWERS_MAX of the leader's followers. When some are left, one of them is made
 * leader on disk, so that a crash leaves no chain without one, and the operation continues. */
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

    op->continues = false;
    if (n < FOLLOWERS_STEP)
        return 0;
    struct request *rest = NULL;
    int r = promote_next(w, leader, &rest);
    request_destroy(rest);
    op->continues = r == 0;
    return r == -ENOENT ? 0 : r;
}

/* The one that settle_followers() made leader. */
static int settle_interim_leader(struct writer *w, struct op *op, const struct request *leader)
{
    struct request *interim = NULL;
    int r = store_find_leader(w->store, leader->chain, &interim);
    if (r == 0)
        r = settle_follower(w, op, interim, leader);
    request_destroy(interim);
    return r == -ENOENT ? 0 : r;
}

/* After a commit that was reported as failed and has become durable all the same: the followers
 * settled in it have the numbers after their leader's. */
static int tell_followers_again(struct writer *w, struct op *op, const struct request *leader)
{
    struct request *done[FOLLOWERS_STEP];
    int64_t n = leader->n;
    for (bool more = true; more;) {
        size_t got = 0;
        int r = store_fetch_results(w->store, n, FOLLOWERS_STEP, done, &got);
        if (r < 0)
            return r;
        more = got == FOLLOWERS_STEP;
        for (size_t i = 0; i < got; i++) {
            more = more && done[i]->chain == leader->chain;
            if (r == 0 && done[i]->chain == leader->chain && done[i]->n == n + 1) {
                r = tell_again(w, op, done[i]);
                n++;
            }
            request_destroy(done[i]);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int apply_settle(struct writer *w, struct op *op)
{
    struct request *req = op->request;
    if (op->continues) {
        int r = settle_interim_leader(w, op, req);
        return r == 0 ? settle_followers(w, op, req) : r;
    }

    struct chain chain;
    bool joined = chain_get(w, req->job_id, &chain) && chain.id == req->chain && chain.joined;
    /* While the map is being read it does not know yet. */
    joined = joined || w->filling;

    int64_t next_n = w->last_n + 1;
    int r = settle_one(w, op, req);
    bool lasted = r == 0 && op->repeated && w->last_n + 1 == next_n;
    /* A follower may have been made leader while this operation was on its way. */
    if (r == 0 && req->follows) {
        struct request *leader = NULL;
        r = store_find_leader(w->store, req->chain, &leader);
        request_destroy(leader);
        if (r == 0)
            return 0;
        r = r == -ENOENT ? 0 : r;
    }
    if (r < 0)
        return r;
    if (op->whole_chain) {
        chain_remove(w, req);
        if (lasted)
            r = tell_followers_again(w, op, req);
        if (r == 0 && lasted)
            r = settle_interim_leader(w, op, req);
        return r == 0 && joined ? settle_followers(w, op, req) : r;
    }
    if (lasted) {
        r = store_find_leader(w->store, req->chain, &op->promoted);
        if (r != -ENOENT)
            return r;
    }
    r = joined ? promote_next(w, req, &op->promoted) : -ENOENT;
    if (r == -ENOENT) {
        chain_remove(w, req);
        r = 0;
    }
    return r;
}

static int apply_retry(struct writer *w, struct op *op)
{
    struct request *req = op->request;
    int r = store_update(w->store, req);
    /* Its new due time may lie before where the filling has got to. */
    if (r == 0 && w->filling)
        r = chain_put(w, req->job_id, strlen(req->job_id), req->chain, true);
    return r;
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
    return 0;
}

/* --- Fetches --- */

static int apply_fetch(struct writer *w, struct op *op)
{
    op->requests = calloc(op->limit + 1, sizeof(struct request *));
    if (op->requests == NULL)
        return -ENOMEM;
    if (op->kind == OP_FETCH)
        return store_fetch_fresh(w->store, op->after_seq, op->limit, op->requests, &op->n_requests);
    int r = store_fetch_due(w->store, op->after_ms, op->after_seq, op->until_ms, op->limit,
                            op->requests, &op->n_requests);
    return r == 0 ? store_next_wake(w->store, op->until_ms, &op->next_wake_at_ms) : r;
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
    case OP_FETCH_DUE:
        return apply_fetch(w, op);
    case OP_REOPEN_LOG:
        w->reopen_log = true;
        return 0;
    case OP_SET_HELD:
        return store_set_meta(w->store, "held", op->held ? 1 : 0);
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
    /* Later chains of a job are not possible while an earlier one is pending; an equal one only
     * adds that it was joined. A request that was promoted has a chain that is not its own seq, and
     * others may follow it. */
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
