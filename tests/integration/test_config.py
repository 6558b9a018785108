"""Configuration errors are found before anything is touched: exit 78 with FILE:LINE: setting: text."""

import os
import re
import subprocess

import pytest

from daemon import KEY, Raw, binary_path, clean_environment


def check(daemon, option="-t", environment=None):
    """`pulse-canceld -t`: (exit code, stderr)."""
    done = subprocess.run([binary_path(), option, "-c", daemon.config], capture_output=True, text=True,
                          env=clean_environment(**(environment or {})), timeout=20, check=False)
    return done.returncode, done.stderr


RANGES = [
    ("api.connect_timeout_ms", 1, 600000), ("api.timeout_ms", 1, 600000), ("spool.max_file_bytes", 1, 1073741824),
    ("spool.settle_ms", 0, 600000), ("spool.rescan_interval_s", 1, 86400), ("socket.max_clients", 1, 100000),
    ("queue.max_pending", 1, 100000000), ("queue.history_days", 1, 3650), ("dispatch.max_in_flight", 1, 1000),
    ("dispatch.rate_per_s", 0, 1000000), ("dispatch.shutdown_grace_s", 0, 3600), ("retry.max_attempts", 1, 1000),
    ("retry.base_delay_ms", 1, 3600000), ("retry.max_delay_ms", 1, 86400000), ("retry.deadline_s", 1, 2592000),
]
STRINGS = ["api.base_url", "api.endpoint", "api.key_file", "api.ca_file", "api.proxy", "api.verify",
           "api.on_unauthorized", "spool.directory", "socket.path", "socket.mode", "socket.group", "socket.admin_group",
           "queue.database", "results.path", "log.level"]

BAD = [(name, Raw(str(low - 1))) for name, low, _ in RANGES]
BAD += [(name, Raw(str(high + 1))) for name, _, high in RANGES]
BAD += [(name, Raw(text)) for name, _, _ in RANGES for text in ("3000000000", "99999999999999999999", "1.5")]
BAD += [(name, value) for name, _, _ in RANGES for value in ("10", True)]
BAD += [(name, Raw(text)) for name in STRINGS for text in ("1", "true", "[ \"a\" ]", "{ a = 1; }")]
BAD += [("dispatch.adaptive", value) for value in ("true", 1, Raw("1.0"))]
BAD += [("api.endpoint", value) for value in ("Cancel", "", "both")]
BAD += [("api.verify", "sometimes"), ("api.on_unauthorized", "retry"), ("log.level", "verbose"), ("log.level", "")]
BAD += [("socket.group", "no-such-group-here"), ("socket.admin_group", "no-such-group-here")]
BAD += [("socket.mode", value) for value in ("660x", "", "0888", "rw-rw----", "77777", "-1")]
BAD += [("socket.path", ""), ("socket.path", "/" + "x" * 108), ("spool.directory", ""), ("results.path", ""),
        ("queue.database", "")]
BAD += [("api.ca_file", "/nonexistent/ca.pem"), ("api.ca_file", "/etc/passwd"), ("api.proxy", "::not a url::")]
BAD += [("api.base_url", value) for value in (
    "", "127.0.0.1", "api.runpulse.com", "ftp://127.0.0.1", "file:///etc/passwd", "https://", "https:///x", "https//x",
    "http://api.runpulse.com", "http://192.168.0.1", "http://128.0.0.1", "http://[::2]", "http://localhost.example.com",
    "http://127.0.0.1.example.com", "http://0.0.0.0", "https://user@host.example", "https://user:pass@host.example",
    "https://host.example?x=1", "https://host.example/?", "https://host.example/#f", "https://host.example:99999",
    "https://host.example:x", "https://host .example", "https://host.example/a b", "https://host.example/\n",
    "http://127.0.0.1@elsewhere.example", "gopher://localhost", "unix:///x")]
BAD += [(name, 1) for name in ("api.timeout", "api.Base_url", "spool.dir", "retry.max_attempt", "dispatch.x", "log.x",
                               "results.mode", "queue.path", "socket.paths")]
BAD += [("apis.base_url", "x"), ("nonsense.x", 1)]


