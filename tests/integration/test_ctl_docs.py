"""The client's manual page, completions and README.md know the commands and options of --help."""

import re
import shutil
import subprocess

import pytest

import ctl
from daemon import REPOSITORY
from test_man import section
from test_readme import read, table

PAGE = read("packaging", "man", "pulse-cancelctl.1")
BASH = f"{REPOSITORY}/packaging/completion/pulse-cancelctl.bash"
ZSH = read("packaging", "completion", "_pulse-cancelctl")
OPTION = re.compile(r"^  (?:(-\w), |    )(--[\w-]+)(?: ([A-Z]+))?(?:  |$)", re.MULTILINE)


def options_of(text):
    """{--long: (-short or "", argument or "")} of a text of --help."""
    options = {long: (short, argument) for short, long, argument in OPTION.findall(text.split("\nOptions")[1])}
    assert options
    return options


GENERAL = ctl.good("/nowhere", "--help")
COMMANDS = re.findall(r"^  (\w+) +\S", GENERAL.split("\nCommands:\n")[1].split("\n\n")[0], re.MULTILINE)
COMMON = options_of(GENERAL)
OWN = {name: {long: rest for long, rest in options_of(ctl.good("/nowhere", name, "--help")).items()
              if long not in COMMON} for name in COMMANDS}


def words(options):
    """All names of options, short and long."""
    return {name for long, (short, _) in options.items() for name in (long, short) if name}


def test_help_has_what_the_source_has():
    source = read("src", "ctl", "commands.c")
    assert COMMANDS == re.findall(r'\.name = "(\w+)"', source)
    assert set(COMMON) == {"--socket", "--json", "--help", "--version"}
    assert sum(len(own) for own in OWN.values()) == source.count("{ OPTION_")


# -- completion ---------------------------------------------------------------------------------


def complete(*line):
    """What bash offers for the last word of the line."""
    script = f'source "{BASH}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pulse_cancelctl; ' \
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p pulse-cancelctl >/dev/null'
    done = subprocess.run(["bash", "-euc", script, "bash", "pulse-cancelctl", *line], capture_output=True, text=True,
                          check=True)
    return set(done.stdout.split())


def test_bash_commands():
    assert complete("") == set(COMMANDS)
    assert complete("re") == {"results", "release", "retry", "reload"}
    assert complete("--socket", "/x", "") == set(COMMANDS)
    assert complete("-") == words(COMMON)


@pytest.mark.parametrize("name", COMMANDS)
def test_bash_options(name):
    assert complete(name, "-") == words({**COMMON, **OWN[name]})
    assert complete("-j", "-s", "/x", name, "a", "-") == words({**COMMON, **OWN[name]})
    assert complete(name, "") == set(), "job IDs are not known"
    for long, (short, argument) in OWN[name].items():
        if argument:
            # A word after it is its argument, never an option.
            assert not any(word.startswith("-") for option in (long, short) if option
                           for word in complete(name, option, ""))


def test_bash_values(tmp_path):
    source = re.search(r"outcome_names\[OUTCOME_COUNT\] = \{(.*?)\};", read("src", "model", "request.c"), re.DOTALL)[1]
    outcomes = set(re.findall(r'"(\w+)"', source))
    assert complete("list", "--outcome", "") == complete("results", "-o", "") == outcomes
    assert complete("retry", "-o", "") == outcomes - {"cancelled", "too_late", "invalid"}
    assert complete("list", "-t", "") == {"queued", "in_flight", "waiting", "done"}
    (tmp_path / "jobs").write_text("")
    for line in (("cancel", "--file"), ("results", "-f"), ("--socket",), ("ping", "-s")):
        assert complete(*line, f"{tmp_path}/j") == {f"{tmp_path}/jobs"}


def zsh_names(text):
    """The options in a piece of the zsh completion."""
    pairs = re.findall(r"'\{(-\w),(--[\w-]+)\}", text)
    return {name for pair in pairs for name in pair} | set(re.findall(r"'(--[\w-]+)\[", text))


def test_zsh():
    commands = re.search(r"commands=\((.*?)\n  \)", ZSH, re.DOTALL)[1]
    assert re.findall(r"^    '(\w+):", commands, re.MULTILINE) == COMMANDS
    assert zsh_names(re.search(r"common=\((.*?)\n  \)", ZSH, re.DOTALL)[1]) == words(COMMON)
    cases = dict(re.findall(r"^    (\w+)\)\n(.*?) ;;$", ZSH.split("case $words[1] in")[1], re.DOTALL | re.MULTILINE))
    assert {name: zsh_names(text) for name, text in cases.items()} \
        == {name: words(own) for name, own in OWN.items() if own}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_can_read_it():
    done = subprocess.run(["zsh", "-n", f"{REPOSITORY}/packaging/completion/_pulse-cancelctl"], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- the manual page, and README.md -------------------------------------------------------------


MAN_OPTION = re.compile(r"^\.It (?:Fl (\w)(?: Ar \w+)? , )?Fl (-[\w-]+)(?: Ar (\w+))?$", re.MULTILINE)


def man_options(text):
    return {f"-{long}": (f"-{short}" if short else "", argument.upper())
            for short, long, argument in MAN_OPTION.findall(text)}


def test_manual_page():
    assert man_options(section(PAGE, "DESCRIPTION")) == COMMON
    parts = re.split(r"^\.It Ic (\w+)", section(PAGE, "COMMANDS"), flags=re.MULTILINE)[1:]
    described = dict(zip(parts[::2], parts[1::2]))
    assert list(described) == COMMANDS
    for name, text in described.items():
        assert man_options(text) == OWN[name], name
        # Its arguments: what --help has in its first line.
        usage = ctl.good("/nowhere", name, "--help").splitlines()[0].partition("[OPTION]...")[2]
        shown = re.sub(r"\b(?:Ar|Fl|Op|Li) ?", "", text.splitlines()[0]).split()
        told = re.sub(r"[][]|-(?=\w )", "", usage.replace("...", " ...").lower()).split()
        assert shown == told, name


def test_exit_statuses():
    listed = re.findall(r"^\.It (\d+)$", section(PAGE, "EXIT STATUS"), re.MULTILINE)
    told = re.findall(r"(\d) [a-z]", " ".join(GENERAL.split("Exit status:")[1].split()))
    assert listed == told + ["130"]


def test_default_paths():
    for option, argument in (("--socket", ["--help"]), ("--file", ["results", "--help"])):
        text = " ".join(ctl.good("/nowhere", *argument).split())
        default = re.search(rf"{option} PATH .*?\(default: (\S+)\)", text)[1]
        assert f"The default is\n.Pa {default} .\n" in PAGE
        assert f".It Pa {default}\n" in section(PAGE, "FILES")


def test_readme_lists_the_commands():
    rows = table("`pulse-cancelctl`")
    assert [name for row in rows for name in re.findall(r"`(\w+)(?: [^`]*)?`", row[0])] == COMMANDS
