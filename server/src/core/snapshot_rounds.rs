//! When a core's shards are snapshotted: asked for, or for the amount of log, or for the time.
//!
//! Place in the flow: beside step 8 (apply), at the end of a turn. [`snapshots`](super::snapshots) makes what a round
//! wants.
//!
//! Invariant: a round that failed is told, and none begins by itself for [`RETRY_AFTER`]; one that is asked for does.
//!
//! Deliberately not here: how a shard is snapshotted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use eyot_ring::Waker;

use super::Work;

/// After a round that failed, none begins by itself for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What one turn gives to a snapshot.
const SLICE_MAX: Duration = Duration::from_micros(200);
/// The same, while something outgrows it: as long as a turn takes requests in.
const HURRIED_SLICE_MAX: Duration = Duration::from_millis(1);
/// While there are requests: after a slice, so many times as long is theirs alone.
const BUSY_SHARE: u32 = 3;

/// A pass over the core's shards.
#[derive(Debug)]
pub(super) struct Round {
    /// The newest request that it answers.
    pub serves: u64,
    pub queue: VecDeque<u16>,
    pub started: Instant,
    /// So much log makes it time for the next round; `None`: none does.
    pub log_bytes_max: Option<u64>,
    pub entries: u64,
    pub bytes: u64,
    pub failure: Option<String>,
}

/// What a snapshot takes of the core's time while there are requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// What one turn gives to it.
    pub slice_max: Duration,
    /// How many times as long as a slice the requests then have for themselves.
    pub pause_share: u32,
}

impl Pace {
    /// Nothing hurries.
    const CALM: Self = Self { slice_max: SLICE_MAX, pause_share: BUSY_SHARE };

    /// Of a round since whose beginning the log has grown by `since_bytes`, where `log_bytes_max` make it time for the
    /// next one.
    ///
    /// The log is kept until the round is over, so a round that is slower than the writes has the disk fill up: when
    /// the next one is due already it takes more of the core, and later as much as the requests.
    fn of_round(since_bytes: u64, log_bytes_max: Option<u64>) -> Self {
        let interval = log_bytes_max.map_or(u64::MAX, |max| max.max(1));
        match since_bytes / interval {
            0 => Self::CALM,
            1 => Self { pause_share: 1, ..Self::CALM },
            _ => Self::HURRIED,
        }
    }

    /// Something outgrows the round.
    pub const HURRIED: Self = Self { slice_max: HURRIED_SLICE_MAX, pause_share: 0 };

    /// Whether it leaves no time of their own to the requests.
    pub fn hurries(self) -> bool {
        self.pause_share == 0
    }
}

impl Work {
    /// What the entries of all the core's shards take.
    pub(super) fn data_bytes(&self) -> usize {
        self.shards.iter().map(|driver| driver.shard().entry_bytes()).sum()
    }

    /// That of the round that is under way.
    pub(super) fn snapshot_pace(&self) -> Pace {
        let log_bytes_max = self.snapshots.round.as_ref().and_then(|round| round.log_bytes_max);
        Pace::of_round(self.metrics.log_bytes - self.snapshots.log_bytes_then, log_bytes_max)
    }

    /// Begins a round, if it is time for one.
    pub(super) fn begin_round(&mut self) {
        let asked = self.shared.snapshots.requested();
        let (now, log_bytes) = (self.clock.now(), self.metrics.log_bytes);
        let data_bytes = self.data_bytes();
        let snapshots = &mut self.snapshots;
        let since_bytes = log_bytes - snapshots.log_bytes_then + snapshots.recovered_bytes;
        let settings = &self.shared.settings.snapshots;
        let log_bytes_max = settings.log_bytes(data_bytes as u64);
        let is_late = settings.interval.is_some_and(|interval| now - snapshots.last_round_at >= interval);
        let due = match snapshots.retry_at {
            Some(retry_at) => now >= retry_at,
            None => log_bytes_max.is_some_and(|limit| since_bytes >= limit) || (is_late && since_bytes > 0),
        };
        if is_late {
            // Or it is time again at once, although nothing was written.
            snapshots.last_round_at = now;
        }
        if asked == snapshots.seen_request && !due {
            return;
        }
        let queue = (0..self.shards.len() as u16).collect();
        snapshots.seen_request = asked;
        (snapshots.log_bytes_then, snapshots.recovered_bytes) = (log_bytes, 0);
        snapshots.last_round_at = now;
        snapshots.retry_at = None;
        self.log.note_snapshot_interval(log_bytes_max.unwrap_or(0));
        snapshots.round =
            Some(Round { serves: asked, queue, started: now, log_bytes_max, entries: 0, bytes: 0, failure: None });
        let keys = self.shards.iter().map(|driver| driver.shard().key_count() as u64).sum();
        self.shared.snapshots.of(self.core).begun(self.clock.wall_us(), keys);
    }

    /// Ends the round, well or not.
    pub(super) fn end_round(&mut self) {
        let snapshots = &mut self.snapshots;
        let round = snapshots.round.take().expect("a round is under way");
        snapshots.spare_buffers = Vec::new();
        let elapsed = round.started.elapsed();
        if round.failure.is_some() {
            snapshots.retry_at = Some(self.clock.now() + RETRY_AFTER);
        } else {
            let (core, entries, bytes) = (self.core, round.entries, round.bytes);
            tracing::info!(
                core,
                entries,
                bytes,
                elapsed_ms = elapsed.as_millis() as u64,
                "snapshots of all shards are on disk"
            );
        }
        self.shared.snapshots.ended(self.core, round.serves, self.clock.wall_us(), elapsed, round.failure);
        // Who waits may wait on another core.
        self.shared.wakers.iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_the_log_outgrows_takes_more_of_the_core() {
        let pace = |since_bytes| Pace::of_round(since_bytes, Some(800));
        assert_eq!([0, 799].map(pace), [Pace::CALM; 2]);
        assert_eq!([800, 1_599].map(pace), [Pace { pause_share: 1, ..Pace::CALM }; 2]);
        assert_eq!([1_600, u64::MAX].map(pace), [Pace::HURRIED; 2]);
        assert_eq!(Pace::of_round(u64::MAX - 1, None), Pace::CALM, "without a bound nothing is outgrown");
        assert_eq!(Pace::of_round(1, Some(0)), Pace { pause_share: 1, ..Pace::CALM }, "every byte makes one due");
    }
}
