//! The encoding of Protocol Buffers, as far as a snapshot needs it, and the envelope of its messages.
//!
//! Place in the flow: below everything in this module: the writer puts fields and messages with it, the decoder takes
//! them apart.
//!
//! ```text
//! field    | number << 3, type: a varint | type 0: a varint; 1: 8 bytes; 2: a length and so many bytes; 5: 4 bytes |
//! ```
//!
//! Written by hand and not by a library, for three reasons: a library decodes a chunk into one vector for each column
//! and this leaves the columns where they are; a library does not say where the checksum stands, and here it is the
//! last field; and a stream's bytes must not change with the version of a library. Tests hold it against two libraries
//! that read `snapshot.proto`.
//!
//! Invariants:
//! - A field that has its default value is not written, so a message has one encoding.
//! - Nothing is allocated from a length that was read.

use super::error::Problem;
use super::message::{body, HIGHEST_FIELD};
use super::MAX_MESSAGE_BYTES;

/// Bytes of the length before each message.
pub(super) const LENGTH_BYTES: usize = 4;
/// The checksum's field: its tag and 4 bytes.
pub(super) const CHECKSUM_FIELD_BYTES: usize = 5;
const CHECKSUM_TAG: u8 = (body::CHECKSUM as u8) << 3 | FIXED32 as u8;
const LONGEST_VARINT_BYTES: usize = 10;
/// Bytes of a full chunk's length as a varint: up to 2 MiB.
const CHUNK_LENGTH_BYTES: usize = 3;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Appends a varint.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes a varint takes.
pub(super) const fn varint_bytes(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// The varint at the beginning of `bytes`, which is taken off; `None` where there is none.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (position, &byte) in bytes.iter().take(LONGEST_VARINT_BYTES).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if position == LONGEST_VARINT_BYTES - 1 && bits > 1 {
            return None;
        }
        number |= bits << (7 * position);
        if byte < 0x80 {
            *bytes = &bytes[position + 1..];
            return Some(number);
        }
    }
    None
}

/// A signed number as the `sint64` that is short for small ones of either sign.
pub(super) const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// The inverse of [`zigzag`].
pub(super) const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put_tag(out: &mut Vec<u8>, number: u32, kind: u64) {
    put_varint(out, u64::from(number) << 3 | kind);
}

/// Appends a field with a number, unless that is 0.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_number_always(out, number, value);
    }
}

/// Appends a field with a number whose absence means something else than 0.
pub(super) fn put_number_always(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, VARINT);
    put_varint(out, value);
}

/// Appends a `fixed32` field, unless it is 0.
pub(super) fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        put_tag(out, number, FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends a field with bytes, unless there are none.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_message(out, number, bytes);
    }
}

/// Appends a field with a message, which is there even if nothing is in it.
pub(super) fn put_message(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a message of the stream: its length, its body as field `number`, its checksum. `chain` is the checksum of
/// the message before it, and becomes this one's.
pub(super) fn put_envelope(out: &mut Vec<u8>, chain: &mut u32, number: u32, body: &[u8]) {
    out.reserve(body.len() + 32);
    put_envelope_of(out, chain, number, |out| out.extend_from_slice(body));
}

/// [`put_envelope`], where `body` appends the body to `out`: it is not copied once more.
pub(super) fn put_envelope_of(out: &mut Vec<u8>, chain: &mut u32, number: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    put_tag(out, number, BYTES);
    let length_at = out.len();
    // Room for the body's length, which is known behind it: what that of a full chunk takes.
    out.extend_from_slice(&[0; CHUNK_LENGTH_BYTES]);
    body(out);
    let body_bytes = (out.len() - length_at - CHUNK_LENGTH_BYTES) as u64;
    let mut length = Vec::new();
    put_varint(&mut length, body_bytes);
    if length.len() == CHUNK_LENGTH_BYTES {
        out[length_at..length_at + CHUNK_LENGTH_BYTES].copy_from_slice(&length);
    } else {
        out.splice(length_at..length_at + CHUNK_LENGTH_BYTES, length);
    }
    let message_bytes = out.len() - start - LENGTH_BYTES + CHECKSUM_FIELD_BYTES;
    assert!(message_bytes <= MAX_MESSAGE_BYTES, "a chunk closes long before it has {message_bytes} bytes");
    out[start..start + LENGTH_BYTES].copy_from_slice(&(message_bytes as u32).to_le_bytes());
    *chain = crc32c::crc32c_append(*chain, &out[start..]);
    out.push(CHECKSUM_TAG);
    out.extend_from_slice(&chain.to_le_bytes());
}

/// The fields of a message of the stream, length included, once its checksum holds; and that checksum. `chain` is the
/// one of the message before it.
pub(super) fn open_envelope(message: &[u8], chain: u32) -> Result<(&[u8], u32), Problem> {
    let checked = message
        .len()
        .checked_sub(CHECKSUM_FIELD_BYTES)
        .filter(|&checked| checked >= LENGTH_BYTES && message[checked] == CHECKSUM_TAG)
        .ok_or(Problem::Malformed { what: "a message does not end with its checksum" })?;
    let mut stored = [0; 4];
    stored.copy_from_slice(&message[checked + 1..]);
    let (stored, computed) = (u32::from_le_bytes(stored), crc32c::crc32c_append(chain, &message[..checked]));
    if stored != computed {
        return Err(Problem::Checksum { stored, computed });
    }
    Ok((&message[LENGTH_BYTES..checked], stored))
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// Type 0.
    Number(u64),
    /// Type 1.
    Fixed64,
    /// Type 2.
    Bytes(&'a [u8]),
    /// Type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The number, where one belongs.
    pub(super) fn number(self) -> Result<u64, Problem> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(WRONG_TYPE),
        }
    }

    /// The number, where one of `max` at the most belongs.
    pub(super) fn number_to(self, max: u64) -> Result<u64, Problem> {
        self.number().and_then(|number| if number <= max { Ok(number) } else { Err(TOO_HIGH) })
    }

    /// The bytes, where such belong.
    pub(super) fn bytes(self) -> Result<&'a [u8], Problem> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WRONG_TYPE),
        }
    }

    /// The `fixed32`, where one belongs.
    pub(super) fn fixed32(self) -> Result<u32, Problem> {
        match self {
            Self::Fixed32(number) => Ok(number),
            _ => Err(WRONG_TYPE),
        }
    }
}

