#!/bin/bash
# run.sh [DIR]: boots a real systemd, installs hsagentd in it from DIR (default
# bin/ of this repository) with the units as packaged, and makes a call through
# the socket. It needs root and control groups of version 2; where it has not,
# it says so, and fails where CI is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
bin=$(realpath "${1:-$repo/bin}")

not_run() {
	echo "NOT RUN: the systemd test: $1" >&2
	[ -z "${CI:-}" ] || exit 1
	exit 0
}
[ "$(id -u)" = 0 ] || not_run "it needs root"
[ -x /lib/systemd/systemd ] || not_run "there is no systemd to boot"
unshare --mount --pid --fork --cgroup --ipc --uts --net true 2>/dev/null || not_run "namespaces are not allowed"
probe=/sys/fs/cgroup; [ -f $probe/cgroup.procs ] || probe=$probe/unified
if ! mkdir "$probe/hsagent-probe-$$" 2>/dev/null; then not_run "control groups (version 2) cannot be made"; fi
rmdir "$probe/hsagent-probe-$$"

state=$(mktemp -d /tmp/hsagent-systemd-XXXX)
share=$state/share
mkdir -p "$share"
end() {
	code=$?
	if [ $code != 0 ]; then
		echo "FAILED. What the journal has of it:" >&2
		"$here/in.sh" "$state" journalctl --no-pager -o cat -u hsagentd.service -u hsagentd.socket >&2 || true
		tail -n 20 "$state/console.log" >&2 || true
	fi
	"$here/stop.sh" "$state" || code=1
	rm -rf "$state"
	exit $code
}
trap end EXIT
cp "$bin/hsagentd" "$bin/hsctl" "$share/"
cp -r "$repo/packaging/systemd" "$repo/packaging/sysusers.d" "$repo/packaging/tmpfiles.d" "$share/"
(cd "$repo" && CGO_ENABLED=0 go build -o "$share/hub" ./packaging/systemd-test/hub)
chmod -R go+rX "$state"
"$here/boot.sh" "$state" "$share"
"$here/in.sh" "$state" /bin/bash -s < "$here/checks.sh"
