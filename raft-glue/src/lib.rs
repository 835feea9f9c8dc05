//! The consensus of Eyot: one log per shard, kept alike on several nodes.
//!
//! Place in the flow: step 7 (replicate), between the log (step 6) and apply (step 8). A node that stands alone decides
//! by itself what is committed ([`Standalone`]); a replicated shard decides by majority ([`Group`]). This crate is the
//! only place that knows the `raft` crate, and shows nothing of it.
//!
//! | part | job |
//! |---|---|
//! | [`Group`] | one replica of one group: elections, the log, reads, snapshots, membership |
//! | [`Core`] | the groups of one core: one batch of the log and one frame for each node, each turn |
//! | [`session`] | a command that is sent twice is executed once |
//! | [`ShardLog`] | the seam that the server sees today |
//!
//! Invariants:
//! - Pure: no file, socket, clock, thread, or random number; everything comes in as an argument, and the same inputs
//!   give the same outputs, byte by byte.
//! - What must not leave before the disk has it stays inside until the caller says that it is durable: a caller cannot
//!   send it early.
//! - Indexes of a shard's log are dense; terms never decrease along them.
//! - Every queue and every length has a named bound; nothing that comes from a network or a disk makes it panic. What
//!   panics is a broken invariant, and then the process must end: its state is not to be trusted.
//!
//! # The caller's duties
//!
//! In this order. What is left out here is done inside.
//!
//! 1. **Start.** For each group read the log's records in the order in which they were written, fold them with
//!    [`Recovered::replay`], and let [`Recovered::start_at`] know of a newer snapshot of one's own, if the log is
//!    durable up to it. A log with damage in its middle is not to be cut: refuse it. Install the state of the snapshot;
//!    then build the [`Group`] with an incarnation that no earlier life had. A replica that lost its disk comes back
//!    under another [`PeerId`].
//! 2. **Tick** every group once in each interval of a monotonic clock, never more often than time has passed; take in
//!    what has arrived before it.
//! 3. **Poll** after every input, until it returns false, and do with the output what follows, in this order:
//! 4. **Send** what is in [`Output::send`], in its order for each peer. Messages may be lost, doubled and late, and
//!    nothing else: never changed. Say [`Group::unreachable`] when some were dropped.
//! 5. **Write** [`Output::persist`] to the log in its order, each record whole or not at all. When a record that must
//!    be synced is durable, and never before, say [`Group::persisted`]; then poll again. If the disk fails, end the
//!    process.
//! 6. **Install** what [`Output::install`] names, before anything is applied that stands behind it: the record that
//!    names the snapshot is durable first, then the state is replaced, durably; then [`Group::snapshot_installed`].
//!    Entries that were given out before it and are not applied are in it, and never applied.
//! 7. **Apply** [`Output::apply`] in its order, each entry once, and say [`Group::applied`]. The state machine must be
//!    a function of these entries alone.
//! 8. **Answer** the reads and proposals whose outcome is told. A read is answered from the state as it is when its
//!    grant comes, or later; a proposal when its entry is applied.
//! 9. **Snapshots.** Cut one where [`Group::snapshot_point`] says, make it durable, say [`Group::snapshot_built`], and
//!    then [`Group::compact`]. Serve the data to whom [`Event::SnapshotStream`] names and say [`Group::snapshot_sent`]
//!    in every case, also when the connection breaks. Fetch what [`Event::SnapshotOffered`] names, and say
//!    [`Group::snapshot_staged`] when all of it is here, checked and durable; or [`Group::snapshot_refused`].
//! 10. **Drop** old records of the log only below the newest durable snapshot of each group, and after writing
//!     [`Group::checkpoint`] of each behind them.
//! 11. **Switch off** a removed replica only when every voter that remains has given out
//!     [`Event::MembershipChanged`] without it. Each does when it cannot forget the change any more; until then, after
//!     a crash, it may need the removed one for a majority.
//! 12. **Replace** a replica whose [`Group::receive`] says [`Dropped::LostLog`]: remove it from the group, and add it
//!     under another [`PeerId`].
//!
//! For [`Standalone`] three of these remain: write what was proposed, say `persisted`, apply up to `committed`.
//!
//! # Example
//!
//! Three replicas in memory elect a leader, commit, read, and one recovers from its records.
//!
//! ```
//! use bytes::Bytes;
//! use eyot_raft_glue::*;
//!
//! struct Replica {
//!     group: Group,
//!     log: Vec<PersistRecord>,
//!     applied: Vec<Bytes>,
//!     granted: Vec<ReadId>,
//! }
//!
//! fn start(peer: u64, incarnation: u64, log: Vec<PersistRecord>) -> Replica {
//!     let membership = Membership::new([PeerId(1), PeerId(2), PeerId(3)], []);
//!     let mut recovered = Recovered::founding(membership);
//!     log.iter().cloned().for_each(|record| recovered.replay(record));
//!     let identity = Identity { group: GroupId(1), peer: PeerId(peer), incarnation, seed: 42 };
//!     let group = Group::new(identity, Settings::default(), recovered).expect("a sound log");
//!     Replica { group, log, applied: Vec::new(), granted: Vec::new() }
//! }
//!
//! /// Does what the outputs say, until nothing is left to do.
//! fn settle(replicas: &mut [Replica]) {
//!     let mut messages = Vec::new();
//!     loop {
//!         for replica in replicas.iter_mut() {
//!             while replica.group.has_work() {
//!                 let mut out = Output::default();
//!                 replica.group.poll(&mut out);
//!                 messages.append(&mut out.send);
//!                 if let Some(last) = out.persist.last().map(|record| record.number) {
//!                     replica.log.append(&mut out.persist); // here a log writes, and syncs
//!                     replica.group.persisted(last);
//!                 }
//!                 for Apply { entry, .. } in out.apply {
//!                     if let EntryBody::Data { bytes, .. } = entry.body {
//!                         replica.applied.push(bytes);
//!                     }
//!                     replica.group.applied(entry.position.index);
//!                 }
//!                 replica.granted.extend(out.reads.iter().filter(|read| read.result.is_ok()).map(|read| read.id));
//!             }
//!         }
//!         if messages.is_empty() {
//!             return;
//!         }
//!         for message in messages.drain(..) {
//!             let to = message.to().0 as usize - 1;
//!             // A refused message counts as lost.
//!             let _ = replicas[to].group.receive(message);
//!         }
//!     }
//! }
//!
//! fn tick(replicas: &mut [Replica], now_us: &mut u64) {
//!     *now_us += 50_000;
//!     replicas.iter_mut().for_each(|replica| replica.group.tick(*now_us));
//!     settle(replicas);
//! }
//!
//! let mut now_us = 0;
//! let mut replicas: Vec<Replica> = (1..=3).map(|peer| start(peer, 1, Vec::new())).collect();
//!
//! // Elect.
//! let leader = loop {
//!     tick(&mut replicas, &mut now_us);
//!     if let Some(leader) = replicas.iter().position(|replica| replica.group.is_leader()) {
//!         break leader;
//!     }
//! };
//!
//! // Commit: the next heartbeat tells the followers.
//! replicas[leader].group.propose(EntryKind::Commands, Bytes::from_static(b"SET a 1")).expect("it leads");
//! (0..3).for_each(|_| tick(&mut replicas, &mut now_us));
//! assert!(replicas.iter().all(|replica| replica.applied == [Bytes::from_static(b"SET a 1")]));
//!
//! // Read, on a follower.
//! let follower = (leader + 1) % 3;
//! replicas[follower].group.read(ReadId(7), ReadKind::Linearizable, now_us).expect("room for a read");
//! settle(&mut replicas);
//! assert_eq!(replicas[follower].granted, [ReadId(7)]);
//!
//! // Recover: what the log has is enough.
//! let log = std::mem::take(&mut replicas[follower].log);
//! replicas[follower] = start(follower as u64 + 1, 2, log);
//! (0..3).for_each(|_| tick(&mut replicas, &mut now_us));
//! assert_eq!(replicas[follower].applied, replicas[leader].applied);
//! ```
//!
//! Deliberately not here: disks, connections, clocks, and what commands mean.

