//! Commands that count.
//!
//! Place in the flow: step 8 (apply).

use eyot_protocol::tlv::{parse_integer, Encoder, ShortText};

use super::super::apply::Write;
use super::super::{Failure, Outcome, Shard};
use super::extended::{Extended, Number};
use super::find;

impl Shard {
    pub(super) fn increment(&mut self, key: &[u8], by: i64, write: Write) -> Outcome<'static> {
        let found = match find(&self.tables, key, write) {
            Ok(found) => found,
            Err(failure) => return Outcome::Failed(failure),
        };
        let before = if found.exists { parse_integer(found.text.as_bytes()) } else { Some(0) };
        let Some(before) = before else { return Outcome::Failed(Failure::NotAnInteger) };
        let Some(after) = before.checked_add(by) else { return Outcome::Failed(Failure::Overflow) };
        self.scratch.clear();
        Encoder::new(&mut self.scratch).bytes(ShortText::integer(after).as_bytes());
        let expires_at_us = found.expires_at_us;
        self.store_scratch(key, expires_at_us, write);
        Outcome::Integer(after)
    }

    pub(super) fn increment_float(&mut self, key: &[u8], by: &[u8], write: Write) -> Outcome<'_> {
        let found = match find(&self.tables, key, write) {
            Ok(found) => found,
            Err(failure) => return Outcome::Failed(failure),
        };
        let before = if found.exists { Some(found.text.as_bytes()) } else { None };
        let after = match float_sum(before, by) {
            Ok(after) => after,
            Err(failure) => return Outcome::Failed(failure),
        };
        let expires_at_us = found.expires_at_us;
        // The text first, since its length stands before it; then it moves behind its head.
        self.scratch.clear();
        after.put_text(&mut self.scratch);
        let text_bytes = self.scratch.len();
        Encoder::new(&mut self.scratch).bytes_head(text_bytes);
        self.scratch.rotate_left(text_bytes);
        let head_bytes = self.scratch.len() - text_bytes;
        self.store_scratch(key, expires_at_us, write);
        Outcome::Text(&self.scratch[head_bytes..])
    }
}

/// The number whose text is `before` (0 where there is none) plus the one whose text is `by`.
fn float_sum(before: Option<&[u8]>, by: &[u8]) -> Result<Extended, Failure> {
    let before = before.map_or(Some(Number::Finite(Extended::ZERO)), Number::parse);
    match (before.ok_or(Failure::NotAFloat)?, Number::parse(by).ok_or(Failure::NotAFloat)?) {
        (Number::Finite(before), Number::Finite(by)) => before.sum(by).ok_or(Failure::NanOrInfinity),
        _ => Err(Failure::NanOrInfinity),
    }
}

/// [`float_sum`] as a text.
#[cfg(test)]
pub(in crate::shard) fn float_sum_text(before: Option<&[u8]>, by: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    float_sum(before, by)?.put_text(&mut text);
    Ok(text)
}
