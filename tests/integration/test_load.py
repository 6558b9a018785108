"""Clients in great numbers, and clients that flood, stall or never read: each costs a bounded buffer,
is told or dropped, and slows nobody else.

The figures that are printed (pytest -s) are in tests/README.md. What is held against a limit here is
memory, descriptors and order, never a time.
"""

import json
import os
import re
import resource
import select
import socket
import statistics
import time

import pytest

from daemon import SANITIZERS
from marks import not_under_valgrind
from rpc import Client
from waiting import wait_until

MIB = 1 << 20
PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n'
STATS = b'{"jsonrpc": "2.0", "id": 1, "method": "stats"}\n'
# Held for all clients together: 64 MiB (CONTROL_HELD_MAX); the rest is what the allocator wastes.
GROWTH_MAX = 128 * MIB


def memory(daemon, what="VmRSS"):
    """Resident bytes: now, or at most (VmHWM)."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what + ":"))


def descriptors(daemon):
    try:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    except PermissionError:     # the daemon is not dumpable, so only root may
        pytest.skip("may not look at the daemon's descriptors")


def sanitized(daemon):
    """Sanitizers and valgrind need memory of their own."""
    with open(f"/proc/{daemon.process.pid}/maps", encoding="utf-8", errors="replace") as file:
        return re.search("lib[at]san|valgrind", file.read()) or SANITIZERS.search(daemon.stderr())


def check_growth(daemon, before, limit=GROWTH_MAX):
    growth = memory(daemon, "VmHWM") - before
    assert growth < limit or sanitized(daemon), f"{growth / MIB:.0f} MiB more"
    return growth


def report(text):
    print(f"\n  {text}")


@pytest.fixture(autouse=True)
def many_descriptors():
    """For our own ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("needs 3000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def only_one_left(daemon):
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "all others are gone")


def connect_many(daemon, count):
    clients = []
    for _ in range(count):
        client = Client(daemon.socket)
        clients.append(client)
        daemon.clients.append(client)
    return clients


@not_under_valgrind("it takes too long")
@pytest.mark.parametrize("wait", [False, True], ids=["queued", "wait"])
def test_a_thousand_clients_with_a_hundred_requests_each(daemon, wait):
    before, few = memory(daemon), descriptors(daemon)
    clients = connect_many(daemon, 1000)
    pinger = Client(daemon.socket)
    lines = {client: b"".join(
        json.dumps({"jsonrpc": "2.0", "id": call, "method": "cancel",
                    "params": {"job_id": f"c{number}-{call}", "wait": wait}}).encode() + b"\n" for call in range(100))
        for number, client in enumerate(clients)}
    began = time.monotonic()
    slowest = 0
    for number, client in enumerate(clients):
        client.send(lines[client])
        if number % 100 == 0:
            asked = time.monotonic()
            assert pinger.call("ping")
            slowest = max(slowest, time.monotonic() - asked)
    most = descriptors(daemon)
    for number, client in enumerate(clients):
        answers = {}
        for _ in range(100):
            answer = client.answer()
            answers[answer["id"]] = answer["result"]
        assert {call: result["job_id"] for call, result in answers.items()} == {
            call: f"c{number}-{call}" for call in range(100)}
        assert {result.get("outcome") for result in answers.values()} == {"cancelled" if wait else None}
    took = time.monotonic() - began
    daemon.wait_records(100000, timeout_s=120)
    growth = check_growth(daemon, before)
    assert most <= few + 1001 + 17      # and connections to the API
    report(f"1000 clients, 100 requests each ({'wait' if wait else 'queued'}): {took:.1f} s to the last answer, "
           f"slowest ping {slowest * 1000:.0f} ms, {growth / MIB:.0f} MiB more at most, {most} descriptors")
    for client in clients:
        client.close()
    pinger.close()
    only_one_left(daemon)
    wait_until(lambda: descriptors(daemon) <= few + 17, "the descriptors are closed")


