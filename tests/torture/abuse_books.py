"""The reckoning of `abuse`: millions of result lines against what was promised, one at a time."""

import array
import json
import re

from abuse_clients import ACKNOWLEDGED, SENT
from abuse_plan import LINES_OF_FILE, TOGETHER, lines_of
from ledger import Ledger
from results import check_record, ordered

JOB_BYTES = 4           # of abuse_server.c's struct job: cancels, looks, resets, flags
CANCELED, TOLD = 1, 2
MOST = 255              # where its numbers stay
BAD_LINE = re.compile(r"^line (\d+): ")


def lines_of_logs(paths):
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                assert line.endswith(b"\n"), f"{path}: a torn last line: {line[-100:]!r}"
                yield line


class Books(Ledger):
    """The odd files are the ledger's; all others have a place by their kind and number."""

    def __init__(self, plan, shared):
        super().__init__()
        self.plan, self.shared = plan, shared
        self.waves = []             # that were begun
        self.kills = 0
        self.seen = bytearray(plan.total)       # lines for each job; of c for each request, at s
        self.bad = {wave.large: bytearray(len(wave.l)) for wave in plan.waves}
        self.odd = []
        self.ids = {}               # job → request_id that its answer had
        self.hashes = array.array("q")
        self.lines, self.attempts, self.sockets = 0, 0, 0

    # -- line by line ------------------------------------------------------------------------

    def read(self, daemon, record):
        """`record` is the server's."""
        n = 0
        for line in lines_of_logs([*daemon.rotated, daemon.results]):
            one = check_record(json.loads(line, object_pairs_hook=ordered))
            n += 1
            assert one["n"] == n, f"n is {one['n']} after {n - 1}"
            self.hashes.append(hash(one["request_id"]))
            self.attempts += one["attempts"]
            if one["source"] == "spool" and one["origin"] in self.files:
                self.odd.append(one)
            elif one["outcome"] == "invalid":
                self.note_bad(one)
            else:
                self.note(one, record)
        self.lines = n
        assert len(set(self.hashes)) == n, "two lines for one request"

    def note_bad(self, one):
        number = int(BAD_LINE.match(one["message"])[1])
        wave = self.wave_of(one["origin"])
        place = int(one["job_id"].removeprefix("not a job ")) - wave.l.start
        assert wave.is_bad(place + wave.l.start) and number == self.line_number(place), one
        self.bad[one["origin"]][place] += 1

    def wave_of(self, large):
        return next(wave for wave in self.waves if wave.large == large)

    @staticmethod
    def line_number(place):
        """In the large file, where comments count (Wave.has_comment())."""
        return place + 1 + (place + 995) // 1000

    def note(self, one, record):
        job = one["job_id"]
        kind, number, place = job[0], int(job[2:]), self.plan.place(job)
        assert one["outcome"] == "cancelled", one
        cancels, _, resets, flags = record[JOB_BYTES * place:JOB_BYTES * place + JOB_BYTES]
        assert flags == CANCELED | TOLD, f"the server did not say so: {one}"
        if kind == "c":
            place = self.plan.first["s"] + int(one["request_id"][2:])
        else:
            # What a kill has cut off was sent once more and does not count. After a reset that said
            # nothing curl may have sent it again by itself.
            assert cancels == MOST or one["attempts"] <= cancels <= one["attempts"] + self.kills + resets, \
                f"{cancels} cancels came to the server, {resets} were reset, {self.kills} kills: {one}"
        self.check_names(one, kind, number)
        self.seen[place] += 1

    def check_names(self, one, kind, number):
        """Where it came from."""
        if kind in "lfg":
            wave = next(wave for wave in self.waves if kind != "l" or number in wave.l)
            origin, line = {
                "l": lambda: (wave.large, self.line_number(number - wave.l.start)),
                "f": lambda: (one["job_id"], 1),
                "g": lambda: (f"g-{number // LINES_OF_FILE}", 1 + number % LINES_OF_FILE),
            }[kind]()
            assert (one["source"], one["origin"]) == ("spool", origin), one
            assert one["request_id"].endswith(f".{line}"), one
            return
        assert one["source"] == "socket", one
        self.sockets += 1
        if kind in "sc":
            assert self.plan.job_of(int(one["request_id"].removeprefix("r-"))) == one["job_id"], one
        else:
            assert self.ids.get(one["job_id"], one["request_id"]) == one["request_id"], one

    # -- at the end --------------------------------------------------------------------------

    def check_all(self, daemon, record):
        """`record` is the server's. Raises AssertionError."""
        self.read(daemon, record)
        for wave in self.waves:
            self.check_wave(wave, record)
        left = {one["request_id"]: one for one in self.odd}
        for dropped in self.files.values():
            self._check_file(dropped, self.odd, left)
        assert not left, list(left.values())[:5]
        assert not any(self.seen), f"lines that nobody asked for: {[at for at, n in enumerate(self.seen) if n][:5]}"
        self._check_spool(daemon)

    def check_wave(self, wave, record):
        for first in wave.m[::TOGETHER]:
            place = self.plan.first["m"] + first
            assert len(set(self.seen[place:place + TOGETHER])) == 1, f"a part of a call: m-{first}"
        for number in wave.l:
            bad = wave.is_bad(number)
            assert self.bad[wave.large][number - wave.l.start] == bad, wave.text_of(number)
            self.take("l", number, record, not bad)
        for number in wave.f:
            self.take("f", number, record)
        for file in wave.g:
            for line in range(lines_of(file)):
                self.take("g", LINES_OF_FILE * file + line, record)
        for kind, numbers in (("s", wave.s), ("b", wave.b), ("m", wave.m)):
            for number in numbers:
                state = self.shared.states[self.plan.first[kind] + number]
                self.take(kind, number, record, state == ACKNOWLEDGED, maybe=state == SENT)

    def take(self, kind, number, record, wanted=True, maybe=False):
        """Out of what was seen, so that at last nothing may be left. What is on the wire was accepted."""
        place = self.plan.first[kind] + number
        lines = self.seen[place]
        assert lines == wanted or maybe and lines == 1, \
            f"{kind}-{number}: {lines} lines, {'acknowledged' if wanted else 'not acknowledged'}"
        assert lines or not record[JOB_BYTES * place], f"{kind}-{number} was sent, and has no line"
        self.seen[place] = 0
