"""The endpoint `auto`: when a cancel goes to the new route, when it stays there, and what is said of it."""

import re

import pytest

from daemon import KEY
from standin_client import StandIn
from waiting import wait_until

GONE = [{"status": 405, "envelope": False}, {"status": 405}, {"status": 410, "envelope": False}, {"status": 410},
        {"status": 501, "envelope": False}, {"status": 501}, {"status": 404, "envelope": False}]
FIRST = {404: "not_found", 405: "rejected", 410: "rejected", 501: "rejected"}


def case(fault):
    return "-".join(f"{name}-{value}" for name, value in fault.items())


@pytest.fixture
def auto(start):
    return start(api={"endpoint": "auto"})


def wire(standin, job):
    return [(entry["method"], entry["path"].split("/")[1], entry["status"]) for entry in standin.log(job=job)]


def endpoint(daemon):
    return daemon.call("stats")["endpoint"]


def test_the_old_route_is_used_while_it_works(auto, standin):
    assert endpoint(auto) == "cancel"
    assert auto.outcome("a")["endpoint"] == "cancel"
    for status in (404, 400, 403, 500):
        standin.fault(status=status)
        auto.outcome(f"job-{status}")
    standin.fault(job="html", status=400, envelope=False)
    auto.outcome("html")
    assert {entry["method"] for entry in standin.log()} == {"POST"}
    assert endpoint(auto) == "cancel"


@pytest.mark.parametrize("gone", GONE, ids=case)
def test_a_200_of_the_new_route(start, standin, gone):
    daemon = start(api={"endpoint": "auto"}, retry={"max_attempts": 1})
    standin.fault(on="cancel", times=None, **gone)
    result = daemon.outcome("a:b")
    assert wire(standin, "a:b") == [("POST", "cancel", gone["status"]), ("DELETE", "job", 200)]
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("cancelled", 200, 1)
    assert (result["endpoint"], result["error"]) == ("job", None)
    assert standin.log()[1]["path"] == "/job/a%3Ab"
    assert endpoint(daemon) == "job"
    stats = daemon.call("stats")
    assert stats["attempts"] == 1
    # For good: the old route is not tried again.
    standin.clear()
    assert daemon.outcome("b")["endpoint"] == "job"
    assert wire(standin, "b") == [("DELETE", "job", 200)]


@pytest.mark.parametrize("status, outcome", [(404, "not_found"), (403, "forbidden"), (400, "rejected"),
                                             (409, "rejected"), (405, "rejected"), (410, "rejected"),
                                             (501, "rejected")])
def test_an_error_with_the_envelope_counts_and_is_a_proof(auto, standin, status, outcome):
    standin.settings(routes={"cancel": 410})
    standin.fault(on="delete", status=status, code="CODE_1")
    result = auto.outcome("a")
    assert wire(standin, "a") == [("POST", "cancel", 410), ("DELETE", "job", status)]
    assert (result["outcome"], result["http_status"], result["attempts"]) == (outcome, status, 1)
    assert (result["endpoint"], result["error"]["code"]) == ("job", "CODE_1")
    assert endpoint(auto) == "job"
    auto.outcome("b")
    assert wire(standin, "b") == [("DELETE", "job", 200)]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_retryable_error_with_the_envelope_is_a_proof(auto, standin, status):
    standin.settings(routes={"cancel": 404})
    standin.fault(on="delete", status=status)
    result = auto.outcome("a")
    assert wire(standin, "a") == [("POST", "cancel", 404), ("DELETE", "job", status), ("DELETE", "job", 200)]
    assert (result["outcome"], result["attempts"], result["endpoint"]) == ("cancelled", 2, "job")
    assert endpoint(auto) == "job"


