#!/usr/bin/env bash
# build.sh: builds CometBFT, its own load tools and ours into a cache and prints the folder that holds them. Nothing is said when
# everything is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
cd "$here"

command -v go >/dev/null || { echo "build.sh: no go in PATH; install Go $(awk '$1 == "go" {print $2}' go.mod) or later" >&2; exit 1; }
export CGO_ENABLED=0 GOFLAGS= GOWORK=off

# Everything the programs are made from: versions and our own sources.
key=$({
    go env GOVERSION GOARCH
    cat go.mod go.sum
    find cmd internal -type f ! -name '*_test.go' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -c 1-16)
target=$cache/peer-$key

if [[ ! -d $target ]]; then
    mkdir -p "$cache"
    # One build at a time; whoever waited finds the work done. The lock goes with the process, however that ends.
    exec 9>"$cache/peer-build.lock"
    flock 9
    if [[ ! -d $target ]]; then
        echo "building the peer of the bench (the very first time this takes some minutes)" >&2
        started=$SECONDS
        rm -rf "$target.new"
        mkdir "$target.new"
        comet=github.com/cometbft/cometbft
        go build -buildvcs=false -o "$target.new/" "$comet/cmd/cometbft" "$comet/test/loadtime/cmd/load" \
            "$comet/test/loadtime/cmd/report" ./cmd/signed-node ./cmd/peer-network ./cmd/peer-load
        mv "$target.new" "$target"
        echo "built the peer of the bench in $((SECONDS - started)) s" >&2
    fi
    # Folders of older sources that nobody asked for in a week.
    find "$cache" -maxdepth 1 -type d -regextype posix-extended -regex '.*/peer-[0-9a-f]{16}(\.new)?' -mtime +7 -exec rm -rf {} +
fi
touch "$target"
echo "$target"
