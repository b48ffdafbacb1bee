set -e
umask 022
base=<<= base =>>
url=<<= node_url =>>
curl -fsS -m 10 --retry 3 -o /dev/null --data-binary '' "$url/event/post" || :

# Names of all nodes; every one of them gets the same file.
cat >/etc/hosts <<'REKINDLE'
<<= hosts|safe =>>REKINDLE

# S7: packages come from the master, and only with a good signature.
<% if !internet %>for repo in /etc/yum.repos.d/*.repo; do
  [ -e "$repo" ] && mv "$repo" "$repo.off"
done
<% endif %>cat >/etc/yum.repos.d/rekindle.repo <<'REKINDLE'
<<= repos|safe =>>REKINDLE
<% for key in gpg_keys %>curl -fsS -m 30 --retry 5 -o /tmp/rekindle-key "$base/keys/<<= os =>>/<<= key =>>"
rpm --import /tmp/rekindle-key
<% endfor %>rm -f /tmp/rekindle-key

# S6: everything from the cluster, nothing from elsewhere.
cat >/etc/sysconfig/nftables.conf <<'REKINDLE'
<<= firewall|safe =>>REKINDLE
chmod 600 /etc/sysconfig/nftables.conf

cat >/etc/chrony.conf <<'REKINDLE'
# The master's time; a clock that is years off is set at once.
server <<= master =>> iburst
makestep 1 -1
driftfile /var/lib/chrony/drift
rtcsync
REKINDLE

# Who may log in as root: those whom the owner named, and the master.
mkdir -p /root/.ssh
cat >/root/.ssh/authorized_keys <<'REKINDLE'
<% for key in root_keys %><<= key =>>
<% endfor %>REKINDLE
chmod 700 /root/.ssh
chmod 600 /root/.ssh/authorized_keys

# S10: the host key is made here and never leaves; the master signs its public half, and every
# node trusts the signature. Only ed25519: an RSA key takes an old machine minutes.
systemctl mask sshd-keygen@rsa.service sshd-keygen@ecdsa.service
key=/etc/ssh/ssh_host_ed25519_key
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C "<<= fqdn =>>" -f "$key"
curl -fsS -m 30 --retry 5 --data-binary "@$key.pub" -o "$key-cert.pub" "$url/host-cert"
# Where ssh-keysign runs with a group's rights (EL7 to 9), that group reads the key.
for sign in /usr/libexec/openssh/ssh-keysign /usr/lib/openssh/ssh-keysign; do
  if [ -g "$sign" ]; then chgrp ssh_keys "$key" && chmod 640 "$key"; fi
done
cat >/etc/ssh/ssh_known_hosts <<'REKINDLE'
<<= known_hosts|safe =>>REKINDLE
cat >/etc/ssh/shosts.equiv <<'REKINDLE'
<<= shosts|safe =>>REKINDLE
mkdir -p /etc/ssh/sshd_config.d /etc/ssh/ssh_config.d
cat >/etc/ssh/sshd_config.d/10-rekindle.conf <<'REKINDLE'
HostKey /etc/ssh/ssh_host_ed25519_key
HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub
# Ordinary users go from node to node without a question; sshd never does that for root.
HostbasedAuthentication yes
IgnoreRhosts yes
PermitRootLogin prohibit-password
PasswordAuthentication no
REKINDLE
cat >/etc/ssh/ssh_config.d/10-rekindle.conf <<'REKINDLE'
Host *
    HostbasedAuthentication yes
    EnableSSHKeysign yes
REKINDLE

# S12: MPI over the cluster's own wire.
mkdir -p /etc/rekindle /etc/openmpi-x86_64
cat >/etc/openmpi-x86_64/openmpi-mca-params.conf <<'REKINDLE'
btl_tcp_if_include = <<= subnet =>>
oob_tcp_if_include = <<= subnet =>>
REKINDLE
cat >/etc/profile.d/rekindle-mpi.sh <<'REKINDLE'
PATH=$PATH:/usr/lib64/openmpi/bin
export LD_LIBRARY_PATH=/usr/lib64/openmpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
REKINDLE
cat >/etc/rekindle/hostfile <<'REKINDLE'
<<= hostfile|safe =>>REKINDLE
cat >/etc/security/limits.d/90-rekindle.conf <<'REKINDLE'
* soft memlock unlimited
* hard memlock unlimited
REKINDLE
<% if torque %>
# S13: pbs_mom joins the master's server, by name: Torque takes no addresses there.
mkdir -p /etc/torque/mom /etc/munge
echo <<= master_name =>> >/etc/torque/server_name
cat >/etc/torque/mom/config <<'REKINDLE'
$pbsserver <<= master_name =>>
$logevent 255
REKINDLE
# One line a memory node of the board; the package knows one.
boards=
for board in /sys/devices/system/node/node[0-9]*; do
  [ -e "$board" ] && boards=$boards,${board##*/node}
done
boards=${boards#,}
echo "nodes=${boards:-0}" >/etc/torque/mom/mom.layout
(umask 077 && curl -fsS -m 30 --retry 5 -o /etc/munge/munge.key "$url/secret/munge.key")
chown munge:munge /etc/munge/munge.key
chmod 400 /etc/munge/munge.key
<% endif %>
<% include "first-boot.sh" %>
command -v restorecon >/dev/null && restorecon -R /etc /root /home /usr/libexec/rekindle || :
