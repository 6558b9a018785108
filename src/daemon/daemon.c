/* Builds the parts, wires them, and runs them. Loop thread. */
#include "daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <uv.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "daemon/daemon_private.h"
#include "daemon/notify.h"
#include "daemon/stats.h"

#define STATUS_INTERVAL_MS 1000

static const int signals[DAEMON_SIGNAL_COUNT] = { SIGTERM, SIGINT, SIGHUP };
/* --- Status --- */

static void gather(const struct daemon *d, struct stats *s)
{
    struct queue_counts counts;
    queue_get_counts(d->queue, &counts);
    *s = (struct stats){
        .uptime_s = (clock_mono_ms() - d->started_ms) / 1000,
        .pending = counts.pending,
        .in_flight_limit = d->config->dispatch.max_in_flight,
        .storage = queue_storage_trouble(d->queue),
        .spool_trouble = spool_trouble(d->spool),
        .held = d->held,
        .dispatch = dispatch_get_stats(d->dispatch),
    };
    memcpy(s->results, d->outcomes, sizeof(s->results));
    spool_get_stats(d->spool, &s->spool);
    control_get_stats(d->control, &s->control);
}

void daemon_tell_status(struct daemon *d)
{
    if (d->stopping)
        return;
    struct stats s;
    gather(d, &s);
    struct buf text;
    buf_init(&text, 4096);
    if (d->key_code != NULL) {
        (void) daemon_append_key_advice(d, &text);
        (void) buf_append_str(&text, "; ");
    }
    if (stats_append_status(&text, &s) == 0 && buf_cstr(&text) != NULL)
        notify_status(buf_cstr(&text));
    buf_finish(&text);
}

static void on_status_timer(uv_timer_t *timer)
{
    daemon_tell_status(timer->data);
}

/* Something has changed: say so, at most once a second. */
static void touch_status(struct daemon *d)
{
    if (!d->stopping && !uv_is_active((uv_handle_t *) &d->status_timer))
        (void) uv_timer_start(&d->status_timer, on_status_timer, STATUS_INTERVAL_MS, 0);
}

static int append_stats(void *userdata, struct buf *b)
{
    struct stats s;
    gather(userdata, &s);
    return stats_append(b, &s);
}

/* --- The queue's news --- */

static void on_accepted(void *userdata, struct request *req)
{
    struct daemon *d = userdata;
    dispatch_accepted(d->dispatch, req);
    touch_status(d);
}

static void on_retried(void *userdata, struct request *req)
{
    struct daemon *d = userdata;
    dispatch_retried(d->dispatch, req);
    touch_status(d);
}

static void on_promoted(void *userdata, struct request *req)
{
    struct daemon *d = userdata;
    dispatch_promoted(d->dispatch, req);
}

static void on_settled(void *userdata, const struct queue_settled *settled)
{
    struct daemon *d = userdata;
    d->outcomes[settled->outcome]++;
    journal_outcome(&d->journal, (enum log_level) d->config->log.level, clock_mono_ms(),
                    settled->job_id, settled->request_id, settled->outcome);
    if (settled->outcome == OUTCOME_WITHDRAWN)
        daemon_withdrawn(d, settled->seq);
    dispatch_ended(d->dispatch, settled->seq);
    control_settled(d->control, settled);
    if (!d->stopping)
        spool_resume(d->spool);
    touch_status(d);
}

static void on_ended_before(void *userdata, int64_t seq)
{
    struct daemon *d = userdata;
    dispatch_ended(d->dispatch, seq);
}

static void on_fetched(void *userdata, enum queue_order order, int status,
                       struct request **requests, size_t n, int64_t next_at_ms)
{
    struct daemon *d = userdata;
    dispatch_fetched(d->dispatch, order, status, requests, n, next_at_ms);
}

