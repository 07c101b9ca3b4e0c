#!/bin/bash
# run.sh: breaks what can break under a log and a daemon (power, disks, memory,
# descriptors, files, signals) and checks each time what must hold. It needs
# root, an ext4 on a loop device, and a tmpfs; where it has not, it says so, and
# fails where CI is set.
set -euo pipefail
cd "$(dirname "$0")/../.."

not_run() {
	echo "NOT RUN: the faults: $1" >&2
	[ -z "${CI:-}" ] || exit 1
	exit 0
}
[ "$(id -u)" = 0 ] || not_run "they need root, to mount file systems"
command -v mkfs.ext4 >/dev/null || not_run "there is no mkfs.ext4"
[ -c /dev/loop-control ] || not_run "there are no loop devices"
[ -d /dev/shm ] || not_run "there is no /dev/shm for the disk's bytes"
probe=$(mktemp -d)
mount -t tmpfs tmpfs "$probe" 2>/dev/null || not_run "mounting is not allowed"
umount "$probe"
rmdir "$probe"

# Said here so that nobody believes it was done.
echo "NOT TRIED here: xfs and btrfs, dm-log-writes and dm-flakey, the caches of real drives. The long soak is make soak."
CGO_ENABLED=0 go test -tags faults -count 1 -timeout 10m -v -run "${1:-^TestFault}" ./auditstore ./cmd/hsagentd |
	grep -Ev --line-buffered '^ *(=== |--- PASS: TestFaultFiles/)'
