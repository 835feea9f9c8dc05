//! The golden vectors of TLV values, `golden/tlv.txt`: what is on disk is the contract, in both directions.

use eyot_protocol::limits::MAX_DEPTH;
use eyot_protocol::tlv::{Decoder, TlvError, Value};

const VECTORS: &str = include_str!("golden/tlv.txt");

struct Vector<'a> {
    name: &'a str,
    bytes: Vec<u8>,
    /// The value, or `! Error at offset`.
    expected: &'a str,
}

fn vectors() -> Vec<Vector<'static>> {
    let lines = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.splitn(3, '|').map(str::trim);
            let mut field = || fields.next().unwrap_or_else(|| panic!("three fields in: {line}"));
            Vector { name: field(), bytes: hex(field()), expected: field() }
        })
        .collect()
}

/// Reads `61 62*3 (03 01)*2`.
fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('(') {
            Some(inside) => inside.split_once(')').expect("a closing parenthesis"),
            None => rest.split_at(2),
        };
        let group: Vec<u8> =
            group.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a hex byte")).collect();
        let (times, after) = repetition(after);
        bytes.extend(group.repeat(times));
        rest = after.trim_start();
    }
    bytes
}

/// Reads `*3`, or nothing, which is once.
fn repetition(text: &str) -> (usize, &str) {
    let Some(number) = text.strip_prefix('*') else { return (1, text) };
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    (number[..end].parse().expect("a number after *"), &number[end..])
}

/// Reads the notation that the head of the file explains.
struct Notation<'a> {
    rest: &'a str,
}

impl<'a> Notation<'a> {
    fn whole(text: &'a str) -> Value {
        let mut notation = Self { rest: text };
        let value = notation.value();
        assert_eq!(notation.rest, "", "text after the value in {text}");
        value
    }

    fn skip(&mut self, prefix: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find([',', ']', '}', ':', ' ', '*']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number<T: std::str::FromStr>(&mut self) -> T {
        let word = self.word();
        word.parse().unwrap_or_else(|_| panic!("a number, not {word}"))
    }

    fn text(&mut self) -> String {
        assert!(self.skip("\""), "a text at {}", self.rest);
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next().expect("a closing quote") {
                '"' => break,
                '\\' => text.push(match characters.next() {
                    Some('n') => '\n',
                    Some('0') => '\0',
                    Some(other @ ('"' | '\\')) => other,
                    other => panic!("unknown escape {other:?}"),
                }),
                character => text.push(character),
            }
        }
        let (times, rest) = repetition(characters.as_str());
        self.rest = rest;
        text.repeat(times)
    }

    fn value(&mut self) -> Value {
        if self.skip("[") {
            return self.list();
        }
        if self.skip("{") {
            return self.map();
        }
        if self.rest.starts_with('"') {
            return Value::String(self.text());
        }
        match self.word() {
            "null" => Value::Null,
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            "int32" => Value::Int32(self.number()),
            "int64" => Value::Int64(self.number()),
            "float64" => Value::Float64(self.number()),
            "timestamp" => Value::Timestamp(self.number()),
            "bytes" => Value::Bytes(hex(&self.text())),
            "error" => Value::Error { code: self.number(), message: self.text() },
            other => panic!("unknown value {other}"),
        }
    }

    fn list(&mut self) -> Value {
        let mut values = Vec::new();
        while !self.skip("]") {
            let value = self.value();
            let (times, rest) = repetition(self.rest);
            self.rest = rest;
            values.extend(std::iter::repeat_n(value, times));
            self.skip(",");
        }
        Value::List(values)
    }

    fn map(&mut self) -> Value {
        let mut pairs = Vec::new();
        while !self.skip("}") {
            let key = self.value();
            assert!(self.skip(":"), "a colon at {}", self.rest);
            pairs.push((key, self.value()));
            self.skip(",");
        }
        Value::Map(pairs)
    }
}

/// Where an error says that the bytes are wrong.
fn offset(error: TlvError) -> usize {
    match error {
        TlvError::Truncated { offset, .. }
        | TlvError::UnknownType { offset, .. }
        | TlvError::VarintTooLong { offset }
        | TlvError::VarintNotMinimal { offset }
        | TlvError::LengthOverflow { offset }
        | TlvError::InvalidUtf8 { offset }
        | TlvError::TooDeep { offset, .. }
        | TlvError::InvalidBoolean { offset, .. }
        | TlvError::TrailingBytes { offset, .. }
        | TlvError::Unexpected { offset, .. } => offset,
    }
}

#[test]
fn values_encode_to_their_bytes() {
    for Vector { name, bytes, expected } in vectors().iter().filter(|vector| !vector.expected.starts_with('!')) {
        let mut encoded = Vec::new();
        Notation::whole(expected).encode(&mut encoded);
        assert_eq!(&encoded, bytes, "{name}");
    }
}

#[test]
fn bytes_decode_to_their_values() {
    for Vector { name, bytes, expected } in vectors().iter().filter(|vector| !vector.expected.starts_with('!')) {
        assert_eq!(Value::decode(bytes), Ok(Notation::whole(expected)), "{name}");
        let mut decoder = Decoder::new(bytes);
        assert_eq!(decoder.raw_value(), Ok(bytes.as_slice()), "{name}");
        assert_eq!(decoder.finish(), Ok(()), "{name}");
    }
}

#[test]
fn refused_bytes_are_refused_with_the_error_and_offset_named() {
    for Vector { name, bytes, expected } in &vectors() {
        let Some(expected) = expected.strip_prefix("! ") else { continue };
        let error = Value::decode(bytes).expect_err(name);
        assert_eq!(format!("{} at {}", error.name(), offset(error)), *expected, "{name}: {error}");
        let mut decoder = Decoder::new(bytes);
        let raw = decoder.raw_value().and_then(|_| decoder.finish());
        assert_eq!(raw, Err(error), "{name}: raw_value and value agree");
    }
}

#[test]
fn every_type_and_every_error_has_a_vector() {
    let vectors = vectors();
    let accepted = |type_byte| {
        vectors.iter().any(|vector| !vector.expected.starts_with('!') && vector.bytes.first() == Some(&type_byte))
    };
    assert!((0x00..=0x0a).all(accepted));
    // `Unexpected` is not about one value: it has its tests beside the decoder.
    for error in [
        "Truncated",
        "UnknownType",
        "VarintTooLong",
        "VarintNotMinimal",
        "LengthOverflow",
        "InvalidUtf8",
        "TooDeep",
        "InvalidBoolean",
        "TrailingBytes",
    ] {
        let wanted = format!("! {error} at");
        assert!(vectors.iter().any(|vector| vector.expected.starts_with(&wanted)), "{error}");
    }
    let names: std::collections::BTreeSet<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), vectors.len(), "names are distinct");
    assert_eq!(MAX_DEPTH, 32, "the depth vectors are written for this limit");
}
