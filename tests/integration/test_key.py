"""A rejected key is nobody's job's fault: sending stops, the key is checked, and what is queued waits."""

import contextlib
import os

import pytest

from daemon import KEY
from storage import Manager
from waiting import holds_for, wait_until

MANY = 500


def key_of(entry):
    return next(value for name, value in entry["headers"] if name.lower() == "x-api-key")


def cancels(standin):
    return standin.log(route="cancel", brief=1)


def checks(standin):
    return standin.log(route="get")


def held(daemon):
    return daemon.call("stats")["held"]


def until_held(daemon):
    wait_until(lambda: held(daemon) == "key", "the key holds")


def in_flight_when_rejected(daemon, standin, count=MANY):
    """`count` requests are queued, as many in flight as may be, and each of these meets the 401."""
    standin.settings(keys=["another"])
    standin.fault(gate="rejection", times=16)
    daemon.call("cancel", job_ids=[f"job-{number}" for number in range(count)])
    wait_until(lambda: standin.counts()["waiting"].get("rejection") == 16, "16 are in flight")
    standin.open("rejection")
    until_held(daemon)
    wait_until(lambda: not daemon.call("stats")["pending"]["in_flight"], "they are answered")


def outcomes(records):
    counts = {}
    for record in records:
        counts[record["outcome"]] = counts.get(record["outcome"], 0) + 1
    return counts


# -- sending stops --------------------------------------------------------------------------------

def test_fail_costs_only_what_was_in_flight(daemon, standin):
    in_flight_when_rejected(daemon, standin)
    unauthorized = daemon.wait_records(16)
    assert {(one["outcome"], one["http_status"], one["attempts"], one["error"]["code"]) for one in unauthorized} == \
        {("unauthorized", 401, 1, "AUTH_002")}
    wait_until(lambda: len(checks(standin)) >= 3, "it is checked three times")
    assert len(cancels(standin)) == 16
    assert held(daemon) == "key"
    pending = daemon.call("stats")["pending"]
    assert sum(pending.values()) == MANY - 16
    first, _, third = checks(standin)[:3]
    # At once, then 1 s later, then more: nobody is flooded.
    assert first["i"] >= cancels(standin)[0]["i"] and third["time"] - first["time"] > 0.9
    done = {one["job_id"] for one in unauthorized}
    assert all(entry["status"] == 401 and entry["job"] not in done for entry in checks(standin))
    standin.settings(keys=[KEY])
    records = daemon.wait_records(MANY)
    assert outcomes(records) == {"unauthorized": 16, "cancelled": MANY - 16}
    assert {one["attempts"] for one in records} == {1}
    assert held(daemon) is None
    # A check that was answered well is the last.
    assert [entry["status"] for entry in checks(standin)][-2:] == [401, 200]


def test_hold_costs_nobody_anything(start, standin):
    daemon = start(api={"on_unauthorized": "hold"}, retry={"max_attempts": 1})
    in_flight_when_rejected(daemon, standin)
    wait_until(lambda: len(checks(standin)) >= 2, "it is checked")
    assert daemon.records() == [] and len(cancels(standin)) == 16
    stats = daemon.call("stats")
    assert (stats["attempts"], stats["held"]) == (0, "key")
    assert stats["replies"]["401"] >= 16
    assert daemon.item(job_id="job-0")["attempts"] == 0
    standin.settings(keys=[KEY])
    records = daemon.wait_records(MANY)
    assert {(one["outcome"], one["attempts"], one["http_status"]) for one in records} == {("cancelled", 1, 200)}
    assert daemon.call("stats")["attempts"] == MANY


@pytest.mark.parametrize("mode", ["fail", "hold"])
@pytest.mark.parametrize("answer", [{"code": "AUTH_001"}, {"code": "AUTH_003"}, {"code": "NEW_77"},
                                    {"envelope": False}], ids=lambda answer: str(list(answer.values())[0]))
