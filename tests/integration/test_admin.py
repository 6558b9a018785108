"""hold, release, flush, retry, withdraw and reload."""

import contextlib
import os
import signal

import pytest

from daemon import Raw
from results import parse_time
from rpc import Client
from storage import Manager
from waiting import holds_for, wait_until

# -- hold and release ---------------------------------------------------------------------------


def test_hold_and_release(daemon, standin):
    assert daemon.call("hold") == {"held": True}
    assert daemon.call("hold") == {"held": True}
    assert daemon.call("stats")["held"] == "operator"
    # Intake goes on, by socket and spool; sending does not.
    daemon.cancel("a")
    daemon.drop("b")
    wait_until(lambda: daemon.call("stats")["pending"]["queued"] == 2, "both are accepted")
    holds_for(0.3, lambda: not standin.log(), "nothing is sent")
    assert daemon.call("release") == {"held": False}
    assert daemon.call("release") == {"held": False}
    assert daemon.call("stats")["held"] is None
    daemon.wait_records(2)


def test_what_is_in_flight_when_held_goes_on(daemon, standin):
    standin.fault(gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.log(), "it is in flight")
    daemon.call("hold")
    standin.open("g")
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"


def test_a_hold_survives_restart_and_crash(daemon, standin):
    daemon.call("hold")
    daemon.cancel("a")
    daemon.restart()
    assert daemon.call("stats")["held"] == "operator"
    daemon.kill()
    daemon.start()
    assert daemon.call("stats")["held"] == "operator"
    daemon.reload()
    daemon.cancel("b")
    holds_for(0.3, lambda: not standin.log(), "nothing is sent")
    daemon.call("release")
    daemon.wait_records(2)
    daemon.kill()
    daemon.start()
    assert daemon.call("stats")["held"] is None


def test_deadlines_count_during_a_hold(make_daemon, standin):
    """Behind however many that are due: 1,500 is more than are kept in memory for their turn."""
    daemon = make_daemon(retry={"base_delay_ms": 1, "max_delay_ms": 1000})
    daemon.start()
    standin.fault(status=500, retry_after=1, times=None)
    jobs = [f"job-{number}" for number in range(1500)]
    daemon.call("cancel", job_ids=jobs, deadline_s=6)
    wait_until(lambda: daemon.call("stats")["attempts"] >= len(jobs), "each was tried")
    daemon.call("hold")
    daemon.cancel("later", deadline_s=1)
    assert {record["outcome"] for record in daemon.wait_records(len(jobs) + 1)} == {"expired"}
    stats = daemon.call("stats")
    assert stats["held"] == "operator"
    assert stats["pending"] == {"queued": 0, "in_flight": 0, "waiting": 0}


def test_an_api_that_is_down_is_in_the_status_line(make_daemon):
    daemon = make_daemon(api={"base_url": "http://127.0.0.1:1"})
    with contextlib.closing(Manager(daemon.home)) as manager:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        daemon.cancel("a")
        wait_until(lambda: "can't be reached" in manager.status(), "the status line says so")
        daemon.stop()


def test_an_api_that_only_fails_is_in_the_status_line(make_daemon, standin):
    daemon = make_daemon(retry={"max_attempts": 1000})
    standin.fault(status=503, times=None)
    with contextlib.closing(Manager(daemon.home)) as manager:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        daemon.cancel("a")
        wait_until(lambda: "errors only" in manager.status(), "the status line says so")
        standin.reset()
        wait_until(lambda: "errors only" not in manager.status(), "it is gone")
        daemon.stop()
    log = daemon.stderr()
    assert log.count("with an error of its own") == 1 and "HTTP status 503" in log and "answers again" in log


def test_a_hold_is_in_the_status_line(make_daemon):
    daemon = make_daemon()
    with contextlib.closing(Manager(daemon.home)) as manager:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        assert "Held" not in manager.status()
        daemon.call("hold")
        wait_until(lambda: "Held by the operator" in manager.status(), "the status line has it")
        daemon.restart()
        wait_until(lambda: "Held by the operator" in manager.status(), "after the restart, too")
        daemon.call("release")
        wait_until(lambda: "Held" not in manager.status(), "it is gone")
        daemon.stop()


