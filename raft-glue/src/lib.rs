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

mod log;
mod types;

pub use log::{ShardLog, Standalone};
pub use types::{EntryKind, EntryPosition, Index, NodeId, ShardId, Term, Version};
