//! A thread beside a core, for what blocks: the core hands jobs over and looks for answers at each turn.
//!
//! Place in the flow: beside steps 6 (log) and 8 (apply); the [`housekeeper`](super::housekeeper) and the
//! [`snapshot_thread`](super::snapshot_thread) say what the jobs are.
//!
//! Invariants:
//! - Jobs are done one at a time, in order; an answer wakes the core if that sleeps.
//! - The core never waits for the thread, nor for glommio's executor: with the tasks of glommio 0.9 it could, since
//!   that sleeps over a task that is ready when its time slice ends before the first one ran (`LocalExecutor::run`).
//!
//! Deliberately not here: what the jobs are for, and what a failed one means.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::Arc;
use std::time::Duration;

use eyot_ring::Waker;

/// How long a thread without a job waits before it looks after what it holds.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(60);

/// The thread's side.
pub(super) trait Worker: Send + 'static {
    /// What is to be done.
    type Job: Send + 'static;
    /// What came of it.
    type Done: Send + 'static;

    /// Does a job.
    fn work(&mut self, job: Self::Job) -> Self::Done;

    /// There was no job for [`IDLE_AFTER`].
    fn rest(&mut self) {}
}

/// The core's side.
#[derive(Debug)]
pub(super) struct JobThread<Job, Done> {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    /// Answers that were sent and not taken.
    waiting: Arc<AtomicUsize>,
}

impl<Job: Send + 'static, Done: Send + 'static> JobThread<Job, Done> {
    /// Starts the thread, on the processors of the calling one; `jobs_max` jobs can be under way. It ends with the
    /// core.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start<W>(name: String, jobs_max: usize, waker: Waker, mut worker: W) -> io::Result<Self>
    where
        W: Worker<Job = Job, Done = Done>,
    {
        let (jobs, to_do) = sync_channel(jobs_max);
        let (answers, done) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&waiting);
        let work = move || serve(&mut worker, &to_do, &answers, &told, &waker);
        std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Self { jobs, done, waiting })
    }

    /// Has `job` done.
    ///
    /// # Panics
    /// With as many under way as there may be, or when the thread has panicked.
    pub fn begin(&self, job: Job) {
        let is_begun = self.jobs.try_send(job).is_ok();
        assert!(is_begun, "a job for a thread that is there and has room");
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

fn serve<W: Worker>(
    worker: &mut W,
    to_do: &Receiver<W::Job>,
    answers: &Sender<W::Done>,
    told: &AtomicUsize,
    waker: &Waker,
) {
    loop {
        let done = match to_do.recv_timeout(IDLE_AFTER) {
            Ok(job) => worker.work(job),
            Err(RecvTimeoutError::Timeout) => {
                worker.rest();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if answers.send(done).is_err() {
            return;
        }
        told.fetch_add(1, Ordering::SeqCst);
        waker.wake();
    }
}
