#!/bin/sh
# Fetches the servers that a cluster needs beside it, without touching the machine's own package sources:
#   nats-server 2.10 or newer   from Debian 13 (trixie)
#   consul                      from Debian 11 (bullseye), the last release that has it
#
# The packages come from the Debian mirror that this machine is configured for. A private apt configuration keeps its
# lists and its cache below the tools folder and checks Debian's signature on them, so nothing is installed and root is
# not needed. Servers that the machine already has are used if they are new enough.
#
# Result: $MPCIUM_TOOLS/bin/nats-server and $MPCIUM_TOOLS/bin/consul (default folder: .tools in the project).
# Safe to run again; it does nothing when both are there.
set -eu

project=$(cd "$(dirname "$0")/.." && pwd)
tools=${MPCIUM_TOOLS:-$project/.tools}
bin=$tools/bin
work=$tools/apt
nats_minor_min=10
consul_minor_min=7

say() { printf 'fetch-servers: %s\n' "$*"; }
fail() { printf 'fetch-servers: %s\n' "$*" >&2; exit 1; }

# The first "MAJOR.MINOR" of what a program prints.
version_of() { "$@" 2>/dev/null | sed -n 's/[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1; }

# new_enough VERSION MAJOR MINOR
new_enough() {
    [ -n "$1" ] || return 1
    major=${1%%.*}
    minor=${1#*.}
    [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -ge "$3" ]; }
}

usable() { # usable NAME PATH
    [ -x "$2" ] || return 1
    case $1 in
        nats-server) new_enough "$(version_of "$2" --version)" 2 $nats_minor_min ;;
        consul) new_enough "$(version_of "$2" version)" 1 $consul_minor_min ;;
    esac
}

have() { # have NAME: true if the tools folder has it, or gets a link to the machine's own
    if usable "$1" "$bin/$1"; then
        say "$1: $bin/$1 is there (version $(version_of "$bin/$1" version || true))"
        return 0
    fi
    system=$(command -v "$1" 2>/dev/null || true)
    [ -n "$system" ] || { [ -x "/usr/sbin/$1" ] && system=/usr/sbin/$1; } || true
    [ -n "$system" ] || return 1
    if usable "$1" "$system"; then
        mkdir -p "$bin"
        ln -sf "$system" "$bin/$1"
        say "$1: using the machine's own, $system"
        return 0
    fi
    say "$1: the machine's own ($system) is too old, fetching a newer one"
    return 1
}

# The repositories of the Debian archive that this machine uses, however its sources are written.
mirrors() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sort -u | grep -E '/debian/?$' || true
}

keyring() {
    for path in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
        [ -r "$path" ] && { printf '%s\n' "$path"; return 0; }
    done
    return 1
}

# fetch PACKAGE SUITE: downloads and unpacks one package into the tools folder.
fetch() {
    package=$1
    suite=$2
    for mirror in ${MPCIUM_DEBIAN_MIRROR:-$(mirrors)}; do
        say "$package: asking $mirror ($suite)"
        rm -rf "$work/$package"
        mkdir -p "$work/$package/lists/partial" "$work/$package/cache/archives/partial" "$work/$package/empty" \
            "$work/$package/download"
        : >"$work/$package/status"
        printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$mirror" "$suite" >"$work/$package/sources.list"
        cat >"$work/$package/apt.conf" <<END
Dir::Etc::SourceList "$work/$package/sources.list";
Dir::Etc::SourceParts "$work/$package/empty";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "$work/$package/empty";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$work/$package/empty";
Dir::State "$work/$package";
Dir::State::Lists "$work/$package/lists";
Dir::State::status "$work/$package/status";
Dir::Cache "$work/$package/cache";
APT::Sandbox::User "$(id -un)";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
        if ! apt-get -q -c "$work/$package/apt.conf" -o APT::Update::Error-Mode=any update >"$work/$package/log" 2>&1; then
            say "$package: $mirror has no $suite with a valid signature:"
            grep -E '^(E|W|Err)' "$work/$package/log" | sed 's/^/    /' | head -n 5
            continue
        fi
        if ! (cd "$work/$package/download" && apt-get -q -c "$work/$package/apt.conf" download "$package") \
            >>"$work/$package/log" 2>&1; then
            say "$package: not in $suite of $mirror for $(dpkg --print-architecture):"
            grep -E '^(E|W|Err)' "$work/$package/log" | sed 's/^/    /' | tail -n 5
            continue
        fi
        for archive in "$work/$package/download/"*.deb; do
            dpkg-deb -x "$archive" "$work/$package/unpacked"
            say "$package: $(basename "$archive"), signature and checksum verified"
        done
        found=
        for folder in usr/bin usr/sbin bin sbin; do
            [ ! -x "$work/$package/unpacked/$folder/$package" ] || found=$work/$package/unpacked/$folder/$package
        done
        [ -n "$found" ] || fail "$package: the package holds no program named $package"
        mkdir -p "$bin"
        # By rename, so that an interrupted run leaves no half a program.
        cp "$found" "$bin/.$package.new"
        mv "$bin/.$package.new" "$bin/$package"
        rm -rf "${work:?}/$package"
        missing=$(ldd "$bin/$package" 2>/dev/null | grep 'not found' || true)
        [ -z "$missing" ] || fail "$package: this machine lacks libraries: $missing"
        usable "$package" "$bin/$package" || fail "$package: $bin/$package does not run here or is too old"
        say "$package: $bin/$package (version $(version_of "$bin/$package" version || true))"
        return 0
    done
    fail "$package: could not be fetched. Install it yourself and put it on the PATH, or set MPCIUM_DEBIAN_MIRROR to the address of a Debian mirror that has $suite."
}

wanted=
have nats-server || wanted="$wanted nats-server:trixie"
have consul || wanted="$wanted consul:bullseye"
[ -n "$wanted" ] || exit 0

for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null 2>&1 ||
        fail "no $tool here: this is not Debian. Install nats-server >= 2.$nats_minor_min and consul, and put them on the PATH."
done
keys=$(keyring) ||
    fail "no Debian archive keys: install the package debian-archive-keyring, without it signatures cannot be checked."
[ -n "${MPCIUM_DEBIAN_MIRROR:-$(mirrors)}" ] ||
    fail "no Debian mirror among this machine's apt sources: set MPCIUM_DEBIAN_MIRROR to the address of one."

for item in $wanted; do
    fetch "${item%%:*}" "${item##*:}"
done
