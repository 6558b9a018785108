#!/bin/bash
# Builds the Debian package: installs what is missing for that, builds from a copy of the tree, and
# leaves the package in build/packages/.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/packages.sh
. "$top/packaging/packages.sh"

usage() {
  cat <<EOF
usage: packaging/build.sh [--output DIR] [--suffix TEXT] [--lint]

  --output DIR   where the package goes (default: build/packages)
  --suffix TEXT  append this to the version, as in +rebuilt1
  --lint         look it through with lintian: errors and warnings fail
EOF
}

output=$top/build/packages
suffix=
lint=no
while [ $# -gt 0 ]; do
  case $1 in
    --output | --suffix)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --output) output=$(realpath -m -- "$2") ;;
        --suffix) suffix=$2 ;;
      esac
      shift 2 ;;
    --lint) lint=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      printf 'packaging/build.sh: unknown option %s\n' "$1" >&2
      usage >&2
      exit 2 ;;
  esac
done

install_missing "${BUILD_PACKAGES[@]}" "${DEBIAN_PACKAGES[@]}"
[ "$lint" = no ] || install_missing lintian

work=$(mktemp -d "${TMPDIR:-/tmp}/pulse-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/pulse-canceld
mkdir "$tree"
# Neither builds nor what Git keeps. dpkg-buildpackage looks for debian/ at the top.
tar -C "$top" --exclude='./build*' --exclude=./.git --exclude=./.cache --exclude='__pycache__' -cf - . | tar -C "$tree" -xf -
cp -R "$tree/packaging/debian" "$tree/debian"

version=$(sed -n 's/^  VERSION \([0-9.]*\)$/\1/p' "$top/CMakeLists.txt")
packaged=$(dpkg-parsechangelog -l "$tree/debian/changelog" -S Version)
if [ "${packaged%-*}" != "$version" ]; then
  echo "packaging/build.sh: CMakeLists.txt has version $version, packaging/debian/changelog $packaged: add an entry there." >&2
  exit 1
fi
[ -z "$suffix" ] || sed -i "1s/($packaged)/($packaged$suffix)/" "$tree/debian/changelog"

log=$work/log
# Without a package of debug symbols: no core file is ever made (the key would be in it).
if ! (cd "$tree" && DEB_BUILD_OPTIONS="noautodbgsym parallel=$(nproc)" dpkg-buildpackage -b -us -uc) >"$log" 2>&1; then
  tail -n 60 "$log" >&2
  exit 1
fi
mkdir -p "$output"
rm -f "$output"/pulse-canceld_*.deb
cp "$work"/pulse-canceld_*.deb "$output/"
if [ "$lint" = yes ]; then
  # lintian does not like to be root, but reads only.
  lintian --allow-root --display-info --fail-on error,warning "$work"/pulse-canceld_*.changes
fi
ls "$output"/pulse-canceld_*.deb
