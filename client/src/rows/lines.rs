//! JSON lines: one object for each entry.
//!
//! Place in the flow: one of the forms of [`super`].
//!
//! ```text
//! {"key":"user:1","value":"John"}
//! {"key":"session:7","value":{"$bytes_text":"token"},"expires_at_us":1767225600000000}
//! {"key_base64":"AP8=","value":[1,2.5,null]}
//! ```

use std::io::{BufRead, Read};

use eyot_protocol::snapshot::Entry;

use super::json::{base64, encoded, from_base64, put_string, put_value, FromJson};
use super::{check_expiry, check_key, Row, RowError, ROW_BYTES_MAX};
use crate::Value;

/// Appends an entry's line.
///
/// # Panics
/// If the entry's value is no TLV value.
pub fn put(out: &mut Vec<u8>, entry: &Entry<'_>) {
    match std::str::from_utf8(entry.key) {
        Ok(text) => {
            out.extend_from_slice(b"{\"key\":");
            put_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"{\"key_base64\":");
            put_string(out, &base64(entry.key));
        }
    }
    out.extend_from_slice(b",\"value\":");
    put_value(out, &Value::decode(entry.value).expect("a value that was checked"));
    if let Some(at_us) = entry.expires_at_us {
        out.extend_from_slice(format!(",\"expires_at_us\":{at_us}").as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    key: Option<String>,
    key_base64: Option<String>,
    value: FromJson,
    expires_at_us: Option<i64>,
}

/// Reads a line.
pub fn parse(line: &[u8]) -> Result<Row, String> {
    let fields: Fields = serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => "the object does not end on its line".to_owned(),
        _ => error.to_string(),
    })?;
    let key = match (fields.key, fields.key_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => from_base64(&text).map_err(|error| format!("key_base64: {error}"))?,
        _ => return Err("an entry has either \"key\" or \"key_base64\"".to_owned()),
    };
    check_key(&key)?;
    check_expiry(fields.expires_at_us)?;
    Ok(Row { key, value: encoded(&fields.value.0)?, expires_at_us: fields.expires_at_us })
}

/// The entries of a text. Empty lines are passed over.
pub struct Reader<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: 0, text: Vec::new() }
    }

    /// The next entry, with its line; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<(u64, Row)>, RowError> {
        loop {
            self.text.clear();
            let count = self.input.by_ref().take(ROW_BYTES_MAX + 1).read_until(b'\n', &mut self.text);
            let count = count.map_err(RowError::Read)? as u64;
            self.line += 1;
            let line = self.line;
            if count == 0 {
                return Ok(None);
            }
            if count > ROW_BYTES_MAX {
                return Err(RowError::Row { line, what: format!("longer than {ROW_BYTES_MAX} bytes") });
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            let row = parse(&self.text).map_err(|what| RowError::Row { line, what })?;
            return Ok(Some((line, row)));
        }
    }
}
