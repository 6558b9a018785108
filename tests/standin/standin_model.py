"""What Pulse knows and decides: keys, jobs, the script of faults, and the log of what happened.

No I/O here. `arrive` logs a request, `judge` makes a Plan for its answer, `take_effect` changes
the job when the plan is carried out, `finish` closes the log entry.
"""

import json
import re
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

from standin_fault import STATUSES, Script

FINAL = ("completed", "failed", "canceled")
ROUTE = re.compile(r"^(.*)/(cancel|job)/([^/?#]+)$")
DEFAULTS = {
    "unknown_jobs": "create",       # or "404"
    "new_status": "processing",     # of a job that is made on first sight
    "finished_status": 500,         # what cancelling a completed or failed job answers
    "routes": {"cancel": None, "delete": None, "get": None},   # a status: that route is gone
}


@dataclass
class Plan:
    """One answer. `effect` is the status that the job takes on, or None."""
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    effect: str = None
    effect_after_ms: int = 0    # after the answer, or what takes its place
    delay_ms: int = 0
    gate: str = None
    hang: str = None        # "before" or "after" the effect
    reset: str = None       # "before" or "after" the effect
    truncate: int = None    # bytes of the body that are sent
    raw: bytes = None       # instead of an HTTP answer
    close: bool = False


def envelope(code, message):
    return {"error": {"code": code, "message": message, "details": {}}}


ENVELOPES = {400: ("REQ_001", "Bad request"), 401: ("AUTH_002", "Invalid API key"),
             403: ("AUTH_004", "You don't have access to this job"), 404: ("JOB_001", "Job not found"),
             409: ("JOB_002", "Job is in a conflicting state"), 429: ("GENERAL_429", "Too many requests"),
             500: ("JOB_003", "Job could not be cancelled or internal server error")}


def error_body(status):
    code, message = ENVELOPES.get(status, (f"GENERAL_{status}", f"Status {status}"))
    return envelope(code, message)


class Job:
    """A job, and what became of it: `history` is the truth that results are compared with.

    What is going to happen to it by itself is in `due`. Nobody looks at a job without `ripen()`, so
    that no timer is needed."""

    def __init__(self, job_id, status):
        self.job_id = job_id
        self.cancels = self.gets = 0
        self.next = []
        self.finish = None      # {"status", and one of "after_ms", "at_cancel", "at_get"}
        self.due = []           # [time, status, number of the log entry or None]
        self.history = []       # [time, status, number of the log entry or None]
        self.become(time.time(), status, None)

    def become(self, at, status, by):
        self.status = status
        self.history.append([at, status, by])

    def ripen(self):
        now = time.time()
        for one in sorted(one for one in self.due if one[0] <= now):
            self.due.remove(one)
            if self.status not in FINAL:
                self.become(*one)

    def touched(self, route, by):
        """A request about it comes in."""
        if route == "get":
            self.gets += 1
        else:
            self.cancels += 1
        finish = self.finish
        if finish is not None and "after_ms" in finish:
            self.due.append([time.time() + finish["after_ms"] / 1000, finish["status"], None])
            self.finish = None
        elif finish is not None and (self.cancels >= finish.get("at_cancel", self.cancels + 1) or
                                     self.gets >= finish.get("at_get", self.gets + 1)):
            self.due.append([time.time(), finish["status"], by])
            self.finish = None
        self.ripen()

    def record(self):
        self.ripen()
        return {"job_id": self.job_id, "status": self.status, "cancels": self.cancels, "gets": self.gets,
                "history": self.history}


def encode(document):
    return json.dumps(document).encode()


