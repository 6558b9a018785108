"""Nobody answers: connections that a firewall drops, handshakes, name servers. libcurl closes such a connection at
its timeout without a word (curl issue 11439): its descriptor must not be watched any more."""

import contextlib
import os
import socket

import pytest

from nginx import Authority, Nginx, need_tools
from rpc import Client
from standin_client import StandIn
from waiting import wait_until

JOBS = [f"j{number}" for number in range(10)]
MANY = [f"j{number}" for number in range(60)]
# The time that a connection has is over first, or that of the whole request.
TIMES = pytest.mark.parametrize("api", [{"timeout_ms": 1000, "connect_timeout_ms": 100},
                                        {"timeout_ms": 100, "connect_timeout_ms": 1000}],
                                ids=["connect_timeout_ms", "timeout_ms"])
RETRY = {"max_attempts": 1000, "base_delay_ms": 1, "max_delay_ms": 10}


@contextlib.contextmanager
def deaf(host="127.0.0.1", port=0, backlog=0):
    """The port of a server that accepts nobody. Without a backlog, no connection is made either."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = stack.enter_context(socket.socket(family))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(backlog)
        for _ in range(0 if backlog else 3):    # one has its place, another may slip in
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            client.connect_ex((host, server.getsockname()[1]))
        yield server.getsockname()[1]


def attempts(daemon):
    return daemon.call("stats")["replies"].get("transport", 0)


def serves_clients(daemon):
    """Descriptors that were closed are used again."""
    clients = [Client(daemon.socket) for _ in range(2 * len(JOBS))]
    daemon.clients += clients
    for client in clients:
        assert client.call("ping")["pid"] == daemon.process.pid
    assert "error: " not in daemon.stderr()


def is_used_as_ever(daemon):
    wait_until(lambda: attempts(daemon) > 3 * len(JOBS), "they time out")
    serves_clients(daemon)
    daemon.drop("file", b"k1\nk2\n")
    wait_until(lambda: daemon.call("stats")["spool"]["files"] == 1, "the file is taken")
    assert len(daemon.call("list")["requests"]) == len(JOBS) + 2


@TIMES
def test_connections_that_are_not_answered(make_daemon, api):
    with deaf() as port:
        daemon = make_daemon(base_url=f"http://127.0.0.1:{port}", api=api, retry=RETRY)
        daemon.start()
        daemon.call("cancel", job_ids=JOBS)
        is_used_as_ever(daemon)
    with StandIn(port=port):
        daemon.call("flush")
        assert {record["outcome"] for record in daemon.wait_records(len(JOBS) + 2)} == {"cancelled"}


@TIMES
@pytest.mark.parametrize("proxy", [False, True], ids=["TLS", "proxy"])
def test_handshakes_that_are_not_answered(make_daemon, api, proxy):
    with deaf(backlog=1000) as port:
        if proxy:
            api = {**api, "proxy": f"http://127.0.0.1:{port}"}
        daemon = make_daemon(base_url=f"https://127.0.0.1:{port}", api=api, retry=RETRY)
        daemon.start()
        daemon.call("cancel", job_ids=JOBS)
        is_used_as_ever(daemon)


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def with_files(daemon, **files):
    """A command that has it see other files in /etc."""
    mounts = ""
    for name, text in files.items():
        with open(os.path.join(daemon.home, name), "w", encoding="ascii") as file:
            file.write(text)
        mounts += f"mount --bind {file.name} /etc/{name.replace('_', '.')} && "
    return ["unshare", "--mount", "sh", "-c", mounts + 'exec "$@"', "sh", daemon.binary, "-c", daemon.config]


@pytest.fixture
def start_with_hosts(make_daemon, tmp_path):
    """start([address, …], **api): with the addresses of pulse.test, as getaddrinfo() orders them, and many jobs. The
    last one is of a server that answers; the first one of two takes connections and leaves them, so far."""
    need_tools()
    authority = Authority(str(tmp_path))
    servers = {"pulse": (authority.issue("pulse", "DNS:pulse.test"), authority.key, "")}
    with contextlib.ExitStack() as stack:

        def start(addresses, resolv_conf="", known=True, **api):
            port = stack.enter_context(Nginx(str(tmp_path), servers, addresses[-1])).port("pulse")
            silence = stack.enter_context(contextlib.ExitStack())
            for address in addresses[:-1]:
                silence.enter_context(deaf(address, port))
            daemon = make_daemon(base_url=f"https://pulse.test:{port}", api={"ca_file": authority.file, **api}, retry=RETRY,
                                 dispatch={"max_in_flight": len(MANY)})
            hosts = "".join(f"{address} pulse.test\n" for address in addresses) if known else ""
            daemon.start(command=with_files(daemon, hosts=hosts, resolv_conf=resolv_conf, nsswitch_conf="hosts: files dns\n"))
            daemon.call("cancel", job_ids=MANY)
            return daemon, silence

        yield start


def is_reached_at_once(daemon):
    records = daemon.wait_records(len(MANY))
    assert {(record["outcome"], record["attempts"]) for record in records} == {("cancelled", 1)}
    serves_clients(daemon)
    daemon.stop()


own_hosts = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a hosts file of its own")


@own_hosts
def test_an_address_that_does_not_answer(start_with_hosts):
    """Half of connect_timeout_ms is for the first of two (libcurl goes on by itself from 8.4 on: curl issue 11920)."""
    daemon, _ = start_with_hosts(["127.0.0.3", "127.0.0.2"], timeout_ms=60000, connect_timeout_ms=1000)
    is_reached_at_once(daemon)


@own_hosts
def test_an_address_that_refuses_after_a_while(start_with_hosts):
    """The connection to the next one has the same descriptor, and is made within the same call of libcurl's."""
    daemon, silence = start_with_hosts(["127.0.0.3", "127.0.0.2"], timeout_ms=60000, connect_timeout_ms=60000)
    wait_until(lambda: daemon.call("stats")["pending"]["in_flight"] == len(MANY), "they are under way")
    silence.close()
    is_reached_at_once(daemon)


@own_hosts
def test_an_address_of_the_other_family(start_with_hosts):
    """IPv4 is tried after 200 ms, and the connection that is still being made is dropped; with many, its descriptor
    is another one's before libcurl says that it is not to be watched any more."""
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")
    daemon, _ = start_with_hosts(["::1", "127.0.0.1"], timeout_ms=60000, connect_timeout_ms=60000)
    is_reached_at_once(daemon)


@own_hosts
def test_names_that_are_not_resolved(start_with_hosts):
    """The resolver waits for its servers, ten seconds and more; libcurl, at its timeout, does not wait for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
        try:
            nameserver.bind(("127.9.9.9", 53))
        except OSError:
            pytest.skip("a name server of this machine is on all addresses")
        daemon, _ = start_with_hosts(["127.0.0.1"], "nameserver 127.9.9.9\n", False, connect_timeout_ms=200)
        wait_until(lambda: attempts(daemon) > 2 * len(MANY), "they time out")
        serves_clients(daemon)
        with open(os.path.join(daemon.home, "hosts"), "w", encoding="ascii") as file:
            file.write("127.0.0.1 pulse.test\n")
        is_reached_at_once(daemon)
