//! How a core snapshots its shards, and how that stays out of the requests' way.
//!
//! Place in the flow: beside step 8 (apply). A round takes the core's shards one after the other: the engine walks over
//! a shard in slices, what it yields is encoded here, and the snapshot thread writes it. When a shard's snapshot is
//! durable the log gives up what only older ones needed.
//!
//! ```text
//!   asked for, or enough log, or time ─► round: shard 0 ─► shard 1 ─► ... ─► done
//!                                         │ begin at the applied index
//!                                         ▼
//!            slice ─► encoder ─► buffer ─► thread ─► file ... footer ─► log durable? ─► published ─► log cut
//! ```
//!
//! Invariants:
//! - A slice is some hundred microseconds. It comes when the core would sleep otherwise, and takes a quarter of its
//!   time at most while it has requests all the time, unless the log or what is overwritten outgrows it ([`Pace`]).
//! - A snapshot is published only when the log has made durable all that is in it: it never knows more than the log.
//! - A snapshot that fails is told and tried again later; nothing else ends by it.
//!
//! Deliberately not here: when a round begins, what the bytes mean, which entries they are of, and the files.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use eyot_protocol::limits::MAX_SNAPSHOT_READ_BYTES;
use eyot_protocol::snapshot::ShardHeader;
use eyot_raft_glue::{Index, ShardId};
use eyot_ring::Waker;

use super::snapshot_encoder::{SnapshotEncoder, BUFFER_BYTES, BUFFER_ROOM_BYTES};
use super::snapshot_rounds::{Pace, Round};
use super::snapshot_thread::{self, Done, Job, ReadRequest, SnapshotPlan, SnapshotThread, BUFFERS_MAX, READS_MAX};
use super::Work;
use crate::error::{Stop, StopReason};
use crate::router::ReplyTo;
use crate::shard::SnapshotStep;
use crate::snapshot::{Kept, KeptSnapshots, Published, ShardSnapshot, SnapshotError, Space};
use crate::snapshot::{BUSY_WRITE_BYTES, WRITE_BYTES};
use crate::wal::Sequence;

/// So long without requests, and a snapshot's writes may be long.
const QUIET_AFTER: Duration = Duration::from_millis(10);
/// Beyond this part of the core's data, what is kept for a snapshot makes the snapshot hurry, and beyond twice as much
/// where memory is short ends it: a snapshot takes a twentieth of the data at most.
const KEPT_SHARE: usize = 40;
/// Below it, it never does.
const KEPT_BYTES_MIN: usize = 1 << 20;

/// A shard that is being snapshotted.
struct Current {
    local_shard: u16,
    shard: ShardId,
    index: Index,
    /// Behind which index the log is needed with this snapshot: its own, unless a large value was on its way.
    needed_after: Index,
    /// The batch of the log that has to be durable before this is published.
    covered: Sequence,
    encoder: SnapshotEncoder,
    stage: Stage,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The engine walks.
    Walking,
    /// Its pages are on their way into memory.
    Touching,
    /// Everything is encoded; the log is waited for.
    Encoded,
    /// The thread makes it durable.
    Publishing,
}

/// The snapshots of one core.
pub(super) struct Snapshots {
    plan: SnapshotPlan,
    thread: SnapshotThread,
    pub(super) round: Option<Round>,
    current: Option<Current>,
    /// Buffers that are with the thread.
    buffers_out: usize,
    /// Their memory.
    bytes_out: usize,
    /// Snapshots that were given up, of which the thread does not know yet.
    discards_out: usize,
    /// Buffers that came back, to be filled again.
    pub(super) spare_buffers: Vec<Vec<u8>>,
    /// Clients that wait for parts of published ones, in the order in which the thread reads.
    readers: VecDeque<ReplyTo>,
    /// What they are read into, while there are any.
    read_buffers: Vec<Vec<u8>>,
    next_slice_at: Instant,
    /// When a turn had requests, or completions of their writes.
    busy_at: Instant,
    /// The newest request of which a round was made.
    pub(super) seen_request: u64,
    /// The core's log, in bytes ever written, when the last round began.
    pub(super) log_bytes_then: u64,
    /// What the start has read of it, until the first round.
    pub(super) recovered_bytes: u64,
    pub(super) last_round_at: Instant,
    pub(super) retry_at: Option<Instant>,
    /// By local shard.
    kept: Vec<KeptSnapshots>,
    /// Who waits for snapshots, with the request's number: one for each connection at most.
    waiting: Vec<(u64, ReplyTo)>,
    /// Rounds that had ended when they were looked at.
    seen_ended: u64,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Snapshots")
            .field("plan", &self.plan)
            .field("round", &self.round)
            .finish_non_exhaustive()
    }
}

