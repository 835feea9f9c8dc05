//! What a core does with its log, its shards and their snapshots, on a simulated disk, a step at a time.
//!
//! Place in the flow: steps 6 to 8 as the server has them, without ring and clock: writes start when [`Node::submit`]
//! is called and are complete when [`Node::land`] is, in any order.
//!
//! Invariants, the same as the server's:
//! - What is durable is applied, and what is applied is acknowledged. A write that fails or is short ends the node.
//! - A snapshot is published when the log is durable up to its index; the log is cut below the older of two.
//! - A segment that cannot be made, or a snapshot that cannot be written, ends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use eyot_protocol::snapshot::{Entry as SnapshotEntry, ShardHeader, ShardWriter};
use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId, Term};
use rand::rngs::StdRng;
use rand::Rng;

use super::truth::{self, Counts, Entry, Restored, Truth, NODE_ID, SHARDS, SNAPSHOTS, WAL};
use crate::disk::{Disk, SimulatedDisk, SimulatedFile, StartedWrite};
use crate::shard::{Shard, SnapshotStep};
use crate::snapshot::{store, Kept, KeptSnapshots, SnapshotError, SnapshotFile, Space, SpareFile};
use crate::wal::segment::{self, SegmentError, SegmentFile};
use crate::wal::{LogIdentity, LogOptions, LogWrite, LogWriter, OpenUploads, Retention, SegmentEnd, Sequence};

/// Eight blocks: some batches fill it.
const SEGMENT_BYTES: u64 = 8 * 4096;
const SNAPSHOT_WRITE_BYTES: usize = 4096;
/// So that a snapshot takes some slices, while entries are applied in between.
const WALK_STEPS: usize = 3000;

/// What the driver does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// What is given to the disk counts as durable.
    AcknowledgesUnsynced,
    /// The second of two writes is complete, and both are acknowledged.
    AcknowledgesOutOfOrder,
    /// The log is cut below a snapshot before it is published.
    CutsBeforePublishing,
    /// The log is cut as if no large value were on its way.
    ForgetsUploads,
    /// The log is cut below the newest snapshot.
    CutsBelowNewest,
}

/// How a node ends that may not go on.
#[derive(Debug)]
pub(super) struct Death(pub(super) String);

/// What went wrong without ending the node.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Segments that could not be made.
    pub(super) making: Vec<SegmentError>,
    /// Segments that could not be removed, recycled or cut: the log grows until the next start.
    pub(super) cutting: Vec<SegmentError>,
    pub(super) snapshots: Vec<SnapshotError>,
}

struct HostedShard {
    shard: Shard,
    history: Vec<Entry>,
    applied: u64,
    uploads: OpenUploads,
    /// Parts of a large value that are not in the log yet, and then its command.
    upload: Option<(UploadId, VecDeque<Vec<u8>>)>,
    kept: KeptSnapshots,
    /// The newest one, for a bug.
    newest: Option<Kept>,
}

struct Making {
    shard: u16,
    position: EntryPosition,
    needed_after: Index,
    covered: Sequence,
    file: SnapshotFile<SimulatedDisk>,
    /// `None`: the footer is written.
    writer: Option<ShardWriter>,
}

pub(super) struct Node {
    disk: SimulatedDisk,
    bug: Bug,
    /// Which of the truths it makes.
    life: u64,
    epoch: u64,
    directory: PathBuf,
    writer: LogWriter,
    retention: Retention,
    files: BTreeMap<u64, SegmentFile<SimulatedFile>>,
    in_flight: Vec<(LogWrite, StartedWrite)>,
    shards: Vec<HostedShard>,
    /// The shards of entries that are not applied, in the order of the log.
    unapplied: VecDeque<(Sequence, u16)>,
    snapshot: Option<Making>,
    spare: Option<SpareFile>,
    /// Whether a snapshot could not be published.
    has_failed: bool,
    old_tail: Option<SegmentEnd>,
    first_sequence: Sequence,
    upload_count: u32,
    published: u32,
    pub(super) troubles: Troubles,
}

