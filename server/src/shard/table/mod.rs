//! The shard's tables: one for each slot, made of 64-byte buckets, so that growth moves few entries at a time, and a
//! slot can be walked, counted or handed over by itself.
//!
//! Place in the flow: step 5 (execute) finds keys here, step 8 (apply) changes them.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Tables`]: all slots of a shard, and the counts |
//! | `slot` | the table of one slot: one segment, or a directory of them |
//! | `segment` | buckets in the order of hashes: search, insert, remove, growth |
//! | `arena` | the memory of the buckets, without holes |
//! | `bucket` | one cache line of tagged pointers |
//! | `scan` | walks that can be interrupted, and random picks |
//! | `emptied` | the tables that a Clear took out, until they are freed |
//! | `change` | `EntryMut`: how an entry in a table changes |
//! | `walk` | the walk of a snapshot, and what it keeps of entries that changed since it began |
//! | `runs` | the sorted keys of one slot, for the walk |
//!
//! Invariants:
//! - A key stands in the table of its slot and nowhere else, once.
//! - A key is hashed once per operation, and 32 bits of the hash are all that is used of it: the entry keeps them.
//! - `entry_bytes`, `table_bytes`, `keys` and `group_keys` always equal what a walk over all tables would count.
//! - While a snapshot's walk is under way, an entry that it still needs is never freed or edited: all that takes one
//!   out or changes it is [`Tables::remove_if`], [`Tables::take_all`] and `EntryMut`, and each asks the walk.
//! - The hash seed decides where an entry lies, and with it the order of walks; nothing else that can be seen from
//!   outside.
//!
//! Deliberately not here: expiry, versions, conditions.

mod arena;
mod bucket;
mod change;
mod emptied;
mod runs;
mod scan;
mod segment;
mod slot;
mod walk;

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::ptr;

use ahash::RandomState;
use eyot_protocol::key;

use super::entry::{prefetch_line, Entry, OwnedEntry};
use arena::Arena;
use bucket::{Bucket, Word};
use segment::Segment;
use slot::SlotTable;

pub(super) use emptied::Emptied;
pub(super) use scan::{mixed, Position};
#[cfg(test)]
pub(super) use walk::Planted;
pub(super) use walk::Walk;

/// Slots whose keys are counted together, so that a random pick finds its slot in some hundred steps.
const SLOTS_PER_GROUP: usize = 64;

/// Where a key belongs in its shard: what is computed from the key once per operation. Means nothing to another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    hash: u32,
    /// The slot, counted from the shard's first one.
    table: u16,
}

impl Place {
    /// The hash that an entry at this place keeps.
    #[inline]
    pub(crate) fn hash(self) -> u32 {
        self.hash
    }
}

/// What the hashes of keys depend on: a secret of the process, drawn anew at each start, which nothing that is shown or
/// stored may follow from. Who knew it could choose keys that fall on each other.
#[derive(Clone, Copy)]
pub struct HashSeed([u64; 4]);

impl HashSeed {
    /// The seed made of four random numbers.
    pub const fn new(numbers: [u64; 4]) -> Self {
        Self(numbers)
    }
}

/// All four numbers from one: for tests and benchmarks, which want the same layout each time.
impl From<u64> for HashSeed {
    fn from(number: u64) -> Self {
        Self([0, 1, 2, 3].map(|place| mixed(number.wrapping_add(place))))
    }
}

/// All entries of a shard.
pub(super) struct Tables {
    first_slot: u16,
    by_slot: Box<[SlotTable]>,
    /// Where their buckets lie: declared behind them, so that it is freed after them.
    arena: Arena,
    /// Keys of each [`SLOTS_PER_GROUP`] slots.
    group_keys: Box<[u32]>,
    hasher: RandomState,
    keys: usize,
    entry_bytes: usize,
    /// What of `entry_bytes` is large values.
    large_value_bytes: usize,
    table_bytes: usize,
    /// The walk of the running snapshot.
    walk: Option<Box<Walk>>,
}

