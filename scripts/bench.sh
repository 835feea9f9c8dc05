#!/usr/bin/env bash
# The measurements that the project quotes, each from one run on this machine, so that anybody can repeat them.
#
# The server is pinned to one processor and the load to another. Machines are shared and noisy: servers are compared in turn,
# several rounds, and the table holds medians. Rates are what one load thread and one server core reach together; the server's
# CPU per operation is what a core can do. Where the project has set itself a goal, a line says whether this run met it.
# scripts/compare.sh compares with memcached, too, and with other clients' eyes.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/bench.sh [MEASUREMENT ...]     default: resp

  resp       over RESP, 1,000,000 keys: Eyot, the floor (answers +OK, keeps nothing) and redis-server: GET and SET at
             pipeline 1, 16 and 64, and SET with every reply after its bytes are on disk, against redis-server with
             appendfsync always
  requests   the same over Eyot's own protocol, 100,000 keys
  cores      one core and two, each with as many clients and sharing its processor with their load: rate and CPU
  memory     resident memory of an item at 10,000,000 items against redis-server; the slowest replies while growing there
             from 1,000,000 items, and while the same keys are overwritten
  large      a value of 64 MiB set and read, against a bare pair of sockets
  forward    two cores: keys of the connection's own core, every second key on the other core, all on the other core
  recovery   2,000,000 entries read back at start, page cache warm
  idle       CPU of an idle server, memory of 5,000 idle connections, and what a client that never reads does to the others
  codec      the TLV codec beside prost, rmp-serde and serde_json
  all        all of them

environment: ROUNDS=3 DURATION=3s SERVER_CPU=0 LOAD_CPU=1 GROWTH_RATE=200000 (requests a second, for memory)
exit codes: 0 measured, 1 something failed, 2 wrong usage, 3 this machine lacks what is needed
HELP
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly script=bench
readonly rounds=${ROUNDS:-3} duration=${DURATION:-3s} server_cpu=${SERVER_CPU:-0} load_cpu=${LOAD_CPU:-1}
readonly growth_rate=${GROWTH_RATE:-200000}
readonly clients=50 value_size=64
# The ports of Eyot's cores are 100 above each of its own.
readonly floor_port=17370 redis_port=17371 eyot_port=17380 resp_port=17400
# shellcheck source=scripts/measure.sh
source scripts/measure.sh

# keys of the requests that are measured; a measurement may choose others.
keys=100000

# drive PORT WIRE ARGUMENT...: the usual load.
drive() {
    local port=$1 wire=$2
    shift 2
    load "$port" "$wire" --keys "$keys" --value-size "$value_size" "$@"
}

preload() {
    drive "$1" "$2" --preload --requests 1 --warmup 0s
}

# measure MEASUREMENT SERVER OPERATION PIPELINE PORT WIRE PID: a row.
measure() {
    local ratio=0:1
    [[ $3 == GET ]] || ratio=1:0
    drive "$5" "$6" --clients "$clients" --pipeline "$4" --ratio "$ratio" --duration "$duration" --warmup 1s --server-pid "$7"
    row_of_load "$1" "$3" "$4" "$2"
}

# print_table BASE: the table of all rows so far.
print_table() {
    medians "$1" >"$work/medians"
    as_text <"$work/medians"
}

# goal OPERATION PIPELINE SERVER BASE rate|cpu|bytes at-least|at-most BOUND: whether the last table met it.
goal() {
    awk -F '\t' -v operation="$1" -v pipeline="$2" -v server="$3" -v base="$4" -v figure="$5" -v sense="$6" -v bound="$7" '
        BEGIN { column = figure == "rate" ? 5 : figure == "cpu" ? 9 : 10 }
        $2 == operation && $3 == pipeline && $4 == server { mine = $column }
        $2 == operation && $3 == pipeline && $4 == base { reference = $column }
        END {
            if (mine + 0 <= 0 || reference + 0 <= 0) { print "goal: no figure of " server " and " base; exit }
            ratio = mine / reference
            met = sense == "at-least" ? ratio >= bound : ratio <= bound
            sub("-", " ", sense)
            printf "goal: %s at pipeline %s, %s of %s by that of %s: %.2f, %s %s: %s\n", operation, pipeline, figure, server, base, ratio, sense, bound, met ? "met" : "MISSED"
        }' "$work/medians"
}

heading() {
    echo "== $1"
    echo "machine: $(machine)"
    echo "load: $clients clients, $keys keys of 16 bytes, values of $value_size bytes, server on processor $server_cpu," \
        "load on $load_cpu, medians of $rounds rounds of $duration"
}