#![forbid(unsafe_code)]

mod core;
mod group;
mod log;
mod membership;
mod message;
mod observe;
mod output;
mod planted;
mod prng;
mod record;
mod recovery;
pub mod session;
mod settings;
mod trace_hook;
mod types;
mod wire;

pub use self::core::{
    decode_batch, decode_frame, envelope_length, BatchNumber, Core, CoreSettings, Frame, FrameReport, LogBatch, Turn,
    BATCH_BYTES_MAX, CONTROL_BYTES_MAX, ENVELOPE_BYTES_MAX, ENVELOPE_HEADER_BYTES, ENVELOPE_ITEMS_MAX,
    NODE_BYTES_MAX_DEFAULT, POLLS_PER_TURN_MAX_DEFAULT,
};
pub use group::{
    Dropped, Group, MembershipError, ProposeError, ReadError, ReadKind, SnapshotError, Staged, TransferError,
};
pub use log::{ShardLog, Standalone};
pub use membership::{Membership, MembershipChange, PEERS_MAX};
pub use message::{MessageKind, PeerMessage, MESSAGE_BYTES_MAX};
pub use output::{Apply, Event, Fate, Install, Output, ProposalOutcome, ReadFailure, ReadOutcome, Role};
#[cfg(not(feature = "planted-bugs"))]
pub(crate) use planted::PlantedBug;
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
pub use record::{
    EntryBody, HardState, LogEntry, PersistRecord, SnapshotMeta, ENTRIES_MAX, ENTRY_BYTES_MAX, RECORD_ENTRIES_MAX,
};
pub use recovery::{Recovered, RecoveryError, FOUNDING_POSITION};
pub use settings::{
    Identity, LeaseSettings, Settings, OUTSTANDING_READIES_DEFAULT, PENDING_PROPOSALS_MAX_DEFAULT,
    PENDING_READS_MAX_DEFAULT, READ_ROUNDS_MAX,
};
pub use trace_hook::{TraceHook, TraceLevel};
pub use types::{
    EntryKind, EntryPosition, GroupId, Index, NodeId, PeerId, ReadId, ReadyNumber, ShardId, SnapshotId, Term, Version,
};
pub use wire::DecodeError;
