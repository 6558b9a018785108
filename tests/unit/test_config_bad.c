/* Bad configurations, each with the FILE:LINE text that it must get. */
#include "config_place.h"

#include <sys/resource.h>

struct bad_case {
    const char *text;
    const char *what;
};

#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define IN_CLEAR                                                                                   \
    "plain http is for localhost, 127.0.0.0/8 and [::1] only, since the key would travel in "      \
    "clear: use https"

static const struct bad_case bad_cases[] = {
    /* Unknown ones. */
    { "\napi = {\n  bas_url = \"x\"; };", ":3: api.bas_url: unknown setting" },
    { "nats = { servers = (\"x\"); };", ":1: nats: unknown setting" },
    { "ap = { };", ":1: ap: unknown setting" },
    { "timeout_ms = 5;", ":1: timeout_ms: unknown setting" },
    { "api = { api = { timeout_ms = 5; }; };", ":1: api.api: unknown setting" },
    { "log = { Level = \"info\"; };", ":1: log.Level: unknown setting" },
    { "log = \"info\";", ":1: log: must be a group, as in log = { ... };" },
    { "log = ( );", ":1: log: must be a group, as in log = { ... };" },

    /* Types. */
    { "api = { timeout_ms = \"5\"; };",
      ":1: api.timeout_ms: must be an integer from 1 to 600000, not \"5\"" },
    { "api = {\n\n timeout_ms =\n 5.0; };",
      ":3: api.timeout_ms: must be an integer from 1 to 600000, not a number with a fraction" },
    { "api = { timeout_ms = 1e3; };",
      ":1: api.timeout_ms: must be an integer from 1 to 600000, not a number with a fraction" },
    { "api = { timeout_ms = true; };",
      ":1: api.timeout_ms: must be an integer from 1 to 600000, not true" },
    { "api = { timeout_ms = [5]; };",
      ":1: api.timeout_ms: must be an integer from 1 to 600000, not a list" },
    { "api = { timeout_ms = { }; };",
      ":1: api.timeout_ms: must be an integer from 1 to 600000, not a group" },
    { "api = { key_file = 5; };", ":1: api.key_file: must be a string, not 5" },
    { "api = { key_file = (\"/x\"); };", ":1: api.key_file: must be a string, not a list" },
    { "dispatch = { adaptive = 1; };", ":1: dispatch.adaptive: must be true or false, not 1" },
    { "dispatch = { adaptive = \"true\"; };",
      ":1: dispatch.adaptive: must be true or false, not \"true\"" },
    { "api = { endpoint = \"Auto\"; };",
      ":1: api.endpoint: must be \"auto\", \"cancel\" or \"job\", not \"Auto\"" },
    { "api = { on_unauthorized = \"\"; };",
      ":1: api.on_unauthorized: must be \"fail\" or \"hold\", not \"\"" },
    { "log = { level = 3; };",
      ":1: log.level: must be \"error\", \"warning\", \"info\" or \"debug\", not 3" },
    { "log = { level = \"a\\x1b[2J\\n\"; };",
      ":1: log.level: must be \"error\", \"warning\", \"info\" or \"debug\", not "
      "\"a\\u001b[2J\\n\"" },
#define BAD_MODE                                                                                   \
    ":1: socket.mode: must be an octal string from \"0\" to \"0777\", such as \"0660\", not "
    { "socket = { mode = 0660; };", BAD_MODE "660" },
    { "socket = { mode = \"\"; };", BAD_MODE "\"\"" },
    { "socket = { mode = \"0680\"; };", BAD_MODE "\"0680\"" },
    { "socket = { mode = \"1777\"; };", BAD_MODE "\"1777\"" },
    { "socket = { mode = \"00660\"; };", BAD_MODE "\"00660\"" },
    { "socket = { mode = \"+660\"; };", BAD_MODE "\"+660\"" },
    { "socket = { mode = \"660 \"; };", BAD_MODE "\"660 \"" },

/* Ranges, beyond what libconfig can read too. */
#define BAD_INT ":1: api.timeout_ms: must be an integer from 1 to 600000, not "
    { "api = { timeout_ms = 0; };", BAD_INT "0" },
    { "api = { timeout_ms = -1; };", BAD_INT "-1" },
    { "api = { timeout_ms = 600001; };", BAD_INT "600001" },
    { "api = { timeout_ms = 3000000000; };", BAD_INT "3000000000" },
    { "api = { timeout_ms = 4294967297; };", BAD_INT "4294967297" },
    { "api = { timeout_ms = -4294967295; };", BAD_INT "-4294967295" },
    { "api = { timeout_ms = 0x100000001; };", BAD_INT "4294967297" },
    { "api = { timeout_ms = 4294967297L; };", BAD_INT "4294967297" },
    { "api = { timeout_ms = 18446744073709551617; };", BAD_INT "9223372036854775807" },
    { "dispatch = { rate_per_s = -1; };",
      ":1: dispatch.rate_per_s: must be an integer from 0 to 1000000, not -1" },
    { "retry = { deadline_s = 2592001; };",
      ":1: retry.deadline_s: must be an integer from 1 to 2592000, not 2592001" },

/* Duplicates and syntax. */
#define TWICE "is set more than once, or its group is: change the line that is there"
    { "api = {\n timeout_ms = 5;\n\n timeout_ms = 5;\n};", ":4: api.timeout_ms: " TWICE },
    { "api = { timeout_ms = 5; timeout_ms = 5; };", ":1: api.timeout_ms: " TWICE },
    { "api = { };\nlog = { };\napi = { };", ":3: api: " TWICE },
    { "api = {\n timeout_ms 5;\n};", ":2: api.timeout_ms: a = is missing behind it" },
    { "api = {\n base_url \"https://x\";\n};", ":2: api.base_url: a = is missing behind it" },
    { "api = {\n timeout_ms = 5;\n", ":1: api: its group has no end: a } is missing" },
    { "api.timeout_ms = 5;", ":1: api: a = is missing behind it (as in api = { NAME = VALUE; };)" },
    { "api = { timeout_ms.x = 5; };", ":1: api.timeout_ms: a = is missing behind it" },
    { "api 5;", ":1: api: a = is missing behind it" },
    { "api = {\n timeout_ms = ;\n};",
      ":2: api.timeout_ms: its value is missing, or can't be read" },
    { "log = {\n level = info;\n};", ":2: log.level: its value is missing, or can't be read" },
    { "api = { timeout_ms = --5; };",
      ":1: api.timeout_ms: its value is missing, or can't be read" },
    { "api = { timeout_ms = 5 \"x\"; };", ":1: api: the name of a setting, or }, is expected" },
    { "api = { };\n\n};", ":3: the name of a setting is expected" },
    { "\"api\" = { };", ":1: the name of a setting is expected" },
    { "api = { endpoint = (\"a\",\n };",
      ":2: api.endpoint: its value is missing, or can't be read" },
    { "api = { endpoint = [\"a\";\n };", ":1: api.endpoint: its list has no end" },
    { "api = { endpoint = [\"a\", 1]; };", ":1: api.endpoint: mismatched element type in array" },
    { "a={a={a={a={a={a={a={a={a={};};};};};};};};};", ":1: a.a.a.a.a.a.a.a.a: too deeply nested" },
    { "api = {\n key_file = \"/x;\n };\n", ":2: a string starts here that does not end" },
    { "log = { };\n/* api = { };\n", ":2: a comment starts here that does not end" },
    { "@include \"x.conf\"\n", ":1: @include is not supported: put all settings into one file" },
    { "\nsocket = { group = \"a\\x00b\"; };", ":2: a string holds a NUL (\\x00)" },

/* URLs. */
#define BAD_URL(url, what)                                                                         \
    {                                                                                              \
        "api = { base_url = \"" url "\"; };", ":1: api.base_url: " what                            \
    }
    BAD_URL("", "is not a URL"),
    BAD_URL("api.runpulse.com", "is not a URL"),
    BAD_URL("://x", "is not a URL"),
    BAD_URL("ftp://x", "must start with https://, or with http:// to this machine"),
    BAD_URL("httpss://x", "must start with https://, or with http:// to this machine"),
    BAD_URL("https://", "its host is not a name or an address"),
    BAD_URL("https:///x", "its host is not a name or an address"),
    BAD_URL("https://:443", "its host is not a name or an address"),
    BAD_URL("https://...", "its host is not a name or an address"),
    BAD_URL("https://a%20b", "its host is not a name or an address"),
    BAD_URL("https://a,b", "its host is not a name or an address"),
    BAD_URL("https://::1", "its host is not a name or an address"),
    BAD_URL("https://[::1", "there is no IPv6 address in its brackets"),
    BAD_URL("https://[::1%25eth0]", "there is no IPv6 address in its brackets"),
    BAD_URL("https://[127.0.0.1]", "there is no IPv6 address in its brackets"),
    BAD_URL("https://[::1]x", "its host is not a name or an address"),
    BAD_URL("https://x:", "its port is not from 1 to 65535"),
    BAD_URL("https://x:0", "its port is not from 1 to 65535"),
    BAD_URL("https://x:65536", "its port is not from 1 to 65535"),
    BAD_URL("https://x:99999999999999999999", "its port is not from 1 to 65535"),
    BAD_URL("https://x:4a", "its port is not from 1 to 65535"),
    BAD_URL("https://[::1]:", "its port is not from 1 to 65535"),
    BAD_URL("https://u@x", "must not have user info (before the @)"),
    BAD_URL("https://u:p@x", "must not have user info (before the @)"),
    BAD_URL("http://localhost@x/", "must not have user info (before the @)"),
    BAD_URL("https://x?y", "must not have a query (?)"),
    BAD_URL("https://x/?", "must not have a query (?)"),
    BAD_URL("https://x/#", "must not have a fragment (#)"),
    BAD_URL("https://x/a b", "byte 12 is not allowed in a URL"),
    BAD_URL("https://x/a\\nb", "byte 12 is not allowed in a URL"),
    BAD_URL("https://x/a\\\\b", "byte 12 is not allowed in a URL"),
    BAD_URL("https://\xc3\xa9", "byte 9 is not allowed in a URL"),
    BAD_URL("https://x/%4", "byte 11 is not allowed in a URL"),
    BAD_URL("https://x//", "must not end in more than one slash"),
    BAD_URL("http://api.runpulse.com", IN_CLEAR),
    BAD_URL("http://localhost.example.com", IN_CLEAR),
    BAD_URL("http://127.0.0.1.example.com", IN_CLEAR),
    BAD_URL("http://127.1", IN_CLEAR),
    BAD_URL("http://0x7f.0.0.1", IN_CLEAR),
    BAD_URL("http://2130706433", IN_CLEAR),
    BAD_URL("http://128.0.0.1", IN_CLEAR),
    BAD_URL("http://0.0.0.0", IN_CLEAR),
    BAD_URL("http://[::]", IN_CLEAR),
    BAD_URL("http://[::ffff:127.0.0.1]", IN_CLEAR),

#define BAD_PROXY(url, what)                                                                       \
    {                                                                                              \
        "api = {\n proxy = \"" url "\"; };", ":2: api.proxy: " what                                \
    }
    BAD_PROXY("proxy:3128", "is not a URL"),
    BAD_PROXY("ftp://proxy", "must start with http://, https://, socks4://, socks4a://, socks5:// "
                             "or socks5h://"),
    BAD_PROXY("http://u:secret@", "its host is not a name or an address"),
    BAD_PROXY("http://proxy/x", "must end after its host and port"),
    BAD_PROXY("http://proxy?x", "must end after its host and port"),
    BAD_PROXY("http://u:p%00q@proxy", "must not have a NUL byte (%00) in its user or password"),
    BAD_PROXY("http://pro xy", "byte 11 is not allowed in a URL"),
    { "api = { base_url = \"http://localhost\";\n proxy = \"http://proxy:3128\"; };",
      ":2: api.proxy: with a plain http api.base_url the proxy must be on this machine, since the "
      "key would travel in clear" },

    /* Paths. */
    { "spool = { directory = \"spool\"; };", ":1: spool.directory: must be an absolute path" },
    { "spool = { directory = \"\"; };", ":1: spool.directory: must be an absolute path" },
    { "spool = { directory = \"//\"; };", ":1: spool.directory: must not be the root directory" },
    { "queue = { database = \"./q.db\"; };", ":1: queue.database: must be an absolute path" },
    { "results = { path = \"/x/\"; };",
      ":1: results.path: must be the path of a file, not of a directory" },
    { "api = { key_file = \"\"; };", ":1: api.key_file: must be an absolute path" },
    { "api = { ca_file = \"ca.pem\"; };", ":1: api.ca_file: must be an absolute path" },
    { "api = { ca_file = \"/nowhere/ca.pem\"; };",
      ":1: api.ca_file: /nowhere/ca.pem: cannot be read: No such file or directory" },
    { "api = { ca_file = \"/nowhere/a\\n\\x1b[2J\\x7f\"; };",
      ":1: api.ca_file: /nowhere/a\\x0a\\x1b[2J\\x7f: cannot be read: No such file or directory" },
    { "socket = { path = \"/" X50 X50 "xxxxxxx\"; };",
      ":1: socket.path: is longer than 107 bytes, the most a socket's path may have" },
};