# compare_replies WIRE PORT: Eyot over one of its wires, the floor and redis-server, replies from memory.
compare_replies() {
    local wire=$1 port=$2 round eyot floor redis
    echo "servers: eyot $(eyot_version) over $wire, --sync-writes=false; floor; redis-server $(redis_version)," \
        "no append-only file"
    : >"$work/rows"
    for ((round = 1; round <= rounds; round++)); do
        note "replies from memory over $wire: round $round of $rounds"
        start_eyot eyot "$eyot_port" "$resp_port" "$server_cpu" --sync-writes=false
        eyot=$started
        start floor "$floor_port" taskset -c "$server_cpu" "$bin/examples/floor" "$floor_port"
        floor=$started
        start_redis redis "$redis_port" --appendonly no
        redis=$started
        preload "$port" "$wire"
        preload "$redis_port" resp
        for operation in GET SET; do
            for pipeline in 1 16 64; do
                measure memory eyot "$operation" "$pipeline" "$port" "$wire" "$eyot"
                measure memory floor "$operation" "$pipeline" "$floor_port" resp "$floor"
                measure memory redis "$operation" "$pipeline" "$redis_port" resp "$redis"
            done
        done
        stop_all
        rm -rf "$work/eyot"
    done
    print_table redis
}

# compare_durable WIRE PORT: every reply after its bytes are on disk.
compare_durable() {
    local wire=$1 port=$2 round eyot redis
    echo "servers: eyot over $wire; redis-server with appendfsync always"
    : >"$work/rows"
    for ((round = 1; round <= rounds; round++)); do
        note "replies from disk over $wire: round $round of $rounds"
        start_eyot eyot "$eyot_port" "$resp_port" "$server_cpu"
        eyot=$started
        start_redis redis "$redis_port" --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
        redis=$started
        for pipeline in 1 16 64; do
            measure disk eyot SET "$pipeline" "$port" "$wire" "$eyot"
            measure disk redis SET "$pipeline" "$redis_port" resp "$redis"
        done
        stop_all
        rm -rf "$work/eyot" "$work/redis"
    done
    print_table redis
}

bench_resp() {
    local operation pipeline
    keys=1000000
    heading "resp: replies from memory (ratios to redis)"
    compare_replies resp "$resp_port"
    local -A cpu_bound=([1]=0.85 [16]=0.40 [64]=0.35) rate_bound=([1]=1.15 [16]=2 [64]=5)
    for operation in GET SET; do
        for pipeline in 1 16 64; do
            goal "$operation" "$pipeline" eyot redis cpu at-most "${cpu_bound[$pipeline]}"
            goal "$operation" "$pipeline" eyot redis rate at-least 1.00
        done
        goal "$operation" 1 eyot floor cpu at-most 1.25
    done
    echo
    heading "resp: every reply after its bytes are on disk (ratios to redis with appendfsync always)"
    compare_durable resp "$resp_port"
    for pipeline in 1 16 64; do
        goal SET "$pipeline" eyot redis rate at-least "${rate_bound[$pipeline]}"
        goal SET "$pipeline" eyot redis cpu at-most 0.90
    done
}

bench_requests() {
    keys=100000
    heading "requests: replies from memory (ratios to redis)"
    compare_replies native "$eyot_port"
    echo
    heading "requests: every reply after its bytes are on disk (ratios to redis with appendfsync always)"
    compare_durable native "$eyot_port"
}

# With two processors the load of two cores cannot have one of its own. So each core shares its processor with one load
# thread and 25 clients, in both cases: two cores have twice the load of one, and the same disturbance.
bench_cores() {
    local round operation pipeline cores cpus share
    keys=100000
    echo "== cores: one core and two, 25 clients and a load thread for each on the core's own processor (ratios to 1-core)"
    echo "machine: $(machine)"
    echo "versions: eyot $(eyot_version) --sync-writes=false"
    echo "own-keys: each connection asks for keys of its core, as a cluster-aware client does; any-keys: for keys of all cores"
    : >"$work/rows"
    for ((round = 1; round <= rounds; round++)); do
        note "cores: round $round of $rounds"
        for cores in 1 2; do
            cpus=$server_cpu
            ((cores == 1)) || cpus="$server_cpu,$load_cpu"
            start_eyot cores "$eyot_port" "$resp_port" "$cpus" --cores "$cores" --sync-writes=false
            preload "$resp_port" resp
            for operation in GET SET; do
                for pipeline in 1 16 64; do
                    for share in own any; do
                        measure_cores "$share" "$operation" "$pipeline" "$cores" "$cpus" "$started"
                    done
                done
            done
            stop_all
            rm -rf "$work/cores"
        done
    done
    print_table 1-core
    for operation in GET-own-keys SET-own-keys; do
        for pipeline in 1 16 64; do
            goal "$operation" "$pipeline" 2-cores 1-core rate at-least 1.8
            goal "$operation" "$pipeline" 2-cores 1-core cpu at-most 1.10
        done
    done
}

