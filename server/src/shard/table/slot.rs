//! The table of one slot: one segment, or, when it has thousands of keys, a directory of segments.
//!
//! Place in the flow: between the shard's tables and the segments: it chooses the segment by the first bits of the
//! hash, and sees to it that segments stay small.
//!
//! ```text
//! directory, depth 2      00 ──► segment, depth 1 (hashes 0...)
//!                         01 ──┘
//!                         10 ──► segment, depth 2 (hashes 10...)
//!                         11 ──► segment, depth 2 (hashes 11...)
//! ```
//!
//! Invariants:
//! - Element `i` of a directory names the segment of all hashes whose first bits are `i`; segments follow each other in
//!   the order of hashes.
//! - One change moves the entries of one segment (or of two that become one), and at most copies the directory, four
//!   bytes for each 64 keys or more: no insert stalls, whatever the number of keys in the slot.
//! - Hashes that are not even, which takes somebody who knows the seed, cost time and a little memory, and have no end:
//!   the directory deepens further, to a byte for each key, and a segment that it may not split grows.
//! - The counts of keys and bytes are those of a walk.
//!
//! Deliberately not here: which slot a key is in.

use super::arena::Arena;
use super::segment::{Segment, Spot, SEGMENT_BUCKETS_MAX};
use crate::shard::entry::{Entry, OwnedEntry};

/// A directory has at most one element for so many keys. Hashes are evenly spread, so it never needs as many; if they
/// were not, it would rather have large segments than a directory that outgrows them.
const KEYS_PER_ELEMENT_MIN: usize = 64;

/// A segment with so many buckets holds keys whose hashes share more first bits than chance gives.
const CROWDED_BUCKETS: usize = 4 * SEGMENT_BUCKETS_MAX;

/// To split such a segment, the directory may have one element for so many keys: a byte for each key. So keys that
/// share `n` bits stand in segments of some `4 * 2^n` keys, and it takes `2^n` tries to find each of them, by somebody
/// who knows the seed.
const CROWDED_KEYS_PER_ELEMENT_MIN: usize = 4;

/// Two segments that together have at most so many entries become one: half of what makes one split.
const MERGED_KEYS_MAX: usize = SEGMENT_BUCKETS_MAX * 7 / 2;

/// See the module.
pub(super) enum SlotTable {
    One(Segment),
    Many(Box<Directory>),
}

const _: () = assert!(size_of::<SlotTable>() == 16, "the shard's array of slots should stay in the processor's caches");

/// The segments of a slot with many keys.
pub(super) struct Directory {
    /// How many bits of a hash choose the element: at least one.
    depth: u32,
    keys: usize,
    /// Bytes of all segments' buckets.
    bucket_bytes: usize,
    /// `2^depth` positions in `segments`.
    elements: Vec<u32>,
    /// The segments, in no order; those in `free` are empty and named by no element.
    segments: Vec<Segment>,
    free: Vec<u32>,
    /// How many segments have the directory's depth.
    deepest: usize,
}

impl SlotTable {
    /// A table without keys, which takes no memory.
    pub const fn new() -> Self {
        Self::One(Segment::new(0))
    }

    /// How many keys there are.
    #[inline]
    pub fn keys(&self) -> usize {
        match self {
            Self::One(segment) => segment.keys(),
            Self::Many(directory) => directory.keys,
        }
    }

