"""Every file and directory that the daemon makes: whose it is, and who may do what with it.

Whatever umask it is started with. A file that is in no line of the table is an error.
"""

import contextlib
import os
import re
import stat

import pytest

from users import NOBODY, OTHER, as_user, need_root
from waiting import wait_until

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"

# Path below the home, kind, mode. What the test itself makes is not in it.
TABLE = [
    (r"state", "d", 0o750), (r"state/db", "d", 0o750), (r"logs", "d", 0o750), (r"logs/results", "d", 0o750),
    (r"state/db/queue\.db(-wal|-shm|\.lock)?", "-", 0o640),
    (r"logs/results/results\.log(\.1)?", "-", 0o640),
    (r"spool/\.claimed", "d", 0o700), (rf"spool/\.claimed/{UUID}(\+)?", "d", 0o700),
    (r"spool/rejected", "d", 0o770), (r"spool/rejected/[^/]*\.reason", "-", 0o660), (r"spool/rejected/rest", "-", 0o660),
    (r"run", "d", 0o750), (r"run/s", "s", 0o620),
]
# Moved as it is: with the mode and the owner that its own writer gave it.
MOVED = [(rf"spool/\.claimed/{UUID}-(.*)", 0o604), (rf"spool/\.claimed/{UUID}/(.*)", 0o604), (r"spool/rejected/(zeros)", 0o604)]


def kind_of(mode):
    return {stat.S_IFDIR: "d", stat.S_IFREG: "-", stat.S_IFSOCK: "s"}[stat.S_IFMT(mode)]


def everything_below(home):
    for path, directories, files in os.walk(home):
        for name in directories + files:
            yield os.path.relpath(os.path.join(path, name), home)


def check(daemon, before, uid, gid):
    """Which lines of the table were there."""
    seen = set()
    for path in everything_below(daemon.home):
        if path in before:
            continue
        full = os.path.join(daemon.home, path)
        try:
            st = os.lstat(full)
        except FileNotFoundError:
            continue        # it was just in the making
        moved = [mode for pattern, mode in MOVED if re.fullmatch(pattern, path)]
        if moved:
            assert stat.S_IMODE(st.st_mode) == moved[0], path
            seen.add("moved")
            continue
        lines = [line for line in TABLE if re.fullmatch(line[0], path)]
        assert lines, f"{path} is not in the table"
        _, kind, mode = lines[0]
        found = (kind_of(st.st_mode), oct(stat.S_IMODE(st.st_mode) & ~stat.S_ISGID), st.st_uid, st.st_gid)
        assert found == (kind, oct(mode), uid, gid), f"{path}: {found}"
        seen.add(lines[0][0])
    return seen


def drop(daemon, name, data):
    """With a mode of its own, which has to stay."""
    aside = os.path.join(daemon.home, "scratch")
    with open(aside, "wb") as file:
        file.write(data)
    os.chmod(aside, 0o604)
    if daemon.user is not None:
        os.chown(aside, daemon.user, daemon.user)
    os.rename(aside, os.path.join(daemon.spool, name))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize("user", [None, NOBODY], ids=["as it is", "nobody"])
