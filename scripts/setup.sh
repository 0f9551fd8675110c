#!/usr/bin/env bash
# Installs what the project needs: npm packages (Node itself is one of them) and, as root, Debian packages.
# Says what it does; does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(nftables iproute2 iputils-arping socat util-linux e2fsprogs
  nfs-ganesha nfs-ganesha-vfs rpcbind libnfs13 samba smbclient libnftables1
  qemu-utils qemu-block-extra qemu-system-common fuse3 libnbd-bin libiscsi-bin sg3-utils fio
  mosquitto mosquitto-clients etcd-server stress-ng keepalived procps gcc libc6-dev binutils openssl spin)

# A registry that is out of reach for a moment, or a mirror in the middle of its own update, is no reason to give up.
pause_seconds=15
twice() {
  if "$@"; then return 0; fi
  echo "setup: ${1//_/ } failed; once more in $pause_seconds s" >&2
  sleep "$pause_seconds"
  "$@"
}

npm_packages() {
  # Not `npm ci`: it insists on packages for foreign platforms in the lock file, which not every registry serves. The versions
  # are exact in package.json and in the lock file either way.
  npm install --no-save --no-audit --no-fund --loglevel=error
}

debian_packages() {
  # With its lists each time: what they name may be gone by now. Whoever else installs something is waited for.
  apt-get update -qq -o Acquire::Retries=3 &&
    apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

if [ ! -x node_modules/.bin/vitest ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "setup: installing npm packages (Node 24 among them)"
  twice npm_packages
  touch node_modules/.package-lock.json
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: not root, so these Debian packages stay missing: ${missing[*]}" >&2
  exit 0
fi
echo "setup: installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A service that apt starts would hold ports and files that the bench gives to its own instances.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
twice debian_packages "${missing[@]}"

# Nor shall Debian's own etcd come with the next boot: the tests run theirs.
if [[ " ${missing[*]} " == *" etcd-server "* ]]; then update-rc.d etcd disable >/dev/null 2>&1 || true; fi

# Debian's own Samba shall not come with the next boot either. One that was here before belongs to somebody.
if [[ " ${missing[*]} " == *" samba "* ]]; then
  for daemon in smbd nmbd samba-ad-dc; do
    # Of systemd, too.
    update-rc.d "$daemon" disable >/dev/null 2>&1 || true
  done
  if listeners=$(ss -Hltn 'sport = :445 or sport = :139') && [ -n "$listeners" ]; then
    echo "setup: something listens at the ports of SMB: $listeners" >&2
    exit 1
  fi
fi
