"""README.md is true: its commands are run, its tables are compared with the source.

An HTML comment before each code block of README.md says how it is tested:

    <!-- test: run -->       run against the daemon (sh with bash -eu, python), in the order of the file
    <!-- test: output -->    what the block before prints; values that differ from run to run are left out
    <!-- test: fresh -->     needs a whole machine: each command has to be in tests/fresh.sh, fresh-service.sh or boot/
    <!-- test: packages -->  the list of packages has to be that of packaging/packages.sh
"""

import os
import re
import subprocess

import pytest

from ctl import ctl_path
from daemon import KEY, REPOSITORY, binary_path, clean_environment
from results import MEMBERS
from waiting import wait_until

INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": ["/usr/bin/python3", "-c"]}
BLOCK = re.compile(r"(?:^<!-- test: (\w+) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What differs from run to run, in an output.
VARIABLE = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "TIME"),
    (re.compile(r'("(?:n|elapsed_ms)":)\d+'), r"\1N"),
    (re.compile(r"\b(uid|pid)=\d+"), r"\1=N"),
]


def read(*path):
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


README = read("README.md")


class Block:
    def __init__(self, match):
        self.test, self.language, self.text = match.groups()
        self.line = README.count("\n", 0, match.start(2)) + 1
        self.where = f"README.md:{self.line}"


BLOCKS = [Block(match) for match in BLOCK.finditer(README)]


def commands(text):
    """One a line, without comments and sudo."""
    for line in text.splitlines():
        command = re.sub(r"(^|\s)#.*", "", line).replace("sudo ", "").strip()
        if command:
            yield command


def table(*header):
    """The rows below a table's header, as lists of cells."""
    lines = iter(README.splitlines())
    head = "| " + " | ".join(header)
    for line in lines:
        if line.startswith(head):
            break
    else:
        raise AssertionError(f"README.md has no table {head}")
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def names(cell):
    return re.findall(r"`([\w.]+)`", cell)


def same_but_values(text):
    for pattern, replacement in VARIABLE:
        text = pattern.sub(replacement, text)
    return text


def test_every_block_says_how_it_is_tested():
    assert BLOCKS
    for block in BLOCKS:
        assert block.test in ("run", "output", "fresh", "packages"), block.where
        assert block.test == "output" or block.language in INTERPRETERS, block.where
    for before, block in zip([None] + BLOCKS, BLOCKS):
        assert block.test != "output" or before and before.test == "run", block.where


def run(block, substitutions):
    text = block.text
    for old, new in substitutions:
        text = text.replace(old, new)
    return subprocess.run(INTERPRETERS[block.language] + [text], input=KEY + "\n", capture_output=True, text=True,
                          timeout=60, env=clean_environment(), cwd=REPOSITORY, check=False)


def wrapped_client(daemon):
    """pulse-cancelctl with this daemon's paths as its defaults."""
    path = os.path.join(daemon.home, "ctl")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\ncommand=$1\nshift\n[ $command != results ] || set -- -f {daemon.results} \"$@\"\n"
                   f'exec {ctl_path()} --socket {daemon.socket} "$command" "$@"\n')
    os.chmod(path, 0o755)
    return path


def test_the_commands(daemon, standin):
    standin.fault(job="refused", status=401)
    assert daemon.outcome("refused")["outcome"] == "unauthorized"
    client = wrapped_client(daemon)
    substitutions = [
        ("sudo ", ""),
        ("pulse-cancelctl ", client + " "),
        ("/var/spool/pulse-canceld", daemon.spool),
        ("/run/pulse-canceld/socket", daemon.socket),
        ("/var/log/pulse-canceld/results.log", daemon.results),
        ("/etc/pulse-canceld/pulse-canceld.conf", daemon.config),
        ("/etc/pulse-canceld/api-key", daemon.key_file),
        ("systemctl reload pulse-canceld", f"kill -HUP {daemon.process.pid}"),
        ("pulse-canceld -t", f"{binary_path()} -t -c {daemon.config}"),
    ]

    def idle():
        return not daemon.spooled() and not os.listdir(daemon.claimed) \
            and not sum(daemon.call("stats")["pending"].values())

    ran = None
    for block in BLOCKS:
        if block.test == "run":
            ran = run(block, substitutions)
            assert ran.returncode == 0, f"{block.where}: {ran.stderr}{ran.stdout}"
            if os.path.exists(daemon.results + ".1") and not daemon.rotated:
                daemon.rotated.append(daemon.results + ".1")
                wait_until(lambda: os.path.exists(daemon.results), f"{block.where}: the log is opened anew")
            wait_until(idle, f"{block.where}: all is done")
        elif block.test == "output":
            shown = block.text
            for old, new in substitutions:
                shown = shown.replace(old, new)
            assert same_but_values(ran.stdout) == same_but_values(shown), block.where

    assert daemon.rotated, "README.md shows a rotation"
    daemon.outcome("after-all")
    outcomes = {}
    for record in daemon.records():
        outcomes.setdefault(record["job_id"], []).append(record["outcome"])
    assert outcomes.pop("refused") == ["unauthorized", "cancelled"]
    assert outcomes.pop("abc123") == ["cancelled", "cancelled"]
    assert outcomes == {job: ["cancelled"] for job in [f"job-{i}" for i in range(1, 14)] + ["after-all"]}
    assert daemon.reasons() == {}


