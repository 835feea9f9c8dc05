#!/usr/bin/env bash
# What bench.sh and compare.sh both measure with: servers and clients pinned alike, CPU and memory from /proc, medians.
#
# Sourced, not run. Whoever sources it sets `script` (its name, for messages), `server_cpu`,
# `load_cpu`, `clients` and `value_size` before. What it
# starts, it stops, however the script ends; what it writes is below $work, on the disk of the repository's target
# directory, because a temporary directory in memory would make every sync free.
#
# A row is one measured run, a line of $work/rows, fields parted by tabs, "-" where a figure does not apply:
#
#   measurement  operation  pipeline  server  ops/s  p50 us  p99 us  p99.9 us  CPU us/op  bytes/item
#
# `medians BASE` makes of all rows with the same first four fields one, and adds the ratios of rate, CPU and bytes to those
# of server BASE; servers of one measurement stand together, all in the order in which they were first seen. `as_text`, `as_markdown` and `as_json` print what it makes.
set -euo pipefail

# How long a server may take until it listens, and until it has ended: recovery and the last sync are within.
readonly start_patience_s=30 stop_patience_s=30
# Up to this load average a machine is quiet: what a desktop or a container does by itself.
readonly quiet_load=0.5

: "${script:?is set by the script that sources this}" "${server_cpu:?}" "${load_cpu:?}" "${clients:?}" "${value_size:?}"
pids=()
empty_kib=0

# fail MESSAGE: something could not be measured.
fail() {
    echo "$script: $*" >&2
    exit 1
}

# lacking MESSAGE: this machine lacks what is needed.
lacking() {
    echo "$script: $*" >&2
    exit 3
}

# note MESSAGE: progress, beside the results.
note() {
    echo "$script: $*" >&2
}

