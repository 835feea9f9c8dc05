//! What a group gives out.
//!
//! Place in the flow: step 7. The caller owns an [`Output`], hands it to [`Group::poll`](crate::Group::poll) and
//! empties it; several groups may share one.
//!
//! Invariant: a group only appends to these lists.

use crate::record::{LogEntry, PersistRecord, SnapshotMeta};
use crate::{EntryPosition, GroupId, Index, Membership, PeerId, PeerMessage, ReadId, Term};

/// The part that a replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one. Learners stay so.
    Follower,
    /// Asks whether it would get votes.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// An entry that is committed and on this replica's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// Whose it is.
    pub group: GroupId,
    /// What to apply. Empty entries and changes of membership change no data, and count as applied all the same.
    pub entry: LogEntry,
}

/// The state of a group is to be replaced by a staged snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// Whose it is.
    pub group: GroupId,
    /// Which snapshot.
    pub meta: SnapshotMeta,
}

/// Why a read was not granted. Nothing was read; it may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFailure {
    /// This replica stopped leading, or the leader it had asked did.
    LeaderChanged,
    /// No majority, or no leader, answered in time.
    TimedOut,
}

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Whose it is.
    pub group: GroupId,
    /// The caller's name for it.
    pub id: ReadId,
    /// The state as applied up to this index or any later one answers it; that much is applied already.
    pub result: Result<Index, ReadFailure>,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is committed, and given out to be applied.
    Done,
    /// Another entry is committed in its place: it will never be applied.
    Lost,
    /// This replica cannot tell any more: a snapshot came over the place, or it was removed from the group, or it
    /// stopped leading and waited too long.
    Unknown,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalOutcome {
    /// Whose it is.
    pub group: GroupId,
    /// What [`Group::propose`](crate::Group::propose) had returned.
    pub position: EntryPosition,
    /// What became of it.
    pub fate: Fate,
}

/// Something that the caller may want to know or has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This replica plays another part, or the same in another term.
    RoleChanged {
        /// The part.
        role: Role,
        /// The term.
        term: Term,
    },
    /// Whom to send clients to.
    LeaderKnown {
        /// The leader, when there is one.
        leader: Option<PeerId>,
        /// In which term.
        term: Term,
    },
    /// A follower needs what the log no longer has: cut a snapshot and say `snapshot_built`.
    SnapshotWanted {
        /// Who needs it.
        peer: PeerId,
        /// It must stand at this index or later.
        index: Index,
    },
    /// A leader offers a snapshot: fetch its data and say `snapshot_staged`, or `snapshot_refused`.
    SnapshotOffered {
        /// Who has the data.
        from: PeerId,
        /// What it is.
        meta: SnapshotMeta,
    },
    /// A snapshot is offered to a follower: serve its data, and say `snapshot_sent` in every case.
    SnapshotStream {
        /// Who will fetch it.
        to: PeerId,
        /// What it is.
        meta: SnapshotMeta,
    },
    /// A change of membership took effect, and this replica will not forget it: its record is durable.
    MembershipChanged {
        /// The entry that made it.
        index: Index,
        /// The membership from there on.
        membership: Membership,
    },
    /// A transfer of leadership ended.
    TransferEnded {
        /// To whom it was.
        to: PeerId,
        /// Whether this replica leads no more.
        transferred: bool,
    },
}

/// What one or more polls gave out.
#[derive(Debug, Default)]
pub struct Output {
    /// May leave at once, in this order for each peer.
    pub send: Vec<PeerMessage>,
    /// Goes into the log, in this order.
    pub persist: Vec<PersistRecord>,
    /// State that a snapshot replaces; comes before what is applied after it.
    pub install: Vec<Install>,
    /// Goes into the state machine, in this order.
    pub apply: Vec<Apply>,
    /// Reads that may be answered, or failed.
    pub reads: Vec<ReadOutcome>,
    /// What became of proposals.
    pub proposals: Vec<ProposalOutcome>,
    /// Anything else, with the group it happened to.
    pub events: Vec<(GroupId, Event)>,
}

impl Output {
    /// Empties all lists and keeps their memory.
    pub fn clear(&mut self) {
        self.send.clear();
        self.persist.clear();
        self.install.clear();
        self.apply.clear();
        self.reads.clear();
        self.proposals.clear();
        self.events.clear();
    }

    /// Whether nothing was given out.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.persist.is_empty()
            && self.install.is_empty()
            && self.apply.is_empty()
            && self.reads.is_empty()
            && self.proposals.is_empty()
            && self.events.is_empty()
    }
}
