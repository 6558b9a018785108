"""Who may do what: root, the daemon's own user, socket.admin_group, and everybody else."""

import grp
import os

import pytest

from rpc import Client, RpcError
from users import NOBODY, OTHER, as_user
from waiting import wait_until

ADMINS = grp.getgrgid(os.stat("/var/mail").st_gid).gr_name if os.path.exists("/var/mail") else "mail"
ADMIN_GID = grp.getgrnam(ADMINS).gr_gid

STEERING = [("hold", {}), ("release", {}), ("flush", {}), ("retry", {"job_id": "a"}), ("withdraw", {"job_id": "a"}),
            ("reload", {})]
FOR_ALL = [("cancel", {"job_id": "b"}), ("status", {"job_id": "a"}), ("list", {}), ("stats", {}), ("subscribe", {}),
           ("ping", {})]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become other users")


def answers_to(daemon, calls):
    """{method: code of the error, or None}"""
    found = {}
    for method, params in calls:
        with Client(daemon.socket) as client:
            try:
                client.call(method, **params)
                found[method] = None
            except RpcError as error:
                found[method] = error.code
    return found


ALL_WELL = {method: None for method, _ in STEERING}
ALL_REFUSED = {method: -32003 for method, _ in STEERING}


@pytest.fixture
def open_daemon(start):
    """Everyone can connect."""
    def make(**kwargs):
        kwargs.setdefault("socket", {})["mode"] = "0666"
        daemon = start(**kwargs)
        os.chmod(daemon.home, 0o755)
        return daemon
    return make


def test_root_and_others(open_daemon):
    daemon = open_daemon()
    assert answers_to(daemon, STEERING) == ALL_WELL
    for uid, gid, groups in ((NOBODY, NOBODY, []), (OTHER, OTHER, [0]), (OTHER, 0, [0]), (OTHER, ADMIN_GID, [ADMIN_GID])):
        assert as_user(uid, gid, groups, lambda: answers_to(daemon, STEERING)) == ALL_REFUSED, (uid, gid, groups)


def test_others_may_use_the_rest(open_daemon):
    daemon = open_daemon()
    assert as_user(OTHER, OTHER, [], lambda: answers_to(daemon, FOR_ALL)) == {method: None for method, _ in FOR_ALL}
    record, = daemon.wait_records(1)
    assert record["origin"].startswith(f"uid={OTHER} pid=")


def test_the_daemons_own_user(make_daemon):
    daemon = make_daemon(user=NOBODY, socket={"mode": "0666"})
    os.chmod(daemon.home, 0o755)
    daemon.start()
    assert as_user(NOBODY, OTHER, [], lambda: answers_to(daemon, STEERING)) == ALL_WELL
    assert answers_to(daemon, STEERING) == ALL_WELL     # root
    assert as_user(OTHER, NOBODY, [NOBODY], lambda: answers_to(daemon, STEERING)) == ALL_REFUSED


@pytest.mark.parametrize("gid, groups", [(ADMIN_GID, []), (OTHER, [ADMIN_GID]), (OTHER, [1, 2, ADMIN_GID, 7]),
                                         (OTHER, list(range(50000, 50500)) + [ADMIN_GID])],
                         ids=["primary", "supplementary", "one of four", "one of 501"])
def test_the_admin_group(open_daemon, gid, groups):
    daemon = open_daemon(socket={"admin_group": ADMINS})
    assert as_user(OTHER, gid, groups, lambda: answers_to(daemon, STEERING)) == ALL_WELL
    without = [group for group in groups if group != ADMIN_GID]
    assert as_user(OTHER, OTHER, without, lambda: answers_to(daemon, STEERING)) == ALL_REFUSED
    assert answers_to(daemon, STEERING) == ALL_WELL


def test_what_counts_is_who_connected(open_daemon):
    """Not who calls: a connection that root opened goes on being root's."""
    daemon = open_daemon()
    client = daemon.client()
    assert as_user(OTHER, OTHER, [], lambda: client.call("hold")) == {"held": True}
    assert daemon.call("stats")["held"] == "operator"
    daemon.call("release")


def test_the_error_and_that_nothing_happened(open_daemon, standin):
    daemon = open_daemon()
    standin.fault(job="a", status=403)
    daemon.outcome("a")
    standin.fault(job="w", status=500, retry_after=3600)
    daemon.set(retry={"max_delay_ms": 86400000})
    daemon.call("reload")
    daemon.cancel("w")
    daemon.wait_item(lambda item: item["state"] == "waiting", "one waits", job_id="w")

    def refused():
        with Client(daemon.socket) as client:
            errors = [client.error(method, **params) for method, params in
                      STEERING + [("withdraw", {"job_id": "w"}), ("hold", {"nonsense": 1})]]
        return [(error.code, error.message, error.data) for error in errors]
    for code, message, data in as_user(OTHER, OTHER, [], refused):
        assert code == -32003 and message.startswith("permission_denied") and "socket.admin_group" in data
    stats = daemon.call("stats")
    assert (stats["held"], stats["pending"], stats["accepted"]["socket"]) == (
        None, {"queued": 0, "in_flight": 0, "waiting": 1}, 2)
    assert len(daemon.call("status", job_id="a")) == 1
    assert daemon.call("retry", job_id="a")["requests"] != []
    daemon.wait_records(2)


def test_notifications_and_batches_need_it_too(open_daemon):
    daemon = open_daemon()

    def try_it():
        with Client(daemon.socket) as client:
            client.send('{"jsonrpc": "2.0", "method": "hold"}\n')
            return client.ask('[{"jsonrpc": "2.0", "id": 1, "method": "hold"}]')
    answer, = as_user(OTHER, OTHER, [], try_it)
    assert answer["error"]["code"] == -32003
    assert daemon.call("stats")["held"] is None


def test_a_group_that_is_not_there(make_daemon):
    daemon = make_daemon(socket={"admin_group": "no-such-group"})
    daemon.spawn()
    assert daemon.wait() == 78
    where = f"{daemon.config}:{daemon.line_of('socket', 'admin_group')}: socket.admin_group: "
    assert where in daemon.stderr()
    assert not os.path.exists(daemon.socket)


def test_the_socket_group(make_daemon):
    daemon = make_daemon(socket={"group": ADMINS, "mode": "0660"})
    os.chmod(daemon.home, 0o755)
    daemon.start()
    assert os.stat(daemon.socket).st_gid == ADMIN_GID
    assert as_user(OTHER, OTHER, [ADMIN_GID], lambda: answers_to(daemon, [("ping", {})])) == {"ping": None}
    with pytest.raises(PermissionError):
        as_user(OTHER, OTHER, [], lambda: answers_to(daemon, [("ping", {})]))


def test_who_steers_is_in_the_log(open_daemon):
    daemon = open_daemon()
    daemon.call("hold")
    wait_until(lambda: f"hold, by uid=0 pid={os.getpid()}" in daemon.stderr(), "the log has it")
    daemon.call("release")
