//! Which segments are still needed, and what becomes of the others.
//!
//! Place in the flow: beside step 6. The writer names each segment that is full, recovery those that it found; the core
//! says up to where each shard is held by durable snapshots, and does what comes back: removes files, or has an old one
//! become the next. Pure.
//!
//! Invariants:
//! - A segment goes when every entry in it is one that its shard's snapshots have made superfluous, and only after all
//!   segments of its log before it: what is left of a log has no gaps, whenever the power fails.
//! - The last segment of a log stays until the first batch of the one behind it is durable: the numbers of segments,
//!   batches and starts go on from it.
//! - One segment is cut off at a time; the next one when it is known to be gone. After a failure nobody knows what a
//!   restart would find, so nothing more is cut until the next start, which looks.
//!
//! What is superfluous is also what is recycled: some such segments stay as they are, under their own names, until the
//! writer wants one ([`Retention::recycle_up_to`]). There is no other pool. Snapshots make segments superfluous many at
//! a time: to remove them all would mean to write zeros for as many before the next snapshots.
//!
//! Deliberately not here: snapshots, when they are made and which are kept; and files (segment.rs).

use std::collections::{BTreeMap, VecDeque};

use eyot_raft_glue::{Index, ShardId};

use super::{SegmentRequest, Sequence};

/// Superfluous segments of a log that stay at least, to be recycled: one for the segment that is wanted next and one
/// for when that comes soon.
pub const RECYCLABLE_SEGMENTS_MIN: usize = 2;

/// A segment that is not written to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSegment {
    /// The log that it belongs to.
    pub log_id: u16,
    /// Its number there.
    pub number: u64,
    /// Size of its file.
    pub bytes: u64,
    /// The sequence of its last batch.
    pub last_sequence: Sequence,
    /// The newest entry in it of each shard that has any, by shard.
    pub newest: Box<[(ShardId, Index)]>,
}

/// A segment whose file is to be removed, with [`super::segment::remove_segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Removal {
    /// The log: the core's own, or that of a core that is gone.
    pub log_id: u16,
    /// The segment's number.
    pub number: u64,
}

/// A segment whose file is to become another one, with [`super::segment::recycle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Recycling {
    /// The superfluous segment's number.
    pub old: u64,
    /// What is made of it.
    pub request: SegmentRequest,
}

/// The segments of the logs that one core looks after: its own, and those of cores that are gone.
#[derive(Debug)]
pub struct Retention {
    own_log: u16,
    /// By log, oldest first, without gaps; without the one that is being written.
    logs: BTreeMap<u16, VecDeque<KeptSegment>>,
    /// What is being cut off: the first segment of this log.
    cutting: Option<u16>,
    has_failed: bool,
    /// Size of the segments that the writer wants, but for one large entry.
    usual_bytes: u64,
    /// Superfluous segments of the own log that stay, of that size.
    recyclable_max: usize,
}

impl Retention {
    /// Of the core whose log is `own_log`, with segments of `usual_bytes`, and those that recovery found
    /// ([`Recovered::segments`](super::Recovered)).
    pub fn new(own_log: u16, usual_bytes: u64, recovered: &[KeptSegment]) -> Self {
        let mut retention = Self {
            own_log,
            logs: BTreeMap::new(),
            cutting: None,
            has_failed: false,
            recyclable_max: RECYCLABLE_SEGMENTS_MIN,
            usual_bytes,
        };
        recovered.iter().for_each(|segment| retention.keep(segment.clone()));
        retention
    }

    /// [`Self::recycle_up_to`] as many segments as take half of so much log.
    pub fn recycle_half_of(&mut self, bytes: u64) {
        self.recycle_up_to(usize::try_from(bytes / 2 / self.usual_bytes).unwrap_or(usize::MAX));
    }

    /// From now on so many superfluous segments of the own log stay, or [`RECYCLABLE_SEGMENTS_MIN`] if that is more.
    /// They are used up before the next snapshots are there, if they are no more than are wanted until then: so the log
    /// never holds more for them than it does at that time.
    pub fn recycle_up_to(&mut self, segments: usize) {
        self.recyclable_max = segments.max(RECYCLABLE_SEGMENTS_MIN);
    }

    /// The writer has left a segment.
    pub fn retired(&mut self, segment: KeptSegment) {
        assert_eq!(segment.log_id, self.own_log, "a core writes to its own log");
        self.keep(segment);
    }

    fn keep(&mut self, segment: KeptSegment) {
        let log = self.logs.entry(segment.log_id).or_default();
        let follows = log.back().is_none_or(|last| last.number + 1 == segment.number);
        assert!(follows, "segment {} of log {} out of order", segment.number, segment.log_id);
        log.push_back(segment);
    }

