#!/usr/bin/env bash
# lint.sh: format, lints and licences. Drift of generated files is a test of the operator.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
failed=0
check() {
    tests/step.sh "$@" || failed=1
}

check format cargo fmt --all --check
check clippy cargo clippy --release --locked --workspace --all-targets -- --deny warnings
check gofmt bash -c 'test -z "$(gofmt -l tests/e2e/cluster tests/peer tests/bench-operator/peer | tee /dev/stderr)"'

deny=$cache/tools/bin/cargo-deny
if [[ ! -x $deny ]]; then
    check install-cargo-deny env CARGO_TARGET_DIR="$cache/target-tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        CARGO_PROFILE_RELEASE_LTO=off cargo install cargo-deny --version 0.20.2 --locked --root "$cache/tools"
    rm -rf "$cache/target-tools"
fi
check licences "$deny" --all-features check bans licenses sources
exit $failed
