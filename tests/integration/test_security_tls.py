"""Only the server that the certificate and api.base_url both name gets a request, and the key with it.

The server is nginx. A certificate that was revoked is not among the cases: neither CRLs nor OCSP are asked for.
"""

import os

import pytest

import ctl
from daemon import KEY
from nginx import Authority, Nginx, chain, make_key, need_tools, openssl
from waiting import holds_for, wait_until

LAX = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = lax
[lax]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""
OLD_ONLY = "ssl_protocols TLSv1 TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;"

# host in api.base_url; what the log and the request's last error say.
REFUSED = {
    "another name": ("localhost", "no alternative certificate subject name matches target host name 'localhost'"),
    "a name for an address": ("127.0.0.1", "no alternative certificate subject name matches target host name '127.0.0.1'"),
    "an address for a name": ("localhost", "no alternative certificate subject name matches target host name 'localhost'"),
    "another address": ("127.0.0.1", "no alternative certificate subject name matches target host name '127.0.0.1'"),
    "cn of another": ("localhost", "does not match target host name 'localhost'"),
    "cn beside other names": ("localhost", "no alternative certificate subject name matches"),
    "wildcard of a level more": ("a.b.pulse.localhost", "no alternative certificate subject name matches"),
    "wildcard of all": ("api.localhost", "no alternative certificate subject name matches"),
    "wildcard amid": ("api.pulse.localhost", "no alternative certificate subject name matches"),
    "expired": ("localhost", "certificate has expired"),
    "not yet valid": ("localhost", "certificate is not yet valid"),
    "self-signed": ("localhost", "self-signed certificate"),
    "unknown authority": ("localhost", "unable to get local issuer certificate"),
    "intermediate missing": ("localhost", "unable to get local issuer certificate"),
    "intermediate expired": ("localhost", "certificate has expired"),
    "signed by no authority": ("localhost", "invalid CA certificate"),
    "for clients": ("localhost", "unsuitable certificate purpose"),
    "weak key": ("localhost", "EE certificate key too weak"),
    "old digest": ("localhost", "CA signature digest algorithm too weak"),
    "old protocols": ("localhost", "alert protocol version"),
}

