//! What a core counts and measures, and the report that STATS makes of all cores.
//!
//! Place in the flow: counted in every step by the core that does the work, in plain fields without atomics; summed
//! when somebody asks. A latency runs from the receive that completed the request to the reply being queued.
//!
//! [`commands`] counts the commands of the Redis protocol, [`heavy`] has those that took long by themselves, [`rate`]
//! makes a rate of a counter.

pub mod commands;
pub mod heavy;
pub mod rate;

use std::time::Duration;

use eyot_protocol::request::Operation;
use eyot_protocol::resp::COMMANDS;
use hdrhistogram::Histogram;
use serde::Serialize;

use self::commands::CommandMetrics;
use self::heavy::HeavyRuns;
use self::rate::RateSampler;
use crate::memory::{CoreMemory, MemoryReport, NodeMemory};

/// Longest latency that is told apart; longer ones count as this.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Two significant digits: a percentile is off by at most 1 %, and a histogram takes some 20 KiB.
const LATENCY_DIGITS: u8 = 2;

/// Plain counts of a core that only grow, for INFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received from clients.
    pub net_input_bytes: u64,
    /// Bytes sent to clients.
    pub net_output_bytes: u64,
    /// Receives, each of which brought some of the bytes.
    pub reads_processed: u64,
    /// Sends, each of which took some of them.
    pub writes_processed: u64,
    /// Reads of a key that was there.
    pub keyspace_hits: u64,
    /// Reads of a key that was not.
    pub keyspace_misses: u64,
    /// Keys that were removed because they had expired.
    pub expired_keys: u64,
    /// Keys that were removed because memory was short.
    pub evicted_keys: u64,
    /// Clients that were closed because they were owed too much.
    pub evicted_clients: u64,
    /// Users and passwords that were not right.
    pub failed_authentications: u64,
}

impl Counters {
    /// Counts a receive that went to the place of a large value.
    pub fn received(&mut self, result: &std::io::Result<usize>) {
        self.net_input_bytes += result.as_ref().map_or(0, |&count| count as u64);
        self.reads_processed += 1;
    }

    /// Counts a send.
    pub fn sent(&mut self, result: &std::io::Result<usize>) {
        self.net_output_bytes += result.as_ref().map_or(0, |&count| count as u64);
        self.writes_processed += 1;
    }

    /// Adds what another core counted.
    pub fn add(&mut self, other: &Self) {
        self.net_input_bytes += other.net_input_bytes;
        self.net_output_bytes += other.net_output_bytes;
        self.reads_processed += other.reads_processed;
        self.writes_processed += other.writes_processed;
        self.keyspace_hits += other.keyspace_hits;
        self.keyspace_misses += other.keyspace_misses;
        self.expired_keys += other.expired_keys;
        self.evicted_keys += other.evicted_keys;
        self.evicted_clients += other.evicted_clients;
        self.failed_authentications += other.failed_authentications;
    }
}

/// How fast three of the counters grow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Commands of every protocol.
    pub commands: RateSampler,
    /// Bytes received.
    pub input: RateSampler,
    /// Bytes sent.
    pub output: RateSampler,
}

/// The counters of one core.
#[derive(Debug, Clone)]
pub struct Metrics {
    enabled: bool,
    latencies: [Histogram<u64>; Operation::COUNTED.len()],
    counts: [u64; Operation::COUNTED.len()],
    /// Requests answered in the turn that received them: their latency is the turn's, known at its end.
    this_turn: [u64; Operation::COUNTED.len()],
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Requests whose key belonged to another core, and so were forwarded.
    pub forwarded: u64,
    /// Turns of the core's loop.
    pub turns: u64,
    /// Turns that ended asleep in the ring.
    pub sleeps: u64,
    /// Completed log writes, and their bytes.
    pub log_writes: u64,
    /// See `log_writes`.
    pub log_bytes: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused at the limit.
    pub refused: u64,
    /// Connections ended because they were idle, did not finish a request, or did not take their replies.
    pub timed_out: u64,
    /// What INFO counts beside these.
    pub counters: Counters,
    /// How fast some of them grow.
    pub rates: Rates,
    /// The commands of the Redis protocol, by their places in its table. They are counted by class as well, by
    /// [`Metrics::answered`].
    pub commands: CommandMetrics,
    /// The commands of this turn that took long by themselves.
    pub heavy: HeavyRuns,
}

