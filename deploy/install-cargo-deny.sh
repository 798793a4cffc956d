#!/usr/bin/env bash
# Prints the path of cargo-deny; compiles it once (a few minutes) into a cache directory
# when it is not on the PATH.
set -euo pipefail

if command -v cargo-deny; then
    exit 0
fi
root=${QUORATE_TOOLS_DIR:-$HOME/.cache/quorate-tools}
if [ ! -x "$root/bin/cargo-deny" ]; then
    echo "install-cargo-deny: compiling cargo-deny into $root (once)" >&2
    # A target directory of its own, and no optimisation: it checks a few hundred crates.
    CARGO_TARGET_DIR="$root/build" cargo install cargo-deny --version '^0.20' --locked \
        --no-default-features --debug --root "$root" >&2
    rm -rf "$root/build"
fi
echo "$root/bin/cargo-deny"