impl Snapshots {
    /// No snapshot yet. Starts the thread.
    ///
    /// # Errors
    /// [`StopReason::Processors`]: the system has no thread left.
    pub fn start(plan: SnapshotPlan, core: u16, kept: Vec<KeptSnapshots>, waker: Waker) -> Result<Self, Stop> {
        let thread = snapshot_thread::start(core, &plan, waker).map_err(|error| {
            let problem = format!("the thread that writes snapshots: {error}");
            let remedy = "raise the limit of threads (ulimit -u, or the container's pids limit)";
            Stop::new(StopReason::Processors, problem, remedy)
        })?;
        let now = Instant::now();
        Ok(Self {
            thread,
            round: None,
            current: None,
            buffers_out: 0,
            bytes_out: 0,
            discards_out: 0,
            spare_buffers: Vec::new(),
            readers: VecDeque::new(),
            read_buffers: Vec::new(),
            next_slice_at: now,
            busy_at: now,
            seen_request: 0,
            log_bytes_then: 0,
            recovered_bytes: plan.recovered_bytes,
            last_round_at: now,
            retry_at: None,
            kept,
            waiting: Vec::new(),
            seen_ended: 0,
            plan,
        })
    }

    /// Whether the thread has something to tell: also to be asked between the announcement of a sleep and the sleep.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.thread.has_news()
    }

    /// Whether a slice could be done, when it is its time.
    fn may_walk(&self) -> bool {
        self.may_fill() && self.current.as_ref().is_some_and(|current| current.stage == Stage::Walking)
    }

    /// Whether one more buffer may be on its way: of those that large values make longer there are fewer.
    fn may_fill(&self) -> bool {
        self.buffers_out < BUFFERS_MAX && self.bytes_out < BUFFERS_MAX * BUFFER_ROOM_BYTES
    }

    /// A buffer to be filled.
    fn empty_buffer(&mut self) -> Vec<u8> {
        self.spare_buffers.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_ROOM_BYTES))
    }

    /// Whether the core should not sleep: in the time for which it would, the snapshot goes on.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.has_news() || self.may_walk()
    }

    /// When the core must look again even if nothing happens. `is_stopping`: no round begins any more.
    pub fn next_deadline(&self, is_stopping: bool) -> Option<Instant> {
        if self.round.is_some() {
            return None;
        }
        if is_stopping || self.discards_out > 0 {
            return None;
        }
        self.retry_at.or(self.plan.interval.map(|interval| self.last_round_at + interval))
    }

    /// Memory of buffers.
    pub fn memory_bytes(&self) -> usize {
        let spare: usize = self.spare_buffers.iter().map(Vec::capacity).sum();
        let current = self.current.as_ref().map_or(0, |current| current.encoder.memory_bytes());
        let read: usize = self.read_buffers.iter().map(Vec::capacity).sum();
        spare + current + self.bytes_out + read + self.readers.len() * MAX_SNAPSHOT_READ_BYTES
    }

    /// Has the thread throw the present file away. Until it says that it has, nothing begins: so no answer that comes
    /// later is about what was given up, and what is under way stays bounded.
    fn discard(&mut self) {
        self.discards_out += 1;
        self.thread.begin(Job::Discard);
    }

    /// Reads from a published snapshot for `to`. `false`: too many read.
    pub fn read(&mut self, to: ReplyTo, request: ReadRequest) -> bool {
        let may = self.readers.len() < READS_MAX;
        if may {
            self.readers.push_back(to);
            let mut buffer = self.read_buffers.pop().unwrap_or_default();
            buffer.reserve_exact(request.length.saturating_sub(buffer.len()));
            self.thread.begin(Job::Read(request, buffer));
        }
        may
    }

    /// Has `to` told when the request of this number is done.
    pub fn wait_for(&mut self, number: u64, to: ReplyTo) {
        self.waiting.push((number, to));
    }

    /// Those who wait.
    pub fn take_waiting(&mut self) -> Vec<(u64, ReplyTo)> {
        std::mem::take(&mut self.waiting)
    }
}

