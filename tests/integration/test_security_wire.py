"""Nobody but the configured host hears of anything, whatever a server's answer says."""

import os
import re

import pytest

from daemon import KEY
from proxies import Trap
from standin_client import StandIn
from storage import Fault, need_root


def headers_to(trap):
    """What could make a client turn to somebody else, now or later."""
    host = f"127.0.0.1:{trap.port}"
    return {
        "Location": f"http://{host}/away", "Content-Location": f"http://{host}/away", "Refresh": f"0; url=http://{host}/away",
        "URI": f"http://{host}/away",
        "Link": f'<http://{host}/away>; rel="canonical", <http://{host}/dep>; rel="deprecation"; type="text/html"',
        "Alt-Svc": f'h2="{host}"; ma=86400, http/1.1="{host}"; ma=86400', "Alt-Used": host,
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "Set-Cookie": "a=b; Path=/", "Set-Cookie2": "c=d", "Use-Proxy": f"http://{host}",
        "Deprecation": "@1735689600", "Sunset": f"http://{host}/sunset",
        "Report-To": f'{{"group": "d", "max_age": 1, "endpoints": [{{"url": "http://{host}/report"}}]}}',
        "Proxy-Authenticate": 'Basic realm="x"', "WWW-Authenticate": 'Basic realm="x", Digest realm="x", nonce="x", Negotiate, NTLM',
        "Upgrade": "h2c, TLS/1.2", "Accept-CH": "Viewport-Width",
    }


def is_as_always(entry, first):
    return entry["headers"] == first["headers"]


TARGETS = ["http://{}/cancel/a", "https://{}/cancel/a", "//{}/cancel/a", "http://user:pw@{}/", "ftp://{}/x", "file:///etc/passwd",
           "gopher://{}/x", "\\\\{}\\x", "http://localhost:@{}/", ""]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_redirects_of_every_kind(daemon, standin, status):
    with Trap() as trap:
        for number, where in enumerate(TARGETS):
            target = where.format(f"127.0.0.1:{trap.port}")
            standin.fault(status=status, headers={"Location": target, "Refresh": f"0;url={target}"})
            result = daemon.outcome(f"a-{number}")
            assert (result["outcome"], result["http_status"], result["attempts"]) == ("rejected", status, 1)
        assert trap.knocks() == 0
    log = standin.log()
    assert len(log) == len(TARGETS) and all(is_as_always(entry, log[0]) for entry in log)


@pytest.mark.parametrize("on", ["cancel", "delete", "get"])
def test_headers_that_point_elsewhere(start, standin, on):
    daemon = start(api={"verify": "always", "endpoint": {"delete": "job"}.get(on, "cancel")}, dispatch={"max_in_flight": 1})
    with Trap() as trap:
        for status in (200, 301, 307, 401, 404, 407, 410, 426, 429, 500, 503, 511):
            standin.fault(job=f"a-{status}", on=on, status=status, headers=headers_to(trap))
            record = daemon.outcome(f"a-{status}")
            assert record["outcome"] in ("cancelled", "rejected", "not_found", "unauthorized"), record
        assert standin.faults() == []
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert trap.knocks() == 0
    names = {name.lower() for entry in standin.log() for name, _ in entry["headers"]}
    assert names - {"content-length"} == {"host", "user-agent", "accept", "x-api-key"}
    assert {dict(entry["headers"])["Host"] for entry in standin.log()} == {f"127.0.0.1:{standin.port}"}


def test_from_https_to_http_and_alternative_services(start, certificate):
    """Alt-Svc and Strict-Transport-Security count over TLS only."""
    cert, key = certificate["IP:127.0.0.1"]
    with StandIn(keys=(KEY,), https=(cert, key)) as standin, Trap() as trap:
        daemon = start(base_url=standin.url, api={"ca_file": cert}, environment={"HOME": "/nonexistent"})
        standin.fault(status=307, headers=headers_to(trap))
        standin.fault(skip=1, status=500, headers=headers_to(trap), times=2)
        assert daemon.outcome("a")["outcome"] == "rejected"
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert daemon.outcome("c")["outcome"] == "cancelled"
        assert trap.knocks() == 0
        log = standin.log()
        assert len(log) >= 3 and all(is_as_always(entry, log[0]) for entry in log)


