"""The model of the model-based test: what was promised, and what the results log must have for it.

No process here: `Books` is told what was asked and what was answered; `reckon()` compares."""

from collections import Counter

MAX_ATTEMPTS = 8
FINISHED = ("completed", "failed")
ALONE = ("expired", "withdrawn")        # others of the chain may go on


class Books:
    def __init__(self):
        self.acked = {}             # request_id → job, for those with an answer and those of lines that name one
        self.maybe = {}             # request_id → job: sent, and no answer came
        self.nameless = Counter()   # job → requests without a request_id of ours that got no answer
        self.groups = []            # `job_ids` without an answer: all of them, or none
        self.files = Counter()      # (origin, job or the bad line, is it bad)
        self.rejected = set()       # names in rejected/
        self.short = set()          # request_ids and jobs that may expire
        self.withdrawn = 0          # as answered
        self.withdrawn_jobs = set()
        self.withdrawals_open = False
        self.retried = set()
        self.results = []           # result lines that were answered to `wait`

    # -- what is promised -------------------------------------------------------------------

    def ack(self, request_id, job):
        known = self.acked.setdefault(request_id, job)
        assert known == job, f"{request_id} was acknowledged for {job}, and for {known} before"
        self.maybe.pop(request_id, None)

    def unanswered(self, request_id, job):
        if request_id is None:
            self.nameless[job] += 1
        elif request_id not in self.acked:
            self.maybe[request_id] = job

    def line(self, origin, job):
        self.files[origin, job, False] += 1

    def bad_line(self, origin, text):
        self.files[origin, text, True] += 1

    def named_line(self, request_id, job):
        """A line with a request_id: one request, whoever else sends the same."""
        self.ack(request_id, job)

    # -- what has come of it ----------------------------------------------------------------

    def reckon(self, records):
        """Exactly one line for each that was acknowledged, and none that nobody asked for."""
        left = {record["request_id"]: record for record in records}
        for request_id, job in self.acked.items():
            record = left.pop(request_id, None)
            assert record is not None, f"{request_id} for {job} was acknowledged, and has no line"
            assert record["job_id"] == job, f"{request_id} is for {job}, and its line for {record['job_id']}"
        lines = Counter()
        for request_id, record in list(left.items()):
            if record["source"] == "spool" and request_id not in self.maybe:
                lines[record["origin"], record["job_id"], record["outcome"] == "invalid"] += 1
                del left[request_id]
        assert lines == self.files, f"files: lines too many {lines - self.files}, missing {self.files - lines}"
        for request_id, job in self.maybe.items():
            record = left.pop(request_id, None)
            assert record is None or record["job_id"] == job, f"{request_id} is for {job}: {record}"
        jobs = Counter(record["job_id"] for record in left.values())
        for group in self.groups:
            found = sum(jobs.pop(job, 0) for job in group)
            assert found in (0, len(group)), f"{found} of {group}, which are all or none"
        assert not jobs - self.nameless, f"lines that nobody asked for: {jobs - self.nameless}: {list(left.values())}"
        self.check_withdrawn(records)
        for result in self.results:
            assert result in records, f"this was answered to `wait`, and is not in the log: {result}"

    def check_withdrawn(self, records):
        count = sum(record["outcome"] == "withdrawn" for record in records)
        if self.withdrawals_open:
            assert count >= self.withdrawn, f"{count} lines say withdrawn, {self.withdrawn} answers did"
        else:
            assert count == self.withdrawn, f"{count} lines say withdrawn, {self.withdrawn} answers did"

    def may_expire(self, record):
        return bool({record["request_id"], record["origin"]} & self.short)


def check_coalesced(records, stepped):
    """Whoever shared an outcome has that of the one whose attempts served it."""
    by_id = {record["request_id"]: record for record in records}
    for record in records:
        if record["coalesced_with"] is None:
            continue
        leader = by_id[record["coalesced_with"]]
        assert leader["coalesced_with"] is None and record["job_id"] == leader["job_id"], (record, leader)
        if record["outcome"] in ALONE:
            continue    # it followed that one until then
        assert record["n"] < leader["n"], (record, leader)
        for name in ("outcome", "http_status", "job_status", "message", "error"):
            assert record[name] == leader[name], f"{name}: {record}, with {leader}"
        assert record["time"] == leader["time"] or stepped, (record, leader)
        assert record["attempts"] <= leader["attempts"], (record, leader)


class Truth:
    """The stand-in's record: an outcome that nothing on the wire explains is wrong."""

    EXPLAINED_BY = {"not_found": (404,), "unauthorized": (401,), "rejected": (410,)}

    def __init__(self, log, jobs):
        self.jobs = jobs
        self.cancels, self.statuses = Counter(), Counter()
        for entry in log:
            if entry["route"] != "get":
                self.cancels[entry["job"]] += 1
            self.statuses[entry["job"], entry["status"], entry["route"] == "get"] += 1

    def reached(self, job):
        return {status for _, status, _ in self.jobs[job]["history"]} if job in self.jobs else set()

    def check(self, records, books):
        ended = Counter()
        for record in records:
            job, outcome = record["job_id"], record["outcome"]
            if outcome == "invalid":
                continue
            assert record["attempts"] <= self.cancels[job], f"{self.cancels[job]} requests on the wire for {record}"
            if outcome == "cancelled":
                assert "canceled" in self.reached(job), f"the job never was: {record}"
            elif outcome == "too_late":
                assert self.reached(job) & set(FINISHED), f"the job never was: {record}"
            elif outcome == "failed":
                assert record["attempts"] == MAX_ATTEMPTS and record["error"] is not None, record
            elif outcome == "expired":
                assert books.may_expire(record), f"its deadline is far: {record}"
            elif outcome == "withdrawn":
                assert job in books.withdrawn_jobs, f"nobody took it back: {record}"
            else:
                assert outcome in self.EXPLAINED_BY, record
            if record["coalesced_with"] is None:
                ended[job, outcome] += 1
        self.check_counts(ended)

    def check_counts(self, ended):
        """No answer ended more than one chain."""
        for (job, outcome), count in ended.items():
            if outcome == "cancelled":
                answers = self.statuses[job, 200, False] + self.statuses[job, 200, True]
            elif outcome in self.EXPLAINED_BY:
                answers = sum(self.statuses[job, status, False] for status in self.EXPLAINED_BY[outcome])
            else:
                continue
            assert count <= answers, f"{job}: {count} chains ended as {outcome}, by {answers} answers"