def test_deadlines_pass_while_held(daemon, standin):
    daemon.call("hold")
    assert daemon.outcome("a", deadline_s=1)["outcome"] == "expired"
    assert standin.log() == []


@pytest.mark.parametrize("method", ["hold", "release", "flush", "reload", "subscribe"])
def test_methods_that_take_no_params(daemon, method):
    with daemon.client() as client:
        assert client.error(method, job_id="a").code == -32602
        client.send('{"jsonrpc": "2.0", "id": 1, "method": "%s", "params": {}}\n' % method)
        assert "result" in client.answer()


# -- flush --------------------------------------------------------------------------------------


def test_flush(start, standin):
    daemon = start(retry={"max_delay_ms": 86400000})
    assert daemon.call("flush") == {"flushed": 0}
    for number in range(20):
        standin.fault(job=f"j{number}", status=500, retry_after=3600)
        daemon.cancel(f"j{number}")
    wait_until(lambda: daemon.call("stats")["pending"]["waiting"] == 20, "all wait")
    daemon.restart()
    assert daemon.call("flush") == {"flushed": 20}
    records = daemon.wait_records(20)
    assert {(record["outcome"], record["attempts"]) for record in records} == {("cancelled", 2)}
    assert daemon.call("flush") == {"flushed": 0}


def test_flush_while_held(start, standin):
    daemon = start(retry={"max_delay_ms": 86400000})
    standin.fault(job="a", status=500, retry_after=3600)
    daemon.cancel("a")
    wait_until(lambda: daemon.call("stats")["pending"]["waiting"] == 1, "it waits")
    daemon.call("hold")
    assert daemon.call("flush") == {"flushed": 1}
    holds_for(0.2, lambda: len(standin.log()) == 1, "nothing is sent")
    daemon.call("release")
    daemon.wait_records(1)


# -- retry --------------------------------------------------------------------------------------


def failed(daemon, standin, job, status=403):
    standin.fault(job=job, status=status)
    return daemon.outcome(job)


def test_retry_of_a_request(daemon, standin):
    old = failed(daemon, standin, "a")
    daemon.set(retry={"deadline_s": 1000})
    daemon.call("reload")
    standin.fault(job="a", gate="g")
    answer = daemon.call("retry", request_id=old["request_id"])
    assert list(answer) == ["requests", "more"] and answer["more"] is False
    made, = answer["requests"]
    assert list(made) == ["request_id", "job_id", "retry_of"]
    assert (made["job_id"], made["retry_of"]) == ("a", old["request_id"]) and made["request_id"] != old["request_id"]
    item = daemon.item(request_id=made["request_id"])
    assert item["source"] == "socket" and item["origin"] == f"uid={os.getuid()} pid={os.getpid()}"
    assert parse_time(item["deadline_at"]) - parse_time(item["accepted_at"]) == pytest.approx(1000, abs=0.01)
    assert daemon.call("stats")["accepted"]["socket"] == 2
    standin.open("g")
    record = daemon.wait_records(2)[1]
    assert (record["request_id"], record["outcome"], record["attempts"]) == (made["request_id"], "cancelled", 1)


def test_retry_of_a_job_takes_its_newest(daemon, standin):
    failed(daemon, standin, "a")
    old = failed(daemon, standin, "a", 404)
    made, = daemon.call("retry", job_id="a")["requests"]
    assert made["retry_of"] == old["request_id"]
    daemon.wait_records(3)
    # Now its newest has ended as cancelled.
    assert daemon.call("retry", job_id="a") == {"requests": [], "more": False}


def test_once(daemon, standin):
    old = failed(daemon, standin, "a")
    standin.fault(job="a", gate="g")
    assert len(daemon.call("retry", job_id="a")["requests"]) == 1
    for params in ({"job_id": "a"}, {"request_id": old["request_id"]}, {"outcome": "forbidden"}):
        assert daemon.call("retry", **params) == {"requests": [], "more": False}
    standin.open("g")
    daemon.wait_records(2)
    daemon.restart()
    assert daemon.call("retry", outcome="forbidden") == {"requests": [], "more": False}


