//! Comma-separated values: a head line, then one record for each entry. Cells are quoted as RFC 4180 says, so that they
//! may hold line breaks; a text that ends within a quote is refused.
//!
//! Place in the flow: one of the forms of [`super`].
//!
//! ```text
//! key,key_encoding,type,value,expires_at_us
//! user:1,text,string,John,
//! session:7,text,bytes,token,1767225600000000
//! AP8=,base64,int32,5,
//! ```
//!
//! key_encoding: `text` or `base64`. type: `string`, `int32`, `int64`, `float64`, `boolean` (`true`, `false`), `null`
//! (an empty cell), `timestamp` (microseconds since 1970), `bytes` (text), `bytes_base64`, and `json` for everything
//! else ([`super::json`]). Of a text that is read only `key` and `value` must be there, and the columns may have any
//! order; without a type a value is a string.

use std::io::{self, Read, Write};

use csv::ByteRecord;
use eyot_protocol::snapshot::Entry;

use super::json::{base64, encoded, from_base64, put_value, FromJson};
use super::{check_expiry, check_key, Row, RowError, ROW_BYTES_MAX};
use crate::Value;

const COLUMNS: [&str; 5] = ["key", "key_encoding", "type", "value", "expires_at_us"];
/// What the reader takes from its input at a time.
const READ_BYTES: usize = 64 << 10;
/// What the first read must bring: the byte order mark of three bytes that some programs put in front of UTF-8, and a
/// byte behind it. The parser looks for the mark in the first bytes that it gets and does not wait for the rest of one,
/// and a mark alone is the end of the text to it.
const FIRST_BYTES_MIN: usize = 4;
/// What is put behind the text. A record without a line end gets one of the first byte; only a quote that is open takes
/// the second as well.
const TAIL: &[u8] = b"\n\n";

/// Writes entries.
pub struct Writer<W: Write>(csv::Writer<W>);

impl<W: Write> Writer<W> {
    /// Writes the head line.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS).map_err(into_io)?;
        Ok(Self(writer))
    }

    /// Writes an entry.
    ///
    /// # Panics
    /// If the entry's value is no TLV value.
    pub fn put(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let (key, key_encoding) = match std::str::from_utf8(entry.key) {
            Ok(text) => (text.to_owned(), "text"),
            Err(_) => (base64(entry.key), "base64"),
        };
        let (value_type, value) = cell(Value::decode(entry.value).expect("a value that was checked"));
        let expires = entry.expires_at_us.map_or_else(String::new, |at_us| at_us.to_string());
        self.0.write_record([&key, key_encoding, value_type, &value, &expires]).map_err(into_io)
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// The type of a value and its text.
fn cell(value: Value) -> (&'static str, String) {
    match value {
        Value::Null => ("null", String::new()),
        Value::String(text) => ("string", text),
        Value::Int32(number) => ("int32", number.to_string()),
        Value::Int64(number) => ("int64", number.to_string()),
        Value::Boolean(truth) => ("boolean", truth.to_string()),
        Value::Timestamp(at_us) => ("timestamp", at_us.to_string()),
        Value::Float64(number) if number.is_finite() => ("float64", number.to_string()),
        Value::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => ("bytes", text),
            Err(error) => ("bytes_base64", base64(error.as_bytes())),
        },
        other => {
            let mut json = Vec::new();
            put_value(&mut json, &other);
            ("json", String::from_utf8(json).expect("JSON is text"))
        }
    }
}

fn value_of(value_type: &str, text: &str) -> Result<Value, String> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        format!("value {shown:?} is no {value_type}")
    };
    Ok(match value_type {
        "string" | "" => Value::String(text.to_owned()),
        "null" if text.is_empty() => Value::Null,
        "int32" => Value::Int32(text.parse().map_err(|_| wrong())?),
        "int64" => Value::Int64(text.parse().map_err(|_| wrong())?),
        "float64" => Value::Float64(text.parse().map_err(|_| wrong())?),
        "boolean" => Value::Boolean(text.parse().map_err(|_| wrong())?),
        "timestamp" => Value::Timestamp(text.parse().map_err(|_| wrong())?),
        "bytes" => Value::Bytes(text.as_bytes().to_vec()),
        "bytes_base64" => Value::Bytes(from_base64(text)?),
        "json" => serde_json::from_str::<FromJson>(text).map_err(|error| error.to_string())?.0,
        "null" => return Err(wrong()),
        other => return Err(format!("type {other:?} is none")),
    })
}

