//! Reading values out of received bytes, without copying them.
//!
//! Place in the flow: step 2 (decode) in the server, receiving in a client. The layout of each type stands in
//! [`super`].
//!
//! Invariants:
//! - No length or count is believed before it was compared with the bytes that are there: a value takes at least one
//!   byte.
//! - The only recursion is [`Decoder::skip_values`], one level per list or map, at most
//!   [`MAX_DEPTH`](crate::limits::MAX_DEPTH) levels.
//! - A call that fails leaves the decoder where it was.

use super::varint::{self, VarintError};
use super::view::{ErrorRef, ListRef, MapRef, ValueRef};
use super::{
    TlvError, TYPE_BOOLEAN, TYPE_BYTES, TYPE_ERROR, TYPE_FLOAT64, TYPE_INT32, TYPE_INT64, TYPE_LIST, TYPE_MAP,
    TYPE_NULL, TYPE_STRING, TYPE_TIMESTAMP,
};
use crate::limits::MAX_DEPTH;

/// Reads values one after the other.
///
/// The depth limit holds for each value that is read. [`Decoder::list`] does not count: the caller walks that list in a
/// loop of its own, and a stored value may be as deep inside a frame as outside. A caller that recurses passes on its
/// depth with [`Decoder::with_depth`].
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    /// How many bytes there were at the beginning.
    length: usize,
    depth_used: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder at the first of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_depth(bytes, 0)
    }

    /// A decoder of what is nested in `depth_used` lists and maps already.
    #[inline]
    pub fn with_depth(bytes: &'a [u8], depth_used: usize) -> Self {
        Self { rest: bytes, length: bytes.len(), depth_used }
    }

    /// How many bytes have been read.
    #[inline]
    pub fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The bytes that have not been read.
    #[inline]
    pub fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all bytes have been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next value, validated whole: depth, UTF-8, lengths, shortest varints.
    #[inline]
    pub fn value(&mut self) -> Result<ValueRef<'a>, TlvError> {
        self.next_value::<true>()
    }

    /// The next value of bytes that were validated before.
    #[inline]
    pub(crate) fn validated_value(&mut self) -> ValueRef<'a> {
        self.next_value::<false>().expect("validated when it came in, or with the list or map around it")
    }

    /// The encoded bytes of the next value, validated whole.
    #[inline]
    pub fn raw_value(&mut self) -> Result<&'a [u8], TlvError> {
        let start = self.rest;
        self.restore_on_error(|decoder| decoder.skip_values::<true>(1, decoder.depth_used))?;
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Enters a list and returns how many values it has, which is at most the number of bytes left. The caller reads
    /// that many values next.
    #[inline]
    pub fn list(&mut self) -> Result<usize, TlvError> {
        self.restore_on_error(|decoder| {
            let offset = decoder.position();
            match decoder.byte()? {
                TYPE_LIST => {
                    check_depth(decoder.depth_used, offset)?;
                    decoder.count(1)
                }
                found => Err(TlvError::Unexpected { offset, expected: "a list (0x03)", found }),
            }
        })
    }

    /// The payload of a string (its UTF-8 is validated) or of bytes.
    #[inline]
    pub fn key(&mut self) -> Result<&'a [u8], TlvError> {
        self.restore_on_error(|decoder| {
            let offset = decoder.position();
            match decoder.byte()? {
                TYPE_BYTES => decoder.sized(),
                TYPE_STRING => {
                    let bytes = decoder.sized()?;
                    decoder.check_utf8(bytes)?;
                    Ok(bytes)
                }
                found => Err(TlvError::Unexpected { offset, expected: "a string (0x01) or bytes (0x07)", found }),
            }
        })
    }

    /// Checks that nothing is left.
    #[inline]
    pub fn finish(&self) -> Result<(), TlvError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(TlvError::TrailingBytes { offset: self.position(), count: self.rest.len() })
        }
    }

    #[inline]
    fn restore_on_error<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, TlvError>) -> Result<T, TlvError> {
        let start = self.rest;
        let result = read(self);
        if result.is_err() {
            self.rest = start;
        }
        result
    }

    #[inline]
    fn next_value<const VALIDATE: bool>(&mut self) -> Result<ValueRef<'a>, TlvError> {
        self.restore_on_error(Self::any_value::<VALIDATE>)
    }

    // Always: where the compiler decides against it, the result goes through memory and a value costs twice the time
    // (`benches/codec.rs`). What is rare or large is out of line already.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn any_value<const VALIDATE: bool>(&mut self) -> Result<ValueRef<'a>, TlvError> {
        Ok(match self.byte()? {
            TYPE_STRING => ValueRef::String(self.text()?),
            TYPE_INT32 => ValueRef::Int32(i32::from_le_bytes(self.take()?)),
            TYPE_INT64 => ValueRef::Int64(i64::from_le_bytes(self.take()?)),
            TYPE_FLOAT64 => ValueRef::Float64(f64::from_le_bytes(self.take()?)),
            TYPE_BOOLEAN => ValueRef::Boolean(self.boolean()?),
            TYPE_BYTES => ValueRef::Bytes(self.sized()?),
            TYPE_TIMESTAMP => ValueRef::Timestamp(i64::from_le_bytes(self.take()?)),
            TYPE_NULL => ValueRef::Null,
            type_byte => {
                // On a copy, so that a caller's decoder whose address goes nowhere else can stay in registers.
                let mut copy = self.clone();
                let value = copy.rare_value::<VALIDATE>(type_byte)?;
                *self = copy;
                value
            }
        })
    }

    /// The rest of a value of one of the types that hold others, or that are rare on a hot path.
    #[inline(never)]
    fn rare_value<const VALIDATE: bool>(&mut self, type_byte: u8) -> Result<ValueRef<'a>, TlvError> {
        match type_byte {
            TYPE_LIST => {
                let (elements, count) = self.nested::<VALIDATE>(1)?;
                Ok(ValueRef::List(ListRef::from_validated(elements, count)))
            }
            TYPE_MAP => {
                let (pairs, count) = self.nested::<VALIDATE>(2)?;
                Ok(ValueRef::Map(MapRef::from_validated(pairs, count)))
            }
            TYPE_ERROR => {
                let code = u32::from_le_bytes(self.take()?);
                Ok(ValueRef::Error(ErrorRef { code, message: self.text()? }))
            }
            _ => Err(self.unknown_type(type_byte)),
        }
    }

    /// The elements of a list or map whose type byte was read, and its count; each element is `values_each` values.
    fn nested<const VALIDATE: bool>(&mut self, values_each: usize) -> Result<(&'a [u8], usize), TlvError> {
        check_depth(self.depth_used, self.position() - 1)?;
        let count = self.count(values_each)?;
        let start = self.rest;
        self.skip_values::<VALIDATE>(count * values_each, self.depth_used + 1)?;
        Ok((&start[..start.len() - self.rest.len()], count))
    }

    /// Passes over `count` values that are nested in `depth` lists and maps.
    fn skip_values<const VALIDATE: bool>(&mut self, count: usize, depth: usize) -> Result<(), TlvError> {
        for _ in 0..count {
            match self.byte()? {
                TYPE_STRING => {
                    let bytes = self.sized()?;
                    if VALIDATE {
                        self.check_utf8(bytes)?;
                    }
                }
                TYPE_INT32 => drop(self.take::<4>()?),
                TYPE_INT64 | TYPE_FLOAT64 | TYPE_TIMESTAMP => drop(self.take::<8>()?),
                TYPE_BOOLEAN => drop(self.boolean()?),
                TYPE_BYTES => drop(self.sized()?),
                TYPE_NULL => {}
                TYPE_LIST => {
                    check_depth(depth, self.position() - 1)?;
                    let count = self.count(1)?;
                    self.skip_values::<VALIDATE>(count, depth + 1)?;
                }
                TYPE_MAP => {
                    check_depth(depth, self.position() - 1)?;
                    let pairs = self.count(2)?;
                    self.skip_values::<VALIDATE>(pairs * 2, depth + 1)?;
                }
                TYPE_ERROR => {
                    self.take::<4>()?;
                    let bytes = self.sized()?;
                    if VALIDATE {
                        self.check_utf8(bytes)?;
                    }
                }
                type_byte => return Err(self.unknown_type(type_byte)),
            }
        }
        Ok(())
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, TlvError> {
        let Some((&byte, rest)) = self.rest.split_first() else { return Err(self.truncated(1)) };
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TlvError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.truncated(N)) };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn boolean(&mut self) -> Result<bool, TlvError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(TlvError::InvalidBoolean { offset: self.position() - 1, byte }),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<usize, TlvError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(usize::from(byte))
            }
            _ => {
                let (number, taken) =
                    varint::read(self.rest).map_err(|error| bad_varint(error, self.position(), self.rest.len()))?;
                self.rest = &self.rest[taken..];
                Ok(number)
            }
        }
    }

    /// A count of elements, each of which takes at least `bytes_each`.
    #[inline]
    fn count(&mut self, bytes_each: usize) -> Result<usize, TlvError> {
        let count = self.varint()?;
        if count > self.rest.len() / bytes_each {
            return Err(self.truncated(count.saturating_mul(bytes_each)));
        }
        Ok(count)
    }

    /// A length and that many bytes.
    #[inline]
    fn sized(&mut self) -> Result<&'a [u8], TlvError> {
        let length = self.varint()?;
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else { return Err(self.truncated(length)) };
        self.rest = rest;
        Ok(bytes)
    }

    /// A length and that many bytes of UTF-8.
    #[inline]
    fn text(&mut self) -> Result<&'a str, TlvError> {
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map_err(|error| invalid_utf8(self.position() - bytes.len(), error))
    }

    /// Checks the UTF-8 of `bytes`, which were read last.
    #[inline]
    fn check_utf8(&self, bytes: &[u8]) -> Result<(), TlvError> {
        if is_short_ascii(bytes) {
            return Ok(());
        }
        std::str::from_utf8(bytes).map(drop).map_err(|error| invalid_utf8(self.position() - bytes.len(), error))
    }

    #[inline]
    fn truncated(&self, needed: usize) -> TlvError {
        TlvError::Truncated { offset: self.position(), needed, available: self.rest.len() }
    }

    #[inline]
    fn unknown_type(&self, type_byte: u8) -> TlvError {
        TlvError::UnknownType { offset: self.position() - 1, type_byte }
    }
}