@pytest.mark.parametrize("name, value", BAD, ids=[f"{name}={value.text if isinstance(value, Raw) else value!r}"[:60]
                                                  for name, value in BAD])
def test_bad_settings(bad_daemon, name, value):
    group, setting = name.split(".")
    kept = {one: dict(settings) for one, settings in bad_daemon.settings.items()}
    try:
        bad_daemon.set(**{group: {setting: value}})
        code, stderr = check(bad_daemon)
        assert code == 78, stderr
        line = bad_daemon.line_of(group, setting)
        allowed = [line] if group in kept else [line, line - 1]     # an unknown group: its own line will do
        found = re.search(rf"{re.escape(bad_daemon.config)}:(\d+): ({re.escape(name)}|{group}): \S", stderr)
        assert found and int(found[1]) in allowed, stderr
        assert KEY not in stderr
    finally:
        bad_daemon.settings = kept
        bad_daemon.set()


@pytest.fixture(scope="module")
def bad_daemon():
    from daemon import Daemon
    daemon = Daemon(base_url="http://127.0.0.1:9")
    daemon.set(socket={"max_clients": 10}, dispatch={"max_in_flight": 10}, queue={"max_pending": 10})
    yield daemon
    daemon.destroy()


def test_bounds_are_good(make_daemon):
    daemon = make_daemon()
    for pick in (0, 1):
        for name, *bounds in RANGES:
            group, setting = name.split(".")
            daemon.set(**{group: {setting: bounds[pick]}})
        code, stderr = check(daemon)
        assert code == 0, stderr


@pytest.mark.parametrize("value", ["https://api.runpulse.com", "https://api.runpulse.com/",
                                   "https://h.example:8443/v1/", "http://localhost", "http://localhost:1",
                                   "http://127.0.0.1:80", "http://127.9.9.9", "http://[::1]:80", "https://[2001:db8::1]/x",
                                   "HTTPS://API.EXAMPLE", "http://LOCALHOST"])
def test_good_base_urls(make_daemon, value):
    code, stderr = check(make_daemon(base_url=value))
    assert code == 0, stderr


TEXTS = [("a syntax error", "api = {\n  base_url = ;\n};\n", 2), ("a duplicate setting",
         "log = {\n  level = \"info\";\n  level = \"info\";\n};\n", 3),
         ("a duplicate group", "log = { };\nlog = { };\n", 2),
         ("a group that is a number", "log = 1;\n", 1), ("a group that is a list", "\nlog = ( 1, 2 );\n", 2),
         ("a setting outside a group", "level = \"info\";\n", 1), ("an unknown group", "logs = { };\n", 1),
         ("an open group", "log = {\n", None), ("binary", "\x01\x02\n", 1)]


@pytest.mark.parametrize("text, line", [case[1:] for case in TEXTS], ids=[case[0].replace(" ", "-") for case in TEXTS])
def test_bad_files(make_daemon, text, line):
    daemon = make_daemon()
    with open(daemon.config, "w", encoding="ascii") as file:
        file.write(text)
    code, stderr = check(daemon)
    assert code == 78
    found = re.search(rf"{re.escape(daemon.config)}:(\d+): ", stderr)
    assert found and (line is None or int(found[1]) == line), stderr


def test_a_missing_configuration(make_daemon):
    daemon = make_daemon()
    os.unlink(daemon.config)
    code, stderr = check(daemon)
    assert code == 78 and daemon.config in stderr
    daemon.spawn()
    assert daemon.wait() == 78
    assert daemon.config in daemon.stderr()


def test_a_good_configuration_makes_nothing(make_daemon):
    daemon = make_daemon()
    daemon.set(spool={"directory": "/nonexistent/spool"}, queue={"database": "/nonexistent/db/queue.db"},
               results={"path": "/nonexistent/log/results.log"}, socket={"path": "/nonexistent/s"})
    before = sorted(os.listdir(daemon.home))
    code, stderr = check(daemon, "--test-config")
    assert code == 0, stderr
    assert sorted(os.listdir(daemon.home)) == before and not os.path.exists("/nonexistent")