const WRONG_TYPE: Problem = Problem::Malformed { what: "a field has another type than the format gives it" };
const TOO_HIGH: Problem = Problem::Malformed { what: "a number is higher than the format allows" };
const NO_FIELD: Problem = Problem::Malformed { what: "a field ends before it should, or is none" };
const TWICE: Problem = Problem::Malformed { what: "a field stands twice, or is not in one piece" };

/// The fields of a message one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Which of the numbers up to 63 have been: the format has none above 15, and of its own none twice.
    seen: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message, seen: 0 }
    }

    /// The next field and its number; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest).ok_or(NO_FIELD)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&number| number != 0).ok_or(NO_FIELD)?;
        let field = self.value(tag & 7).ok_or(NO_FIELD)?;
        // A field that a newer writer added may repeat.
        if number <= HIGHEST_FIELD {
            if self.seen & 1 << number != 0 {
                return Err(TWICE);
            }
            self.seen |= 1 << number;
        }
        Ok(Some((number, field)))
    }

    fn value(&mut self, kind: u64) -> Option<Field<'a>> {
        match kind {
            VARINT => take_varint(&mut self.rest).map(Field::Number),
            FIXED64 => self.take(8).map(|_| Field::Fixed64),
            BYTES => {
                let length = usize::try_from(take_varint(&mut self.rest)?).ok()?;
                self.take(length).map(Field::Bytes)
            }
            FIXED32 => {
                let mut number = [0; 4];
                number.copy_from_slice(self.take(4)?);
                Some(Field::Fixed32(u32::from_le_bytes(number)))
            }
            _ => None,
        }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_what_the_encoding_says() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut written = Vec::new();
            put_varint(&mut written, number);
            assert_eq!(written, bytes);
            assert_eq!(varint_bytes(number), bytes.len());
            let mut rest = bytes;
            assert_eq!((take_varint(&mut rest), rest), (Some(number), &[][..]));
        }
        for not_one in [&[][..], &[0x80], &[255; 10], &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]] {
            let mut rest = not_one;
            assert_eq!(take_varint(&mut rest), None, "{not_one:?}");
        }
    }

    #[test]
    fn zigzag_has_an_inverse_at_the_edges() {
        for number in [0, -1, 1, i64::MIN, i64::MAX, 1_700_000_000_000_000] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!((zigzag(-1), zigzag(1), zigzag(-2)), (1, 2, 3));
    }

    #[test]
    fn fields_of_every_type_are_taken_and_none_reaches_over_the_end() {
        let message = [8, 5, 0x12, 2, b'a', b'b', 0x1d, 1, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut fields = Fields::of(&message);
        assert_eq!(fields.next(), Ok(Some((1, Field::Number(5)))));
        assert_eq!(fields.next(), Ok(Some((2, Field::Bytes(b"ab")))));
        assert_eq!(fields.next(), Ok(Some((3, Field::Fixed32(1)))));
        assert_eq!(fields.next(), Ok(Some((4, Field::Fixed64))));
        assert_eq!(fields.next(), Ok(None));
        for refused in [&[0x12, 3, b'a', b'b'][..], &[8], &[0, 1], &[0x0b], &[0x1d, 1, 0, 0], &[0x21, 0], &[0x0e, 0]] {
            assert_eq!(Fields::of(refused).next(), Err(NO_FIELD), "{refused:?}");
        }
        let mut twice = Fields::of(&[8, 5, 8, 5]);
        assert!(twice.next().is_ok());
        assert_eq!(twice.next(), Err(TWICE));
        let mut unknown_twice = Fields::of(&[0x80, 2, 5, 0x80, 2, 5]);
        assert_eq!(unknown_twice.next(), Ok(Some((32, Field::Number(5)))));
        assert_eq!(unknown_twice.next(), Ok(Some((32, Field::Number(5)))));
    }

    #[test]
    fn an_envelope_opens_only_with_the_checksum_before_it() {
        let (mut message, mut chain) = (Vec::new(), 7);
        put_envelope(&mut message, &mut chain, 6, b"body");
        assert_eq!(message[..4], 11_u32.to_le_bytes());
        assert_eq!(open_envelope(&message, 7), Ok((&b"\x32\x04body"[..], chain)));
        assert!(matches!(open_envelope(&message, 8), Err(Problem::Checksum { .. })));
        assert!(matches!(open_envelope(&message[..8], 7), Err(Problem::Malformed { .. })));
    }
}
