"""The socket's two forms, JSON-RPC 2.0 and request lines: answers and errors."""

import json

import pytest

from results import check_record, parse_time
from rpc import Client
from waiting import wait_until

BAD_JSON = (-32700,)
BAD_REQUEST = (-32600,)
BAD_PARAMS = (-32602,)
REFUSED = (-32700, -32600, -32602)


def rpc(method="cancel", params=None, **more):
    message = {"jsonrpc": "2.0", "id": 1, "method": method, **more}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


def cancel(**params):
    return rpc(params=params)


def test_cancel_is_answered_when_it_is_queued(daemon, standin):
    standin.fault(gate="g")
    answer = daemon.cancel("abc123", request_id="r:1")
    assert answer == {"request_id": "r:1", "job_id": "abc123", "state": "queued", "coalesced": False}
    assert list(answer) == ["request_id", "job_id", "state", "coalesced"]
    standin.open("g")
    record, = daemon.wait_records(1)
    assert (record["request_id"], record["source"]) == ("r:1", "socket")
    assert record["origin"].startswith("uid=")


def test_an_answer_means_that_it_is_on_disk(daemon, standin):
    standin.fault(gate="g", times=None)
    made = daemon.cancel("abc123")["request_id"]
    daemon.kill()
    standin.open("g")
    daemon.start()
    assert [record["request_id"] for record in daemon.wait_records(1)] == [made]


def test_made_request_ids_differ_and_sort_by_time(daemon):
    made = [daemon.cancel(f"j{number}")["request_id"] for number in range(20)]
    assert len(set(made)) == 20 and all(made)
    assert sorted(made, key=lambda one: one[:13]) == made


def test_wait(daemon, standin):
    result = daemon.cancel("a", wait=True, request_id="r")
    assert check_record(result)["outcome"] == "cancelled"
    assert daemon.wait_records(1) == [result]
    standin.fault(status=403)
    assert daemon.cancel("b", wait=True)["outcome"] == "forbidden"
    assert daemon.cancel("c", wait=False)["state"] == "queued"


def test_several_jobs(daemon):
    jobs = [f"j{number}" for number in range(50)]
    answer = daemon.call("cancel", job_ids=jobs)
    assert [one["job_id"] for one in answer] == jobs
    assert {one["state"] for one in answer} == {"queued"}
    results = daemon.call("cancel", job_ids=["x", "y"], wait=True)
    assert [(one["job_id"], one["outcome"]) for one in results] == [("x", "cancelled"), ("y", "cancelled")]
    daemon.wait_records(52)


def test_ten_thousand_jobs_at_once_and_no_more(daemon, standin):
    jobs = [f"job-{number}" for number in range(10000)]
    with daemon.client() as client:
        assert client.error("cancel", job_ids=jobs + ["more"]).code == -32602
        assert client.error("cancel", job_ids=[]).code == -32602
        answer = client.call("cancel", job_ids=jobs)
    assert [one["job_id"] for one in answer] == jobs
    assert {record["job_id"] for record in daemon.wait_records(10000, timeout_s=60)} == set(jobs)
    assert len(standin.log()) == 10000


@pytest.mark.parametrize("bad", ["a b", "", "..", 7, None, ["a"], {"job_id": "a"}, "x" * 256])
def test_several_jobs_are_all_or_nothing(daemon, standin, bad):
    with daemon.client() as client:
        assert client.error("cancel", job_ids=["a", "b", bad, "c"]).code == -32602
        assert client.error("cancel", job_ids=["a"], request_id="r").code == -32602
        assert client.error("cancel", job_ids=["a"], job_id="a").code == -32602
        assert client.call("cancel", job_id="z", wait=True)["outcome"] == "cancelled"
    assert len(daemon.wait_records(1)) == 1 and len(standin.log()) == 1


