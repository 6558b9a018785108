"""A spool directory that hostile users may write to: what they leave there harms nobody else.

tests/torture/hostile has the races.
"""

import base64
import contextlib
import os
import pty
import re
import socket
import stat
import subprocess

import pytest

import ctl
from storage import Manager, run
from users import NOBODY, OTHER, as_user, become, need_root
from waiting import holds_for, wait_until

HOSTILE, HONEST, VICTIM = OTHER, OTHER + 1, OTHER + 2
DAEMON = NOBODY
SECRET = "TOP-S3cret"

# Sticky and open to all, readable or not; a group's, where its members may rename what is another's.
SPOOLS = {"1777": (0o1777, DAEMON), "1733": (0o1733, DAEMON), "3770": (0o3770, HOSTILE), "2770": (0o2770, HOSTILE)}

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.fixture
def place(make_daemon):
    """place(mode="1777", user=DAEMON): a daemon that isn't started yet, with such a spool directory."""
    need_root()

    def make(mode="1777", user=DAEMON, **kwargs):
        kwargs.setdefault("socket", {"mode": "0666"})
        kwargs.setdefault("spool", {}).setdefault("rescan_interval_s", 1)
        daemon = make_daemon(user=user, **kwargs)
        bits, group = SPOOLS[mode]
        os.chmod(daemon.home, 0o755)
        os.chown(daemon.spool, user or 0, group)
        os.chmod(daemon.spool, bits)
        return daemon
    return make


def by(user, function, *arguments):
    return as_user(user, user, [HOSTILE] if user == HONEST else [], lambda: function(*arguments))


def write(path, text, mode=0o644):
    """Whole, as far as anyone can see."""
    aside = os.path.join(os.path.dirname(path), ".in-the-making")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(aside, mode)
    os.rename(aside, path)


def drop_honestly(daemon, names):
    """As the README has it: written aside, under a name that starts with a dot, and renamed."""
    def work():
        for name in names:
            write(os.path.join(daemon.spool, f".{name}"), f"{name}\n")
            os.rename(os.path.join(daemon.spool, f".{name}"), os.path.join(daemon.spool, name))
    by(HONEST, work)


def jobs(records):
    return sorted(record["job_id"] for record in records if record["outcome"] == "cancelled")


def until_settled(daemon, names):
    wait_until(lambda: set(names) <= set(jobs(daemon.records())), lambda: f"{names} are settled: {daemon.spooled()}", 20)


def all_that_was_said(daemon):
    """To the log, in the results, and to anyone who asks."""
    program = ctl.copy_for_others(daemon.home)

    def ask():
        return subprocess.run([program, "--socket", daemon.socket, "--json", "list", "--limit", "1000"], cwd="/",
                              stdout=subprocess.PIPE, env=ctl.environment(), text=True, check=True).stdout
    with open(daemon.results, encoding="utf-8") as file:
        return daemon.stderr() + file.read() + by(HOSTILE, ask)


def plant_links(daemon, targets):
    for number, target in enumerate(targets):
        os.symlink(target, os.path.join(daemon.spool, f"link-{number}"))
    for name, target in {"up": "..", "self": "self", "here": ".", "claimed": ".claimed", "rejects": "rejected"}.items():
        os.symlink(target, os.path.join(daemon.spool, f"link-{name}"))


def plant_things(daemon):
    os.mkfifo(os.path.join(daemon.spool, "fifo"))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(os.path.join(daemon.spool, "socket"))
    os.mkdir(os.path.join(daemon.spool, "directory"))
    os.mkdir(os.path.join(daemon.spool, "open"), 0o777)
    write(os.path.join(daemon.spool, "directory", "inside"), "inside\n")
    write(os.path.join(daemon.spool, "private"), "private\n", 0o600)
    write(os.path.join(daemon.spool, "executable"), "executable\n", 0o4755)


