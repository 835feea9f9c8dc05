#!/usr/bin/env bash
# Everything that must hold before a change goes in: form, lints, documentation, tests, layering, a short fuzz run.
#
# Stops at the first section that fails. The sections stand in the order of what fails fastest.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/test.sh

Sets up what is missing and runs every check. Exit 0 only if all of them pass.
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

# Seconds of fuzzing for each target: enough to run the seeds and some thousands of inputs near them.
readonly fuzz_smoke_seconds=5

log=$(mktemp)
trap 'rm -f "$log"' EXIT
sections_passed=0

# sum PATTERN: adds up the numbers that the first group of the pattern matches in the log.
sum() {
    sed $'s/\e\\[[0-9;]*m//g' "$log" | sed -nE "s/$1/\\1/p" | awk '{ total += $1 } END { print total + 0 }'
}

# The tests' own counts: nextest writes "Summary [ 1.2s] 34 tests run: 33 passed, 1 failed", cargo test
# "test result: FAILED. 33 passed; 1 failed; 0 ignored".
count_tests() {
    passed=$(($(sum '^test result: [a-zA-Z]+\. ([0-9]+) passed;.*') + $(sum '.*Summary.* run: ([0-9]+) passed.*')))
    failed=$(($(sum '^test result: .* passed; ([0-9]+) failed;.*') + $(sum '.*Summary.* passed.* ([0-9]+) failed.*')))
}

summary() {
    count_tests
    printf '%d sections passed in %d:%02d; tests: %d passed, %d failed\n' \
        "$sections_passed" $((SECONDS / 60)) $((SECONDS % 60)) "$passed" "$failed"
}

# section TITLE COMMAND...: runs the command under a heading with the time since the start; ends the script if it fails.
section() {
    local title=$1 started=$SECONDS status=0
    shift
    printf '\n== %s (at %d:%02d)\n' "$title" $((SECONDS / 60)) $((SECONDS % 60))
    "$@" 2>&1 | tee -a "$log" || status=$?
    if ((status != 0)); then
        printf '\nFAILED: %s, status %d after %d s: %s\n' "$title" "$status" $((SECONDS - started)) "$*"
        summary
        exit 1
    fi
    sections_passed=$((sections_passed + 1))
}

lint_scripts() {
    local script
    for script in .ci/run scripts/*.sh; do
        bash -n "$script" || return 1
    done
    if command -v shellcheck >/dev/null; then
        shellcheck .ci/run scripts/*.sh
    else
        echo "shellcheck is not installed: scripts were only parsed"
    fi
}

unit_and_integration_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-fail-fast
    else
        cargo test --workspace --locked --no-fail-fast --lib --bins --tests
    fi
}

section "setup" ./scripts/setup.sh --test
section "scripts" lint_scripts
section "format" cargo fmt --all --check
section "layering" ./scripts/layering.sh
section "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
section "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked
# Tests of one crate start binaries of another; cargo builds only a crate's own for its tests.
section "binaries" cargo build --locked --bins
section "tests" unit_and_integration_tests
section "documentation tests" cargo test --workspace --locked --doc
# Mistakes that are planted on purpose must be found; the feature is in no other build.
section "planted mistakes" cargo test --locked -p eyot-raft-glue --features planted-bugs --tests
section "fuzz smoke" ./scripts/fuzz.sh --smoke "$fuzz_smoke_seconds"

count_tests
((passed > 0)) || { echo "FAILED: no test ran" && exit 1; }
echo
summary
