#!/usr/bin/env bash
# audit.sh [arguments of test.sh]: runs the end-to-end tests, then compares the operator's rights with those it used.
# With KUBECONFIG set, BIZRA_AUDIT_LOG must name that cluster's audit log.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
log=${BIZRA_AUDIT_LOG:-}
if [[ -n ${KUBECONFIG:-} && -z $log ]]; then
    echo "audit.sh: KUBECONFIG is set: set BIZRA_AUDIT_LOG to the audit log of its API server" >&2
    exit 2
fi
ran_before=yes
if [[ -z ${KUBECONFIG:-} ]] && ! "$here/cluster.sh" status >/dev/null 2>&1; then
    ran_before=no
    # So that the tests leave it running, and its log and roles can be read.
    "$here/cluster.sh" up
fi
finish() {
    [[ $ran_before == yes ]] || env -u KUBECONFIG "$here/cluster.sh" down
}
trap finish EXIT
"$here/test.sh" "$@"
"$root/tests/step.sh" build-audit cargo build --release --locked --workspace --bin bizra-audit-rbac
KUBECONFIG=$("$here/cluster.sh" kubeconfig)
export KUBECONFIG
"${CARGO_TARGET_DIR:-$root/target}/release/bizra-audit-rbac" "${log:-$(dirname "$KUBECONFIG")/logs/audit.log}" \
    "$root/target/audit/rbac.json"
