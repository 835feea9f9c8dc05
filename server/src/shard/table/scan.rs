//! Walks over the tables that can be interrupted, and random picks.
//!
//! Place in the flow: SCAN and KEYS (step 5, in slices), and the samples of eviction between turns; a snapshot's `walk`
//! visits a slot in the same way.
//!
//! A walk visits slot by slot, and in a slot hash by hash. Where it stands is a slot and a hash, and says: every entry
//! before was visited. Since buckets hold hashes in order, whatever their number, that stays true when tables grow,
//! shrink, split or merge between two steps; and since a step visits all entries of a bucket's hashes, keys with the
//! same hash are visited together.
//!
//! Invariants:
//! - A key that is there from the beginning of a walk to its end is visited, exactly once.
//! - A step is bounded by its budget, the number of slots and the entries of one bucket.
//!
//! Deliberately not here: expiry, patterns, and what a client sees of a position.

use super::bucket::BUCKET_WORDS;
use super::segment::{prefetch_entries, Segment};
use super::slot::SlotTable;
use super::{Tables, SLOTS_PER_GROUP};
use crate::shard::entry::Entry;

/// How often a random pick tries another word when it met a free one: at the usual loads each try succeeds three times
/// in four.
const PICK_TRIES: u64 = 16;

/// Buckets that one sample looks into at most; a caller that wants more entries than these hold asks again, elsewhere.
const SAMPLE_BUCKETS_MAX: usize = 64;

/// Where a walk stands: what comes before was visited. `slot` counts from the shard's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) struct Position {
    /// The slot, counted from the shard's first one.
    pub slot: u16,
    /// The first hash that was not visited.
    pub hash: u32,
}

impl Segment {
    /// The first hash whose home lies behind the bucket of `hash`; `None` at the end of all hashes.
    #[inline]
    pub(super) fn next_bucket(&self, hash: u32) -> Option<u32> {
        let below = u32::MAX >> self.depth();
        let first = u64::from(hash & !below);
        if self.buckets().is_empty() {
            return u32::try_from(first + u64::from(below) + 1).ok();
        }
        let tag = self.first_tag_behind(self.home_of(hash));
        u32::try_from(first + (tag << 16).div_ceil(1 << self.depth())).ok()
    }
}

/// How many buckets ahead of its use an entry is fetched: two take as long as it takes to come from memory.
const AHEAD: usize = 2;

impl SlotTable {
    /// Visits the entries of the bucket of `hash`, from that hash on; where to go on, `None` at the slot's end.
    #[inline]
    pub(super) fn visit_from<'a>(&'a self, hash: u32, mut visit: impl FnMut(&'a Entry)) -> Option<u32> {
        let segment = self.segment(hash);
        if !segment.buckets().is_empty() {
            let home = segment.home_of(hash);
            // While this bucket's entries are visited, those of the ones behind it are fetched.
            if home == 0 {
                (1..AHEAD).for_each(|ahead| prefetch_entries(segment.buckets().get(ahead)));
            }
            prefetch_entries(segment.buckets().get(home + AHEAD));
            segment.visit_home(home, |entry| {
                if entry.hash() >= hash {
                    visit(entry);
                }
            });
        }
        segment.next_bucket(hash)
    }
}

impl Tables {
    /// Visits entries from `position` on until `budget` of them were visited, and the rest of a bucket; a bucket
    /// without entries counts as one. Where to go on, `None` at the end, and how many were counted.
    pub fn scan<'a>(
        &'a self,
        mut position: Position,
        budget: usize,
        mut visit: impl FnMut(&'a Entry),
    ) -> (Option<Position>, usize) {
        let mut steps = 0;
        loop {
            let Some(slot) = self.by_slot.get(usize::from(position.slot)) else { return (None, steps) };
            let next = if slot.keys() == 0 {
                None
            } else if steps >= budget.max(1) {
                return (Some(position), steps);
            } else {
                let mut visited = 0;
                let next = slot.visit_from(position.hash, |entry| {
                    visited += 1;
                    visit(entry);
                });
                steps += visited.max(1);
                next
            };
            position = match next {
                Some(hash) => Position { hash, ..position },
                None => Position { slot: position.slot + 1, hash: 0 },
            };
        }
    }