impl Work {
    /// Moves the core's snapshots on. `is_idle`: the turn had no requests.
    pub(super) fn snapshot_slice(&mut self, is_idle: bool) {
        while let Some(done) = self.snapshots.thread.take() {
            let is_read = matches!(done, Done::Read(..));
            self.snapshot_done(done);
            // One part a turn: requests come between.
            if is_read {
                break;
            }
        }
        if self.snapshots.round.is_none() && !self.shared.is_stopping() && self.snapshots.discards_out == 0 {
            self.begin_round();
        }
        if self.snapshots.current.is_none() && self.snapshots.round.is_some() && self.snapshots.discards_out == 0 {
            self.begin_next_shard();
        }
        if self.snapshots.current.is_some() {
            self.go_on_with_snapshot(is_idle);
        }
        let ended = self.shared.snapshots.ended_count();
        if !self.snapshots.waiting.is_empty() && (ended != self.snapshots.seen_ended || self.shared.is_stopping()) {
            self.snapshots.seen_ended = ended;
            self.answer_saves(self.shared.is_stopping());
        }
    }

    /// A slice of the snapshot that is under way, if it is its time.
    fn go_on_with_snapshot(&mut self, is_idle: bool) {
        let now = Instant::now();
        if !is_idle {
            self.snapshots.busy_at = now;
        }
        let is_quiet = now - self.snapshots.busy_at >= QUIET_AFTER;
        let held = self.snapshot_holds();
        let hurries = held >= 1;
        // In a hurry it is over soon, mostly before it has taken twice as much.
        if held >= 2 && self.memory.is_high() {
            let failure = "memory is short, and what is overwritten meanwhile is kept until it is saved";
            tracing::warn!(core = self.core, "snapshot given up: {failure}; it will be tried again");
            self.fail_snapshot(failure.to_owned());
        }
        let pace = if hurries { Pace::HURRIED } else { self.snapshot_pace() };
        if self.snapshots.may_walk() && (is_idle || pace.hurries() || now >= self.snapshots.next_slice_at) {
            let piece_bytes = if is_quiet || pace.hurries() { WRITE_BYTES } else { BUSY_WRITE_BYTES };
            self.walk_snapshot(now, pace.slice_max, piece_bytes);
            let took = now.elapsed();
            self.snapshots.next_slice_at = now + took * (1 + pace.pause_share);
        }
        self.publish_snapshot();
    }

    /// How many times its share what was overwritten since the snapshot began, and is kept for it, has grown to.
    fn snapshot_holds(&self) -> usize {
        let Some(current) = &self.snapshots.current else { return 0 };
        let kept_bytes = self.shards[usize::from(current.local_shard)].shard().snapshot_memory_bytes();
        kept_bytes / KEPT_BYTES_MIN.max(self.data_bytes() / KEPT_SHARE)
    }

    /// Gives the snapshot that is under way up, and the round with it: the other shards would meet the same.
    fn fail_snapshot(&mut self, failure: String) {
        let Some(current) = self.snapshots.current.take() else { return };
        self.shards[usize::from(current.local_shard)].abort_snapshot();
        self.has_graves = true;
        self.snapshots.discard();
        let round = self.snapshots.round.as_mut().expect("a round is under way");
        round.failure = Some(failure);
        round.queue.clear();
    }

