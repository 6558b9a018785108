"""The results log: exactly one line each, across rotation, SIGKILL and torn ends."""

import os
import shutil
import stat

import pytest

from results import MEMBERS
from waiting import wait_until


def jobs(first, count):
    return [f"job-{number:05}" for number in range(first, first + count)]


def run(daemon, first, count):
    """Cancel some jobs and wait for all results so far."""
    daemon.call("cancel", job_ids=jobs(first, count))
    return daemon.wait_records(first + count)


def reopened(daemon):
    wait_until(lambda: os.path.exists(daemon.results), "the results log is opened anew")


def test_mode_and_members(daemon):
    record, = run(daemon, 0, 1)
    assert stat.S_IMODE(os.stat(daemon.results).st_mode) == 0o640
    assert list(record) == MEMBERS and record["n"] == 1
    assert record["elapsed_ms"] < 60000


def test_appended_across_restarts(daemon):
    run(daemon, 0, 10)
    daemon.restart()
    run(daemon, 10, 10)
    daemon.kill()
    daemon.start()
    run(daemon, 20, 10)


def test_a_result_is_in_the_log_when_a_client_has_it_or_soon_after(daemon):
    for number in range(20):
        result = daemon.outcome(f"j{number}")
        assert result["n"] == number + 1
    assert len(daemon.wait_records(20)) == 20


def test_rotation(daemon):
    for turn in range(3):
        run(daemon, turn * 20, 20)
        daemon.rotate()
        daemon.reload()
        reopened(daemon)
    run(daemon, 60, 20)
    for path in daemon.rotated + [daemon.results]:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_rotation_under_load(daemon):
    for turn in range(5):
        # Some for each, or all would have come before the last.
        daemon.call("cancel", job_ids=jobs(turn * 1000, 1000))
        wait_until(lambda: os.path.exists(daemon.results) and os.path.getsize(daemon.results) > 0, "lines come")
        daemon.rotate()
        daemon.reload()
        reopened(daemon)
    records = daemon.wait_records(5000, timeout_s=60)
    assert {record["job_id"] for record in records} == set(jobs(0, 5000))


def test_rotation_without_sighup_goes_on_in_the_old_file(daemon):
    run(daemon, 0, 10)
    daemon.rotate()
    run(daemon, 10, 10)
    daemon.reload()
    reopened(daemon)
    run(daemon, 20, 10)


def test_sigkill_between_rename_and_sighup(daemon):
    run(daemon, 0, 10)
    daemon.rotate()
    run(daemon, 10, 10)
    daemon.kill()
    daemon.start()
    run(daemon, 20, 10)


def test_sigkill_between_rename_and_sighup_with_work_left(daemon, standin):
    run(daemon, 0, 10)
    standin.fault(gate="g", times=None)
    daemon.call("cancel", job_ids=jobs(10, 10))
    daemon.rotate()
    daemon.kill()
    standin.open("g")
    daemon.start()
    run(daemon, 20, 10)


def test_sigkill_between_sighup_and_the_next_outcome(daemon):
    for turn in range(3):
        run(daemon, turn * 10, 10)
        daemon.rotate()
        daemon.reload()
        reopened(daemon)
        daemon.kill()
        daemon.start()
    run(daemon, 30, 10)


def test_sigkill_right_after_sighup(daemon):
    for turn in range(5):
        run(daemon, turn * 10, 10)
        daemon.rotate()
        daemon.reload()
        daemon.kill()
        daemon.start()
    run(daemon, 50, 10)


def test_rotated_while_stopped(daemon):
    run(daemon, 0, 10)
    daemon.stop()
    daemon.rotate()
    daemon.start()
    run(daemon, 10, 10)


def test_the_log_deleted_while_stopped(daemon):
    """What was logged is logged; the numbers go on."""
    run(daemon, 0, 10)
    daemon.stop()
    os.unlink(daemon.results)
    daemon.start()
    daemon.call("cancel", job_ids=jobs(10, 10))

    def last():
        with open(daemon.results, encoding="utf-8") as file:
            lines = file.read().splitlines()
        return bool(lines) and '"job-00019"' in "".join(lines) and len(lines) >= 10
    wait_until(lambda: os.path.exists(daemon.results) and last(), "new lines")
    with open(daemon.results, "rb") as file:
        numbers = [int(line.split(b":")[1].split(b",")[0]) for line in file]
    assert numbers == list(range(numbers[0], 21)) and numbers[0] in (1, 11)
    daemon.stop()
    os.unlink(daemon.results)       # the reader at the end wants all of them


def numbers_of(path):
    with open(path, "rb") as file:
        return [int(line.split(b":")[1].split(b",")[0]) for line in file.read().split(b"\n")[:-1]]


