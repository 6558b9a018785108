"""Requests go where the configuration says and nowhere else: through api.proxy, never through the environment's,
never to where a redirect points, and the key only to the API."""

import base64
import os

import pytest

from daemon import KEY
from proxies import Proxy, Trap
from standin_client import StandIn
from waiting import wait_until

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def first_lines(proxy):
    return [head.partition("\r\n")[0] for head in proxy.heads]


def headers_of(head):
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)


def failure(daemon):
    """Of a request that does not get through: attempts, and the error's code."""
    daemon.cancel("a")
    item = daemon.wait_item(lambda item: item["last_error"], "a failure", job_id="a")
    return item["attempts"], item["last_error"]["code"]


@pytest.fixture
def https_standin(certificate):
    cert, key = certificate["IP:127.0.0.1"]
    with StandIn(keys=(KEY,), https=(cert, key)) as standin:
        standin.ca_file = cert
        yield standin


def test_requests_go_through_the_proxy(start, standin):
    with Proxy() as proxy:
        daemon = start(api={"proxy": proxy.url})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        assert first_lines(proxy) == [f"POST {standin.url}/cancel/a HTTP/1.1"]
    assert [entry["job"] for entry in standin.log()] == ["a"]


def test_proxy_changes_on_reload(start, standin):
    daemon = start()
    assert daemon.outcome("direct")["outcome"] == "cancelled"
    with Proxy() as one, Proxy() as other:
        for number, proxy in enumerate((one, other)):
            daemon.set(api={"proxy": proxy.url})
            daemon.reload()
            wait_until(lambda: daemon.outcome(f"probe-{number}-{len(standin.log())}") and proxy.heads,
                       "the proxy is used")
            count = len(proxy.heads)
            assert daemon.outcome(f"job-{number}")["outcome"] == "cancelled"
            assert len(proxy.heads) == count + 1
        daemon.set(api={"proxy": ""})
        daemon.reload()

        def direct():
            before = len(other.heads)
            daemon.outcome(f"probe-direct-{len(standin.log())}")
            return len(other.heads) == before
        wait_until(direct, "no proxy is used")
        counts = len(one.heads), len(other.heads)
        assert daemon.outcome("last")["outcome"] == "cancelled"
        assert (len(one.heads), len(other.heads)) == counts


def test_the_proxy_of_the_environment_is_not_used(start, standin, https_standin):
    with Trap() as trap:
        environment = {name: trap.url for name in VARIABLES}
        assert start(environment=environment).outcome("a")["outcome"] == "cancelled"
        daemon = start(base_url=https_standin.url, api={"ca_file": https_standin.ca_file}, environment=environment)
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert trap.knocks() == 0
    assert [entry["job"] for entry in standin.log() + https_standin.log()] == ["a", "b"]


@pytest.mark.parametrize("value", ["*", "127.0.0.1", "127.0.0.0/8,localhost"])
def test_the_environment_does_not_take_the_proxy_away(start, standin, value):
    with Trap() as trap, Proxy() as proxy:
        environment = {name: trap.url for name in VARIABLES}
        daemon = start(api={"proxy": proxy.url}, environment={**environment, "no_proxy": value, "NO_PROXY": value})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        assert first_lines(proxy) == [f"POST {standin.url}/cancel/a HTTP/1.1"]
        assert trap.knocks() == 0


def test_netrc_is_not_read(make_daemon, standin):
    daemon = make_daemon()
    netrc = os.path.join(daemon.home, ".netrc")
    with open(netrc, "w", encoding="ascii") as file:
        file.write("".join(f"machine {host} login user password secret\n" for host in ("127.0.0.1", "localhost")))
        file.write("default login user password secret\n")
    os.chmod(netrc, 0o600)
    daemon.environment.update(HOME=daemon.home, NETRC=netrc)
    for host in ("127.0.0.1", "localhost"):
        daemon.set(api={"base_url": f"http://{host}:{standin.port}"})
        daemon.start()
        assert daemon.outcome(host)["outcome"] == "cancelled"
        daemon.stop()
    assert len(standin.log()) == 2
    assert not [header for entry in standin.log() for header in entry["headers"] if "auth" in header[0].lower()]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(daemon, standin, status):
    with Trap() as trap:
        standin.fault(status=status, redirect=f"{trap.url}/cancel/a")
        result = daemon.outcome("a")
        assert (result["outcome"], result["http_status"], result["attempts"]) == ("rejected", status, 1)
        assert trap.knocks() == 0
    assert len(standin.log()) == 1


