"""Power failures: what the recorded run had on disk for sure after one of its syncs is laid out anew,
and the daemon started on it."""

import os
import sqlite3
import zlib

from ledger import Ledger, Sent


class Moment:
    """A disk after a power failure, taken from the order check's model.

    In the worst case: nothing is there that was not synced; a rename or unlink that was not synced
    has not happened; of the results log there is a torn end, then NULs, where it had grown."""

    def __init__(self, check, number):
        self.number = number
        self.database = zlib.compress(check.database.file.durable, 1)
        self.wal = zlib.compress(check.database.wal.durable, 1)
        self.logs = [zlib.compress(self.torn(log), 1) for log in check.logs]
        if self.logs and check.unsynced_names.get(os.path.dirname(check.log_path)):
            self.logs.pop()
        self.inodes = check.inodes[:len(self.logs)]
        self.answered = set(check.answered)
        unsynced = check.unsynced_names.get(check.claimed, set())
        self.claims = {name: claim for name, claim in check.claims.items()
                       if name not in unsynced and name not in check.gone}
        self.gone = set(check.gone)
        self.placed = check.cut & check.placed - check.unsynced_names.get(check.rejected, set())

    @staticmethod
    def torn(log):
        grown = len(log.written) - len(log.durable)
        if grown <= 0:
            return bytes(log.durable)
        torn = bytes(log.written[len(log.durable):len(log.durable) + grown // 2])
        return bytes(log.durable) + torn + bytes(grown - len(torn))

    def __str__(self):
        return f"power:{self.number}"

    # -- laid out anew ----------------------------------------------------------------------

    def ledger(self, of):
        """What was promised by then. What lay in the spool unclaimed, or comes only later, is there
        from the beginning."""
        ledger = Ledger()
        ledger.files, ledger.links, ledger.outcomes = of.files, of.links, of.outcomes
        for sent in of.sent:
            known = sent.ids is not None and self.answered.issuperset(sent.ids)
            ledger.sent.append(Sent(sent.jobs, sent.request_id, sent.ids if known else None))
        ledger.cancelled_before = of.jobs()
        return ledger

    def lay(self, daemon, of, rejected):
        """`rejected`: {name: content} of what the recorded run left there."""
        for suffix, data in (("", self.database), ("-wal", self.wal)):
            with open(daemon.database + suffix, "wb") as file:
                file.write(zlib.decompress(data))
        self.lay_logs(daemon)
        os.makedirs(daemon.claimed, mode=0o700, exist_ok=True)
        os.makedirs(daemon.rejected, exist_ok=True)
        for name, dropped in of.files.items():
            if name in self.placed:
                for kind in (name, name + ".reason"):
                    with open(os.path.join(daemon.rejected, kind), "wb") as file:
                        file.write(rejected[kind])
            if name not in self.gone:
                place = os.path.join(daemon.claimed, self.claims[name]) if name in self.claims else \
                    os.path.join(daemon.spool, name)
                with open(place, "wb") as file:
                    file.write(b"".join(line + b"\n" for line in dropped.lines))
        for name in of.links:
            os.symlink("/etc/hostname", os.path.join(daemon.spool, name))

    def lay_logs(self, daemon):
        """The files are new ones, so the cursor in the database has to name them."""
        new_inodes = {}
        for at, data in enumerate(self.logs):
            last = at == len(self.logs) - 1
            path = daemon.results if last else f"{daemon.results}.{at + 1}"
            if not last:
                daemon.rotated.append(path)
            with open(path, "wb") as file:
                file.write(zlib.decompress(data))
            new_inodes[self.inodes[at]] = os.stat(path).st_ino
        with sqlite3.connect(daemon.database) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                old = connection.execute("SELECT value FROM meta WHERE key = 'log_inode'").fetchone()
                if old and old[0] in new_inodes:
                    connection.execute("UPDATE meta SET value = ? WHERE key = 'log_inode'", (new_inodes[old[0]],))
        connection.close()
