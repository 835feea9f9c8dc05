//! Reads that see everything acknowledged before they were asked.
//!
//! Place in the flow: step 5 asks, step 9 answers.
//!
//! ```text
//! leader     read ► waits ► a round starts (one heartbeat for all that wait) ► a majority answers ► applied ► granted
//! follower   read ► waits ► asks the leader, many in one message ► the leader's next round ► index ► applied ► granted
//! lease      read ► index = commit, if a majority promised lately to elect nobody else ► applied ► granted
//! ```
//!
//! Invariants:
//! - A read joins a round that starts after it was asked; an older round proves nothing for it.
//! - A round's context is never used twice, not even to ask again: an answer to an old one would count for the new.
//! - No round starts before the leader has committed an entry of its own term: until then its commit index may be
//!   behind what others have acknowledged.
//!
//! Source: Ongaro, "Consensus: bridging theory and practice", 6.4.
//!
//! # The lease
//!
//! A follower that answers a round elects nobody else for an election timeout of its own clock, from a moment after
//! the round was sent. So until that long after the sending, minus what clocks may differ, the leader is the only one,
//! and may answer by itself. **This holds only while no clock of another replica runs faster than the leader's by more
//! than [`LeaseSettings::max_drift_ppm`](crate::LeaseSettings)**: a leader whose clock stands still, as in a suspended
//! or migrated machine, answers stale reads. Therefore it is off unless asked for. It also needs that all replicas run
//! with the same ticks and honour leases; that a replica which answered a round, or was restarted, keeps out of
//! elections for an election timeout, its own and those of later terms included; and it ends when leadership is about
//! to be transferred, for the rest of the term, and when the membership changes.

use std::collections::{BTreeMap, VecDeque};

use raft::{ReadState, StateRole};

use super::{Dropped, Group};
use crate::message::{MessageBody, ReadContext};
use crate::output::{Output, ReadFailure, ReadOutcome};
use crate::settings::READ_ROUNDS_MAX;
use crate::{Index, LeaseSettings, MessageKind, PeerId, PeerMessage, PlantedBug, ReadId};

/// How a read may be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadKind {
    /// By a majority, after it was asked.
    Linearizable,
    /// By a lease where there is one; else as the other.
    Lease,
}

/// Why a read was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many reads wait for a majority.
    #[error("too many reads wait for a majority; ask again in a moment")]
    TooMany,
}

/// Who waits.
#[derive(Debug, Clone, Copy)]
enum Waiter {
    Local { id: ReadId, deadline: u64 },
    Remote { peer: PeerId, context: ReadContext },
}

/// Reads that wait for a majority to answer one heartbeat, or for the leader to answer one question.
struct Round {
    context: ReadContext,
    /// The commit index when it started.
    commit: Index,
    started_us: u64,
    started_tick: u64,
    waiters: Vec<Waiter>,
}

/// All reads of a group.
pub(super) struct Reads {
    incarnation: u64,
    sequence: u64,
    /// Asked, and in no round.
    waiting: Vec<Waiter>,
    /// As leader: rounds under way.
    rounds: VecDeque<Round>,
    /// As follower: questions under way.
    asked: VecDeque<Round>,
    /// As follower: not before this tick, after the leader could not say.
    ask_at_tick: u64,
    /// Confirmed, and not applied that far.
    confirmed: BTreeMap<Index, Vec<(ReadId, u64)>>,
    failed: Vec<ReadId>,
    pending: usize,
    lease_until_us: u64,
    /// Leadership was about to be transferred in this term.
    lease_banned_term: u64,
}

impl Reads {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            sequence: 0,
            waiting: Vec::new(),
            rounds: VecDeque::new(),
            asked: VecDeque::new(),
            ask_at_tick: 0,
            confirmed: BTreeMap::new(),
            failed: Vec::new(),
            pending: 0,
            lease_until_us: 0,
            lease_banned_term: 0,
        }
    }

    fn next_context(&mut self, reused: bool) -> ReadContext {
        self.sequence += u64::from(!reused || self.sequence == 0);
        ReadContext { incarnation: self.incarnation, sequence: self.sequence }
    }

    fn confirm(&mut self, waiter: Waiter, index: Index) -> Option<(PeerId, ReadContext)> {
        match waiter {
            Waiter::Local { id, deadline } => {
                self.confirmed.entry(index).or_default().push((id, deadline));
                None
            }
            Waiter::Remote { peer, context } => Some((peer, context)),
        }
    }
}

impl Group {
    /// Asks for a read. It is granted by a later poll when this replica's state is new enough, or failed; on a follower
    /// too. `now_us` is the clock of [`Group::tick`], read after the read came in.
    pub fn read(&mut self, id: ReadId, kind: ReadKind, now_us: u64) -> Result<(), ReadError> {
        self.now_us = self.now_us.max(now_us);
        if self.reads.pending >= self.settings.pending_reads_max {
            return Err(ReadError::TooMany);
        }
        self.reads.pending += 1;
        let waiter = Waiter::Local { id, deadline: self.ticks + self.settings.read_ticks_max };
        if kind == ReadKind::Lease && self.lease_holds() {
            let commit = self.commit();
            self.reads.confirm(waiter, commit);
        } else {
            self.reads.waiting.push(waiter);
        }
        Ok(())
    }

