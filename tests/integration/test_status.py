"""What `status`, `stats` and `ping` say."""

import re

from results import MEMBERS, check_record, parse_time
from waiting import wait_until

ITEM = {"request_id", "job_id", "state", "attempts", "accepted_at", "deadline_at", "next_attempt_at", "last_error",
        "source", "origin"}
STATS = {"version", "pid", "uptime_s", "pending", "accepted", "results", "replies", "attempts", "retries",
         "verifications", "coalesced", "spool", "socket", "endpoint", "held", "paused_until", "breaker", "storage",
         "nats", "rate_per_s", "in_flight_limit"}


def test_ping(daemon):
    answer = daemon.call("ping")
    assert set(answer) == {"version", "pid"} and answer["pid"] == daemon.process.pid
    assert re.match(r"^\d+\.\d+", answer["version"])


def test_unknown_is_an_empty_array(daemon):
    assert daemon.call("status", job_id="nobody") == []
    assert daemon.call("status", request_id="nobody") == []


def test_each_state(start, standin):
    daemon = start(dispatch={"max_in_flight": 1}, retry={"max_delay_ms": 86400000})
    standin.fault(job="waits", status=500, retry_after=3600)
    daemon.cancel("waits", request_id="r-waits")
    item = daemon.wait_item(lambda item: item["state"] == "waiting", "one waits", job_id="waits")
    assert set(item) == ITEM and item["attempts"] == 1
    assert item["last_error"]["code"] == "JOB_003" and item["last_error"]["message"]
    assert parse_time(item["next_attempt_at"]) > parse_time(item["accepted_at"]) + 3000

    standin.fault(job="flies", gate="g")
    daemon.cancel("flies", request_id="r-flies")
    item = daemon.wait_item(lambda item: item["state"] == "in_flight", "one is in flight", request_id="r-flies")
    assert set(item) == ITEM and (item["attempts"], item["last_error"]) == (0, None)

    daemon.drop("queued", b"")
    item = daemon.wait_item(lambda item: item["state"] == "queued", "one is queued", job_id="queued")
    assert set(item) == ITEM
    assert (item["source"], item["origin"], item["attempts"], item["last_error"]) == ("spool", "queued", 0, None)
    pending = daemon.call("stats")["pending"]
    assert pending == {"queued": 1, "in_flight": 1, "waiting": 1}

    standin.open("g")
    item = daemon.wait_item(lambda item: item["state"] == "done", "one is done", request_id="r-flies")
    assert set(item) == set(MEMBERS) | {"state"}
    assert {name: value for name, value in item.items() if name != "state"} in daemon.wait_records(2)


def test_by_job_newest_first(daemon, standin):
    made = []
    for number in range(5):
        made.append(daemon.cancel("a")["request_id"])
        daemon.wait_records(number + 1)
    standin.fault(gate="g")
    made.append(daemon.cancel("a")["request_id"])
    items = daemon.call("status", job_id="a")
    assert [item["request_id"] for item in items] == made[::-1]
    assert [item["state"] for item in items[1:]] == ["done"] * 5
    for item in items[1:]:
        del item["state"]
        check_record({name: item[name] for name in MEMBERS})
    assert len(daemon.call("status", request_id=made[0])) == 1


def test_by_job_at_most_a_thousand(daemon):
    made = []
    for _ in range(11):
        made += [one["request_id"] for one in daemon.call("cancel", job_ids=["a"] * 100)]
    daemon.wait_records(1100)
    items = daemon.call("status", job_id="a")
    assert len(items) == 1000 and items[0]["request_id"] == made[-1]


def test_after_a_restart(daemon):
    made = daemon.outcome("a")["request_id"]
    daemon.restart()
    item, = daemon.call("status", job_id="a")
    assert (item["request_id"], item["state"], item["outcome"]) == (made, "done", "cancelled")


def test_stats_members(daemon):
    stats = daemon.call("stats")
    assert set(stats) == STATS
    assert stats["pid"] == daemon.process.pid and stats["uptime_s"] >= 0
    assert stats["pending"] == {"queued": 0, "in_flight": 0, "waiting": 0}
    assert stats["accepted"] == {"spool": 0, "socket": 0, "nats": 0}
    assert stats["replies"].get("transport", 0) == 0
    assert all(count == 0 for count in stats["results"].values())
    assert set(stats["spool"]) == {"files", "rejected"} and set(stats["socket"]) == {"clients"}
    assert stats["endpoint"] in ("auto", "cancel", "job")
    assert (stats["held"], stats["paused_until"], stats["breaker"], stats["storage"]) == (None, None, "closed", "ok")
    assert (stats["nats"], stats["rate_per_s"]) == (None, None)
    assert stats["in_flight_limit"] == 16


def test_stats_count(daemon, standin):
    standin.fault(job="a", status=500)
    standin.fault(job="b", status=404)
    standin.fault(job="c", truncate=True)
    daemon.outcome("a")
    daemon.outcome("b")
    daemon.outcome("c")
    daemon.drop("list", b"d\ne\n")
    daemon.drop("f", b"")
    daemon.drop("bad name", b"")
    daemon.drop("nul", b"\0")
    daemon.wait_records(7)
    wait_until(lambda: daemon.call("stats")["spool"] == {"files": 3, "rejected": 1}, "files are counted")
    stats = daemon.call("stats")
    assert stats["accepted"] == {"spool": 3, "socket": 3, "nats": 0}
    assert {outcome: count for outcome, count in stats["results"].items() if count} == {"cancelled": 5, "not_found": 1,
                                                                                       "invalid": 1}
    assert {status: count for status, count in stats["replies"].items() if count} == {"200": 5, "404": 1, "500": 1,
                                                                                     "transport": 1}
    assert (stats["attempts"], stats["retries"], stats["verifications"], stats["coalesced"]) == (8, 2, 0, 0)
    daemon.restart()
    stats = daemon.call("stats")
    assert stats["accepted"] == {"spool": 0, "socket": 0, "nats": 0} and stats["attempts"] == 0


def test_stats_count_coalesced(daemon, standin):
    standin.fault(gate="g")
    for _ in range(3):
        daemon.cancel("a")
    assert daemon.call("stats")["coalesced"] == 2
    standin.open("g")
    daemon.wait_records(3)


def test_reading_does_not_wait_for_writing(daemon):
    """`status` of a job among many finished ones."""
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(5000)])
    daemon.wait_records(5000, timeout_s=60)
    with daemon.client() as client:
        calls = [client.send_call("status", {"job_id": f"j{number}"}) for number in range(20)]
        assert daemon.outcome("meanwhile")["outcome"] == "cancelled"
        for call in calls:
            assert client.result(call)[0]["state"] == "done"