def test_what_mktemp_does_without_the_dot(daemon):
    """The reason for the warning, and for the chmod."""
    subprocess.run(["mktemp", os.path.join(daemon.spool, "XXXXXX")], check=True, stdout=subprocess.DEVNULL)
    record, = daemon.wait_records(1)
    assert record["source"] == "spool" and record["job_id"] == record["origin"]


def test_commands_for_a_whole_machine_are_run_by_fresh():
    scripts = (["fresh.sh"], ["fresh-service.sh"], ["boot", "run"], ["boot", "inside"])
    tested = [set(line.replace(".service", "").split())
              for script in scripts for line in read("tests", *script).splitlines()]
    for block in BLOCKS:
        if block.test == "fresh":
            for command in commands(block.text):
                assert any(set(command.split()) <= words for words in tested), f"{block.where}: {command}"


def test_packages():
    block, = [block for block in BLOCKS if block.test == "packages"]
    listed = re.search(r"BUILD_PACKAGES=\((.*?)\)", read("packaging", "packages.sh"), re.DOTALL)[1].split()
    command, = commands(block.text)
    assert command.split()[3:] == listed


SETTING = re.compile(r"\{ (STRING|INT|BOOL|ENUM|MODE)\(([\w.]+),\s*([^{}]*?)\s*\)(, RELOADS)? \}")


def settings_of_the_source():
    """{name: (values, default, reloads)} as README.md writes them."""
    source = read("src", "model", "config.c")
    value_names = {name: re.findall(r'"(\w+)"', values)
                   for name, values in re.findall(r"const char \*const (\w+)\[\] = \{(.*?)\};", source)}
    settings = {}
    for kind, name, arguments, reloads in SETTING.findall(source):
        *bounds, default = [argument.strip() for argument in arguments.split(",")]
        values = None
        if kind == "INT":
            values = f"{bounds[0]} to {bounds[1]}"
        elif kind == "BOOL":
            values = "true, false"
        elif kind == "ENUM":
            values = ", ".join(f'`"{one}"`' for one in value_names[bounds[0]])
        if kind in ("INT", "BOOL"):
            default = default.strip('"')
        settings[name] = (values, f"`{default}`", "R" if reloads else "")
    return settings


def test_settings():
    expected = settings_of_the_source()
    assert list(expected) == names_in_the_configuration()
    rows = table("setting", "values", "default", "R")
    assert [row[0].strip("`") for row in rows] == list(expected)
    for row in rows:
        values, default, reloads = expected[row[0].strip("`")]
        assert (row[2], row[3]) == (default, reloads), row[0]
        assert values is None or row[1] == values, row[0]


def names_in_the_configuration():
    """Of etc/pulse-canceld.conf, "group.setting" in its order."""
    found, group = [], None
    for line in read("etc", "pulse-canceld.conf").splitlines():
        match = re.match(r"(\s*)(\w+) = ", line)
        if match and not match[1]:
            group = match[2]
        elif match:
            found.append(f"{group}.{match[2]}")
    return found


def test_settings_without_effect_are_settings():
    known = settings_of_the_source()
    for row in table("setting", "what happens in this version"):
        name = re.match(r"`([\w.]+)", row[0])[1]
        assert name in known
        # The other table says so, too.
        full, = [other for other in table("setting", "values", "default", "R") if other[0] == f"`{name}`"]
        assert full[4].endswith("see below"), name


def test_outcomes():
    source = re.search(r"outcome_names\[OUTCOME_COUNT\] = \{(.*?)\};", read("src", "model", "request.c"), re.DOTALL)[1]
    assert [names(row[0])[0] for row in table("outcome", "when")] == re.findall(r'"(\w+)"', source)


def test_members():
    listed = [name for row in table("member") for name in names(row[0])]
    assert listed == MEMBERS


def test_methods():
    source = re.findall(r'\{ \.name = "(\w+)"', read("src", "intake", "methods.c"))
    assert sorted(name for row in table("method", "params", "result") for name in names(row[0])) == sorted(source)


def test_methods_for_administrators():
    source = re.findall(r'\{ \.name = "(\w+)"[^}]*needs_admin = true', read("src", "intake", "methods.c"))
    told = re.search(r"\n\n((?:`\w+`,? (?:and )?)+)are for root", README)[1]
    assert sorted(names(told)) == sorted(source)
