"""The stand-in does what README.md says; the integration tests lean on it."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from standin_client import HERE, PYTHON, StandIn

KEY = {"x-api-key": "test-key"}


@pytest.fixture(scope="module")
def shared():
    with StandIn() as standin:
        yield standin


@pytest.fixture
def standin(shared):
    shared.reset()
    return shared


def cancel(standin, job, headers=KEY, method="POST", route="cancel"):
    status, answer_headers, body = standin.request(method, f"/{route}/{job}", headers=headers)
    return status, answer_headers, json.loads(body) if body[:1] in b"{[" and body else body


def raw(standin, request):
    """Everything the server sends on a connection of its own until it closes."""
    with socket.create_connection(("127.0.0.1", standin.port), timeout=10) as sock:
        sock.sendall(request)
        got = b""
        while True:
            data = sock.recv(65536)
            if not data:
                return got
            got += data


def test_cancel_makes_the_job_on_first_sight_and_cancels_it(standin):
    status, headers, body = cancel(standin, "abc123-def456-ghi789")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert body == {"job_id": "abc123-def456-ghi789", "message": "Job cancelled successfully"}
    job = standin.job("abc123-def456-ghi789")
    assert [change[1:] for change in job.pop("history")] == [["processing", None], ["canceled", 0]]
    assert job == {"job_id": "abc123-def456-ghi789", "status": "canceled", "cancels": 1, "gets": 0}


def test_delete_job_and_get_job(standin):
    assert cancel(standin, "a", method="GET", route="job")[2] == {"job_id": "a", "status": "processing"}
    assert cancel(standin, "a", method="DELETE", route="job")[0] == 200
    assert cancel(standin, "a", method="GET", route="job")[2]["status"] == "canceled"
    assert [entry["route"] for entry in standin.log()] == ["get", "delete", "get"]


@pytest.mark.parametrize("headers, code", [({}, "AUTH_001"), ({"x-api-key": ""}, "AUTH_001"),
                                           ({"x-api-key": "other"}, "AUTH_002")])
def test_keys(standin, headers, code):
    status, _, body = cancel(standin, "a", headers)
    assert (status, body["error"]["code"]) == (401, code)
    assert standin.job("a") is None
    standin.settings(keys=["other"])
    assert cancel(standin, "a", {"x-api-key": "other"})[0] == 200


def test_unknown_jobs_and_finished_jobs(standin):
    standin.settings(unknown_jobs="404", finished_status=409)
    status, _, body = cancel(standin, "a")
    assert (status, sorted(body["error"])) == (404, ["code", "details", "message"])
    for state in ("completed", "failed"):
        standin.put_job("a", state)
        assert cancel(standin, "a")[0] == 409
        assert standin.job("a")["status"] == state
    standin.put_job("a", "canceled")
    assert cancel(standin, "a")[0] == 200


def test_a_job_goes_through_its_life(standin):
    standin.put_job("a", "pending", ["processing", "completed"])
    seen = [cancel(standin, "a", method="GET", route="job")[2]["status"] for _ in range(4)]
    assert seen == ["pending", "processing", "completed", "completed"]


def history(standin, job):
    return [change[1:] for change in standin.job(job)["history"]]


def test_a_job_ends_by_itself(standin):
    standin.put_job("a", "pending", finish={"status": "completed", "at_cancel": 2})
    standin.put_job("b", "pending", finish={"status": "failed", "at_get": 2})
    standin.put_job("c", "pending", finish={"status": "completed", "after_ms": 50})
    standin.fault(job="a", status=500)
    assert [cancel(standin, "a")[0] for _ in range(2)] == [500, 500]
    assert history(standin, "a") == [["pending", None], ["completed", 1]]
    assert [cancel(standin, "b", method="GET", route="job")[2]["status"] for _ in range(2)] == ["pending", "failed"]
    assert cancel(standin, "c", method="GET", route="job")[2]["status"] == "pending"
    while standin.counts()["to_come"]:
        pass
    first, last = standin.job("c")["history"]
    assert last[1:] == ["completed", None] and last[0] - standin.log(job="c")[0]["time"] >= 0.05 > 0 >= first[0] - last[0]
    assert cancel(standin, "c")[0] == 500 and standin.job("c")["status"] == "completed"


def test_an_effect_that_comes_late(standin):
    standin.fault(job="a", effect_after_ms=50)
    standin.fault(job="b", effect="completed", effect_after_ms=50)
    assert (cancel(standin, "a")[0], cancel(standin, "b")[0]) == (200, 200)
    assert standin.counts()["jobs"] == {"processing": 2}
    while standin.counts()["to_come"]:
        pass
    assert history(standin, "a") == [["processing", None], ["canceled", 0]]
    assert history(standin, "b") == [["processing", None], ["completed", 1]]


def test_faults_for_jobs_of_a_status(standin):
    standin.fault(when="canceled", status=404, times=None)
    standin.fault(job="b", when=["completed", "failed"], status=409)
    standin.put_job("b", "failed")
    assert [cancel(standin, "a")[0] for _ in range(3)] == [200, 404, 404]
    assert [cancel(standin, "b")[0] for _ in range(2)] == [409, 500]


def test_the_first_fault_that_matches_is_used(standin):
    standin.put("fault", [{"job": "a", "status": 502}, {"status": 503}, {"job": "a", "status": 504},
                          {"prefix": "a", "status": 501, "times": 2}])
    assert [fault["status"] for fault in standin.faults()] == [502, 503, 504, 501]
    assert [cancel(standin, "a")[0] for _ in range(6)] == [502, 503, 504, 501, 501, 200]
    assert standin.faults() == []


def test_what_get_says(standin):
    def get(**script):
        standin.fault(on="get", **script)
        return cancel(standin, "a", method="GET", route="job")[2]

    assert get(job_id="b", job_status="canceled") == {"job_id": "b", "status": "canceled"}
    assert get(job_status="resting") == {"job_id": "a", "status": "resting"}
    assert get(status=500)["error"]["code"] == "JOB_003"
    answer = get(result_bytes=200_000)
    assert (list(answer), answer["status"], len(answer["result"]["pages"])) == (["job_id", "status", "result"],
                                                                                "processing", 200_000)
    answer = get(result_bytes=5, status_last=True)
    assert (list(answer), answer["status"]) == (["job_id", "result", "status"], "processing")
    assert standin.log()[3]["body_sent"] > 200_000


def test_a_client_that_takes_only_the_beginning(standin):
    standin.fault(on="get", result_bytes=32_000_000)
    with socket.create_connection(("127.0.0.1", standin.port), timeout=10) as sock:
        sock.sendall(b"GET /job/a HTTP/1.1\r\nx-api-key: test-key\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    while standin.log(job="a")[0]["answer"] is None:
        pass
    entry = standin.log(job="a", brief=1)[0]
    assert (entry["answer"], entry["status"], "headers" in entry) == ("client left", 200, False)
    assert 0 < entry["body_sent"] < 10_000_000


@pytest.mark.parametrize("gone", [404, 405, 410, 501])
def test_a_route_that_is_gone_has_no_envelope(standin, gone):
    standin.settings(routes={"cancel": gone})
    status, headers, body = cancel(standin, "a")
    assert (status, headers["Content-Type"]) == (gone, "text/html") and b"error" not in body
    assert cancel(standin, "a", method="DELETE", route="job")[0] == 200


def test_a_fault_comes_so_many_times(standin):
    standin.fault(job="a", status=500, times=2)
    answers = [cancel(standin, "a") for _ in range(3)]
    assert [status for status, _, _ in answers] == [500, 500, 200]
    assert answers[0][2]["error"]["code"] == "JOB_003"
    assert [entry["effect"] for entry in standin.log()] == [None, None, "canceled"]
    assert [entry["fault"] and entry["fault"]["status"] for entry in standin.log()] == [500, 500, None]
    assert standin.faults() == []


def test_a_fault_can_skip_and_last_for_ever(standin):
    standin.fault(skip=1, status=503, times=None, envelope=False)
    assert [cancel(standin, "a")[0] for _ in range(4)] == [200, 503, 503, 503]
    assert standin.faults()[0]["used"] == 3
    standin.clear()
    assert cancel(standin, "a")[0] == 200


@pytest.mark.parametrize("select, hits", [({"job": "ab"}, ["ab"]), ({"prefix": "a"}, ["ab", "ac"]),
                                          ({"regex": "^.c$"}, ["ac", "bc"]), ({}, ["ab", "ac", "bc"]),
                                          ({"on": "get"}, []), ({"on": ["delete"]}, []),
                                          ({"on": "any", "job": "bc"}, ["bc"])])
def test_faults_select_requests(standin, select, hits):
    standin.fault(**select, status=409, times=None)
    assert [job for job in ("ab", "ac", "bc") if cancel(standin, job)[0] == 409] == hits


@pytest.mark.parametrize("script, status, effect", [({"status": 500}, 500, None),
                                                    ({"status": 500, "effect": "canceled"}, 500, "canceled"),
                                                    ({"effect": "completed"}, 200, "completed"),
                                                    ({"effect": "none"}, 200, None),
                                                    ({"status": 204}, 204, "canceled")])
def test_the_effect_is_apart_from_the_answer(standin, script, status, effect):
    standin.fault(**script)
    assert cancel(standin, "a")[0] == status
    assert standin.log()[0]["effect"] == effect
    assert standin.job("a")["status"] == (effect or "processing")


@pytest.mark.parametrize("reset, state", [("before", "processing"), ("after", "canceled")])
def test_resets(standin, reset, state):
    standin.fault(reset=reset)
    with pytest.raises(ConnectionResetError):
        cancel(standin, "a")
    assert standin.job("a")["status"] == state
    assert standin.log()[0]["answer"] == f"reset {reset}"


def test_truncated_oversized_and_garbage_bodies(standin):
    standin.fault(truncate=5)
    with pytest.raises(http.client.IncompleteRead):
        cancel(standin, "a")
    standin.fault(oversize=100_000)
    _, _, body = standin.request("POST", "/cancel/a", headers=KEY)
    assert len(body) > 100_000 and json.loads(body)["job_id"] == "a"
    standin.fault(garbage=True)
    assert not cancel(standin, "a")[2].startswith(b"{")
    standin.fault(job_id="b")
    assert cancel(standin, "a")[2]["job_id"] == "b"
    standin.fault(body={"x": 1}, headers={"X-Y": "z", "Content-Type": "text/plain"})
    status, headers, body = cancel(standin, "a")
    assert (status, headers["X-Y"], headers["Content-Type"], body) == (200, "z", "text/plain", {"x": 1})
    standin.fault(body_base64="AP8=")
    assert standin.request("POST", "/cancel/a", headers=KEY)[2] == b"\x00\xff"


def test_retry_after_and_redirect(standin):
    standin.fault(status=429, retry_after=7)
    assert cancel(standin, "a")[1]["Retry-After"] == "7"
    standin.fault(status=503, retry_after_date=3600)
    date = parsedate_to_datetime(cancel(standin, "a")[1]["Retry-After"])
    assert 3590 < date.timestamp() - time.time() < 3610
    standin.fault(redirect="http://127.0.0.1:1/x")
    status, headers, _ = cancel(standin, "a")
    assert (status, headers["Location"]) == (302, "http://127.0.0.1:1/x")
    assert standin.job("a")["status"] == "processing"


def test_raw_bytes_and_close(standin):
    standin.fault(raw="NOT HTTP\n")
    request = b"POST /cancel/a HTTP/1.1\r\nHost: x\r\nx-api-key: test-key\r\nContent-Length: 0\r\n\r\n"
    assert raw(standin, request) == b"NOT HTTP\n"
    standin.fault(close=True)
    assert raw(standin, request).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_gate_holds_answers_until_it_is_opened(standin):
    standin.fault(gate="g", times=None)
    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(StandIn.request(Other(standin), "POST", "/cancel/a",
                                                                                headers=KEY)[0])) for _ in range(3)]
    for client in clients:
        client.start()
    while standin.counts()["waiting"].get("g") != 3:
        pass
    assert standin.job("a")["status"] == "processing" and statuses == []
    assert standin.open("g", 1)["released"] == 1
    assert standin.open("g")["released"] == 2
    for client in clients:
        client.join(10)
    assert statuses == [200, 200, 200]
    counts = standin.counts()
    assert (counts["in_flight"], counts["max_in_flight"]) == (0, 3)
    assert cancel(standin, "b")[0] == 200   # an open gate stays open


class Other:
    """A second client of the same stand-in, with a connection of its own."""

    def __init__(self, standin):
        self.port, self.url, self.connection = standin.port, standin.url, None

    _connect = StandIn._connect


def test_hang_never_answers_and_delay_answers_late(standin):
    standin.fault(job="a", hang=True)
    standin.fault(job="c", hang="after")
    standin.fault(job="b", delay_ms=50)
    with socket.create_connection(("127.0.0.1", standin.port)) as sock:
        sock.sendall(b"POST /cancel/c HTTP/1.1\r\nx-api-key: test-key\r\n\r\n")
        while standin.job("c") is None or standin.job("c")["status"] != "canceled":
            pass
    while standin.log(job="c")[0]["answer"] != "client left":
        pass
    with socket.create_connection(("127.0.0.1", standin.port)) as sock:
        sock.sendall(b"POST /cancel/a HTTP/1.1\r\nx-api-key: test-key\r\n\r\n")
        assert cancel(standin, "b")[0] == 200
        entry = standin.log(job="b")[0]
        assert entry["done_time"] - entry["time"] >= 0.05
        sock.settimeout(0.05)
        with pytest.raises(socket.timeout):
            sock.recv(1)
    while standin.log(job="a")[0]["answer"] != "client left":
        pass
    assert (standin.job("a")["status"], standin.log(job="c")[0]["effect"]) == ("processing", "canceled")


def test_the_log_has_requests_as_they_were_on_the_wire(standin):
    standin.request("POST", "/v1/base/cancel/a%3Ab~c", b"body", {**KEY, "X-Odd": "1"})
    entry = standin.log()[0]
    assert (entry["path"], entry["job"], entry["body_bytes"]) == ("/v1/base/cancel/a%3Ab~c", "a:b~c", 4)
    assert ["X-Odd", "1"] in entry["headers"] and ["x-api-key", "test-key"] in entry["headers"]
    assert standin.request("POST", "/elsewhere", headers=KEY)[0] == 404
    assert [entry["route"] for entry in standin.log()] == ["cancel", None]
    assert standin.log(since=1)[0]["i"] == 1 and standin.log(route="cancel") == [entry]


@pytest.mark.parametrize("path, document", [("fault", {"statsu": 500}), ("fault", {"job": "a", "prefix": "b"}),
                                            ("fault", {"effect": "x"}), ("fault", {"regex": "("}),
                                            ("fault", {"reset": "now"}), ("fault", {"on": "put"}),
                                            ("fault", {"hang": "now"}), ("fault", {"times": 0}), ("fault", {"when": "cancelled"}),
                                            ("jobs", {"job_id": "a", "finish": {"status": "completed"}}),
                                            ("settings", {"x": 1}), ("settings", {"routes": {"x": 404}}),
                                            ("jobs", {"job_id": "a", "status": "cancelled"}), ("open", {})])
def test_mistakes_in_the_script_are_refused(standin, path, document):
    assert standin.request("POST", f"/_standin/{path}", json.dumps(document))[0] == 400


def test_requests_in_pieces_and_in_one_piece(standin):
    one = b"POST /cancel/%s HTTP/1.1\r\nx-api-key: test-key\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", standin.port), timeout=10) as sock:
        for byte in one % b"a":
            sock.send(bytes([byte]))
        assert b'"a"' in sock.recv(65536)
        sock.sendall(one % b"b" + one % b"c")
        got = b""
        while got.count(b"HTTP/1.1 200") < 2 or not got.endswith(b"}"):
            got += sock.recv(65536)
    assert [entry["job"] for entry in standin.log()] == ["a", "b", "c"]


def test_program_port_file_and_end(tmp_path):
    port_file = tmp_path / "port"
    process = subprocess.Popen([PYTHON, os.path.join(HERE, "standin.py"), "--port-file", str(port_file)],
                               stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line == f"listening on http://127.0.0.1:{port_file.read_text().strip()}\n"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_https(tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    with StandIn(https=(cert, key)) as standin:
        assert standin.url.startswith("https://")
        assert cancel(standin, "a")[0] == 200
        standin.fault(reset="before")
        with pytest.raises(OSError):
            cancel(standin, "a")


def test_thousands_of_requests_are_all_recorded(standin):
    async def client(first):
        reader, writer = await asyncio.open_connection("127.0.0.1", standin.port)
        for number in range(first, first + 250):
            writer.write(b"POST /cancel/j%d HTTP/1.1\r\nx-api-key: test-key\r\nContent-Length: 0\r\n\r\n" % number)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    async def clients():
        await asyncio.gather(*(client(first * 250) for first in range(16)))

    asyncio.run(clients())
    assert sorted(entry["job"] for entry in standin.log()) == sorted(f"j{number}" for number in range(4000))
    assert standin.counts()["jobs"] == {"canceled": 4000}
