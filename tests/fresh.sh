#!/bin/bash
# Proves that the commands of README.md do all set-up: each case below starts from a clean Debian 12
# that has nothing but what is essential (and apt), with a copy of the committed tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/packages.sh
. packaging/packages.sh
# shellcheck source=tests/debian-root.sh
. tests/debian-root.sh

usage() {
  cat <<EOF
usage: tests/fresh.sh [--cache DIR] [--keep-root] [CASE…]

  --cache DIR  keep the clean root and downloaded packages here for the next time
  --keep-root  leave the roots behind, and say where

Cases (default: all of them):
  quickstart       packaging/quickstart.sh as root
  quickstart-user  the same as an ordinary user with sudo
  tests            tests/run.sh as root
  tests-user       the same as an ordinary user with sudo
  package          packaging/build.sh --lint as root
  service          build and install, boot systemd (systemd-nspawn), run tests/fresh-service.sh there
EOF
}

all_cases=(quickstart quickstart-user tests tests-user package service)
arguments=("$@")
cases=()
cache=
keep_root=no
while [ $# -gt 0 ]; do
  case $1 in
    --cache)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      cache=$(realpath -m -- "$2")
      shift 2 ;;
    --keep-root) keep_root=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      case " ${all_cases[*]} " in
        *" $1 "*) cases+=("$1"); shift ;;
        *) printf 'tests/fresh.sh: no such option or case: %s\n' "$1" >&2; usage >&2; exit 2 ;;
      esac ;;
  esac
done
[ ${#cases[@]} -gt 0 ] || cases=("${all_cases[@]}")

# Making device nodes, mounting and chroot take root.
if [ "$(id -u)" -ne 0 ]; then
  exec sudo -- "$PWD/tests/fresh.sh" "${arguments[@]}"
fi

install_missing mmdebstrap git
[[ " ${cases[*]} " != *" service "* ]] || install_missing systemd-container

work=$(mktemp -d /var/tmp/pulse-fresh.XXXXXX)
finish() {
  if [ "$keep_root" = yes ]; then
    echo "The roots are in $work"
  else
    # Nothing is mounted in there: mounts live in namespaces that ended with their processes.
    rm -rf --one-file-system "$work"
  fi
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# -- The tree and the clean root -------------------------------------------------------------------

# The checkout may belong to somebody else than root.
git=(git -c "safe.directory=$PWD")
[ -z "$("${git[@]}" status --porcelain)" ] || echo "Note: there are changes that are not committed; they are not tested."
"${git[@]}" archive --format=tar HEAD >"$work/tree.tar"

base=${cache:-$work}/base.tar
archives=${cache:-$work}/archives
mkdir -p "$archives/partial"
clean_root "$base"

# make_root CASE: a clean root for the case in $root, with the tree in $root$home/pulse-canceld.
make_root() {
  root=$work/$1
  unpack_root "$base" "$root"
  mkdir -p "$root$home"
  mkdir "$root$home/pulse-canceld"
  tar -C "$root$home/pulse-canceld" -xf "$work/tree.tar"
}

# inside COMMAND…: runs it in $root as root, without a terminal, with an environment like that of a
# login. Mounts and processes are in namespaces, so nothing of either is left behind.
inside() {
  # shellcheck disable=SC2016  # expanded by the inner shell
  unshare --mount --propagation private --pid --fork --kill-child bash -euc '
    root=$1 archives=$2
    shift 2
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount --bind "$archives" "$root/var/cache/apt/archives"
    exec env -i HOME=/root USER=root LANG=C.UTF-8 TERM=dumb \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"
  ' bash "$root" "$archives" "$@" </dev/null
}

# A user who may use sudo without a password, as on a cloud image.
make_user() {
  inside bash -euc '
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -q update && apt-get -q install -y --no-install-recommends sudo; } >/tmp/apt.log 2>&1 || {
      cat /tmp/apt.log; exit 1; }
    useradd --create-home --shell /bin/bash user 2>/tmp/useradd.log || { cat /tmp/useradd.log; exit 1; }
    echo "user ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/user
    chown -R user: /home/user
    # As if nothing had been fetched: the script has to do that itself.
    rm -rf /var/lib/apt/lists/*'
}

# -- Cases -----------------------------------------------------------------------------------------

# as_root CASE SCRIPT and as_user CASE SCRIPT run a script of the tree by its path.
as_root() {
  home=/root
  make_root "$1"
  inside bash -c "cd $home/pulse-canceld && exec ./$2"
}

as_user() {
  home=/home/user
  make_root "$1"
  make_user
  inside runuser -l user -c "cd $home/pulse-canceld && exec ./$2"
}

# Build and install as README.md says, then boot, with the test as the service that ends it all.
service() {
  home=/root
  make_root service
  # shellcheck disable=SC2016  # expanded by the inner shell
  inside bash -euc '
    cd /root/pulse-canceld
    . packaging/packages.sh
    # What most machines have, and a minimal root has not.
    install_missing systemd systemd-sysv dbus logrotate
    install_missing "${BUILD_PACKAGES[@]}"
    apt-get -q install -y --no-install-recommends ca-certificates netcat-openbsd python3 >/tmp/apt.log 2>&1 || {
      cat /tmp/apt.log; exit 1; }
    cmake -S . -B build -DCMAKE_INSTALL_PREFIX=/usr >/dev/null
    cmake --build build --parallel "$(nproc)" --target all
    cmake --install build
    # Only what this test is about: no login prompts, and a journal that can be read afterwards.
    systemctl mask --quiet getty.target console-getty.service
    mkdir -p /var/log/journal
    cat >/etc/systemd/system/fresh-service.service <<UNIT
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/root/pulse-canceld/tests/fresh-service.sh
StandardOutput=append:/root/fresh-service.log
StandardError=append:/root/fresh-service.log
TimeoutStartSec=300
UNIT
    mkdir -p /etc/systemd/system/default.target.wants
    ln -s ../fresh-service.service /etc/systemd/system/default.target.wants/'
  # The exit status of the unit becomes that of systemd-nspawn (SuccessAction=exit). --register=no and
  # --keep-unit: there may be no systemd on this machine to register with.
  local status=0
  timeout -k 10 600 systemd-nspawn --quiet --register=no --keep-unit --directory="$root" --boot \
    </dev/null >"$work/boot.log" 2>&1 || status=$?
  cat "$root/root/fresh-service.log" 2>/dev/null || cat "$work/boot.log"
  [ "$status" -eq 0 ] || return 1
}

failed=()
for one in "${cases[@]}"; do
  printf '\n== %s (%d s since the start)\n' "$one" "$SECONDS"
  status=0
  # In a subshell and not in a condition, where -e would be off.
  set +e
  (
    set -e
    case $one in
      quickstart) as_root "$one" packaging/quickstart.sh ;;
      quickstart-user) as_user "$one" packaging/quickstart.sh ;;
      tests) as_root "$one" tests/run.sh ;;
      tests-user) as_user "$one" tests/run.sh ;;
      package) as_root "$one" "packaging/build.sh --lint" ;;
      service) service ;;
    esac
  )
  status=$?
  set -e
  [ "$status" -eq 0 ] || failed+=("$one")
  [ "$keep_root" = yes ] || rm -rf --one-file-system "${work:?}/$one"
done

printf '\n'
for one in "${cases[@]}"; do
  if [[ " ${failed[*]} " == *" $one "* ]]; then echo "FAILED  $one"; else echo "ok      $one"; fi
done
[ ${#failed[@]} -eq 0 ]
