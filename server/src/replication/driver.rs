//! The driver of one shard.
//!
//! Place in the flow: see the module's head.
//!
//! ```text
//!   write ─► open entry ─ seal ─► write-ahead log
//!                │                    │ persisted
//!                ▼                    ▼
//!            waiters of it ──► pending entries ─ committed ─► apply ─► replies, waiting reads
//! ```

mod applying;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use eyot_protocol::command::{Command, Condition, EntryBuilder};
use eyot_protocol::key::slot;
use eyot_protocol::request::KeyQuery;
use eyot_protocol::response::SetOutcome;
use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_raft_glue::{EntryPosition, Index, ShardLog, Standalone, Version};

use super::answers::{answer_read, is_heavy, reply_of};
use super::cost::{depends, Cost, MAX_ENTRY_TOUCHED_BYTES};
use super::foreseen::UnappliedMemory;
use super::unapplied::{UnappliedKeys, NO_BUCKET};
use crate::router::{Asked, Reply, ReplySink, ReplyTo};
use crate::shard::access::Tracking;
use crate::shard::{Outcome, Place, Shard, SnapshotStep, Stored, WholeValue};
use crate::wal::OpenUploads;

/// Bytes at which an open entry is sealed before the turn ends: bounds what one record of the log has to hold beside a
/// single larger command, and what is copied at once.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;
/// Payload buffers kept for reuse, a few turns' worth.
const SPARE_PAYLOADS_MAX: usize = 8;
/// A payload buffer larger than this is given back to the allocator.
const SPARE_PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAck {
    /// When its entry is in the log's memory.
    Memory,
    /// When its entry was applied.
    Applied,
}

/// A read of one key.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// The key's place in the table.
    pub place: Place,
    /// The key.
    pub key: &'a [u8],
    /// What is asked.
    pub query: KeyQuery,
    /// Whether its connection has writes that are not answered: any of them may be among what this shard has not
    /// applied.
    pub after_own_writes: bool,
}

/// An entry for the write-ahead log.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// Its place in the shard's log.
    pub position: EntryPosition,
    /// Its commands.
    pub payload: &'a [u8],
}

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadProgress {
    /// It was answered.
    Answered,
    /// It waits for an entry.
    Waits,
    /// It has to see writes of the open entry, and none that come after it: seal, then read again.
    SealFirst,
}

/// A write that waits for its entry; `reply_to` is `None` where nobody does (a sweep's delete, or answered already).
#[derive(Debug)]
struct Waiter {
    reply_to: Option<ReplyTo>,
    /// Its keys' buckets among the [`UnappliedKeys`], or [`NO_BUCKET`]: a sweep's delete has none, which no read waits
    /// for, and most commands have one key.
    buckets: [u16; 2],
    ack: WriteAck,
    /// A SET without a condition: its outcome is known before it is applied.
    unconditional: bool,
}

impl Waiter {
    /// Of a logged removal.
    const NOBODY: Self = Self { reply_to: None, buckets: [NO_BUCKET; 2], ack: WriteAck::Applied, unconditional: false };
}

#[derive(Debug)]
struct PendingEntry {
    index: Index,
    /// Its commands; empty for a part of a large value, which changes nothing when it is applied.
    payload: Vec<u8>,
    /// The places of its commands' keys, in order.
    places: Vec<Place>,
    waiters: Vec<Waiter>,
    /// What its replies will have of the values that it finds.
    returned_bytes: usize,
}

#[derive(Debug)]
struct WaitingRead {
    until: Index,
    query: KeyQuery,
    place: Place,
    key: Box<[u8]>,
    reply_to: ReplyTo,
}

/// One shard, its log, and who waits for what.
pub struct ShardDriver {
    shard: Shard,
    log: Standalone,
    open: EntryBuilder,
    open_places: Vec<Place>,
    open_waiters: Vec<Waiter>,
    /// What the open entry's commands will touch and return: see [`Cost`].
    open_touched_bytes: usize,
    open_returned_bytes: usize,
    /// Sealed and not applied, in the order of their indexes.
    pending: VecDeque<PendingEntry>,
    /// In the order of `until`. Bounded by the requests in flight of the connections.
    waiting_reads: VecDeque<WaitingRead>,
    unapplied: UnappliedKeys,
    /// Large values of which the log has parts, and not yet their command.
    open_uploads: OpenUploads,
    /// The newest entry with a write that was answered from memory; reads of its keys wait for it.
    answered_from_memory: Index,
    spare_payloads: Vec<Vec<u8>>,
    /// What the unapplied commands will do to memory.
    memory: UnappliedMemory,
    /// Memory of the pending entries' payloads and waiters, and of waiting reads.
    pending_bytes: usize,
    waiting_read_bytes: usize,
    /// What the writes of the pending entries will return.
    returned_bytes: usize,
}

