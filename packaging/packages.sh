# shellcheck shell=bash
# Which Debian packages are needed for what, and how the missing ones are installed. Sourced by
# quickstart.sh, tests/run.sh and .ci/run.

# To build the daemon and its client.
# shellcheck disable=SC2034
BUILD_PACKAGES=(gcc libc6-dev make cmake pkg-config libuv1-dev libcurl4-openssl-dev libjson-c-dev
  libconfig-dev libsqlite3-dev libsystemd-dev libncurses-dev zlib1g-dev)

# To make the Debian package, besides.
# shellcheck disable=SC2034
DEBIAN_PACKAGES=(build-essential debhelper dpkg-dev)

# install_missing PACKAGE…: apt-get is called only when something is missing, and sudo only when the
# caller is not root.
install_missing() {
  local package status missing=() sudo=()
  for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || true
    [ "$status" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  if ! command -v apt-get >/dev/null; then
    echo "${0##*/}: there is no apt-get here; on Debian 12 these packages would be installed: ${missing[*]}" >&2
    return 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "${0##*/}: packages are missing, and there is no sudo to install them with. As root, run:" >&2
      echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
      return 1
    fi
    sudo=(sudo)
  fi

  echo "Installing: ${missing[*]}"
  # A machine that has just booted may be running another apt: wait for it.
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  local output
  if ! output=$({ "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
      </dev/null 2>&1); then
    printf '%s\n' "$output" >&2
    echo "${0##*/}: apt-get failed, see above. Mend that (network? package sources?), and run this again." >&2
    return 1
  fi
}
