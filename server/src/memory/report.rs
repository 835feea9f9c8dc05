//! What STATS says of memory.
//!
//! Place in the flow: each core fills a [`CoreMemory`]; whoever was asked sums them and adds what the node knows.

use serde::Serialize;
use serde_json::{Map, Value};

use super::buffer_pool::{BufferPoolFigures, BufferPoolSettings};
use super::ledger::{Board, Foreseen, Ledger};
use super::pressure::{Level, Pressure, Thresholds};
use crate::config::{MemorySettings, Tunables};
use crate::net::connection::Batching;
use crate::shard::eviction::Policy;

/// What a core says of its memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreMemory {
    /// What it has.
    pub ledger: Ledger,
    /// What is to come.
    pub foreseen: Foreseen,
    /// How short memory is, as this core has judged last.
    pub pressure: Pressure,
    /// Keys that were evicted.
    pub evicted: u64,
    /// Keys whose eviction was begun, by the policy's number.
    pub evictions: [u64; Policy::ALL.len()],
    /// Keys that were removed because they had expired.
    pub expired: u64,
    /// Reads of values that found a key.
    pub hits: u64,
    /// Reads of values that found none.
    pub misses: u64,
    /// Its buffers.
    pub buffer_pool: BufferPoolFigures,
}

impl CoreMemory {
    /// The sum over cores. The pressure is that of the core that sees the least room.
    pub fn sum<'a>(cores: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for core in cores {
            sum.ledger.add(&core.ledger);
            sum.foreseen.growing += core.foreseen.growing;
            sum.foreseen.evicting += core.foreseen.evicting;
            if core.pressure.level >= sum.pressure.level {
                sum.pressure = core.pressure;
            }
            sum.evicted += core.evicted;
            sum.evictions.iter_mut().zip(core.evictions).for_each(|(sum, count)| *sum += count);
            sum.expired += core.expired;
            sum.hits += core.hits;
            sum.misses += core.misses;
            sum.buffer_pool.add(&core.buffer_pool);
        }
        sum
    }
}

/// What the node knows of its memory beside its cores' figures.
#[derive(Debug, Clone, Copy)]
pub struct NodeMemory {
    /// The limit now; `None`: there is none.
    pub limit: Option<u64>,
    /// What goes at the limit.
    pub policy: Policy,
    /// Keys that are looked at to choose one.
    pub samples: usize,
    /// Where the levels begin.
    pub thresholds: Thresholds,
    /// Resident memory at the last look; 0: nobody looks.
    pub resident: u64,
    /// The most of all looks.
    pub resident_peak: u64,
    /// What the process has beyond the ledgers.
    pub overhead: u64,
    /// How the cores' pools are made.
    pub buffer_pool: BufferPoolSettings,
    /// How replies wait for others.
    pub batching: Batching,
}

impl NodeMemory {
    /// What holds now.
    pub fn now(settings: &MemorySettings, tunables: &Tunables, board: &Board) -> Self {
        Self {
            limit: tunables.max_memory_bytes(),
            policy: tunables.eviction_policy(),
            samples: tunables.eviction_samples(),
            thresholds: settings.thresholds,
            resident: board.resident(),
            resident_peak: board.resident_peak(),
            overhead: board.overhead(),
            buffer_pool: settings.buffer_pool,
            batching: settings.batching,
        }
    }
}

/// The section `memory` of STATS.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    limit: u64,
    ledger_limit: u64,
    level: Level,
    threshold: f64,
    high_threshold: f64,
    policy: &'static str,
    samples: usize,
    used: u64,
    ledger: Ledger,
    growing: u64,
    evicting: u64,
    rss: u64,
    rss_peak: u64,
    overhead: u64,
    fragmentation: f64,
    evicted_keys: u64,
    evictions: Map<String, Value>,
    expired_keys: u64,
    keyspace_hits: u64,
    keyspace_misses: u64,
    buffer_pool: BufferPoolReport,
    batching: BatchingReport,
}

#[derive(Debug, Serialize)]
struct BufferPoolReport {
    size: usize,
    initial_capacity: usize,
    max_capacity: usize,
    #[serde(flatten)]
    figures: BufferPoolFigures,
    reuse_rate: f64,
    /// Whether buffers are given back because memory is short.
    pressure: Level,
}

#[derive(Debug, Serialize)]
struct BatchingReport {
    enabled: bool,
    size: u32,
    bytes: usize,
}

impl MemoryReport {
    /// Of a node whose cores' figures sum up to `cores`.
    pub fn new(node: &NodeMemory, cores: &CoreMemory) -> Self {
        let used = cores.ledger.total();
        let share = |thousandths: u16| f64::from(thousandths) / 1000.0;
        let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
        let evictions = Policy::ALL
            .into_iter()
            .filter(|policy| policy.evicts())
            .map(|policy| (policy.name().to_owned(), cores.evictions[usize::from(policy.number())].into()));
        Self {
            limit: node.limit.unwrap_or(0),
            ledger_limit: node.limit.map_or(0, |_| cores.pressure.limit),
            level: cores.pressure.level,
            threshold: share(node.thresholds.elevated),
            high_threshold: share(node.thresholds.high),
            policy: node.policy.name(),
            samples: node.samples,
            used,
            ledger: cores.ledger,
            growing: cores.foreseen.growing,
            evicting: cores.foreseen.evicting,
            rss: node.resident,
            rss_peak: node.resident_peak,
            overhead: node.overhead,
            fragmentation: if used == 0 { 0.0 } else { rounded(node.resident as f64 / used as f64) },
            evicted_keys: cores.evicted,
            evictions: evictions.collect(),
            expired_keys: cores.expired,
            keyspace_hits: cores.hits,
            keyspace_misses: cores.misses,
            buffer_pool: BufferPoolReport {
                size: node.buffer_pool.buffers_max,
                initial_capacity: node.buffer_pool.initial_bytes,
                max_capacity: node.buffer_pool.buffer_bytes_max,
                figures: cores.buffer_pool,
                reuse_rate: rounded(cores.buffer_pool.reuse_rate()),
                pressure: cores.pressure.level,
            },
            batching: BatchingReport {
                enabled: node.batching.enabled,
                size: node.batching.replies_max,
                bytes: node.batching.bytes_max,
            },
        }
    }
}
