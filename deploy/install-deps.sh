#!/usr/bin/env bash
# Installs what a Debian or Ubuntu machine lacks to build and run Quorate, says what it does,
# and does nothing when all is there. Fails with a reason when Docker does not answer.
#
#   deploy/install-deps.sh           everything, Docker included
#   deploy/install-deps.sh --build   only what compiling needs
#   deploy/install-deps.sh --bench   everything, and the etcd that `make bench` compares with
set -euo pipefail

say() { printf 'install-deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# bindgen loads libclang at build time.
have_libclang() {
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib/*/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib64/libclang*.so*' >/dev/null
}

# The image of the demo and of the tests is built from scratch: its busybox must be static.
have_static_busybox() {
    have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

missing=()
need() { # need PACKAGE CHECK…
    local package=$1
    shift
    "$@" || missing+=("$package")
}

need clang have clang
need libclang-dev have_libclang
need g++ have g++
need make have make
need pkg-config have pkg-config
if [ "${1:-}" != --build ]; then
    PATH="$PATH:/usr/sbin:/sbin"
    need iproute2 have ip
    need iptables have iptables
    need busybox-static have_static_busybox
    need docker.io have docker
    need etcd-client have etcdctl
fi
if [ "${1:-}" = --bench ]; then
    need etcd-server have etcd
fi

if [ ${#missing[@]} -gt 0 ]; then
    have apt-get || die "missing: ${missing[*]}; this script installs with apt-get only: install them by hand"
    sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "missing: ${missing[*]}; run this as root, or install sudo"
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
    # Debian starts what it installs; the benchmark starts etcd itself.
    case " ${missing[*]} " in
        *" etcd-server "*) "${sudo[@]}" systemctl disable --now etcd >/dev/null 2>&1 || true ;;
    esac
fi

have cargo || die "Rust is not installed; see https://rustup.rs"

if [ "${1:-}" != --build ]; then
    if ! reason=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null); then
        say "Docker does not answer: $reason"
        die "start it ('systemctl start docker'), and make sure that you may use its socket ('usermod -aG docker $(id -un)')"
    fi
fi
