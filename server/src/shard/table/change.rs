//! How an entry in a table changes.
//!
//! Place in the flow: step 8 (apply) asks [`Tables::find_mut`] for an entry, decides, and changes it.
//!
//! Invariants:
//! - There is no other way to change an entry in a table: so no change is forgotten by the tables' counts of bytes, or
//!   by a running snapshot, which keeps what it still needs of the entry.
//! - With no snapshot running, a change costs one look at that more than the change itself.
//!
//! Deliberately not here: access words, which are no part of what is stored and which a read may write.

use std::ops::Deref;

use eyot_raft_glue::Version;

use super::{Place, Tables, Walk};
use crate::shard::entry::{Entry, Expiry, NewValue, Resized};

/// An entry in a table, to be changed.
pub(in crate::shard) struct EntryMut<'a> {
    entry: &'a mut Entry,
    entry_bytes: &'a mut usize,
    large_value_bytes: &'a mut usize,
    walk: Option<&'a mut Walk>,
    /// The slot's number in its tables.
    table: u16,
}

impl Tables {
    /// The entry of `key`, to change it.
    #[inline]
    pub fn find_mut(&mut self, place: Place, key: &[u8]) -> Option<EntryMut<'_>> {
        let Self { by_slot, entry_bytes, large_value_bytes, walk, .. } = self;
        let entry = by_slot[usize::from(place.table)].find_mut(place.hash, |entry| entry.key() == key)?;
        Some(EntryMut { entry, entry_bytes, large_value_bytes, walk: walk.as_deref_mut(), table: place.table })
    }
}

impl EntryMut<'_> {
    /// [`Entry::store`].
    #[inline]
    pub fn store<'a>(self, value: impl Into<NewValue<'a>>, version: Version, expiry: Option<Expiry>) {
        let resized = match self.walk {
            Some(walk) if walk.needs(self.table, self.entry) => {
                let (resized, old) = self.entry.replace(value, version, expiry);
                walk.keep(self.table, self.entry.hash(), old);
                resized
            }
            _ => self.entry.store(value, version, expiry),
        };
        count(resized, self.entry_bytes, self.large_value_bytes);
    }

    /// [`Entry::set_expiry`].
    #[inline]
    pub fn set_expiry(self, version: Version, expiry: Option<Expiry>) {
        let resized = match self.walk {
            Some(walk) if walk.needs(self.table, self.entry) => {
                let (resized, old) = self.entry.replace_expiry(version, expiry);
                walk.keep(self.table, self.entry.hash(), old);
                resized
            }
            _ => self.entry.set_expiry(version, expiry),
        };
        count(resized, self.entry_bytes, self.large_value_bytes);
    }
}

#[inline]
fn count(resized: Resized, entry_bytes: &mut usize, large_value_bytes: &mut usize) {
    *entry_bytes = *entry_bytes - resized.before + resized.after;
    *large_value_bytes = *large_value_bytes - resized.large_before + resized.large_after;
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.entry
    }
}
