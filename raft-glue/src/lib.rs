//! The consensus contract of Eyot: what a shard's log is made of, and the seam between the server and whoever decides
//! what is committed.
//!
//! Place in the flow: step 7 (replicate), between the log (step 6) and apply (step 8). This crate holds the types and
//! the [`ShardLog`] seam; a node that stands alone decides by itself, a replicated group decides by majority.
//!
//! Invariants:
//! - Pure: no file, socket, clock, thread, or random number; everything comes in as an argument.
//! - Indexes of a shard's log are dense: 1, 2, 3, …; terms never decrease along them.
//!
//! # The caller's duties
//!
//! 1. Give every entry that [`ShardLog::propose`] returned to the write-ahead log, in the order of the calls.
//! 2. When an entry is on disk, and never before, say so with [`ShardLog::persisted`]; in the order of indexes.
//! 3. Apply exactly the entries up to [`ShardLog::committed`], in order, each once, and say so with
//!    [`ShardLog::applied`].
//! 4. After a restart, build the log from what recovery found with the same term and indexes, before anything is
//!    proposed.
//!
//! Deliberately not here: how entries reach other nodes.

#![forbid(unsafe_code)]

mod core;
mod group;
mod log;
mod membership;
mod message;
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
pub use record::{EntryBody, HardState, LogEntry, PersistRecord, SnapshotMeta, ENTRIES_MAX, ENTRY_BYTES_MAX};
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
