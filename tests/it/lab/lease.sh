#!/bin/sh
# What udhcpc and dhclient call: says what the client got, and takes the address.
# A file of the repository: one that a test had just written could not be run for a moment, while
# another test's child still had it open ("text file busy").
#
# The clients hand over what they got in the environment.
# shellcheck disable=SC2154
case ${reason:-$1} in
  bound | renew) ;;
  BOUND | RENEW | REBOOT)
    ip=$new_ip_address router=$new_routers dns=$new_domain_name_servers
    domain=$new_domain_name hostname=$new_host_name lease=$new_dhcp_lease_time
    ;;
  *) exit 0 ;;
esac
ip addr replace "$ip/24" dev eth0
echo "GOT ip=$ip router=$router dns=$dns domain=$domain host=$hostname lease=$lease"
