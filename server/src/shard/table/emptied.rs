//! What a Clear leaves behind: the old tables, which are freed step by step.
//!
//! Place in the flow: step 8 (apply) puts it aside; between turns its memory goes back, some thousand keys at a time,
//! since freeing millions of blocks at once would hold the core for a second.
//!
//! Invariant: nothing in it can be reached by a key any more. A snapshot that began before the Clear may walk over it
//! first.
//!
//! Deliberately not here: how often a step is taken.

use std::vec::IntoIter;

use super::arena::Arena;
use super::segment::Segment;
use super::slot::SlotTable;

/// Freeing a chunk of buckets counts as so many keys: it may be a call into the kernel.
const KEYS_PER_CHUNK: usize = 100;

/// Tables that were taken out, until they are freed.
pub(in crate::shard) struct Emptied {
    slots: IntoIter<SlotTable>,
    /// The segments of the slot that is being freed.
    segments: IntoIter<Segment>,
    /// Where their buckets lie: declared behind them, so that it is freed after them.
    arena: Arena,
    bytes: usize,
}

impl Emptied {
    pub(super) fn new(by_slot: Box<[SlotTable]>, arena: Arena, bytes: usize) -> Self {
        Self { slots: by_slot.into_vec().into_iter(), segments: Vec::new().into_iter(), arena, bytes }
    }

    /// Frees some `budget` keys, at most one segment (2,000 keys) more; `true` when there is nothing left.
    pub fn free_some(&mut self, budget: usize) -> bool {
        let mut freed = 0;
        while freed < budget.max(1) {
            let Some(segment) = self.segments.next() else {
                let Some(slot) = self.slots.next() else {
                    if self.arena.free_chunk() {
                        freed += KEYS_PER_CHUNK;
                        continue;
                    }
                    self.bytes = 0;
                    return true;
                };
                // A slot without keys is a step, too: there may be thousands of them.
                freed += 1;
                self.segments = slot.into_segments().into_iter();
                continue;
            };
            freed += segment.keys();
            self.bytes = self.bytes.saturating_sub(segment.bytes() + segment.entry_bytes());
        }
        false
    }

    /// The tables, as long as nothing of them was freed.
    pub(super) fn tables(&self) -> &[SlotTable] {
        self.slots.as_slice()
    }

    /// Bytes that are not freed yet.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }
}
