#!/bin/bash
# The installed service under a real systemd. Runs as root in the machine that tests/fresh.sh boots;
# not meant for any other, as it sets up users, a key and a configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/service-steps.sh
. tests/service-steps.sh

step "without a key neither service nor socket starts"
systemd-sysusers
systemd-tmpfiles --create
systemctl daemon-reload
systemctl start pulse-canceld.service
# (Not its Result: a unit that nothing refers to may be forgotten at once, and that with it.)
told() { journalctl -u pulse-canceld.service | grep -q "There is no API key yet"; }
wait_for told
[ "$(property ActiveState)" = inactive ]
[ "$(property ActiveState pulse-canceld.socket)" = inactive ]

step "a stand-in for the API, a key that is typed unseen, a user who may submit and one who may not"
start_standin service-key
cat >/root/type-key.sh <<'END'
sh -c 'key=$(systemd-ask-password -n "API key:") && printf "%s\n" "$key" | install -m 600 /dev/stdin /etc/pulse-canceld/api-key'
END
# On a terminal of its own; the key is typed once it is asked for.
mkfifo /run/typed
script -qefc "sh /root/type-key.sh" /run/terminal </run/typed >/dev/null &
typist=$!
exec 4>/run/typed
wait_for grep -qs 'API key:' /run/terminal
printf 'service-key\n' >&4
exec 4>&-
wait $typist
if grep service-key /run/terminal; then false; fi
[ "$(stat -c '%U:%G %a' /etc/pulse-canceld/api-key)" = "root:root 600" ]
[ "$(cat /etc/pulse-canceld/api-key)" = service-key ]
printf 'api = { base_url = "%s"; };\n' "$base_url" >/etc/pulse-canceld/pulse-canceld.conf
useradd --create-home --groups pulse-cancel alice
useradd --create-home bob
useradd --create-home --groups pulse-canceld carol

step "enable and start: ready, with a status"
systemctl enable --quiet --now pulse-canceld.socket pulse-canceld.service
systemctl is-enabled --quiet pulse-canceld.socket
systemctl is-active --quiet pulse-canceld.service pulse-canceld.socket
[ -n "$(property StatusText)" ]
echo "   $(property StatusText)"

step "socket and spool have their owners and modes"
[ "$(stat -c '%U:%G %a' $socket)" = "pulse-canceld:pulse-cancel 660" ]
[ "$(stat -c '%U:%G %a' $spool)" = "pulse-canceld:pulse-cancel 3770" ]

step "a member of pulse-cancel submits: an empty file, lines, the socket"
as alice touch $spool/touched-1
as alice sh -c "printf 'lines-1\nlines-2\n' >$spool/.lines && mv $spool/.lines $spool/lines"
as alice sh -c "echo socket-1 | timeout 30 nc -NU $socket" | grep -q '"queued"'
for job in touched-1 lines-1 lines-2 socket-1; do wait_for cancelled $job; done
[ "$(stat -c '%U %a' $results)" = "pulse-canceld 640" ]

step "others may not"
if as bob touch $spool/bob-1 2>/dev/null; then false; fi
if as bob sh -c "echo bob-1 | timeout 30 nc -NU $socket" 2>/dev/null; then false; fi
as carol grep -q touched-1 $results
if as alice cat $results 2>/dev/null; then false; fi

step "another user's file that is linked in while it is open for writing waits (CAP_LEASE)"
as alice sh -c "exec 3>/home/alice/open; echo leased-1 >&3; chmod 644 /home/alice/open
  mkdir -p $spool/.alice && mv /home/alice/open $spool/.alice/open && ln $spool/.alice/open $spool/linked
  touch /tmp/linked; while ! [ -e /tmp/close ]; do sleep 0.1; done" &
writer=$!
wait_for test -e /tmp/linked
# Longer than spool.settle_ms (2 s): only the lease can tell that it is not finished.
sleep 5
[ -e $spool/linked ]
touch /tmp/close
wait $writer
# It may be seen no earlier than by the rescan: poke it.
as alice touch $spool/touched-2
wait_for cancelled touched-2
for ((i = 0; i < 3; i++)); do cancelled leased-1 || wait_for cancelled leased-1 || true; done
cancelled leased-1

step "reload"
systemctl reload pulse-canceld.service
as alice sh -c "echo socket-2 | timeout 30 nc -NU $socket" | grep -q '"queued"'
wait_for cancelled socket-2

