//! INFO, compared with golden texts, and with the names that dashboards read.

use super::sections::human;
use super::*;
use eyot_protocol::request::Operation;

use crate::admin::figures::{CoreFigures, MemoryParts, Moment, NodeFacts};
use crate::admin::process::ProcessFigures;
use crate::memory::CoreMemory;
use crate::metrics::commands::CommandMetrics;
use crate::metrics::{CoreReport, Counters, Metrics};
use eyot_protocol::resp::table::CommandId;

fn facts() -> NodeFacts {
    NodeFacts {
        node_id: "island".to_owned(),
        node_uuid: 7,
        run_id: "f".repeat(40),
        operating_system: "Linux 6.1.0 x86_64".to_owned(),
        process_id: 42,
        resp_port: 6379,
        native_port: 6380,
        executable: "/usr/bin/eyot-server".to_owned(),
        machine_memory_bytes: 25_276_502_016,
        shards: 8,
        cluster_enabled: true,
        sync_writes: true,
        started_unix_s: 1_795_262_214,
    }
}

fn figures() -> NodeFigures {
    let mut commands = CommandMetrics::new(eyot_protocol::resp::COMMANDS.len(), true);
    commands.called_for(CommandId::Get as usize, 3500);
    commands.called_for(CommandId::Get as usize, 3500);
    commands.rejected(CommandId::Get as usize);
    commands.called_for(CommandId::Set as usize, 53_000);
    commands.failed(CommandId::Set as usize);
    commands.error(b"WRONGTYPE Operation against a key");
    commands.error(b"ERR syntax error");
    NodeFigures {
        facts: facts(),
        moment: Moment { wall_us: 1_795_262_215_827_109, monotonic_us: 90_000_000_000 },
        process: ProcessFigures {
            resident_bytes: 12_210_176,
            resident_peak_bytes: 13_000_000,
            cpu_system_us: 8_882,
            cpu_user_us: 2_002_362,
            threads: 5,
        },
        max_memory_bytes: 1 << 30,
        policy: "allkeys-lru",
        max_clients: 10_000,
        memory: MemoryParts { entries: 900_000, table: 90_000, connections: 10_000, ..MemoryParts::default() },
        memory_peak: 2_000_000,
        keys: 11,
        expiring_keys: 3,
        connections: 2,
        accepted: 7,
        refused: 1,
        requests: 5,
        counters: Counters { keyspace_hits: 4, keyspace_misses: 2, net_input_bytes: 186, ..Counters::default() },
        requests_per_second: 12,
        input_per_second: 2048,
        commands,
        cores: vec![CoreFigures { core: 0, processor: 3, keys: 11, memory_bytes: 900_000, ..CoreFigures::default() }],
        ..NodeFigures::default()
    }
}

fn told(names: &[&str]) -> String {
    info(&names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), &figures())
}

fn titles(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join(" ")
}

#[test]
fn sections_come_in_order_each_once_and_unknown_ones_not_at_all() {
    let usual = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace";
    let all = "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats Latencystats \
               Cluster Keyspace Eyot";
    for (names, expected) in [
        (&[][..], usual),
        (&["default"], usual),
        (&["ALL"], all),
        (&["everything"], all),
        (&["cpu", "memory", "CPU"], "Memory CPU"),
        (&["keyspace", "nope"], "Keyspace"),
        (&["default", "commandstats"], &usual.replace("Errorstats", "Commandstats Errorstats")),
    ] {
        assert_eq!(titles(&told(names)), expected, "{names:?}");
    }
    assert_eq!(told(&["nope"]), "");
    assert_eq!(told(&["modules", "keyspace"]), "# Modules\r\n\r\n# Keyspace\r\ndb0:keys=11,expires=3,avg_ttl=0\r\n");
}

#[test]
fn golden_texts_of_the_sections_that_count() {
    assert_eq!(
        told(&["commandstats", "errorstats"]),
        "# Commandstats\r\n\
         cmdstat_get:calls=2,usec=7,usec_per_call=3.50,rejected_calls=1,failed_calls=0\r\n\
         cmdstat_set:calls=1,usec=53,usec_per_call=53.00,rejected_calls=0,failed_calls=1\r\n\r\n\
         # Errorstats\r\nerrorstat_ERR:count=1\r\nerrorstat_WRONGTYPE:count=1\r\n"
    );
    assert_eq!(
        told(&["latencystats"]),
        "# Latencystats\r\nlatency_percentiles_usec_get:p50=3.583,p99=3.583,p99.9=3.583\r\n\
         latency_percentiles_usec_set:p50=53.247,p99=53.247,p99.9=53.247\r\n"
    );
    assert_eq!(
        told(&["cpu", "clients", "cluster"]),
        "# Clients\r\nconnected_clients:2\r\ncluster_connections:0\r\nmaxclients:10000\r\nblocked_clients:0\r\n\
         tracking_clients:0\r\nclients_in_timeout_table:0\r\n\r\n\
         # CPU\r\nused_cpu_sys:0.008882\r\nused_cpu_user:2.002362\r\nused_cpu_sys_children:0.000000\r\n\
         used_cpu_user_children:0.000000\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n"
    );
}

