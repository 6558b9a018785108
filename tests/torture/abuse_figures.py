"""What the daemon costs while it is abused, sampled from /proc, and what it may cost at most.

Samples are for a table and for limits; a process that is killed has its peak in VmHWM of the last one.
"""

import os
import re
import threading
import time

MIB = 1 << 20
INTERVAL_S = 0.2


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    return {"rss": int(fields["VmRSS"].split()[0]) * 1024, "peak": int(fields["VmHWM"].split()[0]) * 1024,
            "threads": int(fields["Threads"])}


def anonymous_of(pid):
    """Bytes that are the process's own."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Anonymous: +(\d+) kB", file.read(), re.MULTILINE)[1]) * 1024


def descriptors_of(pid):
    """(all, those that are sockets)"""
    sockets, names = 0, os.listdir(f"/proc/{pid}/fd")
    for name in names:
        try:
            sockets += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return len(names), sockets


def size_of(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


class Phase:
    """The highest of each figure."""

    MEASURES = ("pending", "peak", "anonymous", "descriptors", "threads", "wal", "database")

    def __init__(self, name, results):
        self.name, self.begin, self.end = name, time.monotonic(), None
        self.results = -results
        self.samples = 0
        self.most = dict.fromkeys(self.MEASURES, 0)

    def note(self, **figures):
        self.samples += 1
        for name, value in figures.items():
            self.most[name] = max(self.most[name], value)


class Figures:
    """Samples in a thread of its own from start() to stop()."""

    def __init__(self, daemon, results):
        self.daemon, self.results = daemon, results
        self.phases = []
        self.pending = 0            # at the last look
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        self.ending.set()
        self.thread.join()
        self.end_phase()

    def end_phase(self):
        if self.phases and self.phases[-1].end is None:
            self.phases[-1].end = time.monotonic()
            self.phases[-1].results += self.results()

    def phase(self, name):
        self.end_phase()
        self.phases.append(Phase(name, self.results()))

    def run(self):
        while not self.ending.wait(INTERVAL_S):
            process = self.daemon.process
            if process is not None:
                try:
                    self.sample(process.pid)
                except (OSError, KeyError, TypeError, AssertionError, ValueError):
                    pass    # it was killed meanwhile; check() asks for samples of each phase

    def sample(self, pid):
        status = status_of(pid)
        self.phases[-1].note(peak=status["peak"], threads=status["threads"], anonymous=anonymous_of(pid),
                             descriptors=descriptors_of(pid)[0], wal=size_of(self.daemon.database + "-wal"),
                             database=size_of(self.daemon.database))
        self.pending = sum(self.daemon.call("stats")["pending"].values())
        self.phases[-1].note(pending=self.pending)

    def check(self, limits):
        """`limits` name the most of each figure that may be."""
        for phase in self.phases:
            assert phase.samples > 0, f"{phase.name}: no sample"
            for name, limit in limits.items():
                assert phase.most[name] <= limit, f"{phase.name}: {name} {phase.most[name]}, limit {limit}"

    def table(self):
        rows = ["| phase | seconds | results | most pending | memory, peak | its own | descriptors | WAL | database |",
                "|---|---|---|---|---|---|---|---|---|"]
        for phase in self.phases:
            most = {name: value / MIB if name in ("peak", "anonymous", "wal", "database") else value
                    for name, value in phase.most.items()}
            rows.append(f"| {phase.name} | {phase.end - phase.begin:.0f} | {phase.results} | {most['pending']} "
                        f"| {most['peak']:.0f} MiB | {most['anonymous']:.0f} MiB | {most['descriptors']} "
                        f"| {most['wal']:.1f} MiB | {most['database']:.0f} MiB |")
        return "\n".join(rows)
