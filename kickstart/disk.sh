# The one disk that may be written: fixed, writable, not on USB, and as the owner's rule says.
# Prints its name, or why there is none (and fails).
SYS=${REKINDLE_SYS:-/sys/block}
WANT_SERIAL=<<= want_serial =>>
MIN_SECTORS=<<= min_sectors =>>

read_word() { local word=''; read -r word 2>/dev/null <"$1"; printf '%s' "$word"; }

serial_of() {
  local serial
  serial=$(read_word "$SYS/$1/serial")
  [ -n "$serial" ] || serial=$(read_word "$SYS/$1/device/serial")
  [ -n "$serial" ] || serial=$(lsblk -dno SERIAL "/dev/$1" 2>/dev/null)
  printf '%s' "$serial" | tr -d ' '
}

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
    if [ -n "$WANT_SERIAL" ]; then
      [ "$(serial_of "$n")" = "$WANT_SERIAL" ] || continue
    else
      [ "$size" -ge "$MIN_SECTORS" ] || continue
    fi
    if [ -z "$best" ] || [ "$size" -lt "$best" ]; then best=$size disk=$n; fi
  done
  if [ -n "$disk" ]; then echo "$disk"; return 0; fi
  if [ -n "$WANT_SERIAL" ]; then echo "no fixed disk has the serial $WANT_SERIAL; found:${seen:- none}"
  else echo "no fixed disk of $((MIN_SECTORS / 2097152)) GiB or more; found:${seen:- none}"; fi
  return 1
}
