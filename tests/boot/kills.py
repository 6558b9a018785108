"""Kills the installed service at its Nth call that changes something, while it works under the packaged
unit: its sandbox, its credential, its socket, its Restart=. Run as root by tests/boot/inside.

    kills.py SHIM SECONDS

Each round is the same short work: requests on the socket, files, a retry, a rotation, a restart. The
daemon is killed in it at one call, in every other round at a second one after the unit has started it
again, and then the ledger of tests/torture is reckoned up. Points are spread evenly, and the order is
always the same. Only the unit's pauses are shortened, by a drop-in: RestartSec=, ExecStopPost= and the
start limit.
"""

import mmap
import os
import pwd
import shutil
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../integration", "../standin", "../torture"):
    sys.path.insert(0, os.path.join(HERE, folder))

from daemon import Daemon, render  # noqa: E402
from ledger import Ledger  # noqa: E402
from rpc import Client, RpcError  # noqa: E402
from standin_client import StandIn  # noqa: E402
from waiting import wait_until  # noqa: E402

SERVICE = "pulse-canceld.service"
CONFIGURATION = "/etc/pulse-canceld/pulse-canceld.conf"
STATE = "/var/lib/pulse-canceld"
CONTROL = os.path.join(STATE, ".kill-at")
DROP_IN = f"/run/systemd/system/{SERVICE}.d/kills.conf"
SHUTTING_DOWN = -32004
GOLDEN = 0.6180339887498949


def systemctl(*arguments, check=True):
    return subprocess.run(["systemctl", *arguments], check=check, stdout=subprocess.PIPE,
                          stderr=None if check else subprocess.DEVNULL, text=True).stdout.strip()


class Control:
    """The other end of kill_at.c."""

    def __init__(self):
        with open(CONTROL, "w+b") as file:
            file.truncate(4 * 8)
            self.map = mmap.mmap(file.fileno(), 0)
        user = pwd.getpwnam("pulse-canceld")
        os.chown(CONTROL, user.pw_uid, user.pw_gid)

    def arm(self, first=0, second=0):
        struct.pack_into("<4Q", self.map, 0, first, second, 0, 0)

    def count(self):
        return struct.unpack_from("<Q", self.map, 16)[0]

    def kills(self):
        return struct.unpack_from("<Q", self.map, 24)[0]


class Unit(Daemon):
    """The installed one: Daemon's looks at what it does, without Daemon's making of it."""

    def __init__(self):     # pylint: disable=super-init-not-called
        self.name, self.user, self.clients, self.rotated = "unit", None, [], []
        self.spool = "/var/spool/pulse-canceld"
        self.home = os.path.join(self.spool, ".kills")
        self.claimed = os.path.join(self.spool, ".claimed")
        self.rejected = os.path.join(self.spool, "rejected")
        self.socket = "/run/pulse-canceld/socket"
        self.results = "/var/log/pulse-canceld/results.log"
        os.mkdir(self.home)

    def spooled(self):
        return [name for name in super().spooled() if not name.startswith(".")]

    def drop(self, name, data=b""):
        """Readable for the daemon, as a user's file is by the directory's group."""
        scratch = os.path.join(self.home, "scratch")
        with open(scratch, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o644)
        os.rename(scratch, os.path.join(self.spool, name))


