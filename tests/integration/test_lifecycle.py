"""Start, stop, crash, lock, socket activation, idleness."""

import contextlib
import os
import re
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from daemon import binary_path, clean_environment
from marks import not_under_valgrind
from rpc import Client
from waiting import LIMIT_S, wait_until

RECEIVE_FD = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_and_start_again(daemon, number):
    daemon.outcome("a")
    daemon.signal(number)
    assert daemon.wait() == 0
    assert not os.path.exists(daemon.socket)
    daemon.start()
    daemon.outcome("b")
    daemon.wait_records(2)


@not_under_valgrind("it needs descriptors of its own")
@pytest.mark.parametrize("limit", [4, 12, 39])
def test_too_few_descriptors(make_daemon, limit):
    daemon = make_daemon()
    daemon.spawn(["prlimit", f"--nofile={limit}", daemon.binary, "-c", daemon.config])
    assert daemon.wait() == 1
    assert daemon.stderr().count("error: ") == 1 and "file descriptors" in daemon.stderr()


@not_under_valgrind("it needs descriptors of its own")
def test_just_enough_descriptors(make_daemon):
    daemon = make_daemon()
    daemon.start(command=["prlimit", "--nofile=40", daemon.binary, "-c", daemon.config])
    daemon.drop("many", b"a\nb\nc\n")
    assert daemon.outcome("d")["outcome"] == "cancelled"
    assert len(daemon.wait_records(4)) == 4
    assert daemon.call("list")["requests"] and "error: " not in daemon.stderr()


def test_a_directory_that_can_not_be_made(make_daemon):
    daemon = make_daemon()
    with open(os.path.join(daemon.home, "file"), "w", encoding="ascii"):
        pass
    daemon.set(queue={"database": os.path.join(daemon.home, "file", "sub", "q.db")})
    daemon.spawn()
    assert daemon.wait() == 1
    assert f"error: queue: directory '{daemon.home}/file/sub' can't be made: Not a directory" in daemon.stderr()


def with_pending(number):
    """For a command: starts it with the signal blocked and pending, which both survive an exec."""
    return [sys.executable, "-c", "import os, signal, sys\n"
            f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
            f"os.kill(os.getpid(), {int(number)})\n"
            "os.execv(sys.argv[1], sys.argv[1:])"]


def with_early(number):
    """For a command: sends it the signal when it has hardly begun, at its umask(). The tracer is
    the grandchild, so the daemon has its usual process ID."""
    if "address" in os.environ.get("PULSE_SANITIZE", ""):
        pytest.skip("the leak checker does not work under ptrace")
    return ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=umask", "-e",
            f"inject=umask:signal={signal.Signals(number).name}:when=1"]


EARLY = pytest.mark.parametrize("how", [with_pending, with_early])


@EARLY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_that_comes_before_all(make_daemon, how, number):
    daemon = make_daemon()
    daemon.spawn(command=[*how(number), binary_path(), "-c", daemon.config])
    assert daemon.wait() == 0
    assert f"stopping ({signal.Signals(number).name})" in daemon.stderr()
    daemon.start()
    daemon.outcome("a")


@EARLY
def test_a_signal_to_reload_that_comes_before_all(make_daemon, how):
    daemon = make_daemon()
    daemon.start(command=[*how(signal.SIGHUP), binary_path(), "-c", daemon.config])
    wait_until(lambda: "configuration reloaded" in daemon.stderr(), "it has reloaded")
    daemon.outcome("a")
    daemon.stop()


def test_a_signal_that_comes_while_the_start_fails(make_daemon):
    daemon = make_daemon()
    os.makedirs(daemon.database)        # a directory where a file should be
    daemon.spawn(command=[*with_pending(signal.SIGTERM), binary_path(), "-c", daemon.config])
    assert daemon.wait() == 1