def test_a_retry_that_fails_can_be_retried(daemon, standin):
    failed(daemon, standin, "a")
    standin.fault(job="a", status=403)
    first, = daemon.call("retry", job_id="a")["requests"]
    daemon.wait_records(2)
    second, = daemon.call("retry", job_id="a")["requests"]
    assert second["retry_of"] == first["request_id"]
    daemon.wait_records(3)


def test_several_callers_at_once(daemon, standin):
    for number in range(20):
        failed(daemon, standin, f"j{number}")
    clients = [daemon.client() for _ in range(8)]
    calls = [client.send_call("retry", {"outcome": "forbidden"}) for client in clients]
    made = [one for client, call in zip(clients, calls) for one in client.result(call)["requests"]]
    assert sorted(one["job_id"] for one in made) == sorted(f"j{number}" for number in range(20))
    daemon.wait_records(40)


def test_retry_by_outcome(daemon, standin):
    for job in ("a", "b"):
        failed(daemon, standin, job)
    failed(daemon, standin, "c", 404)
    failed(daemon, standin, "d")
    daemon.outcome("d")                 # its newest is cancelled
    answer = daemon.call("retry", outcome="forbidden")
    assert [one["job_id"] for one in answer["requests"]] == ["a", "b"]
    answer = daemon.call("retry", outcome="not_found")
    assert [one["job_id"] for one in answer["requests"]] == ["c"]
    daemon.wait_records(8)


def test_a_thousand_a_call(daemon, standin):
    standin.fault(regex="^j", status=403, times=2300)
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(2300)])
    daemon.wait_records(2300)
    standin.fault(gate="g", times=None)
    seen = []
    for count, more in ((1000, True), (1000, True), (300, False), (0, False)):
        answer = daemon.call("retry", outcome="forbidden")
        assert (len(answer["requests"]), answer["more"]) == (count, more)
        seen += [one["job_id"] for one in answer["requests"]]
    assert len(seen) == len(set(seen)) == 2300
    standin.open("g")
    daemon.wait_records(4600)


def test_exactly_a_thousand_is_all(daemon, standin):
    standin.fault(regex="^j", status=403, times=1000)
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(1000)])
    daemon.wait_records(1000)
    answer = daemon.call("retry", outcome="forbidden")
    assert (len(answer["requests"]), answer["more"]) == (1000, False)
    daemon.wait_records(2000)


def test_what_cannot_be_retried(daemon, standin):
    done = daemon.outcome("a")
    daemon.drop("bad", b"no job\n")
    invalid = daemon.wait_records(2)[1]
    standin.fault(gate="g")
    pending = daemon.cancel("b")
    for params in ({"job_id": "a"}, {"request_id": done["request_id"]}, {"request_id": invalid["request_id"]},
                   {"job_id": "b"}, {"request_id": pending["request_id"]}, {"job_id": "never-seen"},
                   {"request_id": "never-seen"}, {"outcome": "failed"}):
        assert daemon.call("retry", **params) == {"requests": [], "more": False}, params
    standin.open("g")
    daemon.wait_records(3)


def test_withdrawn_can_be_retried(daemon):
    daemon.call("hold")
    daemon.cancel("a")
    daemon.call("withdraw", job_id="a")
    daemon.call("release")
    assert len(daemon.call("retry", outcome="withdrawn")["requests"]) == 1
    assert daemon.wait_records(2)[1]["outcome"] == "cancelled"


@pytest.mark.parametrize("params", [
    {}, {"job_id": "a b"}, {"job_id": 1}, {"request_id": "~"}, {"request_id": None}, {"outcome": "happy"},
    {"outcome": 1}, {"outcome": "cancelled"}, {"outcome": "too_late"}, {"outcome": "invalid"},
    {"job_id": "a", "outcome": "failed"}, {"job_id": "a", "request_id": "r"}, {"job_id": "a", "limit": 1}, {"job": "a"},
], ids=str)
def test_bad_params_of_retry(daemon, params):
    with daemon.client() as client:
        assert client.error("retry", **params).code == -32602


