//! A core's snapshot thread: it writes the files, and reads them for clients that save them, while the core goes on.
//!
//! Place in the flow: beside step 8 (apply). The core hands over bytes and gets the buffers back.
//!
//! Invariants:
//! - Each job brings one answer. At most [`BUFFERS_MAX`] buffers of a snapshot and [`READS_MAX`] reads are under way.
//! - A superseded file is written over by the next snapshot, unless a client reads from it, on whatever core.
//! - The first error of a snapshot is its last: what was written is thrown away, and whatever more comes of it is taken
//!   and forgotten.
//!
//! Deliberately not here: what is in the bytes, when a snapshot is made, and the thread
//! ([`job_thread`](super::job_thread)).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eyot_raft_glue::{Index, ShardId};
use eyot_ring::{MappedBytes, Waker};

use super::job_thread::{JobThread, Worker, IDLE_AFTER};
use crate::disk::RealDisk;
use crate::snapshot::store::spare_path;
use crate::snapshot::{
    OpenSnapshot, Published, Readers, Reading, SnapshotError, SnapshotFile, Space, SpareFile, WRITE_BYTES,
};

/// Buffers of a snapshot on their way to the disk, some half a mebibyte each as a write is: the core goes on while one
/// write takes longer than others. One more is filled meanwhile.
pub const BUFFERS_MAX: usize = 6;
/// Reads for clients under way on a core: what they bring, a mebibyte each, waits in memory to be sent.
pub const READS_MAX: usize = 16;
/// Beside those: the beginning and the end of a snapshot, and pages that it waits for.
const OTHER_JOBS_MAX: usize = 4;
/// Files that are kept open for the next read: as many as clients save at a time, a few shards each.
const OPEN_MAX: usize = 64;
/// How long a file is kept open that nobody reads from: its space is not free before.
const OPEN_FOR: Duration = IDLE_AFTER;

/// What all snapshots of a core have in common.
#[derive(Debug, Clone)]
pub(super) struct SnapshotPlan {
    /// See [`ShardHeader`].
    pub node_uuid: u128,
    /// See [`ShardHeader`].
    pub shard_count: u16,
    /// Where snapshots are.
    pub directory: PathBuf,
    /// Who reads which of them.
    pub readers: Readers,
    /// Bytes of log that the start has read.
    pub recovered_bytes: u64,
    /// So long after a round the next one is made.
    pub interval: Option<Duration>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// Begin a file, if there is space.
    Begin(ShardId, Index, Space),
    /// Append to it, with writes of at most so many bytes.
    Append(Vec<u8>, usize),
    /// Make it durable under its name, and keep the one at this index beside it.
    Publish(Option<Index>),
    /// Throw it away.
    Discard,
    /// Bring the pages of a large value into memory.
    Touch(MappedBytes, std::ops::Range<usize>),
    /// Read from a published file, into this buffer: the core's, since memory that one thread asks for and another
    /// frees stays with the first for long.
    Read(ReadRequest, Vec<u8>),
}

/// What a client wants of a published snapshot.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// The shard.
    pub shard: ShardId,
    /// Which of its snapshots.
    pub index: Index,
    /// From where on.
    pub offset: u64,
    /// At most so many bytes.
    pub length: usize,
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// The file is there, or why not.
    Begun(Result<(), SnapshotError>),
    /// The buffer, to be filled again, and why nothing of this snapshot is written any more.
    Appended(Vec<u8>, Result<(), SnapshotError>),
    /// The snapshot is on disk, or why not.
    Published(Result<Published, SnapshotError>),
    /// It is thrown away.
    Discarded,
    /// The pages are there.
    Touched,
    /// The buffer, and whether the bytes are in it; if not, there is no such snapshot.
    Read(Vec<u8>, Result<bool, SnapshotError>),
}

/// The core's side.
pub(super) type SnapshotThread = JobThread<Job, Done>;

/// Starts the thread of `core`.
///
/// # Errors
/// The system has no thread left.
pub(super) fn start(core: u16, plan: &SnapshotPlan, waker: Waker) -> std::io::Result<SnapshotThread> {
    let worker = SnapshotWorker::new(core, plan.directory.clone(), plan.readers.clone());
    JobThread::start(format!("snapshot-{core}"), BUFFERS_MAX + READS_MAX + OTHER_JOBS_MAX, waker, worker)
}

struct OpenFile {
    shard: ShardId,
    index: Index,
    snapshot: OpenSnapshot<std::fs::File>,
    used: Instant,
    /// Dropped after the file: so it comes last.
    _reading: Reading,
}

