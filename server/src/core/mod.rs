//! The core: one thread, one ring, one turn.
//!
//! Place in the flow: runs all nine steps for the connections and keys of one processor. A turn is:
//!
//! ```text
//! enter the ring: submit what the last turn queued, make due what is due; sleep here when there is nothing to do
//! for each completion: one closed Event enum
//! drain the inbox: batches of other cores
//! shards with new commands: one entry each, handed to the log
//! log: what may be written now, in one write for all shards
//! outboxes: one batch per other core; wake it if it sleeps
//! connections with replies: one send each
//! ```
//!
//! Invariants:
//! - Run to completion: no await, no lock and no other thread's memory between a request and its reply.
//! - A turn is bounded in what it takes: [`EVENTS_PER_TURN`] completions of at most one receive buffer each,
//!   [`MESSAGES_PER_TURN`] messages, and about a millisecond: what is left then waits for the next turn.
//! - What blocks (making log segments) is a helper thread's: the loop is one task of the executor that never awaits, so
//!   glommio, which pins the thread, costs nothing and cannot sleep over it.

mod admin;
mod authentication;
mod clock;
mod deferred;
mod execute;
mod housekeeper;
mod job_thread;
mod keyspace;
mod large_requests;
mod lifecycle;
mod log;
mod memory_pressure;
mod messages;
mod native;
mod outlet;
mod paging;
mod random;
mod requests;
mod resp;
mod shared;
mod slices;
mod slow_commands;
mod snapshot_encoder;
mod snapshot_requests;
mod snapshot_rounds;
mod snapshot_thread;
mod snapshots;
mod startup;
mod stopping;
mod timeouts;
mod turn;
mod uploads;
mod walks;

pub use shared::Shared;
pub use startup::{recovery_stop, snapshot_stop, spawn, CoreStart, Ready};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use eyot_protocol::resp::{ArgList, RespLimits};
use eyot_ring::{Event, Ring, Sleeper};

use self::clock::TurnClock;
use self::log::CoreLog;
use self::memory_pressure::MemoryWork;
use crate::admin::gather::ClientWalk;
use crate::admin::latency::LatencyEvents;
use crate::admin::slowlog::SlowLog;
use crate::memory::LargeValues;
use crate::metrics::Metrics;
use crate::net::connections::Connections;
use crate::net::listener::Listener;
use crate::replication::ShardDriver;
use crate::router::mesh::Mesh;
use crate::router::scatter::Gathers;
use crate::security::admit::WriteBudget;
use crate::security::password::FailedAttempts;

/// Completions that one turn handles: at 16 KiB each, at most 4 MiB of requests before replies leave.
pub const EVENTS_PER_TURN: usize = 256;
/// Messages that one turn takes from the inbox: a few of every other core.
pub const MESSAGES_PER_TURN: usize = 256;

/// Everything of a core that is not the ring: what requests are executed on.
#[derive(Debug)]
pub(crate) struct Work {
    core: u16,
    shared: Arc<Shared>,
    max_frame_bytes: usize,
    max_value_bytes: usize,
    clock: TurnClock,
    connections: Connections,
    shards: Vec<ShardDriver>,
    /// Shards with an open entry, by their local numbers.
    open_shards: Vec<u16>,
    /// Shards with entries that are committed and were not applied at once, since that takes long.
    put_off: VecDeque<u16>,
    log: CoreLog,
    /// Where large values are; `None`: on the heap.
    large_values: Option<LargeValues>,
    /// Requests whose large value comes, by connection.
    large_requests: large_requests::LargeRequests,
    /// Large values on their way into the log.
    uploads: uploads::Uploads,
    /// Reads that wait for pages of large values.
    paging: paging::Paging,
    /// Snapshots of the shards, under way and published.
    snapshots: snapshots::Snapshots,
    mesh: Mesh,
    gathers: Gathers,
    /// Walks over keys that are under way.
    walks: walks::Walks,
    /// Walks over connections that are under way, with the core and the gather that want the answer: bounded by what
    /// each core may ask of all at a time.
    client_walks: VecDeque<(u16, u32, ClientWalk)>,
    /// Requests on very many keys that are not all routed yet.
    sliced: slices::SlicedRequests,
    metrics: Metrics,
    /// What a RESP request may have, and where its arguments are kept.
    resp_limits: RespLimits,
    arguments: ArgList,
    /// Whether a cleared shard's keys are still to be freed.
    has_graves: bool,
    /// Shards that are still to be swept for expired keys, each once, and the one behind the last that was.
    to_sweep: VecDeque<u16>,
    next_swept: u16,
    deferred: deferred::DeferredReads,
    /// The connection that is judged next; see `timeouts`.
    next_judged: usize,
    random: random::Random,
    slow_log: SlowLog,
    /// Whether every command is timed by itself: somebody wants to know of very short ones.
    times_each: bool,
    latency_events: LatencyEvents,
    /// Passwords that were not right, for the log.
    failed_attempts: FailedAttempts,
    /// What the admission of writes is decided from, renewed every turn.
    budget: WriteBudget,
    /// Where memory is, and what is done when it runs short.
    memory: MemoryWork,
}

/// One core at work.
#[derive(Debug)]
pub(crate) struct Core {
    ring: Ring,
    sleeper: Sleeper,
    listeners: Vec<Listener>,
    /// What is due and was not handled in the turn that found it.
    events: VecDeque<Event>,
    work: Work,
    /// When the next sweep for expired keys is due.
    next_sweep: Instant,
    /// When accepting is tried again after it failed.
    accept_again: Option<Instant>,
    /// Listeners on which accepting has ended.
    listeners_stopped: Vec<u32>,
    /// Connections that linger, by the time at which they are closed, with slot and generation. At most one for each.
    lingering: VecDeque<(Instant, u32, u32)>,
    /// Set while the node stops.
    stopping: Option<Stopping>,
}

#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// When what is still in flight is given up.
    give_up_at: Instant,
    /// Whether this core has told that it has nothing in flight.
    settled: bool,
}
