/* The operations that cross between the loop and the writer thread. */
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
