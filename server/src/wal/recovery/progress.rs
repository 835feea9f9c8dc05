//! How far each shard has come while its log is read, and whether anything is missing on the way.
//!
//! Place in the flow: start-up, for every entry that is read and every segment that is begun. Pure.
//!
//! Invariants:
//! - What the log has of a shard is one piece, ascending by one, wherever it begins; and the snapshot holds everything
//!   before it. Of what nothing needs there may be leavings before that piece: where a shard has moved from core to
//!   core, each log is cut by itself, and the last segment of one that nobody writes stays.
//! - A snapshot never holds more than the log has had: it is made of entries that are on disk.

use std::path::Path;

use eyot_raft_glue::{EntryPosition, Index, ShardId};

use super::super::SnapshotPosition;
use super::RecoveryError;

/// What an entry is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing: the snapshot holds what it did.
    Superfluous,
    /// The snapshot holds what it did, and an upload that began before it may need it.
    Covered,
    /// It comes after the snapshot.
    Needed,
}

/// The shards of a database, as their logs are read.
#[derive(Debug)]
pub(super) struct Progress {
    shards: Vec<Shard>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shard {
    /// The snapshot's newest entry; index 0 without one.
    snapshot: EntryPosition,
    /// `<= snapshot.index`.
    needed_after: Index,
    /// The newest entry that the log has had, as far as it was read; `None`: it has said nothing yet.
    log: Option<EntryPosition>,
}

impl Progress {
    /// # Panics
    /// When a snapshot is of a shard that does not exist.
    pub(super) fn new(shard_count: u16, snapshots: &[(ShardId, SnapshotPosition)]) -> Self {
        let mut shards = vec![Shard::default(); usize::from(shard_count)];
        for (shard, SnapshotPosition { position, needed_after }) in snapshots {
            let needed_after = (*needed_after).min(position.index);
            shards[usize::from(shard.0)] = Shard { snapshot: *position, needed_after, log: None };
        }
        Self { shards }
    }

    /// A segment begins that says that the shard's newest entry before it is `position`. `at`: file and offset of its
    /// first batch.
    pub(super) fn stands_at(
        &mut self,
        shard: ShardId,
        position: EntryPosition,
        at: (&Path, u64),
    ) -> Result<(), RecoveryError> {
        let Shard { snapshot, needed_after, log } = &mut self.shards[usize::from(shard.0)];
        let (found, found_in) = match log {
            // What lies between leavings and here was cut.
            Some(log) => (log.index.max(*needed_after), "the log"),
            None => (snapshot.index, "the snapshot"),
        };
        if position.index > found {
            let (after, found) = (position.index.0, found.0);
            return Err(RecoveryError::MissingEntries {
                file: at.0.to_owned(),
                shard: shard.0,
                after,
                found,
                found_in,
            });
        }
        match log {
            // The log has gone further than its own segment knows: the same as an entry that is there twice.
            Some(log) if position.index < log.index => Err(RecoveryError::IndexGap {
                file: at.0.to_owned(),
                offset: at.1,
                shard: shard.0,
                found: position.index.0 + 1,
                expected: log.index.0 + 1,
            }),
            _ => {
                *log = Some(position);
                Ok(())
            }
        }
    }

    /// The next entry of the shard in its log is that at `position`. `at`: file and offset of its batch.
    #[inline]
    pub(super) fn advance(
        &mut self,
        shard: ShardId,
        position: EntryPosition,
        (file, offset): (&Path, u64),
    ) -> Result<Use, RecoveryError> {
        let Shard { snapshot, needed_after, log } = &mut self.shards[usize::from(shard.0)];
        let index = position.index;
        let (expected, term_before) = match log {
            Some(log) => (log.index.0 + 1, log.term),
            // Nothing has said where the log begins: anywhere up to where the snapshot ends.
            None => (index.0.clamp(1, snapshot.index.0 + 1), EntryPosition::default().term),
        };
        if index.0 != expected {
            let (shard, found) = (shard.0, index.0);
            return Err(RecoveryError::IndexGap { file: file.to_owned(), offset, shard, found, expected });
        }
        let after_snapshot = index.0 == snapshot.index.0 + 1;
        let before = if after_snapshot { term_before.max(snapshot.term) } else { term_before };
        if position.term < before {
            let (found, before) = (position.term.0, before.0);
            let (file, shard, index) = (file.to_owned(), shard.0, index.0);
            return Err(RecoveryError::TermDecreased { file, offset, shard, index, found, before });
        }
        *log = Some(position);
        Ok(if index > snapshot.index {
            Use::Needed
        } else if index > *needed_after {
            Use::Covered
        } else {
            Use::Superfluous
        })
    }

