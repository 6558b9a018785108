"""Faults inside the daemon, by a library of ours that is loaded into it (LD_PRELOAD): how it is told,
and the runs of many points, side by side."""

import mmap
import os
import queue
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import traceback

from daemon import binary_path
from standin_client import StandIn

HERE = os.path.dirname(os.path.abspath(__file__))


def build(name, directory):
    """The library made of NAME.c."""
    shim = os.path.join(directory, f"{name}.so")
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-builtin",
                    "-shared", "-fPIC", "-o", shim, os.path.join(HERE, f"{name}.c"), "-ldl"], check=True)
    return shim


class Control:
    """The file that both map: numbers of 64 bits, FIELDS by name, and what follows them."""

    VARIABLE = None     # of the environment, with the file's name
    FIELDS = []
    MORE = 0            # how many follow

    def __init__(self, shim, path):
        self.shim = shim
        self.path = path
        with open(path, "w+b") as file:
            file.truncate(8 * (len(self.FIELDS) + self.MORE))
            self.map = mmap.mmap(file.fileno(), 0)

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("<Q", self.map, 8 * self.FIELDS.index(name), value)

    def get(self, name):
        return struct.unpack_from("<Q", self.map, 8 * self.FIELDS.index(name))[0]

    def more(self, count):
        """The first of those that follow."""
        return struct.unpack_from(f"<{count}Q", self.map, 8 * len(self.FIELDS))

    def environment(self):
        return {"LD_PRELOAD": self.shim, self.VARIABLE: self.path}

    def disarm(self):
        self.set(armed=0)

    def where(self):
        """(file, offset, symbol) of each frame, innermost first, once it has failed."""
        try:
            with open(f"{self.path}.where", encoding="utf-8") as file:
                return [frame for frame in (line.split() for line in file)
                        if os.path.basename(frame[0]) != os.path.basename(self.shim)]
        except FileNotFoundError:
            return []


def in_words(frames):
    """Where it failed, with the lines of our own code."""
    lines = []
    for file, offset, symbol in frames:
        text = f"{os.path.basename(file)} {symbol}"
        if os.path.realpath(file) == os.path.realpath(binary_path()):
            found = subprocess.run(["addr2line", "-fpie", file, hex(int(offset, 16) - 1)], capture_output=True,
                                   text=True, check=False).stdout.strip()
            text = found or text
        lines.append(f"    {text}")
    return "\n".join(lines)


def sites(stacks):
    """The first N of each call stack, and the last: what was empty at first is full then."""
    firsts, lasts = {}, {}
    for number, stack in enumerate(stacks, 1):
        firsts.setdefault(stack, number)
        lasts[stack] = number
    return sorted({*firsts.values(), *lasts.values()})


def steps(size):
    """All places, in an order of which each beginning is a spread: steps by the golden ratio."""
    return sorted(range(size), key=lambda place: place * 0.6180339887498949 % 1)


class Runner:
    """Points side by side, each worker with a stand-in of its own. `one` runs a point."""

    PREFIX = "pca-"

    def __init__(self, keep, program):
        self.keep = keep
        self.program = os.path.relpath(program)
        self.lock = threading.Lock()
        self.done, self.failures = 0, []

    def one(self, standin, point):
        home = tempfile.mkdtemp(prefix=self.PREFIX, dir="/tmp")
        standin.reset()
        daemon, script = self.make(standin, home, point)
        failed = False
        try:
            self.go(daemon, script, point)
        except Exception:       # whatever went wrong, it is this point's failure
            failed = True
            self.fail(str(point), daemon, script.fault, traceback.format_exc()[-3000:])
        finally:
            daemon.kill()
        with self.lock:
            self.done += 1
            if self.done % 100 == 0:
                print(f"{self.done} points", flush=True)
        if not failed and not self.keep:
            shutil.rmtree(home, ignore_errors=True)
        return script.fault

    def make(self, standin, home, point):
        """(daemon, script)"""
        raise NotImplementedError

    def go(self, daemon, script, point):
        raise NotImplementedError

    def fail(self, name, daemon, fault, text):
        log = "".join(daemon.stderr().splitlines(True)[-15:])
        with self.lock:
            self.failures.append(name)
            print(f"\nFAILED: {name}\n{text}\n{log}\nwhere:\n{in_words(fault.where())}\n"
                  f"It left its files in {daemon.home}. Again: {self.program} --points {name}\n", flush=True)

    def run(self, points, jobs, until=None):
        work = queue.SimpleQueue()
        for point in points:
            work.put(point)
        threads = [threading.Thread(target=self.worker, args=(work, until)) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def worker(self, work, until):
        with StandIn() as standin:
            while until is None or time.monotonic() < until:
                try:
                    point = work.get_nowait()
                except queue.Empty:
                    return
                self.one(standin, point)

    def again(self):
        if self.failures:
            print(f"Again: {self.program} --points {','.join(self.failures)}")
        return 1 if self.failures else 0