def test_any_401_is_about_the_key(start, standin, mode, answer):
    daemon = start(api={"on_unauthorized": mode})
    standin.fault(status=401, **answer)
    standin.fault(on="get", status=401, times=None, **answer)
    with daemon.client() as client:
        client.send_call("cancel", {"job_id": "a"})
        until_held(daemon)
        daemon.cancel("b")
    wait_until(lambda: checks(standin), "it is checked")
    assert len(cancels(standin)) == 1
    standin.clear()
    results = {one["job_id"]: one for one in daemon.wait_records(2)}
    assert results["a"]["outcome"] == ("unauthorized" if mode == "fail" else "cancelled")
    assert results["b"]["outcome"] == "cancelled"


def test_403_is_not_about_the_key(daemon, standin):
    standin.fault(status=403, code="AUTH_004")
    assert daemon.outcome("a")["outcome"] == "forbidden"
    assert held(daemon) is None and daemon.outcome("b")["outcome"] == "cancelled"
    assert checks(standin) == []


def test_a_hold_by_the_key_is_lost_with_the_process_but_no_request_is(start, standin):
    daemon = start(api={"on_unauthorized": "hold"})
    in_flight_when_rejected(daemon, standin)
    daemon.kill()
    standin.settings(keys=[KEY])
    daemon.start()
    assert outcomes(daemon.wait_records(MANY)) == {"cancelled": MANY}
    assert held(daemon) is None


# -- the check ------------------------------------------------------------------------------------

@pytest.mark.parametrize("answer", [{"status": 404}, {"status": 403}, {"status": 500}, {"status": 429},
                                    {"status": 404, "envelope": False}, {"garbage": True}], ids=str)
def test_any_answer_but_401_resumes(daemon, standin, answer):
    standin.fault(status=401)
    standin.fault(on="get", **answer)
    assert daemon.outcome("a")["outcome"] == "unauthorized"
    until_held(daemon)
    assert daemon.outcome("b")["outcome"] == "cancelled"
    assert [entry["route"] for entry in standin.log(job="b")] == ["get", "cancel"]
    assert held(daemon) is None


def test_no_answer_resumes_nothing(daemon, standin):
    standin.fault(status=401)
    standin.fault(on="get", reset="before", times=4)
    daemon.outcome("a")
    until_held(daemon)
    daemon.cancel("b")
    wait_until(lambda: checks(standin), "it is checked")
    # Only after a check that was answered is anything sent.
    assert daemon.wait_records(2)[-1]["outcome"] == "cancelled"
    seen = [(entry["route"], entry["answer"]) for entry in standin.log(job="b")]
    assert seen[-2:] == [("get", "200"), ("cancel", "200")]
    assert {step for step in seen[:-2]} == {("get", "reset before")}


def test_with_nothing_queued_the_next_request_serves_the_check(daemon, standin):
    standin.settings(keys=["another"])
    assert daemon.outcome("a")["outcome"] == "unauthorized"
    until_held(daemon)
    holds_for(0.3, lambda: not checks(standin), "there is nothing to ask about")
    daemon.cancel("b")
    wait_until(lambda: checks(standin), "b serves the check")
    assert checks(standin)[0]["path"] == "/job/b"
    standin.settings(keys=[KEY])
    assert daemon.wait_records(2)[-1]["outcome"] == "cancelled"
    assert [entry["route"] for entry in standin.log(job="b")][-1] == "cancel"
    assert len(standin.log(job="b", route="cancel")) == 1


def test_a_401_to_a_verification_starts_it_too(start, standin):
    daemon = start(api={"verify": "ambiguous"})
    standin.fault(garbage=True, effect="none")
    standin.fault(on="get", status=401, times=2)
    daemon.cancel("a")
    until_held(daemon)
    wait_until(lambda: len(checks(standin)) == 2, "the key is checked")
    assert held(daemon) == "key" and len(cancels(standin)) == 1
    result = daemon.wait_records(1)[0]
    assert (result["outcome"], result["attempts"]) == ("cancelled", 2)
    assert [entry["route"] for entry in standin.log()][:3] == ["cancel", "get", "get"]
    assert held(daemon) is None


def test_a_401_of_the_new_route(start, standin):
    daemon = start(api={"endpoint": "auto", "on_unauthorized": "hold"})
    standin.settings(routes={"cancel": 410})
    standin.fault(on="delete", status=401)
    standin.fault(on="get", status=401)
    daemon.cancel("a")
    until_held(daemon)
    result = daemon.wait_records(1)[0]
    assert (result["outcome"], result["attempts"], result["endpoint"]) == ("cancelled", 1, "job")


