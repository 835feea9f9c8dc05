//! A segment: an array of buckets with the entries of one range of hashes, in the order of their hashes.
//!
//! Place in the flow: what a look-up of step 5 (execute) searches and a change of step 8 (apply) changes.
//!
//! ```text
//! tag    = the 16 bits of the hash below the `depth` bits that all entries of the segment share
//! home   = tag * bucket_count / 2^16: any count of buckets will do, and the order of homes is the order of hashes
//! ```
//!
//! An entry lies in its home bucket or, when that was full, in the next one with a free word, around the end if need
//! be.
//!
//! Invariants:
//! - Every bucket between an entry's home and the one in which it lies is marked as passed. So a look-up ends at the
//!   first bucket without the mark, and one that knows a home finds all entries of it.
//! - Taking an entry out moves entries that had passed into its place, and takes marks away that nobody needs: a
//!   segment in which keys come and go does not get slower.
//! - Sizes are near to each other (four to a doubling), so that the load stays high: an entry costs 9 to 11 bytes here.
//! - The buckets belong to the shard's arena, which outlives the segment; the entries in them belong to the segment. A
//!   segment that has buckets has entries, except within a change.
//! - Rebuilding touches buckets, never entries; only a split reads their hashes, since a tag needs a new lowest bit.
//!
//! Deliberately not here: when to split and to merge, and what a key is.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use super::arena::{larger, Arena, Block, BLOCK_BUCKETS_MAX};
use super::bucket::{Bucket, Word, BUCKET_WORDS};
use crate::shard::entry::{prefetch_line, Entry, OwnedEntry};

/// A segment that needs more buckets is split: one insert then moves less than 2,000 entries, however many share a
/// slot.
pub(super) const SEGMENT_BUCKETS_MAX: usize = 256;

/// Entries per bucket, in quarters, at which a segment gets more buckets: 26 of 32 words. Longer chains than at this
/// load would cost every look-up more than a smaller table saves.
const FULL_QUARTERS: usize = 26;

/// Entries per bucket below which a segment gets fewer buckets: half of where it stands after growing, so that keys
/// which come and go around one size do not move it each time.
const SPARSE: usize = 3;

/// How many entries so many buckets may hold.
fn capacity(bucket_count: usize) -> usize {
    match bucket_count {
        // A single bucket cannot be passed, so it may be full.
        0 | 1 => bucket_count * BUCKET_WORDS,
        _ => bucket_count * FULL_QUARTERS / 4,
    }
}

/// The smallest size that holds `keys` with room for a tenth more; none for none.
fn buckets_for(keys: usize) -> usize {
    let mut count = keys.min(1);
    while count > 0 && capacity(count) < keys + keys / 10 {
        count = larger(count);
    }
    count
}

/// Where an entry lies: bucket and word.
pub(super) type Spot = (usize, usize);

/// See the module. A new one has no buckets.
pub(super) struct Segment {
    buckets: NonNull<Bucket>,
    keys: u32,
    /// `depth << COUNT_BITS | bucket count`.
    shape: u32,
}

/// Bits of a segment's shape that count its buckets.
const COUNT_BITS: u32 = 27;

const _: () = assert!(size_of::<Segment>() == 16 && BLOCK_BUCKETS_MAX < 1 << COUNT_BITS);

// SAFETY: a segment owns its buckets alone, and those their entries, which may move to another thread.
unsafe impl Send for Segment {}

impl Segment {
    /// A segment without buckets for hashes that share their first `depth` bits.
    pub const fn new(depth: u32) -> Self {
        assert!(depth < 32);
        Self { buckets: NonNull::dangling(), keys: 0, shape: depth << COUNT_BITS }
    }

    /// An empty segment with `bucket_count` buckets.
    fn with_buckets(depth: u32, bucket_count: usize, arena: &mut Arena) -> Self {
        let mut segment = Self::new(depth);
        if bucket_count > 0 {
            // The arena has no block whose buckets these bits could not count.
            segment.buckets = arena.take(bucket_count);
            segment.shape |= bucket_count as u32;
        }
        segment
    }

    /// Gives the buckets back, out of which all entries were taken.
    fn retire(self, arena: &mut Arena) {
        assert!(self.keys == 0);
        let bucket_count = self.bucket_count();
        if bucket_count > 0 {
            arena.give_back(Block { buckets: self.buckets, bucket_count });
        }
    }