@pytest.mark.parametrize("user", [DAEMON, None], ids=["", "as root"])
@pytest.mark.parametrize("mode", SPOOLS)
def test_links_and_things_that_are_no_files(place, mode, user, standin):
    daemon = place(mode, user)
    aside = os.path.join(daemon.home, "aside")
    os.mkdir(aside)
    secrets = {}
    for owner, bits in ((user or 0, 0o600), (VICTIM, 0o600), (0, 0o600), (user or 0, 0o640), (VICTIM, 0o640)):
        path = os.path.join(aside, f"secret-{len(secrets)}")
        write(path, f"{SECRET}\n{SECRET} in a bad line\n", bits)
        os.chown(path, owner, owner)
        secrets[path] = os.stat(path)
    public = os.path.join(aside, "public")
    write(public, "public-job\n", 0o644)
    os.chown(public, VICTIM, VICTIM)

    daemon.start()
    by(HOSTILE, plant_links, daemon, [*secrets, aside, public, "/etc/shadow", "/dev/zero", "/proc/self/environ", "/proc/self/fd/0",
                                      daemon.key_file, daemon.results, daemon.database, daemon.spool])
    by(HOSTILE, plant_things, daemon)
    # Where fs.protected_hardlinks is off, anyone can do this.
    for number, path in enumerate([*secrets, daemon.key_file, daemon.results, daemon.database]):
        os.link(path, os.path.join(daemon.spool, f"hard-{number}"))
    os.link(public, os.path.join(daemon.spool, "hard-public"))
    for name, device in (("null", (1, 3)), ("zero", (1, 5)), ("console", (5, 1))):
        with contextlib.suppress(PermissionError):
            os.mknod(os.path.join(daemon.spool, name), 0o666 | stat.S_IFCHR, os.makedev(*device))
    names = [f"honest-{number}" for number in range(20)]
    drop_honestly(daemon, names)
    until_settled(daemon, names + ["public-job"])
    wait_until(lambda: daemon.spooled() == ["directory", "open"], lambda: f"all others are dealt with: {daemon.spooled()}")
    wait_until(lambda: not os.listdir(daemon.claimed), "nothing is claimed")
    # `private` can be read by root only.
    expected = {*names, "public-job", "executable"} | ({"private"} if user is None else set())
    assert {entry["job"] for entry in standin.log()} == set(jobs(daemon.records())) == expected

    # Nobody's file is another one now, or gone.
    for path, before in secrets.items():
        after = os.stat(path)
        assert (after.st_ino, after.st_mode, after.st_uid, after.st_size, after.st_mtime_ns) == (
            before.st_ino, before.st_mode, before.st_uid, before.st_size, before.st_mtime_ns), path
        with open(path, encoding="utf-8") as file:
            assert file.read() == f"{SECRET}\n{SECRET} in a bad line\n"
    assert os.path.exists(public) and os.path.exists(daemon.results) and os.path.exists(daemon.key_file)
    assert os.listdir(os.path.join(daemon.spool, "directory")) == ["inside"]
    said = all_that_was_said(daemon)
    assert SECRET not in said and daemon.key not in said and "root:" not in said

    # What is in rejected/ is what was dropped; a hard link's content is as hidden there as it was.
    reasons = daemon.reasons()
    assert {"fifo", "socket", "link-0", "link-self", "hard-0", "hard-1"} <= set(reasons)
    for name, reason in reasons.items():
        assert SECRET not in reason and "What to do" in reason, name

    def readable():
        found = []
        for name in reasons:
            path = os.path.join(daemon.rejected, name)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, encoding="utf-8") as file:
                        found.append(file.read())
        return found
    assert SECRET not in str(by(HOSTILE, readable))


def test_a_link_to_what_all_may_read_is_taken(place):
    """In the group's spool, all are the group; elsewhere, all are all."""
    daemon = place("3770")
    daemon.start()
    for name, group, bits, taken in (("a", HOSTILE, 0o640, True), ("b", HOSTILE, 0o600, False), ("c", DAEMON, 0o640, False),
                                     ("d", DAEMON, 0o644, True), ("e", HOSTILE, 0o604, False)):
        path = os.path.join(daemon.home, f"aside-{name}")
        write(path, f"{name}\n", bits)
        os.chown(path, DAEMON, group)
        os.link(path, os.path.join(daemon.spool, name))
        if taken:
            until_settled(daemon, [name])
        else:
            wait_until(lambda: os.path.exists(os.path.join(daemon.rejected, name)), f"{name} is rejected")
            assert "hard link" in daemon.reasons()[name]
        assert os.stat(path).st_nlink == (1 if taken else 2)
    assert jobs(daemon.records()) == ["a", "d"]


def make_it_hostile(kind, path, target):
    if kind == "link":
        os.symlink(target, path)
    elif kind == "dangling link":
        os.symlink(target + "-not-there", path)
    elif kind == "file":
        write(path, "x\n")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)
        os.chmod(path, 0o777)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "fifo", "directory"])
