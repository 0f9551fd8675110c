#!/usr/bin/env bash
# Sets the SMB password of a user: `smb-password.sh VIRTUAL_SERVER USER`, as root, on the controller that serves it. It is asked for, or read from
# standard input, twice. The user has to be in the configuration; the password is written to the volume and moves with it.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: $0 VIRTUAL_SERVER USER" >&2
  exit 2
fi
# Whichever smbd of that virtual server: a spare has the same accounts and the same volume.
for process in $(pgrep -x smbd); do
  mapfile -d '' words 2>/dev/null <"/proc/$process/cmdline" || continue
  conf=${words[-1]:-}
  [[ $conf == */samba-"$1".*/smb.conf ]] || continue
  ask=()
  [ -t 0 ] || ask=(-s)
  folder=$(sed -n 's/^ *passdb backend = smbpasswd:\(.*\)\/[^/]*$/\1/p' "$conf")
  nsenter --mount --target "$process" test -d "$folder" || continue
  nsenter --mount --target "$process" smbpasswd -c "$conf" "${ask[@]}" -a "$2"
  # Whoever was told that it is set may log in after a takeover, too.
  nsenter --mount --target "$process" sync -f "$folder"
  exit 0
done
echo "$0: $1 is not served by SMB here" >&2
exit 1
