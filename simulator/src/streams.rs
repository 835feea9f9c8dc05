//! Snapshots: written beside the running node, streamed to who needs them, staged, installed.
//!
//! Place in the flow: `turn.rs` comes here when a group wants, offers or installs one.
//!
//! ```text
//! apply far enough, or a group asks ► Built ► the group may offer it, the log is cut
//! the group offers ► Chunk, Chunk, … ► Staged at the receiver, StreamEnded at the sender
//!                    └ a cut link, an ended process, a fault: StreamEnded with failure, and the receiver looks
//!                      at what has come: FetchFailed
//! ```
//!
//! Invariants:
//! - A snapshot is durable before any group hears of it; a stream that breaks leaves nothing behind.
//! - The sender is told in every case, unless its own process has ended.

use std::rc::Rc;

use eyot_raft_glue::{GroupId, Index, PeerId, SnapshotId, SnapshotMeta, Staged};

use crate::clock::{Time, MILLISECOND, SECOND};
use crate::counts::Count;
use crate::disk::Snapshot;
use crate::machine::{boundary_before, Machine};
use crate::network::Place;
use crate::node::Node;
use crate::truth::{Applied, Check};
use crate::world::{Event, World};

/// A snapshot on its way.
#[derive(Debug)]
pub struct Stream {
    from: (Place, u64),
    to: (Place, u64),
    peer: PeerId,
    snapshot: Rc<Snapshot>,
    /// All of it, as the sender sends it.
    bytes: Vec<u8>,
    /// How much of it has arrived.
    arrived: usize,
    chunk_bytes: usize,
    chunk_takes: Time,
}

impl World {
    /// Begins to write a snapshot of what is applied, unless one is being written.
    pub(crate) fn build_snapshot(&mut self, place: Place, group: u32) {
        let node = &mut self.nodes[place as usize];
        let incarnation = node.incarnation;
        let Node { core, process, .. } = node;
        let (replica, consensus) = (&mut process[group as usize], core.group(GroupId(group)).expect("it runs"));
        if replica.is_building || replica.installing.is_some() || consensus.is_installing() {
            return;
        }
        if consensus.last_applied() != replica.machine.applied() {
            return;
        }
        self.next_snapshot += 1;
        let meta = consensus.snapshot_point(SnapshotId(self.next_snapshot));
        replica.is_building = true;
        replica.newest_built = meta.position.index;
        let snapshot = Rc::new(Snapshot { meta, machine: replica.machine.clone() });
        let takes = self.write_takes(place) + self.disk_dice.below(50 * MILLISECOND);
        self.clock.after(takes, Event::Built { place, incarnation, snapshot });
    }

    /// A snapshot is durable: the log below it is needed for slow followers alone.
    pub(crate) fn built(&mut self, place: Place, incarnation: u64, snapshot: &Rc<Snapshot>) {
        if !self.awake(place, incarnation, || Event::Built { place, incarnation, snapshot: Rc::clone(snapshot) }) {
            return;
        }
        let group = snapshot.machine.group();
        let index = snapshot.meta.position.index;
        self.counts.one(Count::SnapshotsBuilt);
        self.trace.note(self.clock.now(), 10, [u64::from(place), u64::from(group.0), index.0]);
        let kept = self.node_dice.below(self.snapshot_every + 1);
        let node = &mut self.nodes[place as usize];
        node.process[group.0 as usize].is_building = false;
        node.disk.finished.insert(snapshot.meta.id, Rc::clone(snapshot));
        node.disk.drop_old_snapshots(group);
        node.with(group.0, |group| group.snapshot_built(snapshot.meta.clone()));
        self.compact(place, group.0, kept);
        self.turn(place);
    }

    /// Drops the log up to `kept` entries below what is applied, or as far as the group allows; the disk follows.
    pub(crate) fn compact(&mut self, place: Place, group: u32, kept: u64) {
        let node = &mut self.nodes[place as usize];
        let wanted = Index(node.process[group as usize].machine.applied().0.saturating_sub(kept));
        let gone = node.with(group, |group| group.compact(wanted));
        node.disk.compact(GroupId(group), gone);
    }

    /// A leader offers a snapshot: it is fetched from there.
    pub(crate) fn snapshot_is_offered(&mut self, place: Place, group: u32, from: PeerId, meta: SnapshotMeta) {
        let node = &mut self.nodes[place as usize];
        let incarnation = node.incarnation;
        node.process[group as usize].offered = Some((from, meta.id));
        if let Some(snapshot) = node.disk.staged.get(&meta.id).cloned() {
            self.clock.after(0, Event::Staged { place, incarnation, snapshot });
            return;
        }
        // Nobody waits for ever for data that does not come.
        let patience = self.node_dice.between(500, 5_000) * MILLISECOND;
        self.clock.after(patience, Event::FetchFailed { place, incarnation, meta: Box::new(meta), group });
    }

