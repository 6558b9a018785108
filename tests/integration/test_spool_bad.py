"""Lines that are wrong, and files that can't be taken."""

import os
import socket

import pytest

from waiting import wait_until

BAD_LINES = [
    b"two words", b"a/b", b"../etc/passwd", b"..", b".", b"x" * 256, b"a\x1b[31mb", b"\xff\xfe", b"caf\xc3\xa9",
    b"a\tb",
    b"a%20b", b"{", b"{}", b"[]", b"[\"a\"]", b'"a"', b'{"job_id": 1}', b'{"job_id": null}', b'{"job_id": ""}',
    b'{"job_id": "a b"}', b'{"job_id": "a", "job_id": "a"}', b'{"job_id": "a", "jobid": "b"}',
    b'{"job_id": "a", "wait": true}', b'{"job_id": "a", "deadline_s": 0}', b'{"job_id": "a", "deadline_s": 2592001}',
    b'{"job_id": "a", "deadline_s": "60"}', b'{"job_id": "a", "deadline_s": 1.5}', b'{"job_id": "a", "deadline_s": -1}',
    b'{"job_id": "a", "deadline_s": 99999999999999999999}', b'{"job_id": "a", "request_id": ""}',
    b'{"job_id": "a", "request_id": "x y"}', b'{"job_id": "a", "request_id": "x~y"}',
    b'{"job_id": "a", "request_id": 7}',
    b'{"job_id": "a", "request_id": "' + b"r" * 129 + b'"}', b'{"job_id": "a\\u0000b"}', b'{"job_id": "a"} x',
    b'{"job_id": "a"}{"job_id": "b"}', b"{'job_id': 'a'}", b'{"job_id": "\xff"}', b'{"job_id": "a",}',
    b'{"request_id": "r"}', b"[" * 5000, b'{"job_id":' * 3000, b'{"job_id": "a"', b'{"job_ids": ["a"]}',
    b'{"jsonrpc": "2.0", "method": "cancel", "params": {"job_id": "a"}, "id": 1}', b"a;b", b"x" * 100000,
]


@pytest.mark.parametrize("line", BAD_LINES, ids=[repr(line[:30]) for line in BAD_LINES])
def test_a_bad_line_is_invalid_and_the_good_ones_are_taken(bad_lines_daemon, standin, line):
    daemon, seen = bad_lines_daemon
    daemon.drop("f", b"good-1\n# comment\n" + line + b"\ngood-2\n")
    records = daemon.wait_records(seen[0] + 3)[seen[0]:]
    seen[0] += 3
    by_outcome = {record["outcome"]: record for record in records}
    assert sorted(record["job_id"] for record in records if record["outcome"] == "cancelled") == ["good-1", "good-2"]
    bad = by_outcome["invalid"]
    assert bad["message"].startswith("line 3: ") and len(bad["message"]) > len("line 3: ")
    assert (bad["source"], bad["origin"], bad["endpoint"]) == ("spool", "f", None)
    assert (bad["error"]["code"], bad["http_status"], bad["attempts"]) == ("invalid_request", None, 0)
    text = line.decode("utf-8", errors="ignore")
    assert bad["job_id"][:3].encode() == text[:3].encode() or line.startswith(b"\xff")
    assert sorted(entry["job"] for entry in standin.log()) == ["good-1", "good-2"]


@pytest.mark.parametrize("end", [b"\nlast\n", b""], ids=["amid", "at the end"])
def test_a_line_that_is_longer_than_what_is_read_at_a_time(daemon, end):
    """Five times as long: it is passed over bit by bit."""
    daemon.drop("f", b"first\n" + b"x" * (5 << 20) + end)
    records = daemon.wait_records(3 if end else 2)
    good = {record["job_id"] for record in records if record["outcome"] == "cancelled"}
    assert good == ({"first", "last"} if end else {"first"})
    bad, = (record for record in records if record["outcome"] == "invalid")
    assert bad["message"] == "line 2: longer than 1 MiB" and bad["job_id"] == "x" * 255
    wait_until(lambda: not os.listdir(daemon.claimed), "it is done with")


