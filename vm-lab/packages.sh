# Sourced by vm-lab/up and tests/run: Debian packages, without starting a single service.

# install_packages FILE: installs what is listed there and missing.
install_packages() {
  local missing
  missing=$(grep -v '^#' "$1" | while read -r name; do
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || echo "$name"
  done)
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "missing packages, and only root installs them:" $missing >&2
    return 2
  fi
  echo "installing packages:" $missing
  local policy=/usr/sbin/policy-rc.d kept=
  if [ -e "$policy" ]; then kept=$(mktemp) && cp -p "$policy" "$kept"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  local code=0
  {
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
  } </dev/null >/tmp/rekindle-apt.log 2>&1 || code=$?
  if [ -n "$kept" ]; then mv "$kept" "$policy"; else rm -f "$policy"; fi
  if [ "$code" != 0 ]; then
    echo "apt-get could not install the packages; see /tmp/rekindle-apt.log:" >&2
    tail -n 3 /tmp/rekindle-apt.log >&2
    return 2
  fi
}
