"""Files that are good, and files that are not finished yet."""

import os
import signal
import threading

import pytest

from waiting import holds_for, wait_until


def path(daemon, name):
    return os.path.join(daemon.spool, name)


def settled(daemon, count=2):
    """Wait for as many turns of the settling clock: what could have been taken by then, was."""
    for number in range(count):
        aside = os.path.join(daemon.home, "settling")
        with open(aside, "w", encoding="ascii") as file:
            file.write(f"settled-{number}\n")
        os.link(aside, path(daemon, f"settled-{number}"))
        os.unlink(aside)
        wait_until(lambda: not os.path.exists(path(daemon, f"settled-{number}")), "a linked file is taken")


def jobs_of(records):
    return [record["job_id"] for record in records]


def test_an_empty_files_name_is_the_job(daemon, standin):
    with open(path(daemon, "abc123-def456"), "w", encoding="ascii"):
        pass
    record, = daemon.wait_records(1)
    assert (record["job_id"], record["outcome"], record["source"]) == ("abc123-def456", "cancelled", "spool")
    assert record["origin"] == "abc123-def456"
    wait_until(lambda: not daemon.spooled() and not os.listdir(daemon.claimed), "the file is gone")
    assert len(standin.log()) == 1


@pytest.mark.parametrize("name", ["x" * 255, "a:b~c", "a...", "-n", "rejectedx", "tmp", "a.tmp.b", "a.swpx"])
def test_odd_but_good_names(daemon, name):
    with open(path(daemon, name), "w", encoding="ascii"):
        pass
    record, = daemon.wait_records(1)
    assert (record["job_id"], record["outcome"], record["origin"]) == (name, "cancelled", name)


def test_a_long_name_with_lines_in_it(daemon):
    name = "y" * 255
    daemon.drop(name, "a\n")
    record, = daemon.wait_records(1)
    assert (record["job_id"], record["origin"]) == ("a", name)