/// The error of text that begins at `offset`.
#[cold]
fn invalid_utf8(offset: usize, error: std::str::Utf8Error) -> TlvError {
    TlvError::InvalidUtf8 { offset: offset + error.valid_up_to() }
}

/// The error of a varint that begins at `offset`, with `available` bytes from there.
#[cold]
fn bad_varint(error: VarintError, offset: usize, available: usize) -> TlvError {
    match error {
        VarintError::Truncated => TlvError::Truncated { offset, needed: available + 1, available },
        VarintError::TooLong => TlvError::VarintTooLong { offset },
        VarintError::NotMinimal => TlvError::VarintNotMinimal { offset },
        VarintError::Overflow => TlvError::LengthOverflow { offset },
    }
}

/// Checks that a list or map may begin inside `depth` others.
#[inline]
fn check_depth(depth: usize, offset: usize) -> Result<(), TlvError> {
    if depth < MAX_DEPTH {
        Ok(())
    } else {
        Err(TlvError::TooDeep { offset, limit: MAX_DEPTH })
    }
}

/// Whether `bytes` are ASCII and few. By words, the last of which may overlap the one before; longer texts are left to
/// the standard library, whose own word loop needs a few bytes of start-up.
#[inline]
fn is_short_ascii(bytes: &[u8]) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    if bytes.len() > 32 {
        return false;
    }
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().fold(0, |all, byte| all | byte) < 0x80;
    };
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("chunks of eight")));
    words.fold(u64::from_le_bytes(*last), |all, word| all | word) & HIGH_BITS == 0
}
