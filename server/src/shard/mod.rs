//! The shard engine: the keys of a fixed range of slots, in memory.
//!
//! Place in the flow: step 5 (execute) reads it, step 8 (apply) changes it. The caller is the core that owns the shard;
//! it brings the clock and the log.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Shard`]: reads, the sweep of expired keys, counts |
//! | `apply` | [`Shard::apply`]: the only place where state changes; writes and removals |
//! | `commands` | the commands that read what they change, and those on several keys |
//! | `query` | [`Shard::query`]: what can be asked about one key |
//! | `outcome` | what a command did, or why it could not |
//! | `table` | the tables of entries, one for each slot |
//! | `entry` | one key with its value, in one heap block |
//! | `scan` | walks over many keys: SCAN, the keys of a slot, random keys, samples |
//! | `expiry` | the timing wheel that finds expired keys |
//! | `uploads` | large values between their first part in the log and their command |
//! | `graveyard` | what a cleared shard held, until it is freed |
//! | `snapshot` | [`Shard::snapshot_some`]: all that was there at one moment, in slices |
//! | `load` | [`Shard::load`]: the way back |
//! | `access` | when, or how often, a key was used: the meaning of its access word |
//! | `eviction` | which key goes when memory is short |
//!
//! Invariants:
//! - Pure: no clock, file, socket or random number. State is a function of the entries that were applied: neither
//!   `now_us` of reads and sweeps nor the hash seed have any part in it.
//! - A key whose expiry has passed reads as absent at once. Its memory goes when the logged removal is applied, which
//!   [`Shard::sweep`] proposes.
//! - Memory is counted as it is taken: [`Shard::memory_bytes`] walks nothing.
//!
//! Deliberately not here: which acknowledgement a write waits for, limits on memory, what values mean.

pub mod access;
mod apply;
mod commands;
mod entry;
pub mod eviction;
mod expiry;
mod graveyard;
mod load;
mod outcome;
mod query;
mod scan;
mod snapshot;
mod table;
mod uploads;

use std::cell::Cell;
use std::ops::Range;

use eyot_protocol::key;
use eyot_protocol::value_part::UploadId;
use eyot_raft_glue::{ShardId, Version};
use eyot_ring::{MappedBytes, MappedRegion};

use access::{AccessClock, Tracking};
use entry::{Entry, Expiry, OwnedEntry};
use expiry::{Due, Wheel};
use graveyard::Graveyard;
use table::Tables;
use uploads::Uploads;

pub(crate) use entry::prefetch_line;
pub use load::{LoadError, LoadedValue};
pub use outcome::{Failure, Outcome};
pub use query::Answer;
pub use scan::{Candidate, ScanCursor, Scanned, SCAN_KEYS_MAX};
pub use snapshot::SnapshotStep;
pub use table::{HashSeed, Place};
pub use uploads::{GrowingValue, UploadError, WholeValue};

/// A key's value as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// One encoded TLV value.
    pub value: &'a [u8],
    /// Where the key's last write stands in the shard's log.
    pub version: Version,
    /// When the key ceases to exist, in microseconds since the epoch; `None`: never.
    pub expires_at_us: Option<i64>,
    /// The value, if it is a large one: to be referred to instead of copied, and its pages not to be touched by who
    /// may not wait.
    pub large: Option<LargeValue<'a>>,
}

impl<'a> Stored<'a> {
    #[inline]
    fn of(entry: &'a Entry) -> Self {
        Self {
            value: entry.value(),
            version: entry.version(),
            expires_at_us: entry.expiry().map(|expiry| expiry.at_us),
            large: entry.is_large().then_some(LargeValue(entry)),
        }
    }

    /// The value's first bytes, at least its TLV head, at hand without touching a page of a large one.
    pub fn head(&self) -> &[u8] {
        self.large.as_ref().map_or(self.value, LargeValue::head)
    }
}

/// A value that lies in a value file.
#[derive(Clone, Copy)]
pub struct LargeValue<'a>(&'a Entry);

impl LargeValue<'_> {
    /// A handle by which it stays where it is, whatever becomes of its key.
    pub fn pin(&self) -> MappedBytes {
        self.0.pin().expect("a large value")
    }

    /// Its first bytes, at least its TLV head, at hand without touching its pages.
    pub fn head(&self) -> &[u8] {
        self.0.value_head()
    }
}

impl PartialEq for LargeValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.value() == other.0.value()
    }
}

impl Eq for LargeValue<'_> {}

impl std::fmt::Debug for LargeValue<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "LargeValue({:?})", self.head())
    }
}

