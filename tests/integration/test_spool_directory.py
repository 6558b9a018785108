"""The spool directory as a whole: missing, deleted, full of files, full queue."""

import ctypes
import os
import shutil
import signal

import pytest

from rpc import Client
from waiting import holds_for, wait_until

NOBODY = 65534
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def exchange(one, other):
    """They change places at once."""
    status = ctypes.CDLL(None, use_errno=True).renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other),
                                                         RENAME_EXCHANGE)
    assert status == 0, os.strerror(ctypes.get_errno())


def test_missing_at_start_then_made(make_daemon):
    daemon = make_daemon()
    os.rmdir(daemon.spool)
    daemon.start()
    os.makedirs(daemon.spool, exist_ok=True)
    daemon.drop("abc", b"")
    daemon.drop("list", b"a\nb\n")
    assert sorted(record["job_id"] for record in daemon.wait_records(3)) == ["a", "abc", "b"]


def test_deleted_and_made_anew(daemon):
    for turn in range(3):
        daemon.drop(f"job-{turn}", b"")
        daemon.wait_records(turn + 1)
        wait_until(lambda: not daemon.spooled(), "it is taken")
        shutil.rmtree(daemon.spool)
        os.makedirs(daemon.spool, exist_ok=True)
    daemon.drop("last", b"x\n")
    assert [record["job_id"] for record in daemon.wait_records(4)][3] == "x"


def test_moved_away_and_made_anew(daemon):
    moved = daemon.spool + ".old"
    os.rename(daemon.spool, moved)
    os.makedirs(daemon.spool, exist_ok=True)
    daemon.drop("here", b"")
    assert daemon.wait_records(1)[0]["job_id"] == "here"
    with open(os.path.join(moved, "elsewhere"), "w", encoding="ascii"):
        pass
    daemon.drop("here-too", b"")
    assert daemon.wait_records(2)[1]["job_id"] == "here-too"
    assert os.path.exists(os.path.join(moved, "elsewhere"))


def test_a_full_directory_is_moved_in(daemon):
    made = daemon.spool + ".new"
    os.mkdir(made)
    for number in range(5):
        with open(os.path.join(made, f"job-{number}"), "w", encoding="ascii"):
            pass
    os.rename(daemon.spool, daemon.spool + ".old")
    os.rename(made, daemon.spool)
    assert sorted(record["job_id"] for record in daemon.wait_records(5)) == [f"job-{n}" for n in range(5)]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a directory that the daemon may not read")
def test_moved_where_the_parent_can_not_be_watched(make_daemon):
    """All there is then is the event of the directory itself."""
    daemon = make_daemon(user=NOBODY)
    closed = os.path.join(daemon.home, "closed")
    os.mkdir(closed, 0o711)
    daemon.spool, made = os.path.join(closed, "spool"), os.path.join(closed, "made")
    for path in (daemon.spool, made):
        os.mkdir(path)
        os.chown(path, NOBODY, NOBODY)
    daemon.set(spool={"directory": daemon.spool})
    daemon.start()
    daemon.drop("before", b"")
    daemon.wait_records(1)
    exchange(made, daemon.spool)
    daemon.drop("after", b"")
    assert daemon.wait_records(2)[1]["job_id"] == "after"


def test_ten_thousand_files_and_a_queue_overflow(daemon, standin):
    """More events than the kernel keeps while the daemon stands still: nothing is missed."""
    daemon.signal(signal.SIGSTOP)
    for number in range(10000):
        os.close(os.open(os.path.join(daemon.spool, f"job-{number}"), os.O_CREAT | os.O_WRONLY, 0o644))
    daemon.signal(signal.SIGCONT)
    records = daemon.wait_records(10000, timeout_s=60)
    assert {record["job_id"] for record in records} == {f"job-{number}" for number in range(10000)}
    assert {record["outcome"] for record in records} == {"cancelled"}
    wait_until(lambda: not daemon.spooled() and not os.listdir(daemon.claimed), "all files are gone")
    assert len(standin.log()) == 10000


def test_a_burst_that_the_daemon_keeps_up_with(daemon):
    for number in range(2000):
        daemon.drop(f"f-{number}", f"a-{number}\nb-{number}\n")
    assert len({record["job_id"] for record in daemon.wait_records(4000, timeout_s=60)}) == 4000


