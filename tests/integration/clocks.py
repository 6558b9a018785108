"""Other clocks for a daemon, by a library that is preloaded into it (clocks.c): the wall clock is set,
the machine sleeps, days pass while it runs."""

import mmap
import os
import shutil
import struct
import subprocess
import tempfile

from waiting import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
SECOND_NS = 10 ** 9


def available():
    """Why not, or None. ThreadSanitizer has to be the first to see a lock."""
    if "thread" in os.environ.get("PULSE_SANITIZE", ""):
        return "the library of other clocks gets between the daemon and TSan"
    if not shutil.which("cc"):
        return "cc makes the library of other clocks"
    return None


class Clocks:
    """A context; `environment` is for `Daemon(environment=…)`, and for a stand-in that shall see the
    same time in its log."""

    PAGE = struct.Struct("@4q")     # as in clocks.c
    WALL, BOOT, ALL, UNTIL = range(4)

    def __enter__(self):
        self.home = tempfile.mkdtemp(prefix="pcc-", dir="/tmp")
        library = os.path.join(self.home, "clocks.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library,
                        os.path.join(HERE, "clocks.c"), "-ldl"], check=True)
        path = os.path.join(self.home, "page")
        with open(path, "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self.page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        pipe = os.path.join(self.home, "pipe")
        os.mkfifo(pipe)
        self.pipe = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self.environment = {"PULSE_TEST_CLOCKS_PIPE": pipe, "LD_PRELOAD": library, "PULSE_TEST_CLOCKS": path,
                            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
        return self

    def __exit__(self, *_exc):
        self.page.close()
        os.close(self.pipe)
        shutil.rmtree(self.home, ignore_errors=True)

    def reset(self):
        self.page[:self.PAGE.size] = bytes(self.PAGE.size)

    def _get(self, which):
        return struct.unpack_from("@q", self.page, 8 * which)[0]

    def _set(self, which, value):
        struct.pack_into("@q", self.page, 8 * which, value)

    def set_wall(self, seconds):
        """The wall clock is set to so much more than the machine's, or less."""
        self._set(self.WALL, int(seconds * SECOND_NS))

    def sleep(self, seconds):
        """As if the machine had slept for so long: CLOCK_MONOTONIC stands still, timers too."""
        self._set(self.BOOT, self._get(self.BOOT) + int(seconds * SECOND_NS))
        os.write(self.pipe, bytes(8))

    def passed(self):
        """Seconds that were skipped."""
        return self._get(self.ALL) / SECOND_NS

    def live(self, daemon, seconds, timeout_s=60):
        """The daemon lives through so much time, at once where it only waits."""
        until = self._get(self.ALL) + int(seconds * SECOND_NS)
        self._set(self.UNTIL, until)
        # If it sleeps already it does not know.
        daemon.call("ping")
        wait_until(lambda: self._get(self.ALL) >= until, lambda: f"{seconds} s have passed, of which {self.passed()}",
                   timeout_s)
