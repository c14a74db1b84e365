#!/usr/bin/env bash
# test.sh [ordinary|all|repeat] [arguments]: the end-to-end tests on the cluster, which is stopped afterwards unless it ran before.
#
#   ordinary   what CI runs: arguments go to the tests (default)
#   all        every scene; BIZRA_E2E_LONG=1 lets the long faults last five minutes
#   repeat     one fault after the other, and a table of the times: arguments go to bizra-e2e-repeat
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
what=ordinary
case ${1:-} in
    ordinary | all | repeat)
        what=$1
        shift
        ;;
esac
if [[ -z ${KUBECONFIG:-} ]]; then
    tests=(on_kubernetes ends security changes faults healing leadership validators replacement)
else
    # Faults of hosts and a second image need the embedded cluster.
    tests=(on_kubernetes ends security)
fi

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
if [[ -z ${KUBECONFIG:-} ]]; then
    BIZRA_CLUSTER_BIN=$("$here/cluster/build.sh")
    export BIZRA_CLUSTER_BIN
fi
KUBECONFIG=$("$here/cluster.sh" kubeconfig)
export KUBECONFIG
export BIZRA_NODE_BINARY=${CARGO_TARGET_DIR:-$root/target}/release/bizra-node
if [[ $what == repeat ]]; then
    "$root/tests/step.sh" build-repeat cargo build --release --locked --workspace --bin bizra-e2e-repeat
    "${CARGO_TARGET_DIR:-$root/target}/release/bizra-e2e-repeat" "$@"
    exit
fi
arguments=(--test-threads 1 --nocapture)
[[ $what != all ]] || arguments+=(--include-ignored)
# In this order, one after the other: they share the cluster.
cargo test --release --locked --workspace --no-fail-fast "${tests[@]/#/--test=}" -- "${arguments[@]}" "$@"
