/* Calls one at a time; cancel and watch keep many under way with the same parts. */
#include "ctl/call.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"

#define CALL_TEXT_MAX ((size_t) 1024 * 1024)

/* --- Reading --- */

/* Behind the value that begins at `at`; the text is JSON. */
static size_t skip_value(const char *text, size_t len, size_t at)
{
    int depth = 0;
    bool in_string = false;
    for (; at < len; at++) {
        char c = text[at];
        if (in_string) {
            if (c == '\\')
                at++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}' || c == ']'))
            break;
        if (c == '"')
            in_string = true;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
    }
    return at;
}

static size_t skip_blanks(const char *text, size_t len, size_t at)
{
    while (at < len && strchr(" \t\r\n", text[at]) != NULL)
        at++;
    return at;
}

/* The text of a member of the object that `text` is, which is JSON: to print it as it came. */
static void find_text(const char *text, size_t len, const char *member, struct answer *ret)
{
    size_t name_len = strlen(member);
    size_t at = skip_blanks(text, len, 0) + 1;
    while (at < len) {
        at = skip_blanks(text, len, at);
        size_t name = at + 1;
        /* The names of our own members have no colon: it is behind them. */
        const char *colon = at < len ? memchr(text + at, ':', len - at) : NULL;
        if (colon == NULL)
            return;
        size_t start = skip_blanks(text, len, (size_t) (colon - text) + 1);
        size_t end = skip_value(text, len, start);
        if (len - name > name_len && strncmp(text + name, member, name_len) == 0 &&
            text[name + name_len] == '"') {
            ret->text = text + start;
            ret->text_len = end - start;
            return;
        }
        at = end + 1;
    }
}

int answer_parse(const char *line, size_t len, struct answer *ret)
{
    struct answer a = { .id = -1 };
    int r = json_parse(line, len, &a.root, NULL);
    if (r < 0)
        return r;
    if (!json_object_is_type(a.root, json_type_object)) {
        json_object_put(a.root);
        return -EINVAL;
    }
    struct json_object *id = json_object_object_get(a.root, "id");
    if (json_object_is_type(id, json_type_int))
        a.id = json_object_get_int64(id);
    a.error = json_object_object_get(a.root, "error");
    a.result = json_object_object_get(a.root, "result");
    a.params = json_object_object_get(a.root, "params");
    a.method = json_get_string(a.root, "method");
    find_text(line, len, a.error != NULL ? "error" : a.method != NULL ? "params" : "result", &a);
    *ret = a;
    return 0;
}

void answer_finish(struct answer *a)
{
    json_object_put(a->root);
    *a = (struct answer){ .id = -1 };
}

int64_t answer_error_code(const struct answer *a)
{
    return json_object_get_int64(json_object_object_get(a->error, "code"));
}

/* --- Writing --- */

int call_append(struct buf *b, int64_t id, const char *method, const char *params)
{
    int r = buf_printf(b, "{\"jsonrpc\":\"2.0\",\"id\":%" PRId64 ",\"method\":\"%s\"", id, method);
    if (r == 0 && params != NULL)
        r = buf_append_str(b, ",\"params\":");
    if (r == 0 && params != NULL)
        r = buf_append_str(b, params);
    return r == 0 ? buf_append_char(b, '}') : r;
}

int call_append_param(struct buf *b, const char *name, const char *value)
{
    if (value == NULL)
        return buf_append_str(b, "{}");
    int r = buf_printf(b, "{\"%s\":", name);
    if (r == 0)
        r = json_append_cstr(b, value);
    return r == 0 ? buf_append_char(b, '}') : r;
}

/* --- Calls --- */

enum ctl_exit call_connect(const struct invocation *inv, struct connection *c)
{
    const char *path = inv->values[OPTION_SOCKET];
    int r = connection_open(c, path);
    if (r == 0)
        return CTL_OK;
    connection_explain(path, r);
    return r == -ENAMETOOLONG ? CTL_USAGE : CTL_UNREACHABLE;
}

void call_print_json(const struct answer *a)
{
    (void) fwrite(a->text, 1, a->text_len, stdout);
    (void) fputc('\n', stdout);
}

