//! Values that name themselves, and the book that says which value a read may return.
//!
//! Place in the flow: with `--verify`, a write claims its key here before it is encoded and settles it when it is
//! answered; a read notes the floor of its key when it is sent and is checked when it is answered.
//!
//! ```text
//! 0        8             12       16           20
//! | key u64 | sequence u32 | run u32 | crc32c u32 | filler ... |    crc32c: of everything else; little-endian
//! ```
//!
//! The filler depends on key, sequence and run, so a value that was put together from two writes fails its checksum.
//!
//! Per key: `issued`, the sequence of the newest write sent; `settled`, of the newest write answered; `floor`, of the
//! newest write acknowledged or seen by a read. A key has at most one write outstanding (`issued` differs from
//! `settled`), because of two concurrent writes nobody outside the server knows which came last. A read must return a
//! sequence from its floor at the time of sending to `issued` at the time of the answer.
//!
//! Deliberately not checked: values from before this run, as long as it has written nothing to their key (they are
//! counted as unverified); and whether a write that was answered with an error took effect (its value is allowed, not
//! demanded).

use std::sync::atomic::{AtomicU32, Ordering};

/// The smallest value that can name itself.
pub const MIN_NAMED_VALUE_BYTES: usize = 20;

const RUN_AT: usize = 12;
const CHECKSUM_AT: usize = 16;

/// A finding: why a value must not have been returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A key without a value.
    #[error("missing, but write {floor} was acknowledged or read before")]
    Missing {
        /// The oldest sequence allowed.
        floor: u32,
    },
    /// A value of another origin or length.
    #[error("{bytes} bytes that this run did not write, but write {floor} was acknowledged or read before")]
    Foreign {
        /// The value's length.
        bytes: usize,
        /// The oldest sequence allowed.
        floor: u32,
    },
    /// A value whose parts do not fit together.
    #[error("torn or damaged: says key {key} and write {sequence}, but the checksum is wrong")]
    Damaged {
        /// The key that the value names.
        key: u64,
        /// The sequence that the value names.
        sequence: u32,
    },
    /// Another key's value.
    #[error("the value of key number {of_key} (write {sequence})")]
    OtherKey {
        /// The key that the value names.
        of_key: u64,
        /// The sequence that the value names.
        sequence: u32,
    },
    /// A value older than one that was acknowledged or read before the read was sent.
    #[error("stale: write {sequence}, but write {floor} was acknowledged or read before")]
    Stale {
        /// The sequence that the value names.
        sequence: u32,
        /// The oldest sequence allowed.
        floor: u32,
    },
    /// A value that was never sent.
    #[error("write {sequence}, which was never sent; the newest was {issued}")]
    NeverWritten {
        /// The sequence that the value names.
        sequence: u32,
        /// The newest sequence that was sent.
        issued: u32,
    },
}

/// A read that is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The value, or its absence, was checked against this run's writes.
    Checked,
    /// This run had written nothing to the key when the read was sent.
    NothingToCompare,
}

#[derive(Debug, Default)]
struct KeyState {
    issued: AtomicU32,
    settled: AtomicU32,
    floor: AtomicU32,
}

/// What is known of every key, shared by all threads.
#[derive(Debug)]
pub struct Ledger {
    run: u32,
    keys: Vec<KeyState>,
}

impl Ledger {
    /// For keys `0..keys`. `run` tells this run's values from those of others.
    pub fn new(keys: u64, run: u32) -> Self {
        Self { run, keys: std::iter::repeat_with(KeyState::default).take(keys as usize).collect() }
    }

    /// Claims the key for a write and returns the write's sequence, from 1; `None` while another is outstanding.
    pub fn claim(&self, key: u64) -> Option<u32> {
        let state = &self.keys[key as usize];
        let settled = state.settled.load(Ordering::Acquire);
        let next = settled.checked_add(1).expect("fewer than 2^32 writes of a key");
        state.issued.compare_exchange(settled, next, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| next)
    }

