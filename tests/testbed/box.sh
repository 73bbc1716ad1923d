#!/bin/sh
# Runs once in the namespaces of a new box:  box.sh FOLDER LAYERS HOME_INODES HOST...
# Mounts the box's file systems below FOLDER, and connects its hosts by a switch. The kernel
# removes all of it with the namespaces.
set -eu
folder=$1 layers=$2 inodes=$3
shift 3

mount -t tmpfs -o mode=755,size=4g box "$folder/inside"
cd "$folder/inside"
mkdir upper work root net proc
mount --bind /proc proc # the machine's, whose process ids are known outside
mount -t proc proc /proc
mount -t overlay -o "lowerdir=$layers,upperdir=upper,workdir=work" box root

# Users' files are on file systems of their own, which can be full.
mkdir skeleton
cp -a root/home/. skeleton
mount -t tmpfs -o mode=755,size=1g home root/home
cp -a skeleton/. root/home
if [ "$inodes" != 0 ]; then
    for home in root/home/*; do
        mount -t tmpfs -o "mode=755,size=256m,nr_inodes=$inodes" home "$home"
        cp -a "skeleton/${home##*/}/." "$home"
        chown --reference="skeleton/${home##*/}" "$home"
    done
fi
mount -t tmpfs -o mode=1777,size=4g scratch root/scratch

ip link set lo up
ip link add switch type bridge forward_delay 0
ip link set switch up
for host in "$@"; do
    touch "net/$host"
    unshare --net="net/$host" true
    ip link add "$host" type veth peer name eth0 netns "$PWD/net/$host"
    ip link set "$host" master switch up
done