@pytest.mark.parametrize("name", [".claimed", "rejected"])
def test_their_own_directories_in_the_daemons_place(place, name, kind):
    """Before it starts: it does without the spool, says what to do, and goes on once that is done."""
    daemon = place()
    target = os.path.join(daemon.home, "target")
    os.mkdir(target)
    os.chmod(target, 0o777)
    path = os.path.join(daemon.spool, name)
    by(HOSTILE, make_it_hostile, kind, path, target)
    daemon.start()
    drop_honestly(daemon, ["honest"])
    wait_until(lambda: "move it away" in daemon.stderr(), "the log says so")
    assert f"'{name}' in it" in daemon.stderr()
    assert daemon.outcome("by-the-socket")["outcome"] == "cancelled"
    holds_for(0.3, lambda: daemon.spooled() == ["honest"], "the file waits")
    assert os.listdir(target) == [] and not os.path.exists(target + "-not-there")
    os.rename(path, os.path.join(daemon.home, "moved-away"))
    until_settled(daemon, ["honest"])


@pytest.mark.parametrize("name", [".claimed", "rejected"])
def test_its_directories_are_exchanged_while_it_runs(place, name):
    """Where the directory is not sticky. Nothing goes where the link points."""
    daemon = place("2770")
    daemon.start()
    target = os.path.join(daemon.home, "target")
    os.mkdir(target)
    os.chmod(target, 0o777)
    path = os.path.join(daemon.spool, name)
    drop_honestly(daemon, ["before"])
    until_settled(daemon, ["before"])

    def exchange():
        os.rename(path, os.path.join(daemon.spool, "old"))
        os.symlink(target, path)
    by(HOSTILE, exchange)
    by(HOSTILE, write, os.path.join(daemon.spool, "zeros"), "\0")
    drop_honestly(daemon, ["meanwhile"])
    wait_until(lambda: "move it away" in daemon.stderr(), "the log says so")
    assert os.listdir(target) == []
    os.unlink(path)
    until_settled(daemon, ["meanwhile"])
    assert os.listdir(target) == []


def test_hostile_reasons(place):
    """rejected/ is the group's, too."""
    daemon = place("3770")
    daemon.start()
    target = os.path.join(daemon.home, "target")
    write(target, "old\n", 0o666)
    os.chown(target, DAEMON, DAEMON)

    def plant():
        os.mkdir(os.path.join(daemon.rejected, "a.reason"))
        os.symlink(target, os.path.join(daemon.rejected, "b.reason"))
        os.symlink(target, os.path.join(daemon.rejected, "c"))
        os.mkfifo(os.path.join(daemon.rejected, "d.reason"))
        os.mkdir(os.path.join(daemon.rejected, "e"))
        os.mkdir(os.path.join(daemon.rejected, "f"))
        os.mkdir(os.path.join(daemon.rejected, "f.reason"))
    as_user(HOSTILE, HOSTILE, [], plant)
    for name in "abcdef":
        daemon.drop(name, b"\0")
    wait_until(lambda: daemon.call("stats")["spool"]["rejected"] == 6, "all are rejected")
    drop_honestly(daemon, ["honest"])
    until_settled(daemon, ["honest"])
    with open(target, encoding="utf-8") as file:
        assert file.read() == "old\n"
    found = []
    for name in os.listdir(daemon.rejected):
        path = os.path.join(daemon.rejected, name)
        if stat.S_ISREG(os.lstat(path).st_mode) and not name.endswith(".reason"):
            with open(path, "rb") as file:
                assert file.read() == b"\0"
            with open(path + ".reason", encoding="utf-8") as file:
                assert "What to do" in file.read()
            found.append(name[0])
    assert sorted(found) == list("abcdef")


def test_what_can_not_be_moved_holds_up_nobody(place):
    """Directories in .claimed/ that the daemon may not move: who wins a race gets them there."""
    daemon = place()
    os.mkdir(daemon.claimed)
    os.chown(daemon.claimed, DAEMON, DAEMON)
    for number in range(400):
        path = os.path.join(daemon.claimed, f"01a2{number:04x}-0000-7000-8000-000000000000-d{number}")
        os.mkdir(path)
        os.chown(path, HOSTILE, HOSTILE)
    daemon.start()
    names = [f"honest-{number}" for number in range(10)]
    drop_honestly(daemon, names)
    until_settled(daemon, names)
    assert len(os.listdir(daemon.claimed)) == 400
    # Once they can be moved, they are, those too that were not kept in mind.
    for name in os.listdir(daemon.claimed):
        os.chmod(os.path.join(daemon.claimed, name), 0o777)
    wait_until(lambda: not os.listdir(daemon.claimed), "they are put back, or rejected", 30)
    assert len([name for name in daemon.spooled() if name.startswith("d")]) + len(daemon.reasons()) == 400


