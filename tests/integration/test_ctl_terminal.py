"""pulse-cancelctl on a terminal: top, the progress bar, colours."""

import re
import subprocess
import termios

import pytest

import ctl
from terminal import Terminal
from waiting import wait_until

COLOUR = re.compile(r"\x1b\[[\d;]*\b(?:3[0-7]|9[0-7]|4[0-7])[\d;]*m")


def terminal(daemon, *arguments, columns=80, lines=24, **variables):
    variables.setdefault("TERM", "xterm-256color")
    return Terminal(ctl.command(daemon.socket, *arguments), ctl.environment(**variables), columns, lines)


# -- top ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["xterm-256color", "vt100", "linux"])
def test_top_on_a_small_terminal(term, daemon, standin):
    standin.fault(prefix="lost-", status=404, message="No such job", times=None)
    with terminal(daemon, "top", TERM=term) as top:
        lines = top.wait_text("Latest failures: none since this began")
        assert re.match(rf" pulse-canceld 0\.1\.0   pid {daemon.process.pid}   up 00:00:\d\d   endpoint cancel", lines[0])
        assert re.search(r" \d\d:\d\d:\d\d$", lines[0])
        assert lines[1] == " Idle: nothing is pending."
        for number in range(20):
            daemon.outcome(f"lost-{number}" if number % 2 else f"job-{number}")
        lines = top.wait_text(r"^ \d\d:\d\d:\d\d  lost-19 +not_found +No such job$")
        # Newest first, as many as there is room for, and the last line is the keys'.
        failures = [line.split()[1] for line in lines if re.match(r" \d\d:\d\d:\d\d  lost-", line)]
        assert failures == [f"lost-{19 - 2 * i}" for i in range(len(failures))] and len(failures) >= 6
        assert lines[23] == " q quit   space freeze" and all(len(line) <= 80 for line in lines)
        top.wait_text(r"^ Cancelled/s +\d[\d.]* +\d[\d.]*.*[▁▂▃▄▅▆▇█]")
        top.wait_text(r"^ Not cancelled/s .*[▁▂▃▄▅▆▇█]")
        assert any(re.match(r" Limits: 16 in flight, rate no limit, breaker closed   Waiting for a retry: 0$", line)
                   for line in lines)
        top.type("q")
        assert top.ended() == 0


def test_top_follows_the_terminals_size(daemon):
    daemon.outcome("a")
    with terminal(daemon, "top") as top:
        top.wait_text("last 38 s")
        top.resize(150, 40)
        lines = top.wait_text("last 108 s")
        lines = top.wait_for(lambda now: "space freeze" in now[39] and now[23] == "", "the keys are at the bottom")
        assert len(lines[0]) >= 148
        top.resize(30, 8)
        lines = top.wait_for(lambda now: "space freeze" in now[7], "it is cut, and goes on")
        top.type("q")
        assert top.ended() == 0


def test_top_shows_backlog_holds_and_what_is_in_flight(daemon, standin):
    standin.fault(job="stuck", gate="g")
    daemon.cancel("stuck")
    wait_until(lambda: standin.log(), "it is in flight")
    daemon.call("hold")
    daemon.call("cancel", job_ids=[f"j{i}" for i in range(1234)])
    with terminal(daemon, "top") as top:
        lines = top.wait_text("Held by the operator: nothing is sent. 'pulse-cancelctl release' resumes.")
        assert any(re.match(r" Backlog +1,234 +[█]$", line) for line in lines)
        assert any(re.match(r" In flight +1 +[█]$", line) for line in lines)
        standin.open("g")
        daemon.call("release")
        top.wait_text(r"^ Backlog +0 ")
        top.wait_text(r"Idle: nothing is pending\.")
        top.type("q")
        assert top.ended() == 0
    daemon.wait_records(1235)


def test_top_survives_the_daemon(daemon, standin):
    with terminal(daemon, "top") as top:
        top.wait_text("Idle")
        daemon.stop()
        top.wait_text("the daemon can't be reached; trying again")
        daemon.start()
        top.wait_for(lambda lines: "can't be reached" not in lines[23] and f"pid {daemon.process.pid}" in lines[0],
                     "it is back")
        standin.fault(job="a", status=403)
        # Subscribed anew, too.
        wait_until(lambda: daemon.call("stats")["socket"]["clients"] == 2, "it is connected")
        daemon.outcome("a")
        top.wait_text(r"a +forbidden")
        top.type("q")
        assert top.ended() == 0


def test_top_freezes(daemon, standin):
    standin.fault(prefix="lost-", status=404, times=None)
    with terminal(daemon, "top") as top:
        top.wait_text("none since this began")
        top.type(" ")
        top.wait_text("frozen")
        daemon.outcome("lost-1")
        before = top.wait_text("frozen")
        wait_until(lambda: daemon.call("stats")["results"]["not_found"] == 1, "it is done")
        top.read(1.5)
        assert top.screen.text() == before
        top.type(" ")
        top.wait_text("lost-1 +not_found")
        top.type("q")
        assert top.ended() == 0


