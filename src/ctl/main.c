/* pulse-cancelctl: options, the command, its exit status. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/options.h"
#include "ctl/output.h"

/* What could not be written is an error, though everything else worked. */
static int end_output(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return status;
    output_complain("can't write to standard output: is the disk full?");
    return status == CTL_OK ? CTL_NOT_CANCELLED : status;
}

int main(int argc, char **argv)
{
    struct output out;
    struct invocation inv;
    output_init(&out);
    int status = options_parse(argc, argv, &out, &inv);
    if (status < 0)
        status = (int) inv.command->run(&inv);
    return end_output(status);
}
