#!/bin/bash
# run.sh: breaks what can break under a log and a daemon (power, disks, memory,
# descriptors, files, signals) and checks each time what must hold. It needs
# root; an ext4 on a loop device and a tmpfs for some. What the machine cannot do
# is left out and said, before and after.
set -euo pipefail
cd "$(dirname "$0")/../.."

said="NOT TRIED here: xfs and btrfs, dm-log-writes and dm-flakey, the caches of real drives. The long soak is make soak."
skip=
lacks() { # WHY TEST…
	local why=$1
	shift
	said+=$'\n'"NOT RUN: $*: $why"
	for test; do skip+="|$test"; done
}

if [ "$(id -u)" != 0 ]; then
	echo "NOT RUN: the faults: they need root, to mount file systems and to see the daemon's descriptors" >&2
	exit 0
fi
probe=$(mktemp -d)
if mount -t tmpfs tmpfs "$probe" 2>/dev/null; then
	umount "$probe"
	if ! command -v mkfs.ext4 >/dev/null; then
		lacks "there is no mkfs.ext4: install e2fsprogs" TestFaultPowerCut TestFaultFullExt4 TestFaultHungDisk TestFaultReadOnlyRemount
	elif ! [ -c /dev/loop-control ] || ! (: </dev/loop-control) 2>/dev/null; then
		lacks "there is no loop device" TestFaultPowerCut TestFaultFullExt4 TestFaultHungDisk TestFaultReadOnlyRemount
	elif ! [ -d /dev/shm ]; then
		lacks "there is no /dev/shm for the disk's bytes" TestFaultPowerCut TestFaultFullExt4 TestFaultHungDisk TestFaultReadOnlyRemount
	fi
else
	lacks "mounting is not allowed" TestFaultPowerCut TestFaultFullDisk TestFaultFullExt4 TestFaultHungDisk TestFaultReadOnlyRemount TestFaultInodes TestFaultMountedStore
fi
rmdir "$probe"
groups=/sys/fs/cgroup/memory
! grep -qsw memory /sys/fs/cgroup/cgroup.controllers || groups=/sys/fs/cgroup
if ! { mkdir $groups/hsagent-probe-$$ && rmdir $groups/hsagent-probe-$$; } 2>/dev/null; then
	lacks "there is no memory controller to make a control group with" TestFaultMemoryLimit
fi
unshare --mount --pid --fork true 2>/dev/null && [ -e /proc/sys/kernel/ns_last_pid ] ||
	lacks "process namespaces are not allowed, or numbers cannot be chosen in them" TestFaultReusedPIDs
command -v prlimit >/dev/null || lacks "there is no prlimit: install util-linux" TestFaultDescriptors

echo "$said" >&2
CGO_ENABLED=0 go test -tags faults -count 1 -timeout 15m -v -run "${1:-^TestFault}" -skip "^(-$skip)\$" ./auditstore ./agent/peer ./cmd/hsagentd |
	grep -Ev --line-buffered '^ *(=== |--- PASS: TestFaultFiles/)'
echo "$said" >&2
