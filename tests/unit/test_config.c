/* The configuration: the table against the file that is shipped, good values, the key, reload. */
#include "config_place.h"

/* --- Defaults --- */

static const void *field_of(const struct config *config, const struct setting *setting)
{
    return (const char *) config + setting->offset;
}

/* The value as the configuration file would have it. */
static void value_text(const struct config *config, const struct setting *setting, char *ret_text,
                       size_t size)
{
    const void *field = field_of(config, setting);
    const char *quoted = NULL;
    switch (setting->type) {
    case SETTING_STRING:
        quoted = *(char *const *) field;
        break;
    case SETTING_INT:
        (void) snprintf(ret_text, size, "%lld", (long long) *(const int64_t *) field);
        return;
    case SETTING_BOOL:
        (void) snprintf(ret_text, size, "%s", *(const bool *) field ? "true" : "false");
        return;
    case SETTING_ENUM:
        quoted = setting->names[*(const int *) field];
        break;
    case SETTING_MODE:
        (void) snprintf(ret_text, size, "\"%04o\"", (unsigned) *(const mode_t *) field);
        return;
    }
    (void) snprintf(ret_text, size, "\"%s\"", quoted);
}

static void test_defaults(void **state)
{
    struct config *config = load_good(*state, "");
    for (const struct setting *s = config_settings; s->name != NULL; s++) {
        char text[256];
        char expected[256];
        bool bare = s->type == SETTING_INT || s->type == SETTING_BOOL;
        value_text(config, s, text, sizeof(text));
        (void) snprintf(expected, sizeof(expected), bare ? "%s" : "\"%s\"", s->default_text);
        assert_string_equal(text, expected);
    }
    assert_string_equal(config->api.base_url, "https://api.runpulse.com");
    assert_int_equal(config->api.verify, API_VERIFY_AMBIGUOUS);
    assert_int_equal(config->socket.mode, 0660);
    assert_true(config->dispatch.adaptive);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_string_equal(config->api_key, KEY);
    config_unload(config);
    config_unload(NULL);
}

/* The shipped file has every setting with its default, literally, under its group, and no more. */
static void test_shipped_file(void **state)
{
    (void) state;
    static const char path[] = PULSE_SOURCE_DIR "/etc/pulse-canceld.conf";
    char *text = NULL;
    size_t len = 0;
    size_t settings = 0;
    assert_int_equal(fs_read_file(path, 1000000, &text, &len), 0);

    for (const struct setting *s = config_settings; s->name != NULL; s++, settings++) {
        int group_len = (int) strcspn(s->name, ".");
        const char *quote = s->type == SETTING_INT || s->type == SETTING_BOOL ? "" : "\"";
        char group[64];
        char line[256];
        (void) snprintf(group, sizeof(group), "\n%.*s = {\n", group_len, s->name);
        (void) snprintf(line, sizeof(line), "\n    %s = %s%s%s;\n", s->name + group_len + 1, quote,
                        s->default_text, quote);
        const char *start = strstr(text, group);
        if (start == NULL)
            fail_msg("no group of %s", s->name);
        const char *end = strstr(start, "\n};\n");
        const char *found = strstr(start, line);
        if (end == NULL || found == NULL || found > end)
            fail_msg("%s: no line '%s'", s->name, line + 1);
    }
    size_t lines = 0;
    for (const char *at = text; (at = strstr(at, "\n    ")) != NULL; at++)
        lines += at[5] != '#';
    assert_int_equal(lines, settings);
    free(text);

    struct config *config = NULL;
    struct config *defaults = load_good(*state, "");
    struct buf err;
    buf_init(&err, 1000);
    if (config_load(path, &config, &err) != 0)
        fail_msg("%s", buf_cstr(&err));
    for (const struct setting *s = config_settings; s->name != NULL; s++) {
        char ours[256];
        char theirs[256];
        value_text(defaults, s, ours, sizeof(ours));
        value_text(config, s, theirs, sizeof(theirs));
        assert_string_equal(ours, theirs);
    }
    buf_finish(&err);
    config_unload(config);
    config_unload(defaults);
}

/* --- Good values --- */

