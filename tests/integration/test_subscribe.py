"""`subscribe`: each outcome from now on, and `missed` for those who are too slow."""

import json
import socket

from results import check_record
from rpc import Client
from storage import Fault, files_of
from waiting import wait_until


def subscribe(daemon):
    client = daemon.client()
    assert client.call("subscribe") == {"subscribed": True}
    return client


def note(client):
    """The next notification: (method, params)."""
    message = client.answer()
    assert list(message) == ["jsonrpc", "method", "params"] and message["jsonrpc"] == "2.0"
    if message["method"] == "missed":
        assert list(message["params"]) == ["count"] and message["params"]["count"] >= 1
    else:
        assert message["method"] == "outcome"
        check_record(message["params"])
    return message["method"], message["params"]


def outcomes(client, count):
    found = []
    for _ in range(count):
        method, params = note(client)
        assert method == "outcome"
        found.append(params)
    return found


def test_each_outcome_from_now_on(daemon, standin):
    daemon.outcome("before")
    first, second = subscribe(daemon), subscribe(daemon)
    standin.fault(job="f", status=403)
    for job in ("a", "f"):
        daemon.outcome(job)
    daemon.drop("two", b"b\nnot a job\n")
    records = daemon.wait_records(5)[1:]
    assert outcomes(first, 4) == outcomes(second, 4) == records
    assert [record["n"] for record in records] == [2, 3, 4, 5]
    # Nothing else has come.
    assert first.call("ping") and second.call("ping")


def test_what_is_being_committed_is_before(daemon, standin):
    """The answer comes after the commit that is under way: an outcome was known before it, or is told."""
    with Fault(daemon, files_of(daemon, "database"), calls="fdatasync,fsync", slow_ms=150):
        for job in ("a", "b", "c"):
            standin.fault(job=job, gate=job)
            daemon.cancel(job)
            standin.open(job)
            wait_until(lambda job=job: (standin.job(job) or {}).get("status") == "canceled", "the API has answered")
            with subscribe(daemon) as client:
                known = client.call("status", job_id=job)[0]["state"] == "done"
                assert known or outcomes(client, 1)[0]["job_id"] == job


def test_what_was_pending_before(daemon, standin):
    """Committed after the answer, it is told, whenever it was asked for."""
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(100)])
    client = subscribe(daemon)
    standin.open("g")
    assert outcomes(client, 100) == daemon.wait_records(100)


def test_nothing_falls_between(daemon):
    """While outcomes are being committed: every one that is not in the log yet is told."""
    for turn in range(20):
        daemon.call("cancel", job_ids=[f"j{turn}-{number}" for number in range(50)])
        client = subscribe(daemon)
        known = {record["n"] for record in daemon.call("list", state="done", limit=1000)["requests"]}
        told = set()
        while len(known | told) < (turn + 1) * 50:
            method, params = note(client)
            assert method == "outcome"
            told.add(params["n"])
        client.close()
    daemon.wait_records(1000)


def test_its_own_requests_and_other_calls(daemon):
    client = subscribe(daemon)
    call = client.send_call("cancel", {"job_id": "a", "wait": True})
    answers = [client.answer(), client.answer()]
    told, = [answer["params"] for answer in answers if "method" in answer]
    result, = [answer["result"] for answer in answers if answer.get("id") == call]
    assert told == result == daemon.wait_records(1)[0]
    assert client.call("stats")["results"]["cancelled"] == 1
    client.send("b\n")
    answers = [client.answer(), client.answer()]
    assert {answer.get("method") for answer in answers} == {None, "outcome"}


def test_twice_is_harmless(daemon):
    client = subscribe(daemon)
    for _ in range(3):
        assert client.call("subscribe") == {"subscribed": True}
    daemon.outcome("a")
    assert outcomes(client, 1)[0]["job_id"] == "a"
    assert client.call("ping")


