/* The screen of top. */
#ifndef PULSE_CTL_TOP_SCREEN_H
#define PULSE_CTL_TOP_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

#include "ctl/top_model.h"

struct top_screen;

enum top_key { TOP_KEY_NONE, TOP_KEY_QUIT, TOP_KEY_FREEZE, TOP_KEY_REDRAW };

/* Takes the terminal over. 0, -ENOTTY when the terminal can't do it, or -ENOMEM. */
int top_screen_open(struct top_screen **ret, bool colour);

/* Gives the terminal back. Accepts NULL. */
void top_screen_close(struct top_screen *s);

/* The next key that was pressed; never waits. */
enum top_key top_screen_key(struct top_screen *s);

/* `trouble` (NULL = none): why the numbers are old. */
void top_screen_draw(struct top_screen *s, const struct top_model *m, bool frozen,
                     const char *trouble);

#endif
