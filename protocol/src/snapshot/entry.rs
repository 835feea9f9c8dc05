//! One entry of a snapshot, and the order in which entries stand.
//!
//! Place in the flow: what the writer is given and the decoder hands out. Both keep the same order, so that a key
//! cannot stand twice and the same entries always give the same bytes.

/// A key with all that a shard knows of it, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key's slot.
    pub slot: u16,
    /// The key.
    pub key: &'a [u8],
    /// The value: one encoded TLV value.
    pub value: &'a [u8],
    /// Log index and position, as one number: index * 65,536 + position.
    pub version: u64,
    /// When it expires, in microseconds since the epoch.
    pub expires_at_us: Option<i64>,
}

/// The key that came last.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// `None`: no key has come.
    slot: Option<u16>,
    key: Vec<u8>,
}

impl Order {
    pub(super) fn last_slot(&self) -> Option<u16> {
        self.slot
    }

    /// The key that came last; empty before the first.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// How many bytes `key` begins with that the last key begins with, too; and whether it may come next.
    #[inline]
    pub(super) fn compare(&self, slot: u16, key: &[u8]) -> (usize, bool) {
        let shared = common_prefix(&self.key, key);
        let follows = match self.slot {
            // Behind what they share they differ, or one of them is over, or they are the same.
            Some(last) if last == slot => match (key.get(shared), self.key.get(shared)) {
                (Some(byte), Some(last)) => byte > last,
                (byte, _) => byte.is_some(),
            },
            Some(last) => last < slot,
            None => true,
        };
        (shared, follows)
    }

    /// Takes a key that begins with the first `shared` bytes of the last one and goes on with `rest`. Does not ask for
    /// its order: [`Order::compare`] does.
    #[inline]
    pub(super) fn advance(&mut self, slot: u16, shared: usize, rest: &[u8]) {
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        self.slot = Some(slot);
    }

    /// Takes a key that begins with the first `shared` bytes of the last one, for which [`slot`](crate::key::slot) is
    /// not known yet. Tells its slot, and whether it comes after the last one.
    #[inline]
    pub(super) fn advance_to(&mut self, shared: usize, rest: &[u8]) -> (u16, bool) {
        let greater = *rest > self.key[shared..];
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        let slot = crate::key::slot(&self.key);
        let follows = match self.slot {
            Some(last) if last == slot => greater,
            Some(last) => last < slot,
            None => true,
        };
        self.slot = Some(slot);
        (slot, follows)
    }
}

/// How many bytes `one` and `other` begin with alike.
#[inline]
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let mut shared = 0;
    for (a, b) in one.chunks_exact(8).zip(other.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        let difference = word(a) ^ word(b);
        if difference != 0 {
            return shared + (difference.trailing_zeros() / 8) as usize;
        }
        shared += 8;
    }
    let rest = one[shared..].iter().zip(&other[shared..]);
    shared + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_prefix_is_found_at_every_length() {
        for length in 0..40_usize {
            let one: Vec<u8> = (0..length as u8).collect();
            assert_eq!(common_prefix(&one, &one), length);
            for at in 0..length {
                let mut other = one.clone();
                other[at] ^= 0x80;
                assert_eq!(common_prefix(&one, &other), at);
                assert_eq!(common_prefix(&one, &other[..at]), at);
                assert_eq!(common_prefix(&one[..at], &one), at);
            }
        }
    }

    #[test]
    fn keys_come_by_slot_and_then_by_their_bytes() {
        let mut order = Order::default();
        assert_eq!(order.compare(9, b"b"), (0, true));
        order.advance(9, 0, b"b");
        for (slot, key, shared, follows) in [
            (9, &b"b"[..], 1, false),
            (9, b"a", 0, false),
            (9, b"", 0, false),
            (9, b"ba", 1, true),
            (9, b"c", 0, true),
            (8, b"c", 0, false),
            (10, b"a", 0, true),
        ] {
            assert_eq!(order.compare(slot, key), (shared, follows), "{slot} {key:?}");
        }
    }

    #[test]
    fn a_key_that_shares_is_put_together_and_its_slot_found() {
        let mut order = Order::default();
        assert_eq!(order.advance_to(0, b"{a}1"), (crate::key::slot(b"a"), true));
        assert_eq!(order.advance_to(3, b"2"), (crate::key::slot(b"a"), true));
        assert_eq!(order.key(), b"{a}2");
        assert_eq!(order.advance_to(3, b"2"), (crate::key::slot(b"a"), false));
        assert_eq!(order.advance_to(0, b"{a}10"), (crate::key::slot(b"a"), false));
    }
}
