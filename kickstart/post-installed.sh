# The last word: from now on this machine boots its own disk. Reached only when all of the above
# succeeded. Tried hard, since without it the next boot would install again.
sync
tries=0
until curl -fsS -m 20 -o /dev/null --data-binary '' <<= node_url =>>/event/installed; do
  tries=$((tries + 1))
  [ "$tries" -lt 60 ] || break
  sleep 5
done
