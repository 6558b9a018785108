"""Asking GET /job/{job_id} what became of a job: when, and what its answer means."""

import os

import pytest

from waiting import holds_for, wait_until


@pytest.fixture
def ambiguous(start):
    return start(api={"verify": "ambiguous", "timeout_ms": 300})


@pytest.fixture
def always(start):
    return start(api={"verify": "always", "timeout_ms": 2000})


def wire(standin, job="a"):
    """What was asked, in order, with what the answer said: "500", "200", "get canceled"."""
    seen = []
    for entry in standin.log(job=job):
        if entry["route"] == "get":
            seen.append("get")
        else:
            seen.append(entry["answer"])
    return seen


def gets(standin, job="a"):
    return len(standin.log(job=job, route="get"))


def said(result):
    return result["outcome"], result["attempts"], result["job_status"]


def settings_of_short_life(**api):
    return {"api": {"timeout_ms": 300, **api}, "retry": {"max_attempts": 1}}


# -- ambiguous: the second 500 in a row -----------------------------------------------------------

TERMINAL = [("canceled", "cancelled"), ("completed", "too_late"), ("failed", "too_late")]


@pytest.mark.parametrize("status, outcome", TERMINAL)
def test_the_second_500_in_a_row(ambiguous, standin, status, outcome):
    standin.fault(status=500, times=None)
    standin.put_job("a", status)
    result = ambiguous.outcome("a")
    assert wire(standin) == ["500", "500", "get"]
    assert said(result) == (outcome, 2, status)
    assert (result["http_status"], result["endpoint"]) == (500, "cancel")
    assert (result["error"] and result["error"]["code"]) == (None if outcome == "cancelled" else "JOB_003")
    assert ambiguous.records() == [result]
    stats = ambiguous.call("stats")
    assert (stats["verifications"], stats["attempts"]) == (1, 2)


def test_each_further_500_in_a_row(ambiguous, standin):
    standin.fault(status=500, times=4)
    result = ambiguous.outcome("a")
    assert wire(standin) == ["500", "500", "get", "500", "get", "500", "get", "200"]
    assert said(result) == ("cancelled", 5, "processing")
    stats = ambiguous.call("stats")
    assert (stats["verifications"], stats["attempts"], stats["retries"]) == (3, 5, 4)


def test_one_500_is_not_asked_about(ambiguous, standin):
    standin.fault(status=500)
    assert said(ambiguous.outcome("a")) == ("cancelled", 2, None)
    assert wire(standin) == ["500", "200"]


@pytest.mark.parametrize("between", [429, 503, 408])
def test_500s_that_are_not_in_a_row(ambiguous, standin, between):
    for status in (500, between, 500):
        standin.fault(status=status)
    assert said(ambiguous.outcome("a")) == ("cancelled", 4, None)
    assert gets(standin) == 0


def test_500s_in_a_row_are_counted_over_a_restart(start, standin):
    daemon = start(api={"verify": "ambiguous"}, retry={"max_delay_ms": 86400000})
    standin.fault(status=500, retry_after=3600)
    standin.fault(status=500, times=None)
    standin.put_job("a", "completed")
    daemon.cancel("a")
    wait_until(lambda: daemon.call("stats")["pending"]["waiting"] == 1, "it waits")
    daemon.restart()
    daemon.call("flush")
    assert said(daemon.wait_records(1)[0]) == ("too_late", 2, "completed")


# -- ambiguous: what leaves open whether it took effect -------------------------------------------

LOST = [{"hang": "after"}, {"reset": "after", "times": 2}, {"truncate": 10}, {"truncate": 0}, {"oversize": 70000},
        {"raw": "HTTP/1.1 200 OK\r\nContent-Le"}, {"garbage": True}, {"status": 204}, {"status": 202}, {"body": ""},
        {"body": {"message": "done"}}, {"job_id": "other"}]


def case(fault):
    """The ID of a test with this fault; other parameters have pytest's."""
    if not isinstance(fault, dict):
        return None
    return "-".join(f"{name}-{value}"[:20] for name, value in fault.items())


