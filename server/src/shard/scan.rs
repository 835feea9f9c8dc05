//! Looking through a shard's keys: SCAN and KEYS in slices, the keys of a slot, random keys, samples for eviction.
//!
//! Place in the flow: step 5 (execute) of the commands that go through many keys; between turns, eviction.
//!
//! Invariants:
//! - A key that is there from the beginning of a walk to its end is visited exactly once, whatever else is written
//!   meanwhile and however the tables grow and shrink. One that comes or goes meanwhile may be visited or not.
//! - Every call's work is bounded: by its budget, which is cut to [`SCAN_KEYS_MAX`], and by the number of slots.
//! - Changes nothing. Randomness is an argument.
//!
//! Deliberately not here: patterns and types, which are the caller's, and who is evicted.

use eyot_raft_glue::Version;

use super::entry::Entry;
use super::table::{mixed, Position};
use super::{has_expired, Shard, Stored};

/// Keys that one step of a walk visits at most (and the rest of a bucket): with entries that are in no cache, a few
/// tenths of a millisecond.
pub const SCAN_KEYS_MAX: usize = 2048;

/// How many random keys are tried for one that has not expired.
const LIVE_TRIES: u64 = 32;

/// Where a walk over keys stands, in a number that a client can keep: `slot << 32 | hash`. Any number is a valid
/// cursor; one that no walk gave begins somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanCursor(pub u64);

impl ScanCursor {
    /// Before the first key of the first slot.
    pub const START: Self = Self(0);

    /// Before the first key of `slot`.
    pub const fn of_slot(slot: u16) -> Self {
        Self((slot as u64) << 32)
    }

    /// The slot in which the walk goes on: which shard to ask. Beyond the last slot for numbers that no walk gave.
    pub const fn slot(self) -> u64 {
        self.0 >> 32
    }
}

/// What a step of a walk has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Where to go on; `None`: the shard's last key was visited.
    pub next: Option<ScanCursor>,
    /// Keys that were looked at, those that have expired among them, and buckets without a key: what a caller that
    /// bounds its work counts.
    pub looked_at: usize,
}

/// A key that eviction may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its version, which a logged removal names.
    pub version: Version,
    /// What is remembered of its use.
    pub access: u32,
    /// When it expires, in microseconds since the epoch; `None`: never.
    pub expires_at_us: Option<i64>,
    /// The bytes that its entry takes.
    pub bytes: usize,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        Self {
            key: entry.key(),
            version: entry.version(),
            access: entry.access(),
            expires_at_us: entry.expiry().map(|expiry| expiry.at_us),
            bytes: entry.allocated_bytes(),
        }
    }
}

/// The entry as a reader at `now_us` sees it.
fn live(entry: &Entry, now_us: i64) -> Option<Stored<'_>> {
    let expires_at_us = entry.expiry().map(|expiry| expiry.at_us);
    let stored = Stored::of(entry);
    (!has_expired(expires_at_us, now_us)).then_some(stored)
}

impl Shard {
    /// Visits keys that exist at `now_us`, from `cursor` on; returns where to go on, and what that has cost. A cursor
    /// before the shard's slots begins at their first.
    ///
    /// The walk stops after `budget` keys (at most [`SCAN_KEYS_MAX`]; those that have expired count, too), and the rest
    /// of a bucket, which is a handful.
    pub fn scan(
        &self,
        cursor: ScanCursor,
        budget: usize,
        now_us: i64,
        mut visit: impl FnMut(&[u8], Stored<'_>),
    ) -> Scanned {
        let first = self.slots().start;
        let from = cursor.max(ScanCursor::of_slot(first));
        let Ok(slot) = u16::try_from(from.slot() - u64::from(first)) else {
            return Scanned { next: None, looked_at: 0 };
        };
        let from = Position { slot, hash: from.0 as u32 };
        let (next, looked_at) = self.tables.scan(from, budget.min(SCAN_KEYS_MAX), |entry| {
            if let Some(stored) = live(entry, now_us) {
                visit(entry.key(), stored);
            }
        });
        let next = next.map(|next| ScanCursor(ScanCursor::of_slot(first + next.slot).0 | u64::from(next.hash)));
        Scanned { next, looked_at }
    }

    /// How many keys `slot` has, those included that have expired and are not yet removed. Counts nothing: it is known.
    ///
    /// # Panics
    /// When `slot` is not one of [`Shard::slots`].
    pub fn keys_in_slot(&self, slot: u16) -> usize {
        let keys = self.tables.keys_in_slot(slot);
        keys.unwrap_or_else(|| panic!("slot {slot} is not of shard {}", self.id.0))
    }

    /// Visits up to `count` keys of `slot` (at most [`SCAN_KEYS_MAX`]) that exist at `now_us`; none for a slot of
    /// another shard.
    pub fn keys_of_slot(&self, slot: u16, count: usize, now_us: i64, mut visit: impl FnMut(&[u8])) {
        let mut left = count.min(SCAN_KEYS_MAX);
        let mut hash = Some(0);
        let mut looked_at = 0;
        // Keys that have expired are passed over, but not without end.
        while let Some(from) = hash.filter(|_| left > 0 && looked_at < SCAN_KEYS_MAX) {
            hash = self.tables.scan_slot(slot, from, left, |entry| {
                looked_at += 1;
                if left > 0 && live(entry, now_us).is_some() {
                    left -= 1;
                    visit(entry.key());
                }
            });
        }
    }

    /// A key that exists at `now_us`, all about equally likely if `at` is any number. `None`: there is none, or nearly
    /// all keys have expired and wait for their removal.
    pub fn random_key(&self, at: u64, now_us: i64) -> Option<&[u8]> {
        let mut tries = (0..LIVE_TRIES).map_while(|n| self.tables.random(at.wrapping_add(mixed(n))));
        tries.find(|entry| live(entry, now_us).is_some()).map(Entry::key)
    }

    /// Visits up to `count` keys from a random place, which `at` chooses; with `expiring_only`, keys that have an
    /// expiry. A key may come twice. Fewer may come although there are more; then ask again with another `at`.
    pub fn sample(&self, at: u64, count: usize, expiring_only: bool, mut visit: impl FnMut(Candidate<'_>)) {
        let count = count.min(SCAN_KEYS_MAX);
        if !expiring_only {
            self.tables.sample(at, count, |entry| visit(Candidate::new(entry)));
            return;
        }
        // The wheel knows the keys that expire, be they all or one in a million.
        for n in 0..count as u64 {
            let Some((timer, place)) = self.wheel.pick(mixed(at.wrapping_add(n))) else { return };
            let is_it = |entry: &Entry| entry.expiry().is_some_and(|expiry| expiry.timer == timer);
            let entry = self.tables.find_by(place, is_it);
            visit(Candidate::new(entry.unwrap_or_else(|| unreachable!("timer {timer:?} outlived its key"))));
        }
    }
}

#[cfg(test)]
mod tests;
