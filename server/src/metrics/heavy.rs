//! Commands on one key that moved much memory, and how long each of them took.
//!
//! Place in the flow: told in steps 5 (a read) and 8 (a write is applied), by the core that owns the key; when the turn
//! ends they go on to the core that holds the client, for SLOWLOG, LATENCY and INFO.
//!
//! A look at the clock costs a good part of a small command, so no small command is timed. It need not be: what a
//! command takes beyond a fraction of a millisecond is copying, and from [`HEAVY_BYTES`] on that is worth a look at the
//! clock. A read is timed from before its reply is copied until after. A write is timed from the core's last look at
//! the clock, which is the turn's start or the last heavy command: so its time may have in it what the turn did before,
//! a millisecond at the most.
//!
//! Invariants:
//! - What took less than [`RUN_US_MIN`] is not kept: a threshold below it has every command timed by itself.
//! - At most [`RUNS_MAX`] of a turn are kept; of those beyond, the time alone.
//!
//! Deliberately not here: the thresholds, the clock, and the words that a command is told with.

use std::time::Instant;

use crate::router::ReplyTo;

/// What a command must copy to be timed by itself: less takes a fraction of a millisecond.
pub const HEAVY_BYTES: usize = 1 << 20;
/// The shortest time that is told, in microseconds.
pub const RUN_US_MIN: u64 = 1000;
/// How many are told of a turn: each of them is longer than a turn should be.
pub const RUNS_MAX: usize = 64;

/// A command that took long.
#[derive(Debug, Clone)]
pub struct HeavyRun {
    /// Who asked: never a gather of the core that tells it.
    pub to: ReplyTo,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Its name and arguments, shortened.
    pub arguments: Vec<Vec<u8>>,
}

/// Those of this turn.
#[derive(Debug, Clone, Default)]
pub struct HeavyRuns {
    runs: Vec<HeavyRun>,
    /// The time of all of them, those included that were not kept.
    total_ns: u64,
    /// When the core last looked at the clock for one of them.
    looked: Option<Instant>,
}

impl HeavyRuns {
    /// From when on a write is timed that was just applied, in the turn that began at `turn`.
    pub fn since(&self, turn: Instant) -> Instant {
        self.looked.map_or(turn, |looked| looked.max(turn))
    }

    /// Notes that what `to` asked for took from `started` to `ended`; `arguments` are asked for if that is told.
    pub fn note(&mut self, to: ReplyTo, started: Instant, ended: Instant, arguments: impl FnOnce() -> Vec<Vec<u8>>) {
        self.looked = Some(ended);
        let took = ended.duration_since(started);
        let took_us = took.as_micros() as u64;
        if took_us < RUN_US_MIN {
            return;
        }
        self.total_ns += took.as_nanos() as u64;
        if self.runs.len() < RUNS_MAX {
            self.runs.push(HeavyRun { to, took_us, arguments: arguments() });
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there was none in this turn.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.total_ns == 0
    }

    /// The time of all that were noted in this turn, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// Forgets all but the first `len`, whose time was `total_ns`: whoever timed the others as a whole tells of them.
    pub fn truncate(&mut self, len: usize, total_ns: u64) {
        self.runs.truncate(len);
        self.total_ns = total_ns;
    }

    /// Those of the turn, which ends.
    pub fn take(&mut self) -> Vec<HeavyRun> {
        self.total_ns = 0;
        std::mem::take(&mut self.runs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eyot_protocol::request::Operation;

    use super::*;
    use crate::router::Form;

    fn to() -> ReplyTo {
        let (operation, form) = (Operation::Get, Form::Silent);
        ReplyTo { core: 0, operation, gathered: false, form, key: 0, generation: 0, number: 0, arrived_us: 0 }
    }

    #[test]
    fn a_write_is_timed_from_the_last_heavy_one_of_its_turn_on() {
        let turn = Instant::now();
        let after = |ms: u64| turn + Duration::from_millis(ms);
        let mut runs = HeavyRuns::default();
        assert_eq!(runs.since(turn), turn);
        runs.note(to(), turn, after(5), || vec![b"APPEND".to_vec()]);
        assert_eq!((runs.since(turn), runs.since(after(7))), (after(5), after(7)));
        assert_eq!((runs.len(), runs.total_ns(), runs.take()[0].took_us), (1, 5_000_000, 5000));
        assert!(runs.is_empty());
    }

    #[test]
    fn short_ones_are_not_kept_and_of_too_many_only_the_time() {
        let turn = Instant::now();
        let mut runs = HeavyRuns::default();
        runs.note(to(), turn, turn + Duration::from_micros(RUN_US_MIN - 1), || unreachable!("it is not told"));
        assert!(runs.is_empty());
        for _ in 0..=RUNS_MAX {
            runs.note(to(), turn, turn + Duration::from_micros(RUN_US_MIN), Vec::new);
        }
        assert_eq!((runs.len(), runs.total_ns()), (RUNS_MAX, (RUNS_MAX as u64 + 1) * RUN_US_MIN * 1000));
        runs.truncate(1, 1_000_000);
        assert_eq!((runs.len(), runs.total_ns()), (1, 1_000_000));
    }
}
