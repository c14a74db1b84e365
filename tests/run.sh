#!/usr/bin/env bash
# run.sh: every test of the project, and one line with the sum. Logs are in target/log/.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
passed=0
failed=0
started=$SECONDS

# counted NAME COMMAND...: runs a step and adds up the tests its output reports; a step without such lines is one test.
counted() {
    local status=0
    tests/step.sh "$@" || status=1
    count "$1" "$status"
}

# count NAME STATUS: the same for a step that has ended.
count() {
    local status=$2 ok bad log=$root/target/log/$1.log
    ok=$(sed -nE 's/^test result: .* ([0-9]+) passed; .*/\1/p; s/^ok +[^ ]+\t.*/1/p' "$log" 2>/dev/null | awk '{s += $1} END {print s + 0}')
    bad=$(sed -nE 's/^test result: .* ([0-9]+) failed; .*/\1/p; s/^FAIL\t.*/1/p' "$log" 2>/dev/null | awk '{s += $1} END {print s + 0}')
    if [[ $((ok + bad)) -eq 0 ]]; then
        [[ $status -eq 0 ]] && ok=1
    fi
    [[ $status -ne 0 && $bad -eq 0 ]] && bad=1
    passed=$((passed + ok))
    failed=$((failed + bad))
    return $status
}

tests/setup.sh || exit 1
cluster=$(tests/e2e/cluster/build.sh) || exit 1
export BIZRA_CLUSTER_BIN=$cluster
export BIZRA_HELM=$cluster/helm
bin=${CARGO_TARGET_DIR:-$root/target}/release

# Every build names the whole workspace: a package alone would choose other features of what all share, and compile it again.
counted lint tests/lint.sh
tests/step.sh build cargo build --release --locked --workspace --bins || failed=$((failed + 1))
tests/step.sh build-tests cargo test --release --locked --workspace --exclude bizra-e2e --no-run || failed=$((failed + 1))

# The simulator needs processors and nothing else, and many of the other tests wait: it takes what they leave.
nice -n 19 tests/step.sh simulation setpriv --pdeathsig TERM "$bin/bizra-sim" \
    --seeds "${SIM_SEEDS:-1400}" --require-views 1000000 --require-faults 100000 --require-epochs 10000 &
simulation=$!
trap 'kill "$simulation" 2>/dev/null' EXIT

counted unit cargo test --release --locked --workspace --exclude bizra-e2e --no-fail-fast --lib --bins --test '[!a]*'
# `api_server`, whose tests mostly wait for one, and its neighbours in the alphabet.
RUST_TEST_THREADS=6 counted api-server cargo test --release --locked --workspace --exclude bizra-e2e --no-fail-fast --test 'a*'
counted faults-node "$bin/bizra-faults" run --node "$bin/bizra-node" --kills 16 --cuts 5 --flips 24
# The rest of the bugs, and the slow ones, are for `make sim-planted`.
tests/step.sh build-planted cargo build --release --locked --workspace --features bizra-simulator/planted --bin bizra-planted || failed=$((failed + 1))
counted planted "$bin/bizra-planted" \
    --bug quorum_of_two_thirds --bug duplicate_signers --bug gap_not_nullified --bug finalize_after_nullify \
    --bug stale_certificate --bug cross_epoch_replay --bug vote_before_sync --bug write_error_ignored \
    --bug record_not_written --bug future_views_unbounded --bug catch_up_unchecked --bug batch_ordered_twice \
    --bug finalize_before_notarization --bug claim_unchecked --bug claim_not_awaited --bug past_the_boundary \
    --bug rotation_too_early --bug power_counted_twice --bug change_unbounded --bug third_held --bug jailed_stays \
    --bug release_paid_twice --bug slashed_lost
sed -nE 's/^(found .*)/planted: \1/p' target/log/planted.log
counted cluster-unit bash -c 'cd tests/e2e/cluster && CGO_ENABLED=0 go vet ./cmd/cluster ./csi/... ./internal/... && CGO_ENABLED=0 go test ./csi/... ./internal/...'
counted peer-unit bash -c 'cd tests/peer && CGO_ENABLED=0 go vet ./internal/... && CGO_ENABLED=0 go test ./internal/...'
counted e2e tests/e2e/test.sh
wait "$simulation"
status=$?
trap - EXIT
count simulation "$status"
sed -nE 's/^totals +/simulation: /p' target/log/simulation.log

echo "total: $((SECONDS - started)) s; logs in $root/target/log"
echo "$passed passed, $failed failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
