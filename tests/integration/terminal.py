"""A terminal: a program runs in a pty, and what it draws becomes a screen of lines.

Knows what xterm's and vt100's terminfo make ncurses send, and no more: anything else is an error.
"""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from waiting import LIMIT_S

CSI = re.compile(r"\x1b\[([?>]?)([\d;]*)([@-~])")
OTHER = re.compile(r"\x1b(?:[()][A-Z0-9]|[=>78M]|\][^\x07]*\x07)")


class Screen:
    def __init__(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.clear()
        self.row = self.column = 0

    def clear(self):
        self.cells = [[" "] * self.columns for _ in range(self.lines)]

    def resize(self, columns, lines):
        self.columns, self.lines = columns, lines
        self.clear()

    def text(self):
        return [("".join(row)).rstrip() for row in self.cells]

    def put(self, char):
        if self.column == self.columns:     # a full line goes on in the next one
            self.column = 0
            self.feed_line()
        self.cells[self.row][self.column] = char
        self.column += 1

    def feed_line(self):
        if self.row + 1 < self.lines:
            self.row += 1
        else:
            self.cells = self.cells[1:] + [[" "] * self.columns]

    def control(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.feed_line()
        elif char == "\b":
            self.column = max(self.column - 1, 0)
        elif char not in "\x0e\x0f\x07\x00":
            raise AssertionError(f"an unknown control character {char!r}")

    def csi(self, private, parameters, final):
        numbers = [int(number) if number else 0 for number in parameters.split(";")]
        first = numbers[0] or 1
        if private or final in "hlmrt":
            return      # modes, colours, scroll regions
        if final == "H":
            self.row = min(first, self.lines) - 1
            self.column = min(numbers[1] or 1 if len(numbers) > 1 else 1, self.columns) - 1
        elif final in "ABCDGd":
            self.move(final, first)
        elif final == "J":
            self.erase_display(numbers[0])
        elif final == "K":
            self.erase_line(numbers[0])
        elif final == "X":
            for i in range(self.column, min(self.column + first, self.columns)):
                self.cells[self.row][i] = " "
        elif final == "b":
            for _ in range(first):
                self.put(self.cells[self.row][self.column - 1])
        else:
            raise AssertionError(f"an unknown sequence CSI {parameters}{final}")

    def move(self, final, count):
        row, column = {"A": (self.row - count, self.column), "B": (self.row + count, self.column),
                       "C": (self.row, self.column + count), "D": (self.row, self.column - count),
                       "G": (self.row, count - 1), "d": (count - 1, self.column)}[final]
        self.row = max(0, min(row, self.lines - 1))
        self.column = max(0, min(column, self.columns - 1))

    def erase_line(self, how):
        start, end = [(self.column, self.columns), (0, self.column + 1), (0, self.columns)][how]
        for i in range(start, min(end, self.columns)):
            self.cells[self.row][i] = " "

    def erase_display(self, how):
        if how == 2:
            self.clear()
            return
        self.erase_line(how)
        for row in range(self.row + 1, self.lines) if how == 0 else range(self.row):
            self.cells[row] = [" "] * self.columns

    def feed(self, text):
        """Draws; returns what is the beginning of a sequence and waits for its end."""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                (self.put if text[at] >= " " else self.control)(text[at])
                at += 1
                continue
            match = CSI.match(text, at)
            if match:
                self.csi(*match.groups())
            else:
                match = OTHER.match(text, at)
                if not match:
                    assert len(text) - at < 32, f"an unknown sequence {text[at:at + 32]!r}"
                    return text[at:]
            at = match.end()
        return ""


class Terminal:
    """A program in a pty of its own, until the end of the `with`."""

    def __init__(self, command, environment, columns=80, lines=24):
        self.screen = Screen(columns, lines)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.rest = ""
        self.raw = ""
        self.master, slave = pty.openpty()
        self.set_size(columns, lines)
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment,
                                        start_new_session=True, preexec_fn=self.take_terminal)

    @staticmethod
    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def set_size(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.screen.resize(columns, lines)
        self.set_size(columns, lines)

    def read(self, timeout_s):
        """True when something came."""
        if select.select([self.master], [], [], timeout_s)[0]:
            with contextlib.suppress(OSError):
                text = self.decoder.decode(os.read(self.master, 65536))
                self.raw += text
                self.rest = self.screen.feed(self.rest + text)
                return True
        return False

    def type(self, keys):
        os.write(self.master, keys.encode())

    def wait_for(self, condition, what):
        """The screen's lines, once `condition(lines)` is true."""
        end = time.monotonic() + LIMIT_S
        while not condition(self.screen.text()):
            shown = "\n".join(self.screen.text())
            assert time.monotonic() < end, f"not within {LIMIT_S} s: {what}\n{shown}"
            self.read(0.05)
        # What is drawn comes in pieces: the rest of it belongs to what was waited for.
        while self.read(0.05):
            pass
        return self.screen.text()

    def wait_text(self, pattern):
        return self.wait_for(lambda lines: re.search(pattern, "\n".join(lines), re.MULTILINE), pattern)

    def ended(self):
        """The exit status; all that was drawn is on the screen."""
        end = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < end, "it did not end"
            self.read(0.05)
        self.read(0)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