# stop_all: ends every process that was started here and waits for its end.
stop_all() {
    local pid tenths
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        for ((tenths = 0; tenths < stop_patience_s * 10; tenths++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}

# prepare: checks the machine, makes $work and sees to it that nothing outlives the script.
prepare() {
    local processors
    processors=$(nproc)
    ((processors >= 2)) ||
        lacking "two processors are needed, one for the server and one for the load; this machine has $processors"
    [[ $server_cpu != "$load_cpu" ]] || lacking "server and load must not share processor $server_cpu"
    for cpu in "$server_cpu" "$load_cpu"; do
        taskset -c "$cpu" true 2>/dev/null || lacking "processor $cpu is not there, or may not be used"
    done
    mkdir -p target
    work=$(mktemp -d "$PWD/target/$script.XXXXXX")
    readonly work
    trap 'stop_all; rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    : >"$work/rows"
    # Before anything is built or started: what runs then is others'.
    load_before=$(awk '{ print $1 }' /proc/loadavg)
    readonly load_before
    ! is_busy || note "others use this machine (load average $load_before): the figures will be noise"
    bin=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
    readonly bin
}

# is_busy: whether others used the machine when the script began, so that its figures and ratios say little.
is_busy() {
    awk -v load="$load_before" -v quiet="$quiet_load" 'BEGIN { exit !(load > quiet) }'
}

# build: what is measured, and what measures it.
build() {
    cargo build --quiet --release --locked -p eyot-server -p eyot-client -p eyot-loadgen
}

# need_disk GIB: so much must be free where the logs go.
need_disk() {
    local free_gib
    free_gib=$(($(df -Pk "$work" | awk 'NR == 2 { print $4 }') / 1024 / 1024))
    ((free_gib >= $1)) || lacking "$1 GiB of disk are needed in $PWD/target, $free_gib GiB are free"
}

# await_port PORT NAME: until the process `started` listens there.
await_port() {
    local tenths
    for ((tenths = 0; tenths < start_patience_s * 10; tenths++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
            return
        fi
        kill -0 "$started" 2>/dev/null || fail "a server ended instead of listening on port $1: $(cat "$work/$2.log")"
        sleep 0.1
    done
    fail "nothing listens on port $1 after $start_patience_s s: $(cat "$work/$2.log")"
}

# start NAME PORT COMMAND...: sets `started` to its process, once it listens.
start() {
    local name=$1 port=$2
    shift 2
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        lacking "port $port is taken; stop what listens there"
    fi
    "$@" >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
    await_port "$port" "$name"
}

# start_eyot NAME NATIVE_PORT RESP_PORT CPUS ARGUMENT...
start_eyot() {
    local name=$1 native=$2 resp=$3 cpus=$4
    shift 4
    # Without snapshots unless an argument asks for them, as redis-server gets --save ''. Variables, which arguments win over.
    start "$name" "$native" env EYOT_LOG_LEVEL=warn EYOT_SNAPSHOT_LOG_SIZE=0 EYOT_SNAPSHOT_INTERVAL=0 taskset -c "$cpus" "$bin/eyot-server" \
        --address "127.0.0.1:$native" --resp-address "127.0.0.1:$resp" --data-dir "$work/$name" "$@"
    await_port "$resp" "$name"
}

# start_redis NAME PORT ARGUMENT...
start_redis() {
    local name=$1 port=$2
    shift 2
    mkdir -p "$work/$name"
    start "$name" "$port" taskset -c "$server_cpu" redis-server --port "$port" --bind 127.0.0.1 --save '' \
        --dir "$work/$name" --daemonize no "$@"
}

# start_memcached NAME PORT: one worker thread, as the others have one core; memory for all items.
start_memcached() {
    start "$1" "$2" taskset -c "$server_cpu" memcached -u "$(id -un)" -l 127.0.0.1 -p "$2" -U 0 -t 1 -m 65536
}

# attended COMMAND...: as a child that a signal to the script ends, too: bash does not handle signals while it waits for a
# command in the foreground.
attended() {
    "$@" &
    local child=$! status=0
    pids+=("$child")
    wait "$child" || status=$?
    unset 'pids[-1]'
    return "$status"
}

# load PORT WIRE ARGUMENT...: a run of eyot-loadgen, which leaves its report in $work/report.json.
load() {
    local to=$1 wire=$2 status=0
    shift 2
    attended "$bin/eyot-loadgen" --address "127.0.0.1:$to" --protocol "$wire" --cpu "$load_cpu" --quiet \
        --json "$work/report.json" "$@" >"$work/load.log" 2>&1 || status=$?
    if ((status != 0)); then
        # Where a run began, what went wrong stands in its report.
        cat "$work/load.log" >&2
        ((status == 2 || status == 3)) || sed -n '/"error_examples": \[$/,/\]/p; /"troubles": \[$/,/\]/p' "$work/report.json" >&2
        fail "the load generator failed with exit code $status against port $to: $*"
    fi
}

# fill PORT WIRE PID FROM TO: writes the keys numbered so, each once; the report is of that.
fill() {
    load "$1" "$2" --clients "$clients" --pipeline 64 --keys "$5" --value-size "$value_size" --ratio 1:0 \
        --distribution "sequential:$4" --requests "$(($5 - $4))" --warmup 0s --server-pid "$3"
    cp "$work/report.json" "$work/filling.json"
    settle "$1" "$2" "$5"
    mv "$work/filling.json" "$work/report.json"
}

# settle PORT WIRE KEYS: reads each key once on average, before memory is read: a table that grows step by step takes its
# steps with the requests. Fails where keys are missing.
settle() {
    load "$1" "$2" --clients "$clients" --pipeline 64 --keys "$3" --ratio 0:1 --requests "$3" --warmup 0s
    (($(total missing_reads) == 0)) || fail "keys are lost: $(total missing_reads) of $3 reads found none"
}

# read_empty PORT WIRE PID: sets `empty_kib` to its resident memory before the first item. What connections' buffers and
# first requests allocate is no item's, so some come before.
read_empty() {
    load "$1" "$2" --clients "$clients" --pipeline 64 --ratio 0:1 --requests 100000 --warmup 0s
    empty_kib=$(rss_kib "$3")
}

# figure NAME: the first figure of that name within a part of the report.
figure() {
    sed -n "s/^    *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p" "$work/report.json" | head -n 1
}

# total NAME: the figure of that name that is about the whole run.
total() {
    sed -n "s/^  \"$1\": \([0-9.]*\),\{0,1\}$/\1/p" "$work/report.json" | head -n 1
}

# row MEASUREMENT OPERATION PIPELINE SERVER RATE P50 P99 P99.9 CPU BYTES
row() {
    (
        IFS=$'\t'
        echo "$*"
    ) >>"$work/rows"
}

# row_of_load MEASUREMENT OPERATION PIPELINE SERVER [BYTES]: a row of the last report.
row_of_load() {
    local cpu
    cpu=$(figure cpu_us_per_operation)
    row "$1" "$2" "$3" "$4" "$(total rate_per_s)" "$(figure p50_us)" "$(figure p99_us)" "$(figure p99_9_us)" \
        "${cpu:--}" "${5:--}"
}

# cpu_us PID: CPU time of the process since its start, of all its threads, ended ones too, in user code and in the kernel.
cpu_us() {
    awk -v ticks_per_s="$(getconf CLK_TCK)" '{
        sub(/.*\) /, "")
        split($0, field, " ")
        printf "%.0f\n", (field[12] + field[13]) * 1000000 / ticks_per_s
    }' "/proc/$1/stat"
}

# rss_kib PID
rss_kib() {
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# growth_per_item PID ITEMS: bytes of resident memory that each item has added since `read_empty`.
growth_per_item() {
    awk -v after="$(rss_kib "$1")" -v before="$empty_kib" -v items="$2" 'BEGIN { printf "%.2f\n", (after - before) * 1024 / items }'
}

# medians BASE
medians() {
    awk -F '\t' -v OFS='\t' -v base="$1" '
        function median(cell, column,   list, count, i, j, value) {
            count = 0
            for (i = 1; i <= runs[cell]; i++) {
                value = values[cell, column, i]
                if (value == "-" || value == "") continue
                for (j = ++count; j > 1 && list[j - 1] > value + 0; j--) list[j] = list[j - 1]
                list[j] = value + 0
            }
            if (count == 0) return "-"
            return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
        }
        function ratio(cell, column,   mine, reference) {
            mine = result[cell, column]
            reference = result[group[cell] SUBSEP base, column]
            return mine == "-" || reference == "-" || reference == "" || reference == 0 ? "-" : mine / reference
        }
        {
            cell = $1 SUBSEP $2 SUBSEP $3 SUBSEP $4
            if (!(cell in runs)) {
                group[cell] = $1 SUBSEP $2 SUBSEP $3
                if (!(group[cell] in members)) groups[++group_count] = group[cell]
                member[group[cell], ++members[group[cell]]] = cell
            }
            runs[cell]++
            for (column = 5; column <= 10; column++) values[cell, column, runs[cell]] = $column
        }
        END {
            for (g = 1; g <= group_count; g++)
                for (m = 1; m <= members[groups[g]]; m++) order[++cells] = member[groups[g], m]
            for (i = 1; i <= cells; i++)
                for (column = 5; column <= 10; column++) result[order[i], column] = median(order[i], column)
            for (i = 1; i <= cells; i++) {
                cell = order[i]
                split(cell, name, SUBSEP)
                print name[1], name[2], name[3], name[4], result[cell, 5], result[cell, 6], result[cell, 7], \
                    result[cell, 8], result[cell, 9], result[cell, 10], ratio(cell, 5), ratio(cell, 9), ratio(cell, 10), \
                    runs[cell]
            }
        }' "$work/rows"
}

# The columns of a table: heading, field of a median, format. One place, so that text and Markdown are the same table.
readonly table_columns='
measurement|1|%s
op|2|%s
pipeline|3|%s
server|4|%s
ops/s|5|%.0f
ratio|11|%.2f
p50 us|6|%.0f
p99 us|7|%.0f
p99.9 us|8|%.0f
CPU us/op|9|%.3f
ratio|12|%.2f
bytes/item|10|%.1f
ratio|13|%.2f
'

# table STYLE: the medians on standard input as text or markdown; a column without a figure is left out, and so is the name
# of a measurement that the row above has, too.
table() {
    awk -F '\t' -v style="$1" -v specification="$table_columns" '
        function is_text(column) { return field[column] <= 4 && field[column] != 3 }
        BEGIN {
            lines = split(specification, line, "\n")
            for (i = 1; i <= lines; i++) if (split(line[i], part, "|") == 3) {
                heading[++columns] = part[1]
                field[columns] = part[2]
                format[columns] = part[3]
            }
        }
        {
            for (column = 1; column <= columns; column++) {
                value = $field[column]
                cell[NR, column] = value == "-" || value == "" ? "-" : sprintf(format[column], value)
                if (cell[NR, column] != "-") used[column] = 1
            }
            repeated[NR] = $1 == last
            last = $1
        }
        END {
            for (column = 1; column <= columns; column++) {
                width[column] = length(heading[column])
                for (i = 1; i <= NR; i++)
                    if (length(cell[i, column]) > width[column]) width[column] = length(cell[i, column])
            }
            for (i = 0; i <= NR; i++) {
                text = style == "markdown" ? "|" : ""
                if (style == "text" && i > 1 && !repeated[i]) print ""
                for (column = 1; column <= columns; column++) {
                    if (!used[column]) continue
                    shown = i == 0 ? heading[column] : column == 1 && repeated[i] && style == "text" ? "" : cell[i, column]
                    padded = sprintf((is_text(column) ? "%-" : "%") width[column] "s", shown)
                    text = text (style == "markdown" ? " " shown " |" : (text == "" && column == 1 ? "" : "  ") padded)
                }
                sub(/ +$/, "", text)
                print text
                if (style == "markdown" && i == 0) {
                    text = "|"
                    for (column = 1; column <= columns; column++) if (used[column]) text = text (is_text(column) ? "---|" : "---:|")
                    print text
                }
            }
        }'
}

as_text() {
    table text
}

as_markdown() {
    table markdown
}

# as_json: the medians on standard input as the elements of an array; null where a figure does not apply.
as_json() {
    awk -F '\t' '
        function number(value) { return value == "-" || value == "" ? "null" : sprintf("%.10g", value) }
        {
            printf "%s    {\"measurement\": \"%s\", \"operation\": \"%s\", \"pipeline\": %s, \"server\": \"%s\"", (NR > 1 ? ",\n" : ""), $1, $2, number($3), $4
            printf ", \"rate_per_s\": %s, \"p50_us\": %s, \"p99_us\": %s, \"p99_9_us\": %s", number($5), number($6), number($7), number($8)
            printf ", \"server_cpu_us_per_operation\": %s, \"bytes_per_item\": %s", number($9), number($10)
            printf ", \"rate_ratio\": %s, \"cpu_ratio\": %s, \"bytes_ratio\": %s, \"runs\": %s}", number($11), number($12), number($13), number($14)
        }
        END { if (NR > 0) print "" }'
}

# json_string TEXT: quoted.
json_string() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# The machine's facts, without which no figure means anything.
cpu_model() {
    local model
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    echo "${model:-unknown}"
}

memory_gib() {
    awk '/^MemTotal:/ { printf "%.0f\n", $2 / 1024 / 1024 }' /proc/meminfo
}

machine() {
    echo "$(cpu_model), $(nproc) processors, $(memory_gib) GiB, Linux $(uname -r);" \
        "load average before the run $load_before$(! is_busy || echo ': OTHERS USED IT, the figures are noise')"
}

redis_version() {
    redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/'
}

memcached_version() {
    memcached --version | awk '{ print $2 }'
}

# The version with the commit, which is what tells builds apart.
eyot_version() {
    local commit
    commit=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
    [[ -z $commit || -z $(git status --porcelain --untracked-files=no 2>/dev/null) ]] || commit+=" with changes"
    echo "$("$bin/eyot-server" --version | awk '{ print $2 }') (${commit:-of no known commit})"
}
