//! The size of an entry's block, and asking for its memory.
//!
//! Place in the flow: beside `entry`, of which it knows nothing but bytes.

/// Blocks up to this size are rounded to the allocator's classes; larger ones to pages, since what lies behind the last
/// touched page of a block takes no memory.
const LARGEST_CLASSED_BYTES: usize = 32 << 10;
const PAGE_BYTES: usize = 4096;

/// The size of the block in which `bytes` bytes are kept: what the allocator would take for them anyway. mimalloc and
/// jemalloc both have steps of 16 bytes up to 128 and then four classes for each doubling, so asking for the whole
/// class costs nothing, lets values change in place, and makes the ledger count what is really taken.
pub(in crate::shard) const fn block_bytes(bytes: usize) -> usize {
    let step = if bytes <= 128 {
        16
    } else if bytes <= LARGEST_CLASSED_BYTES {
        (1 << (bytes - 1).ilog2()) / 4
    } else {
        PAGE_BYTES
    };
    bytes.next_multiple_of(step)
}

/// Asks the processor to fetch the line at `address`, whatever it is. Never waits, never faults.
#[inline]
pub(crate) fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: a prefetch is a hint that never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// What an entry takes, block and large value, before and after a change, in bytes: what
/// [`Tables::resized`](crate::shard::table::Tables::resized) wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the tables' byte count must learn of it"]
pub(in crate::shard) struct Resized {
    /// Before.
    pub before: usize,
    /// After.
    pub after: usize,
    /// What of `before` is a large value.
    pub large_before: usize,
    /// What of `after` is.
    pub large_after: usize,
}