/// The keys of one shard.
pub struct Shard {
    id: ShardId,
    tables: Tables,
    wheel: Wheel,
    /// The places of the keys of the entry that is being applied; empty otherwise.
    places: Vec<Place>,
    /// The new value of a key whose text a command changes; what an outcome may borrow.
    scratch: Vec<u8>,
    /// An entry that the latest command took out, for its outcome to borrow; dropped when the log's entry is applied.
    departed: Option<OwnedEntry>,
    graveyard: Graveyard,
    /// Large values whose commands are still to come.
    uploads: Uploads,
    /// What access words remember.
    tracking: Tracking,
    /// Reads of values that found a key, and that did not; the former also decide which of them count as uses.
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl Shard {
    /// An empty shard: number `id` of `shard_count`. `hash_seed` decides in what order walks find keys, and nothing
    /// else that can be seen.
    ///
    /// # Panics
    /// When `id` is not below `shard_count`.
    pub fn new(id: ShardId, shard_count: u16, hash_seed: impl Into<HashSeed>) -> Self {
        assert!(id.0 < shard_count, "shard {} of {shard_count}", id.0);
        let tables = Tables::new(key::slots_of_shard(id.0, shard_count), hash_seed);
        Self {
            id,
            tables,
            wheel: Wheel::new(),
            places: Vec::new(),
            scratch: Vec::new(),
            departed: None,
            graveyard: Graveyard::default(),
            uploads: Uploads::default(),
            tracking: Tracking::Recency,
            hits: Cell::new(0),
            misses: Cell::new(0),
        }
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The slots whose keys live here.
    pub fn slots(&self) -> Range<u16> {
        self.tables.slots()
    }

    /// What is stored under `key`, whose slot is `slot`, at the time `now_us`.
    ///
    /// # Panics
    /// When `slot` is not one of [`Shard::slots`]: the request was routed to the wrong shard.
    #[inline]
    pub fn get(&self, slot: u16, key: &[u8], now_us: i64) -> Option<Stored<'_>> {
        self.get_at(self.place(slot, key), key, now_us)
    }

    /// Whether `key`, whose slot is `slot`, exists at the time `now_us`.
    ///
    /// # Panics
    /// As [`Shard::get`].
    #[inline]
    pub fn exists(&self, slot: u16, key: &[u8], now_us: i64) -> bool {
        self.get(slot, key, now_us).is_some()
    }

    /// The place of `key`, whose slot is `slot`: hashed once, for [`Shard::prefetch`] and [`Shard::get_at`]. It stays
    /// right whatever is applied in between.
    ///
    /// # Panics
    /// As [`Shard::get`].
    #[inline]
    pub fn place(&self, slot: u16, key: &[u8]) -> Place {
        let place = self.tables.place(slot, key);
        place.unwrap_or_else(|| panic!("slot {slot} is not of shard {}", self.id.0))
    }

    /// Asks the processor to fetch what a read at `place` will touch. Changes nothing.
    ///
    /// Pays from about four keys on, in four passes over a pipeline: all places, [`Shard::prefetch_bucket`] for all of
    /// them, this, then all reads. With nothing else between them the passes' cache misses overlap, which halves the
    /// cost of a read (`benches/table.rs`); without the pass over buckets a third of the gain is lost.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        self.tables.prefetch(place);
    }

    /// Asks the processor to fetch the line of the table that [`Shard::prefetch`] reads: a pass before that one, when
    /// dozens of keys are looked up together. Changes nothing.
    #[inline]
    pub fn prefetch_bucket(&self, place: Place) {
        self.tables.prefetch_bucket(place);
    }