def test_retry_into_a_full_queue(start, standin):
    daemon = start(queue={"max_pending": 3})
    for number in range(3):
        failed(daemon, standin, f"j{number}")
    standin.fault(gate="g")
    daemon.cancel("a")
    with daemon.client() as client:
        error = client.error("retry", outcome="forbidden")
        assert error.code == -32001 and error.message.startswith("queue_full") and "queue.max_pending" in error.data
    assert sum(daemon.call("stats")["pending"].values()) == 1       # nothing was done
    standin.open("g")
    daemon.wait_records(4)
    assert len(daemon.call("retry", outcome="forbidden")["requests"]) == 3
    daemon.wait_records(7)


# -- withdraw -----------------------------------------------------------------------------------


def test_withdraw_a_job_and_a_request(daemon, standin):
    daemon.call("hold")
    for job in ("a", "a", "b", "c"):
        daemon.cancel(job)
    made = daemon.cancel("c", request_id="r-c")["request_id"]
    assert daemon.call("withdraw", job_id="a") == {"withdrawn": 2}
    assert daemon.call("withdraw", request_id=made) == {"withdrawn": 1}
    assert daemon.call("withdraw", request_id=made) == {"withdrawn": 0}
    assert daemon.call("withdraw", job_id="never-seen") == {"withdrawn": 0}
    assert daemon.call("withdraw", request_id="never-seen") == {"withdrawn": 0}
    records = daemon.wait_records(3)
    assert {record["outcome"] for record in records} == {"withdrawn"}
    assert [record["job_id"] for record in records] == ["a", "a", "c"]
    daemon.call("release")
    assert sorted(record["job_id"] for record in daemon.wait_records(5)[3:]) == ["b", "c"]
    assert sorted(entry["job"] for entry in standin.log()) == ["b", "c"]


def test_who_waits_for_it_is_told(daemon):
    daemon.call("hold")
    client = daemon.client()
    call = client.send_call("cancel", {"job_id": "a", "wait": True})
    wait_until(lambda: daemon.item(job_id="a"), "it is accepted")
    daemon.call("withdraw", job_id="a")
    assert client.result(call)["outcome"] == "withdrawn"


def test_not_what_is_in_flight(daemon, standin):
    standin.fault(job="a", gate="g")
    daemon.cancel("a", request_id="r")
    wait_until(lambda: standin.log(), "it is in flight")
    daemon.cancel("a")                  # served by the attempt that is in flight
    assert daemon.call("withdraw", job_id="a") == {"withdrawn": 0}
    assert daemon.call("withdraw", request_id="r") == {"withdrawn": 0}
    standin.open("g")
    assert {record["outcome"] for record in daemon.wait_records(2)} == {"cancelled"}
    assert daemon.call("withdraw", job_id="a") == {"withdrawn": 0}


def test_what_waits_for_a_retry(start, standin):
    daemon = start(retry={"max_delay_ms": 86400000})
    standin.fault(job="a", status=500, retry_after=3600)
    daemon.cancel("a")
    wait_until(lambda: daemon.call("stats")["pending"]["waiting"] == 1, "it waits")
    daemon.restart()
    assert daemon.call("withdraw", job_id="a") == {"withdrawn": 1}
    record, = daemon.wait_records(1)
    assert (record["outcome"], record["attempts"], record["error"]["code"]) == ("withdrawn", 1, "JOB_003")
    assert daemon.call("stats")["pending"] == {"queued": 0, "in_flight": 0, "waiting": 0}


def test_when_the_leader_is_withdrawn_the_next_goes_on(daemon, standin):
    daemon.call("hold")
    daemon.cancel("a", request_id="r1")
    daemon.cancel("a", request_id="r2")
    assert daemon.call("withdraw", request_id="r1") == {"withdrawn": 1}
    daemon.call("release")
    first, second = daemon.wait_records(2)
    assert (first["request_id"], first["outcome"]) == ("r1", "withdrawn")
    assert (second["request_id"], second["outcome"], second["coalesced_with"]) == ("r2", "cancelled", None)
    assert len(standin.log()) == 1


def test_more_than_a_step(daemon, standin):
    """12,000 requests for one job, of 12,100."""
    daemon.call("hold")
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(100)])
    for _ in range(2):
        daemon.call("cancel", job_ids=["a"] * 6000)
    assert daemon.call("withdraw", job_id="a") == {"withdrawn": 12000}
    assert sum(daemon.call("stats")["pending"].values()) == 100
    daemon.call("release")
    daemon.wait_records(12100)
    assert len(standin.log()) == 100