CONTENTS = [
    ("one line", b"a\n", ["a"]),
    ("no last newline", b"a\nb", ["a", "b"]),
    ("comments and blanks", b"# comment\n\na\n   \n\t\nb\n#\n", ["a", "b"]),
    ("CRLF", b"a\r\nb\r\n\r\n# c\r\n", ["a", "b"]),
    ("surrounding blanks", b"  a\nb \t \n\t c\t\n", ["a", "b", "c"]),
    ("byte order mark", b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
    ("byte order mark and CRLF", b"\xef\xbb\xbf# c\r\na\r\nb", ["a", "b"]),
    ("JSON", b'{"job_id": "a"}\n{"job_id":"b","deadline_s":60}\n', ["a", "b"]),
    ("JSON and bare", b'a\n {"job_id": "b"} \r\nc', ["a", "b", "c"]),
    ("the same job twice", b"a\na\n", ["a", "a"]),
    ("only comments", b"# nothing\n", []),
    ("only a newline", b"\n", []),
    ("odd IDs", b"a:b~c\n...\n-\n" + b"z" * 255 + b"\n", ["a:b~c", "...", "-", "z" * 255]),
    ("escapes", b'{"job_id": "\\u0061"}\n', ["a"]),
]


@pytest.mark.parametrize("data, jobs", [case[1:] for case in CONTENTS],
                         ids=[case[0].replace(" ", "-") for case in CONTENTS])
def test_contents(daemon, data, jobs):
    daemon.drop("list.txt", data)
    wait_until(lambda: not daemon.spooled(), "the file is taken")
    daemon.drop("last", b"")
    records = daemon.wait_records(len(jobs) + 1)
    assert sorted(jobs_of(records)) == sorted(jobs + ["last"])
    assert all(record["outcome"] == "cancelled" for record in records)
    assert all(record["origin"] == "list.txt" for record in records if record["job_id"] != "last")
    assert not os.listdir(daemon.rejected) if os.path.isdir(daemon.rejected) else True


def test_request_ids_in_a_file(daemon, standin):
    daemon.drop("f", '{"job_id": "a", "request_id": "r-1"}\n{"request_id": "r-2", "job_id": "b"}\n')
    assert {record["request_id"]: record["job_id"] for record in daemon.wait_records(2)} == {"r-1": "a", "r-2": "b"}
    # The same again is no second request, whole file or line.
    daemon.drop("g", '{"job_id": "a", "request_id": "r-1"}\n{"job_id": "b", "request_id": "r-2"}\nc\n')
    assert jobs_of(daemon.wait_records(3))[2] == "c"
    assert len(standin.log()) == 3


def test_a_deadline_in_a_file(start, standin):
    daemon = start(retry={"max_attempts": 1000})
    standin.fault(status=500, times=None)
    daemon.drop("f", '{"job_id": "a", "deadline_s": 1}\n')
    record, = daemon.wait_records(1)
    assert record["outcome"] == "expired" and record["elapsed_ms"] >= 1000


IGNORED = [".hidden", ".a.swp", "a.tmp", "b.part", "c.swp", "d~", ".tmp", "~"]


def test_ignored_names_are_left_until_they_are_renamed(daemon, standin):
    for name in IGNORED:
        with open(path(daemon, name), "w", encoding="ascii") as file:
            file.write(f"job-{name}\n")
    settled(daemon)
    assert daemon.spooled() == sorted(IGNORED)
    os.rename(path(daemon, "a.tmp"), path(daemon, "a"))
    assert "job-a.tmp" in jobs_of(daemon.wait_records(3))
    assert daemon.spooled() == sorted(set(IGNORED) - {"a.tmp"})
    daemon.restart()
    settled(daemon, 1)
    assert daemon.spooled() == sorted(set(IGNORED) - {"a.tmp"})
    daemon.wait_records(4)
    assert len(standin.log()) == 4


def test_directories_are_left_and_logged_once(start):
    daemon = start(spool={"rescan_interval_s": 1})
    os.mkdir(path(daemon, "some-directory"))
    with open(path(daemon, "some-directory/inside"), "w", encoding="ascii"):
        pass
    settled(daemon)
    wait_until(lambda: "some-directory" in daemon.stderr(), "it is logged")
    before = len([line for line in daemon.stderr().splitlines() if "some-directory" in line])
    holds_for(2.2, lambda: daemon.process.poll() is None, "it lives through two scans")
    assert len([line for line in daemon.stderr().splitlines() if "some-directory" in line]) == before == 1
    assert daemon.spooled() == ["some-directory"]


def test_a_half_written_file_is_not_taken_until_it_is_closed(daemon, standin):
    with open(path(daemon, "slow"), "wb", buffering=0) as file:
        file.write(b"abc")
        settled(daemon)
        assert "slow" in daemon.spooled()
        file.write(b"def\nghi")
        settled(daemon)
        file.write(b"jkl")
    records = daemon.wait_records(6)
    assert sorted(jobs_of(records)) == sorted(["abcdef", "ghijkl"] + ["settled-0", "settled-1"] * 2)
    assert "abc" not in [entry["job"] for entry in standin.log()]


def test_an_empty_file_that_is_still_open_is_not_taken(daemon, standin):
    with open(path(daemon, "not-a-job"), "wb", buffering=0) as file:
        settled(daemon)
        assert "not-a-job" in daemon.spooled()
        file.write(b"real\n")
    assert "real" in jobs_of(daemon.wait_records(3))
    assert standin.log(job="not-a-job") == []


def test_two_writers_of_one_file(daemon):
    first = open(path(daemon, "f"), "ab", buffering=0)
    second = open(path(daemon, "f"), "ab", buffering=0)
    first.write(b"a\n")
    first.close()       # closed, but not by everyone
    second.write(b"b\nlon")
    settled(daemon)
    second.write(b"ger\n")
    second.close()
    records = daemon.wait_records(5)
    assert sorted(set(jobs_of(records))) == ["a", "b", "longer", "settled-0", "settled-1"]


def test_appending_while_files_are_taken_loses_nothing(daemon):
    count, writers = 300, 3

    def append(writer):
        for number in range(count):
            with open(path(daemon, "f"), "ab", buffering=0) as file:
                file.write(b"w%d-%d\n" % (writer, number))

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"w{writer}-{number}" for writer in range(writers) for number in range(count))
    assert sorted(jobs_of(daemon.wait_records(len(expected)))) == expected


def test_a_file_linked_in(daemon):
    aside = os.path.join(daemon.home, "aside")
    with open(aside, "w", encoding="ascii") as file:
        file.write("a\nb\n")
    os.link(aside, path(daemon, "linked"))
    assert sorted(jobs_of(daemon.wait_records(2))) == ["a", "b"]
    assert os.path.exists(aside)


def test_a_file_linked_in_while_it_is_written_elsewhere(start):
    daemon = start(spool={"rescan_interval_s": 1})
    with open(os.path.join(daemon.home, "aside"), "wb", buffering=0) as file:
        file.write(b"abc")
        os.link(os.path.join(daemon.home, "aside"), path(daemon, "linked"))
        settled(daemon)
        assert "linked" in daemon.spooled()
        file.write(b"def\n")
    assert "abcdef" in jobs_of(daemon.wait_records(3))


