"""Storage in trouble: full disks, failing system calls and read-only file systems, below the database,
the results log and the spool, alone and together."""

import contextlib
import os
import re
import shutil
import sqlite3

import pytest

from rpc import RpcError
from storage import NAMES, Disk, Fault, Manager, Traffic, check_refusal, files_of, need_root, trouble
from waiting import holds_for, wait_until

ERRORS = ["ENOSPC", "EDQUOT", "EIO", "EROFS"]
PLACES = [("database",), ("results",), ("database", "results")]
ALL = [*PLACES, ("database", "results", "spool")]
SIZES_KIB = {"database": 8192, "results": 512, "spool": 512}


def name_of(value):
    return "+".join(value) if isinstance(value, tuple) else str(value)


@pytest.fixture
def disks():
    """Mounts, to be gone after the daemons."""
    need_root()
    mounted = {}
    yield mounted
    for disk in mounted.values():
        disk.unmount()
        home = os.path.dirname(disk.path)
        for path in filter(None, (disk.path, disk.back)):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        with contextlib.suppress(OSError):
            os.rmdir(home)


@pytest.fixture
def managers():
    made = []
    yield made
    for manager in made:
        manager.close()


@pytest.fixture
def on_disks(disks, managers, make_daemon):
    """A daemon that has its database, results log and spool on a small disk each, and a manager."""

    def start_one(start=True, **kwargs):
        daemon = make_daemon(**kwargs)
        manager = Manager(daemon.home)
        managers.append(manager)
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        for place, path in (("database", os.path.dirname(daemon.database)),
                            ("results", os.path.dirname(daemon.results)), ("spool", daemon.spool)):
            back = os.path.join(daemon.home, "back") if place == "spool" else None
            disks[place] = Disk(path, SIZES_KIB[place], back)
        if start:
            daemon.start()
        return daemon, manager

    return start_one


@pytest.fixture
def watched(managers, start):
    """A daemon with a manager, to let its system calls fail."""
    need_root()

    def start_one(**kwargs):
        daemon = start(**kwargs)
        manager = Manager(daemon.home)
        managers.append(manager)
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.restart()
        return daemon, manager

    return start_one


def wait_trouble(daemon, manager, words):
    """It says what is wrong, in `stats` and to the manager."""
    wait_until(lambda: trouble(daemon), "stats says that something is wrong")
    text = trouble(daemon)
    assert any(word in text for word in words), text
    wait_until(lambda: text in manager.status(), lambda: f"STATUS= says {text}: {manager.status()}")


def wait_recovery(daemon, manager, pid):
    """It is well again, and the same process. The longest pause between two tries is 5 s."""
    wait_until(lambda: trouble(daemon) is None, lambda: f"stats says ok: {trouble(daemon)}\n{daemon.stderr()[-2000:]}",
               20)
    wait_until(lambda: "trouble" not in manager.status(), lambda: f"STATUS= is well again: {manager.status()}")
    assert daemon.call("ping")["pid"] == pid


def in_flight(daemon, standin, count):
    """So many requests whose answers wait for the gate `g`."""
    standin.fault(regex="^f", gate="g", times=None)
    made = {}
    for number in range(count):
        made[f"r-f{number}"] = f"f{number}"
        daemon.cancel(f"f{number}", request_id=f"r-f{number}")
    wait_until(lambda: standin.counts()["in_flight"] == count, f"{count} are in flight")
    return made


def stays(daemon, name):
    """The file is in the spool or in .claimed/, by whichever name."""
    claimed = os.listdir(daemon.claimed)
    return name in daemon.spooled() or any(entry.endswith(name) for entry in claimed)


def cause(where):
    return {"database": "database", "results": "results log", "spool": "spool"}[where]


