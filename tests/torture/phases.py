"""What a daemon is asked to do while something fails in it: short phases, one of them with the fault.
After it the daemon goes on without, or is started anew, and nothing may be missing."""

import contextlib
import os
import signal

from ledger import Ledger
from rpc import RpcError
from scenario import Script
from traced import Caller, Ended, TracedDaemon

PHASES = ["start", "intake", "dispatch", "reload", "rotation", "stop"]
SETTINGS = {"api": {"verify": "ambiguous"}, "spool": {"settle_ms": 20, "rescan_interval_s": 1},
            "dispatch": {"shutdown_grace_s": 0, "adaptive": False},
            "retry": {"max_attempts": 8, "base_delay_ms": 5, "max_delay_ms": 20}}


class FaultyCaller(Caller):
    def result(self, call_id):
        """There may be nothing to read the id with."""
        answer = self.answer()
        if answer.get("id") is None and "error" in answer:
            raise RpcError(answer["error"])
        assert answer["id"] == call_id, answer
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]


class FaultyDaemon(TracedDaemon):
    """`fault` is loaded into it, as long as there is one."""

    fault = None
    patience_s = 15         # with an answer

    def connect(self):
        return FaultyCaller(self.socket, self.patience_s)

    def client(self):
        self.clients.append(self.connect())
        return self.clients[-1]

    def answers(self):
        try:
            with self.connect() as client:
                return client.call("ping")
        except (OSError, Ended, RpcError):
            return False

    def spawn(self, **options):
        environment = self.fault.environment() if self.fault is not None else {}
        return super().spawn(environment=environment, **options)


