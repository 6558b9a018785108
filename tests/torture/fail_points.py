"""Which system calls fail, and how: the kinds that call_fault.c counts, each with what the kernel may
plausibly answer, and points made of them."""

import contextlib
import errno
import os
import re
from dataclasses import dataclass

from faults import Control, sites, steps

SHORT = "short"         # not an error: half of it is transferred
NO_FD = ["EMFILE", "ENFILE", "ENOMEM"]
NO_SPACE = ["ENOSPC", "EIO", "EDQUOT"]

# In the order of `enum kind`. Those of one name are told apart by what they are done to: `read` and
# `write` are on files, `recv` and `send` on sockets whatever the call, `stderr` is the daemon's own log,
# `wake` on pipes, events and timers.
KINDS = {
    "open": ["EMFILE", "ENFILE", "EIO", "ENOMEM"],
    "creat": ["EMFILE", "ENOSPC", "EIO", "EDQUOT", "EROFS"],
    "close": ["EIO"],
    "read": ["EIO", "EINTR", SHORT],
    "pread64": ["EIO", "EINTR", SHORT],
    "recv": ["ENOMEM", "EINTR", "ECONNRESET", SHORT],
    "write": [*NO_SPACE, "EINTR", SHORT],
    "pwrite64": [*NO_SPACE, "EINTR", SHORT],
    "send": ["ENOBUFS", "ENOMEM", "EINTR", "EAGAIN", "EPIPE", SHORT],
    "stderr": [*NO_SPACE, "EINTR", "EAGAIN", SHORT],
    "wake": ["EINTR"],
    "rename": [*NO_SPACE, "EROFS"],
    "link": [*NO_SPACE, "EMLINK"],
    "unlink": ["EIO", "EROFS"],
    "mkdir": [*NO_SPACE, "EROFS"],
    "fsync": [*NO_SPACE, "EINTR"],
    "fdatasync": [*NO_SPACE, "EINTR"],
    "ftruncate": ["EIO", "EINTR", "ENOSPC"],
    "fallocate": ["EIO", "EINTR", "ENOSPC", "EOPNOTSUPP"],
    "mmap": ["ENOMEM", "EIO"],
    "mmap_anon": ["ENOMEM"],
    "socket": [*NO_FD, "ENOBUFS"],
    "connect": ["EINTR", "ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EAGAIN"],
    "accept4": [*NO_FD, "ENOBUFS", "ECONNABORTED", "EINTR"],
    "bind": ["ENOSPC", "EIO", "EADDRINUSE", "ENOMEM"],
    "listen": ["EADDRINUSE"],
    "setsockopt": ["ENOBUFS", "ENOMEM"],
    "getsockopt": ["ENOBUFS"],
    "epoll_create1": NO_FD,
    "epoll_ctl": ["ENOMEM", "ENOSPC"],
    "epoll_wait": ["EINTR"],
    "poll": ["EINTR", "ENOMEM"],
    "eventfd2": NO_FD,
    "timerfd_create": NO_FD,
    "timerfd_settime": ["ECANCELED"],
    "inotify_init1": NO_FD,
    "inotify_add_watch": ["ENOSPC", "ENOMEM", "EACCES"],
    "pipe2": NO_FD,
    "getdents64": ["EIO", "ENOMEM"],
    "stat": ["EIO", "ENOMEM"],
    "fstat": ["EIO", "ENOMEM"],
    "fchmod": ["EIO", "EPERM", "EROFS"],
    "lease": ["EAGAIN", "ENOMEM", "EINVAL", "EINTR"],
    "lock": ["ENOLCK", "EINTR", "EIO", "EAGAIN"],
    "dup": ["EMFILE"],
    "clone": ["EAGAIN", "ENOMEM"],
    "getrandom": ["EINTR"],
}
NAMES = list(KINDS)
# These come so often, and again at once, that with one of them for good the daemon would only turn.
NEVER_FOR_GOOD = {"EINTR"}


