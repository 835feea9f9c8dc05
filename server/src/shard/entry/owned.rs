//! An entry outside of a table, and who frees its block.
//!
//! Place in the flow: step 8 (apply) makes it for a table, or gets it out of one.
//!
//! Invariant: a block is freed once, by its last owner. All but the shared ones have one owner.

use std::ops::Deref;
use std::ptr::NonNull;

use eyot_raft_glue::Version;

use super::{Entry, Expiry, NewValue, Parts, SHARED};

/// An entry outside of a table: owns its block, or is one of two that do.
#[repr(transparent)]
pub(in crate::shard) struct OwnedEntry(pub(super) Entry);

// SAFETY: a block is plain bytes, so moving its one owner moves everything there is; a handle to a large value may go
// to any thread. The two owners of a shared block lie in one shard, which moves as a whole.
unsafe impl Send for OwnedEntry {}

impl OwnedEntry {
    /// Copies `key` and `value` into a new block. Memory running out ends the process, as it does for every `Vec`.
    ///
    /// # Panics
    /// When the key or the value is over the protocol's limit: the entry's decoder refuses such a command before.
    #[inline]
    pub fn new<'a>(
        hash: u32,
        key: &[u8],
        value: impl Into<NewValue<'a>>,
        version: Version,
        expiry: Option<Expiry>,
    ) -> Self {
        let build = |value: &[u8], flags| Parts { hash, access: 0, flags, key, value, version, expiry }.build();
        Self(Entry(value.into().put(build)))
    }

    /// Gives the word up to a table, which owns the block from now on.
    #[inline]
    pub fn into_word(self) -> NonNull<u8> {
        debug_assert!(self.0.header().shape & SHARED == 0, "a table owns its blocks alone");
        let word = self.0 .0.cast();
        std::mem::forget(self);
        word
    }

    /// Takes the ownership of a block back.
    ///
    /// # Safety
    /// `word` must be one that [`OwnedEntry::into_word`] gave, with any bits set beside the address, and must be taken
    /// back only once.
    #[inline]
    pub unsafe fn from_word(word: NonNull<u8>) -> Self {
        Self(Entry(word.cast()))
    }
}

impl Deref for OwnedEntry {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

/// To change an entry that nobody shares: only a table does it otherwise.
#[cfg(test)]
impl std::ops::DerefMut for OwnedEntry {
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.0
    }
}

impl Drop for OwnedEntry {
    fn drop(&mut self) {
        if self.0.header().shape & SHARED != 0 {
            self.leave_to_the_other();
            return;
        }
        self.0.give_up_large();
        self.0.free();
    }
}
