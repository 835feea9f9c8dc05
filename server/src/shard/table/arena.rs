//! The memory of the buckets: blocks of some sizes, each size lying densely in chunks of its own.
//!
//! Place in the flow: whenever a segment changes its size (step 8, apply).
//!
//! The slots of a shard have about as many keys each, so their segments outgrow a size at about the same time. An
//! allocator that cannot move blocks is left with pages in which a few late ones lie among holes: with mimalloc and one
//! hash table of the usual kind for each slot, 9 bytes per key at a million keys were resident and in no use; now it is
//! 2. A hole is filled at once, by the last block of its size. That is possible because a block has one pointer to it,
//! in its segment, and easy because any entry in it says which segment that is.
//!
//! Invariants:
//! - The blocks of one size lie in its chunks without a gap, except between [`Arena::give_back`] and [`Arena::settle`].
//! - A block that is in use has an entry in it whenever `settle` is called; one that was given back has none.
//! - A size has at most one chunk without blocks, and none when it has no blocks.
//!
//! Deliberately not here: who owns a block.

#![allow(unsafe_code)]

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ptr::{self, NonNull};

use super::bucket::{Bucket, Word};
use crate::shard::entry::Entry;

/// Blocks of one size come in chunks: of a size at which little is left over behind the last block, and at which the
/// unused part of a last chunk is small beside the rest.
const SMALL_CHUNK_BUCKETS: usize = (64 << 10) / size_of::<Bucket>();
const LARGE_CHUNK_BUCKETS: usize = (256 << 10) / size_of::<Bucket>();

/// Blocks up to this size lie in small chunks.
const SMALL_BLOCK_BUCKETS: usize = (4 << 10) / size_of::<Bucket>();

/// More buckets than these no block has. A segment of ordinary hashes has some hundred; these are for 760 million keys
/// of one slot whose hashes have the same first 27 bits, each look-up of which is a walk over millions of others.
pub(super) const BLOCK_BUCKETS_MAX: usize = 7 << 24;

/// Sizes are 1, 2, 3 and then 4, 5, 6 or 7 times a power of two: four to a doubling.
const CLASSES: usize = class_of(BLOCK_BUCKETS_MAX) + 1;

/// The next larger size.
pub(super) fn larger(bucket_count: usize) -> usize {
    bucket_count + (1_usize << bucket_count.max(4).ilog2()) / 4
}

const fn class_of(bucket_count: usize) -> usize {
    if bucket_count < 4 {
        return bucket_count - 1;
    }
    let doubling = bucket_count.ilog2() as usize - 2;
    doubling * 4 + (bucket_count >> doubling) - 1
}

/// So many buckets in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub buckets: NonNull<Bucket>,
    pub bucket_count: usize,
}

/// The blocks of one size.
#[derive(Default)]
struct Class {
    chunks: Vec<NonNull<Bucket>>,
    /// Blocks in use, which are the first ones.
    used: usize,
}

/// See the module.
pub(super) struct Arena {
    classes: Box<[Class]>,
    /// Blocks that were given back and are not filled yet: a few, from one change of one slot.
    given_back: Vec<Block>,
}

// SAFETY: the chunks are owned by the arena alone; what lies in them may move to another thread.
unsafe impl Send for Arena {}

impl Arena {
    pub fn new() -> Self {
        Self { classes: (0..CLASSES).map(|_| Class::default()).collect(), given_back: Vec::new() }
    }

    /// A block of empty buckets.
    pub fn take(&mut self, bucket_count: usize) -> NonNull<Bucket> {
        assert!(bucket_count > 0 && bucket_count <= BLOCK_BUCKETS_MAX, "a block of {bucket_count} buckets");
        let class = &mut self.classes[class_of(bucket_count)];
        if class.used == class.chunks.len() * blocks_per_chunk(bucket_count) {
            class.chunks.push(new_chunk(bucket_count));
        }
        class.used += 1;
        let block = class.last(bucket_count);
        // SAFETY: the block lies in a chunk of the class and is used by nobody; zeroes are empty buckets.
        unsafe { block.write_bytes(0, bucket_count) };
        block
    }

    /// Takes a block back, out of which all entries were taken. [`Arena::settle`] must follow before the next look-up.
    pub fn give_back(&mut self, block: Block) {
        self.given_back.push(block);
    }

