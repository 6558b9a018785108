"""Storage that gets into trouble: small disks that fill up or become read-only, system calls that
fail while a daemon runs, and the reckoning afterwards."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from rpc import RpcError
from waiting import wait_until

# What changes a file that is open. (Not openat: a daemon that can't even open its database for
# writing has no other way to tell it than one that can't write.)
WRITES = "write,pwrite64,ftruncate,fallocate,fsync,fdatasync"
NAMES = "renameat,renameat2,linkat,unlinkat,mkdirat,fsync,fdatasync"


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount small disks and to let system calls of the daemon fail")


class Disk:
    """A small tmpfs. `back` is a second way in, which stays writable when `path` is read-only."""

    def __init__(self, path, size_kib, back=None):
        self.path, self.back = path, back
        self.mounts = []
        self.mount(back or path, "-t", "tmpfs", "-o", f"size={size_kib}k", "pulse-test")
        if back:
            self.mount(path, "--bind", back)

    def mount(self, path, *options):
        os.makedirs(path, exist_ok=True)
        made = run("mount", *options, path)
        if made.returncode != 0:
            self.unmount()
            pytest.skip(f"can't mount a tmpfs here: {made.stdout.strip()}")
        self.mounts.append(path)

    def fill(self):
        """To the last page, whatever others free while it fills."""
        with open(os.path.join(self.back or self.path, ".filler"), "ab", buffering=0) as file:
            while shutil.disk_usage(self.path).free:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * 4096)

    def empty(self):
        os.unlink(os.path.join(self.back or self.path, ".filler"))

    def remount(self, how):
        done = run("mount", "-o", f"remount,bind,{how}" if self.back else f"remount,{how}", self.path)
        assert done.returncode == 0, done.stdout

    def unmount(self):
        for path in reversed(self.mounts):
            if run("umount", path).returncode != 0:
                run("umount", "-l", path)
        self.mounts = []


class Fault:
    """System calls of a running daemon on some files fail, or take `slow_ms`, until the end of the `with`."""

    def __init__(self, daemon, paths, error=None, calls=WRITES, when=None, slow_ms=None):
        self.pid = daemon.process.pid
        self.trace = os.path.join(daemon.home, "trace")
        what = f"error={error}" if error else f"delay_enter={slow_ms}ms"
        inject = f"inject={calls}:{what}" + (f":when={when}" if when else "")
        self.command = ["strace", "-f", "-qq", "-y", "-o", self.trace, "-p", str(self.pid), "-e",
                        "trace=openat,close,pwrite64," + calls, "-e", inject]
        for path in paths:
            self.command += ["-P", path]
        self.process = None

    def __enter__(self):
        with open(self.trace + ".err", "wb") as err:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        wait_until(self.attached, "strace has all threads")
        return self

    def attached(self):
        if self.process.poll() is not None:
            with open(self.trace + ".err", encoding="utf-8") as err:
                pytest.skip(f"strace can't attach: {err.read().strip()}")
        return all(tracer == self.process.pid for tracer in self.tracers())

    def tracers(self):
        tasks = f"/proc/{self.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/status", encoding="ascii") as file:
                yield next(int(line.split()[1]) for line in file if line.startswith("TracerPid:"))

    def calls(self):
        """One line a system call, as strace writes them."""
        with open(self.trace, encoding="latin-1") as file:
            return [line.split(maxsplit=1)[1] for line in file]

    def struck(self):
        """How many calls have failed so far."""
        return sum("(INJECTED)" in call for call in self.calls())

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)     # it lets go of everyone
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def files_of(daemon, where):
    """What a fault at `where` concerns."""
    return {"database": [daemon.database + suffix for suffix in ("", "-wal", "-shm", "-journal")],
            "results": [daemon.results],
            "spool": [daemon.spool, daemon.claimed, daemon.rejected]}[where]


class Manager:
    """The service manager's end of $NOTIFY_SOCKET."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.last = ""

    def status(self):
        """The last STATUS= there was."""
        with contextlib.suppress(BlockingIOError):
            while True:
                for line in self.socket.recv(1 << 16).decode("utf-8").split("\n"):
                    if line.startswith("STATUS="):
                        self.last = line.removeprefix("STATUS=")
        return self.last

    def close(self):
        self.socket.close()


class Traffic:
    """Requests with request_ids of their own: which were acknowledged, and which refused."""

    def __init__(self, daemon, prefix="t"):
        self.daemon, self.prefix = daemon, prefix
        self.made = 0
        self.acknowledged, self.refused = {}, {}
        self.dropped = []       # names of files that were dropped, each of them a job

    def one(self):
        """True when it was acknowledged."""
        self.made += 1
        job, request_id = f"{self.prefix}{self.made}", f"r-{self.prefix}{self.made}"
        return self.send(job, request_id)

    def send(self, job, request_id):
        try:
            answer = self.daemon.cancel(job, request_id=request_id)
        except RpcError as error:
            check_refusal(error)
            self.refused[request_id] = job
            return False
        assert (answer["request_id"], answer["job_id"]) == (request_id, job)
        self.acknowledged[request_id] = job
        self.refused.pop(request_id, None)
        return True

    def until_refused(self, most=3000):
        for _ in range(most):
            if not self.one():
                return
        raise AssertionError(f"{most} requests, and none was refused")

    def repeat(self):
        """All that was refused, once more: none is now."""
        for request_id, job in list(self.refused.items()):
            assert self.send(job, request_id), f"{request_id} is refused again"

    def drop(self, count=1):
        for _ in range(count):
            self.made += 1
            name = f"{self.prefix}{self.made}"
            self.dropped.append(name)
            hidden = os.path.join(self.daemon.spool, f".{name}")
            with open(hidden, "wb"):
                pass
            os.rename(hidden, os.path.join(self.daemon.spool, name))

    def check(self):
        """One line for each that was acknowledged or dropped, and for nobody else, but perhaps for
        one that was refused."""
        count = len(self.acknowledged) + len(self.dropped)
        wait_until(lambda: settled(self.daemon), lambda: f"nothing is pending: {self.daemon.call('stats')}", 30)
        wait_until(lambda: len(self.daemon.records()) >= count, lambda: f"{count} results", 30)
        records = {record["request_id"]: record for record in self.daemon.records()}
        for request_id, job in self.acknowledged.items():
            assert records.pop(request_id)["job_id"] == job
        spooled = {one["request_id"]: one["job_id"] for one in records.values() if one["source"] == "spool"}
        assert sorted(spooled.values()) == sorted(self.dropped)
        others = set(records) - set(spooled)
        assert others <= set(self.refused), f"asked for by nobody: {others}"


def check_refusal(error, parts=("database", "results log")):
    """The message names the part that is in trouble, and the advice the setting of either."""
    assert error.code == -32002, error.error
    assert re.match(rf"storage_unavailable: (the )?({'|'.join(parts)})\b", error.message), error.error
    assert "queue.database" in error.data and "results.path" in error.data, error.error


def settled(daemon):
    return not sum(daemon.call("stats")["pending"].values())


def trouble(daemon):
    """What `stats` says is wrong, or None."""
    storage = daemon.call("stats")["storage"]
    return None if storage == "ok" else storage
