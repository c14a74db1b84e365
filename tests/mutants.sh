#!/usr/bin/env bash
# mutants.sh: changes core and signer in small ways, one at a time, and runs their tests on each change. A change that no
# test notices is a missing test, or explained in node/simplex/mutants.md. FILES="a.rs b.rs" restricts it to some files.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}
version=27.1.0
tool=$cache/tools/bin/cargo-mutants
if [[ ! -x $tool ]] || [[ $("$tool" mutants --version) != *"$version" ]]; then
    tests/step.sh install-cargo-mutants env CARGO_TARGET_DIR="$cache/target-tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        CARGO_PROFILE_RELEASE_LTO=off cargo install cargo-mutants --version "$version" --locked --root "$cache/tools"
    rm -rf "$cache/target-tools"
fi
files=${FILES:-node/simplex/src/*.rs node/driver/src/signing_record.rs node/driver/src/startup.rs}
arguments=()
for file in $files; do
    # Bugs that are planted on purpose are no code of the core.
    [[ $file == */planted.rs ]] || arguments+=(--file "$file")
done
known=$(sed -nE 's/^\* `(.*)`.*/\1/p' node/simplex/mutants.md)
status=0
# It builds in a copy of the tree; what it finds is in target/mutants.out.
env -u CARGO_TARGET_DIR "$tool" mutants --package bizra-simplex --package bizra-driver \
    --test-package bizra-simplex,bizra-driver --output target --no-shuffle --colors never --timeout 120 "${arguments[@]}" || status=$?
# 0: all killed; 2: some survived; 3: some never ended, which is killed too. All else is a failure of the run.
[[ $status -eq 0 || $status -eq 2 || $status -eq 3 ]] || exit "$status"
unexplained=0
while read -r mutant; do
    # Without line and column, which every edit moves.
    name=$(sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' <<<"$mutant")
    if ! grep -qxF -- "$name" <<<"$known"; then
        echo "SURVIVED without an explanation: $mutant"
        unexplained=$((unexplained + 1))
    fi
done <target/mutants.out/missed.txt
echo "$unexplained survivors are not explained in node/simplex/mutants.md"
[[ $unexplained -eq 0 ]]