    /// Reads that wait for anything.
    pub fn pending_reads(&self) -> usize {
        self.reads.pending
    }

    fn may_start_round(&self) -> bool {
        let reused = self.settings.plants(PlantedBug::ReusedReadContext);
        let rounds_max = if reused { 1 } else { READ_ROUNDS_MAX };
        let early = self.settings.plants(PlantedBug::GrantBeforeOwnCommit);
        self.is_leader()
            && !self.reads.waiting.is_empty()
            && self.reads.rounds.len() < rounds_max
            && (early || self.raw.raft.commit_to_current_term())
    }

    fn may_ask(&self) -> bool {
        !self.is_leader()
            && self.leader().is_some()
            && !self.reads.waiting.is_empty()
            && self.reads.asked.len() < READ_ROUNDS_MAX
            && self.ticks >= self.reads.ask_at_tick
    }

    pub(super) fn reads_have_work(&self) -> bool {
        let applied = self.last_applied();
        let grantable = self.reads.confirmed.first_key_value().is_some_and(|(index, _)| *index <= applied);
        grantable || !self.reads.failed.is_empty() || self.may_start_round() || self.may_ask()
    }

    /// Starts a round for all reads that wait, or asks the leader for them.
    pub(super) fn start_read_round(&mut self) {
        if self.may_start_round() {
            let round = self.new_round();
            if !self.raw.raft.commit_to_current_term() {
                // The mistake: a leader that trusts its commit index before it has committed anything itself.
                self.confirm_own(round.waiters, round.commit);
                return;
            }
            if self.settings.plants(PlantedBug::LeaseWithoutQuorum) {
                self.extend_lease(round.started_us);
            }
            let context = round.context.to_bytes().to_vec();
            self.reads.rounds.push_back(round);
            self.raw.read_index(context);
            self.look();
        } else if self.may_ask() {
            let to = self.leader().expect("asked above");
            let round = self.new_round();
            let body = MessageBody::ReadRequest(round.context);
            self.send_own(to, MessageKind::ReadRequest, body);
            self.reads.asked.push_back(round);
        }
    }

    /// These reads, all of this replica, are confirmed.
    fn confirm_own(&mut self, waiters: Vec<Waiter>, index: Index) {
        let early = self.settings.plants(PlantedBug::GrantBeforeOwnCommit);
        for waiter in waiters {
            let other = self.reads.confirm(waiter, index);
            assert!(other.is_none() || early, "only a leader has reads of others, and it answered them");
        }
    }

    fn new_round(&mut self) -> Round {
        let context = self.reads.next_context(self.settings.plants(PlantedBug::ReusedReadContext));
        Round {
            context,
            commit: self.commit(),
            started_us: self.now_us,
            started_tick: self.ticks,
            waiters: std::mem::take(&mut self.reads.waiting),
        }
    }

    fn send_own(&mut self, to: PeerId, kind: MessageKind, body: MessageBody) {
        let Self { identity, outbox, .. } = self;
        outbox.push(PeerMessage { group: identity.group, from: identity.peer, to, kind, body });
    }

    /// A majority has answered these rounds.
    pub(super) fn rounds_are_confirmed(&mut self, states: Vec<ReadState>) {
        for state in states {
            let context = ReadContext::from_bytes(&state.request_ctx);
            let place = self.reads.rounds.iter().position(|round| Some(round.context) == context);
            // Confirmed, and given up before it was told: its reads wait for another round.
            let Some(place) = place else { continue };
            assert_eq!(place, 0, "the library confirms rounds in their order");
            let round = self.reads.rounds.pop_front().expect("found above");
            let index = Index(state.index);
            assert!(index >= round.commit, "a round that started at {:?} is granted {index:?}", round.commit);
            self.extend_lease(round.started_us);
            for waiter in round.waiters {
                if let Some((peer, context)) = self.reads.confirm(waiter, index) {
                    self.answer(peer, context, Some(index));
                }
            }
        }
    }

    fn answer(&mut self, peer: PeerId, context: ReadContext, index: Option<Index>) {
        self.reads.pending -= usize::from(index.is_some());
        self.send_own(peer, MessageKind::ReadReply, MessageBody::ReadReply(context, index));
    }

    /// A follower asks.
    pub(super) fn read_is_asked(&mut self, peer: PeerId, context: ReadContext) {
        let full = self.reads.pending >= self.settings.pending_reads_max;
        if !self.is_leader() || full || !self.membership.contains(peer) {
            self.send_own(peer, MessageKind::ReadReply, MessageBody::ReadReply(context, None));
            return;
        }
        self.reads.pending += 1;
        self.reads.waiting.push(Waiter::Remote { peer, context });
    }

