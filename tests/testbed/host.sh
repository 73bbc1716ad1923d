#!/bin/sh
# Makes a host of the namespaces that it was started in (network, mount, UTS, IPC, PID), and
# becomes its first process:  host.sh ROOT NAME ADDRESS DEVICES COMMAND...
# The root file system is shared with the other hosts, and so is what is mounted below it; /tmp,
# /run, /dev, /proc and /sys are the host's own. DEVICES is the number of its "GPUs".
# Prints its process id as the machine counts, then "ready" once all is in place.
set -eu
root=$1 name=$2 address=$3 devices=$4
shift 4

read -r pid rest <"${MACHINE_PROC:-/proc}/self/stat"
echo "$pid"

hostname "$name"
mount --rbind "$root" "$root" # pivot_root wants a mount of its own (Apptainer wants pivot_root)
cd "$root"

mount -t proc proc proc
mount -t tmpfs -o mode=1777,size=1g tmp tmp
mount -t tmpfs -o mode=755,size=64m run run
mkdir run/box run/lock run/munge run/mariadbd run/slurm run/slurmrestd run/sshd run/sysfs run/machine
ln -s mariadbd run/mysqld # the one or the other is where Debian's MariaDB has its socket
chmod 1777 run/lock

mount -t tmpfs -o mode=755,size=1m dev dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/fuse c 10 229
i=0
while [ "$i" -lt "$devices" ]; do # Slurm hands out files: these stand for the GPUs
    mknod -m 666 "dev/nvidia$i" c 1 3
    i=$((i + 1))
done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,size=1g shm dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

# A /sys to which counters can be added: the kernel's own folders lie in a tmpfs, and the
# classes are links, next to which there is room for more.
mount -t tmpfs -o mode=755,size=8m sys sys
mount -t sysfs -o ro sysfs run/sysfs
for folder in devices fs bus kernel module block dev; do
    mkdir "sys/$folder"
    mount --bind "run/sysfs/$folder" "sys/$folder"
done
mkdir sys/class sys/.class
mount --bind run/sysfs/class sys/.class
(cd sys/class && ln -s ../.class/* . && rm -f powercap)
umount run/sysfs
if [ -n "${MEMORY_CGROUP:-}" ]; then # this host's own part of them, in a namespace
    mount -t tmpfs -o mode=755,size=1m cgroup sys/fs/cgroup
    mkdir sys/fs/cgroup/memory
    mount -t cgroup -o memory memory sys/fs/cgroup/memory
fi

link=lo # a host without network: no name is found where there is only 127.0.0.1
if [ -e sys/class/net/eth0 ]; then link=eth0; fi
ip link set lo up
ip address replace "$address" dev "$link"
ip link set "$link" up

pivot_root . run/machine
cd /
umount -l run/machine
rmdir run/machine run/sysfs
echo ready
exec "$@" </dev/null >/dev/null 2>&1
