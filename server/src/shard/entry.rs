//! One key with its value: a single heap block behind a thin pointer, so that a look-up that found the pointer needs
//! one more cache line to compare the key, and a small value comes with it.
//!
//! Place in the flow: read by step 5 (execute), written by step 8 (apply), always through a slot table.
//!
//! ```text
//! block   | version u64 | hash u32 | timer u32 | key_len u32 | value_len u32 |      24 bytes, aligned to 8
//!         | expires_at_us i64 (if timer is not NONE) | key | value |
//! ```
//!
//! Invariants:
//! - An [`Entry`] owns its block alone: whoever drops the entry frees the block, and no second pointer to it exists.
//! - The header's lengths and the presence of a timer never change during a block's life, so they always describe the
//!   layout with which it was allocated.
//! - All bytes of the block are initialised before the first reference to them is made.
//!
//! Deliberately not here: what the value bytes mean (they are one encoded TLV value), and whether a key has expired.

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ptr::{self, NonNull};

use eyot_protocol::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use eyot_raft_glue::Version;

use super::expiry::TimerId;

#[repr(C)]
struct Header {
    version: u64,
    hash: u32,
    timer: u32,
    key_bytes: u32,
    value_bytes: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();
const EXPIRY_BYTES: usize = size_of::<i64>();

// The diagram above, checked: the expiry follows the header aligned, and every length fits its field and a `Layout`.
const _: () = assert!(HEADER_BYTES == 24 && align_of::<Header>() == 8);
const _: () = assert!(HEADER_BYTES.is_multiple_of(align_of::<i64>()) && align_of::<i64>() <= align_of::<Header>());
const _: () = assert!(MAX_KEY_BYTES <= u32::MAX as usize);
const _: () = assert!(MAX_VALUE_BYTES <= u32::MAX as usize);
const _: () = assert!(size_of::<Option<Entry>>() == size_of::<usize>(), "a table's element is one thin pointer");

/// When an entry ceases to exist, and which timer of the wheel watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    /// Microseconds since the epoch.
    pub at_us: i64,
    /// Never [`TimerId::NONE`].
    pub timer: TimerId,
}

/// One key with its value, version and optional expiry. Owns its heap block.
pub(super) struct Entry(NonNull<Header>);

// SAFETY: an entry owns its block alone and the block is plain bytes, so moving the entry moves everything there is.
unsafe impl Send for Entry {}

impl Entry {
    /// Copies `key` and `value` into a new block. Memory running out ends the process, as it does for every `Vec`.
    ///
    /// # Panics
    /// When the key or the value is over the protocol's limit: the entry's decoder refuses such a command before.
    pub fn new(hash: u32, key: &[u8], value: &[u8], version: Version, expiry: Option<Expiry>) -> Self {
        assert!(key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES, "key or value over the limit");
        let timer = expiry.map_or(TimerId::NONE, |expiry| expiry.timer);
        assert!(expiry.is_none() || timer != TimerId::NONE, "an expiry without a timer");
        let layout = layout(key.len(), value.len(), expiry.is_some());
        // SAFETY: the size of the layout is not zero, it holds at least the header.
        let block = unsafe { alloc(layout) };
        // The layout has the header's alignment, so the cast keeps what the allocator promised.
        #[allow(clippy::cast_ptr_alignment)]
        let Some(header) = NonNull::new(block.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let entry = Self(header);
        let (key_bytes, value_bytes) = (key.len() as u32, value.len() as u32);
        // SAFETY: the block is new, so it overlaps with nothing; it is as long as header, expiry (if there is one), key
        // and value together, in this order; header and expiry are aligned as the assertions above show.
        unsafe {
            header.write(Header { version: version.0, hash, timer: timer.0, key_bytes, value_bytes });
            if let Some(expiry) = expiry {
                header.add(1).cast::<i64>().write(expiry.at_us);
            }
            let body = entry.body();
            ptr::copy_nonoverlapping(key.as_ptr(), body, key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), body.add(key.len()), value.len());
        }
        entry
    }

    fn header(&self) -> &Header {
        // SAFETY: the block lives as long as the entry, and its header is initialised; it is only written through
        // `&mut`.
        unsafe { self.0.as_ref() }
    }

