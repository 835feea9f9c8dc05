//! Many writes at a time into a node.
//!
//! Place in the flow: `restore` and `import` read entries on a thread of their own and push them here; a worker for
//! each part of the slots sends them.
//!
//! ```text
//! source ──push──► open batches, by slot ──queue──► workers ──BATCH of SETs──► node
//! ```
//!
//! Invariants:
//! - Writes of one key leave in the order in which they were pushed: they are one worker's, and a worker sends one
//!   batch at a time.
//! - What is under way has bounds in batches and in bytes; a source waits for room. One value alone may be larger.
//! - After the first failure nothing new is sent. What was sent before it is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use eyot_client::{BatchOperation, BatchResult, Client, Condition, Error, Expiry, SetOutcome};
use eyot_protocol::key::slot;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{channel, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::failure::Failure;

/// Batches that are sent at a time: enough to fill the log's writes of a node with some cores.
const WORKERS: usize = 16;
/// Batches that wait for each worker.
const QUEUE_BATCHES: usize = 2;
/// A batch is sent when its keys and values come to this.
const BATCH_BYTES: usize = 64 << 10;
/// Or when it has so many writes.
const BATCH_WRITES: usize = 500;
/// Bytes of all batches that wait or are sent (64 MiB), in KiB: what matters where values are large.
const UNDER_WAY_KIB: u32 = 64 << 10;
/// What a write costs beside its key and value.
const WRITE_OVERHEAD_BYTES: usize = 64;

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    written: AtomicU64,
    /// Keys that existed, and kept their values.
    kept: AtomicU64,
}

/// How many writes were done, and how many keys kept their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub written: u64,
    pub kept: u64,
}

/// The workers have ended: one of them has failed.
#[derive(Debug)]
pub struct Stopped;

/// Where a source pushes entries.
pub struct Feeder {
    handle: Handle,
    room: Arc<Semaphore>,
    condition: Condition,
    open: Vec<(Vec<BatchOperation>, usize)>,
    queues: Vec<Sender<Batch>>,
}

struct Batch {
    operations: Vec<BatchOperation>,
    /// Its share of [`UNDER_WAY_KIB`].
    _room: OwnedSemaphorePermit,
}

impl Feeder {
    /// Has an entry written.
    pub fn push(&mut self, key: &[u8], value: &[u8], expires_at_us: Option<i64>) -> Result<(), Stopped> {
        // The protocol takes no time before 1970; one that long ago is as good as any that has passed.
        let expiry = expires_at_us.map_or(Expiry::Never, |at_us| Expiry::AtUs(at_us.max(1)));
        let (worker, bytes) = (usize::from(slot(key)) % WORKERS, key.len() + value.len() + WRITE_OVERHEAD_BYTES);
        let (operations, batch_bytes) = &mut self.open[worker];
        operations.push(BatchOperation::SetEncoded {
            key: key.to_vec(),
            value: value.to_vec(),
            expiry,
            condition: self.condition,
        });
        *batch_bytes += bytes;
        if *batch_bytes >= BATCH_BYTES || operations.len() >= BATCH_WRITES {
            self.send(worker)?;
        }
        Ok(())
    }

    fn send(&mut self, worker: usize) -> Result<(), Stopped> {
        let (operations, bytes) = std::mem::take(&mut self.open[worker]);
        if operations.is_empty() {
            return Ok(());
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(UNDER_WAY_KIB);
        let room = self.handle.block_on(Arc::clone(&self.room).acquire_many_owned(kib)).map_err(|_| Stopped)?;
        self.queues[worker].blocking_send(Batch { operations, _room: room }).map_err(|_| Stopped)
    }

    fn finish(mut self) -> Result<(), Stopped> {
        (0..WORKERS).try_for_each(|worker| self.send(worker))
    }
}

/// Runs `source` on a thread and writes what it pushes into the node. `replace`: keys that exist are overwritten.
///
/// # Errors
/// The first failure, with what had been done.
pub async fn send<S>(client: &Client, replace: bool, source: S) -> (Sent, Result<(), Failure>)
where
    S: FnOnce(&mut Feeder) -> Result<(), SourceEnd> + Send + 'static,
{
    let tally = Arc::new(Tally::default());
    let room = Arc::new(Semaphore::new(UNDER_WAY_KIB as usize));
    let (mut queues, mut workers) = (Vec::new(), JoinSet::new());
    for _ in 0..WORKERS {
        let (sender, receiver) = channel(QUEUE_BATCHES);
        queues.push(sender);
        workers.spawn(work(client.clone(), receiver, Arc::clone(&tally)));
    }
    let condition = if replace { Condition::Always } else { Condition::IfAbsent };
    let open = (0..WORKERS).map(|_| (Vec::new(), 0)).collect();
    let mut feeder = Feeder { handle: Handle::current(), room: Arc::clone(&room), condition, open, queues };
    let reading = tokio::task::spawn_blocking(move || match source(&mut feeder) {
        Ok(()) => feeder.finish().map_err(|Stopped| SourceEnd::Stopped),
        Err(end) => {
            // What came before it is in order.
            let _ = feeder.finish();
            Err(end)
        }
    });
    let mut first_failure = None;
    while let Some(worker) = workers.join_next().await {
        if let Err(error) = worker.expect("a worker neither panics nor is cancelled") {
            first_failure.get_or_insert(Failure::Client(error));
            // Wakes the source where it waits for room; the other workers end with their queues.
            room.close();
        }
    }
    let read = reading.await.expect("a source does not panic");
    let sent = Sent { written: tally.written.load(Ordering::Relaxed), kept: tally.kept.load(Ordering::Relaxed) };
    let done = match (first_failure, read) {
        (Some(failure), _) | (None, Err(SourceEnd::Failed(failure))) => Err(failure),
        (None, Ok(()) | Err(SourceEnd::Stopped)) => Ok(()),
    };
    (sent, done)
}

/// Why a source ended before its end.
pub enum SourceEnd {
    /// Because the workers did.
    Stopped,
    /// Because there is something wrong with what it reads.
    Failed(Failure),
}

impl From<Stopped> for SourceEnd {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Failure> for SourceEnd {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn work(client: Client, mut batches: Receiver<Batch>, tally: Arc<Tally>) -> Result<(), Error> {
    while let Some(Batch { operations, _room }) = batches.recv().await {
        let mut first_error = None;
        for result in client.batch(operations).await {
            match result {
                Ok(BatchResult::Set(SetOutcome::NotStored { .. })) => tally.kept.fetch_add(1, Ordering::Relaxed),
                Ok(_) => tally.written.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    first_error.get_or_insert(error);
                    continue;
                }
            };
        }
        if let Some(error) = first_error {
            return Err(error);
        }
    }
    Ok(())
}
