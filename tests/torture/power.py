"""Power failures: what a disk may have kept of the recorded run at one of its syncs is laid out anew,
and the daemon started on it."""

import hashlib
import os
import subprocess
import sys
import zlib

from ledger import Ledger, Sent
from order import File

SUBSETS_OF = 4          # so many unsynced changes: each subset is tried
SAMPLES = 3             # with more: so many of each kind
TORN = 2                # changes a moment that are torn
SECTOR = 512
NAME_LOGS = """
import ast, os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
inodes = ast.literal_eval(sys.argv[2])
if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
    old = dict(connection.execute("SELECT key, value FROM meta")).get("log_inode")
    if old in inodes:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'log_inode'", (inodes[old],))
        connection.commit()
os._exit(0)
"""


def grouped(pending):
    """Changes of a file that belong together: a small write (a frame's header) and what follows it."""
    groups, join = [], None
    for offset, data in pending:
        if join is not None and offset == join:
            groups[-1].append((offset, data))
        else:
            groups.append([(offset, data)])
        join = offset + len(data) if data is not None and len(data) < SECTOR else None
    return groups


def by_sector(pending):
    """Changes of a file that is only appended to: no sector is without what came before in it."""
    groups, last = [], None
    for offset, data in pending:
        if data is None:
            groups.append([(offset, None)])
            last = None
            continue
        for piece in sectors((offset, data), lambda number, count: True):
            sector = piece[0] // SECTOR
            if sector == last:
                groups[-1].append(piece)
            else:
                groups.append([piece])
            last = sector
    return groups


def sectors(change, keep):
    """Of a write, those parts whose sectors are kept: `keep(number, count)`."""
    offset, data = change
    first, last = offset // SECTOR, (offset + len(data) - 1) // SECTOR
    for sector in range(first, last + 1):
        if keep(sector - first, last - first + 1):
            begin, end = max(offset, sector * SECTOR), min(offset + len(data), (sector + 1) * SECTOR)
            yield begin, data[begin - offset:end - offset]


TEARS = {"its first half": lambda number, count: number < (count + 1) // 2,
         "its second half": lambda number, count: number >= count // 2,
         "every other sector": lambda number, count: number % 2 == 0}