impl Metrics {
    /// Counters at zero. Without `enabled`, latencies are not kept.
    pub fn new(enabled: bool) -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS).expect("bounds that the type allows");
        Self {
            enabled,
            latencies: std::array::from_fn(|_| histogram()),
            counts: [0; Operation::COUNTED.len()],
            this_turn: [0; Operation::COUNTED.len()],
            errors: 0,
            forwarded: 0,
            turns: 0,
            sleeps: 0,
            log_writes: 0,
            log_bytes: 0,
            accepted: 0,
            refused: 0,
            timed_out: 0,
            counters: Counters::default(),
            rates: Rates::default(),
            commands: CommandMetrics::new(COMMANDS.len(), enabled),
            heavy: HeavyRuns::default(),
        }
    }

    /// Requests of every protocol that were answered.
    pub fn requests(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.this_turn.iter().sum::<u64>()
    }

    /// Takes the samples that rates are made of; to be called some ten times a second. `now_us` is a time of the
    /// monotonic clock.
    pub fn sample_rates(&mut self, now_us: u64) {
        let requests = self.requests();
        self.rates.commands.sample(now_us, requests);
        self.rates.input.sample(now_us, self.counters.net_input_bytes);
        self.rates.output.sample(now_us, self.counters.net_output_bytes);
    }

    /// Sets what INFO counts to zero, as CONFIG RESETSTAT has it. Turns and log writes, which only STATS tells, stay.
    pub fn reset_statistics(&mut self) {
        *self = Self {
            turns: self.turns,
            sleeps: self.sleeps,
            log_writes: self.log_writes,
            log_bytes: self.log_bytes,
            ..Self::new(self.enabled)
        };
    }

    /// Counts a request that was answered. `arrived_us` and `turn_us` are times of the monotonic clock.
    #[inline]
    pub fn answered(&mut self, operation: Operation, arrived_us: u64, turn_us: u64) {
        self.answered_alike(operation, arrived_us, turn_us, 1);
    }

    /// [`Metrics::answered`], of `count` requests.
    #[inline]
    pub fn answered_alike(&mut self, operation: Operation, arrived_us: u64, turn_us: u64, count: u64) {
        let place = usize::from(operation.code()) - 1;
        if arrived_us >= turn_us {
            self.this_turn[place] += count;
            return;
        }
        self.counts[place] += count;
        if self.enabled {
            self.latencies[place].saturating_record_n((turn_us - arrived_us).max(1), count);
        }
    }

    /// Whether [`Metrics::end_turn`] has anything to do.
    #[inline]
    pub fn has_turn_counts(&self) -> bool {
        self.this_turn.iter().any(|&count| count > 0) || self.commands.has_turn_counts()
    }

    /// Gives the requests that were answered in the turn that received them their latency: the turn's length.
    pub fn end_turn(&mut self, turn: Duration) {
        self.commands.end_turn(turn.as_nanos() as u64);
        let latency_us = (turn.as_micros() as u64).clamp(1, LATENCY_MAX_US);
        for place in 0..self.this_turn.len() {
            let count = std::mem::take(&mut self.this_turn[place]);
            if count > 0 {
                self.counts[place] += count;
                if self.enabled {
                    self.latencies[place].saturating_record_n(latency_us, count);
                }
            }
        }
    }
}

/// What a core says of itself.
#[derive(Debug)]
pub struct CoreReport {
    /// Its number.
    pub core: u16,
    /// The processor it is pinned to.
    pub processor: usize,
    /// Keys that it owns.
    pub keys: u64,
    /// Keys among them that have an expiry.
    pub expiring_keys: u64,
    /// Memory of keys, values and tables.
    pub memory_bytes: u64,
    /// All of its memory.
    pub memory: CoreMemory,
    /// The sum of the newest log indexes of its shards: grows with every entry.
    pub entries: u64,
    /// Its shards.
    pub shards: u16,
    /// Open connections.
    pub connections: u64,
    /// Bytes appended to the log that are not on disk yet.
    pub log_pending_bytes: u64,
    /// Bytes of the log's segments that are kept, without the one that is being written.
    pub log_kept_bytes: u64,
    /// Whether writes are refused because the disk is full.
    pub read_only: bool,
    /// Its counters.
    pub metrics: Box<Metrics>,
}

