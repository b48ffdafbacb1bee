# Sourced by vm-lab/up and tests/run: Debian packages, without starting a single service.

# missing_packages FILE: what is listed there and not installed.
missing_packages() {
  local name
  grep -v '^#' "$1" | while read -r name; do
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || echo "$name"
  done
}

# install_packages FILE: installs what is listed there and missing.
install_packages() {
  local round missing
  # Twice: what was installed from elsewhere and does not go with the rest is removed in the first round.
  for round in 1 2; do
    missing=$(missing_packages "$1")
    [ -n "$missing" ] || return 0
    install_now $missing || return
  done
}

# install_now PACKAGE...
install_now() {
  if [ "$(id -u)" != 0 ]; then
    echo "missing packages, and only root installs them: $*" >&2
    return 2
  fi
  echo "installing packages: $*"
  local policy=/usr/sbin/policy-rc.d kept=
  if [ -e "$policy" ]; then kept=$(mktemp) && cp -p "$policy" "$kept"; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  local code=0
  {
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  } </dev/null >/tmp/rekindle-apt.log 2>&1 || code=$?
  if [ -n "$kept" ]; then mv "$kept" "$policy"; else rm -f "$policy"; fi
  if [ "$code" != 0 ]; then
    echo "apt-get could not install the packages; see /tmp/rekindle-apt.log:" >&2
    tail -n 3 /tmp/rekindle-apt.log >&2
    return 2
  fi
}
