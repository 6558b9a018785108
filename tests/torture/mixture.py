"""What happens to each job of the truth test: drawn from the seed and the job's number alone, so that
one job can be run again. Each job has one *kind*, which the table of the test names."""

import random

# Here the API's own answers leave the truth open whatever one asks, so that `always` can't find it out
# either: these are for `ambiguous` and `never`, where they are counted.
UNKNOWABLE = ("200, no effect", "gone: 404 everywhere", "big result, status last")

BIG = (100_000, 300_000, 2_000_000)


class Job:
    """`known`: the stand-in has it. `faults` and `start` are for the stand-in's script."""

    def __init__(self, number, kind):
        self.id = f"job-{number}"
        self.kind = kind
        self.known = True
        self.start = {"status": "processing"}
        self.faults = []
        self.requests = 1

    def fault(self, **script):
        self.faults.append({"job": self.id, **script})

    def scripts(self):
        return [{"job_id": self.id, **self.start}] if self.known else []

    def __str__(self):
        lines = [f"{self.id}: {self.kind}; {self.start if self.known else 'unknown'}"]
        return "\n".join(lines + [f"  script: {fault}" for fault in self.faults])


class Mixture:
    def __init__(self, seed, verify):
        self.seed = seed
        self.verify = verify
        self.kinds = [kind for kind in KINDS if verify != "always" or kind not in UNKNOWABLE]

    def job(self, number):
        rng = random.Random(f"{self.seed} {number}")
        kind = rng.choices(self.kinds, [KINDS[kind][0] for kind in self.kinds])[0]
        job = Job(number, kind)
        _, make, repeats = KINDS[kind]
        make(job, rng)
        if rng.random() < 0.1:
            job.requests = rng.randint(2, 3)
        # A GET that fails is repeated only where something comes after it: another attempt, or, after
        # a 200 under `always`, another GET.
        if rng.random() < 0.3 and (repeats or self.verify != "always"):
            for _ in range(rng.randint(1, 2)):
                job.fault(on="get", **rng.choice(self.get_faults()))
        return job

    def get_faults(self):
        faults = [{"status": 500}, {"status": 503, "envelope": False}, {"status": 404, "envelope": False},
                  {"status": 429}, {"job_id": "another", "job_status": "canceled"},
                  {"job_id": "another", "job_status": "completed"}, {"job_status": "cancelled"},
                  {"job_status": "cancelling"}, {"body": {"status": "canceled"}}, {"body": {"status": "completed"}},
                  {"garbage": True}, {"reset": "before", "times": 2}, {"hang": True}, {"truncate": 30}]
        if self.verify != "always":
            faults.append({"status": 404})  # after a believed 200 it would say that the job was cancelled
        return faults


# -- answers that leave open whether the cancel took effect ---------------------------------------

def hidden(rng, effect):
    """One answer to a cancel that does not tell."""
    return rng.choice([
        {"status": 500, "effect": effect}, {"status": 500, "envelope": False, "effect": effect},
        {"status": rng.choice([502, 503, 504]), "envelope": False, "effect": effect},
        lost(rng, effect), unreadable(rng, effect), {"job_id": "another", "effect": effect},
        {"hang": "before" if effect == "none" else "after"}])


def lost(rng, effect):
    """Once or twice: curl repeats a request by itself when a kept connection swallowed it."""
    return rng.choice([{"reset": "before" if effect == "none" else "after", "times": rng.randint(1, 2)},
                       {"raw": "HTTP/1.1 200 OK\r\nContent-Le", "effect": effect},
                       {"truncate": rng.choice([0, 10]), "effect": effect}])


def unreadable(rng, effect):
    return {"effect": effect, **rng.choice([{"garbage": True}, {"body": ""}, {"status": 204}, {"status": 202},
                                            {"oversize": 70000}, {"body": {"message": "done"}}])}


def effect(rng):
    return rng.choice(["none", "canceled"])


def canceled_jobs_are(job, rng):
    """What cancelling it again answers, which nobody has documented: 404 with or without the envelope."""
    job.fault(when="canceled", status=404, envelope=rng.random() < 0.5, times=None)


# -- kinds ----------------------------------------------------------------------------------------

def good(_job, _rng):
    pass


def refused(job, rng):
    job.fault(status=rng.choice([400, 403, 409]), times=None)


def unknown(job, rng):
    job.known = False
    if rng.random() < 0.5:
        job.fault(**hidden(rng, "none"))


def unknown_html(job, _rng):
    job.fault(status=404, envelope=False, times=None)


def s500_before(job, rng):
    job.fault(status=500, times=rng.randint(1, 4))


def s500_after(job, rng):
    job.fault(status=500, effect="canceled", times=rng.randint(1, 4))


def s500_after_for_ever(job, rng):
    """What was cancelled can't be cancelled: the 500 is the job's own."""
    if rng.random() < 0.5:
        job.fault(status=500, times=rng.randint(1, 2))
    job.fault(status=500, effect="canceled", times=None)


def s500_stuck(job, _rng):
    job.fault(status=500, times=None)


def s5xx(job, rng):
    for _ in range(rng.randint(1, 3)):
        job.fault(status=rng.choice([502, 503, 504]), envelope=False, effect=effect(rng),
                  **rng.choice([{}, {"retry_after": 1}]))


