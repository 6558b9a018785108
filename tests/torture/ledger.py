"""What the daemon was given and what it has promised, and whether the results log keeps the promise.

A request is promised once its answer has come, a file once it was closed or renamed in. What was
sent and not answered may be there or not, but never twice, and a `job_ids` call only as a whole.
"""

import os
import re
import socket
import stat
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

    data: bytes = None          # the whole file, where it isn't just the lines
    after: str = None           # it is another one's rival, which has to come first

    def content(self):
        return self.data if self.data is not None else b"".join(line + b"\n" for line in self.lines)

    def cut(self):
        """How many lines are taken: up to the 100th bad one."""
        return self.bad[BAD_LINES_TAKEN - 1] if len(self.bad) > BAD_LINES_TAKEN else max(1, len(self.lines))

    def jobs(self):
        return [self.job_of[number] for number in sorted(self.job_of) if number <= self.cut()]

    def bad_taken(self):
        return [number for number in self.bad if number <= self.cut()]

    def count(self):
        return len(self.jobs()) + len(self.bad_taken())


@dataclass
class Thing:
    """What is no file of request lines. It goes to rejected/, or is left alone."""
    name: str
    kind: int                   # S_IFREG, S_IFLNK, …
    data: bytes = b""
    mode: int = 0o644
    left: bool = False
    claimed: bool = False       # it lay in .claimed/ when the daemon came

    def make(self, path):
        """By root, so that nobody else may read it without its mode."""
        if self.kind == stat.S_IFLNK:
            os.symlink("/etc/hostname", path)
        elif self.kind == stat.S_IFIFO:
            os.mkfifo(path)
        elif self.kind == stat.S_IFDIR:
            os.mkdir(path)
        elif self.kind == stat.S_IFSOCK:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path)
        else:
            with open(path, "wb") as file:
                file.write(self.data)
            os.chmod(path, self.mode)

    def is_at(self, path):
        if stat.S_IFMT(os.lstat(path).st_mode) != self.kind:
            return False
        if self.kind != stat.S_IFREG:
            return True
        with open(path, "rb") as file:
            return file.read() == self.data


class Ledger:
    def __init__(self):
        self.sent = []
        self.files = {}
        self.links = []         # symbolic links: to be found in rejected/
        self.things = {}        # others that are no files of request lines, by their names
        self.withdrawn = set()  # request_ids whose withdrawal was answered
        self.past = {}          # request_id → job, of lines from before the script
        self.outcomes = {}      # job ID → outcome, or a set of them, where it isn't `cancelled`
        self.cancelled_before = set()   # jobs that the stand-in need not know to be cancelled

    def send(self, jobs, request_id=None):
        self.sent.append(Sent(jobs=jobs, request_id=request_id))
        return self.sent[-1]

    def file(self, name, lines=(), bad=(), job_of=None, data=None, after=None):
        """`job_of` names the job of a line that isn't just its ID; `data` is the file as it is."""
        dropped = Dropped(name=name, lines=[line.encode() for line in lines], bad=sorted(bad), data=data, after=after)
        if lines:
            dropped.job_of = {number: line.strip() for number, line in enumerate(lines, 1)
                              if number not in bad and line.strip() and not line.startswith("#")}
            dropped.job_of.update(job_of or {})
        elif not bad:
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
        return len(self.past) + len(ids) + sum(dropped.count() for dropped in self.files.values())

    def check(self, daemon, standin):
        """Everything, once the daemon is idle. Raises AssertionError."""
        records = read_results(*daemon.rotated, daemon.results)   # whole lines, n without gaps, no ID twice
        by_id = {record["request_id"]: record for record in records}
        left = dict(by_id)
        for request_id, job in self.past.items():
            assert left.pop(request_id)["job_id"] == job
        for request_id in self.withdrawn:
            assert by_id[request_id]["outcome"] == "withdrawn", by_id[request_id]
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
            if record["outcome"] == "invalid" or record["request_id"] in self.past:
                continue
            expected = self.outcomes.get(record["job_id"], "cancelled")
            assert record["outcome"] in ({expected} if isinstance(expected, str) else expected), record
            if record["outcome"] == "cancelled" and record["job_id"] not in self.cancelled_before:
                assert jobs[record["job_id"]]["status"] == "canceled", record
        strangers = {entry["job"] for entry in standin.log() if entry["route"]} - self.jobs()
        assert not strangers, f"sent, but asked for by nobody: {strangers}"

    def left(self):
        """What stays in the spool for good."""
        return sorted(thing.name for thing in self.things.values() if thing.left)

    def _remove_unfinished(self, daemon):
        """A reason that was being written for something that wasn't claimed, and so has another UUID the
        next time. tmpfiles.d takes it away."""
        if any(thing.claimed for thing in self.things.values()) and os.path.isdir(daemon.rejected):
            for name in os.listdir(daemon.rejected):
                if re.fullmatch(r"\.[0-9a-f-]{36}\.reason", name):
                    os.unlink(os.path.join(daemon.rejected, name))

    def _check_spool(self, daemon):
        assert daemon.spooled() == self.left(), f"left in the spool: {daemon.spooled()}"
        claimed = os.listdir(daemon.claimed) if os.path.isdir(daemon.claimed) else []
        assert claimed == [], f"left in .claimed: {claimed}"
        rests = {dropped.name: dropped.lines[dropped.cut():] for dropped in self.files.values()
                 if dropped.lines and dropped.cut() < len(dropped.lines)}
        self._remove_unfinished(daemon)
        rejected = daemon.reasons()             # asserts that each has its reason
        moved = [thing.name for thing in self.things.values() if not thing.left]
        assert sorted(rejected) == sorted([*rests, *self.links, *moved]), f"rejected: {sorted(rejected)}"
        for name in self.links:
            assert os.path.islink(os.path.join(daemon.rejected, name)), name
        for thing in self.things.values():
            assert thing.is_at(os.path.join(daemon.spool if thing.left else daemon.rejected, thing.name)), thing
        for name, lines in rests.items():
            with open(os.path.join(daemon.rejected, name), "rb") as file:
                assert file.read() == b"".join(line + b"\n" for line in lines), f"{name}: not its rest"
