//! Which keys have writes that are not applied, and how much those may add to a key's value.
//!
//! Place in the flow: step 5 (execute). A read asks which entry it has to wait for; admission asks how long a value may
//! be when a command that reads it is applied.
//!
//! Keys are told by a few bits of their hashes. A key that shares a bucket with such a key waits without need, or
//! counts for longer than it is, and that is all.

use std::ptr;

use eyot_raft_glue::Index;

use super::cost::Length;
use crate::shard::{prefetch_line, Place};

/// Buckets: some more than the writes that usually wait, so that most keys have one to themselves; and so few that
/// those of a core's shards stay in its caches, since every write changes one twice.
const BUCKETS: usize = 1024;

/// Stands for no bucket.
pub(super) const NO_BUCKET: u16 = u16::MAX;

/// The keys of one shard with writes that are not applied.
#[derive(Debug)]
pub(super) struct UnappliedKeys {
    buckets: Box<[Bucket]>,
    /// The newest entry with a command on more than one key; reads that follow own writes wait for it.
    newest_wide: Index,
    /// The newest entry with a command that takes a value away from its key without freeing it.
    newest_move: Index,
    /// Values on the heap that no bucket tells of: several with one command.
    several: Unknown,
    /// Large values, in a value file, of which only their commands' buckets tell, not their lengths.
    large: Unknown,
}

/// Values that are not applied, of whatever keys.
#[derive(Debug, Clone, Copy)]
struct Unknown {
    /// The newest entry with one.
    newest: Index,
    /// How long one of them is at most.
    bytes: usize,
}

impl Unknown {
    const NONE: Self = Self { newest: Index(0), bytes: 0 };

    fn add(&mut self, entry: Index, bytes: usize, applied: Index) {
        *self = Self { newest: entry, bytes: self.bytes_after(applied).max(bytes) };
    }

    fn bytes_after(&self, applied: Index) -> usize {
        if self.newest > applied {
            self.bytes
        } else {
            0
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    writes: u32,
    /// A value of the bucket is no longer than it is now, and this more, when they are applied; only meaningful while
    /// there are any.
    longer_by: u32,
    /// The newest entry with a write of this bucket; only meaningful while there are any.
    newest: Index,
}

impl UnappliedKeys {
    pub fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into(),
            newest_wide: Index(0),
            newest_move: Index(0),
            several: Unknown::NONE,
            large: Unknown::NONE,
        }
    }

    /// Asks the processor to fetch what [`UnappliedKeys::add`] will change.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        prefetch_line(ptr::from_ref(&self.buckets[usize::from(bucket_of(place))]).cast());
    }

    /// Notes a write of the key at `place` in `entry`, which stores so many bytes or appends so many; returns its
    /// bucket.
    #[inline]
    pub fn add(&mut self, place: Place, entry: Index, stored: usize, appended: usize) -> u16 {
        let number = bucket_of(place);
        let bucket = &mut self.buckets[usize::from(number)];
        let before = if bucket.writes == 0 { 0 } else { bucket.longer_by as usize };
        bucket.longer_by = u32::try_from(before.max(stored) + appended).unwrap_or(u32::MAX);
        bucket.writes += 1;
        bucket.newest = entry;
        number
    }

    /// Notes that a command in `entry` gives the key at `place` a value of `bytes` that is another's, and was if it
    /// `leaves` that one; returns the bucket.
    pub fn add_second(&mut self, place: Place, entry: Index, bytes: usize, leaves: bool) -> u16 {
        self.newest_wide = entry;
        if leaves {
            self.newest_move = entry;
        }
        self.add(place, entry, bytes, 0)
    }

    /// Notes a command on many keys in `entry`, of whose values one has `bytes` at most; entries up to `applied` are.
    pub fn add_several(&mut self, entry: Index, bytes: usize, applied: Index) {
        self.newest_wide = entry;
        self.several.add(entry, bytes, applied);
    }

    /// Notes a large value of `bytes` that a command in `entry` stores; entries up to `applied` are.
    pub fn add_large(&mut self, entry: Index, bytes: usize, applied: Index) {
        self.large.add(entry, bytes, applied);
    }

    /// The buckets' entry is applied.
    #[inline]
    pub fn remove(&mut self, buckets: [u16; 2]) {
        for bucket in buckets {
            if bucket != NO_BUCKET {
                self.buckets[usize::from(bucket)].writes -= 1;
            }
        }
    }

    /// The newest entry after `applied` that may change the key at `place`.
    #[inline]
    pub fn newest(&self, place: Place, applied: Index) -> Option<Index> {
        let wide = (self.newest_wide > applied).then_some(self.newest_wide);
        let bucket = self.of(place);
        (bucket.writes > 0).then_some(bucket.newest).max(wide)
    }

    /// How long the value of the key at `place` is and may be when all is applied, which has `found` bytes now, in a
    /// value file or not; entries up to `applied` are.
    pub fn length(&self, place: Place, (found, in_file): (usize, bool), applied: Index) -> Length {
        let bucket = self.of(place);
        let written = bucket.writes > 0;
        let longer_by = if written { bucket.longer_by as usize } else { 0 };
        let several = self.several.bytes_after(applied);
        // What is stored or appended may make a large value one on the heap, or follows one that is not there yet.
        let large = if longer_by > 0 { self.large.bytes_after(applied) } else { 0 };
        // A value that is on its way to another key makes no room.
        let stays = !written || self.newest_move <= applied;
        Length {
            at_least: if stays { found } else { 0 },
            at_most: found + longer_by + several + large,
            in_file: in_file && longer_by == 0 && several == 0,
        }
    }

    #[inline]
    fn of(&self, place: Place) -> Bucket {
        self.buckets[usize::from(bucket_of(place))]
    }

    /// What it takes, from its start.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }
}

#[inline]
fn bucket_of(place: Place) -> u16 {
    (place.hash() as usize % BUCKETS) as u16
}
