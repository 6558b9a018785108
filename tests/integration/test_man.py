"""The manual pages are true: options, exit statuses, outcomes, members and settings are the source's."""

import os
import re
import shutil
import subprocess

import pytest

from daemon import REPOSITORY, binary_path
from results import MEMBERS
from test_readme import README, read, settings_of_the_source

DAEMON = read("packaging", "man", "pulse-canceld.8")
CONFIGURATION = read("packaging", "man", "pulse-canceld.conf.5")
ITEM = re.compile(r"^\.It (.*)$", re.MULTILINE)


def section(page, name):
    return re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", page, re.DOTALL | re.MULTILINE)[1]


def items(text, macro):
    """What `.It MACRO …` lists."""
    return [word for line in ITEM.findall(text) if line.startswith(macro + " ")
            for word in line[len(macro):].replace(",", " ").split()]


def test_options():
    told = subprocess.run([binary_path(), "--help"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^  (-\w), (--[\w-]+)( [A-Z]+)?  ", told, re.MULTILINE)
    assert len(options) == told.count("\n  -")
    described = re.findall(r"^\.It Fl (\w)( Ar \w+)? , Fl (-[\w-]+)( Ar \w+)?$", section(DAEMON, "DESCRIPTION"),
                           re.MULTILINE)
    assert [(f"-{short}", f"-{long}") for short, _, long, _ in described] == [option[:2] for option in options]
    for (_, before, _, after), (_, _, argument) in zip(described, options):
        assert before == after and bool(after) == bool(argument)
        assert not argument or after.split()[-1] == argument.strip().lower()
    default, = re.findall(r"\(default: (.*?)\)", told)
    assert f"The default is\n.Pa {default} .\n" in DAEMON
    synopsis = section(DAEMON, "SYNOPSIS")
    assert sorted(set(re.findall(r"\b(?:Fl|\|) (\w)", synopsis))) == sorted(option[0][1] for option in options)


def test_exit_statuses():
    of_readme = re.search(r"^\| exit status \|.*?\n\n", README, re.DOTALL | re.MULTILINE)[0]
    assert re.findall(r"^\.It (\d+)$", section(DAEMON, "EXIT STATUS"), re.MULTILINE) \
        == re.findall(r"^\| (\d+) \|", of_readme, re.MULTILINE)


def test_outcomes():
    source = re.search(r"outcome_names\[OUTCOME_COUNT\] = \{(.*?)\};", read("src", "model", "request.c"), re.DOTALL)[1]
    assert items(section(DAEMON, "RESULTS"), "Cm") == re.findall(r'"(\w+)"', source)


def test_members():
    assert items(section(DAEMON, "RESULTS"), "Li") == MEMBERS


def test_settings():
    pattern = re.compile(r"^Ic (\S+) Pq (.*?); default (\S*?)(; R)?$")
    described = {}
    for line in ITEM.findall(section(CONFIGURATION, "SETTINGS")):
        name, values, default, reloads = pattern.match(line.replace(r"\(dq", '"')).groups()
        described[name] = (values, f"`{default}`", "R" if reloads else "")
    expected = settings_of_the_source()
    assert list(described) == list(expected)
    for name, (values, default, reloads) in expected.items():
        # Strings have no values in the table.
        assert described[name][1:] == (default, reloads), name
        if values is None:
            assert described[name][0] in ("string", "octal string"), name
        else:
            assert described[name][0] == values.replace("`", ""), name


def test_settings_without_effect():
    """The list is README.md's, and goes with it."""
    listed = re.findall(r"^\| `(\w+\.\w+)[^|]*\| acts as ", README, re.MULTILINE)
    bugs = section(CONFIGURATION, "BUGS") if "\n.Sh BUGS\n" in CONFIGURATION else ""
    assert items(bugs, "Ic") == listed


def test_paths_are_the_defaults():
    settings = settings_of_the_source()
    files = items(section(DAEMON, "FILES"), "Pa")
    for name in ("api.key_file", "spool.directory", "socket.path", "queue.database", "results.path"):
        assert settings[name][1].strip('`"') in [file.rstrip("/") for file in files], name


@pytest.mark.parametrize("page", sorted(os.listdir(os.path.join(REPOSITORY, "packaging", "man"))))
def test_lint(page):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    found = subprocess.run(["mandoc", "-T", "lint", os.path.join(REPOSITORY, "packaging", "man", page)],
                           capture_output=True, text=True, check=False)
    # Whether the pages referred to are installed here is no matter.
    complaints = [line for line in found.stdout.splitlines() if "referenced manual not found" not in line]
    assert complaints == []