impl Node {
    /// Starts on what was read back from `disk`, which was found to be in order.
    pub(super) fn open(
        disk: &SimulatedDisk,
        (bug, life): (Bug, u64),
        restored: Restored,
        truth: &[Truth],
    ) -> Result<Self, Death> {
        let Restored { shards, kept, recovered, epoch, counts, .. } = restored;
        let death = |error: SegmentError| Death(error.to_string());
        recovered.clean_up(disk).map_err(death)?;
        let directory = segment::create_log_directory(disk, Path::new(WAL), 0).map_err(death)?;
        let identity = LogIdentity { node_id: NODE_ID, log_id: 0 };
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
        let mut writer = LogWriter::with_any_segments(identity, options, recovered.start, &recovered.positions);
        let mut files = BTreeMap::new();
        if let Some(spare) = recovered.spare {
            let file = segment::open_spare(disk, &directory, spare.number).map_err(death)?;
            writer.segment_ready(file.ready(spare.number));
            files.insert(spare.number, file);
        }
        let hosted = shards.into_iter().zip(kept).zip(truth).zip(counts).map(|(((shard, kept), truth), count)| {
            let history = truth.history[..count as usize].to_vec();
            let (uploads, newest) = (OpenUploads::default(), kept.first().copied());
            let kept = KeptSnapshots::found(&kept);
            HostedShard { shard, history, applied: count, uploads, upload: None, kept, newest }
        });
        let mut node = Self {
            disk: disk.clone(),
            bug,
            life,
            epoch,
            directory,
            writer,
            retention: Retention::new(0, SEGMENT_BYTES, &recovered.segments),
            files,
            in_flight: Vec::new(),
            shards: hosted.collect(),
            unapplied: VecDeque::new(),
            snapshot: None,
            spare: None,
            has_failed: false,
            old_tail: recovered.start.previous_end,
            first_sequence: recovered.start.next_sequence,
            upload_count: 0,
            published: 0,
            troubles: Troubles::default(),
        };
        node.cut();
        node.mark();
        Ok(node)
    }

    /// All that it was told.
    pub(super) fn histories(&self) -> Vec<Vec<Entry>> {
        self.shards.iter().map(|hosted| hosted.history.clone()).collect()
    }

    pub(super) fn acknowledged(&self) -> Counts {
        let mut counts = Counts::default();
        let acknowledged = match self.bug {
            Bug::AcknowledgesUnsynced => |hosted: &HostedShard| hosted.history.len() as u64,
            _ => |hosted: &HostedShard| hosted.applied,
        };
        self.shards.iter().zip(&mut counts).for_each(|(hosted, count)| *count = acknowledged(hosted));
        counts
    }

    /// Has crash points carry what is acknowledged.
    fn mark(&self) {
        self.disk.mark(truth::mark(self.life, self.acknowledged()));
    }