def test_only_the_key_has_to_be_given(make_daemon):
    daemon = make_daemon()
    with open(daemon.config, "w", encoding="ascii") as file:
        file.write(f"api = {{ key_file = \"{daemon.key_file}\"; }};\n")
    assert check(daemon)[0] == 0


KEYS = [("empty", b"", 0o600), ("only a newline", b"\n", 0o600), ("a blank", b"ab cd\n", 0o600),
        ("a leading blank", b" abcd\n", 0o600), ("a trailing blank", b"abcd \n", 0o600), ("a tab", b"ab\tcd\n", 0o600),
        ("a control character", b"ab\x01cd\n", 0o600), ("two lines", b"ab\ncd\n", 0o600),
        ("a NUL", b"ab\x00cd\n", 0o600),
        ("a blank line after", b"abcd\n\n", 0o600), ("CR in between", b"ab\rcd\n", 0o600), ("DEL", b"ab\x7f\n", 0o600),
        ("others read", b"abcd\n", 0o604), ("others write", b"abcd\n", 0o602), ("others execute", b"abcd\n", 0o601),
        ("group writes", b"abcd\n", 0o620), ("all", b"abcd\n", 0o666)]


@pytest.mark.parametrize("data, mode", [case[1:] for case in KEYS], ids=[case[0].replace(" ", "-") for case in KEYS])
def test_bad_keys(make_daemon, data, mode):
    daemon = make_daemon()
    with open(daemon.key_file, "wb") as file:
        file.write(data)
    os.chmod(daemon.key_file, mode)
    code, stderr = check(daemon)
    assert code == 78 and daemon.key_file in stderr
    text = data.strip(b"\n").decode()
    assert not text or text not in stderr
    daemon.spawn()
    assert daemon.wait() == 78
    assert not os.path.exists(daemon.database) and not os.path.exists(daemon.results)


@pytest.mark.parametrize("data, mode", [(b"test-key", 0o600), (b"test-key\n", 0o400), (b"test-key\r\n", 0o640)])
def test_good_keys(make_daemon, data, mode):
    daemon = make_daemon()
    with open(daemon.key_file, "wb") as file:
        file.write(data)
    os.chmod(daemon.key_file, mode)
    assert check(daemon)[0] == 0
    daemon.start()
    assert daemon.outcome("a")["outcome"] == "cancelled"


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_a_key_file_that_is_none(make_daemon, kind):
    daemon = make_daemon()
    os.unlink(daemon.key_file)
    if kind == "directory":
        os.mkdir(daemon.key_file, 0o700)
    elif kind == "fifo":
        os.mkfifo(daemon.key_file, 0o600)
    code, stderr = check(daemon)
    assert code == 78 and daemon.key_file in stderr and "api.key_file: " in stderr


def test_the_credentials_directory_comes_first(make_daemon):
    daemon = make_daemon()
    credentials = os.path.join(daemon.home, "credentials")
    os.mkdir(credentials)
    with open(os.path.join(credentials, "api-key"), "w", encoding="ascii") as file:
        file.write("test-key\n")
    os.chmod(os.path.join(credentials, "api-key"), 0o444)       # systemd guards the directory
    with open(daemon.key_file, "w", encoding="ascii") as file:
        file.write("wrong-key\n")
    daemon.environment["CREDENTIALS_DIRECTORY"] = credentials
    daemon.start()
    assert daemon.outcome("a")["outcome"] == "cancelled"
    daemon.stop()
    os.unlink(daemon.key_file)
    assert check(daemon, environment=daemon.environment)[0] == 0
    daemon.write_key(daemon.key)
    daemon.environment["CREDENTIALS_DIRECTORY"] = daemon.home    # has no api-key
    assert check(daemon, environment=daemon.environment)[0] == 0


def test_a_bad_configuration_at_start(make_daemon):
    daemon = make_daemon(retry={"max_attempts": 0})
    daemon.spawn()
    assert daemon.wait() == 78
    assert re.search(r":\d+: retry\.max_attempts: ", daemon.stderr())
    assert not os.path.exists(daemon.socket) and not os.path.exists(daemon.database)
