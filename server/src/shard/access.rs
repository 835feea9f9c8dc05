//! What the access word of an entry says: 32 bits that remember when, or how often, a key was used.
//!
//! Place in the flow: written when a key is read (step 5) or written (step 8), read when a key is to be evicted and by
//! OBJECT IDLETIME and FREQ. Pure: the time and a random number are arguments.
//!
//! ```text
//! recency     | last use: hundredths of a second, 32 bits |             wraps after 497 days
//! frequency   | last use: seconds, 24 bits | log counter, 8 bits |      wraps after 194 days
//! ```
//!
//! Redis keeps 24 bits of seconds for recency, and 16 bits of minutes beside the counter for frequency. The finer clock
//! costs nothing here and tells apart keys that were last used in the same second; among keys that are used equally
//! seldom, the one that was not used for longer goes first, where Redis takes either.
//!
//! Invariants:
//! - No state follows from a word: it is not in the log, and replicas may differ in it.
//! - A word that was written under the other meaning is read as some time or some count, never as an error: for a while
//!   after a change of the policy, victims are chosen worse.

/// Microseconds of one step of the recency clock.
const RECENCY_TICK_US: i64 = 10_000;
/// Microseconds of one step of the frequency clock.
const FREQUENCY_TICK_US: i64 = 1_000_000;
/// Steps of the frequency clock in a minute, after which a counter decays.
const TICKS_PER_MINUTE: u32 = 60;
/// Bits of the log counter.
const COUNTER_BITS: u32 = 8;
const COUNTER_MASK: u32 = (1 << COUNTER_BITS) - 1;
/// The last value of the frequency clock before it begins again.
const FREQUENCY_TIME_MASK: u32 = u32::MAX >> COUNTER_BITS;
/// What the counter of a new key begins with (Redis's `LFU_INIT_VAL`): a key that has just come must not be the first
/// to go.
const COUNTER_INITIAL: u32 = 5;

/// What the words of a node's entries remember, by the eviction policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// When a key was used last.
    Recency,
    /// How often a key was used, forgetting with time.
    Frequency {
        /// The larger, the more uses a step of the counter takes (Redis's `lfu-log-factor`).
        log_factor: u32,
        /// Minutes without a use after which a counter loses one; 0: never (Redis's `lfu-decay-time`).
        decay_minutes: u32,
    },
}

/// Reads and writes access words, at the time for which it was made: once a turn.
#[derive(Debug, Clone, Copy)]
pub struct AccessClock {
    tracking: Tracking,
    now_us: i64,
}

impl AccessClock {
    /// A clock that stands at `now_us`, microseconds since the epoch.
    pub fn new(tracking: Tracking, now_us: i64) -> Self {
        Self { tracking, now_us }
    }

    /// Its time.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// What the words remember.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    #[inline]
    fn recency_now(&self) -> u32 {
        (self.now_us / RECENCY_TICK_US) as u32
    }

    #[inline]
    fn frequency_now(&self) -> u32 {
        (self.now_us / FREQUENCY_TICK_US) as u32 & FREQUENCY_TIME_MASK
    }

    /// The word of a key that was not there before.
    #[inline]
    pub fn created(&self) -> u32 {
        match self.tracking {
            Tracking::Recency => self.recency_now(),
            Tracking::Frequency { .. } => self.frequency_now() << COUNTER_BITS | COUNTER_INITIAL,
        }
    }

    /// The word of a key that is used now, and whose word was `word`. `random` is any 32 random bits.
    #[inline]
    pub fn touched(&self, word: u32, random: u32) -> u32 {
        match self.tracking {
            Tracking::Recency => self.recency_now(),
            Tracking::Frequency { log_factor, .. } => {
                let counter = count_one(self.decayed(word), log_factor, random);
                self.frequency_now() << COUNTER_BITS | counter
            }
        }
    }

    /// How long the key of `word` has not been used, in microseconds, to within the clock's step.
    pub fn idle_us(&self, word: u32) -> u64 {
        match self.tracking {
            Tracking::Recency => u64::from(self.recency_now().wrapping_sub(word)) * RECENCY_TICK_US as u64,
            Tracking::Frequency { .. } => u64::from(self.idle_ticks(word)) * FREQUENCY_TICK_US as u64,
        }
    }

    /// The log counter of `word`, decayed up to now; `None` where words remember recency.
    pub fn frequency(&self, word: u32) -> Option<u8> {
        match self.tracking {
            Tracking::Recency => None,
            Tracking::Frequency { .. } => Some(self.decayed(word) as u8),
        }
    }

    /// How good a victim the key of `word` is: the larger, the better.
    #[inline]
    pub fn coldness(&self, word: u32) -> u64 {
        match self.tracking {
            Tracking::Recency => u64::from(self.recency_now().wrapping_sub(word)),
            Tracking::Frequency { .. } => {
                u64::from(COUNTER_MASK - self.decayed(word)) << 32 | u64::from(self.idle_ticks(word))
            }
        }
    }

    #[inline]
    fn idle_ticks(&self, word: u32) -> u32 {
        self.frequency_now().wrapping_sub(word >> COUNTER_BITS) & FREQUENCY_TIME_MASK
    }

