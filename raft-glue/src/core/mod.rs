//! Many groups of one core: one batch of the log and one frame for each node, each turn.
//!
//! Place in the flow: steps 6 and 7. The server's loop gives it ticks, frames and commands, and gets back what one turn
//! has for the disk, for other nodes, and for the state machines.
//!
//! ```text
//! frames, ticks, proposals, reads ► groups, those with work are marked
//! turn      each marked group is polled in its turn ► one batch, frames, entries to apply, answers
//! synced    the batch is on disk ► its groups let go of what waited for it
//! ```
//!
//! Invariants:
//! - Records stand in a batch in the order in which groups gave them out; batches are numbered upwards, and synced in
//!   that order.
//! - A turn polls a bounded number of times, group after group, so that no group starves another.
//! - Nothing depends on the order of a hash map: groups and nodes are kept in order of their ids.
//!
//! Deliberately not here: when a turn is, and what a disk or a connection is.

mod envelope;
mod lanes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

pub use self::envelope::{envelope_length, ENVELOPE_BYTES_MAX, ENVELOPE_HEADER_BYTES, ENVELOPE_ITEMS_MAX};
pub use self::lanes::{Frame, CONTROL_BYTES_MAX};

use self::envelope::{open, EnvelopeKind, EnvelopeWriter};
use self::lanes::Lanes;
use crate::{
    Apply, DecodeError, Event, Group, GroupId, Install, NodeId, Output, PeerId, PeerMessage, PersistRecord,
    ProposalOutcome, ReadOutcome, ReadyNumber,
};

/// Bytes that wait for one node: what a fast network carries in some milliseconds.
pub const NODE_BYTES_MAX_DEFAULT: usize = 16 * 1024 * 1024;

/// Polls in one turn: some for each of a thousand groups, and an end to the turn when all are busy.
pub const POLLS_PER_TURN_MAX_DEFAULT: usize = 4096;

/// A batch is closed when it has so many bytes: the largest record fits beside it.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a core is run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreSettings {
    /// This node.
    pub node: NodeId,
    /// Bytes of data messages that wait for one node.
    pub node_bytes_max: usize,
    /// Polls in one turn.
    pub polls_per_turn_max: usize,
}

impl CoreSettings {
    /// The usual bounds.
    pub fn new(node: NodeId) -> Self {
        Self { node, node_bytes_max: NODE_BYTES_MAX_DEFAULT, polls_per_turn_max: POLLS_PER_TURN_MAX_DEFAULT }
    }
}

/// Counts the batches of a core, from 1 in each life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchNumber(pub u64);

/// What is to be written in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Which one.
    pub number: BatchNumber,
    /// Whether anyone waits for it. If not, it may be written with the next.
    pub must_sync: bool,
    /// How many records.
    pub records: usize,
    /// All of it, ready to be written.
    pub bytes: Vec<u8>,
}

/// What one turn gives out. The lists are as in [`Output`].
#[derive(Debug, Default)]
pub struct Turn {
    /// For the disk.
    pub batch: Option<LogBatch>,
    /// For other nodes, at once.
    pub frames: Vec<Frame>,
    /// State that snapshots replace.
    pub install: Vec<Install>,
    /// For the state machines.
    pub apply: Vec<Apply>,
    /// Reads that may be answered, or failed.
    pub reads: Vec<ReadOutcome>,
    /// What became of proposals.
    pub proposals: Vec<ProposalOutcome>,
    /// Anything else.
    pub events: Vec<(GroupId, Event)>,
}

impl Turn {
    /// Empties everything and keeps the memory.
    pub fn clear(&mut self) {
        self.batch = None;
        self.frames.clear();
        self.install.clear();
        self.apply.clear();
        self.reads.clear();
        self.proposals.clear();
        self.events.clear();
    }

    /// Whether nothing was given out.
    pub fn is_empty(&self) -> bool {
        self.batch.is_none()
            && self.frames.is_empty()
            && self.install.is_empty()
            && self.apply.is_empty()
            && self.reads.is_empty()
            && self.proposals.is_empty()
            && self.events.is_empty()
    }
}

/// What became of the messages of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameReport {
    /// From whom it came.
    pub node: NodeId,
    /// Messages that were taken.
    pub taken: usize,
    /// Messages that their group refused, or whose group is not here.
    pub dropped: usize,
}

struct Slot {
    group: Group,
    marked: bool,
}

