//! Commands that change a part of a text.
//!
//! Place in the flow: step 8 (apply).
//!
//! The new text is put together in the shard's scratch memory and then stored like any value: a copy more than would be
//! needed, for one way in which values come into the table.

use eyot_protocol::tlv::Encoder;

use super::super::apply::Write;
use super::super::{Failure, Outcome, Shard};
use super::{find, MAX_TEXT_BYTES};

impl Shard {
    pub(super) fn append(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        length_max: Option<u32>,
        write: Write,
    ) -> Outcome<'static> {
        let found = match find(&self.tables, key, write) {
            Ok(found) => found,
            Err(failure) => return Outcome::Failed(failure),
        };
        let text = found.text.as_bytes();
        let length = text.len() + bytes.len();
        if length > length_max.map_or(MAX_TEXT_BYTES, |max| MAX_TEXT_BYTES.min(max as usize)) {
            return Outcome::Failed(Failure::TooLarge);
        }
        self.scratch.clear();
        self.scratch.reserve(length);
        Encoder::new(&mut self.scratch).bytes_head(length);
        self.scratch.extend_from_slice(text);
        self.scratch.extend_from_slice(bytes);
        let expires_at_us = found.expires_at_us;
        self.store_scratch(key, expires_at_us, write);
        Outcome::Integer(length as i64)
    }

    pub(super) fn set_range(&mut self, key: &[u8], offset: usize, bytes: &[u8], write: Write) -> Outcome<'static> {
        let found = match find(&self.tables, key, write) {
            Ok(found) => found,
            Err(failure) => return Outcome::Failed(failure),
        };
        let text = found.text.as_bytes();
        if bytes.is_empty() {
            return Outcome::Integer(text.len() as i64);
        }
        let end = offset + bytes.len();
        if end > MAX_TEXT_BYTES {
            return Outcome::Failed(Failure::TooLarge);
        }
        let length = text.len().max(end);
        self.scratch.clear();
        self.scratch.reserve(length);
        Encoder::new(&mut self.scratch).bytes_head(length);
        let head_bytes = self.scratch.len();
        self.scratch.extend_from_slice(&text[..text.len().min(offset)]);
        self.scratch.resize(head_bytes + offset, 0);
        self.scratch.extend_from_slice(bytes);
        self.scratch.extend_from_slice(text.get(end..).unwrap_or_default());
        let expires_at_us = found.expires_at_us;
        self.store_scratch(key, expires_at_us, write);
        Outcome::Integer(length as i64)
    }
}