RETRYABLE = [({"status": 500, "envelope": False}, "http_500", 500), ({"status": 502, "envelope": False}, "http_502", 502),
             ({"status": 429, "envelope": False}, "http_429", 429), ({"garbage": True}, "bad_reply", 200),
             ({"job_id": "other"}, "job_id_mismatch", 200), ({"status": 204}, "bad_reply", 204),
             ({"truncate": 5}, "transport", None), ({"hang": "before"}, "timeout", None),
             ({"raw": "HTTP/1.1 200 OK\r\nContent-Le"}, "transport", None)]


@pytest.mark.parametrize("fault, code, status", RETRYABLE, ids=[code + str(status) for _, code, status in RETRYABLE])
def test_a_retryable_failure_counts_and_is_no_proof(start, standin, fault, code, status):
    daemon = start(api={"endpoint": "auto", "timeout_ms": 2000}, retry={"max_attempts": 1})
    standin.settings(routes={"cancel": 405})
    standin.fault(job="a", on="delete", **fault)
    result = daemon.outcome("a")
    assert [step[:2] for step in wire(standin, "a")] == [("POST", "cancel"), ("DELETE", "job")]
    assert (result["outcome"], result["attempts"], result["endpoint"]) == ("failed", 1, "job")
    assert result["error"]["code"] == code
    if status is not None:
        assert result["http_status"] == status
    assert endpoint(daemon) == "cancel"
    # The next attempt begins with the old route.
    assert daemon.outcome("b")["outcome"] == "cancelled"
    assert wire(standin, "b") == [("POST", "cancel", 405), ("DELETE", "job", 200)]


def test_both_are_one_attempt_of_many(auto, standin):
    standin.fault(on="cancel", status=405, envelope=False, times=None)
    standin.fault(on="delete", status=502, envelope=False, times=2)
    result = auto.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("cancelled", 3)
    assert [step[0] for step in wire(standin, "a")] == ["POST", "DELETE"] * 3
    assert auto.call("stats")["attempts"] == 3


OTHER = [{"status": 404, "envelope": False}, {"status": 405, "envelope": False}, {"status": 400, "envelope": False},
         {"status": 403, "envelope": False}, {"status": 410, "envelope": False}, {"status": 501, "envelope": False},
         {"status": 302, "envelope": False}]


@pytest.mark.parametrize("fault", OTHER, ids=case)
@pytest.mark.parametrize("gone", [404, 405, 410, 501])
def test_any_other_answer_leaves_the_first_standing(auto, standin, gone, fault):
    standin.settings(routes={"cancel": gone})
    standin.fault(on="delete", **fault)
    result = auto.outcome("a")
    assert wire(standin, "a") == [("POST", "cancel", gone), ("DELETE", "job", fault["status"])]
    assert (result["outcome"], result["http_status"], result["attempts"]) == (FIRST[gone], gone, 1)
    assert (result["endpoint"], result["error"]["code"]) == ("cancel", f"http_{gone}")
    assert endpoint(auto) == "cancel"
    auto.outcome("b")
    assert wire(standin, "b") == [("POST", "cancel", gone), ("DELETE", "job", 200)]


def test_it_is_remembered(auto, standin):
    standin.settings(routes={"cancel": 404})
    auto.outcome("a")
    auto.restart()
    assert endpoint(auto) == "job"
    auto.outcome("b")
    auto.kill()
    auto.start()
    assert endpoint(auto) == "job"
    auto.outcome("c")
    assert wire(standin, "b") == wire(standin, "c") == [("DELETE", "job", 200)]


def test_it_is_remembered_for_this_base_url_and_no_other(auto, standin):
    standin.settings(routes={"cancel": 404})
    auto.outcome("a")
    with StandIn(keys=(KEY,)) as other:
        auto.set(api={"base_url": other.url})
        auto.call("reload")
        assert endpoint(auto) == "cancel"
        assert auto.outcome("b")["endpoint"] == "cancel"
        auto.restart()
        assert endpoint(auto) == "cancel"
        auto.set(api={"base_url": standin.url + "/"})       # the slash is dropped
        auto.call("reload")
        assert endpoint(auto) == "job"
    auto.set(api={"base_url": standin.url + "/v2"})
    auto.call("reload")
    assert endpoint(auto) == "cancel"
    standin.settings(routes={"cancel": None})
    assert auto.outcome("c")["endpoint"] == "cancel"


