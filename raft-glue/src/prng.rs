//! Numbers that look random and follow from a seed.
//!
//! Place in the flow: election timeouts. Source: SplitMix64's output function (Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014).
//!
//! Deliberately not here: a state. A timeout is a function of who and when, however often it is asked for.

/// A number that depends on all of `parts`.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |hash, part| {
        let mut bits = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::mix;

    #[test]
    fn equal_parts_give_equal_numbers_and_each_part_counts() {
        assert_eq!(mix(&[1, 2, 3]), mix(&[1, 2, 3]));
        let numbers = [mix(&[1, 2, 3]), mix(&[2, 2, 3]), mix(&[1, 3, 3]), mix(&[1, 2, 4]), mix(&[3, 2, 1])];
        assert!((1..numbers.len()).all(|i| !numbers[..i].contains(&numbers[i])));
    }

    #[test]
    fn timeouts_spread_over_their_range() {
        let mut seen = [0_u32; 20];
        (0..2000).for_each(|term| seen[(mix(&[7, term]) % 20) as usize] += 1);
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
    }
}
