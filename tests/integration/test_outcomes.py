"""Each outcome of a request, with the members of its result that go with it."""

import pytest

from daemon import KEY
from marks import not_under_valgrind

# outcome, the stand-in's fault, http_status, attempts, error code
ONE_ANSWER = [
    ("cancelled", {}, 200, 1, None),
    ("not_found", {"status": 404}, 404, 1, "JOB_001"),
    ("not_found", {"status": 404, "envelope": False}, 404, 1, "http_404"),
    ("unauthorized", {"status": 401}, 401, 1, "AUTH_002"),
    ("forbidden", {"status": 403}, 403, 1, "AUTH_004"),
    ("forbidden", {"status": 403, "envelope": False}, 403, 1, "http_403"),
    ("rejected", {"status": 400}, 400, 1, "REQ_001"),
    ("rejected", {"status": 400, "envelope": False}, 400, 1, "http_400"),
    ("rejected", {"status": 405, "envelope": False}, 405, 1, "http_405"),
    ("rejected", {"status": 409}, 409, 1, "JOB_002"),
    ("rejected", {"status": 410, "envelope": False}, 410, 1, "http_410"),
    ("rejected", {"status": 422, "code": "SCHEMA_001", "message": "no"}, 422, 1, "SCHEMA_001"),
    ("rejected", {"status": 501}, 501, 1, "GENERAL_501"),
    ("rejected", {"status": 501, "envelope": False}, 501, 1, "http_501"),
    ("rejected", {"status": 304}, 304, 1, "http_304"),
]


@pytest.mark.parametrize("outcome, fault, http_status, attempts, code", ONE_ANSWER)
def test_final_answers(daemon, standin, outcome, fault, http_status, attempts, code):
    standin.fault(times=None, **fault)
    result = daemon.outcome("abc123", request_id="r-1")
    assert (result["outcome"], result["http_status"], result["attempts"]) == (outcome, http_status, attempts)
    assert (result["request_id"], result["job_id"], result["endpoint"]) == ("r-1", "abc123", "cancel")
    assert (result["source"], result["coalesced_with"], result["job_status"]) == ("socket", None, None)
    assert (result["error"] and result["error"]["code"]) == code
    assert daemon.wait_records(1) == [result]
    assert len(standin.log()) == 1


def test_the_servers_message_is_kept(daemon, standin):
    assert daemon.outcome("a")["message"] == "Job cancelled successfully"
    standin.fault(status=403, code="AUTH_006", message="Domain not allowed: \"x\"\n\u00e9")
    result = daemon.outcome("b")
    assert result["error"] == {"code": "AUTH_006", "message": "Domain not allowed: \"x\"\n\u00e9"}
    assert result["message"] == "Domain not allowed: \"x\"\n\u00e9"


def test_redirects_are_final_and_not_followed(daemon, standin):
    for status in (301, 302, 303, 307, 308):
        standin.fault(status=status, redirect=f"{standin.url}/cancel/other", envelope=False)
        result = daemon.outcome(f"job-{status}")
        assert (result["outcome"], result["http_status"]) == ("rejected", status)
        assert result["error"]["code"] == f"http_{status}"
    assert "other" not in [entry["job"] for entry in standin.log()]
    assert len(standin.log()) == 5


@pytest.mark.parametrize("status, envelope, code", [(500, True, "JOB_003"), (500, False, "http_500"),
                                                    (502, False, "http_502"), (503, False, "http_503"),
                                                    (504, False, "http_504"), (599, False, "http_599"),
                                                    (408, False, "http_408"), (425, False, "http_425"),
                                                    (429, True, "GENERAL_429"), (429, False, "http_429")])
def test_retried_until_it_works_and_until_attempts_are_used_up(start, standin, status, envelope, code):
    daemon = start(retry={"max_attempts": 3})
    standin.fault(job="works", status=status, envelope=envelope, times=2)
    standin.fault(job="never", status=status, envelope=envelope, times=None)
    result = daemon.outcome("works")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("cancelled", 200, 3)
    assert result["error"] is None
    result = daemon.outcome("never")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("failed", status, 3)
    assert (result["error"]["code"], result["endpoint"]) == (code, "cancel")
    assert [entry["status"] for entry in standin.log(job="works")] == [status, status, 200]
    assert len(standin.log(job="never")) == 3


