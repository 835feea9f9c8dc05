//! The fields of each section of INFO.
//!
//! Place in the flow: see the parent.

use std::fmt::{Display, Write as _};

use super::Section;
use crate::admin::figures::NodeFigures;
use crate::admin::{command_name, COMPATIBLE_VERSION};

/// Writes lines `name:value`.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn put(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// A size, and again as people read it.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.put(name, bytes);
        self.put(&format!("{name}_human"), human(bytes));
    }

    /// Fields that are zero because nothing of the kind exists.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.put(name, 0);
        }
    }
}

/// A size with two digits behind the point, as Redis writes it.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [(u32, char); 5] = [(50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    match UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.2}{unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes}B"),
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", part as f64 * 100.0 / (whole as f64).max(1.0))
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.2}", if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Appends `section`.
pub(super) fn write(section: Section, figures: &NodeFigures, text: &mut String) {
    let _ = write!(text, "# {}\r\n", section.title());
    let fields = &mut Fields(text);
    match section {
        Section::Server => server(figures, fields),
        Section::Clients => clients(figures, fields),
        Section::Memory => memory(figures, fields),
        Section::Persistence => persistence(figures, fields),
        Section::Stats => stats(figures, fields),
        Section::Replication => replication(figures, fields),
        Section::Cpu => cpu(figures, fields),
        Section::Modules => {}
        Section::Commandstats => commandstats(figures, fields),
        Section::Errorstats => errorstats(figures, fields),
        Section::Latencystats => latencystats(figures, fields),
        Section::Cluster => fields.put("cluster_enabled", u8::from(figures.facts.cluster_enabled)),
        Section::Keyspace => keyspace(figures, fields),
        Section::Eyot => eyot(figures, fields),
    }
}

fn server(figures: &NodeFigures, fields: &mut Fields<'_>) {
    let (facts, moment) = (&figures.facts, figures.moment);
    let uptime_s = moment.uptime().as_secs();
    fields.put("redis_version", COMPATIBLE_VERSION);
    fields.put("redis_git_sha1", "00000000");
    fields.put("redis_git_dirty", 0);
    fields.put("redis_build_id", 0);
    fields.put("redis_mode", if facts.cluster_enabled { "cluster" } else { "standalone" });
    fields.put("os", &facts.operating_system);
    fields.put("arch_bits", usize::BITS);
    fields.put("monotonic_clock", "POSIX clock_gettime");
    fields.put("multiplexing_api", "io_uring");
    fields.put("process_id", facts.process_id);
    fields.put("process_supervised", "no");
    fields.put("run_id", &facts.run_id);
    fields.put("tcp_port", facts.resp_port);
    fields.put("server_time_usec", moment.wall_us);
    fields.put("uptime_in_seconds", uptime_s);
    fields.put("uptime_in_days", uptime_s / 86_400);
    fields.put("hz", 10);
    fields.put("configured_hz", 10);
    fields.put("lru_clock", (moment.wall_us / 1_000_000) & 0x00ff_ffff);
    fields.put("executable", &facts.executable);
    fields.put("config_file", "");
    fields.put("io_threads_active", 0);
    fields.put("eyot_version", env!("CARGO_PKG_VERSION"));
    fields.put("eyot_node_id", &facts.node_id);
    fields.put("eyot_native_port", facts.native_port);
    fields.put("eyot_cores", figures.cores.len());
    fields.put("eyot_shards", facts.shards);
}

fn clients(figures: &NodeFigures, fields: &mut Fields<'_>) {
    fields.put("connected_clients", figures.connections);
    fields.zeros(&["cluster_connections"]);
    fields.put("maxclients", figures.max_clients);
    fields.zeros(&["blocked_clients", "tracking_clients", "clients_in_timeout_table"]);
}

