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

/// A pass over the core's shards.
#[derive(Debug)]
pub(super) struct Round {
    /// The newest request that it answers.
    pub serves: u64,
    pub queue: VecDeque<u16>,
    pub started: Instant,
    pub entries: u64,
    pub bytes: u64,
    pub failure: Option<String>,
}

impl Work {
    /// Begins a round, if it is time for one.
    pub(super) fn begin_round(&mut self) {
        let asked = self.shared.snapshots.requested();
        let (now, log_bytes) = (self.clock.now(), self.metrics.log_bytes);
        let snapshots = &mut self.snapshots;
        let since_bytes = log_bytes - snapshots.log_bytes_then + snapshots.recovered_bytes;
        let settings = &self.shared.settings.snapshots;
        let data_bytes: usize = self.shards.iter().map(|driver| driver.shard().entry_bytes()).sum();
        let is_late = settings.interval.is_some_and(|interval| now - snapshots.last_round_at >= interval);
        let due = match snapshots.retry_at {
            Some(retry_at) => now >= retry_at,
            None => {
                settings.log_bytes(data_bytes as u64).is_some_and(|limit| since_bytes >= limit)
                    || (is_late && since_bytes > 0)
            }
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
        snapshots.round = Some(Round { serves: asked, queue, started: now, entries: 0, bytes: 0, failure: None });
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
