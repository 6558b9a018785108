/* Whether the API accepts the key. Pure. Any thread. */
#include "policy/key_gate.h"

static void advance(struct key_gate *g)
{
    g->delay_ms = g->delay_ms == 0 ? KEY_GATE_DELAY_MIN_MS : g->delay_ms * 2;
    if (g->delay_ms > KEY_GATE_DELAY_MAX_MS)
        g->delay_ms = KEY_GATE_DELAY_MAX_MS;
}

bool key_gate_refused(struct key_gate *g, unsigned epoch, int64_t now_ms)
{
    if (g->rejected || epoch != g->epoch)
        return false;
    g->rejected = true;
    /* The check was accepted and a cancel is not: that must not go round and round. */
    if (g->unproved)
        advance(g);
    g->proving = g->unproved = false;
    g->check_at_ms = now_ms + g->delay_ms;
    return true;
}

void key_gate_answered(struct key_gate *g, unsigned epoch, bool to_cancel)
{
    if (g->rejected || epoch != g->epoch)
        return;
    g->proving = false;
    if (to_cancel) {
        g->unproved = false;
        g->delay_ms = 0;
    }
}

void key_gate_check_failed(struct key_gate *g, int64_t now_ms)
{
    advance(g);
    g->check_at_ms = now_ms + g->delay_ms;
}

void key_gate_resume(struct key_gate *g, bool checked)
{
    g->rejected = false;
    g->proving = true;
    g->unproved = checked;
    g->epoch++;
}