class Moment:
    """The recorded run as one of its syncs was about to end: what surely was on disk, and the changes
    since (`loose`), of which a disk may have kept any. (place, what): in a file, or of a name."""

    def __init__(self, check, number):
        self.number = number
        self.files = {"database": check.database.file, "wal": check.database.wal, "journal": check.database.journal}
        self.files.update({f"log {at}": log for at, log in enumerate(check.logs)})
        self.loose = [(place, group) for place, file in self.files.items()
                      for group in (by_sector if place.startswith("log") else grouped)(file.pending)]
        self.inodes = check.inodes[:len(check.logs)]
        self.answered = set(check.answered)
        unsynced = check.unsynced_claims()
        self.claims = {name: claim for name, claim in check.claims.items() if name not in check.gone}
        self.sure = {("claim", name) for name in self.claims if name not in unsynced}
        self.sure |= {("gone", name) for name in check.gone}
        placed, loose_placed = check.cut & check.placed, check.unsynced_names.get(check.rejected, set())
        self.sure |= {("placed", name) for name in placed - loose_placed}
        new_log = bool(check.unsynced_names.get(os.path.dirname(check.log_path))) and len(check.logs) > 0
        if check.logs and not new_log:
            self.sure.add(("log", ""))
        names = [("claim", name) for name in self.claims if name in unsynced]
        names += [("gone", name) for name in check.unlinked - check.gone]
        names += [("placed", name) for name in placed & loose_placed]
        names += [("log", "")] if new_log else []
        names += [("journal", f"{at} {what}") for at, what in enumerate(check.database.journal_names)]
        if check.database.journal_there:
            self.sure.add(("journal", ""))
        self.loose += [("name", name) for name in sorted(names)]

    def images(self, known):
        """Those that no earlier moment had, known by the digests in `known`; the bytes are kept packed."""
        made = []
        self.digests = {place: hashlib.blake2b(file.durable).digest() for place, file in self.files.items()}
        for kept, tear in self.choices():
            image = Image(self, kept, tear)
            digest = image.digest()
            if digest in known:
                continue
            known.add(digest)
            made.append(image)
            image.index = len(made)
        self.base = {place: zlib.compress(file.durable, 1) for place, file in self.files.items()}
        self.files = self.digests = None
        return made

    def choices(self):
        """(indices of what is kept, (index, how it is torn) or None)"""
        every = range(len(self.loose))
        if len(every) <= SUBSETS_OF:
            kept = [[at for at in every if bits >> at & 1] for bits in range(1 << len(every))]
        else:
            step = max(1, len(every) // SAMPLES)
            some = every[::step]
            kept = [[], list(every)] + [list(every[:at]) for at in some]
            kept += [[one for one in every if one != at] for at in some] + [[at] for at in some]
        yield from ((tuple(one), None) for one in kept)
        writes = [at for at in every if self.loose[at][0] in ("database", "wal") and self.loose[at][1][-1][1]]
        for at in writes[-TORN:]:
            for tear in TEARS:
                yield tuple(every[:at]), (at, tear)


class Image:
    """A disk after a power failure: what was sure, and of the rest what was kept."""

    def __init__(self, moment, kept, tear):
        self.moment, self.kept, self.tear = moment, kept, tear
        self.index = 0

    def __str__(self):
        return f"power:{self.moment.number}.{self.index}"

    def content(self, place, durable):
        data = bytearray(durable)
        for at in self.kept:
            if self.moment.loose[at][0] == place:
                for change in self.moment.loose[at][1]:
                    File.apply(data, change)
        if self.tear is not None and self.moment.loose[self.tear[0]][0] == place:
            for offset, written in self.moment.loose[self.tear[0]][1]:
                self.apply_torn(data, offset, written)
        return data

    def apply_torn(self, data, offset, written):
        """What it did not get of its new length are NULs."""
        end = offset + len(written)
        for change in sectors((offset, written), TEARS[self.tear[1]]):
            File.apply(data, change)
        data.extend(bytes(max(0, end - len(data))))

    def names(self):
        return self.moment.sure | {self.moment.loose[at][1] for at in self.kept if self.moment.loose[at][0] == "name"}

    def has_journal(self):
        """The last of the changes to its name that came to the disk decides."""
        names = sorted(what for kind, what in self.names() if kind == "journal")
        return bool(names) and not names[-1].endswith("gone")

    def digest(self):
        """Before the moment is packed."""
        whole = hashlib.blake2b(repr(sorted(self.names())).encode())
        changed = {self.moment.loose[at][0] for at in (*self.kept, *(self.tear or ())[:1])}
        for place, file in self.moment.files.items():
            if place == f"log {len(self.moment.inodes) - 1}" and ("log", "") not in self.names():
                continue
            if place == "journal" and not self.has_journal():
                continue
            whole.update(place.encode())
            whole.update(hashlib.blake2b(self.content(place, file.durable)).digest() if place in changed
                         else self.moment.digests[place])
        return whole.digest()

    # -- laid out anew ----------------------------------------------------------------------

    def ledger(self, of):
        """What was promised by then. What lay in the spool unclaimed, or comes only later, is there
        from the beginning."""
        ledger = Ledger()
        ledger.files, ledger.links, ledger.outcomes = self.files(of), of.links, of.outcomes
        ledger.things, ledger.past = of.things, of.past
        for sent in of.sent:
            known = sent.ids is not None and self.moment.answered.issuperset(sent.ids)
            ledger.sent.append(Sent(sent.jobs, sent.request_id, sent.ids if known else None))
        ledger.cancelled_before = of.jobs()
        return ledger

    def files(self, of):
        """Not those that would come too early."""
        names = self.names()
        return {name: dropped for name, dropped in of.files.items()
                if dropped.after is None or ("gone", dropped.after) in names}

    def lay(self, daemon, of, rejected):
        """`rejected`: {name: content} of what the recorded run left there."""
        content = {place: self.content(place, zlib.decompress(packed)) for place, packed in self.moment.base.items()}
        names = self.names()
        for suffix, place in (("", "database"), ("-wal", "wal"), ("-journal", "journal"))[:3 if self.has_journal() else 2]:
            with open(daemon.database + suffix, "wb") as file:
                file.write(content[place])
        self.lay_logs(daemon, [content[f"log {at}"] for at in range(len(self.moment.inodes))], names)
        os.makedirs(daemon.claimed, mode=0o700, exist_ok=True)
        os.makedirs(daemon.rejected, exist_ok=True)
        for name, dropped in self.files(of).items():
            if ("placed", name) in names:
                for kind in (name, name + ".reason"):
                    with open(os.path.join(daemon.rejected, kind), "wb") as file:
                        file.write(rejected[kind])
            if ("gone", name) not in names:
                place = os.path.join(daemon.claimed, self.moment.claims[name]) if ("claim", name) in names else \
                    os.path.join(daemon.spool, name)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "wb") as file:
                    file.write(dropped.content())
        for name in of.links:
            os.symlink("/etc/hostname", os.path.join(daemon.spool, name))
        for thing in of.things.values():
            thing.make(os.path.join(daemon.claimed if thing.claimed else daemon.spool, thing.name))

    def lay_logs(self, daemon, logs, names):
        """The files are new ones. Where some are rotated, the cursor in the database has to name them."""
        inodes = self.moment.inodes
        if ("log", "") not in names:
            logs = logs[:-1]
        new_inodes = {}
        for at, data in enumerate(logs):
            path = daemon.results if at == len(logs) - 1 else f"{daemon.results}.{at + 1}"
            if path != daemon.results:
                daemon.rotated.append(path)
            with open(path, "wb") as file:
                file.write(data)
            new_inodes[inodes[at]] = os.stat(path).st_ino
        if len(logs) > 1:
            self.name_logs(daemon.database, new_inodes)

    @staticmethod
    def name_logs(database, new_inodes):
        """Committed behind what is in the WAL, which stays: a connection that is closed would empty it, so
        this one ends with its process."""
        done = subprocess.run([sys.executable, "-c", NAME_LOGS, database, repr(new_inodes)], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
