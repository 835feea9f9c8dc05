//! One key with its value: a single heap block behind a thin pointer, so that a look-up that found the pointer needs
//! one more cache line to compare the key, and a small value comes with it.
//!
//! Place in the flow: read by step 5 (execute), written by step 8 (apply), always through a slot table.
//!
//! ```text
//! block   | version u64 | hash u32 | access u32 | value_len u32 | shape u32 |      24 bytes, aligned to 8
//!         | expires_at_us i64 | timer u32 |  (if EXPIRES is set)  | key | value | unused, up to the block's class |
//! value   the encoded value, value_len bytes; or, if REFERENCE is set, a handle of 8 bytes to one in a value file, and
//!         that one's first 16 bytes, so that its type and length are told without touching its pages
//! shape bits 0..17: key_len bit 31: EXPIRES bit 30: REFERENCE bit 29: RETIRED bit 28: SHARED the rest: zero word bits
//! 63..48: the table's tag | bits 47..3: the block's address | bits 2..0: the table's marks
//! ```
//!
//! Invariants:
//! - An [`OwnedEntry`] owns its block alone: whoever drops it frees the block, and no second pointer to it exists; but
//!   for those that `retired` keeps for a snapshot. A table owns the blocks of the [`Entry`] words that lie in it,
//!   alone.
//! - A block is as long as [`block_bytes`] says of what its header says is in it, at every time: so the header alone
//!   describes the layout with which it was allocated, and an entry that changes within its class stays where it is.
//! - An entry with REFERENCE owns one handle, and gives it up with the value; the last one sends the value's place
//!   home.
//! - Everything that `shape` and `value_len` claim is initialised before the first reference to it is made.
//! - `access` and the bits of the word beside the address are no part of what is stored: no answer depends on them.
//!
//! Deliberately not here: what the value bytes mean (they are one encoded TLV value), what `access` counts, whether a
//! key has expired, and whether the pages of a large value are in memory: who may not wait for the disk asks before it
//! reads them.

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use eyot_protocol::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use eyot_raft_glue::Version;
use eyot_ring::MappedBytes;

use super::expiry::TimerId;

mod block;
mod owned;
mod retired;
mod value;

pub(crate) use block::prefetch_line;
pub(super) use block::{block_bytes, Resized};
pub(super) use owned::OwnedEntry;
pub(super) use retired::{BlockRef, RetiredList};
pub use value::NewValue;
use value::HANDLE_BYTES;

#[repr(C)]
struct Header {
    version: u64,
    hash: u32,
    access: Cell<u32>,
    value_bytes: u32,
    shape: u32,
}

const KEY_BYTES_MASK: u32 = (1 << 17) - 1;
/// The block has two owners, and the first of them that goes leaves it to the other.
const SHARED: u32 = 1 << 28;
/// The block is, or was, in a [`RetiredList`]: hash and access mean nothing any more.
const RETIRED: u32 = 1 << 29;
const REFERENCE: u32 = 1 << 30;
const EXPIRES: u32 = 1 << 31;

const HEADER_BYTES: usize = size_of::<Header>();
/// `expires_at_us` and the timer's name.
const EXPIRY_BYTES: usize = size_of::<i64>() + size_of::<u32>();

// The diagram above, checked: the expiry follows the header aligned, and every length fits its field and a `Layout`.
const _: () = assert!(HEADER_BYTES == 24 && align_of::<Header>() == 8);
const _: () = assert!(HEADER_BYTES.is_multiple_of(align_of::<i64>()) && align_of::<i64>() <= align_of::<Header>());
const _: () = assert!(MAX_KEY_BYTES <= KEY_BYTES_MASK as usize);
const _: () = assert!(MAX_VALUE_BYTES <= u32::MAX as usize && HANDLE_BYTES == size_of::<usize>());
const _: () = assert!(size_of::<Option<Entry>>() == size_of::<u64>(), "a table's element is one 64-bit word");

/// The bits of a word that are its block's address. Blocks are aligned to 8; user space ends at 2^47 on x86-64 and at
/// 2^48 on AArch64 unless a process asks for more, and an allocator that did would be stopped by an assert.
pub(super) const ADDRESS_BITS: usize = 0x0000_FFFF_FFFF_FFF8;

/// When an entry ceases to exist, and which timer of the wheel watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    /// Microseconds since the epoch.
    pub at_us: i64,
    /// Never [`TimerId::NONE`].
    pub timer: TimerId,
}

