#!/bin/bash
# stop.sh STATE: ends the system that boot.sh booted: everything in its control
# group. Its files go with its mounts.
set -u
group=$(cat "$1/group")
echo 1 > "$group/cgroup.kill"
for _ in $(seq 100); do
	find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
	[ -d "$group" ] || exit 0
	sleep 0.05
done
echo "stop.sh: $group is left" >&2
exit 1
