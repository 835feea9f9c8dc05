//! The text of a value: the bytes that string commands see, whatever type the value was written as.
//!
//! Place in the flow: step 8 (apply) for commands that change a text, step 5 (execute) for questions about one, step 9
//! (reply) where a value leaves as text.
//!
//! | type | its text |
//! |---|---|
//! | string, bytes | its bytes |
//! | int32, int64 | decimal |
//! | float64 | the shortest decimal that reads back as the same float; with an exponent below 1e-4 and from 1e17 on |
//! | boolean | `true`, `false` |
//! | timestamp | its microseconds, decimal |
//! | null, list, map, error | none |
//!
//! Invariants:
//! - An integer has one text. [`parse_integer`] takes exactly what [`ShortText::integer`] writes: no `+`, no space, no
//!   leading zero, no `-0`.
//! - A text of bytes is borrowed, any other is at most [`ShortText::CAPACITY`] bytes on the stack.

use super::{
    varint, Decoder, ValueRef, TYPE_BOOLEAN, TYPE_BYTES, TYPE_FLOAT64, TYPE_INT32, TYPE_INT64, TYPE_STRING,
    TYPE_TIMESTAMP,
};

/// The text of a value.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// The bytes of the value.
    Bytes(&'a [u8]),
    /// Of a number or a boolean.
    Short(ShortText),
}

impl<'a> Text<'a> {
    /// The bytes of the text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Short(text) => text.as_bytes(),
        }
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// A part of it.
    ///
    /// # Panics
    /// When `range` is not inside of it.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Text<'a> {
        match self {
            Self::Bytes(bytes) => Self::Bytes(&bytes[range]),
            Self::Short(text) => Self::Short(ShortText::new(&text.as_bytes()[range])),
        }
    }
}

/// Texts are equal where their bytes are.
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text<'_> {}

/// A short text on the stack.
#[derive(Clone, Copy)]
pub struct ShortText {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl ShortText {
    /// Room for the text of every number: a float has at most 17 digits, a sign, a point, and either an exponent
    /// (`e-308`) or four leading zeros.
    pub const CAPACITY: usize = 31;

    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes, length: text.len() as u8 }
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The decimal text of `number`.
    pub fn integer(number: i64) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let mut rest = number.unsigned_abs();
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            start -= 1;
            bytes[start] = b'-';
        }
        Self::new(&bytes[start..])
    }

    /// The shortest decimal that reads back as `number`.
    pub fn float(number: f64) -> Self {
        if number.is_nan() {
            return Self::new(b"nan");
        }
        if number.is_infinite() {
            return Self::new(if number < 0.0 { b"-inf" } else { b"inf" });
        }
        let mut text = TextBuffer(Self { bytes: [0; Self::CAPACITY], length: 0 });
        let magnitude = number.abs();
        let plain = magnitude == 0.0 || (PLAIN_FLOAT_MIN..PLAIN_FLOAT_MAX).contains(&magnitude);
        let written = if plain {
            std::fmt::write(&mut text, format_args!("{number}"))
        } else {
            std::fmt::write(&mut text, format_args!("{number:e}"))
        };
        written.expect("every float's text fits");
        text.0
    }
}

impl std::fmt::Debug for ShortText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Floats from here on, and below the other, have no exponent in their text.
const PLAIN_FLOAT_MIN: f64 = 1e-4;
const PLAIN_FLOAT_MAX: f64 = 1e17;

struct TextBuffer(ShortText);

impl std::fmt::Write for TextBuffer {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let start = usize::from(self.0.length);
        let room = self.0.bytes[start..].get_mut(..part.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.0.length += part.len() as u8;
        Ok(())
    }
}

/// Where the text of a string or bytes value begins, and how long it is, from its first bytes alone; `None` of any
/// other type, or if they are too few to tell.
pub fn text_place(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let (&(TYPE_BYTES | TYPE_STRING), rest) = head.split_first()? else { return None };
    let (length, length_bytes) = varint::read(rest).ok()?;
    let start = 1 + length_bytes;
    Some(start..start.checked_add(length)?)
}

/// The text of the encoded value; `None` where it has none, and where the bytes are not one value. The bytes of a
/// string are not checked again to be UTF-8.
#[inline]
pub fn text_of(encoded: &[u8]) -> Option<Text<'_>> {
    match *encoded.first()? {
        TYPE_BYTES | TYPE_STRING => {
            let (length, length_bytes) = varint::read(&encoded[1..]).ok()?;
            let bytes = &encoded[1 + length_bytes..];
            (bytes.len() == length).then_some(Text::Bytes(bytes))
        }
        TYPE_INT32 | TYPE_INT64 | TYPE_FLOAT64 | TYPE_BOOLEAN | TYPE_TIMESTAMP => short_text_of(encoded),
        _ => None,
    }
}

