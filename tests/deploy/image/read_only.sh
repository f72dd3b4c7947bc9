#!/usr/bin/env bash
# Starts an image's `lowpass serve --fake` as its user on a root that is read-only, asks it, and stops it.
# In a mount namespace of its own: unshare -m bash read_only.sh ROOT-OF-THE-IMAGE MOUNT-POINT
set -euo pipefail
image=$1 root=$2
mkdir -p "$root"
mount --bind "$image" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/tmp"
mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
inside=(chroot --userspec=10001:10001 "$root" env -i PATH=/opt/lowpass/bin:/usr/bin:/bin HOME=/home/lowpass)

"${inside[@]}" sh -c '! touch /home/lowpass/x 2>/dev/null && ! touch /opt/lowpass/x 2>/dev/null' && echo "root read-only"
"${inside[@]}" python3 -c 'import importlib.util as u, os; print("uid", os.getuid(), "torch", u.find_spec("torch"))'
"${inside[@]}" lowpass serve --fake --address 127.0.0.1:0 --metrics-address 127.0.0.1:0 --drain-wait 0 \
    --ready-file /tmp/ready.json 2>"$root/tmp/serve.log" &
server=$!
trap 'kill -KILL $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do [ -e "$root/tmp/ready.json" ] && break; sleep 0.2; done
address=$("${inside[@]}" python3 -c 'import json; print(json.load(open("/tmp/ready.json"))["address"])')
"${inside[@]}" lowpass query --target "$address" --health
"${inside[@]}" lowpass query --target "$address" --user user-7 -k 2
kill -TERM "$server"
wait "$server" && echo "stopped with 0"