/// The entries of a text.
pub struct Reader<R> {
    records: csv::Reader<Text<R>>,
    /// Where each of [`COLUMNS`] stands; `None` before the head line was read.
    places: Option<[Option<usize>; COLUMNS.len()]>,
    record: ByteRecord,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).buffer_capacity(READ_BYTES);
        let records =
            builder.from_reader(Text { input, left: ROW_BYTES_MAX, given: 0, last: Vec::new(), has_ended: false });
        Self { records, places: None, record: ByteRecord::new() }
    }

    /// The next entry, with the line on which it begins; `None` at the end.
    ///
    /// Lines are counted by their line feeds, as `wc` counts them; a carriage return alone ends a record and no line.
    pub fn next_row(&mut self) -> Result<Option<(u64, Row)>, RowError> {
        if self.places.is_none() {
            if !self.read()? {
                return Err(RowError::Row { line: 1, what: "there is no head line".to_owned() });
            }
            let line = self.line();
            let places = places(&self.record).map_err(|what| RowError::Row { line, what })?;
            self.places = Some(places);
        }
        if !self.read()? {
            return Ok(None);
        }
        let line = self.line();
        let places = self.places.as_ref().expect("just read");
        let row = row(&self.record, places).map_err(|what| RowError::Row { line, what })?;
        Ok(Some((line, row)))
    }

    fn read(&mut self) -> Result<bool, RowError> {
        self.records.get_mut().left = ROW_BYTES_MAX;
        let outcome = self.records.read_byte_record(&mut self.record);
        let what = match outcome.map_err(csv::Error::into_kind) {
            Err(csv::ErrorKind::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                // The record is not there to be counted: this is the line where the one before ends, or the next.
                let line = self.record.position().map_or(1, csv::Position::line);
                let what = format!("longer than {ROW_BYTES_MAX} bytes; does a quote not end?");
                return Err(RowError::Row { line, what });
            }
            Err(csv::ErrorKind::Io(error)) => return Err(RowError::Read(error)),
            Ok(false) => return Ok(false),
            _ if self.has_open_quote() => "the text ends within a quote".to_owned(),
            Ok(true) => return Ok(true),
            Err(csv::ErrorKind::UnequalLengths { expected_len, len, .. }) => {
                format!("{len} fields where the head line has {expected_len}")
            }
            Err(other) => format!("{other:?}"),
        };
        Err(RowError::Row { line: self.line(), what })
    }

    /// The line on which the record begins that was read last.
    ///
    /// The parser says where it was before: in front of empty lines, and of the line feed behind the carriage return of
    /// the record before. So this counts from the record's end.
    fn line(&self) -> u64 {
        let end = self.records.position();
        let is_ended = !self.has_open_quote() && self.records.get_ref().byte_before(end.byte()) == Some(b'\n');
        let within = self.record.as_slice().split(|byte| *byte == b'\n').count() - 1;
        end.line() - within as u64 - u64::from(is_ended)
    }

    /// Whether the record took all of [`TAIL`]. The parser itself lets such a record pass.
    fn has_open_quote(&self) -> bool {
        let text = self.records.get_ref();
        text.has_ended && self.records.position().byte() == text.given
    }
}

fn places(head: &ByteRecord) -> Result<[Option<usize>; COLUMNS.len()], String> {
    let mut places = [None; COLUMNS.len()];
    for (position, name) in head.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        let column = COLUMNS.iter().position(|column| *column == name);
        let column = column.ok_or_else(|| format!("column {name:?} is none of {}", COLUMNS.join(",")))?;
        if places[column].replace(position).is_some() {
            return Err(format!("column {name:?} stands twice"));
        }
    }
    for needed in ["key", "value"] {
        let column = COLUMNS.iter().position(|column| *column == needed).expect("one of them");
        places[column].ok_or_else(|| format!("the head line has no column {needed:?}"))?;
    }
    Ok(places)
}

fn row(record: &ByteRecord, places: &[Option<usize>; COLUMNS.len()]) -> Result<Row, String> {
    let mut cells = [""; COLUMNS.len()];
    for ((cell, place), name) in cells.iter_mut().zip(places).zip(COLUMNS) {
        let bytes = place.and_then(|place| record.get(place)).unwrap_or_default();
        *cell = std::str::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8; write it in base64"))?;
    }
    let [key, key_encoding, value_type, value, expires] = cells;
    let key = match key_encoding {
        "text" | "" => key.as_bytes().to_vec(),
        "base64" => from_base64(key).map_err(|error| format!("key: {error}"))?,
        other => return Err(format!("key_encoding {other:?}; give text or base64")),
    };
    check_key(&key)?;
    let expires_at_us = match expires {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("expires_at_us {text:?} is no whole number"))?),
    };
    check_expiry(expires_at_us)?;
    Ok(Row { key, value: encoded(&value_of(value_type, value)?)?, expires_at_us })
}

/// The text, and [`TAIL`] behind it. Stops a record without an end, and keeps what it gave last.
struct Text<R> {
    input: R,
    left: u64,
    /// How many bytes it gave.
    given: u64,
    /// The last of them, at most [`READ_BYTES`].
    last: Vec<u8>,
    has_ended: bool,
}

impl<R> Text<R> {
    /// The byte in front of an offset, if it was given last.
    fn byte_before(&self, end: u64) -> Option<u8> {
        let behind = usize::try_from(self.given.checked_sub(end)?).ok()?;
        self.last.iter().rev().nth(behind).copied()
    }
}

impl<R: Read> Text<R> {
    fn read_input(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let needed = if self.given == 0 { FIRST_BYTES_MIN } else { 1 };
        let mut count = 0;
        while count < needed {
            match self.input.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.has_ended {
            return Ok(0);
        }
        let mut count = self.read_input(buffer)?;
        if count == 0 {
            self.has_ended = true;
            count = TAIL.len();
            buffer[..count].copy_from_slice(TAIL);
        }
        self.last.clear();
        self.last.extend_from_slice(&buffer[..count]);
        self.given += count as u64;
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}
