"""pulse-cancelctl results: the log and its rotations, in order, whatever they look like."""

import gzip
import lzma
import os
import re
import shutil
import subprocess

import pytest

import ctl
from results import read_results
from test_ctl import NOBODY, root_only

JOB = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (\w+) +(\S+)")


def line(n, job="j", outcome="cancelled", time=None, message=None):
    """A line as the daemon writes it."""
    time = time or f"2026-03-01T12:00:{n % 60:02}.000Z"
    error = '{"code":"X","message":"x"}' if outcome != "cancelled" else "null"
    text = f'"{message}"' if message else "null"
    return (f'{{"n":{n},"time":"{time}","request_id":"r{n}","job_id":"{job}","outcome":"{outcome}","http_status":200,'
            f'"attempts":1,"endpoint":"cancel","job_status":null,"source":"socket","origin":"uid=0 pid=1",'
            f'"accepted_at":"{time}","elapsed_ms":1,"coalesced_with":null,"message":{text},"error":{error}}}\n')


def lines(first, last, **options):
    return "".join(line(n, **options) for n in range(first, last + 1))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "results.log"


def numbers(log, *arguments):
    done = ctl.run("/nowhere", "results", "--json", "--file", str(log), *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [record["n"] for record in ctl.documents(done.stdout)]


def shown(log, *arguments):
    """(outcome, job) of each line for people."""
    text = ctl.good("/nowhere", "results", "--file", str(log), *arguments)
    return [JOB.match(one).groups() for one in text.splitlines()]


# -- a daemon's own log -------------------------------------------------------------------------


def test_rotated_and_compressed(daemon, standin):
    """As logrotate leaves it: NAME, NAME.1, NAME.2.gz, …"""
    standin.fault(job="c", status=404)
    for i, job in enumerate("abc"):
        daemon.outcome(job)
        daemon.wait_records(2 * i + 1)
        daemon.rotate()
        daemon.call("reload")
        daemon.outcome(f"after-{job}")
        daemon.wait_records(2 * i + 2)
    files = daemon.rotated + [daemon.results]
    daemon.wait_records(6)
    everything = "".join(open(path, encoding="utf-8").read() for path in files)
    assert len(read_results(*files)) == 6
    packed = daemon.home + "/packed"
    os.mkdir(packed)
    shutil.copy(daemon.results, packed)
    shutil.copy(files[2], packed + "/results.log.1")
    for number, path in ((2, files[1]), (3, files[0])):
        with open(path, "rb") as file, gzip.open(f"{packed}/results.log.{number}.gz", "wb") as out:
            out.write(file.read())
    log = packed + "/results.log"
    assert ctl.good("/nowhere", "--json", "results", "--file", log) == everything
    assert shown(log, "--outcome", "not_found") == [("not_found", "c")]
    assert [job for _, job in shown(log, "a", "after-b")] == ["a", "after-b"]


# -- the order ----------------------------------------------------------------------------------


def test_in_order_of_n_whatever_the_names(log):
    log.write_text(lines(31, 40))
    (log.parent / "results.log-20260301").write_text(lines(11, 20))
    (log.parent / "results.log.old").write_text(lines(21, 30))
    with gzip.open(log.parent / "results.log.9.gz", "wt") as file:
        file.write(lines(1, 10))
    (log.parent / "other.log").write_text(lines(41, 50))
    assert numbers(log) == list(range(1, 41))


def test_a_file_that_is_there_twice(log):
    """While gzip packs it, a rotated file has two names."""
    log.write_text(lines(11, 12))
    (log.parent / "results.log.1").write_text(lines(1, 10))
    with gzip.open(log.parent / "results.log.1.gz", "wt") as file:
        file.write(lines(1, 10))
    os.link(log, log.parent / "results.log.linked")
    assert numbers(log) == list(range(1, 13))


def test_two_databases(log):
    """After a new beginning numbers begin anew: nothing is taken for something else."""
    (log.parent / "results.log.before").write_text(lines(1, 5, job="old"))
    log.write_text(lines(1, 3, job="new"))
    assert sorted(shown(log)) == [("cancelled", "new")] * 3 + [("cancelled", "old")] * 5


def test_what_is_torn_or_no_result_is_passed_over(log):
    (log.parent / "results.log.1").write_text(lines(1, 2) + line(3)[:40])
    (log.parent / "results.log.note").write_text("kept for the audit\n")
    (log.parent / "results.log.empty").write_text("")
    os.mkdir(log.parent / "results.log.d")
    os.symlink("/etc/passwd", log.parent / "results.log.link")
    log.write_text(lines(3, 4) + "rubbish\n" + "\0" * 20 + "\n" + line(5) + line(6)[:-1])
    assert numbers(log) == [1, 2, 3, 4, 5]


def test_large_files_and_long_lines(log):
    with gzip.open(log.parent / "results.log.1.gz", "wt") as file:
        file.write(lines(1, 20000) + line(20001, message="m" * 100000))
    log.write_text(lines(20002, 20010))
    assert numbers(log) == list(range(1, 20011))


# -- filters ------------------------------------------------------------------------------------


def test_jobs_and_outcomes(log):
    log.write_text(line(1, "a") + line(2, "b", "failed") + line(3, "a", "expired") + line(4, "ab"))
    assert numbers(log, "a") == [1, 3]
    assert numbers(log, "a", "b") == [1, 2, 3]
    assert numbers(log, "--outcome", "failed") == [2]
    assert numbers(log, "--outcome", "failed,expired") == [2, 3]
    assert numbers(log, "a", "-o", "failed") == []
    assert numbers(log, "r1") == [], "a request ID is no job ID"


def test_times(log):
    log.write_text(line(1, time="2026-03-01T11:59:59.999Z") + line(2, time="2026-03-01T12:00:00.000Z")
                   + line(3, time="2026-03-01T23:00:00.000Z") + line(4, time="2026-03-02T00:30:00.000Z"))
    assert numbers(log, "--since", "2026-03-01T12:00:00Z") == [2, 3, 4]
    assert numbers(log, "--until", "2026-03-01T12:00:00Z") == [1]
    assert numbers(log, "--since", "2026-03-01 12:00", "--until", "2026-03-02") == [2, 3]
    assert numbers(log, "--since", "2026-03-01T13:00+01:00") == [2, 3, 4]
    assert numbers(log, "--since", "2026-03-01T12:00:00.001Z") == [3, 4]
    assert numbers(log, "--since", "100w") == [1, 2, 3, 4] or numbers(log, "--until", "100w") == [1, 2, 3, 4]
    # Local times are local.
    done = ctl.run("/nowhere", "--json", "results", "-f", str(log), "--since", "2026-03-02", TZ="Europe/Berlin")
    assert [record["n"] for record in ctl.documents(done.stdout)] == [3, 4]
    done = ctl.run("/nowhere", "results", "-f", str(log), "--since", "2026-03-02", TZ="Europe/Berlin")
    assert done.stdout.startswith("2026-03-02 00:00:00  cancelled ")


def test_the_last_lines(log):
    (log.parent / "results.log.1").write_text(lines(1, 5, job="a"))
    log.write_text(lines(6, 7, job="b") + line(8, "a"))
    assert numbers(log, "--lines", "2") == [7, 8]
    assert numbers(log, "--lines", "3", "a") == [4, 5, 8]
    assert numbers(log, "--lines", "100") == list(range(1, 9))


def test_texts_of_strangers(log):
    """A bad line of a spool file, with what drives terminals."""
    log.write_text(line(1, "\\u001b[2Jx\\u0007\\u009b é", "invalid", message="line 1: not a job ID"))
    text = ctl.good("/nowhere", "results", "-f", str(log))
    assert "?[2Jx?? é" in text and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "?[2Jx?? ?" in ctl.good("/nowhere", "results", "-f", str(log), LC_ALL="C")


# -- trouble ------------------------------------------------------------------------------------


def test_no_log(log):
    done = ctl.run("/nowhere", "results", "--file", str(log))
    assert done.returncode == 1 and "No such file" in done.stderr and "results.path" in done.stderr
    done = ctl.run("/nowhere", "results", "--file", "/nowhere/results.log")
    assert done.returncode == 1 and "No such file" in done.stderr
    log.write_text("")
    assert numbers(log) == []


def test_only_rotated_ones(log):
    (log.parent / "results.log.1").write_text(lines(1, 2))
    assert numbers(log) == [1, 2]


def test_a_damaged_file_is_told(log):
    log.write_text(lines(5001, 5002))
    packed = gzip.compress(lines(1, 5000).encode())
    (log.parent / "results.log.1.gz").write_bytes(packed[:len(packed) // 2])
    done = ctl.run("/nowhere", "--json", "results", "--file", str(log))
    assert done.returncode == 1 and "results.log.1.gz: damaged" in done.stderr
    found = [record["n"] for record in ctl.documents(done.stdout)]
    assert found[-2:] == [5001, 5002] and found[:-2] == list(range(1, len(found) - 1)) and 10 < len(found) < 5000


def test_other_compressors_are_told(log):
    log.write_text(lines(3, 4))
    (log.parent / "results.log.1.xz").write_bytes(lzma.compress(lines(1, 2).encode()))
    done = ctl.run("/nowhere", "--json", "results", "--file", str(log))
    assert done.returncode == 1 and "results.log.1.xz: compressed by xz, unpack it first" in done.stderr
    assert [record["n"] for record in ctl.documents(done.stdout)] == [3, 4]


@root_only
def test_no_permission(daemon):
    daemon.outcome("a")
    daemon.wait_records(1)
    for path in (daemon.home, os.path.dirname(daemon.results)):
        os.chmod(path, 0o755)
    program = ctl.copy_for_others(daemon.home)

    def as_nobody():
        return subprocess.run([program, "results", "--file", daemon.results], user=NOBODY, group=NOBODY,
                              extra_groups=[], capture_output=True, text=True, check=False, cwd="/")
    done = as_nobody()
    assert done.returncode == 1 and "group 'pulse-canceld'" in done.stderr
    os.chmod(os.path.dirname(daemon.results), 0o700)
    done = as_nobody()
    assert done.returncode == 1 and "usermod -aG pulse-canceld USER" in done.stderr
