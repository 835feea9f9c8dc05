//! Requests that go through keys, a slice at a time: KEYS, and one call of SCAN.
//!
//! Place in the flow: step 5 (execute), behind `keyspace`, on the core that holds the keys. A SCAN is done at once
//! where one slice does; what takes longer waits in a queue, and each turn takes the first of it a slice further.
//!
//! Invariants:
//! - A slice is bounded by the keys that it looks at ([`SCAN_KEYS_MAX`]), by the steps of comparing them with the
//!   pattern ([`MATCH_STEPS_PER_SLICE`]), and by the bytes that it finds ([`FOUND_BYTES_PER_SLICE`]): some tenths of a
//!   millisecond, whatever the keys and the pattern are. One key may take many slices.
//! - What is found does not depend on the slices.
//! - What all walks have found is bounded ([`MAX_FOUND_BYTES`]) and counted, and goes to the reply without a copy.
//! - A walk ends when the connection that has asked is no more.
//!
//! Deliberately not here: what the parts of several cores become; see `outlet`.

use std::collections::VecDeque;

use eyot_protocol::key::SLOT_COUNT;
use eyot_protocol::resp::glob::Comparison;
use eyot_protocol::resp::{RespVersion, Writer};
use eyot_protocol::ErrorCode;

use super::keyspace::version_of;
use super::Work;
use crate::router::keyspace::OwnedScan;
use crate::router::scatter::FoundKeys;
use crate::router::{Reply, ReplySink, ReplyTo};
use crate::shard::{ScanCursor, Shard, Stored, SCAN_KEYS_MAX};

/// Walks that a core has under way; beyond it `BUSY`.
pub const MAX_WALKS: usize = 64;
/// Steps of comparing keys with patterns in a slice, and in all SCANs that a turn answers at once: some tenths of a
/// millisecond. An ordinary pattern takes a few steps for a key.
pub const MATCH_STEPS_PER_SLICE: usize = 256 * 1024;
/// Bytes of keys that a slice finds before it ends: what is copied in some tenths of a millisecond.
pub const FOUND_BYTES_PER_SLICE: usize = 1 << 20;
/// Bytes that all walks of a core have found. Beyond it `BUSY` for the one that grows; one alone may find what a reply
/// holds.
pub const MAX_FOUND_BYTES: usize = 128 << 20;
/// What is found is kept in chunks of about this size: none of them is copied to become longer.
const CHUNK_BYTES: usize = 256 * 1024;
/// Keys that are fetched at a time. When the steps are used up, the rest of them is kept for the next slice: at most
/// about 1 MiB.
const PORTION_KEYS: usize = 16;

/// The walks of a core.
#[derive(Debug)]
pub(super) struct Walks {
    queue: VecDeque<(ReplyTo, Walk)>,
    /// What is left of the steps of SCANs that are answered at once.
    steps_left: usize,
}

impl Default for Walks {
    fn default() -> Self {
        Self { queue: VecDeque::new(), steps_left: MATCH_STEPS_PER_SLICE }
    }
}

impl Walks {
    /// Gives the new turn its steps.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        self.steps_left = MATCH_STEPS_PER_SLICE;
    }

    /// Memory of what they have found, and of the keys that wait.
    pub(super) fn memory_bytes(&self) -> usize {
        self.queue.iter().map(|(_, walk)| walk.memory_bytes()).sum()
    }

    /// Whether none is under way.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// One walk: what is wanted, and how far it is.
#[derive(Debug)]
struct Walk {
    wanted: OwnedScan,
    /// Whether it goes to the end of the core's keys (KEYS), and not until it has looked at `keys_left` (SCAN).
    is_whole: bool,
    keys_left: usize,
    /// Where it goes on; `None`: behind the last slot.
    next: Option<ScanCursor>,
    /// Keys that were fetched and are not compared. The first may be compared in part.
    waiting: VecDeque<Box<[u8]>>,
    comparison: Comparison,
    found: FoundKeys,
}

impl Walk {
    fn new(wanted: OwnedScan, is_whole: bool, from: ScanCursor) -> Self {
        let keys_left = if is_whole { usize::MAX } else { wanted.count.clamp(1, SCAN_KEYS_MAX) };
        let (waiting, comparison, found) = (VecDeque::new(), Comparison::default(), FoundKeys::default());
        Self { wanted, is_whole, keys_left, next: Some(from), waiting, comparison, found }
    }

