//! What a replica starts from: nothing, the founding of its group, or what its disk still has.
//!
//! Place in the flow: before step 7, once for each group of a process.
//!
//! Invariants of what a group accepts ([`Recovered::check`]):
//! - the entries follow the snapshot without a gap, and their terms do not decrease;
//! - `snapshot <= applied <= commit <= last entry`; the commit index is raised to the snapshot's, never cut down to the
//!   log: a log that ends before its commit index has lost what others rely on.
//!
//! Deliberately not here: reading a disk, and telling a torn end from damage; that is the log's.

use crate::record::{HardState, LogEntry, PersistRecord, SnapshotMeta};
use crate::{EntryPosition, Index, Membership, SnapshotId, Term};

/// The place of the snapshot that the founding replicas pretend to have. It must not be 0: a replica that joins later
/// would be fed the log from its beginning, and never learn who founded the group.
pub const FOUNDING_POSITION: EntryPosition = EntryPosition { term: Term(1), index: Index(1) };

/// Why a replica cannot start from what was found. None can be repaired here: the replica is to be removed from its
/// group, and a new one added under another id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Entries are missing between two that are there, or between the snapshot and the first.
    #[error("the log goes from index {} to {}; entries between them are lost, rebuild this replica", .before.0, .after.0)]
    Gap {
        /// The last before the gap.
        before: Index,
        /// The first after it.
        after: Index,
    },
    /// The snapshot stands at a place that no log has.
    #[error("the snapshot stands at index {} of term {}, which no log has; rebuild it", .0.index.0, .0.term.0)]
    SnapshotOfNothing(EntryPosition),
    /// Terms decrease along the log.
    #[error("the term of entry {} is below that of the one before it; rebuild this replica", .0.0)]
    TermDecreases(Index),
    /// The log ends before what was known to be committed.
    #[error("the log ends at index {} and {} was committed; rebuild this replica", .last.0, .commit.0)]
    CommitBeyondLog {
        /// The commit index of the hard state.
        commit: Index,
        /// The last entry.
        last: Index,
    },
    /// The applied index is not between the snapshot and the commit index.
    #[error("{} is applied, and the log has it between {} and {}; rebuild this replica", .applied.0, .snapshot.0, .commit.0)]
    AppliedOutOfRange {
        /// Up to where the state was applied.
        applied: Index,
        /// Where the snapshot stands.
        snapshot: Index,
        /// What is committed.
        commit: Index,
    },
    /// The hard state's term is below that of an entry.
    #[error("the log has term {} and the replica's own term is {}; rebuild this replica", .entry.0, .own.0)]
    TermBehindLog {
        /// The last entry's term.
        entry: Term,
        /// The hard state's term.
        own: Term,
    },
    /// The numbers a replica is run with contradict each other.
    #[error("the settings of the group are wrong: {0}")]
    Settings(String),
}

/// What a replica starts from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The newest durable snapshot; index 0 for none.
    pub snapshot: SnapshotMeta,
    /// The log after the snapshot.
    pub entries: Vec<LogEntry>,
    /// Up to where the state machine's state reaches: the snapshot, where state lives in memory.
    pub applied: Index,
    /// The membership after the entry `applied`.
    pub membership: Membership,
}

impl Recovered {
    /// How all first replicas of a group start, each with the same membership.
    pub fn founding(membership: Membership) -> Self {
        let EntryPosition { term, index } = FOUNDING_POSITION;
        let snapshot = SnapshotMeta { position: FOUNDING_POSITION, membership, id: SnapshotId::default() };
        let membership = snapshot.membership.clone();
        let hard_state = HardState { term, vote: None, commit: index };
        Self { hard_state, snapshot, entries: Vec::new(), applied: index, membership }
    }

    /// How a replica starts that will be added to a group that exists.
    pub fn joining() -> Self {
        Self::default()
    }

    /// Takes in one record, in the order in which the log has them. `self` is what the records before it gave.
    ///
    /// A record with a snapshot counts only if that snapshot's data was installed; the caller who finds such a record
    /// last, and the state not yet replaced, installs the staged data before it starts.
    pub fn replay(&mut self, record: PersistRecord) {
        if let Some(snapshot) = record.snapshot {
            self.entries.clear();
            self.start_at(snapshot);
        }
        if let Some(first) = record.entries.first() {
            self.entries.retain(|entry| entry.position.index < first.position.index);
            self.entries.extend(record.entries);
        }
        if let Some(hard_state) = record.hard_state {
            self.hard_state = hard_state;
        }
    }

    /// The state machine starts from `snapshot`, which is newer than the one so far; entries behind it go.
    pub fn start_at(&mut self, snapshot: SnapshotMeta) {
        self.entries.retain(|entry| entry.position.index > snapshot.position.index);
        self.applied = snapshot.position.index;
        self.membership = snapshot.membership.clone();
        self.snapshot = snapshot;
    }

    /// The last entry, or the snapshot's place.
    pub fn last(&self) -> EntryPosition {
        self.entries.last().map_or(self.snapshot.position, |entry| entry.position)
    }

    /// That the parts fit together; raises the commit index to the snapshot's, unless a test asks not to.
    pub(crate) fn check(&mut self, keep_commit: bool) -> Result<(), RecoveryError> {
        let mut before = self.snapshot.position;
        // There is no entry before the first place, so it has no term; and the first term is 1.
        if (before.index.0 == 0) != (before.term.0 == 0) {
            return Err(RecoveryError::SnapshotOfNothing(before));
        }
        for entry in &self.entries {
            if entry.position.index.0 != before.index.0 + 1 {
                return Err(RecoveryError::Gap { before: before.index, after: entry.position.index });
            }
            if entry.position.term < before.term {
                return Err(RecoveryError::TermDecreases(entry.position.index));
            }
            before = entry.position;
        }
        if self.hard_state.term < before.term {
            return Err(RecoveryError::TermBehindLog { entry: before.term, own: self.hard_state.term });
        }
        let commit = self.hard_state.commit.max(self.snapshot.position.index);
        if commit > before.index {
            return Err(RecoveryError::CommitBeyondLog { commit, last: before.index });
        }
        let (snapshot, applied) = (self.snapshot.position.index, self.applied);
        if applied < snapshot || applied > commit {
            return Err(RecoveryError::AppliedOutOfRange { applied, snapshot, commit });
        }
        if !keep_commit {
            self.hard_state.commit = commit;
        }
        Ok(())
    }
}
