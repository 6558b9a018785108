"""When the next attempt is, what counts as one, and in which order jobs are sent."""

import datetime
import socket

import pytest

from daemon import KEY
from results import parse_time
from standin_client import StandIn
from waiting import wait_until


@pytest.fixture
def closed_port():
    """A port that refuses connections and that nobody else gets."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def waiting(item):
    return item["state"] == "waiting"


@pytest.mark.parametrize("status", [429, 503, 500, 202])
@pytest.mark.parametrize("form", ["retry_after", "retry_after_date"])
def test_retry_after_is_a_lower_bound(start, standin, status, form):
    daemon = start(retry={"max_delay_ms": 86400000})
    standin.fault(job="a", status=status, **{form: 3600})
    daemon.cancel("a")
    item = daemon.wait_item(waiting, "a waits", job_id="a")
    delay = parse_time(item["next_attempt_at"]) - standin.log()[0]["time"]
    assert 3598 < delay < 3700
    assert (item["attempts"], item["last_error"] is not None) == (1, True)


@pytest.mark.parametrize("value", [3600, 99999999999999999999, (datetime.datetime.now(datetime.timezone.utc) +
                                   datetime.timedelta(days=9)).strftime("%a, %d %b %Y %H:%M:%S GMT")])
def test_retry_after_is_capped_at_max_delay(start, standin, value):
    daemon = start(retry={"max_delay_ms": 60000})
    standin.fault(job="a", status=503, retry_after=value)
    daemon.cancel("a")
    item = daemon.wait_item(waiting, "a waits", job_id="a")
    delay = parse_time(item["next_attempt_at"]) - standin.log()[0]["time"]
    assert 59 < delay < 65


@pytest.mark.parametrize("value", ["-5", "soon", "", "1.5x", "Mon, 01 Jan 1990 00:00:00 GMT", "0"])
def test_odd_retry_after_is_ignored(daemon, standin, value):
    standin.fault(job="a", status=503, retry_after=value)
    result = daemon.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("cancelled", 2)


def test_backoff_is_at_most_max_delay(start, standin):
    daemon = start(retry={"base_delay_ms": 3600000, "max_delay_ms": 30})
    standin.fault(job="a", status=500, times=4)
    result = daemon.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("cancelled", 5)


def test_refused_connections_do_not_count(start, closed_port):
    daemon = start(base_url=f"http://127.0.0.1:{closed_port}", retry={"max_attempts": 1})
    with daemon.client() as client:
        call = client.send_call("cancel", {"job_id": "a", "wait": True})
        wait_until(lambda: daemon.call("stats")["replies"].get("transport", 0) >= 3, "three refused connections")
        item = daemon.item(job_id="a")
        assert (item["attempts"], item["state"] in ("waiting", "queued", "in_flight")) == (0, True)
        with StandIn(port=closed_port, keys=(KEY,)):
            result = client.result(call)
    assert (result["outcome"], result["attempts"], result["error"]) == ("cancelled", 1, None)


def test_refused_until_the_deadline(start, closed_port):
    daemon = start(base_url=f"http://127.0.0.1:{closed_port}")
    result = daemon.outcome("a", deadline_s=1)
    assert (result["outcome"], result["attempts"], result["http_status"]) == ("expired", 0, None)
    assert (result["endpoint"], result["error"]["code"]) == (None, "transport")


def test_an_unknown_host_is_a_transport_error(start):
    daemon = start(base_url="https://no-such-host.invalid")
    result = daemon.outcome("a", deadline_s=1)
    assert (result["outcome"], result["attempts"], result["error"]["code"]) == ("expired", 0, "transport")


def test_counts_survive_restarts(start, standin):
    daemon = start(retry={"max_attempts": 3, "max_delay_ms": 1000})
    standin.fault(job="a", status=500, retry_after=1, times=2)
    first = daemon.cancel("a", request_id="r")
    daemon.wait_item(lambda item: waiting(item) and item["attempts"] == 1, "one attempt", job_id="a")
    daemon.restart()
    item = daemon.item(request_id="r")
    assert item["attempts"] >= 1 and item["accepted_at"]
    daemon.wait_item(lambda item: waiting(item) and item["attempts"] == 2, "two attempts", job_id="a")
    daemon.kill()
    daemon.start()
    result, = daemon.wait_records(1)
    assert (result["outcome"], result["attempts"], result["request_id"]) == ("cancelled", 3, first["request_id"])
    assert len(standin.log()) == 3


def test_an_attempt_cut_off_by_a_crash_does_not_count(start, standin):
    daemon = start(retry={"max_attempts": 1})
    standin.fault(job="a", gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.log(), "the request is out")
    daemon.kill()
    daemon.start()
    result, = daemon.wait_records(1)
    assert (result["outcome"], result["attempts"]) == ("cancelled", 1)
    assert len(standin.log()) == 2


def test_a_retry_sleeps_without_anything_in_flight(start, standin):
    """The timer of the next retry is armed though curl has nothing to do."""
    daemon = start(retry={"max_delay_ms": 1000})
    standin.fault(status=503, retry_after=1)
    assert daemon.outcome("a")["attempts"] == 2


def test_first_accepted_first_sent_from_the_socket(start, standin):
    daemon = start(dispatch={"max_in_flight": 1})
    jobs = [f"j{number:03}" for number in range(200)]
    standin.fault(job="j000", gate="g")
    daemon.call("cancel", job_ids=jobs[:100])
    for job in jobs[100:]:
        daemon.cancel(job)
    standin.open("g")
    daemon.wait_records(200)
    assert [entry["job"] for entry in standin.log()] == jobs
    assert standin.counts()["max_in_flight"] == 1


def test_first_accepted_first_sent_from_the_spool_and_across_a_restart(start, standin):
    daemon = start(dispatch={"max_in_flight": 1, "shutdown_grace_s": 0})
    standin.fault(job="first", gate="g", times=None)
    daemon.cancel("first")
    wait_until(lambda: standin.log(), "first is on the wire")
    jobs = [f"j{number:03}" for number in range(300)]
    daemon.drop("list", "\n".join(jobs[:200]))
    wait_until(lambda: daemon.call("stats")["accepted"]["spool"] == 200, "the list is taken")
    daemon.call("cancel", job_ids=jobs[200:])
    daemon.restart()
    standin.open("g")
    daemon.wait_records(301)
    sent = [entry["job"] for entry in standin.log() if entry["job"] != "first"]
    assert sent == jobs


def test_max_in_flight(start, standin):
    daemon = start(dispatch={"max_in_flight": 7})
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(50)])
    wait_until(lambda: standin.counts()["in_flight"] == 7, "seven in flight")
    assert daemon.call("stats")["pending"]["in_flight"] == 7
    standin.open("g")
    daemon.wait_records(50)
    assert standin.counts()["max_in_flight"] == 7


def test_connections_are_kept(start, standin):
    daemon = start(dispatch={"max_in_flight": 4})
    before = standin.counts()["connections_made"]
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(200)])
    daemon.wait_records(200)
    assert standin.counts()["connections_made"] - before <= 4


def test_one_jobs_trouble_does_not_hold_up_others(start, standin):
    daemon = start(retry={"max_delay_ms": 86400000})
    standin.fault(job="bad", status=500, retry_after=3600, times=None)
    daemon.cancel("bad")
    daemon.wait_item(waiting, "bad waits", job_id="bad")
    assert daemon.outcome("good")["outcome"] == "cancelled"
