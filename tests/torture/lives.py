"""Lives of a daemon that goes through a script: up to a kill, to the end, and with all its system calls
written down."""

import os
import shutil
import stat
import tempfile

from order import Before
from scenario import Script
from script_answers import Answers
from script_control import Control
from script_files import Files
from script_storage import Storage
from traced import TracedDaemon, point_after, points_of, read_events

SCRIPTS = {"flow": Script, "files": Files, "answers": Answers, "control": Control, "storage": Storage}


def make_script(name, home, standin):
    standin.reset()
    kind = SCRIPTS[name]
    daemon = TracedDaemon(standin.url, name="daemon", home=home, user=kind.user, **kind.settings)
    script = kind(daemon, standin)
    script.prepare()
    return daemon, script


def crash(daemon, script, points):
    """The script up to the first point, a restart up to the next one (if any), and so on. True when
    every point came."""
    came = True
    for number, point in enumerate(points):
        daemon.trace_point(os.path.join(daemon.home, f"trace.{number}"), point)
        came = (script.restart() if number else script.run()) and came
    return came


def finish(daemon, script):
    """A restart until idle, without strace, and the reckoning."""
    daemon.trace_nothing()
    assert not script.restart()
    script.ledger.check(daemon, script.standin)


class Recorded:
    """One life with every system call that matters written down: the first one, or the one after
    these crashes. `before` is what it found."""

    def __init__(self, name, standin, points=()):
        self.name = name
        self.home = tempfile.mkdtemp(prefix="pct-", dir="/tmp")
        self.daemon, self.script = make_script(name, self.home, standin)
        try:
            crash(self.daemon, self.script, points)
            if not points:
                self.script.before()
                self.before = Before(self.daemon)
                self.script.marks = []
            self.daemon.trace_whole(os.path.join(self.home, "trace"))
            assert not (self.script.restart() if points else self.script.live(self.script.steps))
            self.events = read_events(self.daemon.trace_path)
            finish(self.daemon, self.script)
            self.points = points_of(self.events, self.daemon.results)
            self.inodes = [os.stat(path).st_ino for path in (*self.daemon.rotated, self.daemon.results)]
            self.rejected = self.read_rejected()
        finally:
            self.daemon.kill()
            self.script.close()

    def read_rejected(self):
        """{name: content}"""
        found = {}
        for name in os.listdir(self.daemon.rejected) if os.path.isdir(self.daemon.rejected) else ():
            path = os.path.join(self.daemon.rejected, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    found[name] = file.read()
        return found

    def marked(self):
        """The points after which restarts are recorded."""
        return list(dict.fromkeys(point_after(self.events, self.daemon.results, *mark) for mark in self.script.marks))

    def remove(self):
        shutil.rmtree(self.home, ignore_errors=True)
