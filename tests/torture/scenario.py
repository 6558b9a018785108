"""A scripted run: what intake, queue, dispatch and the results log do every day, in some hundred steps
that follow one another, so that the Nth system call is nearly the same one in every run. Other scripts
(script_*.py) are made of the same pieces."""

import os
import signal

from ledger import Ledger, Thing
from traced import Ended

# Many lines for few jobs: more than one part of a file, and long chains of coalesced requests.
CROWD = [f"crowd-{index % 5}" for index in range(1100)]
GATES = ["sharing", "rotation-1", "rotation-2", "late"]
SETTINGS = {"spool": {"settle_ms": 20}, "dispatch": {"shutdown_grace_s": 0, "adaptive": False},
            # (Images of a power failure may be started an hour after they were recorded.)
            "retry": {"max_attempts": 8, "base_delay_ms": 5, "max_delay_ms": 20, "deadline_s": 86400}}


class Script:
    """Drives one daemon. `ledger` says at any time what it has promised."""

    settings = SETTINGS
    gates = GATES
    user = None             # who the daemon runs as, where it isn't root

    def __init__(self, daemon, standin):
        self.daemon = daemon
        self.standin = standin
        self.ledger = Ledger()
        self.client = None
        self.marks = None   # (place in the trace, system call), while a run is recorded

    def prepare(self):
        """Of the machine, before anything else. What it needs to be undone is in close()."""

    def keep(self):
        """Of a failure, what close() takes away."""

    def close(self):
        pass

    def run(self):
        """To the end, or to the daemon's. True when it was killed."""
        self.before()
        return self.live(self.steps)

    def restart(self):
        """Until all is done that was promised, then a stop. True when it was killed before."""
        self.calm()
        return self.live(self.recovery)

    def live(self, steps):
        try:
            self.daemon.start()
            steps()
        except (Ended, ConnectionError):
            pass
        return self.daemon.ended()

    def mark(self, call):
        """The next system call of this kind is one after which every point of the restart is tried."""
        if self.marks is not None:
            with open(self.daemon.trace_path, "rb") as file:
                self.marks.append((file.read().count(b"\n"), call))

    def steps(self):
        self.client = self.daemon.client()
        self.socket_requests()
        self.retries()
        self.coalesced()
        self.spool_files()
        self.hangup()
        self.rotation(1)
        self.bad_files()
        self.rotation(2)
        self.ending()

    def calm(self):
        """Before a restart: nothing stands in its way any more."""
        for gate in self.gates:
            self.standin.open(gate)

    def recovery(self):
        self.repeat_unanswered()
        self.until(self.idle, lambda: f"idle: {self.daemon.call('stats')}")
        self.stop()

    # -- steps ------------------------------------------------------------------------------

    def before(self):
        """While the daemon is down."""
        self.world()
        self.drop("early")
        self.drop("early-lines", ["early-1", "early-2", "early-3"])

    def world(self):
        """What the API is like for good. A power failure's restart begins with it, too."""
        self.standin.fault(job="absent-1", status=404, times=None)
        self.standin.fault(job="refused-1", status=400, times=None)
        self.ledger.outcomes.update({"absent-1": "not_found", "refused-1": "rejected"})

    def socket_requests(self):
        self.line("bare-1")
        self.cancel("single-1")
        self.cancel("named-1", request_id="name-1")
        self.cancel("named-1", request_id="name-1")
        self.cancel_many([f"batch-{index}" for index in range(6)])
        self.cancel("waited-1", request_id="wait-1", wait=True)

    def retries(self):
        self.standin.fault(job="flaky-1", status=500, times=3)
        self.cancel("flaky-1", wait=True)
        self.cancel("absent-1", wait=True)
        self.cancel("refused-1")
        self.settled()

    def coalesced(self):
        self.standin.fault(job="shared", gate="sharing")
        self.cancel("shared", request_id="shared-1")
        self.until(lambda: self.standin.counts()["waiting"].get("sharing"), "the shared request is in flight")
        self.cancel("shared", request_id="shared-2")
        self.drop("sharing", ["shared", "shared"])
        self.until(lambda: self.daemon.spooled() == [], "the sharing file is claimed")
        self.standin.open("sharing")
        self.settled()

    def spool_files(self):
        self.drop("empty-1")
        self.write("written-1", ["w-1", "", "# a remark", "  w-2\t", "w-3"])
        self.drop("mixed", ["m-1", "not a job ID", '{"job_id": "m-2", "request_id": "m-id", "deadline_s": 86400}',
                            '{"job_id": "m-3", "colour": 1}', "m-4"], bad=[2, 4], job_of={3: "m-2"})
        self.mark("renameat")
        self.drop("crowd", CROWD)
        self.mark("fdatasync")
        self.settled()

    def bad_files(self):
        # The 100th and the 101st bad line are next to each other.
        lines = [f"good-{number}" if number % 6 == 3 else f"bad line {number}" for number in range(1, 150)]
        bad = [number for number in range(1, 150) if number % 6 != 3]
        self.drop("wrong", lines, bad=bad)
        os.symlink("/etc/hostname", os.path.join(self.daemon.spool, "link"))
        self.ledger.links.append("link")
        self.settled()

    def hangup(self):
        """SIGHUP without a rotation."""
        self.daemon.signal(signal.SIGHUP)
        self.cancel("reloaded-1", wait=True)
        self.cancel("reloaded-2", wait=True)

    def rotation(self, number):
        """With a request in flight, and one that comes between the rename and the signal."""
        gate, job = f"rotation-{number}", f"rotated-{number}"
        self.standin.fault(job=job, gate=gate)
        self.cancel(job)
        self.daemon.rotate()
        self.cancel(f"between-{number}", wait=True)
        self.daemon.signal(signal.SIGHUP)
        self.until(lambda: os.path.exists(self.daemon.results), "the results log is opened anew")
        if number == 2:
            self.mark("write@log")
        self.standin.open(gate)
        self.drop(f"after-{number}")
        self.settled()

    def ending(self):
        """SIGTERM with a request in flight and one that waits behind it."""
        self.standin.fault(job="late-1", gate="late")
        self.cancel("late-1")
        self.until(lambda: self.standin.counts()["waiting"].get("late"), "the late request is in flight")
        self.cancel("late-1")
        self.drop("late-2")
        self.stop()

    # -- what they are made of ----------------------------------------------------------------

    def until(self, condition, what):
        return self.daemon.until(condition, what)

    def stop(self):
        self.daemon.signal(signal.SIGTERM)
        self.until(lambda: False, "it ends")

    def idle(self):
        """Nothing in the spool, nothing claimed, nothing pending: in the order in which a file goes on."""
        if self.daemon.spooled() != self.ledger.left() or os.path.isdir(self.daemon.claimed) and os.listdir(self.daemon.claimed):
            return False
        return not any(self.daemon.call("stats")["pending"].values())

    def repeat_unanswered(self):
        """A client that got no answer sends its request_id again: one request in the end."""
        for sent in self.ledger.sent:
            if sent.ids is None and sent.request_id is not None and len(sent.jobs) == 1:
                self.daemon.cancel(sent.jobs[0], request_id=sent.request_id)
                sent.ids = [sent.request_id]

    def settled(self):
        """Everything promised so far has its line."""
        count = self.ledger.promised()
        self.until(lambda: self.lines() >= count, lambda: f"{count} lines, has {self.lines()}")

    def lines(self):
        total = 0
        for path in [*self.daemon.rotated, self.daemon.results]:
            if os.path.exists(path):
                with open(path, "rb") as file:
                    total += file.read().count(b"\n")
        return total

    def line(self, job):
        sent = self.ledger.send([job])
        answer = self.client.ask(job)
        assert "error" not in answer, answer
        sent.ids = [answer["request_id"]]

    def cancel(self, job, **params):
        sent = self.ledger.send([job], request_id=params.get("request_id"))
        result = self.client.call("cancel", job_id=job, **params)
        assert result["job_id"] == job, result
        sent.ids = [result["request_id"]]
        return result["request_id"]

    def cancel_many(self, jobs):
        sent = self.ledger.send(jobs)
        results = self.client.call("cancel", job_ids=jobs)
        assert [result["job_id"] for result in results] == jobs, results
        sent.ids = [result["request_id"] for result in results]

    def drop(self, name, lines=(), **kwargs):
        """Written aside and renamed in."""
        dropped = self.ledger.file(name, lines, **kwargs)
        self.daemon.drop(name, dropped.content())
        self.ledger.drop(dropped)

    def write(self, name, lines):
        """Written in place. It may be taken as soon as it is closed, so it counts from then on."""
        dropped = self.ledger.file(name, lines)
        with open(os.path.join(self.daemon.spool, name), "wb") as file:
            file.write(dropped.content())
        self.ledger.drop(dropped)

    def place(self, name, kind, **kwargs):
        """What is no file of request lines, made aside and renamed in."""
        thing = Thing(name, kind, **kwargs)
        aside = os.path.join(self.daemon.home, "aside")
        thing.make(aside)
        os.rename(aside, os.path.join(self.daemon.claimed if thing.claimed else self.daemon.spool, name))
        self.ledger.things[name] = thing

    def reload(self, **groups):
        """With these settings changed, until it is done."""
        self.daemon.set(**groups)
        assert self.client.call("reload")["reloaded"]