def test_a_mount_in_the_spool_holds_up_nobody(place):
    daemon = place()
    path = os.path.join(daemon.spool, "mounted")
    write(path, "")
    write(os.path.join(daemon.home, "aside"), "aside\n")
    done = run("mount", "--bind", os.path.join(daemon.home, "aside"), path)
    if done.returncode != 0:
        pytest.skip(f"can't mount here: {done.stdout}")
    try:
        daemon.start()
        wait_until(lambda: "'mounted' can't be claimed" in daemon.stderr(), "it can't be claimed")
        names = [f"honest-{number}" for number in range(20)]
        drop_honestly(daemon, names)
        until_settled(daemon, names)
        assert "files can't be claimed" not in daemon.stderr() and daemon.call("stats")["storage"] == "ok"
    finally:
        run("umount", path)
    os.unlink(path)


def test_files_that_never_stop_being_written(place):
    """Each with two writers, of which one has closed it; and more of them than are waited for."""
    count = 1300
    daemon = place(user=None, spool={"settle_ms": 50})      # others can't take a lease
    daemon.start()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            become(HOSTILE)
            os.close(writer)
            for number in range(count):
                path = os.path.join(daemon.spool, f"slow-{number}")
                first = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
                second = os.open(path, os.O_WRONLY)
                os.write(second, b"slow")
                os.close(first)
            os.read(reader, 1)      # the end, by whatever way
        os._exit(0)
    os.close(reader)
    try:
        wait_until(lambda: len(os.listdir(daemon.claimed)) == count, "all are claimed", 30)
        names = [f"honest-{number}" for number in range(20)]
        drop_honestly(daemon, names)
        until_settled(daemon, names)
        assert len(os.listdir(daemon.claimed)) == count
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
    wait_until(lambda: not os.listdir(daemon.claimed), "they are taken at last", 30)
    wait_until(lambda: jobs(daemon.records()).count("slow") == count, "each has its line")


# -- names and texts --------------------------------------------------------------------------------

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x85\x08\x7f\u2028\r"
NAMES = [b"new\nline", b"esc\x1b[2J", b"osc\x1b]0;owned\x07", b"csi\xc2\x9b2J", b"nel\xc2\x85", b"\xff\xfe\x80", b"\xe2\x80\xa8sep",
         b"quote\"'`", b"back\\slash", b"--version", b"-rf", b"$(id)", b"%n%s%1$n", b"cr\rlf", b"back\b\b\b\bspace", b"tab\tb",
         b"x" * 255, b"\x1b" * 255, b"a b", b"*", b"~root", b"nul\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"error: forged\nerror: line",
         b"' (request forged)", b"\x0e\x0f", b"\xe2\x80\xae3cod"]


def check_texts(daemon):
    """Every line of log and results is one, and is harmless."""
    for path in (daemon.stderr_path, daemon.results):
        with open(path, encoding="utf-8", newline="") as file:      # all of it is UTF-8
            text = file.read()
        assert not CONTROLS.search(text), repr(text[max(0, CONTROLS.search(text).start() - 80):][:160])
    for line in daemon.stderr().splitlines():
        assert re.match(r"(error|warning|info|debug): [a-z]+: ", line), line


def on_a_terminal(daemon, *arguments):
    """All bytes that the client writes to it."""
    main, other = pty.openpty()
    with subprocess.Popen(ctl.command(daemon.socket, *arguments), stdin=other, stdout=other, stderr=other,
                          env=ctl.environment(TERM="xterm-256color")) as client:
        os.close(other)
        data = b""
        with contextlib.suppress(OSError):      # EIO at the end
            while part := os.read(main, 65536):
                data += part
        os.close(main)
    assert client.returncode in (0, 1), data
    return data.decode("utf-8").replace("\r\n", "\n")


