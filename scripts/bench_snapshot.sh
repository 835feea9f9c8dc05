#!/usr/bin/env bash
# What snapshots cost and give, measured in one run: latency and memory while the database is saved, size and time beside
# JSON lines and redis-server's BGSAVE, one core and two, a restart, a restore, and the disk under a steady overwrite.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/bench_snapshot.sh [latency | save | sizes | disk | all]     default: all

  latency ITEMS entries of 20-byte keys and 100-byte values: `eyot snapshot save` beside a load at half of its peak rate,
          with each write on disk before its reply, and without
  save    the same entries: the file's size and time beside JSON lines and redis-server's BGSAVE; kill -9 and a start; restore into an empty
          node, and both nodes' exports compared; one core and two
  sizes   a tenth as many entries with random values, printable ones and binary ones: the snapshot's size beside that of
          JSON lines, plain and with --compress zstd
  disk    1 GiB of keys overwritten until 10 GiB were written: what the data directory holds at most

environment: ITEMS=10000000 ROUNDS=5 SERVER_CPU=0 LOAD_CPU=1 DISK_ARGUMENTS= (more of eyot-server, for disk)
exit codes: 0 measured, 1 something failed, 2 wrong usage, 3 this machine lacks what is needed
HELP
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly script=bench_snapshot
readonly items=${ITEMS:-10000000} rounds=${ROUNDS:-5} server_cpu=${SERVER_CPU:-0} load_cpu=${LOAD_CPU:-1}
readonly clients=50 value_size=100 prefix=snapshot
readonly eyot_port=17480 resp_port=17500 other_port=17510 other_resp_port=17520 redis_port=17371
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
    goal "time of the JSON lines by that of the snapshot (create)" \
        "$(awk -v a="$exported" -v b="$created" 'BEGIN { printf "%.2f", a / b }')" "at least" 8
    goal "the same, from the running node (save and export)" \
        "$(awk -v a="$exported" -v s="$saved" -v b="$created" 'BEGIN { printf "%.2f", (s + a) / b }')" "at least" 8
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

# create_and_save NAME CORES: a snapshot of all shards, which have changed since the last one, and a file of them in
# memory; sets `took_ms` and `saved_ms`.
create_and_save() {
    local began
    "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot create >/dev/null 2>&1
    took_ms=$(last_round "$work/$1.log" "$2")
    began=$(now_ms)
    "$bin/eyot" --address "127.0.0.1:$eyot_port" snapshot save "$memory/$1.eyot" >/dev/null 2>&1
    saved_ms=$(($(now_ms) - began))
    stop_all
    await_free "$eyot_port"
}

restart_and_cores() {
    local began one two line exported
    kill -KILL "$started"
    wait "$started" 2>/dev/null || true
    await_free "$eyot_port"
    began=$(now_ms)
    start_node one "$eyot_port" "$resp_port" "$server_cpu" --cores 1
    line=$(grep -o 'recovered at [0-9]* entries a second' "$work/one.log" | tail -n 1 | grep -o '[0-9]*')
    echo "start after kill -9: $(seconds "$began") s, $line entries a second on one core"
    goal "entries a second and core at a start" "$line" "at least" 2000000
    # Every shard changes, or its snapshot would be there already; then one and the same state is snapshotted twice.
    drive "$eyot_port" native --pipeline 16 --ratio 1:0 --requests 10000 --warmup 0s
    stop_all
    await_free "$eyot_port"
    # In memory, where no disk is the limit.
    cp -a "$work/one" "$memory/two"
    mv "$work/one" "$memory/one"
    ln -s "$memory/one" "$memory/two" "$work/"
    start_node one "$eyot_port" "$resp_port" "$server_cpu" --cores 1
    create_and_save one 1
    one=$took_ms
    start_node two "$eyot_port" "$resp_port" "$server_cpu,$load_cpu" --cores 2
    create_and_save two 2
    two=$took_ms
    echo "snapshots of all shards: one core $one ms, two cores $two ms"
    goal "one core's time by that of two" "$(awk -v a="$one" -v b="$two" 'BEGIN { printf "%.2f", a / b }')" "at least" 1.7
    began=$(now_ms)
    "$bin/eyot" snapshot export --format jsonl -o "$memory/db.jsonl" "$memory/two.eyot" >/dev/null 2>&1
    exported=$(($(now_ms) - began))
    echo "in memory: JSON lines of the saved file $exported ms, saving it $saved_ms ms"
    goal "in memory, time of the JSON lines (of a file) by that of the snapshot, one core" \
        "$(awk -v a="$exported" -v b="$one" 'BEGIN { printf "%.2f", a / b }')" "at least" 8
    goal "the same, two cores" "$(awk -v a="$exported" -v b="$two" 'BEGIN { printf "%.2f", a / b }')" "at least" 8
    goal "the same, two cores, from the running node (save and export)" \
        "$(awk -v a="$exported" -v s="$saved_ms" -v b="$two" 'BEGIN { printf "%.2f", (a + s) / b }')" "at least" 8
    echo "SHA-256 of the file: one core $(sha256sum "$memory/one.eyot" | cut -c1-16), two $(sha256sum "$memory/two.eyot" | cut -c1-16)"
    cmp "$memory/one.eyot" "$memory/two.eyot" && echo "goal: the same bytes from one core and two: met"
    mv "$memory/one.eyot" "$work/"
    rm -rf "${memory:?}"/* "$work/one" "$work/two"
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

# bench_disk: the directory is looked at four times a second.
bench_disk() {
    local data=$((1 << 30)) most=0 now keys=$(((1 << 30) / 1036))
    echo "== disk: 1 GiB of keys (12 bytes and 1,024), overwritten until 10 GiB were written; ${disk_arguments[*]:-the defaults}"
    echo "machine: $(machine)"
    start "disk" "$eyot_port" env EYOT_LOG_LEVEL=warn taskset -c "$server_cpu" "$bin/eyot-server" --address "127.0.0.1:$eyot_port" \
        --resp-address "127.0.0.1:$resp_port" --data-dir "$work/disk" --cores 1 "${disk_arguments[@]}"
    load "$eyot_port" native --clients "$clients" --keys "$keys" --key-prefix '' --value-size 1024 --pipeline 16 --ratio 1:0 \
        --distribution sequential:0 --requests "$keys" --warmup 0s
    load "$eyot_port" native --clients "$clients" --keys "$keys" --key-prefix '' --value-size 1024 --pipeline 16 --ratio 1:0 \
        --rate 40000 --requests $((keys * 9)) --warmup 0s &
    local loading=$!
    while kill -0 "$loading" 2>/dev/null; do
        now=$(du -sb "$work/disk" 2>/dev/null | cut -f1)
        ((now <= most)) || most=$now
        sleep 0.25
    done
    wait "$loading"
    goal "largest data directory by the data" "$(awk -v a="$most" -v b="$data" 'BEGIN { printf "%.2f", a / b }')" "at most" 2.5
    stop_all
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
need_disk 12
for measurement in "${measurements[@]}"; do
    "bench_$measurement"
    echo
done
