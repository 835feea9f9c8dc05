//! Snapshots in both directions, and compaction.
//!
//! Place in the flow: beside step 7. Only the description of a snapshot travels here; its data is fetched by other
//! ways, and is complete before the library hears of it.
//!
//! ```text
//! leader      wanted ► the caller cuts one ► built ► offered with a message ► streamed ► sent, well or not
//! follower    offered ► the caller fetches the data ► staged ► record + install ► persisted ► installed
//! ```
//!
//! Invariants:
//! - From the moment a snapshot is staged until it is installed there is no tick, and neither another snapshot nor an
//!   order to start an election is taken: the log has no entries then that an election would look at.
//! - The log is never compacted above the newest durable snapshot, nor above what is applied.

use std::collections::BTreeMap;

use raft::eraftpb::{Message, Snapshot};
use raft::SnapshotStatus;

use super::{Dropped, Group};
use crate::output::Event;
use crate::{EntryPosition, Index, Membership, PeerId, PeerMessage, PlantedBug, SnapshotId, SnapshotMeta, Term};

/// Why a staged snapshot was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No snapshot of this id is offered any more; its data can be thrown away.
    #[error("no such snapshot is offered; throw its data away")]
    NotOffered,
    /// Another one is being installed.
    #[error("another snapshot is being installed; throw this one away")]
    Installing,
}

/// What is to be done with staged data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    /// Keep it: the next poll orders it to be installed.
    Install,
    /// Throw it away: the log has caught up meanwhile, or the leader is one no more.
    NotNeeded,
}

pub(super) struct Snapshots {
    /// The newest snapshot from which this replica could start again.
    durable: Index,
    /// What a leader offers: its message, kept until the data is here.
    offered: Option<(SnapshotMeta, Message)>,
    /// The snapshot that is about to take the place of the state.
    installing: Option<SnapshotMeta>,
    /// Snapshots on their way to followers, and the tick at which they count as lost.
    streams: BTreeMap<PeerId, u64>,
    /// The last want that the caller was told of, and when.
    told: Option<(PeerId, Index, u64)>,
}

impl Snapshots {
    pub(super) fn new(durable: Index) -> Self {
        Self { durable, offered: None, installing: None, streams: BTreeMap::new(), told: None }
    }

    pub(super) fn forget_streams(&mut self) {
        self.streams.clear();
    }
}

impl Group {
    /// Whether a snapshot is staged and not yet installed.
    pub fn is_installing(&self) -> bool {
        self.snapshots.installing.is_some() || self.raw.snap().is_some()
    }

    /// Where a snapshot stands that is cut now, while nothing is applied: at the applied index. `id` is the caller's
    /// name for its data.
    pub fn snapshot_point(&self, id: SnapshotId) -> SnapshotMeta {
        let index = self.last_applied();
        let term = self.raw.raft.raft_log.term(index.0).expect("the log keeps the term of what is applied");
        let stale = self.settings.plants(PlantedBug::StaleSnapshotMembership);
        let mut membership = if stale { &self.first_membership } else { &self.membership }.clone();
        membership.auto_leave &= !self.settings.plants(PlantedBug::AutoLeaveNotInSnapshot);
        SnapshotMeta { position: EntryPosition { term: Term(term), index }, membership, id }
    }

    /// A snapshot is durable on this replica: it may start again from it, offer it to others, and do without the log
    /// below it. An older one than is known changes nothing.
    pub fn snapshot_built(&mut self, meta: SnapshotMeta) {
        let index = meta.position.index;
        assert!(index <= self.last_applied(), "snapshot at {index:?}, and {:?} is applied", self.last_applied());
        let known = self.raw.store().offered().map_or(Index(0), |offered| offered.position.index);
        self.snapshots.durable = self.snapshots.durable.max(index);
        if index >= known && index >= self.raw.store().floor().index && !self.is_installing() {
            self.raw.mut_store().offer(meta);
        }
    }

    /// What a peer was offered has arrived, or will not. To be said in every case: until then it gets nothing else.
    pub fn snapshot_sent(&mut self, to: PeerId, arrived: bool) {
        if self.snapshots.streams.remove(&to).is_some() {
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raw.report_snapshot(to.0, status);
            self.look();
        }
    }

    /// A message that offers a snapshot is about to leave.
    pub(super) fn note_snapshot_stream(&mut self, message: &PeerMessage) {
        let Some(meta) = message.snapshot() else { return };
        let deadline = self.ticks + self.settings.snapshot_ticks_max;
        self.snapshots.streams.insert(message.to, deadline);
        self.events.push(Event::SnapshotStream { to: message.to, meta });
    }

    pub(super) fn expire_snapshot_streams(&mut self) {
        let late: Vec<PeerId> =
            self.snapshots.streams.iter().filter(|(_, deadline)| **deadline <= self.ticks).map(|(to, _)| *to).collect();
        late.into_iter().for_each(|to| self.snapshot_sent(to, false));
    }

    /// Tells the caller what a follower needs, once in an election timeout.
    pub(super) fn want_snapshot(&mut self) {
        let Some(wanted) = self.raw.store().take_wanted() else { return };
        let again = self.settings.election_ticks as u64;
        let told = self.snapshots.told;
        if told.is_some_and(|(peer, index, tick)| {
            (peer, index) == (wanted.peer, wanted.index) && self.ticks < tick + again
        }) {
            return;
        }
        self.snapshots.told = Some((wanted.peer, wanted.index, self.ticks));
        self.events.push(Event::SnapshotWanted { peer: wanted.peer, index: wanted.index });
    }