fn memory(figures: &NodeFigures, fields: &mut Fields<'_>) {
    let (parts, resident) = (figures.memory, figures.process.resident_bytes);
    let used = parts.total();
    fields.bytes("used_memory", used);
    fields.bytes("used_memory_rss", resident);
    fields.bytes("used_memory_peak", figures.memory_peak.max(used));
    fields.put("used_memory_peak_perc", percent(used, figures.memory_peak.max(used)));
    fields.put("used_memory_overhead", parts.overhead());
    fields.put("used_memory_startup", parts.fixed);
    fields.put("used_memory_dataset", parts.data());
    fields.put("used_memory_dataset_perc", percent(parts.data(), used));
    fields.put("allocator_allocated", used);
    fields.put("allocator_active", resident);
    fields.put("allocator_resident", resident);
    fields.bytes("total_system_memory", figures.facts.machine_memory_bytes);
    fields.bytes("used_memory_lua", 0);
    fields.bytes("used_memory_scripts", 0);
    fields.zeros(&["number_of_cached_scripts", "number_of_functions", "number_of_libraries"]);
    fields.bytes("maxmemory", figures.max_memory_bytes);
    fields.put("maxmemory_policy", figures.policy);
    fields.put("allocator_frag_ratio", ratio(resident, used));
    fields.put("allocator_frag_bytes", resident.saturating_sub(used));
    fields.put("allocator_rss_ratio", "1.00");
    fields.zeros(&["allocator_rss_bytes"]);
    fields.put("rss_overhead_ratio", "1.00");
    fields.zeros(&["rss_overhead_bytes"]);
    fields.put("mem_fragmentation_ratio", ratio(resident, used));
    fields.put("mem_fragmentation_bytes", resident as i64 - used as i64);
    fields.zeros(&["mem_not_counted_for_evict", "mem_replication_backlog"]);
    fields.zeros(&["mem_total_replication_buffers", "mem_clients_slaves"]);
    fields.put("mem_clients_normal", parts.connections);
    fields.zeros(&["mem_cluster_links"]);
    fields.put("mem_aof_buffer", parts.log_tail);
    fields.put("mem_allocator", "mimalloc");
    fields.zeros(&["active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"]);
}

