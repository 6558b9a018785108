/* What the fuzz targets share. */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"

#define PATHS_MAX 8

void fuzz_failed(const char *file, int line, const char *condition, const char *text, size_t len)
{
    (void) fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    if (text != NULL)
        (void) fprintf(stderr, "%.*s\n", (int) len, text);
    abort();
}

/* --- Inputs --- */

char *fuzz_copy(const char *text, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    CHECK(copy != NULL);
    if (len > 0)
        memcpy(copy, text, len);
    return copy;
}

char *fuzz_field(struct fuzz_input *in)
{
    const char *newline = in->left > 0 ? memchr(in->at, '\n', in->left) : NULL;
    size_t len = newline != NULL ? (size_t) (newline - in->at) : in->left;
    char *field = malloc(len + 1);
    CHECK(field != NULL);
    for (size_t i = 0; i < len; i++)
        field[i] = in->at[i] != '\0' ? in->at[i] : '?';
    field[len] = '\0';
    size_t taken = len + (newline != NULL);
    in->at += taken;
    in->left -= taken;
    return field;
}

int64_t fuzz_number(struct fuzz_input *in)
{
    char *field = fuzz_field(in);
    int64_t number = strtoll(field, NULL, 10);
    free(field);
    return number;
}

/* --- Files --- */

struct place {
    char directory[64];
    char *paths[PATHS_MAX];
    size_t n_paths;
};

static struct place *place(void)
{
    static struct place the_place;
    return &the_place;
}

static void remove_place(void)
{
    struct place *p = place();
    for (size_t i = 0; i < p->n_paths; i++) {
        (void) remove(p->paths[i]);
        free(p->paths[i]);
    }
    (void) rmdir(p->directory);
}

const char *fuzz_path(const char *name)
{
    struct place *p = place();
    if (p->directory[0] == '\0') {
        (void) snprintf(p->directory, sizeof(p->directory), "%s/pulse-fuzz-XXXXXX",
                        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        CHECK(mkdtemp(p->directory) != NULL);
        CHECK(atexit(remove_place) == 0);
    }
    CHECK(p->n_paths < PATHS_MAX);
    char *path = NULL;
    CHECK(asprintf(&path, "%s/%s", p->directory, name) > 0);
    return p->paths[p->n_paths++] = path;
}

/* In its place: the inode stays. */
void fuzz_write_file(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(fs_write_all(fd, text, len, NULL) == 0);
    CHECK(close(fd) == 0);
}

/* --- What has to hold --- */

static bool is_of(const char *text, size_t max, const char *others)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && strchr(others, c) == NULL)
            return false;
    }
    return len >= 1 && len <= max;
}

bool fuzz_is_job_id(const char *text)
{
    return is_of(text, 255, "._~:-") && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

bool fuzz_is_request_id(const char *text)
{
    return is_of(text, 128, "._:-");
}

bool fuzz_is_plain(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            return false;
    return true;
}

struct json_object *fuzz_check_json(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        CHECK_TEXT((unsigned char) text[i] >= ' ' && text[i] != 0x7f, text, len);
    struct json_object *root = NULL;
    CHECK_TEXT(json_parse(text, len, &root, NULL) == 0, text, len);
    return root;
}

const char *fuzz_string(struct json_object *object, const char *member)
{
    struct json_object *value = NULL;
    CHECK(json_object_object_get_ex(object, member, &value));
    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

struct json_object *fuzz_check_result(const char *line, size_t len)
{
    /* i integer, s string, o object, I and S with null. */
    static const struct {
        const char *name;
        char type;
    } members[] = {
        { "n", 'i' },          { "time", 's' },           { "request_id", 's' },
        { "job_id", 's' },     { "outcome", 's' },        { "http_status", 'I' },
        { "attempts", 'i' },   { "endpoint", 'S' },       { "job_status", 'S' },
        { "source", 's' },     { "origin", 's' },         { "accepted_at", 's' },
        { "elapsed_ms", 'i' }, { "coalesced_with", 'S' }, { "message", 'S' },
        { "error", 'O' },
    };
    size_t i = 0;
    struct json_object *root = fuzz_check_json(line, len);
    CHECK_TEXT(json_object_is_type(root, json_type_object), line, len);
    json_object_object_foreach(root, name, value)
    {
        CHECK_TEXT(i < sizeof(members) / sizeof(members[0]), line, len);
        CHECK_TEXT(strcmp(name, members[i].name) == 0, line, len);
        char type = members[i++].type;
        enum json_type want = strchr("iI", type) != NULL   ? json_type_int
                              : strchr("sS", type) != NULL ? json_type_string
                                                           : json_type_object;
        bool good = json_object_is_type(value, want) || (type <= 'Z' && value == NULL);
        CHECK_TEXT(good, line, len);
    }
    CHECK_TEXT(i == sizeof(members) / sizeof(members[0]), line, len);
    return root;
}
