#!/usr/bin/env bash
# The measurements that the project quotes, each from one run on this machine, so that anybody can repeat them.
#
# The server is pinned to one processor and the load to another. Machines are shared and noisy: servers are compared in turn,
# several rounds, and the table holds medians. Rates are what one load thread and one server core reach together; the server's
# CPU per operation is what a core can do.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/bench.sh [MEASUREMENT ...]     default: requests

  requests   Eyot, the floor (answers +OK, keeps nothing) and redis-server: GET and SET at pipeline 1, 16 and 64, and SET
             with every reply after its bytes are on disk, against redis-server with appendfsync always
  forward    two cores: keys of the connection's own core, every second key on the other core, all on the other core
  recovery   2,000,000 entries read back at start, page cache warm
  idle       CPU of an idle server, memory of 5,000 idle connections, and what a client that never reads does to the others
  codec      the TLV codec beside prost, rmp-serde and serde_json
  all        all of them

environment: ROUNDS=3 DURATION=3s SERVER_CPU=0 LOAD_CPU=1
HELP
}

fail() {
    echo "bench: $*" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly rounds=${ROUNDS:-3} duration=${DURATION:-3s} server_cpu=${SERVER_CPU:-0} load_cpu=${LOAD_CPU:-1}
readonly clients=50 keys=100000 value_size=64
readonly eyot_port=17380 floor_port=17381 redis_port=17382
bin=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
readonly bin
work=$(mktemp -d "$PWD/target/bench.XXXXXX" 2>/dev/null || { mkdir -p target && mktemp -d "$PWD/target/bench.XXXXXX"; })
readonly work
pids=()

stop_all() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}
trap 'stop_all; rm -rf "$work"' EXIT

await_port() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
            return
        fi
        sleep 0.05
    done
    fail "nothing listens on port $1 after 10 s: $(cat "$work"/*.log)"
}

# start NAME PORT COMMAND...: sets `started` to its process.
start() {
    local name=$1 port=$2
    shift 2
    "$@" >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
    await_port "$port"
}

start_eyot() {
    local name=$1
    shift
    start "$name" "$eyot_port" taskset -c "$server_cpu" "$bin/eyot-server" --address "127.0.0.1:$eyot_port" \
        --data-dir "$work/$name" --log-level warn "$@"
}

start_redis() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    start "$name" "$redis_port" taskset -c "$server_cpu" redis-server --port "$redis_port" --bind 127.0.0.1 --save '' \
        --dir "$work/$name" --daemonize no "$@"
}

# load PORT PROTOCOL ARGUMENT...: leaves its report in $work/report.json.
load() {
    local port=$1 protocol=$2
    shift 2
    "$bin/eyot-loadgen" --address "127.0.0.1:$port" --protocol "$protocol" --cpu "$load_cpu" --keys "$keys" \
        --value-size "$value_size" --quiet --json "$work/report.json" "$@" >"$work/load.log" 2>&1 ||
        fail "the load generator failed: $(cat "$work/load.log")"
}

# figure NAME: the first figure of that name in the report.
figure() {
    sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p" "$work/report.json" | head -n 1
}

# measure SERVER OPERATION RATIO PIPELINE PORT PROTOCOL PID: appends a row to $work/rows.
measure() {
    load "$5" "$6" --clients "$clients" --pipeline "$4" --ratio "$3" --duration "$duration" --warmup 1s --server-pid "$7"
    echo "$1 $2 $4 $(figure rate_per_s) $(figure p50_us) $(figure p99_us) $(figure p99_9_us) $(figure cpu_us_per_operation)" \
        >>"$work/rows"
}

# The medians of $work/rows, with the last column's and the rate's ratio to the server named $1.
table() {
    sort -k1,1 -k2,2 -k3,3n -k4,4n "$work/rows" | awk -v base="$1" '
        function median(list, count,   copy, i, j, t) {
            for (i = 1; i <= count; i++) copy[i] = list[i]
            for (i = 2; i <= count; i++) for (j = i; j > 1 && copy[j - 1] > copy[j]; j--) { t = copy[j]; copy[j] = copy[j - 1]; copy[j - 1] = t }
            return copy[int((count + 1) / 2)]
        }
        {
            cell = $2 " " $3 " " $1
            if (!(cell in count)) order[++cells] = cell
            count[cell]++
            for (column = 4; column <= 8; column++) values[cell, column, count[cell]] = $column + 0
        }
        END {
            for (i = 1; i <= cells; i++) for (column = 4; column <= 8; column++) {
                for (n = 1; n <= count[order[i]]; n++) list[n] = values[order[i], column, n]
                result[order[i], column] = median(list, count[order[i]])
            }
            printf "%-5s %8s %-9s %12s %9s %9s %9s %10s %10s %10s\n", "op", "pipeline", "server", "ops/s", "p50 us", "p99 us", "p99.9 us", "CPU us/op", "CPU ratio", "rate ratio"
            for (i = 1; i <= cells; i++) {
                split(order[i], part, " ")
                reference = part[1] " " part[2] " " base
                printf "%-5s %8d %-9s %12.0f %9.0f %9.0f %9.0f %10.3f %10.2f %10.2f\n", part[1], part[2], part[3], result[order[i], 4], result[order[i], 5], result[order[i], 6], result[order[i], 7], result[order[i], 8], result[order[i], 8] / result[reference, 8], result[order[i], 4] / result[reference, 4]
            }
        }' | { IFS= read -r head; echo "$head"; sort -s -k1,1 -k2,2n; }
}

