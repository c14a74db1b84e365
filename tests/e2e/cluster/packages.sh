#!/usr/bin/env bash
# packages.sh [LIST...]: installs what these lists (or packages.txt) name and the machine lacks; says nothing when all is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ! command -v dpkg-query >/dev/null; then
    echo "packages.sh: not a Debian-like machine; install the equivalents of $here/packages.txt yourself" >&2
    exit 1
fi
missing=()
while read -r package; do
    [[ -z $package || $package == \#* ]] && continue
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
done < <(cat "${@:-$here/packages.txt}")
[[ ${#missing[@]} -eq 0 ]] && exit 0

echo "installing ${missing[*]}" >&2
log=$(mktemp)
if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "packages.sh: apt-get failed (as root?); the whole output is in $log" >&2
    exit 1
fi
rm -f "$log"