    /// The write of this sequence was answered.
    pub fn settle(&self, key: u64, sequence: u32, acknowledged: bool) {
        let state = &self.keys[key as usize];
        if acknowledged {
            state.floor.fetch_max(sequence, Ordering::AcqRel);
        }
        state.settled.store(sequence, Ordering::Release);
    }

    /// The oldest sequence that a read sent from now on may return; 0: nothing is known.
    pub fn floor(&self, key: u64) -> u32 {
        self.keys[key as usize].floor.load(Ordering::Acquire)
    }

    /// Fills `value` with the value of this write.
    pub fn name_value(&self, value: &mut [u8], key: u64, sequence: u32) {
        name_value(value, key, sequence, self.run);
    }

    /// Checks what a read of `key` returned (`None`: the key was missing; `Some(None)`: a value of another type), which
    /// had this `floor` when it was sent. Values of this run are `value_bytes` long.
    ///
    /// # Errors
    /// Why the server must not have returned that.
    pub fn check(&self, key: u64, floor: u32, found: Option<&[u8]>, value_bytes: usize) -> Result<Verified, Violation> {
        let unless_written = |violation| if floor == 0 { Ok(Verified::NothingToCompare) } else { Err(violation) };
        let Some(value) = found else { return unless_written(Violation::Missing { floor }) };
        let Some(named) = Named::read(value).filter(|named| named.run == self.run && value.len() == value_bytes) else {
            return unless_written(Violation::Foreign { bytes: value.len(), floor });
        };
        let Named { key: of_key, sequence, .. } = named;
        let state = &self.keys[key as usize];
        let issued = state.issued.load(Ordering::Acquire);
        if checksum(value) != named.checksum {
            return Err(Violation::Damaged { key: of_key, sequence });
        }
        if of_key != key {
            return Err(Violation::OtherKey { of_key, sequence });
        }
        if sequence > issued || sequence == 0 {
            return Err(Violation::NeverWritten { sequence, issued });
        }
        if sequence < floor {
            return Err(Violation::Stale { sequence, floor });
        }
        // What one read has seen, a later one must see.
        state.floor.fetch_max(sequence, Ordering::AcqRel);
        Ok(Verified::Checked)
    }
}

struct Named {
    key: u64,
    sequence: u32,
    run: u32,
    checksum: u32,
}

impl Named {
    fn read(value: &[u8]) -> Option<Self> {
        let (key, rest) = value.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            key: u64::from_le_bytes(*key),
            sequence: u32::from_le_bytes(*sequence),
            run: u32::from_le_bytes(*run),
            checksum: u32::from_le_bytes(*checksum),
        })
    }
}

/// Fills `value`, at least [`MIN_NAMED_VALUE_BYTES`] long, with the value that this write of this key has.
pub fn name_value(value: &mut [u8], key: u64, sequence: u32, run: u32) {
    value[..8].copy_from_slice(&key.to_le_bytes());
    value[8..RUN_AT].copy_from_slice(&sequence.to_le_bytes());
    value[RUN_AT..CHECKSUM_AT].copy_from_slice(&run.to_le_bytes());
    let mut state = key ^ (u64::from(sequence) << 32) ^ u64::from(run).rotate_left(17);
    for piece in value[MIN_NAMED_VALUE_BYTES..].chunks_mut(8) {
        piece.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..piece.len()]);
    }
    let checksum = checksum(value);
    value[CHECKSUM_AT..MIN_NAMED_VALUE_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&value[..CHECKSUM_AT]), &value[MIN_NAMED_VALUE_BYTES..])
}