static void test_values(void **state)
{
    struct config *config = load_good(
        *state, "api : { base_url = \"http://LOCALHOST:8080/v1/\"; endpoint = \"job\",\n"
                "  ca_file = \"\" proxy = \"socks5h://u:p@[::1]:1080\"; verify = \"always\";\n"
                "  connect_timeout_ms = 0x10; timeout_ms = 600000L; on_unauthorized = \"hold\"; }\n"
                "/* a \" comment */ // another \"\n"
                "# and = {\n"
                "socket = { mode = \"755\"; path = \"/run\" \"/x\"; group = \"root\"; };\n"
                "results = { path = \"/a\\\"b\"; };\n"
                "spool = { directory = \"/a/b//\"; settle_ms = 0; max_file_bytes = 1073741824; };\n"
                "dispatch = { adaptive = False; rate_per_s = 1000000 };\n"
                "retry = { base_delay_ms = 3600000; max_delay_ms = 1; max_attempts = 007; }\n"
                "log = { level = \"debug\"; };\n"
                "queue = { };\n");
    assert_string_equal(config->api.base_url, "http://LOCALHOST:8080/v1");
    assert_int_equal(config->api.endpoint, API_ENDPOINT_JOB);
    assert_string_equal(config->api.proxy, "socks5h://u:p@[::1]:1080");
    assert_int_equal(config->api.verify, API_VERIFY_ALWAYS);
    assert_int_equal(config->api.on_unauthorized, API_UNAUTHORIZED_HOLD);
    assert_int_equal(config->api.connect_timeout_ms, 16);
    assert_int_equal(config->api.timeout_ms, 600000);
    assert_int_equal(config->socket.mode, 0755);
    assert_string_equal(config->socket.path, "/run/x");
    assert_string_equal(config->socket.group, "root");
    assert_string_equal(config->results.path, "/a\"b");
    assert_string_equal(config->spool.directory, "/a/b");
    assert_int_equal(config->spool.settle_ms, 0);
    assert_int_equal(config->spool.max_file_bytes, 1073741824);
    assert_false(config->dispatch.adaptive);
    assert_int_equal(config->retry.base_delay_ms, 3600000);
    assert_int_equal(config->retry.max_delay_ms, 1);
    assert_int_equal(config->retry.max_attempts, 7);
    assert_int_equal(config->log.level, LOG_LEVEL_DEBUG);
    config_unload(config);
}

static void test_good_urls(void **state)
{
    static const char *const urls[] = {
        "https://api.runpulse.com",  "HTTPS://dev.api.runpulse.com/", "https://a-b.c_d:65535/x/y",
        "https://[2001:db8::1]:443", "https://10.0.0.1/%7Ea/@x",      "http://localhost",
        "http://127.0.0.1:1",        "http://127.255.0.9/",           "http://[::1]:80/",
        "http://[0:0:0:0:0:0:0:1]",
    };
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        char text[256];
        (void) snprintf(text, sizeof(text), "api = { base_url = \"%s\"; };", urls[i]);
        struct config *config = load_good(*state, text);
        size_t len = strlen(urls[i]);
        if (urls[i][len - 1] == '/')
            len--;
        assert_int_equal(strlen(config->api.base_url), len);
        assert_memory_equal(config->api.base_url, urls[i], len);
        config_unload(config);
    }
}

/* --- The key --- */

/* Without the credential, and with a configuration whose second line names a key file. */
static void use_key_file(struct place *p, char *ret_text, size_t size)
{
    assert_int_equal(unlink(p->credential), 0);
    (void) snprintf(ret_text, size, "api = {\n key_file = \"%s\"; };", p->key_file);
}

static void test_good_keys(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
    } cases[] = {
        { KEY, 0600 },
        { KEY "\n", 0640 },
        { KEY "\r\n", 0400 },
        { KEY "\n", 0440 },
    };
    struct place *p = *state;
    char text[256];
    use_key_file(p, text, sizeof(text));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_file(p->key_file, cases[i].text, strlen(cases[i].text), cases[i].mode);
        struct config *config = load_good(p, text);
        assert_string_equal(config->api_key, KEY);
        config_unload(config);
    }
}

struct key_case {
    const char *text;
    size_t len;
    mode_t mode;
    const char *what;
};

#define TEXT(s) .text = (s), .len = sizeof(s) - 1

