#!/usr/bin/env bash
# install.sh: builds the product, starts the cluster, loads the image and installs the chart. Prints nothing but progress; after it,
# `cluster.sh kubeconfig` names the kubeconfig.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
image=${BIZRA_IMAGE:-localhost/bizra:dev}

"$root/tests/setup.sh"
"$root/tests/step.sh" build cargo build --release --locked --manifest-path "$root/Cargo.toml" \
    --workspace --bin bizra-operator --bin bizra-node
"$here/cluster.sh" up
"$here/cluster.sh" image
kubeconfig=$("$here/cluster.sh" kubeconfig)
helm=${BIZRA_HELM:-$("$here/cluster/build.sh")/helm}
# A revision of the binaries, so that the same tag with another content restarts the operator.
revision=$(sha256sum "${CARGO_TARGET_DIR:-$root/target}/release/bizra-operator" | cut -c 1-12)
echo "helm upgrade --install bizra charts/bizra-operator --namespace bizra-system --create-namespace"
"$root/tests/step.sh" helm "$helm" upgrade --install bizra "$root/charts/bizra-operator" --kubeconfig "$kubeconfig" \
    --namespace bizra-system --create-namespace --wait --timeout 120s \
    --set statusIntervalSeconds=2 --set probeIntervalSeconds=2 --set repairCoolDownSeconds=30 \
    --set "image.repository=${image%:*}" --set-string "image.tag=${image##*:}" --set-string "podAnnotations.bizra\.io/binary=$revision"
