"""Tests that are left out, and why."""

import os

import pytest


def not_under_valgrind(reason):
    return pytest.mark.skipif(os.environ.get("PULSE_SANITIZE") == "valgrind", reason=f"under valgrind, {reason}")