    /// A leader offers a snapshot. If the log has what it stands for, the library answers at once; else the message
    /// waits until the data is here.
    pub(super) fn snapshot_is_offered(&mut self, from: PeerId, message: Message) -> Result<(), Dropped> {
        let raft = &self.raw.raft;
        if message.term < raft.term {
            return Err(Dropped::Stale);
        }
        let meta = SnapshotMeta::from_raft(message.get_snapshot()).expect("checked on its way in");
        let EntryPosition { term, index } = meta.position;
        if index.0 <= raft.raft_log.committed || raft.raft_log.match_term(index.0, term.0) {
            return self.step(message);
        }
        let same =
            self.snapshots.offered.as_ref().is_some_and(|(known, old)| *known == meta && old.from == message.from);
        self.snapshots.offered = Some((meta.clone(), message));
        if self.settings.plants(PlantedBug::StagedBeforeComplete) {
            // The mistake stands for a stream that ends early and is taken for complete; where it is refused because
            // another snapshot is being installed, nothing is lost.
            let _ = self.snapshot_staged(meta.id);
        } else if !same {
            self.events.push(Event::SnapshotOffered { from, meta });
        }
        Ok(())
    }

    /// The data of an offered snapshot is complete, checked, and durable where it is staged.
    pub fn snapshot_staged(&mut self, id: SnapshotId) -> Result<Staged, SnapshotError> {
        if self.is_installing() {
            return Err(SnapshotError::Installing);
        }
        let offered = self.snapshots.offered.take_if(|(meta, _)| meta.id == id);
        let (_, message) = offered.ok_or(SnapshotError::NotOffered)?;
        // What was committed since then may contradict it, as it may have when it was offered.
        if self.check_snapshot(&message).is_err() {
            return Ok(Staged::NotNeeded);
        }
        // Only answers are refused, when their sender was removed; this is none.
        self.step(message).expect("the library takes a snapshot from anyone who leads");
        Ok(if self.raw.snap().is_some() { Staged::Install } else { Staged::NotNeeded })
    }

    /// The data of an offered snapshot could not be had. The leader will offer again.
    pub fn snapshot_refused(&mut self, id: SnapshotId) {
        self.snapshots.offered.take_if(|(meta, _)| meta.id == id);
    }

    /// The library has taken a snapshot, and the record that names it is about to be given out.
    pub(super) fn begin_install(&mut self, snapshot: &Snapshot) -> SnapshotMeta {
        let meta = SnapshotMeta::from_raft(snapshot).expect("checked on its way in");
        assert!(
            meta.position.index > self.given,
            "a snapshot at {:?}, and {:?} is given out",
            meta.position,
            self.given
        );
        self.given = meta.position.index;
        self.pending_changes.clear();
        self.snapshots.installing = Some(meta.clone());
        meta
    }

    /// The state was replaced, durably, by the snapshot that [`Install`](crate::Install) named; its record was
    /// persisted before.
    ///
    /// # Panics
    /// When no snapshot at `index` is being installed, or its record was not persisted.
    pub fn snapshot_installed(&mut self, index: Index) {
        let meta = self.snapshots.installing.take().filter(|meta| meta.position.index == index);
        let meta = meta.unwrap_or_else(|| panic!("no snapshot at {index:?} is being installed"));
        let persisted = self.raw.raft.raft_log.persisted;
        assert!(persisted >= index.0, "the record of the snapshot at {index:?} was not persisted");
        self.raw.advance_apply_to(index.0);
        self.snapshots.durable = self.snapshots.durable.max(index);
        self.set_membership(index, meta.membership);
        self.look();
    }

    /// The membership from `index` on.
    pub(super) fn set_membership(&mut self, index: Index, membership: Membership) {
        let before = std::mem::replace(&mut self.membership, membership.clone()).peers();
        self.forget_members(&before);
        self.unsaid_memberships.push_back((index, membership));
        self.say_memberships();
    }

    /// Tells of the memberships that this replica cannot forget any more: its commit index is durable up to there.
    pub(super) fn say_memberships(&mut self) {
        let durable = self.pipeline.durable_commit();
        let said = self.unsaid_memberships.iter().take_while(|(index, _)| *index <= durable).count();
        let said = self.unsaid_memberships.drain(..said);
        self.events.extend(said.map(|(index, membership)| Event::MembershipChanged { index, membership }));
    }

    /// Drops the log in memory up to `index`, or up to the newest durable snapshot if that is before it. Returns the
    /// last index that is gone.
    pub fn compact(&mut self, index: Index) -> Index {
        let above = self.settings.plants(PlantedBug::CompactionAboveSnapshot);
        let durable = if above { self.last_applied() } else { self.snapshots.durable };
        let floor = self.raw.store().floor().index;
        let allowed = index.min(durable).min(self.last_applied());
        if allowed > floor && !self.is_installing() {
            self.raw.mut_store().compact(allowed);
            return allowed;
        }
        floor
    }
}
