#!/bin/busybox sh
# A workshop for disks: the installer's environment, without an installation. Runs /script.sh, says how
# it ended, and switches off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mount -t tmpfs t /run
for m in $(cat /modules); do
  modprobe "$m" 2>/dev/null
done
mkdir -p /run/lower /run/upper
i=0
while [ ! -b /dev/disk-of-tools ] && [ $i -lt 100 ]; do
  for d in /sys/block/vd*; do
    [ "$(cat "$d/serial")" = TOOLS ] && ln -s "/dev/${d##*/}" /dev/disk-of-tools
  done
  usleep 100000
  i=$((i + 1))
done
mount -o ro -t squashfs /dev/disk-of-tools /run/lower
mount -t tmpfs t /run/upper
mkdir -p /run/upper/u /run/upper/w
mount -t overlay o -o lowerdir=/run/lower,upperdir=/run/upper/u,workdir=/run/upper/w /sysroot
mkdir -p /sysroot/run /sysroot/proc /sysroot/sys /sysroot/dev
cp /script.sh /sysroot/script.sh
mount --bind /proc /sysroot/proc
mount --bind /sys /sysroot/sys
mount --bind /dev /sysroot/dev
mount -t tmpfs t /sysroot/run
mount -t tmpfs t /sysroot/tmp
mkdir -p /sysroot/run/lock
PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /sysroot /bin/bash -e /script.sh
echo "WORKSHOP-ENDED-WITH $?"
sync
poweroff -f
