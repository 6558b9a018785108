"""Runs pulse-cancelctl, against a daemon or against a server that says what a test wants."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading

from daemon import binary_path, clean_environment, end_with_the_tests

# The commands that talk to the daemon, each called so that nothing else is wrong.
CALLS = {
    "cancel": ["cancel", "a"],
    "status": ["status", "a"],
    "list": ["list"],
    "watch": ["watch"],
    "stats": ["stats"],
    "metrics": ["metrics"],
    "hold": ["hold"],
    "release": ["release"],
    "flush": ["flush"],
    "retry": ["retry", "a"],
    "withdraw": ["withdraw", "a"],
    "reload": ["reload"],
    "ping": ["ping"],
}


def ctl_path():
    return os.environ.get("PULSE_CANCELCTL") or os.path.join(os.path.dirname(binary_path()), "pulse-cancelctl")


def command(path, *arguments):
    return [ctl_path(), "--socket", path, *arguments]


def environment(**more):
    """Without what would change the output; `more` with None takes a variable out."""
    variables = clean_environment(**{"TZ": "UTC", "LC_ALL": "C.UTF-8", **more})
    if "NO_COLOR" not in more:
        variables.pop("NO_COLOR", None)
    return {name: value for name, value in variables.items() if value is not None}


def run(path, *arguments, stdin=None, timeout_s=60, **variables):
    """Run to its end: a CompletedProcess with texts."""
    return subprocess.run(command(path, *arguments), input=stdin if stdin is not None else "", capture_output=True,
                          text=True, timeout=timeout_s, env=environment(**variables), check=False)


def good(path, *arguments, **options):
    """Run, and it has to work without a complaint: its standard output."""
    done = run(path, *arguments, **options)
    assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stderr}{done.stdout}"
    assert done.stderr == ""
    return done.stdout


def documents(text):
    """JSON, one document a line."""
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def begin(path, *arguments, stdin=subprocess.DEVNULL, **variables):
    """Start it, for a test that has to do something meanwhile; ended by `ended()`."""
    return subprocess.Popen(command(path, *arguments), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment(**variables), preexec_fn=end_with_the_tests)


def ended(process, timeout_s=60):
    """(exit status, stdout, stderr) once it has ended by itself."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end: {out}{err}") from None
    return process.returncode, out, err


def copy_for_others(directory):
    """The program where another user may run it."""
    return shutil.copy(ctl_path(), os.path.join(directory, "pulse-cancelctl"))


class Server:
    """A daemon that answers calls as it is told: {method: list of lines to send}. `{id}` in a line
    stands for the call's id. None ends the connection."""

    def __init__(self, path, answers):
        self.path = path
        self.answers = answers
        self.calls = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, contextlib.suppress(ConnectionError):
                    for line in client.makefile("rb"):
                        if not self.answer(client, json.loads(line)):
                            break

    def answer(self, client, call):
        self.calls.append(call)
        for line in self.answers.get(call["method"], []):
            if line is None:
                return False
            client.sendall(line.replace("{id}", str(call["id"])).encode() + b"\n")
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
