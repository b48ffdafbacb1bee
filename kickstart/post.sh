set -e
umask 022
base=<<= base =>>
url=<<= node_url =>>
curl -fsS -m 10 --retry 3 -o /dev/null --data-binary '' "$url/event/post" || :

<% if !internet %># S9: without a way to the internet the vendor's own repositories only cost time.
for repo in /etc/yum.repos.d/*.repo; do
  [ -e "$repo" ] && mv "$repo" "$repo.off"
done
<% endif %># Files of the cluster; `rekindle push` brings the same ones up to date later.
put() { mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"; }
<% for file in files %>put <<= file.path =>> <<= file.mode() =>> <<'REKINDLE'
<<= file.text|safe =>>REKINDLE
<% endfor %>chmod 700 /root/.ssh

# S7: only packages with a good signature.
<% for key in gpg_keys %>curl -fsS -m 30 --retry 5 -o /tmp/rekindle-key "$base/keys/<<= os =>>/<<= key =>>"
rpm --import /tmp/rekindle-key
<% endfor %>rm -f /tmp/rekindle-key
<% if repo_signed %># The key of the index is another matter: dnf keeps it by itself, and would ask for it once.
dnf=$(command -v dnf || command -v yum)
"$dnf" -q -y --disablerepo='*' --enablerepo=rekindle-cluster makecache || :
<% endif %>
# S10: the host key is made here and never leaves; the master signs its public half, and every
# node trusts the signature. Only ed25519: an RSA key takes an old machine minutes.
systemctl mask <<= keygen_units =>>
key=/etc/ssh/ssh_host_ed25519_key
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C "<<= fqdn =>>" -f "$key"
curl -fsS -m 30 --retry 5 --data-binary "@$key.pub" -o "$key-cert.pub" "$url/host-cert"
# Where ssh-keysign runs with a group's rights (EL7 to 9), that group reads the key.
for sign in /usr/libexec/openssh/ssh-keysign /usr/lib/openssh/ssh-keysign; do
  if [ -g "$sign" ]; then chgrp ssh_keys "$key" && chmod 640 "$key"; fi
done
<% if munge %>
# S13: everyone in the batch system shares one key.
mkdir -p /etc/munge
(umask 077 && curl -fsS -m 30 --retry 5 -o /etc/munge/munge.key "$url/secret/munge.key")
chown munge:munge /etc/munge/munge.key
chmod 400 /etc/munge/munge.key
<% endif %><% if torque %># One line a memory node of the board; the package knows one.
boards=
for board in /sys/devices/system/node/node[0-9]*; do
  [ -e "$board" ] && boards=$boards,${board##*/node}
done
boards=${boards#,}
echo "nodes=${boards:-0}" >/etc/torque/mom/mom.layout
<% endif %><% if home_over_nfs %># Users' files are on the master.
systemctl enable home.mount
<% endif %>
<% include "first-boot.sh" %>
command -v restorecon >/dev/null && restorecon -R /etc /root /home /usr/libexec/rekindle || :
