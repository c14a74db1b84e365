#!/usr/bin/env bash
# mutants.sh [FILTER]: changes the core and the signing record in one place at a time, and runs the quick tests of the crate on each
# change. A change that no test notices must be explained in docs/mutants.md; fails if one is not, or if one that is explained there is
# noticed now. FILTER, a regular expression, takes those mutants whose name, such as "state.rs:279:9: replace State::in_window -> bool with true",
# matches. Everything else is said in .cargo/mutants.toml.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
tool=$cache/tools/bin/cargo-mutants
out=target/mutants
filter=${1:-}

if [[ $("$tool" mutants --version 2>/dev/null) != "cargo-mutants 27.1.0" ]]; then
    tests/step.sh install-cargo-mutants env CARGO_TARGET_DIR="$cache/target-tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        CARGO_PROFILE_RELEASE_LTO=off cargo install cargo-mutants --version 27.1.0 --locked --force --root "$cache/tools" || exit 1
    rm -rf "$cache/target-tools"
fi

# tried NAME PACKAGE TESTS...: the mutants of one package, each against these tests. Survivors (2) and tests that hang (3) are
# results; anything else is no run.
tried() {
    local name=$1 package=$2
    shift 2
    # The tree is copied and built anew, in a folder that is gone afterwards. A mutant that allocates without end dies before
    # the machine does; one that loops has a minute, where the tests take seconds.
    tests/step.sh "mutants-$name" env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 bash -c '
        ulimit -v 8388608
        "$@"
        status=$?
        [[ $status -eq 0 || $status -eq 2 || $status -eq 3 ]]' _ \
        "$tool" mutants --jobs 1 --no-shuffle --timeout 60 --colors never --output "$out/$name" ${filter:+--re "$filter"} \
        --package "$package" "$@" || exit 1
}

rm -rf "$out"
mkdir -p "$out"
tried signing-record bizra-driver -- --locked --lib -- signing_record golden
# The file is the node's, whose tests need RocksDB and minutes; a test of the driver includes it by its path. Without a change the
# tool would run the node's tests all the same; that this one passes then is for `make test` to say.
tried record-file bizra-node --test-package bizra-driver --baseline skip -- --locked --test record_file
tried simplex bizra-simplex -- --locked --lib --tests

# named: from "file:line:column: what" to what docs/mutants.md calls a survivor, which no change elsewhere in the file moves: the
# file, what was changed, and the line of code, with the changed operator in double brackets.
named() {
    local file line column what text operator
    while IFS=: read -r file line column what; do
        text=$(sed -n "${line}p" "$file")
        operator=
        [[ $what =~ ^' replace '([^[:alnum:]_ ]+)' with ' ]] && operator=${BASH_REMATCH[1]}
        [[ $what =~ ^' delete '([^[:alnum:]_ ]+)' in ' ]] && operator=${BASH_REMATCH[1]}
        if [[ -n $operator && ${text:column-1:${#operator}} == "$operator" ]]; then
            text="${text:0:column-1}[[$operator]]${text:column-1+${#operator}}"
        fi
        echo "${file#node/}:$what | $(sed -E 's/^ +//' <<<"$text")"
    done
}

list() {
    cat "$out"/*/mutants.out/"$1".txt 2>/dev/null
}
list missed | named | sort >"$out/survivors"
awk '/^```/ {inside = $0 == "```survivors"; next} inside && NF' docs/mutants.md | sort >"$out/explained"
new=$(comm -23 "$out/survivors" "$out/explained")
gone=
[[ -n $filter ]] || gone=$(comm -13 "$out/survivors" "$out/explained")
if [[ -n $new ]]; then
    printf 'no test notices, and docs/mutants.md does not explain:\n%s\n' "$new"
fi
if [[ -n $gone ]]; then
    printf 'explained in docs/mutants.md, but noticed or not there any more:\n%s\n' "$gone"
fi
echo "mutants: $(list caught | wc -l) caught, $(list timeout | wc -l) hung, $(list unviable | wc -l) do not compile," \
    "$(list missed | wc -l) survived; each with its log in $out"
[[ -z $new && -z $gone ]]
