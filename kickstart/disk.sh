# The one disk that may be written: fixed, writable, not on USB, and as the owner's rule says; of
# several the smallest. Everything here but clear_disk only looks.
SYS=${REKINDLE_SYS:-/sys/block}
DEV=${REKINDLE_DEV:-/dev}
EDD=${REKINDLE_EDD:-/sys/firmware/edd}
WANT_SERIAL=<<= disk.serial =>>
WANT_WWN=<<= disk.wwn =>>
WANT_MODEL=<<= disk.model =>>
WANT_PATH=<<= disk.path =>>
MIN_SECTORS=<<= disk.min_sectors =>>
MAX_SECTORS=<<= disk.max_sectors =>>
KEEP="<<= disk.keep =>>"
APPEND='<<= append =>>'
KNOWN_SERIAL=<<= disk.known_serial =>>

read_word() { local word=''; read -r word 2>/dev/null <"$1"; printf '%s' "$word"; }
gib_of() { echo $(($(read_word "$SYS/$1/size") / 2097152)); }
model_of() { local model; model=$(read_word "$SYS/$1/device/model"); printf '%s' "${model:-unknown}"; }

serial_of() {
  local serial
  serial=$(read_word "$SYS/$1/serial")
  [ -n "$serial" ] || serial=$(read_word "$SYS/$1/device/serial")
  [ -n "$serial" ] || serial=$(lsblk -dno SERIAL "$DEV/$1" 2>/dev/null)
  printf '%s' "$serial" | tr -d ' '
}

wwn_of() {
  local wwn
  wwn=$(read_word "$SYS/$1/wwid")
  [ -n "$wwn" ] || wwn=$(read_word "$SYS/$1/device/wwid")
  [ -n "$wwn" ] || wwn=$(lsblk -dno WWN "$DEV/$1" 2>/dev/null)
  bare_wwn "$wwn"
}

# naa.5000c500a1b2c3d4 and 0x5000c500a1b2c3d4 are one name.
bare_wwn() { local wwn=${1,,}; wwn=${wwn#naa.}; wwn=${wwn#eui.}; printf '%s' "${wwn#0x}" | tr -d ' '; }

# The signature in a boot sector; the kernel knows none (or zero) of a disk without a boot sector.
signature_of() {
  local words
  words=$(dd if="$DEV/$1" bs=2 skip=220 count=36 2>/dev/null | od -An -v -tx2 | tr -d ' \n')
  case $words in 00000000*) ;; *aa55) printf '0x%s%s' "${words:4:4}" "${words:0:4}" ;; esac
}

# The number that the BIOS knows the disk by, as it was when the kernel started: by size and signature.
# Nothing when that fits two. Without it the first one would be booted.
bios_drive_of() {
  local drive size signature known found=''
  modprobe -q edd 2>/dev/null
  size=$(read_word "$SYS/$1/size")
  signature=$(signature_of "$1")
  for drive in "$EDD"/int13_dev*; do
    [ "$(read_word "$drive/sectors")" = "$size" ] || continue
    known=$(read_word "$drive/mbr_signature")
    [ "${known#0x00000000}" = "$signature" ] && found="$found 0x${drive##*_dev}"
  done
  case ${found# } in *' '*) ;; *) printf '%s' "${found# }" ;; esac
}

# smartctl's exit status has bit 3 set when the disk says that it is failing.
smart_of() {
  <% if disk.use_failing %>return 0
  <% endif %>command -v smartctl >/dev/null || return 0
  smartctl -H "$DEV/$1" >/dev/null 2>&1
  [ $(($? & 8)) = 0 ]
}

fits() {
  local model
  [ -z "$WANT_SERIAL" ] || [ "$(serial_of "$1")" = "$WANT_SERIAL" ] || return 1
  [ -z "$WANT_WWN" ] || [ "$(wwn_of "$1")" = "$(bare_wwn "$WANT_WWN")" ] || return 1
  [ -z "$WANT_PATH" ] || [ "$(readlink -f "$WANT_PATH")" = "$DEV/$1" ] || return 1
  if [ -n "$WANT_MODEL" ]; then
    model=$(model_of "$1")
    case ${model,,} in *"${WANT_MODEL,,}"*) ;; *) return 1 ;; esac
  fi
  [ "$2" -ge "$MIN_SECTORS" ] && { [ "$MAX_SECTORS" = 0 ] || [ "$2" -le "$MAX_SECTORS" ]; }
}