    /// Fills the holes. For each block that is moved, `move_block` is called with one of its entries, where it was, and
    /// where it is now: the segment of that entry must learn of it.
    #[inline]
    pub fn settle(&mut self, mut move_block: impl FnMut(&Entry, NonNull<Bucket>, NonNull<Bucket>)) {
        while let Some(&Block { buckets, bucket_count }) = self.given_back.last() {
            let class = &mut self.classes[class_of(bucket_count)];
            let last = class.last(bucket_count);
            class.used -= 1;
            // The last block may itself be one that was given back.
            if let Some(at) = self.given_back.iter().position(|block| block.buckets == last) {
                self.given_back.swap_remove(at);
            } else {
                self.given_back.pop();
                // SAFETY: both are whole blocks of this size in the class's chunks, and different ones; from now on the
                // copy is used and the original is not.
                let moved = unsafe {
                    ptr::copy_nonoverlapping(last.as_ptr(), buckets.as_ptr(), bucket_count);
                    std::slice::from_raw_parts(buckets.as_ptr(), bucket_count)
                };
                let entry = moved.iter().flat_map(Bucket::words).find_map(Word::entry);
                move_block(entry.unwrap_or_else(|| unreachable!("a block without entries")), last, buckets);
            }
            class.trim(bucket_count);
        }
    }

    /// Frees one chunk, whatever is in it; `false` when there are none left. For who has taken all entries out.
    pub fn free_chunk(&mut self) -> bool {
        for (class, bucket_count) in self.classes.iter_mut().zip(sizes()) {
            if let Some(chunk) = class.chunks.pop() {
                class.used = class.used.min(class.chunks.len() * blocks_per_chunk(bucket_count));
                free(chunk, bucket_count);
                return true;
            }
        }
        false
    }
}

impl Class {
    /// The last block in use.
    fn last(&self, bucket_count: usize) -> NonNull<Bucket> {
        let (chunk, index) = {
            let per_chunk = blocks_per_chunk(bucket_count);
            (self.chunks[(self.used - 1) / per_chunk], (self.used - 1) % per_chunk)
        };
        // SAFETY: the chunk has room for `per_chunk` blocks.
        unsafe { chunk.add(index * bucket_count) }
    }

    /// Frees chunks without blocks, but keeps one for the blocks to come, unless there are none at all.
    fn trim(&mut self, bucket_count: usize) {
        let needed = self.used.div_ceil(blocks_per_chunk(bucket_count));
        let kept = if needed == 0 { 0 } else { needed + 1 };
        while self.chunks.len() > kept {
            if let Some(chunk) = self.chunks.pop() {
                free(chunk, bucket_count);
            }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        while self.free_chunk() {}
    }
}

/// All sizes, in the order of their classes.
fn sizes() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |&size| Some(larger(size))).take(CLASSES)
}

fn chunk_buckets(bucket_count: usize) -> usize {
    if bucket_count <= SMALL_BLOCK_BUCKETS {
        SMALL_CHUNK_BUCKETS
    } else {
        LARGE_CHUNK_BUCKETS.max(bucket_count)
    }
}

fn blocks_per_chunk(bucket_count: usize) -> usize {
    chunk_buckets(bucket_count) / bucket_count
}

fn chunk_layout(bucket_count: usize) -> Layout {
    Layout::array::<Bucket>(chunk_buckets(bucket_count)).unwrap_or_else(|_| unreachable!("{bucket_count} buckets"))
}

fn new_chunk(bucket_count: usize) -> NonNull<Bucket> {
    let layout = chunk_layout(bucket_count);
    // SAFETY: the layout's size is not zero.
    let chunk = unsafe { alloc(layout) };
    // The layout has a bucket's alignment, so the cast keeps what the allocator promised.
    #[allow(clippy::cast_ptr_alignment)]
    NonNull::new(chunk.cast::<Bucket>()).unwrap_or_else(|| handle_alloc_error(layout))
}

fn free(chunk: NonNull<Bucket>, bucket_count: usize) {
    // SAFETY: chunks of this class were allocated with this layout, and this one is in the class's list no more.
    unsafe { dealloc(chunk.as_ptr().cast::<u8>(), chunk_layout(bucket_count)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_its_class() {
        let sizes: Vec<usize> = sizes().collect();
        assert_eq!(sizes[..12], [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]);
        assert_eq!(sizes.last(), Some(&BLOCK_BUCKETS_MAX));
        for (class, size) in sizes.into_iter().enumerate() {
            assert_eq!(class_of(size), class);
            assert!(blocks_per_chunk(size) >= 1);
            // Larger blocks than these only adverse hashes bring about.
            let unused = if size <= 256 { chunk_buckets(size) % size } else { 0 };
            assert!(unused * 16 <= chunk_buckets(size), "{unused} buckets of a chunk are for nothing, at size {size}");
        }
    }
}