static void on_storage(void *userdata, const struct queue_trouble *trouble)
{
    struct daemon *d = userdata;
    if (trouble->fatal && !d->stopping) {
        log_error("daemon: the queue database is corrupt; restore it, or move it away together "
                  "with the results log to begin anew");
        d->exit_status = 1;
        daemon_stop(d, "it can't go on");
    }
    dispatch_storage(d->dispatch, !trouble->database);
    if (trouble->text == NULL && !d->stopping)
        spool_resume(d->spool);
    daemon_tell_status(d);
}

static void on_spool_trouble(void *userdata)
{
    daemon_tell_status(userdata);
}

static int leader_state(void *userdata, int64_t seq)
{
    struct daemon *d = userdata;
    return dispatch_leader_state(d->dispatch, seq);
}

/* --- Configuration --- */

int daemon_configure_dispatch(struct daemon *d, const struct config *config)
{
    struct dispatch_options options = {
        .http = {
            .base_url = config->api.base_url,
            .api_key = config->api_key,
            .ca_file = config->api.ca_file,
            .proxy = config->api.proxy,
            .connect_timeout_ms = config->api.connect_timeout_ms,
            .timeout_ms = config->api.timeout_ms,
        },
        .endpoint = (enum api_endpoint) config->api.endpoint,
        .verify = (enum api_verify) config->api.verify,
        .on_unauthorized = (enum api_on_unauthorized) config->api.on_unauthorized,
        .max_in_flight = (size_t) config->dispatch.max_in_flight,
        .max_attempts = (unsigned) config->retry.max_attempts,
        .retry = {
            .base_delay_ms = config->retry.base_delay_ms,
            .max_delay_ms = config->retry.max_delay_ms,
        },
    };
    return dispatch_configure(d->dispatch, &options);
}

/* 0, with what needs a restart in `names`; or the configuration stays as it was, and `err` says
 * why. */
static int reload(struct daemon *d, struct buf *names, struct buf *err)
{
    struct config *config = NULL;
    int r = config_load(d->config_file, &config, err);
    if (r == 0)
        r = daemon_configure_dispatch(d, config);
    if (r < 0) {
        if (err->len == 0)
            (void) buf_append_str(err, strerror(-r));
        log_error("daemon: the configuration stays as it was: %s", buf_cstr(err));
        config_unload(config);
        return r;
    }
    if (config_restart_needed(d->config_at_start, config, names) > 0)
        log_warning("daemon: changed, but needs a restart to take effect: %s", buf_cstr(names));
    if (d->config != d->config_at_start)
        config_unload(d->config);
    d->config = config;
    log_set_level((enum log_level) config->log.level);
    queue_set_limits(d->queue, config->queue.max_pending, config->queue.history_days);
    spool_set_deadline(d->spool, config->retry.deadline_s);
    control_set_deadline(d->control, config->retry.deadline_s);
    spool_resume(d->spool);
    dispatch_resume(d->dispatch);
    log_info("daemon: configuration reloaded");
    return 0;
}

/* For SIGHUP and the method: a rotation must not depend on a good configuration. */
static int reload_all(void *userdata, struct buf *names, struct buf *err)
{
    struct daemon *d = userdata;
    notify_reloading();
    int r = reload(d, names, err);
    queue_reopen_log(d->queue);
    notify_ready();
    return r;
}

/* --- Signals --- */