machine() {
    echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) processors, Linux $(uname -r)"
    echo "load: $clients clients, $keys keys of 16 bytes, values of $value_size bytes, server on processor $server_cpu, load on $load_cpu, median of $rounds rounds of $duration"
}

bench_requests() {
    echo "== requests: replies from memory (ratios to redis)"
    machine
    echo "servers: eyot native protocol --sync-writes=false; floor; $(redis-server --version | cut -d' ' -f1-3) without append-only file"
    : >"$work/rows"
    start_eyot eyot --sync-writes=false
    local eyot=$started
    start floor "$floor_port" taskset -c "$server_cpu" "$bin/examples/floor" "$floor_port"
    local floor=$started
    start_redis redis --appendonly no
    local redis=$started
    load "$eyot_port" native --preload --requests 1 --warmup 0s
    load "$redis_port" resp --preload --requests 1 --warmup 0s
    for _ in $(seq "$rounds"); do
        for pipeline in 1 16 64; do
            for operation in "GET 0:1" "SET 1:0"; do
                read -r name ratio <<<"$operation"
                measure eyot "$name" "$ratio" "$pipeline" "$eyot_port" native "$eyot"
                measure floor "$name" "$ratio" "$pipeline" "$floor_port" resp "$floor"
                measure redis "$name" "$ratio" "$pipeline" "$redis_port" resp "$redis"
            done
        done
    done
    table redis
    stop_all
    echo
    echo "== requests: every reply after its bytes are on disk (ratios to redis with appendfsync always)"
    : >"$work/rows"
    start_eyot eyot-durable
    eyot=$started
    start_redis redis-durable --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
    redis=$started
    for _ in $(seq "$rounds"); do
        for pipeline in 1 16 64; do
            measure eyot SET 1:0 "$pipeline" "$eyot_port" native "$eyot"
            measure redis SET 1:0 "$pipeline" "$redis_port" resp "$redis"
        done
    done
    table redis
    stop_all
}

bench_forward() {
    echo "== forward: two cores, GET at pipeline 16; share of the keys that the connection's core does not own"
    echo "(the load shares the processors with the two cores; the CPU per operation is the server's alone)"
    start forward "$eyot_port" "$bin/eyot-server" --cores 2 --address "127.0.0.1:$eyot_port" --data-dir "$work/forward" --log-level warn
    local server=$started
    load "$eyot_port" native --preload --requests 1 --warmup 0s
    printf '%6s %12s %10s %14s\n' share ops/s "CPU us/op" "ratio to local"
    for _ in $(seq "$rounds"); do
        local first=
        for share in 0 0.5 1; do
            "$bin/eyot-loadgen" --address "127.0.0.1:$eyot_port" --clients "$clients" --pipeline 16 --ratio 0:1 --keys "$keys" \
                --value-size "$value_size" --foreign-share "$share" --duration "$duration" --warmup 1s --server-pid "$server" \
                --quiet --json "$work/report.json" >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
            first=${first:-$(figure cpu_us_per_operation)}
            awk -v share="$share" -v rate="$(figure rate_per_s)" -v cpu="$(figure cpu_us_per_operation)" -v first="$first" \
                'BEGIN { printf "%6s %12.0f %10.3f %14.2f\n", share, rate, cpu, cpu / first }'
        done
    done
    echo "with shard-map routing:"
    local before after
    before=$(forwarded)
    "$bin/eyot-loadgen" --address "127.0.0.1:$eyot_port" --clients 20 --pipeline 16 --keys "$keys" --route --requests 1000000 \
        --warmup 0s --quiet --json "$work/report.json" >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
    after=$(forwarded)
    echo "  $(figure requests) requests, of which $((after - before)) went to a core that does not own the key"
    stop_all
}

forwarded() {
    "$bin/eyot" --address "127.0.0.1:$eyot_port" stats | grep -o '"forwarded": *[0-9]*' | grep -o '[0-9]*' | awk '{ sum += $1 } END { print sum }'
}