#[test]
fn memory_is_told_in_bytes_and_for_people() {
    let text = told(&["memory"]);
    for line in [
        "used_memory:1000000",
        "used_memory_human:976.56K",
        "used_memory_rss_human:11.64M",
        "used_memory_peak:2000000",
        "used_memory_peak_perc:50.00%",
        "used_memory_overhead:100000",
        "used_memory_dataset:900000",
        "used_memory_dataset_perc:90.00%",
        "total_system_memory_human:23.54G",
        "maxmemory:1073741824",
        "maxmemory_human:1.00G",
        "maxmemory_policy:allkeys-lru",
        "mem_fragmentation_ratio:12.21",
        "mem_allocator:mimalloc",
        "mem_clients_normal:10000",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
    }
    let sizes = [0, 1023, 1024, 1 << 20, 3 << 29, 1 << 40, 1 << 50].map(human);
    assert_eq!(sizes, ["0B", "1023B", "1.00K", "1.00M", "1.50G", "1.00T", "1.00P"]);
}

/// What redis_exporter, the Grafana dashboards, RedisInsight and the Datadog agent look for.
const READ_BY_DASHBOARDS: &str = "redis_version redis_mode os process_id run_id tcp_port uptime_in_seconds \
    uptime_in_days connected_clients maxclients blocked_clients used_memory used_memory_human used_memory_rss \
    used_memory_peak used_memory_lua used_memory_overhead used_memory_startup used_memory_dataset maxmemory \
    maxmemory_human maxmemory_policy mem_fragmentation_ratio mem_fragmentation_bytes mem_clients_slaves \
    mem_clients_normal allocator_frag_ratio allocator_rss_ratio allocator_allocated allocator_active \
    allocator_resident active_defrag_running lazyfree_pending_objects loading rdb_changes_since_last_save \
    rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec \
    rdb_current_bgsave_time_sec rdb_last_cow_size aof_enabled aof_rewrite_in_progress aof_rewrite_scheduled \
    aof_last_rewrite_time_sec aof_current_rewrite_time_sec aof_last_bgrewrite_status aof_last_write_status \
    aof_last_cow_size total_connections_received total_commands_processed instantaneous_ops_per_sec \
    total_net_input_bytes total_net_output_bytes instantaneous_input_kbps instantaneous_output_kbps \
    rejected_connections sync_full sync_partial_ok sync_partial_err expired_keys evicted_keys evicted_clients \
    keyspace_hits keyspace_misses pubsub_channels pubsub_patterns latest_fork_usec migrate_cached_sockets \
    slave_expires_tracked_keys active_defrag_hits active_defrag_misses active_defrag_key_hits \
    active_defrag_key_misses role connected_slaves master_repl_offset second_repl_offset master_replid \
    repl_backlog_active repl_backlog_size repl_backlog_first_byte_offset repl_backlog_histlen used_cpu_sys \
    used_cpu_user used_cpu_sys_children used_cpu_user_children cluster_enabled total_error_replies \
    total_reads_processed total_writes_processed mem_allocator configured_hz hz server_time_usec";

#[test]
fn the_fields_that_dashboards_read_are_there_once() {
    let text = told(&[]);
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    for wanted in READ_BY_DASHBOARDS.split_ascii_whitespace() {
        assert_eq!(names.iter().filter(|name| **name == wanted).count(), 1, "{wanted}");
    }
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "a field is told twice");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with("# ") || line.contains(':')), "{text}");
}

#[test]
fn reports_of_cores_are_summed() {
    let report = |core: u16, counted: u64| {
        let mut metrics = Metrics::new(true);
        metrics.accepted = 1;
        metrics.sample_rates(0);
        metrics.commands.called_for(CommandId::Get as usize, 1000);
        metrics.answered(Operation::Get, 0, 5);
        metrics.sample_rates(1_000_000);
        CoreReport {
            memory: CoreMemory { hits: counted, ..CoreMemory::default() },
            core,
            processor: usize::from(core),
            keys: 3,
            expiring_keys: 1,
            memory_bytes: 100,
            entries: 7,
            shards: 4,
            connections: 2,
            log_pending_bytes: 5,
            log_kept_bytes: 7,
            read_only: core == 1,
            metrics: metrics.snapshot(),
        }
    };
    let moment = Moment { wall_us: 0, monotonic_us: 1_500_000 };
    let mut sum = NodeFigures::of(facts(), moment, ProcessFigures::default(), &[report(0, 4), report(1, 5)]);
    assert_eq!((sum.keys, sum.expiring_keys, sum.connections, sum.accepted), (6, 2, 4, 2));
    assert_eq!((sum.counters.keyspace_hits, sum.requests, sum.requests_per_second), (9, 2, 2));
    assert!(sum.read_only && sum.cores.len() == 2);
    assert_eq!(sum.commands.get(CommandId::Get as usize).unwrap().calls, 2);
    assert!(info(&[b"persistence"], &sum).contains("aof_last_write_status:err\r\n"));
    let peak = std::sync::atomic::AtomicU64::new(500);
    sum.note_peak(&peak);
    assert_eq!(sum.memory_peak, 500);
    sum.memory.entries = 900;
    sum.note_peak(&peak);
    assert_eq!(sum.memory_peak, 900);
}