def test_an_unnamed_file_linked_in(daemon):
    flag = getattr(os, "O_TMPFILE", None)
    try:
        descriptor = os.open(daemon.home, flag | os.O_WRONLY, 0o644)
    except (TypeError, OSError):
        pytest.skip("no O_TMPFILE here")
    os.write(descriptor, b"a\n")
    root = os.open("/", os.O_RDONLY)        # with a descriptor, os.link() follows the link in /proc
    os.link(f"/proc/self/fd/{descriptor}", path(daemon, "linked"), src_dir_fd=root)
    os.close(root)
    os.close(descriptor)
    assert jobs_of(daemon.wait_records(1)) == ["a"]


def test_a_file_replaced_by_rename(daemon):
    """Each version that was there under the name is taken once, or was replaced before it was taken."""
    for number in range(200):
        daemon.drop("f", f"v{number}\n")
    wait_until(lambda: "f" not in daemon.spooled(), "the last is taken")
    daemon.drop("end", "end\n")
    wait_until(lambda: "end" in jobs_of(daemon.records()), "the end")
    jobs = jobs_of(daemon.records())
    assert "v199" in jobs and len(jobs) == len(set(jobs))


def test_the_same_name_again_is_new_work(daemon):
    for number in range(3):
        with open(path(daemon, "job"), "w", encoding="ascii"):
            pass
        records = daemon.wait_records(number + 1)
        wait_until(lambda: not daemon.spooled(), "it is taken")
    assert jobs_of(records) == ["job"] * 3


def test_files_from_before_the_start(make_daemon):
    daemon = make_daemon()
    daemon.drop("empty-job", b"")
    daemon.drop("list", b"a\nb\n")
    with open(path(daemon, "half"), "wb", buffering=0) as file:
        file.write(b"ha")
        daemon.start()
        settled(daemon)
        assert "half" in daemon.spooled()
        file.write(b"lf\n")
    assert sorted(set(jobs_of(daemon.wait_records(6)))) == ["a", "b", "empty-job", "half", "settled-0", "settled-1"]


def test_a_file_that_is_removed_again(daemon):
    daemon.signal(signal.SIGSTOP)
    daemon.drop("gone", b"gone\n")
    os.unlink(path(daemon, "gone"))
    daemon.signal(signal.SIGCONT)
    daemon.drop("a", b"")
    assert jobs_of(daemon.wait_records(1)) == ["a"]


def test_other_peoples_files(make_daemon):
    """The daemon needs no permission to read an empty file, whose name says it all."""
    if os.getuid() != 0:
        pytest.skip("needs a second user")
    daemon = make_daemon(user=65534)
    daemon.start()
    descriptor = os.open(path(daemon, "abc"), os.O_CREAT | os.O_WRONLY, 0)
    os.close(descriptor)
    record, = daemon.wait_records(1)
    assert (record["job_id"], record["outcome"]) == ("abc", "cancelled")
    wait_until(lambda: not daemon.spooled(), "the file is gone")


# -- Where leases can't tell whether somebody writes ----------------------------------------------


@pytest.fixture
def without_leases(make_daemon):
    """A daemon that may not lease the files of whoever drops them, as it is not their owner."""
    if os.getuid() != 0:
        pytest.skip("needs a second user")
    return make_daemon(user=65534).start()


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_writer_that_begins_late_without_leases(without_leases, standin, mode):
    """It is not taken for an empty file, whose name would be the job."""
    daemon = without_leases
    with open(os.open(path(daemon, "slow"), os.O_CREAT | os.O_WRONLY, mode), "w", encoding="ascii") as file:
        settled(daemon)
        assert "slow" in daemon.spooled()
        file.write("late-1\n")
        file.flush()
        settled(daemon)
        assert "slow" in daemon.spooled()
        file.write("late-2\n")
    if mode == 0o644:
        jobs = {job for job in jobs_of(daemon.wait_records(6)) if job.startswith("late")}
        assert jobs == {"late-1", "late-2"}
    else:
        wait_until(lambda: os.path.exists(os.path.join(daemon.rejected, "slow.reason")), "it is rejected")
        daemon.wait_records(4)
    assert "slow" not in {entry["job"] for entry in standin.log()}


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_an_empty_file_without_leases(without_leases, mode):
    daemon = without_leases
    os.close(os.open(path(daemon, "job"), os.O_CREAT | os.O_WRONLY, mode))
    record, = daemon.wait_records(1)
    assert record["job_id"] == "job"


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_link_without_leases(without_leases, mode):
    """Nobody will announce that it is finished, even if its other name goes."""
    daemon = without_leases
    aside = os.path.join(daemon.home, "aside")
    os.close(os.open(aside, os.O_CREAT | os.O_WRONLY, mode))
    os.link(aside, path(daemon, "job"))
    os.unlink(aside)
    record, = daemon.wait_records(1)
    assert record["job_id"] == "job"