bench_recovery() {
    echo "== recovery: 2,000,000 entries, one core; the second start has the page cache warm"
    start_eyot recovery --sync-writes=false
    "$bin/eyot-loadgen" --address "127.0.0.1:$eyot_port" --cpu "$load_cpu" --keys 2000000 --value-size "$value_size" --preload \
        --requests 1 --warmup 0s --quiet >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
    stop_all
    for number in first second third; do
        start recovery-log "$eyot_port" taskset -c "$server_cpu" "$bin/eyot-server" --address "127.0.0.1:$eyot_port" \
            --data-dir "$work/recovery"
        echo "$number start: $(grep -o 'recovered at.*' "$work/recovery-log.log" | sed 's/\x1b\[[0-9;]*m//g')"
        stop_all
    done
}

# status_kib PID FIELD
status_kib() {
    sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$1/status"
}

cpu_ticks() {
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

bench_idle() {
    echo "== idle: CPU of an idle server, memory of idle connections, a client that never reads"
    start_eyot idle --max-connections 6000
    local server=$started seconds=10 ticks rss before after
    ulimit -n "$(ulimit -Hn)"
    load "$eyot_port" native --preload --requests 1 --warmup 0s
    ticks=$(cpu_ticks "$server")
    sleep "$seconds"
    echo "no connection: $(awk -v t=$(($(cpu_ticks "$server") - ticks)) -v s="$seconds" 'BEGIN { printf "%.2f", t / s }') % CPU over $seconds s"
    rss=$(status_kib "$server" VmRSS)
    local sockets=()
    for _ in $(seq 5000); do
        exec {socket}<>"/dev/tcp/127.0.0.1/$eyot_port"
        sockets+=("$socket")
    done
    sleep 1
    echo "5,000 idle connections: $(awk -v a="$(status_kib "$server" VmRSS)" -v b="$rss" 'BEGIN { printf "%.2f", (a - b) / 5000 }') KiB of server memory each"
    ticks=$(cpu_ticks "$server")
    sleep "$seconds"
    echo "5,000 idle connections: $(awk -v t=$(($(cpu_ticks "$server") - ticks)) -v s="$seconds" 'BEGIN { printf "%.2f", t / s }') % CPU over $seconds s"
    for socket in "${sockets[@]}"; do
        exec {socket}>&-
    done
    # GET key:000000000001, without end and without reading the replies.
    for _ in $(seq 20000); do
        printf '\x1c\x00\x00\x00\x01\x03\x00\x00\x01\x00\x00\x00\x03\x01\x07\x10key:000000000001'
    done >"$work/frames"
    printf '%-28s %12s %9s %9s %14s\n' "others at 20,000 requests/s" p50_us p99_us p99_9_us "server RSS MiB"
    for round in $(seq "$rounds"); do
        load "$eyot_port" native --clients 20 --rate 20000 --ratio 0:1 --duration "$duration" --warmup 1s
        before="$(figure p50_us) $(figure p99_us) $(figure p99_9_us) $(($(status_kib "$server" VmRSS) / 1024))"
        exec {socket}<>"/dev/tcp/127.0.0.1/$eyot_port"
        (while :; do cat "$work/frames"; done >&"$socket") 2>/dev/null &
        local greedy=$!
        sleep 0.5
        load "$eyot_port" native --clients 20 --rate 20000 --ratio 0:1 --duration "$duration" --warmup 1s
        after="$(figure p50_us) $(figure p99_us) $(figure p99_9_us) $(($(status_kib "$server" VmRSS) / 1024))"
        kill "$greedy" 2>/dev/null || true
        wait "$greedy" 2>/dev/null || true
        exec {socket}>&-
        # shellcheck disable=SC2086
        printf '%-28s %12.0f %9.0f %9.0f %14d\n' "quiet, round $round" $before
        # shellcheck disable=SC2086
        printf '%-28s %12.0f %9.0f %9.0f %14d\n' "one never reads, round $round" $after
    done
    stop_all
}

bench_codec() {
    cargo bench --locked -p eyot-protocol --bench codec
}

measurements=()
for argument in "${@:-requests}"; do
    case $argument in
        -h | --help)
            usage
            exit 0
            ;;
        requests | forward | recovery | idle | codec) measurements+=("$argument") ;;
        all) measurements+=(codec requests forward recovery idle) ;;
        *) fail "unknown measurement $argument; see --help" ;;
    esac
done
[ "$(nproc)" -ge 2 ] || fail "two processors are needed, one for the server and one for the load; this machine has $(nproc)"
./scripts/setup.sh --bench
cargo build --release --locked -p eyot-server -p eyot-client -p eyot-loadgen
cargo build --release --locked -p eyot-ring --example floor
for measurement in "${measurements[@]}"; do
    "bench_$measurement"
    echo
done
