"""nginx as an API behind TLS, and a certificate authority for it.

Each server of an `Nginx` has a certificate and an access log of its own, and answers every cancel.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess

import pytest

from daemon import clean_environment, end_with_the_tests
from waiting import wait_until

CA_CONFIG = """
[ca]
default_ca = ca
[ca]
database = {directory}/index
serial = {directory}/serial
new_certs_dir = {directory}
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = optional
[req]
distinguished_name = name
prompt = no
[name]
CN = unused
"""

HEAD = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log info;
events {{ worker_connections 256; }}
http {{
  log_format all '$request_method $uri $status "$http_x_api_key"';
  {temporary}
"""

SERVER = """
  server {{
    listen {host}:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_session_cache off;
    {settings}
    access_log {access_log} all;
    location ~ ^/cancel/(.*)$ {{
      default_type application/json;
      return 200 '{{"message": "Job cancelled", "job_id": "$1"}}';
    }}
  }}
"""


def need_tools():
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates, and is not installed")
    if not find_nginx():
        pytest.skip("nginx is not installed")


def find_nginx():
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, env=clean_environment(), check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"openssl {arguments}: {done.stderr}"
    return done.stdout


class Authority:
    """Signs; `file` is its own certificate."""

    def __init__(self, directory, signer=None, name="authority", ca=True):
        self.directory = os.path.join(directory, name)
        os.mkdir(self.directory)
        self.config = self.path("config")
        self.write("config", CA_CONFIG.format(directory=self.directory))
        self.write("index", "")
        self.write("serial", "1000\n")
        self.key = make_key(self.path("key"))
        self.file = self.path("certificate")
        extensions = [f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}", "keyUsage=keyCertSign,cRLSign,digitalSignature"]
        if signer:
            shutil.copy(signer.issue(name, extensions=extensions, key=self.key), self.file)
        else:
            openssl("req", "-x509", "-new", "-key", self.key, "-out", self.file, "-days", "2", "-subj", f"/CN={name}",
                    *[word for extension in extensions for word in ("-addext", extension)])

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        return self.path(name)

    def issue(self, name, alternatives="", cn="stand-in", start=None, end=None, extensions=(), key=None, digest="sha256"):
        """The certificate's path. `start` and `end` as YYYYMMDDHHMMSSZ."""
        key = key or self.key
        request = self.path(f"{name}.request")
        openssl("req", "-new", "-key", key, "-out", request, "-subj", f"/CN={cn}")
        lines = list(extensions)
        if alternatives:
            lines.append(f"subjectAltName={alternatives}")
        if not lines:
            lines.append("basicConstraints=CA:FALSE")
        extfile = self.write(f"{name}.extensions", "".join(line + "\n" for line in lines))
        certificate = self.path(f"{name}.pem")
        dates = ["-startdate", start or "20200101000000Z", "-enddate", end or "20490101000000Z"]
        openssl("ca", "-batch", "-notext", "-config", self.config, "-cert", self.file, "-keyfile", self.key, "-in", request,
                "-out", certificate, "-md", digest, "-extfile", extfile, *dates)
        return certificate


def make_key(path, *options):
    openssl("genpkey", *(options or ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")), "-out", path)
    return path


def chain(path, *certificates):
    with open(path, "wb") as whole:
        for certificate in certificates:
            with open(certificate, "rb") as part:
                whole.write(part.read())
    return path


def free_ports(count):
    """Nobody's, unless somebody takes one before it is used."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


class Nginx:
    """`servers` = {name: (certificate, key, settings)}."""

    def __init__(self, directory, servers, host="127.0.0.1"):
        self.directory = directory
        self.host = host
        self.servers = servers
        self.ports = {}
        self.process = None

    def port(self, name):
        return self.ports[name]

    def access_log(self, name):
        return os.path.join(self.directory, f"{name.replace(' ', '-')}.access")

    def requests(self, name):
        with contextlib.suppress(FileNotFoundError), open(self.access_log(name), encoding="utf-8") as file:
            return file.read().splitlines()
        return []

    def errors(self):
        with open(os.path.join(self.directory, "error.log"), encoding="utf-8") as file:
            return file.read()

    def configure(self):
        self.ports = dict(zip(self.servers, free_ports(len(self.servers))))
        temporary = "".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(os.path.join(self.directory, "nginx.conf"), "w", encoding="ascii") as file:
            file.write(HEAD.format(directory=self.directory, temporary=temporary))
            for name, (certificate, key, settings) in self.servers.items():
                file.write(SERVER.format(host=self.host, port=self.ports[name], certificate=certificate, key=key, settings=settings,
                                         access_log=self.access_log(name)))
            file.write("}\n")

    def __enter__(self):
        for _ in range(5):
            self.configure()
            self.process = subprocess.Popen(
                [find_nginx(), "-p", self.directory, "-c", os.path.join(self.directory, "nginx.conf"), "-e",
                 os.path.join(self.directory, "error.log")], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=clean_environment(), preexec_fn=end_with_the_tests, cwd=self.directory)
            wait_until(lambda: os.path.exists(os.path.join(self.directory, "pid")) or self.process.poll() is not None,
                       "nginx runs, or ended", interval_s=0.02)
            if self.process.poll() is None:
                return self
            if "in use" not in self.errors():
                break
        raise AssertionError(f"nginx ended with {self.process.returncode}: {self.errors()}")

    def __exit__(self, *_exc):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
