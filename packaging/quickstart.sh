#!/bin/bash
# From a fresh Debian 12 to the first cancelled jobs: installs what is missing, builds, starts a
# stand-in for the Pulse API and the daemon, cancels jobs through spool and socket, shows the results
# log, and stops everything. Nothing but Debian packages and the build directory is left behind.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/packages.sh
. "$top/packaging/packages.sh"

usage() {
  cat <<EOF
usage: packaging/quickstart.sh [--build-dir DIR] [--keep]

  --build-dir DIR  where to build (default: build)
  --keep           leave the daemon and the stand-in running, and say how to use and stop them

Environment:
  PULSE_API_KEY    when set, the real Pulse API is used with this key, and not the stand-in. The job
                   IDs are made up then too, so that none of your jobs is cancelled.
  PULSE_API_URL    its base URL (default: https://api.runpulse.com)
EOF
}

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'quickstart: %s\n' "$*" >&2
  exit 1
}
# show COMMAND: prints a command as one would type it, and runs it.
show() {
  printf '$ %s\n' "$1"
  eval "$1"
}

build_dir=$top/build
keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --build-dir)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      build_dir=$(realpath -m -- "$2")
      shift 2 ;;
    --keep) keep=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      printf 'quickstart: unknown option %s\n' "$1" >&2
      usage >&2
      exit 2 ;;
  esac
done

