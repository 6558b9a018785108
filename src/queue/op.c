/* The operations that cross between the loop and the writer thread, and what callers give and get with
 * them: puts and queries. */
#include <stdlib.h>

#include "queue/writer.h"

struct op *op_create(enum op_kind kind)
{
    struct op *op = calloc(1, sizeof(*op));
    if (op != NULL)
        op->kind = kind;
    return op;
}

static void forget_outputs(struct op *op)
{
    for (size_t i = 0; i < op->n_settled; i++) {
        free(op->settled[i].request_id);
        free(op->settled[i].job_id);
        free(op->settled[i].line);
    }
    free(op->settled);
    op->settled = NULL;
    op->n_settled = 0;

    request_destroy(op->promoted);
    op->promoted = NULL;

    for (size_t i = 0; i < op->n_requests; i++)
        request_destroy(op->requests[i]);
    free(op->requests);
    op->requests = NULL;
    op->n_requests = 0;
    op->n = 0;
}

void op_reset(struct op *op)
{
    forget_outputs(op);
    op->continues = false;
    if (op->put == NULL)
        return;
    for (size_t i = 0; i < op->put->n_requests; i++) {
        struct queue_put_result *result = &op->put->results[i];
        request_destroy(result->known);
        *result = (struct queue_put_result){ .outcome = PUT_LEFT };
        op->put->requests[i]->seq = 0;
        op->put->requests[i]->chain_attempts = 0;
    }
}

void op_destroy(struct op *op)
{
    if (op == NULL)
        return;
    forget_outputs(op);
    queue_put_destroy(op->put);
    request_destroy(op->request);
    free(op->name);
    free(op->text);
    free(op);
}

/* --- Puts and queries --- */

struct queue_put *queue_put_create(size_t n_requests)
{
    struct queue_put *put = calloc(1, sizeof(*put));
    if (put == NULL)
        return NULL;
    put->requests = calloc(n_requests + 1, sizeof(struct request *));
    put->results = calloc(n_requests + 1, sizeof(struct queue_put_result));
    put->n_requests = n_requests;
    put->sync_fds[0] = put->sync_fds[1] = -1;
    if (put->requests == NULL || put->results == NULL) {
        put->n_requests = 0;
        queue_put_destroy(put);
        return NULL;
    }
    for (size_t i = 0; i < n_requests; i++)
        put->results[i].outcome = PUT_LEFT;
    return put;
}

void queue_put_destroy(struct queue_put *put)
{
    if (put == NULL)
        return;
    for (size_t i = 0; i < put->n_requests; i++) {
        request_destroy(put->requests[i]);
        request_destroy(put->results[i].known);
    }
    free(put->requests);
    free(put->results);
    free(put->retry_of);
    free(put);
}

struct queue_query *queue_query_create(enum queue_query_kind kind)
{
    struct queue_query *query = calloc(1, sizeof(*query));
    if (query == NULL)
        return NULL;
    *query = (struct queue_query){ .kind = kind, .state = -1, .outcome = -1, .limit = 1 };
    return query;
}

void queue_query_destroy(struct queue_query *query)
{
    if (query == NULL)
        return;
    for (size_t i = 0; i < query->n_rows; i++)
        request_destroy(query->rows[i].request);
    free(query->rows);
    free(query);
}