static void on_signal(uv_signal_t *handle, int signum)
{
    struct daemon *d = handle->data;
    if (signum == SIGHUP) {
        if (d->stopping)
            return;
        struct buf names, err;
        buf_init(&names, 4096);
        buf_init(&err, 4096);
        (void) reload_all(d, &names, &err);
        buf_finish(&names);
        buf_finish(&err);
        return;
    }
    if (d->stopping) {
        /* What is not committed was not acknowledged, and what is not settled is sent again. */
        log_info("daemon: stopping at once");
        _exit(d->exit_status);
    }
    daemon_stop(d, signum == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void mask_signals(int how)
{
    sigset_t set;
    (void) sigemptyset(&set);
    for (size_t i = 0; i < DAEMON_SIGNAL_COUNT; i++)
        (void) sigaddset(&set, signals[i]);
    (void) pthread_sigmask(how, &set, NULL);
}

void daemon_block_signals(void)
{
    mask_signals(SIG_BLOCK);
}

/* Not before all is over: without the handles, one more signal would end the process by itself. */
static void close_signals(struct daemon *d)
{
    mask_signals(SIG_BLOCK);
    for (size_t i = 0; i < DAEMON_SIGNAL_COUNT; i++)
        uv_close((uv_handle_t *) &d->signals[i], NULL);
    (void) uv_run(&d->loop, UV_RUN_DEFAULT);
}

/* --- Starting --- */

static int complain(const char *what, int r, struct buf *err)
{
    const char *text = buf_cstr(err);
    log_error("%s: %s", what, text != NULL && text[0] != '\0' ? text : strerror(-r));
    return r;
}

/* Idle it has 25; with fewer than these it would say that it is ready and serve nobody. */
#define DESCRIPTORS_MIN 40

static int raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = limit.rlim_max;
    (void) setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_max < DESCRIPTORS_MIN ? -EMFILE : 0;
}

static int open_queue(struct daemon *d, struct buf *err)
{
    const struct config *c = d->config;
    int r = fs_make_parents(c->queue.database, 0750, err);
    if (r < 0)
        return complain("queue", r, err);
    r = fs_make_parents(c->results.path, 0750, err);
    if (r < 0)
        return complain("results", r, err);

    r = results_create(&d->results, c->results.path);
    if (r < 0)
        return complain("results", r, err);
    struct queue_log log;
    results_get_log(d->results, &log);
    struct queue_options options = {
        .database = c->queue.database,
        .max_pending = c->queue.max_pending,
        .history_days = c->queue.history_days,
    };
    r = queue_open(&d->queue, &d->loop, &options, &log, err);
    return r < 0 ? complain("queue", r, err) : 0;
}

static int create_intake(struct daemon *d, struct buf *err)
{
    const struct config *c = d->config;
    int listen_fd = notify_listen_fd(err);
    if (listen_fd < -1)
        return complain("socket", listen_fd, err);
    int r = listen_fd < 0 ? fs_make_parents(c->socket.path, 0755, err) : 0;
    struct control_options control_options = {
        .listen_fd = listen_fd,
        .path = c->socket.path,
        .mode = c->socket.mode,
        .group = c->socket.group,
        .admin_group = c->socket.admin_group,
        .max_clients = c->socket.max_clients,
        .deadline_s = c->retry.deadline_s,
    };
    struct control_host host = {
        .leader_state = leader_state,
        .append_stats = append_stats,
        .hold = daemon_hold,
        .flush = daemon_flush,
        .withdraw = daemon_withdraw,
        .reload = reload_all,
        .userdata = d,
    };
    if (r == 0)
        r = control_create(&d->control, &d->loop, d->queue, &control_options, &host, err);
    if (r < 0)
        return complain("socket", r, err);

    struct spool_options spool_options = {
        .directory = c->spool.directory,
        .max_file_bytes = c->spool.max_file_bytes,
        .settle_ms = c->spool.settle_ms,
        .rescan_interval_s = c->spool.rescan_interval_s,
        .deadline_s = c->retry.deadline_s,
        .trouble_changed = on_spool_trouble,
        .userdata = d,
    };
    r = spool_create(&d->spool, &d->loop, d->queue, &spool_options);
    return r < 0 ? complain("spool", r, err) : 0;
}

static int create_parts(struct daemon *d, struct buf *err)
{
    int r = open_queue(d, err);
    if (r < 0)
        return r;
    struct queue_handler handler = {
        .accepted = on_accepted,
        .retried = on_retried,
        .promoted = on_promoted,
        .settled = on_settled,
        .fetched = on_fetched,
        .ended_before = on_ended_before,
        .storage = on_storage,
        .userdata = d,
    };
    queue_set_handler(d->queue, &handler);
    d->held = queue_note(d->queue, "held") != 0;
    struct dispatch_host host = {
        .renew_key = daemon_renew_key,
        .key_changed = daemon_key_changed,
        .userdata = d,
    };
    r = dispatch_create(&d->dispatch, &d->loop, d->queue, &host);
    if (r == 0)
        r = daemon_configure_dispatch(d, d->config);
    if (r < 0)
        return complain("dispatch", r, err);
    return create_intake(d, err);
}

/* What is due may be this late before it is taken for a hang. */
#define LATE_MS 10000
#define STALLED_MS 60000

/* For the watchdog. */
static bool work_moves(void *userdata)
{
    const struct daemon *d = userdata;
    return !dispatch_is_stuck(d->dispatch, LATE_MS) && queue_stalled_ms(d->queue) < STALLED_MS;
}

static void init_handles(struct daemon *d)
{
    for (size_t i = 0; i < DAEMON_SIGNAL_COUNT; i++) {
        (void) uv_signal_init(&d->loop, &d->signals[i]);
        d->signals[i].data = d;
        (void) uv_signal_start(&d->signals[i], on_signal, signals[i]);
        uv_unref((uv_handle_t *) &d->signals[i]); /* the loop ends without them */
    }
    (void) uv_timer_init(&d->loop, &d->status_timer);
    (void) uv_timer_init(&d->loop, &d->grace_timer);
    (void) uv_prepare_init(&d->loop, &d->step);
    watchdog_init(&d->watchdog, &d->loop, work_moves, d);
    d->status_timer.data = d->grace_timer.data = d->step.data = d;
}

int daemon_run(const char *config_file, struct config *config)
{
    struct daemon d = {
        .config_file = config_file,
        .config = config,
        .config_at_start = config,
        .started_ms = clock_mono_ms(),
    };
    TAILQ_INIT(&d.withdrawals);
    log_set_level((enum log_level) config->log.level);
    int r = raise_descriptor_limit();
    if (r < 0) {
        log_error("daemon: it needs %d file descriptors (ulimit -n): %s", DESCRIPTORS_MIN,
                  strerror(-r));
        config_unload(config);
        return 1;
    }
    r = uv_loop_init(&d.loop);
    if (r < 0) {
        log_error("daemon: no event loop: %s", strerror(-r));
        config_unload(config);
        return 1;
    }
    init_handles(&d);
    journal_init(&d.journal, log_is_journal() ? JOURNAL_SOCKET : NULL);

    struct buf err;
    buf_init(&err, 4096);
    r = create_parts(&d, &err);
    if (r == 0) {
        r = spool_start(d.spool);
        if (r < 0)
            (void) complain("spool", r, &err);
    }
    buf_finish(&err);
    if (r == 0) {
        dispatch_start(d.dispatch);
        log_info("daemon: pulse-canceld " PULSE_VERSION " is ready, for %s", config->api.base_url);
        if (d.held)
            log_warning("daemon: sending is still held by the operator: release resumes it");
        notify_ready();
        daemon_tell_status(&d);
    } else {
        d.exit_status = 1;
        daemon_take_down(&d);
    }
    /* The writer thread, which is there by now, goes on without them. */
    mask_signals(SIG_UNBLOCK);
    (void) uv_run(&d.loop, UV_RUN_DEFAULT);

    control_destroy(d.control);
    spool_destroy(d.spool);
    dispatch_destroy(d.dispatch);
    queue_destroy(d.queue);
    results_destroy(d.results);
    close_signals(&d);
    (void) uv_loop_close(&d.loop);
    journal_finish(&d.journal);
    free(d.key_code);
    free(d.key_trouble);
    if (d.config != d.config_at_start)
        config_unload(d.config);
    config_unload(d.config_at_start);
    if (r == 0)
        log_info("daemon: stopped");
    return d.exit_status;
}