# measure_cores own|any OPERATION PIPELINE CORES CPUS PID
measure_cores() {
    local ratio=0:1 options=()
    [[ $2 == GET ]] || ratio=1:0
    [[ $1 == any ]] || options=(--foreign-share 0)
    drive "$resp_port" resp --cpu "$5" --threads "$4" --clients $((25 * $4)) --pipeline "$3" --ratio "$ratio" \
        --duration "$duration" --warmup 1s --server-pid "$6" "${options[@]}"
    row_of_load cores "$2-$1-keys" "$3" "$4-core$( (($4 == 1)) || echo s)"
}

# growing TITLE PORT FIRST_KEY REQUESTS: the slowest replies of so many SETs at a fixed rate.
growing() {
    load "$2" resp --clients "$clients" --pipeline 16 --keys 10000000 --value-size "$value_size" --ratio 1:0 \
        --distribution "sequential:$3" --requests "$4" --warmup 0s --rate "$growth_rate"
    printf '%-34s %12.0f %9.0f %9.0f %9.0f %9.0f %9.0f\n' "$1" "$(total rate_per_s)" "$(figure p50_us)" "$(figure p99_us)" \
        "$(figure p99_9_us)" "$(figure p99_99_us)" "$(figure max_us)"
}

bench_memory() {
    local few=1000000 many=10000000 name port server
    echo "== memory: items of 16-byte keys and $value_size-byte values, no expiry"
    echo "machine: $(machine)"
    echo "versions: eyot $(eyot_version) --sync-writes=false; redis-server $(redis_version), no append-only file"
    echo "(overwriting is the same load without growth: what is slow there as well is not the table's)"
    : >"$work/rows"
    printf '%-34s %12s %9s %9s %9s %9s %9s\n' "SETs at $growth_rate/s" ops/s "p50 us" "p99 us" "p99.9 us" "p99.99 us" "max us"
    for name in eyot redis; do
        if [[ $name == eyot ]]; then
            port=$resp_port
            start_eyot eyot "$eyot_port" "$resp_port" "$server_cpu" --sync-writes=false
        else
            port=$redis_port
            start_redis redis "$redis_port" --appendonly no
        fi
        server=$started
        read_empty "$port" resp "$server"
        fill "$port" resp "$server" 0 "$few"
        row_of_load "$few items" SET 64 "$name" "$(growth_per_item "$server" "$few")"
        growing "$name, growing from 1M to 10M" "$port" "$few" $((many - few))
        settle "$port" resp "$many"
        row "$many items" SET 16 "$name" - - - - - "$(growth_per_item "$server" "$many")"
        growing "$name, overwriting" "$port" "$few" $((many - few))
        stop_all
        rm -rf "${work:?}/$name"
    done
    print_table redis
    goal SET 16 eyot redis bytes at-most 0.75
}

bench_large() {
    local mib=64 before after
    echo "== large: a value of $mib MiB over RESP, against a bare pair of sockets (one client, blocking, values in turn)"
    echo "machine: $(machine)"
    cargo build --quiet --release --locked -p eyot-loadgen --example large_value
    start_eyot large "$eyot_port" "$resp_port" "$server_cpu" --sync-writes=false --max-value-size 128MiB
    before=$(status_kib "$started" RssAnon)
    attended "$bin/examples/large_value" "127.0.0.1:$resp_port" "$mib" 30 "$server_cpu" "$load_cpu" >"$work/large.txt" ||
        fail "large_value failed"
    after=$(status_kib "$started" RssAnon)
    awk 'BEGIN { printf "%-8s %-4s %10s %12s %14s\n", "who", "op", "best MB/s", "median MB/s", "ratio to pair" }
        { printf "%-8s %-4s %10.0f %12.0f %14.2f\n", $1, $2, $3, $4, $5 }' "$work/large.txt"
    echo "the server's memory, mapped files not counted, grew by $(((after - before) / 1024)) MiB"
    awk '$1 == "server" { printf "goal: %s by the pair: %.2f, at least 0.6: %s\n", $2, $5, ($5 >= 0.6 ? "met" : "MISSED") }' \
        "$work/large.txt"
    echo "goal: memory $(((after - before) / 1024)) MiB, below 10: $( ((after - before < 10240)) && echo met || echo MISSED)"
    stop_all
}