    /// Takes one slice, with `steps` of comparing; returns whether the walk is done. `shard_of` has the shard of a slot
    /// if it is this core's.
    fn go_on<'s>(&mut self, shard_of: impl Fn(u16) -> Option<&'s Shard>, now_us: i64, steps: &mut usize) -> bool {
        let found_max = self.found.bytes + FOUND_BYTES_PER_SLICE;
        let mut keys = SCAN_KEYS_MAX;
        self.compare_waiting(steps);
        loop {
            if !self.waiting.is_empty() {
                return false;
            }
            let shard = self.next.and_then(|next| shard_of(u16::try_from(next.slot()).ok()?));
            let (Some(cursor), Some(shard)) = (self.next, shard) else { return true };
            if self.keys_left == 0 {
                return true;
            }
            if self.found.bytes >= found_max {
                // What SCAN has found is a reply; the client goes on from there.
                return !self.is_whole;
            }
            if keys == 0 {
                return false;
            }
            let portion = PORTION_KEYS.min(keys).min(self.keys_left);
            let scanned = shard.scan(cursor, portion, now_us, |key, stored| self.visit(key, &stored, steps));
            // Keys that have expired are work, too, and there may be millions of them.
            let looked_at = scanned.looked_at.max(1);
            keys = keys.saturating_sub(looked_at);
            self.keys_left = self.keys_left.saturating_sub(looked_at);
            self.next = scanned.next.or_else(|| {
                let end = usize::from(shard.slots().end);
                (end < SLOT_COUNT).then(|| ScanCursor::of_slot(end as u16))
            });
        }
    }

    fn memory_bytes(&self) -> usize {
        self.found.bytes + self.waiting.iter().map(|key| key.len()).sum::<usize>()
    }

    fn visit(&mut self, key: &[u8], stored: &Stored<'_>, steps: &mut usize) {
        if !self.wanted.has_type(stored.head()) {
            return;
        }
        if !self.waiting.is_empty() {
            self.waiting.push_back(Box::from(key));
            return;
        }
        let mut comparison = Comparison::default();
        let fits = self.wanted.pattern.as_ref().map_or(Some(true), |pattern| comparison.go_on(pattern, key, steps));
        match fits {
            Some(true) => self.put(key),
            Some(false) => {}
            None => {
                self.comparison = comparison;
                self.waiting.push_back(Box::from(key));
            }
        }
    }

    /// Compares what an earlier slice has left, as far as `steps` suffice.
    fn compare_waiting(&mut self, steps: &mut usize) {
        let Some(pattern) = self.wanted.pattern.take() else { return };
        while let Some(key) = self.waiting.front() {
            let Some(fits) = self.comparison.go_on(&pattern, key, steps) else { break };
            let key = self.waiting.pop_front().expect("just seen");
            if fits {
                self.put(&key);
            }
            self.comparison = Comparison::default();
        }
        self.wanted.pattern = Some(pattern);
    }

    fn put(&mut self, key: &[u8]) {
        let FoundKeys { count, chunks, bytes } = &mut self.found;
        if chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            chunks.push(Vec::new());
        }
        let chunk = chunks.last_mut().expect("one was just pushed");
        let before = chunk.len();
        Writer { out: chunk, version: RespVersion::Two }.bulk(key);
        *count += 1;
        *bytes += chunk.len() - before;
    }

    /// The reply of a SCAN that is done.
    fn scan_reply(&self, version: RespVersion) -> Vec<u8> {
        let FoundKeys { count, chunks, bytes } = &self.found;
        let mut reply = Vec::with_capacity(bytes + 64);
        let mut writer = Writer { out: &mut reply, version };
        writer.array(2);
        writer.bulk_text(&self.next.map_or(0, |cursor| cursor.0).to_string());
        writer.array(*count);
        chunks.iter().for_each(|chunk| reply.extend_from_slice(chunk));
        reply
    }
}

impl Work {
    /// One call of SCAN, from `cursor` on, whose slot this core owns.
    pub(super) fn scan(&mut self, to: &ReplyTo, cursor: ScanCursor, wanted: &OwnedScan) {
        let mut steps = self.walks.steps_left;
        let mut walk = Walk::new(wanted.clone(), false, cursor);
        let done = self.slice(&mut walk, &mut steps);
        self.walks.steps_left = steps;
        if done {
            self.end_walk(to, walk);
        } else {
            self.queue_walk(to, walk);
        }
    }

    /// The part of a KEYS that this core has.
    pub(super) fn begin_walk(&mut self, to: &ReplyTo, wanted: &OwnedScan) {
        let cursor = ScanCursor::of_slot(self.shards[0].shard().slots().start);
        self.queue_walk(to, Walk::new(wanted.clone(), true, cursor));
    }

    fn queue_walk(&mut self, to: &ReplyTo, walk: Walk) {
        if self.walks.queue.len() < MAX_WALKS {
            self.walks.queue.push_back((*to, walk));
        } else {
            let message = "too many KEYS and SCANs under way; retry with backoff, or with a simpler pattern";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
        }
    }

    /// Takes the first of the walks under way a slice further.
    pub(super) fn walk(&mut self) {
        let Some((to, mut walk)) = self.walks.queue.pop_front() else { return };
        if walk.wanted.asker.strong_count() == 0 {
            // Nobody reads it; the gather that waits for it, here or on another core, ends with it.
            self.outlet().reply(&to, Reply::Error(ErrorCode::Busy, "the connection has ended"));
            return;
        }
        let done = self.slice(&mut walk, &mut { MATCH_STEPS_PER_SLICE });
        if walk.found.bytes > self.max_frame_bytes {
            let message = "more keys match than one reply holds; use SCAN";
            self.outlet().reply(&to, Reply::Error(ErrorCode::BatchTooLarge, message));
        } else if done {
            self.end_walk(&to, walk);
        } else if !self.walks.is_empty() && self.walks.memory_bytes() + walk.memory_bytes() > MAX_FOUND_BYTES {
            let message = "other KEYS have found much and are under way; use SCAN, or retry with backoff";
            self.outlet().reply(&to, Reply::Error(ErrorCode::Busy, message));
        } else {
            self.walks.queue.push_back((to, walk));
        }
    }

    fn slice(&mut self, walk: &mut Walk, steps: &mut usize) -> bool {
        let Self { core, shared, shards, clock, .. } = self;
        let shard_of = |slot: u16| {
            let route = (usize::from(slot) < SLOT_COUNT).then(|| shared.routes.of_slot(slot))?;
            (route.core == *core).then(|| shards[usize::from(route.local_shard)].shard())
        };
        walk.go_on(shard_of, clock.wall_us(), steps)
    }

    fn end_walk(&mut self, to: &ReplyTo, walk: Walk) {
        if walk.is_whole {
            self.outlet().keys_found(to, walk.found);
        } else {
            let reply = walk.scan_reply(version_of(to.form));
            self.outlet().reply_bytes(to, &reply, false);
        }
    }
}

#[cfg(test)]
mod tests;