@pytest.mark.parametrize("fault", LOST, ids=case)
@pytest.mark.parametrize("status, outcome", TERMINAL)
def test_an_answer_that_does_not_tell(ambiguous, standin, fault, status, outcome):
    standin.fault(effect=status, **fault)
    standin.fault(status=503, times=None)   # and no other attempt is needed
    result = ambiguous.outcome("a")
    assert said(result) == (outcome, 1, status)
    assert gets(standin) == 1 and standin.log()[-1]["route"] == "get"


@pytest.mark.parametrize("fault", LOST, ids=case)
def test_it_goes_on_when_the_job_does(ambiguous, standin, fault):
    standin.fault(**{**fault, "effect": "none"})
    assert said(ambiguous.outcome("a")) == ("cancelled", 2, "processing")
    assert gets(standin) == 1


@pytest.mark.parametrize("fault", [{"status": 400}, {"status": 403}, {"status": 404}, {"status": 409}, {"status": 410},
                                   {"status": 501}, {"status": 302}, {"status": 404, "envelope": False},
                                   {"effect": "completed"}], ids=case)
def test_what_is_final_is_not_asked_about(ambiguous, standin, fault):
    standin.fault(**fault)
    result = ambiguous.outcome("a")
    assert (result["job_status"], result["attempts"], gets(standin)) == (None, 1, 0)


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_what_was_turned_away_is_not_asked_about(ambiguous, standin, status):
    standin.fault(status=status, envelope=False, times=3)
    assert said(ambiguous.outcome("a")) == ("cancelled", 4, None)
    assert gets(standin) == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_last_look_before_it_failed(start, standin, status):
    daemon = start(**settings_of_short_life(verify="ambiguous"))
    standin.fault(job="a", status=status, effect="canceled", times=None)
    standin.fault(job="b", status=status, times=None)
    assert said(daemon.outcome("a")) == ("cancelled", 1, "canceled")
    assert said(daemon.outcome("b")) == ("failed", 1, "processing")
    assert (gets(standin, "a"), gets(standin, "b")) == (1, 1)


# -- ambiguous: a 404 -----------------------------------------------------------------------------

@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("status, outcome", TERMINAL)
def test_a_404_after_a_doubt(ambiguous, standin, envelope, status, outcome):
    standin.put_job("a", "processing", [status])    # at the second GET
    standin.fault(job_id="other", effect="none")
    standin.fault(status=404, envelope=envelope, times=None)
    result = ambiguous.outcome("a")
    assert wire(standin) == ["200", "get", "404", "get"]
    assert said(result) == (outcome, 2, status)
    assert result["http_status"] == 404


@pytest.mark.parametrize("doubt", LOST + [{"status": 500, "times": 1}, {"status": 503, "envelope": False}], ids=case)
def test_each_doubt_counts_for_a_404(ambiguous, standin, doubt):
    if doubt.get("status") not in (500, 503):
        standin.fault(on="get", status=500)     # or else it would be known at once
    standin.fault(**{**doubt, "effect": "canceled"})
    standin.fault(status=404, times=None)
    assert said(ambiguous.outcome("a")) == ("cancelled", 2, "canceled")


def test_what_curl_repeats_is_a_doubt(ambiguous, standin):
    """A kept connection that ends before the first byte of an answer: curl sends the request once more
    by itself, and all that is seen is the answer to that."""
    ambiguous.outcome("first")
    standin.fault(job="a", reset="after")
    standin.fault(job="a", status=404, times=None)
    result = ambiguous.outcome("a")
    assert standin.job("a")["status"] == "canceled"
    assert (result["outcome"], result["job_status"]) == ("cancelled", "canceled")


@pytest.mark.parametrize("lost", ["cancel", "delete"])
def test_what_curl_repeats_before_the_other_route_is_a_doubt(start, standin, lost):
    daemon = start(api={"verify": "ambiguous", "endpoint": "auto"})
    daemon.outcome("first")
    standin.fault(job="a", on=lost, reset="after")
    standin.fault(job="a", status=404, envelope=False, times=None)
    result = daemon.outcome("a")
    assert standin.job("a")["status"] == "canceled"
    methods = [entry["method"] for entry in standin.log(job="a")]
    assert methods == ["POST", "POST" if lost == "cancel" else "DELETE", "DELETE", "GET"]
    assert (result["outcome"], result["job_status"]) == ("cancelled", "canceled")


