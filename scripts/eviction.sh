#!/usr/bin/env bash
# What happens at the memory limit, measured: whether the node stays within it under a flood of writes, for each policy, and
# whether what it keeps is what is asked for, beside redis-server with the same limit.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/eviction.sh [flood | hits | all]     default: all

  flood   each policy in turn: a server with --max-memory LIMIT is written to for SECONDS. Resident memory is sampled five
          times a second; the table holds the largest, as a part of the limit, and what was answered. Policies for keys with
          an expiry get keys with one. VALUE_SIZES may name two sizes, of which the second half of a flood has the other
  hits    allkeys-lru and allkeys-lfu: a client of a cache reads keys of a zipf distribution (0.99) and writes those that are
          missing, FILL requests to fill it and REQUESTS that are measured, against eyot-server and redis-server

environment: SECONDS_EACH=300 LIMIT=256MB FLOOD_RATE=100000 VALUE_SIZES="64 64" POLICIES="..." KEYS=10000000 FILL=10000000
             REQUESTS=8000000 SERVER_CPU=0 LOAD_CPU=1 PORT=17390 (and the next one)
             FLOOD_RATE is in writes a second
HELP
}

fail() {
    echo "eviction: $*" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly seconds=${SECONDS_EACH:-300} limit=${LIMIT:-256MB} rate=${FLOOD_RATE:-100000} keys=${KEYS:-10000000}
readonly fill=${FILL:-10000000} requests=${REQUESTS:-8000000} server_cpu=${SERVER_CPU:-0} load_cpu=${LOAD_CPU:-1}
readonly policies=${POLICIES:-noeviction allkeys-lru volatile-lru allkeys-lfu volatile-lfu allkeys-random volatile-random volatile-ttl}
readonly value_sizes=${VALUE_SIZES:-64 64}
readonly eyot_port=${PORT:-17390}
readonly redis_port=$((eyot_port + 1))
bin=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
readonly bin
mkdir -p target
work=$(mktemp -d "$PWD/target/eviction.XXXXXX")
readonly work
server=

stop_server() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap 'stop_server; rm -rf "$work"' EXIT

await_port() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
            return
        fi
        sleep 0.05
    done
    fail "nothing listens on port $1 after 10 s: $(cat "$work"/*.log)"
}

start_eyot() {
    rm -rf "$work/data"
    taskset -c "$server_cpu" "$bin/eyot-server" --address "127.0.0.1:$eyot_port" --resp-address 127.0.0.1:0 --cores "$server_cpu-$server_cpu" --data-dir "$work/data" \
        --sync-writes=false --max-memory "$limit" --eviction-policy "$1" --log-level warn >"$work/eyot.log" 2>&1 &
    server=$!
    await_port "$eyot_port"
}

start_redis() {
    taskset -c "$server_cpu" redis-server --port "$redis_port" --save '' --appendonly no --maxmemory "$limit" \
        --maxmemory-policy "$1" >"$work/redis.log" 2>&1 &
    server=$!
    await_port "$redis_port"
}

load() {
    "$bin/eyot-loadgen" --cpu "$load_cpu" --clients 10 --pipeline 16 --keys "$keys" --warmup 0s --quiet "$@"
}

# field FILE NAME: a figure of a report.
field() {
    sed -n "s/^ *\"$2\": \(.*[^,]\),\?\$/\1/p" "$1" | tail -n 1
}

resident_kib() {
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status" 2>/dev/null || true
}

# watch PID FILE: keeps the largest resident memory, in KiB, in the file.
watch() {
    local most=0 now
    while now=$(resident_kib "$1") && [ -n "$now" ]; do
        if [ "$now" -gt "$most" ]; then
            most=$now
            echo "$most" >"$2"
        fi
        sleep 0.2
    done
}

