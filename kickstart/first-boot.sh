# The installed system reports once, and wipes what the installer left behind: scripts and logs
# that show the token, which is worth nothing from then on.
(umask 077 && echo "$url" >/etc/rekindle/report-to)
mkdir -p /usr/libexec/rekindle
cat >/usr/libexec/rekindle/first-boot <<'REKINDLE'
#!/bin/bash
url=$(cat /etc/rekindle/report-to) || exit 0
token=${url##*/}
umask 077
# Overwritten before they go: a deleted file's blocks stay on the disk until something needs them.
for file in /tmp/ks-script-* /root/anaconda-ks.cfg /root/original-ks.cfg; do
  [ ! -e "$file" ] || shred -u -n 1 "$file" || rm -f "$file"
done
# As long as before and in the same place, for the same reason.
grep -rlF "$token" /var/log 2>/dev/null | while read -r log; do
  sed "s/$token/${token//?/x}/g" "$log" >"$log.wiped" && cat "$log.wiped" 1<>"$log"
  rm -f "$log.wiped"
done
cores=$(sort -u <(paste -d: <(grep '^physical id' /proc/cpuinfo) <(grep '^core id' /proc/cpuinfo)) | grep -c :)
[ "$cores" -gt 0 ] || cores=$(grep -c '^processor' /proc/cpuinfo)
while :; do
  code=$(curl -s -m 20 -o /dev/null -w '%{http_code}' --data-binary "kernel $(uname -r), $cores cores" "$url/event/first-boot")
  # 410: the master has moved on, nobody waits for this report.
  case $code in 200 | 410) break ;; esac
  sleep 10
done
systemctl disable rekindle-first-boot.service
shred -u -n 1 /etc/rekindle/report-to || rm -f /etc/rekindle/report-to
REKINDLE
chmod 755 /usr/libexec/rekindle/first-boot
cat >/etc/systemd/system/rekindle-first-boot.service <<'REKINDLE'
[Unit]
Description=Tell the master that this node is up
Wants=network-online.target
After=network-online.target sshd.service nftables.service iptables.service pbs_mom.service pbs.service slurmd.service
ConditionPathExists=/etc/rekindle/report-to

[Service]
ExecStart=/usr/libexec/rekindle/first-boot

[Install]
WantedBy=multi-user.target
REKINDLE
systemctl enable rekindle-first-boot.service
