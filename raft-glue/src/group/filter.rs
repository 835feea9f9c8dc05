//! Which messages are believed.
//!
//! Place in the flow: step 7, before the consensus library sees a message. What the library handles well passes; what
//! it is known to handle badly stops here.
//!
//! Invariants:
//! - No message from the network reaches the library that makes it panic, whatever its sender meant.
//! - Proposals, transfers and reads come from this node alone; the wire format has no words for them.
//!
//! Deliberately not here: whether bytes are a message; see `message.rs`.

use raft::eraftpb::Message;
use raft::StateRole;

use super::Group;
use crate::message::MessageBody;
use crate::record::RECORD_ENTRIES_MAX;
use crate::{EntryPosition, Index, MessageKind, PeerId, PeerMessage, PlantedBug, SnapshotMeta};

/// The last place that a message may name as part of a log: a leader has room beyond it for entries of its own, 136
/// years of them at a thousand a second.
const INDEX_TAKEN_MAX: Index = Index(Index::MAX.0 - (1 << 42));

/// Why a message was not taken. Messages may be lost at any time, so this is for counting, not for acting on, but for
/// [`Dropped::LostLog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Dropped {
    /// It is for another group.
    #[error("it is for another group")]
    OtherGroup,
    /// It is for an id that this replica does not have: one from before its disk was lost.
    #[error("it is for another replica id")]
    FormerId,
    /// Its sender was removed from the group, or claims to be this replica.
    #[error("its sender does not belong to the group")]
    FormerSender,
    /// It answers something that its sender was never asked by this replica.
    #[error("its sender is not known")]
    UnknownPeer,
    /// A snapshot is being installed.
    #[error("a snapshot is being installed")]
    Installing,
    /// It would make this replica lead, whose log or vote is not on disk yet.
    #[error("the log is not on disk yet")]
    NotOnDisk,
    /// A vote that might break a lease that rests on this replica, or did before it was restarted.
    #[error("a lease may hold that rests on this replica")]
    LeaseMayHold,
    /// An old rejection that would set the leader's knowledge back.
    #[error("it rejects what its sender has confirmed")]
    StaleRejection,
    /// No sound replica would send it: it confirms entries that were never sent, or contradicts itself or what is
    /// committed.
    #[error("no sound replica would send it")]
    Impossible,
    /// More entries came than one record takes, and nobody polled.
    #[error("too many entries wait for a poll")]
    Backlog,
    /// Its term is over.
    #[error("its term is over")]
    Stale,
    /// A leader knows this replica to have entries that it does not have: its disk lost what it had confirmed. It must
    /// be removed from the group and come back under another id.
    #[error("this replica lost entries that it had confirmed; remove it, and add it again under another id")]
    LostLog,
}

impl Group {
    /// A message from another replica.
    pub fn receive(&mut self, message: PeerMessage) -> Result<(), Dropped> {
        if message.group != self.identity.group {
            return Err(Dropped::OtherGroup);
        }
        if message.to != self.identity.peer && !self.settings.plants(PlantedBug::FormerPeerAccepted) {
            return Err(Dropped::FormerId);
        }
        if message.from == self.identity.peer || self.former_peers.contains(&message.from) {
            return Err(Dropped::FormerSender);
        }
        let PeerMessage { from, kind, body, .. } = message;
        match body {
            MessageBody::ReadRequest(context) => self.read_is_asked(from, context),
            MessageBody::ReadReply(context, index) => self.read_is_answered(from, context, index)?,
            MessageBody::Raft(message) => {
                self.check(kind, &message)?;
                if kind == MessageKind::Snapshot {
                    return self.snapshot_is_offered(from, message);
                }
                self.note_promise(kind, &message);
                self.step(message)?;
            }
        }
        Ok(())
    }

    /// Hands a message to the library.
    pub(super) fn step(&mut self, message: Message) -> Result<(), Dropped> {
        // Replies of removed replicas are the only thing that the library refuses with an error here.
        self.raw.step(message).map_err(|_| Dropped::UnknownPeer)?;
        self.look();
        Ok(())
    }

    fn check(&self, kind: MessageKind, message: &Message) -> Result<(), Dropped> {
        match kind {
            MessageKind::Vote | MessageKind::PreVote if self.lease_may_hold(message) => Err(Dropped::LeaseMayHold),
            MessageKind::TimeoutNow | MessageKind::Snapshot
                if self.is_installing() && !self.settings.plants(PlantedBug::NoInstallGate) =>
            {
                Err(Dropped::Installing)
            }
            MessageKind::TimeoutNow if self.is_sole_voter() && !self.all_on_disk() => Err(Dropped::NotOnDisk),
            MessageKind::VoteResponse => self.check_vote_response(),
            MessageKind::Append => self.check_append(message),
            MessageKind::AppendResponse => self.check_append_response(message),
            MessageKind::Heartbeat => self.check_heartbeat(message),
            MessageKind::Snapshot => self.check_snapshot(message),
            _ => Ok(()),
        }
    }