def test_as_a_notification_and_in_a_batch(daemon):
    silent, batched = daemon.client(), daemon.client()
    silent.send('{"jsonrpc": "2.0", "method": "subscribe"}\n')
    assert silent.call("ping")
    answer, = batched.ask('[{"jsonrpc": "2.0", "id": 7, "method": "subscribe"}]')
    assert answer == {"jsonrpc": "2.0", "result": {"subscribed": True}, "id": 7}
    # The notification is in force once what was committed before it is through.
    daemon.outcome("a")
    daemon.outcome("b")
    assert outcomes(batched, 2)[1]["job_id"] == outcomes(silent, 2)[1]["job_id"] == "b"


def test_params(daemon):
    with daemon.client() as client:
        assert client.error("subscribe", since=1).code == -32602
        daemon.outcome("a")
        assert client.call("ping")


def test_after_a_half_close(daemon):
    """`nc -N` closes its half at once."""
    client = daemon.client()
    client.send('{"jsonrpc": "2.0", "id": 1, "method": "subscribe"}\n')
    client.half_close()
    assert client.answer()["result"] == {"subscribed": True}
    daemon.outcome("a")
    assert outcomes(client, 1)[0]["job_id"] == "a"
    assert daemon.call("stats")["socket"]["clients"] == 2
    client.close()
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "that it has gone is noticed")


def test_who_has_gone(daemon):
    clients = [subscribe(daemon) for _ in range(20)]
    stays = subscribe(daemon)
    for client in clients:
        client.close()
    daemon.outcome("a")
    assert outcomes(stays, 1)[0]["job_id"] == "a"
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 2, "only two are left")


def test_until_the_end(start, standin):
    """What finishes during the shutdown is told, then the connection ends."""
    daemon = start(dispatch={"shutdown_grace_s": 60})
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=["a", "b"])
    client = subscribe(daemon)
    wait_until(lambda: standin.counts()["in_flight"] == 2, "both are in flight")
    daemon.signal(15)
    other = daemon.client()

    def shutting_down():
        other.send_call("subscribe")
        return "error" in other.answer()
    wait_until(shutting_down, "shutdown has begun")
    assert other.error("subscribe").code == -32004
    standin.open("g")
    assert sorted(one["job_id"] for one in outcomes(client, 2)) == ["a", "b"]
    assert client.line() is None
    assert daemon.wait() == 0


def small_buffers(daemon):
    """A subscriber whose kernel buffers hold little, and that does not read."""
    client = Client(daemon.socket)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    daemon.clients.append(client)
    assert client.call("subscribe") == {"subscribed": True}
    return client


def test_who_is_too_slow_is_told_how_many_it_missed(daemon):
    """Long messages, so that few are enough."""
    slow, fast = small_buffers(daemon), subscribe(daemon)
    total, told, missed = 0, 0, 0

    def make(turn):
        nonlocal total
        bad = "".join(f"{turn}-{number} " + "x" * 240 + "\n" for number in range(99)).encode()
        for number in range(80):
            daemon.drop(f"f{turn}-{number}", bad)
        outcomes(fast, 80 * 99)         # who reads misses nothing
        total += 80 * 99

    def read(until):
        nonlocal told, missed
        while told + missed < until:
            method, params = note(slow)
            if method == "missed":
                missed += params["count"]
            else:
                told += 1
                assert params["n"] == told + missed, "in order, and the counts fit"

    for turn in range(3):
        make(turn)
    read(1500)                          # some of it only
    assert missed == 0
    make(3)
    read(total)
    assert missed > 0 and told > 0
    # It goes on.
    daemon.outcome("a")
    assert outcomes(slow, 1)[0]["job_id"] == outcomes(fast, 1)[0]["job_id"] == "a"


def test_ten_thousand_at_once_are_not_too_many(daemon, standin):
    client = subscribe(daemon)
    daemon.call("hold")
    made = [one["request_id"] for one in daemon.call("cancel", job_ids=["j"] * 10000)]
    assert daemon.call("withdraw", job_id="j") == {"withdrawn": 10000}
    told = outcomes(client, 10000)
    assert sorted(one["request_id"] for one in told) == sorted(made)
    assert standin.log() == []


def test_a_notification_is_one_line_of_json(daemon):
    client = subscribe(daemon)
    daemon.drop("odd", b'"\\\xff \x01\n')
    line = client.line()
    assert json.loads(line)["params"]["outcome"] == "invalid"
    assert line.decode("ascii", "replace").isprintable()
