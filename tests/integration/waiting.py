"""Waiting for events. The only pause in these tests is the one between two looks."""

import os
import time

LIMIT_S = 15 * int(os.environ.get("PULSE_TEST_PATIENCE", "1"))


def wait_until(condition, what, timeout_s=LIMIT_S, interval_s=0.005):
    """Look until `condition()` is true, and return what it returned."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what() if callable(what) else what}")
        time.sleep(interval_s)


def holds_for(seconds, condition, what):
    """`condition()` is true at every look for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(0.02)
