//! Snapshots of a shard: everything that was there at one index of its log, in slices, while commands go on.
//!
//! Place in the flow: between turns the core that owns the shard asks for a slice and encodes what comes; the walk
//! itself and what it keeps are `table/walk`'s.
//!
//! Invariants:
//! - What is emitted is a function of the entries up to the snapshot's index: slots ascending, in a slot keys ascending
//!   as bytes, each with the value, version and expiry that it had. A key that had expired and was not removed is
//!   there.
//! - Access words are no part of it.
//!
//! Deliberately not here: formats, files, and how much of a turn a slice may take.

use std::ops::ControlFlow;

use eyot_raft_glue::Index;

use super::{Shard, Stored};

/// How far a slice of a snapshot came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a snapshot that is done is over, and another slice of it would be a bug"]
pub enum SnapshotStep {
    /// There is more to emit.
    More,
    /// All was emitted, and the snapshot is over.
    Done,
}

impl Shard {
    /// Begins a snapshot of the shard as it is now, where `index` is the entry that was applied last. Takes time by the
    /// shard's slots, and none by its keys.
    ///
    /// # Panics
    /// When a snapshot is under way.
    pub fn begin_snapshot(&mut self, index: Index) {
        assert!(self.tables.walk().is_none(), "shard {} has a snapshot under way", self.id.0);
        self.tables.begin_walk(index);
    }

    /// The index of the snapshot that is under way.
    pub fn snapshot_index(&self) -> Option<Index> {
        Some(self.tables.walk()?.index())
    }

    /// How many of the shard's slots are emitted whole; `None` when no snapshot is under way.
    pub fn snapshot_slots_done(&self) -> Option<usize> {
        Some(self.tables.walk()?.slots_done())
    }

    /// Goes on with the snapshot for about `budget` steps of some tens of nanoseconds each: an entry that is looked at,
    /// sorted, emitted or freed is one, 512 bytes of its value are one more. A call may sort up to 1,024 keys more than
    /// its budget allows. Calls `sink` with each entry's slot, key and content, and stops early when it breaks, which
    /// it does when it has taken that entry and has no room for another. Of a large value it must not touch the bytes,
    /// but take a [pin](super::LargeValue::pin).
    ///
    /// # Panics
    /// When no snapshot is under way.
    pub fn snapshot_some(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(u16, &[u8], Stored<'_>) -> ControlFlow<()>,
    ) -> SnapshotStep {
        let done = self.tables.advance_walk(budget, |slot, entry| sink(slot, entry.key(), Stored::of(entry)));
        if !done.expect("a snapshot is under way") {
            return SnapshotStep::More;
        }
        self.abort_snapshot();
        SnapshotStep::Done
    }

    /// Ends the snapshot if one is under way, wherever it is. What it held is freed by [`Shard::free_some`].
    pub fn abort_snapshot(&mut self) {
        if let Some(walk) = self.tables.end_walk() {
            self.graveyard.bury_walk(walk);
        }
    }

    /// Bytes that are held for the snapshot that is under way: entries that were changed or removed since, the tables
    /// of a shard that was cleared since, and the order of one slot's keys. A part of [`Shard::memory_bytes`], not of
    /// [`Shard::entry_bytes`].
    pub fn snapshot_memory_bytes(&self) -> usize {
        self.tables.walk().map_or(0, super::table::Walk::memory_bytes)
    }
}
