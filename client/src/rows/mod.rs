//! Entries as text, one a line, and back: exactly the same keys, values, types and expiries.
//!
//! Place in the flow: beside it. `eyot snapshot export` writes rows, `import` reads them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`json`] | a value as JSON and back, and keys |
//! | [`lines`] | JSON lines |
//! | [`csv`] | comma-separated values |
//!
//! Invariants:
//! - What a writer writes, the reader reads as the same bytes, whatever they are.
//! - A row that is read costs memory for what has come of it, and at most [`ROW_BYTES_MAX`].
//!
//! Versions are not among it: a node gives its own.

pub mod csv;
pub mod json;
pub mod lines;

use eyot_protocol::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Longest row that is read: the longest key and value, each of their bytes written as six (`\u0001`). Without a bound,
/// a stream without line breaks would take all memory.
pub const ROW_BYTES_MAX: u64 = 6 * (MAX_KEY_BYTES + MAX_VALUE_BYTES) as u64 + 1024;

/// An entry as it is written to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// At most [`MAX_KEY_BYTES`].
    pub key: Vec<u8>,
    /// One encoded TLV value.
    pub value: Vec<u8>,
    /// In microseconds since 1970, above 0.
    pub expires_at_us: Option<i64>,
}

/// Why a row is none, and where.
#[derive(Debug)]
pub enum RowError {
    /// A line is no entry.
    Row {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The file cannot be read.
    Read(std::io::Error),
}

/// Why a key cannot be stored.
fn check_key(key: &[u8]) -> Result<(), String> {
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("the key has {} bytes; at most {MAX_KEY_BYTES}", key.len()));
    }
    Ok(())
}

/// Why a time of expiry is none.
fn check_expiry(expires_at_us: Option<i64>) -> Result<(), String> {
    match expires_at_us {
        Some(at_us) if at_us <= 0 => {
            Err(format!("expires_at_us {at_us}: give microseconds since 1970, above 0, or leave it out"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
