//! Writing replies, in both versions of RESP.
//!
//! Place in the flow: step 9 (reply). Appends to the connection's output.
//!
//! ```text
//!                RESP2                         RESP3
//! status         +OK\r\n                       the same
//! error          -ERR words\r\n                the same
//! integer        :1\r\n                        the same
//! bulk           $3\r\nabc\r\n                 the same
//! array          *2\r\n, the elements          the same
//! null           $-1\r\n (*-1\r\n)             _\r\n
//! map            *4\r\n, keys and values       %2\r\n, keys and values
//! set            *2\r\n, the elements          ~2\r\n, the elements
//! push           *2\r\n, the elements          >2\r\n, the elements
//! double         $4\r\n1.25\r\n                ,1.25\r\n
//! boolean        :1\r\n                        #t\r\n
//! verbatim       $3\r\nabc\r\n                 =7\r\ntxt:abc\r\n
//! ```
//!
//! Invariant: a status or error holds no line break; a caller that writes as many elements as it announced has written
//! one reply.

use super::error::{error_line, put_line};
use super::number::Digits;
use crate::error::ErrorCode;
use crate::tlv::{text_of, Decoder, ShortText, ValueRef, TYPE_BYTES, TYPE_STRING};

/// Which version of the protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RespVersion {
    /// RESP2: what every connection begins with.
    #[default]
    Two,
    /// RESP3: after `HELLO 3`.
    Three,
}

