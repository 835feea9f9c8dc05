#!/usr/bin/env bash
# Eyot beside Debian's redis-server and memcached on this machine, in one table: rates, latencies, CPU and memory.
#
# All servers are pinned to one processor and all load to another. They take turns within each round, and the table holds
# the medians over the rounds, because machines are shared and noisy. A rate is what one server core and one load thread
# reach together, so at a deep pipeline it is often the client's; the server's CPU per operation is what a core can do.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: scripts/compare.sh [OPTION ...]

Installs what is missing, builds Eyot, measures, prints one table with ratios to redis.

measurements (--measurements LIST, default all):
  rate      GET and SET at each pipeline, replies from memory: the RESP servers driven by redis-benchmark, and all
            servers by eyot-loadgen
  load      GET and SET at the same rate for all servers (open loop: no coordinated omission)
  durable   SET where each reply waits for its bytes to be on disk (redis: appendfsync always), and where the log is
            synced in the background (redis: appendfsync everysec); by eyot-loadgen
  memory    resident memory that an item adds, at each of --sizes; the row's other figures are of the filling

options:
  --servers LIST        of eyot, eyot-native, redis, memcached   [eyot,redis,memcached]
                        eyot is driven over RESP, eyot-native over its own protocol
  --pipelines LIST      requests that a connection keeps outstanding   [1,16,64]
  --clients N           connections   [50]
  --keys N              uniformly random keys of 16 bytes, all present   [1000000]
  --value-size BYTES    [64]
  --sizes LIST          items, ascending, for memory   [1000000,10000000]
  --rate N              requests a second for load   [half of what the slowest server reaches at pipeline 1]
  --rounds N            [3]
  --duration SECONDS    of each run   [3]
  --server-cpu N        [0]
  --load-cpu N          [1]
  --quick               one round of half a second, 100,000 keys and items: shows that all works, not how fast it is
  --text FILE           the table here, too
  --json FILE           the figures, with units in their names, the machine and the settings
  --markdown FILE       a page with the table, the machine and the command: docs/BENCHMARKS.md is written so

exit codes: 0 measured, 1 something failed, 2 wrong usage, 3 this machine lacks what is needed
HELP
}

misused() {
    echo "compare: $*; see --help" >&2
    exit 2
}

servers=eyot,redis,memcached measurements=rate,load,durable,memory
pipelines=1,16,64 clients=50 keys=1000000 value_size=64 sizes=1000000,10000000
rounds=3 duration=3 warmup=1s rate='' server_cpu=0 load_cpu=1
text_file='' json_file='' markdown_file='' quick_warning=''
command_line="./scripts/compare.sh${*:+ $*}"

# number OPTION VALUE and the like: end the script where the value is none.
number() {
    [[ $2 =~ ^[0-9]{1,12}$ && $2 -gt 0 ]] || misused "$1 takes a number above 0, not \"$2\""
}

names() {
    local name
    for name in ${2//,/ }; do
        [[ " $3 " == *" $name "* ]] || misused "$1 knows $3, not \"$name\""
    done
    [[ -n $2 ]] || misused "$1 needs one of $3"
}

numbers() {
    [[ $2 =~ ^[0-9]{1,12}(,[0-9]{1,12})*$ ]] || misused "$1 takes numbers parted by commas, not \"$2\""
}

ascending() {
    local item last=0
    numbers "$@"
    for item in ${2//,/ }; do
        ((10#$item > last)) || misused "$1 takes ascending numbers above 0, not \"$2\""
        last=$((10#$item))
    done
}

file() {
    [[ -n $2 ]] || misused "$1 takes a file's name"
}

seconds() {
    [[ $2 =~ ^[0-9]{1,5}(\.[0-9]{1,3})?$ && $2 =~ [1-9] ]] || misused "$1 takes seconds above 0, not \"$2\""
}

processor() {
    [[ $2 =~ ^[0-9]{1,4}$ ]] || misused "$1 takes the number of a processor, not \"$2\""
}

while (($# > 0)); do
    option=$1
    case $option in
        -h | --help)
            usage
            exit 0
            ;;
        --quick)
            rounds=1 duration=0.5 warmup=200ms keys=100000 sizes=100000
            quick_warning="a --quick run: it shows that all works, not how fast it is"
            shift
            continue
            ;;
    esac
    # A missing value is looked at by the option, since an unknown one needs none.
    value=${2-}
    shift $(($# > 1 ? 2 : 1))
    case $option in
        --servers) servers=$value && names "$option" "$value" "eyot eyot-native redis memcached" ;;
        --measurements) measurements=$value && names "$option" "$value" "rate load durable memory" ;;
        --pipelines) pipelines=$value && numbers "$option" "$value" ;;
        --sizes) sizes=$value && ascending "$option" "$value" ;;
        --clients) clients=$value && number "$option" "$value" ;;
        --keys) keys=$value && number "$option" "$value" ;;
        --value-size) value_size=$value && number "$option" "$value" ;;
        --rate) rate=$value && number "$option" "$value" ;;
        --rounds) rounds=$value && number "$option" "$value" ;;
        --duration) duration=$value && seconds "$option" "$value" ;;
        --server-cpu) server_cpu=$value && processor "$option" "$value" ;;
        --load-cpu) load_cpu=$value && processor "$option" "$value" ;;
        --text) text_file=$value && file "$option" "$value" ;;
        --json) json_file=$value && file "$option" "$value" ;;
        --markdown) markdown_file=$value && file "$option" "$value" ;;
        *) misused "unknown argument \"$option\"" ;;
    esac
