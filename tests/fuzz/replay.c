/* Runs a fuzz target on files, and on the files in directories: its corpus, or what made it
 * fail. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"

#define FILE_MAX ((size_t) 16 * 1024 * 1024)

static void run_file(const char *path)
{
    char *text = NULL;
    size_t len = 0;
    if (fs_read_file(path, FILE_MAX, &text, &len) < 0)
        fuzz_failed(path, 0, "can be read", NULL, 0);
    char *exact = fuzz_copy(text, len);
    free(text);
    /* On stderr first, so that it is there when the target aborts. */
    (void) fprintf(stderr, "%s\n", path);
    (void) LLVMFuzzerTestOneInput((const uint8_t *) exact, len);
    free(exact);
}

static size_t run_directory(const char *path)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0)
        fuzz_failed(path, 0, "can be read", NULL, 0);
    size_t n_files = 0;
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            char name[4096];
            (void) snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
            run_file(name);
            n_files++;
        }
        free(entries[i]);
    }
    free(entries);
    return n_files;
}

int main(int argc, char **argv)
{
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            n += run_directory(argv[i]);
        } else {
            run_file(argv[i]);
            n++;
        }
    }
    (void) printf("%zu inputs\n", n);
    return n > 0 ? 0 : 1;
}