    /// Bytes of buckets and directory.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Self::One(segment) => segment.bytes(),
            Self::Many(directory) => directory.bytes(),
        }
    }

    /// The segment to which `hash` belongs.
    #[inline]
    pub fn segment(&self, hash: u32) -> &Segment {
        match self {
            Self::One(segment) => segment,
            Self::Many(directory) => &directory.segments[directory.position(hash)],
        }
    }

    /// The segment to which `hash` belongs, to change it.
    #[inline]
    pub fn segment_mut(&mut self, hash: u32) -> &mut Segment {
        match self {
            Self::One(segment) => segment,
            Self::Many(directory) => {
                let position = directory.position(hash);
                &mut directory.segments[position]
            }
        }
    }

    /// All segments, in no order.
    pub fn segments(&self) -> &[Segment] {
        match self {
            Self::One(segment) => std::slice::from_ref(segment),
            Self::Many(directory) => &directory.segments,
        }
    }

    /// Gives the segments away.
    pub fn into_segments(self) -> Vec<Segment> {
        match self {
            Self::One(segment) => vec![segment],
            Self::Many(directory) => directory.segments,
        }
    }

    /// The entry with this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u32, is_it: impl FnMut(&Entry) -> bool) -> Option<&Entry> {
        let segment = self.segment(hash);
        segment.entry(segment.find(hash, is_it)?)
    }

    /// The entry with this hash for which `is_it` holds, to change it.
    #[inline]
    pub fn find_mut(&mut self, hash: u32, is_it: impl FnMut(&Entry) -> bool) -> Option<&mut Entry> {
        let segment = self.segment_mut(hash);
        let spot = segment.find(hash, is_it)?;
        Some(segment.entry_mut(spot))
    }

    /// Whether [`SlotTable::make_room`] must come before an entry with this hash.
    #[inline]
    pub fn is_full(&self, hash: u32) -> bool {
        self.segment(hash).is_full()
    }

    /// Makes room for an entry with this hash.
    #[cold]
    pub fn make_room(&mut self, hash: u32, arena: &mut Arena) {
        // Ends: each round halves the segment, or is the last. More than one is needed only when all entries of a
        // segment go into one half of it.
        while self.is_full(hash) {
            let keys = self.keys();
            match self {
                Self::One(segment) if !segment.is_largest() => segment.grow(arena),
                Self::One(segment) => {
                    let segment = std::mem::replace(segment, Segment::new(0));
                    *self = Self::Many(Box::new(Directory::new(segment, arena)));
                }
                Self::Many(directory) => {
                    let position = directory.position(hash);
                    let segment = &directory.segments[position];
                    let deeper = segment.depth() == directory.depth;
                    let crowded = segment.buckets().len() >= CROWDED_BUCKETS;
                    let keys_min = if crowded { CROWDED_KEYS_PER_ELEMENT_MIN } else { KEYS_PER_ELEMENT_MIN };
                    let may_deepen = directory.depth < 31 && keys >> (directory.depth + 1) >= keys_min;
                    if segment.is_largest() && (!deeper || may_deepen) {
                        directory.split(hash, arena);
                    } else {
                        directory.change(position, |segment| segment.grow(arena));
                    }
                }
            }
        }
    }

    /// Adds an entry. There must be room.
    #[inline]
    pub fn insert(&mut self, hash: u32, entry: OwnedEntry) {
        if let Self::Many(directory) = self {
            directory.keys += 1;
        }
        self.segment_mut(hash).insert(hash, entry);
    }

    /// Where the entry lies with this hash for which `is_it` holds.
    #[inline]
    pub fn spot(&self, hash: u32, is_it: impl FnMut(&Entry) -> bool) -> Option<Spot> {
        self.segment(hash).find(hash, is_it)
    }

    /// Takes the entry at a spot out, which [`SlotTable::spot`] gave for this hash.
    #[inline]
    pub fn remove(&mut self, hash: u32, spot: Spot) -> Option<OwnedEntry> {
        let entry = self.segment_mut(hash).remove(spot)?;
        if let Self::Many(directory) = self {
            directory.keys -= 1;
        }
        Some(entry)
    }

    /// Whether [`SlotTable::shrink`] should come after an entry with this hash was taken out.
    #[inline]
    pub fn is_sparse(&self, hash: u32) -> bool {
        self.segment(hash).is_sparse()
    }

    /// Gives memory back, where an entry with this hash was taken out.
    #[cold]
    pub fn shrink(&mut self, hash: u32, arena: &mut Arena) {
        match self {
            Self::One(segment) => segment.shrink(arena),
            Self::Many(directory) => {
                // Mostly once; more often where all keys of a segment went into one half of it, again and again.
                let mut merged = false;
                while directory.merge(hash, arena) {
                    merged = true;
                }
                if !merged {
                    let position = directory.position(hash);
                    directory.change(position, |segment| segment.shrink(arena));
                }
                if let Some(last) = directory.last_segment() {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Directory {
    /// A directory of the two halves of `segment`.
    fn new(mut segment: Segment, arena: &mut Arena) -> Self {
        let keys = segment.keys();
        let right = segment.split(arena);
        let bucket_bytes = segment.bytes() + right.bytes();
        let (elements, segments) = (vec![0, 1], vec![segment, right]);
        Self { depth: 1, keys, bucket_bytes, elements, segments, free: Vec::new(), deepest: 2 }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.bucket_bytes
            + (self.elements.capacity() + self.free.capacity()) * size_of::<u32>()
            + self.segments.capacity() * size_of::<Segment>()
    }

    /// Where the segment of a hash is in `segments`.
    #[inline]
    fn position(&self, hash: u32) -> usize {
        self.elements[(hash >> (32 - self.depth)) as usize] as usize
    }

    /// The elements of the hashes that share their first `depth` bits with `hash`.
    fn range(&self, hash: u32, depth: u32) -> std::ops::Range<usize> {
        let (element, wide) = ((hash >> (32 - self.depth)) as usize, self.depth - depth);
        let first = element >> wide << wide;
        first..first + (1 << wide)
    }

    fn change(&mut self, position: usize, change: impl FnOnce(&mut Segment)) {
        let segment = &mut self.segments[position];
        self.bucket_bytes -= segment.bytes();
        change(segment);
        self.bucket_bytes += segment.bytes();
    }

    /// Splits the segment of `hash`, and doubles the directory if it must.
    fn split(&mut self, hash: u32, arena: &mut Arena) {
        let position = self.position(hash);
        let depth = self.segments[position].depth();
        if depth == self.depth {
            self.elements = self.elements.iter().flat_map(|&element| [element; 2]).collect();
            self.depth += 1;
            self.deepest = 0;
        }
        let mut right = None;
        self.change(position, |segment| right = Some(segment.split(arena)));
        let Some(right) = right else { unreachable!("the change was made") };
        self.bucket_bytes += right.bytes();
        if depth + 1 == self.depth {
            self.deepest += 2;
        }
        let right_position = if let Some(free) = self.free.pop() {
            self.segments[free as usize] = right;
            free
        } else {
            self.segments.push(right);
            self.segments.len() as u32 - 1
        };
        let range = self.range(hash, depth);
        let half = range.len() / 2;
        self.elements[range][half..].fill(right_position);
    }

    /// Merges the segment of `hash` with its other half, if that exists undivided and both are small.
    fn merge(&mut self, hash: u32, arena: &mut Arena) -> bool {
        let depth = self.segments[self.position(hash)].depth();
        if depth == 0 {
            return false;
        }
        let range = self.range(hash, depth - 1);
        let (left, right) = (self.elements[range.start], self.elements[range.start + range.len() / 2]);
        let pair = [left, right].map(|position| &self.segments[position as usize]);
        if pair.iter().any(|half| half.depth() != depth) || pair[0].keys() + pair[1].keys() > MERGED_KEYS_MAX {
            return false;
        }
        if depth == self.depth {
            self.deepest -= 2;
        }
        let other = std::mem::replace(&mut self.segments[right as usize], Segment::new(0));
        self.bucket_bytes -= other.bytes();
        self.change(left as usize, |segment| segment.merge(other, arena));
        self.free.push(right);
        self.elements[range].fill(left);
        self.flatten();
        true
    }

    /// Halves the directory while no segment needs it as it is.
    fn flatten(&mut self) {
        while self.deepest == 0 && self.depth > 1 {
            self.elements = self.elements.iter().copied().step_by(2).collect();
            self.depth -= 1;
            self.count_deepest();
        }
    }

    fn count_deepest(&mut self) {
        let starts =
            self.elements.iter().enumerate().filter(|&(at, element)| at == 0 || self.elements[at - 1] != *element);
        let depth_of = |element: u32| self.segments[element as usize].depth();
        self.deepest = starts.filter(|&(_, &element)| depth_of(element) == self.depth).count();
    }

    /// The only segment, if no other is left.
    fn last_segment(&mut self) -> Option<Segment> {
        if self.free.len() + 1 < self.segments.len() {
            return None;
        }
        let position = self.elements[0] as usize;
        Some(std::mem::replace(&mut self.segments[position], Segment::new(0)))
    }
}

#[cfg(test)]
impl SlotTable {
    /// Checks what the module promises, and counts the bytes of the buckets.
    pub fn check(&self) -> usize {
        let buckets = self.segments().iter().map(Segment::check).sum();
        if let Self::Many(directory) = self {
            assert_eq!(directory.elements.len(), 1 << directory.depth);
            assert_eq!(directory.bucket_bytes, buckets);
            assert_eq!(directory.keys, directory.segments.iter().map(Segment::keys).sum::<usize>());
            let mut deepest = 0;
            let mut at = 0;
            while at < directory.elements.len() {
                let segment = &directory.segments[directory.elements[at] as usize];
                assert!(segment.depth() >= 1 && segment.depth() <= directory.depth);
                let range = directory.range((at as u32) << (32 - directory.depth), segment.depth());
                assert_eq!(range.start, at, "a segment begins where the one before ends");
                assert!(directory.elements[range.clone()].iter().all(|element| *element == directory.elements[at]));
                deepest += usize::from(segment.depth() == directory.depth);
                at = range.end;
            }
            assert_eq!(directory.deepest, deepest);
            assert!(directory.free.iter().all(|&free| directory.segments[free as usize].keys() == 0));
            return self.bytes();
        }
        buckets
    }
}
