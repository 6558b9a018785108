/* The commands, in the order in which help shows them. */
#include "ctl/command.h"

#include <limits.h>

#include "ctl/admin.h"
#include "ctl/cancel.h"
#include "ctl/requests.h"
#include "ctl/results.h"
#include "ctl/stats.h"
#include "ctl/top.h"
#include "ctl/watch.h"

#define FOR_ADMINISTRATORS "For root, the daemon's user and members of socket.admin_group."

const struct command ctl_commands[] = {
    {
        .name = "cancel",
        .arguments = "JOB... | -f FILE | -",
        .summary = "cancel jobs, and wait for what becomes of them",
        .description =
            "Asks the daemon to cancel jobs and waits until each has its outcome. With a file "
            "or - (standard input), each line is a job ID or an object as in a spool file: "
            "{\"job_id\": \"a\", \"request_id\": \"r\", \"deadline_s\": 60}; blank lines and "
            "lines that start with # are skipped. Files of any size are read bit by bit, and "
            "when the daemon restarts meanwhile, what is open is asked for again, which makes "
            "no second request.",
        .options = {
            { OPTION_FILE, 'f', "file", "FILE", 
              "the jobs, one a line; - is standard input" },
            { OPTION_NO_WAIT, 'n', "no-wait", NULL, "return once all are queued" },
            { OPTION_DEADLINE, 'd', "deadline", "S", 
              "give up after S seconds (default: retry.deadline_s)" },
            { OPTION_REQUEST_ID, 'r', "request-id", "ID",
              "make it repeatable: ID for one job, else ID.LINE" },
            { OPTION_RECONNECT, 0, "reconnect", "S",
              "wait S seconds for a daemon that went away (default: 30)" },
        },
        .max_arguments = SIZE_MAX,
        .run = cancel_run,
    },
    {
        .name = "status",
        .arguments = "JOB... | -r ID",
        .summary = "show the requests for jobs",
        .description =
            "Shows all requests for these jobs that the daemon knows, newest first.",
        .options = {
            { OPTION_REQUEST_ID, 'r', "request-id", "ID", "the request with this ID instead" },
        },
        .max_arguments = SIZE_MAX,
        .run = requests_status,
    },
    {
        .name = "list",
        .arguments = "",
        .summary = "list requests, oldest first",
        .description =
            "Lists the requests that the daemon knows, pending and done, oldest first.",
        .options = {
            { OPTION_STATE, 't', "state", "STATE", "only queued, in_flight, waiting or done ones" },
            { OPTION_OUTCOME, 'o', "outcome", "OUTCOME", "only those that ended so" },
            { OPTION_LIMIT, 'l', "limit", "N", "at most so many (default: 100)" },
            { OPTION_AFTER, 'a', "after", "NEXT", "go on where a list ended" },
        },
        .run = requests_list,
    },
    {
        .name = "results",
        .arguments = "[JOB...]",
        .summary = "show outcomes from the results log and its rotations",
        .description =
            "Reads the results log and its rotated files, compressed by gzip or not, in the "
            "order of their numbers; of these jobs, or of all. The daemon need not run. Times "
            "are 2026-11-24, '2026-11-24 18:49' (local), 2026-11-24T18:49:17Z, today, "
            "yesterday, or 90s, 15m, 2h, 7d ago.",
        .options = {
            { OPTION_OUTCOME, 'o', "outcome", "OUTCOME", 
              "only those that ended so; several with commas" },
            { OPTION_SINCE, 'S', "since", "TIME", "only from this time on" },
            { OPTION_UNTIL, 'U', "until", "TIME", "only before this time" },
            { OPTION_LINES, 'n', "lines", "N", "only the last N of them" },
            { OPTION_FILE, 'f', "file", "PATH", "the results log (default: " CTL_DEFAULT_LOG ")" },
        },
        .max_arguments = SIZE_MAX,
        .run = results_show,
    },
    {
        .name = "watch",
        .arguments = "",
        .summary = "show outcomes as they come",
        .description =
            "Prints each outcome from now on, until it is interrupted.",
        .run = watch_run,
    },
    {
        .name = "top",
        .arguments = "",
        .summary = "show what the daemon does, full-screen",
        .description =
            "Shows rates, backlog, limits, holds and the latest failures, anew each second. "
            "Keys: q quits, space stops and goes on. With --json: the answer to stats, each "
            "second.",
        .run = top_run,
    },
    {
        .name = "stats",
        .arguments = "",
        .summary = "show the daemon's counters and conditions",
        .description =
            "Shows what is pending or wrong, and what happened since the daemon's start.",
        .run = stats_run,
    },
    {
        .name = "metrics",
        .arguments = "",
        .summary = "print the counters for Prometheus",
        .description =
            "Prints the daemon's numbers in Prometheus' text format, for a file of "
            "node_exporter's textfile collector. When the daemon can't be reached, "
            "pulse_canceld_up 0 is all there is.",
        .run = metrics_run,
    },
    {
        .name = "hold",
        .arguments = "",
        .summary = "stop sending; requests are still accepted",
        .description =
            "Sending stops, until release, also across restarts. " FOR_ADMINISTRATORS,
        .run = admin_hold,
    },
    {
        .name = "release",
        .arguments = "",
        .summary = "resume sending",
        .description =
            "Ends a hold. " FOR_ADMINISTRATORS,
        .run = admin_release,
    },
    {
        .name = "flush",
        .arguments = "",
        .summary = "try again now whatever waits for a retry",
        .description =
            "Every waiting retry is due now, and pauses end. " FOR_ADMINISTRATORS,
        .run = admin_flush,
    },
    {
        .name = "retry",
        .arguments = "JOB... | -r ID | -o OUTCOME",
        .summary = "queue anew what failed",
        .description =
            "Queues the newest finished request of each job anew, unless it ended as "
            "cancelled, too_late or invalid or was retried before. " FOR_ADMINISTRATORS,
        .options = {
            { OPTION_REQUEST_ID, 'r', "request-id", "ID", "the request with this ID" },
            { OPTION_OUTCOME, 'o', "outcome", "OUTCOME", "all that ended so" },
        },
        .max_arguments = SIZE_MAX,
        .run = admin_retry,
    },
    {
        .name = "withdraw",
        .arguments = "JOB... | -r ID",
        .summary = "take requests back",
        .description =
            "Requests for these jobs that are not in flight end as withdrawn. " FOR_ADMINISTRATORS,
        .options = {
            { OPTION_REQUEST_ID, 'r', "request-id", "ID", "the request with this ID instead" },
        },
        .max_arguments = SIZE_MAX,
        .run = admin_withdraw,
    },
    {
        .name = "reload",
        .arguments = "",
        .summary = "read configuration and key anew",
        .description =
            "Reads configuration and key anew and reopens the results log. A bad "
            "configuration is refused with its text, and the old one stays in force. "
            FOR_ADMINISTRATORS,
        .run = admin_reload,
    },
    {
        .name = "ping",
        .arguments = "",
        .summary = "see whether the daemon answers",
        .description =
            "Prints the daemon's version and process ID, if it answers.",
        .run = admin_ping,
    },
    { .name = NULL },
};
