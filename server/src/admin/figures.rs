//! The figures of a node that INFO, MEMORY and LATENCY tell: facts of the start, the sums over cores, the moment.
//!
//! Place in the flow: made by the core whose client asked, when the reports of all cores have come; pure, but for what
//! [`ProcessFigures`] brings.
//!
//! Invariant: a figure that this version does not know is 0 here, and INFO says so or leaves it out: nothing is made
//! up.

use std::time::Duration;

use super::identifier::identifier;
use super::process::{machine_memory_bytes, operating_system, ProcessFigures};
use crate::memory::Ledger;
use crate::metrics::commands::CommandMetrics;
use crate::metrics::{CoreReport, Counters};
use crate::snapshot::SnapshotFigures;

/// What does not change while the node runs.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub node_id: String,
    /// The data directory's number, from which nodes and runs get their names.
    pub node_uuid: u128,
    /// The name of this run.
    pub run_id: String,
    /// The kernel.
    pub operating_system: String,
    /// The process.
    pub process_id: u32,
    /// The port of the Redis protocol.
    pub resp_port: u16,
    /// The port of the native protocol.
    pub native_port: u16,
    /// The program's file.
    pub executable: String,
    /// Memory of the machine, in bytes.
    pub machine_memory_bytes: u64,
    /// Shards of the node.
    pub shards: u16,
    /// Whether cores are shown as the nodes of a cluster.
    pub cluster_enabled: bool,
    /// Whether replies to writes wait for the disk.
    pub sync_writes: bool,
    /// When the node started, in seconds since the epoch.
    pub started_unix_s: u64,
}

impl NodeFacts {
    /// The facts of this process; the caller fills in ports, shards and settings. `started_unix_s` tells runs apart.
    pub fn of_this_process(node_id: &str, node_uuid: u128, started_unix_s: u64) -> Self {
        let process_id = std::process::id();
        Self {
            node_id: node_id.to_owned(),
            node_uuid,
            run_id: identifier(node_uuid, started_unix_s << 32 | u64::from(process_id)),
            operating_system: operating_system(),
            process_id,
            executable: std::env::current_exe().map_or(String::new(), |path| path.display().to_string()),
            machine_memory_bytes: machine_memory_bytes(),
            started_unix_s,
            ..Self::default()
        }
    }
}

/// When somebody asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// Microseconds since the epoch.
    pub wall_us: i64,
    /// Microseconds of the node's monotonic clock.
    pub monotonic_us: u64,
}

impl Moment {
    /// How long the node has run.
    pub fn uptime(&self) -> Duration {
        Duration::from_micros(self.monotonic_us)
    }
}

/// Where the memory is, over all cores, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Hash tables and the timers of expiring keys.
    pub table: u64,
    /// Keys and values.
    pub entries: u64,
    /// Entries on their way to the disk, and the log's own buffers.
    pub log_tail: u64,
    /// Input and output of connections.
    pub connections: u64,
    /// Requests and results between cores.
    pub in_flight: u64,
    /// Values that are kept outside of their entries.
    pub large_values: u64,
    /// What a core has from its start.
    pub fixed: u64,
}

impl MemoryParts {
    /// Adds what a core counted.
    fn add(&mut self, core: &Ledger) {
        self.table += core.table;
        self.entries += core.entries;
        self.log_tail += core.log_tail;
        self.connections += core.connections;
        self.in_flight += core.in_flight;
        self.large_values += core.large_values;
        self.fixed += core.fixed;
    }

    /// What was counted in all.
    pub fn total(&self) -> u64 {
        self.data() + self.overhead()
    }

    /// Keys and values, wherever they are.
    pub fn data(&self) -> u64 {
        self.entries + self.large_values
    }

    /// All but keys and values.
    pub fn overhead(&self) -> u64 {
        self.table + self.log_tail + self.connections + self.in_flight + self.fixed
    }
}

/// One core, for the lines that tell cores apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreFigures {
    /// Its number.
    pub core: u16,
    /// The processor it is pinned to.
    pub processor: usize,
    /// Keys that it owns.
    pub keys: u64,
    /// Memory of those.
    pub memory_bytes: u64,
    /// Open connections.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests that another core owned.
    pub forwarded: u64,
}