def test_a_doubt_lasts(ambiguous, standin):
    """Not only the answer just before the 404 counts."""
    standin.fault(garbage=True, effect="canceled")
    standin.fault(on="get", status=500)
    standin.fault(status=429, times=2)
    standin.fault(status=404, times=None)
    assert said(ambiguous.outcome("a")) == ("cancelled", 4, "canceled")
    assert wire(standin) == ["200", "get", "429", "429", "404", "get"]


def test_a_doubt_lasts_over_a_restart(start, standin):
    daemon = start(api={"verify": "ambiguous"}, retry={"max_delay_ms": 86400000})
    standin.fault(garbage=True, effect="canceled")
    standin.fault(on="get", status=500)
    standin.fault(status=429, retry_after=3600)
    standin.fault(status=404, times=None)
    daemon.cancel("a")
    daemon.wait_item(lambda item: (item["state"], item["attempts"]) == ("waiting", 2), "it waits", job_id="a")
    daemon.restart()
    daemon.call("flush")
    assert said(daemon.wait_records(1)[0]) == ("cancelled", 3, "canceled")


@pytest.mark.parametrize("answer", [{"status": 404}, {"status": 404, "envelope": False}, {"status": 500}], ids=case)
def test_a_404_stands_when_nobody_knows_better(ambiguous, standin, answer):
    standin.fault(on="get", times=None, **answer)
    standin.fault(garbage=True, effect="none")
    standin.fault(status=404)
    assert said(ambiguous.outcome("a")) == ("not_found", 2, None)
    assert gets(standin) == 2


# -- an unclean stop ------------------------------------------------------------------------------

def test_a_404_after_an_unclean_stop(ambiguous, standin):
    """In flight when it was killed, and the answer never came; or not even sent, which nobody knows."""
    standin.fault(job="a", hang="after")
    ambiguous.set(api={"timeout_ms": 60000})
    ambiguous.call("reload")
    ambiguous.cancel("a")
    wait_until(lambda: standin.job("a") and standin.job("a")["status"] == "canceled", "it is canceled")
    ambiguous.call("hold")
    ambiguous.cancel("b")
    standin.put_job("b", "completed")
    standin.fault(status=404, times=None)
    ambiguous.kill()
    ambiguous.start()
    ambiguous.call("release")
    results = {record["job_id"]: said(record) for record in ambiguous.wait_records(2)}
    assert results == {"a": ("cancelled", 1, "canceled"), "b": ("too_late", 1, "completed")}
    assert (gets(standin, "a"), gets(standin, "b")) == (1, 1)
    # What was accepted after the start was surely not sent before.
    assert said(ambiguous.outcome("c")) == ("not_found", 1, None)
    assert gets(standin, "c") == 0
    # Nor was what a clean stop left.
    ambiguous.call("hold")
    ambiguous.cancel("d")
    ambiguous.restart()
    ambiguous.call("release")
    assert said(ambiguous.wait_records(4)[-1]) == ("not_found", 1, None)
    assert gets(standin, "d") == 0


def test_an_unclean_stop_is_not_forgotten_at_the_next_clean_one(ambiguous, standin):
    standin.fault(job="a", hang="after")
    ambiguous.set(api={"timeout_ms": 60000})
    ambiguous.call("reload")
    ambiguous.cancel("a")
    wait_until(lambda: standin.job("a") and standin.job("a")["status"] == "canceled", "it is canceled")
    ambiguous.call("hold")
    standin.fault(status=404, times=None)
    ambiguous.kill()
    ambiguous.start()
    ambiguous.restart()
    ambiguous.call("release")
    assert said(ambiguous.wait_records(1)[0]) == ("cancelled", 1, "canceled")


