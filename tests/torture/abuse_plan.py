"""What `abuse` asks for: which jobs there are, who names them, and where each is in the books.

A job is KIND-NUMBER, and kind and number alone say who asks for it, so that millions need no list:

    l   line NUMBER+1 of the large file
    f   an empty file of that name
    g   line NUMBER%4+1 of the file g-(NUMBER//4)
    s   request_id r-NUMBER on the socket
    c   named by many of these requests
    b   a bare line on the socket
    m   one of the 20 of a `cancel` of several
    o   odd files
"""

from dataclasses import dataclass

KINDS = "lfgscbmo"
LINES_OF_FILE = 4       # at most; a file of kind g has 1 + K % 4
TOGETHER = 20           # jobs of a `cancel` of several
ODD_JOBS = 400


@dataclass(frozen=True)
class Wave:
    """A share of each kind: the first number, and the one behind the last. For g, files."""
    name: str
    l: range
    f: range
    g: range
    s: range
    b: range
    m: range

    @property
    def large(self):
        """The name of the large file."""
        return f"lines-{self.name}"

    def is_bad(self, number):
        """Which lines of the large file are no requests. Fewer than 100, or it would be cut."""
        return (number - self.l.start) % max(101, len(self.l) // 60) == 100

    def has_comment(self, number):
        """Before these lines is one that does not count."""
        return (number - self.l.start) % 1000 == 5

    def text_of(self, number):
        return f"not a job {number}" if self.is_bad(number) else f"l-{number}"

    def lines(self):
        """The large file, line by line."""
        for number in self.l:
            if self.has_comment(number):
                yield "# what follows is a request\n"
            yield self.text_of(number) + "\n"

    def in_files(self):
        """How many results come of files, odd ones aside."""
        return len(self.l) + len(self.f) + sum(lines_of(number) for number in self.g)

    def results(self):
        """How many there are when all on the socket are acknowledged."""
        return self.in_files() + len(self.s) + len(self.b) + len(self.m)


def lines_of(file):
    return 1 + file % LINES_OF_FILE


class Plan:
    """Waves: `storm`, and twice a tenth of it."""

    def __init__(self, lines, files, requests):
        ends = {kind: 0 for kind in "lfgsbm"}

        def wave(name, part):
            sizes = {"l": lines // part, "f": files // part * 3 // 4, "g": files // part // 4,
                     "s": requests // part * 8 // 10, "b": requests // part // 10,
                     "m": requests // part // 10 // TOGETHER * TOGETHER}
            ranges = {}
            for kind, size in sizes.items():
                ranges[kind] = range(ends[kind], ends[kind] + size)
                ends[kind] += size
            return Wave(name=name, **ranges)

        self.waves = [wave("storm", 1), wave("once-more", 10), wave("twice-more", 10)]
        self.many = max(1, requests // 200)
        sizes = {**ends, "g": ends["g"] * LINES_OF_FILE, "c": self.many, "o": ODD_JOBS}
        self.sizes = {kind: sizes[kind] for kind in KINDS}
        self.first, self.total = {}, 0
        for kind, size in self.sizes.items():
            self.first[kind] = self.total
            self.total += size

    def place(self, job):
        """The job's place in the books."""
        kind, number = job[0], int(job[2:])
        assert job[1] == "-" and 0 <= number < self.sizes[kind], job
        return self.first[kind] + number

    def job_of(self, number):
        """The job that request r-NUMBER names."""
        return f"c-{number // 10 % self.many}" if number % 10 == 0 else f"s-{number}"