    /// Begins to send a snapshot's data to a peer.
    pub(crate) fn stream(&mut self, place: Place, group: u32, to: PeerId, meta: &SnapshotMeta) {
        let node = &self.nodes[place as usize];
        let incarnation = node.incarnation;
        let found = node.disk.finished.get(&meta.id).cloned();
        let receiver = self.place_of(to).map(|to| &self.nodes[to as usize]).filter(|to| to.is_up());
        let (Some(snapshot), Some(receiver)) = (found, receiver) else {
            let delay = self.node_dice.between(1, 300) * MILLISECOND;
            self.clock.after(delay, Event::StreamEnded { place, incarnation, group, to, is_ok: false });
            return;
        };
        let bytes = snapshot.machine.to_stream();
        let chunks = self.node_dice.between(1, 6) as usize;
        let stream = Stream {
            from: (place, incarnation),
            to: (receiver.place, receiver.incarnation),
            peer: to,
            snapshot,
            arrived: 0,
            chunk_bytes: bytes.len().div_ceil(chunks),
            bytes,
            chunk_takes: MILLISECOND << self.node_dice.below(8),
        };
        self.next_stream += 1;
        self.clock.after(stream.chunk_takes, Event::Chunk { stream: self.next_stream });
        self.streams.insert(self.next_stream, stream);
    }

    fn runs(&self, (place, incarnation): (Place, u64)) -> bool {
        let node = &self.nodes[place as usize];
        node.is_up() && node.incarnation == incarnation
    }

    /// One more part of a stream arrives.
    pub(crate) fn chunk(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let (from, to, takes) = (stream.from, stream.to, stream.chunk_takes);
        let is_cut = self.network.is_cut(from.0, to.0) || self.network.is_cut(to.0, from.0);
        if is_cut || !self.runs(from) || !self.runs(to) {
            self.break_stream(number);
            return;
        }
        let stream = self.streams.get_mut(&number).expect("looked at above");
        stream.arrived = (stream.arrived + stream.chunk_bytes).min(stream.bytes.len());
        let paused_until = self.nodes[from.0 as usize].paused_until.max(self.nodes[to.0 as usize].paused_until);
        if stream.arrived < stream.bytes.len() {
            let next = (self.clock.now() + takes).max(paused_until);
            self.clock.at(next, Event::Chunk { stream: number });
            return;
        }
        let stream = self.streams.remove(&number).expect("looked at above");
        self.counts.one(Count::SnapshotsStreamed);
        let delay = self.write_takes(to.0);
        self.stream_arrived(&stream, stream.bytes.len(), delay);
        let (place, incarnation) = from;
        let group = stream.snapshot.machine.group().0;
        let told = delay + self.node_dice.between(50, 2_000);
        self.clock.after(told, Event::StreamEnded { place, incarnation, group, to: stream.peer, is_ok: true });
    }

    /// A stream breaks: each end notices by itself. The receiver has got some more of it, and mostly cannot tell how it
    /// ended: a sender that is killed between two messages leaves a stream that ends like a whole one.
    pub(crate) fn break_stream(&mut self, number: u64) {
        let Some(stream) = self.streams.remove(&number) else { return };
        self.counts.one(Count::StreamsBroken);
        let group = stream.snapshot.machine.group().0;
        let (place, incarnation) = stream.from;
        let delay = self.node_dice.between(1, 500) * MILLISECOND;
        self.clock.after(delay, Event::StreamEnded { place, incarnation, group, to: stream.peer, is_ok: false });
        let next = (stream.arrived + stream.chunk_bytes).min(stream.bytes.len());
        let mut end = self.node_dice.between(stream.arrived as u64, next as u64) as usize;
        if self.node_dice.chance(500_000) {
            end = boundary_before(&stream.bytes, end);
            self.counts.one(Count::StreamsCutAtMessage);
        }
        let delay = self.node_dice.between(1, 500) * MILLISECOND;
        self.stream_arrived(&stream, end, delay);
    }

    /// So much of a stream is what its receiver has got, and nothing more will come: a state, or nothing.
    fn stream_arrived(&mut self, stream: &Stream, end: usize, delay: Time) {
        let Snapshot { meta, machine } = &*stream.snapshot;
        let (group, (place, incarnation)) = (machine.group(), stream.to);
        let received = Machine::from_stream(group, self.recipe, &stream.bytes[..end]);
        let now = self.clock.now();
        self.trace.note(now, 15, [u64::from(place), end as u64, u64::from(received.is_ok())]);
        self.trace.line(now, || {
            let (length, problem) = (stream.bytes.len(), received.as_ref().err());
            format!("{place}: has got {end} of {length} bytes of {:?}: {problem:?}", meta.id)
        });
        match received {
            Ok(machine) => {
                let snapshot = Rc::new(Snapshot { meta: meta.clone(), machine });
                self.clock.after(delay, Event::Staged { place, incarnation, snapshot });
            }
            Err(problem) => {
                assert!(end < stream.bytes.len(), "a whole snapshot cannot be read: {problem:?}");
                let meta = Box::new(meta.clone());
                self.clock.after(delay, Event::FetchFailed { place, incarnation, meta, group: group.0 });
            }
        }
    }

