# How a clean Debian 12 is made (mmdebstrap) that reaches the network as this machine does. Sourced by
# fresh.sh and boot/run.
# shellcheck shell=bash

# This machine's package sources, when it is a Debian 12 itself; mmdebstrap's own default otherwise.
mapfile -t sources < <(grep -lsE '^[^#]*\bbookworm\b' /etc/apt/sources.list /etc/apt/sources.list.d/debian*.{list,sources})

# clean_root TAR [MMDEBSTRAP OPTION…]: makes it, unless it is there.
clean_root() {
  local tar=$1 conf scheme proxy
  shift
  [ ! -s "$tar" ] || return 0
  echo "== Making a clean Debian 12"
  # How this machine's apt reaches its sources: proxies, and whether dates are checked.
  conf=$(mktemp)
  apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]+|Retries)(::[^ ]*)? "[^"]+";' >"$conf" || true
  # A proxy that only the environment names would be lost to sudo and login shells.
  for scheme in http https; do
    proxy=${scheme}_proxy
    [ -z "${!proxy-}" ] || printf 'Acquire::%s::Proxy "%s";\n' "$scheme" "${!proxy}" >>"$conf"
  done
  mkdir -p "$(dirname "$tar")"
  mmdebstrap --quiet --variant=minbase --aptopt="$conf" "$@" bookworm "${tar%.tar}.new.tar" "${sources[@]}"
  mv "${tar%.tar}.new.tar" "$tar"
  rm "$conf"
}

# unpack_root TAR DIR: with this machine's way to the network, and the keys of its package sources.
unpack_root() {
  local key
  mkdir "$2"
  tar -C "$2" -xpf "$1"
  cp -L /etc/resolv.conf /etc/hosts "$2/etc/"
  while read -r key; do
    [ -e "$2$key" ] || install -D -m 644 "$key" "$2$key"
  done < <(grep -hsoE '/[^] ]+\.(gpg|asc)\b' "${sources[@]}" | sort -u)
}
