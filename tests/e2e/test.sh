#!/usr/bin/env bash
# test.sh: the end-to-end tests on the cluster, which is stopped afterwards unless it ran before.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
ran_before=yes
if [[ -z ${KUBECONFIG:-} ]] && ! "$here/cluster.sh" status >/dev/null 2>&1; then
    ran_before=no
fi
finish() {
    if [[ $ran_before == no ]]; then
        # KUBECONFIG names the embedded cluster by now; to cluster.sh it would be somebody else's.
        env -u KUBECONFIG "$here/cluster.sh" down
    fi
}
trap finish EXIT
"$here/install.sh"
KUBECONFIG=$("$here/cluster.sh" kubeconfig)
export KUBECONFIG
export BIZRA_NODE_BINARY=${CARGO_TARGET_DIR:-$root/target}/release/bizra-node
cargo test --release --locked --workspace --test on_kubernetes --test ends --test security -- --test-threads 1 "$@"