bench_forward() {
    echo "== forward: two cores, GET at pipeline 16; share of the keys that the connection's core does not own"
    echo "(the load shares the processors with the two cores; the CPU per operation is the server's alone)"
    start_eyot forward "$eyot_port" "$resp_port" "$server_cpu,$load_cpu" --cores 2
    local server=$started
    keys=100000
    preload "$eyot_port" native
    printf '%6s %12s %10s %14s\n' share ops/s "CPU us/op" "ratio to local"
    for _ in $(seq "$rounds"); do
        local first=
        for share in 0 0.5 1; do
            "$bin/eyot-loadgen" --address "127.0.0.1:$eyot_port" --clients "$clients" --pipeline 16 --ratio 0:1 --keys "$keys" \
                --value-size "$value_size" --foreign-share "$share" --duration "$duration" --warmup 1s --server-pid "$server" \
                --quiet --json "$work/report.json" >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
            first=${first:-$(figure cpu_us_per_operation)}
            awk -v share="$share" -v rate="$(total rate_per_s)" -v cpu="$(figure cpu_us_per_operation)" -v first="$first" \
                'BEGIN { printf "%6s %12.0f %10.3f %14.2f\n", share, rate, cpu, cpu / first }'
        done
    done
    echo "with shard-map routing:"
    local before after
    before=$(forwarded)
    "$bin/eyot-loadgen" --address "127.0.0.1:$eyot_port" --clients 20 --pipeline 16 --keys "$keys" --route --requests 1000000 \
        --warmup 0s --quiet --json "$work/report.json" >"$work/load.log" 2>&1 || fail "$(cat "$work/load.log")"
    after=$(forwarded)
    echo "  $(total requests) requests, of which $((after - before)) went to a core that does not own the key"
    stop_all
}

forwarded() {
    "$bin/eyot" --address "127.0.0.1:$eyot_port" stats | grep -o '"forwarded": *[0-9]*' | grep -o '[0-9]*' | awk '{ sum += $1 } END { print sum }'
}

bench_recovery() {
    echo "== recovery: 2,000,000 entries, one core; the second start has the page cache warm"
    start_eyot recovery "$eyot_port" "$resp_port" "$server_cpu" --sync-writes=false
    keys=2000000
    preload "$eyot_port" native
    stop_all
    for number in first second third; do
        start_eyot recovery "$eyot_port" "$resp_port" "$server_cpu" --log-level info
        echo "$number start: $(grep -o 'recovered at.*' "$work/recovery.log" | sed 's/\x1b\[[0-9;]*m//g')"
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
    # The connections never say a word, which no client does.
    start_eyot idle "$eyot_port" "$resp_port" "$server_cpu" --max-connections 6000 --handshake-timeout 0
    local server=$started seconds=10 ticks rss before after
    ulimit -n "$(ulimit -Hn)"
    keys=100000
    preload "$eyot_port" native
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
        drive "$eyot_port" native --clients 20 --rate 20000 --ratio 0:1 --duration "$duration" --warmup 1s
        before="$(figure p50_us) $(figure p99_us) $(figure p99_9_us) $(($(status_kib "$server" VmRSS) / 1024))"
        exec {socket}<>"/dev/tcp/127.0.0.1/$eyot_port"
        (while :; do cat "$work/frames"; done >&"$socket") 2>/dev/null &
        local greedy=$!
        sleep 0.5
        drive "$eyot_port" native --clients 20 --rate 20000 --ratio 0:1 --duration "$duration" --warmup 1s
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
for argument in "${@:-resp}"; do
    case $argument in
        -h | --help)
            usage
            exit 0
            ;;
        resp | requests | cores | memory | large | forward | recovery | idle | codec) measurements+=("$argument") ;;
        all) measurements+=(codec resp requests cores memory large forward recovery idle) ;;
        *)
            echo "bench: unknown measurement $argument; see --help" >&2
            exit 2
            ;;
    esac
done
prepare
./scripts/setup.sh --bench
note "building"
build
cargo build --quiet --release --locked -p eyot-ring --example floor
need_disk 8
for measurement in "${measurements[@]}"; do
    "bench_$measurement"
    echo
done