def test_a_restart_keeps_queued_work(start, standin):
    daemon = start(dispatch={"max_in_flight": 2, "shutdown_grace_s": 0})
    standin.fault(gate="g", times=None)
    made = [one["request_id"] for one in daemon.call("cancel", job_ids=[f"j{number}" for number in range(100)])]
    daemon.restart()
    daemon.kill()
    daemon.start()
    assert sum(daemon.call("stats")["pending"].values()) == 100
    standin.open("g")
    assert sorted(record["request_id"] for record in daemon.wait_records(100)) == sorted(made)


def in_shutdown(daemon, client):
    """The error that an open connection gets once the daemon has understood SIGTERM."""
    def look():
        client.send_call("cancel", {"job_id": "late"})
        answer = client.answer()
        return answer.get("error")
    return wait_until(look, "shutdown has begun")


def test_sigterm_lets_requests_in_flight_finish(start, standin):
    daemon = start(dispatch={"max_in_flight": 2, "shutdown_grace_s": 60})
    standin.fault(regex="^j", gate="g", times=None)
    daemon.call("cancel", job_ids=["j0", "j1", "j2", "j3"])
    wait_until(lambda: standin.counts()["in_flight"] == 2, "two are in flight")
    with Client(daemon.socket) as client:
        daemon.signal(signal.SIGTERM)
        error = in_shutdown(daemon, client)
        assert error["code"] == -32004 and error["message"].startswith("shutting_down") and error["data"]
        standin.open("g")
        assert daemon.wait() == 0
    finished = [record for record in daemon.records() if record["job_id"].startswith("j")]
    assert sorted(record["job_id"] for record in finished) == ["j0", "j1"]
    assert {record["attempts"] for record in finished} == {1}
    assert sorted(entry["job"] for entry in standin.log() if entry["job"] != "late") == ["j0", "j1"]
    daemon.start()
    wait_until(lambda: not sum(daemon.call("stats")["pending"].values()), "the rest is done")
    assert {"j2", "j3"} <= {record["job_id"] for record in daemon.records()}


@pytest.mark.parametrize("grace", [0, 1])
def test_the_grace_is_bounded(start, standin, grace):
    daemon = start(dispatch={"shutdown_grace_s": grace})
    standin.fault(hang=True)
    daemon.cancel("a")
    wait_until(lambda: standin.log(), "it is in flight")
    daemon.stop()
    assert daemon.records() == []
    daemon.start()
    record, = daemon.wait_records(1)
    assert (record["outcome"], record["attempts"]) == ("cancelled", 1)


def test_a_second_sigterm_exits_at_once_and_loses_nothing(start, standin):
    daemon = start(dispatch={"max_in_flight": 3, "shutdown_grace_s": 3600})
    standin.fault(hang=True, times=None)
    made = [one["request_id"] for one in daemon.call("cancel", job_ids=[f"j{number}" for number in range(10)])]
    wait_until(lambda: standin.counts()["in_flight"] == 3, "three are in flight")
    with Client(daemon.socket) as client:
        daemon.signal(signal.SIGTERM)
        in_shutdown(daemon, client)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    standin.clear()
    daemon.start()
    wait_until(lambda: not sum(daemon.call("stats")["pending"].values()), "all is done")
    assert set(made) <= {record["request_id"] for record in daemon.records()}


def test_a_wait_that_cannot_be_kept_gets_the_queued_answer(start, standin):
    daemon = start(dispatch={"max_in_flight": 1, "shutdown_grace_s": 2})
    standin.fault(job="first", gate="g", times=None)
    first, second = Client(daemon.socket), Client(daemon.socket)
    first_call = first.send_call("cancel", {"job_id": "first", "wait": True})
    wait_until(lambda: standin.log(), "the first is in flight")
    second_call = second.send_call("cancel", {"job_id": "second", "wait": True, "request_id": "r"})
    wait_until(lambda: daemon.call("stats")["accepted"]["socket"] == 2, "both are accepted")
    daemon.signal(signal.SIGTERM)
    answer = second.result(second_call)
    assert (answer["state"], answer["request_id"], answer["job_id"]) == ("queued", "r", "second")
    standin.open("g")
    answer = first.result(first_call)
    assert answer.get("outcome") == "cancelled" or answer["state"] == "queued"
    assert daemon.wait() == 0
    first.close()
    second.close()
    daemon.start()
    daemon.wait_records(2)