static const struct key_case key_cases[] = {
    { TEXT(""), 0600, "is empty: put the API key there, as its only line" },
    { TEXT("\n"), 0600, "is empty: put the API key there, as its only line" },
    { TEXT("\r\n"), 0600, "is empty: put the API key there, as its only line" },
    { TEXT(KEY " \n"), 0600, "has blanks: put only the API key there" },
    { TEXT("\t" KEY), 0600, "has blanks: put only the API key there" },
    { TEXT("api key"), 0600, "has blanks: put only the API key there" },
    { TEXT(KEY "\n\n"), 0600, "has more than one line: put only the API key there" },
    { TEXT(KEY "\nx"), 0600, "has more than one line: put only the API key there" },
    { TEXT(KEY "\r"), 0600, "has bytes that are not printable ASCII: put only the API key there" },
    { TEXT(KEY "\0"), 0600, "has bytes that are not printable ASCII: put only the API key there" },
    { TEXT("\xef\xbb\xbf" KEY), 0600,
      "has bytes that are not printable ASCII: put only the API key there" },
    { TEXT(KEY "\x7f"), 0600,
      "has bytes that are not printable ASCII: put only the API key there" },
    { TEXT(KEY), 0604, "is open to everyone on this machine: chmod 0600 it (or 0640)" },
    { TEXT(KEY), 0602, "is open to everyone on this machine: chmod 0600 it (or 0640)" },
    { TEXT(KEY), 0644, "is open to everyone on this machine: chmod 0600 it (or 0640)" },
    { TEXT(KEY), 0660, "can be written by its group: chmod 0600 it (or 0640)" },
    { TEXT(KEY), 0620, "can be written by its group: chmod 0600 it (or 0640)" },
};

static void test_bad_keys(void **state)
{
    struct place *p = *state;
    char text[256];
    char what[512];
    use_key_file(p, text, sizeof(text));
    for (size_t i = 0; i < sizeof(key_cases) / sizeof(key_cases[0]); i++) {
        const struct key_case *c = &key_cases[i];
        write_file(p->key_file, c->text, c->len, c->mode);
        (void) snprintf(what, sizeof(what), ":2: api.key_file: %s: %s", p->key_file, c->what);
        assert_bad(p, text, strlen(text), what);
    }

    char longer[5000];
    memset(longer, 'k', sizeof(longer));
    write_file(p->key_file, longer, sizeof(longer), 0600);
    (void) snprintf(what, sizeof(what), ":2: api.key_file: %s: is too long for an API key",
                    p->key_file);
    assert_bad(p, text, strlen(text), what);

    (void) unlink(p->key_file);
    (void) snprintf(
        what, sizeof(what),
        ":2: api.key_file: %s: cannot be read: No such file or directory; put the API key "
        "there, as its only line, and chmod 0600 it",
        p->key_file);
    assert_bad(p, text, strlen(text), what);

    assert_int_equal(mkfifo(p->key_file, 0600), 0);
    (void) snprintf(what, sizeof(what), ":2: api.key_file: %s: is not a regular file", p->key_file);
    assert_bad(p, text, strlen(text), what);
}

/* The credential goes before the file and needs no mode of its own; a bad one is an error. */
static void test_credential(void **state)
{
    struct place *p = *state;
    char text[256];
    char what[512];
    use_key_file(p, text, sizeof(text));
    write_file(p->key_file, "other", 5, 0600);
    write_file(p->credential, KEY, strlen(KEY), 0444);
    struct config *config = load_good(p, text);
    assert_string_equal(config->api_key, KEY);
    config_unload(config);

    write_file(p->credential, "a b", 3, 0400);
    (void) snprintf(what, sizeof(what),
                    ":2: api.key_file: %s: has blanks: put only the API key there (this is the "
                    "service manager's copy: mend the file that it is made from, "
                    "/etc/pulse-canceld/api-key as shipped, and restart)",
                    p->credential);
    assert_bad(p, text, strlen(text), what);

    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", "", 1), 0);
    config = load_good(p, text);
    assert_string_equal(config->api_key, "other");
    config_unload(config);
}

/* --- Reload --- */

static void test_restart_needed(void **state)
{
    struct place *p = *state;
    struct config *a = load_good(p, "");
    struct config *b = load_good(p, "api = { timeout_ms = 1; endpoint = \"job\"; };\n"
                                    "log = { level = \"debug\"; };\n"
                                    "dispatch = { adaptive = false; };\n");
    struct config *c = load_good(p, "socket = { mode = \"0600\"; path = \"/x\"; };\n"
                                    "spool = { settle_ms = 1; };\n"
                                    "retry = { max_attempts = 2; };\n");
    struct buf names;
    buf_init(&names, 1000);
    assert_int_equal(config_restart_needed(a, a, &names), 0);
    assert_int_equal(config_restart_needed(a, b, &names), 0);
    assert_int_equal(names.len, 0);
    assert_int_equal(config_restart_needed(b, c, &names), 3);
    assert_string_equal(buf_cstr(&names), "spool.settle_ms, socket.path, socket.mode");
    buf_finish(&names);
    config_unload(a);
    config_unload(b);
    config_unload(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shipped_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_good_urls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_good_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_credential, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_needed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