# The key must not be in the environment of what is started here, nor in an argument list.
api_key=${PULSE_API_KEY-}
base_url=${PULSE_API_URL:-https://api.runpulse.com}
unset PULSE_API_KEY
case $base_url in
  *[[:space:]\"\\]*) fail "PULSE_API_URL is no URL: $base_url" ;;
esac

work=
standin_pid=
daemon_pid=

# Ends process $1 and waits for it; its exit status is this function's.
stop() {
  kill "$1" 2>/dev/null || true
  local i
  for ((i = 0; i < 450; i++)); do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$1" 2>/dev/null || true
  wait "$1"
}

# Whatever happened, nothing stays running; and when something went wrong, the daemon says what.
finish() {
  local status=$?
  trap - EXIT
  if [ -n "$daemon_pid" ]; then
    stop "$daemon_pid" || status=1
  fi
  [ -z "$standin_pid" ] || stop "$standin_pid" || true
  if [ "$status" -ne 0 ] && [ -s "$work/daemon.log" ]; then
    printf '\nThe last lines of the daemon'\''s log:\n' >&2
    tail -n 20 "$work/daemon.log" >&2
  fi
  [ -z "$work" ] || rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# wait_for SECONDS PID WHAT COMMAND…: until COMMAND succeeds; ends the script when it does not in
# time, or when process PID has ended.
wait_for() {
  local seconds=$1 pid=$2 what=$3 i
  shift 3
  for ((i = 0; i < seconds * 10; i++)); do
    if "$@"; then return 0; fi
    kill -0 "$pid" 2>/dev/null || fail "$what: the process has ended"
    sleep 0.1
  done
  fail "$what: not within $seconds s"
}
has_lines() { [ "$(grep -c '' "$2" 2>/dev/null)" -ge "$1" ] 2>/dev/null; }

say "Packages"
# python3 for the stand-in and the example, ca-certificates to verify the real API.
install_missing "${BUILD_PACKAGES[@]}" python3 netcat-openbsd ca-certificates
echo "All there."

say "Build in $build_dir"
cmake -S "$top" -B "$build_dir" >/dev/null
cmake --build "$build_dir" --target pulse-canceld --parallel "$(nproc)"
canceld=$build_dir/pulse-canceld

# Directly under /tmp: the path of a socket has at most 107 bytes.
work=$(mktemp -d /tmp/pulse-quickstart.XXXXXX)
spool=$work/spool
socket=$work/socket
results=$work/results.log
mkdir "$spool"

if [ -n "$api_key" ]; then
  mode=real
  say "The real Pulse API at $base_url, as PULSE_API_KEY is set"
  echo "The job IDs below are made up, so that no job of yours is cancelled: expect \"not_found\"."
else
  mode=standin
  say "A stand-in for the Pulse API"
  api_key=quickstart-key
  /usr/bin/python3 "$top/tests/standin/standin.py" --port 0 --key "$api_key" >"$work/standin.out" 2>"$work/standin.log" &
  standin_pid=$!
  wait_for 20 "$standin_pid" "starting the stand-in" grep -q "^listening on " "$work/standin.out"
  base_url=$(sed -n 's/^listening on //p' "$work/standin.out")
  echo "It listens on $base_url. It will answer the first two cancels of flaky-1 with a 500."
  /usr/bin/python3 - "$base_url/_standin/fault" <<'PY'
import sys, urllib.request
fault = b'{"job": "flaky-1", "status": 500, "times": 2}'
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(urllib.request.Request(sys.argv[1], data=fault, method="POST"), timeout=10).read()
PY
fi

say "The daemon"
(umask 077 && printf '%s\n' "$api_key" >"$work/api-key")
unset api_key
# Everything else is as in etc/pulse-canceld.conf, but that the log tells of each attempt.
cat >"$work/pulse-canceld.conf" <<EOF
api = { base_url = "$base_url"; key_file = "$work/api-key"; };
spool = { directory = "$spool"; };
socket = { path = "$socket"; };
queue = { database = "$work/queue.db"; };
results = { path = "$results"; };
log = { level = "debug"; };
EOF
cat "$work/pulse-canceld.conf"
show "$canceld --config $work/pulse-canceld.conf --test-config"
show "$canceld --config $work/pulse-canceld.conf 2>$work/daemon.log &"
daemon_pid=$!
wait_for 20 "$daemon_pid" "starting the daemon" test -S "$socket"

# With the real API, IDs that nobody else has.
if [ "$mode" = real ]; then id=quickstart-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')-; else id=; fi

say "Through the spool: an empty file's name, or a file with a line for each job"
show "touch $spool/${id}report-1"
show "printf '%s\\n' ${id}batch-1 ${id}batch-2 '{\"job_id\": \"${id}flaky-1\", \"deadline_s\": 600}' >$spool/.batch && mv $spool/.batch $spool/batch"

say "Through the socket: a job ID a line, answered once the request is on disk"
show "echo ${id}shell-1 | timeout 60 nc -NU $socket"
say "Through the socket: JSON-RPC, here from Python, waiting for the outcome"
cat >"$work/cancel.py" <<'PY'
import json, socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(60)
    client.connect(sys.argv[1])
    call = {"jsonrpc": "2.0", "id": 1, "method": "cancel", "params": {"job_id": sys.argv[2], "wait": True}}
    client.sendall(json.dumps(call).encode() + b"\n")
    try:
        answer = client.makefile().readline()
    except TimeoutError:
        sys.exit("no outcome within 60 s: is the API reachable? The daemon's log says why")
print(answer, end="")
sys.exit("result" not in json.loads(answer))
PY
cat "$work/cancel.py"
show "/usr/bin/python3 $work/cancel.py $socket ${id}python-1"

say "The results log: one line for each, whatever the outcome"
wait_for 60 "$daemon_pid" "waiting for the outcomes of 6 requests" has_lines 6 "$results"
show "cat $results"

/usr/bin/python3 - "$results" "$mode" "$id" <<'PY'
import json, sys

path, mode, prefix = sys.argv[1:]
wanted = {prefix + job for job in ("report-1", "batch-1", "batch-2", "flaky-1", "shell-1", "python-1")}
with open(path, encoding="utf-8") as file:
    results = [json.loads(line) for line in file]
good = ("cancelled",) if mode == "standin" else ("cancelled", "not_found")
wrong = [f"{r['job_id']} ended as {r['outcome']}: {r['message'] or r['error']}" for r in results if r["outcome"] not in good]
if sorted(r["job_id"] for r in results) != sorted(wanted):
    wrong.append(f"expected one line for each of {', '.join(sorted(wanted))}")
if any(r["outcome"] == "unauthorized" for r in results):
    wrong.append("check PULSE_API_KEY, and that it is a key for the base URL above")
for line in wrong:
    print(f"quickstart: {line}", file=sys.stderr)
sys.exit(bool(wrong))
PY

if [ "$keep" = yes ]; then
  say "Left running"
  pids="$daemon_pid${standin_pid:+ $standin_pid}"
  cat <<EOF
Cancel more:   touch $spool/JOB
               echo JOB | nc -NU $socket
See:           tail -f $results
               less $work/daemon.log
Stop:          kill $pids; tail --pid=$daemon_pid -f /dev/null; rm -r $work
EOF
  trap - EXIT
  exit 0
fi

say "Stop"
stopping=$daemon_pid daemon_pid=
stop "$stopping" || fail "the daemon did not stop with status 0"
if [ -n "$standin_pid" ]; then
  stopping=$standin_pid standin_pid=
  stop "$stopping" || true
fi
echo "Both ways work. README.md shows how to run it as a service; --keep leaves this one running, to try more."
