"""The API key is in the request's header, in the key file and in the daemon's memory, and nowhere else."""

import contextlib
import ctypes
import errno
import json
import os
import resource
import shutil
import signal
import subprocess

import pytest

import ctl
from daemon import Raw, clean_environment, end_with_the_tests
from marks import not_under_valgrind
from rpc import RpcError
from storage import Manager
from users import NOBODY, as_user, become, need_root
from waiting import wait_until

# With all that JSON, configuration files and shells treat in a way of their own.
SECRET = 'pk-live_"S3cret"\\/%41+=~\'#$;'
CREDENTIAL_KEY = "the-service-managers-S3cret-copy"


def forms(key):
    """The key as it is, and as it looks in JSON."""
    return {key.encode(), json.dumps(key)[1:-1].encode(), json.dumps(key)[1:-1].replace("/", "\\/").encode()}


def key_of(entry):
    return next(value for name, value in entry["headers"] if name.lower() == "x-api-key")


def files_below(directory):
    for path, _, names in os.walk(directory):
        for name in names:
            full = os.path.join(path, name)
            if os.path.isfile(full) and not os.path.islink(full):
                yield full


def holders(daemon, key, besides=()):
    """Files below the daemon's home that have the key."""
    found = []
    for path in files_below(daemon.home):
        with open(path, "rb") as file:
            data = file.read()
        if path not in besides and any(form in data for form in forms(key)):
            found.append(path)
    return found