    /// The leader answers. Nobody else was asked: what is asked is forgotten when the leader changes.
    pub(super) fn read_is_answered(
        &mut self,
        from: PeerId,
        context: ReadContext,
        index: Option<Index>,
    ) -> Result<(), Dropped> {
        if self.leader() != Some(from) {
            return Err(Dropped::Stale);
        }
        let place = self.reads.asked.iter().position(|round| round.context == context);
        let Some(round) = place.and_then(|place| self.reads.asked.remove(place)) else { return Err(Dropped::Stale) };
        match index {
            Some(index) => self.confirm_own(round.waiters, index),
            None => {
                self.reads.waiting.extend(round.waiters);
                self.reads.ask_at_tick = self.ticks + 1;
            }
        }
        Ok(())
    }

    /// Term, role or leader changed: what was under way proves nothing any more. Reads of this replica wait for
    /// another round; followers ask again by themselves.
    pub(super) fn reads_lose_their_leader(&mut self) {
        let rounds = std::mem::take(&mut self.reads.rounds).into_iter();
        let asked = std::mem::take(&mut self.reads.asked).into_iter();
        let mut waiters: Vec<Waiter> = rounds.chain(asked).flat_map(|round| round.waiters).collect();
        waiters.append(&mut self.reads.waiting);
        for waiter in waiters {
            match waiter {
                Waiter::Local { .. } => self.reads.waiting.push(waiter),
                Waiter::Remote { peer, context } => {
                    self.reads.pending -= 1;
                    self.answer(peer, context, None);
                }
            }
        }
        self.reads.lease_until_us = 0;
        self.reads.ask_at_tick = 0;
    }

    /// Reads that waited too long fail; questions that got no answer are asked again.
    pub(super) fn expire_reads(&mut self) {
        let patience = self.settings.heartbeat_ticks as u64 * 2;
        while self.reads.asked.front().is_some_and(|round| round.started_tick + patience <= self.ticks) {
            let round = self.reads.asked.pop_front().expect("looked at above");
            self.reads.waiting.extend(round.waiters);
        }
        let ticks = self.ticks;
        let Reads { waiting, rounds, asked, confirmed, failed, .. } = &mut self.reads;
        let mut keep = |waiter: &Waiter| match waiter {
            Waiter::Local { id, deadline } if *deadline <= ticks => {
                failed.push(*id);
                false
            }
            // A follower gives up by itself.
            _ => true,
        };
        waiting.retain(&mut keep);
        rounds.iter_mut().chain(asked.iter_mut()).for_each(|round| round.waiters.retain(&mut keep));
        confirmed.retain(|_, reads| {
            reads.retain(|(id, deadline)| keep(&Waiter::Local { id: *id, deadline: *deadline }));
            !reads.is_empty()
        });
    }

    /// Grants what is applied.
    pub(super) fn give_reads(&mut self, out: &mut Output) {
        let group = self.identity.group;
        let before = self.settings.plants(PlantedBug::GrantBeforeApply);
        let applied = if before { Index::MAX } else { self.last_applied() };
        while self.reads.confirmed.first_key_value().is_some_and(|(index, _)| *index <= applied) {
            let (index, reads) = self.reads.confirmed.pop_first().expect("looked at above");
            self.reads.pending -= reads.len();
            out.reads.extend(reads.into_iter().map(|(id, _)| ReadOutcome { group, id, result: Ok(index) }));
        }
        self.reads.pending -= self.reads.failed.len();
        let failed = self.reads.failed.drain(..);
        out.reads.extend(failed.map(|id| ReadOutcome { group, id, result: Err(ReadFailure::TimedOut) }));
    }

    /// Whether this leader may answer without asking.
    fn lease_holds(&self) -> bool {
        self.settings.lease.is_some()
            && self.is_leader()
            && self.raw.raft.commit_to_current_term()
            && self.now_us < self.reads.lease_until_us
    }

    /// A majority has answered a round that was sent at `started_us`.
    fn extend_lease(&mut self, started_us: u64) {
        let Some(LeaseSettings { max_drift_ppm, margin_us }) = self.settings.lease else { return };
        let kept = self.settings.plants(PlantedBug::LeaseKeptInTransfer);
        if self.raw.raft.state != StateRole::Leader
            || (self.reads.lease_banned_term == self.raw.raft.term && !kept)
            || self.raw.raft.prs().is_singleton()
        {
            return;
        }
        // A follower's first tick may come at once: one less than the election timeout is sure to pass.
        let span = (self.settings.election_ticks as u64 - 1) * self.settings.tick_interval_us;
        let drift = span * u64::from(max_drift_ppm) / 1_000_000;
        let until = (started_us + span).saturating_sub(drift + margin_us);
        self.reads.lease_until_us = self.reads.lease_until_us.max(until);
    }

    /// Leadership may go elsewhere before the lease is over: an order to start an election may come late, and it is
    /// obeyed whatever was promised.
    pub(super) fn ban_lease(&mut self) {
        self.reads.lease_banned_term = self.raw.raft.term;
        if !self.settings.plants(PlantedBug::LeaseKeptInTransfer) {
            self.reads.lease_until_us = 0;
        }
    }

    /// The majority that gave the lease may be none any more.
    pub(super) fn end_lease(&mut self) {
        self.reads.lease_until_us = 0;
    }
}
