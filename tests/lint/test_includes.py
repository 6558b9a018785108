"""The layers of src/ hold, and the check that says so can see."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from includes import check  # noqa: E402

SRC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")


def test_the_tree_is_in_order():
    assert list(check(SRC)) == []


CASES = [
    ("daemon/daemon.c", '#include "intake/spool.h"', None),
    ("intake/spool.c", '#include "intake/rpc.h"', None),
    ("results/results.h", '#include "queue/queue.h"', None),
    ("main.c", '#include "daemon/daemon.h"', None),
    ("dispatch/http.c", "#include <curl/curl.h>", None),
    ("dispatch/http_loop.c", "#include <curl/curl.h>", None),
    ("dispatch/http_private.h", "#include <curl/curl.h>", None),
    ("daemon/notify.c", "#include <systemd/sd-daemon.h>", None),
    ("base/buf.c", '#include "model/request.h"', "base/ is below model/"),
    ("queue/queue.c", '#  include "dispatch/dispatch.h"', "queue/ is below dispatch/"),
    ("intake/spool.c", '#include "results/results.h"', "one layer"),
    ("policy/retry.c", '#include "queue/queue.h"', "one layer"),
    ("intake/spool.c", '#include "line.h"', "not a path from src/"),
    ("intake/spool.c", '#include "../base/buf.h"', "not a path from src/"),
    ("dispatch/dispatch.c", "#include <curl/curl.h>", "dispatch/http_private.h only"),
    ("dispatch/http.h", "#include <curl/multi.h>", "dispatch/http_private.h only"),
    ("queue/queue.c", "#include <sqlite3.h>", "queue/sqlite_private.h only"),
    ("daemon/daemon.c", "#include <libconfig.h>", "model/config.c only"),
    ("base/log.c", "#include <systemd/sd-daemon.h>", "daemon/ only"),
    ("ctl/cancel.c", '#include "ctl/call.h"', None),
    ("ctl/cancel.c", '#include "model/request.h"', None),
    ("ctl/top_screen.c", "#include <curses.h>", None),
    ("ctl/log_reader.c", "#include <zlib.h>", None),
    ("ctl/cancel.c", '#include "intake/rpc.h"', "may not use intake/"),
    ("ctl/cancel.c", '#include "queue/queue.h"', "may not use queue/"),
    ("daemon/daemon.c", '#include "ctl/call.h"', "may not use ctl/"),
    ("main.c", '#include "ctl/call.h"', "may not use ctl/"),
    ("ctl/top.c", "#include <curses.h>", "ctl/top_screen.c only"),
    ("ctl/results.c", "#include <zlib.h>", "ctl/log_reader.c only"),
    ("extra/thing.c", '#include "base/buf.h"', "no layer yet"),
]


@pytest.mark.parametrize("source,line,problem", CASES)
def test_an_include(tmp_path, source, line, problem):
    for header in ("intake/spool.h", "intake/rpc.h", "results/results.h", "queue/queue.h", "daemon/daemon.h",
                   "dispatch/dispatch.h", "model/request.h", "base/buf.h", "ctl/call.h"):
        (tmp_path / header).parent.mkdir(exist_ok=True)
        (tmp_path / header).write_text("")
    (tmp_path / source).parent.mkdir(exist_ok=True)
    (tmp_path / source).write_text(f"/* A file. */\n{line}\n")

    found = list(check(str(tmp_path)))

    if problem is None:
        assert found == []
    else:
        assert len(found) == 1 and problem in found[0] and source in found[0]
