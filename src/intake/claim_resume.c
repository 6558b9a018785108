/* How far a claimed file of several parts is, kept with their commits. Runs on the loop thread.
 *
 * A claim that is begun anew would find all its lines known again, but at the price of looking each
 * of them up: a large file might never come to its end under a daemon that is killed again and
 * again. What is kept with a part is where it begins, so that everything before is dealt with, lines
 * that were disowned too. */
#include <stdio.h>

#include "intake/claim_private.h"

/* Fewer than CLAIM_BAD_LINES_MAX before a part. */
#define BAD_BITS 7

enum { NOTE_OFFSET, NOTE_LINES };

static void note_name(const struct claim *c, int which, char *ret_name, size_t size)
{
    (void) snprintf(ret_name, size, "claim %s %s", c->uuid,
                    which == NOTE_OFFSET ? "offset" : "lines");
}

static int64_t read_note(const struct claim *c, int which)
{
    char name[64];
    note_name(c, which, name, sizeof(name));
    return queue_note(c->shared->queue, name);
}

void claim_resume_restore(struct claim *c)
{
    int64_t offset = read_note(c, NOTE_OFFSET), lines = read_note(c, NOTE_LINES);
    if (offset <= 0 || lines < 0)
        return;
    c->offset = (off_t) offset;
    c->number = c->logged_number = (uint64_t) lines >> BAD_BITS;
    c->bad = (unsigned) lines & ((1U << BAD_BITS) - 1);
    c->noted = true;
}

void claim_resume_keep(struct claim *c, struct queue_put *put)
{
    if (c->phase == CLAIM_DISOWNED || c->offset == 0)
        return;
    bool last = c->next_ends || c->next_bad >= CLAIM_BAD_LINES_MAX;
    put->n_notes = 2;
    for (int i = 0; i < 2; i++)
        note_name(c, i, put->notes[i].name, sizeof(put->notes[i].name));
    if (!last) {
        put->notes[NOTE_OFFSET].value = c->offset;
        put->notes[NOTE_LINES].value = (int64_t) (c->number << BAD_BITS | c->bad);
    }
    c->noted = true;
}

void claim_resume_kept(struct claim *c, const struct queue_put *put)
{
    if (put->n_notes > 0 && put->notes[NOTE_OFFSET].value == 0)
        c->noted = false;
}

void claim_resume_forget(struct claim *c)
{
    for (int i = 0; i < 2 && c->noted; i++) {
        char name[64];
        note_name(c, i, name, sizeof(name));
        queue_set_note(c->shared->queue, name, 0, NULL, NULL);
    }
    c->noted = false;
}
