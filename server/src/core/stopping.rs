//! How a core ends: it finishes what is in flight, waits for the others, and closes its log.
//!
//! Place in the flow: after SIGTERM or SHUTDOWN, beside the turn.
//!
//! Invariant: what was acknowledged is on disk when the process ends; what was begun is answered, unless its client
//! does not take the answer in time.

use std::time::{Duration, Instant};

use eyot_ring::{Event, Wait};

use super::turn::ring_failed;
use super::{Core, Stopping, EVENTS_PER_TURN};
use crate::error::{Stop, StopReason};

/// How long a stopping node waits for clients that do not take their replies.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long a stopping node tries to make the segment that its last writes need: a few attempts.
const DISK_FULL_GRACE: Duration = Duration::from_secs(3);

/// How long the last flush waits for a write before it looks whether a segment has been made meanwhile.
const FLUSH_LOOK: Duration = Duration::from_millis(1);

impl Core {
    pub(super) fn begin_to_stop(&mut self) {
        self.stopping = Some(Stopping { give_up_at: self.work.clock.now() + STOP_GRACE, settled: false });
        self.work.abort_snapshots();
        for number in 0..self.listeners.len() {
            self.ring.cancel_accept(number as u32);
        }
        for key in self.work.connections.keys() {
            // Closing over what a client still sends would reset the connection, and cut off replies on their way.
            self.work.connections.finish_and_linger(key);
        }
    }

    /// Whether the core may end: it has answered everything, and so has every other, which may have asked it.
    pub(super) fn is_done(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let given_up = self.work.clock.now() >= stopping.give_up_at;
        if !stopping.settled && (given_up || (self.work.connections.is_empty() && self.work.is_settled())) {
            stopping.settled = true;
            if given_up && !self.work.connections.is_empty() {
                let connections = self.work.connections.len();
                tracing::warn!(connections, "closing connections that did not take their replies in {STOP_GRACE:?}");
            }
            self.work.shared.core_settled();
        }
        stopping.settled && self.work.shared.all_settled()
    }

    /// Writes what is not on disk yet, then the log's end.
    pub(super) fn flush_everything(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.work.log.close();
        match self.flush() {
            // Only the end itself does not fit: everything that was acknowledged is on disk.
            Err(stop) if stop.reason == StopReason::DiskFull => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        let mut events = Vec::new();
        let give_up_at = Instant::now() + DISK_FULL_GRACE;
        while !self.work.log.is_settled() {
            if self.work.log.blocked().is_some() && Instant::now() >= give_up_at {
                return Err(Stop::new(
                    StopReason::DiskFull,
                    "the disk is full, and writes that wait for space are given up; with --sync-writes none of them was \
                     acknowledged",
                    "free space, then start the node again",
                ));
            }
            self.work.maintain_log(Instant::now());
            self.work.log.submit(&mut self.ring, Instant::now(), true);
            self.ring.enter(Wait::For(FLUSH_LOOK)).map_err(|error| ring_failed(&error))?;
            self.ring.reap(EVENTS_PER_TURN, &mut events);
            for event in events.drain(..) {
                if let Event::Written { token, buffer, result } = event {
                    self.work.log.written(token, buffer, result)?;
                }
            }
        }
        Ok(())
    }
}
