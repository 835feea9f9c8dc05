//! Entries that are no more, but of which a snapshot still needs what they were.
//!
//! Place in the flow: step 8 (apply) replaces or removes an entry; where the running snapshot has not written it yet
//! (`table/walk` decides), its block comes here instead of being freed, and goes when the snapshot has passed its slot.
//!
//! ```text
//! a retired block   | version u64 | the next of its list, an address of 8 bytes | value_len u32 | shape u32 | ...
//! ```
//!
//! A list takes no memory of its own: it is linked through hash and access, which only an entry in a table needs.
//!
//! Invariants:
//! - What is emitted of an entry (key, value, version, expiry) does not change once it is retired. Its timer is gone.
//! - A list owns its blocks. One that the command's outcome still borrows has two owners, [`OwnedEntry::share`].
//!
//! Deliberately not here: which entries are needed, and for how long.

use std::mem::offset_of;
use std::ptr::NonNull;

use eyot_raft_glue::Version;

use super::{prefetch_line, Entry, Expiry, Header, NewValue, OwnedEntry, Parts, Resized, RETIRED, SHARED};

// The diagram above, checked.
const _: () = assert!(offset_of!(Header, hash) == 8 && offset_of!(Header, access) == 12);
const _: () = assert!(size_of::<Link>() == 8 && align_of::<Link>() <= align_of::<Header>());

type Link = Option<NonNull<Header>>;

/// Lines of a block that [`BlockRef::prefetch`] asks for: what is behind them the processor sees coming by itself.
const PREFETCHED_LINES: usize = 4;

/// Retired entries, the latest first.
#[derive(Default)]
pub(in crate::shard) struct RetiredList {
    first: Link,
}

// SAFETY: as that of an `OwnedEntry`, many times.
unsafe impl Send for RetiredList {}

impl RetiredList {
    /// Takes an entry in.
    pub fn push(&mut self, entry: OwnedEntry) {
        let block = entry.0.block();
        std::mem::forget(entry);
        // SAFETY: the list owns the block from now on, and no reference to its header is held; a link fits where hash
        // and access were, as the assertions above show.
        unsafe {
            (*block).shape |= RETIRED;
            link(block).write(self.first);
        }
        self.first = NonNull::new(block);
    }

    /// Gives the latest entry out.
    pub fn pop(&mut self) -> Option<OwnedEntry> {
        let block = self.first?;
        // SAFETY: the block is alive while it is in the list, and has the link that `push` wrote.
        self.first = unsafe { link(block.as_ptr()).read() };
        if let Some(next) = self.first {
            prefetch_line(next.as_ptr().cast::<u8>());
        }
        Some(OwnedEntry(Entry(block)))
    }
}

#[cfg(test)]
impl RetiredList {
    /// The bytes of all its entries.
    pub fn bytes(&mut self) -> usize {
        let entries: Vec<_> = std::iter::from_fn(|| self.pop()).collect();
        let bytes = entries.iter().map(|entry| entry.allocated_bytes()).sum();
        entries.into_iter().rev().for_each(|entry| self.push(entry));
        bytes
    }
}

impl Drop for RetiredList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Where the link of a retired block is.
fn link(block: *mut Header) -> *mut Link {
    // Aligned, as the assertion above shows.
    #[allow(clippy::cast_ptr_alignment)]
    block.cast::<u8>().wrapping_add(offset_of!(Header, hash)).cast::<Link>()
}

impl OwnedEntry {
    /// A second owner of the block, which lives until both are gone. It must stay in the same shard.
    pub fn share(&mut self) -> Self {
        let block = self.0.block();
        // SAFETY: `&mut self` is the only access to the header.
        unsafe {
            assert!((*block).shape & SHARED == 0, "a third owner");
            (*block).shape |= SHARED;
        }
        Self(Entry(self.0 .0))
    }

    /// One of two owners goes.
    #[cold]
    pub(super) fn leave_to_the_other(&mut self) {
        // SAFETY: the other owner keeps the block alive, and holds no reference to its header while this one is
        // dropped.
        unsafe { (*self.0.block()).shape &= !SHARED };
    }
}

impl Entry {
    /// [`Entry::store`] into a new block; gives the old one out, as it is.
    #[cold]
    pub fn replace<'a>(
        &mut self,
        value: impl Into<NewValue<'a>>,
        version: Version,
        expiry: Option<Expiry>,
    ) -> (Resized, OwnedEntry) {
        let new = self.built(value.into(), version, expiry);
        self.swap(new)
    }

    /// [`Entry::set_expiry`] in a new block; gives the old one out, as it is. A large value has both for owners then.
    #[cold]
    pub fn replace_expiry(&mut self, version: Version, expiry: Option<Expiry>) -> (Resized, OwnedEntry) {
        let new = self.built(self.value_again(), version, expiry);
        self.swap(new)
    }

    fn built(&self, value: NewValue<'_>, version: Version, expiry: Option<Expiry>) -> NonNull<Header> {
        let (hash, access, key) = (self.hash(), self.access(), self.key());
        value.put(|value, flags| Parts { hash, access, flags, key, value, version, expiry }.build())
    }

    fn swap(&mut self, new: NonNull<Header>) -> (Resized, OwnedEntry) {
        let (before, large_before) = (self.allocated_bytes(), self.large_value_bytes());
        let old = self.block();
        self.point_to(new);
        let resized =
            Resized { before, after: self.allocated_bytes(), large_before, large_after: self.large_value_bytes() };
        (resized, OwnedEntry(Entry(NonNull::new(old).expect("a block's address is not null"))))
    }
}

/// Names an entry's block, without owning it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::shard) struct BlockRef(NonNull<Header>);

// SAFETY: it is an address, which whoever moves it to another thread with the block's owner may use there.
unsafe impl Send for BlockRef {}

impl BlockRef {
    pub fn of(entry: &Entry) -> Self {
        Self(NonNull::new(entry.block()).expect("a block's address is not null"))
    }

    /// The entry.
    ///
    /// # Safety
    /// The block must be alive, and stay alive and unchanged while the result is used.
    pub unsafe fn entry(&self) -> &Entry {
        // SAFETY: both are one pointer, transparently, without bits beside the address.
        unsafe { &*std::ptr::from_ref(self).cast::<Entry>() }
    }

    /// Asks the processor to fetch the entry with a value of ordinary size. Never waits, changes nothing.
    #[inline]
    pub fn prefetch(self) {
        let block = self.0.as_ptr().cast::<u8>();
        for line in 0..PREFETCHED_LINES {
            prefetch_line(block.wrapping_add(line * 64));
        }
    }
}