def test_the_log_removed_while_it_is_used(daemon):
    """What was synced went with it, by its remover's will. No later line is written where nobody can read it."""
    run(daemon, 0, 10)
    daemon.restart()                # all is synced
    os.unlink(daemon.results)
    daemon.call("cancel", job_ids=jobs(10, 10))
    wait_until(lambda: os.path.exists(daemon.results) and numbers_of(daemon.results) == list(range(11, 21)), "a new log")
    assert daemon.stderr().count("was removed by another program; beginning a new one") == 1
    assert "storage" not in daemon.stderr() and stat.S_IMODE(os.stat(daemon.results).st_mode) == 0o640
    daemon.restart()
    daemon.call("cancel", job_ids=jobs(20, 1))
    wait_until(lambda: numbers_of(daemon.results) == list(range(11, 22)), "the next line")
    daemon.stop()
    os.unlink(daemon.results)       # the reader at the end wants all of them


def test_the_directory_of_the_log_removed_while_it_is_used(daemon):
    run(daemon, 0, 10)              # and to be synced within a second
    directory = os.path.dirname(daemon.results)
    os.rename(directory, directory + "-away")       # else it might be used again half way
    shutil.rmtree(directory + "-away")
    daemon.call("cancel", job_ids=jobs(10, 10))
    wait_until(lambda: daemon.stderr().count("can't open the results log") > 5, "it tries again and again")
    assert daemon.call("stats")["storage"] == "results log: No such file or directory"
    os.mkdir(directory)
    wait_until(lambda: os.path.exists(daemon.results) and numbers_of(daemon.results)[-10:] == list(range(11, 21)),
               "a new log")
    assert daemon.stderr().count("was removed by another program; beginning a new one") == 1
    daemon.stop()
    os.unlink(daemon.results)       # the reader at the end wants all of them


ENDS = [b'{"n":11,"time":"2026-', b'{"n":11', b"{", b"\0", b"\0" * 4096, b"\n", b'{"n":11}\0\0\0', b"garbage",
        b'{"n":11,"time":"20\0\0\0\0\0\0', b"\xff" * 10, b'\0\0\0{"n":11}\n', b"garbage\n"]


@pytest.mark.parametrize("end", ENDS, ids=[repr(end[:14]) for end in ENDS])
def test_a_torn_end_is_repaired(daemon, end):
    run(daemon, 0, 10)
    daemon.kill()
    with open(daemon.results, "ab") as file:
        file.write(end)
    daemon.start()
    run(daemon, 10, 5)


@pytest.mark.parametrize("how", ["cut", "zeros", "lines"])
def test_lost_lines_are_written_again(daemon, standin, how):
    """What a power loss may do to lines that were not synced yet: here, to the very last."""
    run(daemon, 0, 10)
    daemon.kill()
    size = os.path.getsize(daemon.results)
    with open(daemon.results, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    if how == "cut":
        os.truncate(daemon.results, size - 10)
    elif how == "zeros":
        os.truncate(daemon.results, size - 10)
        os.truncate(daemon.results, size)
    else:
        os.truncate(daemon.results, size - len(lines[-1]) - len(lines[-2]))
    daemon.start()
    daemon.wait_records(10)
    with open(daemon.results, "rb") as file:
        assert file.read().splitlines(keepends=True) == lines
    run(daemon, 10, 5)
    assert len(standin.log()) == 15


def test_sigkill_at_many_moments(daemon, standin):
    daemon.call("cancel", job_ids=jobs(0, 3000))
    for turn in range(1, 7):
        wait_until(lambda: standin.counts()["requests"] >= turn * 400, "so many requests")
        daemon.kill()
        daemon.start()
    records = daemon.wait_records(3000, timeout_s=60)
    assert {record["job_id"] for record in records} == set(jobs(0, 3000))


def make_foreign(make_daemon, count):
    """A results log of another database, with so many lines."""
    other = make_daemon(name="other")
    other.start()
    run(other, 0, count)
    other.stop()
    return other


@pytest.mark.parametrize("own, foreign", [(0, 3), (1, 3), (3, 3), (3, 1)])
def test_the_log_of_another_database_is_an_error(make_daemon, own, foreign):
    other = make_foreign(make_daemon, foreign)
    daemon = make_daemon()
    if own:
        daemon.start()
        run(daemon, 0, own)
        daemon.stop()
        os.rename(daemon.results, daemon.results + ".own")
    shutil.copy(other.results, daemon.results)
    with open(daemon.results, "rb") as file:
        before = file.read()
    daemon.spawn()
    assert daemon.wait(5) == 1
    assert "results.log" in daemon.stderr()
    with open(daemon.results, "rb") as file:
        assert file.read() == before


def test_a_log_that_cannot_be_opened(make_daemon):
    daemon = make_daemon()
    os.mkdir(daemon.results)
    daemon.spawn()
    assert daemon.wait() == 1
    assert "results.log" in daemon.stderr()
    os.rmdir(daemon.results)
