//! A node's logs, for tests: plays the part of the cores and their rings with plain file writes, in a temporary
//! directory or on a simulated disk.
//!
//! A write lands when a test says so, whole or in parts, so a test can stop a node between any two of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId, Term};
use tempfile::TempDir;

use super::format::BLOCK_BYTES;
use super::recovery::{next_epoch, recover, Recovered, RecoveryError, RecoveryScope};
use super::segment::{self, SegmentFile};
use super::{
    placement, LogIdentity, LogOptions, LogWrite, LogWriter, Retention, Sequence, SnapshotPosition, SEGMENT_BYTES_MIN,
};
use crate::disk::{Disk, DiskFile, RealDisk};

pub(super) const NODE_ID: u128 = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;

/// Everything of a shard that recovery handed out: term and payload, by index from 1.
pub(super) type ShardEntries = Vec<(u64, Vec<u8>)>;

/// The disk of a node, and what the node must do when it starts.
pub(super) struct Node<D: Disk = RealDisk> {
    pub(super) disk: D,
    wal: PathBuf,
    /// Removed with the node.
    _root: Option<TempDir>,
    pub(super) shard_count: u16,
    pub(super) options: LogOptions,
    /// Shard and index of what was handed out as covered, ever.
    pub(super) covered: RefCell<BTreeSet<(u16, u64)>>,
}

impl Node<RealDisk> {
    pub(super) fn new(shard_count: u16) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), shard_count)
    }

    /// In memory where that is possible: for tests that recover thousands of times.
    pub(super) fn fast(shard_count: u16) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self::in_directory(root, shard_count)
    }

    fn in_directory(root: TempDir, shard_count: u16) -> Self {
        let wal = root.path().to_owned();
        Self { _root: Some(root), ..Node::on(RealDisk, wal, shard_count) }
    }
}

impl<D: Disk> Node<D> {
    /// With its logs in the directory `wal` of `disk`.
    pub(super) fn on(disk: D, wal: PathBuf, shard_count: u16) -> Self {
        let options = LogOptions { segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() };
        Self { disk, wal, _root: None, shard_count, options, covered: RefCell::default() }
    }

    pub(super) fn wal(&self) -> &Path {
        &self.wal
    }

    pub(super) fn segment(&self, log_id: u16, number: u64) -> PathBuf {
        segment::segment_path(&segment::log_directory(self.wal(), log_id), number)
    }

    /// What one core finds, where each shard has `snapshots` and `entries` already.
    pub(super) fn recover_core(
        &self,
        core: u16,
        core_count: u16,
        snapshots: &[(ShardId, SnapshotPosition)],
        entries: &mut [ShardEntries],
    ) -> Result<Recovered, RecoveryError> {
        let epoch = next_epoch(&self.disk, self.wal(), NODE_ID)?;
        let scope = RecoveryScope { node_id: NODE_ID, core, core_count, shard_count: self.shard_count, epoch };
        recover(&self.disk, self.wal(), scope, snapshots, &mut |record| {
            let shard = &mut entries[usize::from(record.shard.0)];
            assert_eq!(placement(record.shard, scope.shard_count, core_count), core);
            if record.is_covered {
                let index = record.position.index.0;
                assert_eq!(shard[index as usize - 1].1, record.payload);
                self.covered.borrow_mut().insert((record.shard.0, index));
                return Ok(());
            }
            assert_eq!(record.position.index.0, shard.len() as u64 + 1);
            shard.push((record.position.term.0, record.payload.to_vec()));
            Ok(())
        })
    }

    /// What every core finds.
    pub(super) fn recover(&self, core_count: u16) -> Result<(Vec<Recovered>, Vec<ShardEntries>), RecoveryError> {
        self.recover_from(core_count, &[], vec![Vec::new(); usize::from(self.shard_count)])
    }

    /// What every core finds, where each shard has `snapshots` and `entries` already.
    pub(super) fn recover_from(
        &self,
        core_count: u16,
        snapshots: &[(ShardId, SnapshotPosition)],
        mut entries: Vec<ShardEntries>,
    ) -> Result<(Vec<Recovered>, Vec<ShardEntries>), RecoveryError> {
        let cores = 0..core_count;
        let recovered = cores.map(|core| self.recover_core(core, core_count, snapshots, &mut entries));
        Ok((recovered.collect::<Result<_, _>>()?, entries))
    }

    /// Starts the node: recovers, cleans up, and opens the logs for writing.
    pub(super) fn start(&self, core_count: u16) -> (Vec<Core<D>>, Vec<ShardEntries>) {
        let (recovered, entries) = self.recover(core_count).unwrap();
        let cores = (0..).zip(&recovered).map(|(core, recovered)| self.open(core, recovered)).collect();
        (cores, entries)
    }

