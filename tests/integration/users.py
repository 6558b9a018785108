"""Other users: what a process of theirs sees and may do."""

import contextlib
import os
import pickle

import pytest

NOBODY = 65534
OTHER = 54321       # a user and a group that are nobody's


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users")


def become(uid, gid=None, groups=()):
    gid = uid if gid is None else gid
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def as_user(uid, gid, groups, function):
    """What `function()` returns in a process of that user."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            become(uid, gid, groups)
            try:
                result = function()
            except BaseException as error:      # pylint: disable=broad-except
                result = error
            os.write(writer, pickle.dumps(result))
            status = 0
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    result = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result