# -- the key file ---------------------------------------------------------------------------------

def test_a_new_key_in_the_file_is_noticed(start, standin):
    """Without SIGHUP, within 10 s: later than the next check would be by the backoff alone."""
    daemon = start(api={"on_unauthorized": "hold"})
    in_flight_when_rejected(daemon, standin, 40)
    wait_until(lambda: len(checks(standin)) >= 5, "at 0, 1, 3, 7 and 15 s", 40)
    assert {key_of(entry) for entry in standin.log()} == {KEY}
    standin.settings(keys=["brand-new-key"])
    before = len(checks(standin))
    daemon.write_key("brand-new-key")
    daemon.key = "brand-new-key"
    wait_until(lambda: len(checks(standin)) > before, "it is checked with it", 12)
    assert outcomes(daemon.wait_records(40)) == {"cancelled": 40}
    later = standin.log(since=checks(standin)[before]["i"])
    assert {key_of(entry) for entry in later} == {"brand-new-key"}
    assert KEY not in daemon.stderr()


def test_each_check_reads_the_key_file(start, standin):
    daemon = start(api={"on_unauthorized": "hold"})
    standin.settings(keys=["another"])
    daemon.cancel("a")
    wait_until(lambda: checks(standin), "it is checked at once")
    daemon.write_key("second-key")
    daemon.key = "second-key"
    wait_until(lambda: len(checks(standin)) >= 2, "it is checked again")
    assert [key_of(entry) for entry in checks(standin)][:2] == [KEY, "second-key"]
    standin.settings(keys=["second-key"])
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"


@pytest.mark.parametrize("spoil", [lambda path: os.unlink(path), lambda path: os.chmod(path, 0o644),
                                   lambda path: open(path, "w", encoding="ascii").close()],
                         ids=["missing", "readable by others", "empty"])
def test_a_bad_key_file_changes_nothing(start, standin, spoil):
    daemon = start(api={"on_unauthorized": "hold"})
    standin.settings(keys=["another"])
    daemon.cancel("a")
    until_held(daemon)
    spoil(daemon.key_file)
    before = len(checks(standin))
    wait_until(lambda: len(checks(standin)) >= before + 2, "it is checked with the old one")
    standin.settings(keys=[KEY])
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"
    assert daemon.key_file in daemon.stderr()
    daemon.write_key(KEY)


# -- ways out -------------------------------------------------------------------------------------

def way_out(daemon, how):
    if how == "SIGHUP":
        daemon.reload()
    else:
        daemon.call(how)


@pytest.mark.parametrize("how", ["SIGHUP", "release", "reload"])
def test_it_resumes_at_once(start, standin, how):
    """Whatever the check says."""
    daemon = start(api={"on_unauthorized": "hold"})
    in_flight_when_rejected(daemon, standin, 100)
    standin.fault(on="get", status=401, times=None)
    standin.settings(keys=[KEY])
    way_out(daemon, how)
    assert outcomes(daemon.wait_records(100)) == {"cancelled": 100}
    assert held(daemon) is None


@pytest.mark.parametrize("how", ["SIGHUP", "release"])
def test_a_resumption_that_meets_a_401_stops_again(daemon, standin, how):
    in_flight_when_rejected(daemon, standin, 100)
    daemon.wait_records(16)
    standin.fault(gate="again", times=16)
    way_out(daemon, how)
    wait_until(lambda: standin.counts()["waiting"].get("again", 0) >= 1, "it resumes")
    standin.open("again")
    until_held(daemon)
    wait_until(lambda: not daemon.call("stats")["pending"]["in_flight"], "they are answered")
    count = len(cancels(standin))
    assert 16 < count <= 32
    before = len(checks(standin))
    wait_until(lambda: len(checks(standin)) > before, "it is checked again")
    assert len(cancels(standin)) == count
    records = daemon.wait_records(count)
    assert outcomes(records) == {"unauthorized": count}
    standin.settings(keys=[KEY])
    assert outcomes(daemon.wait_records(100)) == {"unauthorized": count, "cancelled": 100 - count}


