//! A chunk that was read: its columns where they lie, and the walk over its entries.
//!
//! Place in the flow: the decoder checks a chunk as a whole when its message has come, and lends it out; whoever
//! restores or verifies walks it.
//!
//! Invariants:
//! - Once [`Columns::check`] has passed, every column has the length that it must have and every number is within its
//!   bounds: the walk finds whole keys and values, and can fail only over the order of the keys.
//! - A chunk that is walked to its end, or not at all, is counted the same.

use std::ops::RangeInclusive;

use super::entry::{Entry, Order};
use super::error::{Problem, SnapshotError};
use super::message::{ShardHeader, Totals};
use super::wire::{take_varint, unzigzag, Fields};
use super::{MAX_CHUNK_ENTRIES, MAX_INLINE_VALUE_BYTES};
use crate::key::shard_of_slot;
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_KEY_BYTES};

/// A number of each entry, as it stands in the message.
#[derive(Debug, Clone, Copy)]
enum Column<'a> {
    /// One after the other, packed.
    Each(&'a [u8]),
    /// All entries have this one.
    Same(u64),
}

impl Column<'_> {
    /// The next element of a column that has been checked.
    #[inline]
    fn next(&mut self) -> u64 {
        match self {
            Self::Same(same) => *same,
            Self::Each(packed) => take_varint(packed).unwrap_or_default(),
        }
    }

    /// Makes sure that there is one element, or one for each of `entries`, and all within bounds; tells what they add
    /// up to over all entries.
    fn check(&mut self, entries: u64, bounds: RangeInclusive<u64>) -> Result<u64, Problem> {
        let Self::Each(mut rest) = *self else { return Err(WRONG_COUNT) };
        let (mut count, mut sum, mut last) = (0_u64, 0_u64, 0);
        while !rest.is_empty() {
            last = take_varint(&mut rest).filter(|element| bounds.contains(element)).ok_or(OUT_OF_BOUNDS)?;
            // Lengths cannot overflow it; what other columns add up to is not asked for.
            sum = sum.wrapping_add(last);
            count += 1;
        }
        if count == 1 {
            *self = Self::Same(last);
            return Ok(last.wrapping_mul(entries));
        }
        if count == entries {
            Ok(sum)
        } else {
            Err(WRONG_COUNT)
        }
    }
}

impl Default for Column<'_> {
    fn default() -> Self {
        Self::Each(&[])
    }
}

const OUT_OF_BOUNDS: Problem = Problem::Malformed { what: "a column of a chunk has a number out of its bounds" };
const WRONG_COUNT: Problem = Problem::Malformed { what: "a column of a chunk has not one number for each entry" };
const WRONG_KEYS: Problem = Problem::Malformed { what: "the keys of a chunk have not the lengths that it gives them" };
const WRONG_VALUES: Problem =
    Problem::Malformed { what: "the values of a chunk have not the lengths that it gives them" };
const WRONG_EXPIRIES: Problem = Problem::Malformed { what: "the expiries of a chunk do not fit its entries" };

/// A chunk's fields.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Columns<'a> {
    entry_count: u64,
    key_bytes: Column<'a>,
    shared_bytes: Column<'a>,
    keys: &'a [u8],
    value_bytes: Column<'a>,
    values: &'a [u8],
    index_behind: Column<'a>,
    position: Column<'a>,
    /// Packed, as the last.
    expiring_gap: &'a [u8],
    expires_from_us: i64,
    expires_after_us: &'a [u8],
}

impl<'a> Columns<'a> {
    /// Takes a chunk apart and checks all of it but the order of its keys. `index` is the snapshot's.
    pub(super) fn decode(message: &'a [u8], index: u64) -> Result<(Self, Totals), Problem> {
        let mut columns = Self::fields(message)?;
        let totals = columns.check(index)?;
        Ok((columns, totals))
    }