class Pulse:
    def __init__(self, keys):
        self.first_keys = list(keys)
        self.connections = set()
        self.connections_made = 0
        self.gates = {}
        self.reset()

    def reset(self):
        """Forget jobs, faults, settings and log; let go of everyone who waits at a gate."""
        waiting = [go for gate in self.gates.values() for go in gate]
        self.gates = {}
        self.open_gates = set()
        self.keys = set(self.first_keys)
        self.settings = json.loads(json.dumps(DEFAULTS))
        self.jobs = {}
        self.script = Script()
        self.log = []
        self.in_flight = 0
        self.max_in_flight = 0
        for go in waiting:
            go()

    # -- connections and gates --------------------------------------------------------------

    def connected(self, connection):
        self.connections.add(connection)
        self.connections_made += 1
        return self.connections_made

    def disconnected(self, connection):
        self.connections.discard(connection)

    def wait_at(self, gate, go):
        if gate in self.open_gates:
            go()
        else:
            self.gates.setdefault(gate, []).append(go)

    def open(self, gate, count=None):
        """Let those who wait at the gate go, at most `count`; without `count` it stays open."""
        waiting = self.gates.get(gate, [])
        going = waiting if count is None else waiting[:count]
        self.gates[gate] = waiting[len(going):]
        if count is None:
            self.open_gates.add(gate)
        for go in going:
            go()
        return len(going)

    # -- the log ----------------------------------------------------------------------------

    def arrive(self, connection, method, target, headers, body_bytes):
        found = ROUTE.match(target)
        route, job = None, None
        if found:
            job = unquote(found[3], errors="replace")
            route = {("POST", "cancel"): "cancel", ("DELETE", "job"): "delete",
                     ("GET", "job"): "get"}.get((method, found[2]))
        entry = {"i": len(self.log), "time": time.time(), "connection": connection, "method": method, "path": target,
                 "headers": headers, "body_bytes": body_bytes, "route": route, "job": job, "status": None,
                 "answer": None, "effect": None, "done_time": None,
                 "body_sent": 0, "fault": None}
        self.log.append(entry)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return entry

    def finish(self, entry, answer):
        entry["answer"] = answer
        entry["done_time"] = time.time()
        self.in_flight = max(0, self.in_flight - 1)

    # -- answers ----------------------------------------------------------------------------

    def judge(self, entry):
        plan = self.plain_answer(entry)
        if entry["route"] is not None:
            job = self.jobs.get(entry["job"])
            fault = self.script.take(entry, job.status if job else None)
            if fault is not None:
                entry["fault"] = fault.script
                fault.alter(plan, entry, error_body)
        return plan

    def take_effect(self, entry, plan):
        job = self.jobs.get(entry["job"])
        if job is not None:
            job.ripen()
        if plan.effect is None or job is None or plan.reset == "before" or job.status in FINAL:
            return
        entry["effect"] = plan.effect
        if plan.effect_after_ms:
            job.due.append([time.time() + plan.effect_after_ms / 1000, plan.effect, entry["i"]])
        else:
            job.become(time.time(), plan.effect, entry["i"])

    def job(self, job_id):
        """The job, made on first sight unless unknown jobs are to be unknown."""
        job = self.jobs.get(job_id)
        if job is None and self.settings["unknown_jobs"] == "create":
            job = self.jobs[job_id] = Job(job_id, self.settings["new_status"])
        return job

    def plain_answer(self, entry):
        """What the API would say on a good day."""
        plan = Plan(headers={"Content-Type": "application/json"})

        def refuse(status, document=None):
            plan.status, plan.body = status, encode(document or error_body(status))
            return plan

        route = entry["route"]
        gone = self.settings["routes"].get(route) if route else 404
        if gone:
            plan.status, plan.body = gone, b"<html><body>no such route</body></html>"
            plan.headers = {"Content-Type": "text/html"}
            return plan
        key = next((value for name, value in entry["headers"] if name.lower() == "x-api-key"), None)
        if not key:
            return refuse(401, envelope("AUTH_001", "Missing API key"))
        if key not in self.keys:
            return refuse(401)
        job = self.job(entry["job"])
        if job is None:
            return refuse(404)
        job.touched(route, entry["i"])
        if route == "get":
            # A job with `next` statuses takes on one at each GET after the first.
            if job.gets > 1 and job.next:
                job.become(time.time(), job.next.pop(0), entry["i"])
            plan.body = encode({"job_id": job.job_id, "status": job.status})
            return plan
        if job.status in ("completed", "failed") and self.settings["finished_status"] != 200:
            return refuse(self.settings["finished_status"])
        plan.body = encode({"job_id": job.job_id, "message": "Job cancelled successfully"})
        plan.effect = "canceled"
        return plan

    # -- what the admin interface asks ------------------------------------------------------

    def put_job(self, job_id, status, following, finish):
        if not isinstance(job_id, str) or status not in STATUSES:
            raise ValueError(f"a job has a job_id and a status among {', '.join(STATUSES)}")
        if not all(one in STATUSES for one in following):
            raise ValueError("next: a list of statuses")
        if finish is not None and (finish.get("status") not in FINAL or
                                   len(finish.keys() & {"after_ms", "at_cancel", "at_get"}) != 1 or len(finish) != 2):
            raise ValueError("finish: a final status, and one of after_ms, at_cancel, at_get")
        job = self.jobs.get(job_id)
        if job is None:
            job = self.jobs[job_id] = Job(job_id, status)
        else:
            job.become(time.time(), status, None)
        job.next, job.finish, job.due = list(following), finish, []

    def records(self, job_id=None):
        jobs = self.jobs.values() if job_id is None else filter(None, [self.jobs.get(job_id)])
        return [job.record() for job in jobs]

    def counts(self):
        routes = {"cancel": 0, "delete": 0, "get": 0, "other": 0}
        for entry in self.log:
            routes[entry["route"] or "other"] += 1
        statuses = {}
        for job in self.jobs.values():
            job.ripen()
            statuses[job.status] = statuses.get(job.status, 0) + 1
        return {"requests": len(self.log), "routes": routes, "jobs": statuses, "in_flight": self.in_flight,
                "max_in_flight": self.max_in_flight, "connections": len(self.connections),
                "connections_made": self.connections_made, "faults": len(self.script.faults()),
                "to_come": sum(len(job.due) for job in self.jobs.values()),
                "waiting": {gate: len(waiting) for gate, waiting in self.gates.items() if waiting}}
