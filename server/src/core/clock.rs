//! The times of a turn, read once at its start.
//!
//! Place in the flow: every step of a turn uses the same time, so that a turn costs two clock reads however many
//! requests it carries, and the pure parts get their time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a turn takes requests in. What then is under way is finished: some hundred microseconds at most, since each
/// request, each slice of a walk and each entry is bounded.
pub const TURN_MAX: Duration = Duration::from_millis(1);

/// The clock of one core. The monotonic time counts from the start of the node, the same on every core.
#[derive(Debug, Clone, Copy)]
pub struct TurnClock {
    started: Instant,
    now: Instant,
    monotonic_us: u64,
    wall_us: i64,
}

impl TurnClock {
    /// A clock that counts from `started`.
    pub fn new(started: Instant) -> Self {
        let mut clock = Self { started, now: started, monotonic_us: 0, wall_us: 0 };
        clock.read();
        clock
    }

    /// Reads the time for a new turn.
    pub fn read(&mut self) {
        self.now = Instant::now();
        self.monotonic_us = self.now.duration_since(self.started).as_micros() as u64;
        // A wall clock before 1970 reads as 1970: expiry is then late, and nothing worse.
        self.wall_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64);
    }

    /// The turn's start.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The turn's start, in microseconds of the node's monotonic clock.
    pub fn monotonic_us(&self) -> u64 {
        self.monotonic_us
    }

    /// The turn's start, in microseconds since the epoch.
    pub fn wall_us(&self) -> i64 {
        self.wall_us
    }

    /// Whether the turn has taken what it may: what is left waits for the next one.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.now.elapsed() >= TURN_MAX
    }

    /// How long the turn has taken.
    pub fn turn(&self) -> Duration {
        self.now.elapsed()
    }

    /// How long the node has run.
    pub fn uptime(&self) -> Duration {
        self.now.duration_since(self.started)
    }
}
