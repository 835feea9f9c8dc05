//! Zipf-distributed ranks without a table.
//!
//! Place in the flow: the key choice of `workload`. The method is rejection-inversion (W. Hörmann and G. Derflinger,
//! "Rejection-inversion to generate variates from monotone discrete distributions", 1996): a rank is drawn by inverting
//! the integral of `h(x) = x^-theta`, and the few draws that fall between the integral and the sum are rejected.

/// Ranks from 1 to `count`, rank n in proportion to `1 / n^theta`.
#[derive(Debug, Clone)]
pub struct Zipf {
    count: f64,
    theta: f64,
    /// The integral up to the left end of rank 1's bar.
    low: f64,
    /// The integral up to the right end of the last rank's bar.
    high: f64,
    /// Draws this close below their rank are accepted without looking at the curve.
    surely_accepted: f64,
}

impl Zipf {
    /// `theta` above 0.
    pub fn new(count: u64, theta: f64) -> Self {
        assert!(count >= 1 && theta > 0.0, "checked with the arguments");
        let count = count as f64;
        Self {
            count,
            theta,
            low: integral(1.5, theta) - 1.0,
            high: integral(count + 0.5, theta),
            surely_accepted: 2.0 - inverse_integral(integral(2.5, theta) - 2.0_f64.powf(-theta), theta),
        }
    }

    /// A rank, from numbers in `0..1`. Rejects at most a few draws of a hundred, whatever the parameters.
    #[inline]
    pub fn sample(&self, mut uniform: impl FnMut() -> f64) -> u64 {
        loop {
            let area = self.high + uniform() * (self.low - self.high);
            let position = inverse_integral(area, self.theta);
            let rank = position.round().clamp(1.0, self.count);
            if rank - position <= self.surely_accepted
                || area >= integral(rank + 0.5, self.theta) - rank.powf(-self.theta)
            {
                return rank as u64;
            }
        }
    }
}

/// The integral of `x^-theta` from 1 to `x`: `(x^(1-theta) - 1) / (1-theta)`, and `ln x` where theta is 1.
fn integral(x: f64, theta: f64) -> f64 {
    let log = x.ln();
    expm1_over_x((1.0 - theta) * log) * log
}

/// The inverse of [`integral`].
fn inverse_integral(area: f64, theta: f64) -> f64 {
    // Rounding may leave the argument a hair below -1, where the logarithm ends.
    let argument = (area * (1.0 - theta)).max(-1.0);
    (log1p_over_x(argument) * area).exp()
}

/// `(e^x - 1) / x`, which is 1 at 0.
fn expm1_over_x(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0
    }
}

/// `ln(1 + x) / x`, which is 1 at 0.
fn log1p_over_x(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x / 2.0
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn frequencies_follow_the_law() {
        const DRAWS: u32 = 400_000;
        for theta in [0.5, 0.99, 1.0, 1.5] {
            let zipf = Zipf::new(1000, theta);
            let mut random = SmallRng::seed_from_u64(11);
            let mut counts = vec![0_u32; 1001];
            for _ in 0..DRAWS {
                counts[zipf.sample(|| random.gen()) as usize] += 1;
            }
            let weight = |rank: usize| (rank as f64).powf(-theta);
            let total: f64 = (1..=1000).map(weight).sum();
            assert_eq!(counts[0], 0);
            for rank in [1, 2, 3, 10, 100] {
                let expected = f64::from(DRAWS) * weight(rank) / total;
                let off = (f64::from(counts[rank]) - expected).abs();
                assert!(
                    off < 5.0 * expected.sqrt() + 1.0,
                    "theta {theta}, rank {rank}: {} of {expected}",
                    counts[rank]
                );
            }
        }
    }

    #[test]
    fn every_rank_is_in_range_at_the_extremes() {
        let mut random = SmallRng::seed_from_u64(1);
        for (count, theta) in [(1, 0.99), (2, 5.0), (1_000_000_000_000, 0.01), (1_000_000_000_000, 5.0)] {
            let zipf = Zipf::new(count, theta);
            for _ in 0..10_000 {
                assert!((1..=count).contains(&zipf.sample(|| random.gen())));
            }
        }
    }
}
