/* Between claim.c (the file) and claim_part.c (its lines). */
#ifndef PULSE_INTAKE_CLAIM_PRIVATE_H
#define PULSE_INTAKE_CLAIM_PRIVATE_H

#include "intake/claim.h"

/* True when nobody writes the file any more, as far as can be told; *ret is its status after that
 * was seen. -errno. */
int claim_is_quiet(struct claim *c, struct stat *ret);

/* CLAIM_STUCK; logs an error that is not the same as before. */
enum claim_next claim_stuck(struct claim *c, const char *doing, int r);

enum claim_next claim_reject(struct claim *c, enum reject_cause cause, int64_t detail);

/* Reads until `len` bytes or the end. The number of bytes or -errno. */
ssize_t claim_read_at(const struct claim *c, char *data, size_t len, off_t offset);

/* The phases that make requests. */
enum claim_next claim_part_name(struct claim *c);
enum claim_next claim_part_read(struct claim *c, struct claim_budget *budget);
enum claim_next claim_part_skip(struct claim *c, struct claim_budget *budget);
enum claim_next claim_part_disown(struct claim *c);

/* Of one that is begun anew. */
void claim_resume_restore(struct claim *c);
/* Gives the put of a part what is to be kept with it. */
void claim_resume_keep(struct claim *c, struct queue_put *put);
/* The put is committed, and nothing of it was left. */
void claim_resume_kept(struct claim *c, const struct queue_put *put);
/* It goes elsewhere. */
void claim_resume_forget(struct claim *c);

#endif
