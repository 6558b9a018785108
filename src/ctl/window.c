/* The slots and the lists they are in. */
#include "ctl/window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ctl/call.h"

/* More waits in our slots rather than in the connection's buffer. */
#define UNSENT_BYTES_MAX ((size_t) 128 * 1024)
#define PARAMS_MAX 2048

int window_init(struct window *w, size_t size, bool wait)
{
    *w = (struct window){ .size = size, .wait = wait };
    TAILQ_INIT(&w->free);
    TAILQ_INIT(&w->unsent);
    TAILQ_INIT(&w->sent);
    TAILQ_INIT(&w->again);
    w->slots = calloc(size, sizeof(*w->slots));
    if (w->slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        TAILQ_INSERT_TAIL(&w->free, &w->slots[i], link);
    return 0;
}

void window_finish(struct window *w)
{
    for (size_t i = 0; w->slots != NULL && i < w->size; i++)
        free(w->slots[i].params);
    free(w->slots);
    w->slots = NULL;
}

bool window_full(const struct window *w)
{
    return w->n_used == w->size;
}

static void move(struct window *w, struct slot *slot, struct slot_list *to)
{
    if (slot->list == NULL)
        TAILQ_REMOVE(&w->free, slot, link);
    else
        TAILQ_REMOVE(slot->list, slot, link);
    TAILQ_INSERT_TAIL(to, slot, link);
    slot->list = to == &w->free ? NULL : to;
}

static char *make_params(const struct input_line *line, bool wait)
{
    struct buf b;
    buf_init(&b, PARAMS_MAX);
    int r = buf_append_str(&b, "{\"job_id\":");
    if (r == 0)
        r = json_append_cstr(&b, line->line.job_id);
    if (r == 0)
        r = buf_append_str(&b, ",\"request_id\":");
    if (r == 0)
        r = json_append_cstr(&b, line->line.request_id);
    if (r == 0 && line->line.deadline_s > 0)
        r = buf_printf(&b, ",\"deadline_s\":%" PRId64, line->line.deadline_s);
    if (r == 0)
        r = buf_append_str(&b, wait ? ",\"wait\":true}" : "}");
    char *params = r == 0 ? buf_steal(&b, NULL) : NULL;
    buf_finish(&b);
    return params;
}

int window_add(struct window *w, const struct input_line *line)
{
    struct slot *slot = TAILQ_FIRST(&w->free);
    slot->params = make_params(line, w->wait);
    if (slot->params == NULL)
        return -ENOMEM;
    slot->number = line->number;
    memcpy(slot->job_id, line->line.job_id, sizeof(slot->job_id));
    move(w, slot, &w->unsent);
    w->n_used++;
    return 0;
}

int window_send(struct window *w, struct connection *c)
{
    struct buf text;
    struct slot *slot;
    int r = 0;
    buf_init(&text, PARAMS_MAX + 128);
    while (r == 0 && c->out.len < UNSENT_BYTES_MAX && (slot = TAILQ_FIRST(&w->unsent)) != NULL) {
        buf_clear(&text);
        r = call_append(&text, slot - w->slots, "cancel", slot->params);
        if (r == 0)
            r = connection_send(c, text.data, text.len);
        if (r == 0)
            move(w, slot, &w->sent);
    }
    buf_finish(&text);
    return r;
}

struct slot *window_find(struct window *w, int64_t id)
{
    if (id < 0 || (uint64_t) id >= w->size || w->slots[id].list != &w->sent)
        return NULL;
    return &w->slots[id];
}

void window_done(struct window *w, struct slot *slot)
{
    free(slot->params);
    slot->params = NULL;
    move(w, slot, &w->free);
    w->n_used--;
}

void window_postpone(struct window *w, struct slot *slot)
{
    move(w, slot, &w->again);
}

static void move_all(struct window *w, struct slot_list *from, struct slot_list *to)
{
    struct slot *slot;
    while ((slot = TAILQ_FIRST(from)) != NULL)
        move(w, slot, to);
}

void window_repeat(struct window *w, bool all)
{
    struct slot_list rest;
    TAILQ_INIT(&rest);
    /* What the daemon has already is asked for first: that makes room. */
    move_all(w, &w->unsent, &rest);
    move_all(w, &w->again, &w->unsent);
    if (all)
        move_all(w, &w->sent, &w->unsent);
    move_all(w, &rest, &w->unsent);
}

size_t window_count_sent(const struct window *w, size_t unsent_lines)
{
    const struct slot *slot;
    size_t n = 0;
    TAILQ_FOREACH(slot, &w->sent, link)
        n++;
    TAILQ_FOREACH(slot, &w->again, link)
        n++;
    return n > unsent_lines ? n - unsent_lines : 0;
}