static void test_bad_files(void **state)
{
    for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++)
        assert_bad(*state, bad_cases[i].text, strlen(bad_cases[i].text), bad_cases[i].what);
}

/* What is not a certificate that a line of its own begins and another ends. */
static void test_ca_file(void **state)
{
    static const char *const bad[] = {
        "",
        "hello\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "# -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
    };
    static const char *const good[] = {
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "The root:\r\n-----BEGIN TRUSTED CERTIFICATE-----\r\nMIIB\r\n"
        "-----END TRUSTED CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
        "-----BEGIN X509 CERTIFICATE-----\nMIIB\n-----END X509 CERTIFICATE-----\n",
    };
    struct place *p = *state;
    char text[512];
    char what[512];
    /* The key file is read from elsewhere here, so its place is free. */
    (void) snprintf(text, sizeof(text), "\napi = { ca_file = \"%s\"; };", p->key_file);
    (void) snprintf(what, sizeof(what),
                    ":2: api.ca_file: %s: holds no certificate in PEM (from "
                    "-----BEGIN CERTIFICATE----- on)",
                    p->key_file);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_file(p->key_file, bad[i], strlen(bad[i]), 0644);
        assert_bad(p, text, strlen(text), what);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        write_file(p->key_file, good[i], strlen(good[i]), 0644);
        config_unload(load_good(p, text));
    }

    assert_int_equal(unlink(p->key_file), 0);
    assert_int_equal(mkfifo(p->key_file, 0600), 0);
    (void) snprintf(what, sizeof(what), ":2: api.ca_file: %s: is not a regular file", p->key_file);
    assert_bad(p, text, strlen(text), what);
}

