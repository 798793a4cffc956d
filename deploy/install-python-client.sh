#!/usr/bin/env bash
# Makes a virtual environment with the official Kubernetes client of Python and with kopf, which
# runs operators, for the end-to-end tests. Prints its interpreter; does nothing when it is there.
set -euo pipefail

DIR=${QUORATE_PYTHON_DIR:-$HOME/.cache/quorate-python}
VERSION=37.0.2
KOPF=1.45.2
DONE=$DIR/.$VERSION-$KOPF
if [ ! -e "$DONE" ]; then
    rm -rf "$DIR"
    python3 -m venv "$DIR" >&2
    "$DIR/bin/pip" install -q --disable-pip-version-check \
        "kubernetes==$VERSION" "kopf==$KOPF" >&2
    touch "$DONE"
fi
printf '%s\n' "$DIR/bin/python"
