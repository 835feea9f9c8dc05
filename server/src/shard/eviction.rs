//! Which key should go when memory is short: the policies, and the choice among samples.
//!
//! Place in the flow: between the turn that finds memory short and step 5, where the choice becomes a logged delete.
//! Pure: whoever calls it brings the samples, the time and the random numbers, and does what was decided.
//!
//! A policy looks at a few keys at a time. As Redis does, the best candidates of earlier samplings are kept in a small
//! [`Pool`] for the next choice: five samples a choice then come close to knowing every key. Unlike Redis's, the pool
//! names the version that was seen, so a key that was written meanwhile is no victim, and its caller looks at a
//! candidate again before it goes.
//!
//! Invariant: a decision names a version; a delete of it does nothing to a key that was written since.
//!
//! Deliberately not here: how much has to go (`memory/pressure.rs`), and how (`core/memory_pressure.rs`).

use eyot_raft_glue::Version;

use super::access::{AccessClock, Tracking};
use super::{scan, Place, Shard};

/// Candidates that are kept from one choice to the next: as many as Redis keeps.
pub const POOL_CANDIDATES: usize = 16;

/// What goes when memory is short. The names are Redis's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Nothing: writes are refused.
    #[default]
    NoEviction,
    /// Of all keys, those that were not used for longest.
    AllKeysLru,
    /// The same of keys with an expiry.
    VolatileLru,
    /// Of all keys, those that are used least often.
    AllKeysLfu,
    /// The same of keys with an expiry.
    VolatileLfu,
    /// Any key.
    AllKeysRandom,
    /// Any key with an expiry.
    VolatileRandom,
    /// Keys that would expire soonest.
    VolatileTtl,
}

impl Policy {
    /// Every policy. Its place here is its number.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::VolatileLru,
        Self::AllKeysLfu,
        Self::VolatileLfu,
        Self::AllKeysRandom,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::VolatileLru => "volatile-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::VolatileLfu => "volatile-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy of this name, in any case.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Its place in [`Policy::ALL`].
    pub fn number(self) -> u8 {
        Self::ALL.iter().position(|policy| *policy == self).expect("every policy is listed") as u8
    }

    /// The policy with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether anything goes at all.
    pub fn evicts(self) -> bool {
        self != Self::NoEviction
    }

    /// Whether only keys with an expiry go.
    pub fn expiring_only(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// Whether it needs to know how often keys are used; all others get by with when.
    pub fn counts_uses(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    /// What access words have to remember for it.
    pub fn tracking(self, log_factor: u32, decay_minutes: u32) -> Tracking {
        if self.counts_uses() {
            Tracking::Frequency { log_factor, decay_minutes }
        } else {
            Tracking::Recency
        }
    }

    /// Whether a choice gets better by comparing samples.
    pub fn compares(self) -> bool {
        !matches!(self, Self::NoEviction | Self::AllKeysRandom | Self::VolatileRandom)
    }

    /// How good a victim a key is, the larger the better: with this access word, and this expiry in microseconds since
    /// the epoch.
    #[inline]
    pub fn fitness(self, clock: &AccessClock, access: u32, expires_at_us: Option<i64>) -> u64 {
        // Nobody can read it any more, so nobody misses it.
        if expires_at_us.is_some_and(|at_us| at_us <= clock.now_us()) && self.compares() {
            return u64::MAX;
        }
        match self {
            Self::NoEviction => 0,
            Self::AllKeysLru | Self::VolatileLru | Self::AllKeysLfu | Self::VolatileLfu => clock.coldness(access),
            Self::AllKeysRandom | Self::VolatileRandom => 1,
            // The sooner, the fitter; without an expiry, never.
            Self::VolatileTtl => expires_at_us.map_or(0, |at_us| u64::MAX - at_us.max(0) as u64),
        }
    }
}

/// A key that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its shard's place on the core.
    pub local_shard: u16,
    /// Where it lives.
    pub place: Place,
    /// What it was written with: no other key of its shard has that.
    pub version: Version,
    /// How good a victim it was when it was seen.
    pub fitness: u64,
}

impl Shard {
    /// The key at `place` with this `version`, if it is still there: what a candidate looks like now.
    pub fn eviction_candidate(&self, place: Place, version: Version) -> Option<scan::Candidate<'_>> {
        self.tables.find_by(place, |entry| entry.version() == version).map(scan::Candidate::new)
    }
}

/// The best candidates of the last samplings, the best one last.
#[derive(Debug, Default)]
pub struct Pool {
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Takes the key with `version` of shard `local_shard` in if it is better than the worst that is kept, or there is
    /// room. Where it lives is asked for only then.
    pub fn offer(&mut self, local_shard: u16, version: Version, fitness: u64, place: impl FnOnce() -> Place) {
        let at = self.candidates.partition_point(|kept| kept.fitness < fitness);
        let full = self.candidates.len() == POOL_CANDIDATES;
        // The same key may have been seen before, fitter or less fit than now.
        let known = |kept: &Candidate| kept.version == version && kept.local_shard == local_shard;
        if (full && at == 0) || self.candidates.iter().any(known) {
            return;
        }
        let candidate = Candidate { local_shard, place: place(), version, fitness };
        if full {
            self.candidates.copy_within(1..at, 0);
            self.candidates[at - 1] = candidate;
        } else {
            self.candidates.insert(at, candidate);
        }
    }

    /// Takes the best candidate out.
    pub fn take_best(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }

    /// How good the best candidate was when it was seen.
    pub fn best_fitness(&self) -> Option<u64> {
        self.candidates.last().map(|candidate| candidate.fitness)
    }

    /// Forgets all: what was good for one policy is not for another.
    pub fn clear(&mut self) {
        self.candidates.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }
}

/// Random numbers for choices that need no secrecy: where to sample, whether a use counts. A SplitMix64 sequence
/// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// A sequence that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    #[inline]
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`, which is above 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests;