    /// A segment that should be removed now, if there is one. Until [`Self::removed`] or [`Self::failed`] there is no
    /// other.
    ///
    /// `durable`: the writer's. `needed_after`: up to which entry a shard's log is superfluous, because every snapshot
    /// that is kept of it is durable and goes on from there or further; index 0 for a shard without snapshots. It is
    /// asked of every shard that has entries in these logs, also of shards that other cores host now.
    pub fn next_removal(&mut self, durable: Sequence, needed_after: &dyn Fn(ShardId) -> Index) -> Option<Removal> {
        if self.is_blocked() {
            return None;
        }
        let log_id = *self.logs.keys().find(|log_id| {
            let mut superfluous = self.superfluous(**log_id, durable, needed_after).peekable();
            // One of another size stands in the way of those behind it: it is of no use.
            let is_usual = superfluous.peek().is_some_and(|oldest| oldest.bytes == self.usual_bytes);
            let kept = if **log_id == self.own_log && is_usual { self.recyclable_max } else { 0 };
            superfluous.nth(kept).is_some()
        })?;
        self.cutting = Some(log_id);
        Some(Removal { log_id, number: self.logs[&log_id].front()?.number })
    }

    /// The superfluous segment that can become the one that the writer wants; `None`: create it. Until
    /// [`Self::recycled`] or [`Self::failed`] nothing else is cut off. For the arguments see [`Self::next_removal`].
    pub fn next_recycling(
        &mut self,
        request: SegmentRequest,
        durable: Sequence,
        needed_after: &dyn Fn(ShardId) -> Index,
    ) -> Option<Recycling> {
        if self.is_blocked() {
            return None;
        }
        // One of another size has been given back in part, or was made for a large entry.
        let oldest = self.superfluous(self.own_log, durable, needed_after).next()?;
        let old = (oldest.bytes == request.bytes).then_some(oldest.number)?;
        self.cutting = Some(self.own_log);
        Some(Recycling { old, request })
    }

    /// The segments at the beginning of a log that nothing needs, oldest first.
    fn superfluous<'a>(
        &'a self,
        log_id: u16,
        durable: Sequence,
        needed_after: &'a dyn Fn(ShardId) -> Index,
    ) -> impl Iterator<Item = &'a KeptSegment> {
        let is_own = log_id == self.own_log;
        let log = self.logs.get(&log_id);
        let last = log.and_then(|log| log.back()).map_or(0, |last| last.number);
        // Of a log that nobody writes, the last segment is followed by none.
        let is_followed = move |segment: &KeptSegment| {
            if is_own {
                durable > segment.last_sequence
            } else {
                segment.number < last
            }
        };
        let is_covered =
            move |segment: &KeptSegment| segment.newest.iter().all(|&(shard, newest)| newest <= needed_after(shard));
        log.into_iter().flatten().take_while(move |segment| is_followed(segment) && is_covered(segment))
    }

    fn is_blocked(&self) -> bool {
        self.cutting.is_some() || self.has_failed
    }

    /// The file is removed, and its directory synced.
    ///
    /// # Panics
    /// When no such removal is under way.
    pub fn removed(&mut self, removal: Removal) {
        self.cut(removal.log_id, removal.number);
    }

    /// The file is another segment's now, and its directory synced.
    ///
    /// # Panics
    /// When no such recycling is under way.
    pub fn recycled(&mut self, recycling: Recycling) {
        self.cut(self.own_log, recycling.old);
    }

    fn cut(&mut self, log_id: u16, number: u64) {
        assert_eq!(self.cutting.take(), Some(log_id), "no segment of log {log_id} is being cut off");
        let gone = self.logs.get_mut(&log_id).and_then(VecDeque::pop_front);
        assert_eq!(gone.map(|segment| segment.number), Some(number), "log {log_id}");
    }

    /// A removal or recycling has failed, and the file may be there or not: nothing is cut until the next start. The
    /// log can be written nonetheless, into segments that are created.
    pub fn failed(&mut self) {
        self.cutting = None;
        self.has_failed = true;
    }

    /// Whether [`Self::failed`] was said: the log grows until the next start.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// How many segments there are, without the one that is being written.
    pub fn count(&self) -> usize {
        self.logs.values().map(VecDeque::len).sum()
    }

    /// Bytes of their files.
    pub fn bytes(&self) -> u64 {
        self.logs.values().flatten().map(|segment| segment.bytes).sum()
    }
}

#[cfg(test)]
mod tests;
