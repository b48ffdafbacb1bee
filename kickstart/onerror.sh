tail -n 60 /tmp/anaconda.log /tmp/storage.log /tmp/packaging.log /tmp/rekindle-snippet.log /tmp/rekindle-pre.log /mnt/sysimage/var/log/rekindle-post.log /mnt/sysimage/var/log/rekindle-snippet.log 2>/dev/null | tail -c 20000 >/tmp/rekindle-failed
curl -fsS -m 20 --retry 5 -o /dev/null --data-binary @/tmp/rekindle-failed <<= node_url =>>/event/failed || :
