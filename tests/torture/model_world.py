"""The real thing of the model-based test: a daemon, a stand-in and the books. Each step is a method with
plain arguments, so that a sequence of them is a text that can be run again."""

import json
import os
import signal
import time

from daemon import Daemon
from model_books import MAX_ATTEMPTS, Books, Truth, check_coalesced
from results import count_lines
from rpc import Client, RpcError
from waiting import wait_until

SMALL = 6           # max_pending when it is to be reached
LONG = 1200         # lines, more than go into one put
MANY_BAD = 105      # lines, more than are reported
KEY, WRONG_KEY = "test-key", "another"
SETTINGS = {"api": {"timeout_ms": 250}, "spool": {"settle_ms": 20, "rescan_interval_s": 1},
            "dispatch": {"max_in_flight": 4, "shutdown_grace_s": 1, "adaptive": False},
            "retry": {"max_attempts": MAX_ATTEMPTS, "base_delay_ms": 5, "max_delay_ms": 30, "deadline_s": 86400},
            "log": {"level": "debug"}}
CHANGES = [{"dispatch": {"max_in_flight": 1}}, {"dispatch": {"max_in_flight": 16}}, {"retry": {"max_delay_ms": 100}},
           {"api": {"verify": "never"}}, {"api": {"verify": "ambiguous"}}, {"api": {"on_unauthorized": "hold"}},
           {"api": {"on_unauthorized": "fail"}}, {"queue": {"max_pending": SMALL}}, {"queue": {"max_pending": 100000}}]
FAULTS = {"500": {"status": 500}, "503": {"status": 503}, "429": {"status": 429}, "404": {"status": 404},
          "401": {"status": 401}, "reset before": {"reset": "before"}, "reset after": {"reset": "after"},
          "hang": {"hang": "before"}, "garbage": {"garbage": True}, "truncated": {"truncate": 5},
          "other job": {"job_id": "zzz"}, "slow": {"delay_ms": 40}}
BAD_LINES = ["not a job ID", "{\"job_id\": \"a\"", "{\"job_id\": \"a\", \"deadline\": 5}", "a/b"]


