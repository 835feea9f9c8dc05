//! Who belongs to a group, and how that may change.
//!
//! Place in the flow: beside step 7. A change is an entry of the log; it takes effect on each replica when that replica
//! applies it.
//!
//! Invariants:
//! - The lists are sorted and have no doubles, so that equal memberships are equal bytes on every replica (the
//!   consensus library keeps them in hash sets and hands them out in any order).
//! - A membership is joint exactly when `outgoing` is not empty.
//!
//! Deliberately not here: when a change is allowed; see `group/changes.rs`.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::wire::{put_number, DecodeError, Reader};
use crate::PeerId;

/// The most replicas that one list of a membership names: far above what a group is run with, and small enough that a
/// membership never fills a message.
pub const PEERS_MAX: usize = 64;

/// Who belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Membership {
    /// Replicas that vote and count for a majority.
    pub voters: Vec<PeerId>,
    /// Replicas that get the log and do not count.
    pub learners: Vec<PeerId>,
    /// In a joint membership, the voters before the change: a majority of these is needed as well.
    pub outgoing: Vec<PeerId>,
    /// Voters of `outgoing` that become learners when the joint membership is left.
    pub learners_next: Vec<PeerId>,
    /// Whether the leader leaves the joint membership by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// A membership of these voters and learners.
    pub fn new(voters: impl IntoIterator<Item = PeerId>, learners: impl IntoIterator<Item = PeerId>) -> Self {
        let mut membership =
            Self { voters: voters.into_iter().collect(), learners: learners.into_iter().collect(), ..Self::default() };
        membership.sort();
        membership
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `peer` belongs to the group in any part.
    pub fn contains(&self, peer: PeerId) -> bool {
        self.lists().iter().any(|list| list.contains(&peer))
    }

    /// Whether `peer` votes now.
    pub fn is_voter(&self, peer: PeerId) -> bool {
        self.voters.contains(&peer) || self.outgoing.contains(&peer)
    }

    /// Everyone who belongs to the group, sorted, each once.
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers = self.lists().concat();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn lists(&self) -> [&[PeerId]; 4] {
        [&self.voters, &self.learners, &self.outgoing, &self.learners_next]
    }

    fn sort(&mut self) {
        for list in [&mut self.voters, &mut self.learners, &mut self.outgoing, &mut self.learners_next] {
            list.sort_unstable();
            list.dedup();
        }
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let mut membership = Self::from_raft_unsorted(state);
        membership.sort();
        membership
    }

    pub(crate) fn from_raft_unsorted(state: &ConfState) -> Self {
        let list = |peers: &[u64]| peers.iter().copied().map(PeerId).collect();
        Self {
            voters: list(&state.voters),
            learners: list(&state.learners),
            outgoing: list(&state.voters_outgoing),
            learners_next: list(&state.learners_next),
            auto_leave: state.auto_leave,
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let list = |peers: &[PeerId]| peers.iter().map(|peer| peer.0).collect();
        ConfState {
            voters: list(&self.voters),
            learners: list(&self.learners),
            voters_outgoing: list(&self.outgoing),
            learners_next: list(&self.learners_next),
            auto_leave: self.auto_leave,
        }
    }

    /// ```text
    /// membership   4 × (count, peers in order), flag: leaves by itself
    /// ```
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for list in self.lists() {
            put_number(out, list.len() as u64);
            list.iter().for_each(|peer| put_number(out, peer.0));
        }
        out.push(u8::from(self.auto_leave));
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut lists: [Vec<PeerId>; 4] = Default::default();
        for list in &mut lists {
            let count = reader.count(PEERS_MAX, 1, "a list of peers")?;
            for _ in 0..count {
                let peer = PeerId(reader.number("a peer")?);
                if list.last().copied().unwrap_or_default() >= peer {
                    return Err(DecodeError::OutOfRange("a list of peers"));
                }
                list.push(peer);
            }
        }
        let [voters, learners, outgoing, learners_next] = lists;
        let auto_leave = reader.flag("a membership")?;
        let membership = Self { voters, learners, outgoing, learners_next, auto_leave };
        membership.is_sound().then_some(membership).ok_or(DecodeError::OutOfRange("a membership"))
    }

    /// Whether the lists fit together: the library panics on those that do not. Nobody at all is sound, too: it is what
    /// a replica knows that has not joined yet.
    fn is_sound(&self) -> bool {
        let Self { voters, learners, outgoing, learners_next, auto_leave } = self;
        if voters.is_empty() {
            return *self == Self::default();
        }
        let nobody_twice = !learners.iter().any(|peer| self.is_voter(*peer) || learners_next.contains(peer));
        let leaving = learners_next.iter().all(|peer| outgoing.contains(peer) && !voters.contains(peer));
        nobody_twice && leaving && (self.is_joint() || !auto_leave)
    }
}

