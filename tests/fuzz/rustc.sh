#!/usr/bin/env bash
# rustc.sh: cargo's RUSTC_WORKSPACE_WRAPPER of `make fuzz`. Compiles this workspace's crates, and only those, with the
# coverage that libFuzzer steers by. Build scripts run without libFuzzer and cannot have it.
[[ " $* " == *" --crate-name build_script_build "* ]] && exec "$@"
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions
