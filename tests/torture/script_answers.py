"""Answers that leave it open what became of a job, an API that changes its route, and a key that it
rejects."""

import signal

from daemon import KEY
from scenario import SETTINGS, Script

SETTLED = {"timeout_ms": 5000, "on_unauthorized": "fail"}


class Answers(Script):
    settings = {**SETTINGS, "api": {"endpoint": "auto", "verify": "ambiguous", **SETTLED}}
    gates = ["asking", "asking-again", "asked-last"]

    def world(self):
        self.standin.fault(job="hidden-1", when="canceled", status=404, times=None)
        self.standin.fault(job="conflict-1", when="canceled", status=409, times=None)
        for job in ("ended-1", "ended-2"):
            self.standin.put_job(job, "completed")
        self.ledger.outcomes.update({
            "ended-1": "too_late", "ended-2": "too_late", "conflict-1": {"cancelled", "rejected"},
            # Rejected, or not yet sent when the key was good again.
            "locked-1": {"unauthorized", "cancelled"}})

    def before(self):
        self.world()
        self.drop("early", ["early-1", "ended-1"])

    def calm(self):
        super().calm()
        self.daemon.set(api=SETTLED)
        self.standin.settings(keys=[KEY, "second-key", "third-key"])

    def steps(self):
        self.client = self.daemon.client()
        self.ambiguous()
        self.questions_that_fail()
        self.open_question("open-1", "asking")
        self.always()
        self.open_question("open-2", "asking-again")
        self.route_goes()
        self.key_is_rejected("locked-1", "second-key", "fail")
        self.key_is_rejected("kept-1", "third-key", "hold")
        self.ending()

    def ambiguous(self):
        self.standin.fault(job="hidden-1", status=500, effect="canceled")
        self.cancel("hidden-1", wait=True)
        self.standin.fault(job="twice-1", status=500)
        self.standin.fault(job="twice-1", status=500, effect="canceled")
        self.cancel("twice-1", wait=True)
        self.standin.fault(job="lost-1", reset="after", times=2)
        self.cancel("lost-1", wait=True)
        self.standin.fault(job="mute-1", hang="after")
        self.reload(api={"timeout_ms": 250})
        self.cancel("mute-1", wait=True)
        self.reload(api=SETTLED)

    def questions_that_fail(self):
        for number, answer in enumerate(({"status": 500}, {"reset": "before", "times": 2}, {"garbage": True}), 1):
            self.standin.fault(job=f"asked-{number}", garbage=True)
            self.standin.fault(job=f"asked-{number}", on="get", **answer)
            self.cancel(f"asked-{number}", wait=True)

    def open_question(self, job, gate):
        """Others join it, come and go meanwhile."""
        self.standin.fault(job=job, truncate=10)
        self.standin.fault(job=job, on="get", gate=gate)
        self.cancel(job, request_id=f"{job}-a")
        self.until(lambda: self.standin.counts()["waiting"].get(gate), "it is asked about")
        self.mark("fdatasync")
        self.cancel(job, request_id=f"{job}-b")
        self.cancel(f"beside-{job}", wait=True)
        self.drop(f"file-{job}", [job, f"filed-{job}"])
        self.until(lambda: self.daemon.spooled() == [], "the file is claimed")
        self.standin.open(gate)
        self.settled()

    def always(self):
        self.reload(api={"verify": "always"})
        self.cancel("believed-1", wait=True)
        self.standin.fault(job="slow-1", effect_after_ms=60)
        self.cancel("slow-1", request_id="slow-1", wait=True)
        self.standin.fault(job="conflict-1", status=500, effect="canceled")
        self.cancel("conflict-1", wait=True)
        self.cancel("ended-2", wait=True)

    def route_goes(self):
        self.standin.settings(routes={"cancel": 410})
        self.mark("pwrite64")
        self.cancel("moved-1", wait=True)
        self.cancel("moved-2", wait=True)
        self.drop("moved-3")
        self.settled()

    def key_is_rejected(self, job, key, mode):
        self.reload(api={"on_unauthorized": mode})
        self.standin.settings(keys=[key])
        self.cancel(job)
        self.until(lambda: self.daemon.call("stats")["held"] == "key", "the key is rejected")
        self.cancel(f"behind-{job}", request_id=f"behind-{job}")
        self.drop(f"file-{job}", [f"filed-{job}-1", f"filed-{job}-2"])
        self.mark("fdatasync")
        self.daemon.write_key(key)
        self.daemon.signal(signal.SIGHUP)
        self.settled()

    def ending(self):
        """SIGTERM with a question open."""
        self.standin.fault(job="last-1", truncate=10)
        self.standin.fault(job="last-1", on="get", gate="asked-last")
        self.cancel("last-1")
        self.until(lambda: self.standin.counts()["waiting"].get("asked-last"), "the last one is asked about")
        self.stop()
