"""One pulse-canceld: its configuration, its directories, its life."""

import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile

from results import count_lines, read_results
from rpc import Client
from waiting import LIMIT_S, wait_until

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
STRIPPED = re.compile(r"^(.*_proxy|SSL_CERT_.*|CURL_.*|REQUESTS_CA_BUNDLE|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*"
                      r"|JOURNAL_STREAM|CREDENTIALS_DIRECTORY|SSLKEYLOGFILE|NETRC)$", re.IGNORECASE)
SANITIZERS = re.compile(r"^==\d+==|(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:", re.MULTILINE)
KEY = "test-key"


def binary_path():
    return os.environ.get("PULSE_CANCELD") or os.path.join(REPOSITORY, "build", "pulse-canceld")


def clean_environment(**more):
    environment = {name: value for name, value in os.environ.items() if not STRIPPED.match(name)}
    return {**environment, **more}


def literal(value):
    """A value in libconfig's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Raw):
        return value.text
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class Raw:
    """Text that goes into the configuration as it is."""

    def __init__(self, text):
        self.text = text


def render(groups):
    lines = []
    for group, settings in groups.items():
        lines.append(f"{group} = {{")
        lines += [f"  {name} = {literal(value)};" for name, value in settings.items()]
        lines.append("};")
    return "\n".join(lines) + "\n"


def end_with_the_tests(core_limit=0):
    """In the child: no core file, and no life after the test process."""
    resource.setrlimit(resource.RLIMIT_CORE, (core_limit, core_limit))
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG


class Daemon:
    """Paths are short: a socket's has at most 107 bytes."""

    DEFAULTS = {
        "api": {"endpoint": "cancel", "verify": "never", "timeout_ms": 10000, "connect_timeout_ms": 5000},
        "spool": {"settle_ms": 100, "rescan_interval_s": 60},
        "dispatch": {"adaptive": False, "shutdown_grace_s": 5},
        "retry": {"max_attempts": 5, "base_delay_ms": 10, "max_delay_ms": 50},
        "log": {"level": "debug"},
    }

    def __init__(self, base_url, name="daemon", home=None, environment=None, user=None, key=KEY, **groups):
        self.name = name
        self.home = home or tempfile.mkdtemp(prefix="pc-", dir="/tmp")
        self.owns_home = home is None
        self.environment = environment or {}
        self.user = user
        self.key = key
        self.process = None
        self.clients = []
        self.spool = os.path.join(self.home, "spool")
        self.claimed = os.path.join(self.spool, ".claimed")
        self.rejected = os.path.join(self.spool, "rejected")
        self.socket = os.path.join(self.home, "s")
        self.database = os.path.join(self.home, "db", "queue.db")
        self.results = os.path.join(self.home, "log", "results.log")
        self.rotated = []       # former results logs, oldest first
        self.key_file = os.path.join(self.home, "key")
        self.config = os.path.join(self.home, "conf")
        self.stderr_path = os.path.join(self.home, "stderr")
        for directory in (self.spool, os.path.dirname(self.database), os.path.dirname(self.results)):
            os.makedirs(directory, exist_ok=True)
        self.settings = {group: dict(settings) for group, settings in self.DEFAULTS.items()}
        self.set(api={"base_url": base_url, "key_file": self.key_file}, spool={"directory": self.spool},
                 socket={"path": self.socket}, queue={"database": self.database}, results={"path": self.results})
        self.set(**groups)
        self.write_key(key)
        self.binary = binary_path()
        if user is not None:
            self.binary = self.binary_for_others()
            for path, directories, files in os.walk(self.home):
                for one in [path] + [os.path.join(path, file) for file in directories + files]:
                    os.chown(one, user, user)

    def binary_for_others(self):
        """The other user may not be let into where it was built, as below /root."""
        return shutil.copy(self.binary, os.path.join(self.home, "pulse-canceld"))

    # -- configuration ----------------------------------------------------------------------

    def set(self, **groups):
        """Change settings (None takes one out) and write the file."""
        for group, settings in groups.items():
            for name, value in settings.items():
                if value is None:
                    self.settings.setdefault(group, {}).pop(name, None)
                else:
                    self.settings.setdefault(group, {})[name] = value
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(render(self.settings))

    def line_of(self, group, name):
        """The number of the line where the configuration has this setting."""
        inside = None
        with open(self.config, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(" = {\n"):
                    inside = line.split()[0]
                elif inside == group and line.startswith(f"  {name} ="):
                    return number
        raise KeyError(f"{group}.{name}")

    def write_key(self, key):
        with open(self.key_file, "w", encoding="utf-8") as file:
            file.write(key + "\n")
        os.chmod(self.key_file, 0o600)

    # -- life -------------------------------------------------------------------------------

    def spawn(self, command=None, environment=None, **options):
        """Start the process and do not wait for anything."""
        assert self.process is None
        options.setdefault("preexec_fn", end_with_the_tests)
        options.setdefault("cwd", "/")
        if self.user is not None:
            options.update(user=self.user, group=self.user, extra_groups=[])
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen(
                command or [self.binary, "-c", self.config], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                env=clean_environment(**{**self.environment, **(environment or {})}), **options)
        return self.process

    def start(self, **options):
        self.spawn(**options)
        wait_until(self.answers, lambda: f"{self.name} answers\n{self.stderr()}")
        return self

    def answers(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}\n{self.stderr()}"
        try:
            with Client(self.socket) as client:
                return client.call("ping")["pid"] == self.process.pid
        except (FileNotFoundError, ConnectionError, AssertionError):
            return False

    def wait(self, timeout_s=20):
        """The exit code, once it has ended by itself or after a signal."""
        code = self.process.wait(timeout_s)
        self.process = None
        self.close_clients()
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def reload(self):
        self.signal(signal.SIGHUP)

    def stop(self):
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"{self.name} ended with {code}\n{self.stderr()[-4000:]}"

    def kill(self):
        """SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.wait()

    def restart(self):
        self.stop()
        self.start()

    def finish(self):
        """The end of a test: stop it, and look at all it left behind."""
        if self.process is not None:
            self.stop()
        self.records()
        text = self.stderr()
        assert not SANITIZERS.search(text), text[-8000:]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), "control characters in the log"
        assert self.key not in text, "the key is in the log"
        for path in [self.results] + self.rotated:
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    assert self.key not in file.read(), "the key is in the results log"

    def destroy(self):
        self.kill()
        if self.owns_home:
            shutil.rmtree(self.home, ignore_errors=True)

    def stderr(self):
        try:
            with open(self.stderr_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    # -- the socket -------------------------------------------------------------------------

    def client(self):
        """A new connection, closed with the daemon."""
        client = Client(self.socket)
        self.clients.append(client)
        return client

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients = []

    def call(self, method, **params):
        with Client(self.socket) as client:
            return client.call(method, **params)

    def cancel(self, job_id, **params):
        return self.call("cancel", job_id=job_id, **params)

    def outcome(self, job_id, **params):
        """Cancel and wait: the result."""
        return self.cancel(job_id, wait=True, **params)

    def item(self, **params):
        """The newest item that `status` has."""
        return next(iter(self.call("status", **params)), None)

    def wait_item(self, condition, what, **params):
        """The newest item, once there is one that meets the condition."""
        def look():
            item = self.item(**params)
            return item if item is not None and condition(item) else None
        return wait_until(look, what)

    # -- the spool --------------------------------------------------------------------------

    def drop(self, name, data=b""):
        """A file that is written aside and renamed in."""
        scratch = os.path.join(self.home, "scratch")
        with open(scratch, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if self.user is not None:
            os.chown(scratch, self.user, self.user)
        os.rename(os.fsencode(scratch), os.path.join(os.fsencode(self.spool), os.fsencode(name)))

    def spooled(self):
        """Names in the spool directory, the daemon's own folders aside."""
        return sorted(set(os.listdir(self.spool)) - {".claimed", "rejected"})

    def reasons(self):
        """{name: text of the reason} of what was rejected, each with its reason beside it."""
        names = os.listdir(self.rejected) if os.path.isdir(self.rejected) else []
        found = {}
        for name in names:
            if not name.endswith(".reason"):
                with open(os.path.join(self.rejected, name + ".reason"), encoding="utf-8") as file:
                    found[name] = file.read()
        assert len(names) == 2 * len(found), names
        return found

    # -- the results log --------------------------------------------------------------------

    def records(self):
        growing = self.process is not None and self.process.poll() is None
        return read_results(*self.rotated, self.results, growing=growing)

    def wait_records(self, count, timeout_s=2 * LIMIT_S):
        """All results, once there are so many; more are an error."""
        wait_until(lambda: count_lines(*self.rotated, self.results) >= count,
                   lambda: f"{count} results, has {count_lines(*self.rotated, self.results)}", timeout_s)
        records = self.records()
        assert len(records) == count
        return records

    def rotate(self):
        """What logrotate does before its SIGHUP."""
        path = f"{self.results}.{len(self.rotated) + 1}"
        os.rename(self.results, path)
        self.rotated.append(path)
