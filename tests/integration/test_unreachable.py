"""Nobody answers: connections that a firewall drops, handshakes, name servers. libcurl closes such a connection at
its timeout without a word (curl pull request 11439): its descriptor must not be watched any more."""

import contextlib
import os
import socket
import subprocess

import pytest

from nginx import Authority, Nginx, need_tools
from rpc import Client
from standin_client import StandIn
from waiting import wait_until

JOBS = [f"j{number}" for number in range(10)]
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


OWN_FILES = ["hosts", "resolv.conf", "nsswitch.conf"]


def with_own_files(directory, *command):
    """A command that sees the directory's files in /etc."""
    mounts = "".join(f"mount --bind {directory}/{name} /etc/{name} && " for name in OWN_FILES)
    return ["unshare", "--mount", "sh", "-c", mounts + 'exec "$@"', "sh", *command]


class Named:
    """A daemon for whom pulse.test has `addresses`, in the order of getaddrinfo(). The server at the last one answers;
    so far, those at the others take connections and leave them."""

    def __init__(self, stack, make_daemon, directory, addresses, jobs=JOBS, **api):
        authority = Authority(directory)
        servers = {"pulse": (authority.issue("pulse", "DNS:pulse.test"), authority.key, "")}
        self.directory, self.addresses, self.jobs = directory, addresses, jobs
        self.port = stack.enter_context(Nginx(directory, servers, addresses[-1])).port("pulse")
        self.silence = stack.enter_context(contextlib.ExitStack())
        for address in addresses[:-1]:
            self.silence.enter_context(deaf(address, self.port))
        self.write("hosts", self.hosts())
        self.write("resolv.conf", "")
        self.write("nsswitch.conf", "hosts: files dns\n")
        self.daemon = make_daemon(base_url=f"https://pulse.test:{self.port}", api={"ca_file": authority.file, **api},
                                  retry=RETRY, dispatch={"max_in_flight": len(jobs)})

    def hosts(self):
        return "".join(f"{address} pulse.test\n" for address in self.addresses)

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="ascii") as file:
            file.write(text)

    def start(self):
        self.daemon.start(command=with_own_files(self.directory, self.daemon.binary, "-c", self.daemon.config))
        self.daemon.call("cancel", job_ids=self.jobs)

    def is_reached(self):
        """Each with its first request: the others were not sent."""
        records = self.daemon.wait_records(len(self.jobs))
        assert {(record["outcome"], record["attempts"]) for record in records} == {("cancelled", 1)}
        serves_clients(self.daemon)
        self.daemon.stop()


@pytest.fixture
def named(make_daemon, tmp_path):
    need_tools()
    if os.geteuid() != 0:
        pytest.skip("needs root, to have a hosts file of its own")
    for name in OWN_FILES:
        (tmp_path / name).touch()
    tried = subprocess.run(with_own_files(tmp_path, "true"), capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"can't have a hosts file of its own here: {tried.stderr.strip()}")
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: Named(stack, make_daemon, str(tmp_path), *args, **kwargs)


def test_an_address_that_does_not_answer(named):
    """Half of connect_timeout_ms is for the first of two (libcurl goes on by itself from 8.4 on: curl issue 11920)."""
    pulse = named(["127.0.0.3", "127.0.0.2"], timeout_ms=60000, connect_timeout_ms=3000)
    pulse.start()
    pulse.is_reached()


def test_an_address_that_refuses_after_a_while(named):
    """When no timer of libcurl's would have it look again before connect_timeout_ms is over."""
    pulse = named(["127.0.0.3", "127.0.0.2"], timeout_ms=60000, connect_timeout_ms=60000)
    pulse.start()
    wait_until(lambda: pulse.daemon.call("stats")["pending"]["in_flight"] == len(JOBS), "they are under way")
    pulse.silence.close()
    pulse.is_reached()


def test_an_address_of_the_other_family(named):
    """IPv4 is tried after 200 ms, and the connection that is still being made is dropped; with many, its descriptor
    is another one's before libcurl says that it is not to be watched any more."""
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")
    pulse = named(["::1", "127.0.0.1"], [f"j{number}" for number in range(60)], timeout_ms=60000, connect_timeout_ms=60000)
    pulse.start()
    pulse.is_reached()


def test_names_that_are_not_resolved(named):
    """The resolver waits for its servers, ten seconds and more; libcurl, at its timeout, does not wait for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
        try:
            nameserver.bind(("127.9.9.9", 53))
        except OSError:
            pytest.skip("a name server of this machine is on all addresses")
        pulse = named(["127.0.0.1"], connect_timeout_ms=200)
        pulse.write("hosts", "")
        pulse.write("resolv.conf", "nameserver 127.9.9.9\n")
        pulse.start()
        wait_until(lambda: attempts(pulse.daemon) > 2 * len(JOBS), "they time out")
        serves_clients(pulse.daemon)
        pulse.write("hosts", pulse.hosts())
        pulse.daemon.set(api={"connect_timeout_ms": 10000})
        pulse.daemon.call("reload")
        pulse.is_reached()