def test_a_stop_that_cut_an_attempt_off_is_unclean(start, standin):
    daemon = start(api={"verify": "ambiguous"}, dispatch={"shutdown_grace_s": 0})
    standin.fault(job="a", hang="after")
    daemon.cancel("a")
    wait_until(lambda: standin.job("a") and standin.job("a")["status"] == "canceled", "it is canceled")
    standin.fault(status=404, times=None)
    daemon.restart()
    assert said(daemon.wait_records(1)[0]) == ("cancelled", 1, "canceled")


# -- answers that decide nothing ------------------------------------------------------------------

UNDECIDED = [({"status": 500}, None), ({"status": 500, "envelope": False}, None), ({"status": 404}, None),
             ({"status": 404, "envelope": False}, None), ({"status": 403}, None), ({"status": 429}, None),
             ({"status": 503, "envelope": False}, None), ({"status": 302, "envelope": False}, None),
             ({"garbage": True}, None), ({"body": ""}, None), ({"body": "<html>canceled</html>"}, None),
             ({"job_id": "other", "job_status": "canceled"}, None), ({"job_id": "A", "job_status": "completed"}, None),
             ({"body": {"job_id": "a"}}, None), ({"body": {"job_id": "a", "status": None}}, None),
             ({"body": {"job_id": "a", "status": ["canceled"]}}, None),
             ({"body": {"job_id": "a", "result": {"status": "canceled"}}}, None),
             ({"body": [{"job_id": "a", "status": "canceled"}]}, None),
             ({"body": "{\"job_id\": \"a\", \"status\": \"canceled\", \"status\": \"processing\"}"}, None),
             ({"truncate": 30}, None), ({"raw": "canceled"}, None), ({"hang": "before"}, None),
             ({"reset": "before"}, None), ({"job_status": "pending"}, "pending"),
             ({"job_status": "processing"}, "processing"), ({"job_status": "cancelled"}, "cancelled"),
             ({"job_status": "CANCELED"}, "CANCELED"), ({"job_status": "canceled "}, "canceled "),
             ({"job_status": "cancelling"}, "cancelling"), ({"job_status": ""}, "")]


@pytest.mark.parametrize("fault, job_status", UNDECIDED, ids=[case(fault) for fault, _ in UNDECIDED])
def test_an_answer_that_decides_nothing(ambiguous, standin, fault, job_status):
    """It costs no attempt, and nobody asks again before the next one."""
    standin.put_job("a", "processing")
    standin.fault(on="get", times=None, **fault)
    standin.fault(job_id="other", effect="none", times=2)
    result = ambiguous.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("cancelled", 3)
    if job_status != "":
        assert result["job_status"] == job_status
    steps = [step for place, step in enumerate(wire(standin)) if not place or step != wire(standin)[place - 1]]
    assert steps == ["200", "get", "200", "get", "200"]
    if "reset" not in fault and "raw" not in fault:     # which curl repeats by itself
        assert gets(standin) == 2
    stats = ambiguous.call("stats")
    assert (stats["verifications"], stats["attempts"]) == (2, 3)


def test_the_last_known_status_is_in_the_result(start, standin):
    daemon = start(api={"verify": "ambiguous"}, retry={"max_attempts": 2})
    standin.put_job("a", "pending")
    standin.fault(garbage=True, effect="none", times=None)
    standin.fault(on="get", skip=1, status=500, times=None)
    assert said(daemon.outcome("a")) == ("failed", 2, "pending")


def test_an_expired_request_has_its_status(start, standin):
    daemon = start(api={"verify": "ambiguous"}, retry={"max_attempts": 1000})
    standin.fault(garbage=True, effect="none", times=None)
    result = daemon.outcome("a", deadline_s=1)
    assert (result["outcome"], result["job_status"]) == ("expired", "processing")


# -- never ----------------------------------------------------------------------------------------

def test_never_means_never(start, standin):
    daemon = start(api={"verify": "never", "timeout_ms": 300}, retry={"max_attempts": 20})
    for fault in LOST:
        standin.fault(job="a", **{**fault, "effect": "none"})
    standin.fault(job="a", status=500, times=3)
    standin.fault(job="a", status=404)
    result = daemon.outcome("a")
    assert (result["outcome"], result["job_status"]) == ("not_found", None)
    standin.fault(job="b", gate="g")
    daemon.cancel("b")
    wait_until(lambda: standin.counts()["waiting"].get("g"), "it is in flight")
    daemon.kill()
    standin.fault(job="b", status=404)
    daemon.start()
    assert said(daemon.wait_records(2)[-1]) == ("not_found", 1, None)
    assert standin.counts()["routes"]["get"] == 0
    assert daemon.call("stats")["verifications"] == 0


