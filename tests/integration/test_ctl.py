"""pulse-cancelctl: each command, its exit status, and what it says when something is wrong."""

import os
import re
import select
import socket
import subprocess

import pytest

import ctl
from daemon import Raw
from marks import not_under_valgrind
from results import MEMBERS, check_record
from rpc import Client
from waiting import wait_until

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


# -- usage --------------------------------------------------------------------------------------


def test_help_and_version():
    general = ctl.good("/nowhere", "--help")
    for name in ctl.CALLS:
        assert re.search(rf"^  {name} ", general, re.MULTILINE), name
        text = ctl.good("/nowhere", name, "--help")
        assert text.startswith(f"Usage: pulse-cancelctl {name} [OPTION]")
        assert text.splitlines()[1:] != [] and max(len(line) for line in text.splitlines()) <= 80
    assert re.fullmatch(r"pulse-cancelctl \d+\.\d+\.\d+\n", ctl.good("/nowhere", "--version"))


@pytest.mark.parametrize("arguments,complaint", [
    ([], "which command?"),
    (["nothing"], "no command 'nothing'"),
    (["--frobnicate", "ping"], "unrecognized option"),
    (["ping", "--frobnicate"], "unrecognized option"),
    (["ping", "now"], "unexpected argument 'now'"),
    (["cancel"], "which jobs?"),
    (["cancel", "a", "--file", "x"], "not both"),
    (["cancel", "a b"], "'a b' is not a job ID"),
    (["cancel", "a", ".."], "'..' is not a job ID"),
    (["cancel", "--deadline", "0", "a"], "--deadline takes an integer from 1 to 2592000, not '0'"),
    (["cancel", "--deadline", "1x", "a"], "not '1x'"),
    (["cancel", "--request-id", "a b", "a"], "--request-id takes"),
    (["cancel", "--request-id", "r" * 120, "a", "b"], "--request-id takes 1 to 108 bytes"),
    (["cancel", "--file", "/nowhere/x"], "can't read /nowhere/x: No such file"),
    (["cancel", "--file", "/"], "can't read /: Is a directory"),
    (["status"], "which requests?"),
    (["status", "a", "--request-id", "b"], "too much at once"),
    (["status", "a/b"], "'a/b' is not a job ID"),
    (["status", "--request-id", "~"], "'~' is not a request ID"),
    (["retry", "--outcome", "sunk"], "no outcome 'sunk'"),
    (["list", "--state", "sunk"], "no state 'sunk'"),
    (["list", "--outcome", "sunk"], "no outcome 'sunk'"),
    (["list", "--limit", "0"], "--limit takes an integer"),
    (["results", "--outcome", "failed,sunk"], "no outcome 'sunk'"),
    (["results", "--since", "soon"], "--since takes a time"),
    (["results", "--lines", "0"], "--lines takes an integer"),
    (["top"], "top needs a terminal"),
])
def test_wrong_usage(arguments, complaint, daemon):
    done = ctl.run(daemon.socket, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr and "Try 'pulse-cancelctl" in done.stderr
    assert done.stdout == ""
    assert daemon.call("stats")["accepted"]["socket"] == 0


def test_options_before_and_after_the_command(daemon):
    for arguments in (["--json", "ping"], ["ping", "--json"], ["-j", "ping"]):
        assert ctl.documents(ctl.good(daemon.socket, *arguments)) == [daemon.call("ping")]
    assert "answers" in ctl.good("/nowhere", "ping", "--socket", daemon.socket)


def test_a_job_that_looks_like_an_option(daemon):
    assert "cancelled     -x\n" in ctl.good(daemon.socket, "cancel", "--", "-x")


# -- not reachable ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ctl.CALLS)
def test_unreachable(name, tmp_path):
    done = ctl.run(str(tmp_path / "s"), *ctl.CALLS[name])
    assert done.returncode == 3
    assert "systemctl start pulse-canceld" in done.stderr and str(tmp_path) in done.stderr
    assert "pulse_canceld_up 0" in done.stdout if name == "metrics" else done.stdout == ""


def test_a_socket_without_daemon(daemon):
    daemon.kill()
    done = ctl.run(daemon.socket, "ping")
    assert done.returncode == 3 and "Connection refused" in done.stderr and "systemctl start" in done.stderr


def test_a_path_too_long_for_a_socket():
    done = ctl.run("/" + "x" * 120, "ping")
    assert done.returncode == 2 and "too long" in done.stderr


def test_the_connection_ends_without_an_answer(tmp_path):
    path = str(tmp_path / "s")
    with ctl.Server(path, {"ping": [None]}):
        done = ctl.run(path, "ping")
    assert done.returncode == 3 and "ended the connection" in done.stderr and "journalctl" in done.stderr


@root_only
def test_no_permission_names_the_group(daemon):
    os.chmod(daemon.home, 0o755)
    os.chown(daemon.socket, 0, 1)       # the group daemon
    os.chmod(daemon.socket, 0o660)
    done = subprocess.run([ctl.copy_for_others(daemon.home), "--socket", daemon.socket, "ping"], user=NOBODY,
                          group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 3
    assert "no permission" in done.stderr and "usermod -aG daemon USER" in done.stderr


# -- refused ------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("name", ["hold", "release", "flush", "retry", "withdraw", "reload"])
def test_refused_for_lack_of_permission(name, make_daemon):
    daemon = make_daemon(socket={"mode": "0666"})
    os.chmod(daemon.home, 0o755)
    daemon.start()
    program = ctl.copy_for_others(daemon.home)
    for json in ([], ["--json"]):
        done = subprocess.run([program, "--socket", daemon.socket, *json, *ctl.CALLS[name]], user=NOBODY,
                              group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 4
        assert "permission_denied" in done.stderr and "socket.admin_group" in done.stderr
        if json:
            document, = ctl.documents(done.stdout)
            assert document["error"]["code"] == -32003
        else:
            assert done.stdout == ""


def test_a_daemon_that_is_older(tmp_path):
    path = str(tmp_path / "s")
    error = '{"jsonrpc":"2.0","error":{"code":-32601,"message":"method not found"},"id":{id}}'
    with ctl.Server(path, {"flush": [error]}):
        done = ctl.run(path, "flush")
    assert done.returncode == 4 and "method not found" in done.stderr and "systemctl restart" in done.stderr


def test_too_many_clients(make_daemon):
    daemon = make_daemon(socket={"max_clients": 2})
    daemon.start()
    with Client(daemon.socket) as first, Client(daemon.socket) as second:
        assert first.call("ping") and second.call("ping")
        for arguments in (["ping"], ["cancel", "a"]):
            done = ctl.run(daemon.socket, *arguments)
            assert done.returncode == 4
            assert "too_many_clients" in done.stderr and "socket.max_clients" in done.stderr


# -- the commands -------------------------------------------------------------------------------


def test_ping(daemon):
    assert ctl.good(daemon.socket, "ping") == f"pulse-canceld 0.1.0 answers, pid {daemon.process.pid}\n"


def test_status(daemon, standin):
    standin.fault(job="a", status=404, message="No\u001b[31m such\njob")
    daemon.outcome("a", request_id="first")
    daemon.outcome("a", request_id="second")
    daemon.outcome("b")
    text = ctl.good(daemon.socket, "status", "a")
    assert [line.split()[:3] for line in text.splitlines()] \
        == [["JOB", "STATE", "TRIES"], ["a", "cancelled", "1"], ["a", "not_found", "1"]]
    assert "No?[31m such?job" in text, "what a server says does not drive the terminal"
    assert "first" in ctl.good(daemon.socket, "status", "--request-id", "first")
    assert "second" not in ctl.good(daemon.socket, "status", "-r", "first")
    assert ctl.documents(ctl.good(daemon.socket, "--json", "status", "a", "b")) \
        == [daemon.call("status", job_id="a"), daemon.call("status", job_id="b")]


def test_status_of_nothing(daemon):
    done = ctl.run(daemon.socket, "status", "a")
    assert (done.returncode, done.stdout) == (0, "")
    assert "a: no request for it is known" in done.stderr and "pulse-cancelctl results" in done.stderr
    assert ctl.good(daemon.socket, "--json", "status", "a") == "[]\n"


def test_status_shows_what_is_pending(daemon, standin):
    standin.fault(gate="g")
    daemon.cancel("a")
    wait_until(lambda: standin.log(), "it is in flight")
    assert re.search(r"^a +in_flight +0 ", ctl.good(daemon.socket, "status", "a"), re.MULTILINE)
    standin.open("g")


def test_list(daemon, standin):
    assert ctl.good(daemon.socket, "list") == "No such requests.\n"
    standin.fault(job="j7", status=404)
    daemon.call("cancel", job_ids=[f"j{i}" for i in range(1, 1203)], wait=True)
    assert ctl.good(daemon.socket, "list", "--outcome", "not_found").splitlines()[1].startswith("j7 ")
    done = ctl.run(daemon.socket, "list")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 101
    after = re.search(r"--after (\S+)", done.stderr)[1]
    assert ctl.run(daemon.socket, "list", "--after", after).stdout.splitlines()[1].startswith("j101 ")
    # Pages of the daemon have at most 1,000; --limit goes beyond.
    text = ctl.good(daemon.socket, "list", "--limit", "5000", "--state", "done")
    jobs = [line.split()[0] for line in text.splitlines() if not line.startswith("JOB ")]
    assert jobs == [f"j{i}" for i in range(1, 1203)]
    pages = ctl.documents(ctl.good(daemon.socket, "--json", "list", "--limit", "1100"))
    assert [len(page["requests"]) for page in pages] == [1000, 100] and pages[1]["next"]


def test_stats(daemon, standin):
    standin.fault(job="a", status=403)
    daemon.outcome("a")
    daemon.outcome("b")
    text = ctl.good(daemon.socket, "stats")
    assert re.search(r"^Results +cancelled 1, forbidden 1$", text, re.MULTILINE)
    assert re.search(r"^Replies +200 1, 403 1$", text, re.MULTILINE)
    assert re.search(r"^Accepted +spool 0, socket 2, nats 0$", text, re.MULTILINE)
    assert "Attention" not in text
    document, = ctl.documents(ctl.good(daemon.socket, "stats", "--json"))
    assert list(document) == list(daemon.call("stats")) and document["results"]["forbidden"] == 1


def test_hold_and_release(daemon):
    assert ctl.good(daemon.socket, "hold").startswith("Held:")
    assert daemon.call("stats")["held"] == "operator"
    assert "'pulse-cancelctl release' resumes" in ctl.good(daemon.socket, "stats")
    assert ctl.good(daemon.socket, "--json", "release") == '{"held":false}\n'
    assert daemon.call("stats")["held"] is None
    assert ctl.good(daemon.socket, "--json", "hold") == '{"held":true}\n'
    assert ctl.good(daemon.socket, "release").startswith("Released:")


def test_flush(start, standin):
    daemon = start(retry={"base_delay_ms": 600000, "max_delay_ms": 600000})
    standin.fault(job="a", status=500)
    daemon.cancel("a")
    wait_until(lambda: daemon.call("stats")["pending"]["waiting"] == 1, "it waits")
    assert ctl.good(daemon.socket, "flush") == "1 waiting retry is due now.\n"
    daemon.wait_records(1)
    assert ctl.good(daemon.socket, "flush", "--json") == '{"flushed":0}\n'


def test_retry(daemon, standin):
    jobs = [f"j{i}" for i in range(1100)]
    standin.fault(status=404, times=len(jobs))
    daemon.call("cancel", job_ids=jobs, wait=True)
    assert ctl.good(daemon.socket, "retry", "j0", "j1") == "2 queued anew.\n"
    # The daemon takes 1,000 at a time.
    assert ctl.good(daemon.socket, "retry", "--outcome", "not_found") == "1,098 queued anew.\n"
    records = daemon.wait_records(2 * len(jobs))
    assert [record["outcome"] for record in records[len(jobs):]] == ["cancelled"] * len(jobs)
    done = ctl.run(daemon.socket, "retry", "j0")
    assert done.returncode == 0 and done.stdout == "0 queued anew.\n"
    assert "nothing to retry" in done.stderr and "status" in done.stderr
    assert ctl.documents(ctl.good(daemon.socket, "--json", "retry", "j0")) == [{"requests": [], "more": False}]


def test_withdraw(daemon):
    daemon.call("hold")
    for job in ("a", "a", "b"):
        daemon.cancel(job)
    daemon.cancel("c", request_id="r")
    assert ctl.good(daemon.socket, "withdraw", "a", "b") == "3 withdrawn.\n"
    assert ctl.good(daemon.socket, "--json", "withdraw", "--request-id", "r") == '{"withdrawn":1}\n'
    done = ctl.run(daemon.socket, "withdraw", "a")
    assert (done.returncode, done.stdout) == (0, "0 withdrawn.\n") and "nothing to withdraw" in done.stderr
    assert {record["outcome"] for record in daemon.wait_records(4)} == {"withdrawn"}


@not_under_valgrind("there is no pidfd_open()")
@pytest.mark.parametrize("dead_before", [True, False])
def test_reload_ends_with_the_service(tmp_path, dead_before):
    """systemd keeps the socket, and starts nothing before its ExecReload= has ended."""
    service = subprocess.Popen(["sleep", "1000"])
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        if dead_before:
            service.kill()
            service.wait()
        process = ctl.begin(path, "reload", MAINPID=str(service.pid))
        with listener.accept()[0] as client:
            assert client.recv(1) == (b"" if dead_before else b"{")
            service.kill()
            service.wait()
            assert ctl.ended(process, timeout_s=20)[0] == 3


def test_reload(daemon):
    assert ctl.good(daemon.socket, "reload") == "The configuration is read anew, and the key unless systemd passed it at the start.\n"
    daemon.set(socket={"max_clients": 7}, queue={"database": daemon.database + "2"})
    text = ctl.good(daemon.socket, "reload")
    assert "after a restart: " in text and "queue.database" in text and "systemctl restart" in text
    assert set(ctl.documents(ctl.good(daemon.socket, "reload", "--json"))[0]["restart_needed"]) \
        == {"socket.max_clients", "queue.database"}
    daemon.set(retry={"max_attempts": 0})
    done = ctl.run(daemon.socket, "reload")
    assert done.returncode == 4
    assert f"{daemon.config}:{daemon.line_of('retry', 'max_attempts')}: retry.max_attempts" in done.stderr
    assert "old configuration stays in force" in " ".join(done.stderr.split())
    daemon.set(retry={"max_attempts": Raw("5")}, socket={"max_clients": None}, queue={"database": daemon.database})


# -- watch --------------------------------------------------------------------------------------


def until_it_watches(daemon, process):
    """It says nothing when it has begun: jobs until it shows one."""
    while not select.select([process.stdout], [], [], 0.05)[0]:
        daemon.outcome("a")


@pytest.mark.parametrize("json", [True, False])
def test_watch(json, daemon, standin):
    standin.fault(job="b", status=403, message="Not yours")
    process = ctl.begin(daemon.socket, "watch", *(["--json"] if json else []))
    try:
        until_it_watches(daemon, process)
        daemon.outcome("b")
        outcome = None
        while outcome is None or "Not yours" not in outcome:
            outcome = process.stdout.readline()
    finally:
        process.terminate()
    status, _, err = ctl.ended(process)
    assert (status, err) == (128 + 15, "")
    if json:
        record, = ctl.documents(outcome)
        assert list(record) == MEMBERS and check_record(record)["job_id"] == "b"
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  forbidden     b +Not yours\n", outcome)


def test_watch_says_what_it_missed(tmp_path):
    path = str(tmp_path / "s")
    missed = '{"jsonrpc":"2.0","method":"missed","params":{"count":1234}}'
    with ctl.Server(path, {"subscribe": ['{"jsonrpc":"2.0","result":{"subscribed":true},"id":{id}}', missed, None]}):
        done = ctl.run(path, "watch")
        assert done.returncode == 3 and done.stdout == ""
        assert "missed 1,234 outcomes" in done.stderr and "pulse-cancelctl results" in done.stderr
        assert "ended the connection" in done.stderr
        done = ctl.run(path, "--json", "watch")
    assert done.stdout == '{"missed":{"count":1234}}\n' and "missed 1,234" in done.stderr


def test_watch_ends_with_the_daemon(daemon):
    process = ctl.begin(daemon.socket, "watch")
    until_it_watches(daemon, process)
    daemon.stop()
    status, _, err = ctl.ended(process)
    assert status == 3 and "systemctl status pulse-canceld" in err


# -- standard output ----------------------------------------------------------------------------


def test_a_full_disk_below_standard_output_is_an_error(daemon):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(ctl.command(daemon.socket, "stats"), stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False)
    assert done.returncode == 1 and "can't write to standard output" in done.stderr
