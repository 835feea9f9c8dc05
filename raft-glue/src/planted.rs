//! Mistakes that tests plant on purpose.
//!
//! Place in the flow: nowhere in a build that serves; the feature `planted-bugs` is for tests alone. Each mistake is
//! one that a real system has made around a correct consensus library; the simulator must find every one of them. Two
//! are mistakes of the caller: the simulator's nodes make those themselves.
//!
//! Invariant: without the feature, the question whether one is planted is `false` at compile time, and leaves no trace
//! in the code.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlantedBug {
    /// Messages that must follow the disk leave before it.
    MessagesBeforeSync,
    /// The vote is not part of what is persisted.
    LostVote,
    /// Every round of reads has the same context.
    ReusedReadContext,
    /// Nothing holds elections back while a snapshot is installed.
    NoInstallGate,
    /// A ready counts as persisted as soon as it is given out.
    EarlyPersistence,
    /// A lease begins when its round is sent, not when a majority has answered it.
    LeaseWithoutQuorum,
    /// A log that is damaged in its middle is cut off there, as if that were a torn end. Made by whoever reads the log.
    #[cfg(feature = "planted-bugs")]
    TruncatedMiddle,
    /// Where new entries take the place of others, only those beyond them are written.
    ConflictNotRewritten,
    /// A command is applied whatever its session says.
    SkippedSessionCheck,
    /// Memberships keep the order of the library's hash sets.
    UnsortedMembership,
    /// A second change of membership is proposed while one is pending.
    SecondPendingChange,
    /// Entries are given out to be applied before this replica has them on disk.
    AppliedBeyondPersisted,
    /// A new leader grants reads before it has committed in its term.
    GrantBeforeOwnCommit,
    /// A proposal counts as done as soon as it is in the leader's log.
    DoneAtAppend,
    /// A snapshot that is offered counts as staged.
    StagedBeforeComplete,
    /// A snapshot whose stream ends between two messages counts as complete. Made by whoever receives it.
    #[cfg(feature = "planted-bugs")]
    SnapshotCutAtMessage,
    /// The log is compacted above the newest durable snapshot.
    CompactionAboveSnapshot,
    /// Messages to a replica's former id are taken.
    FormerPeerAccepted,
    /// The hard state goes into a record of its own, after that of the entries.
    SplitRecord,
    /// Recovery does not raise the commit index to the snapshot's.
    CommitBelowSnapshot,
    /// A read is granted before its index is applied.
    GrantBeforeApply,
    /// A session's stored reply is given for another request.
    StaleSessionReply,
    /// The lease survives the start of a transfer.
    LeaseKeptInTransfer,
    /// A restarted replica votes at once although it may have supported a lease.
    NoVoteGuardAfterBoot,
    /// A snapshot forgets that a joint membership is left by itself.
    AutoLeaveNotInSnapshot,
    /// A snapshot carries the membership that the replica started with.
    StaleSnapshotMembership,
    /// A command of a session that nobody knows is executed.
    ExpiredSessionExecutes,
    /// A snapshot forgets when sessions were used last, so that replicas expire different ones.
    SessionUseNotInSnapshot,
}

#[cfg(feature = "planted-bugs")]
impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::MessagesBeforeSync,
        Self::LostVote,
        Self::ReusedReadContext,
        Self::NoInstallGate,
        Self::EarlyPersistence,
        Self::LeaseWithoutQuorum,
        Self::TruncatedMiddle,
        Self::ConflictNotRewritten,
        Self::SkippedSessionCheck,
        Self::UnsortedMembership,
        Self::SecondPendingChange,
        Self::AppliedBeyondPersisted,
        Self::GrantBeforeOwnCommit,
        Self::DoneAtAppend,
        Self::StagedBeforeComplete,
        Self::SnapshotCutAtMessage,
        Self::CompactionAboveSnapshot,
        Self::FormerPeerAccepted,
        Self::SplitRecord,
        Self::CommitBelowSnapshot,
        Self::GrantBeforeApply,
        Self::StaleSessionReply,
        Self::LeaseKeptInTransfer,
        Self::NoVoteGuardAfterBoot,
        Self::AutoLeaveNotInSnapshot,
        Self::StaleSnapshotMembership,
        Self::ExpiredSessionExecutes,
        Self::SessionUseNotInSnapshot,
    ];
}
