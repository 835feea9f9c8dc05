#!/usr/bin/env bash
# Installs what building, testing or benchmarking Eyot needs and this machine lacks. Prints nothing when nothing is missing.
#
# Why each package:
#   gcc, libc6-dev  the linker, and the C parts of glommio (liburing) and mimalloc
#   git             glommio's build script starts it, and stops the build when it is not there
#   g++             the fuzzing runtime is C++ (only with --test)
#   redis-server    what the tests compare replies with and the measurements compare figures with (--test, --bench);
#                   redis-cli and redis-benchmark come with it
#   python3-redis   redis-py, one of the clients that the tests drive a node with (only with --test)
#   python3-protobuf, protobuf-compiler, python3-zstandard
#                   what scripts/read_snapshot.py reads snapshots with (only with --test)
#   e2fsprogs, xfsprogs, mount
#                   the ext4 and the xfs that the server is killed on: mkfs.*, what makes them larger while they are
#                   mounted, xfs_io, which cuts the power of both, and losetup and mount themselves (only with --test)
#   memcached       the other yardstick of scripts/compare.sh (only with --bench)
#
# Which python3: Debian's own, /usr/bin/python3, is asked first, because that is the one that the packages belong to; a
# python3 of the user's (pyenv, conda) that stands before it on PATH will do where it can import what is needed. Whoever
# starts one (the tests do) looks in the same order.
#
# Knows Debian's apt-get. On another system it says what is missing and leaves the installing to you.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/setup.sh [--test] [--bench]

Installs what is missing (with sudo, if not run as root) to build and run Eyot.
  --test    also what scripts/test.sh needs
  --bench   also what scripts/bench.sh and scripts/compare.sh need
HELP
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

for_tests=false
for_bench=false
while (($# > 0)); do
    case $1 in
        --test) for_tests=true ;;
        --bench) for_bench=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done

has() {
    command -v "$1" >/dev/null 2>&1
}

# Rust comes first: without it nothing else is of use, and it is not ours to choose how it gets here.
if ! has cargo && [[ -f ${CARGO_HOME:-$HOME/.cargo}/env ]]; then
    fail "cargo is installed but not on PATH; run: source ${CARGO_HOME:-$HOME/.cargo}/env"
fi
has cargo || fail "no Rust toolchain; install a stable one (https://rustup.rs) and run this again"

if $for_tests; then
    components=()
    cargo fmt --version >/dev/null 2>&1 || components+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || components+=(clippy)
    if ((${#components[@]} > 0)); then
        has rustup || fail "missing Rust components: ${components[*]}; install them beside the toolchain"
        echo "setup: adding Rust components: ${components[*]}"
        rustup component add "${components[@]}"
    fi
fi

# A header of the C library, found by the compiler itself: its place differs between systems.
has_c_headers() {
    has cc && echo '#include <stdio.h>' | cc -E -x c - >/dev/null 2>&1
}

# A program of administrators, which is often not on the PATH of a user.
has_for_root() {
    has "$1" || [[ -x /usr/sbin/$1 || -x /sbin/$1 ]]
}

python_has() {
    /usr/bin/python3 -c "import $1" 2>/dev/null || python3 -c "import $1" 2>/dev/null
}

packages=()
has cc || packages+=(gcc)
has_c_headers || packages+=(libc6-dev)
has git || packages+=(git)
services=()
if $for_tests; then
    has c++ || packages+=(g++)
    python_has redis || packages+=(python3 python3-redis)
    python_has google.protobuf,zstandard || packages+=(python3 python3-protobuf python3-zstandard)
    has protoc || packages+=(protobuf-compiler)
    { has_for_root mkfs.ext4 && has_for_root resize2fs; } || packages+=(e2fsprogs)
    { has_for_root mkfs.xfs && has_for_root xfs_growfs && has_for_root xfs_io; } || packages+=(xfsprogs)
    { has_for_root losetup && has mount; } || packages+=(mount)
fi
if { $for_tests || $for_bench; } && ! { has redis-server && has redis-cli && has redis-benchmark; }; then
    has redis-server || services+=(redis-server)
    packages+=(redis-server redis-tools)
fi
if $for_bench && ! has memcached; then
    packages+=(memcached)
    services+=(memcached)
fi
((${#packages[@]} > 0)) || exit 0

has apt-get || fail "missing: ${packages[*]} (names of Debian packages); no apt-get here, install them your way"

as_root=()
if ((EUID != 0)); then
    has sudo || fail "missing: ${packages[*]}; not root and no sudo; as root run: apt-get install ${packages[*]}"
    # Without a terminal sudo cannot ask for a password: better to say so than to fail inside apt-get.
    if [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; then
        fail "missing: ${packages[*]}; sudo wants a password and there is no terminal; as root run: apt-get install ${packages[*]}"
    fi
    as_root=(sudo)
fi

echo "setup: installing ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! {
    "${as_root[@]}" apt-get -q update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${packages[@]}"
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get failed (its last lines are above); install by hand: ${packages[*]}"
fi

# Debian starts redis and memcached as services when it installs them. Tests and measurements start their own; one in the
# background would only take processor time from what is measured. A service that was there before is left alone.
for service in "${services[@]}"; do
    if [[ -d /run/systemd/system ]]; then
        "${as_root[@]}" systemctl disable --now "$service" >/dev/null 2>&1 ||
            echo "setup: could not stop the $service service; stop it before a benchmark" >&2
    elif has service; then
        # Where it was never started, stopping says so by its exit code: nothing to report.
        "${as_root[@]}" service "$service" stop >/dev/null 2>&1 || true
    fi
done