def s5xx_for_ever(job, rng):
    """With or without effect: before the attempts are used up, one looks."""
    job.fault(status=503, effect=effect(rng), times=None)


def turned_away(job, rng):
    job.fault(status=rng.choice([408, 425, 429]), times=rng.randint(1, 3))


def reset(job, rng):
    for _ in range(rng.randint(1, 2)):
        job.fault(**lost(rng, effect(rng)))


def timeout(job, rng):
    for _ in range(rng.randint(1, 2)):
        job.fault(hang=rng.choice(["before", "after"]))


def late_effect(job, rng):
    """Nobody hears of it, and it comes when others may have asked already."""
    job.fault(hang="after", effect_after_ms=rng.randint(50, 1500))


def garbage(job, rng):
    for _ in range(rng.randint(1, 3)):
        job.fault(**unreadable(rng, effect(rng)))


def wrong_id(job, rng):
    job.fault(job_id="another", effect=effect(rng), times=rng.randint(1, 3))


def hidden_then_404(job, rng):
    canceled_jobs_are(job, rng)
    for _ in range(rng.randint(0, 1)):
        job.fault(**hidden(rng, "none"))
    job.fault(**hidden(rng, "canceled"))


def hidden_then_409(job, rng):
    job.fault(when="canceled", status=409, times=None)
    job.fault(**hidden(rng, "canceled"))


def gone_everywhere(job, rng):
    """The API forgets what was cancelled: GET does not know it either."""
    job.fault(when="canceled", status=404, on="any", times=None)
    job.fault(**hidden(rng, "canceled"))


def vanished(job, rng):
    """GET does not know it any longer; cancelling it again is answered well."""
    job.fault(on="get", when="canceled", status=404, times=None)
    for _ in range(rng.randint(0, 1)):
        job.fault(**hidden(rng, "none"))


def finished(job, rng):
    job.start["status"] = rng.choice(["completed", "failed"])


def finished_409(job, rng):
    finished(job, rng)
    job.fault(status=rng.choice([404, 409, 410]), times=None)


def finished_200(job, rng):
    finished(job, rng)
    job.fault(when=["completed", "failed"], status=200, times=None)


def finishes_first(job, rng):
    """While the cancel is tried again."""
    job.start["finish"] = {"status": rng.choice(["completed", "failed"]),
                           **rng.choice([{"at_cancel": rng.randint(2, 3)}, {"after_ms": rng.randint(5, 60)}])}
    for _ in range(3):
        job.fault(**hidden(rng, "none"))


def finishes_after_200(job, rng):
    """The job may complete before the cancellation takes effect."""
    job.start["finish"] = {"status": rng.choice(["completed", "failed"]), "after_ms": rng.randint(10, 300)}
    job.fault(effect="none", times=None)


def late_after_200(job, rng):
    job.fault(effect_after_ms=rng.randint(10, 300))


def no_effect(job, _rng):
    job.fault(effect="none", times=None)


def big_result(job, rng):
    finished(job, rng)
    job.fault(on="get", result_bytes=rng.choice(BIG), times=None)


def big_result_status_last(job, rng):
    finished(job, rng)
    job.fault(on="get", result_bytes=rng.choice(BIG), status_last=True, times=None)


def mixed(job, rng):
    if rng.random() < 0.3:
        job.start["finish"] = {"status": rng.choice(["completed", "failed"]), "after_ms": rng.randint(5, 300)}
    for _ in range(rng.randint(2, 4)):
        job.fault(**rng.choice([hidden(rng, effect(rng)), {"status": 429, "retry_after": 1},
                                {"delay_ms": rng.randint(1, 1500)}]))


# kind: (weight, what is done, whether a GET that fails is repeated)
KINDS = {
    "good": (12, good, True),
    "refused": (3, refused, False),
    "unknown": (3, unknown, False),
    "unknown, no envelope": (2, unknown_html, False),
    "500 before": (6, s500_before, True),
    "500 after": (6, s500_after, True),
    "500 after, for ever": (4, s500_after_for_ever, False),
    "500, stuck": (1, s500_stuck, False),
    "502 503 504": (6, s5xx, True),
    "503 for ever": (2, s5xx_for_ever, False),
    "408 425 429": (4, turned_away, True),
    "reset, torn": (6, reset, True),
    "timeout": (4, timeout, True),
    "timeout, late effect": (3, late_effect, True),
    "garbage": (5, garbage, True),
    "wrong ID": (4, wrong_id, True),
    "hidden, then 404": (8, hidden_then_404, False),
    "hidden, then 409": (3, hidden_then_409, False),
    "gone: 404 everywhere": (2, gone_everywhere, False),
    "vanished: GET 404": (3, vanished, False),
    "finished: 500": (4, finished, False),
    "finished: 404 409 410": (3, finished_409, False),
    "finished: 200": (4, finished_200, True),
    "finishes first": (5, finishes_first, False),
    "200, then finishes": (4, finishes_after_200, True),
    "200, late effect": (4, late_after_200, True),
    "200, no effect": (2, no_effect, False),
    "big result": (1, big_result, False),
    "big result, status last": (1, big_result_status_last, False),
    "mixed": (8, mixed, True),
}