def test_sigpipe_and_other_signals_do_not_end_it(daemon):
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGHUP):
        daemon.signal(number)
    assert daemon.outcome("a")["outcome"] == "cancelled"


def test_a_stale_socket_is_replaced(daemon):
    daemon.kill()
    assert os.path.exists(daemon.socket)
    daemon.start()
    assert daemon.outcome("a")["outcome"] == "cancelled"


def test_a_database_held_by_a_live_daemon(daemon, make_daemon):
    other = make_daemon(queue={"database": daemon.database})
    other.spawn()
    assert other.wait() == 1
    assert "queue.db" in other.stderr()
    assert daemon.outcome("a")["outcome"] == "cancelled"


def test_a_socket_held_by_a_live_daemon(daemon, make_daemon):
    other = make_daemon(socket={"path": daemon.socket})
    other.spawn()
    assert other.wait() == 1
    assert daemon.socket in other.stderr()
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert daemon.call("ping")["pid"] == daemon.process.pid


def test_a_file_in_the_sockets_place_is_not_deleted(make_daemon):
    daemon = make_daemon()
    with open(daemon.socket, "w", encoding="ascii") as file:
        file.write("precious\n")
    daemon.spawn()
    assert daemon.wait() == 1
    with open(daemon.socket, encoding="ascii") as file:
        assert file.read() == "precious\n"


@pytest.mark.parametrize("damage", ["garbage", "header", "middle"])
def test_a_corrupt_database(daemon, damage):
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(500)])
    daemon.wait_records(500)
    daemon.stop()
    for suffix in ("-wal", "-shm"):
        if os.path.exists(daemon.database + suffix):
            os.unlink(daemon.database + suffix)
    size = os.path.getsize(daemon.database)
    with open(daemon.database, "r+b") as file:
        if damage == "garbage":
            file.truncate(0)
            file.write(b"this is no database\n" * 500)
        elif damage == "header":
            file.write(b"x" * 100)
        else:
            file.seek(100)
            file.write(b"\xa5" * (size - 100))
    daemon.spawn()
    assert daemon.wait() == 1
    assert "queue.db" in daemon.stderr()


def test_a_newer_database(daemon):
    daemon.outcome("a")
    daemon.stop()
    database = sqlite3.connect(daemon.database)
    version, = database.execute("PRAGMA user_version").fetchone()
    assert version >= 1
    database.execute("PRAGMA user_version = 9999")
    database.close()
    daemon.spawn()
    assert daemon.wait() == 1
    assert "9999" in daemon.stderr() or "newer" in daemon.stderr()
    database = sqlite3.connect(daemon.database)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    daemon.start()
    assert daemon.outcome("b")["outcome"] == "cancelled"


def test_socket_activation(make_daemon):
    daemon = make_daemon()
    path = os.path.join(daemon.home, "passed")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(16)
        launcher = [sys.executable, "-c", RECEIVE_FD, str(listener.fileno()), binary_path(), "-c", daemon.config]
        with Client(path) as early:                         # from before the daemon runs
            early.send(b"early\n")
            daemon.spawn(command=launcher, pass_fds=[listener.fileno()])
            assert early.answer()["job_id"] == "early"
        with Client(path) as client:
            assert client.call("ping")["pid"] == daemon.process.pid
            assert client.call("cancel", job_id="a", wait=True)["outcome"] == "cancelled"
        assert not os.path.exists(daemon.socket)
        daemon.stop()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        daemon.wait_records(2)


def test_journal_priorities_only_when_stderr_is_the_journal(make_daemon):
    daemon = make_daemon()
    daemon.start()
    daemon.outcome("a")
    daemon.stop()
    lines = daemon.stderr().splitlines()
    assert lines and not any(line.startswith("<") for line in lines)
    info = os.stat(daemon.stderr_path)
    daemon.start(environment={"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"})
    daemon.outcome("b")
    daemon.stop()
    new = daemon.stderr().splitlines()[len(lines):]
    assert new and all(line[0] == "<" and line[1] in "01234567" and line[2] == ">" for line in new)
    daemon.start(environment={"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino + 1}"})
    daemon.stop()
    assert not any(line.startswith("<") for line in daemon.stderr().splitlines()[len(lines) + len(new):])