/// One key with its value, version and optional expiry, where it lies in a table: a word that holds the address of the
/// block. Never owned by itself; see [`OwnedEntry`].
#[repr(transparent)]
pub(super) struct Entry(NonNull<Header>);

/// A new block's contents.
struct Parts<'a> {
    hash: u32,
    access: u32,
    flags: u32,
    key: &'a [u8],
    value: &'a [u8],
    version: Version,
    expiry: Option<Expiry>,
}

impl Parts<'_> {
    /// Copies all of it into a new block. Memory running out ends the process, as it does for every `Vec`.
    fn build(self) -> NonNull<Header> {
        let Self { hash, access, flags, key, value, version, expiry } = self;
        assert!(key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES, "key or value over the limit");
        let layout = layout(content_bytes(key.len(), value.len(), expiry.is_some()));
        // SAFETY: the size of the layout is not zero, it holds at least the header.
        let block = unsafe { alloc(layout) };
        // The layout has the header's alignment, so the cast keeps what the allocator promised.
        #[allow(clippy::cast_ptr_alignment)]
        let Some(header) = NonNull::new(block.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        assert!(header.addr().get() & !ADDRESS_BITS == 0, "an address of more than 48 bits");
        let expires = if expiry.is_some() { EXPIRES } else { 0 };
        let shape = key.len() as u32 | flags | expires;
        let (value_bytes, access) = (value.len() as u32, Cell::new(access));
        // SAFETY: the block is new, so it overlaps with nothing; it is as long as header, expiry (if there is one), key
        // and value together, in this order; header and expiry are aligned as the assertions above show.
        unsafe {
            header.write(Header { version: version.0, hash, access, value_bytes, shape });
            if let Some(expiry) = expiry {
                write_expiry(header, expiry);
            }
            let body = header.cast::<u8>().as_ptr().add(body_offset(expiry.is_some()));
            ptr::copy_nonoverlapping(key.as_ptr(), body, key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), body.add(key.len()), value.len());
        }
        header
    }
}

impl Entry {
    /// The block, with the right to access all of it.
    #[inline]
    fn block(&self) -> *mut Header {
        self.0.as_ptr().map_addr(|address| address & ADDRESS_BITS)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the block lives as long as the entry, and its header is initialised; but for the cell it is only
        // written through `&mut`.
        unsafe { &*self.block() }
    }

    /// Where the key starts.
    #[inline]
    fn body(&self) -> *mut u8 {
        // SAFETY: key and value follow header and expiry in the same block, so the result is inside of it or, with both
        // empty, at its end.
        unsafe { self.block().cast::<u8>().add(body_offset(self.expires())) }
    }

    #[inline]
    fn key_bytes(&self) -> usize {
        (self.header().shape & KEY_BYTES_MASK) as usize
    }

    #[inline]
    fn expires(&self) -> bool {
        self.header().shape & EXPIRES != 0
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        // SAFETY: so many initialised bytes stand there, and nobody writes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.body(), self.key_bytes()) }
    }

    /// The encoded value. Of a large one, touching a page that is not in memory waits for the disk.
    #[inline]
    pub fn value(&self) -> &[u8] {
        if self.is_large() {
            return self.large_value();
        }
        self.value_field()
    }

    #[cold]
    fn large_value(&self) -> &[u8] {
        let handle = self.large().expect("a large value");
        let bytes = handle.bytes();
        // SAFETY: the entry owns a handle, so the bytes are there and never change while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
    }

    /// What stands in the block where the value is expected.
    #[inline]
    fn value_field(&self) -> &[u8] {
        // SAFETY: the value's initialised bytes follow the key's, and nobody writes them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.body().add(self.key_bytes()), self.header().value_bytes as usize) }
    }

    /// Where the last write of the key stands in the log.
    #[inline]
    pub fn version(&self) -> Version {
        Version(self.header().version)
    }

    /// The hash that the entry was stored under.
    #[inline]
    pub fn hash(&self) -> u32 {
        debug_assert!(self.header().shape & RETIRED == 0, "the hash of a retired entry");
        self.header().hash
    }

    /// What is remembered of the key's use: its meaning is the eviction policy's. No part of the digest.
    #[inline]
    pub fn access(&self) -> u32 {
        debug_assert!(self.header().shape & RETIRED == 0, "the use of a retired entry");
        self.header().access.get()
    }

    /// Remembers the key's use. Writes only what changes, so that a read that changes nothing leaves its line clean.
    #[inline]
    pub fn set_access(&self, access: u32) {
        let cell = &self.header().access;
        if cell.get() != access {
            cell.set(access);
        }
    }