done

# Paths of the caller's, before the directory changes.
for name in text_file json_file markdown_file; do
    [[ -z ${!name} || ${!name} == /* ]] || printf -v "$name" '%s/%s' "$PWD" "${!name}"
    [[ -z ${!name} || -d $(dirname "${!name}") ]] || misused "there is no directory $(dirname "${!name}")"
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly script=compare
# shellcheck source=scripts/measure.sh
source scripts/measure.sh

readonly -A wire_of=([eyot]=resp [eyot-native]=native [redis]=resp [memcached]=memcached)
readonly -A port_of=([redis]=17470 [memcached]=17471 [eyot]=17480 [eyot-native]=17520)
# Eyot listens on both wires; the one that is not measured listens here. Its cores' ports are 100 above.
readonly -A other_port=([eyot]=17500 [eyot-native]=17540)
declare -A pid_of
# How long a run of redis-benchmark may take: its requests are chosen for --duration, on a machine that may be busy.
benchmark_patience_s=$((${duration%.*} * 20 + 60))
readonly benchmark_patience_s

# start_server NAME MODE: memory (nothing waits for the disk), always (each reply waits for it) or behind (synced in the
# background). Eyot always keeps its log; redis keeps one where it is to be synced.
start_server() {
    local name=$1 mode=$2 arguments=()
    case $name in
        eyot*)
            [[ $mode == always ]] || arguments+=(--sync-writes=false)
            if [[ $name == eyot ]]; then
                start_eyot "$name" "${other_port[$name]}" "${port_of[$name]}" "$server_cpu" "${arguments[@]}"
            else
                start_eyot "$name" "${port_of[$name]}" "${other_port[$name]}" "$server_cpu" "${arguments[@]}"
            fi
            ;;
        redis)
            case $mode in
                memory) arguments=(--appendonly no) ;;
                always) arguments=(--appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0) ;;
                behind) arguments=(--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0) ;;
            esac
            start_redis "$name" "${port_of[$name]}" "${arguments[@]}"
            ;;
        memcached) start_memcached "$name" "${port_of[$name]}" ;;
    esac
    pid_of[$name]=$started
}

# end_servers: ends them and deletes what they wrote, so that no round finds the logs of an earlier one.
end_servers() {
    stop_all
    for name in ${servers//,/ }; do
        rm -rf "${work:?}/$name"
    done
}

ratio_of() {
    if [[ $1 == GET ]]; then echo 0:1; else echo 1:0; fi
}

preload() {
    load "${port_of[$1]}" "${wire_of[$1]}" --clients "$clients" --keys "$keys" --value-size "$value_size" --preload \
        --requests 1 --warmup 0s
}

# drive NAME ARGUMENT...: eyot-loadgen on all keys, for one run's time.
drive() {
    local name=$1
    shift
    load "${port_of[$name]}" "${wire_of[$name]}" --clients "$clients" --keys "$keys" --value-size "$value_size" \
        --warmup "$warmup" --duration "${duration}s" --server-pid "${pid_of[$name]}" "$@"
}

# redis_benchmark NAME OPERATION PIPELINE REQUESTS: leaves its output in $work/benchmark.txt.
redis_benchmark() {
    # It would wait without end for a server that has died.
    attended timeout --kill-after=5 "$benchmark_patience_s" taskset -c "$load_cpu" redis-benchmark -h 127.0.0.1 -p "${port_of[$1]}" -t "${2,,}" -P "$3" -n "$4" \
        -c "$clients" -d "$value_size" -r "$keys" --precision 3 >"$work/benchmark.txt" 2>&1 ||
        fail "redis-benchmark against $1 failed, or took over $benchmark_patience_s s: $(tail -n 5 "$work/benchmark.txt")"
    # It overwrites its progress with carriage returns.
    sed -i 's/\r/\n/g' "$work/benchmark.txt"
    [[ -n $(benchmark_rate) ]] || fail "redis-benchmark printed no rate: $(tail -n 5 "$work/benchmark.txt")"
}

benchmark_rate() {
    sed -n 's/^ *throughput summary: \([0-9.]*\) requests per second.*/\1/p' "$work/benchmark.txt" | head -n 1
}

# The latency at which so many per cent were answered, in microseconds, of redis-benchmark's own distribution. It has no
# line for each per cent: the next one above counts.
benchmark_latency() {
    awk -v wanted="$1" '/^Latency by percentile/ { within = 1 } /^Cumulative distribution/ { within = 0 }
        within && $2 == "<=" && $1 + 0 >= wanted { print $3 * 1000; exit }' "$work/benchmark.txt"
}

# measure_with_redis_benchmark NAME OPERATION PIPELINE
measure_with_redis_benchmark() {
    local before used requests
    # It knows requests and no duration: a short run tells how many make one.
    redis_benchmark "$@" $((20000 * ($3 < 8 ? 1 : 5)))
    requests=$(awk -v rate="$(benchmark_rate)" -v s="$duration" 'BEGIN { printf "%.0f", rate * s + 1 }')
    before=$(cpu_us "${pid_of[$1]}")
    redis_benchmark "$@" "$requests"
    used=$(($(cpu_us "${pid_of[$1]}") - before))
    row redis-benchmark "$2" "$3" "$1" "$(benchmark_rate)" "$(benchmark_latency 50)" "$(benchmark_latency 99)" \
        "$(benchmark_latency 99.9)" "$(awk -v us="$used" -v n="$requests" 'BEGIN { print us / n }')" -
}

measure_rate() {
    local round operation pipeline name
    for ((round = 1; round <= rounds; round++)); do
        note "rate: round $round of $rounds"
        for name in ${servers//,/ }; do
            start_server "$name" memory
            preload "$name"
        done
        for operation in GET SET; do
            for pipeline in ${pipelines//,/ }; do
                for name in ${servers//,/ }; do
                    [[ ${wire_of[$name]} != resp ]] || measure_with_redis_benchmark "$name" "$operation" "$pipeline"
                done
            done
        done
        for operation in GET SET; do
            for pipeline in ${pipelines//,/ }; do
                for name in ${servers//,/ }; do
                    drive "$name" --pipeline "$pipeline" --ratio "$(ratio_of "$operation")"
                    row_of_load eyot-loadgen "$operation" "$pipeline" "$name"
                done
            done
        done
        end_servers
    done
}

# Half of what the slowest server reaches, so that none of them has a queue; a number that reads well.
choose_rate() {
    local name slowest=
    for name in ${servers//,/ }; do
        drive "$name" --pipeline 1 --ratio 1:0
        slowest=$(awk -v a="$(total rate_per_s)" -v b="${slowest:-1e12}" 'BEGIN { printf "%.0f", (a < b ? a : b) }')
    done
    rate=$((slowest / 2))
    ((rate < 1000)) || rate=$((rate - rate % 1000))
    ((rate > 0)) || fail "the slowest server answers too slowly to offer load to it"
}

measure_load() {
    local round operation name
    for ((round = 1; round <= rounds; round++)); do
        for name in ${servers//,/ }; do
            start_server "$name" memory
            preload "$name"
        done
        [[ -n $rate ]] || choose_rate
        note "load: round $round of $rounds, $rate requests a second"
        for operation in GET SET; do
            for name in ${servers//,/ }; do
                drive "$name" --pipeline 1 --ratio "$(ratio_of "$operation")" --rate "$rate"
                row_of_load "open loop, $rate/s" "$operation" 1 "$name"
            done
        done
        end_servers
    done
}

measure_durable() {
    local round mode pipeline name
    local -A title=([always]="each reply synced" [behind]="synced behind")
    for mode in always behind; do
        for ((round = 1; round <= rounds; round++)); do
            note "durable: ${title[$mode]}, round $round of $rounds"
            for name in ${servers//,/ }; do
                [[ $name == memcached ]] || start_server "$name" "$mode"
            done
            for pipeline in ${pipelines//,/ }; do
                for name in ${servers//,/ }; do
                    [[ $name != memcached ]] || continue
                    drive "$name" --pipeline "$pipeline" --ratio 1:0
                    row_of_load "${title[$mode]}" SET "$pipeline" "$name"
                done
            done
            end_servers
        done
    done
}

# One round: it is no question of time. The filling goes on where the size before ended.
measure_memory() {
    local name items filled bytes
    for name in ${servers//,/ }; do
        start_server "$name" memory
        read_empty "${port_of[$name]}" "${wire_of[$name]}" "${pid_of[$name]}"
        filled=0
        for items in ${sizes//,/ }; do
            note "memory: $name, $items items"
            fill "${port_of[$name]}" "${wire_of[$name]}" "${pid_of[$name]}" "$filled" "$items"
            bytes=$(growth_per_item "${pid_of[$name]}" "$items")
            row_of_load "filling, $items items" SET 64 "$name" "$bytes"
            filled=$items
        done
        end_servers
    done
}

versions() {
    local list=
    [[ $servers != *eyot* ]] || list+="eyot $(eyot_version), "
    [[ $servers != *redis* ]] || list+="redis-server $(redis_version), "
    [[ $servers != *memcached* ]] || list+="memcached $(memcached_version), "
    echo "${list%, }"
}

load_facts() {
    echo "$clients connections, $keys keys of 16 bytes, values of $value_size bytes, server on processor $server_cpu," \
        "load on $load_cpu, medians of $rounds rounds of $duration s"
}

write_json() {
    cat <<JSON
{
  "command": $(json_string "$command_line"),
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "machine": {
    "cpu_model": $(json_string "$(cpu_model)"),
    "processors": $(nproc),
    "memory_gib": $(memory_gib),
    "kernel": $(json_string "$(uname -r)"),
    "load_average_before": $load_before
  },
  "versions": $(json_string "$version_list"),
  "settings": {
    "clients": $clients, "keys": $keys, "key_bytes": 16, "value_bytes": $value_size,
    "quick": $([[ -n $quick_warning ]] && echo true || echo false), "rounds": $rounds, "duration_s": $duration, "server_cpu": $(json_string "$server_cpu"), "load_cpu": $(json_string "$load_cpu")
  },
  "ratios_to": "redis",
  "rows": [
$(as_json <"$work/medians")
  ]
}
JSON
}

write_markdown() {
    cat <<MARKDOWN
# Benchmarks

Eyot beside Debian's redis-server and memcached, on one machine, in one run. This page is written by the command below and
not edited: repeat it on your machine, where the figures are others and the ratios tell.

\`\`\`sh
$command_line
\`\`\`

- date: $(date -u +%Y-%m-%d)
- machine: $(machine)
- versions: $version_list
- load: $(load_facts)
${quick_warning:+
**This was $quick_warning.**
}
Ratios are to redis in the same measurement. A rate is what one server core and one load thread reach together, and at
a deep pipeline often the client's; CPU per operation is the server's own, in its code and in the kernel.

- **redis-benchmark**, **eyot-loadgen**: the client; a closed loop, replies from memory. Eyot runs with
  \`--sync-writes=false\` and writes its log all the same, redis-server and memcached write nothing.
- **open loop**: the same rate for all servers; latency counts from when a request was due.
- **each reply synced**: a SET is answered when its bytes are on the disk; redis-server with \`appendfsync always\`.
- **synced behind**: the log is synced in the background; redis-server with \`appendfsync everysec\`.
- **filling**: bytes of resident memory that each item has added; the other figures are of the SETs that filled it.

$(as_markdown <"$work/medians")
MARKDOWN
}

prepare
./scripts/setup.sh --bench
note "building"
build
# Now: the page that is written in the end is a change of the checkout itself.
version_list=$(versions)
readonly version_list
memory_need_gib=$((${sizes##*,} * (value_size + 300) / 1024 / 1024 / 1024 + 1))
[[ $measurements != *memory* ]] || (($(memory_gib) >= memory_need_gib)) ||
    lacking "$memory_need_gib GiB of memory are needed for --sizes $sizes, this machine has $(memory_gib)"
need_disk $((memory_need_gib + 4))
for measurement in ${measurements//,/ }; do
    "measure_$measurement"
done
medians redis >"$work/medians"

{
    echo "machine: $(machine)"
    echo "versions: $version_list"
    echo "load: $(load_facts)"
    echo "ratios: to redis in the same measurement"
    [[ -z $quick_warning ]] || echo "this was $quick_warning"
    echo
    as_text <"$work/medians"
} >"$work/text"
cat "$work/text"
[[ -z $text_file ]] || cp "$work/text" "$text_file"
[[ -z $json_file ]] || write_json >"$json_file"
[[ -z $markdown_file ]] || write_markdown >"$markdown_file"
