//! A core's helper thread: the file work of the log that blocks, such as making a segment, while the core goes on.
//!
//! Place in the flow: beside step 6 (log). The core hands a job over and looks for what is done at each turn; the
//! thread wakes the core if that sleeps.
//!
//! Invariants:
//! - Jobs are done one at a time, in order, and each brings one answer. At most [`JOBS_MAX`] are under way.
//! - The core never waits for the thread, nor for glommio's executor: with the tasks of glommio 0.9 it could, since
//!   that sleeps over a task that is ready when its time slice ends before the first one ran (`LocalExecutor::run`).
//!
//! Deliberately not here: what the jobs are for, and what a failed one means.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::Arc;

use eyot_ring::Waker;

use crate::disk::RealDisk;
use crate::wal::{segment, Recycling, Removal, SegmentEnd, SegmentError, SegmentFile, SegmentRequest};

/// Jobs under way at most: a segment that is being made, one that is removed, and an old tail that is given back.
const JOBS_MAX: usize = 3;

/// What is to be done in the log's directory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    /// Make a segment.
    Create(SegmentRequest),
    /// Make a segment of one that nothing needs.
    Recycle(Recycling),
    /// Remove a segment that nothing needs.
    Remove(Removal),
    /// Give back what an old segment holds behind its end.
    Truncate(SegmentEnd),
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// The segment, or why there is none.
    Created(SegmentRequest, Result<SegmentFile, SegmentError>),
    /// The same.
    Recycled(Recycling, Result<SegmentFile, SegmentError>),
    /// It is gone, or not.
    Removed(Removal, Result<(), SegmentError>),
    /// The tail was given back, or not.
    Truncated(Result<(), SegmentError>),
}

/// The core's side.
#[derive(Debug)]
pub(super) struct Housekeeper {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    /// Answers that were sent and not taken.
    waiting: Arc<AtomicUsize>,
}

impl Housekeeper {
    /// Starts the thread, on the processors of the calling one. It ends with the core.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(core: u16, wal_directory: PathBuf, waker: Waker) -> std::io::Result<Self> {
        let (jobs, to_do) = sync_channel(JOBS_MAX);
        let (answers, done) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&waiting);
        let work = move || serve((&wal_directory, core), &to_do, &answers, &told, &waker);
        std::thread::Builder::new().name(format!("log-{core}")).spawn(work)?;
        Ok(Self { jobs, done, waiting })
    }

    /// Has `job` done.
    ///
    /// # Panics
    /// With [`JOBS_MAX`] under way, or when the thread has panicked.
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

fn serve(
    (wal_directory, core): (&std::path::Path, u16),
    to_do: &Receiver<Job>,
    answers: &Sender<Done>,
    told: &AtomicUsize,
    waker: &Waker,
) {
    let directory = &segment::log_directory(wal_directory, core);
    while let Ok(job) = to_do.recv() {
        let done = match job {
            Job::Create(request) => {
                Done::Created(request, segment::create(&RealDisk, directory, request.number, request.bytes))
            }
            Job::Recycle(recycling) => Done::Recycled(recycling, segment::recycle(&RealDisk, directory, recycling)),
            Job::Remove(removal) => {
                let directory = segment::log_directory(wal_directory, removal.log_id);
                Done::Removed(removal, segment::remove_segment(&RealDisk, &directory, removal.number))
            }
            Job::Truncate(end) => Done::Truncated(segment::truncate(&RealDisk, directory, end)),
        };
        if answers.send(done).is_err() {
            return;
        }
        told.fetch_add(1, Ordering::SeqCst);
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use eyot_ring::{Event, Ring, RingOptions, Sleeper, Wait};

    use super::*;
    use crate::wal::SEGMENT_BYTES_MIN;

    #[test]
    fn a_job_is_done_while_its_core_sleeps_and_wakes_it() {
        let directory = tempfile::tempdir().unwrap();
        let sleeper = Sleeper::new().unwrap();
        let mut ring = Ring::new(RingOptions::default()).unwrap();
        ring.watch(sleeper.descriptor(), 0);
        segment::create_log_directory(&RealDisk, directory.path(), 0).unwrap();
        let keeper = Housekeeper::start(0, directory.path().to_owned(), sleeper.waker()).unwrap();
        for number in 1..=20 {
            keeper.begin(Job::Create(SegmentRequest { number, bytes: SEGMENT_BYTES_MIN }));
            let started = Instant::now();
            let mut events = Vec::new();
            while !keeper.has_news() {
                assert!(started.elapsed() < Duration::from_secs(30), "nobody wakes it");
                sleeper.announce();
                let wait = if keeper.has_news() { Wait::No } else { Wait::Forever };
                ring.enter(wait).unwrap();
                sleeper.awake();
                ring.reap(16, &mut events);
                assert!(events.drain(..).all(|event| matches!(event, Event::Woken { .. })));
            }
            match keeper.take() {
                Some(Done::Created(request, Ok(file))) => {
                    assert_eq!((request.number, file.bytes), (number, SEGMENT_BYTES_MIN));
                }
                other => panic!("{other:?}"),
            }
            assert!(keeper.take().is_none() && !keeper.has_news());
        }
        keeper.begin(Job::Create(SegmentRequest { number: 1, bytes: SEGMENT_BYTES_MIN }));
        drop(keeper);
    }
}