class World:
    def __init__(self, standin, clocks=None):
        self.standin = standin
        self.clocks = clocks
        self.books = Books()
        self.number = 0         # of names
        self.daemon = None
        self.up = self.held = self.small = self.stepped = False
        self.hours = 0          # that the wall clock was set forward
        self.writer = None      # (name, file) of a file that is still written
        self.waits = []         # (client, call, job, request_id)
        self.base = None        # lines of the log that this life of the daemon did not count
        self.pairs = {}         # request_ids that surely are on disk → job

    # -- the start and the end --------------------------------------------------------------

    def begin(self, endpoint, verify, on_unauthorized):
        self.standin.reset()
        if self.clocks is not None:
            self.clocks.reset()
        self.daemon = Daemon(self.standin.url, environment=self.clocks.environment if self.clocks else {}, **SETTINGS)
        self.daemon.set(api={"endpoint": endpoint, "verify": verify, "on_unauthorized": on_unauthorized})
        self.start()

    def finish(self):
        """All faults are over, and everything that was promised comes to its end."""
        self.writer_close()
        self.start()
        self.standin.clear()
        self.standin.settings(keys=[KEY])
        self.daemon.set(queue={"max_pending": 100000})
        self.small = False
        self.daemon.call("reload")
        self.release()
        self.flush()
        wait_until(lambda: self.quiet() and not sum(self.stats()["pending"].values()), self.state, 30, 0.02)
        self.look()
        self.stop()
        self.daemon.finish()
        records = self.daemon.records()
        self.books.reckon(records)
        check_coalesced(records, self.stepped)
        Truth(self.standin.log(brief=1), self.standin.jobs()).check(records, self.books)
        reasons = set(self.daemon.reasons())
        assert reasons == self.books.rejected, f"rejected/ has {reasons}, not {self.books.rejected}"

    def destroy(self):
        for client, _, _, _ in self.waits:
            client.close()
        if self.writer is not None:
            self.writer[1].close()
        if self.daemon is not None:
            self.daemon.destroy()

    def state(self):
        return f"all ends: {self.stats()}, spool {self.daemon.spooled()}, claimed {os.listdir(self.daemon.claimed)}"

    # -- helpers ----------------------------------------------------------------------------

    def stats(self):
        return self.daemon.call("stats")

    def name(self, prefix):
        self.number += 1
        return f"{prefix}{self.number}"

    def quiet(self):
        """The spool has nothing that could be taken."""
        spooled = [name for name in self.daemon.spooled() if self.writer is None or name != self.writer[0]]
        return not spooled and not os.listdir(self.daemon.claimed)

    def call(self, method, **params):
        """The result, or None when the queue is full, which it may be."""
        try:
            return self.daemon.call(method, **params)
        except RpcError as error:
            if error.code != -32001 or not self.small:
                raise
            return None

    def call_and_kill(self, method, delay_ms, **params):
        """(answered?, result or None): without an answer, whether it counts is open."""
        with Client(self.daemon.socket) as client:
            call = client.send_call(method, params)
            time.sleep(delay_ms / 1000)
            self.kill()
            return self.late_answer(client, call)

    def late_answer(self, client, call):
        """(answered?, result or None)"""
        try:
            return True, client.result(call)
        except RpcError as error:
            if error.code != -32004 and (error.code != -32001 or not self.small):
                raise
            return True, None
        except (AssertionError, OSError) as error:
            if isinstance(error, AssertionError) and "closed the connection" not in str(error):
                raise
            return False, None

    def take_answer(self, answer, job):
        """Any answer to a cancel is a promise."""
        if isinstance(answer, list):
            answer = answer[0]
        assert answer["job_id"] == job, answer
        self.books.ack(answer["request_id"], job)
        self.pairs[answer["request_id"]] = job

    # -- the spool --------------------------------------------------------------------------

    def drop_empty(self, job, how):
        path = os.path.join(self.daemon.spool, job)
        if os.path.lexists(path):
            return      # one file, not two
        if how == "touch":
            with open(path, "xb"):
                pass
        else:
            self.daemon.drop(job)
        self.books.line(job, job)

    def drop_lines(self, lines, how):
        """`lines`: jobs, and `bad`, `blank`, `named`, `again`, `clash`, `short`."""
        name = self.name("f")
        text = [self.one_line(name, number, kind) for number, kind in enumerate(lines)]
        data = ("\r\n" if how == "crlf" else "\n").join(text + ["" if how != "torn" else "# end"])
        path = os.path.join(self.daemon.spool, name)
        if how == "write":
            with open(path, "w", encoding="ascii") as file:
                file.write(data)
        elif how == "link":
            outside = os.path.join(self.daemon.home, name)
            with open(outside, "w", encoding="ascii") as file:
                file.write(data)
            os.link(outside, path)
        else:
            self.daemon.drop(name, data)

    def one_line(self, name, number, kind):
        if kind == "bad":
            text = BAD_LINES[number % len(BAD_LINES)]
            self.books.bad_line(name, text)
            return text
        if kind == "blank":
            return "# nothing"
        if kind == "short":
            self.books.short.add(name)
            self.books.line(name, "a")
            return json.dumps({"job_id": "a", "deadline_s": 1})
        if kind in ("again", "clash") and self.pairs:
            request_id = sorted(self.pairs)[number % len(self.pairs)]
            job = self.pairs[request_id]
            if kind == "clash":
                job += "-not"
                text = json.dumps({"job_id": job, "request_id": request_id})
                self.books.bad_line(name, text)
            else:
                text = json.dumps({"job_id": job, "request_id": request_id})
            return text
        if kind in ("named", "again", "clash"):
            request_id = self.name("line-")
            self.books.named_line(request_id, "b")
            return json.dumps({"job_id": "b", "request_id": request_id})
        self.books.line(name, kind)
        return kind

    def drop_long(self, job):
        name = self.name("f")
        self.daemon.drop(name, f"{job}\n" * LONG)
        self.books.files[name, job, False] += LONG

    def drop_odd(self, kind):
        """What can't be taken as a whole."""
        name = self.name("odd")
        if kind == "symlink":
            os.symlink("/etc/passwd", os.path.join(self.daemon.spool, name))
        elif kind == "nul":
            self.daemon.drop(name, b"a\nb\0\n")
        else:
            self.daemon.drop(name, "a\n" + "bad line\n" * MANY_BAD + "b\n")
            self.books.line(name, "a")
            self.books.files[name, "bad line", True] += 100
        self.books.rejected.add(name)

    def write_more(self, job):
        """A file that is written over several steps."""
        if self.writer is None:
            name = self.name("slow")
            # pylint: disable-next=consider-using-with
            self.writer = name, open(os.path.join(self.daemon.spool, name), "w", encoding="ascii")
        name, file = self.writer
        file.write(job + "\n")
        file.flush()
        self.books.line(name, job)

    def writer_close(self):
        if self.writer is not None:
            self.writer[1].close()
            self.writer = None

    def drop_and_kill(self, job, delay_ms):
        self.start()
        self.drop_lines([job, "bad", job, "named"], "rename")
        time.sleep(delay_ms / 1000)
        self.kill()

    # -- the socket -------------------------------------------------------------------------

    def cancel(self, job, how):
        """`how`: plain, named, short, again, bare, wait."""
        self.start()
        params = {"job_id": job}
        if how == "again" and self.pairs:
            params["request_id"] = sorted(self.pairs)[self.number % len(self.pairs)]
            params["job_id"] = job = self.pairs[params["request_id"]]
        elif how in ("named", "again", "short"):
            params["request_id"] = self.name("r")
        if how == "short":
            params["deadline_s"] = 1
            self.books.short.add(params["request_id"])
        if how == "wait":
            client = Client(self.daemon.socket, timeout_s=30)
            self.waits.append((client, client.send_call("cancel", {**params, "wait": True}), job, None))
        elif how == "bare":
            with Client(self.daemon.socket) as client:
                answer = client.ask(job)
            assert "error" not in answer or self.small, answer
            if "error" not in answer:
                self.take_answer(answer, job)
        else:
            answer = self.call("cancel", **params)
            if answer is not None:
                self.take_answer(answer, job)

    def cancel_many(self, jobs):
        self.start()
        answers = self.call("cancel", job_ids=jobs)
        if answers is not None:
            assert [answer["job_id"] for answer in answers] == jobs
            for answer, job in zip(answers, jobs):
                self.take_answer(answer, job)

    def lead_short(self, job):
        """One that may expire, and two that then go on without it."""
        for how in ("short", "named", "plain"):
            self.cancel(job, how)

    def clash(self, job):
        """A request_id that belongs to another job."""
        self.start()
        if self.pairs:
            request_id = sorted(self.pairs)[self.number % len(self.pairs)]
            with self.daemon.client() as client:
                error = client.error("cancel", job_id=self.pairs[request_id] + "-not", request_id=request_id)
            assert error.code == -32602, error.error

    def cancel_and_kill(self, job, named, delay_ms):
        self.start()
        params = {"job_id": job, **({"request_id": self.name("r")} if named else {})}
        answered, answer = self.call_and_kill("cancel", delay_ms, **params)
        if answer is not None:
            self.take_answer(answer, job)
        elif not answered:
            self.books.unanswered(params.get("request_id"), job)

    def many_and_kill(self, count, delay_ms):
        self.start()
        name = self.name("g")
        jobs = [f"{name}-{number}" for number in range(count)]
        answered, answers = self.call_and_kill("cancel", delay_ms, job_ids=jobs)
        if answers is not None:
            for answer, job in zip(answers, jobs):
                self.take_answer(answer, job)
        elif not answered:
            self.books.groups.append(jobs)

    def collect(self):
        """Answers to `wait`, of a daemon that has ended. One that was killed may owe some."""
        for client, call, job, request_id in self.waits:
            answered, answer = self.late_answer(client, call)
            client.close()
            if answer is not None:
                self.take_answer(answer, job)
                if "outcome" in answer:
                    self.books.results.append(answer)
            elif not answered:
                self.books.unanswered(request_id, job)
        self.waits = []

    # -- administration ---------------------------------------------------------------------

    def hold(self):
        self.start()
        assert self.daemon.call("hold") == {"held": True}
        self.held = True

    def release(self):
        self.start()
        assert self.daemon.call("release") == {"held": False}
        self.held = False

    def flush(self):
        self.start()
        self.daemon.call("flush")

    def withdraw(self, job):
        self.start()
        self.books.withdrawn_jobs.add(job)
        self.books.withdrawn += self.daemon.call("withdraw", job_id=job)["withdrawn"]

    def withdraw_and_kill(self, job, delay_ms):
        self.start()
        self.books.withdrawn_jobs.add(job)
        answered, answer = self.call_and_kill("withdraw", delay_ms, job_id=job)
        self.books.withdrawn += answer["withdrawn"] if answered else 0
        self.books.withdrawals_open = self.books.withdrawals_open or not answered

    def retry(self, job):
        self.start()
        self.take_retried(self.call("retry", job_id=job))

    def retry_outcome(self, outcome):
        self.start()
        self.take_retried(self.call("retry", outcome=outcome))

    def retry_and_kill(self, job, delay_ms):
        self.start()
        answered, answer = self.call_and_kill("retry", delay_ms, job_id=job)
        self.take_retried(answer)
        if not answered:
            self.books.unanswered(None, job)

    def take_retried(self, answer):
        for one in answer["requests"] if answer is not None else ():
            assert one["retry_of"] not in self.books.retried, f"{one} was retried before"
            self.books.retried.add(one["retry_of"])
            self.books.ack(one["request_id"], one["job_id"])

    def reload(self, change):
        groups = CHANGES[change]
        self.daemon.set(**groups)
        if "queue" in groups:
            self.small = self.small or groups["queue"]["max_pending"] == SMALL
        if self.up:
            assert self.daemon.call("reload") == {"reloaded": True, "restart_needed": []}
            self.small = self.daemon.settings.get("queue", {}).get("max_pending") == SMALL

    def reload_bad(self):
        self.start()
        before = self.daemon.settings["retry"]["max_attempts"]
        self.daemon.set(retry={"max_attempts": 0})
        with self.daemon.client() as client:
            assert client.error("reload").code == -32006
        self.daemon.set(retry={"max_attempts": before})

    def rotate(self):
        if not os.path.exists(self.daemon.results):
            return
        self.daemon.rotate()
        if self.up:
            self.daemon.signal(signal.SIGHUP)
            wait_until(lambda: os.path.exists(self.daemon.results), "the log is there anew after a rotation")

    # -- life -------------------------------------------------------------------------------

    def start(self):
        if not self.up:
            self.daemon.start()
            self.up, self.base = True, None
            self.small = self.daemon.settings.get("queue", {}).get("max_pending") == SMALL
            assert (self.stats()["held"] == "operator") == self.held, "a hold survives, and nothing else"

    def stop(self):
        if self.up:
            self.daemon.stop()
            self.up = False
            owed = len(self.waits)
            open_before = sum(self.books.nameless.values())
            self.collect()
            assert sum(self.books.nameless.values()) == open_before, f"{owed} waited, and some got no answer"

    def kill(self):
        if self.up:
            self.daemon.kill()
            self.up = False
            self.collect()

    def restart(self):
        self.stop()
        self.start()

    def kill_and_start(self):
        self.kill()
        self.start()

    # -- the server, and the clock ----------------------------------------------------------

    def fault(self, kind, job, times):
        self.standin.fault(**FAULTS[kind], times=1 if kind == "hang" else times, **({"job": job} if job else {}))

    def clear_faults(self):
        self.standin.clear()

    def reject_key(self):
        self.standin.settings(keys=[WRONG_KEY])

    def accept_key(self):
        self.standin.settings(keys=[KEY])

    def route_goes(self):
        self.standin.settings(routes={"cancel": 410})

    def job_ends(self, job, status):
        self.standin.put_job(job, status)

    def set_clock(self, hours):
        if self.clocks is not None:
            self.hours = hours
            self.clocks.set_wall(3600 * hours)
            self.stepped = True

    def hour_passes(self, how):
        """While the daemon is away: short deadlines are over then."""
        self.hold()
        getattr(self, how)()
        self.set_clock(self.hours + 1)
        self.start()

    # -- a look at rest ---------------------------------------------------------------------

    def look(self, withdraw=None):
        """With nothing in flight and nothing to take, all that the daemon says agrees."""
        self.start()
        assert self.daemon.call("hold") == {"held": True}
        if not self.small:
            wait_until(self.quiet, self.state, 20, 0.01)
        wait_until(lambda: not self.stats()["pending"]["in_flight"], "nothing is in flight")
        wrong = [None]

        def agrees():
            wrong[0] = self.disagreement()
            return wrong[0] is None
        wait_until(agrees, lambda: wrong[0], 5, 0.05)
        if withdraw is not None and not self.small:
            self.withdraw_at_rest(withdraw)
        if not self.held:
            assert self.daemon.call("release") == {"held": False}

    def items(self):
        items, after = [], None
        while True:
            page = self.daemon.call("list", limit=1000, **({"after": after} if after else {}))
            items += page["requests"]
            after = page["next"]
            if after is None:
                return items

    def disagreement(self):
        """None, or a text. A deadline that passes between two looks is no disagreement: look again."""
        stats = self.stats()
        items = self.items()
        records = {record["request_id"]: record for record in self.daemon.records()}
        again = self.stats()
        if (again["results"], again["pending"]) != (stats["results"], stats["pending"]):
            return f"not at rest: {stats}, then {again}"
        ids = [item["request_id"] for item in items]
        if len(ids) != len(set(ids)):
            return f"`list` has some twice: {ids}"
        pending = [item for item in items if item["state"] != "done"]
        # Those of one job wait together; `stats` counts the one that leads as waiting.
        waiting = len({item["job_id"] for item in pending if item["state"] == "waiting"})
        counts = {"queued": len(pending) - waiting, "in_flight": 0, "waiting": waiting}
        if counts != stats["pending"]:
            return f"{counts} are pending, `stats` says {stats['pending']}: {pending[:20]}"
        done = {item["request_id"]: {name: value for name, value in item.items() if name != "state"}
                for item in items if item["state"] == "done"}
        if done != records:
            return f"done in `list` and not so in the log: {list(dict_minus(done, records))[:5]}; in the log only: " \
                   f"{list(dict_minus(records, done))[:5]}"
        lost = set(self.pairs) - set(ids)
        if lost:
            return f"acknowledged, and unknown to `list`: {lost}"
        base = len(records) - sum(stats["results"].values())
        if self.base is not None and base != self.base:
            return f"{len(records)} lines, of which {base} from before, but it was {self.base}: {stats['results']}"
        self.base = base
        for request_id in ids[-1:] + ids[:1]:
            item, = self.daemon.call("status", request_id=request_id)
            if item["state"] != next(one["state"] for one in items if one["request_id"] == request_id):
                return f"`status` says {item}"
        return None

    def withdraw_at_rest(self, job):
        before = {item["request_id"] for item in self.items() if item["job_id"] == job and item["state"] != "done"}
        count = self.books.withdrawn
        self.withdraw(job)
        count = self.books.withdrawn - count
        after = {item["request_id"]: item for item in self.items() if item["request_id"] in before}
        left = [item for item in after.values() if item["state"] != "done"]
        assert not left, f"{count} were withdrawn, and these are still there: {left}"
        # One may have ended otherwise just before: its deadline, or what was in flight at the hold.
        taken = sum(item["outcome"] == "withdrawn" for item in after.values())
        assert count == taken, f"{count} were withdrawn, and {taken} ended so: {after}"

    def lines(self):
        return count_lines(*self.daemon.rotated, self.daemon.results)


def dict_minus(one, other):
    return (value for name, value in one.items() if other.get(name) != value)