    /// The buckets were moved by the arena.
    pub fn move_to(&mut self, from: NonNull<Bucket>, to: NonNull<Bucket>) {
        assert!(self.buckets == from && self.bucket_count() > 0, "another segment's buckets");
        self.buckets = to;
    }

    /// How many entries there are.
    #[inline]
    pub fn keys(&self) -> usize {
        self.keys as usize
    }

    /// How many first bits of their hashes all entries share.
    #[inline]
    pub fn depth(&self) -> u32 {
        self.shape >> COUNT_BITS
    }

    #[inline]
    fn bucket_count(&self) -> usize {
        (self.shape & ((1 << COUNT_BITS) - 1)) as usize
    }

    /// Bytes of the buckets.
    pub fn bytes(&self) -> usize {
        self.bucket_count() * size_of::<Bucket>()
    }

    /// Bytes of the entries' blocks. Touches every one.
    pub fn entry_bytes(&self) -> usize {
        let words = self.buckets().iter().flat_map(Bucket::words);
        words.filter_map(Word::entry).map(Entry::allocated_bytes).sum()
    }

    /// The buckets, in order.
    #[inline]
    pub fn buckets(&self) -> &[Bucket] {
        // SAFETY: so many buckets stand there, initialised; with none the pointer is dangling and aligned.
        unsafe { std::slice::from_raw_parts(self.buckets.as_ptr(), self.bucket_count()) }
    }

    #[inline]
    fn buckets_mut(&mut self) -> &mut [Bucket] {
        // SAFETY: as above, and the segment is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.buckets.as_ptr(), self.bucket_count()) }
    }

    /// The tag of a hash that belongs here.
    #[inline]
    fn tag(&self, hash: u32) -> u16 {
        (hash << self.depth() >> 16) as u16
    }

    /// The bucket to which a tag belongs; 0 when there is none.
    #[inline]
    fn home(&self, tag: u16) -> usize {
        (usize::from(tag) * self.bucket_count()) >> 16
    }

    /// The bucket to which a hash belongs.
    #[inline]
    pub fn home_of(&self, hash: u32) -> usize {
        self.home(self.tag(hash))
    }

    /// The first tag whose home lies behind `bucket`; 2^16 when there is none.
    #[inline]
    pub fn first_tag_behind(&self, bucket: usize) -> u64 {
        ((bucket as u64 + 1) << 16).div_ceil(self.bucket_count() as u64)
    }

