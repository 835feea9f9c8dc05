//! What the cores of a node have in common: immutable facts, and three counters.
//!
//! Place in the flow: made by `main`, read by every core. Nothing here is written on the request path.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use eyot_protocol::response::HelloReply;
use eyot_ring::Waker;

use crate::admin::figures::NodeFacts;
use crate::config::{ServerTunables, Settings, Tunables};
use crate::memory::Board;
use crate::metrics::ReportContext;
use crate::net::listener::Addresses;
use crate::router::Routes;
use crate::snapshot::SnapshotBoard;

/// What every core knows.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub settings: Settings,
    /// What of it may change while the node runs.
    pub tunables: Tunables,
    /// What the cores know of each other's memory.
    pub memory: Board,
    /// What the cores know of each other's snapshots.
    pub snapshots: SnapshotBoard,
    /// What of clients and logs may change while the node runs.
    pub server_tunables: ServerTunables,
    /// What INFO says of the node.
    pub facts: NodeFacts,
    /// The most memory that was ever counted.
    pub memory_peak: AtomicU64,
    /// Connections that the limit of open files leaves room for.
    pub clients_possible: u64,
    /// Which core owns which key.
    pub routes: Routes,
    /// The answer to HELLO, save the core's number.
    pub hello: HelloReply,
    /// What STATS says of the node.
    pub report: ReportContext,
    /// When the node started.
    pub started: Instant,
    /// Wakes each core.
    pub wakers: Vec<Waker>,
    /// Where the Redis protocol is spoken, if it is.
    pub resp_addresses: Option<Addresses>,
    /// The node's random number, fixed in its data directory.
    pub node_uuid: u128,
    /// The number of the connection that is accepted next.
    pub next_connection_id: AtomicU64,
    /// Connections that are open, over all cores.
    pub connections: AtomicUsize,
    /// Set once: every core accepts connections.
    pub serving: AtomicBool,
    /// Set once: stop taking requests, finish what is in flight.
    pub stopping: AtomicBool,
    /// Cores that have nothing in flight any more.
    pub settled_cores: AtomicUsize,
}

impl Shared {
    /// Asks every core to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Asks every core for new snapshots of all its shards; returns the request's number.
    pub fn request_snapshots(&self) -> u64 {
        let number = self.snapshots.request();
        self.wakers.iter().for_each(Waker::wake);
        number
    }

    /// Whether the node is stopping.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A core has nothing in flight any more. The last one wakes the others, which wait for that.
    pub fn core_settled(&self) {
        if self.settled_cores.fetch_add(1, Ordering::SeqCst) + 1 == self.wakers.len() {
            self.wakers.iter().for_each(Waker::wake);
        }
    }

    /// Whether every core has settled.
    pub fn all_settled(&self) -> bool {
        self.settled_cores.load(Ordering::SeqCst) == self.wakers.len()
    }

    /// Takes a place for a connection; whether there was one.
    pub fn take_connection(&self) -> bool {
        let taken = self.connections.fetch_add(1, Ordering::Relaxed) < self.server_tunables.max_clients() as usize;
        if !taken {
            self.give_connection_back();
        }
        taken
    }

    /// Gives a connection's place back.
    pub fn give_connection_back(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