def test_a_byte_a_second(daemon):
    """Lines that come in pieces cost what they are long, and nobody waits for them."""
    before = memory(daemon)
    line = PING[:-1]
    clients = connect_many(daemon, 500)
    for at in range(len(line)):
        for client in clients:
            client.send(line[at:at + 1])
        if at % 10 == 0:
            assert daemon.call("ping")
    assert daemon.outcome("meanwhile")["outcome"] == "cancelled"
    for client in clients:
        client.send(b"\n")
    for client in clients:
        assert client.answer()["result"]["pid"] == daemon.process.pid
    report(f"500 clients, a byte at a time: {check_growth(daemon, before, 16 * MIB) / MIB:.1f} MiB more at most")


def test_lines_that_never_end(daemon):
    """Each client may hold 1 MiB, all together 64 MiB: who holds most is dropped, the others go on."""
    before = memory(daemon)
    calm = daemon.client()
    calm.send(PING[:10])
    clients = connect_many(daemon, 150)
    dropped = 0
    for client in clients:
        try:
            client.send(b" " * (MIB - 10))
        except (BrokenPipeError, ConnectionResetError):
            dropped += 1
    growth = check_growth(daemon, before)
    calm.send(PING[10:])
    assert calm.answer()["result"]
    assert daemon.outcome("a")["outcome"] == "cancelled"
    gone = 150 + 2 - daemon.call("stats")["socket"]["clients"]
    assert 50 <= gone < 150, "some are dropped, not all"
    assert "those that hold most are dropped" in daemon.stderr()
    report(f"150 clients with 1 MiB of a line each: {gone} dropped, {growth / MIB:.0f} MiB more at most")


def stuff(sockets, data, rounds, meanwhile):
    """As much as each of them takes, `rounds` times. Returns how many bytes."""
    total = 0
    for one in sockets:
        one.setblocking(False)
    for _ in range(rounds):
        for one in sockets:
            try:
                total += one.send(data)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                pass
        meanwhile()
    return total


def test_clients_that_never_read(daemon):
    """They are read no further than their answers pile up, and keep their place."""
    before, few = memory(daemon), descriptors(daemon)
    calm = daemon.client()
    rude = connect_many(daemon, 30)
    total = stuff([client.socket for client in rude], STATS * 2000, 100, lambda: calm.call("ping"))
    assert daemon.outcome("a")["outcome"] == "cancelled"
    growth = check_growth(daemon, before)
    assert daemon.call("stats")["socket"]["clients"] == 32, "nobody was dropped"
    # Reading is all that was missing: the answers are all there, whole.
    client = rude[-1]
    client.socket.setblocking(True)
    client.socket.settimeout(15)
    for _ in range(2000):
        assert client.answer()["result"]["pid"] == daemon.process.pid
    report(f"30 clients that never read: {total / MIB:.1f} MiB of calls taken, {growth / MIB:.0f} MiB more at most, "
           f"{descriptors(daemon) - few} descriptors more")


def test_subscribers_that_never_read(daemon):
    """They cost a share of a bounded whole, and are told what they missed; the one that reads misses nothing."""
    before = memory(daemon)
    rude = connect_many(daemon, 300)
    for client in rude:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert client.call("subscribe")
    reader = daemon.client()
    reader.call("subscribe")
    told = 0
    for number in range(20):
        daemon.call("cancel", job_ids=[f"{'x' * 200}-{number}-{one}" for one in range(250)])
        for _ in range(250):
            assert reader.answer()["method"] == "outcome"
            told += 1
    growth = check_growth(daemon, before)
    for client in rude[:20]:
        last, missed = 0, 0
        while last < told:
            message = client.answer()
            if message["method"] == "missed":
                missed += message["params"]["count"]
                last += message["params"]["count"]
            else:
                last += 1
                assert message["params"]["n"] == last
        assert missed > 0
    assert daemon.call("stats")["socket"]["clients"] == 302, "nobody was dropped"
    report(f"300 subscribers that never read, {told} outcomes: {growth / MIB:.0f} MiB more at most")