def of_process(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def make_server_repeat(standin, key):
    """Each of these jobs' replies has the key in another place."""
    echo = {"headers": {"Deprecation": key, "Sunset": f"{key} {key}", "X-Echo": key, "Set-Cookie": f"k={key}"}}
    faults = {
        "message": {"status": 400, "message": f"the key {key} is fine"},
        "code": {"status": 400, "code": key},
        "long": {"status": 400, "message": "x" * 4090 + key},
        "not-ours": {"job_id": key, "times": None},
        "page": {"status": 404, "envelope": False, "body": f"<html>{key}</html>"},
        "garbled": {"body": f"not JSON {key}", "times": None},
        "told": {"body": {"job_id": "told", "message": f"cancelled with {key}"}},
        "away": {"status": 302, "redirect": f"http://127.0.0.1:9/{key}"},
        "no-http": {"raw": f"{key}\r\n\r\n", "times": None},
        "odd-status": {"raw": f"HTTP/1.1 {key} {key}\r\n\r\n", "times": None},
        "odd-header": {"raw": f"HTTP/1.1 200 OK\r\n{key}\r\nContent-Length: {key}\r\n\r\n", "times": None},
        "later": {"status": 429, "headers": {"Retry-After": key}},
        "cut": {"raw": f"HTTP/1.1 400 {key}\r\nX: {key}", "times": None},
    }
    for job, fault in faults.items():
        fault.setdefault("headers", {} if "raw" in fault else echo["headers"])
        standin.fault(job=job, **{name: value for name, value in fault.items() if value != {}})
    standin.put_job("status", "processing")
    standin.fault(job="status", status=500, times=2)
    standin.fault(job="status", on="get", job_status=f"{key} is running", times=None)
    return sorted([*faults, "status", "plain"])


def everything_the_client_says(daemon, jobs):
    said = []
    for arguments in (["stats"], ["list"], ["--json", "list"], ["metrics"], ["status", *jobs], ["ping"], ["reload"],
                      ["results", "-f", daemon.results], ["results", "--json", "-f", daemon.results]):
        done = ctl.run(daemon.socket, *arguments)
        said.append(done.stdout + done.stderr)
    assert any("plain" in text for text in said), said
    return said


@pytest.mark.parametrize("way", ["key file", "credential"])
def test_it_is_nowhere(make_daemon, standin, way):
    key = SECRET if way == "key file" else CREDENTIAL_KEY
    daemon = make_daemon(key=SECRET, retry={"max_attempts": 3}, api={"verify": "ambiguous"})
    if way == "credential":
        credentials = os.path.join(daemon.home, "credentials")
        os.mkdir(credentials)
        kept_in = os.path.join(credentials, "api-key")
        with open(kept_in, "w", encoding="ascii") as file:
            file.write(key + "\n")
        daemon.environment["CREDENTIALS_DIRECTORY"] = credentials
    else:
        kept_in = daemon.key_file
    standin.settings(keys=[key])
    jobs = make_server_repeat(standin, key)
    with contextlib.closing(Manager(daemon.home)) as manager, contextlib.ExitStack() as stack:
        daemon.environment["NOTIFY_SOCKET"] = manager.path
        daemon.start()
        pid = daemon.process.pid
        watcher = stack.enter_context(contextlib.closing(daemon.client()))
        watcher.call("subscribe")
        daemon.drop("list", "".join(f"{job}\n" for job in jobs if job != "plain") + "a bad line\n")
        daemon.drop("zeros", b"\0")
        daemon.outcome("plain")
        records = daemon.wait_records(len(jobs) + 1)
        assert {key_of(entry) for entry in standin.log()} == {key}
        answers = [json.dumps(records), json.dumps([watcher.answer() for _ in records])]
        for method in ("stats", "ping", "list"):
            answers.append(json.dumps(daemon.call(method)))
        with pytest.raises(RpcError) as error:
            daemon.call("cancel", job_id="no job", key="x")
        answers.append(str(error.value.error))
        answers += everything_the_client_says(daemon, jobs)
        answers.append(manager.status())
        assert not [text for text in answers if any(form in text.encode() for form in forms(key))]
        if os.geteuid() == 0:
            for name in ("cmdline", "environ"):
                assert key.encode() not in of_process(pid, name), name
        assert "Deprecation" in daemon.stderr() or "deprecat" in daemon.stderr()
        # While it runs (database, WAL and its index, lock, log, rejected/), and after it.
        besides = {kept_in, daemon.key_file}
        assert holders(daemon, key, besides) == []
        daemon.stop()
    assert holders(daemon, key, besides) == []
    assert holders(daemon, key) == [kept_in]
    if way == "credential":
        assert holders(daemon, SECRET) == [daemon.key_file]


def test_neither_the_old_nor_the_new_one_after_a_reload(daemon, standin):
    """The answer to a request that was sent with the old one comes after the change."""
    old, new = daemon.key, "the-new-S3cret"
    standin.settings(keys=[old, new])
    standin.fault(job="early", status=400, message=f"with {old}", gate="g")
    standin.fault(job="late", status=400, message=f"with {new}")
    daemon.cancel("early")
    wait_until(lambda: standin.counts()["waiting"].get("g"), "it is under way")
    daemon.write_key(new)
    daemon.call("reload")
    daemon.outcome("late")
    standin.open("g")
    records = {record["job_id"]: record["message"] for record in daemon.wait_records(2)}
    assert records == {"early": "with " + "*" * len(old), "late": "with " + "*" * len(new)}
    assert [key_of(entry) for entry in standin.log()] == [old, new]
    daemon.key = new
    assert holders(daemon, new) == [daemon.key_file] and holders(daemon, old) == []


SPOILT = {
    "as a setting": {"api": {"api_key": SECRET}},
    "as a group": {"key": {SECRET.encode().hex(): SECRET}},
    "instead of the file's name": {"api": {"key_file": SECRET}},
    "as user info": {"api": {"base_url": f"https://user:{CREDENTIAL_KEY}@127.0.0.1/"}},
    "as a query": {"api": {"base_url": f"https://127.0.0.1/?key={CREDENTIAL_KEY}"}},
    "as a bad proxy's password": {"api": {"proxy": f"http://user:{CREDENTIAL_KEY}@127.0.0.1/path"}},
    "as a bad proxy's user": {"api": {"proxy": f"{CREDENTIAL_KEY}@:0"}},
    "as an endpoint": {"api": {"endpoint": SECRET}},
    "as a number": {"api": {"timeout_ms": SECRET}},
    "not closed": {"api": {"key_file": Raw('"' + CREDENTIAL_KEY)}},
    "not quoted": {"api": {"key_file": Raw(CREDENTIAL_KEY)}},
    "included": {"api": {"x": Raw(f'1;\n@include "{CREDENTIAL_KEY}"\ny = 1')}},
}


@pytest.mark.parametrize("settings", SPOILT.values(), ids=SPOILT)
def test_not_in_what_is_said_about_a_bad_configuration(make_daemon, settings):
    """The text names the place, and not what is there."""
    daemon = make_daemon()
    daemon.start()
    daemon.set(**settings)
    with pytest.raises(RpcError) as error:
        daemon.call("reload")
    assert error.value.code == -32006
    daemon.stop()
    for arguments in ([], ["-t"]):
        daemon.spawn([daemon.binary, "-c", daemon.config, *arguments])
        assert daemon.wait() == 78
    said = daemon.stderr() + str(error.value.error)
    assert daemon.config in said
    assert "S3cret" not in said
    daemon.key = SECRET


BAD_KEYS = {
    "two lines": (f"{CREDENTIAL_KEY}\n{CREDENTIAL_KEY}\n", 0o600), "a blank in it": (f"{CREDENTIAL_KEY} x\n", 0o600),
    "not ASCII": (f"{CREDENTIAL_KEY}\xe9\n", 0o600), "for everyone": (f"{CREDENTIAL_KEY}\n", 0o644),
    "a control character": (f"{CREDENTIAL_KEY}\x1b\n", 0o600), "too long": (CREDENTIAL_KEY * 200, 0o600),
    "a group's to write": (f"{CREDENTIAL_KEY}\n", 0o660),
}


@pytest.mark.parametrize("text, mode", BAD_KEYS.values(), ids=BAD_KEYS)
def test_not_in_what_is_said_about_a_bad_key(daemon, text, mode):
    with open(daemon.key_file, "w", encoding="latin-1") as file:
        file.write(text)
    os.chmod(daemon.key_file, mode)
    with pytest.raises(RpcError) as error:
        daemon.call("reload")
    daemon.stop()
    daemon.spawn()
    assert daemon.wait() == 78
    said = daemon.stderr() + str(error.value.error)
    assert daemon.key_file in said and "S3cret" not in said


# -- other processes, and core files --------------------------------------------------------------

def with_core_files():
    """In the child: no limit to them."""
    end_with_the_tests(core_limit=resource.RLIM_INFINITY)


@not_under_valgrind("valgrind leaves a core file of its own")
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT, signal.SIGBUS])
def test_no_core_file(make_daemon, number):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("core files have a limit here that can't be lifted")
    daemon = make_daemon()
    directory = os.path.join(daemon.home, "core")
    os.mkdir(directory)
    daemon.start(preexec_fn=with_core_files, cwd=directory)
    if b"Max core file size        unlimited" not in of_process(daemon.process.pid, "limits"):
        assert os.environ.get("PULSE_SANITIZE"), "the daemon has a limit of its own"
        pytest.skip("a sanitizer sets the limit to nothing")
    daemon.outcome("a")
    daemon.signal(number)
    assert daemon.wait() != 0
    assert os.listdir(directory) == []

    # It is no merit of this machine: another program leaves one.
    with subprocess.Popen(["sleep", "60"], preexec_fn=with_core_files, cwd=directory) as other:
        wait_until(lambda: of_process(other.pid, "comm") == b"sleep\n", "it runs")
        other.send_signal(number)
    if not os.listdir(directory):
        with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
            pytest.skip(f"no program leaves a core file here (core_pattern is {file.read().strip()!r})")


