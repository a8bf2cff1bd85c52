#!/bin/busybox sh
# The first process of the machine that vm.sh boots: makes its root, and goes on there with the command.
set -eu

busybox=/bin/busybox
$busybox --install -s /bin
export PATH=/bin

mkdir -p /proc /dev /root /below /above
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    insmod "$module"
done

# 9p's default is 8 KB a message, which makes starting a large program slow; what is read once can be
# kept, as nobody changes it meanwhile.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /below
mount -t tmpfs above /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /root
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts pts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t tmpfs run /root/run
mkdir /root/run/netns /root/run/vm
mount -t 9p -o rw,trans=virtio,version=9p2000.L,msize=512000 shared /root/run/vm
ip link set lo up

umount /proc /dev
exec switch_root /root /bin/sh /run/vm/run