def test_modes_and_owners(make_daemon, standin, umask, user):
    if user is not None:
        need_root()
    daemon = make_daemon(user=user, socket={"mode": "0620"}, queue={"max_pending": 60})
    daemon.database = os.path.join(daemon.home, "state", "db", "queue.db")
    daemon.results = os.path.join(daemon.home, "logs", "results", "results.log")
    daemon.socket = os.path.join(daemon.home, "run", "s")
    daemon.set(queue={"database": daemon.database}, results={"path": daemon.results}, socket={"path": daemon.socket})
    before = set(everything_below(daemon.home)) | {"stderr", "scratch"}
    uid, gid = (os.geteuid(), os.getegid()) if user is None else (user, user)
    standin.fault(gate="g", times=None)
    daemon.start(umask=umask)
    seen = check(daemon, before, uid, gid)

    # Files of every fate; two of them wait for room in the queue, and are in .claimed/ meanwhile.
    drop(daemon, "zeros", b"\0")
    drop(daemon, "rest", b"bad line\n" * 100 + b"good\n")
    wait_until(lambda: len(os.listdir(daemon.rejected)) == 4 and not os.listdir(daemon.claimed), "two are rejected")
    drop(daemon, "many", b"".join(b"m%d\n" % number for number in range(100)))
    wait_until(lambda: os.listdir(daemon.claimed), "one is claimed")
    seen |= check(daemon, before, uid, gid)
    drop(daemon, "n" * 255, b"".join(b"n%d\n" % number for number in range(100)))
    standin.open("g", 50)
    standin.open("g")
    daemon.wait_records(300)
    daemon.rotate()
    daemon.reload()
    wait_until(lambda: os.path.exists(daemon.results), "a new log")
    daemon.outcome("a")
    seen |= check(daemon, before, uid, gid)
    assert seen >= {line[0] for line in TABLE if UUID not in line[0]} | {"moved"}, seen
    daemon.stop()
    check(daemon, before, uid, gid)
    # As it was left, by a daemon that starts on it.
    daemon.start(umask=umask)
    daemon.outcome("b")
    check(daemon, before, uid, gid)


def test_a_claim_with_a_directory_of_its_own(make_daemon, standin):
    """A name that is too long for a claim's. The queue is full, so that it stays."""
    daemon = make_daemon(socket={"mode": "0620"}, queue={"max_pending": 1})
    before = set(everything_below(daemon.home)) | {"stderr", "scratch"}
    before |= {"s"} | {"db/" + name for name in ("queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock")} | {"log/results.log"}
    standin.fault(gate="g", times=None)
    daemon.start(umask=0)
    daemon.cancel("first")
    drop(daemon, "n" * 255, b"a\nb\n")
    wait_until(lambda: not daemon.spooled() and os.listdir(daemon.claimed), "it is claimed")
    seen = check(daemon, before, os.geteuid(), os.getegid())
    assert {line[0] for line in TABLE if UUID in line[0]} | {"moved"} <= seen
    standin.open("g")
    daemon.wait_records(3)


def test_others_see_nothing(make_daemon):
    """Not the requests, not the results, not what is claimed; even where the home is open to all."""
    need_root()
    daemon = make_daemon(user=NOBODY)
    daemon.start(umask=0)
    daemon.outcome("a")
    drop(daemon, "zeros", b"\0")
    wait_until(lambda: os.path.isdir(daemon.rejected) and len(os.listdir(daemon.rejected)) == 2, "it is rejected")
    for directory in (daemon.home, os.path.dirname(daemon.database), os.path.dirname(daemon.results), daemon.spool):
        os.chmod(directory, 0o777)

    def reachable():
        found = []
        for path in (daemon.database, daemon.database + "-wal", daemon.database + "-shm", daemon.database + ".lock",
                     daemon.results, daemon.key_file, daemon.rejected, daemon.claimed):
            for flags in (os.O_RDONLY, os.O_WRONLY):
                with contextlib.suppress(PermissionError, IsADirectoryError):
                    os.close(os.open(path, flags))
                    found.append(path)
        return found
    assert as_user(OTHER, OTHER, [], reachable) == []


def test_the_log_of_a_daemon_that_was_there_before_keeps_its_mode(daemon):
    """An operator's own choice."""
    daemon.outcome("a")
    daemon.stop()
    os.chmod(daemon.results, 0o600)
    os.chmod(daemon.database, 0o600)
    daemon.start()
    daemon.outcome("b")
    assert oct(os.stat(daemon.results).st_mode & 0o7777) == "0o600"
    for suffix in ("", "-wal", "-shm"):
        assert oct(os.stat(daemon.database + suffix).st_mode & 0o7777) == "0o600"
