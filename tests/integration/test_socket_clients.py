"""Clients that are slow, rude, gone, or many."""

import json
import os
import shutil
import socket
import stat
import subprocess

import pytest

from rpc import Client
from waiting import wait_until

MIB = 1 << 20
PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


def resident_bytes(daemon):
    with open(f"/proc/{daemon.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors(daemon):
    try:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    except PermissionError:
        pytest.skip("may not look at the daemon's descriptors")


def test_the_socket_file(start):
    daemon = start(socket={"mode": "0640"})
    info = os.stat(daemon.socket)
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o640
    daemon.stop()
    daemon.set(socket={"mode": None})
    daemon.start()
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660


def test_answers_come_after_a_half_close(daemon, standin):
    standin.fault(gate="g")
    with daemon.client() as client:
        client.send(b"abc123\n")
        call = client.send_call("cancel", {"job_id": "a", "wait": True})
        client.half_close()
        assert client.answer()["job_id"] == "abc123"
        standin.open("g")
        assert client.result(call)["outcome"] == "cancelled"
        assert client.line() is None
    daemon.wait_records(2)


def test_a_last_line_without_newline_is_refused(daemon, standin):
    for text in (b"abc123", b"good-1\nabc", PING, b'{"job_id": "a"}'):
        with daemon.client() as client:
            client.send(text)
            client.half_close()
            answers = []
            while True:
                line = client.line()
                if line is None:
                    break
                answers.append(line)
            assert b'"error"' in answers[-1] and len(answers) == text.count(b"\n") + 1
    assert [record["job_id"] for record in daemon.wait_records(1)] == ["good-1"]
    assert [entry["job"] for entry in standin.log()] == ["good-1"]


@pytest.mark.skipif(not shutil.which("nc"), reason="needs netcat-openbsd")
@pytest.mark.parametrize("text, jobs", [("abc123\n", ["abc123"]), ("a\nb\n", ["a", "b"]),
                                        ('{"job_id": "a", "deadline_s": 60}\n', ["a"])])
def test_from_a_shell(daemon, text, jobs):
    done = subprocess.run(["nc", "-NU", daemon.socket], input=text, capture_output=True, text=True, timeout=20,
                          check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(answer["job_id"], answer["state"]) for answer in answers] == [(job, "queued") for job in jobs]
    daemon.wait_records(len(jobs))


def test_blank_lines_are_ignored(daemon):
    with daemon.client() as client:
        client.send(b"\n\r\n   \n\t\n" + PING + b"\n\n")
        assert client.answer()["result"]["pid"] == daemon.process.pid
        client.half_close()
        assert client.line() is None


def test_a_line_over_one_mib(daemon):
    with daemon.client() as client:
        client.send(b" " * (MIB - 1000) + PING + b"\n")      # long, and yet good
        assert client.answer()["result"]["pid"] == daemon.process.pid
    for filler in (b"x", b" ", b"[", b"\xff"):
        with daemon.client() as client:
            try:
                client.send(filler * (MIB + 4096))
                client.send(b"\n" + PING + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                pass                                        # closed while we were still sending
            assert client.answer()["error"]["code"] == -32600
            assert client.line() is None
    assert daemon.call("ping")


def test_pieces(daemon):
    with daemon.client() as client:
        for byte in PING + b"\nabc\n":
            client.send(bytes([byte]))
        assert client.answer()["result"]["pid"] == daemon.process.pid
        assert client.answer()["job_id"] == "abc"


def test_pipelined_answers_keep_their_order(daemon):
    with daemon.client() as client:
        calls = []
        for number in range(500):
            calls.append(client.send_call("cancel", {"job_id": f"j{number}"}))
        for number, call in enumerate(calls):
            assert client.result(call)["job_id"] == f"j{number}"
    daemon.wait_records(500)


def test_a_client_that_vanishes(daemon, standin):
    standin.fault(gate="g", times=None)
    for number in range(50):
        client = Client(daemon.socket)
        client.send_call("cancel", {"job_id": f"j{number}", "wait": True})
        client.send(b"abc" if number % 2 else PING + b"\n")
        client.close()
    wait_until(lambda: daemon.call("stats")["accepted"]["socket"] == 50, "all 50 are accepted")
    standin.open("g")
    daemon.wait_records(50)
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "only we are left")


def test_a_client_that_never_reads_slows_nobody(daemon):
    calm = Client(daemon.socket)
    calm.call("ping")
    before = resident_bytes(daemon)
    rude = [Client(daemon.socket) for _ in range(4)]
    line = b'{"jsonrpc": "2.0", "id": 1, "method": "stats"}\n' * 1000
    for client in rude:
        client.socket.setblocking(False)
    for _ in range(300):
        for client in rude:
            try:
                client.socket.send(line)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                pass
        calm.call("ping")
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert resident_bytes(daemon) - before < 96 * MIB
    for client in rude:
        client.close()
    calm.close()


def test_a_flood_of_garbage(daemon):
    with daemon.client() as client:
        client.socket.setblocking(False)
        for _ in range(200):
            try:
                client.socket.send(b"\xff\x00[{\n" * 5000)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                pass
        assert daemon.call("ping")
    assert daemon.outcome("a")["outcome"] == "cancelled"


def test_too_many_clients(start):
    daemon = start(socket={"max_clients": 3})
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "the first client is gone")
    kept = [Client(daemon.socket) for _ in range(3)]
    for client in kept:
        client.call("ping")
    with Client(daemon.socket) as client:
        error = client.answer()["error"]
        assert error["code"] == -32005 and error["message"].startswith("too_many_clients") and error["data"]
        assert client.line() is None
    for client in kept:
        assert client.call("ping")
    kept.pop().close()

    def fits():
        with Client(daemon.socket) as client:
            try:
                return client.call("ping")
            except (AssertionError, BrokenPipeError, ConnectionResetError, KeyError):
                return None
    wait_until(fits, "there is room again")
    for client in kept:
        client.close()