def test_500_after_the_cancel_took_effect_is_retried(daemon, standin):
    standin.fault(job="a", status=500, effect="canceled")
    result = daemon.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("cancelled", 2)


# What a server may send with a 2xx that must not be believed, and our code for it.
DISBELIEVED = [
    ("another job's ID", {"job_id": "other"}, 200, "job_id_mismatch"),
    ("our ID in another case", {"job_id": "A"}, 200, "job_id_mismatch"),
    ("our ID and more", {"job_id": "a\u0000b"}, 200, None),
    ("garbage", {"garbage": True}, 200, "bad_reply"),
    ("an empty body", {"body": ""}, 200, "bad_reply"),
    ("HTML", {"body": "<html>OK</html>"}, 200, "bad_reply"),
    ("no job_id", {"body": {"message": "done"}}, 200, "bad_reply"),
    ("job_id null", {"body": {"job_id": None, "message": "done"}}, 200, "bad_reply"),
    ("job_id a number", {"body": {"job_id": 1, "message": "done"}}, 200, "bad_reply"),
    ("an array", {"body": [{"job_id": "a"}]}, 200, "bad_reply"),
    ("a string", {"body": "\"a\""}, 200, "bad_reply"),
    ("job_id deeper down", {"body": {"job": {"job_id": "a"}}}, 200, "bad_reply"),
    ("job_id twice", {"body": "{\"job_id\": \"a\", \"job_id\": \"a\", \"message\": \"m\"}"}, 200, "bad_reply"),
    ("two job_ids", {"body": "{\"job_id\": \"b\", \"job_id\": \"a\", \"message\": \"m\"}"}, 200, "bad_reply"),
    ("more after the document", {"body": "{\"job_id\": \"a\", \"message\": \"m\"} x"}, 200, "bad_reply"),
    ("two documents", {"body": "{\"job_id\": \"a\", \"message\": \"m\"}{}"}, 200, "bad_reply"),
    ("single quotes", {"body": "{'job_id': 'a', 'message': 'm'}"}, 200, "bad_reply"),
    ("NaN", {"body": "{\"job_id\": \"a\", \"message\": \"m\", \"x\": NaN}"}, 200, "bad_reply"),
    ("a cut document that closes well", {"body": "{\"job_id\": \"a\", \"message\": \"m\""}, 200, "bad_reply"),
    ("invalid UTF-8", {"body_base64": "eyJqb2JfaWQiOiAiYSIsICJtZXNzYWdlIjogIv8ifQ=="}, 200, "bad_reply"),
    ("the error envelope", {"body": {"error": {"code": "X", "message": "y"}}}, 200, "bad_reply"),
    ("204", {"status": 204}, 204, "bad_reply"),
    ("201 with a good body", {"status": 201}, 201, "bad_reply"),
    ("202 with a good body", {"status": 202}, 202, "bad_reply"),
    ("a cut body", {"truncate": 10}, None, "transport"),
    ("no body where one is promised", {"truncate": 0}, None, "transport"),
    ("a valid body over 64 KiB", {"oversize": 70000}, None, "transport"),
    ("an endless amount", {"oversize": 20000000}, None, "transport"),
    ("a reset", {"reset": "before"}, None, "transport"),
    ("a reset after the effect", {"reset": "after"}, None, "transport"),
    ("no HTTP", {"raw": "hello\r\n"}, None, "transport"),
    ("a closed connection", {"raw": ""}, None, "transport"),
    ("half a head", {"raw": "HTTP/1.1 200 OK\r\nContent-Le"}, None, "transport"),
    ("a broken chunk", {"raw": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}, None, "transport"),
]


@pytest.mark.parametrize("fault, http_status, code", [case[1:] for case in DISBELIEVED],
                         ids=[case[0].replace(" ", "-") for case in DISBELIEVED])
def test_what_is_not_believed_is_retried(start, standin, fault, http_status, code):
    daemon = start(retry={"max_attempts": 2})
    standin.fault(job="a", times=2, **fault)
    result = daemon.outcome("a")
    assert (result["outcome"], result["attempts"]) == ("failed", 2)
    if code is not None:
        assert result["error"]["code"] == code
    if http_status is not None:
        assert result["http_status"] == http_status
    # The same again once: then the next attempt succeeds.
    standin.fault(job="a", **fault)
    result = daemon.outcome("a")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("cancelled", 200, 2)


