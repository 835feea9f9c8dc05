//! A core's snapshot thread: it writes the files, and reads them for clients that save them, while the core goes on.
//!
//! Place in the flow: beside step 8 (apply). The core hands over bytes and gets the buffers back; the thread wakes the
//! core if that sleeps.
//!
//! Invariants:
//! - Jobs are done one at a time, in order, and each brings one answer.
//! - At most [`BUFFERS_MAX`] buffers of a snapshot and [`READS_MAX`] reads are under way.
//! - After an error the rest of that snapshot is thrown away, and its last job tells the error.
//!
//! Deliberately not here: what is in the bytes, and when a snapshot is made.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eyot_raft_glue::{Index, ShardId};
use eyot_ring::{MappedBytes, Waker};

use crate::disk::RealDisk;
use crate::snapshot::{OpenSnapshot, Published, SnapshotError, SnapshotFile};

/// Buffers of a snapshot on their way to the disk: one that is written, and one that waits; a third is filled
/// meanwhile.
pub const BUFFERS_MAX: usize = 2;
/// Reads for clients under way on a core: what they bring, a mebibyte each, waits in memory to be sent.
pub const READS_MAX: usize = 16;
/// Beside those: the beginning and the end of a snapshot, and pages that it waits for.
const OTHER_JOBS_MAX: usize = 4;
/// Files that are kept open for the next read: as many as clients save at a time, a few shards each.
const OPEN_MAX: usize = 64;
/// How long a file is kept open that nobody reads from: its space is not free before.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// What all snapshots of a core have in common.
#[derive(Debug, Clone)]
pub(super) struct SnapshotPlan {
    /// See [`ShardHeader`].
    pub node_uuid: u128,
    /// See [`ShardHeader`].
    pub shard_count: u16,
    /// Where snapshots are.
    pub directory: PathBuf,
    /// Bytes of log that the start has read.
    pub recovered_bytes: u64,
    /// So long after a round the next one is made.
    pub interval: Option<Duration>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// Begin a file.
    Begin(ShardId, Index),
    /// Append to it.
    Append(Vec<u8>),
    /// Make it durable under its name, and keep the one at this index beside it.
    Publish(Option<Index>),
    /// Throw it away.
    Discard,
    /// Bring the pages of a large value into memory.
    Touch(MappedBytes, std::ops::Range<usize>),
    /// Read from a published file.
    Read(ReadRequest),
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
    /// The buffer, to be filled again.
    Appended(Vec<u8>),
    /// The snapshot is on disk, or why not.
    Published(Result<Published, SnapshotError>),
    /// It is thrown away.
    Discarded,
    /// The pages are there.
    Touched,
    /// The bytes; `None`: there is no such snapshot.
    Read(Result<Option<Vec<u8>>, String>),
}

/// The core's side.
#[derive(Debug)]
pub(super) struct SnapshotThread {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    waiting: Arc<AtomicUsize>,
}

impl SnapshotThread {
    /// Starts the thread. It ends with the core.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(core: u16, snapshots_directory: PathBuf, waker: Waker) -> std::io::Result<Self> {
        let (jobs, to_do) = sync_channel(BUFFERS_MAX + READS_MAX + OTHER_JOBS_MAX);
        let (answers, done) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&waiting);
        let mut worker = Worker { snapshots_directory, file: None, failure: None, open: Vec::new() };
        let work = move || worker.serve(&to_do, &answers, &told, &waker);
        std::thread::Builder::new().name(format!("snapshot-{core}")).spawn(work)?;
        Ok(Self { jobs, done, waiting })
    }

    /// Has `job` done.
    ///
    /// # Panics
    /// With more under way than the bounds say, or when the thread has panicked.
    pub fn begin(&self, job: Job) {
        self.jobs.try_send(job).expect("a job for a thread that is there and has room");
    }

    /// Whether an answer waits. Sequentially consistent, so that it can be asked between the announcement of a sleep
    /// and the sleep.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The next answer.
    pub fn take(&self) -> Option<Done> {
        if !self.has_news() {
            return None;
        }
        let done = self.done.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some(done)
    }
}

struct OpenFile {
    shard: ShardId,
    index: Index,
    snapshot: OpenSnapshot<std::fs::File>,
    used: Instant,
}

/// The thread's side.
struct Worker {
    snapshots_directory: PathBuf,
    file: Option<SnapshotFile<RealDisk>>,
    /// Why the present file is not written any more.
    failure: Option<SnapshotError>,
    open: Vec<OpenFile>,
}

impl Worker {
    fn serve(&mut self, to_do: &Receiver<Job>, answers: &Sender<Done>, told: &AtomicUsize, waker: &Waker) {
        loop {
            let job = match to_do.recv_timeout(OPEN_FOR) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.close_unused();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(done) = self.work(job) else { continue };
            if answers.send(done).is_err() {
                return;
            }
            told.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        }
    }

    /// Does a job; a beginning has no answer.
    fn work(&mut self, job: Job) -> Option<Done> {
        Some(match job {
            Job::Begin(shard, index) => {
                // What is read no more need not hold its space while another one is written.
                self.close_unused();
                self.failure = None;
                match SnapshotFile::create(&RealDisk, &self.snapshots_directory, shard, index) {
                    Ok(file) => self.file = Some(file),
                    Err(error) => self.failure = Some(error),
                }
                return None;
            }
            Job::Append(bytes) => {
                if let Some(Err(error)) = self.file.as_mut().map(|file| file.append(&bytes)) {
                    self.failure = Some(error);
                    self.discard();
                }
                Done::Appended(bytes)
            }
            Job::Publish(beside) => Done::Published(match (self.failure.take(), self.file.take()) {
                (Some(error), _) => Err(error),
                (None, Some(file)) => file.publish(beside),
                (None, None) => unreachable!("a snapshot that was begun is there or has failed"),
            }),
            Job::Discard => {
                self.discard();
                Done::Discarded
            }
            Job::Touch(value, range) => {
                touch(&value.bytes()[range]);
                Done::Touched
            }
            Job::Read(request) => Done::Read(self.read(&request).map_err(|error| error.to_string())),
        })
    }

    fn discard(&mut self) {
        if let Some(file) = self.file.take() {
            file.discard();
        }
    }

    fn read(&mut self, request: &ReadRequest) -> Result<Option<Vec<u8>>, SnapshotError> {
        self.close_unused();
        let ReadRequest { shard, index, offset, length } = *request;
        let place = self.open.iter().position(|open| (open.shard, open.index) == (shard, index));
        let mut file = match place {
            Some(place) => self.open.swap_remove(place),
            None => match OpenSnapshot::open(&RealDisk, &self.snapshots_directory, shard, index)? {
                Some(snapshot) => OpenFile { shard, index, snapshot, used: Instant::now() },
                None => return Ok(None),
            },
        };
        let bytes = file.snapshot.read(offset, length).map_err(|source| SnapshotError::Io {
            action: "read from the snapshots in",
            path: self.snapshots_directory.clone(),
            source,
        })?;
        file.used = Instant::now();
        if self.open.len() >= OPEN_MAX {
            let oldest = (0..self.open.len()).min_by_key(|&place| self.open[place].used);
            self.open.swap_remove(oldest.expect("there are some"));
        }
        self.open.push(file);
        Ok(Some(bytes))
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
