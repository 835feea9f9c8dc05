#!/usr/bin/env bash
# What snapshots cost and give, measured in one run: latency and memory while the database is saved, size and time beside
# JSON lines and redis-server's BGSAVE, one core and two, a restart, a restore, and the disk under a steady overwrite.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/bench_snapshot.sh [latency | save | sizes | disk | all]     default: all

  latency ITEMS entries of 20-byte keys and 100-byte values: `eyot snapshot save` beside a load at half of its peak rate,
          with each write on disk before its reply, and without
  save    the same entries: the file's size and time beside JSON lines and redis-server's BGSAVE; kill -9 and ROUNDS starts; one core and
          two, and two nodes of one core each at once, which is what the machine allows; restore into an empty node, and both nodes'
          exports compared
  sizes   a tenth as many entries with random values, printable ones and binary ones: the snapshot's size beside that of
          JSON lines, plain and with --compress zstd
  disk    1 GiB of keys overwritten until 10 GiB were written: what the data directory holds at most, with the defaults and with smaller
          shards and segments

environment: ITEMS=10000000 ROUNDS=5 SERVER_CPU=0 LOAD_CPU=1 DISK_ARGUMENTS= (eyot-server's, for disk)
exit codes: 0 measured, 1 something failed, 2 wrong usage, 3 this machine lacks what is needed
HELP
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly script=bench_snapshot
readonly items=${ITEMS:-10000000} rounds=${ROUNDS:-5} server_cpu=${SERVER_CPU:-0} load_cpu=${LOAD_CPU:-1}
readonly clients=50 value_size=100 prefix=snapshot
readonly eyot_port=17480 resp_port=17500 other_port=17510 other_resp_port=17520 redis_port=17371
readonly beside_port=17530 beside_resp_port=17540
read -ra disk_arguments <<<"${DISK_ARGUMENTS-}"
readonly disk_arguments
# shellcheck source=scripts/measure.sh
source scripts/measure.sh

# drive PORT WIRE ARGUMENT...
drive() {
    local port=$1 wire=$2
    shift 2
    load "$port" "$wire" --clients "$clients" --keys "$items" --key-prefix "$prefix" --value-size "$value_size" "$@"
}

fill_all() {
    drive "$1" "$2" --pipeline 64 --ratio 1:0 --distribution sequential:0 --requests "$items" --warmup 0s
}

now_ms() {
    date +%s%3N
}

# seconds FROM_MS: since then.
seconds() {
    awk -v ms="$(($(now_ms) - $1))" 'BEGIN { printf "%.2f", ms / 1000 }'
}

# goal WHAT VALUE SENSE BOUND
goal() {
    awk -v what="$1" -v value="$2" -v sense="$3" -v bound="$4" 'BEGIN {
        met = sense == "at least" ? value >= bound : value <= bound
        printf "goal: %s: %s, %s %s: %s\n", what, value, sense, bound, met ? "met" : "MISSED"
    }'
}

