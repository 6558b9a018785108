"""pulse-cancelctl metrics: Prometheus' text format, with the numbers of stats."""

import os
import re
import shutil
import subprocess

import pytest

import ctl

SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*)\})? (-?\d+)')


def parse(text):
    """{family: {labels: value}}, each family with its HELP and TYPE before it, and in one piece."""
    families, types = {}, {}
    assert text.endswith("\n")
    lines = text.splitlines()
    while lines:
        name = re.fullmatch(r"# HELP (pulse_canceld_[a-z_]+) (\S.*)", lines.pop(0))[1]
        assert name not in families, "each family once"
        kind = re.fullmatch(rf"# TYPE {name} (gauge|counter)", lines.pop(0))[1]
        assert (kind == "counter") == name.endswith("_total"), name
        families[name], types[name] = {}, kind
        while lines and not lines[0].startswith("#"):
            family, labels, value = SAMPLE.fullmatch(lines.pop(0)).groups()
            assert family == name and labels not in families[name]
            families[name][labels] = int(value)
        assert families[name], f"{name} has no sample"
    return {name.removeprefix("pulse_canceld_"): samples for name, samples in families.items()}


def test_the_numbers(daemon, standin):
    standin.fault(job="a", status=500, times=2)
    standin.fault(job="b", status=404)
    for job in "abc":
        daemon.outcome(job)
    daemon.call("hold")
    daemon.cancel("d")
    daemon.cancel("d")
    metrics = parse(ctl.good(daemon.socket, "metrics"))
    assert metrics["up"] == {None: 1}
    assert metrics["info"] == {'version="0.1.0",endpoint="cancel"': 1}
    assert metrics["attempts_total"] == {None: 5} and metrics["retries_total"] == {None: 2}
    assert metrics["accepted_total"] == {'source="spool"': 0, 'source="socket"': 5, 'source="nats"': 0}
    assert metrics["results_total"]['outcome="cancelled"'] == 2
    assert metrics["results_total"]['outcome="not_found"'] == 1
    assert metrics["results_total"]['outcome="failed"'] == 0
    assert metrics["replies_total"] \
        == {'status="200"': 2, 'status="404"': 1, 'status="500"': 2, 'status="transport"': 0}
    assert metrics["pending_requests"] == {'state="queued"': 2, 'state="in_flight"': 0, 'state="waiting"': 0}
    assert metrics["coalesced_total"] == {None: 1}
    assert metrics["held"] == {'by="operator"': 1, 'by="key"': 0}
    assert metrics["breaker"] == {'state="closed"': 1, 'state="open"': 0, 'state="half_open"': 0}
    assert metrics["storage_ok"] == {None: 1} and metrics["in_flight_limit"] == {None: 16}
    assert metrics["pause_remaining_seconds"] == {None: 0}
    assert "nats_connected" not in metrics and "rate_limit_requests_per_second" not in metrics
    daemon.call("release")


def test_conditions(tmp_path):
    path = str(tmp_path / "s")
    stats = '{"version":"9\\"\\\\\\n","endpoint":"job","held":"key","paused_until":"2999-01-01T00:00:00.000Z",' \
        '"breaker":"open","storage":"No space left","nats":"connected","rate_per_s":7}'
    with ctl.Server(path, {"stats": [f'{{"jsonrpc":"2.0","result":{stats},"id":{{id}}}}']}):
        metrics = parse(ctl.good(path, "metrics"))
        text = ctl.good(path, "stats")
    assert metrics["info"] == {'version="9\\"\\\\\\n",endpoint="job"': 1}
    assert metrics["held"] == {'by="operator"': 0, 'by="key"': 1}
    assert metrics["breaker"]['state="open"'] == 1 and metrics["storage_ok"] == {None: 0}
    assert metrics["pause_remaining_seconds"][None] > 0
    assert metrics["nats_connected"] == {None: 1} and metrics["rate_limit_requests_per_second"] == {None: 7}
    # The same for people: each with what to do.
    attention = [line.split(None, 1)[1] for line in text.splitlines() if line.startswith("Attention")]
    assert [line.split()[0] for line in attention] == ["Storage", "Held:", "Paused", "The"]
    assert "No space left" in attention[0] and "restart the daemon" in attention[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_forbidden(daemon):
    """Whoever may not ask does not say that the daemon is down."""
    os.chmod(daemon.home, 0o755)
    done = subprocess.run([ctl.copy_for_others(daemon.home), "--socket", daemon.socket, "metrics"], user=65534,
                          group=65534, extra_groups=[], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (3, "") and "no permission" in done.stderr


def test_unreachable(tmp_path):
    done = ctl.run(str(tmp_path / "s"), "metrics")
    assert done.returncode == 3 and parse(done.stdout) == {"up": {None: 0}}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")
def test_promtool(daemon):
    done = subprocess.run(["promtool", "check", "metrics"], input=ctl.good(daemon.socket, "metrics"),
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
