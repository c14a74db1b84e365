#!/usr/bin/env bash
# demo.sh: from nothing to a running network with 10,000 finalised transactions, in the commands a user would type.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
started=$SECONDS
cd "$root"
node=${CARGO_TARGET_DIR:-$root/target}/release/bizra-node
transactions=${TRANSACTIONS:-10000}

# Secret keys must not be readable by others; a clone cannot keep that.
key=$(mktemp)
trap 'rm -f "$key"' EXIT
cat config/samples/demo-account.key >"$key"

"$here/install.sh"
KUBECONFIG=$("$here/cluster.sh" kubeconfig)
export KUBECONFIG

echo "kubectl apply --filename config/samples/network-demo.yaml"
kubectl apply --server-side --filename config/samples/network-demo.yaml >/dev/null
kubectl wait --for=condition=Ready network/demo --timeout=120s
address=$(kubectl get nodes --output jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
port=$(kubectl get service demo-api --output jsonpath='{.spec.ports[?(@.name=="grpc")].nodePort}')
http=$(kubectl get service demo-api --output jsonpath='{.spec.ports[?(@.name=="http")].nodePort}')

echo
echo "submitting $transactions signed transactions through the Service demo-api at $address:$port"
"$node" load --target "http://$address:$port" --count "$transactions" --rate 2000 --accounts 500 \
    --sponsor-key "$key" --require-all
echo
"$node" blocks --node "http://$address:$port" --limit 1
echo
# Heights reach the status with the next probe.
sleep 5
kubectl get networks,bizranodes
echo
echo "done in $((SECONDS - started)) s. Try next:"
cat <<TRY
  export KUBECONFIG=$KUBECONFIG
  kubectl describe network demo
  kubectl delete pod demo-v1        # and watch it come back: kubectl get bizranodes --watch
  curl http://$address:$http/v1/blocks?limit=3
  $node blocks --node http://$address:$port --limit 3
  make demo-down
TRY