    #[inline]
    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.bucket_count() {
            0
        } else {
            bucket + 1
        }
    }

    /// How many steps lead from bucket `from` to bucket `to`.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to {
            to - from
        } else {
            to + self.bucket_count() - from
        }
    }

    /// Where the first entry lies that has the tag of `hash` and that `is_it` takes for the one it seeks.
    #[inline]
    pub fn find(&self, hash: u32, mut is_it: impl FnMut(&Entry) -> bool) -> Option<Spot> {
        let tag = self.tag(hash);
        let buckets = self.buckets();
        let home = self.home(tag);
        let mut at = home;
        loop {
            let bucket = buckets.get(at)?;
            let mut candidates = bucket.matching(tag);
            while candidates != 0 {
                let index = candidates.trailing_zeros() as usize;
                if bucket.words()[index].entry().is_some_and(&mut is_it) {
                    return Some((at, index));
                }
                candidates &= candidates - 1;
            }
            if !bucket.is_passed() {
                return None;
            }
            at = self.next(at);
            if at == home {
                return None;
            }
        }
    }

    /// The entry at a spot that [`Segment::find`] gave.
    #[inline]
    pub fn entry(&self, (bucket, index): Spot) -> Option<&Entry> {
        self.buckets()[bucket].words()[index].entry()
    }

    /// The entry at a spot that [`Segment::find`] gave, to change it.
    #[inline]
    pub fn entry_mut(&mut self, (bucket, index): Spot) -> &mut Entry {
        self.buckets_mut()[bucket].entry_mut(index)
    }

    /// Calls `visit` with every entry whose home is `bucket`.
    #[inline]
    pub fn visit_home<'a>(&'a self, bucket: usize, mut visit: impl FnMut(&'a Entry)) {
        let mut at = bucket;
        loop {
            let here = &self.buckets()[at];
            let words = here.words().iter().filter(|word| self.home(word.tag()) == bucket);
            words.filter_map(Word::entry).for_each(&mut visit);
            at = self.next(at);
            if !here.is_passed() || at == bucket {
                return;
            }
        }
    }

    /// Whether the next insert needs room first.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.keys() >= capacity(self.bucket_count())
    }

    /// Whether it has as many buckets as a segment should have.
    pub fn is_largest(&self) -> bool {
        self.bucket_count() >= SEGMENT_BUCKETS_MAX
    }

    /// Adds an entry. There must be room.
    #[inline]
    pub fn insert(&mut self, hash: u32, entry: OwnedEntry) {
        debug_assert!(!self.is_full());
        let tag = self.tag(hash);
        self.place(Word::new(entry, tag));
    }

    /// Puts a word, which has its tag, where it belongs.
    #[inline]
    fn place(&mut self, word: Word) {
        let mut at = self.home(word.tag());
        // Ends: there are more words than entries.
        loop {
            let bucket = &mut self.buckets_mut()[at];
            if let Some(index) = bucket.free_word() {
                bucket.put(index, word);
                self.keys += 1;
                return;
            }
            bucket.set_passed(true);
            at = self.next(at);
        }
    }

    /// Takes the entry at a spot that [`Segment::find`] gave out.
    #[inline]
    pub fn remove(&mut self, (bucket, index): Spot) -> Option<OwnedEntry> {
        let entry = self.buckets_mut()[bucket].take_entry(index)?;
        self.keys -= 1;
        if self.buckets()[bucket].is_passed() {
            self.close_gap(bucket, index);
        }
        Some(entry)
    }

    /// Moves an entry that passed bucket `gap` into its free word `index`, another one into the place of that, and so
    /// on; takes the mark from a bucket that no entry has passed.
    fn close_gap(&mut self, mut gap: usize, mut index: usize) {
        while self.buckets()[gap].is_passed() {
            let Some((from, from_index)) = self.passed(gap) else {
                self.buckets_mut()[gap].set_passed(false);
                return;
            };
            let word = self.buckets_mut()[from].take(from_index);
            self.buckets_mut()[gap].put(index, word);
            (gap, index) = (from, from_index);
        }
    }

    /// The nearest entry that passed bucket `gap`.
    fn passed(&self, gap: usize) -> Option<Spot> {
        let mut at = self.next(gap);
        while at != gap {
            let steps = self.distance(gap, at);
            let has_passed = |word: &Word| !word.is_free() && self.distance(self.home(word.tag()), at) >= steps;
            let bucket = &self.buckets()[at];
            if let Some(index) = bucket.words().iter().position(has_passed) {
                return Some((at, index));
            }
            if !bucket.is_passed() {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Whether so few entries are left that [`Segment::shrink`] is worth its time.
    #[inline]
    pub fn is_sparse(&self) -> bool {
        let count = self.bucket_count();
        self.keys() < count * SPARSE && (count > 1 || self.keys == 0)
    }

    /// Takes the next larger size. Beyond [`SEGMENT_BUCKETS_MAX`] that is for keys whose hashes the directory cannot
    /// tell apart; there is a size for more of them than can be inserted in years.
    pub fn grow(&mut self, arena: &mut Arena) {
        self.rebuild(larger(self.bucket_count()), arena);
    }

    /// Takes a smaller size, with room for some more entries; no buckets without entries.
    pub fn shrink(&mut self, arena: &mut Arena) {
        self.rebuild(buckets_for(self.keys()), arena);
    }

    fn rebuild(&mut self, bucket_count: usize, arena: &mut Arena) {
        let mut new = Self::with_buckets(self.depth(), bucket_count, arena);
        self.drain(|word| new.place(word.with_tag(word.tag())));
        std::mem::replace(self, new).retire(arena);
    }

    /// Gives every word to `take`, which owns its entry from then on.
    fn drain(&mut self, mut take: impl FnMut(Word)) {
        self.keys = 0;
        for bucket in self.buckets_mut() {
            for index in 0..BUCKET_WORDS {
                if !bucket.words()[index].is_free() {
                    take(bucket.take(index));
                }
            }
        }
    }

    /// Leaves the first half of the range of hashes here, and returns a segment with the other half.
    pub fn split(&mut self, arena: &mut Arena) -> Self {
        // A look at the tags' first bits counts what goes where.
        let all = self.buckets().iter().flat_map(Bucket::words);
        let right_keys = all.filter(|word| !word.is_free() && word.tag() >> 15 == 1).count();
        let depth = self.depth() + 1;
        let mut left = Self::with_buckets(depth, buckets_for(self.keys() - right_keys), arena);
        let mut right = Self::with_buckets(depth, buckets_for(right_keys), arena);
        for at in 0..self.buckets().len() {
            // The hashes are read from the entries, most of which are in no cache: some buckets ahead of their use.
            const AHEAD: usize = 2;
            for ahead in if at == 0 { 0..AHEAD + 1 } else { at + AHEAD..at + AHEAD + 1 } {
                let words = self.buckets().get(ahead).into_iter().flat_map(Bucket::words);
                words.filter_map(Word::entry).for_each(Entry::prefetch_header);
            }
            for index in 0..BUCKET_WORDS {
                let Some(hash) = self.buckets()[at].words()[index].entry().map(Entry::hash) else { continue };
                let word = self.buckets_mut()[at].take(index);
                let half = if word.tag() >> 15 == 1 { &mut right } else { &mut left };
                half.place(word.with_tag(half.tag(hash)));
            }
        }
        self.keys = 0;
        std::mem::replace(self, left).retire(arena);
        right
    }

    /// Takes the entries of the segment with the next range of hashes, which shares all but the last bit with this
    /// one's.
    pub fn merge(&mut self, mut right: Self, arena: &mut Arena) {
        assert!(self.depth() == right.depth() && self.depth() > 0);
        let keys = self.keys() + right.keys();
        let mut merged = Self::with_buckets(self.depth() - 1, buckets_for(keys), arena);
        self.drain(|word| merged.place(word.with_tag(word.tag() >> 1)));
        right.drain(|word| merged.place(word.with_tag(1 << 15 | word.tag() >> 1)));
        std::mem::replace(self, merged).retire(arena);
        right.retire(arena);
    }

    /// Asks the processor to fetch the line in which the look-up of `hash` begins.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u32) {
        prefetch_line(self.buckets.as_ptr().wrapping_add(self.home_of(hash)).cast());
    }

    /// Asks the processor to fetch the entry that the look-up of `hash` will read, or else the next bucket.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        let home = self.home_of(hash);
        let Some(bucket) = self.buckets().get(home) else { return };
        let candidates = bucket.matching(self.tag(hash));
        if candidates != 0 {
            if let Some(entry) = bucket.words()[candidates.trailing_zeros() as usize].entry() {
                entry.prefetch();
            }
        } else if bucket.is_passed() {
            prefetch_line(ptr::from_ref(&self.buckets()[self.next(home)]).cast());
        }
    }
}

