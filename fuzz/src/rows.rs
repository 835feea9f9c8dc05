//! Properties of the readers of texts that are imported: JSON lines and CSV.
//!
//! What a person or another program has written stands in them, so what is accepted is compared by what it means: the
//! rows of a text, written again in either form, are the same rows.

use std::io::BufReader;

use eyot_client::rows::{csv, json, lines, Row, RowError};
use eyot_client::Value;
use eyot_protocol::limits::MAX_KEY_BYTES;
use eyot_protocol::snapshot::Entry;

/// The rows of a text up to its end or its first line that is none, with their lines, and that line with its fault.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    rows: Vec<Row>,
    lines: Vec<u64>,
    fault: Option<(u64, String)>,
}

/// Reads `input` as JSON lines, and as one JSON value.
///
/// # Panics
/// When what was accepted does not come back, or depends on how the bytes come.
pub fn import_jsonl(input: &[u8]) {
    let told = read_lines(input, 4096);
    assert_eq!(read_lines(input, 1), told, "a byte at a time");
    come_back(&told.rows);
    if let Ok(json::FromJson(value)) = serde_json::from_slice(input) {
        value_comes_back(&value);
    }
}

/// Reads `input` as CSV: as it is, and as records under the head line that `export` writes.
///
/// # Panics
/// When what was accepted does not come back, or depends on how the bytes come.
pub fn import_csv(input: &[u8]) {
    let with_head = [b"key,key_encoding,type,value,expires_at_us\n", input].concat();
    for text in [input, &with_head] {
        let told = read_csv(text, text.len().max(1));
        assert_eq!(read_csv(text, 1), told, "a byte at a time");
        come_back(&told.rows);
    }
}

fn read_lines(text: &[u8], piece_bytes: usize) -> Told {
    let mut reader = lines::Reader::new(BufReader::with_capacity(piece_bytes, text));
    read(1, || reader.next_row())
}

fn read_csv(text: &[u8], piece_bytes: usize) -> Told {
    let mut reader = csv::Reader::new(Pieces { text, piece_bytes });
    // A carriage return alone ends a record and no line.
    let lines_a_row_min = u64::from(!text.contains(&b'\r'));
    read(lines_a_row_min, || reader.next_row())
}

fn read(lines_a_row_min: u64, mut next: impl FnMut() -> Result<Option<(u64, Row)>, RowError>) -> Told {
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    loop {
        match next() {
            Ok(Some((line, row))) => {
                let last_line = lines.last().copied().unwrap_or(0);
                assert!(line > 0 && line >= last_line + lines_a_row_min, "line {line} after line {last_line}");
                assert!(row.key.len() <= MAX_KEY_BYTES && row.expires_at_us.is_none_or(|at_us| at_us > 0));
                assert!(Value::decode(&row.value).is_ok(), "a value for the wire");
                lines.push(line);
                rows.push(row);
            }
            Ok(None) => return Told { rows, lines, fault: None },
            Err(RowError::Row { line, what }) => {
                assert!(line > 0 && !what.is_empty(), "a fault says where and what");
                return Told { rows, lines, fault: Some((line, what)) };
            }
            Err(RowError::Read(error)) => panic!("bytes in memory can be read: {error}"),
        }
    }
}

/// The rows, written in each form, are read as the same rows.
fn come_back(rows: &[Row]) {
    let (mut text, mut table) = (Vec::new(), Vec::new());
    let mut writer = csv::Writer::new(&mut table).expect("a Vec takes everything");
    for Row { key, value, expires_at_us } in rows {
        let entry = Entry { slot: 0, key, value, version: 1, expires_at_us: *expires_at_us };
        lines::put(&mut text, &entry);
        writer.put(&entry).expect("a Vec takes everything");
    }
    writer.flush().expect("a Vec takes everything");
    drop(writer);
    same(&read_lines(&text, 4096), rows);
    same(&read_csv(&table, 4096), rows);
}

#[track_caller]
fn same(told: &Told, rows: &[Row]) {
    assert!(told.fault.is_none() && told.rows == rows, "{rows:?} came back as {told:?}");
}

fn value_comes_back(value: &Value) {
    let Ok(encoded) = json::encoded(value) else { return };
    let mut text = Vec::new();
    json::put_value(&mut text, value);
    let again: json::FromJson = serde_json::from_slice(&text).expect("what was written is JSON of a value");
    assert_eq!(json::encoded(&again.0).as_deref(), Ok(&encoded[..]), "{}", text.escape_ascii());
}

/// A reader that gives so much at a time.
struct Pieces<'a> {
    text: &'a [u8],
    piece_bytes: usize,
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.text.len().min(buffer.len()).min(self.piece_bytes);
        let (piece, rest) = self.text.split_at(count);
        buffer[..count].copy_from_slice(piece);
        self.text = rest;
        Ok(count)
    }
}