/// The next number of the SplitMix64 sequence.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 64;

    fn value(ledger: &Ledger, key: u64, sequence: u32) -> Vec<u8> {
        let mut value = vec![0; BYTES];
        ledger.name_value(&mut value, key, sequence);
        value
    }

    fn write(ledger: &Ledger, key: u64) -> Vec<u8> {
        let sequence = ledger.claim(key).unwrap();
        ledger.settle(key, sequence, true);
        value(ledger, key, sequence)
    }

    #[test]
    fn the_newest_and_the_outstanding_write_are_allowed_and_older_ones_are_stale() {
        let ledger = Ledger::new(10, 1);
        let first = write(&ledger, 3);
        assert_eq!(ledger.check(3, ledger.floor(3), Some(&first), BYTES), Ok(Verified::Checked));
        let old_floor = ledger.floor(3);
        let second = ledger.claim(3).unwrap();
        assert_eq!(ledger.claim(3), None, "one outstanding write a key");
        let second_value = value(&ledger, 3, second);
        assert_eq!(ledger.check(3, old_floor, Some(&first), BYTES), Ok(Verified::Checked));
        assert_eq!(ledger.check(3, old_floor, Some(&second_value), BYTES), Ok(Verified::Checked));
        // The outstanding write was seen: a read that is sent after that must see it, too.
        let stale = ledger.check(3, ledger.floor(3), Some(&first), BYTES);
        assert_eq!(stale, Err(Violation::Stale { sequence: 1, floor: 2 }));
        assert_eq!(ledger.check(3, old_floor, Some(&first), BYTES), Ok(Verified::Checked), "sent before");
    }

    #[test]
    fn missing_foreign_and_invented_values_are_found_once_a_write_was_acknowledged() {
        let ledger = Ledger::new(10, 1);
        assert_eq!(ledger.check(5, ledger.floor(5), None, BYTES), Ok(Verified::NothingToCompare));
        assert_eq!(ledger.check(5, ledger.floor(5), Some(b"old"), BYTES), Ok(Verified::NothingToCompare));
        let never = value(&ledger, 5, 1);
        let found = ledger.check(5, ledger.floor(5), Some(&never), BYTES);
        assert_eq!(found, Err(Violation::NeverWritten { sequence: 1, issued: 0 }));
        write(&ledger, 5);
        let floor = ledger.floor(5);
        assert_eq!(ledger.check(5, floor, None, BYTES), Err(Violation::Missing { floor: 1 }));
        assert_eq!(ledger.check(5, floor, Some(b"old"), BYTES), Err(Violation::Foreign { bytes: 3, floor: 1 }));
        let other_run = value(&Ledger::new(10, 2), 5, 1);
        assert!(matches!(ledger.check(5, floor, Some(&other_run), BYTES), Err(Violation::Foreign { .. })));
        let of_key_6 = write(&ledger, 6);
        let other = ledger.check(5, floor, Some(&of_key_6), BYTES);
        assert_eq!(other, Err(Violation::OtherKey { of_key: 6, sequence: 1 }));
    }

    #[test]
    fn every_flipped_bit_and_every_torn_mix_is_found() {
        let ledger = Ledger::new(10, 1);
        let (first, second) = (write(&ledger, 2), write(&ledger, 2));
        for bit in 0..BYTES * 8 {
            let mut damaged = second.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ledger.check(2, ledger.floor(2), Some(&damaged), BYTES).is_err(), "bit {bit}");
        }
        for cut in 1..BYTES {
            let torn = [&first[..cut], &second[cut..]].concat();
            if torn != second && torn != first {
                assert!(ledger.check(2, ledger.floor(2), Some(&torn), BYTES).is_err(), "cut {cut}");
            }
            let short = ledger.check(2, ledger.floor(2), Some(&second[..cut]), BYTES);
            assert!(short.is_err(), "cut short at {cut}");
        }
    }

    #[test]
    fn a_write_that_failed_raises_no_floor_and_frees_its_key() {
        let ledger = Ledger::new(10, 1);
        let first = write(&ledger, 1);
        let failed = ledger.claim(1).unwrap();
        ledger.settle(1, failed, false);
        assert_eq!(ledger.check(1, ledger.floor(1), Some(&first), BYTES), Ok(Verified::Checked));
        assert_eq!(ledger.claim(1), Some(failed + 1));
    }
}