impl std::fmt::Debug for ShardDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ShardDriver")
            .field("shard", &self.shard.id())
            .field("log", &self.log)
            .field("pending", &self.pending.len())
            .field("waiting_reads", &self.waiting_reads.len())
            .finish_non_exhaustive()
    }
}

impl ShardDriver {
    /// A driver for a shard whose log was recovered up to `last`.
    pub fn new(shard: Shard, last: EntryPosition) -> Self {
        Self {
            shard,
            log: Standalone::recovered(last),
            open: EntryBuilder::default(),
            open_places: Vec::new(),
            open_waiters: Vec::new(),
            open_touched_bytes: 0,
            open_returned_bytes: 0,
            pending: VecDeque::new(),
            waiting_reads: VecDeque::new(),
            unapplied: UnappliedKeys::new(),
            open_uploads: OpenUploads::default(),
            answered_from_memory: Index(0),
            spare_payloads: Vec::new(),
            memory: UnappliedMemory::default(),
            pending_bytes: 0,
            waiting_read_bytes: 0,
            returned_bytes: 0,
        }
    }

    /// The engine, to read from.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Frees about `budget` keys of what was cleared; whether any are left.
    #[inline]
    pub fn free_some(&mut self, budget: usize) -> bool {
        self.shard.free_some(budget)
    }

    /// Begins a snapshot of the shard as it is: at the entry that was applied last. Returns its position, and behind
    /// which entry the log is needed beside the snapshot.
    ///
    /// # Panics
    /// When one is under way.
    pub fn begin_snapshot(&mut self) -> (EntryPosition, Index) {
        let position = EntryPosition { term: self.log.term(), index: self.log.last_applied() };
        self.shard.begin_snapshot(position.index);
        (position, self.open_uploads.needed_after(position.index))
    }

    /// The newest entry that was applied.
    pub fn applied(&self) -> Index {
        self.log.last_applied()
    }