    /// Whether the value is a large one, in a value file.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.header().shape & REFERENCE != 0
    }

    /// The entry's own handle, not to be dropped.
    fn large(&self) -> Option<ManuallyDrop<MappedBytes>> {
        if !self.is_large() {
            return None;
        }
        let address = self.value_field().first_chunk().expect("a handle");
        let address = usize::from_ne_bytes(*address);
        let handle = NonNull::new(ptr::with_exposed_provenance_mut(address)).expect("a handle is not null");
        // SAFETY: these bytes are what a handle's `into_raw` gave, and the entry gives it up but once, since the result
        // is never dropped where the entry keeps it.
        Some(ManuallyDrop::new(unsafe { MappedBytes::from_raw(handle) }))
    }

    /// The value's first bytes, as many as are at hand without touching a page of a large one: at least its TLV head.
    #[inline]
    pub fn value_head(&self) -> &[u8] {
        let field = self.value_field();
        if self.is_large() {
            &field[HANDLE_BYTES..]
        } else {
            field
        }
    }

    /// A handle to a large value, by which it stays where it is, whatever becomes of the entry; `None` of a value in
    /// the entry.
    pub fn pin(&self) -> Option<MappedBytes> {
        self.large().map(|handle| MappedBytes::clone(&handle))
    }

    /// The same value for another entry.
    pub fn value_again(&self) -> NewValue<'_> {
        self.pin().map_or_else(|| NewValue::Memory(self.value_field()), NewValue::Mapped)
    }

    /// Gives the handle of a large value up. The value field must be written, or the block freed, next.
    #[inline]
    fn give_up_large(&mut self) {
        if let Some(handle) = self.large() {
            drop(ManuallyDrop::into_inner(handle));
        }
    }

    /// The expiry, if the key has one.
    #[inline]
    pub fn expiry(&self) -> Option<Expiry> {
        if !self.expires() {
            return None;
        }
        // SAFETY: a block of this shape has an initialised expiry right behind its header, aligned as the header is.
        unsafe {
            let at_us = self.block().add(1).cast::<i64>();
            Some(Expiry { at_us: at_us.read(), timer: TimerId(at_us.add(1).cast::<u32>().read()) })
        }
    }

    /// Writes value, version and expiry over the old ones: in place if the block's class has room for them and would be
    /// chosen for them, otherwise in a new block. Key, hash and access stay.
    ///
    /// # Panics
    /// As [`OwnedEntry::new`].
    #[inline]
    pub fn store<'a>(&mut self, value: impl Into<NewValue<'a>>, version: Version, expiry: Option<Expiry>) -> Resized {
        let (before, large_before) = (self.allocated_bytes(), self.large_value_bytes());
        self.give_up_large();
        value.into().put(|value, flags| self.store_field(value, flags, version, expiry));
        Resized { before, after: self.allocated_bytes(), large_before, large_after: self.large_value_bytes() }
    }

    #[inline]
    fn store_field(&mut self, value: &[u8], flags: u32, version: Version, expiry: Option<Expiry>) {
        assert!(value.len() <= MAX_VALUE_BYTES, "value over the limit");
        let key_bytes = self.key_bytes();
        if self.block_bytes() != block_bytes(content_bytes(key_bytes, value.len(), expiry.is_some())) {
            let new = self.rebuilt(value, version, expiry, flags);
            self.move_to(new);
            return;
        }
        self.reshape(version, expiry, key_bytes);
        // SAFETY: `&mut self` is the only access to the block, and `value` cannot borrow from it. The block has room
        // for the new content, as the comparison above shows.
        unsafe {
            (*self.block()).shape = (*self.block()).shape & !REFERENCE | flags;
            (*self.block()).value_bytes = value.len() as u32;
            ptr::copy_nonoverlapping(value.as_ptr(), self.body().add(key_bytes), value.len());
        }
    }

    /// Changes version and expiry; the value stays what it is.
    pub fn set_expiry(&mut self, version: Version, expiry: Option<Expiry>) -> Resized {
        let (before, key_bytes, value_bytes) = (self.allocated_bytes(), self.key_bytes(), self.value_field().len());
        if self.block_bytes() == block_bytes(content_bytes(key_bytes, value_bytes, expiry.is_some())) {
            self.reshape(version, expiry, key_bytes + value_bytes);
        } else {
            // The handle of a large value moves with its bytes.
            let new = self.rebuilt(self.value_field(), version, expiry, self.header().shape & REFERENCE);
            self.move_to(new);
        }
        let (after, large) = (self.allocated_bytes(), self.large_value_bytes());
        Resized { before, after, large_before: large, large_after: large }
    }

    /// Gives the block room for an expiry, or takes it, by moving the first `moved` bytes of the body; writes version
    /// and expiry. The caller has made sure that the block's class suffices.
    fn reshape(&mut self, version: Version, expiry: Option<Expiry>, moved: usize) {
        let (old_body, block) = (self.body(), self.block());
        let expires = expiry.is_some();
        // SAFETY: `&mut self` is the only access to the block; header, expiry and the moved bytes fit it before and
        // after, and the move is done before the expiry is written where the bytes were.
        unsafe {
            (*block).version = version.0;
            if self.expires() != expires {
                (*block).shape ^= EXPIRES;
                ptr::copy(old_body, block.cast::<u8>().add(body_offset(expires)), moved);
            }
            if let Some(expiry) = expiry {
                write_expiry(NonNull::new_unchecked(block), expiry);
            }
        }
    }

    /// A new block with the same key, hash and access.
    #[cold]
    fn rebuilt(&self, value: &[u8], version: Version, expiry: Option<Expiry>, flags: u32) -> NonNull<Header> {
        let (hash, access, key) = (self.hash(), self.access(), self.key());
        Parts { hash, access, flags, key, value, version, expiry }.build()
    }

    /// Frees the block and takes `new` in its place.
    fn move_to(&mut self, new: NonNull<Header>) {
        self.free();
        self.point_to(new);
    }

    /// Takes another block. The bits of the word that are the table's stay.
    fn point_to(&mut self, new: NonNull<Header>) {
        let kept = self.0.addr().get() & !ADDRESS_BITS;
        self.0 = new.map_addr(|address| address | kept);
    }

    /// What the entry takes, in bytes: its block, and the pages of a large value.
    #[inline]
    pub fn allocated_bytes(&self) -> usize {
        self.block_bytes() + self.large_value_bytes()
    }

    /// The size of the block in bytes: see [`block_bytes`].
    #[inline]
    fn block_bytes(&self) -> usize {
        block_bytes(content_bytes(self.key_bytes(), self.header().value_bytes as usize, self.expires()))
    }

    /// Frees the block, and nothing of a large value. Nobody may use the entry after it, unless it is pointed to
    /// another block first.
    fn free(&mut self) {
        let layout = layout(content_bytes(self.key_bytes(), self.header().value_bytes as usize, self.expires()));
        // SAFETY: the block was allocated with this layout (the header still says so) and nobody else has a pointer to
        // it.
        unsafe { dealloc(self.block().cast::<u8>(), layout) };
    }

    /// Asks the processor to fetch the header. Never waits, changes nothing.
    #[inline]
    pub fn prefetch_header(&self) {
        prefetch_line(self.block().cast::<u8>());
    }

    /// Asks the processor to fetch the header, a key and a small value into its cache. Never waits, changes nothing.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_line(self.block().cast::<u8>());
        prefetch_line(self.block().cast::<u8>().wrapping_add(64));
    }
}

