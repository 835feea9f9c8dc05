//! Comma-separated values: a head line, then one record for each entry. Cells are quoted as RFC 4180 says, so that they
//! may hold line breaks.
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
    records: csv::Reader<Limited<R>>,
    /// Where each of [`COLUMNS`] stands; `None` before the head line was read.
    places: Option<[Option<usize>; COLUMNS.len()]>,
    record: ByteRecord,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).buffer_capacity(READ_BYTES);
        let records = builder.from_reader(Limited { input, left: ROW_BYTES_MAX, has_begun: false });
        Self { records, places: None, record: ByteRecord::new() }
    }

    /// The next entry, with its line; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<(u64, Row)>, RowError> {
        if self.places.is_none() {
            if !self.read()? {
                return Err(RowError::Row { line: 1, what: "there is no head line".to_owned() });
            }
            let places = places(&self.record).map_err(|what| RowError::Row { line: 1, what })?;
            self.places = Some(places);
        }
        if !self.read()? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        let places = self.places.as_ref().expect("just read");
        let row = row(&self.record, places).map_err(|what| RowError::Row { line, what })?;
        Ok(Some((line, row)))
    }

    fn read(&mut self) -> Result<bool, RowError> {
        self.records.get_mut().left = ROW_BYTES_MAX;
        self.records.read_byte_record(&mut self.record).map_err(|error| {
            let line = error.position().map_or_else(|| self.records.position().line(), csv::Position::line);
            let what = error.to_string();
            match error.into_kind() {
                csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    RowError::Row { line, what: format!("longer than {ROW_BYTES_MAX} bytes; does a quote not end?") }
                }
                csv::ErrorKind::Io(error) => RowError::Read(error),
                _ => RowError::Row { line, what },
            }
        })
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

/// Stops a record without an end.
struct Limited<R> {
    input: R,
    left: u64,
    /// Whether anything was read.
    has_begun: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let needed = if std::mem::replace(&mut self.has_begun, true) { 1 } else { FIRST_BYTES_MIN };
        let mut count = 0;
        while count < needed {
            match self.input.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}
