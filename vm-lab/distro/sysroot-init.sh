#!/bin/busybox sh
# The installed system's initramfs: finds its root by UUID.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
for m in virtio_pci virtio_blk virtio_scsi ahci ata_piix sd_mod nvme crc32c_generic crc32c_intel ext4 xfs vfat nls_cp437 nls_ascii nls_iso8859_1; do
  modprobe $m 2>/dev/null
done
for word in $(cat /proc/cmdline); do
  case $word in root=*) root=${word#root=} ;; esac
done
i=0
while [ $i -lt 100 ]; do
  dev=$(findfs "$root" 2>/dev/null)
  [ -n "$dev" ] && break
  usleep 100000
  i=$((i + 1))
done
if ! mount -o ro "$dev" /newroot; then
  echo "no root file system $root"
  cat /proc/partitions
  sleep 5
  reboot -f
fi
mount --move /proc /newroot/proc
mount --move /sys /newroot/sys
mount --move /dev /newroot/dev
exec switch_root /newroot /lib/systemd/systemd
