#!/usr/bin/env bash
# Makes a virtual environment with the official Kubernetes client of Python, for the end-to-end
# tests. Prints its interpreter; does nothing when it is there.
set -euo pipefail

DIR=${QUORATE_PYTHON_DIR:-$HOME/.cache/quorate-python}
VERSION=37.0.2
if [ ! -e "$DIR/.$VERSION" ]; then
    rm -rf "$DIR"
    python3 -m venv "$DIR" >&2
    "$DIR/bin/pip" install -q --disable-pip-version-check "kubernetes==$VERSION" >&2
    touch "$DIR/.$VERSION"
fi
printf '%s\n' "$DIR/bin/python"
