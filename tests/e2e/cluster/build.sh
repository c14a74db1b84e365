#!/usr/bin/env bash
# build.sh: builds every program of the test cluster into a cache and prints the folder that holds them.
#
# Programs are kept in groups, each under a key of what it is made from, so that a change of this folder's own code links only the
# programs that contain it. The printed folder holds hard links to all of them. Nothing is said when everything is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
cd "$here"

command -v go >/dev/null || { echo "build.sh: no go in PATH; install Go $(awk '$1 == "go" {print $2}' go.mod) or later" >&2; exit 1; }
# The same flags for all: any difference would compile the shared code once more. -buildvcs only concerns the link.
export CGO_ENABLED=0 GOFLAGS= GOWORK=off
kubernetes=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' go.mod)
minor=${kubernetes#v1.}
version=k8s.io/component-base/version
flags=(-buildvcs=false -ldflags "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}")

# key FOLDER...: a hash of the versions of everything, and of the sources of ours in these folders.
key() {
    {
        go env GOVERSION GOARCH
        echo "${flags[@]}"
        cat go.mod go.sum
        if [[ $# -gt 0 ]]; then
            find "$@" -type f ! -name '*_test.go' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        fi
    } | sha256sum | cut -c 1-16
}

containerd=github.com/containerd/containerd/v2/cmd
plugins=github.com/containernetworking/plugins/plugins
# Loopback interfaces of Pods, and addresses from a range of the node.
build_upstream() {
    go build "${flags[@]}" -o "$1/" "$containerd/containerd" "$containerd/containerd-shim-runc-v2" "$containerd/ctr" \
        "$plugins/main/bridge" "$plugins/main/loopback" "$plugins/ipam/host-local"
    go build "${flags[@]}" -o "$1/etcd" go.etcd.io/etcd/server/v3
    go build "${flags[@]}" -o "$1/helm" helm.sh/helm/v4/cmd/helm
}
build_coredns() { go build "${flags[@]}" -o "$1/" ./cmd/coredns; }
build_kubeplane() { go build "${flags[@]}" -o "$1/" ./cmd/kubeplane; }
build_cluster() { go build "${flags[@]}" -o "$1/" ./cmd/cluster ./cmd/pause; }

declare -A sources=([upstream]="" [coredns]="cmd/coredns" [kubeplane]="cmd/kubeplane csi policy internal/loopdevice"
    [cluster]="cmd/cluster cmd/pause internal")
# The largest first: what the others share with it is compiled by then.
groups=(kubeplane upstream coredns cluster)

declare -A keys
all=""
for group in "${groups[@]}"; do
    # shellcheck disable=SC2086 # several folders
    keys[$group]=$(key ${sources[$group]})
    all+=${keys[$group]}
done
target=$cache/cluster-$(sha256sum <<<"$all" | cut -c 1-16)

if [[ ! -d $target ]]; then
    mkdir -p "$cache/cluster-parts"
    # One build at a time; whoever waited finds the work done. The lock goes with the process, however that ends.
    exec 9>"$cache/cluster-build.lock"
    flock 9
    for group in "${groups[@]}"; do
        part=$cache/cluster-parts/$group-${keys[$group]}
        [[ -d $part ]] && continue
        echo "building $group of the test cluster (the very first time this takes some minutes)" >&2
        started=$SECONDS
        rm -rf "$part.new"
        mkdir "$part.new"
        # What is fetched is of interest to nobody; errors are.
        "build_$group" "$part.new" 2> >(grep -v '^go: downloading ' >&2)
        mv "$part.new" "$part"
        echo "built $group in $((SECONDS - started)) s" >&2
    done
    if [[ ! -d $target ]]; then
        rm -rf "$target.new"
        mkdir "$target.new"
        for group in "${groups[@]}"; do
            ln "$cache/cluster-parts/$group-${keys[$group]}"/* "$target.new/"
        done
        mv "$target.new" "$target"
    fi
    # Folders of older sources that nobody asked for in a week.
    find "$cache" "$cache/cluster-parts" -maxdepth 1 -type d -regextype posix-extended \
        -regex '.*/(cluster|upstream|coredns|kubeplane)-[0-9a-f]{16}(\.new)?' -mtime +7 -exec rm -rf {} +
fi
touch "$target"
for group in "${groups[@]}"; do
    touch "$cache/cluster-parts/$group-${keys[$group]}" 2>/dev/null || true
done
echo "$target"
