#!/usr/bin/env bash
# Proves the layering of the crates with `cargo tree`: who may use whom, and which packages a crate must never see.
#
# The rules inside the server (only core/ knows glommio, only control/ knows tokio) are about modules, which
# cargo does not see: server/tests/tidy.rs proves those.
#
# Only what goes into a build of the crate counts (normal dependencies, all targets): a test may use a clock or a random
# number. Before judging the workspace the script judges planted trees, so that a check that cannot fail is noticed.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/layering.sh

Checks that every crate uses only the crates that the architecture lets it use. Prints each violation; exit 1 if any.
HELP
}

case ${1-} in
    "") ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Never below a pure crate: runtimes, rings, sockets and random numbers.
readonly impure='glommio tokio io-uring mio socket2 rand rand_core getrandom fastrand'

# The same, where the raft crate brings the rand crate with it: its election timeouts, which raft-glue draws itself.
readonly impure_but_rand='glommio tokio io-uring mio socket2 fastrand'

# crate | crates of ours that it may use | packages that must not be below it
readonly rules="
eyot-protocol  |                                         | $impure
eyot-raft-glue | eyot-protocol                           | $impure_but_rand
eyot-ring      |                                         | glommio tokio rand
eyot-checker   |                                         | $impure
eyot-disk      |                                         | $impure
eyot-server    | eyot-disk eyot-protocol eyot-raft-glue eyot-ring  |
eyot-client    | eyot-protocol                           | glommio io-uring
eyot-loadgen   | eyot-client eyot-protocol eyot-ring     | glommio
eyot-fuzz      | eyot-checker eyot-client eyot-disk eyot-protocol eyot-raft-glue eyot-ring eyot-server |
"

# judge CRATE ALLOWED FORBIDDEN: reads the names of everything below CRATE, one a line, and prints the violations.
judge() {
    local crate=$1 allowed=" $2 " forbidden=" $3 " name
    while read -r name; do
        if [[ $name == "$crate" ]]; then
            continue
        elif [[ $name == eyot-* && $allowed != *" $name "* ]]; then
            echo "$crate must not use $name (allowed of ours:${allowed% })"
        elif [[ $forbidden == *" $name "* ]]; then
            echo "$crate must not have $name below it; see: cargo tree -p $crate -e normal --target all -i $name"
        fi
    done
}

expect_violation() {
    if [[ -z $(judge "$1" "$2" "$3" <<<"$4") ]]; then
        echo "layering: the check is broken: $4 below $1 was not noticed" >&2
        exit 1
    fi
}

expect_violation eyot-protocol "" "$impure" tokio
expect_violation eyot-protocol "" "$impure" eyot-ring
expect_violation eyot-client eyot-protocol "glommio io-uring" eyot-server
if [[ -n $(judge eyot-client "eyot-protocol" "glommio" <<<$'eyot-client\neyot-protocol\ntokio') ]]; then
    echo "layering: the check is broken: it finds fault with a clean tree" >&2
    exit 1
fi

trimmed() {
    xargs <<<"$1"
}

violations=0
judged=" "
while IFS='|' read -r crate allowed forbidden; do
    crate=$(trimmed "$crate")
    [[ -n $crate ]] || continue
    tree=$(cargo tree --locked -p "$crate" -e normal --target all --prefix none --format '{p}')
    found=$(awk '{ print $1 }' <<<"$tree" | sort -u | judge "$crate" "$(trimmed "$allowed")" "$(trimmed "$forbidden")")
    if [[ -n $found ]]; then
        echo "$found" >&2
        violations=$((violations + 1))
    fi
    judged+="$crate "
done <<<"$rules"

# A crate that nobody gave a rule is a hole in the wall.
while read -r crate; do
    if [[ $judged != *" $crate "* ]]; then
        echo "$crate has no rule; give it one in scripts/layering.sh" >&2
        violations=$((violations + 1))
    fi
done < <(cargo tree --locked --workspace --depth 0 --prefix none --format '{p}' | awk 'NF { print $1 }' | sort -u)

if ((violations > 0)); then
    echo "layering: $violations crates break the layering" >&2
    exit 1
fi
echo "layering: $(wc -w <<<"$judged") crates keep it"
