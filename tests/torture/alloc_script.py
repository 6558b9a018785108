"""A daemon in which one allocation fails, and how it may end."""

import os
import re
import signal

from daemon import SANITIZERS
from faults import Control
from phases import FaultyDaemon, PhaseScript

# With a daemon that has AddressSanitizer in it. The leak checker knows the dynamic linker's own blocks
# by their caller, which is our library now.
SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "alloc.supp")
SANITIZER_OPTIONS = {"ASAN_OPTIONS": "verify_asan_link_order=0",
                     "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS}:print_suppressions=0"}
# Libraries that end the process themselves, and how: flex in libconfig exits, its grammar uses what it
# did not get; libuv aborts when it can't grow its tables or start its threads.
ENDS_BY_LIBRARY = {"libconfig.so": {2, -signal.SIGSEGV}, "libuv.so": {-signal.SIGABRT}}
# Whoever calls these wanted the memory.
SYSTEM = ("ld-linux", "libc.so", "libasan", "libubsan")
# What they hold when they get no more is lost with some of these: not a leak of ours as long as none of
# our own functions is in the report. (Frames of libraries aren't there at all.)
LOSES = ("libconfig", "libcrypto", "libssl", "libjson-c")


class AllocFault(Control):
    """The other end of alloc_fault.c."""

    VARIABLE = "ALLOC_FAULT"
    FIELDS = ["armed", "count", "fail_at", "failed", "recording"]
    MORE = 1 << 20

    def environment(self):
        return {**super().environment(), **SANITIZER_OPTIONS}

    def arm(self, point):
        """From now on the Nth fails; none for 0."""
        self.set(count=0, fail_at=point.number, recording=int(point.recording), armed=1)

    def struck(self):
        return self.get("failed")

    def stacks(self):
        """A number for each allocation that was recorded, the same for the same call stack."""
        return self.more(min(self.get("count"), self.MORE))


class StarvedDaemon(FaultyDaemon):
    def died(self, fault):
        """How it came to its end: None for a stop as asked, else the words for it."""
        code = self.wait()
        text = self.stderr()
        crashed = "AddressSanitizer: SEGV" in text     # which it turns into exit code 1
        callers = [os.path.basename(file) for file, _, _ in fault.where()]
        caller = next((name for name in callers if not name.startswith(SYSTEM)), "")
        for library, codes in ENDS_BY_LIBRARY.items():
            if (-signal.SIGSEGV if crashed else code) in codes and caller.startswith(library):
                return f"ended by {library}"
        if "AddressSanitizer: CHECK failed" in text:    # it gave up on itself, as for a new thread's stack
            return "ended by AddressSanitizer"
        leaks = text.partition("LeakSanitizer")[2]
        if leaks and caller.startswith(LOSES) and not re.search(r"/src/(?!libsanitizer)", leaks):
            return "lost some of a library's"
        assert not SANITIZERS.search(text), f"it ended with {code}\n{text[-6000:]}"
        if code == 0:
            return None
        # An end by itself says why.
        assert code in (-signal.SIGABRT, 1), f"it ended with {code}\n{text[-4000:]}"
        # (A thread that can't be made is EAGAIN.)
        assert "memory" in text or "temporarily unavailable" in text, f"it ended with {code} and not a word of memory\n{text[-4000:]}"
        return "aborted" if code == -signal.SIGABRT else "exit 1"


class AllocScript(PhaseScript):
    REFUSALS = {-32603, -32002}