RAW = {
    "HTTP/0.9": b'{"message": "cancelled", "job_id": "a-0"}',
    "HTTP/0.9 with a line": b'hello\r\n{"message": "cancelled", "job_id": "a-1"}',
    "HTTP/1.0 without an end": b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:TRAP/\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: <http://127.0.0.1:TRAP/x>; rel=preload\r\nLocation: http://127.0.0.1:TRAP/\r\n\r\n"
                   b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:TRAP/\r\nContent-Length: 0\r\n\r\n",
    "two answers": b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\nHTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:TRAP/\r\n\r\n",
    "two locations": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:TRAP/1\r\nLocation: http://127.0.0.1:TRAP/2\r\n"
                     b"Content-Length: 0\r\n\r\n",
    "a line within a header": b"HTTP/1.1 302 Found\r\nX: y\nLocation: http://127.0.0.1:TRAP/\r\nContent-Length: 0\r\n\r\n",
    "a proxy's": b"HTTP/1.1 407 Authenticate\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
    "SOCKS": b"\x05\x00", "TLS": b"\x16\x03\x03\x00\x05hello", "FTP": b"220 ready\r\n",
}


def test_answers_that_are_no_http_or_too_much_of_it(start, standin):
    daemon = start(retry={"max_attempts": 2})
    with Trap() as trap:
        for number, raw in enumerate(RAW.values()):
            standin.fault(job=f"a-{number}", raw=raw.replace(b"TRAP", str(trap.port).encode()).decode("latin-1"), times=None)
            daemon.cancel(f"a-{number}")
        records = daemon.wait_records(len(RAW))
        assert {record["outcome"] for record in records} <= {"failed", "rejected"}, records
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert trap.knocks() == 0
    log = standin.log()
    assert all(is_as_always(entry, log[0]) for entry in log)
    assert max(standin.job(f"a-{number}")["cancels"] for number in range(len(RAW))) <= 2


class Watched(Fault):
    """Where a running daemon connects to, or sends to, until the end of the `with`."""

    def __init__(self, daemon):
        super().__init__(daemon, [])
        self.command = ["strace", "-f", "-qq", "-o", self.trace, "-p", str(self.pid), "-e",
                        "trace=connect,sendto,sendmsg,sendmmsg"]

    def addresses(self):
        """(address, port) of the Internet's."""
        text = "".join(self.calls())
        found = re.findall(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)', text)
        found += [(port, address) for port, address in
                  re.findall(r'sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([^"]+)"', text)]
        return {(address, int(port)) for port, address in found}

    def calls(self):
        return super().calls() if os.path.exists(self.trace) else []


def test_every_connection_is_to_the_one_host(make_daemon, standin):
    """As the kernel sees it: no other host, no name server, not for a name on this machine either."""
    need_root()
    daemon = make_daemon(base_url=f"http://localhost:{standin.port}", api={"verify": "always"})
    environment = {"HOME": daemon.home}
    with Trap() as trap:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            environment[name] = trap.url
        for name in (".netrc", ".curlrc", "_netrc"):
            with open(os.path.join(daemon.home, name), "w", encoding="ascii") as file:
                file.write(f"machine localhost login a password b\nproxy = {trap.url}\nlocation\n")
        environment["CURL_HOME"] = daemon.home
        daemon.start(environment=environment)
        with Watched(daemon) as watched:
            for number, status in enumerate((302, 307, 401, 500, 503)):
                standin.fault(job=f"a-{number}", status=status, headers=headers_to(trap))
            for number in range(5):
                daemon.cancel(f"a-{number}")
            daemon.drop("file", "b\nhttp://example.com/x\nc\n")
            daemon.wait_records(8)
            daemon.call("reload")
            daemon.outcome("d")
        assert trap.knocks() == 0
    # A host has two addresses, and curl may try both.
    assert watched.addresses() - {("127.0.0.1", standin.port)} <= {("::1", standin.port)}
    assert ("127.0.0.1", standin.port) in watched.addresses()


def test_another_host_after_a_reload_is_the_operators_will(start, standin):
    """And the first one hears nothing any more."""
    with StandIn(keys=(KEY,)) as other:
        daemon = start()
        daemon.outcome("a")
        daemon.set(api={"base_url": other.url})
        daemon.call("reload")
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert [entry["job"] for entry in standin.log()] == ["a"]
        assert [entry["job"] for entry in other.log()] == ["b"]
