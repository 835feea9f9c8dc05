//! Numbers by chance, for choices that decide nothing that is stored: which key RANDOMKEY names, which are looked at
//! for eviction.
//!
//! Place in the flow: beside the turn's clock; the pure parts get such numbers as arguments.

/// xorshift64*, by Sebastiano Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"
/// (2016).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        // The generator stays at 0 if it is ever there.
        Self(seed | 1)
    }

    /// The next one.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_reach_everywhere() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 16];
        for _ in 0..16_000 {
            seen[(random.next() % 16) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }
}
