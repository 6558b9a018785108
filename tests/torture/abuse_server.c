/* A server in trouble, for abuse: quick, with one process for some hundred connections, and true to its
 * record, which is a file that is mapped by whoever wants to know (struct job, one for each).
 *
 *     abuse_server SEED FAULTS RECORD KIND:COUNT…
 *
 * Jobs are KIND-NUMBER, in the order of the arguments. FAULTS of 1000 cancels go wrong, in a way that
 * SEED, the job and the number of the cancel decide. Prints its port, and at SIGTERM what it has done. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define KINDS_MAX 16
#define FDS_MAX 4096
#define REQUEST_MAX 4096
#define ANSWER_MAX 1024
#define DRIP_MS 5
#define DRIP_BYTES 8
#define HUGE_BODY 70000
/* From then on nothing goes wrong, so that each job comes to its end. */
#define FAULTY_CANCELS 32

enum { JOB_CANCELED = 1, JOB_TOLD = 2 };

/* As abuse_books.py reads it; numbers stay at 255. */
struct job {
    uint8_t cancels, looks, resets, flags;
};

enum fault {
    GOOD,
    ERROR_500,
    BARE_500,
    LATE_500,
    TOO_MANY_429,
    BUSY_503,
    RESET,
    LATE_RESET,
    HANG,
    LATE_HANG,
    GARBAGE,
    OTHER_JOB,
    TORN,
    SLOW,
    STALLED,
    HUGE,
    FAULTS
};

/* How many of a hundred faults. */
static const struct {
    const char *name;
    int share;
} faults[FAULTS] = {
    [GOOD] = { "good", 0 },
    [ERROR_500] = { "500", 15 },
    [BARE_500] = { "500 without an envelope", 10 },
    [LATE_500] = { "500 after the effect", 10 },
    [TOO_MANY_429] = { "429", 10 },
    [BUSY_503] = { "503", 10 },
    [RESET] = { "reset", 8 },
    [LATE_RESET] = { "reset after the effect", 5 },
    [HANG] = { "hang", 3 },
    [LATE_HANG] = { "hang after the effect", 2 },
    [GARBAGE] = { "garbage", 7 },
    [OTHER_JOB] = { "another job's", 5 },
    [TORN] = { "torn body", 5 },
    [SLOW] = { "slow body", 7 },
    [STALLED] = { "body that stalls", 2 },
    [HUGE] = { "body too large", 1 },
};

struct connection {
    int fd; /* -1 = none */
    size_t have;
    char request[REQUEST_MAX];
    char answer[ANSWER_MAX];
    size_t len, sent;
    bool drips;
    struct job *tells; /* whose cancellation the answer tells, once it is out */
};

struct server {
    uint64_t seed;
    unsigned per_1000;
    struct job *jobs;
    struct {
        char letter;
        uint64_t first, count;
    } kinds[KINDS_MAX];
    int n_kinds, epoll, listener, dripping;
    uint64_t done[FAULTS], looks, strangers, accepted;
    struct connection connections[FDS_MAX];
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void) number;
    ended = 1;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void count(uint8_t *n)
{
    if (*n < UINT8_MAX)
        (*n)++;
}

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* --- Jobs --- */

static struct job *find_job(struct server *s, const char *id)
{
    char *end;
    uint64_t number = id[0] != '\0' && id[1] == '-' ? strtoull(id + 2, &end, 10) : 0;
    for (int i = 0; i < s->n_kinds; i++)
        if (s->kinds[i].letter == id[0] && id[1] == '-' && *end == '\0' &&
            number < s->kinds[i].count)
            return &s->jobs[s->kinds[i].first + number];
    return NULL;
}

static enum fault choose(const struct server *s, const struct job *job)
{
    if (job->cancels > FAULTY_CANCELS)
        return GOOD;
    uint64_t x = mix(s->seed ^ mix((uint64_t) (job - s->jobs) * 256 + job->cancels));
    if (x % 1000 >= s->per_1000)
        return GOOD;
    int rest = (int) (x / 1000 % 100);
    for (int fault = GOOD; fault < FAULTS; fault++) {
        rest -= faults[fault].share;
        if (rest < 0)
            return (enum fault) fault;
    }
    return GOOD;
}

/* --- Answers --- */

static void hang_up(struct server *s, struct connection *c, bool reset)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };
    if (reset)
        (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    s->dripping -= c->drips;
    (void) close(c->fd);
    c->fd = -1;
}

