"""The clients of `abuse`, all in one process: those that want something, who repeat what got no answer
until they have one, and those that only disturb."""

import collections
import json
import mmap
import random
import selectors
import socket
import time

from abuse_plan import TOGETHER

SENT, ACKNOWLEDGED = 1, 2
QUEUE_FULL, SHUTTING_DOWN = -32001, -32004
TOO_LONG = b"x" * ((1 << 20) + 1000)
AGAIN_S = 0.02
FULL_S = 0.3            # before who was told that the queue is full asks again
TICK_S = 0.004          # all clients have a turn, then a pause: the slow ones are slow by that
WINDOW = 100            # requests without an answer, for each client


class Shared:
    """What the processes know of each other: a state for each job's place, how far all is, and some counts."""

    def __init__(self, total):
        self.states = mmap.mmap(-1, total)
        self.numbers = mmap.mmap(-1, mmap.PAGESIZE)
        self.view = memoryview(self.numbers).cast("q")

    NAMES = ("taken", "acknowledged", "repeated", "refused", "lost", "disturbances", "waited", "clients")

    def get(self, name):
        return self.view[self.NAMES.index(name)]

    def set(self, name, value):
        self.view[self.NAMES.index(name)] = value

    def add(self, name, value=1):
        self.view[self.NAMES.index(name)] += value


class Peer:
    """A connection that is made anew whenever it is lost."""

    slow = False            # reads a little at a time

    def __init__(self, crowd):
        self.crowd = crowd
        self.socket = None
        self.out, self.received = b"", b""
        self.at = 0         # not before
        self.sends_at = 0
        self.turn()

    def turn(self):
        """Connect, if it is time to."""
        if self.socket is not None or time.monotonic() < self.at:
            return
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.slow:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            one.connect(self.crowd.path)
        except OSError:
            one.close()
            self.at = time.monotonic() + AGAIN_S
            return
        one.setblocking(False)
        self.socket = one
        self.out = self.received = b""
        self.crowd.selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        self.connected()

    def close(self, again_s=AGAIN_S):
        if self.socket is not None:
            self.crowd.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
        self.at = time.monotonic() + again_s

    def writable(self):
        if not self.out:
            self.out = self.more()
        if self.out:
            self.out = self.out[self.socket.send(self.out):]

    def readable(self):
        data = self.socket.recv(300 if self.slow else 1 << 16)
        if not data:
            raise ConnectionResetError
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            self.answered(line)

    def may_send(self):
        return time.monotonic() >= self.sends_at and self.crowd.may_send()

    def refused(self, answer):
        assert answer["error"]["code"] in (QUEUE_FULL, SHUTTING_DOWN), answer
        self.crowd.shared.add("refused")
        self.sends_at = time.monotonic() + FULL_S

    def connected(self):
        pass

    def more(self):
        return b""

    def answered(self, line):
        pass

    def lost(self):
        pass


class Caller(Peer):
    """`cancel` with a request_id, some with `wait`; what got no answer is sent again."""

    def __init__(self, crowd, numbers, wait=False, slow=False, hangs_up=False):
        self.wait, self.slow, self.hangs_up = wait, slow, hangs_up
        self.unsent = collections.deque(numbers)
        self.unanswered = collections.deque()
        self.sent = 0
        super().__init__(crowd)

    def is_done(self):
        return not self.unsent and not self.unanswered

    def lost(self):
        self.crowd.shared.add("repeated", len(self.unanswered))
        self.unsent.extendleft(reversed(self.unanswered))
        self.unanswered.clear()

    def more(self):
        lines = []
        while self.unsent and len(self.unanswered) < WINDOW and self.may_send():
            number = self.unsent.popleft()
            self.unanswered.append(number)
            params = {"job_id": self.crowd.plan.job_of(number), "request_id": f"r-{number}"}
            if self.wait:
                params["wait"] = True
            lines.append(json.dumps({"jsonrpc": "2.0", "id": number, "method": "cancel", "params": params}))
            self.crowd.mark("s", number, SENT)
        self.sent += len(lines)
        return "".join(line + "\n" for line in lines).encode()

    def answered(self, line):
        answer = json.loads(line)
        number = answer["id"]
        self.unanswered.remove(number)
        if "error" in answer:
            self.refused(answer)
            self.unsent.append(number)
            return
        result = answer["result"]
        assert (result["request_id"], result["job_id"]) == (f"r-{number}", self.crowd.plan.job_of(number)), answer
        if self.wait:
            assert result["outcome"] == "cancelled", answer
            self.crowd.shared.add("waited")
        self.crowd.mark("s", number, ACKNOWLEDGED)

    def writable(self):
        super().writable()
        if self.hangs_up and self.sent > 3 * WINDOW and not self.out:
            self.sent = 0
            self.lost()
            self.close()


