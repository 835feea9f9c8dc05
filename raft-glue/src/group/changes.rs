//! Membership and transfers of leadership.
//!
//! Place in the flow: beside step 7; the control plane asks.
//!
//! Invariants:
//! - One change at a time: a second one is refused here. The library would take it and put an empty entry in its place.
//! - A leader never removes itself: it transfers first. One that was removed all the same, by an entry of an earlier
//!   leader, stops leading when it applies it, as a candidate stops to ask for votes.
//! - A joint membership is left again, also when the leader that would have done it was lost in between.
//!
//! # To replace a member that lost its disk
//!
//! 1. Start the replica under a new id, with [`Recovered::joining`](crate::Recovered::joining).
//! 2. `change_membership(&[AddLearner(new)])`, and wait until [`Group::matched`] is near the leader's last entry.
//! 3. `change_membership(&[Promote(new), Remove(old)])`, taken in one joint step.

use raft::eraftpb::{ConfChangeV2, Entry, EntryType};
use raft::{ProgressState, StateRole};

use super::{Group, ProposeError};
use crate::membership::{encode_change, PEERS_MAX};
use crate::output::Event;
use crate::{EntryPosition, Index, Membership, MembershipChange, PeerId, PlantedBug};

/// Why a change of membership was not taken. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Nothing may be proposed now.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The leader has not applied an entry of its own term yet.
    #[error("the leader is new and has not applied an entry of its own; ask again in a moment")]
    NotReady,
    /// Another change is on its way, or the group is in the middle of one.
    #[error("another change of membership is on its way; ask again when it has taken effect")]
    Pending,
    /// The leader would be removed.
    #[error("{0:?} leads the group; transfer leadership first, then remove it")]
    RemovesLeader(PeerId),
    /// The id was given up before.
    #[error("{0:?} was a member before; a replica that comes back needs another id")]
    FormerPeer(PeerId),
    /// The replica is a member already.
    #[error("{0:?} is a member already")]
    AlreadyMember(PeerId),
    /// Only a learner can be made a voter.
    #[error("{0:?} is no learner; add it as a learner first")]
    NotLearner(PeerId),
    /// The replica is no member.
    #[error("{0:?} is no member")]
    NotMember(PeerId),
    /// The learner has too little of the log to count.
    #[error("{peer:?} lags {entries} entries behind; wait until it has caught up")]
    LagsBehind {
        /// Who.
        peer: PeerId,
        /// By how much.
        entries: u64,
    },
    /// Nobody would vote any more.
    #[error("no voter would be left")]
    LastVoter,
    /// The list is empty, names a replica twice or the id 0, or is too long.
    #[error("a change names between 1 and {PEERS_MAX} replicas, none of them twice or with the id 0")]
    Malformed,
}

/// Why a transfer was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead.
    #[error("this replica does not lead its group; ask {leader:?}")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<PeerId>,
    },
    /// It leads already.
    #[error("{0:?} leads already")]
    AlreadyLeader(PeerId),
    /// The replica does not vote.
    #[error("{0:?} does not vote in this group")]
    NotVoter(PeerId),
    /// The replica has too little of the log.
    #[error("{peer:?} lags {entries} entries behind; wait until it has caught up")]
    LagsBehind {
        /// Who.
        peer: PeerId,
        /// By how much.
        entries: u64,
    },
    /// A snapshot is on its way to the replica, or nobody knows what it has.
    #[error("{0:?} is not following the log closely; wait until it does")]
    NotFollowing(PeerId),
    /// Another transfer is under way.
    #[error("leadership is being transferred to {0:?}; wait until that has ended")]
    UnderWay(PeerId),
}

impl Group {
    /// Proposes a change of membership. Several steps at once are taken by way of a joint membership, which the group
    /// leaves by itself. It takes effect on each replica where that replica applies the entry; the event says so.
    pub fn change_membership(&mut self, changes: &[MembershipChange]) -> Result<EntryPosition, MembershipError> {
        self.may_propose()?;
        let raft = &self.raw.raft;
        if !raft.commit_to_current_term() || !raft.apply_to_current_term() {
            return Err(MembershipError::NotReady);
        }
        let twice = self.settings.plants(PlantedBug::SecondPendingChange);
        if (raft.has_pending_conf() || self.membership.is_joint()) && !twice {
            return Err(MembershipError::Pending);
        }
        self.check_changes(changes)?;
        if twice {
            self.raw.raft.pending_conf_index = 0;
        }
        Ok(self.append_change(changes)?)
    }