static void send_some(struct server *s, struct connection *c, size_t max)
{
    size_t len = c->len - c->sent < max ? c->len - c->sent : max;
    ssize_t n = send(c->fd, c->answer + c->sent, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        hang_up(s, c, false);
        return;
    }
    c->sent += n > 0 ? (size_t) n : 0;
    if (c->sent < c->len && !c->drips)
        die("an answer that does not fit into the socket");
    if (c->sent == c->len && c->drips) {
        c->drips = false;
        s->dripping--;
    }
    if (c->sent == c->len && c->tells != NULL)
        c->tells->flags |= JOB_TOLD;
}

static void prepare(struct connection *c, const char *status, const char *more, const char *body,
                    size_t length)
{
    c->len = (size_t) snprintf(c->answer, ANSWER_MAX,
                               "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%s"
                               "Content-Length: %zu\r\n\r\n%s",
                               status, more, length, body);
    c->sent = 0;
}

static void answer(struct server *s, struct connection *c, const char *status, const char *more,
                   const char *body)
{
    prepare(c, status, more, body, strlen(body));
    send_some(s, c, c->len);
}

static void send_huge(struct server *s, struct connection *c)
{
    static char spaces[HUGE_BODY];
    memset(spaces, ' ', sizeof(spaces));
    prepare(c, "200 OK", "", "", sizeof(spaces));
    (void) send(c->fd, c->answer, c->len, MSG_NOSIGNAL | MSG_MORE);
    (void) send(c->fd, spaces, sizeof(spaces), MSG_NOSIGNAL);
    hang_up(s, c, false);
}

static void cancel(struct server *s, struct connection *c, const char *id, struct job *job)
{
    static const char failed[] = "{\"error\": {\"code\": \"internal\", \"message\": \"it broke\"}}";
    char body[256];
    (void) snprintf(body, sizeof(body), "{\"job_id\": \"%s\", \"status\": \"canceled\"}", id);
    count(&job->cancels);
    enum fault fault = choose(s, job);
    s->done[fault]++;
    c->tells = NULL;
    switch (fault) {
    case GOOD:
        job->flags |= JOB_CANCELED;
        c->tells = job;
        answer(s, c, "200 OK", "", body);
        break;
    case LATE_500:
        job->flags |= JOB_CANCELED;
        answer(s, c, "500 Internal Server Error", "", failed);
        break;
    case ERROR_500:
        answer(s, c, "500 Internal Server Error", "", failed);
        break;
    case BARE_500:
        answer(s, c, "500 Internal Server Error", "", "<html>it broke</html>");
        break;
    case TOO_MANY_429:
        answer(s, c, "429 Too Many Requests", "", failed);
        break;
    case BUSY_503:
        answer(s, c, "503 Service Unavailable", "", failed);
        break;
    case LATE_RESET:
        job->flags |= JOB_CANCELED;
        count(&job->resets);
        hang_up(s, c, true);
        break;
    case RESET:
        count(&job->resets);
        hang_up(s, c, true);
        break;
    case LATE_HANG:
        job->flags |= JOB_CANCELED;
        break;
    case HANG:
        break;
    case GARBAGE:
        (void) send(c->fd, "\x16\x03\x01 \r\n\r\n garbage \xff\xfe\n", 23, MSG_NOSIGNAL);
        hang_up(s, c, false);
        break;
    case OTHER_JOB:
        answer(s, c, "200 OK", "", "{\"job_id\": \"l-0-not\", \"status\": \"canceled\"}");
        break;
    case TORN:
        job->flags |= JOB_CANCELED;
        prepare(c, "200 OK", "", body, strlen(body) + 1);
        send_some(s, c, c->len);
        if (c->fd >= 0)
            hang_up(s, c, false);
        break;
    case SLOW:
        job->flags |= JOB_CANCELED;
        c->tells = job;
        prepare(c, "200 OK", "", body, strlen(body));
        c->drips = true;
        s->dripping++;
        break;
    case STALLED:
        prepare(c, "200 OK", "", body, strlen(body) + 100);
        send_some(s, c, c->len);
        break;
    case HUGE:
        send_huge(s, c);
        break;
    case FAULTS:
        break;
    }
}

static void look(struct server *s, struct connection *c, const char *id, struct job *job)
{
    char body[256];
    bool canceled = (job->flags & JOB_CANCELED) != 0;
    (void) snprintf(body, sizeof(body), "{\"job_id\": \"%s\", \"status\": \"%s\"}", id,
                    canceled ? "canceled" : "processing");
    count(&job->looks);
    s->looks++;
    c->tells = canceled ? job : NULL;
    answer(s, c, "200 OK", "", body);
}

/* --- Requests --- */

