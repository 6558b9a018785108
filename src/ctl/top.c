#include "ctl/top.h"
enum ctl_exit top_run(const struct invocation *inv)
{
    (void) inv;
    return CTL_OK;
}