@pytest.mark.parametrize("content", [b"", b"bad line \x1b[2J\x9b \xc2\x9b1m\n", b"\0\x1b[2J"], ids=["empty", "bad lines", "NUL"])
def test_names_are_shown_harmlessly(place, content):
    daemon = place("1777")
    daemon.start()

    def plant():
        spool = os.fsencode(daemon.spool)
        for number, name in enumerate(NAMES):
            with open(os.path.join(spool, b".aside"), "wb") as file:
                file.write(content)
            os.rename(os.path.join(spool, b".aside"), os.path.join(spool, name))
            for prefix, make in ((b"l-", lambda path: os.symlink(b"/x", path)), (b"d-", os.mkdir)):
                if number % 3 == 0:
                    make(os.path.join(spool, prefix + name[:200]))
    by(HOSTILE, plant)
    links = len(NAMES[::3])
    rejected = links + (len(NAMES) if b"\0" in content else 0)
    wait_until(lambda: daemon.call("stats")["spool"]["rejected"] == rejected, lambda: f"{rejected} are rejected: {daemon.call('stats')}")
    drop_honestly(daemon, ["honest"])
    until_settled(daemon, ["honest"])
    wait_until(lambda: len(daemon.spooled()) == links, "all but directories are dealt with")
    # One for each but names that are job IDs: "--version", "-rf", and 255 letters.
    if b"\0" not in content:
        daemon.wait_records(len(NAMES) + 1)
    check_texts(daemon)
    with daemon.client() as client:
        client.send_call("list", {"limit": 1000})
        assert not CONTROLS.search(client.line().decode("utf-8"))
    for arguments in (["list"], ["--json", "list"], ["results", "-f", daemon.results], ["status", "x" * 255], ["stats"]):
        text = on_a_terminal(daemon, *arguments)
        assert not CONTROLS.search(re.sub(r"\x1b\[\d*m", "", text)), repr(text)
    for name in os.listdir(daemon.rejected):
        if name.endswith(".reason"):
            with open(os.path.join(daemon.rejected, name), encoding="utf-8") as file:
                assert not CONTROLS.search(file.read())


def test_a_servers_texts_are_shown_harmlessly(make_daemon, standin):
    daemon = make_daemon(api={"verify": "ambiguous"}, retry={"max_attempts": 2})
    with contextlib.closing(Manager(daemon.home)) as manager:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        told = daemon.client()
        told.call("subscribe")
        standin.fault(job="message", status=400, message=ESCAPES + "\nerror: forged")
        standin.fault(job="code", status=400, code=ESCAPES)
        standin.fault(job="other", job_id=ESCAPES, times=None)
        standin.fault(job="header", raw_base64=base64.b64encode(
            f"HTTP/1.1 400 {ESCAPES}\r\nDeprecation: {ESCAPES}\r\nSunset: {ESCAPES}\r\nContent-Length: 0\r\n\r\n".encode()).decode())
        standin.fault(job="garbage", raw_base64=base64.b64encode(ESCAPES.encode() + b"\x9b\xff\x85").decode(), times=None)
        standin.fault(job="good", body={"job_id": "good", "message": ESCAPES})
        standin.fault(job="status", status=500, times=None)
        standin.fault(job="status", on="get", job_status=ESCAPES, times=None)
        names = ["message", "code", "other", "header", "garbage", "good", "status"]
        for name in names:
            daemon.cancel(name)
        records = {record["job_id"]: record for record in daemon.wait_records(len(names))}
        assert "\x1b[2J" in records["message"]["message"] and records["code"]["error"]["code"].startswith("\x1b")
        standin.fault(status=401, code=ESCAPES, message=ESCAPES)
        standin.fault(on="get", status=401, code=ESCAPES, message=ESCAPES, times=None)
        daemon.outcome("key")
        daemon.cancel("waits")
        wait_until(lambda: daemon.call("stats")["held"] == "key", "the key is rejected")
        wait_until(lambda: "reject" in manager.status(), manager.status)
        assert not CONTROLS.search(manager.status())
        for _ in names:
            assert not CONTROLS.search(told.line().decode("utf-8"))
        for arguments in (["list"], ["--json", "list"], ["results", "-f", daemon.results], ["stats"], ["metrics"], ["status", *names]):
            text = on_a_terminal(daemon, *arguments)
            assert not CONTROLS.search(re.sub(r"\x1b\[\d*m", "", text)), repr(text)
        standin.clear()
        daemon.wait_records(len(names) + 2)
        check_texts(daemon)
