//! The 40 hexadecimal digits by which Redis names nodes and runs.
//!
//! Place in the flow: start-up; told by INFO and CLUSTER.
//!
//! Invariants:
//! - A function of the data directory's number and a salt alone, so a core has the same name after every start. Two
//!   names differ from their first digits on, as tools show only those.
//! - Nobody learns the number from any names: it is the key of SipHash-2-4, of which they are results.

use std::fmt::Write as _;
use std::hash::Hasher as _;

/// Digits of a name.
pub const DIGITS: usize = 40;

/// The name made of `node_uuid` and `salt`.
pub fn identifier(node_uuid: u128, salt: u64) -> String {
    let mut name = String::with_capacity(DIGITS + 8);
    for part in 0_u64.. {
        if name.len() >= DIGITS {
            break;
        }
        let _ = write!(name, "{:016x}", sip_hash(node_uuid, [salt, part]));
    }
    name.truncate(DIGITS);
    name
}

/// SipHash-2-4 of two words (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
#[allow(deprecated)] // For a hasher whose algorithm may change one day; the names may not.
fn sip_hash(key: u128, words: [u64; 2]) -> u64 {
    let mut hasher = std::hash::SipHasher::new_with_keys(key as u64, (key >> 64) as u64);
    words.iter().for_each(|word| hasher.write(&word.to_le_bytes()));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_hash_is_the_published_one() {
        // The vector of the paper's reference code for 16 bytes, 0 to 15, under the key of the same bytes.
        let bytes: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
        assert_eq!(sip_hash(bytes, [bytes as u64, (bytes >> 64) as u64]), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn names_are_stable_of_their_length_and_apart_from_the_first_digits_on() {
        // Stored by operators and clients: a change here renames every core of every node.
        assert_eq!(
            identifier(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, 1),
            "8073017a0ac7ea167eabe1d984144297323f2aaa"
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