def test_a_repeated_request_id(daemon, standin):
    standin.fault(job="a", gate="g")
    with daemon.client() as client:
        first = client.call("cancel", job_id="a", request_id="r")
        assert first["state"] == "queued"
        wait_until(lambda: standin.log(), "it is on the wire")
        again = client.call("cancel", job_id="a", request_id="r")
        assert again == client.call("status", request_id="r")[0] and again["state"] == "in_flight"
        error = client.error("cancel", job_id="b", request_id="r")
        assert error.code == -32602
        standin.open("g")
        result = client.call("cancel", job_id="a", request_id="r", wait=True)
        assert result["outcome"] == "cancelled"
        again = client.call("cancel", job_id="a", request_id="r")
        assert again["state"] == "done" and again["outcome"] == "cancelled"
        assert client.error("cancel", job_id="b", request_id="r").code == -32602
    daemon.restart()
    assert daemon.cancel("a", request_id="r")["state"] == "done"
    with daemon.client() as client:
        assert client.error("cancel", job_id="b", request_id="r").code == -32602
    assert len(daemon.wait_records(1)) == 1 and len(standin.log()) == 1


def test_a_repeated_request_id_before_the_first_is_committed(daemon, standin):
    """Pipelined, so that both are in the same commit."""
    with daemon.client() as client:
        client.send((cancel(job_id="a", request_id="r") + b"\n") * 20)
        answers = [client.answer() for _ in range(20)]
    assert {answer["result"]["request_id"] for answer in answers} == {"r"}
    daemon.wait_records(1)
    assert len(standin.log()) == 1


def test_deadline(daemon):
    before = daemon.cancel("a", deadline_s=1000, request_id="r")
    assert before["state"] == "queued"
    daemon.wait_records(1)
    with daemon.client() as client:
        for bad in (0, -1, 2592001, 1.5, "60", None, True, 1e30):
            assert client.error("cancel", job_id="a", deadline_s=bad).code == -32602, bad
        for good in (1, 2592000):
            assert client.call("cancel", job_id="a", deadline_s=good)["state"] == "queued"


def test_deadline_at(daemon, standin):
    standin.fault(gate="g", times=None)
    daemon.cancel("a", deadline_s=1000)
    item = daemon.item(job_id="a")
    assert parse_time(item["deadline_at"]) - parse_time(item["accepted_at"]) == pytest.approx(1000, abs=0.01)