@pytest.fixture(scope="module")
def bad_lines_daemon(shared_standin):
    from daemon import Daemon
    shared_standin.reset()
    daemon = Daemon(base_url=shared_standin.url)
    try:
        daemon.start()
        yield daemon, [0]
        daemon.finish()
    finally:
        daemon.destroy()


HOSTILE_NAMES = [b"two words", b"new\nline", b"esc\x1b[2Jx", b"\xff\xfe", b"caf\xc3\xa9", b"tab\t", b"\x01", b"quote\"",
                 b"back\\slash", b"%n%s", b"{\"job_id\": \"a\"}", b"line\rfeed", b"del\x7f", b"#comment",
                 b"\xe2\x80\xa8",
                 b"a b" * 85, b"\xc3\xa9" * 127]


def test_hostile_names_of_empty_files(daemon, standin):
    for name in HOSTILE_NAMES:
        daemon.drop(name)
    records = daemon.wait_records(len(HOSTILE_NAMES))
    for record in records:
        assert record["outcome"] == "invalid" and record["message"].startswith("line ")
    assert "two words" in [record["origin"] for record in records]
    assert "two words" in [record["job_id"] for record in records]
    assert standin.log() == [] and daemon.spooled() == []


def test_hostile_names_of_files_with_lines(daemon, standin):
    for number, name in enumerate(HOSTILE_NAMES):
        daemon.drop(name, f"job-{number}\n")
    records = daemon.wait_records(len(HOSTILE_NAMES))
    assert sorted(record["job_id"] for record in records) == sorted(f"job-{n}" for n in range(len(HOSTILE_NAMES)))
    assert {record["outcome"] for record in records} == {"cancelled"}
    assert {"two words", "back\\slash", "new\nline"} <= {record["origin"] for record in records}


def test_a_request_id_of_another_job_is_invalid(daemon):
    daemon.drop("f", '{"job_id": "a", "request_id": "r"}\n')
    daemon.wait_records(1)
    daemon.drop("g", '# comment\n{"job_id": "b", "request_id": "r"}\nc\n')
    records = daemon.wait_records(3)
    assert sorted((record["job_id"], record["outcome"]) for record in records[1:])[0] == ("c", "cancelled")
    bad, = [record for record in records if record["outcome"] == "invalid"]
    assert bad["message"].startswith("line 2: ") and bad["request_id"] != "r"


@pytest.mark.parametrize("extra", [0, 1, 50])
def test_the_rest_after_100_bad_lines_is_moved(daemon, standin, extra):
    good = [f"good-{number}" for number in range(10)]
    bad = [f"bad line {number}" for number in range(100 + extra)]
    lines = good + bad + (["after"] if extra else [])
    data = "\n".join(lines) + "\n"
    daemon.drop("f", data)
    wait_until(lambda: not daemon.spooled(), "the file is claimed")
    records = daemon.wait_records(110)
    assert sorted(record["job_id"] for record in records if record["outcome"] == "cancelled") == sorted(good)
    wait_until(lambda: not os.listdir(daemon.claimed), "the claim is gone")
    if not extra:
        return
    assert list(daemon.reasons()) == ["f"]
    with open(os.path.join(daemon.rejected, "f"), encoding="ascii") as file:
        rest = file.read()
    assert rest == "\n".join(lines[110:]) + "\n"
    assert standin.log(job="after") == []


def make_symlink(path):
    os.symlink("/etc/hostname", path)


def make_dangling(path):
    os.symlink("/nonexistent/x", path)


def make_loop(path):
    os.symlink(os.path.basename(path), path)


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.close()


def make_device(path):
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("may not make a device")


def make_large(path):
    with open(path, "wb") as file:
        file.write(b"job\n" * 1000)


def make_nul(path):
    with open(path, "wb") as file:
        file.write(b"job-1\njob-2\nx\0y\n")


def make_zeros(path):
    with open(path, "wb") as file:
        file.write(b"\0" * 100)


