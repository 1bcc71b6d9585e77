#!/bin/sh
# Installs what building needs besides Rust: a C compiler, make, m4, diffutils (for GMP) and pkg-config.
# Does nothing when all of it is there; otherwise uses apt-get, through sudo when not root.
set -eu

say() { printf 'install-prerequisites: %s\n' "$*"; }
fail() { printf 'install-prerequisites: %s\n' "$*" >&2; exit 1; }

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; } # need PROGRAM PACKAGE
need gcc gcc
need make make
need m4 m4
need cmp diffutils
need pkg-config pkg-config
# Only the walk-through of docs/kms.md, which the end-to-end tests follow.
need xxd xxd
# A compiler without the C library's headers cannot build anything.
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "please install:$missing (there is no apt-get here to do it)"
    if [ "$(id -u)" -eq 0 ]; then
        root=
    else
        command -v sudo >/dev/null 2>&1 || fail "please install as root:$missing (there is no sudo here)"
        root=sudo
    fi
    say "installing:$missing"
    $root apt-get -q update
    # shellcheck disable=SC2086 # a list of packages
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing
fi

command -v cargo >/dev/null 2>&1 ||
    fail "cargo is not on the PATH: install Rust 1.90 or newer (rustup, https://rustup.rs), then run this again."
version=$(cargo --version | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
[ -n "$version" ] || fail "cargo is on the PATH and does not run: 'cargo --version' says why."
major=${version% *}
minor=${version#* }
[ "$major" -gt 1 ] || [ "$minor" -ge 90 ] ||
    fail "this Rust is too old ($(cargo --version)): 1.90 or newer is needed; 'rustup update' gets it."
say "everything is there ($(cargo --version))"
