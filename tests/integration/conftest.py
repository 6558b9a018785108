"""Fixtures: one stand-in for the whole run, reset for each test, and a daemon factory.

The factory's daemons are stopped at the end of a test, which is itself a test: SIGTERM ends them
with 0, and each line of their results logs is as it should be.
"""

import os
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "standin"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from daemon import Daemon, binary_path  # noqa: E402
from standin_client import StandIn  # noqa: E402


def pytest_sessionstart(session):
    if not session.config.option.collectonly and not os.access(binary_path(), os.X_OK):
        raise pytest.UsageError(f"{binary_path()} is missing: build it first, or set PULSE_CANCELD")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        item.failed = True
        for daemon in item.funcargs.get("daemons", ()):
            report.sections.append((f"stderr of {daemon.name}", daemon.stderr()[-8000:]))


@pytest.fixture(scope="session")
def shared_standin():
    with StandIn() as standin:
        yield standin


@pytest.fixture
def standin(shared_standin):
    shared_standin.reset()
    return shared_standin


@pytest.fixture
def daemons():
    """Every daemon that this test made."""
    return []


@pytest.fixture
def make_daemon(request, standin, daemons):
    """make_daemon(group={setting: value}, …): a configured daemon that is not started yet."""

    def make(**kwargs):
        kwargs.setdefault("base_url", standin.url)
        kwargs.setdefault("name", f"daemon {len(daemons) + 1}")
        daemon = Daemon(**kwargs)
        daemons.append(daemon)
        return daemon

    yield make
    failed = getattr(request.node, "failed", False)
    try:
        standin.reset()
        for daemon in daemons:
            if failed:
                daemon.kill()
            else:
                daemon.finish()
    finally:
        for daemon in daemons:
            daemon.destroy()


@pytest.fixture
def start(make_daemon):
    """start(group={setting: value}, …): a daemon that answers."""

    def start_one(**kwargs):
        daemon = make_daemon(**kwargs)
        daemon.start()
        return daemon

    return start_one


@pytest.fixture
def daemon(start):
    """A daemon with the settings of `Daemon.DEFAULTS`."""
    return start()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """{name in it: (certificate, key)}, as files."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    made = {}
    for name in ("IP:127.0.0.1", "DNS:elsewhere.invalid"):
        directory = tmp_path_factory.mktemp("tls")
        cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=stand-in", "-addext",
                        f"subjectAltName={name}"], check=True, capture_output=True)
        made[name] = (cert, key)
    return made
