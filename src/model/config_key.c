/* The API key: from the service manager's credentials, or from api.key_file. */
#include "model/config_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"

#define KEY_MAX 4096
#define CREDENTIAL "api-key"

/* Where the key is read from. */
struct key_source {
    char *path;
    bool credential; /* in the service manager's directory, which guards the files in it */
};

static int choose_source(const struct config *config, struct key_source *ret)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    if (directory == NULL || directory[0] != '/') {
        *ret = (struct key_source){ .path = strdup(config->api.key_file) };
        return ret->path != NULL ? 0 : -ENOMEM;
    }

    char *path = NULL;
    if (asprintf(&path, "%s/" CREDENTIAL, directory) < 0)
        return -ENOMEM;
    /* One that is there and can't be read is an error, not a reason to take the other. */
    if (access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) {
        *ret = (struct key_source){ .path = path, .credential = true };
        return 0;
    }
    free(path);

    size_t len = strlen(directory);
    *ret = (struct key_source){
        .path = strdup(config->api.key_file),
        .credential =
            strncmp(config->api.key_file, directory, len) == 0 && config->api.key_file[len] == '/',
    };
    return ret->path != NULL ? 0 : -ENOMEM;
}

/* NULL when all is well. */
static const char *check_file(const struct key_source *source, const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return "is not a regular file";
    if (source->credential)
        return NULL;
    if (st->st_mode & 007)
        return "is open to everyone on this machine: chmod 0600 it (or 0640)";
    if (st->st_mode & 020)
        return "can be written by its group: chmod 0600 it (or 0640)";
    return NULL;
}

/* Cuts the line's end off. NULL when what is left is a key. No reason ever shows a part of it. */
static const char *check_content(const char *text, size_t *len)
{
    if (*len > 0 && text[*len - 1] == '\n') {
        (*len)--;
        if (*len > 0 && text[*len - 1] == '\r')
            (*len)--;
    }
    if (*len == 0)
        return "is empty: put the API key there, as its only line";
    if (*len > KEY_MAX)
        return "is too long for an API key";
    if (memchr(text, '\n', *len) != NULL)
        return "has more than one line: put only the API key there";
    for (size_t i = 0; i < *len; i++) {
        if (text[i] == ' ' || text[i] == '\t')
            return "has blanks: put only the API key there";
        if (text[i] < '!' || text[i] > '~')
            return "has bytes that are not printable ASCII: put only the API key there";
    }
    return NULL;
}

static const char missing[] = "; put the API key there, as its only line, and chmod 0600 it";
static const char copied[] = " (this is the service manager's copy: mend the file that it is made "
                             "from, /etc/pulse-canceld/api-key as shipped, and restart)";

int config_read_key(const struct config_report *report, unsigned line, struct config *config)
{
    struct key_source source = { 0 };
    char text[KEY_MAX + 3]; /* room for CR LF, and one more byte to know that it is too long */
    const char *what = NULL;
    struct stat st;
    int fd = -1;

    int r = choose_source(config, &source);
    if (r < 0)
        return r;

    fd = open(source.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int error = errno;
        (void) config_fault(report, line, "api.key_file", "%s: cannot be read: %s%s", source.path,
                            strerror(error), error == ENOENT ? missing : "");
        r = config_unreadable(-error);
        goto out;
    }
    what = check_file(&source, &st);
    if (what == NULL) {
        ssize_t n = fs_read_at(fd, text, sizeof(text), 0);
        if (n < 0) {
            (void) config_fault(report, line, "api.key_file", "%s: cannot be read: %s", source.path,
                                strerror((int) -n));
            r = config_unreadable((int) n);
            goto out;
        }
        size_t len = (size_t) n;
        what = check_content(text, &len);
        if (what == NULL) {
            config->api_key = strndup(text, len);
            config->key_is_credential = source.credential;
            if (config->api_key == NULL)
                r = -ENOMEM;
        }
    }
    if (what != NULL)
        r = config_fault(report, line, "api.key_file", "%s: %s%s", source.path, what,
                         source.credential ? copied : "");
out:
    explicit_bzero(text, sizeof(text));
    if (fd >= 0)
        (void) close(fd);
    free(source.path);
    return r;
}

static void wipe(char *key)
{
    if (key != NULL)
        explicit_bzero(key, strlen(key));
    free(key);
}

int config_renew_key(struct config *config, const char *file, struct buf *reterr)
{
    struct config_report report = { .file = file, .reterr = reterr };
    struct config fresh = *config; /* for the names in it */
    fresh.api_key = NULL;
    int r = config_read_key(&report, 0, &fresh);
    if (r < 0)
        return r;
    if (fresh.api_key == NULL)
        return -ENOMEM;
    if (strcmp(fresh.api_key, config->api_key) == 0) {
        wipe(fresh.api_key);
        return 0;
    }
    wipe(config->api_key);
    config->api_key = fresh.api_key;
    config->key_is_credential = fresh.key_is_credential;
    return 1;
}
