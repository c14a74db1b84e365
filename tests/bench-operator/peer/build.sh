#!/usr/bin/env bash
# build.sh: builds the Go operator of the bench into the cache and prints its path. Nothing is said when it is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
cd "$here"

command -v go >/dev/null || { echo "build.sh: no go in PATH; install Go $(awk '$1 == "go" {print $2}' go.mod) or later" >&2; exit 1; }
export CGO_ENABLED=0 GOFLAGS= GOWORK=off
key=$({ go env GOVERSION GOARCH; cat go.mod go.sum main.go; } | sha256sum | cut -c 1-16)
target=$cache/bench-operator-peer-$key

if [[ ! -x $target ]]; then
    mkdir -p "$cache"
    # One build at a time; whoever waited finds the work done. The lock goes with the process, however that ends.
    exec 9>"$cache/bench-operator-peer.lock"
    flock 9
    if [[ ! -x $target ]]; then
        echo "building the Go operator of the bench" >&2
        go build -buildvcs=false -o "$target.new" .
        mv "$target.new" "$target"
    fi
    # Programs of older sources that nobody asked for in a week.
    find "$cache" -maxdepth 1 -type f -name 'bench-operator-peer-*' -mtime +7 -delete
fi
touch "$target"
echo "$target"
