//! What can be asked about one key.
//!
//! Place in the flow: step 5 (execute), for every read of one key.
//!
//! Invariants:
//! - Asking changes nothing. Asking for the value or a part of it, and [`KeyQuery::Touch`], are uses of the key.
//! - A key whose expiry has passed at the asker's time does not exist.
//! - Questions about a text see the text of the value, whatever its type ([`text_of`]).

use std::ops::Range;

use eyot_protocol::request::KeyQuery;
use eyot_protocol::tlv::{parse_integer, text_of, text_place, Text, TYPE_LIST, TYPE_MAP};

use eyot_ring::MappedBytes;

use super::entry::Entry;
use super::expiry::TIMER_BYTES;
use super::table::Place;
use super::{has_expired, Failure, LargeValue, Shard, Stored};

/// The answer to a [`KeyQuery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To [`KeyQuery::Value`]: what is stored.
    Value(Option<Stored<'a>>),
    /// To [`KeyQuery::Exists`] and [`KeyQuery::Touch`].
    Boolean(bool),
    /// A number: of bytes, seconds or milliseconds. A time to live is -1 where the key never expires and -2 where it
    /// does not exist.
    Integer(i64),
    /// A text.
    Bytes(Text<'a>),
    /// A part of a large value that is a text: its bytes, and at which of the value's they begin.
    Part(&'a [u8], usize, LargeValue<'a>),
    /// To [`KeyQuery::Frequency`] and [`KeyQuery::IdleTime`]: the key's access word, which the eviction policy can
    /// read.
    Access(u32),
    /// A word.
    Status(&'static str),
    /// There is no such key.
    Null,
    /// The value does not fit the question.
    Failed(Failure),
}

/// What a key without an expiry has for a time to live, and one that does not exist.
const NEVER_EXPIRES: i64 = -1;
const NO_KEY: i64 = -2;

/// A text up to so many bytes is kept in one piece with its key, in Redis's words.
const EMBEDDED_TEXT_MAX: usize = 44;

/// What a key takes beside its entry: the word of its slot's table that leads to it.
const TABLE_BYTES_PER_KEY: usize = size_of::<Entry>();

impl Shard {
    /// Answers `query` about `key`, whose place is `place`, at the time `now_us`.
    #[inline]
    pub fn query(&self, place: Place, key: &[u8], query: KeyQuery, now_us: i64) -> Answer<'_> {
        match query {
            KeyQuery::Value => Answer::Value(self.get_at(place, key, now_us)),
            KeyQuery::Touch => Answer::Boolean(self.get_at(place, key, now_us).is_some()),
            KeyQuery::Length => match self.get_at(place, key, now_us) {
                Some(stored) => match stored.large.and_then(|large| text_place(large.head())) {
                    Some(place) => Answer::Integer(place.len() as i64),
                    None => with_text(stored.value, |text| Answer::Integer(text.len() as i64)),
                },
                None => Answer::Integer(0),
            },
            KeyQuery::Range { start, end } => match self.get_at(place, key, now_us) {
                Some(stored) => match stored.large.and_then(|large| Some((large, text_place(large.head())?))) {
                    // Nothing is touched, neither the part nor the value's head: their pages may not be there.
                    Some((large, place)) => {
                        let part = range_of(place.len(), start, end);
                        let first = place.start + part.start;
                        Answer::Part(&stored.value[first..first + part.len()], first, large)
                    }
                    None => with_text(stored.value, |text| Answer::Bytes(range(text, start, end))),
                },
                None => Answer::Bytes(Text::Bytes(&[])),
            },
            _ => self.inspect(place, key, query, now_us),
        }
    }

    /// How long the value under `key` is, encoded, and whether it lies in a value file; 0 where there is none. Whether
    /// it has expired is not asked, and it is no use of the key.
    pub fn value_bytes(&self, place: Place, key: &[u8]) -> (usize, bool) {
        self.tables.find(place, key).map_or((0, false), |entry| (entry.value().len(), entry.is_large()))
    }

    /// The bytes of a large value that answering `query` would read, all of them for [`KeyQuery::Value`]; `None` where
    /// no large value is read. So that who may not wait for their pages brings them first.
    pub fn large_part(&self, place: Place, key: &[u8], query: KeyQuery) -> Option<(MappedBytes, Range<usize>)> {
        let entry = self.tables.find(place, key)?;
        let value = entry.pin()?;
        let range = match (query, text_place(entry.value_head())) {
            (KeyQuery::Range { start, end }, Some(text)) => {
                let part = range_of(text.len(), start, end);
                text.start + part.start..text.start + part.end
            }
            _ => 0..value.len(),
        };
        Some((value, range))
    }

    /// Answers what is no use of the key.
    fn inspect(&self, place: Place, key: &[u8], query: KeyQuery, now_us: i64) -> Answer<'_> {
        let entry = self.tables.find(place, key).filter(|entry| !has_expired(expires_at_us(entry), now_us));
        match query {
            KeyQuery::Exists => Answer::Boolean(entry.is_some()),
            KeyQuery::TimeToLive { milliseconds, absolute } => Answer::Integer(match entry.map(expires_at_us) {
                Some(Some(at_us)) => time_to_live(at_us, milliseconds, absolute, now_us),
                Some(None) => NEVER_EXPIRES,
                None => NO_KEY,
            }),
            KeyQuery::Type => Answer::Status(entry.map_or("none", |entry| type_of(entry.value_head()))),
            KeyQuery::Encoding => entry.map_or(Answer::Null, |entry| Answer::Status(encoding_of(entry))),
            KeyQuery::MemoryUsage => entry.map_or(Answer::Null, |entry| Answer::Integer(memory_usage(entry) as i64)),
            KeyQuery::Frequency | KeyQuery::IdleTime => {
                entry.map_or(Answer::Null, |entry| Answer::Access(entry.access()))
            }
            KeyQuery::Value | KeyQuery::Touch | KeyQuery::Length | KeyQuery::Range { .. } => {
                unreachable!("answered by the caller")
            }
        }
    }
}

