"""All kinds of things that lie in a spool, for a daemon that isn't root."""

import os
import stat

from scenario import SETTINGS, Script

NOBODY = 65534
OVERSIZED = "x" * 100000


class Files(Script):
    settings = {**SETTINGS, "spool": {"settle_ms": 20, "max_file_bytes": 200000}}
    gates = []
    user = NOBODY

    def world(self):
        pass

    def before(self):
        """What a former life left in .claimed/ under a name that it never gave is here, too."""
        self.lines_of_all_kinds("early")
        os.mkdir(self.daemon.claimed, 0o700)
        os.chown(self.daemon.claimed, NOBODY, NOBODY)
        self.place("stray", stat.S_IFREG, data=b"stray-1\n", claimed=True)
        self.place("early-fifo", stat.S_IFIFO)
        self.place("early-directory", stat.S_IFDIR, left=True)

    def steps(self):
        self.client = self.daemon.client()
        self.names()
        self.lines_of_all_kinds("late")
        self.refused()
        self.left_alone()
        self.written_slowly()
        self.linked()
        self.one_request_twice()
        self.many()
        self.stop()

    def names(self):
        self.drop("empty-1")
        self.drop("two words", bad=[1])
        self.drop("#remark", bad=[1])
        self.drop("a name with blanks", ["named-1", "named-2"])
        self.drop("n" * 255, ["long-name-1"])
        self.settled()

    def lines_of_all_kinds(self, when):
        jobs = [f"{when}-{number}" for number in range(1, 4)]
        self.drop(f"{when}-crlf", jobs, data="".join(f"{job}\r\n" for job in jobs).encode())
        self.drop(f"{when}-unended", jobs, data="\n".join(jobs).encode())
        self.drop(f"{when}-oversized", [jobs[0], OVERSIZED, jobs[2]], bad=[2])
        self.drop(f"{when}-blank", ["", "", "# nothing"])

    def refused(self):
        """To rejected/, whole."""
        self.mark("renameat2")
        self.place("nul", stat.S_IFREG, data=b"job-1\njob-2\nx\0y\n")
        self.place("unreadable", stat.S_IFREG, data=b"secret-1\n", mode=0)
        self.place("large", stat.S_IFREG, data=b"job\n" * 60000)
        self.place("fifo", stat.S_IFIFO)
        self.place("socket", stat.S_IFSOCK)
        os.symlink("/etc/hostname", os.path.join(self.daemon.spool, "link"))
        self.ledger.links.append("link")
        self.until(self.idle, lambda: f"all is taken: {self.daemon.spooled()}")

    def left_alone(self):
        for name in (".hidden", "unfinished.tmp", "unfinished.part", "backup~"):
            self.place(name, stat.S_IFREG, data=b"not-sent\n", left=True)
        self.place("directory", stat.S_IFDIR, left=True)
        self.drop("beside-1")
        self.settled()

    def written_slowly(self):
        """Open in the spool while others come and go; it counts from when it is closed."""
        dropped = self.ledger.file("slow", ["slow-1", "slow-2", "slow-3"])
        with open(os.path.join(self.daemon.spool, "slow"), "wb") as file:
            os.fchown(file.fileno(), NOBODY, NOBODY)
            file.write(b"slow-1\nslow")
            file.flush()
            try:
                self.drop("meanwhile-1")
                self.settled()
            finally:        # whatever became of the daemon
                file.write(b"-2\nslow-3\n")
                self.ledger.drop(dropped)
        self.settled()

    def linked(self):
        """Another name outside of the spool stays what it is."""
        self.drop("linked", ["linked-1", "linked-2"])
        self.settled()
        outside = os.path.join(self.daemon.home, "outside")
        with open(outside, "wb") as file:
            os.fchown(file.fileno(), NOBODY, NOBODY)
            file.write(b"linked-3\nlinked-4\n")
        dropped = self.ledger.file("linked-again", ["linked-3", "linked-4"])
        os.link(outside, os.path.join(self.daemon.spool, "linked-again"))
        self.ledger.drop(dropped)
        self.settled()
        with open(outside, "rb") as file:
            assert file.read() == b"linked-3\nlinked-4\n"

    def one_request_twice(self):
        self.drop("first", ['{"job_id": "owned-1", "request_id": "owned"}'], job_of={1: "owned-1"})
        self.settled()
        self.drop("second", ['{"job_id": "other-1", "request_id": "owned"}', "other-2"], bad=[1], after="first")
        self.settled()

    def many(self):
        self.mark("unlinkat")
        for number in range(12):
            self.drop(f"small-{number}", [f"small-{number}-1", f"small-{number}-2"])
        for number in range(12):
            self.drop(f"named-{number}-1")
        self.settled()