fn short_text_of(encoded: &[u8]) -> Option<Text<'_>> {
    let mut decoder = Decoder::new(encoded);
    let text = match decoder.value().ok()? {
        ValueRef::Int32(number) => ShortText::integer(number.into()),
        ValueRef::Int64(number) | ValueRef::Timestamp(number) => ShortText::integer(number),
        ValueRef::Float64(number) => ShortText::float(number),
        ValueRef::Boolean(boolean) => ShortText::new(if boolean { b"true" } else { b"false" }),
        _ => return None,
    };
    decoder.finish().ok()?;
    Some(Text::Short(text))
}

/// Longest text of an integer: a sign and 19 digits.
const MAX_INTEGER_BYTES: usize = 20;

/// The integer whose text is exactly `text`; `None` for any other text, and beyond 64 bits.
#[inline]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) || digits.len() >= MAX_INTEGER_BYTES {
        return None;
    }
    let mut magnitude = 0_u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits stay below 10^19, which 64 bits hold.
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;
    use proptest::prelude::*;

    fn text(value: impl Into<Value>) -> Option<String> {
        let mut encoded = Vec::new();
        value.into().encode(&mut encoded);
        text_of(&encoded).map(|text| String::from_utf8(text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn scalars_have_a_text_and_nothing_else_has() {
        assert_eq!(text("word").as_deref(), Some("word"));
        assert_eq!(text(vec![b'x'; 300]), Some("x".repeat(300)));
        assert_eq!(text("").as_deref(), Some(""));
        assert_eq!(text(i32::MIN).as_deref(), Some("-2147483648"));
        assert_eq!(text(i64::MIN).as_deref(), Some("-9223372036854775808"));
        assert_eq!(text(Value::Timestamp(1_700_000_000_000_000)).as_deref(), Some("1700000000000000"));
        assert_eq!((text(true).as_deref(), text(false).as_deref()), (Some("true"), Some("false")));
        assert_eq!((text(Value::Null), text(Vec::<Value>::new())), (None, None));
        assert_eq!(text(Vec::<(Value, Value)>::new()), None);
        assert_eq!(text(Value::Error { code: 1, message: "no".to_owned() }), None);
    }

    #[test]
    fn floats_are_as_short_as_they_can_be() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-0.1, "-0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e16, "10000000000000000"),
            (1e17, "1e17"),
            (1e300, "1e300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-5"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(text(number).as_deref(), Some(expected));
        }
    }

    #[test]
    fn bytes_that_are_not_one_value_have_no_text() {
        for bytes in [&b""[..], b"\x07", b"\x07\x02a", b"\x07\x01ab", b"\x07\x81\x00a", b"\x02\x01\x02", b"\x05\x02"] {
            assert_eq!(text_of(bytes), None, "{bytes:?}");
        }
        assert_eq!(text_of(&[TYPE_INT32, 1, 0, 0, 0, 0]), None);
        assert_eq!(text_of(b"k"), None);
    }

    #[test]
    fn a_part_of_a_text_is_a_text() {
        let encoded = [TYPE_INT32, 57, 48, 0, 0];
        let text = text_of(&encoded).unwrap();
        assert_eq!((text.len(), text.is_empty()), (5, false));
        assert_eq!((text.slice(1..3).as_bytes(), text.slice(2..2).is_empty()), (&b"23"[..], true));
        assert_eq!(text_of(b"\x07\x03abc").unwrap().slice(1..3), Text::Bytes(b"bc"));
    }

    #[test]
    fn only_the_one_text_of_an_integer_is_read() {
        for number in [0, 1, -1, 9, 10, 99, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1, -1_000_000] {
            let text = number.to_string();
            assert_eq!(parse_integer(text.as_bytes()), Some(number));
            assert_eq!(ShortText::integer(number).as_bytes(), text.as_bytes());
        }
        for text in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "00",
            "-01",
            "1a",
            "a",
            "0x1",
            "1.0",
            "--1",
            "\0",
            "1\0",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_float_reads_back_from_its_text(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            let text = ShortText::float(number);
            let read: f64 = std::str::from_utf8(text.as_bytes()).unwrap().parse().unwrap();
            prop_assert!(read.to_bits() == bits || number.is_nan() && read.is_nan());
        }

        #[test]
        fn any_bytes_have_a_text_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = text_of(&bytes);
        }
    }
}
