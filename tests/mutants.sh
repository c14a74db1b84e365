#!/usr/bin/env bash
# mutants.sh: changes the core and the signing record in every small way, one at a time. Each change must fail a test of its own crate,
# or stand in docs/mutants.md with the reason why none can. FILTER=text takes only mutants whose description holds it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
tool=$cache/tools/bin/cargo-mutants
out=$root/target/mutants
explained=docs/mutants.md

if [[ ! -x $tool ]]; then
    tests/step.sh install-cargo-mutants env CARGO_TARGET_DIR="$cache/target-tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        CARGO_PROFILE_RELEASE_LTO=off cargo install cargo-mutants --version 27.1.0 --locked --root "$cache/tools"
    rm -rf "$cache/target-tools"
fi

# The tool builds a copy of the tree in a folder of its own.
unset CARGO_TARGET_DIR
mkdir -p "$out"
filter=()
[[ -z ${FILTER:-} ]] || filter=(--re "$FILTER")

# mutate NAME ARGUMENTS... -- TEST ARGUMENTS...: the tool's exit status 2 and 3 mean survivors and endless loops, which are judged below.
mutate() {
    local name=$1 status=0
    shift
    echo "$name ..."
    "$tool" mutants --colors never --no-shuffle "${filter[@]}" --output "$out/$name" "$@" >"$out/$name.log" 2>&1 || status=$?
    if [[ $status -ne 0 && $status -ne 2 && $status -ne 3 ]]; then
        tail -n 20 "$out/$name.log" >&2
        exit "$status"
    fi
    tail -n 1 "$out/$name.log"
}

mutate core --package bizra-simplex -- --locked
mutate signing-record --package bizra-driver --file node/driver/src/signing_record.rs -- --locked --lib signing_record

# Places move with every edit: what is compared is the file and the change.
survivors() {
    cat "$out"/*/mutants.out/missed.txt | sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' | sort -u
}
unexplained=$(survivors | grep -vxFf <(sed -nE 's/^ {4}(node\/.*)/\1/p' "$explained") || true)
if [[ -n $unexplained ]]; then
    echo "changes that no test notices and $explained does not explain (places in $out/*/mutants.out/missed.txt):" >&2
    echo "$unexplained" >&2
    exit 1
fi
echo "$(survivors | wc -l) survivors, each explained in $explained; logs in $out"
