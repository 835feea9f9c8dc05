//! Lengths and counts: LEB128 varints.
//!
//! Place in the flow: inside [`Decoder`](super::Decoder) and [`Encoder`](super::Encoder). Callers take the one-byte
//! form (below 128), which nearly every length has, by themselves; here is the general form.
//!
//! ```text
//! | 1 b6..b0 | 1 b13..b7 | ... | 0 ..b63 |      seven bits per byte, lowest first; the top bit says "goes on"
//! ```
//!
//! Invariant: exactly one encoding per number: a last byte of zero (in a varint of several bytes) is refused.

use crate::limits::MAX_VARINT_BYTES;

/// Why bytes are not a varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VarintError {
    /// The bytes end inside it.
    Truncated,
    /// It goes on after [`MAX_VARINT_BYTES`].
    TooLong,
    /// It has a needless last byte.
    NotMinimal,
    /// It does not fit `usize`.
    Overflow,
}

/// The number at the beginning of `bytes`, and how many bytes it takes.
#[inline(never)]
pub(super) fn read(bytes: &[u8]) -> Result<(usize, usize), VarintError> {
    let mut number = 0_u64;
    for (position, &byte) in bytes.iter().take(MAX_VARINT_BYTES).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * position as u32;
        if byte & 0x80 != 0 {
            number |= bits << shift;
            continue;
        }
        if byte == 0 && position > 0 {
            return Err(VarintError::NotMinimal);
        }
        if bits << shift >> shift != bits {
            return Err(VarintError::Overflow);
        }
        let number = usize::try_from(number | bits << shift).map_err(|_| VarintError::Overflow)?;
        return Ok((number, position + 1));
    }
    Err(if bytes.len() < MAX_VARINT_BYTES { VarintError::Truncated } else { VarintError::TooLong })
}

/// How many bytes `number` takes.
#[inline]
pub(super) const fn encoded_bytes(number: usize) -> usize {
    let bits = usize::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends `number`.
#[inline(never)]
pub(super) fn write(out: &mut Vec<u8>, number: usize) {
    let mut bytes = [0; MAX_VARINT_BYTES];
    let mut rest = number as u64;
    let mut length = 0;
    while rest >= 0x80 {
        bytes[length] = rest as u8 | 0x80;
        rest >>= 7;
        length += 1;
    }
    bytes[length] = rest as u8;
    out.extend_from_slice(&bytes[..=length]);
}
