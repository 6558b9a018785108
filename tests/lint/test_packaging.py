"""What the Debian package is built with, and its version, are those of the build."""

import os
import re

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def read(*path):
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


def test_build_depends():
    wanted = set(re.search(r"BUILD_PACKAGES=\((.*?)\)", read("packaging", "packages.sh"), re.DOTALL)[1].split())
    control = read("packaging", "debian", "control")
    field = re.search(r"^Build-Depends: (.*?)^\S", control, re.DOTALL | re.MULTILINE)[1]
    listed = {re.sub(r"\s*\(.*\)", "", one.strip()) for one in field.split(",")}
    # build-essential, which every package may count on, brings those.
    assert listed - {"debhelper-compat"} == wanted - {"gcc", "libc6-dev", "make"}


def test_version():
    version = re.search(r"^  VERSION ([0-9.]+)$", read("CMakeLists.txt"), re.MULTILINE)[1]
    assert re.match(rf"pulse-canceld \({re.escape(version)}-\d+\) ", read("packaging", "debian", "changelog"))
