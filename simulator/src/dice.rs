//! The only source of chance in a world: a small generator, one stream for each purpose.
//!
//! Place in the flow: below everything. Each part of the world (network, disks, clients, faults) rolls dice of its own,
//! so that leaving out a fault does not change what the network does: that is what makes shrinking work.
//!
//! Source: SplitMix64, by Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.

/// A stream of numbers that follows from a seed alone.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every bit of `value` reaches every bit of the result: the finalizer of SplitMix64.
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Dice {
    /// The stream `purpose` of a world.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self { state: mix(mix(seed) ^ purpose.wrapping_mul(GAMMA)) }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        debug_assert!(end > 0, "there is no number below 0");
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Yes, in `per_million` of a million cases.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of `choices`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            return None;
        }
        choices.get(self.below(choices.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_stream_and_each_purpose_its_own() {
        let numbers = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (0..8).map(|_| dice.number()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
        assert_ne!(numbers(1, 2), numbers(2, 2));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut dice = Dice::new(7, 7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[dice.between(3, 7) as usize - 3] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert!(!dice.chance(0) && dice.chance(1_000_000));
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
