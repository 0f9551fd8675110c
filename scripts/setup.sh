#!/usr/bin/env bash
# Installs what the project needs: npm packages (Node itself is one of them) and, as root, Debian packages.
# Says what it does; does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(nftables iproute2 iputils-arping socat util-linux e2fsprogs
  nfs-ganesha nfs-ganesha-vfs rpcbind libnfs13 libnftables1
  qemu-utils qemu-block-extra qemu-system-common fuse3 libnbd-bin libiscsi-bin sg3-utils fio
  mosquitto mosquitto-clients stress-ng keepalived procps gcc libc6-dev binutils openssl spin)

if [ ! -x node_modules/.bin/vitest ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "setup: installing npm packages (Node 24 among them)"
  # Not `npm ci`: it insists on packages for foreign platforms in the lock file, which not every registry serves. The versions
  # are exact in package.json and in the lock file either way.
  npm install --no-save --no-audit --no-fund --loglevel=error
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
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
