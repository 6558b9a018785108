"""What an operator does: hold and release, withdraw, retry, flush, settings that change; deadlines that
pass and old requests that are pruned."""

from history import plant
from ledger import Sent
from rpc import RpcError
from scenario import SETTINGS, Script

QUEUE_FULL, BAD_CONFIGURATION = -32001, -32006
ROOMY = {"max_pending": 1000000, "history_days": 1}


class Control(Script):
    settings = {**SETTINGS, "queue": ROOMY, "retry": {**SETTINGS["retry"], "max_delay_ms": 3600000}}
    gates = []
    held = None             # what was answered last; None: not known

    def world(self):
        self.ledger.outcomes.update({
            "back-1": {"withdrawn", "cancelled"}, "back-2": {"withdrawn", "cancelled"},
            "refused-1": {"rejected", "cancelled"}, "refused-2": {"rejected", "cancelled"},
            "expiring-1": {"expired", "cancelled"}, "expiring-2": {"expired", "cancelled"}})

    def before(self):
        """A database with a past: requests that are to be pruned."""
        self.world()
        strace, self.daemon.strace = self.daemon.strace, ()
        self.daemon.start()
        self.client = self.daemon.client()
        self.cancel("long-ago-1", wait=True)
        self.daemon.stop()
        self.daemon.strace = strace
        plant(self.daemon, 30, age_days=2)
        self.ledger.past = {f"r-old-{number}": f"old-{number}" for number in range(1, 31)}

    def calm(self):
        super().calm()
        self.daemon.set(queue=ROOMY, dispatch={"nonsense": None})

    def recovery(self):
        if self.held is not None:
            assert self.daemon.call("stats")["held"] == ("operator" if self.held else None)
        self.client = self.daemon.client()
        self.hold(False)
        super().recovery()

    def idle(self):
        """What waits for hours is tried now."""
        if self.daemon.call("stats")["pending"]["waiting"]:
            self.daemon.call("flush")
        return super().idle()

    def steps(self):
        self.client = self.daemon.client()
        self.pruned()
        self.refusals()
        self.hold(True)
        self.cancel("expiring-1", request_id="expiring-1", deadline_s=1)
        self.cancel("expiring-2", deadline_s=1)
        self.withdrawals()
        self.retried("refused-1")
        self.small_queue()
        self.mark("fdatasync")
        self.until(lambda: self.daemon.item(request_id="expiring-1")["state"] == "done", "it has expired")
        self.mark("write@log")
        self.hold(False)
        self.settled()
        self.flushed()
        self.bad_configuration()
        self.retried("refused-2")
        self.settled()
        self.ending()

    def pruned(self):
        self.cancel("first-1", wait=True)
        self.until(lambda: self.daemon.item(request_id="r-old-30") is None, "the old ones are pruned")

    def refusals(self):
        for job in ("refused-1", "refused-2"):
            self.standin.fault(job=job, status=400)
            self.cancel(job, wait=True)

    def hold(self, held):
        self.held = None
        assert self.client.call("hold" if held else "release") == {"held": held}
        self.held = held

    def withdrawals(self):
        ids = [self.cancel("back-1", request_id=f"back-1{letter}") for letter in "ab"]
        ids.append(self.cancel("back-2", request_id="back-2"))
        self.cancel("stays-1", request_id="stays-1")
        self.drop("held-file", ["held-1", "held-2", "stays-1"])
        self.until(lambda: self.daemon.spooled() == [], "the file is claimed")
        assert self.client.call("withdraw", job_id="back-1") == {"withdrawn": 2}
        self.ledger.withdrawn.update(ids[:2])
        assert self.client.call("withdraw", request_id="back-2") == {"withdrawn": 1}
        self.ledger.withdrawn.add(ids[2])

    def retried(self, job):
        sent = Sent(jobs=[job])
        self.ledger.sent.append(sent)
        requests = self.client.call("retry", job_id=job)["requests"]
        assert [one["job_id"] for one in requests] == [job], requests
        sent.ids = [requests[0]["request_id"]]

    def small_queue(self):
        """Refused until there is room; a file waits, claimed."""
        self.reload(queue={"max_pending": 1})
        sent = self.ledger.send(["crowded-1"], request_id="crowded-1")
        try:
            answer = self.client.call("cancel", job_id="crowded-1", request_id="crowded-1")
            raise AssertionError(f"the queue is full, and it is accepted: {answer}")
        except RpcError as error:
            assert error.code == QUEUE_FULL, error.error
        self.drop("patient", ["patient-1", "patient-2"])
        self.reload(queue=ROOMY)
        sent.ids = [self.client.call("cancel", job_id="crowded-1", request_id="crowded-1")["request_id"]]

    def flushed(self):
        self.standin.fault(job="waits-1", status=503, retry_after=3000)
        self.cancel("waits-1", request_id="waits-1")
        self.until(lambda: self.daemon.call("stats")["pending"]["waiting"], "it waits")
        self.mark("fdatasync")
        self.client.call("flush")
        self.settled()

    def bad_configuration(self):
        try:
            self.reload(dispatch={"nonsense": 1})
            raise AssertionError("a bad configuration is taken")
        except RpcError as error:
            assert error.code == BAD_CONFIGURATION, error.error
        self.reload(dispatch={"nonsense": None, "max_in_flight": 3})
        self.cancel_many(["few-1", "few-2", "few-3", "few-4", "few-5"])
        self.settled()

    def ending(self):
        """On hold, with a request that waits behind it."""
        self.hold(True)
        self.cancel("over-1", request_id="over-1")
        self.stop()