# -- Full disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("places", ALL, ids=name_of)
def test_a_full_disk(on_disks, disks, standin, places):
    daemon, manager = on_disks()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    traffic.acknowledged.update(in_flight(daemon, standin, 3))
    for place in places:
        disks[place].fill()
    traffic.until_refused()
    wait_trouble(daemon, manager, [cause(place) for place in places])

    if "spool" not in places:
        traffic.drop(3)
    waiting = wait_until(lambda: daemon.client(), "it takes clients")
    standin.open("g")               # what is in flight ends meanwhile
    wait_until(lambda: standin.counts()["in_flight"] == 0, "nothing is in flight")
    assert not traffic.one()
    assert {name for name in traffic.dropped if stays(daemon, name)} == set(traffic.dropped)
    before = len(daemon.records())
    assert waiting.call("ping")["pid"] == pid

    for place in places:
        disks[place].empty()
    wait_recovery(daemon, manager, pid)
    traffic.repeat()
    assert traffic.one()
    traffic.check()
    assert len(daemon.records()) > before
    wait_until(lambda: not daemon.spooled() and not os.listdir(daemon.claimed), "all files are taken")


def test_the_database_is_moved_away(watched, standin):
    """What is committed to a file that the path does not name any more would be lost at the next start."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    assert traffic.one()
    place = os.path.dirname(daemon.database)
    os.rename(place, place + ".away")
    assert not traffic.one()
    wait_trouble(daemon, manager, ["database: moved or removed"])
    os.rename(place + ".away", place)
    wait_recovery(daemon, manager, pid)
    traffic.repeat()
    assert traffic.one()
    traffic.check()


def test_the_database_is_removed(watched):
    """Nothing is taken for good that would be gone."""
    daemon, manager = watched()
    assert Traffic(daemon).one()
    shutil.rmtree(os.path.dirname(daemon.database))
    with pytest.raises(RpcError) as refused:
        daemon.cancel("refused")
    assert refused.value.code == -32002
    wait_trouble(daemon, manager, ["database: moved or removed"])
    # Nor is a new one made in its place.
    os.mkdir(os.path.dirname(daemon.database))
    holds_for(1, lambda: trouble(daemon), "it is in trouble")
    assert os.listdir(os.path.dirname(daemon.database)) == []


def opened(daemon, name):
    """How many descriptors are of a file of that name."""
    directory = f"/proc/{daemon.process.pid}/fd"
    paths = []
    for descriptor in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            paths.append(os.readlink(os.path.join(directory, descriptor)))
    return sum(path.endswith(f"-{name}") for path in paths)


def test_a_full_spool(on_disks, disks):
    """Claiming needs no space, but the reasons in rejected/ do."""
    daemon, manager = on_disks()
    pid = daemon.process.pid
    disks["spool"].fill()
    traffic = Traffic(daemon)
    traffic.drop(5)                 # empty files: their names are the jobs
    traffic.check()
    os.mkfifo(os.path.join(daemon.spool, "fifo"))
    wait_trouble(daemon, manager, ["spool"])
    assert stays(daemon, "fifo") and not daemon.reasons()
    assert traffic.one()            # the socket needs no spool
    disks["spool"].empty()
    wait_recovery(daemon, manager, pid)
    wait_until(lambda: "fifo" in daemon.reasons(), "it is rejected with its reason")
    traffic.check()


def test_what_can_not_be_rejected_is_open_once(on_disks, disks):
    daemon, _ = on_disks(spool={"max_file_bytes": 1024, "settle_ms": 20})
    scratch = os.path.join(daemon.spool, ".large")
    with open(scratch, "wb") as file:
        file.write(b"job\n" * 1000)
    disks["spool"].fill()
    os.rename(scratch, os.path.join(daemon.spool, "large"))
    wait_until(lambda: opened(daemon, "large"), "it is claimed")
    # It is tried again after one second, and after two more.
    holds_for(4, lambda: opened(daemon, "large") == 1, "it is open once")
    disks["spool"].empty()
    wait_until(lambda: "large" in daemon.reasons(), "it is rejected with its reason")


def test_a_waiting_client_is_answered_after_the_trouble(on_disks, disks, standin):
    daemon, manager = on_disks()
    pid = daemon.process.pid
    standin.fault(job="a", gate="g")
    client = daemon.client()
    call = client.send_call("cancel", {"job_id": "a", "wait": True})
    wait_until(lambda: standin.counts()["in_flight"] == 1, "it is in flight")
    disks["database"].fill()
    traffic = Traffic(daemon)
    traffic.until_refused()
    standin.open("g")
    wait_until(lambda: standin.counts()["in_flight"] == 0, "it is answered")
    assert daemon.item(job_id="a")["state"] != "done"
    disks["database"].empty()
    assert client.result(call)["outcome"] == "cancelled"
    wait_recovery(daemon, manager, pid)
    assert len(standin.log(job="a")) == 1


def test_retries_go_on_after_the_trouble(on_disks, disks, standin):
    """An attempt that failed while nothing could be kept counts once, when it is kept."""
    daemon, manager = on_disks()
    pid = daemon.process.pid
    standin.fault(job="a", status=500, gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.counts()["in_flight"] == 1, "it is in flight")
    disks["database"].fill()
    Traffic(daemon).until_refused()
    standin.open("g")
    wait_until(lambda: standin.counts()["in_flight"] == 0, "it is answered")
    disks["database"].empty()
    wait_recovery(daemon, manager, pid)
    record = wait_until(lambda: next((one for one in daemon.records() if one["job_id"] == "a"), None), "it is done")
    assert (record["outcome"], record["attempts"]) == ("cancelled", 2)
    assert len(standin.log(job="a")) == 2


def test_administration_in_trouble(on_disks, disks, standin):
    """Nothing that has to last is promised."""
    daemon, manager = on_disks()
    pid = daemon.process.pid
    disks["database"].fill()
    Traffic(daemon).until_refused()
    with daemon.client() as client:
        for method, params in (("hold", {}), ("release", {}), ("flush", {}), ("retry", {"job_id": "a"}),
                               ("withdraw", {"job_id": "a"})):
            check_refusal(client.error(method, **params))
            assert client.error(method, nonsense=1).code == -32602
        # What needs no writing goes on.
        assert client.call("list")["requests"] is not None
        assert client.call("reload") == {"reloaded": True, "restart_needed": []}
        assert client.call("subscribe") == {"subscribed": True}
    assert daemon.call("stats")["held"] is None
    disks["database"].empty()
    wait_recovery(daemon, manager, pid)
    assert daemon.call("hold") == {"held": True}
    assert daemon.call("release") == {"held": False}


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("places", PLACES, ids=name_of)
def test_an_end_amid_the_trouble(on_disks, disks, standin, places, how):
    daemon, _ = on_disks(dispatch={"shutdown_grace_s": 1})
    traffic = Traffic(daemon)
    traffic.acknowledged.update(in_flight(daemon, standin, 3))
    for place in places:
        disks[place].fill()
    traffic.until_refused()
    traffic.drop(2)
    standin.open("g")
    wait_until(lambda: standin.counts()["in_flight"] == 0, "nothing is in flight")
    getattr(daemon, how)()
    for place in places:
        disks[place].empty()
    daemon.start()
    traffic.repeat()
    traffic.check()


# -- System calls that fail -----------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("places", PLACES, ids=name_of)
def test_writing_fails(watched, standin, places, error):
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    for _ in range(3):
        assert traffic.one()
    traffic.acknowledged.update(in_flight(daemon, standin, 2))
    with Fault(daemon, sum((files_of(daemon, place) for place in places), []), error):
        traffic.until_refused(50)
        wait_trouble(daemon, manager, [cause(place) for place in places])
        traffic.drop(2)
        standin.open("g")
        wait_until(lambda: standin.counts()["in_flight"] == 0, "nothing is in flight")
        assert not traffic.one()
        assert all(stays(daemon, name) for name in traffic.dropped)
        wait_trouble(daemon, manager, [cause(place) for place in places])
    wait_recovery(daemon, manager, pid)
    traffic.repeat()
    traffic.check()


@pytest.mark.parametrize("error", ERRORS)
def test_the_spool_fails(watched, error):
    """Files stay where they are; the socket goes on."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    with Fault(daemon, files_of(daemon, "spool"), error, NAMES):
        traffic.drop(3)
        wait_trouble(daemon, manager, ["spool"])
        assert daemon.spooled() == sorted(traffic.dropped) and not daemon.records()
        assert traffic.one()
    wait_recovery(daemon, manager, pid)
    traffic.check()
    assert not daemon.spooled() and not os.listdir(daemon.claimed)