# -- always ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("status, outcome", TERMINAL)
def test_always_asks_after_a_200(always, standin, status, outcome):
    standin.fault(effect=status)
    result = always.outcome("a")
    assert wire(standin) == ["200", "get"]
    assert said(result) == (outcome, 1, status)
    assert (result["http_status"], result["error"]) == (200, None)


@pytest.mark.parametrize("status, outcome", TERMINAL)
def test_always_asks_until_it_is_over(always, standin, status, outcome):
    standin.put_job("a", "pending", ["processing", "processing", "processing", "processing", "processing", status])
    standin.fault(effect="none")
    assert said(always.outcome("a")) == (outcome, 1, status)
    assert wire(standin) == ["200"] + ["get"] * 7
    stats = always.call("stats")
    assert (stats["verifications"], stats["attempts"]) == (7, 1)


def test_after_a_200_a_404_with_the_envelope_means_cancelled(always, standin):
    standin.fault(on="get", status=404)
    result = always.outcome("a")
    assert said(result)[:2] == ("cancelled", 1) and wire(standin) == ["200", "get"]
    standin.put_job("b", "processing")
    standin.fault(job="b", on="get", status=404, envelope=False, times=3)
    assert said(always.outcome("b")) == ("cancelled", 1, "canceled")
    assert wire(standin, "b") == ["200"] + ["get"] * 4


def test_a_404_with_the_envelope_decides_only_after_a_200(always, standin):
    standin.fault(garbage=True, effect="none")
    standin.fault(on="get", status=404)
    standin.fault(status=409)
    result = always.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("rejected", 2)


@pytest.mark.parametrize("fault", [fault for fault, _ in UNDECIDED if fault not in ({"status": 404}, {"hang": "before"})],
                         ids=case)
def test_always_asks_again_after_an_answer_that_decides_nothing(always, standin, fault):
    standin.fault(effect="completed")
    standin.fault(on="get", **{**fault, "times": 3})
    result = always.outcome("a")
    assert said(result) == ("too_late", 1, "completed")
    assert wire(standin) == ["200"] + ["get"] * 4


@pytest.mark.parametrize("fault", [{}, {"status": 500}, {"hang": "before"}], ids=case)
def test_the_deadline_after_a_believed_200_means_cancelled(always, standin, fault):
    standin.fault(effect="none")
    standin.fault(on="get", times=None, **fault)
    result = always.outcome("a", deadline_s=1)
    assert (result["outcome"], result["attempts"], result["http_status"]) == ("cancelled", 1, 200)
    assert (result["job_status"], result["error"]) == (None if fault else "processing", None)
    assert result["elapsed_ms"] >= 1000
    assert len(standin.log(route="cancel")) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_a_believed_200_is_remembered(always, standin, killed):
    standin.fault(effect="none", times=None)
    always.cancel("a", deadline_s=3)
    wait_until(lambda: gets(standin) >= 2, "it is asked about")
    always.kill() if killed else always.stop()
    standin.fault(on="any", status=503, times=None)
    always.start()
    result = always.wait_records(1)[0]
    assert (result["outcome"], result["error"]) == ("cancelled", None)


def test_a_restart_does_not_cancel_again(always, standin):
    standin.fault(effect="none", times=None)
    always.cancel("a")
    wait_until(lambda: gets(standin) >= 2, "it is asked about")
    always.restart()
    standin.put_job("a", "completed")
    assert said(always.wait_records(1)[0]) == ("too_late", 1, "completed")
    assert len(standin.log(route="cancel")) == 1


def test_always_does_what_ambiguous_does(always, standin):
    standin.fault(status=500, times=None)
    standin.put_job("a", "completed")
    result = always.outcome("a")
    assert (result["outcome"], result["job_status"]) == ("too_late", "completed")


