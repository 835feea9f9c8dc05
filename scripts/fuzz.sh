#!/usr/bin/env bash
# Builds the fuzz targets with coverage instrumentation, on a stable compiler, and runs them.
#
# The instrumentation is the compiler's own pass, asked for by flags; with --target given, the flags reach the crates that
# are fuzzed and not the build scripts. Assertions and overflow checks are on: a broken invariant is a finding.
#
# New inputs go to target/fuzz/corpus/TARGET; the committed seeds in fuzz/corpus/TARGET are only read, except by --minimise.
# A finding is kept in fuzz/artifacts/TARGET, and the command that repeats it is printed.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/fuzz.sh [TARGET [SECONDS]]     fuzz one target, or all of them; 300 seconds each
       scripts/fuzz.sh --smoke [SECONDS]      all targets, 5 seconds each
       scripts/fuzz.sh --repeat TARGET FILE   run one input through a target
       scripts/fuzz.sh --minimise TARGET      the seeds with a name stay, and a few that reach more join
       scripts/fuzz.sh --list                 the targets
HELP
}

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The committed corpus of one target stays small enough to read.
readonly seeds_max=64
readonly seed_bytes_max=1024
# Far above what a decoder of a few kilobytes may take: reaching it is a finding.
readonly memory_limit_mb=1024
readonly one_input_timeout_s=5

# Longest input, by target: as long as its format needs to show everything it has, as short as that allows.
input_bytes_max() {
    case $1 in
        wal_* | snapshot_*) echo 16384 ;;
        *) echo 4096 ;;
    esac
}

all_targets() {
    sed -n '/^\[\[bin\]\]/,/^$/ s/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml
}

triple=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}/fuzz

build() {
    local flags=(
        -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
        --cfg fuzzing
        -Ccodegen-units=1
        -Cdebug-assertions
    )
    # Link-time optimisation is left out: it takes minutes and would inline coverage points into each other.
    RUSTFLAGS="${flags[*]}" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
        cargo build --quiet --release --locked -p eyot-fuzz --bins --target "$triple" --target-dir "$target_dir"
}

binary() {
    echo "$target_dir/$triple/release/$1"
}

known() {
    all_targets | grep -qxF -- "$1" || fail "no target $1; there are: $(all_targets | xargs)"
}

# run TARGET SECONDS: prints one line with the figures; on a finding, the tail of the log and how to repeat it.
run() {
    local target=$1 seconds=$2 artifacts corpus log status=0 counters coverage
    artifacts=fuzz/artifacts/$target
    corpus=$target_dir/corpus/$target
    log=$target_dir/$target.log
    mkdir -p "$artifacts" "$corpus"
    "$(binary "$target")" -max_total_time="$seconds" -rss_limit_mb="$memory_limit_mb" \
        -timeout="$one_input_timeout_s" -max_len="$(input_bytes_max "$target")" -artifact_prefix="$artifacts/" \
        -print_final_stats=1 "$corpus" "fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    if ((status != 0)); then
        tail -n 40 "$log" >&2
        local input
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        [[ -n $input ]] || fail "$target ended with status $status and left no input; the whole log is $log"
        fail "$target has a finding: $input; repeat it with: scripts/fuzz.sh --repeat $target $input"
    fi
    # Without instrumentation libFuzzer throws dice; say so instead of passing.
    counters=$(sed -n 's/^INFO: Loaded [0-9]* modules *(\([0-9]*\) inline 8-bit counters).*/\1/p' "$log" | tail -n 1)
    coverage=$(sed -n 's/^#[0-9]*\tDONE *cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    if ((${counters:-0} < 100 || ${coverage:-0} < 20)); then
        fail "$target was built without coverage (${counters:-no} counters, ${coverage:-no} covered); the log is $log"
    fi
    printf '%-18s %9s inputs in %3s s, %5s of %s edges covered, %3s new inputs\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds" "$coverage" "$counters" \
        "$(sed -n 's/^stat::new_units_added: *//p' "$log")"
}

# edges TARGET CORPUS: how many edges the inputs of a directory reach.
edges() {
    "$(binary "$1")" -runs=0 "$2" 2>&1 | sed -n 's/^#[0-9]*\tINITED *cov: \([0-9]*\) .*/\1/p'
}

# Keeps the seeds that somebody named, and adds of the working corpus what reaches edges that they do not.
minimise() {
    local target=$1 corpus=fuzz/corpus/$1 input covered more
    mkdir -p "$target_dir/corpus/$target"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/all" "$scratch/chosen"
    find "$corpus" "$target_dir/corpus/$target" -type f -size "-$((seed_bytes_max + 1))c" \
        -exec cp -t "$scratch/all" {} +
    find "$corpus" -type f -regextype egrep -regex '.*/[0-9a-f]{40}' -delete
    # libFuzzer's choice also counts how often an edge is taken and what was compared with what: some hundreds of inputs.
    "$(binary "$target")" -set_cover_merge=1 "$scratch/chosen" "$scratch/all" >"$target_dir/$target.log" 2>&1 ||
        fail "merging failed; the log is $target_dir/$target.log"
    covered=$(edges "$target" "$corpus")
    # What reaches most by itself comes first, so fewer are needed; of equals, the smallest.
    mkdir "$scratch/one"
    find "$scratch/chosen" -type f -printf '%s %p\n' | while read -r bytes input; do
        ln -f "$input" "$scratch/one/input"
        echo "$(edges "$target" "$scratch/one") $bytes $input"
    done | sort -k1,1nr -k2,2n >"$scratch/order"
    while read -r _ _ input; do
        (($(find "$corpus" -type f | wc -l) < seeds_max)) || break
        cp "$input" "$corpus/"
        more=$(edges "$target" "$corpus")
        if ((more > covered)); then covered=$more; else rm "$corpus/$(basename "$input")"; fi
    done <"$scratch/order"
    echo "$target: $(find "$corpus" -type f | wc -l) seeds, $(du -cb "$corpus"/* | tail -n 1 | cut -f 1) bytes," \
        "$covered edges; $(edges "$target" "$scratch/all") in the working corpus"
}

seconds=300
targets=()
case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
    --list)
        all_targets
        exit 0
        ;;
    --smoke)
        seconds=${2:-5}
        ;;
    --repeat)
        (($# == 3)) || { usage >&2 && exit 2; }
        known "$2"
        build
        exec "$(binary "$2")" "$3"
        ;;
    --minimise)
        (($# == 2)) || { usage >&2 && exit 2; }
        known "$2"
        build
        minimise "$2"
        exit 0
        ;;
    "") ;;
    -*)
        usage >&2
        exit 2
        ;;
    *)
        known "$1"
        targets=("$1")
        seconds=${2:-$seconds}
        ;;
esac
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "seconds must be a whole number above zero, not $seconds"
((${#targets[@]} > 0)) || mapfile -t targets < <(all_targets)
((${#targets[@]} > 0)) || fail "no targets in fuzz/Cargo.toml"

build
for target in "${targets[@]}"; do
    run "$target" "$seconds"
done
