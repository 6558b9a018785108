#!/usr/bin/env python3
"""Folders under src/ are layers, and includes point down only.

    /usr/bin/python3 tests/lint/includes.py [SRC]

Prints one line `FILE:LINE: what is wrong` for each bad include; exit status 1 when there is one.
"""

import os
import re
import sys

# Highest first. Folders of one layer do not know each other. main.c may use everything.
LAYERS = [
    ["daemon"],
    ["intake", "dispatch", "results"],
    ["queue", "policy"],
    ["model"],
    ["base"],
]
# A program of its own: it uses these layers, and no other uses it.
APART = {"ctl": {"base", "model"}}
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}

# Each library stays behind one file, so that what it can do and where it bites is known in one place
# (two of them share it with files beside it by a private header).
ONLY_IN = [
    (re.compile(r"curl/"), "dispatch/http.c", "dispatch/http_loop.c", "dispatch/http_private.h"),
    (re.compile(r"sqlite3(ext)?\.h$"), "queue/sqlite.c", "queue/sqlite_private.h"),
    (re.compile(r"libconfig\.h"), "model/config.c"),
    (re.compile(r"systemd/"), "daemon/"),
    (re.compile(r"(curses|ncurses|term)\.h|ncursesw/"), "ctl/top_screen.c"),
    (re.compile(r"zlib\.h"), "ctl/log_reader.c"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def project_include(source, folder, included, root):
    """What is wrong with `#include "included"` in the file `source` of `folder` ("" for main.c)."""
    if not os.path.isfile(os.path.join(root, included)):
        return f'"{included}" is not a path from src/'
    other = included.split("/")[0] if "/" in included else ""
    if folder in APART or other in APART:
        if folder == other or other in APART.get(folder, ()):
            return None
        return f"{source} may not use {other}/: programs of their own share base/ and model/, and nothing else"
    if other not in LEVEL:
        return f'"{included}" belongs to no layer; tests/lint/includes.py lists them'
    if folder in ("", other) or LEVEL[folder] < LEVEL[other]:
        return None
    if LEVEL[folder] == LEVEL[other]:
        return f"{folder}/ and {other}/ are one layer and must not know each other: wire them in daemon/"
    return f"{folder}/ is below {other}/: includes point down only"


def library_include(source, included):
    """What is wrong with `#include <included>` in the file `source`."""
    for pattern, *places in ONLY_IN:
        at_home = any(source.startswith(place) if place.endswith("/") else source == place for place in places)
        if pattern.match(included) and not at_home:
            return f"<{included}> belongs in {', '.join(places)} only"
    return None


def check(root):
    """Yields `FILE:LINE: what is wrong`."""
    for directory, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(directory, name)
            source = os.path.relpath(path, root)
            folder = source.split("/")[0] if "/" in source else ""
            if folder and folder not in LEVEL and folder not in APART:
                yield f"{path}:1: {folder}/ is no layer yet: give it a place in tests/lint/includes.py"
                continue
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    match = INCLUDE.match(line)
                    if not match:
                        continue
                    # A library in quotes is still that library.
                    problem = library_include(source, match[2])
                    if problem is None and match[1] == '"':
                        problem = project_include(source, folder, match[2], root)
                    if problem:
                        yield f"{path}:{number}: {problem}"


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.relpath(os.path.join(here, "..", "..", "src"))
    problems = list(check(root))
    print("\n".join(problems) if problems else f"{root}: includes are in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