peak_kib() {
    sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# last_round LOG: milliseconds of the slowest core's last round of snapshots.
last_round() {
    grep -o 'snapshots of all shards are on disk.*elapsed_ms=[0-9]*' "$1" | tail -n "${2:-1}" |
        sed 's/.*elapsed_ms=//' | sort -n | tail -n 1
}

start_node() {
    start_eyot "$@" --log-level info
}

# median FILE: of the numbers in it.
median() {
    sort -n "$1" | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'
}

# Rounds alternate, since what else uses machine and disk shows most in the highest latencies. The client that saves has
# only the time that the load leaves, and writes to memory: it stands for one on another machine.
save_beside_load() {
    local peak half before after data_kib round server=$started file=$memory/db.eyot
    drive "$eyot_port" native --pipeline 16 --ratio 1:1 --duration 5s --warmup 1s
    peak=$(total rate_per_s)
    half=$(awk -v peak="$peak" 'BEGIN { printf "%d", peak / 2 }')
    echo "peak $(printf %.0f "$peak") requests a second (1:1, pipeline 16), half of it $half"
    : >"$work/quiet" && : >"$work/busy" && : >"$work/more"
    for ((round = 0; round < rounds; round++)); do
        drive "$eyot_port" native --pipeline 16 --ratio 1:1 --rate "$half" --duration 10s --warmup 0s
        figure p99_us >>"$work/quiet"
        before=$(rss_kib "$server")
        echo 5 >"/proc/$server/clear_refs"
        taskset -c "$load_cpu" chrt --idle 0 "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save "$file" \
            >"$work/save.txt" 2>&1 &
        local saving=$!
        drive "$eyot_port" native --pipeline 16 --ratio 1:1 --rate "$half" --duration 10s --warmup 0s
        figure p99_us >>"$work/busy"
        after=$(peak_kib "$server")
        wait "$saving" || fail "save failed: $(cat "$work/save.txt")"
        echo $((after - before)) >>"$work/more"
        rm "$file"
    done
    data_kib=$((items * 120 / 1024))
    echo "p99 in us: quiet $(tr '\n' ' ' <"$work/quiet")| beside save $(tr '\n' ' ' <"$work/busy")"
    echo "more memory while saving, in KiB: $(tr '\n' ' ' <"$work/more")of $before KiB"
    goal "p99 beside a save by the quiet one (medians)" \
        "$(awk -v a="$(median "$work/busy")" -v b="$(median "$work/quiet")" 'BEGIN { printf "%.2f", a / b }')" "at most" 2
    goal "memory that a save takes, of the data (median)" \
        "$(awk -v a="$(median "$work/more")" -v d="$data_kib" 'BEGIN { printf "%.3f", a / d }')" "at most" 0.05
}

sizes_and_times() {
    local began created saved exported lines bytes
    began=$(now_ms)
    "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot create >/dev/null 2>&1
    created=$(seconds "$began")
    began=$(now_ms)
    "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save "$work/db.eyot" >/dev/null 2>&1
    saved=$(seconds "$began")
    began=$(now_ms)
    "$bin/eyot" snapshot export --format jsonl -o "$work/db.jsonl" "$work/db.eyot" >/dev/null 2>&1
    exported=$(seconds "$began")
    bytes=$(stat -c %s "$work/db.eyot") lines=$(stat -c %s "$work/db.jsonl")
    echo "create $created s, save $saved s ($bytes bytes), JSON lines of it $exported s ($lines bytes)"
    head -c 300 "$work/db.jsonl" | head -n 1
    goal "size by that of the JSON lines" "$(awk -v a="$bytes" -v b="$lines" 'BEGIN { printf "%.3f", a / b }')" "at most" 0.9
    sha256sum "$work/db.jsonl" | cut -c1-16 >"$work/jsonl.sha"
    rm "$work/db.jsonl" "$work/db.eyot"
}

# await_free PORT: a process that was killed has ended before its ring has: until then its socket listens.
await_free() {
    local tenths
    for ((tenths = 0; tenths < start_patience_s * 10; tenths++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
        sleep 0.1
    done
    fail "port $1 is not free after $start_patience_s s"
}

# note_disk_rate: MB a second of one writer that passes the page cache by, as snapshots do.
note_disk_rate() {
    local began
    began=$(now_ms)
    dd if=/dev/zero of="$work/disk_rate" bs=512K count=2048 oflag=direct status=none
    awk -v ms="$(($(now_ms) - began))" 'BEGIN { printf "%.0f\n", 1073.741824 / ms * 1000 }' >>"$work/disk.rates"
    rm "$work/disk_rate"
}

# create NAME PORT CORES: a snapshot of all shards; its milliseconds go to $work/NAME.ms.
create() {
    "$bin/eyot" --address "127.0.0.1:$2" snapshot create >"$work/$1.create" 2>&1 ||
        fail "create failed: $(cat "$work/$1.create")"
    last_round "$work/$1.log" "$3" >>"$work/$1.ms" || fail "node $1 tells of no round"
}

# Every shard changes, or its snapshot would be there already.
change_all() {
    local port
    for port in "$eyot_port" "$other_port" "$beside_port"; do
        drive "$port" native --pipeline 16 --ratio 1:0 --requests 10000 --warmup 0s
    done
}

restarts() {
    local round
    : >"$work/starts.txt"
    for ((round = 0; round < rounds; round++)); do
        kill -KILL "$started"
        wait "$started" 2>/dev/null || true
        pids=()
        await_free "$eyot_port"
        start_node one "$eyot_port" "$resp_port" "$server_cpu" --cores 1
        grep -o 'recovered at [0-9]* entries a second' "$work/one.log" | tail -n 1 | grep -o '[0-9]*' >>"$work/starts.txt"
    done
    echo "$rounds starts after kill -9, entries a second on one core: $(tr '\n' ' ' <"$work/starts.txt")"
    goal "entries a second and core at a start (median)" "$(median "$work/starts.txt")" "at least" 2000000
    drive "$eyot_port" native --pipeline 16 --ratio 1:0 --requests 10000 --warmup 0s
    stop_all
    await_free "$eyot_port"
}

same_bytes() {
    local name
    create one "$eyot_port" 1
    create two "$other_port" 2
    "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save "$work/one.eyot" >/dev/null 2>&1
    "$bin/eyot" --address "127.0.0.1:$other_port" snapshot save "$work/two.eyot" >/dev/null 2>&1
    for name in one two; do
        echo "SHA-256 of the file, node $name: $(sha256sum "$work/$name.eyot" | cut -c1-16)"
    done
    cmp "$work/one.eyot" "$work/two.eyot"
    echo "goal: the same bytes from one core and two: met"
    rm "$work/two.eyot"
}

# cores_compared: of three nodes with the same entries one has one core, one both processors, and the third the processor
# that the first leaves: what the first and the third take at once is what this machine allows two cores. Everything
# alternates, and so do the JSON lines: of the file that was saved, and of the node, which has to be saved first.
cores_compared() {
    local round began exported saved
    : >"$work/both.ms" && : >"$work/exported.ms" && : >"$work/of_node.ms" && : >"$work/disk.rates"
    for ((round = 0; round < rounds; round++)); do
        change_all
        note_disk_rate
        create one "$eyot_port" 1
        create two "$other_port" 2
        change_all
        create beside "$beside_port" 1 &
        local besides=$!
        create one_of_two "$eyot_port" 1
        wait "$besides"
        tail -qn 1 "$work/one_of_two.ms" "$work/beside.ms" | sort -n | tail -n 1 >>"$work/both.ms"
        began=$(now_ms)
        "$bin/eyot" --address "127.0.0.1:$other_port" snapshot save "$work/two.eyot" >/dev/null 2>&1
        saved=$(($(now_ms) - began)) began=$(now_ms)
        "$bin/eyot" snapshot export --format jsonl -o "$work/two.jsonl" "$work/two.eyot" >/dev/null 2>&1
        exported=$(($(now_ms) - began))
        echo "$exported" >>"$work/exported.ms"
        echo "$((saved + exported))" >>"$work/of_node.ms"
        rm "$work/two.eyot" "$work/two.jsonl"
    done
}

# by_median WHAT NUMERATOR DENOMINATOR BOUND [FACTOR]: a goal for the ratio of two files' medians.
by_median() {
    goal "$1" "$(awk -v a="$(median "$2")" -v b="$(median "$3")" -v f="${5:-1}" 'BEGIN { printf "%.2f", f * a / b }')" "at least" "$4"
}

restart_and_cores() {
    local name
    restarts
    for name in two beside; do
        cp -a "$work/one" "$work/$name"
    done
    start_node one "$eyot_port" "$resp_port" "$server_cpu" --cores 1
    ln -sf one.log "$work/one_of_two.log"
    start_node two "$other_port" "$other_resp_port" "$server_cpu,$load_cpu" --cores 2
    start_node beside "$beside_port" "$beside_resp_port" "$load_cpu" --cores 1
    same_bytes
    rm "$work/one.ms" "$work/two.ms"
    cores_compared
    for name in one two both; do
        echo "snapshots of all shards, ms, $name: $(tr '\n' ' ' <"$work/$name.ms")"
    done
    echo "JSON lines, ms: of the saved file $(tr '\n' ' ' <"$work/exported.ms")| of the node, saved first $(tr '\n' ' ' <"$work/of_node.ms")"
    echo "the disk takes $(tr '\n' ' ' <"$work/disk.rates")MB a second of one writer, a snapshot of $(stat -c %s "$work/one.eyot") bytes"
    by_median "one core's time by that of two" "$work/one.ms" "$work/two.ms" 1.7
    echo "what the machine allows: two nodes of one core each, at once, do $(awk -v a="$(median "$work/one.ms")" \
        -v b="$(median "$work/both.ms")" 'BEGIN { printf "%.2f", 2 * a / b }') times what one does"
    by_median "time of the JSON lines of the node by that of its snapshot, two cores" "$work/of_node.ms" "$work/two.ms" 8
    by_median "the same, JSON lines of a file that is there" "$work/exported.ms" "$work/two.ms" 8
    by_median "the same, one core" "$work/exported.ms" "$work/one.ms" 8
    stop_all
    for name in "$eyot_port" "$other_port" "$beside_port"; do
        await_free "$name"
    done
    rm -rf "$work/one" "$work/two" "$work/beside"
}

restore_and_compare() {
    local began
    start_node other "$other_port" "$other_resp_port" "$server_cpu" --cores 1 --sync-writes=false
    began=$(now_ms)
    taskset -c "$load_cpu" "$bin/eyot" --address "127.0.0.1:$other_port" snapshot restore "$work/one.eyot" >"$work/restore.txt" 2>&1 ||
        fail "restore failed: $(cat "$work/restore.txt")"
    echo "restored in $(seconds "$began") s"
    "$bin/eyot" --address "127.0.0.1:$other_port" snapshot save "$work/other.eyot" >/dev/null 2>&1
    "$bin/eyot" snapshot export --format jsonl -o "$work/other.jsonl" "$work/other.eyot" >/dev/null 2>&1
    echo "digest of all entries: saved $(cat "$work/jsonl.sha"), restored $(sha256sum "$work/other.jsonl" | cut -c1-16)"
    [[ $(cat "$work/jsonl.sha") == $(sha256sum "$work/other.jsonl" | cut -c1-16) ]] || fail "the restored node holds something else"
    echo "goal: all equal after save, kill, restore: met"
    stop_all
    rm -rf "$work/other" "$work/other.jsonl" "$work/other.eyot" "$work/one.eyot"
}

redis_beside() {
    local before bytes
    start_redis redis "$redis_port" --appendonly no --dbfilename db.rdb --rdbcompression no
    fill_all "$redis_port" resp
    before=$(rss_kib "$started")
    redis-cli -p "$redis_port" bgsave >/dev/null
    while redis-cli -p "$redis_port" info persistence | grep -q 'rdb_bgsave_in_progress:1'; do sleep 0.2; done
    bytes=$(stat -c %s "$work/redis/db.rdb")
    echo "redis-server BGSAVE: $(redis-cli -p "$redis_port" info persistence | tr -d '\r' | sed -n 's/rdb_last_bgsave_time_sec://p') s," \
        "$bytes bytes, copied on write $(redis-cli -p "$redis_port" info persistence | tr -d '\r' | sed -n 's/rdb_last_cow_size://p') bytes" \
        "of $before KiB (without load)"
    stop_all
    rm -rf "$work/redis"
}

bench_latency() {
    local sync
    echo "== latency: $items entries of 20-byte keys and $value_size-byte values"
    echo "machine: $(machine)"
    for sync in true false; do
        start_node latency "$eyot_port" "$resp_port" "$server_cpu" --cores 1 --sync-writes="$sync"
        echo "eyot $(eyot_version) --sync-writes=$sync"
        fill_all "$eyot_port" native
        save_beside_load
        stop_all
        await_free "$eyot_port"
        rm -rf "$work/latency"
    done
}

bench_save() {
    echo "== save: $items entries of 20-byte keys and $value_size-byte values"
    echo "machine: $(machine)"
    echo "versions: eyot $(eyot_version), every write on disk before its reply; redis-server $(redis_version)"
    start_node one "$eyot_port" "$resp_port" "$server_cpu" --cores 1
    fill_all "$eyot_port" native
    sizes_and_times
    restart_and_cores
    restore_and_compare
    redis_beside
}

# random_values KIND COUNT: SET commands with values of as many random bytes, printable or any, for redis-cli --pipe.
random_values() {
    python3 - "$1" "$2" "$value_size" "$prefix" <<'PYTHON'
import base64, random, sys
kind, count, size, prefix = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
dice = random.Random(1)
out = sys.stdout.buffer
for number in range(count):
    key = f"{prefix}{number:0{20 - len(prefix)}d}".encode()
    value = dice.randbytes(size)
    if kind == "printable":
        value = base64.b64encode(value)[:size]
    out.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, size, value))
PYTHON
}

bench_sizes() {
    local kind bound bytes lines packed count=$((items / 10))
    echo "== sizes: $count entries of 20-byte keys and $value_size-byte random values"
    for kind in printable binary; do
        [[ $kind == printable ]] && bound=0.9 || bound=0.7
        start_node "$kind" "$eyot_port" "$resp_port" "$server_cpu" --cores 1
        random_values "$kind" "$count" | redis-cli -p "$resp_port" --pipe >/dev/null
        "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save "$work/db.eyot" >/dev/null 2>&1
        "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save --compress zstd "$work/db.zstd.eyot" >/dev/null 2>&1
        "$bin/eyot" snapshot export --format jsonl -o "$work/db.jsonl" "$work/db.eyot" >/dev/null 2>&1
        bytes=$(stat -c %s "$work/db.eyot") lines=$(stat -c %s "$work/db.jsonl") packed=$(stat -c %s "$work/db.zstd.eyot")
        echo "$kind values: snapshot $bytes bytes, compressed $packed, JSON lines $lines"
        goal "$kind values: size by that of the JSON lines" \
            "$(awk -v a="$bytes" -v b="$lines" 'BEGIN { printf "%.3f", a / b }')" "at most" "$bound"
        goal "$kind values, compressed: size by that of the snapshot" \
            "$(awk -v a="$packed" -v b="$bytes" 'BEGIN { printf "%.3f", a / b }')" "at most" 1
        stop_all
        await_free "$eyot_port"
        rm -rf "${work:?}/$kind" "$work"/db.*
    done
}

# disk_use ARGUMENT...: the directory is looked at four times a second.
disk_use() {
    local data=$((1 << 30)) now keys=$(((1 << 30) / 1036))
    echo "eyot-server ${*:-with its defaults}"
    start "disk" "$eyot_port" env EYOT_LOG_LEVEL=warn taskset -c "$server_cpu" "$bin/eyot-server" --address "127.0.0.1:$eyot_port" \
        --resp-address "127.0.0.1:$resp_port" --data-dir "$work/disk" --cores 1 "$@"
    load "$eyot_port" native --clients "$clients" --keys "$keys" --key-prefix '' --value-size 1024 --pipeline 16 --ratio 1:0 \
        --distribution sequential:0 --requests "$keys" --warmup 0s
    load "$eyot_port" native --clients "$clients" --keys "$keys" --key-prefix '' --value-size 1024 --pipeline 16 --ratio 1:0 \
        --rate 40000 --requests $((keys * 9)) --warmup 0s &
    local loading=$!
    : >"$work/used"
    while kill -0 "$loading" 2>/dev/null; do
        # A file may get another name while it is looked at.
        now=$(du -sb "$work/disk" 2>/dev/null | cut -f1) || true
        [[ -z $now ]] || echo "$now" >>"$work/used"
        sleep 0.25
    done
    wait "$loading"
    echo "data directory by the data, median: $(awk -v a="$(median "$work/used")" -v b="$data" 'BEGIN { printf "%.2f", a / b }')"
    goal "largest data directory by the data" "$(awk -v a="$(sort -n "$work/used" | tail -n 1)" -v b="$data" \
        'BEGIN { printf "%.2f", a / b }')" "at most" 2.5
    stop_all
    await_free "$eyot_port"
    rm -rf "$work/disk"
}

# With the defaults, and as OPERATIONS.md says where the disk is small.
bench_disk() {
    echo "== disk: 1 GiB of keys (12 bytes and 1,024), overwritten until 10 GiB were written"
    echo "machine: $(machine)"
    if ((${#disk_arguments[@]} > 0)); then
        disk_use "${disk_arguments[@]}"
    else
        disk_use
        disk_use --shards 8 --wal-segment-size 16MiB
    fi
}

measurements=()
for argument in "${@:-all}"; do
    case $argument in
        -h | --help)
            usage
            exit 0
            ;;
        latency | save | sizes | disk) measurements+=("$argument") ;;
        all) measurements+=(latency save sizes disk) ;;
        *)
            echo "bench_snapshot: unknown measurement $argument; see --help" >&2
            exit 2
            ;;
    esac
done
prepare
memory=$(mktemp -d /dev/shm/eyot-snapshot.XXXXXX)
readonly memory
trap 'stop_all; rm -rf "$work" "$memory"' EXIT
./scripts/setup.sh --bench
note "building"
build
need_disk 14
for measurement in "${measurements[@]}"; do
    "bench_$measurement"
    echo
done
