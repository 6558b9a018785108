"""The truth test's reckoning: the stand-in's record of each job against its result lines.

Under `ambiguous` a wrong outcome is an *exception* when nothing that the API said could have told,
or when nobody asked because nothing looked doubtful; what is no such case is a violation. The log of
the stand-in decides that, not the kind of the job. Under `always` there are no exceptions."""

FINISHED = ("completed", "failed")
SLACK_S = 0.02      # between two processes that look at one clock
TOO_SLOW = "the stand-in itself was too slow for a look"    # on a busy machine; not many of these


class Reckoning:
    def __init__(self, verify, truth, log, kills):
        self.verify = verify
        self.truth = truth          # job ID → the stand-in's record; a job that is unknown has none
        self.kills = kills          # times
        self.of_job = {}
        for entry in log:
            self.of_job.setdefault(entry["job"], []).append(entry)

    def status(self, job):
        return self.truth[job]["status"] if job in self.truth else None

    def judge(self, record, accepted_at, done_at):
        """(None or what is wrong, None or the kind of exception that it is)."""
        job, outcome = record["job_id"], record["outcome"]
        truth = self.status(job)
        if outcome == "cancelled" and truth != "canceled":
            wrong = f"cancelled, but the job is {truth}"
        elif outcome in ("failed", "not_found") and truth == "canceled":
            wrong = f"{outcome}, but the job is canceled"
        elif outcome in ("rejected", "forbidden") and truth == "canceled":
            # True, in its way; told so that it is known.
            return f"{outcome}, but the job is canceled", "final, and nothing to ask about"
        elif outcome == "too_late" and truth not in FINISHED:
            return f"too_late, but the job is {truth}", None
        else:
            return None, None
        if self.verify == "never":
            return wrong, "not asked"
        if outcome != "cancelled" and any(was_too_slow(entry) for entry in self.of_job[job] if
                                          accepted_at - SLACK_S <= entry["time"]):
            return wrong, TOO_SLOW
        if self.verify == "always":
            return wrong, None
        chain = [entry for entry in self.of_job[job] if accepted_at - SLACK_S <= entry["time"] and
                 (entry["time"] <= done_at + SLACK_S or is_late_look(entry))]
        if outcome == "cancelled":
            return wrong, self.believed_wrongly(job, chain)
        return wrong, self.not_seen(job, outcome, chain)

    def believed_wrongly(self, job, chain):
        """Excused by a 200 that names the job, unless something had said before that it is finished."""
        cancels = [entry for entry in chain if entry["route"] != "get" and entry["answer"] is not None]
        if not cancels or not is_believable(cancels[-1]):
            return None
        last = cancels[-1]
        for entry in chain:
            if self.told(job, entry) in FINISHED and entry["time"] < last["time"] and \
                    not self.killed_between(entry["time"], last["time"]):
                return None
        at, status, _ = self.truth[job]["history"][-1]
        if status not in FINISHED:
            return "200, and the job just goes on"
        return "200 for a job that had finished" if at <= last["time"] else "200, and the job finished first"

    def not_seen(self, job, outcome, chain):
        """Excused when a look at the job could not tell, or when there was no reason for a look."""
        cancels = [entry for entry in chain if entry["route"] != "get" and entry["answer"] != "client left"]
        last = max((entry["i"] for entry in chain if entry["route"] != "get"), default=-1)
        looks = [entry for entry in chain if entry["route"] == "get" and entry["i"] > last]
        if looks:
            told = [self.told(job, entry) for entry in looks]
            if "canceled" in told:
                return None
            if any(told):
                return "the cancel took effect after the last look"
            if outcome == "not_found" and all(entry["status"] == 404 and has_envelope(entry) for entry in looks):
                return "404 for the cancel and for GET"
            return "the last look was not answered well"
        if outcome == "not_found" and not any(is_doubtful(entry) for entry in cancels):
            return "404 at first, for a job that was canceled before"
        if outcome == "failed" and cancels and cancels[-1]["status"] in (408, 425, 429):
            return "turned away at the last attempt"
        return None

    def told(self, job, entry):
        """The status that this answer to a GET told, if it did."""
        fault = entry["fault"] or {}
        if entry["route"] != "get" or entry["answer"] is None or entry["status"] != 200:
            return None
        # A long body is cut off by the client, which has read the status by then.
        if set(fault) - {"job", "on", "times", "when", "result_bytes"}:
            return None
        told = None
        for at, status, by in self.truth[job]["history"]:
            if at <= entry["time"] or by == entry["i"]:
                told = status
        return told

    def killed_between(self, begin, end):
        return any(begin - SLACK_S <= at <= end + SLACK_S for at in self.kills)


def is_late_look(entry):
    """A GET that the daemon gave up, and that was read only then."""
    return entry["route"] == "get" and entry["answer"] == "client left"


def was_too_slow(entry):
    """Nobody told the stand-in not to answer this GET. Of a long body only the beginning is taken."""
    return is_late_look(entry) and not (entry["fault"] or {}).keys() & {"hang", "delay_ms", "result_bytes"}


def has_envelope(entry):
    return (entry["fault"] or {}).get("envelope", True) and not (entry["fault"] or {}).keys() & {"garbage", "body"}


def is_believable(entry):
    """A whole 200 that names our job, as far as the stand-in knows."""
    spoilt = {"garbage", "job_id", "body", "oversize", "raw", "truncate", "reset", "hang"}
    return entry["answer"] == "200" and not spoilt & set(entry["fault"] or {})


def is_doubtful(entry):
    """After such an answer the job may be canceled."""
    if entry["status"] is None or entry["answer"] != str(entry["status"]):
        return True
    return entry["status"] >= 500 or entry["status"] // 100 == 2


class Table:
    """Kinds of jobs by outcomes, and what was wrong."""

    OUTCOMES = ["cancelled", "too_late", "not_found", "forbidden", "rejected", "failed", "expired"]

    def __init__(self):
        self.counts = {}
        self.exceptions = {}
        self.wrong = {}

    def add(self, kind, outcome, exception):
        row = self.counts.setdefault(kind, {})
        row[outcome] = row.get(outcome, 0) + 1
        if exception is not None:
            self.wrong[kind] = self.wrong.get(kind, 0) + 1

    def too_slow(self):
        return sum(count for (_, exception), count in self.exceptions.items() if exception == TOO_SLOW)

    def note(self, wrong, exception):
        name = (wrong.split(",")[0], exception)
        self.exceptions[name] = self.exceptions.get(name, 0) + 1

    def text(self, kinds):
        others = sorted({outcome for row in self.counts.values() for outcome in row} - set(self.OUTCOMES))
        names = [name for name in self.OUTCOMES + others if any(name in row for row in self.counts.values())]
        lines = ["| kind | " + " | ".join(names) + " | untold |", "|---" * (len(names) + 2) + "|"]
        for kind in kinds:
            if kind in self.counts:
                cells = [str(self.counts[kind].get(name, "")) for name in names] + [str(self.wrong.get(kind, ""))]
                lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        return "\n".join(lines)