@dataclass(frozen=True)
class Point:
    """In this phase the Nth call of the kind fails; all from the Nth on when it is for good."""
    phase: str
    kind: str = None
    error: str = None
    number: int = 0         # 0: nothing fails
    for_good: bool = False
    recording: bool = False

    def __str__(self):
        return f"{self.phase}:{self.kind}:{self.error}:{self.number}{'+' if self.for_good else ''}"

    @classmethod
    def parse(cls, text):
        found = re.fullmatch(r"([a-z]+):([a-z0-9_]+):([A-Z]+|short):(\d+)(\+?)", text)
        if not found or found[2] not in KINDS or found[3] != SHORT and not hasattr(errno, found[3]):
            raise ValueError(f"no point: {text!r} (PHASE:SYSCALL:ERRNO:N or PHASE:SYSCALL:ERRNO:N+)")
        return cls(found[1], found[2], found[3], int(found[4]), bool(found[5]))

    def errno(self):
        return 0 if self.error == SHORT else getattr(errno, self.error)


class CallFault(Control):
    """The other end of call_fault.c."""

    VARIABLE = "CALL_FAULT"
    FIELDS = ["armed", "kind", "fail_at", "for_good", "error", "struck", "recording", "n_records",
              *(f"n_{name}" for name in NAMES)]
    RECORDS = 1 << 18
    MORE = 2 * RECORDS
    troubled = False        # something else failed before

    def environment(self):
        # The leak checker stops the process with all signals blocked, which the traps do not survive.
        return {**super().environment(), "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0"}

    def arm(self, point):
        self.disarm()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.path}.where")
        self.set(**{f"n_{name}": 0 for name in NAMES}, fail_at=point.number, for_good=int(point.for_good),
                 kind=NAMES.index(point.kind) if point.kind else 0, error=point.errno() if point.kind else 0,
                 struck=0, recording=int(point.recording), n_records=0)
        self.set(armed=1)

    def struck(self):
        return self.troubled or self.get("struck")

    def stacks(self):
        """{kind: a number for the call stack of each call}"""
        flat = self.more(2 * min(self.get("n_records"), self.RECORDS))
        found = {}
        for kind, stack in zip(flat[::2], flat[1::2]):
            found.setdefault(NAMES[kind], []).append(stack)
        return found


# What was once found, each mended since: always tried first.
FOUND = ["start:read:EIO:1", "start:open:EMFILE:2", "start:lock:ENOLCK:1", "start:fdatasync:ENOSPC:1", "intake:send:ENOMEM:1",
         "recovery:send:EPIPE:1", "intake:lock:EIO:3+", "intake:clone:EAGAIN:1+", "start:pread64:EIO:4",
         "recovery:pread64:EIO:20"]


def points_of(phase, stacks, every):
    """Those of a recorded phase: each call, or the first and the last of each call stack, with each
    error, once; and from each first and last one on."""
    for kind, all_of in stacks.items():
        some = sites(all_of)
        for error in KINDS[kind]:
            for number in range(1, len(all_of) + 1) if every else some:
                yield Point(phase, kind, error, number)
            for number in some if error not in NEVER_FOR_GOOD else ():
                yield Point(phase, kind, error, number, for_good=True)


def spread(points):
    """In an order of which each beginning is a spread: kinds, errors and phases take turns."""
    groups = {}
    for point in points:
        groups.setdefault((point.phase, point.kind, point.error, point.for_good), []).append(point)
    ordered = []
    for place, (_, group) in enumerate(sorted(groups.items())):
        # The first of each group would all be of one phase for long.
        begin = place * 0.6180339887498949 % 1
        ordered += [((begin + turn) / len(group) ** 0.5, group[at]) for turn, at in enumerate(steps(len(group)))]
    return [point for _, point in sorted(ordered, key=lambda one: (one[0], str(one[1])))]