impl Metrics {
    /// Memory of the histograms.
    pub fn memory_bytes(&self) -> usize {
        self.latencies.iter().map(|latencies| latencies.distinct_values() * size_of::<u64>()).sum()
    }

    /// A copy for a report.
    pub fn snapshot(&self) -> Box<Self> {
        Box::new(self.clone())
    }
}

/// What is the same on every core, for the report.
#[derive(Debug, Clone)]
pub struct ReportContext {
    /// The node's name.
    pub node_id: String,
    /// The shared address.
    pub address: String,
    /// Shards of the node.
    pub shards: u16,
    /// Whether replies to writes wait for the disk.
    pub sync_writes: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    storage: Storage<'a>,
    network: Network<'a>,
    raft: Raft<'a>,
    metrics: Figures,
    memory: MemoryReport,
    cores: Vec<PerCore>,
}

#[derive(Serialize)]
struct Storage<'a> {
    keys: u64,
    expiring_keys: u64,
    memory_usage: u64,
    max_memory: u64,
    version: &'a str,
    entries: u64,
    sync_writes: bool,
    read_only: bool,
}

#[derive(Serialize)]
struct Network<'a> {
    active_connections: u64,
    total_connections: u64,
    refused_connections: u64,
    failed_authentications: u64,
    total_requests: u64,
    address: &'a str,
}

#[derive(Serialize)]
struct Raft<'a> {
    mode: &'a str,
    node_id: &'a str,
    shards: u16,
}