@pytest.mark.parametrize("calls", ["fsync", "unlinkat"])
def test_a_claimed_file_stays_claimed(watched, calls):
    """Its name can't be synced (then nothing of it is accepted), or it can't be removed."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    with Fault(daemon, files_of(daemon, "spool"), "EIO", calls) as fault:
        traffic.drop(2)
        wait_until(fault.struck, "a call has failed")
        wait_trouble(daemon, manager, ["spool"])
        if calls == "fsync":
            assert not daemon.records()
            assert all(stays(daemon, name) for name in traffic.dropped)
        assert os.listdir(daemon.claimed)
    wait_recovery(daemon, manager, pid)
    traffic.check()
    wait_until(lambda: not daemon.spooled() and not os.listdir(daemon.claimed), "all files are removed", 30)


@pytest.mark.parametrize("place", ["database", "results"])
def test_only_syncing_fails(watched, standin, place):
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    with Fault(daemon, files_of(daemon, place), "EIO", "fsync,fdatasync"):
        traffic.one()
        wait_trouble(daemon, manager, [cause(place)])
        with pytest.raises(RpcError) as refused:
            daemon.cancel("refused")
        check_refusal(refused.value, [cause(place)])
    wait_recovery(daemon, manager, pid)     # with nothing new to write
    traffic.repeat()
    assert traffic.one()
    traffic.check()


def after_strikes(fault, name):
    """What was called on this file, after the last call that failed: (system call, …)."""
    calls = fault.calls()
    last = max(place for place, call in enumerate(calls) if "(INJECTED)" in call)
    return [call.split("(")[0] for call in calls[last + 1:] if name in call and "(INJECTED)" not in call]


@pytest.mark.parametrize("when", ["1", "1..8"])
def test_a_failed_sync_reopens_the_database(watched, when):
    """What was not synced is not trusted. The file is closed and opened anew before the next write;
    and as the kernel takes what it failed to write for written, it is first given it once more."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    assert traffic.one()
    with Fault(daemon, files_of(daemon, "database"), "EIO", "fdatasync", when=when) as fault:
        assert not traffic.one()
        wait_recovery(daemon, manager, pid)
        traffic.repeat()
        after = after_strikes(fault, "queue.db-wal")
        assert after.index("openat") < after.index("pwrite64")
        if when != "1":         # even the way out failed, and so the WAL is still there
            again = after[after.index("openat"):]
            assert again[:3] == ["openat", "pwrite64", "fdatasync"] and "close" in again[3:5], again
    traffic.check()


