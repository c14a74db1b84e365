#!/usr/bin/env bash
# cluster.sh up|down|status|image|kubeconfig|env: the Kubernetes that demo and end-to-end tests use. With KUBECONFIG set that is
# yours, and nothing is started, stopped or loaded; the image BIZRA_IMAGE must be where its nodes can pull it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
image=${BIZRA_IMAGE:-localhost/bizra:dev}
target=${CARGO_TARGET_DIR:-$root/target}
command=${1:-}

if [[ -n ${KUBECONFIG:-} ]]; then
    case $command in
        kubeconfig) echo "$KUBECONFIG" ;;
        *) echo "KUBECONFIG is set: using $KUBECONFIG, nothing to $command" ;;
    esac
    exit 0
fi

"$here/cluster/packages.sh"
BIZRA_CLUSTER_BIN=$("$here/cluster/build.sh")
export BIZRA_CLUSTER_BIN
case $command in
    up | down | status | kubeconfig) exec "$BIZRA_CLUSTER_BIN/cluster" "$command" ;;
    image)
        archive=$cache/image/bizra.tar
        "$here/cluster/image.sh" "$target/release" "$image" "$archive"
        "$BIZRA_CLUSTER_BIN/cluster" load-image "$archive"
        ;;
    *)
        echo "usage: cluster.sh up|down|status|image|kubeconfig" >&2
        exit 2
        ;;
esac
