"""A daemon whose system calls fail: how patient its callers are meanwhile, what more it is asked to do
than in phases.py, and how it may end."""

import errno
import os
import signal
import stat
import time

from daemon import SANITIZERS
from fail_points import NAMES, Point
from phases import PHASES as COMMON, FaultyDaemon, PhaseScript
from rpc import RpcError
from traced import Ended

PHASES = [*COMMON, "spool", "recovery"]
# No attempts are used up while a fault lasts.
MORE_SETTINGS = {"retry": {"max_attempts": 1000, "base_delay_ms": 5, "max_delay_ms": 20},
                 "spool": {"settle_ms": 20, "rescan_interval_s": 1, "max_file_bytes": 200000}}
# While a fault lasts, nobody waits longer than this for anything.
PATIENCE_S = 0.5
# Whoever called these made the call.
SYSTEM = ("ld-linux", "libc.so", "libasan", "libubsan")
# How else an error may be told: SQLite has words of its own, and threads that can't be made.
OTHER_WORDS = {errno.ENOMEM: ["out of memory", os.strerror(errno.EAGAIN)],
               errno.EINTR: [os.strerror(errno.EIO)],
               # (A lock of SQLite's that somebody else holds, though nobody can: any word for a lock.)
               errno.EAGAIN: ["is held by", "database is locked", os.strerror(errno.ENOLCK), os.strerror(errno.EIO)]}
# SQLite opens for reading what it can't open for writing, and keeps to itself why.
READ_ONLY = "can be opened for reading only"
# It does not say either why it can't see whether its file is still there.
MOVED = "was moved or removed, or can't be looked at"
CROWD = [f"crowd-{index % 5}" for index in range(1100)]
LONG_NAME = "n" * 240       # too long for .claimed/UUID-NAME: it gets a directory of its own


class FailDaemon(FaultyDaemon):
    def died(self, fault):
        """How it came to its end: None for a stop as asked, else the words for it."""
        code = self.wait()
        text = self.stderr()
        assert not SANITIZERS.search(text), f"it ended with {code}\n{text[-6000:]}"
        if code == 0:
            return None
        callers = [os.path.basename(file) for file, _, _ in fault.where()]
        caller = next((name for name in callers if not name.startswith(SYSTEM)), "")
        if code == -signal.SIGABRT and caller.startswith("libuv.so"):
            assert "can't go on" in text, text[-4000:]
            return f"ended by libuv.so: {NAMES[fault.get('kind')]}"
        assert code == 1, f"it ended with {code}\n{text[-4000:]}"
        # An end by itself says why.
        error = fault.get("error")
        words = [os.strerror(error), *OTHER_WORDS.get(error, ())] if error else ["error"]
        assert any(word in text for word in [*words, READ_ONLY, MOVED]), f"it ended with 1, and not a word of why\n{text[-4000:]}"
        return "exit 1"


class FailScript(PhaseScript):
    REFUSALS = {-32603, -32002}

    # -- patience -------------------------------------------------------------------------------------

    def impatient(self):
        return self.point.for_good and self.fault.get("armed") == 1

    def until(self, condition, what):
        """Not for long while a fault lasts: then None when it did not come."""
        if not self.impatient():
            self.daemon.patience_s = 15
            return super().until(lambda: self.holds(condition), what)
        self.daemon.patience_s = PATIENCE_S
        end = time.monotonic() + PATIENCE_S
        value = None
        while not value and time.monotonic() < end:
            if self.daemon.process.poll() is not None:
                raise Ended()
            value = self.holds(condition)
            time.sleep(0.005)
        return value

    def holds(self, condition):
        """Not if the fault met its question."""
        try:
            return condition()
        except (OSError, Ended, RpcError) as error:
            # To be left without an answer is another matter.
            if not self.fault.struck() or (isinstance(error, TimeoutError) and not self.impatient()):
                raise
            return None

    def begin(self):
        self.daemon.spawn()
        self.until(self.daemon.answers, "it answers")

    def ask(self, what, call, also=()):
        self.client.socket.settimeout(PATIENCE_S if self.impatient() else 15)
        try:
            return super().ask(what, call, also)
        except OSError:
            # Nobody answers for as long as it lasts.
            if not self.impatient() or self.daemon.process.poll() is not None:
                raise
            assert self.fault.struck(), what
            self.connect()
            return None

    def connect(self):
        try:
            self.client = self.daemon.client()
        except OSError:
            if self.daemon.process.poll() is not None:
                raise Ended() from None
            if not self.impatient():
                raise

    def afterwards(self):
        if self.point.phase == "stop":
            self.until(lambda: False, "it ends")
        self.until(self.daemon.answers, "it answers")
        self.client = self.daemon.client()
        # Not `stats` alone: SQLite may try for ten seconds before it gives up, and only then there is
        # trouble.
        self.until(lambda: self.is_taken("taken-1"), "it takes requests")
        if self.point.phase == "dispatch":
            self.daemon.call("release")
        super().afterwards()

    def is_taken(self, job):
        sent = next((one for one in self.ledger.sent if one.request_id == job), None)
        sent = sent or self.ledger.send([job], request_id=job)
        try:
            sent.ids = [self.daemon.cancel(job, request_id=job)["request_id"]]
        except RpcError as error:
            assert error.code in self.REFUSALS, error
        return sent.ids is not None

    # -- phases ---------------------------------------------------------------------------------------

    def prepared(self):
        super().prepared()
        if self.point.kind != "clone":
            self.daemon.call("list")    # which opens the database once more, in another thread
        if self.point.phase == "recovery":
            self.get_into_trouble()

    def get_into_trouble(self):
        """With an outcome that comes meanwhile, and a file."""
        self.hold_one()
        self.fault.arm(Point("recovery", "pwrite64", "ENOSPC", 1, for_good=True))
        self.fault.troubled = True
        self.cancel("refused-2", request_id="refused-2")
        self.until(lambda: self.daemon.call("stats")["storage"] != "ok", "it is in trouble")
        self.standin.open("held")
        self.drop("waits-1", ["waits-1", "waits-2"])
        self.until(lambda: not self.standin.counts()["waiting"].get("held"), "the outcome has come")

    def do_recovery(self):
        self.until(self.accepts, "it takes requests")
        self.cancel("refused-2", request_id="refused-2")
        self.settled()

    def do_start(self):
        self.connect()
        self.settled()

    def do_spool(self):
        """Files of the kinds that `intake` does not have."""
        self.drop("crowd", CROWD)
        self.write("written-1", ["w-1", "", "# a remark", "  w-2\t", "w-3"])
        self.drop(LONG_NAME, ["long-1", "long-2"])
        self.place("nul", stat.S_IFREG, data=b"nul-1\nnul\0-2\n")
        self.place("large", stat.S_IFREG, data=b"large\n" * 40000)
        self.place("fifo", stat.S_IFIFO)
        unnamed = self.ledger.file("no job", bad=[1])
        unnamed.job_of = {}
        self.daemon.drop("no job")
        self.ledger.drop(unnamed)
        self.link("linked-1", ["linked-1"])
        self.settled()
        self.until(self.idle, "all is taken")

    def link(self, name, lines):
        """Which no event tells to be finished."""
        elsewhere = os.path.join(self.daemon.home, "elsewhere")
        with open(elsewhere, "wb") as file:
            file.write(b"".join(line.encode() + b"\n" for line in lines))
        os.link(elsewhere, os.path.join(self.daemon.spool, name))
        self.ledger.drop(self.ledger.file(name, lines))