    pub(super) fn open(&self, core: u16, recovered: &Recovered) -> Core<D> {
        recovered.clean_up(&self.disk).unwrap();
        let directory = segment::create_log_directory(&self.disk, self.wal(), core).unwrap();
        let identity = LogIdentity { node_id: NODE_ID, log_id: core };
        let mut writer = LogWriter::new(identity, self.options, recovered.start, &recovered.positions);
        let mut files = BTreeMap::new();
        if let Some(spare) = recovered.spare {
            let file = segment::open_spare(&self.disk, &directory, spare.number).unwrap();
            assert_eq!(file.bytes, spare.bytes);
            writer.segment_ready(file.ready(spare.number));
            files.insert(spare.number, file);
        }
        let newest = recovered.positions.iter().map(|&(shard, position)| (shard.0, position.index.0)).collect();
        let retention = Retention::new(core, self.options.segment_bytes, &recovered.segments);
        let (disk, wal) = (self.disk.clone(), self.wal.clone());
        let needed_after = BTreeMap::new();
        Core { disk, wal, directory, writer, retention, needed_after, files, in_flight: Vec::new(), newest }
    }
}

/// One core's log, open for writing.
pub(super) struct Core<D: Disk = RealDisk> {
    disk: D,
    wal: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) writer: LogWriter,
    pub(super) retention: Retention,
    /// Up to where each shard's log is superfluous.
    pub(super) needed_after: BTreeMap<u16, u64>,
    files: BTreeMap<u64, SegmentFile<D::File>>,
    pub(super) in_flight: Vec<LogWrite>,
    /// The newest index of each of the core's shards.
    newest: BTreeMap<u16, u64>,
}

impl<D: Disk> Core<D> {
    /// Appends the next entry of `shard`.
    pub(super) fn append(&mut self, shard: u16, payload: &[u8]) -> Sequence {
        self.append_kind(shard, EntryKind::Commands, payload)
    }

    /// Appends the next entry of `shard`, of any kind.
    pub(super) fn append_kind(&mut self, shard: u16, kind: EntryKind, payload: &[u8]) -> Sequence {
        let newest = self.newest.get_mut(&shard).expect("a shard of this core");
        *newest += 1;
        let position = EntryPosition { term: Term(1), index: Index(*newest) };
        self.writer.append(ShardId(shard), position, kind, payload)
    }

    /// Recycles or creates the segment that the writer wants.
    pub(super) fn prepare_segment(&mut self) {
        let Some(request) = self.writer.wants_segment() else { return };
        let needed_after = |shard: ShardId| Index(self.needed_after.get(&shard.0).copied().unwrap_or(0));
        let file = match self.retention.next_recycling(request, self.writer.durable(), &needed_after) {
            Some(recycling) => {
                let file = segment::recycle(&self.disk, &self.directory, recycling).unwrap();
                self.retention.recycled(recycling);
                file
            }
            None => segment::create(&self.disk, &self.directory, request.number, request.bytes).unwrap(),
        };
        assert_eq!(file.bytes, request.bytes);
        self.writer.segment_ready(file.ready(request.number));
        self.files.insert(request.number, file);
    }

    /// Removes the segments that are superfluous and too many. Returns how many.
    pub(super) fn cut(&mut self) -> usize {
        let needed_after = |shard: ShardId| Index(self.needed_after.get(&shard.0).copied().unwrap_or(0));
        let mut count = 0;
        while let Some(removal) = self.retention.next_removal(self.writer.durable(), &needed_after) {
            let directory = segment::log_directory(&self.wal, removal.log_id);
            segment::remove_segment(&self.disk, &directory, removal.number).unwrap();
            self.retention.removed(removal);
            count += 1;
        }
        count
    }

    /// Takes every write that may start now; none of them has landed yet.
    pub(super) fn submit(&mut self) {
        self.prepare_segment();
        while let Some(write) = self.writer.next_write() {
            assert_eq!(write.buffer.len() % BLOCK_BYTES, 0);
            self.in_flight.push(write);
            self.prepare_segment();
        }
        assert!(self.writer.writes_in_flight() == self.in_flight.len());
        while let Some(retired) = self.writer.segment_retired() {
            let number = retired.number;
            assert!(self.files.remove(&number).is_some(), "segment {number} was retired twice, or never open");
            self.retention.retired(retired);
        }
    }

    /// The write at `position` of those in flight lands whole.
    pub(super) fn land(&mut self, position: usize) -> Sequence {
        let write = self.in_flight.remove(position);
        self.files[&write.segment].file.write_all_at(&write.buffer, write.offset).unwrap();
        self.writer.written(write.sequence, write.buffer)
    }

    /// Only the blocks of the write at `position` for which `lands` holds reach the disk; it does not complete.
    pub(super) fn land_blocks(&self, position: usize, lands: impl Fn(usize) -> bool) {
        let write = &self.in_flight[position];
        for block in (0..write.buffer.len() / BLOCK_BYTES).filter(|block| lands(*block)) {
            let start = block * BLOCK_BYTES;
            let file = &self.files[&write.segment].file;
            file.write_all_at(&self.aligned(&write.buffer[start..start + BLOCK_BYTES]), write.offset + start as u64)
                .unwrap();
        }
    }

    #[allow(clippy::unused_self)] // Reads as a step of landing.
    fn aligned(&self, bytes: &[u8]) -> eyot_ring::AlignedBuffer {
        let mut buffer = eyot_ring::AlignedBuffer::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Writes everything that is open.
    pub(super) fn flush(&mut self) {
        loop {
            self.submit();
            if self.in_flight.is_empty() {
                break;
            }
            self.land(0);
        }
        assert!(!self.writer.has_open_records());
        assert_eq!(self.writer.pending_bytes(), 0);
    }
}
