"""Requests of former days, planted into the database and the results log of a daemon that is down."""

import datetime
import sqlite3
import time

DAY_MS = 86400000


def line_of(n, request_id, job_id, time_ms):
    when = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.timezone.utc)
    when = when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"
    return (f'{{"n":{n},"time":"{when}","request_id":"{request_id}","job_id":"{job_id}","outcome":"cancelled",'
            f'"http_status":200,"attempts":1,"endpoint":"cancel","job_status":null,"source":"socket",'
            f'"origin":"uid=0 pid=1","accepted_at":"{when}","elapsed_ms":0,"coalesced_with":null,"message":null,'
            f'"error":null}}\n')


def plant(daemon, count, age_days, logged=True, prefix="old"):
    """So many finished requests, in the database and (if `logged`) in the log. The daemon is down."""
    database = sqlite3.connect(daemon.database)
    seq, n = database.execute("SELECT coalesce(max(seq), 0), coalesce(max(n), 0) FROM request").fetchone()
    logged_n = dict(database.execute("SELECT key, value FROM meta")).get("log_n", 0)
    n = max(n, logged_n)
    at = int(time.time() * 1000) - age_days * DAY_MS
    database.executemany(
        "INSERT INTO request (seq, request_id, job_id, source, origin, accepted_at, deadline_at, leads, base, total, "
        "due_at, http_status, endpoint, n, done_at, outcome) "
        "VALUES (?, ?, ?, 1, 'uid=0 pid=1', ?, ?, 1, 0, 1, 0, 200, 1, ?, ?, 0)",
        ((seq + index, f"r-{prefix}-{index}", f"{prefix}-{index}", at, at + 1000, n + index, at)
         for index in range(1, count + 1)))
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    if logged:
        with open(daemon.results, "a", encoding="ascii") as file:
            file.writelines(line_of(n + index, f"r-{prefix}-{index}", f"{prefix}-{index}", at)
                            for index in range(1, count + 1))