fn expires_at_us(entry: &Entry) -> Option<i64> {
    entry.expiry().map(|expiry| expiry.at_us)
}

fn with_text<'a>(value: &'a [u8], answer: impl FnOnce(Text<'a>) -> Answer<'a>) -> Answer<'a> {
    text_of(value).map_or(Answer::Failed(Failure::WrongType), answer)
}

fn time_to_live(expires_at_us: i64, milliseconds: bool, absolute: bool, now_us: i64) -> i64 {
    let time_us = if absolute { expires_at_us } else { expires_at_us.saturating_sub(now_us) };
    let time_ms = time_us.div_euclid(1000);
    // Seconds are rounded, as Redis does it.
    if milliseconds {
        time_ms
    } else {
        (time_ms + 500).div_euclid(1000)
    }
}

/// The bytes of `text` from `start` to `end`, the last one included; negative ones count from its end.
fn range(text: Text<'_>, start: i64, end: i64) -> Text<'_> {
    text.slice(range_of(text.len(), start, end))
}

fn range_of(length: usize, start: i64, end: i64) -> Range<usize> {
    let length = length as i64;
    let from_start = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    // Both behind the end, in the wrong order: nothing, although both would become the first byte.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end {
        return 0..0;
    }
    start as usize..end as usize + 1
}

/// The type in Redis's words: a scalar is a string, a map is a hash.
fn type_of(value: &[u8]) -> &'static str {
    match value.first() {
        Some(&TYPE_LIST) => "list",
        Some(&TYPE_MAP) => "hash",
        _ => "string",
    }
}

/// The form in which Redis would keep the value.
fn encoding_of(entry: &Entry) -> &'static str {
    match entry.value_head().first() {
        Some(&TYPE_LIST | &TYPE_MAP) => "listpack",
        _ if entry.is_large() => "raw",
        _ => match text_of(entry.value()) {
            Some(text) if parse_integer(text.as_bytes()).is_some() => "int",
            Some(text) if text.len() <= EMBEDDED_TEXT_MAX => "embstr",
            _ => "raw",
        },
    }
}

/// Bytes of the entry, its place in the table and its timer; free places of the table are nobody's.
fn memory_usage(entry: &Entry) -> usize {
    let timer_bytes = if entry.expiry().is_some() { TIMER_BYTES } else { 0 };
    entry.allocated_bytes() + TABLE_BYTES_PER_KEY + timer_bytes
}
