#!/bin/busybox sh
# Stand-in for Anaconda's stage 1 (dracut): network by BOOTIF, kickstart, stage 2 by .treeinfo.
# An inst. argument that it does not carry out stops it.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mount -t tmpfs t /run
say() { echo "stage1 $(cut -d' ' -f1 /proc/uptime) $*"; }
die() {
  say "FAILED: $*"
  sleep 5
  reboot -f # rd.shell=0 rd.emergency=reboot
}
say "stand-in for Anaconda, stage 1"
# Anaconda has udev for this; in the order of the list, all of them.
for m in $(cat /modules); do
  modprobe "$m" 2>/dev/null
done
for word in $(cat /proc/cmdline); do
  case $word in
    inst.ks=*) ks=${word#*=} ;;
    inst.stage2=*) stage2=${word#*=} ;;
    inst.ks.sendmac) sendmac=1 ;;
    inst.nosave=all_ks | inst.cmdline | inst.nomemcheck | inst.syslog=*) ;; # stage 2 carries these out
    inst.*) die "boot argument $word is not carried out by this stand-in" ;;
    BOOTIF=*) bootif=$(echo "${word#BOOTIF=01-}" | tr - : | tr A-F a-f) ;;
  esac
done
[ -n "$ks" ] && [ -n "$stage2" ] || die "inst.ks and inst.stage2 are needed"
i=0
while [ -z "$dev" ] && [ $i -lt 100 ]; do
  for d in /sys/class/net/*; do
    [ "$(cat "$d/address")" = "$bootif" ] && dev=${d##*/}
  done
  [ -n "$dev" ] || usleep 100000
  i=$((i + 1))
done
[ -n "$dev" ] || die "no card has the address BOOTIF=$bootif"
ifconfig lo 127.0.0.1 up
ifconfig "$dev" up
udhcpc -i "$dev" -n -q -t 10 -T 3 -s /udhcpc.sh -V anaconda-Linux >/dev/null || die "no DHCP lease on $dev"
say "lease $(tr '\n' ' ' </run/net.env)"
if [ -n "$sendmac" ]; then
  wget -q -O /run/ks.cfg --header "X-RHN-Provisioning-MAC-0: $dev $bootif" "$ks" || die "kickstart $ks"
else
  wget -q -O /run/ks.cfg "$ks" || die "kickstart $ks"
fi
say "kickstart of $(wc -c </run/ks.cfg) bytes"
wget -q -O /run/treeinfo "$stage2/.treeinfo" || die "$stage2/.treeinfo"
image=$(sed -n 's/^mainimage *= *//p' /run/treeinfo | head -n 1)
sum=$(sed -n "s#^$image *= *sha256:##p" /run/treeinfo)
wget -q -O /run/install.img "$stage2/$image" || die "$stage2/$image"
[ "$(sha256sum /run/install.img | cut -d' ' -f1)" = "$sum" ] || die "checksum of $image"
say "stage 2 of $(wc -c </run/install.img) bytes, checksum is right"
mkdir -p /run/lower /run/upper
mount -o loop,ro -t squashfs /run/install.img /run/lower || die "squashfs"
mount -t tmpfs t /run/upper
mkdir -p /run/upper/u /run/upper/w
mount -t overlay o -o lowerdir=/run/lower,upperdir=/run/upper/u,workdir=/run/upper/w /sysroot || die "overlay"
mkdir -p /sysroot/run/install /sysroot/run/lock /sysroot/proc /sysroot/sys /sysroot/dev
cp /run/ks.cfg /run/net.env /run/treeinfo /sysroot/run/install/
# The stand-in installer comes in here and not in install.img: a change of it is packed in a second.
cp -r /installer /sysroot/usr/lib/installer
cp /etc/resolv.conf /sysroot/etc/resolv.conf 2>/dev/null
mount --move /proc /sysroot/proc
mount --move /sys /sysroot/sys
mount --move /dev /sysroot/dev
exec switch_root /sysroot /usr/bin/python3 -u /usr/lib/installer