    fn fields(message: &'a [u8]) -> Result<Self, Problem> {
        let mut columns = Self::default();
        let mut fields = Fields::of(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => columns.entry_count = field.number()?,
                2 => columns.key_bytes = Column::Each(field.bytes()?),
                3 => columns.shared_bytes = Column::Each(field.bytes()?),
                4 => columns.keys = field.bytes()?,
                5 => columns.value_bytes = Column::Each(field.bytes()?),
                6 => columns.values = field.bytes()?,
                7 => columns.index_behind = Column::Each(field.bytes()?),
                8 => columns.position = Column::Each(field.bytes()?),
                9 => columns.expiring_gap = field.bytes()?,
                10 => columns.expires_from_us = unzigzag(field.number()?),
                11 => columns.expires_after_us = field.bytes()?,
                _ => {}
            }
        }
        Ok(columns)
    }

    fn check(&mut self, index: u64) -> Result<Totals, Problem> {
        let entries = self.entry_count;
        if entries == 0 || entries > MAX_CHUNK_ENTRIES as u64 {
            return Err(Problem::Malformed { what: "a chunk has no entries, or more than 32,768" });
        }
        let key_bytes = self.key_bytes.check(entries, 0..=MAX_KEY_BYTES as u64)?;
        let shared_bytes = self.check_shared()?;
        if key_bytes.checked_sub(shared_bytes) != Some(self.keys.len() as u64) {
            return Err(WRONG_KEYS);
        }
        let value_bytes = self.value_bytes.check(entries, 1..=MAX_INLINE_VALUE_BYTES as u64)?;
        if value_bytes != self.values.len() as u64 {
            return Err(WRONG_VALUES);
        }
        self.index_behind.check(entries, 0..=index)?;
        self.position.check(entries, 0..=MAX_COMMANDS_PER_ENTRY as u64 - 1)?;
        let expiring = self.check_expiries()?;
        Ok(Totals { entries, key_bytes, value_bytes, expiring, large_values: 0 })
    }

    /// What the keys leave out, in all: each no more than it has, nor than the key before it has.
    fn check_shared(&mut self) -> Result<u64, Problem> {
        let Column::Each(mut rest) = self.shared_bytes else { return Err(WRONG_COUNT) };
        if rest.is_empty() {
            self.shared_bytes = Column::Same(0);
            return Ok(0);
        }
        let (mut key_bytes, mut before, mut sum) = (self.key_bytes, 0, 0);
        for _ in 0..self.entry_count {
            let length = key_bytes.next();
            let shared = take_varint(&mut rest).ok_or(WRONG_COUNT)?;
            if shared > length.min(before) {
                return Err(WRONG_KEYS);
            }
            sum += shared;
            before = length;
        }
        if rest.is_empty() {
            Ok(sum)
        } else {
            Err(WRONG_COUNT)
        }
    }

    /// How many entries expire.
    fn check_expiries(&self) -> Result<u64, Problem> {
        let (mut gaps, mut after) = (self.expiring_gap, self.expires_after_us);
        let (mut next, mut expiring) = (0_u64, 0);
        while !gaps.is_empty() {
            let gap = take_varint(&mut gaps).filter(|&gap| gap < self.entry_count).ok_or(WRONG_EXPIRIES)?;
            let after_us = take_varint(&mut after).ok_or(WRONG_EXPIRIES)?;
            next += gap + 1;
            let is_a_time = self.expires_from_us.checked_add_unsigned(after_us).is_some();
            if next > self.entry_count || !is_a_time {
                return Err(WRONG_EXPIRIES);
            }
            expiring += 1;
        }
        if after.is_empty() {
            Ok(expiring)
        } else {
            Err(WRONG_EXPIRIES)
        }
    }
}

/// The entries of a chunk, one after the other.
#[derive(Debug)]
pub struct Chunk<'a> {
    columns: Columns<'a>,
    /// Entries that have not been handed out.
    left: u64,
    /// Entries before the next one that expires; `None`: no further one does.
    until_expiring: Option<u64>,
    header: &'a ShardHeader,
    order: &'a mut Order,
    /// Where the message stands.
    offset: u64,
    message: u64,
}

impl<'a> Chunk<'a> {
    pub(super) fn new(
        columns: Columns<'a>,
        header: &'a ShardHeader,
        order: &'a mut Order,
        (offset, message): (u64, u64),
    ) -> Self {
        let left = columns.entry_count;
        let mut chunk = Self { columns, left, until_expiring: None, header, order, offset, message };
        chunk.until_expiring = chunk.next_gap();
        chunk
    }

    /// How many entries have not been handed out; all, at first.
    pub fn entries_left(&self) -> u64 {
        self.left
    }

    /// The next entry; `None` after the last. Its key is borrowed until the next call.
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, SnapshotError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let columns = &mut self.columns;
        let (length, shared) = (columns.key_bytes.next() as usize, columns.shared_bytes.next() as usize);
        let rest = take(&mut columns.keys, length - shared);
        let value_bytes = columns.value_bytes.next() as usize;
        let value = take(&mut columns.values, value_bytes);
        let version = (self.header.index - columns.index_behind.next()) << 16 | columns.position.next();
        let expires_at_us = self.next_expiry();
        let (slot, follows) = self.order.advance_to(shared, rest);
        let ShardHeader { shard, shard_count, .. } = *self.header;
        if !follows {
            return Err(self.fails(Problem::OutOfOrder { slot }));
        }
        if shard_of_slot(slot, shard_count) != shard {
            return Err(self.fails(Problem::ForeignSlot { slot, shard, shard_count }));
        }
        Ok(Some(Entry { slot, key: self.order.key(), value, version, expires_at_us }))
    }

    #[inline]
    fn next_expiry(&mut self) -> Option<i64> {
        match &mut self.until_expiring {
            None => None,
            Some(0) => {
                self.until_expiring = self.next_gap();
                let after_us = take_varint(&mut self.columns.expires_after_us).unwrap_or_default();
                Some(self.columns.expires_from_us.wrapping_add_unsigned(after_us))
            }
            Some(until) => {
                *until -= 1;
                None
            }
        }
    }

    fn next_gap(&mut self) -> Option<u64> {
        take_varint(&mut self.columns.expiring_gap)
    }

    /// The walk ends with an error: what stands behind has no meaning.
    #[cold]
    fn fails(&mut self, problem: Problem) -> SnapshotError {
        self.left = 0;
        SnapshotError { offset: self.offset, message: self.message, problem }
    }
}

/// The first `length` bytes, of which a checked column has made sure.
#[inline]
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}
