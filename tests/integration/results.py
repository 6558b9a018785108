"""Read results logs, and check each line: its members, their types, and which go together."""

import datetime
import json
import os
import re

MEMBERS = ["n", "time", "request_id", "job_id", "outcome", "http_status", "attempts", "endpoint", "job_status",
           "source", "origin", "accepted_at", "elapsed_ms", "coalesced_with", "message", "error"]
OUTCOMES = {"cancelled", "too_late", "not_found", "unauthorized", "forbidden", "rejected", "failed", "expired",
            "invalid", "withdrawn"}
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
JOB_ID = re.compile(r"^[A-Za-z0-9._~:-]{1,255}$")


def is_int(value):
    return type(value) is int


def is_text(value):
    return value is None or type(value) is str


def parse_time(text):
    """Seconds since 1970 of a time as the daemon writes it."""
    assert TIME.match(text), text
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def ordered(pairs):
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"repeated members: {names}"
    return dict(pairs)


def check_record(record):
    """One result, as in a line of the log or in an answer with `wait`."""
    assert list(record) == MEMBERS
    assert is_int(record["n"]) and record["n"] >= 1
    assert parse_time(record["time"]) >= parse_time(record["accepted_at"])
    assert REQUEST_ID.match(record["request_id"])
    assert record["outcome"] in OUTCOMES
    assert record["http_status"] is None or is_int(record["http_status"]) and 100 <= record["http_status"] <= 999
    assert is_int(record["attempts"]) and record["attempts"] >= 0
    assert record["endpoint"] in ((None,) if record["attempts"] == 0 else ("cancel", "job"))
    assert record["job_status"] is None or type(record["job_status"]) is str
    assert record["source"] in ("spool", "socket", "nats")
    assert type(record["origin"]) is str and record["origin"]
    if record["source"] == "socket":
        assert re.match(r"^uid=\d+ pid=\d+$", record["origin"])
    assert is_int(record["elapsed_ms"]) and record["elapsed_ms"] >= 0
    assert record["coalesced_with"] is None or REQUEST_ID.match(record["coalesced_with"])
    assert record["coalesced_with"] != record["request_id"]
    assert is_text(record["message"]) and len((record["message"] or "").encode()) <= 4096
    check_outcome(record)
    return record


def check_outcome(record):
    error = record["error"]
    if error is not None:
        assert list(error) == ["code", "message"]
        assert type(error["code"]) is str and error["code"] and type(error["message"]) is str
        assert len(error["message"].encode()) <= 4096
    if record["outcome"] == "cancelled":
        assert error is None
    elif record["outcome"] == "invalid":
        assert record["attempts"] == 0 and record["http_status"] is None
        assert error["code"] == "invalid_request" and record["message"].startswith("line ")
        assert len(record["job_id"].encode()) <= 255
    if record["outcome"] != "invalid":
        assert JOB_ID.match(record["job_id"]) and record["job_id"] not in (".", "..")


def parse_lines(data, where):
    """Every byte of a log: whole lines of JSON in UTF-8, nothing else."""
    assert not data or data.endswith(b"\n"), f"{where}: torn last line {data[-100:]!r}"
    records = []
    for line in data.split(b"\n")[:-1]:
        assert not re.search(rb"[\x00-\x1f\x7f]", line), f"{where}: control characters in {line!r}"
        try:
            record = json.loads(line.decode("utf-8"), object_pairs_hook=ordered)
            records.append(check_record(record))
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{where}: {error}\n{line!r}") from error
    return records


def read_results(*paths, growing=False):
    """The records of a log that may be rotated into several files, oldest first. While it is growing, the
    end may be a line that is just being written."""
    records = []
    for path in paths:
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
            if growing:
                data = data[:data.rfind(b"\n") + 1]
            records += parse_lines(data, os.path.basename(path))
    assert [record["n"] for record in records] == list(range(1, len(records) + 1))
    ids = [record["request_id"] for record in records]
    assert len(ids) == len(set(ids)), "two lines for one request"
    return records


def count_lines(*paths):
    """Newlines in the files, for a cheap look while waiting."""
    total = 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                total += file.read().count(b"\n")
        except FileNotFoundError:
            pass
    return total