impl Tables {
    /// Empty tables for `slots`.
    pub fn new(slots: Range<u16>, hash_seed: impl Into<HashSeed>) -> Self {
        let HashSeed([first, second, third, fourth]) = hash_seed.into();
        let hasher = RandomState::with_seeds(first, second, third, fourth);
        let by_slot: Box<[_]> = slots.clone().map(|_| SlotTable::new()).collect();
        let group_keys = vec![0; by_slot.len().div_ceil(SLOTS_PER_GROUP)].into_boxed_slice();
        let table_bytes = fixed_bytes(&by_slot, &group_keys);
        Self {
            first_slot: slots.start,
            by_slot,
            arena: Arena::new(),
            group_keys,
            hasher,
            keys: 0,
            entry_bytes: 0,
            large_value_bytes: 0,
            table_bytes,
            walk: None,
        }
    }

    /// The slots that have a table.
    pub fn slots(&self) -> Range<u16> {
        self.first_slot..self.first_slot + self.by_slot.len() as u16
    }

    /// Where `key` belongs, whose slot is `slot`; `None` when that is not a slot of this shard.
    #[inline]
    pub fn place(&self, slot: u16, key: &[u8]) -> Option<Place> {
        let table = slot.wrapping_sub(self.first_slot);
        if usize::from(table) >= self.by_slot.len() {
            return None;
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        Some(Place { hash: hasher.finish() as u32, table })
    }

    /// How many keys `slot` has; `None` when it is not a slot of this shard.
    pub fn keys_in_slot(&self, slot: u16) -> Option<usize> {
        self.by_slot.get(usize::from(slot.checked_sub(self.first_slot)?)).map(SlotTable::keys)
    }

    #[inline]
    fn slot(&self, place: Place) -> &SlotTable {
        &self.by_slot[usize::from(place.table)]
    }

    /// The entry of `key`.
    #[inline]
    pub fn find(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.slot(place).find(place.hash, |entry| entry.key() == key)
    }

    /// The first entry at `place` that `is_it` takes for the one it seeks.
    pub fn find_by(&self, place: Place, is_it: impl FnMut(&Entry) -> bool) -> Option<&Entry> {
        self.slot(place).find(place.hash, is_it)
    }

    /// Adds `entry`, whose key must not be there yet. `place` is that of its key.
    #[inline]
    pub fn insert(&mut self, place: Place, entry: OwnedEntry) {
        debug_assert!(self.find(place, entry.key()).is_none(), "the key is there already");
        debug_assert!(entry.hash() == place.hash, "the entry keeps another hash");
        self.keys += 1;
        self.group_keys[usize::from(place.table) / SLOTS_PER_GROUP] += 1;
        self.entry_bytes += entry.allocated_bytes();
        self.large_value_bytes += entry.large_value_bytes();
        let slot = &mut self.by_slot[usize::from(place.table)];
        if slot.is_full(place.hash) {
            self.table_bytes -= slot.bytes();
            slot.make_room(place.hash, &mut self.arena);
            self.table_bytes += slot.bytes();
        }
        slot.insert(place.hash, entry);
        self.settle();
    }

    /// Takes the entry of `key` out if there is one and `condition` holds for it.
    #[inline]
    pub fn remove_if(
        &mut self,
        place: Place,
        key: &[u8],
        condition: impl FnOnce(&Entry) -> bool,
    ) -> Option<OwnedEntry> {
        let slot = &mut self.by_slot[usize::from(place.table)];
        let spot = slot.spot(place.hash, |entry| entry.key() == key)?;
        if !slot.segment(place.hash).entry(spot).is_some_and(condition) {
            return None;
        }
        let mut entry = slot.remove(place.hash, spot)?;
        self.keys -= 1;
        self.group_keys[usize::from(place.table) / SLOTS_PER_GROUP] -= 1;
        self.entry_bytes -= entry.allocated_bytes();
        self.large_value_bytes -= entry.large_value_bytes();
        if slot.is_sparse(place.hash) {
            self.table_bytes -= slot.bytes();
            slot.shrink(place.hash, &mut self.arena);
            self.table_bytes += slot.bytes();
            self.settle();
        }
        if let Some(walk) = &mut self.walk {
            walk.keep_removed(place.table, &mut entry);
        }
        Some(entry)
    }

    /// Lets the arena fill the holes that a change of some segment's size has left.
    #[inline]
    fn settle(&mut self) {
        let (by_slot, first_slot) = (&mut self.by_slot, self.first_slot);
        self.arena.settle(|entry, from, to| {
            let slot = key::slot(entry.key()) - first_slot;
            by_slot[usize::from(slot)].segment_mut(entry.hash()).move_to(from, to);
        });
    }

    /// Takes everything out at once: the tables are empty, and the old ones can be freed step by step; `None` if the
    /// snapshot's walk needs them: they come with [`Tables::end_walk`] then.
    pub fn take_all(&mut self) -> Option<Emptied> {
        let by_slot: Box<[_]> = self.by_slot.iter().map(|_| SlotTable::new()).collect();
        let bytes = self.memory_bytes();
        self.group_keys.fill(0);
        self.table_bytes = fixed_bytes(&by_slot, &self.group_keys);
        (self.keys, self.entry_bytes, self.large_value_bytes) = (0, 0, 0);
        let arena = std::mem::replace(&mut self.arena, Arena::new());
        let emptied = Emptied::new(std::mem::replace(&mut self.by_slot, by_slot), arena, bytes - self.table_bytes);
        match &mut self.walk {
            Some(walk) => walk.keep_tables(emptied),
            None => Some(emptied),
        }
    }

    /// Asks the processor to fetch what tells where the table of `place` lies: a step before
    /// [`Tables::prefetch_bucket`], for those who know their keys well ahead. Changes nothing.
    #[inline]
    pub fn prefetch_slot(&self, place: Place) {
        prefetch_line(ptr::from_ref(self.slot(place)).cast());
    }

    /// Asks the processor to fetch the line of the table in which a look-up at `place` begins: the first of two steps,
    /// for those who have dozens of keys to look up. Changes nothing.
    #[inline]
    pub fn prefetch_bucket(&self, place: Place) {
        self.slot(place).segment(place.hash).prefetch_bucket(place.hash);
    }

    /// Asks the processor to fetch the entry that a look-up at `place` will read. Changes nothing.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        self.slot(place).segment(place.hash).prefetch(place.hash);
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        let segments = self.by_slot.iter().flat_map(SlotTable::segments);
        segments.flat_map(Segment::buckets).flat_map(Bucket::words).filter_map(Word::entry)
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of all entries.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Bytes of all large values, a part of [`Tables::entry_bytes`].
    pub fn large_value_bytes(&self) -> usize {
        self.large_value_bytes
    }

    /// Bytes of all entries and tables.
    pub fn memory_bytes(&self) -> usize {
        self.entry_bytes + self.table_bytes
    }

    /// [`Tables::memory_bytes`], counted by walking over everything, whose invariants are checked.
    #[cfg(test)]
    pub fn recount_bytes(&self) -> usize {
        let tables: usize = self.by_slot.iter().map(SlotTable::check).sum();
        let entries: usize = self.iter().map(Entry::allocated_bytes).sum();
        assert_eq!(self.iter().map(Entry::large_value_bytes).sum::<usize>(), self.large_value_bytes);
        for (group, keys) in self.by_slot.chunks(SLOTS_PER_GROUP).zip(&*self.group_keys) {
            assert_eq!(group.iter().map(SlotTable::keys).sum::<usize>(), *keys as usize);
        }
        fixed_bytes(&self.by_slot, &self.group_keys) + tables + entries
    }
}

/// Bytes that are there without any key.
fn fixed_bytes(by_slot: &[SlotTable], group_keys: &[u32]) -> usize {
    size_of_val(by_slot) + size_of_val(group_keys)
}

#[cfg(test)]
mod tests;