def test_a_setting_is_an_order(start, standin):
    standin.settings(routes={"cancel": 410, "delete": 405})
    daemon = start(api={"endpoint": "cancel"})
    assert (daemon.outcome("a")["outcome"], endpoint(daemon)) == ("rejected", "cancel")
    daemon.set(api={"endpoint": "job"})
    daemon.call("reload")
    assert (daemon.outcome("b")["outcome"], endpoint(daemon)) == ("rejected", "job")
    assert wire(standin, "a") == [("POST", "cancel", 410)] and wire(standin, "b") == [("DELETE", "job", 405)]
    daemon.set(api={"endpoint": "auto"})
    daemon.call("reload")
    standin.settings(routes={"delete": None})
    assert (daemon.outcome("c")["endpoint"], endpoint(daemon)) == ("job", "job")
    # What auto has found out does not count for `cancel`.
    daemon.set(api={"endpoint": "cancel"})
    daemon.call("reload")
    assert (daemon.outcome("d")["http_status"], endpoint(daemon)) == (410, "cancel")


def test_many_in_flight_find_out_together(start, standin):
    daemon = start(api={"endpoint": "auto"}, dispatch={"max_in_flight": 16}, log={"level": "info"})
    standin.settings(routes={"cancel": 410})
    standin.fault(on="cancel", gate="g", times=16)
    jobs = [f"job-{number}" for number in range(100)]
    daemon.call("cancel", job_ids=jobs)
    wait_until(lambda: standin.counts()["waiting"].get("g") == 16, "16 are in flight")
    standin.open("g")
    records = daemon.wait_records(100)
    assert {(one["outcome"], one["attempts"], one["endpoint"]) for one in records} == {("cancelled", 1, "job")}
    assert standin.counts()["routes"] == {"cancel": 16, "delete": 100, "get": 0, "other": 0}
    said = [line for line in daemon.stderr().splitlines() if "/cancel" in line and "/job" in line]
    assert len(said) == 1, daemon.stderr()


def lines_with(daemon, *patterns):
    return [line for line in daemon.stderr().splitlines() if all(re.search(one, line) for one in patterns)]


def test_deprecation_and_sunset_are_logged_once(start, standin):
    daemon = start(api={"endpoint": "auto"}, log={"level": "info"})
    standin.fault(times=None, headers={"Deprecation": "@1688169599", "Sunset": "Wed, 31 Dec 2031 23:59:59 GMT"})
    for number in range(5):
        daemon.outcome(f"job-{number}")
    assert len(lines_with(daemon, "(?i)deprecat", "2023-06-30|30 Jun 2023")) == 1, daemon.stderr()
    assert len(lines_with(daemon, "(?i)sunset|removed|gone|ends", "2031-12-31|31 Dec 2031")) == 1, daemon.stderr()
    daemon.restart()
    daemon.outcome("again")
    assert 1 <= len(lines_with(daemon, "(?i)deprecat", "2023-06-30|30 Jun 2023")) <= 2


@pytest.mark.parametrize("name, value", [("Deprecation", "true"), ("Deprecation", "@99999999999999999999"),
                                         ("Deprecation", "@"), ("Sunset", "soon"), ("Sunset", ""),
                                         ("Sunset", "x" * 5000), ("Deprecation", "\x1b[31mred\x07")])
def test_odd_deprecation_and_sunset(auto, standin, name, value):
    """Nothing breaks, and what goes into the log is clean (each test's end looks for that)."""
    standin.fault(times=None, headers={name: value})
    assert auto.outcome("a")["outcome"] == "cancelled"
    assert max(map(len, auto.stderr().splitlines())) < 2000
