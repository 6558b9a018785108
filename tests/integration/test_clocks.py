"""The wall clock is set, the machine sleeps, and days pass: what is planned comes when it is due."""

import contextlib
import os
import re

import pytest

from clocks import Clocks, available
from daemon import KEY
from results import parse_time
from standin_client import StandIn
from test_history import rows
from waiting import wait_until

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))
HOUR = 3600
DAY = 86400
PATIENT = {"timeout_ms": 600000, "connect_timeout_ms": 600000}


@pytest.fixture(scope="module")
def one_clocks():
    with Clocks() as clocks:
        yield clocks


@pytest.fixture
def clocks(one_clocks):
    one_clocks.reset()
    return one_clocks


@contextlib.contextmanager
def variables(values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def api(clocks):
    """A stand-in that lives in the daemon's time, so that its log tells when something came."""
    with variables(clocks.environment):
        standin = StandIn()
    with standin:
        yield standin


@pytest.fixture
def begin(start, clocks, api):
    """A daemon in that time."""
    def begin_one(api_settings=None, **groups):
        # The rescan is a wake-up, and each takes its time.
        groups.setdefault("spool", {"rescan_interval_s": 12 * HOUR})
        return start(base_url=api.url, environment=clocks.environment, api={**PATIENT, **(api_settings or {})},
                     **groups)
    return begin_one


def sent(api, job=None, route="cancel"):
    return [entry["time"] for entry in api.log(route=route, brief=1) if job is None or entry["job"] == job]


def gaps(times):
    return [later - earlier for earlier, later in zip(times, times[1:])]


# -- the wall clock is set ------------------------------------------------------------------------

@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_moves_no_retry(start, standin, clocks, step):
    """Due in a second by Retry-After, and it is: not an hour later, and not at once."""
    daemon = start(environment=clocks.environment, retry={"max_delay_ms": 1000})
    standin.fault(status=503, retry_after=1, times=3)
    daemon.cancel("a", request_id="r")
    for attempt in (1, 2, 3):
        before = daemon.wait_item(lambda item, n=attempt: item["state"] == "waiting" and item["attempts"] == n,
                                  "it waits", request_id="r")
        clocks.set_wall(step if attempt % 2 else 0)
        assert daemon.item(request_id="r")["next_attempt_at"] in (before["next_attempt_at"], None)
    result, = daemon.wait_records(1)
    assert (result["outcome"], result["attempts"]) == ("cancelled", 4)
    times = [entry["time"] for entry in standin.log()]
    assert all(0.99 <= gap < 10 for gap in gaps(times)), gaps(times)
    check_times(result, times[0], times[-1])


def check_times(result, first, last):
    """The daemon's times are those of the clock as it was at the start, for all of its life."""
    accepted, done = parse_time(result["accepted_at"]), parse_time(result["time"])
    assert first - 10 < accepted <= first + 0.01
    assert last - 0.01 <= done < last + 10
    assert abs(result["elapsed_ms"] / 1000 - (done - accepted)) < 0.002


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_moves_no_deadline(start, standin, clocks, step):
    """One of two seconds and one of half an hour, which the step passes."""
    daemon = start(environment=clocks.environment)
    daemon.call("hold")
    daemon.cancel("long", deadline_s=1800)
    daemon.cancel("short", deadline_s=2)
    clocks.set_wall(step)
    short, = daemon.wait_records(1)
    assert (short["job_id"], short["outcome"]) == ("short", "expired")
    assert 2000 <= short["elapsed_ms"] < 10000
    clocks.set_wall(0)
    daemon.call("release")
    long = daemon.wait_records(2)[1]
    assert (long["job_id"], long["outcome"]) == ("long", "cancelled")
    assert parse_time(long["time"]) - parse_time(long["accepted_at"]) < 15
    assert len(standin.log()) == 1


def test_what_comes_after_a_step_has_the_time_of_before_it(start, clocks):
    daemon = start(environment=clocks.environment)
    times = []
    for number, step in enumerate((0, HOUR, -HOUR, 0)):
        clocks.set_wall(step)
        result = daemon.outcome(f"job-{number}")
        times += [parse_time(result["accepted_at"]), parse_time(result["time"])]
    assert times == sorted(times) and times[-1] - times[0] < 15


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_restart_after_a_step_takes_the_new_time(start, standin, clocks, step):
    """A deadline of 30 minutes is over when the clock says so; `elapsed_ms` is never below nothing."""
    daemon = start(environment=clocks.environment)
    daemon.call("hold")
    daemon.cancel("short", deadline_s=1800)
    daemon.cancel("long", deadline_s=DAY)
    daemon.stop()
    clocks.set_wall(step)
    daemon.start()
    if step > 0:
        wait_until(lambda: daemon.item(job_id="short")["state"] == "done", "its time is over")
    daemon.call("release")
    records = {one["job_id"]: one for one in daemon.wait_records(2)}
    assert records["short"]["outcome"] == ("expired" if step > 0 else "cancelled")
    assert records["long"]["outcome"] == "cancelled"
    for one in records.values():
        assert parse_time(one["time"]) >= parse_time(one["accepted_at"]) and one["elapsed_ms"] >= 0
    assert len(standin.log()) == (1 if step > 0 else 2)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_files_are_taken_whatever_the_clock_says(start, clocks, step):
    """One that comes by rename, one that is found by a scan, one that was found before the step."""
    daemon = start(environment=clocks.environment, spool={"settle_ms": 300, "rescan_interval_s": 1})
    with open(os.path.join(daemon.home, "linked-in"), "w", encoding="ascii") as file:
        file.write("linked\n")
    os.link(file.name, os.path.join(daemon.spool, "linked-in"))
    clocks.set_wall(step)
    daemon.drop("renamed")
    assert {one["job_id"] for one in daemon.wait_records(2)} == {"renamed", "linked"}


# -- the machine sleeps ---------------------------------------------------------------------------

def test_what_came_due_in_its_sleep_is_done_on_waking(start, standin, clocks):
    """The timer's clock stood still: it would fire after all the time that was left."""
    daemon = start(environment=clocks.environment, retry={"max_delay_ms": HOUR * 1000})
    standin.fault(job="retry", status=503, retry_after=HOUR - 1)
    standin.fault(job="late", status=503, retry_after=HOUR - 1)
    daemon.cancel("retry", deadline_s=DAY)
    daemon.cancel("late", deadline_s=1800)
    for job in ("retry", "late"):
        daemon.wait_item(lambda item: item["state"] == "waiting", "it waits", job_id=job)
    daemon.call("withdraw", job_id="nobody")    # answered when all that was committed before has been told
    clocks.sleep(HOUR)
    records = {one["job_id"]: one["outcome"] for one in daemon.wait_records(2, timeout_s=10)}
    assert records == {"retry": "cancelled", "late": "expired"}


# -- days pass ------------------------------------------------------------------------------------

def test_history_is_pruned_as_days_pass(begin, clocks):
    daemon = begin(queue={"history_days": 2})
    for day in range(5):
        daemon.outcome(f"job-{day}", request_id=f"r-{day}")
        clocks.live(daemon, DAY - 60)
    daemon.outcome("job-5", request_id="r-5")
    # Those of the last two days are known, the others are gone; none is gone from the log.
    wait_until(lambda: rows(daemon) == 3, lambda: f"three are left, of {rows(daemon)}", 30)
    assert [daemon.item(request_id=f"r-{day}") is not None for day in range(6)] == [False] * 3 + [True] * 3
    daemon.wait_records(6)
    assert daemon.call("cancel", job_id="job-4", request_id="r-4")["state"] == "done"


def test_a_deadline_of_30_days(begin, clocks, api):
    """The server is away all the time; retries are a day apart at most."""
    api.fault(status=500, times=None)
    daemon = begin(retry={"base_delay_ms": HOUR * 1000, "max_delay_ms": DAY * 1000, "max_attempts": 1000,
                          "deadline_s": 30 * DAY})
    daemon.cancel("a")
    daemon.cancel("b", deadline_s=29 * DAY)
    clocks.live(daemon, 29 * DAY - 60)
    assert daemon.records() == []
    clocks.live(daemon, 120)
    b, = daemon.wait_records(1)
    assert (b["job_id"], b["outcome"]) == ("b", "expired")
    clocks.live(daemon, DAY)
    a = daemon.wait_records(2)[1]
    assert (a["job_id"], a["outcome"]) == ("a", "expired")
    for one, days in ((a, 30), (b, 29)):
        assert 0 <= one["elapsed_ms"] / 1000 - days * DAY < 5
        times = sent(api, one["job_id"])
        assert len(times) == one["attempts"] > 29
        assert max(gaps(times)) < DAY + 5 and max(times) < times[0] + days * DAY


def test_deprecation_is_told_once_a_day(begin, clocks, api):
    api.fault(headers={"Deprecation": "@1767225600", "Sunset": "Wed, 30 Dec 2026 00:00:00 GMT"}, times=None)
    daemon = begin()
    for number in range(3 * 24 + 1):
        daemon.outcome(f"job-{number}")
        clocks.live(daemon, HOUR)
    told = len(re.findall(r"deprecated", daemon.stderr()))
    # An exchange takes time as well, so a day has 24 hours and a little more.
    assert told in (3, 4), daemon.stderr()[-2000:]


@pytest.mark.parametrize("mode", ["fail", "hold"])
def test_a_key_that_is_rejected_all_night(begin, clocks, api, mode):
    """Checks come 0, 1, 3, 7, … s after the 401, then every five minutes; nothing else is sent, and new
    work that comes at night changes nothing."""
    night = 8 * HOUR
    api.settings(keys=["another"])
    daemon = begin({"on_unauthorized": mode}, retry={"deadline_s": DAY})
    daemon.cancel("first")
    wait_until(lambda: daemon.call("stats")["held"] == "key", "the key holds")
    daemon.call("cancel", job_ids=[f"job-{number}" for number in range(20)])
    for number in range(8):
        clocks.live(daemon, night / 8)
        daemon.cancel(f"late-{number}")
    log = api.log(brief=1)
    cancels = [entry for entry in log if entry["route"] == "cancel"]
    checks = sent(api, route="get")
    assert len(cancels) == 1 and len(log) == 1 + len(checks)
    # At first it doubles: 9 checks in the first 256 s, then one in 300 s.
    assert abs(len(checks) - (9 + (night - 256) / 300)) <= 3, len(checks)
    wide = [gap for gap in gaps(checks) if gap > 260]
    assert len(wide) >= 90 and all(299 <= gap < 303 for gap in wide), (len(checks), gaps(checks))
    assert max(gaps(checks)) < 303

    # In the morning there is a key, and it is noticed within ten seconds.
    api.settings(keys=[KEY, "new-key"])
    daemon.write_key("new-key")
    clocks.live(daemon, 10)
    records = daemon.wait_records(29)
    assert sum(one["outcome"] == "cancelled" for one in records) == (28 if mode == "fail" else 29)
    assert len(sent(api, route="get")) == len(checks) + 1
