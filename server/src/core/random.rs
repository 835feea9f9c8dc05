//! Numbers by chance, for choices that decide nothing that is stored: where keys lie in the tables, which key RANDOMKEY
//! names, which are looked at for eviction.
//!
//! Place in the flow: the seeds at start-up; the others beside the turn's clock. The pure parts get such numbers as
//! arguments.
//!
//! Invariant: each seed is drawn for itself, so what a client sees of one choice says nothing about the others.

use crate::disk::kernel_random;
use crate::error::{Stop, StopReason};
use crate::shard::HashSeed;

/// What a core draws from the kernel at each start.
pub(super) struct Seeds {
    /// For the hashes of keys.
    pub hashes: HashSeed,
    /// For where eviction takes its samples.
    pub samples: u64,
    /// For [`Random`].
    pub picks: u64,
}

impl Seeds {
    /// New ones.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn draw() -> Result<Self, Stop> {
        let bytes = kernel_random::<{ 6 * 8 }>().map_err(|error| {
            Stop::new(StopReason::DataDirectory, format!("/dev/urandom: {error}"), "make the device readable")
        })?;
        let number = |place: usize| {
            let bytes = &bytes[place * 8..][..8];
            u64::from_le_bytes(bytes.try_into().unwrap_or_else(|_| unreachable!("eight bytes")))
        };
        Ok(Self { hashes: HashSeed::new([0, 1, 2, 3].map(number)), samples: number(4), picks: number(5) })
    }
}

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