fn persistence(figures: &NodeFigures, fields: &mut Fields<'_>) {
    let snapshots = &figures.snapshots;
    let seconds = |us: i64| us / 1_000_000;
    let running_s = snapshots.running_since_us.map(|since_us| seconds(figures.moment.wall_us - since_us));
    fields.zeros(&["loading", "async_loading", "current_cow_size", "rdb_changes_since_last_save"]);
    fields.put("current_save_keys_processed", snapshots.entries_done);
    fields.put("current_save_keys_total", if running_s.is_some() { figures.keys } else { 0 });
    fields.put("rdb_bgsave_in_progress", i32::from(running_s.is_some()));
    // Before the first of this process, as in Redis, the time of its start: the state on disk is the one it read then.
    fields.put("rdb_last_save_time", snapshots.succeeded_at_us.map_or(figures.facts.started_unix_s as i64, seconds));
    fields.put("rdb_last_bgsave_status", if snapshots.failure.is_some() { "err" } else { "ok" });
    fields.put("rdb_last_bgsave_time_sec", snapshots.last_elapsed.map_or(-1, |elapsed| elapsed.as_secs() as i64));
    fields.put("rdb_current_bgsave_time_sec", running_s.unwrap_or(-1));
    fields.put("rdb_saves", snapshots.rounds);
    fields.zeros(&["rdb_last_cow_size"]);
    fields.put("aof_enabled", 1);
    fields.zeros(&["aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    fields.put("aof_last_rewrite_time_sec", -1);
    fields.put("aof_current_rewrite_time_sec", -1);
    fields.put("aof_last_bgrewrite_status", "ok");
    fields.put("aof_last_write_status", if figures.read_only { "err" } else { "ok" });
    fields.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures", "aof_last_cow_size"]);
    fields.put("aof_buffer_length", figures.log_pending_bytes);
    fields.zeros(&["module_fork_in_progress", "module_fork_last_cow_size"]);
}

fn stats(figures: &NodeFigures, fields: &mut Fields<'_>) {
    let counters = &figures.counters;
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    fields.put("total_connections_received", figures.accepted);
    fields.put("total_commands_processed", figures.requests);
    fields.put("instantaneous_ops_per_sec", figures.requests_per_second);
    fields.put("total_net_input_bytes", counters.net_input_bytes);
    fields.put("total_net_output_bytes", counters.net_output_bytes);
    fields.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    fields.put("instantaneous_input_kbps", kilobytes(figures.input_per_second));
    fields.put("instantaneous_output_kbps", kilobytes(figures.output_per_second));
    fields.put("rejected_connections", figures.refused);
    fields.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    fields.put("expired_keys", counters.expired_keys);
    fields.put("evicted_keys", counters.evicted_keys);
    fields.put("evicted_clients", counters.evicted_clients);
    fields.put("acl_access_denied_auth", counters.failed_authentications);
    fields.put("keyspace_hits", counters.keyspace_hits);
    fields.put("keyspace_misses", counters.keyspace_misses);
    fields.zeros(&["pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "latest_fork_usec", "total_forks"]);
    fields.zeros(&["migrate_cached_sockets", "slave_expires_tracked_keys", "active_defrag_hits"]);
    fields.zeros(&["active_defrag_misses", "active_defrag_key_hits", "active_defrag_key_misses"]);
    fields.zeros(&["total_active_defrag_time", "current_active_defrag_time"]);
    fields.zeros(&["tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"]);
    fields.zeros(&["unexpected_error_replies"]);
    fields.put("total_error_replies", figures.commands.errors().map(|(_, count)| count).sum::<u64>() + figures.errors);
    fields.zeros(&["dump_payload_sanitizations"]);
    fields.put("total_reads_processed", counters.reads_processed);
    fields.put("total_writes_processed", counters.writes_processed);
    fields.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
}

fn replication(figures: &NodeFigures, fields: &mut Fields<'_>) {
    fields.put("role", "master");
    fields.zeros(&["connected_slaves"]);
    fields.put("master_failover_state", "no-failover");
    fields.put("master_replid", &figures.facts.run_id);
    fields.put("master_replid2", "0".repeat(super::super::identifier::DIGITS));
    fields.zeros(&["master_repl_offset"]);
    fields.put("second_repl_offset", -1);
    fields.zeros(&["repl_backlog_active", "repl_backlog_size"]);
    fields.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

fn cpu(figures: &NodeFigures, fields: &mut Fields<'_>) {
    fields.put("used_cpu_sys", seconds(figures.process.cpu_system_us));
    fields.put("used_cpu_user", seconds(figures.process.cpu_user_us));
    fields.put("used_cpu_sys_children", seconds(0));
    fields.put("used_cpu_user_children", seconds(0));
}

fn commandstats(figures: &NodeFigures, fields: &mut Fields<'_>) {
    for (command, of) in figures.commands.used() {
        let each_us = if of.calls == 0 { 0.0 } else { of.busy_ns as f64 / 1000.0 / of.calls as f64 };
        let (calls, us) = (of.calls, of.busy_ns / 1000);
        let (rejected, failed) = (of.rejected, of.failed);
        fields.put(
            &format!("cmdstat_{}", command_name(command)),
            format_args!(
                "calls={calls},usec={us},usec_per_call={each_us:.2},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(figures: &NodeFigures, fields: &mut Fields<'_>) {
    for (prefix, count) in figures.commands.errors() {
        fields.put(&format!("errorstat_{prefix}"), format_args!("count={count}"));
    }
}

fn latencystats(figures: &NodeFigures, fields: &mut Fields<'_>) {
    for (command, of) in figures.commands.used() {
        let Some(latencies) = &of.latencies else { continue };
        let us = |quantile: f64| latencies.quantile_ns(quantile) as f64 / 1000.0;
        fields.put(
            &format!("latency_percentiles_usec_{}", command_name(command)),
            format_args!("p50={:.3},p99={:.3},p99.9={:.3}", us(0.50), us(0.99), us(0.999)),
        );
    }
}

fn keyspace(figures: &NodeFigures, fields: &mut Fields<'_>) {
    if figures.keys > 0 {
        fields.put("db0", format_args!("keys={},expires={},avg_ttl=0", figures.keys, figures.expiring_keys));
    }
}

fn eyot(figures: &NodeFigures, fields: &mut Fields<'_>) {
    let parts = figures.memory;
    fields.put("eyot_sync_writes", u8::from(figures.facts.sync_writes));
    fields.put("eyot_read_only", u8::from(figures.read_only));
    fields.put("eyot_entries", figures.entries);
    fields.put("eyot_log_writes", figures.log_writes);
    fields.put("eyot_log_bytes", figures.log_bytes);
    fields.put("eyot_log_pending_bytes", figures.log_pending_bytes);
    for (name, bytes) in [
        ("table", parts.table),
        ("entries", parts.entries),
        ("log_tail", parts.log_tail),
        ("connections", parts.connections),
        ("in_flight", parts.in_flight),
        ("large_values", parts.large_values),
        ("fixed", parts.fixed),
    ] {
        fields.put(&format!("eyot_memory_{name}"), bytes);
    }
    fields.put("eyot_memory_resident_peak", figures.process.resident_peak_bytes);
    fields.put("eyot_threads", figures.process.threads);
    for core in &figures.cores {
        fields.put(
            &format!("eyot_core{}", core.core),
            format_args!(
                "processor={},keys={},memory={},connections={},requests={},forwarded={}",
                core.processor, core.keys, core.memory_bytes, core.connections, core.requests, core.forwarded
            ),
        );
    }
}
