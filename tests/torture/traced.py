"""A daemon under strace, killed at the Nth system call of a kind; and what strace wrote."""

import atexit
import codecs
import functools
import json
import os
import pwd
import re
import shutil
import signal
import tempfile
from dataclasses import dataclass

from daemon import Daemon, binary_path
from rpc import Client
from waiting import wait_until

# What changes something that outlives the process or is seen by another one. Of openat only the
# calls that may make a file count.
STATE_CHANGING = ["write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "rename", "renameat", "renameat2",
                  "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
                  "ftruncate", "fallocate", "sendto", "sendmsg", "sendmmsg", "openat", "bind", "chmod", "fchmod",
                  "fchmodat", "exit_group"]


class Ended(Exception):
    """The daemon is gone, as it should be some time."""


class Caller(Client):
    """Ended when no answer comes any more."""

    def answer(self):
        line = self.line()
        if line is None:
            raise Ended()
        return json.loads(line)


@dataclass(frozen=True, order=True)
class Point:
    """Killed when a thread is about to make this system call for the Nth time; `@log`: on a results
    log, which is the writer thread's, while the main thread writes to sockets."""
    call: str
    number: int
    on_log: bool = False

    def __str__(self):
        return f"{self.call}{'@log' if self.on_log else ''}:{self.number}"

    @classmethod
    def parse(cls, text):
        found = re.fullmatch(r"([a-z0-9_]+)(@log)?:(\d+)", text)
        if not found or found[1] not in STATE_CHANGING or int(found[3]) < 1:
            raise ValueError(f"no point: {text!r} (SYSCALL[@log]:N)")
        return cls(call=found[1], number=int(found[3]), on_log=bool(found[2]))


