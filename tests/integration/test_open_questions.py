"""What an answer leaves open, when something else comes in between: a hold, another request for the job, another
base URL, a crash."""

import pytest

from daemon import KEY
from standin_client import StandIn
from storage import Manager
from waiting import wait_until


@pytest.fixture
def always(start):
    return start(api={"verify": "always", "timeout_ms": 60000})


@pytest.fixture
def other():
    with StandIn() as standin:
        yield standin


def wire(standin, job="a"):
    return [entry["route"] for entry in standin.log(job=job)]


def said(record):
    return record["outcome"], record["http_status"], record["attempts"], record["endpoint"]


@pytest.mark.parametrize("status", [404, 403, 409, 500])
@pytest.mark.parametrize("end", ["withdraw", "deadline"])
@pytest.mark.parametrize("crash", [False, True])
def test_the_next_in_the_chain_has_an_attempt_of_its_own(always, standin, status, end, crash):
    """The question is about an attempt of before it joined, and the one whose attempt it was has gone."""
    standin.fault(job="a", gate="g", status=status)
    first = always.cancel("a", deadline_s=2 if end == "deadline" else 60)
    wait_until(lambda: standin.counts()["waiting"].get("g"), "it is in flight")
    always.call("hold")
    standin.open("g")
    always.wait_item(lambda item: item["attempts"] == 1 and item["state"] != "in_flight", "it was answered", job_id="a")
    assert always.cancel("a")["coalesced"]
    if end == "withdraw":
        assert always.call("withdraw", request_id=first["request_id"]) == {"withdrawn": 1}
    assert said(always.wait_records(1)[0])[1:] == (status, 1, "cancel")
    if crash:
        always.kill()
        always.start()
    always.call("release")
    assert said(always.wait_records(2)[1]) == ("cancelled", 200, 1, "cancel")


def test_a_believed_200_is_kept_whatever_crashes(always, standin):
    standin.fault(job="a", on="get", hang="before")
    standin.fault(job="a", on="get", status=404, times=None)
    always.cancel("a")
    wait_until(lambda: "get" in wire(standin), "its status is asked for")
    always.kill()
    always.start()
    assert said(always.wait_records(1)[0]) == ("cancelled", 200, 1, "cancel")
    assert wire(standin).count("cancel") == 1


# -- another base URL -----------------------------------------------------------------------------

def cross(daemon, standin, other, **fault):
    """A request is in flight to the one when the other is configured; then it is answered."""
    standin.fault(job="a", gate="g", **fault)
    daemon.cancel("a")
    wait_until(lambda: standin.counts()["waiting"].get("g"), "it is in flight")
    daemon.set(api={"base_url": other.url})
    daemon.call("reload")
    standin.open("g")
    return daemon.wait_records(1)[0]


def test_a_route_that_is_gone_elsewhere(start, standin, other):
    daemon = start(api={"endpoint": "auto"})
    assert said(cross(daemon, standin, other, status=410, envelope=False)) == ("cancelled", 200, 1, "cancel")
    assert wire(other) == ["cancel"]
    assert wire(standin) == ["cancel"]
    assert daemon.call("stats")["endpoint"] == "cancel"
    assert "gone" not in daemon.stderr()


@pytest.mark.parametrize("on_unauthorized", ["fail", "hold"])
def test_a_key_that_is_rejected_elsewhere(start, standin, other, on_unauthorized):
    daemon = start(api={"on_unauthorized": on_unauthorized})
    assert said(cross(daemon, standin, other, status=401)) == ("cancelled", 200, 1, "cancel")
    assert daemon.call("stats")["held"] is None
    assert "rejected" not in daemon.stderr()


# -- texts of a server ----------------------------------------------------------------------------

def test_the_key_is_masked_in_a_status(start, standin):
    daemon = start(api={"verify": "always"})
    standin.fault(job="a", on="get", body=f'{{"job_id":"a","status":"x {KEY} y"}}')
    standin.fault(job="a", on="get", status=404, times=None)
    record = daemon.outcome("a")
    assert record["job_status"] == f"x {'*' * len(KEY)} y"


def test_a_code_is_no_message_to_the_service_manager(make_daemon, standin):
    daemon = make_daemon(api={"on_unauthorized": "hold"})
    manager = Manager(daemon.home)
    daemon.environment["NOTIFY_SOCKET"] = manager.path
    daemon.start()
    standin.fault(on="any", status=401, code="AUTH_002\nREADY=0\nSTOPPING=1", times=None)
    daemon.cancel("a")
    wait_until(lambda: "AUTH_002" in manager.status(), "the status says so")
    assert "AUTH_002?READY=0?STOPPING=1" in manager.status()
    manager.close()


# -- a check that hangs ---------------------------------------------------------------------------

def test_a_new_key_does_not_wait_for_the_check_of_the_old_one(start, standin):
    daemon = start(api={"on_unauthorized": "hold", "timeout_ms": 600000})
    standin.settings(keys=["second-key"])
    standin.fault(on="get", hang="before")
    daemon.cancel("a")
    wait_until(lambda: standin.log(route="get"), "it is checked, and that hangs")
    daemon.write_key("second-key")
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"
