#!/usr/bin/env bash
# Sets up what is missing, builds the release and starts a node: data in ./data, every listener on loopback.
#
# Arguments go to eyot-server, and so do EYOT_ variables; both win over what this script chooses.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/run.sh [ARGUMENTS OF eyot-server]

Builds and starts a node with its data in ./data of this repository, listening on loopback only.
  scripts/run.sh                        a node on 127.0.0.1:6380
  scripts/run.sh --address 127.0.0.1:0  arguments are passed on
  scripts/run.sh -- --help              the server's own help
HELP
}

case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
    --) shift ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
# All binaries, not only the server: the next thing to type is ./target/release/eyot.
cargo build --release --locked

# As a variable and not as a flag, so that a --data-dir among the arguments is not a second one.
export EYOT_DATA_DIR="${EYOT_DATA_DIR:-./data}"
exec "${CARGO_TARGET_DIR:-target}/release/eyot-server" "$@"
