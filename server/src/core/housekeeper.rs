//! The file work of a core's log that blocks, such as making a segment, done beside the core.
//!
//! Place in the flow: beside step 6 (log). The log hands a job over and takes the answer at a later turn.
//!
//! Invariant: each job brings one answer. At most [`JOBS_MAX`] are under way.
//!
//! Deliberately not here: what the jobs are for, what a failed one means, and the thread
//! ([`job_thread`](super::job_thread)).

use std::path::PathBuf;

use eyot_ring::Waker;

use super::job_thread::{JobThread, Worker};
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
pub(super) type Housekeeper = JobThread<Job, Done>;

/// Starts the thread of the log of `core`.
///
/// # Errors
/// The system has no thread left.
pub(super) fn start(core: u16, wal_directory: PathBuf, waker: Waker) -> std::io::Result<Housekeeper> {
    JobThread::start(format!("log-{core}"), JOBS_MAX, waker, LogWorker { core, wal_directory })
}

struct LogWorker {
    core: u16,
    wal_directory: PathBuf,
}

impl Worker for LogWorker {
    type Job = Job;
    type Done = Done;

    fn work(&mut self, job: Job) -> Done {
        let directory = &segment::log_directory(&self.wal_directory, self.core);
        match job {
            Job::Create(request) => {
                Done::Created(request, segment::create(&RealDisk, directory, request.number, request.bytes))
            }
            Job::Recycle(recycling) => Done::Recycled(recycling, segment::recycle(&RealDisk, directory, recycling)),
            Job::Remove(removal) => {
                let directory = segment::log_directory(&self.wal_directory, removal.log_id);
                Done::Removed(removal, segment::remove_segment(&RealDisk, &directory, removal.number))
            }
            Job::Truncate(end) => Done::Truncated(segment::truncate(&RealDisk, directory, end)),
        }
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
        let keeper = start(0, directory.path().to_owned(), sleeper.waker()).unwrap();
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
