//! Administration over the Redis protocol: what operators, dashboards and cluster-aware clients ask of a node.
//!
//! Place in the flow: steps 5 (execute) and 9 (reply) of such requests, behind the core's dispatch. Some are answered
//! by the core that was asked ([`answer`]); those in which every core has a part are gathered ([`gather`]).
//!
//! | module | what it answers |
//! |---|---|
//! | [`info`], [`figures`], [`process`] | INFO, of the sums over the cores' reports |
//! | [`memory_reply`] | MEMORY STATS, DOCTOR |
//! | [`cluster`], [`identifier`] | CLUSTER: each core as a node |
//! | [`config_names`] | CONFIG GET, SET |
//! | [`slowlog`], [`latency`] | SLOWLOG, LATENCY |
//! | [`command_words`] | a command that took long, in the words of Redis |
//! | [`client_list`] | CLIENT LIST, INFO, KILL |
//! | [`greeting`] | HELLO, TIME, LOLWUT |
//! | [`gather`] | what goes to every core, and the reply of what comes back |
//!
//! Invariants:
//! - Pure but for [`process`]: time and the state of cores are arguments.
//! - Fields and error lines are those of Redis 7.0.15, which clients and dashboards read; `docs/RESP.md` lists what
//!   differs. Nothing is made up: what Eyot does not have is 0 or absent.
//!
//! Deliberately not here: requests about keys, and what changes a connection (HELLO's version, names, CLIENT REPLY).

pub mod client_list;
pub mod cluster;
pub mod command_words;
pub mod config_names;
pub mod figures;
pub mod gather;
pub mod greeting;
pub mod identifier;
pub mod info;
pub mod latency;
pub mod memory_reply;
mod memory_tunables;
pub mod process;
pub mod slowlog;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod words;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;

use eyot_protocol::key::slot;
use eyot_protocol::resp::request::{ClusterCommand, ConfigCommand, RespRequest};
use eyot_protocol::resp::{Writer, COMMANDS};

use self::cluster::ClusterView;
use self::config_names::{ConfigContext, POLICY_NAMES};
use self::figures::{Moment, NodeFacts, NodeFigures};
use self::process::ProcessFigures;
use crate::metrics::CoreReport;
use crate::router::Routes;
use crate::snapshot::SnapshotBoard;

/// The version of Redis whose replies these are.
pub const COMPATIBLE_VERSION: &str = "7.0.15";

/// The name of the command at `place` of the protocol's table.
pub fn command_name(place: usize) -> &'static str {
    COMMANDS[place].name
}

/// What replies are made of: borrowed from the core that was asked.
#[derive(Debug, Clone, Copy)]
pub struct AdminContext<'a> {
    /// What does not change while the node runs.
    pub facts: &'a NodeFacts,
    /// The most memory that was ever counted: one for the node.
    pub memory_peak: &'a AtomicU64,
    /// Settings, and what can be changed of them.
    pub config: ConfigContext<'a>,
    /// What there is of snapshots.
    pub snapshots: &'a SnapshotBoard,
    /// Which core owns which slot.
    pub routes: &'a Routes,
    /// For each core, where its own listener for the Redis protocol is; the shared one where there is one core.
    pub core_addresses: &'a [SocketAddr],
    /// This core.
    pub core: u16,
    /// The address of this node that the client's connection came in on.
    pub arrived_on: IpAddr,
    /// When somebody asked.
    pub moment: Moment,
}

impl AdminContext<'_> {
    /// The sums over the cores' reports.
    pub fn figures(&self, reports: &[CoreReport]) -> NodeFigures {
        let mut figures = NodeFigures::of(self.facts.clone(), self.moment, ProcessFigures::read(), reports);
        figures.max_memory_bytes = self.config.memory.max_memory_bytes();
        figures.policy = POLICY_NAMES[usize::from(self.config.memory.policy()) % POLICY_NAMES.len()];
        figures.max_clients = self.config.tunables.max_clients();
        figures.note_peak(self.memory_peak);
        figures.snapshots = self.snapshots.figures();
        figures
    }

    /// The cores as this client is to see them.
    pub fn cluster(&self) -> ClusterView {
        ClusterView::new(self.routes, self.core_addresses, self.facts.node_uuid, self.core, self.arrived_on)
    }
}

/// Answers `request` if this core can do so alone; whether it did.
pub fn answer(request: &RespRequest<'_>, context: &AdminContext<'_>, reply: &mut Writer<'_>) -> bool {
    match request {
        RespRequest::Time => greeting::time(context.moment.wall_us, reply),
        RespRequest::Lolwut { .. } => reply.verbatim(&greeting::lolwut(context.moment.monotonic_us)),
        RespRequest::Config(command) => return answer_config(command, context, reply),
        RespRequest::Cluster(command) => return answer_cluster(command, context, reply),
        _ => return false,
    }
    true
}

fn answer_config(command: &ConfigCommand<'_>, context: &AdminContext<'_>, reply: &mut Writer<'_>) -> bool {
    match command {
        ConfigCommand::Get(patterns) => config_names::get(&context.config, *patterns, reply),
        ConfigCommand::Set(pairs) => match config_names::set(&context.config, *pairs) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.line()),
        },
        ConfigCommand::Rewrite => reply.error("ERR The server is running without a config file"),
        ConfigCommand::ResetStat => return false,
    }
    true
}

fn answer_cluster(command: &ClusterCommand<'_>, context: &AdminContext<'_>, reply: &mut Writer<'_>) -> bool {
    match command {
        ClusterCommand::Slots => context.cluster().slots(reply),
        ClusterCommand::Shards => context.cluster().shards(reply),
        ClusterCommand::Nodes => reply.verbatim(&context.cluster().nodes_text()),
        ClusterCommand::MyId => reply.bulk_text(context.cluster().my_id()),
        ClusterCommand::Info => reply.verbatim(&context.cluster().info_text()),
        ClusterCommand::KeySlot(key) => reply.integer(i64::from(slot(key))),
        // The core that owns the slot counts its keys.
        ClusterCommand::CountKeysInSlot(_) | ClusterCommand::GetKeysInSlot { .. } => return false,
    }
    true
}
