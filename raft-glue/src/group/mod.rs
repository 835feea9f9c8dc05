//! One replica of one group: the consensus library with everything around it that a replica must get right.
//!
//! Place in the flow: step 7. Inputs are method calls; after any of them the caller polls, and does what the [`Output`]
//! says. The order of calls inside follows what is known about version 0.7 of the library.
//!
//! | module | job |
//! |---|---|
//! | `storage` | the retained log, as the library reads it |
//! | `filter` | which messages are believed |
//! | `ready` | the call order: what is given out, what waits for the disk |
//! | `proposals` | entries of this replica, and what became of them |
//! | `reads` | rounds of reads, those of followers, the lease |
//! | `changes` | membership and transfers |
//! | `snapshots` | snapshots in both directions, compaction |
//!
//! Invariants, asserted always:
//! - `applied <= given out <= min(commit, persisted)`; entries are given out once and in order;
//! - what is given out to be persisted is numbered upwards, and waits in that order, at most
//!   [`Settings::outstanding_readies_max`] deep;
//! - term and commit index never decrease; the vote changes only with the term, once;
//! - no message leaves that speaks for a term or a vote that is not durable;
//! - a read is granted at an index that is at least the commit index of its round's start, and applied.
//!
//! Deliberately not here: clocks, disks, sockets, and many groups at once (`core`).

mod changes;
mod filter;
mod proposals;
mod reads;
mod ready;
mod snapshots;
mod storage;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::ConfChangeV2;
use raft::{Config, RawNode, StateRole, INVALID_ID};

pub use self::changes::{MembershipError, TransferError};
pub use self::filter::Dropped;
pub use self::proposals::ProposeError;
pub use self::reads::{ReadError, ReadKind};
pub use self::snapshots::{SnapshotError, Staged};

use self::proposals::Proposals;
use self::reads::Reads;
use self::ready::Pipeline;
use self::snapshots::Snapshots;
use self::storage::MemLog;
use crate::output::{Apply, Event, Role};
use crate::prng::mix;
use crate::trace_hook::{self, TraceHook};
use crate::{
    HardState, Identity, Index, Membership, PeerId, PeerMessage, PersistRecord, PlantedBug, Recovered, RecoveryError,
    Settings, Term,
};

/// Former members whose messages are still dropped: more than leave within the time that a message can be late.
const FORMER_PEERS_MAX: usize = 64;

/// What was last told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    term: u64,
    role: StateRole,
    leader: u64,
}

/// One replica of one group.
pub struct Group {
    identity: Identity,
    settings: Settings,
    raw: RawNode<MemLog>,
    /// Ticks since this life began.
    ticks: u64,
    /// The newest time that anyone told.
    now_us: u64,
    /// Until this tick a lease may rest on this replica; counts where leases are given.
    promised_until_tick: u64,
    seen: Seen,
    pipeline: Pipeline,
    /// The last entry that was given out to be applied.
    given: Index,
    /// Changes of membership that were given out and are not applied.
    pending_changes: VecDeque<(Index, ConfChangeV2)>,
    /// As of the applied index.
    membership: Membership,
    /// As of the start of this life.
    first_membership: Membership,
    /// In effect, and not durable yet: a change has to be both before the next is proposed.
    unsaid_memberships: VecDeque<(Index, Membership)>,
    former_peers: VecDeque<PeerId>,
    transferring: Option<PeerId>,
    proposals: Proposals,
    reads: Reads,
    snapshots: Snapshots,
    /// Committed, and not given out while a snapshot is installed below it. The payloads are those of the log in
    /// memory, which has all of these entries anyway.
    held_back: Vec<Apply>,
    outbox: Vec<PeerMessage>,
    events: Vec<Event>,
}

impl Group {
    /// A replica that goes on from `recovered`.
    pub fn new(identity: Identity, settings: Settings, recovered: Recovered) -> Result<Self, RecoveryError> {
        Self::with_trace(identity, settings, recovered, None)
    }