def test_a_tunnel(start, https_standin):
    with Proxy() as proxy:
        daemon = start(base_url=https_standin.url, api={"ca_file": https_standin.ca_file, "proxy": proxy.url},
                       dispatch={"max_in_flight": 1})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        assert daemon.outcome("b")["outcome"] == "cancelled"
        assert first_lines(proxy) == [f"CONNECT 127.0.0.1:{https_standin.port} HTTP/1.1"]
        assert set(headers_of(proxy.heads[0])) == {"Host", "User-Agent", "Proxy-Connection"}
        assert KEY not in proxy.heads[0]
    assert [entry["path"] for entry in https_standin.log()] == ["/cancel/a", "/cancel/b"]
    assert ["x-api-key", KEY] in https_standin.log()[0]["headers"]


REFUSALS = {
    407: b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    502: b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "closed": b"",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_proxy_that_does_not_connect_is_no_attempt(start, https_standin, refusal):
    with Proxy(refuse=REFUSALS[refusal]) as proxy:
        daemon = start(base_url=https_standin.url, api={"ca_file": https_standin.ca_file, "proxy": proxy.url},
                       retry={"max_attempts": 1})
        with daemon.client() as client:
            call = client.send_call("cancel", {"job_id": "a", "wait": True})
            wait_until(lambda: len(proxy.heads) >= 3, "it is tried again")
            item = daemon.wait_item(lambda item: item["last_error"], "the failure is known", job_id="a")
            assert (item["attempts"], item["last_error"]["code"]) == (0, "transport")
            proxy.refuse = None
            result = client.result(call)
        assert (result["outcome"], result["attempts"], result["http_status"]) == ("cancelled", 1, 200)
        assert not [head for head in proxy.heads if KEY in head]
    assert len(https_standin.log()) == 1


def test_no_tls_behind_the_proxy_is_no_attempt(start):
    with Proxy(instead=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as proxy:
        daemon = start(base_url="https://127.0.0.1:9", api={"proxy": proxy.url}, retry={"max_attempts": 1})
        assert failure(daemon) == (0, "tls")


def test_user_and_password_of_the_proxy(start, standin):
    with Proxy() as proxy:
        daemon = start(api={"proxy": proxy.url.replace("//", "//us%2Der:p%40ss:w@rd@")})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        expected = "Basic " + base64.b64encode(b"us-er:p@ss:w@rd").decode()
        assert headers_of(proxy.heads[0])["Proxy-Authorization"] == expected
    names = {name.lower() for name, _ in standin.log()[0]["headers"]}
    assert "authorization" not in names


@pytest.mark.parametrize("scheme, host", [("socks5", "127.0.0.1"), ("socks5h", "localhost")])
def test_socks(start, standin, scheme, host):
    with Proxy(socks=True) as proxy:
        daemon = start(base_url=f"http://localhost:{standin.port}",
                       api={"proxy": f"{scheme}://us%2Der:p%40ss@127.0.0.1:{proxy.port}"})
        assert daemon.outcome("a")["outcome"] == "cancelled"
        assert proxy.heads == [("us-er", "p@ss", host, standin.port)]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("user_info", ["user:s3same@", "user:s3same@x@", "user:s3%0Asame@", "s3same@"])
def test_the_password_of_a_proxy_is_in_no_log(start, standin, scheme, user_info):
    with Trap() as trap:
        closed = trap.port
    daemon = start(api={"proxy": f"{scheme}://{user_info}127.0.0.1:{closed}"})
    assert failure(daemon) == (0, "transport")
    assert "same" not in str(daemon.item(job_id="a"))
    daemon.stop()
    assert f"port {closed}" in daemon.stderr() and "same" not in daemon.stderr()
    assert standin.log() == []
