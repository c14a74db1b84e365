#!/usr/bin/env bash
# setup.sh: installs what builds and tests need and the machine lacks; says nothing when all is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v cargo >/dev/null || { echo "setup.sh: no cargo in PATH; install Rust 1.95 or later with rustup" >&2; exit 1; }
exec "$here/e2e/cluster/packages.sh" "$here/packages.txt" "$here/e2e/cluster/packages.txt"