def test_the_rescan_finds_what_was_missed(start):
    """A file in a directory that was swapped in behind the watch's back, or any event lost."""
    daemon = start(spool={"rescan_interval_s": 1})
    holder = os.path.join(daemon.home, "aside")
    with open(holder, "wb", buffering=0) as file:
        os.link(holder, os.path.join(daemon.spool, "linked"))
        holds_for(0.5, lambda: "linked" in daemon.spooled(), "it is open for writing")
        file.write(b"a\n")
    os.unlink(holder)
    assert daemon.wait_records(1)[0]["job_id"] == "a"


@pytest.fixture
def full(start, standin):
    """A daemon with room for five requests, all taken; gate `g` lets them finish."""
    daemon = start(queue={"max_pending": 5}, dispatch={"max_in_flight": 2})
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(5)])
    return daemon


def test_a_full_queue_refuses_the_socket(full, standin):
    with full.client() as client:
        error = client.error("cancel", job_id="more")
        assert error.code == -32001 and error.message.startswith("queue_full") and error.data
        assert client.error("cancel", job_ids=["m1", "m2"]).code == -32001
        answer = client.ask("bare-line")
        assert answer["error"]["code"] == -32001
    standin.open("g")
    full.wait_records(5)
    assert full.outcome("more")["outcome"] == "cancelled"
    assert len(full.wait_records(6)) == 6


def test_all_or_nothing_when_there_is_room_for_some(start, standin):
    daemon = start(queue={"max_pending": 5}, dispatch={"max_in_flight": 2})
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=["a", "b", "c"])
    with daemon.client() as client:
        assert client.error("cancel", job_ids=["d", "e", "f"]).code == -32001
        assert len(client.call("cancel", job_ids=["d", "e"])) == 2
    standin.open("g")
    assert sorted(record["job_id"] for record in daemon.wait_records(5)) == ["a", "b", "c", "d", "e"]


def test_a_full_queue_makes_files_wait(full, standin):
    full.drop("list", "".join(f"l{number}\n" for number in range(20)))
    full.drop("empty-job", b"")
    holds_for(0.5, lambda: sum(full.call("stats")["pending"].values()) == 5, "no more than five are pending")
    assert full.call("stats")["accepted"]["spool"] == 0
    standin.open("g")
    records = full.wait_records(26)
    assert {record["outcome"] for record in records} == {"cancelled"}
    assert len({record["job_id"] for record in records}) == 26
    wait_until(lambda: not full.spooled(), "the files are gone")


def test_files_that_wait_survive_a_restart(full, standin):
    full.drop("list", "".join(f"l{number}\n" for number in range(20)))
    full.drop("empty-job", b"")
    full.kill()
    full.start()
    standin.open("g")
    assert len({record["job_id"] for record in full.wait_records(26)}) == 26


@pytest.mark.parametrize("turns", [(1, 400, 1500), (100, 101, 3000)])
def test_sigkill_in_the_middle_of_a_large_file(start, standin, turns):
    """Neither loses a request nor makes two of one, wherever it falls."""
    daemon = start()
    standin.fault(regex="7$", status=500, times=300)
    jobs = [f"job-{number}" for number in range(6000)]
    daemon.drop("large", "\n".join(jobs) + "\nbad line\n")
    for number in range(20):
        daemon.drop(f"empty-{number}", b"")
    for reach in turns:
        wait_until(lambda: standin.counts()["requests"] >= reach, "so many requests")
        daemon.kill()
        daemon.start()
    records = daemon.wait_records(6021, timeout_s=60)
    names = sorted(record["job_id"] for record in records)
    assert names == sorted(jobs + ["bad line"] + [f"empty-{number}" for number in range(20)])
    wait_until(lambda: not daemon.spooled() and not os.listdir(daemon.claimed), "all files are gone")


def test_sigkill_while_files_pour_in(start):
    daemon = start()
    number = 0
    for _ in range(4):
        for _ in range(300):
            daemon.drop(f"f-{number}", f"job-{number}\n")
            number += 1
        daemon.kill()
        for _ in range(50):
            daemon.drop(f"f-{number}", f"job-{number}\n")
            number += 1
        daemon.start()
    records = daemon.wait_records(number, timeout_s=60)
    assert sorted(record["job_id"] for record in records) == sorted(f"job-{n}" for n in range(number))


def test_a_large_file_does_not_hold_up_the_socket(daemon):
    daemon.drop("large", "".join(f"job-{number}\n" for number in range(50000)))
    with Client(daemon.socket) as client:
        assert client.call("ping")["pid"] == daemon.process.pid
        wait_until(lambda: client.call("stats")["accepted"]["spool"] == 50000, "all lines are taken", timeout_s=30)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
