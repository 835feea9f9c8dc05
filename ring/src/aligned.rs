//! Growable bytes on a 4 KiB boundary, as `O_DIRECT` demands.
//!
//! Place in the flow: step 6 (log): a batch of log records is formed in one, handed to the ring, and comes back for
//! reuse.
//!
//! Invariants: the address is a multiple of [`BLOCK_BYTES`]; the capacity is a multiple of [`BLOCK_BYTES`]; every byte
//! below the capacity was initialised (zero at first), so that padding never carries old heap contents to a disk.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The unit of alignment and of log writes: the largest logical block of the disks in use, and a page.
pub const BLOCK_BYTES: usize = 4096;

/// A byte vector whose memory starts on a block boundary.
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    length: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone, like a `Vec<u8>`.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// An empty buffer with room for `bytes`, rounded up to whole blocks, at least one.
    pub fn with_capacity(bytes: usize) -> Self {
        let capacity = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), length: 0, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a buffer of less than half the address space")
    }

    /// Room in bytes, a multiple of [`BLOCK_BYTES`].
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the contents; keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends `bytes`, growing to at least twice the capacity where they do not fit.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if end > self.capacity {
            self.grow(end);
        }
        // SAFETY: `length..end` lies within the capacity, is owned by `self`, and `bytes` cannot overlap it, since a
        // shared borrow of these bytes would exclude `&mut self`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(self.length), bytes.len()) };
        self.length = end;
    }

    /// Appends zeros up to the next multiple of `unit`.
    pub fn pad_to_multiple_of(&mut self, unit: usize) {
        self.resize(self.length.next_multiple_of(unit));
    }

    /// Makes the length `length`: cuts, or appends zeros.
    pub fn resize(&mut self, length: usize) {
        if length > self.capacity {
            self.grow(length);
        }
        if length > self.length {
            // SAFETY: the range lies within the capacity and is owned by `self`.
            unsafe { self.start.as_ptr().add(self.length).write_bytes(0, length - self.length) };
        }
        self.length = length;
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        let mut larger = Self::with_capacity(needed.max(self.capacity * 2));
        larger.extend_from_slice(self);
        *self = larger;
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are initialised and owned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes every other borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_capacity` with the same layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_and_keeps_its_bytes_while_it_grows() {
        let mut buffer = AlignedBuffer::with_capacity(1);
        let mut expected = Vec::new();
        for round in 0..200_u32 {
            let piece = vec![round as u8; (round * 7 % 97) as usize];
            buffer.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buffer.capacity() % BLOCK_BYTES, 0);
            assert_eq!(&buffer[..], &expected[..]);
        }
    }

    #[test]
    fn padding_is_zero_even_in_reused_memory() {
        let mut buffer = AlignedBuffer::with_capacity(BLOCK_BYTES);
        buffer.extend_from_slice(&[0xFF; BLOCK_BYTES]);
        buffer.clear();
        buffer.extend_from_slice(b"x");
        buffer.pad_to_multiple_of(BLOCK_BYTES);
        assert_eq!(buffer.len(), BLOCK_BYTES);
        assert!(buffer[1..].iter().all(|&byte| byte == 0));
    }
}