struct SnapshotWorker {
    core: u16,
    snapshots_directory: PathBuf,
    readers: Readers,
    /// The one that is being written, and whose it is. `None`: there is none, or it has failed.
    file: Option<(ShardId, SnapshotFile<RealDisk>)>,
    /// What the next one is written over.
    spare: Option<SpareFile>,
    /// Whether one could not be published: nobody knows then which names the disk has, so none is written over any more
    /// before the next start.
    has_failed: bool,
    open: Vec<OpenFile>,
}

impl Worker for SnapshotWorker {
    type Job = Job;
    type Done = Done;

    fn work(&mut self, job: Job) -> Done {
        match job {
            Job::Begin(shard, index, space) => {
                // What is read no more need not hold its space while another one is written.
                self.close_unused();
                let directory = &self.snapshots_directory;
                let spare = &mut self.spare;
                let created = SnapshotFile::create(&RealDisk, directory, shard, index, space, spare, WRITE_BYTES);
                Done::Begun(created.map(|file| self.file = Some((shard, file))))
            }
            Job::Append(bytes, piece_bytes) => {
                let appended = self.file.as_mut().map_or(Ok(()), |(_, file)| {
                    file.write_in_pieces_of(piece_bytes);
                    file.append(&bytes)
                });
                if appended.is_err() {
                    self.discard();
                }
                Done::Appended(bytes, appended)
            }
            Job::Publish(beside) => {
                let (shard, file) = self.file.take().expect("the core publishes what it knows to be written");
                let may_recycle = self.spare.is_none() && !self.has_failed;
                let spare = may_recycle.then(|| spare_path(&self.snapshots_directory, self.core));
                let readers = &self.readers;
                let published = file.publish(beside, spare, |index| readers.read(shard, index));
                self.has_failed |= published.is_err();
                Done::Published(published.map(|(published, spare)| {
                    self.spare = spare;
                    published
                }))
            }
            Job::Discard => {
                self.discard();
                Done::Discarded
            }
            Job::Touch(value, range) => {
                touch(&value.bytes()[range]);
                Done::Touched
            }
            Job::Read(request, mut buffer) => {
                let outcome = self.read(&request, &mut buffer);
                Done::Read(buffer, outcome)
            }
        }
    }

    fn rest(&mut self) {
        self.close_unused();
    }
}

impl SnapshotWorker {
    fn new(core: u16, snapshots_directory: PathBuf, readers: Readers) -> Self {
        let (file, spare, has_failed, open) = (None, None, false, Vec::new());
        Self { core, snapshots_directory, readers, file, spare, has_failed, open }
    }

    fn discard(&mut self) {
        if let Some((_, file)) = self.file.take() {
            file.discard();
        }
    }

    /// Whether there is such a snapshot: then its bytes are in `bytes`.
    fn read(&mut self, request: &ReadRequest, bytes: &mut Vec<u8>) -> Result<bool, SnapshotError> {
        self.close_unused();
        let ReadRequest { shard, index, offset, length } = *request;
        let place = self.open.iter().position(|open| (open.shard, open.index) == (shard, index));
        let mut file = match place {
            Some(place) => self.open.swap_remove(place),
            None => {
                let reading = self.readers.begin(shard, index);
                match OpenSnapshot::open(&RealDisk, &self.snapshots_directory, shard, index)? {
                    Some(snapshot) => OpenFile { shard, index, snapshot, used: Instant::now(), _reading: reading },
                    None => return Ok(false),
                }
            }
        };
        file.snapshot.read(offset, length, bytes).map_err(|source| SnapshotError::Io {
            action: "read from the snapshots in",
            path: self.snapshots_directory.clone(),
            source,
        })?;
        if offset.saturating_add(bytes.len() as u64) >= file.snapshot.bytes() {
            // Who has come to the end reads no more of it.
            return Ok(true);
        }
        file.used = Instant::now();
        if self.open.len() >= OPEN_MAX {
            let oldest = (0..self.open.len()).min_by_key(|&place| self.open[place].used);
            self.open.swap_remove(oldest.expect("there are some"));
        }
        self.open.push(file);
        Ok(true)
    }

    fn close_unused(&mut self) {
        self.open.retain(|open| open.used.elapsed() < OPEN_FOR);
    }
}

/// Reads a byte of every page, so that whoever reads them next need not wait.
fn touch(bytes: &[u8]) {
    let sum = bytes.chunks(eyot_ring::page_bytes()).fold(0_u8, |sum, page| sum ^ page[0]);
    std::hint::black_box(sum);
}