/// One step of a change. Several steps in one change are taken together, by way of a joint membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MembershipChange {
    /// A new replica gets the log and does not count.
    AddLearner(PeerId),
    /// A learner that has caught up becomes a voter.
    Promote(PeerId),
    /// A replica leaves; its id is never used again.
    Remove(PeerId),
}

impl MembershipChange {
    /// The replica that it is about.
    pub fn peer(self) -> PeerId {
        match self {
            Self::AddLearner(peer) | Self::Promote(peer) | Self::Remove(peer) => peer,
        }
    }
}

/// What stands in a membership entry, for the consensus library; empty to leave a joint membership.
pub(crate) fn to_conf_change(changes: &[MembershipChange]) -> ConfChangeV2 {
    let single = |change: &MembershipChange| ConfChangeSingle {
        node_id: change.peer().0,
        change_type: match change {
            MembershipChange::AddLearner(_) => ConfChangeType::AddLearnerNode,
            MembershipChange::Promote(_) => ConfChangeType::AddNode,
            MembershipChange::Remove(_) => ConfChangeType::RemoveNode,
        } as i32,
    };
    ConfChangeV2 { changes: changes.iter().map(single).collect(), ..ConfChangeV2::default() }
}

/// The bytes of a membership entry.
pub(crate) fn encode_change(changes: &[MembershipChange]) -> Bytes {
    to_conf_change(changes).encode_to_vec().into()
}

/// The longest membership entry that is read; the longest that is written has less than half of it.
const CHANGE_BYTES_MAX: usize = 32 * PEERS_MAX;

/// Reads a membership entry of the log. Every number is checked: the library panics on those it does not know.
pub(crate) fn decode_change(bytes: &Bytes) -> Result<ConfChangeV2, DecodeError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(DecodeError::OutOfRange("a membership entry"));
    }
    let change = ConfChangeV2::decode(bytes.clone()).map_err(|_| DecodeError::OutOfRange("a membership entry"))?;
    let known = |single: &ConfChangeSingle| single.node_id != 0 && ConfChangeType::try_from(single.change_type).is_ok();
    let transition = raft::eraftpb::ConfChangeTransition::try_from(change.transition);
    if transition.is_err() || change.changes.len() > PEERS_MAX || !change.changes.iter().all(known) {
        return Err(DecodeError::OutOfRange("a membership entry"));
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(numbers: &[u64]) -> Vec<PeerId> {
        numbers.iter().copied().map(PeerId).collect()
    }

    #[test]
    fn p17_lists_are_sorted_whatever_order_the_library_gives() {
        let state = ConfState { voters: vec![3, 1, 2], learners: vec![9, 8], ..ConfState::default() };
        let membership = Membership::from_raft(&state);
        assert_eq!((membership.voters, membership.learners), (peers(&[1, 2, 3]), peers(&[8, 9])));
    }

    #[test]
    fn a_membership_survives_its_encoding_and_has_one() {
        let membership = Membership {
            voters: peers(&[1, 2, 300]),
            learners: peers(&[7]),
            outgoing: peers(&[1, 2, 4]),
            learners_next: peers(&[4]),
            auto_leave: true,
        };
        let mut bytes = Vec::new();
        membership.encode(&mut bytes);
        assert_eq!(bytes, [3, 1, 2, 0xac, 2, 1, 7, 3, 1, 2, 4, 1, 4, 1]);
        assert_eq!(Membership::decode(&mut Reader::new(bytes.clone().into())), Ok(membership));
        for (unsound, why) in [
            (&[1, 1, 1, 1, 0, 0, 0][..], "a voter that is a learner"),
            (&[0, 1, 1, 0, 0, 0], "no voter"),
            (&[1, 1, 0, 0, 1, 2, 0], "a learner to be that is no voter"),
            (&[1, 1, 0, 0, 0, 1], "to be left by itself, and not joint"),
            (&[1, 0, 0, 0, 0, 0], "the id 0"),
        ] {
            assert!(Membership::decode(&mut Reader::new(Bytes::from_static(unsound))).is_err(), "{why}");
        }
        bytes.swap(1, 2);
        let unsorted = Membership::decode(&mut Reader::new(bytes.into()));
        assert_eq!(unsorted, Err(DecodeError::OutOfRange("a list of peers")));
    }

    #[test]
    fn a_membership_entry_of_a_kind_that_nobody_knows_is_refused() {
        let changes = [MembershipChange::Promote(PeerId(4)), MembershipChange::Remove(PeerId(1))];
        let bytes = encode_change(&changes);
        assert_eq!(decode_change(&bytes), Ok(to_conf_change(&changes)));
        let mut strange = to_conf_change(&changes);
        strange.changes[0].change_type = 77;
        assert!(decode_change(&strange.encode_to_vec().into()).is_err());
        let nobody = to_conf_change(&[MembershipChange::Remove(PeerId(0))]);
        assert!(decode_change(&nobody.encode_to_vec().into()).is_err());
        assert!(decode_change(&Bytes::from_static(&[0xff])).is_err());
    }
}
