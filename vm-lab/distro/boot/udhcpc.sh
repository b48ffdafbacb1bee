#!/bin/busybox sh
# udhcpc's script: takes the lease over, and leaves it where stage 2 finds it.
case $1 in
  bound | renew)
    ifconfig "$interface" "$ip" netmask "$subnet" up
    [ -n "$router" ] && route add default gw "${router%% *}" 2>/dev/null
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    printf 'DEV=%s\nIP=%s\nMAC=%s\n' "$interface" "$ip" "$(cat "/sys/class/net/$interface/address")" >/run/net.env
    ;;
esac