    /// Where leases are given, a replica keeps out of elections until any lease that may rest on it is over; a leader
    /// that transfers gave its lease up itself.
    fn lease_may_hold(&self, message: &Message) -> bool {
        self.supports_lease() && message.context != raft::CAMPAIGN_TRANSFER
    }

    /// What is answered to a leader supports its lease from now on.
    fn note_promise(&mut self, kind: MessageKind, message: &Message) {
        if kind == MessageKind::Heartbeat && message.term >= self.raw.raft.term {
            self.promised_until_tick = self.ticks + self.settings.election_ticks as u64;
        }
    }

    /// A candidate asks for votes when its own vote and its whole log are durable: an answer that comes before that
    /// was never asked for. The library would lead, and demands then that its log is on disk to the last entry.
    fn check_vote_response(&self) -> Result<(), Dropped> {
        let early = self.raw.raft.state == StateRole::Candidate && !(self.all_on_disk() && self.vote_is_on_disk());
        if early && !self.settings.plants(PlantedBug::MessagesBeforeSync) {
            return Err(Dropped::NotOnDisk);
        }
        Ok(())
    }

    /// Entries have terms from 1 on, and only the place before all of them has none. For a place beyond its log the
    /// library gives the term 0, and would take an append there for one that fits.
    fn check_append(&self, message: &Message) -> Result<(), Dropped> {
        let before = (message.index, message.log_term);
        let first = message.entries.first().map_or(u64::MAX, |entry| entry.term);
        if (before.0 == 0) != (before.1 == 0) || before.1 > message.term || first == 0 {
            return Err(Dropped::Impossible);
        }
        if message.index + message.entries.len() as u64 > INDEX_TAKEN_MAX.0 {
            return Err(Dropped::Impossible);
        }
        // All that is not given out goes into one record.
        if self.raw.raft.raft_log.unstable_entries().len() + message.entries.len() > RECORD_ENTRIES_MAX {
            return Err(Dropped::Backlog);
        }
        Ok(())
    }

    /// A rejection that was overtaken by the confirmation of the same entries would make the leader forget them. A
    /// confirmation of entries beyond the log is no message of a sound replica, and none asks for a snapshot.
    fn check_append_response(&self, message: &Message) -> Result<(), Dropped> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || message.term != raft.term {
            return Ok(());
        }
        let Some(progress) = raft.prs().get(message.from) else { return Err(Dropped::UnknownPeer) };
        if !message.reject {
            let beyond = message.index > raft.raft_log.last_index();
            return if beyond { Err(Dropped::Impossible) } else { Ok(()) };
        }
        if message.request_snapshot != 0 {
            return Err(Dropped::Impossible);
        }
        // Where the library would go on: at the last place that may agree with the hint.
        let hint = match message.log_term {
            0 => message.reject_hint,
            term => raft.raft_log.find_conflict_by_term(message.reject_hint, term).0,
        };
        if message.index <= progress.matched || hint < progress.matched {
            return Err(Dropped::StaleRejection);
        }
        Ok(())
    }

    /// A leader never tells a follower to commit what that follower has not confirmed.
    fn check_heartbeat(&self, message: &Message) -> Result<(), Dropped> {
        let raft = &self.raw.raft;
        if message.term >= raft.term && message.commit > raft.raft_log.last_index() {
            return Err(Dropped::LostLog);
        }
        Ok(())
    }

    /// A snapshot is for a member, of a term that was before its message, and agrees with what is committed here: the
    /// library would put one of another term in the place of what is committed.
    pub(super) fn check_snapshot(&self, message: &Message) -> Result<(), Dropped> {
        let meta = SnapshotMeta::from_raft(message.get_snapshot()).map_err(|_| Dropped::Impossible)?;
        let EntryPosition { term, index } = meta.position;
        let log = &self.raw.raft.raft_log;
        let contradicts = index.0 == log.committed && !log.match_term(index.0, term.0);
        let term_fits = (1..=message.term).contains(&term.0);
        if contradicts || !term_fits || index > INDEX_TAKEN_MAX || !meta.membership.contains(self.identity.peer) {
            return Err(Dropped::Impossible);
        }
        Ok(())
    }

    /// Members that left are not heard any more; `before` were there until now.
    pub(super) fn forget_members(&mut self, before: &[PeerId]) {
        for peer in before {
            if !self.membership.contains(*peer) && !self.former_peers.contains(peer) {
                self.former_peers.push_back(*peer);
            }
        }
        while self.former_peers.len() > super::FORMER_PEERS_MAX {
            self.former_peers.pop_front();
        }
    }
}
