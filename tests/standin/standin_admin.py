"""The admin interface under /_standin/: JSON in, JSON out."""

import json
import re
from urllib.parse import parse_qs, urlsplit

from standin_fault import Script


def add_faults(pulse, body):
    scripts = body if isinstance(body, list) else [body]
    for script in scripts:
        pulse.script.add(script)
    return {"faults": len(scripts)}


def put_jobs(pulse, body):
    jobs = body if isinstance(body, list) else [body]
    for job in jobs:
        pulse.put_job(job.get("job_id"), job.get("status", "processing"), job.get("next", []), job.get("finish"))
    return {"jobs": len(jobs)}


def put_settings(pulse, body):
    for name, value in body.items():
        if name == "keys":
            pulse.keys = set(value)
        elif name == "routes":
            unknown = set(value) - set(pulse.settings["routes"])
            if unknown:
                raise ValueError(f"unknown routes: {', '.join(sorted(unknown))}")
            pulse.settings["routes"].update(value)
        elif name in pulse.settings:
            pulse.settings[name] = value
        else:
            raise ValueError(f"unknown setting: {name}")
    return {**pulse.settings, "keys": sorted(pulse.keys)}


def clear_faults(pulse, _body):
    count, pulse.script = len(pulse.script.faults()), Script()
    return {"cleared": count}


def reset(pulse, _body):
    pulse.reset()
    return {"reset": True}


def open_gate(pulse, body):
    return {"released": pulse.open(body["gate"], body.get("count"))}


def get_log(pulse, query):
    entries = pulse.log[int(query.get("since", 0)):]
    for name in ("job", "route"):
        if name in query:
            entries = [entry for entry in entries if entry[name] == query[name]]
    if "brief" in query:
        entries = [{name: value for name, value in entry.items() if name != "headers"} for entry in entries]
    return entries


def get_faults(pulse, _query):
    return [{**fault.script, "used": fault.used, "left": fault.left} for fault in pulse.script.faults()]


POSTS = {"fault": add_faults, "clear": clear_faults, "jobs": put_jobs, "settings": put_settings, "reset": reset,
         "open": open_gate}
GETS = {"log": get_log, "faults": get_faults, "counts": lambda pulse, _query: pulse.counts(),
        "jobs": lambda pulse, query: pulse.records(query.get("job"))}


def admin(pulse, method, target, body):
    """(status, document) for one request to the admin interface."""
    parts = urlsplit(target)
    name = parts.path[len("/_standin/"):]
    act = {"POST": POSTS, "GET": GETS}.get(method, {}).get(name)
    if act is None:
        return 404, {"error": f"no {method} {parts.path}"}
    try:
        if method == "GET":
            return 200, act(pulse, {key: values[-1] for key, values in parse_qs(parts.query).items()})
        return 200, act(pulse, json.loads(body) if body else {})
    except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        return 400, {"error": f"{type(error).__name__}: {error}"}