@functools.lru_cache
def shared_binary():
    """A copy that any user may run. To be made before there are threads: a child that has just been forked
    and has it open for writing keeps others from running it."""
    folder = tempfile.mkdtemp(prefix="pct-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)
    return shutil.copy(binary_path(), folder)


class TracedDaemon(Daemon):
    """`process` is strace, its child is the daemon; or it is the daemon itself, untraced."""

    strace = ()
    trace_path = None

    def binary_for_others(self):
        return shared_binary()

    def trace(self, path, options):
        self.trace_path = path
        self.strace = ["strace", "-f", "-qq", "-o", path, *options]

    def trace_nothing(self):
        self.strace = []

    def trace_whole(self, path):
        """Everything that the order check wants to see, with all bytes. (--seccomp-bpf makes it quick.)"""
        self.trace(path, ["--seccomp-bpf", "-y", "-s", str(1 << 20), "-e", "trace=" + ",".join(STATE_CHANGING)])

    def trace_point(self, path, point):
        """With a kill. (Not with --seccomp-bpf: the signal would be lost.)"""
        options = ["-s", "60", "-e", f"trace={point.call}", "-e",
                   f"inject={point.call}:signal=SIGKILL:when={point.number}"]
        for name in (self.results, f"{self.results}.1", f"{self.results}.2") if point.on_log else ():
            options += ["-P", name]
        self.trace(path, options)

    def spawn(self, **options):
        """strace is root's in any case, and the daemon is whose it should be."""
        user, command = self.user, [self.binary, "-c", self.config]
        if self.strace:
            self.user = None
            command = [*self.strace, *(("-u", pwd.getpwuid(user).pw_name) if user is not None else ()), *command]
        try:
            return super().spawn(command, **options)
        finally:
            self.user = user

    def give(self):
        """All that root has put there, to the daemon's user."""
        if self.user is not None:
            for path, directories, files in os.walk(self.home):
                for one in [path] + [os.path.join(path, name) for name in directories + files]:
                    os.chown(one, self.user, self.user, follow_symlinks=False)

    def start(self, **options):
        self.spawn(**options)
        self.until(self.answers, "it answers")
        return self

    def answers(self):
        try:
            return self.call("ping")
        except (FileNotFoundError, ConnectionError, Ended):
            return False

    def client(self):
        self.clients.append(Caller(self.socket))
        return self.clients[-1]

    def call(self, method, **params):
        with Caller(self.socket) as client:
            return client.call(method, **params)

    def until(self, condition, what):
        """Wait for it, or raise Ended."""
        def look():
            return condition() or self.process.poll() is not None
        value = wait_until(look, lambda: f"{what() if callable(what) else what}\n{self.stderr()[-2000:]}", timeout_s=30)
        if self.process.poll() is not None:
            raise Ended()
        return value

    def child(self):
        """The daemon's process ID, or None when it is gone."""
        if self.process.poll() is not None:
            return None
        if not self.strace:
            return self.process.pid
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
                pids = file.read().split()
        except FileNotFoundError:
            pids = []
        return int(pids[0]) if pids else None

    def signal(self, number):
        pid = self.child()
        if pid is None:
            raise Ended()
        os.kill(pid, number)

    def ended(self):
        """True when it was killed; False when it stopped as asked."""
        code = self.wait() if self.process is not None else 0
        assert code in (0, -signal.SIGKILL, 128 + signal.SIGKILL), f"it ended with {code}\n{self.stderr()[-4000:]}"
        return code != 0

    def kill(self):
        if self.process is not None:
            pid = self.child()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            self.wait()


# -- What strace wrote ---------------------------------------------------------------------------

LINE = re.compile(r"^(\d+) +(.*)$", re.DOTALL)
CALL = re.compile(r"^([a-z0-9_]+)\((.*)\) += (-?\d+|\?)(.*)$", re.DOTALL)
UNFINISHED = re.compile(r"^([a-z0-9_]+)\((.*?) *<unfinished \.\.\.>$", re.DOTALL)
RESUMED = re.compile(r"^<\.\.\. ([a-z0-9_]+) resumed>(.*)$", re.DOTALL)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")


@dataclass
class Event:
    """One system call. `start` and `end` are places in the order of what happened."""
    thread: int
    call: str
    text: str           # the arguments, as strace writes them
    result: int         # None when it never returned
    start: int
    end: int

    def strings(self):
        return [codecs.escape_decode(text.encode("latin-1"))[0] for text in STRING.findall(self.text)]

    def descriptor(self):
        """(number, path) of the first argument."""
        found = DESCRIPTOR.match(self.text)
        return (int(found[1]), found[2]) if found else (None, "")

    def paths(self):
        """Path arguments, made absolute by the descriptor before them."""
        paths = []
        for found in re.finditer(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', self.text):
            name = codecs.escape_decode(found[2].encode("latin-1"))[0].decode("utf-8", "surrogateescape")
            paths.append(os.path.join(found[1] or "/", name))
        return paths


def read_events(path):
    """In the order of their starts."""
    events, open_calls = [], {}
    with open(path, encoding="latin-1", newline="\n") as file:
        for place, line in enumerate(file):
            thread, text = LINE.match(line.rstrip("\n")).groups()
            thread = int(thread)
            if text.startswith(("+++", "---")):
                continue
            unfinished = UNFINISHED.match(text)
            if unfinished:
                event = Event(thread, unfinished[1], unfinished[2], None, place, place)
                open_calls[thread] = event
                events.append(event)
                continue
            resumed = RESUMED.match(text)
            if resumed:
                event = open_calls.pop(thread)
                text = f"{resumed[1]}({event.text}{resumed[2]}"
            else:
                event = Event(thread, "", "", None, place, place)
                events.append(event)
            found = CALL.match(text)
            event.call, event.text, event.end = found[1], found[2], place
            event.result = None if found[3] == "?" else int(found[3])
    return events


def point_after(events, results_path, place, call):
    """The first one of this call from this place of the trace on."""
    call, _, on_log = call.partition("@")
    counts = {}
    for event in events:
        logs = event.call == "write" and event.descriptor()[1].startswith(results_path)
        key = "log" if on_log and logs else (event.thread, event.call)
        counts[key] = counts.get(key, 0) + 1
        if event.start >= place and event.call == call and (logs or not on_log):
            return Point(call, counts[key], on_log=bool(on_log))
    raise AssertionError(f"no {call} from line {place} on")


def points_of(events, results_path):
    """Every point of a recorded run."""
    counts, points = {}, set()
    for event in events:
        key = event.thread, event.call
        counts[key] = counts.get(key, 0) + 1
        if event.call == "openat" and "O_CREAT" not in event.text:
            continue
        points.add(Point(event.call, counts[key]))
        if event.call == "write" and event.descriptor()[1].startswith(results_path):
            counts["log"] = counts.get("log", 0) + 1
            points.add(Point(event.call, counts["log"], on_log=True))
    return sorted(points)
