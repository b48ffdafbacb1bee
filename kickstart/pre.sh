url=<<= node_url =>>
say() { curl -fsS -m 10 --retry 3 -o /dev/null --data-binary "$2" "$url/event/$1" || :; }
# Nothing was written yet: tell the master why, show it, and switch off. Never a prompt.
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
[ "$mem" -ge <<= memory_min_mib =>> ] || die "this computer has $mem MiB of memory, <<= os =>> needs <<= memory_min_mib =>>: put in more<<= memory_advice =>>"
# iPXE looked already, where it could.
flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
needed="<<= cpu_flags =>>"
for flag in $needed; do
  case $flags in
    *" $flag "*) ;;
    *) die "this CPU ($cpu) lacks $flag: <<= os =>> cannot run on it" ;;
  esac
done

<% include "disk.sh" %>
disk=$(choose_disk) || die "$disk"
serial=$(serial_of "$disk")
smart_of "$disk" || die "the disk $disk ($(model_of "$disk") $serial) says that it is failing (SMART): replace it, or allow use_failing"
if [ -n "$KNOWN_SERIAL" ] && [ -n "$serial" ] && [ "$serial" != "$KNOWN_SERIAL" ]; then
  die "this node was installed on the disk with serial $KNOWN_SERIAL, now it would be $disk with serial $serial; if that is right: rekindle node reinstall --new-disk <<= name =>>"
fi
label=$(blkid -p -o value -s PTTYPE "/dev/$disk" 2>/dev/null)
kept=$(kept_on "$disk")
if [ -n "$kept" ] && [ -d /sys/firmware/efi ] && [ "$label" != gpt ]; then
  die "UEFI needs a GPT on $disk, but a partition on its $label label is to be kept: save the data and take keep out"
fi
drive=$(bios_drive_of "$disk")
say disk "$disk, $(gib_of "$disk") GiB${drive:+, BIOS drive $drive}, $(model_of "$disk") serial ${serial:-none}${kept:+, keeps $kept}"

# What an earlier life left: stop what holds the disk. This writes to no disk.
command -v vgchange >/dev/null && vgchange -an >/dev/null 2>&1
command -v mdadm >/dev/null && mdadm --stop --scan >/dev/null 2>&1
command -v dmraid >/dev/null && dmraid -an >/dev/null 2>&1
clear_disk "$disk" "$kept"

# The firmware booted us from the network; post-firmware.sh puts that first again.
if [ -d /sys/firmware/efi ]; then
  efibootmgr | sed -n 's/^BootCurrent: //p' >/tmp/rekindle-bootcurrent
fi
partitions "$disk" "$kept" >/tmp/rekindle-disk.ks