    /// The snapshot that is under way cannot be written.
    fn snapshot_refused(&mut self, error: &SnapshotError) {
        // Or it was given up meanwhile: the next one does not begin before the thread knows.
        let Some(current) = &self.snapshots.current else { return };
        let (core, shard) = (self.core, current.shard.0);
        tracing::error!(%error, core, shard, "snapshot failed: the log and the older ones are untouched");
        self.fail_snapshot(error.to_string());
    }

    /// Whether somebody has asked for snapshots since the last round began, or waits for one that is over: also to be
    /// asked between the announcement of a sleep and the sleep.
    #[inline]
    pub(super) fn snapshot_was_asked_for(&self) -> bool {
        let (board, snapshots) = (&self.shared.snapshots, &self.snapshots);
        let is_told = !snapshots.waiting.is_empty() && board.ended_count() != snapshots.seen_ended;
        let is_asked = snapshots.round.is_none() && board.requested() != snapshots.seen_request;
        is_told || (is_asked && snapshots.discards_out == 0 && !self.shared.is_stopping())
    }

    fn begin_next_shard(&mut self) {
        let Snapshots { round: Some(round), kept, .. } = &mut self.snapshots else {
            unreachable!("a round is under way")
        };
        // A shard that has not changed has its snapshot already. Another one of the same index would take the place of
        // that, and then of the one that is kept in case it decays.
        let shards = &self.shards;
        let is_new = |&local: &u16| {
            let place = usize::from(local);
            kept[place].newest() != Some(shards[place].applied())
        };
        let Some(local_shard) = std::iter::from_fn(|| round.queue.pop_front()).find(is_new) else {
            return self.end_round();
        };
        let driver = &mut self.shards[usize::from(local_shard)];
        let (shard, (position, needed_after)) = (driver.shard().id(), driver.begin_snapshot());
        // What is applied is on disk, if replies wait for that; otherwise it is on its way.
        let sync_writes = self.shared.settings.sync_writes;
        let covered = if sync_writes { self.log.durable() } else { self.log.last_appended() };
        let SnapshotPlan { node_uuid, shard_count, .. } = self.snapshots.plan;
        let header = ShardHeader {
            node_uuid,
            shard: shard.0,
            shard_count,
            index: position.index.0,
            term: position.term.0,
            needed_after: needed_after.0,
        };
        let encoder = SnapshotEncoder::new(header, self.snapshots.empty_buffer());
        let space = Space {
            stream_bytes: driver.shard().entry_bytes() as u64,
            // What the log needs before the older snapshot is gone: the segment that is ready and the one after it.
            spared_bytes: 2 * self.shared.settings.segment_bytes,
        };
        self.snapshots.thread.begin(Job::Begin(shard, position.index, space));
        self.snapshots.current = Some(Current {
            local_shard,
            shard,
            index: position.index,
            needed_after,
            covered,
            encoder,
            stage: Stage::Walking,
        });
    }

    /// Encodes what there is time for. It is written in pieces of `piece_bytes`.
    fn walk_snapshot(&mut self, started: Instant, slice_max: Duration, piece_bytes: usize) {
        loop {
            let current = self.snapshots.current.as_mut().expect("a snapshot is under way");
            if let Some((value, range)) = current.encoder.missing_pages() {
                current.stage = Stage::Touching;
                self.snapshots.thread.begin(Job::Touch(value, range));
                return;
            }
            let driver = &mut self.shards[usize::from(current.local_shard)];
            let is_encoded = current.encoder.step(driver) == SnapshotStep::Done;
            if is_encoded {
                current.stage = Stage::Encoded;
                self.has_graves = true;
            }
            if current.encoder.is_full() || is_encoded {
                let next = self.snapshots.empty_buffer();
                let current = self.snapshots.current.as_mut().expect("just seen");
                let full = current.encoder.take(next);
                self.snapshots.buffers_out += 1;
                self.snapshots.bytes_out += full.capacity();
                self.snapshots.thread.begin(Job::Append(full, piece_bytes));
                self.tell_progress();
            }
            if is_encoded || !self.snapshots.may_fill() || started.elapsed() >= slice_max {
                return;
            }
        }
    }

