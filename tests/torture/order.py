"""The order check: from a trace of system calls, what would be on disk had the power failed at any
moment, and whether every acknowledgement, unlink and line was true of that.

A disk in the worst case keeps of each file what was written before the start of a sync that has
ended, and nothing else. So for each moment that matters, the database is put together from such
bytes, opened with SQLite, and asked.
"""

import json
import os
import re
import sqlite3
from dataclasses import dataclass, field

# "+": it was empty, its name is the job. A long name is in a directory of its own.
CLAIM = re.compile(r"/\.claimed/([0-9a-f-]{36}(?:[-+]|\+?/)([^/]+))$")
WRITES = ("write", "writev", "pwrite64", "pwritev")
SYNCS = ("fsync", "fdatasync")
WITHDRAWN = 9                   # OUTCOME_WITHDRAWN, on disk
SENDS = ("write", "writev", "sendto", "sendmsg", "sendmmsg")


class Before:
    """What the recorded life of the daemon found."""

    def __init__(self, daemon):
        self.database, self.wal = (self._bytes(daemon.database + suffix) for suffix in ("", "-wal"))
        self.logs = [self._bytes(path) for path in (*daemon.rotated, daemon.results) if os.path.exists(path)]

    @staticmethod
    def _bytes(path):
        if not os.path.exists(path):
            return b""
        with open(path, "rb") as file:
            return file.read()


@dataclass
class File:
    """`written` is what the running system sees, `durable` what surely is on disk."""
    written: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list = field(default_factory=list)
    version: int = 0            # of `durable`

    @classmethod
    def of(cls, data):
        return cls(written=bytearray(data), durable=bytearray(data))

    @staticmethod
    def apply(content, change):
        offset, data = change
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
            return
        content.extend(bytes(max(0, offset - len(content))))
        content[offset:offset + len(data)] = data

    def change(self, offset, data):
        """`offset` None: at the end (O_APPEND)."""
        offset = len(self.written) if offset is None else offset
        self.apply(self.written, (offset, data))
        self.pending.append((offset, data))

    def sync(self, count):
        for change in self.pending[:count]:
            self.apply(self.durable, change)
        del self.pending[:count]
        self.version += 1


class Database:
    """queue.db and its WAL, as the daemon wrote them."""

    def __init__(self, scratch, before):
        self.scratch = scratch
        self.file, self.wal = File.of(before.database), File.of(before.wal)
        self.journal = File()           # of the first transaction, which makes it a database with a WAL
        self.journal_there = False      # for sure
        self.journal_names = []         # "made", "gone": not synced yet
        self.cache = {}

    def _read(self, kind, query):
        path = os.path.join(self.scratch, "image.db")
        for suffix, file in (("", self.file), ("-wal", self.wal)):
            with open(path + suffix, "wb") as out:
                out.write(getattr(file, kind))
        try:
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA synchronous = OFF")
                rows = connection.execute(query).fetchall()
            connection.close()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            rows = []
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
        return rows

    def rows(self):
        """{request_id: (origin, n, outcome)} that a power failure leaves."""
        version = self.file.version, self.wal.version
        if self.cache.get("version") != version:
            rows = self._read("durable", "SELECT request_id, origin, n, outcome FROM request")
            self.cache = {"version": version, "rows": {one[0]: one[1:] for one in rows}}
        return self.cache["rows"]

    def held(self):
        return dict(self._read("durable", "SELECT key, value FROM meta WHERE key = 'held'")).get("held", 0)

    def cursor(self):
        """{log_inode, log_offset, log_n} as committed, on disk or not yet."""
        return dict(self._read("written", "SELECT key, value FROM meta WHERE key LIKE 'log%'"))


def objects_in(value):
    """Every object in a JSON document that is about one request."""
    if isinstance(value, dict):
        if "request_id" in value and "job_id" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from objects_in(one)


def lines_of(data):
    for line in data.split(b"\n"):
        if line.startswith((b"{", b"[")):
            yield json.loads(line)


