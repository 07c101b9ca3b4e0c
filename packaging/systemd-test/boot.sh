#!/bin/bash
# boot.sh STATE SHARE: boots a systemd of its own, as process 1 of new
# namespaces, on a throw-away overlay of this machine's root. SHARE appears
# inside as /share. Its process number and control group are left in STATE.
# Nothing outside changes: what is written goes to a tmpfs that ends with it.
set -eu
state=$(realpath -m "$1") share=$(realpath "$2")
mkdir -p "$state/root"
groups=/sys/fs/cgroup
[ -f $groups/cgroup.procs ] || groups=$groups/unified   # a host with both versions
group=$groups/hsagent-test-$$
mkdir "$group"
echo "$group" > "$state/group"

# What follows runs as process 1 of the namespaces and becomes systemd.
inside=$(cat <<'SCRIPT'
set -eu
top=$1/root share=$2
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
root=$top/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
mkdir -p "$root"/{proc,sys,dev,run,tmp,share}
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root"/dev/{pts,shm,mqueue}
node() { mknod -m 666 "$root/dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
ln -s /proc/self/fd "$root/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${n%%:*}" "$root/dev/${n#*:}"; done
ln -s pts/ptmx "$root/dev/ptmx"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
for d in dev/shm tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$d"; done
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount --bind "$share" "$root/share"

etc=$root/etc/systemd
mkdir -p "$etc/system" "$etc/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > "$etc/journald.conf.d/test.conf"
rm -f "$root/etc/fstab"; : > "$root/etc/fstab"
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
for unit in systemd-firstboot systemd-modules-load systemd-udevd systemd-networkd systemd-resolved systemd-timesyncd; do
	ln -sf /dev/null "$etc/system/$unit.service"
done
ip link set lo up
cd "$root"
mkdir -p .before
pivot_root . .before
umount -l /.before
cd /
# systemd leaves mounts private when it thinks that it is in a container, and
# credentials would then be empty directories.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=notice --show-status=no </dev/null
SCRIPT
)
(
	echo "$BASHPID" > "$group/cgroup.procs"
	exec setsid unshare --mount --propagation private --pid --fork --cgroup --ipc --uts --net -- \
		bash -c "$inside" bash "$state" "$share"
) > "$state/console.log" 2>&1 &
outer=$!

pid=
for _ in $(seq 200); do
	pid=$(tr -d ' ' < "/proc/$outer/task/$outer/children" 2>/dev/null) || pid=
	[ -n "$pid" ] && echo "$pid" > "$state/pid"
	[ -n "$pid" ] && [ -S "/proc/$pid/root/run/dbus/system_bus_socket" ] && grep -qx systemd "/proc/$pid/comm" && exit 0
	sleep 0.05
done
echo "boot.sh: no systemd after 10 s:" >&2
cat "$state/console.log" >&2
exit 1