def test_resuming_again_and_again_keeps_the_backoff(start, standin):
    """A check that is answered well, by a server that then refuses cancels, is no way to flood it."""
    daemon = start(api={"on_unauthorized": "hold"}, dispatch={"max_in_flight": 1})
    standin.fault(status=401, times=None)
    daemon.cancel("a")
    wait_until(lambda: len(cancels(standin)) >= 4, "it resumes three times")
    times = [entry["time"] for entry in cancels(standin)]
    assert times[3] - times[0] > 0.9
    standin.clear()
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"


def test_the_operators_hold_is_kept(start, standin):
    daemon = start(api={"on_unauthorized": "hold"})
    standin.settings(keys=["another"])
    daemon.cancel("a")
    until_held(daemon)
    daemon.call("hold")
    standin.settings(keys=[KEY])
    wait_until(lambda: held(daemon) == "operator", "the key is good again, or it is said first")
    daemon.reload()
    holds_for(0.5, lambda: len(cancels(standin)) == 1, "nothing is sent")
    assert held(daemon) == "operator"
    daemon.call("release")
    assert daemon.wait_records(1)[0]["outcome"] == "cancelled"


# -- meanwhile ------------------------------------------------------------------------------------

def test_deadlines_go_on_counting(start, standin):
    daemon = start(api={"on_unauthorized": "hold"})
    standin.settings(keys=["another"])
    daemon.cancel("met", deadline_s=1)
    until_held(daemon)
    daemon.call("cancel", job_ids=[f"job-{number}" for number in range(100)], deadline_s=1)
    records = daemon.wait_records(101)
    assert outcomes(records) == {"expired": 101}
    by_job = {one["job_id"]: one for one in records}
    assert (by_job["job-7"]["attempts"], by_job["job-7"]["error"]["code"]) == (0, "expired")
    assert (by_job["met"]["attempts"], by_job["met"]["http_status"]) == (0, 401)
    assert len(cancels(standin)) == 1 and held(daemon) == "key"


def test_intake_goes_on(start, standin):
    daemon = start(api={"on_unauthorized": "hold"})
    standin.settings(keys=["another"])
    daemon.cancel("a")
    until_held(daemon)
    daemon.drop("b")
    daemon.cancel("c")
    wait_until(lambda: sum(daemon.call("stats")["pending"].values()) == 3, "all are accepted")
    assert daemon.call("withdraw", job_id="c") == {"withdrawn": 1}
    standin.settings(keys=[KEY])
    assert outcomes(daemon.wait_records(3)) == {"withdrawn": 1, "cancelled": 2}


# -- what is said ---------------------------------------------------------------------------------

def test_log_status_and_stats_say_so(make_daemon, standin):
    daemon = make_daemon(log={"level": "info"})
    with contextlib.closing(Manager(daemon.home)) as manager:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        in_flight_when_rejected(daemon, standin, 100)
        wait_until(lambda: len(checks(standin)) >= 3, "it is checked")
        status = wait_until(lambda: "AUTH_002" in manager.status() and manager.status(), "the status line has it")
        assert standin.url in status and "key" in status
        lines = [line for line in daemon.stderr().splitlines() if "AUTH_002" in line]
        text = " ".join(lines)
        assert standin.url in text and daemon.key_file in text or "api.key_file" in text
        assert len(lines) <= 4, "once, not for each job and each check"
        standin.settings(keys=[KEY])
        daemon.wait_records(100)
        wait_until(lambda: "AUTH_002" not in manager.status(), "the status line is as before")
        daemon.stop()


def test_with_a_credential_a_new_key_takes_a_restart(make_daemon, standin, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "api-key").write_text("from-credentials\n")
    daemon = make_daemon(log={"level": "info"}, environment={"CREDENTIALS_DIRECTORY": str(credentials)})
    daemon.key = "from-credentials"
    daemon.start()
    standin.settings(keys=["another"])
    assert daemon.outcome("a")["outcome"] == "unauthorized"
    wait_until(lambda: "AUTH_002" in daemon.stderr(), "it is logged")
    assert "restart" in " ".join(line for line in daemon.stderr().splitlines() if "key" in line)
