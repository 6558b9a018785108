"""Storage in trouble: a full disk below database and results log, and a log that can't be opened."""

import os
import shutil
import signal
import tempfile

import pytest

from rpc import RpcError
from scenario import SETTINGS, Script
from storage import Disk

STORAGE_UNAVAILABLE = -32002
DISK_KIB = 4096


def can_mount():
    with tempfile.TemporaryDirectory(prefix="pct-", dir="/tmp") as path:
        try:
            Disk(path, 64).unmount()
        except pytest.skip.Exception:
            return False
    return True


class Storage(Script):
    settings = SETTINGS
    gates = ["in-flight"]
    disk = None

    def prepare(self):
        """Database and results log are on a small disk."""
        daemon = self.daemon
        self.disk = Disk(os.path.join(daemon.home, "disk"), DISK_KIB)
        daemon.database = os.path.join(self.disk.path, "db", "queue.db")
        daemon.results = os.path.join(self.disk.path, "log", "results.log")
        for path in (daemon.database, daemon.results):
            os.makedirs(os.path.dirname(path))
        daemon.set(queue={"database": daemon.database}, results={"path": daemon.results})
        self.away = f"{os.path.dirname(daemon.results)}.away"

    def keep(self):
        shutil.copytree(self.disk.path, f"{self.disk.path}.kept", ignore=shutil.ignore_patterns(".filler"))

    def close(self):
        if self.disk is not None:
            self.disk.unmount()

    def world(self):
        pass

    def before(self):
        self.drop("early", ["early-1", "early-2"])

    def calm(self):
        super().calm()
        if os.path.exists(os.path.join(self.disk.path, ".filler")):
            self.disk.empty()
        if os.path.exists(self.away):
            self.put_back()

    def steps(self):
        self.client = self.daemon.client()
        self.cancel_many([f"batch-{number}" for number in range(6)])
        self.settled()
        self.full(1)
        self.log_is_away()
        self.full(2, rotate=True)
        self.ending()

    def storage(self):
        return self.daemon.call("stats")["storage"]

    def full(self, number, rotate=False):
        """With a request in flight that is answered meanwhile, and a file that waits."""
        self.standin.fault(job=f"flying-{number}", gate="in-flight")
        self.cancel(f"flying-{number}", request_id=f"flying-{number}")
        self.until(lambda: self.standin.counts()["waiting"].get("in-flight"), "it is in flight")
        self.disk.fill()
        if rotate:
            self.daemon.rotate()
            self.daemon.signal(signal.SIGHUP)
        self.until_refused(f"full-{number}")
        self.drop(f"waiting-{number}", [f"waits-{number}-1", f"waits-{number}-2"])
        self.standin.open("in-flight", count=1)
        self.mark("fdatasync")
        self.until(lambda: self.standin.counts()["in_flight"] == 0, "it is answered")
        self.disk.empty()
        self.well_again()

    def log_is_away(self):
        os.rename(os.path.dirname(self.daemon.results), self.away)
        self.daemon.signal(signal.SIGHUP)
        self.until(lambda: self.storage() != "ok", "it is in trouble")
        self.until_refused("away")
        self.put_back()
        self.well_again()

    def put_back(self):
        os.rename(self.away, os.path.dirname(self.daemon.results))

    def well_again(self):
        self.until(lambda: self.storage() == "ok", lambda: f"it is well again: {self.storage()}")
        self.repeat_unanswered()
        self.settled()

    def until_refused(self, prefix):
        """What is refused may have been kept all the same."""
        for number in range(1, 1000):
            sent = self.ledger.send([f"{prefix}-{number}"], request_id=f"{prefix}-{number}")
            try:
                sent.ids = [self.client.call("cancel", job_id=sent.jobs[0], request_id=sent.request_id)["request_id"]]
            except RpcError as error:
                assert error.code == STORAGE_UNAVAILABLE, error.error
                return
        raise AssertionError("nothing is refused")

    def ending(self):
        """SIGTERM amid the trouble."""
        self.disk.fill()
        self.until_refused("last")
        self.drop("after-all")
        self.stop()
