#!/bin/sh
# Fetches an emulator of AWS KMS (moto's server) and AWS's command line from PyPI into a Python environment of their
# own, for the tests of signers whose key is in KMS. Nothing outside the tools folder is touched.
#
# Result: $MPCIUM_TOOLS/kms/bin/moto_server and $MPCIUM_TOOLS/kms/bin/aws (default folder: .tools in the project).
# Safe to run again; it does nothing when both are there.
set -eu

project=$(cd "$(dirname "$0")/.." && pwd)
tools=${MPCIUM_TOOLS:-$project/.tools}
environment=$tools/kms
# Versions that the tests have been run with.
packages='moto[kms]==5.2.5 flask==3.1.3 flask-cors==6.0.5 awscli==1.46.3'

say() { printf 'fetch-kms-emulator: %s\n' "$*"; }
fail() { printf 'fetch-kms-emulator: %s\n' "$*" >&2; exit 1; }

if [ "$(cat "$environment/packages" 2>/dev/null || true)" = "$packages" ]; then
    say "$environment is there"
    exit 0
fi

python=$(command -v python3 || true)
[ -n "$python" ] || fail "no python3 here: install Python 3.9 or newer with its venv module."
rm -rf "$environment"
mkdir -p "$tools"
"$python" -m venv "$environment" ||
    fail "$python cannot make an environment: on Debian its venv module is the package python3-venv."
say "fetching moto and awscli"
# shellcheck disable=SC2086 # a list of packages
"$environment/bin/pip" install --quiet --disable-pip-version-check --no-input $packages ||
    fail "pip could not install them; without network set PIP_INDEX_URL to a mirror."
"$environment/bin/moto_server" --help >/dev/null || fail "moto_server does not run here"
"$environment/bin/aws" --version >/dev/null || fail "aws does not run here"
# Written last, so that an interrupted run begins anew.
printf '%s\n' "$packages" >"$environment/packages"
say "$environment has moto's server and AWS's command line"