static void requested(struct server *s, struct connection *c)
{
    static const char post[] = "POST /cancel/", get[] = "GET /job/";
    bool is_post = strncmp(c->request, post, sizeof(post) - 1) == 0;
    bool is_get = strncmp(c->request, get, sizeof(get) - 1) == 0;
    char *id = c->request + (is_post ? sizeof(post) : sizeof(get)) - 1;
    id[strcspn(id, " \r\n")] = '\0';
    c->have = 0;
    struct job *job = is_post || is_get ? find_job(s, id) : NULL;
    if (job == NULL) {
        s->strangers++;
        answer(s, c, "404 Not Found", "", "{\"error\": {\"code\": \"x\", \"message\": \"who?\"}}");
    } else if (is_post) {
        cancel(s, c, id, job);
    } else {
        look(s, c, id, job);
    }
}

static void readable(struct server *s, struct connection *c)
{
    ssize_t n = recv(c->fd, c->request + c->have, REQUEST_MAX - 1 - c->have, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        hang_up(s, c, false);
        return;
    }
    c->have += (size_t) n;
    c->request[c->have] = '\0';
    /* One at a time is asked for on a connection, and has no body. */
    if (c->have >= 4 && strcmp(c->request + c->have - 4, "\r\n\r\n") == 0)
        requested(s, c);
    else if (c->have == REQUEST_MAX - 1)
        hang_up(s, c, true);
}

static void connected(struct server *s)
{
    int fd;
    while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= FDS_MAX) {
            (void) close(fd);
            continue;
        }
        int on = 1;
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct connection *c = &s->connections[fd];
        c->fd = fd;
        c->have = c->len = c->sent = 0;
        c->drips = false;
        c->tells = NULL;
        struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
        if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
            die("epoll_ctl");
        s->accepted++;
    }
}

static void drip(struct server *s)
{
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (s->connections[fd].fd >= 0 && s->connections[fd].drips)
            send_some(s, &s->connections[fd], DRIP_BYTES);
}

/* --- Life --- */

static void map_record(struct server *s, const char *path, char **kinds)
{
    uint64_t total = 0;
    for (; *kinds != NULL && s->n_kinds < KINDS_MAX; kinds++, s->n_kinds++) {
        s->kinds[s->n_kinds].letter = **kinds;
        s->kinds[s->n_kinds].first = total;
        s->kinds[s->n_kinds].count = strtoull(*kinds + 2, NULL, 10);
        total += s->kinds[s->n_kinds].count;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    size_t size = (size_t) (total + 1) * sizeof(struct job);
    if (fd < 0 || ftruncate(fd, (off_t) size) < 0)
        die(path);
    s->jobs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s->jobs == MAP_FAILED)
        die("mmap");
    (void) close(fd);
}

static void listen_on_loopback(struct server *s)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN, .data.fd = s->listener };
    if (s->listener < 0 || s->epoll < 0 ||
        bind(s->listener, (struct sockaddr *) &address, sizeof(address)) < 0 ||
        listen(s->listener, 4096) < 0 ||
        getsockname(s->listener, (struct sockaddr *) &address, &len) < 0 ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &e) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    (void) fflush(stdout);
}

static void serve(struct server *s)
{
    int64_t ticks = 0;
    while (!ended) {
        struct epoll_event events[256];
        int n = epoll_wait(s->epoll, events, 256, s->dripping > 0 ? DRIP_MS : -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == s->listener)
                connected(s);
            else if (s->connections[fd].fd >= 0)
                readable(s, &s->connections[fd]);
        }
        /* Under load every so many turns stand for the time. */
        if (s->dripping > 0 && (n == 0 || ++ticks % 64 == 0))
            drip(s);
    }
}

static void report(const struct server *s)
{
    printf("{\"looks\": %ju, \"strangers\": %ju, \"connections\": %ju, \"cancels\": {",
           (uintmax_t) s->looks, (uintmax_t) s->strangers, (uintmax_t) s->accepted);
    for (int fault = GOOD; fault < FAULTS; fault++)
        printf("%s\"%s\": %ju", fault > GOOD ? ", " : "", faults[fault].name,
               (uintmax_t) s->done[fault]);
    printf("}}\n");
}

int main(int argc, char **argv)
{
    struct server *s = calloc(1, sizeof(*s));
    if (s == NULL || argc < 5)
        return 2;
    for (int fd = 0; fd < FDS_MAX; fd++)
        s->connections[fd].fd = -1;
    s->seed = strtoull(argv[1], NULL, 10);
    s->per_1000 = (unsigned) strtoul(argv[2], NULL, 10);
    struct sigaction action = { .sa_handler = on_signal };
    (void) sigaction(SIGTERM, &action, NULL);
    (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_record(s, argv[3], argv + 4);
    listen_on_loopback(s);
    serve(s);
    report(s);
    free(s);
    return 0;
}
