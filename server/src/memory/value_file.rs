//! Which part of a core's value file is whose: the free extents, and which of them is taken next.
//!
//! Place in the flow: asked when a large value comes (step 2) and told when the last reference to one is gone.
//!
//! ```text
//! cold   never used, or given back to the system: takes neither memory nor disk
//! warm   held a value that is gone: its pages are there, so the next value costs no page faults
//! ```
//!
//! Policy: warm before cold, and within either the smallest that is large enough; among equals the lowest. Neighbours
//! of the same kind are one extent. What is warm and was not needed for a whole interval goes back to the system, and
//! what is more than [`WARM_BYTES_MAX`] goes at once, largest extents first.
//!
//! Fragmentation is bounded by that: a hole between two values that fits no other value costs address space, of which
//! there is plenty, while its memory and disk space go back within an interval.
//!
//! Invariants:
//! - Extents are only taken apart and put together, so two free ones never overlap, nor does one and a value.
//! - Pure: no file, no clock. What an extent is, is its caller's business.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are kept warm at most, a few of the largest values: beyond it, memory and disk go back at once.
pub const WARM_BYTES_MAX: usize = 256 << 20;

/// A range of a file that belongs to whoever holds it.
pub trait Extent: Sized {
    /// Where it begins, in bytes.
    fn start(&self) -> usize;
    /// Its bytes, above 0.
    fn bytes(&self) -> usize;
    /// Whether its pages are there.
    fn is_warm(&self) -> bool;
    /// Keeps the first `at` bytes, which are above 0 and fewer than it has, and returns the rest.
    #[must_use]
    fn split_off(&mut self, at: usize) -> Self;
    /// Puts `next`, which begins where this one ends, behind it.
    fn join(&mut self, next: Self);
}

/// Free extents of one kind.
#[derive(Debug)]
struct FreeSet<E> {
    by_start: BTreeMap<usize, E>,
    /// Length and start of the same extents.
    by_length: BTreeSet<(usize, usize)>,
    bytes: usize,
}

impl<E> Default for FreeSet<E> {
    fn default() -> Self {
        Self { by_start: BTreeMap::new(), by_length: BTreeSet::new(), bytes: 0 }
    }
}

impl<E: Extent> FreeSet<E> {
    /// Takes `extent` in, as one with its neighbours.
    fn insert(&mut self, mut extent: E) {
        if let Some((&start, before)) = self.by_start.range(..extent.start()).next_back() {
            if start + before.bytes() == extent.start() {
                let mut before = self.remove(start);
                before.join(extent);
                extent = before;
            }
        }
        let end = extent.start() + extent.bytes();
        if self.by_start.contains_key(&end) {
            extent.join(self.remove(end));
        }
        self.bytes += extent.bytes();
        self.by_length.insert((extent.bytes(), extent.start()));
        self.by_start.insert(extent.start(), extent);
    }

    fn remove(&mut self, start: usize) -> E {
        let extent = self.by_start.remove(&start).expect("an extent that is in the set");
        self.by_length.remove(&(extent.bytes(), start));
        self.bytes -= extent.bytes();
        extent
    }

    /// The smallest extent that has `bytes`, cut to them.
    fn take(&mut self, bytes: usize) -> Option<E> {
        let &(_, start) = self.by_length.range((bytes, 0)..).next()?;
        let mut extent = self.remove(start);
        if extent.bytes() > bytes {
            let rest = extent.split_off(bytes);
            self.insert(rest);
        }
        Some(extent)
    }

    fn take_largest(&mut self, at_most: usize) -> Option<E> {
        let &(_, start) = self.by_length.last()?;
        let mut extent = self.remove(start);
        if extent.bytes() > at_most {
            let rest = extent.split_off(at_most);
            self.insert(rest);
        }
        Some(extent)
    }
}

/// The free extents of a value file.
#[derive(Debug)]
pub struct Extents<E> {
    cold: FreeSet<E>,
    warm: FreeSet<E>,
    /// Never a value's pages as a whole: they go back to the system before they are used again.
    spoiled: Vec<E>,
    /// The least that was warm since the interval began.
    warm_bytes_low: usize,
    /// What is still to go back of what an interval did not need.
    surplus_bytes: usize,
    total_bytes: usize,
    /// On their way back to the system.
    leaving_bytes: usize,
    page_bytes: usize,
}

impl<E: Extent> Extents<E> {
    /// All of a file that nobody has used, which consists of pages of `page_bytes`.
    pub fn new(whole: E, page_bytes: usize) -> Self {
        let total_bytes = whole.bytes();
        let mut cold = FreeSet::default();
        cold.insert(whole);
        Self {
            cold,
            warm: FreeSet::default(),
            spoiled: Vec::new(),
            warm_bytes_low: 0,
            surplus_bytes: 0,
            total_bytes,
            leaving_bytes: 0,
            page_bytes,
        }
    }

    /// Room for a value of `bytes`, in whole pages; `None` where the file has none.
    pub fn allocate(&mut self, bytes: usize) -> Option<E> {
        let bytes = bytes.max(1).checked_next_multiple_of(self.page_bytes)?;
        let extent = self.warm.take(bytes).or_else(|| self.cold.take(bytes));
        self.warm_bytes_low = self.warm_bytes_low.min(self.warm.bytes);
        extent
    }

    /// Takes an extent back whose value is gone, or never became one.
    pub fn free(&mut self, extent: E) {
        if extent.is_warm() {
            self.warm.insert(extent);
        } else {
            self.spoiled.push(extent);
        }
    }

    /// An interval has passed: what was warm throughout is not needed.
    pub fn end_interval(&mut self) {
        self.surplus_bytes = self.warm_bytes_low;
        self.warm_bytes_low = self.warm.bytes;
    }

    /// The next extent whose pages should go back to the system, of at most `at_most` bytes, whole pages. It comes back
    /// through [`Extents::given_back`].
    pub fn take_to_give_back(&mut self, at_most: usize) -> Option<E> {
        let extent = if let Some(mut spoiled) = self.spoiled.pop() {
            if spoiled.bytes() > at_most {
                let rest = spoiled.split_off(at_most);
                self.spoiled.push(rest);
            }
            spoiled
        } else {
            let over_bytes = self.warm.bytes.saturating_sub(WARM_BYTES_MAX);
            let wanted = self.surplus_bytes.max(over_bytes).min(at_most).min(self.warm.bytes);
            if wanted == 0 {
                return None;
            }
            let extent = self.warm.take_largest(wanted)?;
            self.surplus_bytes = self.surplus_bytes.saturating_sub(extent.bytes());
            self.warm_bytes_low = self.warm_bytes_low.min(self.warm.bytes);
            extent
        };
        self.leaving_bytes += extent.bytes();
        Some(extent)
    }

    /// The pages of `extent` went back, or cannot: it may be used again.
    pub fn given_back(&mut self, extent: E) {
        self.leaving_bytes -= extent.bytes();
        self.cold.insert(extent);
    }

    /// Whether an interval has to be waited for, since something is warm.
    pub fn has_warm(&self) -> bool {
        self.warm.bytes > 0
    }

    /// Bytes that are warm.
    pub fn warm_bytes(&self) -> usize {
        self.warm.bytes
    }

    /// Bytes of extents that were allocated and not freed.
    pub fn live_bytes(&self) -> usize {
        let spoiled: usize = self.spoiled.iter().map(Extent::bytes).sum();
        self.total_bytes - self.cold.bytes - self.warm.bytes - spoiled - self.leaving_bytes
    }
}

#[cfg(test)]
mod tests;