enum ctl_exit call_refused(const struct invocation *inv, const struct answer *a, const char *what)
{
    const char *message = json_get_string(a->error, "message");
    const char *advice = json_get_string(a->error, "data");
    if (advice == NULL && answer_error_code(a) == CALL_METHOD)
        advice = "The daemon is older than this program: restart it "
                 "('sudo systemctl restart pulse-canceld').";
    else if (advice == NULL)
        advice = "See 'pulse-cancelctl COMMAND --help' for what it takes.";
    if (invocation_has(inv, OPTION_JSON))
        (void) printf("{\"error\":%.*s}\n", (int) a->text_len, a->text);
    output_complain("%s%srefused: %s\n%s", what != NULL ? what : "", what != NULL ? ": " : "",
                    message != NULL ? message : "error", advice);
    return CTL_REFUSED;
}

/* As the service's ExecReload= we are told its process. That may die before it takes the connection,
 * which the manager's socket keeps; and it is not started again before we end. -1 = none, -errno. */
static int open_main_process(void)
{
    const char *text = getenv("MAINPID");
    int64_t pid = text != NULL ? strtoll(text, NULL, 10) : 0;
    if (pid <= 0 || pid > INT32_MAX)
        return -1;
    int fd = (int) syscall(SYS_pidfd_open, (pid_t) pid, 0);
    return fd >= 0 || errno != ESRCH ? fd : -ESRCH;
}

/* Until the line that answers `id`; notifications are passed over. 0 or -errno, 1 for the end, also
 * that of the process `main_fd` (-1 = none). */
static int await(struct connection *c, int64_t id, int timeout_ms, int main_fd, struct answer *ret)
{
    bool gone = false;
    int64_t end_ms = clock_mono_ms() + timeout_ms;
    for (;;) {
        const char *line;
        size_t len;
        while (connection_line(c, &line, &len)) {
            struct answer a;
            int r = answer_parse(line, len, &a);
            if (r < 0)
                return r == -EINVAL ? -EPROTO : r;
            /* What refuses a client before its call has no id. */
            if (a.id == id || (a.id < 0 && a.error != NULL)) {
                *ret = a;
                return 0;
            }
            answer_finish(&a);
        }
        if (c->ended || gone)
            return 1;
        int64_t left_ms = end_ms - clock_mono_ms();
        if (left_ms <= 0)
            return -ETIMEDOUT;
        int r = connection_wait(c, (int) left_ms, NULL, main_fd, &gone);
        if (r < 0 && r != -EINTR)
            return r;
    }
}

enum ctl_exit call_run(const struct invocation *inv, struct connection *c, const char *method,
                       const char *params, int timeout_ms, struct answer *ret)
{
    const int64_t id = 1;
    struct buf text;
    struct answer a;
    buf_init(&text, CALL_TEXT_MAX);
    int r = call_append(&text, id, method, params);
    if (r == 0)
        r = connection_send(c, text.data, text.len);
    buf_finish(&text);
    int main_fd = open_main_process();
    if (r == 0)
        r = main_fd == -ESRCH ? 1 : await(c, id, timeout_ms, main_fd, &a);
    if (main_fd >= 0)
        (void) close(main_fd);
    if (r != 0) {
        connection_explain(inv->values[OPTION_SOCKET], r > 0 ? 0 : r);
        return CTL_UNREACHABLE;
    }
    if (a.error != NULL) {
        (void) call_refused(inv, &a, NULL);
        answer_finish(&a);
        return CTL_REFUSED;
    }
    *ret = a;
    return CTL_OK;
}

enum ctl_exit call_once(const struct invocation *inv, const char *method, const char *params,
                        int timeout_ms,
                        void (*show)(const struct invocation *inv, struct json_object *result))
{
    struct connection c;
    struct answer a;
    connection_init(&c);
    enum ctl_exit status = call_connect(inv, &c);
    if (status == CTL_OK)
        status = call_run(inv, &c, method, params, timeout_ms, &a);
    if (status == CTL_OK) {
        if (invocation_has(inv, OPTION_JSON))
            call_print_json(&a);
        else
            show(inv, a.result);
        answer_finish(&a);
    }
    connection_close(&c);
    return status;
}
