url=<<= node_url =>>
say() { curl -fsS -m 10 --retry 3 -o /dev/null --data-binary "$2" "$url/event/$1" || :; }
die() {
  say failed "$1"
  echo "rekindle: $1" >/dev/console
  sleep 20
  poweroff -f
  sleep 60
}

# A dead CMOS battery says 2005; certificates and munge want the day. The master's Date will do.
now=$(curl -sSI -m 10 --retry 3 <<= base =>>/ 2>/dev/null | tr -d '\r' | sed -n 's/^[Dd]ate: //p')
[ -z "$now" ] || date -u -s "$now" >/dev/null || :

mem=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
say pre "kernel $(cat /proc/sys/kernel/osrelease), $mem MiB of memory, $cpu"

<% include "disk.sh" %>
disk=$(choose_disk) || die "$disk"
say disk "$disk, $(($(cat "$SYS/$disk/size") / 2097152)) GiB, $(read_word "$SYS/$disk/device/model") $(serial_of "$disk")"

# What an earlier life left on this disk: stop what holds it, drop every signature, first and
# last 10 MiB (RAID of the firmware keeps its own at the end). No other disk is touched.
command -v vgchange >/dev/null && vgchange -an >/dev/null 2>&1
command -v mdadm >/dev/null && mdadm --stop --scan >/dev/null 2>&1
for part in /dev/"$disk"?*; do
  [ -b "$part" ] || continue
  # Only its own: on a machine with little memory the installer swaps to compressed memory.
  swapoff "$part" 2>/dev/null
  wipefs -a -f "$part" >/dev/null 2>&1
done
wipefs -a -f "/dev/$disk" >/dev/null
dd if=/dev/zero of="/dev/$disk" bs=1M count=10 conv=fsync 2>/dev/null
sectors=$(blockdev --getsz "/dev/$disk")
dd if=/dev/zero of="/dev/$disk" bs=512 seek=$((sectors - 20480)) count=20480 conv=fsync 2>/dev/null
blockdev --rereadpt "/dev/$disk" 2>/dev/null
udevadm settle 2>/dev/null

# The firmware booted us from the network; post-firmware.sh puts that first again.
if [ -d /sys/firmware/efi ]; then
  efibootmgr | sed -n 's/^BootCurrent: //p' >/tmp/rekindle-bootcurrent
fi

cat >/tmp/rekindle-disk.ks <<KS
ignoredisk --only-use=$disk
zerombr
clearpart --all --drives=$disk --initlabel
bootloader --location=mbr --boot-drive=$disk --timeout=3<<= append =>>
reqpart --add-boot
part swap --recommended
part / --fstype=xfs --size=3072 --grow
KS
