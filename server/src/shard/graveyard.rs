//! What a cleared shard held, and what a snapshot held that was given up, on its way back to the allocator.
//!
//! Place in the flow: step 8 (apply) brings it here when a shard is cleared, or the snapshot when it has walked over
//! it; between turns the core has some of it freed. Nothing here is state: no key of it exists any more.
//!
//! Invariants:
//! - Clearing a shard takes a time that does not depend on how much it held.
//! - Applying an entry frees more than it can add ([`GRAVES_PER_PLACE`]), so what is buried never adds up, even where
//!   nobody else has it freed. What a snapshot that is under way still walks over comes here when that is over: the
//!   content of one index, however often the shard is cleared meanwhile.

use std::collections::VecDeque;

use super::expiry::Nodes;
use super::table::{Emptied, Walk};

/// Keys that are freed for each key of an applied entry. Two, so that keys that came since a shard was cleared can be
/// buried only when twice as many from before are gone.
pub(super) const GRAVES_PER_PLACE: usize = 2;

/// A shard with at most so many keys is cleared on the spot: that takes a fraction of a millisecond.
pub(super) const CLEARED_AT_ONCE_MAX: usize = 1024;

/// What was taken out of a shard, oldest first.
#[derive(Default)]
pub(super) struct Graveyard {
    graves: VecDeque<Grave>,
}

enum Grave {
    Tables(Emptied),
    Timers(Nodes),
    Walk(Box<Walk>),
}

impl Grave {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Tables(tables) => tables.memory_bytes(),
            Self::Timers(nodes) => nodes.memory_bytes(),
            Self::Walk(walk) => walk.memory_bytes(),
        }
    }

    /// Frees about `budget` keys, timers or retired entries; `true` when there is nothing left.
    fn free_some(&mut self, budget: usize) -> bool {
        match self {
            Self::Tables(tables) => tables.free_some(budget),
            Self::Timers(nodes) => nodes.free_some(budget),
            Self::Walk(walk) => walk.free_some(budget),
        }
    }
}

impl Graveyard {
    /// Takes the keys that a shard held.
    pub fn bury_tables(&mut self, tables: Emptied) {
        self.graves.push_back(Grave::Tables(tables));
    }

    /// Takes the timers that a shard held.
    pub fn bury_timers(&mut self, nodes: Nodes) {
        self.graves.push_back(Grave::Timers(nodes));
    }

    /// Takes a walk that is over, with all that it held.
    pub fn bury_walk(&mut self, mut walk: Box<Walk>) {
        self.graves.extend(walk.take_cleared().map(Grave::Tables));
        self.graves.push_back(Grave::Walk(walk));
    }

    /// Bytes that are not freed yet.
    pub fn memory_bytes(&self) -> usize {
        let graves: usize = self.graves.iter().map(Grave::memory_bytes).sum();
        graves + self.graves.capacity() * size_of::<Grave>()
    }

    /// Frees about `budget` keys or timers; whether anything is left.
    #[inline]
    pub fn free_some(&mut self, budget: usize) -> bool {
        if !self.graves.is_empty() {
            self.open(budget);
        }
        !self.graves.is_empty()
    }

    fn open(&mut self, budget: usize) {
        let Some(grave) = self.graves.front_mut() else { return };
        if grave.free_some(budget) {
            self.graves.pop_front();
        }
        if self.graves.is_empty() {
            self.graves = VecDeque::new();
        }
    }
}
