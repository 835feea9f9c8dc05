//! TLV: the self-describing values of the native protocol, of the log and of the store.
//!
//! Place in the flow: step 2 (decode) reads payloads with [`Decoder`], step 9 (reply) writes them with [`Encoder`]. A
//! stored value is one encoded value: it is validated once, when it comes in, and then kept and returned as its bytes.
//!
//! ```text
//! type  name       what follows the type byte (integers are little-endian)
//! 0x00  null       nothing
//! 0x01  string     length varint | that many bytes of UTF-8
//! 0x02  int32      4 bytes, two's complement
//! 0x03  list       count varint | that many values                     (a "DataInput")
//! 0x04  float64    8 bytes, IEEE 754
//! 0x05  boolean    1 byte, 0 or 1
//! 0x06  timestamp  8 bytes, two's complement: microseconds since the epoch
//! 0x07  bytes      length varint | that many bytes
//! 0x08  int64      8 bytes, two's complement
//! 0x09  error      code u32 | length varint | that many bytes of UTF-8: the message
//! 0x0a  map        count varint | that many times: key value, value value
//! 0x0b to 0xff are reserved
//!
//! varint: LEB128, at most 10 bytes and 64 bits, in its shortest form
//!
//! "hello"       01 05 68 65 6c 6c 6f
//! 42            02 2a 00 00 00
//! ["foo", 123]  03 02  01 03 66 6f 6f  02 7b 00 00 00
//! ```
//!
//! Invariants:
//! - A value has exactly one encoding, so values are equal where their bytes are (floats apart, which compare as IEEE
//!   754 has it: -0 equals 0, and NaN equals nothing).
//! - A value nests at most [`MAX_DEPTH`](crate::limits::MAX_DEPTH) lists and maps deep, the outermost counting as 1.
//! - Decoding borrows and allocates nothing; only [`Value`] owns memory.
//! - What a [`ListRef`] or [`MapRef`] holds was validated whole, so walking it cannot fail.
//!
//! It deliberately does not resume a value whose bytes are not all there: frames are gathered whole first.

mod decode;
mod encode;
mod error;
mod text;
mod value;
mod varint;
mod view;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::Encoder;
pub use error::TlvError;
pub use text::{parse_integer, text_of, text_place, ShortText, Text};
pub use value::Value;
pub use view::{ErrorRef, ListIter, ListRef, MapIter, MapRef, ValueRef};

/// How many bytes the encoded value of type bytes takes that holds `length` bytes.
#[inline]
pub const fn encoded_bytes_of_bytes(length: usize) -> usize {
    1 + varint::encoded_bytes(length) + length
}

/// No value.
pub const TYPE_NULL: u8 = 0x00;
/// UTF-8 text.
pub const TYPE_STRING: u8 = 0x01;
/// A signed 32-bit integer.
pub const TYPE_INT32: u8 = 0x02;
/// A list of values.
pub const TYPE_LIST: u8 = 0x03;
/// A 64-bit float.
pub const TYPE_FLOAT64: u8 = 0x04;
/// True or false.
pub const TYPE_BOOLEAN: u8 = 0x05;
/// Microseconds since the epoch.
pub const TYPE_TIMESTAMP: u8 = 0x06;
/// Bytes without meaning.
pub const TYPE_BYTES: u8 = 0x07;
/// A signed 64-bit integer.
pub const TYPE_INT64: u8 = 0x08;
/// An error: code and message.
pub const TYPE_ERROR: u8 = 0x09;
/// Pairs of key and value.
pub const TYPE_MAP: u8 = 0x0a;