    /// All logs have been read: the shard's newest entry.
    pub(super) fn finish(&self, shard: ShardId, wal_directory: &Path) -> Result<EntryPosition, RecoveryError> {
        let Shard { snapshot, log, .. } = self.shards[usize::from(shard.0)];
        let log = log.unwrap_or_default();
        if log.index < snapshot.index {
            let (shard, snapshot, found) = (shard.0, snapshot.index.0, log.index.0);
            let wal_directory = wal_directory.to_owned();
            return Err(RecoveryError::BehindSnapshot { wal_directory, shard, snapshot, found });
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use eyot_raft_glue::Term;

    use super::*;

    const SHARD: ShardId = ShardId(0);

    fn position(index: u64) -> EntryPosition {
        EntryPosition { term: Term(2), index: Index(index) }
    }

    fn at() -> (&'static Path, u64) {
        (Path::new("segment"), 4096)
    }

    /// One shard with a snapshot at `snapshot`, of which the entries after `needed_after` may be needed.
    fn progress(snapshot: u64, needed_after: u64) -> Progress {
        let snapshot = SnapshotPosition { position: position(snapshot), needed_after: Index(needed_after) };
        Progress::new(1, &[(SHARD, snapshot)])
    }

    fn uses(progress: &mut Progress, indexes: std::ops::RangeInclusive<u64>) -> Vec<Use> {
        indexes.map(|index| progress.advance(SHARD, position(index), at()).unwrap()).collect()
    }

    #[test]
    fn entries_are_superfluous_then_covered_then_needed() {
        use Use::{Covered, Needed, Superfluous};
        let mut progress = progress(4, 2);
        assert_eq!(uses(&mut progress, 1..=6), [Superfluous, Superfluous, Covered, Covered, Needed, Needed]);
        assert_eq!(progress.finish(SHARD, Path::new("wal")).unwrap(), position(6));
    }

    #[test]
    fn a_log_may_begin_anywhere_up_to_the_entry_after_the_snapshot_and_has_no_gap() {
        for (first, is_sound) in [(1, true), (4, true), (5, true), (6, false)] {
            assert_eq!(progress(4, 4).advance(SHARD, position(first), at()).is_ok(), is_sound, "{first}");
        }
        for second in [1, 2, 4] {
            let mut progress = progress(9, 9);
            progress.advance(SHARD, position(2), at()).unwrap();
            let error = progress.advance(SHARD, position(second), at()).unwrap_err();
            assert!(matches!(error, RecoveryError::IndexGap { expected: 3, .. }), "{error}");
        }
        let error = Progress::new(1, &[]).advance(SHARD, position(0), at()).unwrap_err();
        assert!(matches!(error, RecoveryError::IndexGap { expected: 1, .. }), "{error}");
    }

    #[test]
    fn a_segment_that_begins_after_more_than_was_found_names_what_is_missing() {
        progress(4, 4).stands_at(SHARD, position(4), at()).unwrap();
        let error = progress(4, 4).stands_at(SHARD, position(7), at()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("after entry 7 of shard 0") && message.contains("snapshot, ends with entry 4"));
        let mut log = progress(4, 4);
        uses(&mut log, 3..=5);
        let error = log.stands_at(SHARD, position(6), at()).unwrap_err();
        assert!(matches!(error, RecoveryError::MissingEntries { after: 6, found: 5, .. }), "{error}");
        assert!(log.stands_at(SHARD, position(4), at()).is_err(), "it has entry 5 already");
        log.stands_at(SHARD, position(5), at()).unwrap();
    }

    #[test]
    fn leavings_of_a_log_that_was_cut_may_stand_before_a_gap_that_nothing_needs() {
        let mut moved = progress(9, 7);
        assert_eq!(uses(&mut moved, 1..=3), [Use::Superfluous; 3]);
        let error = moved.stands_at(SHARD, position(8), at()).unwrap_err();
        assert!(matches!(error, RecoveryError::MissingEntries { after: 8, found: 7, .. }), "{error}");
        moved.stands_at(SHARD, position(6), at()).unwrap();
        assert_eq!(uses(&mut moved, 7..=10), [Use::Superfluous, Use::Covered, Use::Covered, Use::Needed]);
    }

    #[test]
    fn a_snapshot_of_more_than_the_log_has_had_is_refused() {
        let wal = Path::new("wal");
        let error = progress(4, 4).finish(SHARD, wal).unwrap_err();
        assert!(matches!(error, RecoveryError::BehindSnapshot { snapshot: 4, found: 0, .. }), "{error}");
        let mut log = progress(4, 4);
        uses(&mut log, 1..=3);
        assert!(log.finish(SHARD, wal).is_err());
        uses(&mut log, 4..=4);
        log.finish(SHARD, wal).unwrap();
        let mut idle = progress(4, 4);
        idle.stands_at(SHARD, position(4), at()).unwrap();
        assert_eq!(idle.finish(SHARD, wal).unwrap(), position(4), "its entries are cut off, and were there");
    }

    #[test]
    fn the_first_entry_after_a_snapshot_is_not_of_an_earlier_term() {
        let earlier = EntryPosition { term: Term(1), index: Index(5) };
        let error = progress(4, 4).advance(SHARD, earlier, at()).unwrap_err();
        assert!(matches!(error, RecoveryError::TermDecreased { found: 1, before: 2, .. }), "{error}");
    }
}