    fn tell_progress(&mut self) {
        let (Some(round), Some(current)) = (&self.snapshots.round, &self.snapshots.current) else { return };
        let (entries, bytes) = (current.encoder.entries(), current.encoder.stream_bytes());
        self.shared.snapshots.of(self.core).progressed(round.entries + entries, round.bytes + bytes);
    }

    /// Has the thread publish what is encoded and written, once the log has made durable what is in it.
    fn publish_snapshot(&mut self) {
        let Snapshots { current: Some(current), kept, thread, buffers_out: 0, .. } = &mut self.snapshots else {
            return;
        };
        if current.stage == Stage::Encoded && self.log.durable() >= current.covered {
            current.stage = Stage::Publishing;
            thread.begin(Job::Publish(kept[usize::from(current.local_shard)].beside(current.index)));
        }
    }

    fn snapshot_done(&mut self, done: Done) {
        let snapshots = &mut self.snapshots;
        match done {
            Done::Begun(Ok(())) => {}
            Done::Begun(Err(error)) => self.snapshot_refused(&error),
            Done::Appended(mut buffer, appended) => {
                snapshots.buffers_out -= 1;
                snapshots.bytes_out -= buffer.capacity();
                buffer.clear();
                // A part of a large value may have made it longer than the others.
                if snapshots.round.is_some() && buffer.capacity() <= 4 * BUFFER_BYTES {
                    snapshots.spare_buffers.push(buffer);
                }
                if let Err(error) = appended {
                    self.snapshot_refused(&error);
                }
            }
            Done::Touched => {
                // Or it was given up meanwhile.
                let Some(current) = snapshots.current.as_mut().filter(|current| current.stage == Stage::Touching)
                else {
                    return;
                };
                current.stage = Stage::Walking;
                current.encoder.touched();
            }
            Done::Published(outcome) => self.published(outcome),
            Done::Discarded => snapshots.discards_out -= 1,
            Done::Read(buffer, outcome) => {
                let to = snapshots.readers.pop_front().expect("the thread answers in order");
                self.snapshot_read(&to, &buffer, outcome);
                let Snapshots { readers, read_buffers, .. } = &mut self.snapshots;
                read_buffers.push(buffer);
                if readers.is_empty() {
                    *read_buffers = Vec::new();
                }
            }
        }
    }

    fn published(&mut self, outcome: Result<Published, SnapshotError>) {
        // Or it was given up meanwhile.
        let Some(current) = self.snapshots.current.take() else { return };
        let round = self.snapshots.round.as_mut().expect("a round is under way");
        let (core, shard) = (self.core, current.shard);
        match outcome {
            Ok(Published { index, bytes }) => {
                let entries = current.encoder.entries();
                round.entries += entries;
                round.bytes += bytes;
                self.shared.snapshots.of(core).published(ShardSnapshot { shard, index, bytes, entries });
                let kept = &mut self.snapshots.kept[usize::from(current.local_shard)];
                kept.publish(Kept { index, needed_after: current.needed_after });
                if let Some(needed_after) = kept.needed_after() {
                    self.shared.snapshots.set_needed_after(shard, needed_after);
                }
                self.log.note_snapshot();
                tracing::debug!(core, shard = shard.0, index = index.0, bytes, "snapshot published");
            }
            Err(error) => {
                let shard = shard.0;
                tracing::error!(%error, core, shard, "snapshot failed: the log and the older ones are untouched");
                round.failure = Some(error.to_string());
                // The others would meet the same.
                round.queue.clear();
            }
        }
    }

    /// Gives up what is under way: the node stops.
    pub(super) fn abort_snapshots(&mut self) {
        self.answer_saves(true);
        self.snapshots.round = None;
        let Some(current) = self.snapshots.current.take() else { return };
        self.shards[usize::from(current.local_shard)].abort_snapshot();
        self.snapshots.discard();
    }
}