    /// The counter less what it has lost since the last use: one for each time the clock's minute has changed
    /// `decay_minutes` times. Changes of the minute are counted, not whole minutes since the last use, or a key that is
    /// used more than once a minute would never lose anything.
    #[inline]
    fn decayed(&self, word: u32) -> u32 {
        let counter = word & COUNTER_MASK;
        let Tracking::Frequency { decay_minutes: 1.., .. } = self.tracking else { return counter };
        let Tracking::Frequency { decay_minutes, .. } = self.tracking else { return counter };
        let last = word >> COUNTER_BITS;
        let minutes = (last % TICKS_PER_MINUTE + self.idle_ticks(word)) / TICKS_PER_MINUTE;
        counter.saturating_sub(minutes / decay_minutes)
    }
}

/// The counter after one more use: a use counts with the probability `1 / ((counter - initial) * log_factor + 1)`, so
/// that eight bits tell a hundred uses from a million.
#[inline]
fn count_one(counter: u32, log_factor: u32, random: u32) -> u32 {
    if counter >= COUNTER_MASK {
        return COUNTER_MASK;
    }
    let steps = u64::from(counter.saturating_sub(COUNTER_INITIAL)) * u64::from(log_factor) + 1;
    // random / 2^32 < 1 / steps, in whole numbers.
    counter + u32::from(u64::from(random) * steps < 1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: i64 = 60_000_000;
    const FREQUENCY: Tracking = Tracking::Frequency { log_factor: 10, decay_minutes: 1 };

    fn at(tracking: Tracking, now_us: i64) -> AccessClock {
        AccessClock::new(tracking, now_us)
    }

    /// Random enough: the top bits of a multiplicative sequence.
    fn random(state: &mut u64) -> u32 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 32) as u32
    }

    #[test]
    fn recency_tells_hundredths_of_a_second_apart_and_outlives_a_wrap() {
        let word = at(Tracking::Recency, 1_000_000_000).created();
        let clock = at(Tracking::Recency, 1_000_000_000 + 30_000);
        assert_eq!((clock.idle_us(word), clock.coldness(word)), (30_000, 3));
        assert!(clock.coldness(word) > clock.coldness(clock.touched(word, 0)));
        let wrap_us = (i64::from(u32::MAX) + 1) * RECENCY_TICK_US;
        let before = at(Tracking::Recency, wrap_us - RECENCY_TICK_US).created();
        assert_eq!(at(Tracking::Recency, wrap_us + RECENCY_TICK_US).idle_us(before), 2 * RECENCY_TICK_US as u64);
        assert_eq!(clock.frequency(word), None);
    }

    #[test]
    fn the_counter_grows_with_the_logarithm_of_the_uses() {
        // The table that Redis documents for its own counter: factor 10, 100 uses give about 10, a million about 255.
        let counter_after = |uses: u32| {
            let (mut word, mut state) = (at(FREQUENCY, 0).created(), 7);
            for _ in 0..uses {
                word = at(FREQUENCY, 0).touched(word, random(&mut state));
            }
            at(FREQUENCY, 0).frequency(word).unwrap()
        };
        assert_eq!(counter_after(0), 5);
        assert!((7..=13).contains(&counter_after(100)), "{}", counter_after(100));
        assert!((14..=24).contains(&counter_after(1000)), "{}", counter_after(1000));
        assert!((120..=165).contains(&counter_after(100_000)), "{}", counter_after(100_000));
        assert_eq!(counter_after(2_000_000), 255);
    }

    #[test]
    fn counters_decay_with_each_change_of_the_minute() {
        let word = 30 << COUNTER_BITS | 9;
        let frequency = |now_us: i64, decay_minutes| {
            at(Tracking::Frequency { log_factor: 10, decay_minutes }, now_us).frequency(word).unwrap()
        };
        assert_eq!(frequency(59_000_000, 1), 9);
        assert_eq!(frequency(MINUTE_US, 1), 8);
        assert_eq!(frequency(5 * MINUTE_US, 1), 4);
        assert_eq!(frequency(5 * MINUTE_US, 2), 7);
        assert_eq!(frequency(100 * MINUTE_US, 1), 0);
        assert_eq!(frequency(100 * MINUTE_US, 0), 9);
        // Used every 40 seconds, a key loses one every minute, and not nothing.
        let mut word = 100;
        for step in 1..=30 {
            word = at(FREQUENCY, step * 40_000_000).touched(word, u32::MAX);
        }
        assert_eq!(word & COUNTER_MASK, 100 - 20);
    }

    #[test]
    fn the_seldom_used_go_first_and_among_them_the_long_unused() {
        let clock = at(FREQUENCY, 100 * 1_000_000);
        let word = |seconds: u32, counter: u32| seconds << COUNTER_BITS | counter;
        let coldest_first = [word(50 + 20, 5), word(50 + 30, 5), word(50 + 12, 6), word(99, 200)];
        assert!(coldest_first.is_sorted_by(|left, right| clock.coldness(*left) > clock.coldness(*right)));
        assert_eq!(clock.idle_us(word(70, 5)), 30_000_000);
    }

    #[test]
    fn a_word_of_the_other_meaning_is_read_as_something() {
        let (recency, frequency) = (at(Tracking::Recency, 1 << 50), at(FREQUENCY, 1 << 50));
        for word in [0, 1, u32::MAX, recency.created(), frequency.created()] {
            for clock in [recency, frequency] {
                let _ = (clock.coldness(word), clock.idle_us(word), clock.frequency(word));
                let _ = clock.coldness(clock.touched(word, 1));
            }
        }
    }
}