class Round:
    def __init__(self, unit, standin, ledger, number):
        self.unit, self.standin, self.ledger, self.number = unit, standin, ledger, number

    def ask(self, sent, **params):
        """One call. Its answer is its promise; without one, it is as if never asked."""
        try:
            with Client(self.unit.socket, timeout_s=60) as client:
                result = client.call("cancel", **params)
        except RpcError as error:
            assert error.code == SHUTTING_DOWN, error.error
            return
        except (OSError, AssertionError) as error:
            if isinstance(error, AssertionError) and "closed" not in str(error) and "torn" not in str(error):
                raise
            return
        sent.ids = [one["request_id"] for one in (result if isinstance(result, list) else [result])]

    def cancel(self, job, **params):
        job = f"{job}-{self.number}"
        sent = self.ledger.send([job], request_id=job)
        self.ask(sent, job_id=job, request_id=job, **params)

    def drop(self, name, lines=(), **kwargs):
        dropped = self.ledger.file(f"{name}-{self.number}", lines, **kwargs)
        self.unit.drop(dropped.name, dropped.content())
        self.ledger.drop(dropped)

    def work(self):
        number = self.number
        self.standin.fault(job=f"flaky-{number}", status=500, times=1)
        self.cancel("one")
        self.cancel("flaky", wait=True)
        self.drop("empty")
        self.drop("lines", [f"line-{number}-1", "no job", f"line-{number}-3"], bad=[2])
        jobs = [f"many-{number}-{index}" for index in range(4)]
        self.ask(self.ledger.send(jobs), job_ids=jobs)
        self.unit.rotate()
        systemctl("reload", SERVICE, check=False)       # where it is killed meanwhile, the start opens a new log
        self.cancel("rotated", wait=True)
        self.cancel("stopping")
        systemctl("restart", SERVICE, check=False)      # it may be killed meanwhile
        self.cancel("after", wait=True)

    def finish(self):
        """Whatever was not answered is asked again, and all is done."""
        for sent in self.ledger.sent:
            while sent.ids is None and sent.request_id is not None:
                self.ask(sent, job_id=sent.jobs[0], request_id=sent.request_id)
        wait_until(self.idle, "the service is idle", 60)
        wait_until(lambda: self.unit_lines() >= self.ledger.promised(), "all lines are there", 60)
        self.ledger.check(self.unit, self.standin)

    def idle(self):
        if self.unit.spooled() or os.listdir(self.unit.claimed):
            return False
        try:
            return not any(self.unit.call("stats")["pending"].values())
        except (OSError, AssertionError):
            return False

    def unit_lines(self):
        total = 0
        for path in (*self.unit.rotated, self.unit.results):
            if os.path.exists(path):
                with open(path, "rb") as file:
                    total += file.read().count(b"\n")
        return total


def prepare(shim, standin):
    """A state of its own, quick retries, and the drop-in."""
    systemctl("stop", "pulse-canceld.socket", SERVICE)
    for folder in (STATE, "/var/log/pulse-canceld"):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
    for name in os.listdir("/var/spool/pulse-canceld/rejected"):
        os.unlink(os.path.join("/var/spool/pulse-canceld/rejected", name))
    with open(CONFIGURATION, "w", encoding="utf-8") as file:
        file.write(render({"api": {"base_url": standin.url}, "dispatch": {"shutdown_grace_s": 1},
                           "retry": {"base_delay_ms": 5, "max_delay_ms": 20}}))
    os.makedirs(os.path.dirname(DROP_IN), exist_ok=True)
    with open(DROP_IN, "w", encoding="ascii") as file:
        file.write(f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nEnvironment=LD_PRELOAD={shim}\nRestartSec=0\nExecStopPost=\n")
    systemctl("daemon-reload")


def clean_up(unit):
    systemctl("stop", "pulse-canceld.socket", SERVICE)
    os.unlink(DROP_IN)
    os.unlink(CONTROL)
    shutil.rmtree(unit.home)
    systemctl("daemon-reload")


def main():
    shim, seconds = sys.argv[1], float(sys.argv[2])
    begin = time.monotonic()
    unit = Unit()
    ledger = Ledger()
    kills = rounds = 0
    with StandIn(keys=("boot-key",)) as standin:
        prepare(shim, standin)
        control = Control()
        control.arm()
        systemctl("start", "pulse-canceld.socket", SERVICE)
        for _ in range(2):      # the first has what only a new state has
            control.arm()
            one = Round(unit, standin, ledger, rounds)
            one.work()
            total = control.count()
            one.finish()
            rounds += 1
        assert total > 50, f"only {total} calls were counted: {shim} is not in it"
        tried = 0
        while tried < total and time.monotonic() < begin + seconds:
            # Steps by the golden ratio are spread evenly however many are taken.
            first = 1 + int((tried * GOLDEN % 1) * total)
            second = 1 + int((tried * GOLDEN * GOLDEN % 1) * 30) if tried % 2 else 0
            control.arm(first, second)
            one = Round(unit, standin, ledger, rounds)
            try:
                one.work()
                one.finish()
            except Exception:
                print(f"FAILED: round {rounds}, killed at call {first} of {total}, then at {second}", flush=True)
                raise
            kills += control.kills()
            rounds += 1
            tried += 1
        clean_up(unit)
    print(f"   {tried} of {total} points, {kills} kills, {ledger.promised()} lines")
    assert kills >= tried // 2, "most of them never came"


main()