ERRORS = [
    ("garbage", b"{nonsense", REFUSED, None),
    ("cut JSON", b'{"jsonrpc": "2.0", "id": 1, "method": "ping"', BAD_JSON, None),
    ("trailing text", rpc("ping") + b" x", REFUSED, None),
    ("two documents", rpc("ping") + rpc("ping"), REFUSED, None),
    ("invalid UTF-8", b'{"jsonrpc": "2.0", "id": 1, "method": "p\xffng"}', REFUSED, None),
    ("NUL byte", b'{"jsonrpc": "2.0", "id": 1, "method": "ping\x00"}', REFUSED, None),
    ("deep nesting", b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": ' + b"[" * 100000, REFUSED, None),
    ("deep nesting that closes", b"[" * 50000 + b"]" * 50000, REFUSED, None),
    ("deep params", rpc("ping")[:-1] + b', "params": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}", REFUSED, 0),
    ("single quotes", b"{'jsonrpc': '2.0', 'id': 1, 'method': 'ping'}", REFUSED, None),
    ("version 1", b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', BAD_REQUEST, 0),
    ("version a number", b'{"jsonrpc": 2.0, "id": 1, "method": "ping"}', BAD_REQUEST, 0),
    ("no method", b'{"jsonrpc": "2.0", "id": 1}', BAD_REQUEST, 0),
    ("method a number", b'{"jsonrpc": "2.0", "id": 1, "method": 1}', BAD_REQUEST, 0),
    ("id an object", b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', BAD_REQUEST, None),
    ("id an array", b'{"jsonrpc": "2.0", "id": [1], "method": "ping"}', BAD_REQUEST, None),
    ("id a boolean", b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', BAD_REQUEST, None),
    ("params a string", rpc("ping", "x"), BAD_REQUEST + BAD_PARAMS, 0),
    ("params a number", rpc("ping", 1), BAD_REQUEST + BAD_PARAMS, 0),
    ("repeated members", b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "method": "ping"}', REFUSED, 0),
    ("repeated params members", b'{"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": {"job_id": "a", "job_id": '
     b'"b"}}', REFUSED, 0),
    ("no such method", rpc("cancle"), (-32601,), 1),
    ("a method in another case", rpc("Ping"), (-32601,), 1),
    ("an empty method", rpc(""), (-32601,), 1),
    ("an rpc. method", rpc("rpc.discover"), (-32601,), 1),
    ("cancel without params", rpc(), BAD_PARAMS, 1),
    ("cancel by position", rpc(params=["a"]), BAD_PARAMS, 1),
    ("cancel nothing", rpc(params={}), BAD_PARAMS, 1),
    ("unknown params member", cancel(job_id="a", dealine_s=5), BAD_PARAMS, 1),
    ("job_id a number", cancel(job_id=1), BAD_PARAMS, 1),
    ("job_id empty", cancel(job_id=""), BAD_PARAMS, 1),
    ("job_id with a blank", cancel(job_id="a b"), BAD_PARAMS, 1),
    ("job_id dots", cancel(job_id=".."), BAD_PARAMS, 1),
    ("job_id too long", cancel(job_id="x" * 256), BAD_PARAMS, 1),
    ("job_id with NUL", cancel(job_id="a\0b"), REFUSED, 0),
    ("job_id with a lone surrogate", cancel(job_id="a\ud800"), REFUSED, 0),
    ("job_ids a string", cancel(job_ids="a"), BAD_PARAMS, 1),
    ("request_id empty", cancel(job_id="a", request_id=""), BAD_PARAMS, 1),
    ("request_id too long", cancel(job_id="a", request_id="r" * 129), BAD_PARAMS, 1),
    ("request_id with a tilde", cancel(job_id="a", request_id="~"), BAD_PARAMS, 1),
    ("request_id a number", cancel(job_id="a", request_id=1), BAD_PARAMS, 1),
    ("request_id null", cancel(job_id="a", request_id=None), BAD_PARAMS, 1),
    ("wait a number", cancel(job_id="a", wait=1), BAD_PARAMS, 1),
    ("wait a string", cancel(job_id="a", wait="true"), BAD_PARAMS, 1),
    ("status of nothing", rpc("status", {}), BAD_PARAMS, 1),
    ("status of two", rpc("status", {"job_id": "a", "request_id": "r"}), BAD_PARAMS, 1),
    ("status of a bad job", rpc("status", {"job_id": "a b"}), BAD_PARAMS, 1),
    ("status of a bad request", rpc("status", {"request_id": "~"}), BAD_PARAMS, 1),
    ("status with more", rpc("status", {"job_id": "a", "x": 1}), BAD_PARAMS, 1),
    ("ping with params", rpc("ping", {"x": 1}), BAD_PARAMS, 1),
    ("stats with params", rpc("stats", {"x": 1}), BAD_PARAMS, 1),
]


@pytest.mark.parametrize("line, codes, answer_id", [case[1:] for case in ERRORS],
                         ids=[case[0].replace(" ", "-") for case in ERRORS])
def test_errors(error_daemon, line, codes, answer_id):
    """answer_id: 1 = that of the call, None = null, 0 = either."""
    before = error_daemon.call("stats")["accepted"]
    with Client(error_daemon.socket) as client:
        answer = client.ask(line + b"\n")
        assert answer["error"]["code"] in codes, answer
        assert isinstance(answer["error"]["message"], str) and answer["error"]["message"]
        if "jsonrpc" in answer:
            assert answer["jsonrpc"] == "2.0" and "result" not in answer
            assert answer["id"] in {0: (None, 1), 1: (1,), None: (None,)}[answer_id]
        assert client.call("ping")["pid"] == error_daemon.process.pid
    assert error_daemon.call("stats")["accepted"] == before


@pytest.fixture(scope="module")
def error_daemon(shared_standin):
    from daemon import Daemon
    daemon = Daemon(base_url=shared_standin.url)
    try:
        daemon.start()
        yield daemon
        daemon.finish()
    finally:
        daemon.destroy()


@pytest.mark.parametrize("call_id", ["1", '"abc"', "0", "-5", "9007199254740993", '""', "null", '"\\u00e9\\n"', "1.5",
                                     pytest.param(json.dumps("x" * 1022), id="long")])
def test_the_id_comes_back_as_it_was(error_daemon, call_id):
    with Client(error_daemon.socket) as client:
        answer = client.ask('{"jsonrpc": "2.0", "method": "ping", "id": %s}' % call_id)
    assert answer["id"] == json.loads(call_id) and "result" in answer


def test_notifications_are_not_answered_but_done(daemon):
    with daemon.client() as client:
        client.send('{"jsonrpc": "2.0", "method": "cancel", "params": {"job_id": "a"}}\n')
        client.send('{"jsonrpc": "2.0", "method": "nonsense"}\n')
        client.send('{"jsonrpc": "2.0", "method": "cancel", "params": {"job_id": "a b"}}\n')
        assert client.call("ping")
    assert daemon.wait_records(1)[0]["job_id"] == "a"


def test_batch(daemon):
    with daemon.client() as client:
        answers = client.ask(b"[" + b", ".join([
            rpc("ping", id=10), rpc("cancel", {"job_id": "a", "wait": True}, id=11), b"1", rpc("nonsense", id=12),
            b'{"jsonrpc": "2.0", "method": "cancel", "params": {"job_id": "b"}}',
            rpc("cancel", {"job_id": "a b"}, id=13), b'{"foo": 1}', b"[]"]) + b"]\n")
    assert isinstance(answers, list) and len(answers) == 7
    by_id = {answer["id"]: answer for answer in answers if answer["id"] is not None}
    assert by_id[10]["result"]["pid"] == daemon.process.pid
    assert by_id[11]["result"]["outcome"] == "cancelled"
    assert (by_id[12]["error"]["code"], by_id[13]["error"]["code"]) == (-32601, -32602)
    assert [answer["error"]["code"] for answer in answers if answer["id"] is None] == [-32600] * 3
    assert {record["job_id"] for record in daemon.wait_records(2)} == {"a", "b"}


def test_empty_batch_and_batch_of_notifications(daemon):
    with daemon.client() as client:
        answer = client.ask("[]")
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
        assert [one["error"]["code"] for one in client.ask("[1, 2]")] == [-32600, -32600]
        notification = '{"jsonrpc": "2.0", "method": "cancel", "params": {"job_id": "%s"}}'
        client.send(f"[{notification % 'a'}, {notification % 'b'}]\n")
        assert client.call("ping")      # the next answer is this one's
        assert client.ask("[" + rpc("ping").decode() + "]")[0]["result"]["pid"] == daemon.process.pid
    daemon.wait_records(2)


def test_request_lines(daemon):
    with daemon.client() as client:
        answer = client.ask("abc123")
        assert list(answer) == ["request_id", "job_id", "state", "coalesced"]
        assert (answer["job_id"], answer["state"]) == ("abc123", "queued")
        answer = client.ask('  {"job_id": "b", "request_id": "r", "deadline_s": 60} \r')
        assert (answer["request_id"], answer["job_id"]) == ("r", "b")
        assert client.ask("  c\t\r")["job_id"] == "c"
    assert sorted(record["job_id"] for record in daemon.wait_records(3)) == ["abc123", "b", "c"]


@pytest.mark.parametrize("line", [b"two words", b"a/b", b"..", b"x" * 256, b"\xff\xfe", b"{}", b'{"job_id": 1}',
                                  b'{"job_id": "a b"}', b'{"job_id": "a", "x": 1}', b'{"job_id": "a", "job_id": "a"}',
                                  b'{"job_id": "a", "wait": true}', b'{"job_ids": ["a"]}', b'"a"', b"a\0b"])
def test_bad_request_lines(error_daemon, line):
    before = error_daemon.call("stats")["accepted"]
    with Client(error_daemon.socket) as client:
        answer = client.ask(line + b"\n")
        assert answer["error"]["code"] in REFUSED and "result" not in answer
        assert answer["error"]["message"]
        assert client.call("ping")
    assert error_daemon.call("stats")["accepted"] == before


def test_a_request_line_of_another_jobs_request_id(daemon):
    with daemon.client() as client:
        client.ask('{"job_id": "a", "request_id": "r"}')
        assert client.ask('{"job_id": "b", "request_id": "r"}')["error"]["code"] == -32602
        daemon.wait_records(1)
        assert client.ask('{"job_id": "a", "request_id": "r"}')["state"] == "done"
