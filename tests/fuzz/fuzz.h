/* What the fuzz targets share. A target is one LLVMFuzzerTestOneInput(): libFuzzer calls it with
 * what it makes up, replay.c with the files of the corpus. It checks what has to hold for any
 * input, and aborts where that does not. */
#ifndef PULSE_TESTS_FUZZ_H
#define PULSE_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                           \
    ((condition) ? (void) 0 : fuzz_failed(__FILE__, __LINE__, #condition, NULL, 0))

/* The same, and shows a text that goes with it. */
#define CHECK_TEXT(condition, text, len)                                                           \
    ((condition) ? (void) 0 : fuzz_failed(__FILE__, __LINE__, #condition, text, len))

_Noreturn void fuzz_failed(const char *file, int line, const char *condition, const char *text,
                           size_t len);

/* What is left of an input whose first fields are a line each. */
struct fuzz_input {
    const char *at;
    size_t left;
};

/* The next field, without its newline, as a string: its NUL bytes become '?'. The caller frees
 * it. */
char *fuzz_field(struct fuzz_input *in);

/* The next field as a number; 0 when it is none. Any 64 bits. */
int64_t fuzz_number(struct fuzz_input *in);

/* A copy of exactly so many bytes, so that ASan sees who reads on. The caller frees it. */
char *fuzz_copy(const char *text, size_t len);

/* A directory for the process's files, in memory where there is one; removed at its end with what
 * was made in it by fuzz_path(). */
const char *fuzz_path(const char *name);
void fuzz_write_file(const char *path, const char *text, size_t len);

/* Written once more from the contract, so that a mistake would have to be made twice. */
bool fuzz_is_job_id(const char *text);
bool fuzz_is_request_id(const char *text);

/* Whether it is printable ASCII. */
bool fuzz_is_plain(const char *text);

/* A result line has to be one JSON object with all its members in their order. The caller puts
 * it. */
struct json_object *fuzz_check_result(const char *line, size_t len);

/* Its parse tree; it must be JSON that breaks no line. The caller puts it. */
struct json_object *fuzz_check_json(const char *text, size_t len);

const char *fuzz_string(struct json_object *object, const char *member);

#endif
