"""`list`: pages of requests, oldest first, by state and outcome."""

import pytest

from results import MEMBERS
from waiting import wait_until

ITEM = ["request_id", "job_id", "state", "attempts", "accepted_at", "deadline_at", "next_attempt_at", "last_error",
        "source", "origin"]


def pages(daemon, **params):
    """All requests, page by page, and how long each page was."""
    requests, lengths, after = [], [], {}
    while True:
        answer = daemon.call("list", **params, **after)
        assert list(answer) == ["requests", "next"]
        requests += answer["requests"]
        lengths.append(len(answer["requests"]))
        if answer["next"] is None:
            return requests, lengths
        assert type(answer["next"]) is str and answer["next"]
        after = {"after": answer["next"]}


def jobs(requests):
    return [request["job_id"] for request in requests]


def listed(daemon, **params):
    return jobs(daemon.call("list", **params)["requests"])


def test_nothing(daemon):
    assert daemon.call("list") == {"requests": [], "next": None}
    assert daemon.call("list", state="queued") == {"requests": [], "next": None}
    assert daemon.call("list", outcome="failed", after="5") == {"requests": [], "next": None}


def test_items_are_those_of_status(daemon, standin):
    done = daemon.outcome("a")
    standin.fault(gate="g")
    daemon.cancel("b", request_id="r-b")
    daemon.wait_item(lambda item: item["state"] == "in_flight", "one is in flight", job_id="b")
    first, second = daemon.call("list")["requests"]
    assert first == {**done, "state": "done"} and list(first) == MEMBERS + ["state"]
    assert list(second) == ITEM and second == daemon.item(job_id="b")
    standin.open("g")
    daemon.wait_records(2)


def test_pages_oldest_first(daemon, standin):
    standin.fault(gate="g", times=None)
    all_jobs = [f"j{number}" for number in range(250)]
    daemon.call("cancel", job_ids=all_jobs)
    for limit, lengths in ((100, [100, 100, 50]), (125, [125, 125]), (249, [249, 1]), (250, [250]), (1000, [250])):
        requests, seen = pages(daemon, limit=limit)
        assert (jobs(requests), seen) == (all_jobs, lengths)
    # The default is 100, and a page that is full and the last has no next.
    answer = daemon.call("list")
    assert (len(answer["requests"]), answer["next"] is None) == (100, False)
    standin.open("g")
    daemon.wait_records(250)
    assert jobs(pages(daemon, limit=77)[0]) == all_jobs
    assert pages(daemon, limit=250)[1] == [250]


def test_a_page_of_a_thousand(daemon):
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(1500)])
    daemon.wait_records(1500)
    assert pages(daemon, limit=1000)[1] == [1000, 500]
    assert pages(daemon, limit=1000, outcome="cancelled")[1] == [1000, 500]


def test_what_comes_meanwhile_is_on_a_later_page(daemon):
    for job in ("a", "b", "c"):
        daemon.outcome(job)
    answer = daemon.call("list", limit=2)
    daemon.outcome("d")
    assert listed(daemon, after=answer["next"]) == ["c", "d"]


def test_by_state(start, standin):
    """With followers, which are in the state of the one that leads."""
    daemon = start(dispatch={"max_in_flight": 1}, retry={"base_delay_ms": 3600000, "max_delay_ms": 86400000})
    daemon.outcome("d1")
    standin.fault(job="w", status=500, retry_after=3600)
    daemon.cancel("w")
    daemon.wait_item(lambda item: item["state"] == "waiting", "one waits", job_id="w")
    daemon.cancel("w")
    standin.fault(job="f", gate="g")
    daemon.cancel("f")
    daemon.wait_item(lambda item: item["state"] == "in_flight", "one is in flight", job_id="f")
    daemon.cancel("f")
    daemon.call("cancel", job_ids=["q1", "q2", "q3"])
    assert listed(daemon) == ["d1", "w", "w", "f", "f", "q1", "q2", "q3"]
    assert listed(daemon, state="done") == ["d1"]
    assert listed(daemon, state="waiting") == ["w", "w"]
    assert listed(daemon, state="in_flight") == ["f", "f"]
    assert listed(daemon, state="queued") == ["q1", "q2", "q3"]
    for state in ("done", "waiting", "in_flight", "queued"):
        requests, lengths = pages(daemon, state=state, limit=1)
        assert {request["state"] for request in requests} == {state}
        assert lengths == [1] * len(requests) and jobs(requests) == listed(daemon, state=state)
    standin.open("g")
    daemon.wait_records(6)


