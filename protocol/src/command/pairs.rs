//! The keys and values of a command on several keys: as a request brings them, or as an entry holds them.
//!
//! Place in the flow: made in step 2 (decode) from a request's arguments and in step 8 (apply) from an entry, without
//! an allocation in either.
//!
//! Invariant: the bytes of a list that was read were checked pair by pair, so walking it cannot fail.

use super::{Value, PAIR_HEADER_BYTES};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Keys with their values, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairList<'a>(Pairs<'a>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pairs<'a> {
    Raw(&'a [(&'a [u8], &'a [u8])]),
    /// Checked: exactly `count` pairs.
    Encoded {
        count: u32,
        bytes: &'a [u8],
    },
}

impl<'a> PairList<'a> {
    /// The pairs of a key and the bytes to store under it, which become values of type bytes.
    ///
    /// # Panics
    /// When there are more than `u32::MAX`.
    pub fn new(pairs: &'a [(&'a [u8], &'a [u8])]) -> Self {
        assert!(u32::try_from(pairs.len()).is_ok(), "more pairs than a command can count");
        Self(Pairs::Raw(pairs))
    }

    /// Checks `bytes`, which must be exactly `count` encoded pairs, at least one.
    pub(super) fn decode(count: u32, bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut rest = bytes;
        for _ in 0..count {
            let (key_bytes, value_bytes, behind) = split_lengths(rest).ok_or("a pair is cut off")?;
            if key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
                return Err("a length over the limit");
            }
            rest = behind.get(key_bytes + value_bytes..).ok_or("a pair is cut off")?;
        }
        if count == 0 || !rest.is_empty() {
            return Err("the number of pairs is another one");
        }
        Ok(Self(Pairs::Encoded { count, bytes }))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Pairs::Raw(pairs) => pairs.len(),
            Pairs::Encoded { count, .. } => count as usize,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs, in order.
    pub fn iter(&self) -> PairIter<'a> {
        PairIter(self.0)
    }

    /// How many bytes the pairs take in an entry.
    pub fn encoded_bytes(&self) -> usize {
        match self.0 {
            Pairs::Raw(pairs) => {
                let bytes = |(key, value): &(&[u8], &[u8])| key.len() + Value::Bytes(value).encoded_bytes();
                pairs.len() * PAIR_HEADER_BYTES + pairs.iter().map(bytes).sum::<usize>()
            }
            Pairs::Encoded { bytes, .. } => bytes.len(),
        }
    }

    /// Appends the pairs as an entry holds them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if let Pairs::Encoded { bytes, .. } = self.0 {
            out.extend_from_slice(bytes);
            return;
        }
        for (key, value) in self {
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(&(value.encoded_bytes() as u32).to_le_bytes());
            out.extend_from_slice(key);
            value.encode(out);
        }
    }
}

impl<'a> IntoIterator for PairList<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = PairIter<'a>;

    fn into_iter(self) -> PairIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &PairList<'a> {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = PairIter<'a>;

    fn into_iter(self) -> PairIter<'a> {
        self.iter()
    }
}

/// The pairs of a [`PairList`], in order.
#[derive(Debug, Clone)]
pub struct PairIter<'a>(Pairs<'a>);

impl<'a> Iterator for PairIter<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Pairs::Raw(pairs) => {
                let (&(key, value), rest) = pairs.split_first()?;
                *pairs = rest;
                Some((key, Value::Bytes(value)))
            }
            Pairs::Encoded { bytes, .. } => {
                let (key_bytes, value_bytes, behind) = split_lengths(bytes)?;
                let (key, behind) = behind.split_at(key_bytes);
                let (value, rest) = behind.split_at(value_bytes);
                *bytes = rest;
                Some((key, Value::Encoded(value)))
            }
        }
    }
}

/// The lengths of a key and a value, and what stands behind them.
fn split_lengths(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (&[k0, k1, k2, k3, v0, v1, v2, v3], behind) = bytes.split_first_chunk::<PAIR_HEADER_BYTES>()?;
    let length = |bytes| u32::from_le_bytes(bytes) as usize;
    Some((length([k0, k1, k2, k3]), length([v0, v1, v2, v3]), behind))
}