    fn append_change(&mut self, changes: &[MembershipChange]) -> Result<EntryPosition, ProposeError> {
        let mut entry = Entry { data: encode_change(changes), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        self.append(entry)
    }

    fn check_changes(&self, changes: &[MembershipChange]) -> Result<(), MembershipError> {
        let named = |peer: PeerId| changes.iter().filter(|change| change.peer() == peer).count();
        let sound = |change: &MembershipChange| change.peer() != PeerId(0) && named(change.peer()) == 1;
        if changes.is_empty() || changes.len() > PEERS_MAX || !changes.iter().all(sound) {
            return Err(MembershipError::Malformed);
        }
        for change in changes {
            self.check_change(*change)?;
        }
        let after = self.membership.peers().len() + changes.len();
        let removed = |peer: &PeerId| changes.contains(&MembershipChange::Remove(*peer));
        let promotes = changes.iter().any(|change| matches!(change, MembershipChange::Promote(_)));
        if after > PEERS_MAX {
            return Err(MembershipError::Malformed);
        }
        if !promotes && self.membership.voters.iter().all(removed) {
            return Err(MembershipError::LastVoter);
        }
        Ok(())
    }

    fn check_change(&self, change: MembershipChange) -> Result<(), MembershipError> {
        let peer = change.peer();
        match change {
            MembershipChange::AddLearner(_) if self.former_peers.contains(&peer) => {
                Err(MembershipError::FormerPeer(peer))
            }
            MembershipChange::AddLearner(_) if self.membership.contains(peer) => {
                Err(MembershipError::AlreadyMember(peer))
            }
            MembershipChange::Promote(_) if !self.membership.learners.contains(&peer) => {
                Err(MembershipError::NotLearner(peer))
            }
            MembershipChange::Promote(_) => match self.lag(peer) {
                Some(entries) if entries > self.settings.lag_entries_max => {
                    Err(MembershipError::LagsBehind { peer, entries })
                }
                Some(_) => Ok(()),
                None => Err(MembershipError::NotMember(peer)),
            },
            MembershipChange::Remove(_) if peer == self.identity.peer => Err(MembershipError::RemovesLeader(peer)),
            MembershipChange::Remove(_) if !self.membership.contains(peer) => Err(MembershipError::NotMember(peer)),
            MembershipChange::AddLearner(_) | MembershipChange::Remove(_) => Ok(()),
        }
    }

    /// How many entries a member lacks of the leader's log.
    fn lag(&self, peer: PeerId) -> Option<u64> {
        let matched = self.raw.raft.prs().get(peer.0)?.matched;
        Some(self.raw.raft.raft_log.last_index().saturating_sub(matched))
    }

    /// A change of membership is applied.
    pub(super) fn change_takes_effect(&mut self, index: Index, change: &ConfChangeV2) {
        // Every replica decides alike from the same log: a change that does not fit is refused by all of them.
        if self.membership.peers().len() + change.changes.len() > PEERS_MAX {
            return;
        }
        let Ok(state) = self.raw.apply_conf_change(change) else { return };
        let unsorted = self.settings.plants(PlantedBug::UnsortedMembership);
        let membership = if unsorted { Membership::from_raft_unsorted(&state) } else { Membership::from_raft(&state) };
        self.set_membership(index, membership);
        self.end_lease();
        if !self.membership.contains(self.identity.peer) {
            self.proposals.give_up();
        }
        // The library goes on: as a leader it would drop every proposal, as a candidate panic when it wins.
        if self.raw.raft.state != StateRole::Follower && !self.membership.is_voter(self.identity.peer) {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        self.look();
    }

    /// The leader leaves a joint membership if the library has not: it forgets to when the leader changes between the
    /// entry and its application.
    pub(super) fn leave_joint_membership(&mut self) {
        let raft = &self.raw.raft;
        let due = raft.state == StateRole::Leader
            && self.membership.is_joint()
            && self.membership.auto_leave
            && !raft.has_pending_conf()
            && raft.commit_to_current_term()
            && raft.apply_to_current_term();
        if due && self.may_propose().is_ok() {
            // Refused for a backlog, it is due again at the next tick; taken, its effect is told like any change's.
            let _ = self.append_change(&[]);
        }
    }

    /// Starts to hand leadership to `to`. Proposals are refused until it has ended, which an event says; it ends after
    /// an election timeout at the latest.
    pub fn transfer(&mut self, to: PeerId) -> Result<(), TransferError> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if to == self.identity.peer {
            return Err(TransferError::AlreadyLeader(to));
        }
        if let Some(other) = raft.lead_transferee {
            return Err(TransferError::UnderWay(PeerId(other)));
        }
        if !self.membership.voters.contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        let following = raft.prs().get(to.0).is_some_and(|progress| progress.state == ProgressState::Replicate);
        if !following {
            return Err(TransferError::NotFollowing(to));
        }
        let entries = self.lag(to).expect("looked up above");
        if entries > self.settings.lag_entries_max {
            return Err(TransferError::LagsBehind { peer: to, entries });
        }
        self.ban_lease();
        self.raw.transfer_leader(to.0);
        self.transferring = Some(to);
        self.look();
        Ok(())
    }

    /// Says when a transfer has ended.
    pub(super) fn notice_transfer(&mut self) {
        let Some(to) = self.transferring else { return };
        if self.raw.raft.lead_transferee.is_none() {
            self.transferring = None;
            let transferred = self.raw.raft.state != StateRole::Leader;
            self.events.push(Event::TransferEnded { to, transferred });
        }
    }
}
