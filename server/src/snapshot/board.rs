//! What the cores know of each other's snapshots: who has asked for one, how far each is, what there is.
//!
//! Place in the flow: beside it. Whoever wants snapshots raises a number and wakes the cores; each core, when it has
//! made all of its shards' anew, says up to which number. Read by STATUS, INFO and the log's cut.
//!
//! Invariants:
//! - A round that serves a request began after it: what was acknowledged before the request is in its snapshots.
//! - Nothing here stands on a request's way: a lock is held for some fields' copy, a few times in a round.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use eyot_raft_glue::{Index, ShardId};

use super::readers::Readers;

/// A shard's newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: ShardId,
    /// At which index of its log.
    pub index: Index,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
}

/// The last round of a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRound {
    /// When it ended, in microseconds since the epoch.
    pub ended_at_us: i64,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// How far a core is.
#[derive(Debug, Clone, Default)]
pub struct CoreSnapshots {
    /// When the round that is under way began, in microseconds since the epoch.
    pub running_since_us: Option<i64>,
    /// Keys that the core had when the round began.
    pub keys: u64,
    /// Entries that this round has encoded.
    pub entries_done: u64,
    /// And bytes.
    pub bytes_done: u64,
    /// Rounds that succeeded since the start.
    pub rounds: u64,
    /// The newest request that was served, well or not.
    served: u64,
    /// The newest one that was served well.
    succeeded: u64,
    /// When the last of those ended, in microseconds since the epoch.
    pub succeeded_at_us: Option<i64>,
    /// The last round, well or not.
    pub last: Option<LastRound>,
    /// What there is of the core's shards, by shard.
    pub shards: Vec<ShardSnapshot>,
}

/// All cores' together, as INFO tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Since when a round is under way, in microseconds since the epoch.
    pub running_since_us: Option<i64>,
    /// Entries that it has encoded.
    pub entries_done: u64,
    /// Rounds of all cores that succeeded since the start.
    pub rounds: u64,
    /// When every core had succeeded, in microseconds since the epoch.
    pub succeeded_at_us: Option<i64>,
    /// How long the last round of the slowest core took.
    pub last_elapsed: Option<Duration>,
    /// Why a core's last round failed.
    pub failure: Option<String>,
    /// The shards' newest snapshots: how many, their bytes and their entries.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// See `files`.
    pub entries: u64,
}

/// One core's part; it alone writes there.
#[derive(Debug, Default)]
pub struct CoreBoard(Mutex<CoreSnapshots>);

/// See the module.
#[derive(Debug)]
pub struct SnapshotBoard {
    requested: AtomicU64,
    /// Rounds that have ended, of all cores.
    ended: AtomicU64,
    cores: Box<[CoreBoard]>,
    /// For each shard the index behind which its log is needed still, by the older of its two snapshots.
    needed_after: Box<[AtomicU64]>,
    /// Who reads which file.
    pub readers: Readers,
}

impl SnapshotBoard {
    /// A board on which nothing is written.
    pub fn new(core_count: u16, shard_count: u16) -> Self {
        Self {
            requested: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            cores: (0..core_count).map(|_| CoreBoard::default()).collect(),
            needed_after: (0..shard_count).map(|_| AtomicU64::new(0)).collect(),
            readers: Readers::default(),
        }
    }

