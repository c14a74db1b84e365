#!/usr/bin/env bash
# step.sh NAME COMMAND...: runs a command, says one line when it is done, and keeps its output in target/log/NAME.log. On
# failure shows the tests that failed, with what they said, and the end of it. Silent for steps that took less than a second.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=$1
shift
log=$root/target/log/$name.log
mkdir -p "$(dirname "$log")"
started=$SECONDS
if [[ -t 1 ]]; then
    printf '%s ...\r' "$name"
fi
if "$@" >"$log" 2>&1; then
    took=$((SECONDS - started))
    [[ $took -lt 1 ]] || echo "$name: done in $took s"
else
    status=$?
    echo "$name: FAILED after $((SECONDS - started)) s; failures and the end of $log:" >&2
    grep -aE -A 12 "^(thread '.*' .*panicked at|---- .* stdout ----)" "$log" | tail -n 120 >&2
    grep -aE '^test .* FAILED$' "$log" >&2
    tail -n 40 "$log" >&2
    exit "$status"
fi
