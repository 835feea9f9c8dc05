//! Numbers and byte strings as they stand in this crate's messages and records.
//!
//! Place in the flow: beneath the codecs of messages, records, frames and sessions.
//!
//! Invariants:
//! - What is read has exactly one encoding: a number in more bytes than it needs is refused.
//! - No length is trusted: a count or a length is compared with what is left before anything is taken or reserved.
//!
//! ```text
//! number   LEB128: 7 bits a byte, lowest first, the top bit says that another byte follows; at most 10 bytes
//! bytes    number of bytes, then the bytes
//! flag     one byte, 0 or 1
//! ```
//!
//! Deliberately not here: checksums; they belong to what carries the bytes.

use bytes::Bytes;

/// The most bytes a number takes.
const NUMBER_BYTES_MAX: usize = 10;

/// Why bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before what they announce.
    #[error("the bytes end inside of {0}; the sender cut them or lost some, ask it again")]
    Truncated(&'static str),
    /// A number has a value, or a form, that is not allowed.
    #[error("{0} is out of its range; the sender runs another version, or the bytes were damaged")]
    OutOfRange(&'static str),
    /// Bytes are left over.
    #[error("bytes are left after {0}; the sender runs another version, or the bytes were damaged")]
    LeftOver(&'static str),
    /// The checksum does not hold.
    #[error("the checksum of {0} does not hold; the bytes were damaged")]
    Checksum(&'static str),
}

/// Appends `number`.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote. Byte strings are slices of the one buffer that was given, not copies.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let byte = *self.rest.first().ok_or(DecodeError::Truncated(what))?;
        let _ = self.rest.split_to(1);
        Ok(byte)
    }

    /// 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::OutOfRange(what)),
        }
    }

    /// A number.
    pub fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for (position, byte) in self.rest.iter().take(NUMBER_BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of 0 after others is a longer form of the same number.
            if (position == NUMBER_BYTES_MAX - 1 && *byte > 1) || (position > 0 && *byte == 0) {
                return Err(DecodeError::OutOfRange(what));
            }
            number |= bits << (7 * position);
            if byte & 0x80 == 0 {
                let _ = self.rest.split_to(position + 1);
                return Ok(number);
            }
        }
        Err(if self.rest.len() < NUMBER_BYTES_MAX {
            DecodeError::Truncated(what)
        } else {
            DecodeError::OutOfRange(what)
        })
    }

    /// A number up to `max`.
    pub fn number_up_to(&mut self, max: u64, what: &'static str) -> Result<u64, DecodeError> {
        match self.number(what)? {
            number if number <= max => Ok(number),
            _ => Err(DecodeError::OutOfRange(what)),
        }
    }

    /// How many items of at least `bytes_each` follow; at most `max`, and never more than could be there.
    pub fn count(&mut self, max: usize, bytes_each: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.number_up_to(max as u64, what)? as usize;
        if count * bytes_each > self.left() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(count)
    }

    /// A length up to `max` and that many bytes, a slice of the buffer.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.number_up_to(max as u64, what)? as usize;
        if length > self.left() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(self.rest.split_to(length))
    }

    /// That nothing is left.
    pub fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::LeftOver(what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &'static [u8]) -> Result<u64, DecodeError> {
        Reader::new(Bytes::from_static(bytes)).number("it")
    }

    #[test]
    fn numbers_have_one_encoding() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, value);
            let mut reader = Reader::new(out.into());
            assert_eq!(reader.number("it"), Ok(value));
            assert_eq!(reader.end("it"), Ok(()));
        }
        assert_eq!(number(&[0xac, 0x02]), Ok(300));
        assert_eq!(number(&[0x80, 0x00]), Err(DecodeError::OutOfRange("it")));
        assert_eq!(number(&[0xff, 0xff]), Err(DecodeError::Truncated("it")));
        assert_eq!(number(&[0xff; 10]), Err(DecodeError::OutOfRange("it")));
        assert_eq!(number(&[]), Err(DecodeError::Truncated("it")));
    }

    #[test]
    fn lengths_and_counts_are_compared_with_what_is_there() {
        let mut reader = Reader::new(Bytes::from_static(&[3, 1, 2]));
        assert_eq!(reader.clone().bytes(8, "it"), Err(DecodeError::Truncated("it")));
        assert_eq!(reader.clone().bytes(2, "it"), Err(DecodeError::OutOfRange("it")));
        assert_eq!(reader.count(8, 2, "it"), Err(DecodeError::Truncated("it")));
        assert_eq!(Reader::new(Bytes::from_static(&[2])).flag("it"), Err(DecodeError::OutOfRange("it")));
        assert_eq!(Reader::new(Bytes::from_static(&[2])).end("it"), Err(DecodeError::LeftOver("it")));
    }
}