    /// The same, with somebody who listens to what the consensus library says about itself.
    pub fn with_trace(
        identity: Identity,
        settings: Settings,
        mut recovered: Recovered,
        hook: Option<Arc<dyn TraceHook>>,
    ) -> Result<Self, RecoveryError> {
        settings.check().map_err(RecoveryError::Settings)?;
        recovered.check(settings.plants(PlantedBug::CommitBelowSnapshot))?;
        let config = library_config(identity, &settings, recovered.applied);
        config.validate().map_err(|error| RecoveryError::Settings(error.to_string()))?;
        let last = recovered.last().index;
        let Recovered { hard_state, snapshot, entries, applied, membership } = recovered;
        let library_entries = entries.iter().map(crate::LogEntry::to_raft).collect();
        let log = MemLog::new(snapshot.position, library_entries, hard_state.to_raft(), membership.to_raft());
        let raw = RawNode::new(&config, log, &trace_hook::logger(hook))
            .map_err(|error| RecoveryError::Settings(error.to_string()))?;
        let role = raw.raft.state;
        let forgets = settings.plants(PlantedBug::NoVoteGuardAfterBoot);
        let mut group = Self {
            identity,
            raw,
            ticks: 0,
            now_us: 0,
            // Before it was restarted, it may have supported one.
            promised_until_tick: if forgets { 0 } else { settings.election_ticks as u64 },
            seen: Seen { term: hard_state.term.0, role, leader: INVALID_ID },
            pipeline: Pipeline::new(hard_state, last),
            given: applied,
            pending_changes: VecDeque::new(),
            first_membership: membership.clone(),
            membership,
            unsaid_memberships: VecDeque::new(),
            former_peers: VecDeque::new(),
            transferring: None,
            proposals: Proposals::default(),
            reads: Reads::new(identity.incarnation),
            snapshots: Snapshots::new(snapshot.position.index),
            held_back: Vec::new(),
            outbox: Vec::new(),
            events: Vec::new(),
            settings,
        };
        group.look();
        Ok(group)
    }

    /// A tick has passed. `now_us` is a monotonic clock of this node that goes on while the machine sleeps; it counts
    /// for leases alone, and a replica that is ticked late never catches up more ticks than time has passed.
    pub fn tick(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        self.ticks += 1;
        self.expire_proposals();
        self.expire_reads();
        self.expire_snapshot_streams();
        if self.is_installing() && !self.settings.plants(PlantedBug::NoInstallGate) {
            return;
        }
        if self.sole_voter_must_wait() {
            return;
        }
        self.raw.tick();
        self.look();
        self.leave_joint_membership();
    }

    /// Starts an election at once, if this replica may lead, and no lease may rest on it.
    pub fn campaign(&mut self) {
        // The library would let a replica campaign that does not vote, and panic when it wins.
        let may_lead = self.raw.raft.promotable() && !self.is_installing() && !self.sole_voter_must_wait();
        if may_lead && !self.supports_lease() {
            self.raw.campaign().expect("a replica takes its own order to start an election");
            self.look();
        }
    }

    /// Whether a lease may rest on this replica: it answered a leader less than an election timeout ago, or may have
    /// before it was restarted. What the library keeps of that, it forgets when it hears of a later term.
    fn supports_lease(&self) -> bool {
        self.settings.lease.is_some() && self.ticks < self.promised_until_tick
    }

    /// A message to `peer` was lost on the way out, or the connection to it broke.
    pub fn unreachable(&mut self, peer: PeerId) {
        self.raw.report_unreachable(peer.0);
        self.look();
    }

    /// To be called after everything that the library was told: sets what it left to chance, and notices what changed.
    fn look(&mut self) {
        self.set_election_timeout();
        let raft = &self.raw.raft;
        let now = Seen { term: raft.term, role: raft.state, leader: raft.leader_id };
        let before = self.seen;
        assert!(now.term >= before.term, "the term went from {} to {}", before.term, now.term);
        if now == before {
            self.notice_transfer();
            return;
        }
        self.seen = now;
        if (now.term, now.role) != (before.term, before.role) {
            self.events.push(Event::RoleChanged { role: role_of(now.role), term: Term(now.term) });
        }
        if (now.term, now.leader) != (before.term, before.leader) {
            let leader = (now.leader != INVALID_ID).then_some(PeerId(now.leader));
            self.events.push(Event::LeaderKnown { leader, term: Term(now.term) });
        }
        if now != before {
            self.reads_lose_their_leader();
        }
        if now.role != StateRole::Leader || now.term != before.term {
            self.snapshots.forget_streams();
        }
        self.notice_transfer();
    }

