//! A value on its way into an entry: its bytes, or a handle to it in a value file.
//!
//! Place in the flow: step 8 (apply) makes it, `entry` writes it into a block.

use eyot_ring::MappedBytes;

use super::{Entry, REFERENCE};

/// Bytes of a handle in the place of a value.
pub(super) const HANDLE_BYTES: usize = size_of::<u64>();
/// Bytes of a large value that its entry keeps: more than any TLV head has.
pub(super) const LARGE_HEAD_BYTES: usize = 16;
pub(super) const LARGE_FIELD_BYTES: usize = HANDLE_BYTES + LARGE_HEAD_BYTES;

/// A value on its way into an entry.
#[derive(Debug)]
pub enum NewValue<'a> {
    /// Its encoded bytes, which are copied into the entry.
    Memory(&'a [u8]),
    /// A handle to it, in a value file.
    Mapped(MappedBytes),
}

impl<'a> From<&'a [u8]> for NewValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Memory(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for NewValue<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Memory(bytes)
    }
}

impl NewValue<'_> {
    /// Calls `then` with what stands in the block, and the flag that says what it is.
    #[inline]
    pub(super) fn put<T>(self, then: impl FnOnce(&[u8], u32) -> T) -> T {
        match self {
            Self::Memory(bytes) => then(bytes, 0),
            Self::Mapped(handle) => {
                let mut field = [0; LARGE_FIELD_BYTES];
                let head = handle.bytes();
                let head = &head[..head.len().min(LARGE_HEAD_BYTES)];
                field[HANDLE_BYTES..HANDLE_BYTES + head.len()].copy_from_slice(head);
                field[..HANDLE_BYTES].copy_from_slice(&handle.into_raw().as_ptr().expose_provenance().to_ne_bytes());
                then(&field, REFERENCE)
            }
        }
    }
}

impl Entry {
    /// What of [`Entry::allocated_bytes`] is the pages of a large value.
    #[inline]
    pub fn large_value_bytes(&self) -> usize {
        self.large().map_or(0, |handle| handle.region_bytes())
    }
}