class Check:
    """Walks through the events. `complaints` has what was wrong."""

    def __init__(self, recorded, scratch, on_sync=None):
        self.made_of = recorded, scratch
        daemon, ledger, before = recorded.daemon, recorded.script.ledger, recorded.before
        self.on_sync = on_sync          # called with self as a sync ends, before that counts, and at the end
        self.claimed, self.rejected = daemon.claimed, daemon.rejected
        self.log_path, self.database_path = daemon.results, daemon.database
        self.inodes = recorded.inodes
        self.counts = {name: dropped.count() for name, dropped in ledger.files.items()}
        self.scratch = scratch
        self.complaints = []
        self.seen = {"acknowledgements": 0, "unlinks of claimed files": 0, "lines": 0, "cursors": 0, "claims": 0,
                     "withdrawals": 0, "holds": 0}

        self.database = Database(scratch, before)
        self.logs = [File.of(data) for data in before.logs]     # in the order in which they were opened
        self.log_of = {}                # descriptor → log file
        self.syncing = {}               # id of a sync's event → number of changes it covers
        self.log_at_wal_write = None    # how much of each log was durable when the WAL was written to
        # Database files, which are opened with O_CREAT again and again.
        self.made = {self.database_path} if before.database else set()
        self.unsynced_names = {}        # directory → {name: what it is}, made since its last sync
        self.syncing_names = {}
        self.unsynced_rejects = set()
        self.origins = set()            # names of files of which rows are durable
        self.answered = set()           # request_ids
        self.claims = {}                # name of a file → its name in .claimed
        self.unlinked, self.gone = set(), set()     # claimed files; `gone` for good
        self.cut = {name for name, dropped in ledger.files.items() if dropped.cut() < len(dropped.lines)}
        self.placed = set()             # names in rejected/

    def again(self):
        """A fresh one."""
        return Check(*self.made_of)

    def complain(self, event, text):
        self.complaints.append(f"{text}\n    thread {event.thread}: {event.call}({event.text[:200]}")

    def run(self, events):
        moments = [(event.start, 0, event) for event in events]
        moments += [(event.end, 1, event) for event in events if event.result is not None and event.result >= 0]
        for _, ended, event in sorted(moments, key=lambda moment: moment[:2]):
            if ended and event.call in SYNCS and self.on_sync is not None:
                self.on_sync(self)
            (self.ended if ended else self.begun)(event)
        if self.on_sync is not None:
            self.on_sync(self)
        return self

    # -- before a call takes effect ---------------------------------------------------------

    def begun(self, event):
        number, path = event.descriptor()
        if event.call in SENDS and path.startswith("socket:"):
            self.check_answer(event)
            self.check_admin(event)
        elif event.call in WRITES and number in self.log_of and path.startswith(self.log_path):
            self.check_lines(event)
        elif event.call in WRITES and path == self.database_path + "-wal" and self.log_at_wal_write is None:
            self.log_at_wal_write = [len(log.durable) for log in self.logs]
        elif event.call in ("unlink", "unlinkat"):
            self.check_unlink(event)
        elif event.call in SYNCS:
            self.begin_sync(event, number, path)

    def check_answer(self, event):
        for answer in [one for data in event.strings() for line in lines_of(data) for one in objects_in(line)]:
            self.seen["acknowledgements"] += 1
            self.answered.add(answer["request_id"])
            self.check_names(event, os.path.dirname(self.database_path), "an answer")
            row = self.database.rows().get(answer["request_id"])
            if row is None:
                self.complain(event, f"answered before its row was synced: {answer['request_id']}")
            elif "outcome" in answer and row[1] != answer["n"]:
                self.complain(event, f"outcome told before it was synced: {answer['request_id']}")

    def check_admin(self, event):
        """A hold outlives the process, and so does each withdrawal."""
        for result in [line["result"] for data in event.strings() for line in lines_of(data)
                       if isinstance(line, dict) and isinstance(line.get("result"), dict)]:
            if result.get("withdrawn"):
                self.seen["withdrawals"] += result["withdrawn"]
                have = sum(outcome == WITHDRAWN for _, _, outcome in self.database.rows().values())
                if have < self.seen["withdrawals"]:
                    self.complain(event, f"{self.seen['withdrawals']} withdrawn, and {have} of them synced")
            if isinstance(result.get("held"), bool) and "version" not in result:
                self.seen["holds"] += 1
                if bool(self.database.held()) != result["held"]:
                    self.complain(event, "a hold or release is answered before it was synced")

    def check_lines(self, event):
        for record in [record for data in event.strings() for record in lines_of(data)]:
            self.seen["lines"] += 1
            row = self.database.rows().get(record["request_id"])
            if row is None or row[1] != record["n"]:
                self.complain(event, f"line {record['n']} before its outcome was synced")

    def check_unlink(self, event):
        claim = next((CLAIM.search(path) for path in event.paths() if CLAIM.search(path)), None)
        if claim is None:
            return
        self.seen["unlinks of claimed files"] += 1
        name = claim[2]
        have = sum(origin == name for origin, *_ in self.database.rows().values())
        if have != self.counts.get(name):
            self.complain(event, f"'{name}' is unlinked with {have} of its {self.counts.get(name)} rows synced")
        if name in self.cut:
            self.check_names(event, self.rejected, f"the unlink of '{name}'")
            if self.unsynced_rejects or name not in self.placed:
                self.complain(event, f"'{name}' is unlinked before its rest in rejected/ was synced")

    def unsynced_claims(self):
        """Files whose names in .claimed may still be nowhere but in memory."""
        return {name for directory, names in self.unsynced_names.items() if directory.startswith(self.claimed)
                for name in names}

    def check_names(self, event, directory, what):
        names = self.unsynced_names.get(directory)
        if names:
            self.complain(event, f"{what} before the new names {sorted(names)} in {directory} were synced")

    # -- syncs ------------------------------------------------------------------------------

    def synced_file(self, number, path):
        if path == self.database_path:
            return self.database.file
        if path == self.database_path + "-wal":
            return self.database.wal
        if path == self.database_path + "-journal":
            return self.database.journal
        return self.log_of.get(number) if path.startswith(self.log_path) else None

    def begin_sync(self, event, number, path):
        file = self.synced_file(number, path)
        if file is not None:
            self.syncing[id(event)] = len(file.pending)
        self.syncing_names[id(event)] = (set(self.unsynced_names.get(path, ())), set(self.unlinked),
                                         len(self.database.journal_names))
        if file is self.database.wal:
            self.check_cursor(event)

    def check_cursor(self, event):
        """What the database is about to say of the log must have been true when that was written."""
        durable, self.log_at_wal_write = self.log_at_wal_write, None
        cursor = self.database.cursor()
        if not cursor.get("log_inode") or durable is None:
            return
        self.seen["cursors"] += 1
        at = self.inodes.index(cursor["log_inode"])
        if at >= len(durable) or durable[at] < cursor["log_offset"]:
            self.complain(event, f"cursor {cursor} before the log was synced so far: {durable}")
        for earlier in self.logs[:at]:
            if earlier.pending:
                self.complain(event, "the cursor left a rotated log that was not synced to its end")
        self.check_names(event, os.path.dirname(self.log_path), "a cursor")

    def end_sync(self, event, number, path):
        file = self.synced_file(number, path)
        if file is not None:
            file.sync(self.syncing.pop(id(event)))
        names, unlinked, journal_names = self.syncing_names.pop(id(event))
        if path == os.path.dirname(self.database_path) and journal_names:
            self.database.journal_there = self.database.journal_names[journal_names - 1] == "made"
            del self.database.journal_names[:journal_names]
        if names:
            self.unsynced_names[path] -= names
        if path == self.claimed:
            self.gone |= unlinked
        self.unsynced_rejects.discard(path)
        if file is self.database.wal:
            origins = {origin for origin, *_ in self.database.rows().values()}
            for name in origins - self.origins:
                if name in self.unsynced_claims():
                    self.complain(event, f"rows of '{name}' were synced before the name of its claimed file")
            self.origins = origins

    # -- after a call took effect -----------------------------------------------------------

    def ended(self, event):
        number, path = event.descriptor()
        if event.call in SYNCS:
            self.end_sync(event, number, path)
        elif event.call in WRITES or event.call == "ftruncate":
            self.changed(event, number, path)
        elif event.call == "openat":
            self.opened(event)
        elif event.call.startswith("rename"):
            self.renamed(event)
        elif event.call.startswith("unlink"):
            if event.paths()[-1] == self.database_path + "-journal":
                self.database.journal_names.append("gone")
            self.unlinked |= {claim[2] for claim in map(CLAIM.search, event.paths()) if claim}

    def changed(self, event, number, path):
        file = self.synced_file(number, path)
        if path.startswith(self.rejected + "/") and not path.endswith(".reason"):
            self.unsynced_rejects.add(path)
        if file is None:
            return
        last = int(event.text.rpartition(", ")[2])
        if event.call == "ftruncate":
            file.change(last, None)
            return
        data = b"".join(event.strings())[:event.result]
        file.change(last if event.call.startswith("pwrite") else None, data)

    def opened(self, event):
        path = event.paths()[-1]
        created = "O_CREAT" in event.text
        if created and path == self.database_path + "-journal":
            self.database.journal = File()
            self.database.journal_names.append("made")
        if path == self.log_path and "O_RDWR" in event.text:
            if created:                         # else it was not rotated
                self.logs.append(File())
            self.log_of[event.result] = self.logs[-1]
        elif event.result in self.log_of:
            del self.log_of[event.result]       # closed, and its number given to another file
        if created and path in (self.log_path, self.database_path, self.database_path + "-wal") and \
                (path == self.log_path or path not in self.made):
            self.made.add(path)
            self.unsynced_names.setdefault(os.path.dirname(path), set()).add(os.path.basename(path))

    def renamed(self, event):
        path = event.paths()[-1]
        directory, name = os.path.split(path)
        claim = CLAIM.search(path)
        if claim:
            self.seen["claims"] += 1
            self.claims[claim[2]] = claim[1]
            self.unsynced_names.setdefault(directory, set()).add(claim[2])
            if directory != self.claimed:
                self.unsynced_names.setdefault(self.claimed, set()).add(claim[2])
        elif directory == self.rejected:
            self.placed.add(name)
            self.unsynced_names.setdefault(self.rejected, set()).add(name)


# -- The check is checked: each of these breaks a promise, and has to be noticed -------------------

def _without(calls, suffix):
    def mutate(events):
        return [event for event in events
                if not (event.call in calls and event.descriptor()[1].endswith(suffix))]
    return mutate


def _log_first(events):
    """Each line as if written before the sync that precedes it."""
    swapped = []
    for event in events:
        if event.call == "write" and "/results.log" in event.descriptor()[1]:
            at = next((at for at in range(len(swapped) - 1, -1, -1) if swapped[at].call in SYNCS), None)
            if at is not None:
                place = swapped[at].start - 0.5
                event = type(event)(**{**vars(event), "start": place, "end": place})
        swapped.append(event)
    return swapped


MUTATIONS = {
    "no sync of the WAL": _without(SYNCS, "-wal"),
    "no sync of the results log": _without(SYNCS, "/results.log"),
    "no sync of .claimed": _without(SYNCS, "/.claimed"),
    "no sync of the log's directory": _without(SYNCS, "/log"),
    "lines before their commit": _log_first,
}


def unnoticed(events, make_check):
    """Mutations of a good trace that the check lets pass."""
    return [name for name, mutate in MUTATIONS.items() if not make_check().run(mutate(events)).complaints]
