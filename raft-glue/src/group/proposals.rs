//! Entries that this replica proposed, and what became of them.
//!
//! Place in the flow: step 7. The library says that a proposal was taken; that is no promise: another leader may put
//! another entry in its place.
//!
//! Invariants:
//! - A proposal is told done, lost or unknown exactly once; done and lost are facts about the whole group.
//! - Nothing is ever forwarded to another replica: the library would drop it there without a word.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::StateRole;

use super::Group;
use crate::output::{Fate, Output, ProposalOutcome};
use crate::record::{kind_context, ENTRY_BYTES_MAX};
use crate::{EntryKind, EntryPosition, GroupId, Index, LogEntry, PeerId, PlantedBug, Term};

/// Why a proposal was not taken. Nothing was written; it may be made again, where `leader` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads.
    #[error("this replica does not lead its group; ask {leader:?}")]
    NotLeader {
        /// Who leads, as far as known.
        leader: Option<PeerId>,
    },
    /// Leadership is on its way to another replica.
    #[error("leadership is being transferred to {to:?}; ask again in a moment")]
    Transferring {
        /// To whom.
        to: PeerId,
    },
    /// Too much is proposed and not committed.
    #[error("too many entries wait for a majority; ask again in a moment")]
    Backlog,
    /// The entry is larger than any may be.
    #[error("an entry of {bytes} bytes is above the limit of {ENTRY_BYTES_MAX}; propose it in parts")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Proposals whose fate is not known, in order of place; of several terms where this replica led more than once.
#[derive(Default)]
pub(super) struct Proposals {
    pending: BTreeMap<(Index, Term), usize>,
    byte_length: usize,
    /// Given up, and not told.
    unknown: Vec<EntryPosition>,
    /// The last tick at which this replica led.
    led_at_tick: u64,
}

impl Proposals {
    pub(super) fn have_news(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// What is not decided will not be decided here.
    pub(super) fn give_up(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.unknown.extend(pending.into_keys().map(|(index, term)| EntryPosition { term, index }));
        self.byte_length = 0;
    }

    /// `entry` is committed at its place.
    pub(super) fn decide(&mut self, group: GroupId, entry: &LogEntry, out: &mut Output) {
        while let Some(first) = self.pending.first_entry() {
            let (index, term) = *first.key();
            let fate = match index.cmp(&entry.position.index) {
                std::cmp::Ordering::Greater => break,
                // The library turns a proposal that it does not like into an empty entry.
                std::cmp::Ordering::Equal if (EntryPosition { term, index }) == entry.position => Fate::Done,
                std::cmp::Ordering::Equal => Fate::Lost,
                std::cmp::Ordering::Less => Fate::Unknown,
            };
            self.byte_length -= first.remove();
            out.proposals.push(ProposalOutcome { group, position: EntryPosition { term, index }, fate });
        }
    }
}

impl Group {
    /// Adds one entry to the log of this replica, which leads. What it carries counts only when its fate is
    /// [`Fate::Done`]; of the place, only index and term together name the entry.
    pub fn propose(&mut self, kind: EntryKind, bytes: Bytes) -> Result<EntryPosition, ProposeError> {
        let byte_length = bytes.len();
        if byte_length > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: byte_length });
        }
        self.may_propose()?;
        let entry = Entry { data: bytes, context: kind_context(kind), ..Entry::default() };
        let position = self.append(entry)?;
        self.proposals.pending.insert((position.index, position.term), byte_length);
        self.proposals.byte_length += byte_length;
        self.proposals.led_at_tick = self.ticks;
        Ok(position)
    }

    /// Whether this replica may add to the log now.
    pub(super) fn may_propose(&self) -> Result<(), ProposeError> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader || raft.prs().get(self.identity.peer.0).is_none() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if let Some(to) = raft.lead_transferee {
            return Err(ProposeError::Transferring { to: PeerId(to) });
        }
        // The library counts uncommitted bytes as well, but loses count when the leader changes.
        let full = self.proposals.pending.len() >= self.settings.pending_proposals_max
            || self.proposals.byte_length as u64 > self.settings.uncommitted_bytes_max;
        if full {
            return Err(ProposeError::Backlog);
        }
        Ok(())
    }

    pub(super) fn append(&mut self, entry: Entry) -> Result<EntryPosition, ProposeError> {
        let from = self.identity.peer.0;
        let mut message = Message { from, entries: vec![entry], ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        self.raw.step(message).map_err(|_| ProposeError::Backlog)?;
        let position = EntryPosition { term: self.term(), index: self.last() };
        self.look();
        Ok(position)
    }

    /// A snapshot came over these places: nobody here can tell what stood there.
    pub(super) fn lose_proposals_up_to(&mut self, index: Index, out: &mut Output) {
        let later = self.proposals.pending.split_off(&(index.next(), Term(0)));
        for ((index, term), byte_length) in std::mem::replace(&mut self.proposals.pending, later) {
            self.proposals.byte_length -= byte_length;
            let position = EntryPosition { term, index };
            out.proposals.push(ProposalOutcome { group: self.identity.group, position, fate: Fate::Unknown });
        }
    }

    /// A replica that stopped leading, and heard nothing since, may never hear: it was removed, or is cut off.
    pub(super) fn expire_proposals(&mut self) {
        if self.is_leader() {
            self.proposals.led_at_tick = self.ticks;
        } else if self.ticks >= self.proposals.led_at_tick + self.settings.proposal_ticks_max {
            self.proposals.give_up();
        }
    }

    /// Tells of the proposals that were given up.
    pub(super) fn tell_unknown(&mut self, out: &mut Output) {
        let (group, fate) = (self.identity.group, Fate::Unknown);
        let unknown = self.proposals.unknown.drain(..);
        out.proposals.extend(unknown.map(|position| ProposalOutcome { group, position, fate }));
    }

    /// A mistake: what is in this leader's log counts as done.
    pub(super) fn done_at_append(&mut self, out: &mut Output) {
        if self.settings.plants(PlantedBug::DoneAtAppend) {
            for ((index, term), _) in std::mem::take(&mut self.proposals.pending) {
                let position = EntryPosition { term, index };
                out.proposals.push(ProposalOutcome { group: self.identity.group, position, fate: Fate::Done });
            }
            self.proposals.byte_length = 0;
        }
    }
}