def test_clients_that_vanish_in_the_middle_of_a_line(daemon, standin):
    few = descriptors(daemon)
    for _ in range(20):
        for client in connect_many(daemon, 100):
            client.send(PING * 3 + b'{"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": {"job_')
            client.close()
    only_one_left(daemon)
    wait_until(lambda: descriptors(daemon) <= few + 1, "the descriptors are closed")
    assert standin.log() == []
    assert daemon.outcome("a")["outcome"] == "cancelled"


def test_a_flood_and_one_who_asks_once(daemon, standin):
    """The one is answered while most of the flood is still to be answered."""
    standin.fault(gate="g", times=None)
    flood = connect_many(daemon, 4)
    calls = 5000
    lines = b"".join(json.dumps({"jsonrpc": "2.0", "id": number, "method": "cancel", "params": {"job_id": "flood"}})
                     .encode() + b"\n" for number in range(calls))
    unsent = {client.socket: lines for client in flood}
    answered = {client.socket: 0 for client in flood}
    for client in flood:
        client.socket.setblocking(False)

    def pump(timeout):
        readable, writable, _ = select.select([client.socket for client in flood],
                                              [one for one, rest in unsent.items() if rest], [], timeout)
        for one in writable:
            try:
                unsent[one] = unsent[one][one.send(unsent[one]):]
            except BlockingIOError:
                pass
        for one in readable:
            answered[one] += one.recv(MIB).count(b"\n")

    calm = daemon.client()
    times, behind = [], []
    while sum(answered.values()) < 4 * calls:
        pump(5)
        if len(times) < 200:
            asked = time.monotonic()
            assert calm.call("ping")
            times.append(time.monotonic() - asked)
            behind.append(4 * calls - daemon.call("stats")["accepted"]["socket"])
    assert behind[0] > 2 * calls, "the first ping was answered long before the flood was"
    report(f"a ping during a flood of {4 * calls} cancels by four clients: median {statistics.median(times) * 1000:.1f} "
           f"ms, slowest {max(times) * 1000:.1f} ms")
    standin.open("g")
    daemon.wait_records(4 * calls, timeout_s=60)


def test_a_flood_of_reads_of_the_database(daemon):
    """Long reads of one client leave their turn to another's."""
    for _ in range(2):
        daemon.call("cancel", job_ids=[f"j{number}" for number in range(10000)])
        wait_until(lambda: not sum(daemon.call("stats")["pending"].values()), "all are done", 60)
    flood = daemon.client()
    for _ in range(200):
        flood.send_call("status", {"job_id": "nobody"})
    calm = daemon.client()
    assert len(calm.call("status", job_id="j5")) == 2
    flood.send_call("ping")
    answered = 0
    flood.socket.setblocking(False)
    try:
        answered = flood.socket.recv(MIB).count(b"\n")
    except BlockingIOError:
        pass
    flood.socket.setblocking(True)
    assert answered < 200, "the flood was not through"
    daemon.wait_records(20000)


def test_max_clients_by_the_thousand(start):
    daemon = start(socket={"max_clients": 200})
    only_one_left(daemon)
    kept = connect_many(daemon, 200)
    for client in kept:
        client.call("ping")
    few = descriptors(daemon)
    for _ in range(1000):
        with Client(daemon.socket) as client:
            assert client.answer()["error"]["code"] == -32005
            assert client.line() is None
    assert descriptors(daemon) <= few
    for client in kept:
        assert client.call("ping")
    assert daemon.stderr().count("socket.max_clients") == 1, "said once, not a thousand times"


def test_when_descriptors_run_out(make_daemon):
    """Clients wait, and are served when there are descriptors again."""
    daemon = make_daemon()
    daemon.start()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (60, 60))
    clients = []
    for _ in range(100):
        client = Client(daemon.socket)
        client.send(PING)
        clients.append(client)
        daemon.clients.append(client)
    assert clients[0].answer()["result"]
    assert daemon.process.poll() is None
    for client in clients[:80]:
        client.close()
    for client in clients[80:]:
        assert client.answer()["result"]["pid"] == daemon.process.pid
    assert daemon.stderr().count("can't accept a client") <= 3
    for client in clients[80:]:
        client.close()
    only_one_left(daemon)
    assert daemon.outcome("a")["outcome"] == "cancelled"
