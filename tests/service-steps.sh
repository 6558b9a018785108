# What the tests of the installed service share (fresh-service.sh, boot/inside). Sourced, as root, in a
# machine that is thrown away afterwards.
# shellcheck shell=bash

spool=/var/spool/pulse-canceld
socket=/run/pulse-canceld/socket
results=/var/log/pulse-canceld/results.log

report() {
  local status=$?
  if [ "$status" -ne 0 ]; then
    echo "FAILED at: $what"
    systemctl --no-pager status pulse-canceld.service pulse-canceld.socket || true
    journalctl --no-pager -n 60 || true
    ls -la "$spool" "$spool/rejected" /run/pulse-canceld /var/log/pulse-canceld || true
  fi
}
trap report EXIT
what="the start"
step() {
  what=$*
  printf -- '-- %s (%d s)\n' "$*" "$SECONDS"
}

# wait_for COMMAND…: until it succeeds, at most 60 s.
wait_for() {
  local i
  for ((i = 0; i < 600; i++)); do
    if "$@"; then return 0; fi
    sleep 0.1
  done
  echo "not within 60 s: $*"
  return 1
}

# ended OUTCOME JOB: it has a line with this outcome.
ended() { grep -q "\"job_id\": *\"$2\".*\"outcome\": *\"$1\"" "$results" 2>/dev/null; }
cancelled() { ended cancelled "$1"; }
as() { runuser -u "$1" -- "${@:2}"; }
property() { systemctl show --value -p "$1" "${2:-pulse-canceld.service}"; }

# start_standin KEY: the API, as the unit standin; its base URL is in $base_url.
start_standin() {
  systemd-run --quiet --unit=standin --property=StandardOutput=file:/run/standin.out \
    /usr/bin/python3 "$PWD/tests/standin/standin.py" --port 0 --key "$1"
  wait_for grep -qs '^listening on ' /run/standin.out
  base_url=$(sed -n 's/^listening on //p' /run/standin.out)
}

# One line for each request, numbered without gaps, over all logs.
check_results() {
  /usr/bin/python3 - "$results" <<'PY'
import glob, gzip, json, sys
records = []
for path in glob.glob(sys.argv[1] + "*"):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        records += [json.loads(line) for line in file]
numbers = sorted(r["n"] for r in records)
assert numbers == list(range(1, len(records) + 1)), numbers
requests = [r["request_id"] for r in records]
assert len(set(requests)) == len(requests), requests
PY
}