limit_kib() {
    local number=${limit%%[A-Za-z]*}
    case ${limit##*[0-9]} in
        MB | MiB | mb) echo $((number * 1024)) ;;
        GB | GiB | gb) echo $((number * 1024 * 1024)) ;;
        *) fail "LIMIT=$limit: write it in MB or GB" ;;
    esac
}

flood_policy() {
    local policy=$1 watcher half=$((seconds / 2)) most written=0 refused=0 code=0 part=0 value_size
    local expiry=()
    case $policy in volatile-*) expiry=(--ttl 600s) ;; esac
    start_eyot "$policy"
    watch "$server" "$work/most" &
    watcher=$!
    for value_size in $value_sizes; do
        part=$((part + 1))
        # Errors are answers here: exit code 1.
        load --address "127.0.0.1:$eyot_port" --clients 50 --pipeline 64 --ratio 1:0 --rate "$rate" --duration "${half}s" --seed "$part" \
            --value-size "$value_size" "${expiry[@]}" --json "$work/flood.json" || code=$?
        [ "$code" -le 1 ] || fail "the flood under $policy ended with $code: $(cat "$work/eyot.log")"
        written=$((written + $(field "$work/flood.json" succeeded)))
        refused=$((refused + $(field "$work/flood.json" errors)))
    done
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    stop_server
    most=$(cat "$work/most")
    local kinds
    kinds=$(sed -n '/"errors_by_code": {/,/}/p' "$work/flood.json" | sed -n 's/^ *"\([A-Z_]*\)": .*/\1/p' | tr '\n' ' ')
    awk -v policy="$policy" -v most="$most" -v limit="$(limit_kib)" -v written="$written" -v refused="$refused" \
        -v kinds="${kinds:--}" \
        'BEGIN { printf "%-16s %8.1f %10.3f %12d %12d  %s\n", policy, most / 1024, most / limit, written, refused, kinds }'
}

flood() {
    local policy
    echo "flood: $seconds s each at $rate writes/s of $value_sizes bytes, limit $limit"
    printf '%-16s %8s %10s %12s %12s  %s\n' policy 'max MiB' 'of limit' written refused 'refused with'
    for policy in $policies; do
        flood_policy "$policy"
    done
}

# ask PROTOCOL PORT: fills the cache, measures; prints hit rate, rate, resident memory.
ask() {
    local line=(--protocol "$1" --address "127.0.0.1:$2" --ratio 0:1 --distribution zipf --on-miss set)
    load "${line[@]}" --requests "$fill" --seed 1
    load "${line[@]}" --requests "$requests" --seed 2 --json "$work/hits.json"
    awk -v hits="$(field "$work/hits.json" hit_rate)" -v rate="$(field "$work/hits.json" rate_per_s)" \
        -v memory="$(resident_kib "$server")" 'BEGIN { printf "%10.5f %12.0f %10.1f\n", hits, rate, memory / 1024 }'
}

hits() {
    command -v redis-server >/dev/null || fail "redis-server is missing; ./scripts/setup.sh installs it"
    echo "hits: zipf 0.99 over $keys keys, values of 64 bytes, limit $limit, $fill requests to fill, $requests measured"
    printf '%-14s %-8s %10s %12s %10s\n' policy server 'hit rate' 'requests/s' 'RSS MiB'
    local policy
    for policy in allkeys-lru allkeys-lfu; do
        start_eyot "$policy"
        printf '%-14s %-8s %s\n' "$policy" eyot "$(ask native "$eyot_port")"
        stop_server
        start_redis "$policy"
        printf '%-14s %-8s %s\n' "$policy" redis "$(ask resp "$redis_port")"
        stop_server
    done
}

case ${1:-all} in
    flood) what=flood ;;
    hits) what=hits ;;
    all) what="flood hits" ;;
    -h | --help) usage; exit ;;
    *) usage >&2; fail "what is $1?" ;;
esac
cargo build --release --locked --quiet -p eyot-server -p eyot-loadgen
for each in $what; do
    "$each"
done