    pub(super) fn writes_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.unapplied.is_empty()
    }

    /// How many were published in this life.
    pub(super) fn snapshots_published(&self) -> u32 {
        self.published
    }

    /// Whether writes are taken: there is room in the segments that exist.
    pub(super) fn takes_writes(&self) -> bool {
        self.writer.writable_bytes() >= 3 * 4096
    }

    /// Appends an entry of `shard`: the next part of the large value that is on its way, or commands.
    pub(super) fn append(&mut self, shard: u16, dice: &mut StdRng, zeros_max: usize) {
        if self.shards[usize::from(shard)].upload.is_some() && dice.gen_bool(0.5) {
            return self.append_part(shard);
        }
        let payload = truth::commands(shard, dice, zeros_max);
        self.append_entry(shard, EntryKind::Commands, payload);
    }

    /// Begins a large value, if none is on its way.
    pub(super) fn begin_upload(&mut self, shard: u16, dice: &mut StdRng) {
        if self.shards[usize::from(shard)].upload.is_some() {
            return;
        }
        self.upload_count += 1;
        let upload = UploadId::new(self.epoch, self.upload_count);
        let value = truth::text(dice, 2000);
        let (mut offset, total) = (0, value.len() as u64);
        let mut parts = VecDeque::new();
        for bytes in value.chunks(value.len().div_ceil(2)) {
            let part = ValuePart::Bytes { upload, offset, total, bytes };
            parts.push_back([&part.header()[..], bytes].concat());
            offset += bytes.len() as u64;
        }
        self.shards[usize::from(shard)].upload = Some((upload, parts));
        self.append_part(shard);
    }

    fn append_part(&mut self, shard: u16) {
        let hosted = &mut self.shards[usize::from(shard)];
        let (upload, parts) = hosted.upload.as_mut().expect("a large value is on its way");
        let (upload, index) = (*upload, Index(hosted.history.len() as u64 + 1));
        if let Some(payload) = parts.pop_front() {
            hosted.uploads.part(index, &ValuePart::decode(&payload).expect("a part of this driver"));
            return self.append_entry(shard, EntryKind::ValuePart, payload);
        }
        hosted.upload = None;
        hosted.uploads.ended(upload, index);
        self.append_entry(shard, EntryKind::Commands, truth::storing(shard, upload));
    }

    fn append_entry(&mut self, shard: u16, kind: EntryKind, payload: Vec<u8>) {
        let hosted = &mut self.shards[usize::from(shard)];
        let (term, index) = (Term(self.epoch), Index(hosted.history.len() as u64 + 1));
        let sequence = self.writer.append(ShardId(shard), EntryPosition { term, index }, kind, &payload);
        hosted.history.push(Entry { kind, term, payload });
        self.unapplied.push_back((sequence, shard));
    }

    /// Starts every write that may start.
    pub(super) fn submit(&mut self) -> Result<(), Death> {
        self.prepare_segment();
        while let Some(write) = self.writer.next_write() {
            let file = &self.files[&write.segment].file;
            let started = file.start_write(&write.buffer, write.offset);
            let started = started.map_err(|error| Death(format!("the log cannot be written: {error}")))?;
            self.in_flight.push((write, started));
            self.mark();
            self.prepare_segment();
        }
        while let Some(retired) = self.writer.segment_retired() {
            self.files.remove(&retired.number);
            self.retention.retired(retired);
        }
        Ok(())
    }

    /// The write at `position` of those in flight completes; what is durable now is applied.
    pub(super) fn land(&mut self, position: usize) -> Result<(), Death> {
        let (write, started) = self.in_flight.remove(position);
        let written = self.files[&write.segment].file.finish_write(started);
        let written = written.map_err(|error| Death(format!("the log cannot be written: {error}")))?;
        if written < write.buffer.len() {
            return Err(Death(format!("the log's write of {} bytes wrote {written}", write.buffer.len())));
        }
        let (sequence, mut durable) = (write.sequence, self.writer.written(write.sequence, write.buffer));
        if self.bug == Bug::AcknowledgesOutOfOrder {
            durable = durable.max(sequence);
        }
        while self.unapplied.front().is_some_and(|(sequence, _)| *sequence <= durable) {
            let (_, shard) = self.unapplied.pop_front().expect("there is one");
            let HostedShard { shard, history, applied, .. } = &mut self.shards[usize::from(shard)];
            let entry = &history[*applied as usize];
            *applied += 1;
            let applied = truth::apply(shard, Index(*applied), entry.kind, &entry.payload, false);
            applied.map_err(|error| Death(format!("an entry of this node cannot be applied: {error}")))?;
        }
        self.mark();
        self.truncate_old_tail();
        Ok(())
    }

    /// Writes everything, in any order.
    pub(super) fn drain(&mut self, dice: &mut StdRng) -> Result<(), Death> {
        loop {
            self.submit()?;
            if self.in_flight.is_empty() {
                return Ok(());
            }
            self.land(dice.gen_range(0..self.in_flight.len()))?;
        }
    }

    /// Ends the log in order.
    pub(super) fn close(&mut self, dice: &mut StdRng) -> Result<(), Death> {
        self.drain(dice)?;
        if self.writer.writable_bytes() >= 4096 {
            self.writer.close();
        }
        self.drain(dice)
    }

    fn truncate_old_tail(&mut self) {
        if self.writer.durable() >= self.first_sequence {
            if let Some(end) = self.old_tail.take() {
                if let Err(error) = segment::truncate(&self.disk, &self.directory, end) {
                    self.troubles.cutting.push(error);
                }
            }
        }
    }

    /// Recycles or creates the segment that the writer wants.
    fn prepare_segment(&mut self) {
        let Some(request) = self.writer.wants_segment() else { return };
        let needed_after = self.needed_after();
        let superfluous = |shard: ShardId| needed_after[usize::from(shard.0)];
        let durable = self.writer.durable();
        let made = match self.retention.next_recycling(request, durable, &superfluous) {
            Some(recycling) => {
                let recycled = segment::recycle(&self.disk, &self.directory, recycling);
                match recycled {
                    Ok(_) => self.retention.recycled(recycling),
                    Err(_) => self.retention.failed(),
                }
                recycled
            }
            None => segment::create(&self.disk, &self.directory, request.number, request.bytes),
        };
        match made {
            Ok(file) => {
                self.writer.segment_ready(file.ready(request.number));
                self.files.insert(request.number, file);
            }
            Err(error) => self.troubles.making.push(error),
        }
    }

    /// Behind which entry the log is needed, by shard.
    fn needed_after(&self) -> Vec<Index> {
        let of = |hosted: &HostedShard| {
            let goes_too_far = matches!(self.bug, Bug::CutsBelowNewest | Bug::CutsBeforePublishing);
            let newest = hosted.newest.filter(|_| goes_too_far).map(|newest| newest.needed_after);
            newest.or(hosted.kept.needed_after()).unwrap_or_default()
        };
        self.shards.iter().map(of).collect()
    }

    /// Removes the segments that nothing needs.
    pub(super) fn cut(&mut self) {
        let needed_after = self.needed_after();
        let superfluous = |shard: ShardId| needed_after[usize::from(shard.0)];
        while let Some(removal) = self.retention.next_removal(self.writer.durable(), &superfluous) {
            match segment::remove_segment(&self.disk, &self.directory, removal.number) {
                Ok(()) => self.retention.removed(removal),
                Err(error) => {
                    self.retention.failed();
                    self.troubles.cutting.push(error);
                }
            }
        }
    }

    /// Begins a snapshot of `shard`, if none is under way.
    pub(super) fn begin_snapshot(&mut self, shard: u16) {
        if self.snapshot.is_some() {
            return;
        }
        let hosted = &mut self.shards[usize::from(shard)];
        let index = Index(hosted.applied);
        let term = hosted.history[..hosted.applied as usize].last().map_or(Term(0), |entry| entry.term);
        let mut needed_after = hosted.uploads.needed_after(index);
        if self.bug == Bug::ForgetsUploads {
            needed_after = index;
        }
        let created = SnapshotFile::create(
            &self.disk,
            Path::new(SNAPSHOTS),
            ShardId(shard),
            index,
            Space { stream_bytes: 1, spared_bytes: 1 },
            &mut self.spare,
            SNAPSHOT_WRITE_BYTES,
        );
        let mut file = match created {
            Ok(file) => file,
            Err(error) => return self.troubles.snapshots.push(error),
        };
        let header = ShardHeader {
            node_uuid: NODE_ID,
            shard,
            shard_count: SHARDS,
            index: index.0,
            term: term.0,
            needed_after: needed_after.0,
        };
        let mut out = Vec::new();
        let writer = ShardWriter::new(header, &mut out);
        if let Err(error) = file.append(&out) {
            self.troubles.snapshots.push(error);
            return file.discard();
        }
        hosted.shard.begin_snapshot(index);
        let (position, covered) = (EntryPosition { term, index }, self.writer.last_appended());
        self.snapshot = Some(Making { shard, position, needed_after, covered, file, writer: Some(writer) });
    }

    /// Goes on with the snapshot that is under way: a slice of it, or its publication.
    pub(super) fn go_on_with_snapshot(&mut self) {
        let Some(making) = &mut self.snapshot else { return };
        let hosted = &mut self.shards[usize::from(making.shard)];
        if let Some(mut writer) = making.writer.take() {
            let mut out = Vec::new();
            let step = hosted.shard.snapshot_some(WALK_STEPS, |slot, key, stored| {
                let (value, version, expires_at_us) = (stored.value, stored.version.0, stored.expires_at_us);
                let entry = SnapshotEntry { slot, key, value, version, expires_at_us };
                writer.push(&entry, &mut out).expect("the engine yields what a snapshot takes");
                ControlFlow::Continue(())
            });
            match step {
                SnapshotStep::More => making.writer = Some(writer),
                SnapshotStep::Done => drop(writer.finish(&mut out).expect("no value is half written")),
            }
            if let Err(error) = making.file.append(&out) {
                self.troubles.snapshots.push(error);
                hosted.shard.abort_snapshot();
                if let Some(making) = self.snapshot.take() {
                    making.file.discard();
                }
            }
        } else if self.writer.durable() >= making.covered {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let Making { shard, position, needed_after, file, .. } = self.snapshot.take().expect("one is under way");
        let kept = Kept { index: position.index, needed_after };
        let is_early = self.bug == Bug::CutsBeforePublishing;
        if is_early {
            self.keep(shard, kept);
        }
        let beside = self.shards[usize::from(shard)].kept.beside(kept.index);
        let may_recycle = self.spare.is_none() && !self.has_failed;
        let spare = may_recycle.then(|| store::spare_path(Path::new(SNAPSHOTS), 0));
        let published = file.publish(beside, spare, |_| false);
        self.has_failed |= published.is_err();
        match published {
            Ok((_, spare)) => {
                self.spare = spare;
                if !is_early {
                    self.keep(shard, kept);
                }
            }
            Err(error) => self.troubles.snapshots.push(error),
        }
    }

    /// Counts a snapshot, and cuts what it makes superfluous.
    fn keep(&mut self, shard: u16, published: Kept) {
        self.published += 1;
        let hosted = &mut self.shards[usize::from(shard)];
        hosted.kept.publish(published);
        hosted.newest = Some(published);
        self.cut();
    }

    /// Gives up the snapshot that is under way.
    pub(super) fn abort_snapshot(&mut self) {
        if let Some(making) = self.snapshot.take() {
            self.shards[usize::from(making.shard)].shard.abort_snapshot();
            making.file.discard();
        }
    }

    /// Makes a whole snapshot of `shard`, unless its log is not durable that far.
    pub(super) fn snapshot(&mut self, shard: u16) {
        self.begin_snapshot(shard);
        while self.snapshot.as_ref().is_some_and(|making| making.writer.is_some()) {
            self.go_on_with_snapshot();
        }
        self.go_on_with_snapshot();
    }
}

/// Creates the directories of a new node.
pub(super) fn create_directories(disk: &SimulatedDisk) -> std::io::Result<()> {
    match disk.create_directory(Path::new(WAL)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => disk.sync_directory(Path::new("/")),
    }
}