/// Writes `expiry` behind a header.
///
/// # Safety
/// The block must belong to the caller alone and have room for an expiry.
unsafe fn write_expiry(header: NonNull<Header>, expiry: Expiry) {
    assert!(expiry.timer != TimerId::NONE, "an expiry without a timer");
    // SAFETY: as the caller promises; the header's alignment suffices for both, and its size keeps it.
    unsafe {
        let at_us = header.add(1).cast::<i64>();
        at_us.write(expiry.at_us);
        at_us.add(1).cast::<u32>().write(expiry.timer.0);
    }
}

#[inline]
const fn body_offset(expires: bool) -> usize {
    HEADER_BYTES + if expires { EXPIRY_BYTES } else { 0 }
}

#[inline]
const fn content_bytes(key_bytes: usize, value_bytes: usize, expires: bool) -> usize {
    body_offset(expires) + key_bytes + value_bytes
}

/// The layout of a block with so much content.
fn layout(content_bytes: usize) -> Layout {
    // SAFETY: the alignment is a power of two; the lengths are at most the protocol's limits (checked when the block
    // was made), so the size is far below `isize::MAX` of the 64-bit machines that a word's layout asks for.
    unsafe { Layout::from_size_align_unchecked(block_bytes(content_bytes), align_of::<Header>()) }
}

#[cfg(test)]
mod tests;
