"""Start, script and question a stand-in from a test.

    with StandIn() as standin:
        standin.fault(job="abc", status=500, times=2)
        ... run what is under test against standin.url ...
        assert [entry["status"] for entry in standin.log(job="abc")] == [500, 500, 200]
"""

import http.client
import json
import os
import ssl
import subprocess
from urllib.parse import urlencode

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"


class StandIn:
    def __init__(self, port=0, keys=("test-key",), https=None):
        command = [PYTHON, os.path.join(HERE, "standin.py"), "--port", str(port)]
        for key in keys:
            command += ["--key", key]
        if https:
            command += ["--https", *https]
        self.key = keys[0]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the stand-in did not start: {line!r}")
        self.url = line.split()[-1]
        self.port = int(self.url.rpartition(":")[2])
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.stop()

    def stop(self):
        """End it; its port refuses connections from now on."""
        if self.connection is not None:
            self.connection.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=10)
        self.process.stdout.close()

    def _connect(self):
        if self.url.startswith("https"):
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def request(self, method, path, body=None, headers=None):
        """One request on a kept connection: (status, headers, body)."""
        if self.connection is None:
            self.connection = self._connect()
        try:
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except Exception:
            self.connection.close()
            self.connection = None
            raise

    def _admin(self, method, name, document=None, query=None):
        path = f"/_standin/{name}" + (f"?{urlencode(query)}" if query else "")
        body = None if document is None else json.dumps(document)
        status, _, answer = self.request(method, path, body)
        if status != 200:
            raise ValueError(json.loads(answer)["error"])
        return json.loads(answer)

    def fault(self, **script):
        """Add one line to the script of faults (README.md); `times=None` is for ever."""
        return self._admin("POST", "fault", script)

    def clear(self):
        return self._admin("POST", "clear", {})

    def faults(self):
        return self._admin("GET", "faults")

    def settings(self, **settings):
        return self._admin("POST", "settings", settings)

    def put_job(self, job_id, status="processing", following=(), finish=None):
        return self._admin("POST", "jobs", {"job_id": job_id, "status": status, "next": list(following),
                                            "finish": finish})

    def put(self, what, documents):
        """Many `jobs`, or lines of the `fault` script, at once."""
        for first in range(0, len(documents), 1000):
            self._admin("POST", what, documents[first:first + 1000])

    def job(self, job_id):
        """The job's record, or None."""
        return next(iter(self._admin("GET", "jobs", query={"job": job_id})), None)

    def jobs(self):
        return {job["job_id"]: job for job in self._admin("GET", "jobs")}

    def log(self, **query):
        """Requests in the order of arrival; `job`, `route` and `since` narrow it down."""
        return self._admin("GET", "log", query=query)

    def counts(self):
        return self._admin("GET", "counts")

    def open(self, gate, count=None):
        return self._admin("POST", "open", {"gate": gate, "count": count})

    def reset(self):
        return self._admin("POST", "reset", {})
