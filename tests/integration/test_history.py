"""Finished requests: how long they are known, how they go, and looking at them meanwhile."""

import os
import sqlite3

import pytest

from history import plant
from rpc import RpcError
from storage import Disk, need_root
from waiting import wait_until

PAGE = 4096


def rows(daemon, where="1"):
    database = sqlite3.connect(f"file:{daemon.database}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute(f"SELECT count(*) FROM request WHERE {where}").fetchone()[0]
    finally:
        database.close()


def pages(daemon):
    """(pages of the file, pages of these that are free)"""
    database = sqlite3.connect(f"file:{daemon.database}?mode=ro", uri=True, timeout=10)
    try:
        return tuple(database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    finally:
        database.close()


def made(make_daemon, **kwargs):
    """A daemon that was there once, and is down."""
    daemon = make_daemon(**kwargs)
    daemon.start()
    daemon.stop()
    return daemon


def test_what_is_planted_is_as_the_daemon_writes_it(make_daemon):
    """Else the tests below would prove nothing."""
    daemon = made(make_daemon)
    plant(daemon, 3, age_days=1)
    daemon.start()
    item = daemon.item(request_id="r-old-2")
    assert (item["state"], item["outcome"], item["source"], item["attempts"]) == ("done", "cancelled", "socket", 1)
    record = next(one for one in daemon.records() if one["request_id"] == "r-old-2")
    assert {name: value for name, value in item.items() if name != "state"} == record


def test_old_ones_are_pruned_in_steps(make_daemon):
    """Tens of thousands at once, and the daemon answers all the time."""
    daemon = made(make_daemon, queue={"history_days": 30})
    plant(daemon, 50000, age_days=31)
    plant(daemon, 100, age_days=29, prefix="young")
    daemon.start()
    seen = []
    client = daemon.client()

    def gone():
        assert client.call("ping")["pid"] == daemon.process.pid
        assert daemon.outcome(f"meanwhile-{len(seen)}")["outcome"] == "cancelled"
        seen.append(rows(daemon, "request_id LIKE 'r-old-%'"))
        return seen[-1] == 0
    wait_until(gone, lambda: f"all old ones are gone: {seen[-5:]}", 60)
    assert seen == sorted(seen, reverse=True)
    steps = [one - other for one, other in zip(seen, seen[1:]) if one != other]
    assert len(steps) >= 5 and max(steps) < 25000, f"in steps: {seen}"
    assert rows(daemon, "request_id LIKE 'r-young-%'") == 100
    assert daemon.item(request_id="r-young-1")["state"] == "done"


def test_space_is_used_again(make_daemon):
    """The file does not shrink: the pages of what was pruned take what comes."""
    daemon = made(make_daemon, queue={"history_days": 1})
    plant(daemon, 20000, age_days=2)
    size = os.path.getsize(daemon.database)
    daemon.start()
    daemon.outcome("a")
    wait_until(lambda: rows(daemon, "request_id LIKE 'r-old-%'") == 0, "all old ones are gone", 60)
    total, free = pages(daemon)
    assert free > total // 2
    for batch in range(5):
        daemon.call("cancel", job_ids=[f"new-{batch}-{index}" for index in range(1000)])
    daemon.wait_records(25001, timeout_s=60)
    daemon.stop()
    assert os.path.getsize(daemon.database) <= size + 64 * PAGE


def test_a_request_id_is_known_within_history_and_new_after_it(make_daemon, standin):
    daemon = made(make_daemon, queue={"history_days": 30})
    plant(daemon, 1, age_days=31, prefix="old")
    plant(daemon, 1, age_days=29, prefix="young")
    daemon.start()
    daemon.outcome("a")         # something to sync and to prune after
    wait_until(lambda: daemon.item(request_id="r-old-1") is None, "the old one is gone")
    known = daemon.cancel("young-1", request_id="r-young-1")
    assert (known["state"], known["outcome"]) == ("done", "cancelled") and not standin.log(job="young-1")
    with pytest.raises(RpcError) as raised:
        daemon.cancel("another", request_id="r-young-1")
    assert raised.value.code == -32602

    # It is a request of its own now, with a line of its own: the log's first one is not looked at.
    assert daemon.cancel("old-1", request_id="r-old-1")["state"] == "queued"
    wait_until(lambda: standin.log(job="old-1"), "it is sent")
    item = daemon.wait_item(lambda item: item["state"] == "done", "it is done", request_id="r-old-1")
    assert item["n"] == 4
    daemon.stop()
    with open(daemon.results, encoding="utf-8") as file:
        lines = file.readlines()
    assert ['"request_id":"r-old-1"' in line for line in lines] == [True, False, False, True]
    os.rename(daemon.results, daemon.results + ".seen")     # (the usual checks refuse the ID that came twice)


def test_history_days_on_reload(make_daemon):
    daemon = made(make_daemon, queue={"history_days": 30})
    plant(daemon, 10, age_days=10)
    daemon.start()
    daemon.outcome("a")
    assert daemon.item(request_id="r-old-1")["state"] == "done"
    daemon.set(queue={"history_days": 5})
    daemon.reload()
    wait_until(lambda: rows(daemon, "request_id LIKE 'r-old-%'") == 0, "they are gone")


def test_nothing_is_pruned_before_its_line_is_synced(make_daemon):
    """Old by their time, but their lines don't fit on the disk: they are kept until they are there."""
    need_root()
    daemon = make_daemon(queue={"history_days": 1})
    disk = Disk(os.path.dirname(daemon.results), 4096)
    try:
        daemon.start()
        daemon.stop()
        plant(daemon, 5000, age_days=9, logged=False)
        disk.fill()
        daemon.start()
        wait_until(lambda: daemon.call("stats")["storage"] != "ok", "the log can't be written")
        assert rows(daemon) == 5000
        disk.empty()
        records = daemon.wait_records(5000)
        assert records[0]["request_id"] == "r-old-1" and records[-1]["request_id"] == "r-old-5000"
        daemon.stop()
        daemon.start()
        wait_until(lambda: rows(daemon) == 0, "then they go")
        daemon.stop()
    finally:
        daemon.kill()
        disk.unmount()


def test_unlogged_lines_are_written_before_pruning(make_daemon):
    """Rows that are old enough to go, but whose lines were never written."""
    daemon = made(make_daemon, queue={"history_days": 1})
    plant(daemon, 5000, age_days=9, logged=False)
    daemon.start()
    records = daemon.wait_records(5000)
    assert records[0]["request_id"] == "r-old-1" and records[-1]["request_id"] == "r-old-5000"
    wait_until(lambda: rows(daemon) == 0, "then they go")


def test_n_goes_on_after_everything_was_pruned(make_daemon):
    daemon = made(make_daemon, queue={"history_days": 1})
    plant(daemon, 40, age_days=9)
    daemon.start()
    wait_until(lambda: rows(daemon) == 0, "all are gone")
    for how in (daemon.stop, daemon.kill):
        how()
        daemon.start()
        assert rows(daemon, "n IS NOT NULL AND n <= 40") == 0
        daemon.rotate()
        daemon.reload()
        wait_until(lambda: os.path.exists(daemon.results), "a new log")
    assert daemon.outcome("a")["n"] == 41
    assert daemon.wait_records(41)[-1]["n"] == 41


def test_status_does_not_hold_up_the_loop(make_daemon):
    """Looking for a job reads the whole table, on another thread."""
    daemon = made(make_daemon, queue={"history_days": 3650})
    plant(daemon, 200000, age_days=1, logged=True)
    daemon.start()
    with daemon.client() as slow:
        calls = [slow.send_call("status", {"job_id": f"old-{number}"}) for number in (1, 100000, 200000)]
        slow.send_call("status", {"job_id": "nobody"})
        pings = 0
        slow.socket.setblocking(False)
        while True:
            assert daemon.call("ping")["pid"] == daemon.process.pid
            pings += 1
            try:
                data = slow.socket.recv(1 << 20)
            except BlockingIOError:
                continue
            slow.buffer += data
            break
        slow.socket.setblocking(True)
        assert pings >= 2, "it was answered before the first status"
        for call in calls:
            assert slow.result(call)[0]["state"] == "done"
