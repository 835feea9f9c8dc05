//! The call order: what a group gives out, and what it keeps until the disk has it.
//!
//! Place in the flow: step 7, between the library's readies and the caller's log.
//!
//! ```text
//! poll     ready ► what may leave now ► log in memory ► record to persist ► reads, entries to apply ► advance
//!                  └ the rest waits in the pipeline, with the record's number
//! persisted(n)     the library is told first, and only then may what waited for n leave
//! applied(i)       changes of membership up to i take effect first, then the library is told
//! ```
//!
//! Invariants: see the parent module. A ready that needs no sync counts as persisted as soon as all before it are.

use std::collections::VecDeque;

use raft::eraftpb::Message;
use raft::Ready;

use super::Group;
use crate::membership::decode_change;
use crate::output::{Apply, Install, Output};
use crate::record::PersistRecord;
use crate::{
    EntryBody, GroupId, HardState, Index, LogEntry, MessageKind, PeerId, PeerMessage, PlantedBug, ReadyNumber,
    SnapshotMeta, Term,
};

/// A ready that waits for the disk, or for one that does.
struct Outstanding {
    number: u64,
    must_sync: bool,
    hard_state: HardState,
    messages: Vec<PeerMessage>,
}

/// What was given out and is not durable.
pub(super) struct Pipeline {
    outstanding: VecDeque<Outstanding>,
    /// As last given out.
    given: HardState,
    /// As on disk, as far as the caller has said.
    durable: HardState,
    last_number: u64,
    /// The last entry that was given out to be persisted.
    last_written: Index,
}

impl Pipeline {
    pub(super) fn new(durable: HardState, last_written: Index) -> Self {
        Self { outstanding: VecDeque::new(), given: durable, durable, last_number: 0, last_written }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The commit index on disk.
    pub(super) fn durable_commit(&self) -> Index {
        self.durable.commit
    }

    pub(super) fn len(&self) -> usize {
        self.outstanding.len()
    }

    pub(super) fn checkpoint(&self, group: GroupId) -> PersistRecord {
        PersistRecord {
            group,
            number: ReadyNumber(self.last_number),
            must_sync: false,
            hard_state: Some(self.given),
            snapshot: None,
            entries: Vec::new(),
        }
    }

    /// Whether what was given out and what is on disk agree on term and vote.
    fn vote_is_durable(&self) -> bool {
        self.holds_vote(self.given.term, self.given.vote)
    }

    /// Whether this term and this vote are what is on disk.
    pub(super) fn holds_vote(&self, term: Term, vote: Option<PeerId>) -> bool {
        (term, vote) == (self.durable.term, self.durable.vote)
    }

    fn give(&mut self, state: HardState) {
        let before = self.given;
        assert!(
            state.term >= before.term && state.commit >= before.commit,
            "hard state went from {before:?} to {state:?}"
        );
        let same_vote = before.vote.is_none() || state.vote == before.vote;
        assert!(state.term > before.term || same_vote, "a second vote in one term: {before:?}, then {state:?}");
        self.given = state;
    }
}

impl Group {
    /// Handles at most one ready of the library and appends what comes of it to `out`. True when there is more: call it
    /// again, now or after other groups had their turn.
    pub fn poll(&mut self, out: &mut Output) -> bool {
        self.start_read_round();
        if self.pipeline.len() < self.settings.outstanding_readies_max && self.raw.has_ready() {
            let ready = self.raw.ready();
            self.handle(ready, out);
            self.look();
        }
        self.give_out(out);
        self.has_work()
    }

    /// Whether a poll would give out anything.
    pub fn has_work(&self) -> bool {
        let room = self.pipeline.len() < self.settings.outstanding_readies_max;
        let held_back = !self.held_back.is_empty() && !self.is_installing();
        let waiting = !self.outbox.is_empty() || !self.events.is_empty();
        let news = self.proposals.have_news() || self.reads_have_work();
        room && self.raw.has_ready() || held_back || waiting || news
    }