def error_of(function):
    try:
        function()
    except OSError as error:
        return error.errno
    return None


def trace_attach(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, None, None) != 0:       # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, None, None)


def test_a_process_of_the_same_user_sees_nothing(make_daemon):
    need_root()
    daemon = make_daemon(user=NOBODY)
    daemon.start()
    other = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: become(NOBODY))
    try:
        def look(pid):
            found = {name: error_of(lambda: of_process(pid, name)) for name in ("environ", "maps", "auxv", "syscall")}
            found["mem"] = error_of(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)))
            found["exe"] = error_of(lambda: os.readlink(f"/proc/{pid}/exe"))
            found["fd"] = error_of(lambda: os.listdir(f"/proc/{pid}/fd"))
            found["ptrace"] = error_of(lambda: trace_attach(pid))
            return found
        wait_until(lambda: of_process(other.pid, "comm") == b"sleep\n", "it runs")
        theirs, ours = (as_user(NOBODY, NOBODY, [], lambda: look(pid)) for pid in (other.pid, daemon.process.pid))
        assert set(ours.values()) <= {errno.EACCES, errno.EPERM}, ours
        assert not theirs["environ"] and not theirs["maps"], theirs     # so it is the daemon's doing
        # What everyone may see has no key.
        for name in ("cmdline", "comm", "status", "stat"):
            assert daemon.key.encode() not in as_user(NOBODY, NOBODY, [], lambda: of_process(daemon.process.pid, name))
    finally:
        other.kill()
        other.wait()


def test_gcore_of_the_same_user_gets_nothing(make_daemon):
    need_root()
    if not shutil.which("gcore"):
        pytest.skip("gcore is not installed")
    daemon = make_daemon(user=NOBODY)
    daemon.start()
    directory = os.path.join(daemon.home, "core")
    os.mkdir(directory)
    os.chown(directory, NOBODY, NOBODY)
    os.chmod(daemon.home, 0o755)
    done = subprocess.run(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "gcore", "-o",
                           os.path.join(directory, "core"), str(daemon.process.pid)], capture_output=True, check=False,
                          stdin=subprocess.DEVNULL, env={**clean_environment(), "HOME": directory})
    assert done.returncode != 0 and not [name for name in os.listdir(directory) if name.startswith("core")]


def test_the_client_has_no_key(daemon):
    """Nothing that could be in its arguments or its environment: it is not told."""
    daemon.cancel("a")
    with subprocess.Popen(ctl.command(daemon.socket, "watch"), env=ctl.environment(), stdout=subprocess.DEVNULL) as client:
        wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 2, "it watches")
        for name in ("cmdline", "environ"):
            assert daemon.key.encode() not in of_process(client.pid, name)
        client.kill()