@pytest.mark.parametrize("end", ["q", "\x03"])
def test_top_gives_the_terminal_back(end, daemon):
    with terminal(daemon, "top") as top:
        top.wait_text("Idle")
        assert termios.tcgetattr(top.slave) != top.modes
        top.type(end)
        assert top.ended() == (0 if end == "q" else 130)
        assert "\x1b[?1049h" in top.raw and top.raw.rindex("\x1b[?1049l") > top.raw.rindex("\x1b[?1049h")
        assert termios.tcgetattr(top.slave)[:4] == top.modes[:4]


def test_top_in_ascii(daemon):
    daemon.outcome("a")
    with terminal(daemon, "top", LC_ALL="C") as top:
        top.wait_text("Idle")
        daemon.outcome("b")
        top.wait_text(r"^ Accepted/s .*[@#*+=:.-]$")
        top.type("q")
        assert top.ended() == 0
        assert top.raw.isascii()


def test_top_needs_a_screen(daemon):
    for term in ("dumb", "no-such-terminal"):
        with terminal(daemon, "top", TERM=term) as top:
            assert top.ended() == 2
            assert "pulse-cancelctl top --json" in " ".join(top.screen.text())


def test_top_json(daemon):
    process = ctl.begin(daemon.socket, "--json", "top")
    for _ in range(2):
        assert ctl.documents(process.stdout.readline())[0]["pid"] == daemon.process.pid
    daemon.stop()
    status, _, err = ctl.ended(process)
    assert status == 3 and "journalctl -u pulse-canceld" in err


# -- the progress bar ---------------------------------------------------------------------------


def test_the_progress_bar(daemon, standin, tmp_path):
    standin.fault(job="j2", status=404)
    standin.fault(regex="^j([5-9])$", gate="g", times=None)
    path = tmp_path / "jobs"
    path.write_text("# ten\n" + "".join(f"j{i}\n" for i in range(10)))
    with terminal(daemon, "cancel", "--file", str(path)) as shell:
        lines = shell.wait_text(r"^\[#+> +\]  50% 5 of 10, 1 not cancelled, [\d,]+/s, 00:00:\d\d left$")
        assert [line.split() for line in lines[:1]] == [["not_found", "j2", "Job", "not", "found"]]
        assert len(lines[1]) <= 79
        shell.resize(40, 24)
        shell.wait_text(r"^5 of 10, 1 not cancelled")
        standin.open("g")
        assert shell.ended() == 1
        lines = [line for line in shell.screen.text() if line]
        # The bar is gone; the summary stays.
        assert lines[-1].startswith("9 cancelled, 1 not_found (") and not any("of 10" in line for line in lines)


def test_the_progress_of_a_pipe_has_no_end(daemon, tmp_path):
    with terminal(daemon, "cancel", "-") as shell:
        shell.type("a\nb\n")
        shell.wait_text(r"^2, [\d,]+/s$")
        shell.type("\x04")
        assert shell.ended() == 0
        assert "2 cancelled" in "\n".join(shell.screen.text())


@pytest.mark.parametrize("term", ["dumb", None])
def test_no_bar_where_it_can_not_be_drawn(term, daemon):
    daemon.call("hold")
    with terminal(daemon, "cancel", "a", "b", TERM=term) as shell:
        wait_until(lambda: daemon.call("stats")["pending"]["queued"] == 2, "they are queued")
        daemon.call("release")
        assert shell.ended() == 0
        assert "\x1b" not in shell.raw and "of 2" not in shell.raw and "2 cancelled" in shell.raw


def test_control_c_while_waiting(daemon):
    daemon.call("hold")
    with terminal(daemon, "cancel", "a", "b") as shell:
        shell.wait_text(r"\] +0% 0 of 2")
        shell.type("\x03")
        assert shell.ended() == 130
        text = "\n".join(shell.screen.text())
        assert "Interrupted. 2 requests were sent" in text and "0 of 2" not in text
    daemon.call("release")
    daemon.wait_records(2)


# -- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["cancel", "a"], ["status", "a"], ["top"]])
def test_colours_only_on_a_terminal_and_never_with_no_color(arguments, daemon):
    daemon.outcome("a")

    def output(**variables):
        with terminal(daemon, *arguments, **variables) as shell:
            if arguments == ["top"]:
                shell.wait_text("Idle")
                shell.type("q")
            assert shell.ended() == 0
            return shell.raw
    assert COLOUR.search(output())
    assert not COLOUR.search(output(NO_COLOR="1"))
    if arguments != ["top"]:
        assert "\x1b" not in output(TERM="dumb")
        done = subprocess.run(ctl.command(daemon.socket, *arguments), capture_output=True, check=True,
                              env=ctl.environment(TERM="xterm-256color"))
        assert b"\x1b" not in done.stdout


def test_a_table_is_cut_at_the_terminals_edge(daemon, standin):
    standin.fault(job="a", status=404, message="m" * 300)
    daemon.outcome("a")
    with terminal(daemon, "status", "a", columns=140) as shell:
        assert shell.ended() == 0
        lines = [line for line in shell.screen.text() if line]
        assert len(lines) == 2 and len(lines[1]) == 140 and lines[1].endswith("mm~")
    assert "m" * 300 in ctl.good(daemon.socket, "status", "a")