    fn handle(&mut self, mut ready: Ready, out: &mut Output) {
        let number = ready.number();
        assert!(number > self.pipeline.last_number, "ready {number} came after {}", self.pipeline.last_number);
        self.pipeline.last_number = number;
        let commit_before = self.pipeline.given.commit;
        if let Some(state) = ready.hs() {
            self.pipeline.give(HardState::from_raft(state));
        }
        let (now, later) = self.divide_messages(&mut ready);
        self.outbox.extend(now);
        self.remember(&ready);
        // Who left the group may be switched off when this replica says that it left: it must not forget that again.
        let changes = self.raw.store().has_change(commit_before, self.pipeline.given.commit);
        let must_sync = ready.must_sync() || changes;
        self.give_record(&ready, must_sync, out);
        let read_states = ready.take_read_states();
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        if self.settings.plants(PlantedBug::AppliedBeyondPersisted) {
            self.raw.on_persist_ready(number);
        }
        self.rounds_are_confirmed(read_states);
        self.give_committed(committed.into_iter().map(LogEntry::from_raft), out);
        self.pipeline.outstanding.push_back(Outstanding {
            number,
            must_sync: must_sync && !self.settings.plants(PlantedBug::EarlyPersistence),
            hard_state: self.pipeline.given,
            messages: later,
        });
        assert!(self.pipeline.len() <= self.settings.outstanding_readies_max, "the pipeline is longer than its bound");
        self.release(0);
    }

    /// What may leave before the disk, and what must follow it.
    ///
    /// A leader's messages may: what they speak of is its log, which counts for nothing until it is durable itself
    /// (Ongaro's thesis, 10.2.1). But not while the term it leads in, or its vote for itself, could still be lost: that
    /// happens where it alone decides. Of a follower's messages the replies to heartbeats may, which promise nothing
    /// about the log, again unless term or vote could be lost.
    fn divide_messages(&mut self, ready: &mut Ready) -> (Vec<PeerMessage>, Vec<PeerMessage>) {
        let group = self.identity.group;
        let travels = |message: Message| PeerMessage::from_raft(group, message);
        let mut now: Vec<PeerMessage> = ready.take_messages().into_iter().filter_map(travels).collect();
        let mut later: Vec<PeerMessage> = ready.take_persisted_messages().into_iter().filter_map(travels).collect();
        if self.settings.plants(PlantedBug::MessagesBeforeSync) {
            now.append(&mut later);
        } else if !self.pipeline.vote_is_durable() {
            later.append(&mut now);
        } else {
            let early = |message: &PeerMessage| message.kind == MessageKind::HeartbeatResponse;
            now.extend(later.extract_if(.., |message| early(message)));
        }
        now.iter().for_each(|message| self.assert_may_leave(message));
        now.iter().chain(&later).for_each(|message| self.note_snapshot_stream(message));
        (now, later)
    }

    /// The log in memory answers for what the library is about to forget.
    fn remember(&mut self, ready: &Ready) {
        let snapshot = ready.snapshot();
        if !snapshot.is_empty() {
            let meta = SnapshotMeta::from_raft(snapshot).expect("checked when it was offered");
            self.raw.mut_store().install(meta.position);
        }
        self.raw.mut_store().append(ready.entries());
    }

    fn give_record(&mut self, ready: &Ready, must_sync: bool, out: &mut Output) {
        let (group, number) = (self.identity.group, ReadyNumber(ready.number()));
        let snapshot = (!ready.snapshot().is_empty()).then(|| self.begin_install(ready.snapshot()));
        let entries: Vec<LogEntry> = ready.entries().iter().cloned().map(LogEntry::from_raft).collect();
        let hard_state = ready.hs().map(HardState::from_raft);
        if let Some(meta) = &snapshot {
            self.lose_proposals_up_to(meta.position.index, out);
            out.install.push(Install { group, meta: meta.clone() });
        }
        if hard_state.is_none() && snapshot.is_none() && entries.is_empty() {
            return;
        }
        let mut record = PersistRecord { group, number, must_sync, hard_state, snapshot, entries };
        self.plant_in_record(&mut record, out);
        out.persist.push(record);
    }

    /// Mistakes in what is persisted.
    fn plant_in_record(&mut self, record: &mut PersistRecord, out: &mut Output) {
        if self.settings.plants(PlantedBug::LostVote) {
            record.hard_state.iter_mut().for_each(|state| state.vote = None);
        }
        let last = record.entries.last().map(|entry| entry.position.index);
        if self.settings.plants(PlantedBug::ConflictNotRewritten) && record.snapshot.is_none() {
            record.entries.retain(|entry| entry.position.index > self.pipeline.last_written);
        }
        let snapshot = record.snapshot.as_ref().map(|meta| meta.position.index);
        self.pipeline.last_written = last.or(snapshot).unwrap_or(self.pipeline.last_written);
        if self.settings.plants(PlantedBug::SplitRecord) && !record.entries.is_empty() {
            if let Some(hard_state) = record.hard_state {
                let entries = std::mem::take(&mut record.entries);
                let snapshot = record.snapshot.take();
                out.persist.push(PersistRecord { hard_state: None, entries, snapshot, ..record.clone() });
                record.hard_state = Some(hard_state);
            }
        }
    }