def test_no_200_for_a_job_that_goes_on_forever(always, standin):
    """Under `always`, too, the attempts are used up."""
    standin.fault(status=500, times=None)
    result = always.outcome("a")
    assert said(result) == ("failed", 5, "processing")


# -- how it is asked ------------------------------------------------------------------------------

def test_the_request_on_the_wire(always, standin):
    before = standin.counts()["connections_made"]
    always.outcome("a:b~c")
    entry = standin.log(route="get")[0]
    headers = {name.lower(): value for name, value in entry["headers"]}
    assert (entry["method"], entry["path"], entry["body_bytes"]) == ("GET", "/job/a%3Ab~c", 0)
    assert (headers["x-api-key"], headers["accept"]) == ("test-key", "application/json")
    assert headers["user-agent"].startswith("pulse-canceld/") and "content-length" not in headers
    assert standin.counts()["connections_made"] == before + 1


def test_a_large_result_is_not_read(ambiguous, standin):
    ambiguous.set(api={"timeout_ms": 10000})
    ambiguous.call("reload")
    standin.put_job("a", "completed")
    standin.fault(on="get", result_bytes=32_000_000, times=None)
    standin.fault(status=500, times=None)
    assert said(ambiguous.outcome("a")) == ("too_late", 2, "completed")
    entry = wait_until(lambda: next((one for one in standin.log(route="get") if one["answer"]), None), "it is over")
    assert entry["answer"] == "client left" and entry["body_sent"] < 10_000_000
    if not os.environ.get("PULSE_SANITIZE"):
        with open(f"/proc/{ambiguous.process.pid}/status", encoding="ascii") as file:
            peak_kib = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        assert peak_kib < 30_000


def test_a_status_behind_a_large_result_is_not_seen(ambiguous, standin):
    standin.put_job("a", "completed")
    standin.fault(on="get", result_bytes=1_000_000, status_last=True, times=None)
    standin.fault(garbage=True, effect="none")
    standin.fault(status=409)
    result = ambiguous.outcome("a")
    assert (result["outcome"], result["attempts"], result["job_status"]) == ("rejected", 2, None)


@pytest.mark.parametrize("size", [0, 100, 60_000])
@pytest.mark.parametrize("last", [False, True])
def test_only_the_jobs_own_status_counts(ambiguous, standin, size, last):
    """The result has a `status` of its own: "canceled"."""
    standin.put_job("a", "completed")
    standin.fault(on="get", result_bytes=size, status_last=last, times=None)
    standin.fault(status=500, times=None)
    assert said(ambiguous.outcome("a")) == ("too_late", 2, "completed")


def test_it_is_under_the_same_limit(start, standin):
    daemon = start(api={"verify": "always"}, dispatch={"max_in_flight": 1})
    standin.fault(job="a", on="get", gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.counts()["waiting"].get("g"), "a is asked about")
    daemon.cancel("b")
    wait_until(lambda: daemon.call("stats")["pending"] == {"queued": 1, "in_flight": 1, "waiting": 0}, "b is queued")
    holds_for(0.2, lambda: not standin.log(job="b"), "b is not sent")
    standin.open("g")
    daemon.wait_records(2)
    assert standin.counts()["max_in_flight"] == 1


def test_it_is_held_as_cancels_are(always, standin):
    standin.fault(effect="none")
    always.cancel("a")
    wait_until(lambda: gets(standin) >= 2, "it is asked about")
    always.call("hold")
    wait_until(lambda: not always.call("stats")["pending"]["in_flight"], "none is in flight")
    count = gets(standin)
    holds_for(0.3, lambda: gets(standin) == count, "nobody asks")
    standin.put_job("a", "canceled")
    always.call("release")
    assert always.wait_records(1)[0]["outcome"] == "cancelled"