    /// The data of a snapshot is whole and durable at the receiver.
    pub(crate) fn staged(&mut self, place: Place, incarnation: u64, snapshot: &Rc<Snapshot>) {
        if !self.awake(place, incarnation, || Event::Staged { place, incarnation, snapshot: Rc::clone(snapshot) }) {
            return;
        }
        let group = snapshot.machine.group().0;
        let id = snapshot.meta.id;
        let node = &mut self.nodes[place as usize];
        let replica = &mut node.process[group as usize];
        node.disk.staged.insert(id, Rc::clone(snapshot));
        if replica.offered.is_some_and(|(_, offered)| offered == id) {
            replica.offered = None;
            if node.with(group, |group| group.snapshot_staged(id)) == Ok(Staged::NotNeeded) {
                node.disk.staged.remove(&id);
            }
        }
        self.turn(place);
    }

    /// The data of an offered snapshot did not come.
    pub(crate) fn fetch_failed(&mut self, place: Place, incarnation: u64, meta: &SnapshotMeta, group: u32) {
        if !self.awake(place, incarnation, || Event::FetchFailed {
            place,
            incarnation,
            meta: Box::new(meta.clone()),
            group,
        }) {
            return;
        }
        let node = &mut self.nodes[place as usize];
        let replica = &mut node.process[group as usize];
        if replica.offered.is_some_and(|(_, offered)| offered == meta.id) {
            replica.offered = None;
            node.with(group, |group| group.snapshot_refused(meta.id));
            self.turn(place);
        }
    }

    /// The sender of a stream learns how it ended.
    pub(crate) fn stream_ended(&mut self, place: Place, incarnation: u64, group: u32, to: PeerId, is_ok: bool) {
        if self.awake(place, incarnation, || Event::StreamEnded { place, incarnation, group, to, is_ok }) {
            self.nodes[place as usize].with(group, |group| group.snapshot_sent(to, is_ok));
            self.turn(place);
        }
    }

    /// A snapshot that is to be installed can be, once its record is durable: reading it may take long.
    pub(crate) fn prepare_install(&mut self, place: Place, group: u32) {
        let node = &mut self.nodes[place as usize];
        let incarnation = node.incarnation;
        let replica = &mut node.process[group as usize];
        if replica.installing.is_none() || replica.is_install_due || node.disk.has_unwritten_snapshot(GroupId(group)) {
            return;
        }
        let takes = if self.is_apply_slow && !self.is_healed { self.node_dice.below(4 * SECOND) } else { 0 };
        replica.is_install_due = true;
        self.clock.after(takes, Event::Install { place, incarnation, group });
    }

    /// Swaps a replica's state for the snapshot that is to be installed.
    pub(crate) fn install(&mut self, place: Place, incarnation: u64, group: u32) {
        if !self.awake(place, incarnation, || Event::Install { place, incarnation, group }) {
            return;
        }
        let node = &mut self.nodes[place as usize];
        let peer = node.peer;
        let replica = &mut node.process[group as usize];
        replica.is_install_due = false;
        let Some(meta) = replica.installing.clone() else { return };
        let Some(snapshot) = node.disk.staged.remove(&meta.id) else {
            self.truth.fail(Check::SnapshotNotStaged, || {
                format!("{place}: group {group} is to install {meta:?}, whose data is not here")
            });
            return;
        };
        node.disk.finished.insert(meta.id, Rc::clone(&snapshot));
        node.disk.drop_old_snapshots(GroupId(group));
        replica.machine = snapshot.machine.out_of_snapshot();
        replica.newest_built = replica.newest_built.max(meta.position.index);
        replica.queue.retain(|entry| entry.position.index > meta.position.index);
        replica.installing = None;
        let index = meta.position.index;
        let state = Applied {
            term: meta.position.term,
            chain: replica.machine.chain(),
            content: replica.machine.content_from_scratch(),
        };
        node.with(group, |group| group.snapshot_installed(index));
        self.counts.one(Count::SnapshotInstalls);
        self.truth.applied(GroupId(group), peer, index, state);
        self.truth.membership_as_of(GroupId(group), index, &meta.membership);
        self.trace.note(self.clock.now(), 11, [u64::from(place), u64::from(group), index.0]);
        self.trace.line(self.clock.now(), || format!("{place}: group {group} has installed {meta:?}"));
        self.turn(place);
    }
}