BELIEVED = [
    {"body": {"job_id": "a", "message": "m"}}, {"body": {"message": "m", "more": [1, {"x": None}], "job_id": "a"}},
    {"body": " \r\n{ \"job_id\" : \"\\u0061\", \"message\": \"m\" }\n"}, {"oversize": 60000},
    {"headers": {"Content-Type": "text/plain"}}, {"close": True},
    {"raw": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"job_id\": \"a\", \r\ne\r\n\"message\": \"\"}"
            "\r\n0\r\n\r\n"},
    {"raw": "HTTP/1.0 200 OK\r\n\r\n{\"job_id\": \"a\", \"message\": \"m\"}"},
]


@pytest.mark.parametrize("fault", BELIEVED)
def test_what_is_believed(daemon, standin, fault):
    standin.fault(**fault)
    result = daemon.outcome("a")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("cancelled", 200, 1)


@not_under_valgrind("100 ms are over before the request is sent")
def test_timeout(start, standin):
    daemon = start(api={"timeout_ms": 100}, retry={"max_attempts": 2})
    standin.fault(job="a", hang=True, times=None)
    result = daemon.outcome("a")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("failed", None, 2)
    assert result["error"]["code"] == "timeout"


def test_http_status_is_that_of_the_last_reply(start, standin):
    daemon = start(retry={"max_attempts": 2})
    standin.fault(job="a", status=500)
    # Twice: curl repeats by itself what a kept connection swallowed, within the same attempt.
    standin.fault(job="a", reset="before", times=2)
    result = daemon.outcome("a")
    assert (result["outcome"], result["http_status"], result["attempts"]) == ("failed", 500, 2)
    assert result["error"]["code"] == "transport"


def test_expired_before_it_was_tried(start, standin):
    daemon = start(dispatch={"max_in_flight": 1})
    standin.fault(job="first", gate="g")
    with daemon.client() as client:
        client.send_call("cancel", {"job_id": "first"})
        client.answer()
        result = daemon.outcome("late", deadline_s=1)
    assert (result["outcome"], result["attempts"], result["http_status"]) == ("expired", 0, None)
    assert (result["endpoint"], result["error"]["code"]) == (None, "expired")
    assert result["elapsed_ms"] >= 1000
    standin.open("g")
    assert [record["outcome"] for record in daemon.wait_records(2)] == ["expired", "cancelled"]
    assert standin.log(job="late") == []


def test_expired_after_attempts_has_the_last_failure(start, standin):
    daemon = start(retry={"max_attempts": 1000, "deadline_s": 1})
    standin.fault(job="a", status=500, times=None)
    result = daemon.outcome("a")
    assert (result["outcome"], result["http_status"]) == ("expired", 500)
    assert (result["endpoint"], result["error"]["code"]) == ("cancel", "JOB_003")
    assert result["attempts"] == len(standin.log()) > 1
    assert result["elapsed_ms"] >= 1000


def test_text_from_the_server_is_cut_and_the_key_masked(daemon, standin):
    standin.fault(job="a", status=400, code=f"CODE {KEY}", message=f"your key {KEY} is odd")
    result = daemon.outcome("a")
    assert KEY not in str(result) and result["message"].startswith("your key ")
    standin.fault(job="b", status=400, message="\u00e9" * 5000 + KEY)
    result = daemon.outcome("b")
    assert 4000 < len(result["message"].encode()) <= 4096
    standin.fault(job="c", body={"job_id": "c", "message": f"{KEY} " + "x" * 5000})
    result = daemon.outcome("c")
    assert KEY not in result["message"] and len(result["message"]) <= 4096
    # A cut must not leave a part of the key that masking no longer recognises.
    standin.fault(job="d", status=400, message="x" * 4091 + KEY)
    assert "test-" not in daemon.outcome("d")["message"]


def test_an_odd_envelope_is_no_envelope(daemon, standin):
    bodies = [{"error": "x"}, {"error": {"code": 1, "message": "x"}}, {"error": {"code": "X"}}, {"errors": []},
              "[", {"error": {"message": "x"}}]
    for number, body in enumerate(bodies):
        standin.fault(status=400, body=body)
        result = daemon.outcome(f"j{number}")
        assert (result["outcome"], result["error"]["code"]) == ("rejected", "http_400")
