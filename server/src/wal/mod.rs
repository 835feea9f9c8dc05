//! The write-ahead log: what a core knows is on disk, and how it is found again.
//!
//! Place in the flow: step 6 (log). A core appends the entries of its shards to its [`LogWriter`], gives the writes
//! that the writer asks for to its ring, and tells it when they are done; replies leave when [`LogWriter::durable`] has
//! reached their batch. At start, [`recover`] reads everything back into the shards before any request is served.
//!
//! ```text
//! <data>/wal/core-<log id>/<segment number, 20 digits>.wal      what the bytes are: format.rs, docs/LOG.md
//! ```
//!
//! Invariants:
//! - One log per core, shared by the core's shards. Its batches are counted 1, 2, 3, … without a gap, across segments
//!   and restarts; its segments too. A batch is whole or it is not there: one checksum covers it.
//! - An acknowledged block is never written again; every start begins a new segment.
//! - A batch that was acknowledged is found again or its loss is reported; a batch that was not acknowledged may be
//!   found.
//!
//! - What is cut off a log is held by durable snapshots; recovery sees to it before it believes what is left.
//!
//! Deliberately not here: the writes themselves (the core's ring makes them), deciding what is committed (`ShardLog`),
//! and snapshots. Nothing here knows glommio: the functions that touch files block, and the caller runs them where
//! blocking is allowed.
//!
//! # The caller's duties
//!
//! 1. Once per start: [`next_epoch`], then [`recover`] for every core, with the same epoch. No core may append before
//!    every core's recovery has succeeded: cores read each other's logs when their number has changed.
//! 2. Then, per core, [`Recovered::clean_up`], and hand the spare segment to the writer if there is one.
//! 3. Keep a segment ready whenever [`LogWriter::wants_segment`] asks, recycled if [`Retention::next_recycling`] knows
//!    one; close the files that [`LogWriter::segment_retired`] names, and give what it says to the [`Retention`].
//! 4. A failed or short write ends the process. It is never retried: what the disk holds then is unknown.
//! 5. Once the first batch of this start is durable, [`segment::truncate`] may give back the unused end of
//!    [`LogStart::previous_end`].
//! 6. Snapshots: keep each shard's [`OpenUploads`]; publish a snapshot only when the log is durable up to its index;
//!    cut with [`Retention`] below the oldest snapshot that is kept, once that one's name is durable. One file at a
//!    time, in the order in which they are named.

pub mod format;
mod open_uploads;
pub mod recovery;
mod retention;
pub mod segment;
mod writer;

#[cfg(test)]
mod simulation;

use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId};

pub use open_uploads::OpenUploads;
pub use recovery::{next_epoch, recover, Recovered, RecoveryError, RecoveryScope, Refusal, TornTail};
pub use retention::{KeptSegment, Recycling, Removal, Retention, RECYCLABLE_SEGMENTS_MIN};
pub use segment::{SegmentError, SegmentFile};
pub use writer::{LogWrite, LogWriter, ReadySegment, SegmentRequest};

/// The number of a batch in its log, counted from 1; 0 stands for "before the first batch".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whose log it is. Every checksum is keyed with it, so that a file of another node or core is never taken for this
/// one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// The node's random number, from the data directory's identity.
    pub node_id: u128,
    /// The number of the core that writes the log.
    pub log_id: u16,
}

/// Smallest segment: below it, headers, padding and the creation of files would cost more than the entries.
pub const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
/// Usual segment: creating one (zeroing and syncing it) takes a disk tens of milliseconds, once per 64 MiB logged.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Usual bound of the writes in flight: a second one keeps the disk busy while the first one's completion is handled.
pub const WRITES_IN_FLIGHT_DEFAULT: usize = 2;
/// Most writes in flight: more do not make batches durable sooner, they only make them smaller.
pub const WRITES_IN_FLIGHT_MAX: usize = 8;

/// What may be chosen about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a new segment in bytes: at least [`SEGMENT_BYTES_MIN`], a multiple of [`format::BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// How many writes may be in flight at a time: 1 to [`WRITES_IN_FLIGHT_MAX`].
    pub writes_in_flight_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT, writes_in_flight_max: WRITES_IN_FLIGHT_DEFAULT }
    }
}

impl LogOptions {
    /// Whether the options are within their bounds.
    pub fn validate(&self) -> Result<(), LogOptionsError> {
        if self.segment_bytes < SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(format::BLOCK_BYTES as u64) {
            return Err(LogOptionsError::SegmentBytes(self.segment_bytes));
        }
        if !(1..=WRITES_IN_FLIGHT_MAX).contains(&self.writes_in_flight_max) {
            return Err(LogOptionsError::WritesInFlight(self.writes_in_flight_max));
        }
        Ok(())
    }
}

/// Options of a log that are out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogOptionsError {
    /// A segment size too small or not in whole blocks.
    #[error("segment size of {0} bytes: choose a multiple of 4096 that is at least {SEGMENT_BYTES_MIN}")]
    SegmentBytes(u64),
    /// A number of writes in flight out of bounds.
    #[error("{0} log writes in flight: choose 1 to {WRITES_IN_FLIGHT_MAX}")]
    WritesInFlight(usize),
}

/// Where a segment's batches end: everything before is checked at recovery, everything after is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The segment's number.
    pub number: u64,
    /// Bytes from the start of the file, a multiple of [`format::BLOCK_BYTES`].
    pub end_offset: u64,
}

/// Where a log goes on after a start. Recovery finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStart {
    /// The number of this start, the same for every core of the node.
    pub epoch: u64,
    /// How many cores this start has.
    pub core_count: u16,
    /// The number of the next segment, from 1.
    pub next_segment: u64,
    /// The sequence of the next batch, from 1.
    pub next_sequence: Sequence,
    /// Where the segment before it ends; `None` if it is the log's first.
    pub previous_end: Option<SegmentEnd>,
}

impl LogStart {
    /// The start of a log that does not exist yet.
    pub fn of_empty_log(epoch: u64, core_count: u16) -> Self {
        Self { epoch, core_count, next_segment: 1, next_sequence: Sequence(1), previous_end: None }
    }
}

/// One entry, as recovery found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whose log it belongs to.
    pub shard: ShardId,
    /// Its place there.
    pub position: EntryPosition,
    /// What the payload is.
    pub kind: EntryKind,
    /// The payload, borrowed from the read window.
    pub payload: &'a [u8],
    /// Whether the shard's snapshot holds what the entry did: then it is not applied, and counts only for the large
    /// values that were on their way when the snapshot began. See [`SnapshotPosition::needed_after`].
    pub is_covered: bool,
}

/// Where the log goes on for a shard of which there is a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPosition {
    /// The newest entry that the snapshot holds.
    pub position: EntryPosition,
    /// Up to here the log is superfluous. Lower than `position` where parts of large values stand in between whose
    /// command came after the snapshot: [`OpenUploads::needed_after`]. An index that is lower still costs time only.
    pub needed_after: Index,
}

/// Which core hosts `shard`: contiguous ranges, as even as they can be. Part of the log's contract: recovery asks it
/// for earlier starts, so it may not change without a new format version.
///
/// # Panics
/// When `shard` is not below `shard_count`, or there are no cores.
pub fn placement(shard: ShardId, shard_count: u16, core_count: u16) -> u16 {
    assert!(shard.0 < shard_count && core_count > 0, "no core for {shard:?} of {shard_count} on {core_count} cores");
    (u32::from(shard.0) * u32::from(core_count) / u32::from(shard_count)) as u16
}
