"""What goes over the wire, byte by byte."""

import json
import re
import subprocess

import pytest

from daemon import KEY, binary_path, clean_environment
from standin_client import StandIn

HEADERS = {"Host", "User-Agent", "Accept", "x-api-key", "Content-Length"}


def version():
    text = subprocess.run([binary_path(), "-V"], capture_output=True, text=True, env=clean_environment(),
                          check=True).stdout
    return re.search(r"\d+\.\d+\S*", text)[0]


def only_request(standin):
    entry, = standin.log()
    return entry


def test_cancel_request(daemon, standin):
    daemon.outcome("abc123-def456-ghi789")
    entry = only_request(standin)
    assert (entry["method"], entry["path"], entry["body_bytes"]) == ("POST", "/cancel/abc123-def456-ghi789", 0)
    headers = dict(map(tuple, entry["headers"]))
    assert len(headers) == len(entry["headers"]), "a header came twice"
    assert set(headers) == HEADERS
    assert headers == {"Host": f"127.0.0.1:{standin.port}", "User-Agent": f"pulse-canceld/{version()}",
                       "Accept": "application/json", "x-api-key": KEY, "Content-Length": "0"}


def test_job_request(start, standin):
    daemon = start(api={"endpoint": "job"})
    result = daemon.outcome("abc123")
    assert (result["outcome"], result["endpoint"]) == ("cancelled", "job")
    entry = only_request(standin)
    assert (entry["method"], entry["path"], entry["body_bytes"]) == ("DELETE", "/job/abc123", 0)
    headers = dict(map(tuple, entry["headers"]))
    assert set(headers) - {"Content-Length"} == HEADERS - {"Content-Length"}
    assert headers["x-api-key"] == KEY and headers.get("Content-Length", "0") == "0"


def test_retries_and_job_after_cancel_look_the_same(start, standin):
    daemon = start(dispatch={"max_in_flight": 1})
    standin.fault(job="a", status=500, times=2)
    daemon.outcome("a")
    daemon.outcome("b")
    first, *others = standin.log()
    assert len(others) == 3 and all(entry["headers"] == first["headers"] for entry in others)


ENCODED = [("a:b~c", "a%3Ab~c"), ("A-Z.a_z~0", "A-Z.a_z~0"), (":", "%3A"), ("...", "..."), ("a..b", "a..b"),
           ("-", "-"), ("~", "~"), (":" * 255, "%3A" * 255), ("x" * 255, "x" * 255)]


@pytest.mark.parametrize("endpoint, prefix", [("cancel", "/cancel/"), ("job", "/job/")])
def test_job_ids_are_one_encoded_segment(start, standin, endpoint, prefix):
    daemon = start(api={"endpoint": endpoint})
    for job, encoded in ENCODED:
        assert daemon.outcome(job)["outcome"] == "cancelled"
        assert standin.log()[-1]["path"] == prefix + encoded
    assert [entry["job"] for entry in standin.log()] == [job for job, _ in ENCODED]


@pytest.mark.parametrize("suffix, path", [("", "/cancel/a"), ("/", "/cancel/a"), ("/v1", "/v1/cancel/a"),
                                          ("/v1/x.y/", "/v1/x.y/cancel/a"), ("/a%20b", "/a%20b/cancel/a")])
def test_base_url_with_a_path(start, standin, suffix, path):
    daemon = start(base_url=standin.url + suffix)
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert only_request(standin)["path"] == path


def test_base_url_by_name(start, standin):
    daemon = start(base_url=f"http://localhost:{standin.port}")
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert ["Host", f"localhost:{standin.port}"] in only_request(standin)["headers"]


def test_cookies_are_not_kept(daemon, standin):
    standin.fault(headers={"Set-Cookie": "a=b; Path=/"}, times=None)
    daemon.outcome("a")
    daemon.outcome("b")
    assert not any(name.lower() == "cookie" for entry in standin.log() for name, _ in entry["headers"])


HOSTILE = ["a b", "a/b", "../a", "..", ".", "a?b", "a#b", "a%2Fb", "a\\b", "a\tb", "a\rb", "a\u00e9", "a\u2028b",
           "a\x1b[31mb", "x" * 256, "a\x00b", "\u0085", "\ud7ff", "a\x7f", "a'b", "a\"b", "<a>", "a,b", "a;b", "*",
           "a@b", "a+b", "a&b"]


def test_hostile_names_never_reach_the_wire(daemon, standin):
    with daemon.client() as client:
        for job in HOSTILE:
            for params in ({"job_id": job}, {"job_ids": ["good", job]}):
                call = {"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": params}
                assert client.ask(json.dumps(call))["error"]["code"] in (-32602, -32700), job
    assert daemon.outcome("last")["outcome"] == "cancelled"
    assert [entry["job"] for entry in standin.log()] == ["last"]
    assert len(daemon.records()) == 1


def test_https_with_a_certificate_that_verifies(start, certificate):
    cert, key = certificate["IP:127.0.0.1"]
    with StandIn(keys=(KEY,), https=(cert, key)) as standin:
        daemon = start(base_url=standin.url, api={"ca_file": cert})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        assert only_request(standin)["path"] == "/cancel/a"


@pytest.mark.parametrize("name, trusted", [("IP:127.0.0.1", False), ("DNS:elsewhere.invalid", True)])
def test_https_with_a_certificate_that_does_not_verify(start, certificate, name, trusted):
    cert, key = certificate[name]
    with StandIn(keys=(KEY,), https=(cert, key)) as standin:
        daemon = start(base_url=standin.url, api={"ca_file": cert} if trusted else {})
        result = daemon.outcome("a", deadline_s=1)
        assert (result["outcome"], result["attempts"], result["error"]["code"]) == ("expired", 0, "tls")
        assert standin.log() == []