    /// Entries that are committed and durable here, and follow what was given out before without a gap.
    fn give_committed(&mut self, committed: impl Iterator<Item = LogEntry>, out: &mut Output) {
        let group = self.identity.group;
        for entry in committed {
            let log = &self.raw.raft.raft_log;
            let allowed = Index(log.committed.min(log.persisted));
            assert_eq!(entry.position.index, self.given.next(), "entries are given out without a gap");
            assert!(entry.position.index <= allowed, "{:?} is not both committed and durable", entry.position);
            self.given = entry.position.index;
            if let EntryBody::Membership(bytes) = &entry.body {
                let change = decode_change(bytes).expect("every way into the log checks it");
                self.pending_changes.push_back((entry.position.index, change));
            }
            self.proposals.decide(group, &entry, out);
            self.held_back.push(Apply { group, entry });
        }
    }

    /// This record, and all of this group before it, are durable; records that need no sync are covered by those
    /// before them.
    ///
    /// # Panics
    /// When the record was never given out.
    pub fn persisted(&mut self, number: ReadyNumber) {
        assert!(number.0 <= self.pipeline.last_number, "{number:?} was never given out");
        self.release(number.0);
        self.look();
    }

    /// Tells the library what is durable, and lets go of what waited for it. The library is told first: a reply to a
    /// message must not find it unaware of its own disk.
    fn release(&mut self, up_to: u64) {
        let mut released = Vec::new();
        let mut last = None;
        while let Some(front) = self.pipeline.outstanding.front() {
            if front.number > up_to && front.must_sync {
                break;
            }
            let front = self.pipeline.outstanding.pop_front().expect("looked at above");
            self.pipeline.durable = front.hard_state;
            last = Some(front.number);
            released.extend(front.messages);
        }
        let Some(last) = last else { return };
        self.raw.on_persist_ready(last);
        released.iter().for_each(|message| self.assert_may_leave(message));
        self.outbox.append(&mut released);
        self.say_memberships();
    }

    /// That no message speaks for a term or a vote that could still be lost. A pre-vote, and the consent to it, name a
    /// term that nobody is in.
    fn assert_may_leave(&self, message: &PeerMessage) {
        if self.settings.plants(PlantedBug::MessagesBeforeSync) {
            return;
        }
        let future = matches!(message.kind, MessageKind::PreVote | MessageKind::PreVoteResponse);
        let durable = self.pipeline.durable.term;
        let term = message.term().unwrap_or_default();
        assert!(term <= durable || future, "{:?} of {term:?} leaves, and {durable:?} is durable", message.kind);
        let vote = self.pipeline.durable.vote;
        if let Some(promised) = message.speaks_for_vote().filter(|_| term == durable) {
            assert_eq!(vote, Some(promised), "{:?} of {term:?} leaves, and another vote is durable", message.kind);
        }
    }

    /// Everything up to `index` is applied. Changes of membership take effect now.
    ///
    /// # Panics
    /// When `index` was not given out.
    pub fn applied(&mut self, index: Index) {
        if self.is_installing() || index <= self.last_applied() {
            return;
        }
        assert!(index <= self.given, "{index:?} is applied and {:?} was given out", self.given);
        while self.pending_changes.front().is_some_and(|(at, _)| *at <= index) {
            let (at, change) = self.pending_changes.pop_front().expect("looked at above");
            self.raw.advance_apply_to(at.0 - 1);
            self.change_takes_effect(at, &change);
            self.raw.advance_apply_to(at.0);
        }
        self.raw.advance_apply_to(index.0);
        let log = &self.raw.raft.raft_log;
        assert!(log.applied <= log.committed.min(log.persisted), "applied beyond what is committed and durable");
        self.look();
    }

    fn give_out(&mut self, out: &mut Output) {
        let group = self.identity.group;
        self.want_snapshot();
        self.done_at_append(out);
        self.tell_unknown(out);
        self.give_reads(out);
        // What follows a snapshot waits until its state is there.
        if !self.is_installing() {
            out.apply.append(&mut self.held_back);
        }
        out.send.append(&mut self.outbox);
        out.events.extend(self.events.drain(..).map(|event| (group, event)));
    }
}