impl RespVersion {
    /// 2 or 3.
    pub const fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Payloads below this have a length of one byte in TLV.
const ONE_BYTE_LIMIT: u8 = 0x80;

/// Appends replies to a buffer. What the buffer already holds stays.
#[derive(Debug)]
pub struct Writer<'a> {
    /// Where the replies go.
    pub out: &'a mut Vec<u8>,
    /// How they are written.
    pub version: RespVersion,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, version: RespVersion) -> Self {
        Self { out, version }
    }

    /// A short word such as `OK`.
    #[inline]
    pub fn status(&mut self, word: &str) {
        debug_assert!(!word.bytes().any(|byte| matches!(byte, b'\r' | b'\n')), "a status is one line");
        self.out.reserve(word.len() + 3);
        self.out.push(b'+');
        self.out.extend_from_slice(word.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error, its first word included: `ERR syntax error`.
    #[cold]
    pub fn error(&mut self, line: &str) {
        self.out.push(b'-');
        put_line(line, self.out);
    }

    /// An error of `code`, in the words that Redis's clients know.
    #[cold]
    pub fn coded_error(&mut self, code: ErrorCode, message: &str) {
        error_line(code, message, self.out);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        match number {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            _ => self.line(b':', Digits::of(number).as_bytes()),
        }
    }

    /// Bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.bulk_head(bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// What stands before the bytes of a bulk of `length` bytes: for one whose bytes are sent by reference. The caller
    /// sends them and then `\r\n`.
    #[inline]
    pub fn bulk_head(&mut self, length: usize) {
        if length < 10 {
            self.out.extend_from_slice(&[b'$', b'0' + length as u8, b'\r', b'\n']);
        } else if length < 100 {
            self.out.extend_from_slice(&[b'$', b'0' + (length / 10) as u8, b'0' + (length % 10) as u8, b'\r', b'\n']);
        } else {
            self.head(b'$', length);
        }
    }

    /// Text, as a bulk.
    #[inline]
    pub fn bulk_text(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// The text of an integer, as a bulk.
    #[inline]
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(Digits::of(number).as_bytes());
    }

    /// No value.
    #[inline]
    pub fn null(&mut self) {
        match self.version {
            RespVersion::Two => self.out.extend_from_slice(b"$-1\r\n"),
            RespVersion::Three => self.out.extend_from_slice(b"_\r\n"),
        }
    }

    /// No value where an array would stand.
    #[inline]
    pub fn null_array(&mut self) {
        match self.version {
            RespVersion::Two => self.out.extend_from_slice(b"*-1\r\n"),
            RespVersion::Three => self.out.extend_from_slice(b"_\r\n"),
        }
    }

    /// The head of an array: the caller writes `length` replies next.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.head(b'*', length);
    }

    /// The head of a map: the caller writes `pairs` times a key and a value next.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            RespVersion::Two => self.head(b'*', 2 * pairs),
            RespVersion::Three => self.head(b'%', pairs),
        }
    }

    /// The head of a set: the caller writes `length` replies next.
    #[inline]
    pub fn set(&mut self, length: usize) {
        self.head(if self.version == RespVersion::Three { b'~' } else { b'*' }, length);
    }

    /// The head of a message that no request asked for: the caller writes `length` replies next.
    #[inline]
    pub fn push(&mut self, length: usize) {
        self.head(if self.version == RespVersion::Three { b'>' } else { b'*' }, length);
    }

    /// A float.
    pub fn double(&mut self, number: f64) {
        let text = ShortText::float(number);
        match self.version {
            RespVersion::Two => self.bulk(text.as_bytes()),
            RespVersion::Three => self.line(b',', text.as_bytes()),
        }
    }

    /// True or false.
    #[inline]
    pub fn boolean(&mut self, truth: bool) {
        match (self.version, truth) {
            (RespVersion::Two, _) => self.integer(i64::from(truth)),
            (RespVersion::Three, true) => self.out.extend_from_slice(b"#t\r\n"),
            (RespVersion::Three, false) => self.out.extend_from_slice(b"#f\r\n"),
        }
    }

    /// Text that a client shows as it is.
    pub fn verbatim(&mut self, text: &str) {
        match self.version {
            RespVersion::Two => self.bulk_text(text),
            RespVersion::Three => {
                self.head(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A stored value, in its TLV encoding. Text and bytes come as they are, numbers, booleans and times as their
    /// text, null as null; a list as an array, a map as a map.
    ///
    /// # Panics
    /// When the bytes are not one valid value: the store holds nothing else.
    #[inline]
    pub fn value(&mut self, encoded: &[u8]) {
        match encoded {
            [TYPE_BYTES | TYPE_STRING, length, bytes @ ..] if *length < ONE_BYTE_LIMIT => self.bulk(bytes),
            _ => self.any_value(encoded),
        }
    }

    #[inline(never)]
    fn any_value(&mut self, encoded: &[u8]) {
        match text_of(encoded) {
            Some(text) => self.bulk(text.as_bytes()),
            None => self.decoded(&Decoder::new(encoded).validated_value()),
        }
    }

    /// Recurses once for each list and map, of which a value nests few: see [`crate::limits::MAX_DEPTH`].
    fn decoded(&mut self, value: &ValueRef<'_>) {
        match value {
            ValueRef::Null => self.null(),
            ValueRef::String(text) => self.bulk_text(text),
            ValueRef::Bytes(bytes) => self.bulk(bytes),
            ValueRef::Int32(number) => self.bulk_integer(i64::from(*number)),
            ValueRef::Int64(number) | ValueRef::Timestamp(number) => self.bulk_integer(*number),
            ValueRef::Boolean(truth) => self.bulk_text(if *truth { "true" } else { "false" }),
            ValueRef::Float64(number) => self.bulk(ShortText::float(*number).as_bytes()),
            ValueRef::Error(error) => self.bulk_text(error.message),
            ValueRef::List(list) => {
                self.array(list.len());
                for element in list {
                    self.decoded(&element);
                }
            }
            ValueRef::Map(map) => {
                self.map(map.len());
                for (key, value) in map {
                    self.decoded(&key);
                    self.decoded(&value);
                }
            }
        }
    }

    #[inline]
    fn head(&mut self, kind: u8, number: usize) {
        self.line(kind, Digits::of_unsigned(number as u64).as_bytes());
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }
}
