//! Which snapshots of a shard are on disk and sound, and what of the log is needed with them.
//!
//! Place in the flow: a core's snapshots ask it what stays beside a new one, and the log's cut behind which entry.

use std::collections::VecDeque;

use eyot_raft_glue::Index;

use super::{Kept, SNAPSHOTS_KEPT};

/// The sound snapshots of a shard that are on disk, newest first.
#[derive(Debug, Clone, Default)]
pub struct KeptSnapshots(VecDeque<Kept>);

impl KeptSnapshots {
    /// Those of a start, newest first.
    pub fn found(newest_first: &[Kept]) -> Self {
        Self(newest_first.iter().take(SNAPSHOTS_KEPT).copied().collect())
    }

    /// A new one is durable.
    pub fn publish(&mut self, kept: Kept) {
        self.0.push_front(kept);
        self.0.truncate(SNAPSHOTS_KEPT);
    }

    /// The newest.
    pub fn newest(&self) -> Option<Index> {
        self.0.front().map(|kept| kept.index)
    }

    /// Behind which index the log is needed; `None`: all of it, since there is no second snapshot.
    pub fn needed_after(&self) -> Option<Index> {
        self.0.get(SNAPSHOTS_KEPT - 1).map(|kept| kept.needed_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_needed_behind_the_older_of_two() {
        let kept = |index: u64, needed_after: u64| Kept { index: Index(index), needed_after: Index(needed_after) };
        let mut snapshots = KeptSnapshots::default();
        assert_eq!((snapshots.newest(), snapshots.needed_after()), (None, None));
        snapshots.publish(kept(5, 5));
        assert_eq!((snapshots.newest(), snapshots.needed_after()), (Some(Index(5)), None), "one may decay");
        snapshots.publish(kept(9, 7));
        assert_eq!((snapshots.newest(), snapshots.needed_after()), (Some(Index(9)), Some(Index(5))));
        snapshots.publish(kept(12, 12));
        assert_eq!(snapshots.needed_after(), Some(Index(7)));
        let found = KeptSnapshots::found(&[kept(12, 12), kept(9, 7), kept(5, 5)]);
        assert_eq!((found.newest(), found.needed_after()), (Some(Index(12)), Some(Index(7))));
    }
}