    /// See [`Shard::snapshot_some`].
    pub fn snapshot_some(
        &mut self,
        budget: usize,
        sink: impl FnMut(u16, &[u8], Stored<'_>) -> ControlFlow<()>,
    ) -> SnapshotStep {
        self.shard.snapshot_some(budget, sink)
    }

    /// Gives a snapshot up, if one is under way.
    pub fn abort_snapshot(&mut self) {
        self.shard.abort_snapshot();
    }

    /// Has the engine remember what `tracking` says of each key's use.
    pub fn set_tracking(&mut self, tracking: Tracking) {
        self.shard.set_tracking(tracking);
    }

    /// What the commands that are not applied will do to memory, and what was evicted and had expired.
    #[inline]
    pub fn unapplied_memory(&self) -> &UnappliedMemory {
        &self.memory
    }

    /// Memory of entries on their way to the disk: their bytes and who waits for them.
    pub fn log_bytes(&self) -> usize {
        let open = self.open.payload_bytes()
            + self.open_places.capacity() * size_of::<Place>()
            + self.open_waiters.capacity() * size_of::<Waiter>();
        let spare: usize = self.spare_payloads.iter().map(Vec::capacity).sum();
        open + spare + self.pending_bytes + self.memory.memory_bytes()
    }

    /// Gives buffers that are only kept for reuse back to the allocator.
    pub fn drop_spares(&mut self) {
        self.spare_payloads = Vec::new();
    }

    /// Memory of reads that wait.
    pub fn waiting_read_bytes(&self) -> usize {
        self.waiting_reads.capacity() * size_of::<WaitingRead>() + self.waiting_read_bytes
    }

    /// Memory that a driver has from its start.
    pub fn fixed_bytes(&self) -> usize {
        self.unapplied.memory_bytes()
    }

    /// What `command` will take; `place` is that of its first key.
    #[inline]
    pub fn cost_of(&self, command: &Command<'_>, place: Place) -> Cost {
        match command.key() {
            Some(key) if depends(command) => {
                let found = self.shard.value_bytes(place, key);
                Cost::found(command, self.unapplied.length(place, found, self.log.last_applied()))
            }
            _ => Cost::said(command),
        }
    }

    /// What the writes that are not applied will return, in bytes.
    pub fn returned_bytes(&self) -> usize {
        self.returned_bytes + self.open_returned_bytes
    }

    /// Whether commands wait to be sealed.
    pub fn has_open_entry(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the open entry should be sealed before more is added.
    pub fn open_entry_is_full(&self) -> bool {
        self.open.is_full() || self.open.payload_bytes() >= MAX_ENTRY_BYTES || self.open_entry_is_heavy()
    }

    /// Whether applying the open entry touches as much as one should.
    pub fn open_entry_is_heavy(&self) -> bool {
        self.open_touched_bytes >= MAX_ENTRY_TOUCHED_BYTES
    }

    /// Bytes of the entry that is not sealed yet.
    pub fn open_bytes(&self) -> usize {
        self.open.payload_bytes()
    }

    /// The newest entry that was sealed.
    pub fn last_index(&self) -> Index {
        self.log.last()
    }

    /// How many writes and reads wait.
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.open_waiters.len() + self.waiting_reads.len()
    }

    /// Asks the processor to fetch what a write to the key at `place` will need soon. Changes nothing.
    #[inline]
    pub fn prefetch_write(&self, place: Place) {
        self.unapplied.prefetch(place);
    }

    /// Adds a write to the open entry, of which [`ShardDriver::cost_of`] has told the `cost`. `now_us` is the wall
    /// clock, by which expiry is decided.
    pub fn write(
        &mut self,
        command: &Command<'_>,
        (place, cost): (Place, &Cost),
        now_us: i64,
        ack: WriteAck,
        reply_to: ReplyTo,
    ) {
        if self.open.is_empty() && self.open.payload_bytes() == 0 {
            if let Some(spare) = self.spare_payloads.pop() {
                self.open = EntryBuilder::with_buffer(spare);
            }
        }
        let unconditional = matches!(command, Command::Set { condition: Condition::Always, return_old: false, .. });
        let entry = self.log.last().next();
        let mut buckets = [self.unapplied.add(place, entry, cost.stored, cost.appended), NO_BUCKET];
        if is_wide(command) {
            buckets[1] = self.wrote_wide(command, (place, cost), entry);
        } else {
            self.open_places.push(place);
        }
        self.open_touched_bytes += cost.touched;
        self.open_returned_bytes += cost.returned;
        self.memory.wrote(cost.growth as u64);
        self.open.push(command, now_us);
        self.open_waiters.push(Waiter { reply_to: Some(reply_to), buckets, ack, unconditional });
    }

    /// Notes a command on more keys than its first in `entry`; returns the bucket of the second one, where it counts.
    #[cold]
    fn wrote_wide(&mut self, command: &Command<'_>, (place, cost): (Place, &Cost), entry: Index) -> u16 {
        let Self { shard, open_places, .. } = self;
        match command {
            Command::Rename { to, .. } | Command::Copy { to, .. } => {
                let leaves = matches!(command, Command::Rename { .. });
                let second = shard.place(slot(to), to);
                open_places.extend([place, second]);
                return self.unapplied.add_second(second, entry, cost.moved, leaves);
            }
            Command::SetAllIfAbsent { pairs } => {
                open_places.extend(pairs.iter().map(|(key, _)| shard.place(slot(key), key)));
            }
            _ => {}
        }
        self.unapplied.add_several(entry, cost.growth, self.log.last_applied());
        NO_BUCKET
    }

    /// Answers a read: at once, or when the writes that it has to see are applied. It waits only for writes of its own
    /// key.
    #[inline]
    pub fn read(
        &mut self,
        read: &Read<'_>,
        now_us: i64,
        reply_to: &ReplyTo,
        replies: &mut impl ReplySink,
    ) -> ReadProgress {
        let applied = self.log.last_applied();
        if read.after_own_writes || self.answered_from_memory > applied {
            if let Some(newest) = self.unapplied.newest(read.place, applied) {
                let until = if read.after_own_writes { newest } else { newest.min(self.answered_from_memory) };
                if until > self.log.last() {
                    return ReadProgress::SealFirst;
                }
                if until > applied {
                    self.wait(read, until, reply_to);
                    return ReadProgress::Waits;
                }
            }
        }
        answer_read(&self.shard, read, now_us, reply_to, replies);
        ReadProgress::Answered
    }

    fn wait(&mut self, read: &Read<'_>, until: Index, reply_to: &ReplyTo) {
        self.waiting_read_bytes += read.key.len();
        let waiting =
            WaitingRead { until, query: read.query, place: read.place, key: Box::from(read.key), reply_to: *reply_to };
        // Nearly always at the end: what comes later waits for what is newer.
        let at = self.waiting_reads.iter().rposition(|other| other.until <= until).map_or(0, |before| before + 1);
        self.waiting_reads.insert(at, waiting);
    }

    /// Adds deletes of keys whose time has come, at most `budget`, to the open entry.
    pub fn sweep(&mut self, now_us: i64, budget: usize) -> usize {
        let Self { shard, open, open_places, open_waiters, .. } = self;
        shard.sweep(now_us, budget, |place, key, version| {
            if !open.is_full() {
                open.push(&Command::Expire { key, version: version.0 }, now_us);
                open_places.push(place);
                open_waiters.push(Waiter::NOBODY);
            }
        })
    }

    /// Adds the removal of the key at `place` to the open entry, if it still has `version`. Returns how many bytes that
    /// will free; `None`, and nothing is added, if the key is gone, is being evicted already, or there is no room.
    pub fn evict(&mut self, place: Place, version: Version, now_us: i64) -> Option<usize> {
        let Self { shard, log, open, open_places, open_waiters, memory, .. } = self;
        if open.is_full() || !memory.may_evict(version) {
            return None;
        }
        let victim = shard.eviction_candidate(place, version)?;
        let at = Version::new(log.last().next(), open_waiters.len() as u16);
        open.push(&Command::Expire { key: victim.key, version: version.0 }, now_us);
        open_places.push(place);
        open_waiters.push(Waiter::NOBODY);
        memory.evicts(at, version, victim.bytes);
        Some(victim.bytes)
    }

    /// Closes the open entry and hands it to `log`; answers what may be answered from memory.
    pub fn seal(&mut self, replies: &mut impl ReplySink, log: impl FnOnce(Sealed<'_>)) {
        if self.open.is_empty() {
            return;
        }
        let position = self.log.propose();
        let payload = self.open.take();
        log(Sealed { position, payload: &payload });
        let (places, mut waiters) = (std::mem::take(&mut self.open_places), std::mem::take(&mut self.open_waiters));
        for (place, waiter) in waiters.iter_mut().enumerate() {
            if waiter.ack == WriteAck::Memory && waiter.unconditional {
                if let Some(reply_to) = waiter.reply_to.take() {
                    let version = Version::new(position.index, place as u16).0;
                    replies.reply(&reply_to, Reply::Set(SetOutcome::Stored { version }));
                    self.answered_from_memory = position.index;
                }
            }
        }
        self.memory.sealed(position.index);
        self.pending_bytes += pending_bytes(&payload, &places, &waiters);
        self.open_touched_bytes = 0;
        let returned_bytes = std::mem::take(&mut self.open_returned_bytes);
        self.returned_bytes += returned_bytes;
        self.pending.push_back(PendingEntry { index: position.index, payload, places, waiters, returned_bytes });
    }

    /// Hands a part of a large value to `log`, as an entry of its own. The open entry must be sealed: its index is
    /// promised to those who wait for it.
    pub fn part(&mut self, part: &ValuePart<'_>, log: impl FnOnce(EntryPosition)) {
        assert!(self.open.is_empty(), "the open entry comes first");
        let position = self.log.propose();
        self.open_uploads.part(position.index, part);
        log(position);
        let (payload, places, waiters) = (Vec::new(), Vec::new(), Vec::new());
        self.pending.push_back(PendingEntry { index: position.index, payload, places, waiters, returned_bytes: 0 });
    }

    /// An upload ends without a word in the log.
    pub fn abandon_upload(&mut self, upload: UploadId) {
        self.open_uploads.abandoned(upload);
    }

    /// Keeps a large value whose parts are all logged for the SET that is written next.
    pub fn put_upload(&mut self, upload: UploadId, value: WholeValue) {
        // Until its command is applied no key has it, and the command itself only names it.
        let bytes = value.bytes().len();
        self.memory.wrote(bytes as u64);
        self.unapplied.add_large(self.log.last().next(), bytes, self.log.last_applied());
        self.shard.put_upload(upload, value);
    }
}

/// Whether a write changes other keys than its first.
fn is_wide(command: &Command<'_>) -> bool {
    matches!(command, Command::Rename { .. } | Command::Copy { .. } | Command::SetAllIfAbsent { .. } | Command::Clear)
}

/// What a pending entry takes.
fn pending_bytes(payload: &Vec<u8>, places: &Vec<Place>, waiters: &Vec<Waiter>) -> usize {
    payload.capacity() + places.capacity() * size_of::<Place>() + waiters.capacity() * size_of::<Waiter>()
}