    /// Where the key starts, with the right to access the whole block.
    fn body(&self) -> *mut u8 {
        let expiry_bytes = if self.header().timer == TimerId::NONE.0 { 0 } else { EXPIRY_BYTES };
        // SAFETY: key and value follow header and expiry in the same block, so the result is inside of it or, with both
        // empty, at its end.
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER_BYTES + expiry_bytes) }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        // SAFETY: so many initialised bytes stand there, and nobody writes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.body(), self.header().key_bytes as usize) }
    }

    /// The encoded value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let (key_bytes, value_bytes) = (self.header().key_bytes as usize, self.header().value_bytes as usize);
        // SAFETY: the value's initialised bytes follow the key's, and nobody writes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.body().add(key_bytes), value_bytes) }
    }

    /// Where the last write of the key stands in the log.
    #[inline]
    pub fn version(&self) -> Version {
        Version(self.header().version)
    }

    /// The hash that the entry was stored under, so that a growing table need not read the key.
    #[inline]
    pub fn hash(&self) -> u32 {
        self.header().hash
    }

    /// The expiry, if the key has one.
    #[inline]
    pub fn expiry(&self) -> Option<Expiry> {
        let timer = TimerId(self.header().timer);
        if timer == TimerId::NONE {
            return None;
        }
        // SAFETY: a block with a timer has an initialised expiry right behind its header.
        let at_us = unsafe { self.0.add(1).cast::<i64>().read() };
        Some(Expiry { at_us, timer })
    }

    /// Writes `value`, `version` and `expiry` over the old ones if that takes a block of the same layout; `false`, and
    /// nothing changed, if it does not.
    #[inline]
    pub fn overwrite(&mut self, value: &[u8], version: Version, expiry: Option<Expiry>) -> bool {
        let header = self.header();
        if header.value_bytes as usize != value.len() || (header.timer == TimerId::NONE.0) != expiry.is_none() {
            return false;
        }
        let key_bytes = header.key_bytes as usize;
        // SAFETY: `&mut self` is the only access to the block, and `value` cannot borrow from it. The old value has as
        // many bytes as the new one, the block has room for an expiry if and only if it had one, and neither
        // the lengths nor the presence of the timer change.
        unsafe {
            (*self.0.as_ptr()).version = version.0;
            if let Some(expiry) = expiry {
                assert!(expiry.timer != TimerId::NONE, "an expiry without a timer");
                (*self.0.as_ptr()).timer = expiry.timer.0;
                self.0.add(1).cast::<i64>().write(expiry.at_us);
            }
            ptr::copy_nonoverlapping(value.as_ptr(), self.body().add(key_bytes), value.len());
        }
        true
    }

    /// The size of the block in bytes, as it was asked of the allocator.
    #[inline]
    pub fn allocated_bytes(&self) -> usize {
        self.layout().size()
    }

    fn layout(&self) -> Layout {
        let header = self.header();
        layout(header.key_bytes as usize, header.value_bytes as usize, header.timer != TimerId::NONE.0)
    }

    /// Asks the processor to fetch the header, a key and a small value into its cache. Never waits, changes nothing.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            let block = self.0.as_ptr().cast::<i8>();
            // SAFETY: a prefetch is a hint that never faults, whatever the address; the second line may be beyond the
            // block, which is why its address is made without the promise to stay inside.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(block);
                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(64));
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = self.layout();
        // SAFETY: the block was allocated with this layout (the header still says so) and nobody else has a pointer to
        // it.
        unsafe { dealloc(self.0.as_ptr().cast::<u8>(), layout) };
    }
}

fn layout(key_bytes: usize, value_bytes: usize, expires: bool) -> Layout {
    let size = HEADER_BYTES + if expires { EXPIRY_BYTES } else { 0 } + key_bytes + value_bytes;
    // SAFETY: the alignment is a power of two; the lengths are at most the protocol's limits (checked when the block
    // was made), so the size is far below `isize::MAX` even on a 32-bit machine.
    unsafe { Layout::from_size_align_unchecked(size, align_of::<Header>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Expiry = Expiry { at_us: -5, timer: TimerId(7) };

    #[test]
    fn every_shape_keeps_what_it_was_given() {
        for key in [&b""[..], b"k", b"a key of some length"] {
            for value in [&b""[..], b"v", &[0xAB; 1000]] {
                for expiry in [None, Some(EXPIRY)] {
                    let entry = Entry::new(11, key, value, Version(99), expiry);
                    assert_eq!((entry.key(), entry.value(), entry.expiry()), (key, value, expiry));
                    assert_eq!((entry.version(), entry.hash()), (Version(99), 11));
                    let expiry_bytes = if expiry.is_some() { 8 } else { 0 };
                    assert_eq!(entry.allocated_bytes(), 24 + expiry_bytes + key.len() + value.len());
                    entry.prefetch();
                }
            }
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let key = vec![b'k'; MAX_KEY_BYTES];
        let entry = Entry::new(0, &key, b"value", Version(1), Some(EXPIRY));
        assert_eq!((entry.key(), entry.value()), (&key[..], &b"value"[..]));
    }

    #[test]
    fn overwriting_happens_in_place_only_where_the_layout_is_the_same() {
        let mut entry = Entry::new(3, b"key", b"four", Version(1), None);
        assert!(entry.overwrite(b"FIVE", Version(2), None));
        assert_eq!((entry.key(), entry.value(), entry.version()), (&b"key"[..], &b"FIVE"[..], Version(2)));
        assert!(!entry.overwrite(b"longer", Version(3), None));
        assert!(!entry.overwrite(b"FOUR", Version(3), Some(EXPIRY)));
        assert_eq!((entry.value(), entry.version(), entry.expiry()), (&b"FIVE"[..], Version(2), None));

        let mut entry = Entry::new(3, b"key", b"four", Version(1), Some(EXPIRY));
        let later = Expiry { at_us: 10, timer: TimerId(8) };
        assert!(entry.overwrite(b"FIVE", Version(2), Some(later)));
        assert_eq!((entry.key(), entry.value(), entry.expiry()), (&b"key"[..], &b"FIVE"[..], Some(later)));
        assert!(!entry.overwrite(b"FOUR", Version(3), None));
        assert_eq!(entry.hash(), 3);
    }

    #[test]
    fn an_entry_may_move_to_another_thread() {
        let entry = Entry::new(3, b"key", b"value", Version(1), None);
        let length = std::thread::spawn(move || entry.value().len()).join().unwrap();
        assert_eq!(length, 5);
    }

    #[test]
    #[should_panic(expected = "over the limit")]
    fn a_key_over_the_limit_is_a_bug() {
        drop(Entry::new(0, &vec![0; MAX_KEY_BYTES + 1], b"", Version(1), None));
    }
}
