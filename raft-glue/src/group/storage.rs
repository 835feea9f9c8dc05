//! The retained log of one group, in memory, as the consensus library reads it.
//!
//! Place in the flow: step 7. The library asks for entries and terms while it handles a message; what it sees here is
//! already given out to be persisted, not necessarily on disk.
//!
//! Invariants:
//! - The entries follow `floor` without a gap; the term of `floor` is known.
//! - The offered snapshot stands at `floor` or later, so that the log goes on from it.
//!
//! Deliberately not here: how much is kept; the group compacts.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::record::{SnapshotMeta, ENTRIES_MAX};
use crate::{EntryPosition, Index, PeerId, Term};

/// The most entries of the log that go into one append: as many again may join that are not given out yet.
const APPEND_ENTRIES_MAX: usize = ENTRIES_MAX / 2;

/// What a follower needs and the log no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) peer: PeerId,
    pub(super) index: Index,
}

/// The log after `floor`.
pub(super) struct MemLog {
    floor: EntryPosition,
    entries: VecDeque<Entry>,
    byte_length: usize,
    hard_state: HardState,
    conf_state: ConfState,
    offer: Option<(SnapshotMeta, Snapshot)>,
    wanted: Cell<Option<Wanted>>,
}

impl MemLog {
    pub(super) fn new(floor: EntryPosition, entries: Vec<Entry>, hard_state: HardState, conf_state: ConfState) -> Self {
        let byte_length = entries.iter().map(|entry| entry.data.len()).sum();
        let entries = entries.into();
        Self { floor, entries, byte_length, hard_state, conf_state, offer: None, wanted: Cell::new(None) }
    }

    pub(super) fn floor(&self) -> EntryPosition {
        self.floor
    }

    pub(super) fn last(&self) -> Index {
        Index(self.floor.index.0 + self.entries.len() as u64)
    }

    /// Payload bytes of the entries.
    pub(super) fn byte_length(&self) -> usize {
        self.byte_length
    }

    /// A snapshot takes the place of everything.
    pub(super) fn install(&mut self, position: EntryPosition) {
        assert!(
            position.index > self.floor.index,
            "snapshot {position:?} is not above the log's floor {:?}",
            self.floor
        );
        self.entries.clear();
        self.byte_length = 0;
        self.floor = position;
        self.offer = None;
    }

    /// Appends, and cuts off what stands where the new entries begin.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert_eq!(last.index - first.index + 1, entries.len() as u64, "entries stand one after the other");
        let keep = first.index.checked_sub(self.floor.index.0 + 1).expect("entries never reach below the floor");
        assert!(keep <= self.entries.len() as u64, "entry {} leaves a gap after {:?}", first.index, self.last());
        for cut in self.entries.drain(keep as usize..) {
            self.byte_length -= cut.data.len();
        }
        self.byte_length += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops the entries up to `index`.
    pub(super) fn compact(&mut self, index: Index) {
        let term = self.term_of(index).expect("compacting inside of the log");
        for _ in self.floor.index.0..index.0 {
            let dropped = self.entries.pop_front().expect("compacting inside of the log");
            self.byte_length -= dropped.data.len();
        }
        self.floor = EntryPosition { term: Term(term), index };
    }

    /// A durable snapshot that peers may have.
    pub(super) fn offer(&mut self, meta: SnapshotMeta) {
        let snapshot = meta.to_raft();
        self.offer = Some((meta, snapshot));
        self.wanted.set(None);
    }

    pub(super) fn offered(&self) -> Option<&SnapshotMeta> {
        self.offer.as_ref().map(|(meta, _)| meta)
    }

    pub(super) fn take_wanted(&self) -> Option<Wanted> {
        self.wanted.take()
    }

    /// Whether an entry after `after` and up to `up_to` changes the membership.
    pub(super) fn has_change(&self, after: Index, up_to: Index) -> bool {
        let skip = after.0.saturating_sub(self.floor.index.0) as usize;
        let count = up_to.0.saturating_sub(after.0.max(self.floor.index.0)) as usize;
        let mut entries = self.entries.iter().skip(skip).take(count);
        entries.any(|entry| entry.entry_type != EntryType::EntryNormal as i32)
    }

    fn term_of(&self, index: Index) -> Result<u64, StorageError> {
        match index.0.checked_sub(self.floor.index.0) {
            None => Err(StorageError::Compacted),
            Some(0) => Ok(self.floor.term.0),
            Some(after) => {
                self.entries.get(after as usize - 1).map(|entry| entry.term).ok_or(StorageError::Unavailable)
            }
        }
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let skip = low.checked_sub(self.floor.index.0 + 1).ok_or(StorageError::Compacted)? as usize;
        // Who names no size needs all of them: the library looks for changes of membership.
        let max_size = max_size.into();
        let count_max = if max_size.is_some() { APPEND_ENTRIES_MAX } else { usize::MAX };
        let mut left = max_size.unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        for entry in self.entries.range(skip..skip + (high - low) as usize) {
            // What an entry takes on the wire, with room for its numbers; the first is given in any case.
            let size = entry.data.len() as u64 + 24;
            if (size > left || entries.len() >= count_max) && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        Ok(self.term_of(Index(index))?)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.floor.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    /// The offered snapshot, if it serves: a receiver that is not in the snapshot's membership would ignore it without
    /// a word.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match &self.offer {
            Some((meta, snapshot))
                if meta.position.index.0 >= request_index.max(self.floor.index.0)
                    && meta.membership.contains(PeerId(to)) =>
            {
                Ok(snapshot.clone())
            }
            _ => {
                let index = Index(request_index.max(self.floor.index.0));
                self.wanted.set(Some(Wanted { peer: PeerId(to), index }));
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}