#[derive(Serialize)]
struct Figures {
    uptime_seconds: f64,
    errors: u64,
    operations: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct OperationFigures {
    count: u64,
    ops_per_sec: f64,
    avg_us: f64,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

#[derive(Serialize)]
struct PerCore {
    core: u16,
    processor: usize,
    shards: u16,
    keys: u64,
    memory_usage: u64,
    active_connections: u64,
    requests: u64,
    forwarded: u64,
    turns: u64,
    sleeps: u64,
    log_writes: u64,
    log_bytes: u64,
    log_pending_bytes: u64,
    log_kept_bytes: u64,
}

/// The report of a node, as JSON, in the shape that operators of the original know.
pub fn report_json(
    context: &ReportContext,
    node_memory: &NodeMemory,
    uptime: Duration,
    cores: &[CoreReport],
) -> String {
    let sum = |figure: fn(&CoreReport) -> u64| cores.iter().map(figure).sum::<u64>();
    let requests = |core: &CoreReport| core.metrics.requests();
    let uptime_seconds = uptime.as_secs_f64();
    let report = Report {
        storage: Storage {
            keys: sum(|core| core.keys),
            expiring_keys: sum(|core| core.expiring_keys),
            memory_usage: sum(|core| core.memory_bytes),
            max_memory: node_memory.limit.unwrap_or(0),
            version: env!("CARGO_PKG_VERSION"),
            entries: sum(|core| core.entries),
            sync_writes: context.sync_writes,
            read_only: cores.iter().any(|core| core.read_only),
        },
        network: Network {
            active_connections: sum(|core| core.connections),
            total_connections: sum(|core| core.metrics.accepted),
            refused_connections: sum(|core| core.metrics.refused),
            failed_authentications: sum(|core| core.metrics.counters.failed_authentications),
            total_requests: cores.iter().map(requests).sum(),
            address: &context.address,
        },
        raft: Raft { mode: "standalone", node_id: &context.node_id, shards: context.shards },
        metrics: Figures {
            uptime_seconds,
            errors: sum(|core| core.metrics.errors),
            operations: operations(cores, uptime_seconds),
        },
        memory: MemoryReport::new(node_memory, &CoreMemory::sum(cores.iter().map(|core| &core.memory))),
        cores: cores
            .iter()
            .map(|core| PerCore {
                core: core.core,
                processor: core.processor,
                shards: core.shards,
                keys: core.keys,
                memory_usage: core.memory_bytes,
                active_connections: core.connections,
                requests: requests(core),
                forwarded: core.metrics.forwarded,
                turns: core.metrics.turns,
                sleeps: core.metrics.sleeps,
                log_writes: core.metrics.log_writes,
                log_bytes: core.metrics.log_bytes,
                log_pending_bytes: core.log_pending_bytes,
                log_kept_bytes: core.log_kept_bytes,
            })
            .collect(),
    };
    serde_json::to_string(&report).expect("numbers and strings")
}

/// The figures of each operation that was asked for at least once.
fn operations(cores: &[CoreReport], uptime_seconds: f64) -> serde_json::Map<String, serde_json::Value> {
    let mut operations = serde_json::Map::new();
    for operation in Operation::COUNTED {
        let place = usize::from(operation.code()) - 1;
        let count: u64 = cores.iter().map(|core| core.metrics.counts[place]).sum();
        if count == 0 {
            continue;
        }
        let mut latencies = cores[0].metrics.latencies[place].clone();
        for core in &cores[1..] {
            latencies.add(&core.metrics.latencies[place]).expect("histograms of equal bounds");
        }
        let figures = OperationFigures {
            count,
            ops_per_sec: round(count as f64 / uptime_seconds.max(0.001)),
            avg_us: round(latencies.mean()),
            p50_us: latencies.value_at_quantile(0.50),
            p95_us: latencies.value_at_quantile(0.95),
            p99_us: latencies.value_at_quantile(0.99),
            p999_us: latencies.value_at_quantile(0.999),
            max_us: latencies.max(),
        };
        let value = serde_json::to_value(figures).expect("numbers");
        operations.insert(operation.name().to_lowercase(), value);
    }
    operations
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(core: u16, metrics: &Metrics) -> CoreReport {
        CoreReport {
            core,
            processor: usize::from(core),
            keys: 3,
            expiring_keys: 1,
            memory_bytes: 100,
            memory: CoreMemory { evicted: 5, hits: 9, ..CoreMemory::default() },
            entries: 7,
            shards: 4,
            connections: 2,
            log_pending_bytes: 0,
            log_kept_bytes: 0,
            read_only: false,
            metrics: metrics.snapshot(),
        }
    }

    fn node_memory() -> NodeMemory {
        use crate::config::{Config, MemorySettings, Tunables};
        use clap::Parser;
        let config = Config::parse_from(["eyot-server", "--max-memory", "1000"]);
        let settings = MemorySettings::resolve(&config.memory, None).unwrap();
        NodeMemory::now(&settings, &Tunables::new(&settings), &crate::memory::Board::new(2))
    }

    #[test]
    fn cores_are_summed_and_percentiles_merged() {
        let (mut slow, mut fast) = (Metrics::new(true), Metrics::new(true));
        for _ in 0..50 {
            slow.answered(Operation::Get, 1000, 2000);
            fast.answered(Operation::Get, 2000, 2000);
        }
        fast.end_turn(Duration::from_micros(10));
        let context =
            ReportContext { node_id: "n".into(), address: "127.0.0.1:6380".into(), shards: 8, sync_writes: true };
        let json =
            report_json(&context, &node_memory(), Duration::from_secs(10), &[report(0, &slow), report(1, &fast)]);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["storage"]["keys"], 6);
        assert_eq!(value["network"]["total_requests"], 100);
        let get = &value["metrics"]["operations"]["get"];
        assert_eq!((&get["count"], &get["ops_per_sec"]), (&100.into(), &10.0.into()));
        assert_eq!(get["p50_us"], 10);
        let p99_us = get["p99_us"].as_u64().unwrap();
        assert!((990..=1010).contains(&p99_us), "{p99_us}");
        assert!(value["metrics"]["operations"].get("set").is_none());
        assert_eq!(value["cores"].as_array().unwrap().len(), 2);
        assert_eq!((&value["memory"]["evicted_keys"], &value["memory"]["keyspace_hits"]), (&10.into(), &18.into()));
        assert_eq!((&value["memory"]["limit"], &value["storage"]["max_memory"]), (&1000.into(), &1000.into()));
    }

    #[test]
    fn without_metrics_requests_are_still_counted() {
        let mut metrics = Metrics::new(false);
        metrics.answered(Operation::Set, 0, 5);
        metrics.answered(Operation::Set, 5, 5);
        assert!(metrics.has_turn_counts());
        metrics.end_turn(Duration::from_micros(1));
        assert_eq!(metrics.counts[usize::from(Operation::Set.code()) - 1], 2);
    }
}
