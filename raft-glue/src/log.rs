//! The seam between a shard and whoever decides what of its log is committed.
//!
//! Place in the flow: step 7. The server proposes entries, tells what is on disk, and asks what is committed; it never
//! decides. [`Standalone`] is the decider of a node that has no peers: what is on its disk is committed.
//!
//! Invariant: `applied <= committed <= last`, and for [`Standalone`] `committed == persisted`.

use crate::{EntryPosition, Index, Term};

/// One shard's log, as the server sees it.
pub trait ShardLog {
    /// The position of a new entry, whose payload the caller now gives to the write-ahead log.
    fn propose(&mut self) -> EntryPosition;

    /// Entries up to `index` are on this node's disk.
    ///
    /// # Panics
    /// When `index` was never proposed or goes backwards: the caller has mixed up two logs.
    fn persisted(&mut self, index: Index);

    /// Entries up to `index` have been applied.
    ///
    /// # Panics
    /// When `index` is not committed.
    fn applied(&mut self, index: Index);

    /// The newest entry that was proposed.
    fn last(&self) -> Index;

    /// The newest entry that may be applied.
    fn committed(&self) -> Index;

    /// The newest entry that was applied.
    fn last_applied(&self) -> Index;
}

/// The log of a shard whose node stands alone: an entry is committed as soon as it is on this node's disk.
#[derive(Debug, Clone)]
pub struct Standalone {
    term: Term,
    last: Index,
    persisted: Index,
    applied: Index,
}

impl Standalone {
    /// The term of a node that never had a peer.
    pub const TERM: Term = Term(1);

    /// The term of every entry: a node that stands alone has but one.
    pub fn term(&self) -> Term {
        self.term
    }

    /// A log whose newest entry is `last`, all of it on disk and applied; [`Index`] 0 for an empty one.
    pub fn recovered(last: EntryPosition) -> Self {
        Self { term: last.term.max(Self::TERM), last: last.index, persisted: last.index, applied: last.index }
    }
}

impl ShardLog for Standalone {
    fn propose(&mut self) -> EntryPosition {
        self.last = self.last.next();
        EntryPosition { term: self.term, index: self.last }
    }

    fn persisted(&mut self, index: Index) {
        assert!(self.persisted <= index && index <= self.last, "persisted {index:?} outside of {self:?}");
        self.persisted = index;
    }

    fn applied(&mut self, index: Index) {
        assert!(self.applied <= index && index <= self.committed(), "applied {index:?} outside of {self:?}");
        self.applied = index;
    }

    fn last(&self) -> Index {
        self.last
    }

    fn committed(&self) -> Index {
        self.persisted
    }

    fn last_applied(&self) -> Index {
        self.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_committed_once_it_is_on_disk_and_not_before() {
        let mut log = Standalone::recovered(EntryPosition::default());
        assert_eq!(log.propose(), EntryPosition { term: Standalone::TERM, index: Index(1) });
        assert_eq!(log.propose().index, Index(2));
        assert_eq!((log.last(), log.committed()), (Index(2), Index(0)));
        log.persisted(Index(1));
        assert_eq!(log.committed(), Index(1));
        log.applied(Index(1));
        assert_eq!(log.last_applied(), Index(1));
    }

    #[test]
    fn a_recovered_log_goes_on_after_its_last_entry() {
        let mut log = Standalone::recovered(EntryPosition { term: Term(3), index: Index(41) });
        assert_eq!(log.last_applied(), Index(41));
        assert_eq!(log.propose(), EntryPosition { term: Term(3), index: Index(42) });
    }

    #[test]
    #[should_panic(expected = "persisted")]
    fn persisting_what_was_never_proposed_is_a_bug() {
        Standalone::recovered(EntryPosition::default()).persisted(Index(1));
    }

    #[test]
    #[should_panic(expected = "applied")]
    fn applying_what_is_not_committed_is_a_bug() {
        let mut log = Standalone::recovered(EntryPosition::default());
        log.propose();
        log.applied(Index(1));
    }
}