def test_many_clients_at_once(daemon):
    clients = [Client(daemon.socket) for _ in range(300)]
    calls = [client.send_call("cancel", {"job_id": f"j{number}", "wait": True})
             for number, client in enumerate(clients)]
    for number, client in enumerate(clients):
        assert client.result(calls[number])["job_id"] == f"j{number}"
        client.close()
    daemon.wait_records(300)


def test_a_datagram_of_descriptors_is_harmless(daemon):
    """File descriptors sent along are not kept."""
    count = open_descriptors(daemon)
    with daemon.client() as client:
        reader, writer = os.pipe()
        socket.send_fds(client.socket, [PING + b"\n"], [reader, writer])
        os.close(reader)
        os.close(writer)
        assert client.answer()["result"]["pid"] == daemon.process.pid
    wait_until(lambda: open_descriptors(daemon) <= count, "nothing is left open")


def test_descriptors_do_not_leak(make_daemon, standin):
    daemon = make_daemon(dispatch={"max_in_flight": 2})     # connections are kept, as many as there were at once
    daemon.start()
    daemon.outcome("warm")
    daemon.drop("warm-2", b"")
    daemon.wait_records(2)
    wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 1, "only we are there")
    count = open_descriptors(daemon)
    for number in range(30):
        standin.fault(reset="before")
        daemon.outcome(f"j{number}")
        daemon.drop(f"f{number}", b"a\nb\n")
        daemon.drop(f"z{number}", b"\0")
    daemon.wait_records(92)
    wait_until(lambda: len(os.listdir(daemon.rejected)) == 60, "all are rejected")
    wait_until(lambda: open_descriptors(daemon) <= count + 1, "nothing is left open")


def test_shutdown_closes_clients(start):
    daemon = start()
    with Client(daemon.socket) as client:
        client.call("ping")
        daemon.stop()
        assert client.line() is None
