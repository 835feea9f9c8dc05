//! The commands that read what they change, and those on several keys.
//!
//! Place in the flow: step 8 (apply), called for whatever is not a plain SET, a DELETE or a logged removal.
//!
//! | file | what it holds |
//! |---|---|
//! | `texts` | APPEND, SETRANGE |
//! | `numbers` | INCR and its kin, INCRBYFLOAT |
//! | `extended` | the arithmetic of INCRBYFLOAT |
//! | `keys` | commands on whole keys: expiries, renames, copies, several at once, all of them |
//!
//! Invariants:
//! - A command that fails changes nothing, and leaves an expired key as it was.
//! - What a command writes of its own is a value of type bytes, whatever type was there before, at most
//!   [`MAX_TEXT_BYTES`] long, or as the command itself says: a bound of the format or of the log, not of this node, so
//!   that every replica decides alike.

mod extended;
mod keys;
mod numbers;
mod texts;

#[cfg(test)]
pub(super) use numbers::float_sum_text;

use eyot_protocol::command::{Command, Condition, NewExpiry, Value};
use eyot_protocol::limits::MAX_VALUE_BYTES;
use eyot_protocol::tlv::{encoded_bytes_of_bytes, text_of, Text};

use super::apply::Write;
use super::entry::{Entry, NewValue};
use super::table::Tables;
use super::uploads::WholeValue;
use super::{has_expired, Failure, Outcome, Shard};

/// Longest text that a command may make: its encoded value is as long as a value may be.
pub(super) const MAX_TEXT_BYTES: usize = MAX_VALUE_BYTES - (encoded_bytes_of_bytes(MAX_VALUE_BYTES) - MAX_VALUE_BYTES);

/// What a command changes: the text under its key, empty where there is none.
struct Found<'a> {
    text: Text<'a>,
    /// When the key ceases to exist; the changed one does so, too.
    expires_at_us: Option<i64>,
    exists: bool,
}

impl Shard {
    /// The commands that [`Shard::execute`] does not do itself.
    #[inline(never)]
    pub(super) fn execute_rarer(&mut self, command: Command<'_>, write: Write) -> Outcome<'_> {
        match command {
            Command::Set { key, value: Value::Upload(upload), expiry, condition, return_old } => {
                let whole = self.uploads.take(upload).expect("checked before the entry was applied");
                let value = match &whole {
                    WholeValue::Memory(bytes) => NewValue::Memory(bytes),
                    WholeValue::Mapped(handle) => NewValue::Mapped(handle.clone()),
                };
                if return_old {
                    self.set_returning(key, value, expiry, condition, write)
                } else {
                    self.set(key, value, expiry, condition, write)
                }
            }
            Command::Set { key, value: Value::Encoded(value), expiry, condition, .. } => {
                self.set_returning(key, NewValue::Memory(value), expiry, condition, write)
            }
            Command::Set { value: Value::Bytes(_), .. } => unreachable!("an entry holds encoded values"),
            Command::TakeOut { key } => self.take_out(key, write),
            Command::Append { key, bytes, length_max } => self.append(key, bytes, length_max, write),
            Command::Increment { key, by } => self.increment(key, by, write),
            Command::IncrementFloat { key, by } => self.increment_float(key, by, write),
            Command::SetRange { key, offset, bytes } => self.set_range(key, offset as usize, bytes, write),
            Command::SetExpiry { key, at_us, condition, return_value } => {
                self.set_expiry(key, at_us, condition, return_value, write)
            }
            Command::Rename { from, to, if_absent } => self.rename(from, to, if_absent, write),
            Command::Copy { from, to, replace } => self.copy(from, to, replace, write),
            Command::SetAllIfAbsent { pairs } => self.set_all_if_absent(pairs, write),
            Command::Clear => self.clear(),
            Command::Delete { .. } | Command::Expire { .. } => unreachable!("done by the caller"),
        }
    }

    /// Stores the value that stands in `scratch`, whatever is there, and keeps the expiry that was [`find`]'s.
    fn store_scratch(&mut self, key: &[u8], expires_at_us: Option<i64>, write: Write) {
        let scratch = std::mem::take(&mut self.scratch);
        let expiry = expires_at_us.map_or(NewExpiry::Never, NewExpiry::At);
        self.set(key, &scratch[..], expiry, Condition::Always, write);
        self.scratch = scratch;
    }
}

/// The entry of the command's first key, unless it has expired.
fn live<'a>(tables: &'a Tables, key: &[u8], write: Write) -> Option<&'a Entry> {
    tables.find(write.place, key).filter(|entry| !has_expired(expires_at_us(entry), write.now_us))
}

fn expires_at_us(entry: &Entry) -> Option<i64> {
    entry.expiry().map(|expiry| expiry.at_us)
}

/// What is under the command's key, as a text.
fn find<'a>(tables: &'a Tables, key: &[u8], write: Write) -> Result<Found<'a>, Failure> {
    let Some(entry) = live(tables, key, write) else {
        return Ok(Found { text: Text::Bytes(&[]), expires_at_us: None, exists: false });
    };
    let text = text_of(entry.value()).ok_or(Failure::WrongType)?;
    Ok(Found { text, expires_at_us: expires_at_us(entry), exists: true })
}