    /// Asks for new snapshots of everything; returns the request's number. The caller wakes the cores.
    pub fn request(&self) -> u64 {
        self.requested.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The newest request.
    #[inline]
    pub fn requested(&self) -> u64 {
        self.requested.load(Ordering::SeqCst)
    }

    /// How many rounds have ended, of all cores: who waits for one looks when it changes.
    #[inline]
    pub fn ended_count(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// A round of `core` has ended; it served the requests up to `served`.
    pub fn ended(&self, core: u16, served: u64, now_us: i64, elapsed: Duration, failure: Option<String>) {
        self.of(core).ended(served, now_us, elapsed, failure);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// The board of one core.
    pub fn of(&self, core: u16) -> &CoreBoard {
        &self.cores[usize::from(core)]
    }

    /// What became of request `number`: `None`, it is not done yet; the failure of a core, if one failed.
    pub fn outcome(&self, number: u64) -> Option<Result<(), String>> {
        if number > self.requested() {
            return Some(Err("the node has been started anew since it was asked for; ask again".to_owned()));
        }
        let mut outcome = Ok(());
        for core in &self.cores {
            let core = core.lock();
            if core.served < number {
                return None;
            }
            if core.succeeded < number {
                let failure = core.last.as_ref().and_then(|last| last.failure.clone());
                outcome = Err(failure.expect("a core whose last round went well has served all before"));
            }
        }
        Some(outcome)
    }

    /// When every core had new snapshots of all its shards the last time, in microseconds since the epoch; `None`: not
    /// since the start.
    pub fn last_success_us(&self) -> Option<i64> {
        let succeeded = |core: &CoreBoard| core.lock().succeeded_at_us;
        self.cores.iter().map(succeeded).min().flatten()
    }

    /// Whether a round is under way, or asked for and not begun.
    pub fn is_busy(&self) -> bool {
        self.outcome(self.requested()).is_none() || self.cores.iter().any(|core| core.lock().running_since_us.is_some())
    }

    /// All cores' together.
    pub fn figures(&self) -> SnapshotFigures {
        let mut sum = SnapshotFigures { succeeded_at_us: self.last_success_us(), ..SnapshotFigures::default() };
        for core in self.cores() {
            sum.running_since_us = sum.running_since_us.into_iter().chain(core.running_since_us).min();
            if core.running_since_us.is_some() {
                sum.entries_done += core.entries_done;
            }
            sum.rounds += core.rounds;
            sum.last_elapsed = sum.last_elapsed.max(core.last.as_ref().map(|last| last.elapsed));
            sum.failure = sum.failure.or(core.last.and_then(|last| last.failure));
            sum.files += core.shards.len() as u64;
            sum.bytes += core.shards.iter().map(|shard| shard.bytes).sum::<u64>();
            sum.entries += core.shards.iter().map(|shard| shard.entries).sum::<u64>();
        }
        sum
    }

    /// How far all cores are, by core.
    pub fn cores(&self) -> Vec<CoreSnapshots> {
        self.cores.iter().map(|core| core.lock().clone()).collect()
    }

    /// Behind which index the log of `shard` is needed; 0: all of it.
    pub fn needed_after(&self, shard: ShardId) -> Index {
        Index(self.needed_after[usize::from(shard.0)].load(Ordering::Acquire))
    }

    /// The older of a shard's snapshots is durable, and its log is needed behind `index` alone.
    pub fn set_needed_after(&self, shard: ShardId, index: Index) {
        self.needed_after[usize::from(shard.0)].store(index.0, Ordering::Release);
    }
}

impl CoreBoard {
    fn lock(&self) -> MutexGuard<'_, CoreSnapshots> {
        self.0.lock().expect("a thread that panics ends the process")
    }

    /// A round begins.
    pub fn begun(&self, now_us: i64, keys: u64) {
        let mut core = self.lock();
        (core.running_since_us, core.keys) = (Some(now_us), keys);
        (core.entries_done, core.bytes_done) = (0, 0);
    }

    /// The round has encoded so much.
    pub fn progressed(&self, entries: u64, bytes: u64) {
        let mut core = self.lock();
        (core.entries_done, core.bytes_done) = (entries, bytes);
    }

    /// A shard's snapshot is on disk, or was found there at the start.
    pub fn published(&self, snapshot: ShardSnapshot) {
        let mut core = self.lock();
        core.shards.retain(|other| other.shard != snapshot.shard);
        let place = core.shards.partition_point(|other| other.shard.0 < snapshot.shard.0);
        core.shards.insert(place, snapshot);
    }

    /// The round has ended; it served the requests up to `served`.
    fn ended(&self, served: u64, now_us: i64, elapsed: Duration, failure: Option<String>) {
        let mut core = self.lock();
        core.running_since_us = None;
        core.served = served;
        if failure.is_none() {
            core.rounds += 1;
            core.succeeded = served;
            core.succeeded_at_us = Some(now_us);
        }
        core.last = Some(LastRound { ended_at_us: now_us, elapsed, failure });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_done_when_every_core_has_served_it() {
        let board = SnapshotBoard::new(2, 4);
        let (first, second) = (board.request(), board.request());
        assert_eq!((first, second, board.requested()), (1, 2, 2));
        assert!(board.outcome(3).is_some_and(|outcome| outcome.is_err()), "of another start");
        board.ended(0, 2, 10, Duration::from_secs(1), None);
        assert_eq!(board.outcome(1), None);
        board.ended(1, 1, 11, Duration::from_secs(1), Some("no space".to_owned()));
        assert_eq!(board.outcome(1), Some(Err("no space".to_owned())));
        assert_eq!(board.outcome(2), None);
        board.ended(1, 2, 12, Duration::from_secs(1), None);
        assert_eq!(board.outcome(2), Some(Ok(())));
        assert_eq!((board.last_success_us(), board.is_busy()), (Some(10), false));
        board.ended(1, 2, 13, Duration::from_secs(1), Some("a later round, of no request".to_owned()));
        assert_eq!(board.outcome(2), Some(Ok(())));
        board.request();
        assert!(board.is_busy());
    }

    #[test]
    fn a_shards_newest_snapshot_replaces_the_one_before() {
        let board = SnapshotBoard::new(1, 3);
        let of =
            |shard: u16, index: u64| ShardSnapshot { shard: ShardId(shard), index: Index(index), bytes: 1, entries: 1 };
        for snapshot in [of(2, 5), of(0, 7), of(2, 9)] {
            board.of(0).published(snapshot);
        }
        assert_eq!(board.cores()[0].shards, [of(0, 7), of(2, 9)]);
        assert_eq!(board.needed_after(ShardId(2)), Index(0));
        board.set_needed_after(ShardId(2), Index(5));
        assert_eq!(board.needed_after(ShardId(2)), Index(5));
    }
}