class PhaseScript(Script):
    """One phase with the fault, all else without. `point` says which phase, and `fault.arm()` the rest."""

    REFUSALS = set()        # what a call may be answered with that the fault met

    def __init__(self, daemon, standin, fault, point):
        super().__init__(daemon, standin)
        self.fault = fault
        self.point = point
        self.ledger = Ledger()

    def faulty(self):
        """The phase with the fault, then on without. How it ended."""
        self.daemon.fault = self.fault
        try:
            if self.point.phase == "start":
                self.before_start()
                self.fault.arm(self.point)
                self.begin()
            else:
                self.daemon.start()
                self.prepared()
                self.fault.arm(self.point)
            getattr(self, f"do_{self.point.phase}")()
            self.fault.disarm()
            self.afterwards()
        except (Ended, ConnectionError):
            pass
        finally:
            self.fault.disarm()
            self.daemon.fault = None
        return self.daemon.died(self.fault)

    def begin(self):
        self.daemon.start()

    def afterwards(self):
        """It goes on as if nothing had happened, and misses nothing."""
        self.standin.open("held")
        self.until(self.accepts, "it takes requests")
        self.repeat_unanswered()
        self.cancel("afterwards-1", request_id="afterwards-1", wait=True)
        self.drop("afterwards-2")
        self.settled()
        self.until(self.idle, lambda: f"idle: {self.daemon.call('stats')}")
        self.stop()

    def recovery(self):
        self.standin.open("held")
        if self.point.phase == "dispatch":
            self.daemon.call("release")     # it may have ended while sending was held
        super().recovery()

    def accepts(self):
        """A database that failed is tried again a little later."""
        return self.daemon.call("stats")["storage"] == "ok"

    # -- what comes first, without faults ---------------------------------------------------------

    def prepared(self):
        self.client = self.daemon.client()
        if self.point.phase in ("dispatch", "rotation"):
            self.standin.fault(job="refused-1", status=400, times=None)
            self.ledger.outcomes["refused-1"] = "rejected"
            self.cancel("refused-1", request_id="refused-1", wait=True)
        if self.point.phase in ("rotation", "stop"):
            self.hold_one()

    def hold_one(self):
        self.standin.fault(job="held-1", gate="held")
        self.cancel("held-1", request_id="held-1")
        self.until(lambda: self.standin.counts()["waiting"].get("held"), "a request is in flight")
        self.cancel("held-1", request_id="held-2")

    def before_start(self):
        """What a crash left: one in flight, one behind it, results, and files."""
        self.daemon.fault = None
        self.daemon.start()
        self.client = self.daemon.client()
        self.cancel("done-1", request_id="done-1", wait=True)
        self.hold_one()
        self.daemon.kill()
        self.daemon.fault = self.fault
        self.drop("early")
        self.drop("early-lines", ["early-1", "not a job ID", "early-3"], bad=[2])
        self.standin.open("held")

    # -- the phases ---------------------------------------------------------------------------------

    def do_start(self):
        self.client = self.daemon.client()
        self.settled()

    def do_intake(self):
        self.line("bare-1")
        self.cancel("single-1", request_id="single-1", deadline_s=600)
        self.cancel("single-1", request_id="single-1")
        self.cancel_many([f"batch-{index}" for index in range(6)])
        self.ask("batch", lambda client: client.ask(
            b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "stats"}]\n'))
        self.ask("status", lambda client: client.call("status", request_id="single-1"))
        self.ask("list", lambda client: client.call("list"))
        self.ask("subscribe", lambda client: client.call("subscribe"))
        self.client.close()
        self.client = self.daemon.client()
        self.drop("empty-1")
        self.drop("mixed", ["m-1", "not a job ID", '{"job_id": "m-2", "request_id": "m-id", "deadline_s": 600}',
                            '{"job_id": "m-3", "colour": 1}', "m-4"], bad=[2, 4], job_of={3: "m-2"})
        self.bad_files()

    def bad_files(self):
        lines = [f"bad line {number}" for number in range(1, 104)]
        self.drop("wrong", lines, bad=list(range(1, 104)))
        os.symlink("/etc/hostname", os.path.join(self.daemon.spool, "link"))
        self.ledger.links.append("link")
        self.settled()

    def do_dispatch(self):
        """Retries, verification, a refusal that is retried by hand, and one that is taken back."""
        self.standin.fault(job="flaky-1", status=500, times=2)
        self.standin.fault(job="torn-1", truncate=10, times=1)
        self.standin.fault(job="lost-1", reset="after", times=1)
        self.standin.fault(job="moody-1", status=429, retry_after=0, times=1)
        for job in ("flaky-1", "torn-1", "lost-1", "moody-1"):
            self.cancel(job, request_id=job, wait=True)
        self.retry("refused-1")
        self.ask("hold", lambda client: client.call("hold"))
        self.ledger.outcomes["back-1"] = {"withdrawn", "cancelled"}
        self.ledger.cancelled_before.add("back-1")
        self.cancel("back-1", request_id="back-1")
        if self.ask("withdraw", lambda client: client.call("withdraw", request_id="back-1")) == {"withdrawn": 1}:
            self.ledger.outcomes["back-1"] = "withdrawn"
        self.cancel("kept-1", request_id="kept-1")
        self.until(lambda: self.ask("release", lambda client: client.call("release")), "it is released")
        self.settled()

    def do_reload(self):
        self.daemon.set(dispatch={"max_in_flight": 3}, api={"timeout_ms": 9000}, log={"level": "info"})
        self.daemon.signal(signal.SIGHUP)
        self.cancel("reloaded-1", request_id="reloaded-1", wait=True)
        self.daemon.set(dispatch={"max_in_flight": 4}, spool={"settle_ms": 10})
        self.ask("reload", lambda client: client.call("reload"), also={-32006})
        self.cancel("reloaded-2", request_id="reloaded-2", wait=True)

    def do_rotation(self):
        self.daemon.rotate()
        self.cancel("between-1", request_id="between-1", wait=True)
        self.daemon.signal(signal.SIGHUP)
        self.cancel("after-1", request_id="after-1", wait=True)
        self.standin.open("held")
        self.drop("after-2")
        self.settled()

    def do_stop(self):
        """With a request in flight and one behind it, a client that waits, and a file that just came."""
        with contextlib.suppress(ConnectionError):      # it may have nothing left for a client
            self.daemon.client().send_call("cancel", {"job_id": "held-1", "request_id": "held-1", "wait": True})
        self.drop("late-1")
        self.stop()

    # -- what they are made of ----------------------------------------------------------------------

    def ask(self, what, call, also=()):
        """The answer; None when it was refused, or the connection was dropped."""
        try:
            answer = call(self.client)
            errors = [one["error"] for one in (answer if isinstance(answer, list) else [answer])
                      if isinstance(one, dict) and "error" in one and "outcome" not in one]
            if errors:
                raise RpcError(errors[0])
            return answer
        except RpcError as error:
            assert error.code in self.REFUSALS | set(also), f"{what}: {error}"
            assert self.fault.struck(), f"{what}: {error}"
        except (Ended, ConnectionError):
            self.until(self.daemon.answers, "it answers")       # Ended when it is gone
            self.client = self.daemon.client()
            assert self.fault.struck(), what
        return None

    def line(self, job):
        sent = self.ledger.send([job])
        answer = self.ask(job, lambda client: client.ask(job))
        sent.ids = [answer["request_id"]] if answer is not None else None

    def cancel(self, job, **params):
        sent = self.ledger.send([job], request_id=params.get("request_id"))
        result = self.ask(job, lambda client: client.call("cancel", job_id=job, **params))
        if result is not None:
            assert result["job_id"] == job, result
            sent.ids = [result["request_id"]]

    def cancel_many(self, jobs):
        sent = self.ledger.send(jobs)
        results = self.ask(jobs, lambda client: client.call("cancel", job_ids=jobs))
        if results is not None:
            assert [result["job_id"] for result in results] == jobs, results
            sent.ids = [result["request_id"] for result in results]

    def retry(self, job):
        sent = self.ledger.send([job])
        result = self.ask(f"retry {job}", lambda client: client.call("retry", job_id=job))
        if result is not None:
            sent.ids = [one["request_id"] for one in result["requests"]]
            assert len(sent.ids) == 1, result
