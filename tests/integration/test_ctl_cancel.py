"""pulse-cancelctl cancel: outcomes, streams of any size, interruptions, a daemon that restarts."""

import json
import os
import select
import signal
import subprocess

import pytest

import ctl
from results import check_record, parse_time
from rpc import Client
from waiting import LIMIT_S, holds_for, wait_until

# What the program has under way at most: WINDOW_WAITING of src/ctl/cancel.c.
WINDOW = 8192


def pending(daemon):
    return sum(daemon.call("stats")["pending"].values())


def processor_s(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def readable(file):
    return bool(select.select([file], [], [], 0)[0])


def by_job(daemon):
    """{job: outcomes} of the results log."""
    outcomes = {}
    for record in daemon.records():
        outcomes.setdefault(record["job_id"], []).append(record["outcome"])
    return outcomes


def write_lines(tmp_path, lines, name="jobs"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


# -- outcomes -----------------------------------------------------------------------------------


def test_one_job(daemon):
    assert ctl.good(daemon.socket, "cancel", "a") == "cancelled     a\n"


def test_some_not_cancelled(daemon, standin):
    standin.fault(job="b", status=404, message="No such job")
    standin.fault(job="c", status=500)
    done = ctl.run(daemon.socket, "cancel", "a", "b", "c")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    # As they end; the summary comes last.
    assert sorted(" ".join(line.split()) for line in lines[:3]) \
        == ["cancelled a", "cancelled c 2 attempts", "not_found b No such job"]
    assert lines[3].startswith("2 cancelled, 1 not_found (")
    assert ctl.run(daemon.socket, "cancel", "b").returncode == 0


def test_json(daemon, standin):
    standin.fault(job="b", status=404)
    done = ctl.run(daemon.socket, "--json", "cancel", "a", "b")
    assert (done.returncode, done.stderr) == (1, "")
    records = ctl.documents(done.stdout)
    assert {check_record(record)["job_id"]: record["outcome"] for record in records} \
        == {"a": "cancelled", "b": "not_found"}
    assert sorted(records, key=lambda record: record["n"]) == daemon.wait_records(2)


def test_no_wait(daemon):
    daemon.call("hold")
    text = ctl.good(daemon.socket, "cancel", "--no-wait", "a", "--request-id", "r")
    assert text == f"{'queued':12}  {'a':28}  r\n"
    assert "2 queued, 1 of them with another request for the same job (" \
        in ctl.good(daemon.socket, "cancel", "-n", "a", "b")
    document, = ctl.documents(ctl.good(daemon.socket, "--json", "cancel", "--no-wait", "c", "-r", "s"))
    assert document == {"request_id": "s", "job_id": "c", "state": "queued", "coalesced": False}
    # Asked for before: as status shows it.
    assert "waiting" not in ctl.good(daemon.socket, "cancel", "--no-wait", "c", "-r", "s")
    assert pending(daemon) == 4
    daemon.call("release")
    daemon.wait_records(4)
    assert ctl.good(daemon.socket, "cancel", "--no-wait", "c", "-r", "s").startswith("cancelled ")


def test_deadline(daemon):
    daemon.call("hold")
    ctl.good(daemon.socket, "cancel", "--no-wait", "--deadline", "77", "a")
    ctl.good(daemon.socket, "cancel", "--no-wait", "-d", "77", "-", stdin='b\n{"job_id":"c","deadline_s":9}\n')
    left = {}
    for job in "abc":
        item = daemon.item(job_id=job)
        left[job] = round(parse_time(item["deadline_at"]) - parse_time(item["accepted_at"]))
    assert left == {"a": 77, "b": 77, "c": 9}
    daemon.call("release")


def test_why_nothing_comes(daemon):
    """Whoever waits is told once what keeps it from ending."""
    daemon.call("hold")
    process = ctl.begin(daemon.socket, "cancel", "a")
    told = process.stderr.readline()
    assert told == "pulse-cancelctl: still waiting: Held by the operator: nothing is sent. " \
        "'pulse-cancelctl release' resumes.\n"
    daemon.call("release")
    assert ctl.ended(process) == (0, "cancelled     a\n", "")


def test_a_source_that_is_silent(daemon):
    """Nothing is missing then, and waiting for a line takes no time of the processor."""
    process = ctl.begin(daemon.socket, "--json", "cancel", "-", stdin=subprocess.PIPE)
    process.stdin.write("a\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["outcome"] == "cancelled"
    before_s = processor_s(process.pid)
    # Longer than it waits before it asks what is wrong.
    holds_for(7, lambda: processor_s(process.pid) < before_s + 0.1 and not readable(process.stderr), "it is calm")
    assert ctl.ended(process)[::2] == (0, "")


# -- request IDs --------------------------------------------------------------------------------


def test_request_ids_of_arguments(daemon):
    ctl.good(daemon.socket, "cancel", "--request-id", "one", "a")
    ctl.good(daemon.socket, "cancel", "--request-id", "two", "a", "b")
    ctl.good(daemon.socket, "cancel", "c")
    records = daemon.wait_records(4)
    assert [record["request_id"] for record in records[:1]] == ["one"]
    assert {record["job_id"]: record["request_id"] for record in records[1:3]} == {"a": "two.1", "b": "two.2"}


def test_request_ids_of_lines(daemon):
    lines = '# jobs\na\n\n{"job_id": "b", "request_id": "mine"}\nc\n'
    ctl.good(daemon.socket, "cancel", "-", "--request-id", "p", stdin=lines)
    assert {record["job_id"]: record["request_id"] for record in daemon.wait_records(3)} \
        == {"a": "p.2", "b": "mine", "c": "p.5"}


def test_a_repeated_request_is_none(daemon, standin):
    standin.fault(job="a", status=404)
    for _ in range(2):
        done = ctl.run(daemon.socket, "cancel", "--request-id", "r", "a")
        assert done.returncode == 1 and done.stdout.startswith("not_found     a ")
    assert len(daemon.wait_records(1)) == 1


def test_a_request_id_of_another_job(daemon, tmp_path):
    ctl.good(daemon.socket, "cancel", "--request-id", "r", "a")
    done = ctl.run(daemon.socket, "cancel", "--request-id", "r", "b")
    assert done.returncode == 4 and "params: " in done.stderr and "--help" in done.stderr
    # Of a file it is one line that is bad; the others go on.
    path = write_lines(tmp_path, ["c", '{"job_id": "b", "request_id": "r"}', "d"])
    done = ctl.run(daemon.socket, "cancel", "--file", path)
    assert done.returncode == 1 and "line 2: b: params: " in done.stderr
    assert "2 cancelled, 1 bad line" in done.stdout


# -- lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["-"], ["--file", "-"], ["-f"]])
def test_lines_as_in_a_spool_file(arguments, daemon, tmp_path):
    text = b'\xef\xbb\xbfa\r\n  b  \n\n# c\n\t\n{"job_id": "d"}\n{"job": "e"}\nf g\n"h"\n{"job_id":}\n' \
        b'{"job_id":"i","deadline_s":1.5}\n' + b"x" * 30000 + b"\n\x00\nlast"
    path = tmp_path / "jobs"
    path.write_bytes(text)
    if arguments == ["-f"]:
        arguments = ["-f", str(path)]
    with open(path, "rb") as file:
        done = subprocess.run(ctl.command(daemon.socket, "cancel", *arguments), stdin=file, capture_output=True,
                              env=ctl.environment(), text=True, check=False)
    assert done.returncode == 1
    assert set(by_job(daemon)) == {"a", "b", "d", "last"}
    complaints = [line.split(": ", 1)[1] for line in done.stderr.splitlines()]
    assert [line.partition(": ")[::2] for line in complaints] == [
        ("line 7", "unknown member 'job'"),
        ("line 8", "not a job ID"),
        ("line 9", "not an object"),
        ("line 10", "bad JSON at byte 11: unexpected character"),
        ("line 11", "deadline_s is not an integer from 1 to 2592000"),
        ("line 12", "longer than 16384 bytes"),
        ("line 13", "not a job ID"),
    ]
    assert "4 cancelled, 7 bad lines" in done.stdout and "cancelled     a" not in done.stdout


def test_only_bad_lines_are_told_of_a_file(daemon, standin, tmp_path):
    standin.fault(job="b", status=403)
    done = ctl.run(daemon.socket, "cancel", "-f", write_lines(tmp_path, "abc"))
    assert done.returncode == 1 and [line.split()[1] for line in done.stdout.splitlines()] == ["b", "cancelled,"]


def test_an_empty_file(daemon, tmp_path):
    assert ctl.good(daemon.socket, "cancel", "-f", write_lines(tmp_path, ["# nothing"])).startswith("Nothing to do")


def test_a_pipe_that_stays_open(daemon):
    """Each line is sent when it comes, and answered when it is done."""
    process = ctl.begin(daemon.socket, "--json", "cancel", "-", stdin=subprocess.PIPE)
    for job in ("a", "b"):
        process.stdin.write(job + "\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], LIMIT_S)[0], "nothing comes"
        record, = ctl.documents(process.stdout.readline())
        assert (record["job_id"], record["outcome"]) == (job, "cancelled")
    assert ctl.ended(process) == (0, "", "")


# -- streams ------------------------------------------------------------------------------------


def peak_kib(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


@pytest.mark.skipif(bool(os.environ.get("PULSE_SANITIZE")), reason="sanitizers keep memory of their own")
def test_a_stream_is_not_held_in_memory(daemon):
    """200,000 lines of 200 bytes are 40 MB; the process is held open, so that its peak can be read."""
    count = 200_000
    daemon.call("hold")
    process = ctl.begin(daemon.socket, "cancel", "--no-wait", "-", stdin=subprocess.PIPE)
    for i in range(0, count, 1000):
        process.stdin.write("".join(f"{i + k}-{'x' * 190}\n" for k in range(1000)))
    process.stdin.flush()
    wait_until(lambda: daemon.call("stats")["accepted"]["socket"] == count, "all are queued", timeout_s=120)
    peak = peak_kib(process)
    status, out, _ = ctl.ended(process)
    assert status == 0 and "200,000 queued" in out
    assert peak < 16 * 1024
    daemon.kill()       # to send them all would take long
    daemon.start()


def test_waiting_is_bounded_too(daemon, tmp_path):
    count = WINDOW + 2000
    daemon.call("hold")
    process = ctl.begin(daemon.socket, "cancel", "-f", write_lines(tmp_path, (f"j{i}" for i in range(count))))
    wait_until(lambda: pending(daemon) == WINDOW, "the window is full")
    holds_for(0.3, lambda: pending(daemon) == WINDOW, "nothing more is sent")
    daemon.call("release")
    status, out, err = ctl.ended(process)
    assert status == 0 and f"{count:,} cancelled" in out
    # It may be told why it takes so long.
    assert all("still waiting" in line for line in err.splitlines()), err
    assert len(daemon.wait_records(count)) == count


# -- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_repeated(number, daemon, tmp_path):
    jobs = [f"j{i}" for i in range(3000)]
    path = write_lines(tmp_path, jobs)
    daemon.call("hold")
    process = ctl.begin(daemon.socket, "cancel", "-f", path, "--request-id", "night")
    wait_until(lambda: pending(daemon) == 3000, "all are queued")
    process.send_signal(number)
    status, _, err = ctl.ended(process)
    assert status == 128 + number
    assert "3,000 requests were sent and not answered yet: the daemon goes on" in err
    assert "pulse-cancelctl list" in err and "'--request-id night'" in err
    daemon.call("release")
    # Repeated, while the first ones are on their way.
    assert "3,000 cancelled" in ctl.good(daemon.socket, "cancel", "-f", path, "--request-id", "night")
    assert by_job(daemon) == {job: ["cancelled"] for job in jobs}


def test_interrupted_in_the_middle_of_a_submission(daemon, tmp_path):
    """It dies at any point (SIGKILL); the same command doubles nothing."""
    jobs = [f"j{i}" for i in range(20000)]
    path = write_lines(tmp_path, jobs)
    daemon.call("hold")
    for stop_at in (1, 5000, 12000):
        process = ctl.begin(daemon.socket, "cancel", "--no-wait", "-f", path, "-r", "p")
        wait_until(lambda least=stop_at: pending(daemon) >= least, "some are queued")
        process.kill()
        ctl.ended(process)
    assert pending(daemon) <= 20000
    out = ctl.good(daemon.socket, "cancel", "--no-wait", "-f", path, "-r", "p")
    assert "known already" in out
    assert daemon.call("stats")["accepted"]["socket"] == pending(daemon) == 20000
    daemon.kill()
    daemon.start()


def test_one_job_interrupted(daemon):
    daemon.call("hold")
    process = ctl.begin(daemon.socket, "cancel", "a")
    wait_until(lambda: pending(daemon) == 1, "it is queued")
    process.send_signal(signal.SIGINT)
    status, out, err = ctl.ended(process)
    assert (status, out) == (130, "")
    assert "1 request was sent" in err and "pulse-cancelctl status a" in err
    request_id = daemon.item(job_id="a")["request_id"]
    assert f"pulse-cancelctl cancel --request-id {request_id} a" in err
    daemon.call("release")
    assert ctl.good(daemon.socket, "cancel", "--request-id", request_id, "a") == "cancelled     a\n"
    assert len(daemon.wait_records(1)) == 1


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_daemon_restarts_meanwhile(how, daemon, standin, tmp_path):
    jobs = [f"j{i}" for i in range(12000)]
    standin.fault(regex="^j(7000|11999)$", status=404, times=None)
    process = ctl.begin(daemon.socket, "cancel", "-f", write_lines(tmp_path, jobs))
    for done in (100, 4000):
        wait_until(lambda least=done: daemon.call("stats")["results"]["cancelled"] >= least, "it is under way")
        getattr(daemon, how)()
        daemon.start()
    status, out, err = ctl.ended(process)
    assert status == 1 and "11,998 cancelled, 2 not_found (" in out, err
    assert by_job(daemon) == {job: ["not_found" if job in ("j7000", "j11999") else "cancelled"] for job in jobs}


def test_decided_while_nobody_was_connected(daemon, standin):
    """The outcome falls between two connections: the repeated request is answered with it."""
    standin.fault(job="a", gate="g", status=403)
    process = ctl.begin(daemon.socket, "cancel", "a", "b")
    wait_until(lambda: standin.log(job="a"), "it is in flight")
    daemon.kill()
    standin.open("g")
    # Away from where it is looked for, the daemon comes to an end with both.
    elsewhere = daemon.socket + "2"
    daemon.set(socket={"path": elsewhere})
    daemon.spawn()

    def settled():
        try:
            with Client(elsewhere) as client:
                return sum(client.call("stats")["pending"].values()) == 0
        except (FileNotFoundError, ConnectionError):
            return False
    wait_until(settled, "both are decided")
    daemon.stop()
    daemon.set(socket={"path": daemon.socket})
    daemon.start()
    status, out, err = ctl.ended(process)
    assert status == (1 if "forbidden" in out else 0), err
    assert "the daemon is back" in err
    outcomes = by_job(daemon)
    assert sorted(line.split()[1] for line in out.splitlines()[:2]) == ["a", "b"]
    assert all(line.split()[0] == outcomes[line.split()[1]][0] for line in out.splitlines()[:2])
    assert {job: len(found) for job, found in outcomes.items()} == {"a": 1, "b": 1}


def test_the_daemon_does_not_come_back(daemon, tmp_path):
    daemon.call("hold")
    path = write_lines(tmp_path, "abc")
    process = ctl.begin(daemon.socket, "cancel", "-f", path, "-r", "p", "--reconnect", "0")
    wait_until(lambda: pending(daemon) == 3, "all are queued")
    daemon.kill()
    status, _, err = ctl.ended(process)
    assert status == 3
    assert "systemctl start pulse-canceld" in err and "'--request-id p'" in err
    daemon.start()
    daemon.call("release")
    assert "3 cancelled" in ctl.good(daemon.socket, "cancel", "-f", path, "-r", "p")
    assert len(daemon.wait_records(3)) == 3


def test_the_queue_is_full(start, tmp_path):
    daemon = start(queue={"max_pending": 50})
    daemon.call("hold")
    jobs = [f"j{i}" for i in range(5000)]
    path = write_lines(tmp_path, jobs)
    done = ctl.run(daemon.socket, "cancel", "--no-wait", "-f", path, "-r", "p")
    assert done.returncode == 4
    assert done.stderr.count("queue_full") == 1 and "queue.max_pending" in done.stderr
    assert "'--request-id p'" in done.stderr and "50 queued, " in done.stdout
    assert pending(daemon) == 50
    done = ctl.run(daemon.socket, "--json", "cancel", "zz")
    assert done.returncode == 4 and ctl.documents(done.stdout)[0]["error"]["code"] == -32001
    daemon.set(queue={"max_pending": 1000000})
    daemon.call("reload")
    daemon.call("release")
    assert "5,000 cancelled" in ctl.good(daemon.socket, "cancel", "-f", path, "-r", "p")
    assert by_job(daemon) == {job: ["cancelled"] for job in jobs}