def test_a_rare_state_behind_many_others(start, standin):
    """It takes several steps to fill the page."""
    daemon = start(dispatch={"max_in_flight": 1})
    standin.fault(job="first", gate="g")
    daemon.cancel("first")
    wait_until(lambda: standin.log(), "the first is in flight")
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(6000)])
    daemon.cancel("first")
    requests, lengths = pages(daemon, state="in_flight", limit=5)
    assert (jobs(requests), lengths) == (["first", "first"], [2])
    assert pages(daemon, state="waiting") == ([], [0])
    assert len(pages(daemon, state="queued", limit=1000)[0]) == 6000
    standin.clear()
    daemon.call("hold")
    standin.open("g")
    wait_until(lambda: daemon.call("stats")["pending"]["in_flight"] == 0, "none is in flight")
    daemon.call("withdraw", job_id="j5999")
    assert listed(daemon, outcome="withdrawn") == ["j5999"]
    assert listed(daemon, state="done") == ["first", "j5999", "first"]


def test_by_outcome(daemon, standin):
    standin.fault(job="f", status=403)
    standin.fault(job="n", status=404)
    for job in ("a", "f", "b", "n"):
        daemon.outcome(job)
    daemon.drop("bad", b"no job\n")
    daemon.wait_records(5)
    assert listed(daemon, outcome="cancelled") == ["a", "b"]
    assert listed(daemon, outcome="forbidden", state="done") == ["f"]
    assert listed(daemon, outcome="not_found") == ["n"]
    assert listed(daemon, outcome="invalid") == ["no job"]
    assert listed(daemon, outcome="withdrawn") == []
    requests, lengths = pages(daemon, outcome="cancelled", limit=1)
    assert (jobs(requests), lengths) == (["a", "b"], [1, 1])
    # What is not done has no outcome.
    daemon.call("hold")
    daemon.cancel("q")
    for state in ("queued", "in_flight", "waiting"):
        assert daemon.call("list", state=state, outcome="cancelled") == {"requests": [], "next": None}
    daemon.call("release")


def test_over_a_restart(daemon):
    for job in ("a", "b", "c"):
        daemon.outcome(job)
    after = daemon.call("list", limit=1)["next"]
    daemon.restart()
    assert listed(daemon, after=after) == ["b", "c"]


@pytest.mark.parametrize("params", [
    {"state": "sleeping"}, {"state": "Done"}, {"state": ""}, {"state": None}, {"state": 1},
    {"outcome": "happy"}, {"outcome": ""}, {"outcome": ["failed"]}, {"outcome": "done"},
    {"limit": 0}, {"limit": -1}, {"limit": 1001}, {"limit": "10"}, {"limit": 10.0}, {"limit": None}, {"limit": 1e30},
    {"after": 5}, {"after": ""}, {"after": "x"}, {"after": "-1"}, {"after": "+1"}, {"after": " 1"}, {"after": "1 "},
    {"after": "01"}, {"after": "0"}, {"after": "1.0"}, {"after": None}, {"after": "9" * 19}, {"after": "1" * 40},
    {"states": "queued"}, {"job_id": "a"},
], ids=str)
def test_bad_params(daemon, params):
    with daemon.client() as client:
        error = client.error("list", **params)
        assert error.code == -32602 and error.message.startswith("params")


def test_a_client_that_leaves_before_its_page(daemon):
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(2000)])
    daemon.wait_records(2000)
    for _ in range(20):
        client = daemon.client()
        client.send_call("list", {"limit": 1000})
        client.close()
    assert len(daemon.call("list", limit=1000)["requests"]) == 1000
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "only we are left")