    /// The library draws election timeouts from the thread's own dice whenever it likes. Here they follow from who
    /// this is and which term it is, so that it does not matter how often they are set.
    fn set_election_timeout(&mut self) {
        let Identity { group, peer, incarnation, seed } = self.identity;
        let span = self.settings.election_ticks as u64;
        let chosen = mix(&[seed, u64::from(group.0), peer.0, incarnation, self.raw.raft.term]) % span + span;
        if self.raw.raft.randomized_election_timeout() != chosen as usize {
            self.raw.raft.set_randomized_election_timeout(chosen as usize);
        }
    }

    /// A replica that alone decides would be elected in the same step, and the library then demands that its log is on
    /// disk to the last entry.
    fn sole_voter_must_wait(&self) -> bool {
        self.raw.raft.state != StateRole::Leader && self.is_sole_voter() && !self.all_on_disk()
    }

    fn is_sole_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters().ids();
        voters.contains(self.identity.peer.0) && voters.iter().all(|voter| voter == self.identity.peer.0)
    }

    /// Whether the caller has said that the whole log is durable.
    fn all_on_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        self.pipeline.is_empty() && log.persisted == log.last_index()
    }

    /// Whether term and vote as the library has them are durable.
    fn vote_is_on_disk(&self) -> bool {
        let HardState { term, vote, .. } = self.hard_state();
        self.pipeline.holds_vote(term, vote)
    }

    /// Who this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The part it plays.
    pub fn role(&self) -> Role {
        role_of(self.raw.raft.state)
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The newest term it has seen.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Whom it follows.
    pub fn leader(&self) -> Option<PeerId> {
        (self.raw.raft.leader_id != INVALID_ID).then_some(PeerId(self.raw.raft.leader_id))
    }

    /// Up to where it knows the log to be committed.
    pub fn commit(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// Up to where the caller has applied.
    pub fn last_applied(&self) -> Index {
        Index(self.raw.raft.raft_log.applied)
    }

    /// The last entry of the log, durable or not.
    pub fn last(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The first entry that the log still has in memory.
    pub fn first(&self) -> Index {
        Index(self.raw.store().floor().index.0 + 1)
    }

    /// Payload bytes of the log in memory.
    pub fn log_bytes(&self) -> usize {
        self.raw.store().byte_length()
    }

    pub(crate) fn log_term(&self, index: Index) -> Option<Term> {
        let is_kept = index >= self.raw.store().floor().index && index <= self.last();
        is_kept.then(|| self.raw.raft.raft_log.term(index.0).ok()).flatten().map(Term)
    }

    /// Who belongs to the group, as of the applied index.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Term, vote and commit index as they are now, durable or not.
    pub fn hard_state(&self) -> HardState {
        HardState::from_raft(&self.raw.raft.hard_state())
    }

    /// What a log that drops its old records must keep of this group beside its entries and its snapshot: the hard
    /// state as last given out.
    pub fn checkpoint(&self) -> PersistRecord {
        self.pipeline.checkpoint(self.identity.group)
    }

    /// How far a member has the leader's log; `None` unless this replica leads and knows the member.
    pub fn matched(&self, peer: PeerId) -> Option<Index> {
        let progress = self.raw.raft.prs().get(peer.0)?;
        self.is_leader().then_some(Index(progress.matched))
    }
}

fn role_of(role: StateRole) -> Role {
    match role {
        StateRole::Follower => Role::Follower,
        StateRole::PreCandidate => Role::PreCandidate,
        StateRole::Candidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}

/// What the library is run with. Each choice is one of the guards that this crate is for.
fn library_config(identity: Identity, settings: &Settings, applied: Index) -> Config {
    Config {
        id: identity.peer.0,
        election_tick: settings.election_ticks,
        heartbeat_tick: settings.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: settings.append_bytes_max,
        max_inflight_msgs: settings.appends_in_flight_max,
        // A leader without a majority steps down, and a replica that was cut off does not disturb the others.
        check_quorum: true,
        pre_vote: true,
        // The library's own leases answer stale reads.
        read_only_option: raft::ReadOnlyOption::Safe,
        skip_bcast_commit: settings.skip_commit_broadcast,
        // Merging appends would ignore their size limit.
        batch_append: false,
        max_uncommitted_size: settings.uncommitted_bytes_max,
        max_committed_size_per_ready: settings.apply_bytes_max,
        ..Config::default()
    }
}