/// Asks the processor to fetch the beginnings of a bucket's entries.
#[inline]
pub(super) fn prefetch_entries(bucket: Option<&Bucket>) {
    bucket.into_iter().flat_map(Bucket::words).filter_map(Word::entry).for_each(Entry::prefetch);
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.keys > 0 {
            for at in 0..self.buckets().len() {
                prefetch_entries(self.buckets().get(at + 1));
                for index in 0..BUCKET_WORDS {
                    drop(self.buckets_mut()[at].take_entry(index));
                }
            }
        }
    }
}

#[cfg(test)]
impl Segment {
    /// Checks what the module promises; the bytes of the buckets.
    pub fn check(&self) -> usize {
        let mut keys = 0;
        for (at, bucket) in self.buckets().iter().enumerate() {
            for word in bucket.words() {
                let Some(entry) = word.entry() else { continue };
                keys += 1;
                assert_eq!(word.tag(), self.tag(entry.hash()), "an entry has the tag of its hash");
                let mut passed = self.home(word.tag());
                while passed != at {
                    assert!(self.buckets()[passed].is_passed(), "bucket {passed} hides an entry in bucket {at}");
                    passed = self.next(passed);
                }
            }
        }
        assert_eq!(keys, self.keys());
        assert!(keys <= capacity(self.bucket_count()));
        assert!(!self.is_sparse(), "{keys} keys in {} buckets", self.bucket_count());
        self.bytes()
    }
}