UNTAKEABLE = [make_symlink, make_dangling, make_loop, make_fifo, make_socket, make_device, make_large, make_nul,
              make_zeros]


@pytest.mark.parametrize("make", UNTAKEABLE, ids=[make.__name__[5:] for make in UNTAKEABLE])
@pytest.mark.parametrize("running", [True, False])
def test_a_file_that_cannot_be_taken_is_rejected(make_daemon, standin, make, running):
    daemon = make_daemon(spool={"max_file_bytes": 3999})
    path = os.path.join(daemon.spool, "thing")
    aside = os.path.join(daemon.home, "thing")
    make(aside)
    kind = os.lstat(aside).st_mode
    if running:
        daemon.start()
    os.rename(aside, path)
    if not running:
        daemon.start()
    wait_until(lambda: os.path.isdir(daemon.rejected) and len(os.listdir(daemon.rejected)) == 2, "it is rejected")
    reason = daemon.reasons()["thing"]
    assert len(reason) > 20 and reason.endswith("\n")
    assert os.lstat(os.path.join(daemon.rejected, "thing")).st_mode == kind
    assert daemon.spooled() == []
    daemon.drop("good", b"")
    assert [record["job_id"] for record in daemon.wait_records(1)] == ["good"]
    wait_until(lambda: daemon.call("stats")["spool"]["rejected"] == 1, "it is counted")
    assert [entry["job"] for entry in standin.log()] == ["good"]


def test_a_file_as_large_as_allowed(start):
    daemon = start(spool={"max_file_bytes": 4000})
    daemon.drop("f", b"job\n" * 1000)
    assert len(daemon.wait_records(1000)) == 1000


def test_a_nul_at_the_end_of_a_large_file_takes_nothing(daemon, standin):
    daemon.drop("f", b"".join(b"job-%d\n" % number for number in range(100000)) + b"\0")
    wait_until(lambda: list(daemon.reasons()) == ["f"] if os.path.isdir(daemon.rejected) and
               len(os.listdir(daemon.rejected)) == 2 else False, "it is rejected")
    assert daemon.call("stats")["accepted"]["spool"] == 0
    assert standin.log() == [] and daemon.records() == []


def test_an_unreadable_file_is_rejected(make_daemon):
    if os.getuid() != 0:
        pytest.skip("needs a second user")
    daemon = make_daemon(user=65534)
    daemon.start()
    descriptor = os.open(os.path.join(daemon.spool, "secret"), os.O_CREAT | os.O_WRONLY, 0)
    os.write(descriptor, b"job\n")
    os.close(descriptor)
    wait_until(lambda: os.path.isdir(daemon.rejected) and "secret.reason" in os.listdir(daemon.rejected), "rejected")
    assert daemon.reasons()["secret"]
    assert daemon.records() == []


def test_a_name_that_is_taken_in_rejected_gets_a_suffix(daemon):
    for number in range(3):
        daemon.drop("f", b"x\0%d" % number)
        wait_until(lambda: os.path.isdir(daemon.rejected) and len(os.listdir(daemon.rejected)) == 2 * (number + 1),
                   "it is rejected")
    reasons = daemon.reasons()
    assert len(reasons) == 3 and "f" in reasons and all(name.startswith("f") for name in reasons)
    contents = set()
    for name in reasons:
        with open(os.path.join(daemon.rejected, name), "rb") as file:
            contents.add(file.read())
    assert contents == {b"x\x000", b"x\x001", b"x\x002"}


def test_a_rejected_file_with_the_longest_name(daemon):
    daemon.drop("n" * 255, b"\0")
    wait_until(lambda: os.path.isdir(daemon.rejected) and len(os.listdir(daemon.rejected)) == 2, "it is rejected")
    assert daemon.spooled() == []


def test_hostile_names_in_rejected(daemon):
    for name in HOSTILE_NAMES:
        daemon.drop(name, b"\0")
    wait_until(lambda: os.path.isdir(daemon.rejected) and
               len(os.listdir(daemon.rejected)) == 2 * len(HOSTILE_NAMES), "all are rejected")
    assert daemon.spooled() == [] and daemon.records() == []
