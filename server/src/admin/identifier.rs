//! The 40 hexadecimal digits by which Redis names nodes and runs.
//!
//! Place in the flow: start-up; told by INFO and CLUSTER.
//!
//! Invariant: a function of the data directory's number and a salt alone, so a core has the same name after every
//! start. Two names differ from their first digits on, as tools show only those.

use std::fmt::Write as _;

/// Digits of a name.
pub const DIGITS: usize = 40;

/// The name made of `node_uuid` and `salt`.
pub fn identifier(node_uuid: u128, salt: u64) -> String {
    let (high, low) = ((node_uuid >> 64) as u64, node_uuid as u64);
    let mut state = mixed(high ^ mixed(low ^ mixed(salt)));
    let mut name = String::with_capacity(DIGITS + 8);
    while name.len() < DIGITS {
        state = mixed(state);
        let _ = write!(name, "{state:016x}");
    }
    name.truncate(DIGITS);
    name
}

/// One step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): every bit of the
/// result depends on every bit of `state`.
fn mixed(state: u64) -> u64 {
    let mut bits = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_stable_of_their_length_and_apart_from_the_first_digits_on() {
        // Stored by operators and clients: a change here renames every core of every node.
        assert_eq!(
            identifier(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, 1),
            "32f6fb79beddea29d26c57228c18e721ec31127b"
        );
        let mut starts = HashSet::new();
        for uuid in [0, 1, u128::MAX, 1 << 64] {
            for core in 0..256 {
                let name = identifier(uuid, core);
                assert!(name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
                assert!(starts.insert(name[..8].to_owned()), "{name}");
            }
        }
    }
}
