#!/bin/bash
# Builds everything and runs every test by ctest; installs first what is missing for that.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/packages.sh
. "$top/packaging/packages.sh"
# cmocka for the unit tests; pytest, the stand-in and real clients for the integration tests; mandoc
# for the manual pages; strace for the crash tests, Hypothesis for the model-based one; nginx as a server
# whose certificate is wrong.
TEST_PACKAGES=(libcmocka-dev python3 python3-pytest python3-hypothesis netcat-openbsd openssl mandoc strace
  nginx)

usage() {
  cat <<EOF
usage: tests/run.sh [--sanitize LIST | --valgrind | --coverage] [--build-dir DIR] [--werror] [--jobs N]
                    [-- CTEST OPTION…]

  --sanitize LIST  build with -fsanitize=LIST: address,undefined or thread
  --valgrind       run every program under valgrind
  --coverage       build with gcov's counters (tests/coverage reports on them)
  --build-dir DIR  where to build (default: build, or build-LIST, build-valgrind, build-coverage)
  --werror         warnings are errors
  --jobs N         tests side by side (default: twice the number of processors)

After --, options for ctest: \`-- -L unit\`, \`-- -R integration.spool -V\`.
EOF
}

sanitize=
how=
build_dir=
werror=OFF
# Tests mostly wait for the daemons that they started.
jobs=$(($(nproc) * 2))
while [ $# -gt 0 ]; do
  case $1 in
    --sanitize | --build-dir | --jobs)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --sanitize) sanitize=$2 ;;
        --build-dir) build_dir=$(realpath -m -- "$2") ;;
        --jobs) jobs=$2 ;;
      esac
      shift 2 ;;
    --valgrind | --coverage) how=${1#--}; shift ;;
    --werror) werror=ON; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *)
      printf 'tests/run.sh: unknown option %s\n' "$1" >&2
      usage >&2
      exit 2 ;;
  esac
done
[ -n "$build_dir" ] || build_dir=$top/build${sanitize:+-${sanitize//,/-}}${how:+-$how}

options=(-DPULSE_TESTS=ON -DPULSE_SANITIZE="$sanitize" -DPULSE_WERROR="$werror")
case $how in
  valgrind) TEST_PACKAGES+=(valgrind); options+=(-DPULSE_VALGRIND=ON) ;;
  coverage) TEST_PACKAGES+=(gcovr); options+=(-DPULSE_COVERAGE=ON -DCMAKE_BUILD_TYPE=Debug) ;;
esac
install_missing "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"

cmake -S "$top" -B "$build_dir" "${options[@]}"
cmake --build "$build_dir" --parallel "$(nproc)"
# Without stdin, so that no test waits for somebody to type.
exec ctest --test-dir "$build_dir" --output-on-failure --parallel "$jobs" "$@" </dev/null