# Prints the disk's name, or why there is none (and fails).
choose_disk() {
  local d n size best='' disk='' seen=''
  for d in "$SYS"/*; do
    n=${d##*/}
    case $n in
      mmcblk*boot* | mmcblk*rpmb* | nvme*c*) continue ;;
      sd* | hd* | vd* | xvd* | nvme*n*) ;;
      # Soldered on, or a card in a reader, which the kernel calls fixed too.
      mmcblk*) [ "$(read_word "$d/device/type")" = MMC ] || continue ;;
      *) continue ;;
    esac
    size=$(read_word "$d/size")
    [ "${size:-0}" -gt 0 ] || continue
    seen="$seen $n=$((size / 2097152))GiB"
    [ "$(read_word "$d/ro")" = 0 ] && [ "$(read_word "$d/removable")" = 0 ] || continue
    case $(readlink -f "$d") in */usb*) continue ;; esac
    fits "$n" "$size" || continue
    if [ -z "$best" ] || [ "$size" -lt "$best" ]; then best=$size disk=$n; fi
  done
  if [ -n "$disk" ]; then echo "$disk"; return 0; fi
  echo "no fixed disk is as cluster.toml wants it (<<= disk.told =>>); found:${seen:- none}"
  return 1
}

partitions_of() {
  local p
  for p in "$SYS/$1/$1"*; do [ -e "$p/partition" ] && echo "${p##*/}"; done
}

# The partitions that survive, as `/data=sda4 …`: known by the label of their file system.
kept_on() {
  local mount part found=''
  for mount in $KEEP; do
    for part in $(partitions_of "$1"); do
      if [ "$(blkid -p -o value -s LABEL "$DEV/$part" 2>/dev/null)" = "rk-${mount#/}" ]; then
        found="$found $mount=$part"
      fi
    done
  done
  printf '%s' "${found# }"
}

is_kept() { case " $2 " in *"=$1 "*) return 0 ;; *) return 1 ;; esac; }

# Drops every signature on this disk, first and last 10 MiB included: RAID of the firmware keeps its
# own at the end. With something to keep, only what is on the other partitions.
clear_disk() {
  local part sectors
  for part in $(partitions_of "$1"); do
    is_kept "$part" "$2" && continue
    # Only its own: on a machine with little memory the installer swaps to compressed memory.
    swapoff "$DEV/$part" 2>/dev/null
    wipefs -a -f "$DEV/$part" >/dev/null 2>&1
  done
  [ -z "$2" ] || return 0
  wipefs -a -f "$DEV/$1" >/dev/null
  dd if=/dev/zero of="$DEV/$1" bs=1M count=10 conv=fsync 2>/dev/null
  sectors=$(blockdev --getsz "$DEV/$1")
  dd if=/dev/zero of="$DEV/$1" bs=512 seek=$((sectors - 20480)) count=20480 conv=fsync 2>/dev/null
  blockdev --rereadpt "$DEV/$1" 2>/dev/null
  udevadm settle 2>/dev/null
}

# The kickstart's commands for this disk: one text for BIOS, GPT and UEFI (reqpart).
partitions() {
  local part mount device old=''
  echo "ignoredisk --only-use=$1"
  echo zerombr
  if [ -n "$2" ]; then
    for part in $(partitions_of "$1"); do is_kept "$part" "$2" || old="$old,$part"; done
    if [ -n "$old" ]; then echo "clearpart --drives=$1 --list=${old#,}"; else echo "clearpart --none"; fi
  elif [ -n "$KEEP" ]; then
    # GPT: a partition that stays must not end up inside an extended one that goes.
    echo "clearpart --all --drives=$1 --initlabel --disklabel=gpt"
  else
    echo "clearpart --all --drives=$1 --initlabel"
  fi
  echo "bootloader --location=mbr --boot-drive=$1 --timeout=3$APPEND"
  echo "reqpart --add-boot"
  if [ -z "$KEEP" ]; then
    echo "part swap --recommended"
    echo "part / --fstype=xfs --size=3072 --grow"
    return 0
  fi
  # Fixed sizes: what is made anew must fit between what stays.
  echo "part swap --fstype=swap --size=2048"
  echo "part / --fstype=xfs --size=<<= disk.root_mib =>>"
  for mount in $KEEP; do
    device=
    for part in $2; do
      case $part in "$mount="*) device=${part#*=} ;; esac
    done
    if [ -n "$device" ]; then
      echo "part $mount --onpart=$device --noformat"
    else
      echo "part $mount --fstype=xfs --size=512 --grow --label=rk-${mount#/}"
    fi
  done
}
