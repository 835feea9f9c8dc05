//! How much a counter grows each second, of late: what INFO calls `instantaneous_*`.
//!
//! Place in the flow: told the counter some ten times a second by the core that counts, with the time; pure.
//!
//! Invariant: a rate is over at most [`SAMPLES`] intervals. A counter that nobody told for [`STALE_US`] has no rate: a
//! core that sleeps does nothing.

/// Intervals that a rate is taken over: at ten a second, the last 1.6 seconds, as Redis does.
pub const SAMPLES: usize = 16;
/// After so many microseconds without a sample the rate is 0.
pub const STALE_US: u64 = 3_000_000;
/// Samples closer together than this are not kept: the rate would be over too short a time.
const SPACING_US: u64 = 90_000;

/// The newest samples of a counter.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSampler {
    /// Time in microseconds and value, in a ring.
    samples: [(u64, u64); SAMPLES],
    taken: usize,
}

impl RateSampler {
    /// Tells the counter's value at `now_us` of a monotonic clock.
    pub fn sample(&mut self, now_us: u64, value: u64) {
        if self.taken == 0 || now_us >= self.newest().0 + SPACING_US {
            self.samples[self.taken % SAMPLES] = (now_us, value);
            self.taken += 1;
        }
    }

    fn newest(&self) -> (u64, u64) {
        self.samples[(self.taken + SAMPLES - 1) % SAMPLES]
    }

    /// The growth a second over the samples, at `now_us`.
    pub fn per_second(&self, now_us: u64) -> u64 {
        let newest = self.newest();
        if self.taken < 2 || now_us > newest.0 + STALE_US {
            return 0;
        }
        let oldest = self.samples[if self.taken > SAMPLES { self.taken % SAMPLES } else { 0 }];
        let growth = u128::from(newest.1.saturating_sub(oldest.1)) * 1_000_000;
        (growth / u128::from(newest.0 - oldest.0).max(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_last_samples_and_ends_when_nobody_counts() {
        let mut rate = RateSampler::default();
        assert_eq!(rate.per_second(0), 0);
        for tick in 0..20 {
            rate.sample(tick * 100_000, tick * 50);
            rate.sample(tick * 100_000 + 10, 1_000_000);
        }
        assert_eq!(rate.per_second(1_900_000), 500);
        assert_eq!(rate.per_second(1_900_000 + STALE_US), 500);
        assert_eq!(rate.per_second(1_900_001 + STALE_US), 0);
    }

    #[test]
    fn a_counter_that_stops_and_one_that_was_reset() {
        let mut rate = RateSampler::default();
        rate.sample(0, 100);
        rate.sample(100_000, 300);
        assert_eq!(rate.per_second(100_000), 2000);
        rate.sample(200_000, 0);
        assert_eq!(rate.per_second(200_000), 0);
        (3..40).for_each(|tick| rate.sample(tick * 100_000, 7));
        assert_eq!(rate.per_second(4_000_000), 0);
    }
}