    /// Visits entries of one slot from `hash` on, as [`Tables::scan`] does.
    pub fn scan_slot<'a>(
        &'a self,
        slot: u16,
        mut hash: u32,
        budget: usize,
        mut visit: impl FnMut(&'a Entry),
    ) -> Option<u32> {
        let slot = self.by_slot.get(usize::from(slot.checked_sub(self.first_slot)?))?;
        let mut steps = 0;
        while steps < budget.max(1) {
            let mut visited = 0;
            hash = slot.visit_from(hash, |entry| {
                visited += 1;
                visit(entry);
            })?;
            steps += visited.max(1);
        }
        Some(hash)
    }

    /// A slot, counted from the first one, by the number of its keys, and any hash.
    fn pick(&self, at: u64) -> Option<Position> {
        let mut rank = ((u128::from(at) * self.keys as u128) >> 64) as usize;
        let mut is_in = |keys: usize| {
            let is_in = rank < keys;
            rank -= if is_in { 0 } else { keys };
            is_in
        };
        let group = self.group_keys.iter().position(|&keys| is_in(keys as usize))?;
        let first = group * SLOTS_PER_GROUP;
        let slot = first + self.by_slot[first..].iter().position(|slot| is_in(slot.keys()))?;
        Some(Position { slot: slot as u16, hash: mixed(at) as u32 })
    }

    /// An entry, all about equally likely when `at` is any number; `None` when there are none.
    pub fn random(&self, at: u64) -> Option<&Entry> {
        let Position { slot, mut hash } = self.pick(mixed(at))?;
        let slot = &self.by_slot[usize::from(slot)];
        // Any word of any bucket, until one is taken: so no entry gains from free words beside it.
        for n in 0..PICK_TRIES {
            let segment = slot.segment(hash);
            let bucket = segment.buckets().get(segment.home_of(hash));
            let word = mixed(at.wrapping_add(n) ^ u64::from(hash));
            if let Some(entry) = bucket.and_then(|bucket| bucket.words()[word as usize % BUCKET_WORDS].entry()) {
                return Some(entry);
            }
            hash = (word >> 32) as u32;
        }
        // Ends, since the slot has keys: if not behind this hash, then before it.
        let mut found = None;
        while found.is_none() {
            hash = slot.visit_from(hash, |entry| found = found.or(Some(entry))).unwrap_or(0);
        }
        found
    }

    /// Visits up to `count` entries that lie one behind another from a random place on. Since entries lie in the order
    /// of their hashes, they are a random sample.
    pub fn sample<'a>(&'a self, at: u64, count: usize, mut visit: impl FnMut(&'a Entry)) {
        let Some(mut position) = self.pick(mixed(at)) else { return };
        let (mut left, mut skipped) = (count, mixed(at.wrapping_add(1)) as usize % BUCKET_WORDS);
        let mut slots_left = self.by_slot.len();
        for _ in 0..SAMPLE_BUCKETS_MAX {
            let segment = self.by_slot[usize::from(position.slot)].segment(position.hash);
            let home = segment.home_of(position.hash);
            if let Some(bucket) = segment.buckets().get(home) {
                let (last, first) = bucket.words().split_at(skipped);
                let entries = first.iter().chain(last).filter_map(|word| word.entry()).take(left);
                entries.clone().for_each(Entry::prefetch);
                for entry in entries {
                    left -= 1;
                    visit(entry);
                }
            }
            if left == 0 {
                return;
            }
            skipped = 0;
            let Some(next) = self.behind(position, segment, &mut slots_left) else { return };
            position = next;
        }
    }

    /// The position of the next bucket, around the end if need be, passing slots without keys.
    fn behind(&self, position: Position, segment: &Segment, slots_left: &mut usize) -> Option<Position> {
        if let Some(hash) = segment.next_bucket(position.hash) {
            return Some(Position { hash, ..position });
        }
        let mut slot = usize::from(position.slot);
        loop {
            *slots_left = slots_left.checked_sub(1).filter(|&left| left > 0)?;
            slot = (slot + 1) % self.by_slot.len();
            if self.by_slot[slot].keys() > 0 {
                return Some(Position { slot: slot as u16, hash: 0 });
            }
        }
    }
}

/// Another number, all of whose bits depend on all of `at`'s: the finish of SplitMix64 (Steele, Lea and Flood, 2014).
pub(in crate::shard) fn mixed(at: u64) -> u64 {
    let at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let at = (at ^ at >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let at = (at ^ at >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    at ^ at >> 31
}