step "a restart keeps the socket"
pulse-canceld -t && systemctl restart pulse-canceld.service
[ "$(stat -c '%U:%G %a' $socket)" = "pulse-canceld:pulse-cancel 660" ]
as alice sh -c "echo socket-3 | timeout 30 nc -NU $socket" | grep -q '"queued"'
wait_for cancelled socket-3

step "a killed daemon comes back by itself"
systemctl kill --kill-whom=main -s KILL pulse-canceld.service
as alice sh -c "echo socket-4 | timeout 60 nc -NU $socket" | grep -q '"queued"'
wait_for cancelled socket-4

step "stopped, a client wakes it"
systemctl stop pulse-canceld.service 2>/dev/null
[ "$(property Result)" = success ]
as alice sh -c "echo socket-5 | timeout 60 nc -NU $socket" | grep -q '"queued"'
wait_for cancelled socket-5

step "the spool directory is made anew"
rm -rf $spool
systemd-tmpfiles --create
as alice touch $spool/anew-1
wait_for cancelled anew-1

step "a wrong configuration: status 78, and no restarts"
cp /etc/pulse-canceld/pulse-canceld.conf /root/good.conf
echo 'nonsense = 1;' >>/etc/pulse-canceld/pulse-canceld.conf
if systemctl restart pulse-canceld.service 2>/dev/null; then false; fi
[ "$(property ExecMainStatus)" = 78 ]
[ "$(property NRestarts)" = 0 ]

step "a client that waits for it does not wear the socket out, and is served once all is mended"
as alice sh -c "echo socket-6 | timeout 60 nc -NU $socket" >/run/socket-6 &
client=$!
# More than the start limit's 10 s.
sleep 12
systemctl is-active --quiet pulse-canceld.socket
[ "$(property Result)" = exit-code ]
cp /root/good.conf /etc/pulse-canceld/pulse-canceld.conf
wait $client
grep -q '"queued"' /run/socket-6
wait_for cancelled socket-6

step "the same with the key away"
mv /etc/pulse-canceld/api-key /root/api-key
systemctl restart pulse-canceld.service
[ "$(property Result)" = exec-condition ]
as alice sh -c "echo socket-7 | timeout 60 nc -NU $socket" >/run/socket-7 &
client=$!
sleep 12
systemctl is-active --quiet pulse-canceld.socket
mv /root/api-key /etc/pulse-canceld/api-key
pulse-canceld -t && systemctl restart pulse-canceld
wait $client
wait_for cancelled socket-7

step "too many restarts by hand meet the start limit, and the socket goes with it: reset-failed"
# Twice the limit: its 10 s may begin anew in between.
for ((i = 0; i < 21; i++)); do systemctl restart pulse-canceld.service 2>/dev/null || true; done
[ "$(property Result)" = start-limit-hit ]
wait_for systemctl is-failed --quiet pulse-canceld.socket
systemctl reset-failed pulse-canceld pulse-canceld.socket
systemctl start pulse-canceld
systemctl is-active --quiet pulse-canceld.service pulse-canceld.socket

step "the key is nowhere to be seen"
pid=$(property MainPID)
if tr '\0' '\n' <"/proc/$pid/environ" | grep -q service-key; then false; fi
if journalctl --no-pager -u pulse-canceld.service | grep -q service-key; then false; fi

step "one line for each request, numbered without gaps"
check_results

step "logrotate"
install -m 644 packaging/debian/pulse-canceld.logrotate /etc/logrotate.d/pulse-canceld
for i in 1 2; do
  logrotate --force /etc/logrotate.d/pulse-canceld
  as alice touch $spool/rotated-$i
  wait_for cancelled rotated-$i
done
zcat $results.2.gz | grep -q touched-1
grep -q rotated-1 $results.1

step "stopped with its socket, it stays stopped"
systemctl stop pulse-canceld.socket pulse-canceld.service
[ "$(property Result)" = success ]
[ ! -e $socket ]

step "uninstall: nothing is left"
gpasswd --delete carol pulse-canceld >/dev/null
systemctl disable --now pulse-canceld.socket pulse-canceld.service
xargs rm <build/install_manifest.txt
systemctl daemon-reload
rm -r /etc/pulse-canceld /var/lib/pulse-canceld /var/log/pulse-canceld /var/spool/pulse-canceld /run/pulse-canceld
rm -r /usr/share/doc/pulse-canceld /usr/share/pulse-canceld
rm -f /etc/logrotate.d/pulse-canceld
userdel pulse-canceld
groupdel pulse-cancel
left=$(find / -xdev -name '*pulse-canceld*' -not -path '/root/*')
[ -z "$left" ] || { echo "$left"; false; }
echo "All good."
