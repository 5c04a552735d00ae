#!/bin/busybox sh
# The first process of a machine. The console is for the kernel; everything
# else leaves over the second serial port, where lines of init itself begin
# with a mark.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp SHELL=/bin/sh
# For tests: this machine is thrown away.
export WHYDROP_MACHINE=1
/bin/busybox mkdir -p /sbin /usr/sbin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts -o gid=0,mode=620,ptmxmode=666 devpts /dev/pts
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1

say() { printf '\n@@ vmtest %s\n' "$*"; }

# job NUMBER PROCESSORS DIRECTORY COMMAND…: all but the first processor are on (1)
# or off (0).
job() {
	number=$1 on=$2 dir=$3
	shift 3
	say begin "$number"
	for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do
		[ "$(cat "$cpu")" = "$on" ] || echo "$on" >"$cpu"
	done
	(cd "$dir" && exec "$@")
	say end "$number" "$?"
}

say up "$(uname -r)"
# The kernel loads what it needs as on any host; only /dev/net/tun, what is
# looked for among loaded modules, and the legacy iptables, which a program has
# to load before it asks for them, must be there before they are used.
echo /bin/modprobe >/proc/sys/kernel/modprobe || say error "no modprobe for the kernel"
for module in tun drop_monitor iptable_filter; do
	modprobe "$module" || say error "modprobe $module"
done
ip link set lo up || say error "no loopback"
. /jobs
say off
sleep 0.2
poweroff -f
