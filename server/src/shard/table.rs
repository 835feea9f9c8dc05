//! The slot tables: one small hash table of entries for each slot of the shard, so that growth moves the keys of one
//! slot and never stalls, and a slot can be walked or handed over by itself.
//!
//! Place in the flow: step 5 (execute) finds keys here, step 8 (apply) changes them.
//!
//! Invariants:
//! - A key stands in the table of its slot and nowhere else, once.
//! - A key is hashed once per operation; a table that grows or shrinks takes the hash from the entry.
//! - `entry_bytes`, `table_bytes` and `keys` always equal what a walk over all tables would count.
//! - The hash seed decides where an entry lies, and nothing that can be seen from outside.
//!
//! Deliberately not here: expiry, versions, conditions.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashTable;

use super::entry::{Entry, OwnedEntry, Resized};

/// A table is made smaller when less than one in so many of its places is taken: far enough below the half at which it
/// would have grown that keys coming and going around one size do not move it each time.
const SHRINK_RATIO: usize = 8;

/// Tables with room for at most so many keys are never made smaller: it would free less than a page.
const SHRINK_FROM_CAPACITY: usize = 56;

/// Where a key belongs in its shard: what is computed from the key once per operation. Means nothing to another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    hash: u32,
    /// The slot, counted from the shard's first one.
    table: u16,
}

impl Place {
    /// Spreads the 32 bits that an entry keeps over the 64 that a table wants: its low bits choose the group, its high
    /// bits the tag.
    #[inline]
    fn table_hash(self) -> u64 {
        table_hash(self.hash)
    }

    /// The hash that an entry at this place keeps.
    #[inline]
    pub(crate) fn hash(self) -> u32 {
        self.hash
    }
}

#[inline]
fn table_hash(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// All entries of a shard.
pub(super) struct Tables {
    first_slot: u16,
    by_slot: Box<[HashTable<OwnedEntry>]>,
    hasher: RandomState,
    keys: usize,
    entry_bytes: usize,
    table_bytes: usize,
}

impl Tables {
    /// Empty tables for `slots`.
    pub fn new(slots: Range<u16>, hash_seed: u64) -> Self {
        // Four seeds from one, by odd constants without meaning (digits of pi), so that seeds that differ in one bit
        // give unrelated layouts.
        let seed = |constant: u64| (hash_seed ^ constant).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hasher = RandomState::with_seeds(
            seed(0x2438_6A88_85A3_08D3),
            seed(0x1319_8A2E_0370_7345),
            seed(0xA409_3822_299F_31D1),
            seed(0x082E_FA98_EC4E_6C89),
        );
        let by_slot: Box<[_]> = slots.clone().map(|_| HashTable::new()).collect();
        let table_bytes = size_of_val(&*by_slot);
        Self { first_slot: slots.start, by_slot, hasher, keys: 0, entry_bytes: 0, table_bytes }
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

    /// The entry of `key`.
    #[inline]
    pub fn find(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.by_slot[usize::from(place.table)]
            .find(place.table_hash(), |entry| entry.key() == key)
            .map(|entry| &**entry)
    }

    /// The first entry at `place` that `is_it` takes for the one it seeks.
    pub fn find_by(&self, place: Place, mut is_it: impl FnMut(&Entry) -> bool) -> Option<&Entry> {
        let table = &self.by_slot[usize::from(place.table)];
        table.find(place.table_hash(), |entry| is_it(entry)).map(|entry| &**entry)
    }

    /// The entry of `key`, to change it. Whoever does says so to [`Tables::resized`].
    #[inline]
    pub fn find_mut(&mut self, place: Place, key: &[u8]) -> Option<&mut Entry> {
        self.by_slot[usize::from(place.table)]
            .find_mut(place.table_hash(), |entry| entry.key() == key)
            .map(|entry| &mut **entry)
    }

    /// An entry has changed: what [`Entry::store`] and [`Entry::set_expiry`] returned.
    #[inline]
    pub fn resized(&mut self, resized: Resized) {
        self.entry_bytes = self.entry_bytes - resized.before + resized.after;
    }

    /// Adds `entry`, whose key must not be there yet.
    #[inline]
    pub fn insert(&mut self, place: Place, entry: OwnedEntry) {
        debug_assert!(self.find(place, entry.key()).is_none(), "the key is there already");
        let table = &mut self.by_slot[usize::from(place.table)];
        self.keys += 1;
        self.entry_bytes += entry.allocated_bytes();
        // Only a full table can allocate, so only then is its size asked for.
        if table.len() == table.capacity() {
            self.table_bytes -= table.allocation_size();
            table.insert_unique(place.table_hash(), entry, |entry| table_hash(entry.hash()));
            self.table_bytes += table.allocation_size();
        } else {
            table.insert_unique(place.table_hash(), entry, |entry| table_hash(entry.hash()));
        }
    }

    /// Takes the entry of `key` out if there is one and `condition` holds for it.
    #[inline]
    pub fn remove_if(
        &mut self,
        place: Place,
        key: &[u8],
        condition: impl FnOnce(&Entry) -> bool,
    ) -> Option<OwnedEntry> {
        let table = &mut self.by_slot[usize::from(place.table)];
        let occupied = table.find_entry(place.table_hash(), |entry| entry.key() == key).ok()?;
        if !condition(occupied.get()) {
            return None;
        }
        let (entry, _) = occupied.remove();
        self.keys -= 1;
        self.entry_bytes -= entry.allocated_bytes();
        if table.capacity() > SHRINK_FROM_CAPACITY && table.len() < table.capacity() / SHRINK_RATIO {
            self.table_bytes -= table.allocation_size();
            table.shrink_to(table.len() * 2, |entry| table_hash(entry.hash()));
            self.table_bytes += table.allocation_size();
        }
        Some(entry)
    }

    /// Asks the processor to fetch what a look-up at `place` will read. Changes nothing.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        if let Some(entry) = self.by_slot[usize::from(place.table)].iter_hash(place.table_hash()).next() {
            entry.prefetch();
        }
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_slot.iter().flat_map(HashTable::iter).map(|entry| &**entry)
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of all entries and tables.
    pub fn memory_bytes(&self) -> usize {
        self.entry_bytes + self.table_bytes
    }

    /// [`Tables::memory_bytes`], counted by walking over everything.
    #[cfg(test)]
    pub fn recount_bytes(&self) -> usize {
        let tables: usize = self.by_slot.iter().map(HashTable::allocation_size).sum();
        let entries: usize = self.iter().map(Entry::allocated_bytes).sum();
        size_of_val(&*self.by_slot) + tables + entries
    }
}
