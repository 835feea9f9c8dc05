//! Which snapshots of a shard count, and what of the log they make superfluous.
//!
//! Place in the flow: the core keeps it, from what `load` has found at the start and what was published since.
//!
//! Invariant: two snapshots are two files. One that is made again at the same index replaces itself, and counts once.
//!
//! Deliberately not here: files. Pure.

use std::collections::VecDeque;

use eyot_raft_glue::Index;

use super::store::SNAPSHOTS_KEPT;

/// A snapshot that is there and not known to be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its index.
    pub index: Index,
    /// Behind which index the log is needed with it.
    pub needed_after: Index,
}

/// The sound snapshots of a shard that are on disk, newest first.
#[derive(Debug, Clone, Default)]
pub struct KeptSnapshots(VecDeque<Kept>);

impl KeptSnapshots {
    /// Those of a start, newest first.
    pub fn found(newest_first: &[Kept]) -> Self {
        Self(newest_first.iter().take(SNAPSHOTS_KEPT).copied().collect())
    }

    /// One more is durable, or one of the same index is replaced.
    pub fn publish(&mut self, kept: Kept) {
        self.0.retain(|old| old.index != kept.index);
        self.0.push_front(kept);
        self.0.truncate(SNAPSHOTS_KEPT);
    }

    /// The newest.
    pub fn newest(&self) -> Option<Index> {
        self.0.front().map(|kept| kept.index)
    }

    /// The one that is to be kept beside the one that is published at `index`.
    pub fn beside(&self, index: Index) -> Option<Index> {
        self.0.iter().map(|kept| kept.index).find(|kept| *kept != index)
    }

    /// Behind which index the log is needed; `None`: all of it, since there is no second snapshot.
    pub fn needed_after(&self) -> Option<Index> {
        self.0.get(SNAPSHOTS_KEPT - 1).map(|kept| kept.needed_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Kept {
        Kept { index: Index(index), needed_after: Index(index) }
    }

    #[test]
    fn the_log_is_needed_behind_the_older_of_two() {
        let mut kept = KeptSnapshots::found(&[]);
        assert_eq!((kept.beside(Index(3)), kept.needed_after()), (None, None));
        kept.publish(at(3));
        assert_eq!((kept.beside(Index(5)), kept.needed_after()), (Some(Index(3)), None));
        kept.publish(at(5));
        assert_eq!((kept.beside(Index(9)), kept.needed_after()), (Some(Index(5)), Some(Index(3))));
        kept.publish(at(9));
        assert_eq!((kept.beside(Index(10)), kept.needed_after()), (Some(Index(9)), Some(Index(5))));
        assert_eq!(KeptSnapshots::found(&[at(9), at(5), at(3)]).needed_after(), Some(Index(5)));
    }

    /// Nothing was written between the two: they are one file, and one file that decays must not be the only one.
    #[test]
    fn a_snapshot_that_is_made_again_does_not_push_the_older_one_out() {
        let mut kept = KeptSnapshots::found(&[at(5), at(3)]);
        assert_eq!(kept.beside(Index(5)), Some(Index(3)));
        kept.publish(at(5));
        assert_eq!((kept.beside(Index(9)), kept.needed_after()), (Some(Index(5)), Some(Index(3))));
    }
}
