"""SIGHUP: settings that take effect, settings that wait, configurations that are bad, and the key."""

import os
import re

import pytest

from daemon import KEY
from rpc import RpcError
from standin_client import StandIn
from waiting import wait_until


def count_of(daemon, pattern):
    return len(re.findall(pattern, daemon.stderr()))


def until_outcome(daemon, standin, condition, what):
    """Cancel new jobs until one request on the wire is as expected: the reload is asynchronous."""
    number = [0]

    def look():
        number[0] += 1
        result = daemon.outcome(f"probe-{len(standin.log())}-{number[0]}")
        return condition(result, standin.log()[-1] if standin.log() else None)
    wait_until(look, what)


def test_base_url_and_endpoint(daemon, standin):
    daemon.outcome("a")
    daemon.set(api={"endpoint": "job"})
    daemon.reload()
    until_outcome(daemon, standin, lambda result, entry: entry["route"] == "delete" and result["endpoint"] == "job",
                  "DELETE is used")
    with StandIn(keys=(KEY,)) as other:
        daemon.set(api={"base_url": other.url + "/v2"})
        daemon.reload()
        until_outcome(daemon, other, lambda _result, entry: entry and entry["path"].startswith("/v2/job/"),
                      "the other server is used")


def test_max_in_flight(daemon, standin):
    daemon.outcome("warm")
    standin.fault(gate="g", times=None)
    daemon.set(dispatch={"max_in_flight": 40})
    daemon.reload()
    daemon.call("cancel", job_ids=[f"j{number}" for number in range(50)])
    wait_until(lambda: standin.counts()["in_flight"] == 40, "forty in flight")
    standin.open("g")
    daemon.wait_records(51)


def test_max_pending(daemon, standin):
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=["a", "b"])
    daemon.set(queue={"max_pending": 2})
    daemon.reload()

    def refused():
        try:
            daemon.cancel("c")
        except RpcError as error:
            return error.code == -32001
        return False
    wait_until(refused, "the queue counts as full")
    daemon.set(queue={"max_pending": 1000})
    daemon.reload()
    wait_until(lambda: not refused(), "there is room again")
    standin.open("g")


def test_retry_and_timeout(daemon, standin):
    daemon.set(retry={"max_attempts": 1}, api={"timeout_ms": 200})
    daemon.reload()
    standin.fault(status=500, times=None)
    until_outcome(daemon, standin, lambda result, _entry: result["attempts"] == 1, "one attempt is all")
    standin.clear()
    standin.fault(hang=True)
    assert daemon.outcome("slow")["error"]["code"] == "timeout"


def test_log_level(daemon):
    daemon.set(log={"level": "error"})
    daemon.reload()

    def silent():
        before = daemon.stderr()
        daemon.outcome("a")
        daemon.drop("nul", b"")
        return daemon.stderr() == before
    wait_until(silent, "nothing is logged")


@pytest.mark.parametrize("group, name, value", [("retry", "max_attempts", 0), ("api", "endpoint", "x"),
                                                ("api", "base_url", "http://example.com"), ("log", "nonsense", 1)])
def test_a_bad_configuration_leaves_the_old_one(daemon, standin, group, name, value):
    daemon.set(api={"endpoint": "job"})     # good, and yet not taken with the bad one
    daemon.set(**{group: {name: value}})
    daemon.reload()
    pattern = rf"{re.escape(daemon.config)}:\d+: {group}\.{name}: \S"
    wait_until(lambda: count_of(daemon, pattern), "the error is logged")
    assert daemon.outcome("a")["endpoint"] == "cancel"
    assert standin.log()[0]["route"] == "cancel"
    daemon.set(**{group: {name: None}})
    daemon.set(api={"base_url": standin.url, "endpoint": "job"})
    daemon.reload()
    until_outcome(daemon, standin, lambda result, _entry: result["endpoint"] == "job", "the mended one is used")


@pytest.mark.parametrize("group, name, value", [
    ("spool", "max_file_bytes", 77), ("spool", "settle_ms", 77), ("spool", "rescan_interval_s", 77),
    ("spool", "directory", "/nonexistent/spool"), ("socket", "path", "/nonexistent/s"), ("socket", "mode", "0600"),
    ("socket", "max_clients", 77), ("queue", "database", "/nonexistent/queue.db"),
    ("results", "path", "/nonexistent/results.log")])
def test_a_setting_that_needs_a_restart_is_named(daemon, standin, group, name, value):
    old = daemon.settings.get(group, {}).get(name)
    daemon.set(**{group: {name: value}}, api={"endpoint": "job"})
    daemon.reload()
    wait_until(lambda: re.search(rf"{group}\.{name}\b.*restart|restart.*{group}\.{name}\b", daemon.stderr()),
               "it is named in a warning")
    until_outcome(daemon, standin, lambda result, _entry: result["endpoint"] == "job", "the rest takes effect")
    daemon.drop("f", b"")
    wait_until(lambda: "f" in [record["job_id"] for record in daemon.records()], "the spool is still there")
    daemon.set(**{group: {name: old}})


def test_an_unchanged_configuration_warns_of_nothing(daemon, standin):
    daemon.set(api={"endpoint": "job"})
    daemon.reload()
    until_outcome(daemon, standin, lambda result, _entry: result["endpoint"] == "job", "the reload is done")
    assert "restart" not in daemon.stderr()


def test_a_new_key(daemon, standin):
    standin.settings(keys=[KEY, "new-key-1234"])
    daemon.outcome("a")
    daemon.write_key("new-key-1234")
    daemon.outcome("b")
    assert {tuple(header) for entry in standin.log() for header in entry["headers"] if header[0] == "x-api-key"} \
        == {("x-api-key", KEY)}
    daemon.reload()
    until_outcome(daemon, standin, lambda _result, entry: ["x-api-key", "new-key-1234"] in entry["headers"],
                  "the new key is used")
    assert "new-key-1234" not in daemon.stderr()


@pytest.mark.parametrize("data, mode", [("", 0o600), ("two words", 0o600), ("new-key-1234", 0o644)])
def test_a_bad_new_key_leaves_the_old_one(daemon, standin, data, mode):
    daemon.write_key(data)
    os.chmod(daemon.key_file, mode)
    daemon.set(api={"endpoint": "job"})
    daemon.reload()
    wait_until(lambda: "api.key_file" in daemon.stderr(), "the error is logged")
    assert daemon.outcome("a")["endpoint"] == "cancel"
    assert ["x-api-key", KEY] in standin.log()[-1]["headers"]
    daemon.write_key(KEY)
    daemon.reload()
    until_outcome(daemon, standin, lambda result, _entry: result["endpoint"] == "job", "the mended one is used")


def test_requests_in_flight_survive_a_reload(daemon, standin):
    standin.fault(job="a", gate="g")
    with daemon.client() as client:
        call = client.send_call("cancel", {"job_id": "a", "wait": True})
        wait_until(lambda: standin.log(), "it is in flight")
        daemon.set(api={"endpoint": "job"})
        daemon.reload()
        until_outcome(daemon, standin, lambda result, _entry: result["endpoint"] == "job", "the reload is done")
        standin.open("g")
        result = client.result(call)
    assert (result["outcome"], result["attempts"], result["endpoint"]) == ("cancelled", 1, "cancel")
