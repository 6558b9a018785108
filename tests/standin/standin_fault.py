"""The script of faults: which requests each is for, how often, and what goes wrong."""

import base64
import heapq
import json
import re
import time
from email.utils import formatdate

GARBAGE = b"\x00\xff\xfe{\"job_id\": not json\x80\r\n<html>"
HTML = b"<html><body>an intermediary's error page</body></html>"
ROUTES = ("cancel", "delete", "get")
STATUSES = ("pending", "processing", "completed", "failed", "canceled")
EFFECTS = {"none": None, "canceled": "canceled", "completed": "completed", "failed": "failed"}
SELECT = {"job", "prefix", "regex", "on", "when", "times", "skip"}
ACTIONS = {"status", "headers", "body", "body_base64", "envelope", "code", "message", "effect", "effect_after_ms",
           "delay_ms", "gate", "hang", "reset", "truncate", "oversize", "garbage", "job_id", "job_status", "result_bytes",
           "status_last", "retry_after", "retry_after_date", "redirect", "close", "raw", "raw_base64"}


class Fault:
    def __init__(self, script):
        unknown = set(script) - SELECT - ACTIONS
        if unknown:
            raise ValueError(f"unknown members: {', '.join(sorted(unknown))}")
        if sum(name in script for name in ("job", "prefix", "regex")) > 1:
            raise ValueError("one of job, prefix, regex")
        if script.get("effect", "none") not in EFFECTS:
            raise ValueError(f"effect: one of {', '.join(EFFECTS)}")
        if script.get("reset") not in (None, "before", "after"):
            raise ValueError("reset: before or after")
        if script.get("hang") not in (None, False, True, "before", "after"):
            raise ValueError("hang: before or after")
        when = script.get("when", STATUSES)
        self.when = (when,) if isinstance(when, str) else tuple(when)
        if not set(self.when) <= set(STATUSES):
            raise ValueError(f"when: some of {', '.join(STATUSES)}")
        routes = script.get("on", ["cancel", "delete"])
        self.routes = ROUTES if routes == "any" else [routes] if isinstance(routes, str) else routes
        if not set(self.routes) <= set(ROUTES):
            raise ValueError(f"on: any, or some of {', '.join(ROUTES)}")
        self.script = script
        self.regex = re.compile(script["regex"]) if "regex" in script else None
        self.skip = script.get("skip", 0)
        self.left = script.get("times", 1)      # None: for ever
        if self.left is not None and self.left < 1:
            raise ValueError("times: at least 1, or null")
        self.used = 0

    def matches(self, entry, status):
        """Is it for this request, about a job of this status? Counts: a match uses up one of `skip`,
        then one of `times`."""
        script, job = self.script, entry["job"]
        if entry["route"] not in self.routes:
            return False
        if "job" in script and job != script["job"] or "prefix" in script and not job.startswith(script["prefix"]):
            return False
        if self.regex and not self.regex.search(job):
            return False
        if "when" in script and status not in self.when:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        self.used += 1
        return True

    def alter(self, plan, entry, error_body):
        """Change the good answer into what the script says."""
        script = self.script
        if "status" in script:
            self.alter_status(plan, entry, error_body)
        if entry["route"] == "get" and plan.status == 200:
            self.alter_job(plan)
        elif "job_id" in script:
            plan.body = json.dumps({"job_id": script["job_id"], "message": "Job cancelled successfully"}).encode()
        if script.get("garbage"):
            plan.body = GARBAGE
        if "body" in script:
            body = script["body"]
            plan.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        if "body_base64" in script:
            plan.body = base64.b64decode(script["body_base64"])
        if "oversize" in script:
            plan.body = plan.body[:-1] + b" " * script["oversize"] + plan.body[-1:]
        self.alter_headers(plan)
        if "effect" in script:
            plan.effect = EFFECTS[script["effect"]]
        plan.delay_ms = script.get("delay_ms", 0)
        plan.effect_after_ms = script.get("effect_after_ms", 0)
        plan.gate = script.get("gate")
        plan.hang = {True: "before"}.get(script.get("hang"), script.get("hang"))
        plan.reset = script.get("reset")
        plan.truncate = script.get("truncate")
        plan.close = bool(script.get("close"))
        if "raw" in script:
            plan.raw = script["raw"].encode("latin-1")
        if "raw_base64" in script:
            plan.raw = base64.b64decode(script["raw_base64"])

    def alter_status(self, plan, entry, error_body):
        script, status = self.script, self.script["status"]
        plan.status = status
        if status // 100 == 2 and entry["route"] == "get":
            return
        if status // 100 == 2:
            plan.body = json.dumps({"job_id": entry["job"], "message": "Job cancelled successfully"}).encode()
            return
        plan.effect = None
        if not script.get("envelope", True):
            plan.body, plan.headers = HTML, {"Content-Type": "text/html"}
            return
        document = error_body(status)
        document["error"]["code"] = script.get("code", document["error"]["code"])
        document["error"]["message"] = script.get("message", document["error"]["message"])
        plan.body = json.dumps(document).encode()

    def alter_job(self, plan):
        """The members of a job, as GET answers."""
        script, job = self.script, json.loads(plan.body)
        job["job_id"] = script.get("job_id", job["job_id"])
        job["status"] = script.get("job_status", job["status"])
        if "result_bytes" in script:
            job["result"] = {"status": "canceled", "pages": "x" * script["result_bytes"]}
        if script.get("status_last"):
            job["status"] = job.pop("status")
        plan.body = json.dumps(job).encode()

    def alter_headers(self, plan):
        script = self.script
        plan.headers.update(script.get("headers", {}))
        if "retry_after" in script:
            plan.headers["Retry-After"] = str(script["retry_after"])
        if "retry_after_date" in script:
            plan.headers["Retry-After"] = formatdate(time.time() + script["retry_after_date"], usegmt=True)
        if "redirect" in script:
            plan.headers["Location"] = script["redirect"]
            if "status" not in script:
                plan.status, plan.body, plan.effect = 302, b"", None


class Script:
    """Faults in the order in which they were added; those for one job are found without a search."""

    def __init__(self):
        self.added = 0
        self.of_job = {}        # job ID → {number: fault}
        self.of_many = {}       # number: fault

    def add(self, script):
        fault = Fault(script)
        place = self.of_job.setdefault(script["job"], {}) if "job" in script else self.of_many
        place[self.added] = fault
        self.added += 1

    def take(self, entry, status):
        """The fault for this request, which is thereby used once; or None."""
        places = self.of_job.get(entry["job"], {}), self.of_many
        for number, fault in heapq.merge(*(place.items() for place in places)):
            if fault.matches(entry, status):
                if fault.left == 0:
                    for place in places:
                        place.pop(number, None)
                return fault
        return None

    def faults(self):
        """What is left."""
        places = [self.of_many, *self.of_job.values()]
        return [fault for _, fault in heapq.merge(*(place.items() for place in places))]