class Plain(Peer):
    """Bare lines, and `cancel` of several: without a request_id, what got no answer is left."""

    def __init__(self, crowd, kind, numbers):
        self.kind = kind
        step = TOGETHER if kind == "m" else 1
        self.unsent = collections.deque(numbers[first:first + step] for first in range(0, len(numbers), step))
        self.unanswered = collections.deque()
        super().__init__(crowd)

    def is_done(self):
        return not self.unsent and not self.unanswered

    def lost(self):
        self.crowd.shared.add("lost", sum(map(len, self.unanswered)))
        self.unanswered.clear()

    def more(self):
        if not self.unsent or len(self.unanswered) >= WINDOW or not self.may_send():
            return b""
        numbers = self.unsent.popleft()
        self.unanswered.append(numbers)
        for number in numbers:
            self.crowd.mark(self.kind, number, SENT)
        jobs = [f"{self.kind}-{number}" for number in numbers]
        if self.kind == "b":
            return jobs[0].encode() + b"\n"
        return json.dumps({"jsonrpc": "2.0", "id": numbers[0], "method": "cancel",
                           "params": {"job_ids": jobs}}).encode() + b"\n"

    def take(self, answer):
        """The request this answers. Bare lines are answered in their order, as all but those with `wait`."""
        numbers = self.unanswered.popleft()
        assert self.kind == "b" or answer["id"] == numbers[0], answer
        return numbers

    def answered(self, line):
        answer = json.loads(line)
        numbers = self.take(answer)
        if "error" in answer:
            self.refused(answer)
            self.unsent.append(numbers)
            return
        for number, one in zip(numbers, [answer] if self.kind == "b" else answer["result"], strict=True):
            assert one["job_id"] == f"{self.kind}-{number}", answer
            self.crowd.ids[one["job_id"]] = one["request_id"]
            self.crowd.mark(self.kind, number, ACKNOWLEDGED)


class Nuisance(Peer):
    """One of those who want nothing."""

    PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n'
    STATS = b'{"jsonrpc": "2.0", "id": 1, "method": "stats"}\n'
    HALF = b'{"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": {"job_'

    def __init__(self, crowd, way):
        self.way = way
        self.slow = way == "never reads"
        self.left = b""
        super().__init__(crowd)

    def connected(self):
        rng = self.crowd.rng
        self.crowd.shared.add("disturbances")
        self.left = {
            "garbage": lambda: b"".join(b"\xff" + rng.randbytes(40).replace(b"\n", b"") + b"\n" for _ in range(50)),
            "half a line": lambda: self.HALF,
            "giant": lambda: TOO_LONG,
            "flood": lambda: self.PING * 2000,
            "never reads": lambda: self.STATS * 500,
            "subscribes": lambda: b'{"jsonrpc": "2.0", "id": 1, "method": "subscribe"}\n',
        }[self.way]()

    def more(self):
        data, self.left = self.left, b""
        return data

    def readable(self):
        if self.way == "never reads":
            if self.crowd.rng.random() < 0.001:
                self.close(0.5)
        else:
            super().readable()

    def writable(self):
        super().writable()
        if self.socket is not None and self.way == "half a line" and not self.out:
            self.close(0.1)

    def lost(self):
        self.at = time.monotonic() + 0.3

    def turn(self):
        super().turn()
        if self.socket is not None and not self.out and self.way in ("garbage", "flood", "giant") \
                and self.crowd.rng.random() < 0.02:
            self.close(0.2)


NUISANCES = ["garbage", "half a line", "giant", "giant", "flood", "flood", "never reads", "never reads", "subscribes"]


class Crowd:
    """All clients of a wave."""

    def __init__(self, path, plan, wave, shared, seed):
        self.path, self.plan, self.shared = path, plan, shared
        self.rng = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.ids = {}           # of those that the daemon has named
        self.asked = 0
        self.all = len(wave.s) + len(wave.b) + len(wave.m)
        self.results = wave.results()
        self.begin = shared.get("taken")
        numbers = list(wave.s)
        parts = [numbers[place::30] for place in range(30)]
        self.callers = [Caller(self, part, wait=place % 5 == 1, slow=place % 5 == 2, hangs_up=place % 5 == 3)
                        for place, part in enumerate(parts)]
        for kind, numbers in (("b", wave.b), ("m", wave.m)):
            step = max(TOGETHER, len(numbers) // 5 // TOGETHER * TOGETHER)
            self.callers += [Plain(self, kind, numbers[first:first + step])
                             for first in range(0, len(numbers), step)]
        self.peers = self.callers + [Nuisance(self, way) for way in NUISANCES]
        shared.set("clients", len(self.peers))

    def mark(self, kind, number, state):
        place = self.plan.first[kind] + number
        before = self.shared.states[place]
        self.asked += before == 0
        self.shared.add("acknowledged", before != ACKNOWLEDGED and state == ACKNOWLEDGED)
        self.shared.states[place] = max(before, state)

    def may_send(self):
        """So that they are at it all the time: never much further than the rest is."""
        taken = (self.shared.get("taken") - self.begin) / self.results
        return self.asked < 300 + self.all * 1.3 * taken

    def turn(self):
        for key, events in self.selector.select(0):
            peer = key.data
            try:
                if events & selectors.EVENT_WRITE and peer.socket is not None:
                    peer.writable()
                if events & selectors.EVENT_READ and peer.socket is not None:
                    peer.readable()
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                peer.close()
                peer.lost()
        for peer in self.peers:
            peer.turn()

    def run(self):
        while not all(caller.is_done() for caller in self.callers):
            self.turn()
            time.sleep(TICK_S)
        for peer in self.peers:
            peer.close()


def run_clients(path, plan, wave, shared, seed, ids_path):
    """In a process of its own; leaves the request_ids that the daemon has made."""
    crowd = Crowd(path, plan, wave, shared, seed)
    crowd.run()
    with open(ids_path, "w", encoding="ascii") as file:
        json.dump(crowd.ids, file)
