"""What the daemon was given and what it has promised, and whether the results log keeps the promise.

A request is promised once its answer has come, a file once it was closed or renamed in. What was
sent and not answered may be there or not, but never twice, and a `job_ids` call only as a whole.
"""

import os
import re
from dataclasses import dataclass, field

from results import read_results

BAD_LINES_TAKEN = 100


@dataclass
class Sent:
    """One `cancel` on the socket, of one job or of several."""
    jobs: list
    request_id: str = None
    ids: list = None            # the answer's request_ids, in the order of jobs; None: no answer came


@dataclass
class Dropped:
    """A spool file whose content is to be taken, line by line."""
    name: str
    lines: list                 # bytes, without newlines; empty: the name is the job
    job_of: dict = field(default_factory=dict)      # line number → job ID, for the good ones
    bad: list = field(default_factory=list)         # line numbers

    def cut(self):
        """How many lines are taken: up to the 100th bad one."""
        return self.bad[BAD_LINES_TAKEN - 1] if len(self.bad) > BAD_LINES_TAKEN else max(1, len(self.lines))

    def jobs(self):
        return [self.job_of[number] for number in sorted(self.job_of) if number <= self.cut()]

    def bad_taken(self):
        return [number for number in self.bad if number <= self.cut()]

    def count(self):
        return len(self.jobs()) + len(self.bad_taken())


class Ledger:
    def __init__(self):
        self.sent = []
        self.files = {}
        self.links = []         # symbolic links: to be found in rejected/
        self.whole = {}         # name → content of files that are to be rejected as a whole; None: no file
        self.outcomes = {}      # job ID → outcome, or a set of them, where it isn't `cancelled`
        self.cancelled_before = set()   # jobs that the stand-in need not know to be cancelled

    def send(self, jobs, request_id=None):
        self.sent.append(Sent(jobs=jobs, request_id=request_id))
        return self.sent[-1]

    def file(self, name, lines=(), bad=(), job_of=None):
        """`job_of` names the job of a line that isn't just its ID."""
        dropped = Dropped(name=name, lines=[line.encode() for line in lines], bad=sorted(bad))
        if lines:
            dropped.job_of = {number: line.strip() for number, line in enumerate(lines, 1)
                              if number not in bad and line.strip() and not line.startswith("#")}
            dropped.job_of.update(job_of or {})
        else:
            dropped.job_of = {1: name}
        return dropped

    def drop(self, dropped):
        """Call it right after the file is in."""
        self.files[dropped.name] = dropped

    # -- what must have come of it -----------------------------------------------------------

    def jobs(self):
        """Every job that may ever be sent."""
        jobs = {job for sent in self.sent for job in sent.jobs}
        return jobs | {job for dropped in self.files.values() for job in dropped.jobs()}

    def promised(self):
        """How many lines there must be at least."""
        ids = {one for sent in self.sent for one in sent.ids or ()}
        return len(ids) + sum(dropped.count() for dropped in self.files.values())

    def check(self, daemon, standin):
        """Everything, once the daemon is idle. Raises AssertionError."""
        records = read_results(*daemon.rotated, daemon.results)   # whole lines, n without gaps, no ID twice
        by_id = {record["request_id"]: record for record in records}
        left = dict(by_id)
        self._check_socket(by_id, left)
        for dropped in self.files.values():
            self._check_file(dropped, records, left)
        assert not left, f"lines that nobody asked for: {list(left.values())[:5]}"
        self._check_outcomes(records, standin)
        self._check_spool(daemon)

    def _check_socket(self, by_id, left):
        """Takes out of `left` the lines that belong to socket requests."""
        for sent in self.sent:
            if sent.ids is None:
                continue
            for job, request_id in zip(sent.jobs, sent.ids):
                record = by_id.get(request_id)
                assert record is not None, f"acknowledged, but no line: {request_id} for {job}"
                assert record["job_id"] == job and record["source"] == "socket", record
                left.pop(request_id, None)      # a repeated request_id has one line for all its answers
        for sent in self.sent:
            if sent.ids is not None:
                continue
            found = []
            for job in sent.jobs:
                found += [one for one, record in left.items() if record["source"] == "socket"
                          and record["job_id"] == job and sent.request_id in (None, one)][:1]
            assert len(found) in (0, len(sent.jobs)), f"a part of an unanswered call: {sent.jobs}, {found}"
            for one in found:
                del left[one]

    @staticmethod
    def _check_file(dropped, records, left):
        mine = [record for record in records if record["source"] == "spool" and record["origin"] == dropped.name]
        good = sorted(record["job_id"] for record in mine if record["outcome"] != "invalid")
        assert good == sorted(dropped.jobs()), f"{dropped.name}: taken {good}, dropped {sorted(dropped.jobs())}"
        bad = sorted(int(re.match(r"line (\d+): ", record["message"])[1]) for record in mine
                     if record["outcome"] == "invalid")
        assert bad == dropped.bad_taken(), f"{dropped.name}: bad lines {bad}, not {dropped.bad_taken()}"
        for record in mine:
            del left[record["request_id"]]

    def _check_outcomes(self, records, standin):
        jobs = standin.jobs()
        for record in records:
            if record["outcome"] == "invalid":
                continue
            expected = self.outcomes.get(record["job_id"], "cancelled")
            assert record["outcome"] in ({expected} if isinstance(expected, str) else expected), record
            if record["outcome"] == "cancelled" and record["job_id"] not in self.cancelled_before:
                assert jobs[record["job_id"]]["status"] == "canceled", record
        strangers = {entry["job"] for entry in standin.log() if entry["route"]} - self.jobs()
        assert not strangers, f"sent, but asked for by nobody: {strangers}"

    def _check_spool(self, daemon):
        assert daemon.spooled() == [], f"left in the spool: {daemon.spooled()}"
        claimed = os.listdir(daemon.claimed) if os.path.isdir(daemon.claimed) else []
        assert claimed == [], f"left in .claimed: {claimed}"
        rests = {dropped.name: dropped.lines[dropped.cut():] for dropped in self.files.values()
                 if dropped.lines and dropped.cut() < len(dropped.lines)}
        rejected = daemon.reasons()             # asserts that each has its reason
        assert sorted(rejected) == sorted([*rests, *self.links, *self.whole]), f"rejected: {sorted(rejected)}"
        for name in self.links:
            assert os.path.islink(os.path.join(daemon.rejected, name)), name
        for name, data in self.whole.items():
            if data is not None:
                with open(os.path.join(daemon.rejected, name), "rb") as file:
                    assert file.read() == data, f"{name}: not as it was"
        for name, lines in rests.items():
            with open(os.path.join(daemon.rejected, name), "rb") as file:
                assert file.read() == b"".join(line + b"\n" for line in lines), f"{name}: not its rest"
