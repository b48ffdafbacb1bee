# The installed system reports once, and wipes what the installer left behind: scripts and logs
# that show the token, which is worth nothing from then on.
(umask 077 && echo "$url" >/etc/rekindle/report-to)
mkdir -p /usr/libexec/rekindle
cat >/usr/libexec/rekindle/first-boot <<'REKINDLE'
#!/bin/bash
url=$(cat /etc/rekindle/report-to) || exit 0
token=${url##*/}
rm -f /tmp/ks-script-* /root/anaconda-ks.cfg /root/original-ks.cfg
grep -rlF "$token" /var/log 2>/dev/null | while read -r log; do
  sed -i "s/$token/TOKEN/g" "$log"
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
rm -f /etc/rekindle/report-to
REKINDLE
chmod 755 /usr/libexec/rekindle/first-boot
cat >/etc/systemd/system/rekindle-first-boot.service <<'REKINDLE'
[Unit]
Description=Tell the master that this node is up
Wants=network-online.target
After=network-online.target sshd.service nftables.service pbs_mom.service
ConditionPathExists=/etc/rekindle/report-to

[Service]
ExecStart=/usr/libexec/rekindle/first-boot

[Install]
WantedBy=multi-user.target
REKINDLE
systemctl enable rekindle-first-boot.service
