//! Writing values into a caller's buffer.
//!
//! Place in the flow: step 9 (reply) in the server, sending in a client. The layout of each type stands in [`super`].
//!
//! Invariant: a caller that writes as many values after [`Encoder::list`] (twice as many after [`Encoder::map`]) as it
//! announced, and nests within [`MAX_DEPTH`](crate::limits::MAX_DEPTH), writes what a [`Decoder`](super::Decoder)
//! takes. The encoder keeps no count of its own: it is free to make, and any number of them may follow each other on
//! one buffer.

use super::{
    varint, Value, TYPE_BOOLEAN, TYPE_BYTES, TYPE_ERROR, TYPE_FLOAT64, TYPE_INT32, TYPE_INT64, TYPE_LIST, TYPE_MAP,
    TYPE_NULL, TYPE_STRING, TYPE_TIMESTAMP,
};

/// Lengths and counts below this take one byte.
const ONE_BYTE_LIMIT: usize = 0x80;

/// Appends encoded values to a buffer. What the buffer already holds stays.
#[derive(Debug)]
pub struct Encoder<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Encoder<'b> {
    /// An encoder that appends to `out`.
    #[inline]
    pub fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    /// The head of a list: the caller appends `count` values next.
    #[inline]
    pub fn list(&mut self, count: usize) {
        self.head(TYPE_LIST, count, 0);
    }

    /// The head of a map: the caller appends `pairs` times a key and a value next.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        self.head(TYPE_MAP, pairs, 0);
    }

    /// Null.
    #[inline]
    pub fn null(&mut self) {
        self.out.push(TYPE_NULL);
    }

    /// Text.
    #[inline]
    pub fn string(&mut self, text: &str) {
        self.sized(TYPE_STRING, text.as_bytes());
    }

    /// A 32-bit integer.
    #[inline]
    pub fn int32(&mut self, number: i32) {
        let [a, b, c, d] = number.to_le_bytes();
        self.out.extend_from_slice(&[TYPE_INT32, a, b, c, d]);
    }

    /// A 64-bit integer.
    #[inline]
    pub fn int64(&mut self, number: i64) {
        self.eight(TYPE_INT64, number.to_le_bytes());
    }

    /// A float.
    #[inline]
    pub fn float64(&mut self, number: f64) {
        self.eight(TYPE_FLOAT64, number.to_le_bytes());
    }

    /// True or false.
    #[inline]
    pub fn boolean(&mut self, boolean: bool) {
        self.out.extend_from_slice(&[TYPE_BOOLEAN, u8::from(boolean)]);
    }

    /// A time, in microseconds since the epoch.
    #[inline]
    pub fn timestamp(&mut self, at_us: i64) {
        self.eight(TYPE_TIMESTAMP, at_us.to_le_bytes());
    }

    /// Bytes without meaning.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.sized(TYPE_BYTES, bytes);
    }

    /// The head of bytes without meaning: the caller appends so many next.
    #[inline]
    pub fn bytes_head(&mut self, length: usize) {
        self.head(TYPE_BYTES, length, 0);
    }

    /// An error.
    pub fn error(&mut self, code: u32, message: &str) {
        let [a, b, c, d] = code.to_le_bytes();
        self.out.extend_from_slice(&[TYPE_ERROR, a, b, c, d]);
        varint::write(self.out, message.len());
        self.out.extend_from_slice(message.as_bytes());
    }

    /// A value that is already encoded: exactly one, or the caller counts it as so many.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    /// An owned value.
    ///
    /// # Panics
    /// When it nests deeper than [`MAX_DEPTH`](crate::limits::MAX_DEPTH): see [`Value::check_depth`].
    pub fn value(&mut self, value: &Value) {
        value.encode(self.out);
    }

    /// Type byte and eight bytes.
    #[inline]
    fn eight(&mut self, type_byte: u8, payload: [u8; 8]) {
        let mut encoded = [type_byte; 9];
        encoded[1..].copy_from_slice(&payload);
        self.out.extend_from_slice(&encoded);
    }

    /// Type byte, length, payload.
    #[inline]
    fn sized(&mut self, type_byte: u8, payload: &[u8]) {
        self.head(type_byte, payload.len(), payload.len());
        self.out.extend_from_slice(payload);
    }

    /// Type byte and varint, with room for `payload_bytes` behind them, so that the buffer grows at most once.
    #[inline]
    fn head(&mut self, type_byte: u8, number: usize, payload_bytes: usize) {
        if number < ONE_BYTE_LIMIT {
            self.out.reserve(2 + payload_bytes);
            self.out.extend_from_slice(&[type_byte, number as u8]);
        } else {
            self.long_head(type_byte, number, payload_bytes);
        }
    }

    fn long_head(&mut self, type_byte: u8, number: usize, payload_bytes: usize) {
        self.out.reserve(1 + crate::limits::MAX_VARINT_BYTES + payload_bytes);
        self.out.push(type_byte);
        varint::write(self.out, number);
    }
}