static void test_nul_byte(void **state)
{
    static const char text[] = "log = { };\n\0\nlog = { };";
    assert_bad(*state, text, sizeof(text) - 1, ":2: the file has a NUL byte");
}

static void test_unreadable(void **state)
{
    struct place *p = *state;
    assert_bad(p, NULL, 0, ": cannot be read: No such file or directory");
    assert_int_equal(mkdir(p->file, 0700), 0);
    assert_bad(p, NULL, 0, ": cannot be read: Is a directory");
    assert_int_equal(rmdir(p->file), 0);
}

static void test_huge(void **state)
{
    size_t len = 2 * 1024 * 1024;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '\n', len);
    write_file(((struct place *) *state)->file, text, len, 0644);
    assert_bad(*state, NULL, 0, ": cannot be read: File too large");
    free(text);
}

/* No descriptor left: no fault of the configuration's, and told as something else. */
static void test_passing_trouble(void **state)
{
    struct place *p = *state;
    struct rlimit limit, none;
    struct config *config = NULL;
    struct buf err;
    buf_init(&err, 8192);
    write_file(p->file, "", 0, 0644);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int r = config_load(p->file, &config, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(r, -EMFILE);
    assert_null(config);
    assert_non_null(strstr(buf_cstr(&err), ": cannot be read: Too many open files"));
    buf_finish(&err);
}

/* Whatever bytes, an answer and no crash: cut and mutated copies of a whole file. */
static void test_mutations(void **state)
{
    struct place *p = *state;
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(fs_read_file(PULSE_SOURCE_DIR "/etc/pulse-canceld.conf", 1000000, &text, &len),
                     0);
    uint32_t random = 1;
    for (int i = 0; i < 1500; i++) {
        char *copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, text, len);
        size_t copy_len = len;
        for (int k = 0; k <= i % 8; k++) {
            static const char bytes[] = "\"{}()[]=:;,@#/*\\\nxL0.e-\0\xff";
            random = random * 1664525 + 1013904223;
            copy[(random >> 8) % len] = bytes[(random >> 3) % sizeof(bytes)];
        }
        if (i % 3 == 0)
            copy_len = (random >> 8) % len;
        write_file(p->file, copy, copy_len, 0644);
        struct config *config = NULL;
        struct buf err;
        buf_init(&err, 8192);
        int r = config_load(p->file, &config, &err);
        assert_true(r == 0 || r == -EINVAL);
        assert_int_equal(err.len > 0, r < 0);
        config_unload(config);
        buf_finish(&err);
        free(copy);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ca_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nul_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_passing_trouble, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mutations, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
