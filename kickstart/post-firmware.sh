<% if network_first %># The installer put its new system first in the UEFI boot order. Network first again, or the
# master could never reinstall this machine; it sends installed nodes on to their disk.
net=$(cat /tmp/rekindle-bootcurrent 2>/dev/null)
if [ -n "$net" ]; then
  rest=$(efibootmgr | sed -n 's/^BootOrder: //p' | tr ',' '\n' | grep -vix "$net" | tr '\n' ',')
  rest=${rest%,}
  efibootmgr -q -o "$net${rest:+,$rest}" || :
fi
<% else %># The owner wants the disk first in the UEFI boot order, which is how the installer left it.
<% endif %>cp /tmp/rekindle-pre.log /mnt/sysimage/var/log/ 2>/dev/null || :