@pytest.mark.parametrize("params", [{}, {"job_id": "a b"}, {"request_id": "~"}, {"job_id": None}, {"outcome": "failed"},
                                    {"job_id": "a", "request_id": "r"}, {"job_id": "a", "x": 1}], ids=str)
def test_bad_params_of_withdraw(daemon, params):
    with daemon.client() as client:
        assert client.error("withdraw", **params).code == -32602


# -- reload -------------------------------------------------------------------------------------


def test_reload(daemon, standin):
    assert daemon.call("reload") == {"reloaded": True, "restart_needed": []}
    daemon.set(api={"endpoint": "job"}, spool={"settle_ms": 7}, socket={"max_clients": 9})
    answer = daemon.call("reload")
    assert list(answer) == ["reloaded", "restart_needed"] and answer["reloaded"] is True
    assert sorted(answer["restart_needed"]) == ["socket.max_clients", "spool.settle_ms"]
    daemon.outcome("a")
    assert standin.log()[0]["route"] == "delete"
    daemon.restart()
    assert daemon.call("reload")["restart_needed"] == []


def test_reload_reopens_the_results_log(daemon):
    daemon.outcome("a")
    daemon.rotate()
    daemon.call("reload")
    wait_until(lambda: os.path.exists(daemon.results), "the log is opened anew")
    daemon.outcome("b")
    daemon.wait_records(2)


def test_a_bad_configuration(daemon, standin):
    daemon.set(api={"endpoint": "job"}, retry={"max_attempts": 0})
    with daemon.client() as client:
        error = client.error("reload")
        assert error.code == -32006 and error.data
        assert error.message.startswith("bad_configuration: ")
        assert f"{daemon.config}:{daemon.line_of('retry', 'max_attempts')}: retry.max_attempts" in error.message
    daemon.outcome("a")
    assert standin.log()[0]["route"] == "cancel"        # the old one is in force
    daemon.set(api={"endpoint": Raw('"job"')}, retry={"max_attempts": 5})
    assert daemon.call("reload")["reloaded"]
    os.unlink(daemon.key_file)
    with daemon.client() as client:
        error = client.error("reload")
        assert error.code == -32006 and daemon.key_file in error.message
    daemon.write_key(daemon.key)


# -- at the end ---------------------------------------------------------------------------------


def test_shutting_down(start, standin):
    daemon = start(dispatch={"shutdown_grace_s": 60})
    standin.fault(gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.log(), "it is in flight")
    with Client(daemon.socket) as client:
        daemon.signal(signal.SIGTERM)

        def begun():
            client.send_call("cancel", {"job_id": "late"})
            return "error" in client.answer()
        wait_until(begun, "shutdown has begun")
        for method, params in (("hold", {}), ("release", {}), ("flush", {}), ("retry", {"job_id": "a"}),
                               ("withdraw", {"job_id": "a"}), ("reload", {}), ("subscribe", {})):
            error = client.error(method, **params)
            assert error.code == -32004 and error.message.startswith("shutting_down") and error.data, method
        assert client.ask("late-line")["error"]["code"] == -32004
        assert client.call("ping") and client.call("list")
        standin.open("g")
        assert daemon.wait() == 0


def test_calls_under_way_when_it_stops(start, standin):
    """Each is answered or refused, and the daemon ends."""
    daemon = start(dispatch={"max_in_flight": 1}, retry={"max_delay_ms": 86400000})
    daemon.call("hold")
    for _ in range(2):
        daemon.call("cancel", job_ids=["a"] * 10000)
    clients = [daemon.client() for _ in range(6)]
    for client, (method, params) in zip(clients, [("withdraw", {"job_id": "a"}), ("list", {"state": "in_flight"}),
                                                  ("subscribe", None), ("flush", None), ("release", None),
                                                  ("retry", {"outcome": "withdrawn"})]):
        client.send_call(method, params)
    daemon.signal(signal.SIGTERM)
    for client in clients:
        line = client.line()
        assert line is None or b'"result"' in line or b"shutting_down" in line
    assert daemon.wait() == 0