@pytest.mark.parametrize("then", ["more lines", "no more lines", "a rotation"])
def test_a_failed_sync_writes_the_lines_again(watched, standin, then):
    """The kernel takes for written what it failed to write, also in a file that has been renamed."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    traffic.acknowledged.update(in_flight(daemon, standin, 1))
    log, rotated = daemon.results, daemon.results + ".1"
    with Fault(daemon, [log, rotated], "EIO", "fdatasync", when="1..2") as fault:
        assert traffic.one()
        wait_trouble(daemon, manager, ["results log"])
        if then == "a rotation":
            daemon.rotate()
        if then != "no more lines":
            standin.open("g")
            wait_until(lambda: daemon.item(request_id="r-f0")["state"] == "done", "one more has ended")
        if then == "a rotation":
            daemon.reload()
        wait_recovery(daemon, manager, pid)
        after = after_strikes(fault, rotated + ">" if then == "a rotation" else log + ">")
        assert "pwrite64" in after[:after.index("fdatasync")], after
        standin.open("g")
    traffic.check()


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("place", ["database", "results"])
def test_one_call_fails(watched, standin, place, number):
    """The Nth one that writes or syncs, and none after it."""
    daemon, manager = watched()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    with Fault(daemon, files_of(daemon, place), "EIO", when=number) as fault:
        for _ in range(100):
            traffic.one()
            if fault.struck():
                break
        wait_until(fault.struck, "a call has failed")
        wait_recovery(daemon, manager, pid)
    traffic.repeat()
    traffic.check()


# -- Read-only ------------------------------------------------------------------------------------


def test_a_spool_that_becomes_read_only(on_disks, disks):
    daemon, manager = on_disks()
    pid = daemon.process.pid
    traffic = Traffic(daemon)
    traffic.drop(2)
    traffic.check()
    disks["spool"].remount("ro")
    traffic_names = ["ro-1", "ro-2"]
    for name in traffic_names:
        with open(os.path.join(disks["spool"].back, name), "wb"):
            pass
    wait_trouble(daemon, manager, ["spool"])
    assert daemon.spooled() == traffic_names
    assert traffic.one()
    disks["spool"].remount("rw")
    wait_recovery(daemon, manager, pid)
    traffic.dropped += traffic_names
    traffic.check()


@pytest.mark.parametrize("place", ["database", "results"])
def test_a_start_on_a_read_only_disk(on_disks, disks, place):
    daemon, _ = on_disks()
    daemon.outcome("a")
    daemon.stop()
    disks[place].remount("ro")
    daemon.spawn()
    assert daemon.wait() == 1
    assert re.search(r"ead-only|readonly", daemon.stderr()), daemon.stderr()
    disks[place].remount("rw")
    daemon.start()
    daemon.outcome("b")
    daemon.wait_records(2)


# -- A database that can't be used ----------------------------------------------------------------


def filled(daemon, count=500):
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(count)])
    daemon.wait_records(count)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_database(daemon, share):
    filled(daemon)
    daemon.stop()
    size = os.path.getsize(daemon.database)
    os.truncate(daemon.database, int(size * share) // 4096 * 4096)
    with open(daemon.results, "rb") as file:
        log = file.read()
    daemon.spawn()
    assert daemon.wait() == 1
    assert "queue.db" in daemon.stderr() or "results.log" in daemon.stderr()
    assert re.search("[mM]ove it away|restore", daemon.stderr()), daemon.stderr()
    with open(daemon.results, "rb") as file:
        assert file.read() == log, "the results log was touched"


def test_a_database_of_another_program(make_daemon):
    daemon = make_daemon()
    database = sqlite3.connect(daemon.database)
    database.execute("CREATE TABLE precious (a)")
    database.commit()
    database.close()
    with open(daemon.database, "rb") as file:
        before = file.read()
    daemon.spawn()
    assert daemon.wait() == 1
    assert "not a queue database" in daemon.stderr()
    with open(daemon.database, "rb") as file:
        assert file.read() == before


def test_a_database_corrupted_at_run_time(daemon):
    filled(daemon)
    database = sqlite3.connect(daemon.database)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(daemon.database, "r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (os.path.getsize(daemon.database) - 100))
    traffic = Traffic(daemon)
    with contextlib.suppress(ConnectionError, AssertionError, FileNotFoundError, RpcError):
        traffic.until_refused(50)
    assert daemon.wait() == 1
    assert "corrupt" in daemon.stderr()
    assert not re.search("signal|abort", daemon.stderr())
    daemon.spawn()
    assert daemon.wait() == 1