/// The figures of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeFigures {
    /// What does not change.
    pub facts: NodeFacts,
    /// When somebody asked.
    pub moment: Moment,
    /// What the kernel says.
    pub process: ProcessFigures,
    /// Limit of memory in bytes; 0: none.
    pub max_memory_bytes: u64,
    /// The name of the eviction policy.
    pub policy: &'static str,
    /// Most connections.
    pub max_clients: u64,
    /// Where the memory is.
    pub memory: MemoryParts,
    /// The most memory that was ever counted, in bytes: see [`NodeFigures::note_peak`].
    pub memory_peak: u64,
    /// Keys.
    pub keys: u64,
    /// Keys that have an expiry.
    pub expiring_keys: u64,
    /// Entries of the logs.
    pub entries: u64,
    /// Bytes that wait for the disk.
    pub log_pending_bytes: u64,
    /// Log writes, and their bytes.
    pub log_writes: u64,
    /// See `log_writes`.
    pub log_bytes: u64,
    /// What there is of snapshots.
    pub snapshots: SnapshotFigures,
    /// Whether the disk is full on any core.
    pub read_only: bool,
    /// Open connections.
    pub connections: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused at the limit.
    pub refused: u64,
    /// Requests of every protocol.
    pub requests: u64,
    /// Requests of every protocol that ended in an error.
    pub errors: u64,
    /// Plain counts.
    pub counters: Counters,
    /// Requests a second, of late.
    pub requests_per_second: u64,
    /// Bytes a second from clients, of late.
    pub input_per_second: u64,
    /// Bytes a second to clients, of late.
    pub output_per_second: u64,
    /// The commands of the Redis protocol.
    pub commands: CommandMetrics,
    /// Each core.
    pub cores: Vec<CoreFigures>,
}

impl NodeFigures {
    /// The sums over `cores` at `moment`; limits and the peak are the caller's to fill in.
    pub fn of(facts: NodeFacts, moment: Moment, process: ProcessFigures, cores: &[CoreReport]) -> Self {
        let mut figures = Self { facts, moment, process, policy: "noeviction", ..Self::default() };
        for core in cores {
            figures.add(core);
        }
        figures
    }

    fn add(&mut self, core: &CoreReport) {
        let (metrics, now_us) = (&core.metrics, self.moment.monotonic_us);
        self.memory.add(&core.memory.ledger);
        self.counters.keyspace_hits += core.memory.hits;
        self.counters.keyspace_misses += core.memory.misses;
        self.counters.expired_keys += core.memory.expired;
        self.counters.evicted_keys += core.memory.evicted;
        self.keys += core.keys;
        self.expiring_keys += core.expiring_keys;
        self.entries += core.entries;
        self.log_pending_bytes += core.log_pending_bytes;
        self.log_writes += metrics.log_writes;
        self.log_bytes += metrics.log_bytes;
        self.read_only |= core.read_only;
        self.connections += core.connections;
        self.accepted += metrics.accepted;
        self.refused += metrics.refused;
        self.requests += metrics.requests();
        self.errors += metrics.errors;
        self.counters.add(&metrics.counters);
        self.requests_per_second += metrics.rates.commands.per_second(now_us);
        self.input_per_second += metrics.rates.input.per_second(now_us);
        self.output_per_second += metrics.rates.output.per_second(now_us);
        self.commands.add(&metrics.commands);
        self.cores.push(CoreFigures {
            core: core.core,
            processor: core.processor,
            keys: core.keys,
            memory_bytes: core.memory_bytes,
            connections: core.connections,
            requests: metrics.requests(),
            forwarded: metrics.forwarded,
        });
    }

    /// Raises `peak`, the most memory that was ever seen, and tells it.
    pub fn note_peak(&mut self, peak: &std::sync::atomic::AtomicU64) {
        let used = self.memory.total();
        self.memory_peak = peak.fetch_max(used, std::sync::atomic::Ordering::Relaxed).max(used);
    }
}