GOOD = {
    "name": "localhost", "address": "127.0.0.1", "intermediate": "localhost", "wildcard": "api.pulse.localhost",
    # libcurl takes the common name when there is no other name at all.
    "cn alone": "localhost",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    need_tools()
    return Authority(str(tmp_path_factory.mktemp("ca")))


@pytest.fixture(scope="module")
def nginx(authority, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("nginx"))
    root = os.path.dirname(authority.directory)
    stranger = Authority(root, name="stranger")
    between = Authority(root, name="between", signer=authority)
    late = Authority(root, name="late", signer=authority)
    late.file = authority.issue("late", extensions=["basicConstraints=critical,CA:TRUE"], key=late.key, cn="late",
                                end="20210101000000Z")
    none = Authority(root, name="none", signer=authority, ca=False)
    weak = make_key(authority.path("weak"), "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024")
    key, local = authority.key, "DNS:localhost"
    issue = authority.issue

    def of(signer, name, *more, **options):
        leaf = signer.issue(name, local, key=key, **options)
        return chain(authority.path(f"{name}.chain"), leaf, *more)

    certificates = {
        "name": issue("name", local), "address": issue("address", "DNS:elsewhere.invalid,IP:127.0.0.1"),
        "intermediate": of(between, "intermediate", between.file), "wildcard": issue("wildcard", "DNS:*.pulse.localhost"),
        "cn alone": issue("cn-alone", cn="localhost"),
        "another name": issue("another-name", "DNS:elsewhere.invalid,DNS:localhost.invalid,DNS:xlocalhost", cn="localhost"),
        "a name for an address": issue("for-address", "DNS:localhost,DNS:127.0.0.1"),
        "an address for a name": issue("for-name", "IP:127.0.0.1", cn="127.0.0.1"),
        "another address": issue("other-address", "IP:127.0.0.2,DNS:localhost"),
        "cn of another": issue("cn-other", cn="elsewhere.invalid"),
        "cn beside other names": issue("cn-beside", "DNS:elsewhere.invalid", cn="localhost"),
        "wildcard of a level more": issue("level", "DNS:*.pulse.localhost"),
        "wildcard of all": issue("all", "DNS:*,DNS:*.localhost"), "wildcard amid": issue("amid", "DNS:api.*.localhost"),
        "expired": issue("expired", local, end="20210101000000Z"),
        "not yet valid": issue("early", local, start="20480101000000Z"),
        "self-signed": make_self_signed(key, authority.path("self-signed.pem")),
        "unknown authority": of(stranger, "unknown"), "intermediate missing": of(between, "missing"),
        "intermediate expired": of(late, "expired-between", late.file), "signed by no authority": of(none, "none", none.file),
        "for clients": issue("clients", local, extensions=["extendedKeyUsage=clientAuth"]),
        "weak key": issue("weak-key", local, key=weak), "old digest": issue("sha1", local, digest="sha1"),
        "old protocols": issue("old", local),
    }
    lax = "ssl_ciphers ALL:@SECLEVEL=0;"
    settings = {"old protocols": OLD_ONLY, "weak key": lax, "old digest": lax}
    servers = {name: (certificate, weak if name == "weak key" else key, settings.get(name, ""))
               for name, certificate in certificates.items()}
    with Nginx(directory, servers) as server:
        yield server
        assert KEY not in server.errors()


def make_self_signed(key, path):
    openssl("req", "-x509", "-new", "-key", key, "-out", path, "-days", "2", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    return path


def base_url(nginx, name, host):
    return f"https://{host}:{nginx.port(name)}"


@pytest.mark.parametrize("name", GOOD)
def test_accepted(start, nginx, authority, name):
    """So the others are refused for what they are, and not for how all this is set up."""
    daemon = start(base_url=base_url(nginx, name, GOOD[name]), api={"ca_file": authority.file})
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert nginx.requests(name) == [f'POST /cancel/a 200 "{KEY}"']


def refusal(daemon, words):
    """A request that stays, since the certificate is refused: its item."""
    daemon.cancel("a")
    item = daemon.wait_item(lambda item: item["last_error"], "it is refused", job_id="a")
    assert item["state"] != "done" and item["attempts"] == 0
    assert item["last_error"]["code"] == "tls" and words in item["last_error"]["message"], item
    return item


@pytest.mark.parametrize("name", REFUSED)
def test_refused(make_daemon, nginx, authority, name):
    host, words = REFUSED[name]
    daemon = make_daemon(base_url=base_url(nginx, name, host), api={"ca_file": authority.file})
    if name == "old protocols":     # as far as the machine's OpenSSL goes, it would do
        daemon.environment["OPENSSL_CONF"] = authority.write("lax", LAX)
    daemon.start()
    refusal(daemon, words)
    wait_until(lambda: daemon.call("stats")["replies"]["transport"] > 1, "it is tried again")
    assert daemon.records() == [] and nginx.requests(name) == []
    assert sum(daemon.call("stats")["pending"].values()) == 1
    # Told once, and in words.
    warning, = [line for line in daemon.stderr().splitlines() if line.startswith("warning: ") and words in line]
    assert "tls: " in warning
    assert words in ctl.good(daemon.socket, "status", "a")
    daemon.kill()


def test_it_goes_on_once_the_certificate_is_mended(start, nginx, authority):
    stranger = os.path.join(os.path.dirname(authority.directory), "stranger", "certificate")
    daemon = start(base_url=base_url(nginx, "unknown authority", "localhost"), api={"ca_file": authority.file})
    refusal(daemon, "unable to get local issuer certificate")
    holds_for(0.3, lambda: daemon.records() == [], "it waits")
    daemon.set(api={"ca_file": chain(os.path.join(daemon.home, "both"), authority.file, stranger)})
    daemon.call("reload")
    record, = daemon.wait_records(1)
    assert (record["outcome"], record["attempts"]) == ("cancelled", 1)
    assert len(nginx.requests("unknown authority")) == 1


def test_another_certificate_authority_on_reload(start, nginx, authority):
    """A connection that is up was checked by what was in force then, and is not used any more."""
    daemon = start(base_url=base_url(nginx, "name", "localhost"), api={"ca_file": authority.file})
    daemon.outcome("before")
    count = len(nginx.requests("name"))
    daemon.set(api={"ca_file": os.path.join(os.path.dirname(authority.directory), "stranger", "certificate")})
    daemon.call("reload")
    refusal(daemon, "unable to get local issuer certificate")
    assert len(nginx.requests("name")) == count
    daemon.kill()


@pytest.mark.parametrize("variables", [("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), ("SSL_CERT_DIR", "CURL_CA_PATH")],
                         ids=["file", "directory"])
def test_the_environment_trusts_nobody(make_daemon, nginx, authority, variables):
    directory = os.path.join(os.path.dirname(authority.directory), "hashed")
    if not os.path.isdir(directory):
        os.mkdir(directory)
        chain(os.path.join(directory, openssl("x509", "-in", authority.file, "-noout", "-hash").strip() + ".0"), authority.file)
    value = directory if "SSL_CERT_DIR" in variables else authority.file
    daemon = make_daemon(base_url=base_url(nginx, "name", "localhost"))
    daemon.start(environment={name: value for name in variables})
    count = len(nginx.requests("name"))
    refusal(daemon, "certificate")
    assert len(nginx.requests("name")) == count
    daemon.kill()


def test_nothing_is_written_that_decrypts_the_connections(make_daemon, nginx, authority):
    daemon = make_daemon(base_url=base_url(nginx, "name", "localhost"), api={"ca_file": authority.file})
    secrets = os.path.join(daemon.home, "secrets")
    daemon.start(environment={"SSLKEYLOGFILE": secrets})
    assert daemon.outcome("a")["outcome"] == "cancelled"
    assert not os.path.exists(secrets)
