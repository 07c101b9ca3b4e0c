#!/bin/bash
# in.sh STATE CMD…: runs CMD inside the system that boot.sh booted.
set -eu
pid=$(cat "$1/pid")
shift
exec nsenter --target "$pid" --mount --pid --net --ipc --uts --cgroup --root --wd -- \
	env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 "$@"