def test_the_key_is_not_in_the_process_list(daemon):
    daemon.outcome("a")
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{daemon.process.pid}/{name}", "rb") as file:
                assert daemon.key.encode() not in file.read()
        except PermissionError:
            pass        # not even we may look


def wake_ups(pid):
    """Voluntary and other context switches of all threads."""
    counts = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            counts[task] = [line.split()[1] for line in file if "ctxt_switches" in line]
    return counts


def test_idle_means_idle(daemon, standin):
    """After work of every kind, some seconds without one wake-up of any thread."""
    if "thread" in os.environ.get("PULSE_SANITIZE", ""):
        pytest.skip("ThreadSanitizer has a thread of its own that wakes up")
    standin.fault(job="a", status=500)
    daemon.outcome("a")
    daemon.drop("f", b"b\nc\n")
    daemon.drop("nul", b"\0")
    daemon.wait_records(3)
    pid, quiet_s = daemon.process.pid, 3
    state = {"counts": wake_ups(pid), "since": time.monotonic()}

    def quiet():
        counts = wake_ups(pid)
        if counts != state["counts"]:
            state.update(counts=counts, since=time.monotonic())
        return time.monotonic() - state["since"] >= quiet_s
    wait_until(quiet, f"{quiet_s} s without a wake-up", LIMIT_S, interval_s=0.1)


def test_a_log_that_nobody_reads(make_daemon):
    daemon = make_daemon()
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 4096)
        os.set_blocking(write_end, True)        # for the daemon too: they share it
        daemon.start(command=[sys.executable, "-c", "import os, sys\n"
                              f"os.dup2({write_end}, 2)\n"
                              "os.execv(sys.argv[1], sys.argv[1:])", binary_path(), "-c", daemon.config],
                     pass_fds=[write_end])
        assert {daemon.outcome(f"j{number}")["outcome"] for number in range(20)} == {"cancelled"}
        assert daemon.call("ping")["pid"] == daemon.process.pid

        assert set(os.read(read_end, 1 << 20)) == {ord("x")}, "there was room for a line"
        daemon.reload()
        poll = select.poll()
        poll.register(read_end, select.POLLIN)
        assert poll.poll(LIMIT_S * 1000)
        lines = os.read(read_end, 1 << 20).decode().splitlines()
        assert re.fullmatch(r"warning: log: [1-9]\d* lines were dropped, since there was no room for them", lines[0])
        assert daemon.outcome("b")["outcome"] == "cancelled"
        daemon.stop()
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize("arguments", [["-V"], ["--version"], ["-h"], ["--help"], ["-t"]])
def test_standard_output_that_is_full(make_daemon, arguments):
    daemon = make_daemon()
    with open("/dev/full", "wb") as full:
        done = subprocess.run([binary_path(), "-c", daemon.config, *arguments], stdout=full, stderr=subprocess.PIPE,
                              text=True, env=clean_environment(), timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr == "pulse-canceld: standard output can't be written: No space left on device\n"


def test_version_help_and_usage():
    def run(*arguments):
        return subprocess.run([binary_path(), *arguments], capture_output=True, text=True, env=clean_environment(),
                              timeout=20, check=False)
    for option in ("-V", "--version"):
        done = run(option)
        assert done.returncode == 0 and "pulse-canceld" in done.stdout and any(c.isdigit() for c in done.stdout)
    for option in ("-h", "--help"):
        done = run(option)
        assert done.returncode == 0 and "--config" in done.stdout and "--test-config" in done.stdout
    for arguments in (["--nonsense"], ["-x"], ["-c"], ["--config"], ["surplus"], ["-t", "surplus"]):
        done = run(*arguments)
        assert done.returncode == 2 and done.stderr, arguments