    /// [`Shard::get`] of a key whose [`Shard::place`] is known, without hashing it again. Counts as a use of the key.
    #[inline]
    pub fn get_at(&self, place: Place, key: &[u8], now_us: i64) -> Option<Stored<'_>> {
        let entry = self.tables.find(place, key);
        let expires_at_us = entry.and_then(Entry::expiry).map(|expiry| expiry.at_us);
        let Some(entry) = entry.filter(|_| !has_expired(expires_at_us, now_us)) else {
            self.misses.set(self.misses.get() + 1);
            return None;
        };
        self.hits.set(self.hits.get() + 1);
        self.touch(entry, now_us);
        Some(Stored::of(entry))
    }

    /// Applies a part of a large value: see [`eyot_protocol::value_part`]. Only in recovery: in operation a value is
    /// there before its parts are logged, and [`Shard::put_upload`] brings it. `is_covered`: the shard's snapshot goes
    /// further; its later command may need the part all the same.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub fn apply_part(
        &mut self,
        payload: &[u8],
        is_covered: bool,
        allocate: impl FnOnce(usize) -> std::io::Result<Option<MappedRegion>>,
    ) -> Result<(), UploadError> {
        self.uploads.part(payload, is_covered, allocate)
    }

    /// Keeps a large value that is whole for the SET that names it, which is the next thing that the caller logs.
    pub fn put_upload(&mut self, upload: UploadId, value: WholeValue) {
        self.uploads.put(upload, value);
    }

    /// Drops large values that will never be stored, since the log ends here. Returns how many there were.
    pub fn drop_uploads(&mut self) -> usize {
        self.uploads.drop_unfinished()
    }

    /// Notes a use of `entry`.
    #[inline]
    fn touch(&self, entry: &Entry, now_us: i64) {
        // Which uses count must not follow the keys' order: the count of all uses, stirred, is as good as a random
        // number.
        let random = (self.hits.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        entry.set_access(self.access_clock(now_us).touched(entry.access(), random));
    }

    /// Has access words remember what `tracking` says from now on.
    pub fn set_tracking(&mut self, tracking: Tracking) {
        self.tracking = tracking;
    }

    /// Reads and writes access words at `now_us`.
    #[inline]
    pub fn access_clock(&self, now_us: i64) -> AccessClock {
        AccessClock::new(self.tracking, now_us)
    }

    /// Reads of values since the start: those that found a key, and those that did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// Offers keys whose expiry has passed at `now_us` to `propose`, each with its place and the version to name in the
    /// [`Command::Expire`](eyot_protocol::command::Command::Expire) that the caller logs; returns how many. A key that
    /// is still there about a second later is offered again.
    ///
    /// `budget` bounds the steps of this call (keys offered, and timers moved closer to their time), so fewer than
    /// `budget` keys may be offered although more have expired: [`Shard::next_expiry_us`] tells whether there is
    /// more to do.
    pub fn sweep(&mut self, now_us: i64, budget: usize, mut propose: impl FnMut(Place, &[u8], Version)) -> usize {
        let tables = &self.tables;
        self.wheel.sweep(now_us, budget, |timer, place| {
            let is_it = |entry: &Entry| entry.expiry().is_some_and(|expiry| expiry.timer == timer);
            let entry = tables.find_by(place, is_it);
            let entry = entry.unwrap_or_else(|| unreachable!("timer {timer:?} outlived its key"));
            match entry.expiry() {
                Some(Expiry { at_us, .. }) if at_us > now_us => Due::NotBefore { expires_at_us: at_us },
                _ => {
                    propose(place, entry.key(), entry.version());
                    Due::Offered
                }
            }
        })
    }

    /// The earliest time at which [`Shard::sweep`] has anything to do, in microseconds since the epoch; `None` when no
    /// key has an expiry. A sweep then may find that the next key expires only later.
    pub fn next_expiry_us(&self) -> Option<i64> {
        self.wheel.next_event_us()
    }

    /// How many keys are held, those included that have expired and are not yet removed.
    pub fn key_count(&self) -> usize {
        self.tables.keys()
    }

    /// How many of the keys have an expiry.
    pub fn expiring_key_count(&self) -> usize {
        self.wheel.timers()
    }

    /// Bytes that were asked of the allocator for keys, values, tables and timers, those of a cleared shard included
    /// until they are freed, and what is held for a snapshot ([`Shard::snapshot_memory_bytes`]). What the allocator
    /// adds is not in it.
    pub fn memory_bytes(&self) -> usize {
        let scratch = self.places.capacity() * size_of::<Place>() + self.scratch.capacity();
        let kept = self.graveyard.memory_bytes() + self.snapshot_memory_bytes();
        self.tables.memory_bytes() + self.wheel.memory_bytes() + kept + scratch
    }

    /// Frees a part of what the shard held before it was cleared, in about `budget` steps (entries, mostly) of some
    /// ten nanoseconds each; whether anything is left. To be called between turns while it says so.
    pub fn free_some(&mut self, budget: usize) -> bool {
        self.graveyard.free_some(budget)
    }

    /// The part of [`Shard::memory_bytes`] that is entries: keys and values, large ones included.
    pub fn entry_bytes(&self) -> usize {
        self.tables.entry_bytes()
    }

    /// The part of [`Shard::entry_bytes`] that is large values, in value files.
    pub fn large_value_bytes(&self) -> usize {
        self.tables.large_value_bytes()
    }

    /// A number that is the same for the same content (keys, values, versions, expiries), in whatever order it came and
    /// whatever the hash seed. Walks over everything.
    pub fn digest(&self) -> u64 {
        self.tables.iter().fold(0, |sum, entry| sum.wrapping_add(entry_digest(entry)))
    }
}

/// Whether a key with this expiry no longer exists at `now_us`.
#[inline]
fn has_expired(expires_at_us: Option<i64>, now_us: i64) -> bool {
    expires_at_us.is_some_and(|at_us| at_us <= now_us)
}

fn entry_digest(entry: &Entry) -> u64 {
    fn absorb(state: u64, word: u64) -> u64 {
        let mixed = (state ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    }
    // Lengths first, so that bytes cannot move from the key to the value unseen.
    let expiry = entry.expiry().map(|expiry| expiry.at_us);
    let fixed = [
        entry.key().len() as u64,
        entry.value().len() as u64,
        entry.version().0,
        u64::from(expiry.is_some()),
        expiry.unwrap_or(0) as u64,
    ];
    let state = fixed.into_iter().fold(1, absorb);
    [entry.key(), entry.value()].into_iter().flat_map(|bytes| bytes.chunks(8)).fold(state, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        absorb(state, u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests;
