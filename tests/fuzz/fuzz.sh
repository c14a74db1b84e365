#!/usr/bin/env bash
# fuzz.sh: fuzzes each target for SECONDS_EACH seconds. New inputs are merged into tests/fuzz/corpus, which is kept; an
# input that crashes a target is left in target/fuzz/ with the command that repeats it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
seconds=${SECONDS_EACH:-60}
only=${TARGET:-}
out=$root/target/fuzz
mkdir -p "$out" "$root/target/log"
RUSTC_WORKSPACE_WRAPPER="$root/tests/fuzz/rustc.sh" tests/step.sh build-fuzz \
    cargo build --release --locked --package bizra-fuzz --features libfuzzer
binary=$CARGO_TARGET_DIR/release/bizra-fuzz
failed=0
targets=$(ls tests/fuzz/corpus)
[[ -n $only ]] && targets=$only
for target in $targets; do
    kept=tests/fuzz/corpus/$target
    log=$root/target/log/fuzz-$target.log
    work=$(mktemp -d)
    merged=$(mktemp -d)
    status=0
    BIZRA_FUZZ_TARGET=$target "$binary" "$work" "$kept" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$out/$target-" >"$log" 2>&1 || status=$?
    # Keep the smallest set of inputs that covers as much, in place of the one before.
    BIZRA_FUZZ_TARGET=$target "$binary" -set_cover_merge=1 "$merged" "$kept" "$work" >>"$log" 2>&1 || status=$?
    [[ $status -eq 0 ]] && rm -rf "$kept" && cp -r "$merged" "$kept"
    runs=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/\1/p' "$log" | head -1)
    covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)
    if [[ $status -eq 0 ]]; then
        printf '%-16s %12s runs, %6s edges, %5s inputs kept, no crash\n' "$target" "$runs" "$covered" "$(ls "$kept" | wc -l)"
    else
        failed=1
        printf '%-16s CRASH: see %s and %s-*\n' "$target" "$log" "$out/$target" >&2
    fi
    rm -rf "$work" "$merged"
done
exit $failed