def answer_while_held(daemon, standin, count=1):
    """The answers to cancels come while the operator holds sending: the question has to wait."""
    wait_until(lambda: standin.counts()["waiting"].get("g") == count, "they are in flight")
    daemon.call("hold")
    before = standin.counts()["routes"]["get"]
    standin.open("g")
    wait_until(lambda: not daemon.call("stats")["pending"]["in_flight"], "they are answered")
    assert standin.counts()["routes"]["get"] == before and daemon.records() == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("fault, outcome", [({"garbage": True}, "cancelled"), ({"status": 404}, "not_found"),
                                            ({"truncate": 5}, "cancelled")], ids=case)
def test_a_question_that_has_to_wait(ambiguous, standin, fault, outcome, restart):
    """What comes of the answer is the same as when it was asked at once."""
    ambiguous.set(api={"timeout_ms": 10000})
    ambiguous.call("reload")
    standin.fault(job_id="other", effect="none")                # a doubt
    standin.fault(on="get", status=500)
    standin.fault(gate="g", effect="none", **fault)
    ambiguous.cancel("a")
    answer_while_held(ambiguous, standin)
    if restart:
        ambiguous.restart()
    standin.fault(on="get", job_status="pending")
    ambiguous.call("release")
    result = ambiguous.wait_records(1)[0]
    assert (result["outcome"], result["attempts"], result["job_status"]) == \
        (outcome, 2 if outcome == "not_found" else 3, "pending")
    assert gets(standin) == 2


def test_a_question_that_has_to_wait_on_the_last_attempt(start, standin):
    daemon = start(**settings_of_short_life(verify="ambiguous", timeout_ms=10000))
    for job, effect in (("a", "canceled"), ("b", "none")):
        standin.fault(job=job, gate="g", status=503, effect=effect)
        daemon.cancel(job)
    answer_while_held(daemon, standin, 2)
    daemon.restart()
    daemon.call("release")
    assert {one["job_id"]: said(one) for one in daemon.wait_records(2)} == \
        {"a": ("cancelled", 1, "canceled"), "b": ("failed", 1, "processing")}


def test_a_question_that_has_to_wait_after_both_routes(start, standin):
    """The old route's 405 does not stand: the new one's answer was lost, which is tried again."""
    daemon = start(api={"verify": "ambiguous", "endpoint": "auto", "timeout_ms": 2000})
    standin.settings(routes={"cancel": 405})
    standin.fault(on="delete", gate="g", hang="before")
    daemon.cancel("a")
    answer_while_held(daemon, standin)
    daemon.call("release")
    assert said(daemon.wait_records(1)[0]) == ("cancelled", 2, "processing")


def test_the_deadline_of_one_is_not_that_of_all(always, standin):
    standin.fault(effect="none", times=None)
    first = always.cancel("a", deadline_s=1)
    wait_until(lambda: gets(standin) >= 1, "it is asked about")
    second = always.cancel("a")
    assert second["coalesced"]
    result = always.wait_records(1)[0]
    assert (result["request_id"], result["outcome"]) == (first["request_id"], "cancelled")
    standin.put_job("a", "completed")
    result = always.wait_records(2)[-1]
    assert (result["request_id"], result["outcome"]) == (second["request_id"], "too_late")


def test_those_that_joined_have_the_same(ambiguous, standin):
    standin.fault(gate="g", garbage=True, effect="completed")
    ambiguous.call("cancel", job_ids=["a", "a", "a"])
    wait_until(lambda: standin.counts()["waiting"].get("g"), "it is in flight")
    standin.open("g")
    records = ambiguous.wait_records(3)
    assert {said(record) for record in records} == {("too_late", 1, "completed")}
    assert gets(standin) == 1
    assert ambiguous.call("stats")["results"]["too_late"] == 3


def test_retry_of_what_came_too_late(ambiguous, standin):
    """There is nothing to try again: only the newest request that failed is."""
    standin.put_job("a", "completed")
    standin.fault(garbage=True)
    assert ambiguous.outcome("a")["outcome"] == "too_late"
    assert ambiguous.call("retry", job_id="a")["requests"] == []


def test_verify_is_changed_by_reload(start, standin):
    daemon = start(api={"verify": "never"})
    daemon.outcome("a")
    daemon.set(api={"verify": "always"})
    daemon.call("reload")
    assert daemon.outcome("b")["job_status"] == "canceled"
    assert standin.counts()["routes"]["get"] == 1