/// The groups of one core.
pub struct Core {
    settings: CoreSettings,
    groups: BTreeMap<GroupId, Slot>,
    marked: VecDeque<GroupId>,
    routes: BTreeMap<(GroupId, PeerId), NodeId>,
    lanes: Lanes,
    last_batch: u64,
    /// What each batch that is not synced holds, of each group the newest.
    unsynced: VecDeque<(BatchNumber, Vec<(GroupId, ReadyNumber)>)>,
    output: Output,
}

impl Core {
    /// A core without groups.
    pub fn new(settings: CoreSettings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            marked: VecDeque::new(),
            routes: BTreeMap::new(),
            lanes: Lanes::default(),
            last_batch: 0,
            unsynced: VecDeque::new(),
            output: Output::default(),
        }
    }

    /// Takes a group in.
    ///
    /// # Panics
    /// When a group of that id is here already.
    pub fn add(&mut self, group: Group) {
        let id = group.identity().group;
        let before = self.groups.insert(id, Slot { group, marked: false });
        assert!(before.is_none(), "{id:?} is here already");
        self.mark(id);
    }

    /// Gives a group away. What it had given out to be persisted is not told to it any more, and the proposals and
    /// reads that wait in it are told nothing more, unless it is polled on.
    pub fn remove(&mut self, id: GroupId) -> Option<Group> {
        self.routes.retain(|(group, _), _| *group != id);
        // Another replica of the group may come in its place, which counts its records from the start.
        self.unsynced.iter_mut().for_each(|(_, numbers)| numbers.retain(|(group, _)| *group != id));
        self.groups.remove(&id).map(|slot| slot.group)
    }

    /// Where a replica lives. Messages to a replica without a route are dropped.
    pub fn route(&mut self, group: GroupId, peer: PeerId, node: NodeId) {
        self.routes.insert((group, peer), node);
    }

    /// A replica lives nowhere any more.
    pub fn unroute(&mut self, group: GroupId, peer: PeerId) {
        self.routes.remove(&(group, peer));
    }

    /// The group, to look at.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id).map(|slot| &slot.group)
    }

    /// The groups, in order of their ids.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(|slot| &slot.group)
    }

    /// Does something with a group; whatever comes of it is in a later turn.
    pub fn with<T>(&mut self, id: GroupId, work: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let slot = self.groups.get_mut(&id)?;
        let done = work(&mut slot.group);
        if slot.group.has_work() {
            self.mark(id);
        }
        Some(done)
    }

    fn mark(&mut self, id: GroupId) {
        if let Some(slot) = self.groups.get_mut(&id).filter(|slot| !slot.marked) {
            slot.marked = true;
            self.marked.push_back(id);
        }
    }

    /// A tick for every group; see [`Group::tick`].
    pub fn tick(&mut self, now_us: u64) {
        for (id, slot) in &mut self.groups {
            slot.group.tick(now_us);
            if slot.group.has_work() && !slot.marked {
                slot.marked = true;
                self.marked.push_back(*id);
            }
        }
    }

    /// A frame from another node, which is all of `bytes`. Either all of its messages are read or none is believed.
    pub fn receive(&mut self, bytes: &Bytes) -> Result<FrameReport, DecodeError> {
        let (node, messages) = decode_frame(bytes)?;
        let mut report = FrameReport { node, ..FrameReport::default() };
        for message in messages {
            let taken = self.with(message.group(), |group| group.receive(message).is_ok());
            match taken {
                Some(true) => report.taken += 1,
                Some(false) | None => report.dropped += 1,
            }
        }
        Ok(report)
    }

    /// Polls groups that have work, and appends what comes of it to `turn`. True when groups are left that have more.
    pub fn turn(&mut self, turn: &mut Turn) -> bool {
        // Whatever a turn gives out, groups with work gave it out in that turn: there is nothing without them.
        if self.marked.is_empty() {
            return false;
        }
        let mut batch = EnvelopeWriter::new(EnvelopeKind::Batch, self.last_batch + 1);
        let mut numbers: Vec<(GroupId, ReadyNumber)> = Vec::new();
        let mut must_sync = false;
        for _ in 0..self.settings.polls_per_turn_max {
            if batch.byte_length() >= BATCH_BYTES_MAX {
                break;
            }
            let Some(id) = self.marked.pop_front() else { break };
            let Some(slot) = self.groups.get_mut(&id) else { continue };
            slot.marked = false;
            let more = slot.group.poll(&mut self.output);
            for record in self.output.persist.drain(..) {
                must_sync |= record.must_sync;
                batch.push(|out| record.encode(out));
                match numbers.last_mut().filter(|(last, _)| *last == id) {
                    Some((_, number)) => *number = record.number,
                    None => numbers.push((id, record.number)),
                }
            }
            if more {
                self.mark(id);
            }
            self.send();
        }
        self.finish_batch(batch, numbers, must_sync, turn);
        self.give_out(turn);
        !self.marked.is_empty()
    }

    fn send(&mut self) {
        for message in self.output.send.drain(..) {
            if let Some(node) = self.routes.get(&(message.group(), message.to())) {
                self.lanes.push(*node, message, self.settings.node_bytes_max);
            }
        }
    }

    fn finish_batch(
        &mut self,
        batch: EnvelopeWriter,
        numbers: Vec<(GroupId, ReadyNumber)>,
        must_sync: bool,
        turn: &mut Turn,
    ) {
        assert!(turn.batch.is_none() || batch.count() == 0, "the batch of the last turn was not taken");
        if batch.count() > 0 {
            self.last_batch += 1;
            let number = BatchNumber(self.last_batch);
            self.unsynced.push_back((number, numbers));
            turn.batch = Some(LogBatch { number, must_sync, records: batch.count(), bytes: batch.finish() });
        }
    }

    fn give_out(&mut self, turn: &mut Turn) {
        let Output { install, apply, reads, proposals, events, .. } = &mut self.output;
        turn.install.append(install);
        turn.apply.append(apply);
        turn.reads.append(reads);
        turn.proposals.append(proposals);
        turn.events.append(events);
        self.lanes.frames(self.settings.node, &mut turn.frames);
        let (dropped, snapshots) = self.lanes.take_dropped();
        for (group, peer) in dropped {
            self.with(group, |group| group.unreachable(peer));
        }
        for (group, peer) in snapshots {
            self.with(group, |group| group.snapshot_sent(peer, false));
        }
    }

    /// This batch, and all before it, are durable.
    ///
    /// # Panics
    /// When the batch was never given out.
    pub fn synced(&mut self, number: BatchNumber) {
        assert!(number.0 <= self.last_batch, "{number:?} was never given out");
        while self.unsynced.front().is_some_and(|(first, _)| *first <= number) {
            let (_, numbers) = self.unsynced.pop_front().expect("looked at above");
            for (group, ready) in numbers {
                self.with(group, |group| group.persisted(ready));
            }
        }
    }

    /// So many bytes of frames for `node` have left this process.
    ///
    /// # Panics
    /// When more are said to have left than were given out.
    pub fn sent(&mut self, node: NodeId, bytes: usize) {
        self.lanes.sent(node, bytes);
    }

    /// The connection to `node` is gone, and every frame that was not sent with it.
    pub fn disconnected(&mut self, node: NodeId) {
        self.lanes.disconnected(node);
        let there: Vec<(GroupId, PeerId)> =
            self.routes.iter().filter(|(_, at)| **at == node).map(|(replica, _)| *replica).collect();
        for (group, peer) in there {
            self.with(group, |group| {
                group.unreachable(peer);
                group.snapshot_sent(peer, false);
            });
        }
    }
}

/// Reads a frame, which is all of `bytes`: who sent it, and its messages. Payloads that are small beside the frame are
/// copied out of it, so that an entry that stays does not keep the whole frame.
pub fn decode_frame(bytes: &Bytes) -> Result<(NodeId, Vec<PeerMessage>), DecodeError> {
    let (node, items) = open(EnvelopeKind::Frame, bytes)?;
    let messages = items.map(|item| {
        let mut message = PeerMessage::decode(&item?)?;
        message.detach(bytes.len());
        Ok(message)
    });
    Ok((NodeId(node), messages.collect::<Result<_, DecodeError>>()?))
}

/// Reads a batch of the log, which is all of `bytes`: its number, and its records in their order.
pub fn decode_batch(bytes: &Bytes) -> Result<(BatchNumber, Vec<PersistRecord>), DecodeError> {
    let (number, items) = open(EnvelopeKind::Batch, bytes)?;
    let records = items.map(|item| PersistRecord::decode(&item?));
    Ok((BatchNumber(number), records.collect::<Result<_, DecodeError>>()?))
}
