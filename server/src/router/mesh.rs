//! Messages between cores: one batch of requests and one of results per pair of cores and turn.
//!
//! Place in the flow: step 4 (route) on the way there, step 9 (reply) on the way back. A core's inbox is one bounded
//! channel; a full one is tried again next turn, while what waits is bounded by the requests that are allowed to be
//! under way ([`MAX_FORWARDED_PER_CORE`]). So two full inboxes cannot block each other.
//!
//! ```text
//! a batch    heads:  | ForwardedRequest | ForwardedRequest | ...
//!            bytes:  | key, or command  | key, or command  | ...      (no gaps; heads hold the lengths)
//! ```
//!
//! Invariant: the batches between two cores arrive in the order in which they were sent, so a connection's requests to
//! one shard keep their order.

use std::collections::{HashMap, VecDeque};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use eyot_protocol::command::Command;
use eyot_protocol::request::KeyQuery;
use eyot_protocol::ErrorCode;
use eyot_ring::{MappedBytes, Waker};

use super::keyspace::KeyspaceRequest;
use super::questions::{Answer, Question};
use super::reply_to::{is_write, LargeReply, Reply, ReplyTo};
use super::scatter::{FoundKeys, REPLY_IS_FULL};
use crate::metrics::heavy::HeavyRun;
use crate::replication::WriteAck;

/// Requests under way from one core to another, at most. Beyond it a request is answered BUSY: the other core is that
/// far behind, and more waiting would only be more memory.
pub const MAX_FORWARDED_PER_CORE: usize = 64 * 1024;
/// From this size on a value is counted against the next two bounds; smaller ones are bounded by the requests that a
/// connection may have in flight.
pub const LARGE_VALUE_BYTES: usize = 4 * 1024;
/// Large values for one connection in one batch, in bytes: beyond it, its reads are answered BUSY.
pub const MAX_CONNECTION_BATCH_BYTES: usize = 16 << 20;
/// Results in one batch, in bytes, beyond which no large value is added: what one turn may copy and one message hold.
pub const MAX_REPLY_BATCH_BYTES: usize = 256 << 20;
/// Messages that an inbox holds: a few turns of every other core's two batches.
pub const INBOX_MESSAGES: usize = 128;
/// Keys and values that wait in one batch for another core, in bytes: beyond it a request is answered BUSY.
pub const MAX_REQUEST_BATCH_BYTES: usize = 64 << 20;
/// Buffers kept for reuse, a few turns' worth for a handful of cores.
const SPARE_BATCHES_MAX: usize = 32;
/// A batch's buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// What a forwarded request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedKind {
    /// A read of a key's value; the bytes are the key.
    Get,
    /// Another read, the next of the batch's queries; the bytes are the key.
    Query,
    /// A write; the bytes are the command as it stands in an entry.
    Write,
    /// A SET of a large value, the next of the batch's; the bytes are the command, which names no upload yet.
    Large,
    /// A request on all keys of the core, the next of the batch's; it has no bytes.
    Keyspace,
}

/// The head of one forwarded request. Small, since it moves between the caches of two processors.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedRequest {
    /// Who waits.
    pub reply_to: ReplyTo,
    /// Not to be executed after this time of the node's monotonic clock; `u64::MAX`: any time.
    pub deadline_us: u64,
    /// How many of the batch's bytes are its own.
    pub bytes: u32,
    /// The slot of the key of a read.
    pub slot: u16,
    /// The shard's place on the owning core.
    pub local_shard: u16,
    /// What it is.
    pub kind: ForwardedKind,
    /// When a write is answered.
    pub ack: WriteAck,
    /// Whether the connection has writes that are not answered.
    pub after_own_writes: bool,
}

const _: () = assert!(std::mem::size_of::<ForwardedRequest>() <= 56, "less than a cache line");

/// Requests of one core to another.
#[derive(Debug, Default)]
pub struct RequestBatch {
    /// Their heads.
    pub heads: Vec<ForwardedRequest>,
    /// Their keys and commands.
    pub bytes: Vec<u8>,
    /// What is asked by reads that are not plain ones, in their order.
    pub queries: Vec<KeyQuery>,
    /// Requests on all keys, in their order.
    pub keyspace: Vec<KeyspaceRequest>,
    /// Large values that are to be set, in the order of their heads.
    pub large: VecDeque<MappedBytes>,
}

impl RequestBatch {
    fn memory_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<ForwardedRequest>()
            + self.bytes.capacity()
            + self.queries.capacity() * size_of::<KeyQuery>()
    }
}

/// Results of one core for another.
#[derive(Debug, Default)]
pub struct ReplyBatch {
    /// Who waits, how long the result is, and whether it is an error.
    pub heads: Vec<(ReplyTo, u32, bool)>,
    /// The encoded results.
    pub bytes: Vec<u8>,
    /// Results that refer to large values.
    pub large: Vec<(ReplyTo, LargeReply)>,
}

impl ReplyBatch {
    /// How many results there are.
    pub fn len(&self) -> usize {
        self.heads.len() + self.large.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.large.is_empty()
    }
}

impl ReplyBatch {
    fn memory_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<(ReplyTo, u32, bool)>() + self.bytes.capacity()
    }
}

/// What an inbox brings.
#[derive(Debug)]
pub enum Message {
    /// Requests for keys of this core.
    Requests(Box<RequestBatch>),
    /// Results that this core's connections wait for, from core `.0`.
    Replies(u16, Box<ReplyBatch>),
    /// Keys that a walk of core `.0` has found, for a gather of this core.
    Found(u16, ReplyTo, FoundKeys),
    /// Core `.0` asks this core something, for the gather with this key.
    Asked(u16, u32, Question),
    /// The answer, for that gather.
    Told(u32, Answer),
    /// A command of a client of this core took long on the core that owns its key.
    Slow(Box<HeavyRun>),
}

/// The way to one core.
#[derive(Debug)]
struct Outbox {
    inbox: Sender<Message>,
    waker: Waker,
    requests: Box<RequestBatch>,
    replies: Box<ReplyBatch>,
    /// Single messages, sent before the batches.
    others: VecDeque<Message>,
    /// Requests forwarded there and not answered.
    under_way: usize,
    /// The gather there that the last gathered result went to, by key and generation, and the bytes that it got.
    gather: (u32, u32, usize),
    /// Bytes of large values in `replies`, by connection; under `None` those of all gathers.
    large: HashMap<Option<u32>, usize>,
}

/// One core's ways to the others, and its own inbox.
#[derive(Debug)]
pub struct Mesh {
    core: u16,
    inbox: Receiver<Message>,
    outboxes: Vec<Outbox>,
    /// Outboxes that hold something.
    dirty: Vec<u16>,
    #[allow(clippy::vec_box)] // The boxes themselves are what is reused: a message carries one.
    spare_requests: Vec<Box<RequestBatch>>,
    #[allow(clippy::vec_box)] // As above.
    spare_replies: Vec<Box<ReplyBatch>>,
}

impl Mesh {
    /// The mesh of `core`. `ways` are the inboxes and wakers of every core, its own among them.
    pub fn new(core: u16, inbox: Receiver<Message>, ways: Vec<(Sender<Message>, Waker)>) -> Self {
        let outboxes = ways
            .into_iter()
            .map(|(inbox, waker)| Outbox {
                inbox,
                waker,
                requests: Box::default(),
                replies: Box::default(),
                others: VecDeque::new(),
                under_way: 0,
                gather: (0, 0, 0),
                large: HashMap::new(),
            })
            .collect();
        Self { core, inbox, outboxes, dirty: Vec::new(), spare_requests: Vec::new(), spare_replies: Vec::new() }
    }

    /// How many cores there are.
    pub fn core_count(&self) -> u16 {
        self.outboxes.len() as u16
    }

    /// The next message, if there is one.
    pub fn receive(&self) -> Option<Message> {
        self.inbox.try_recv().ok()
    }

    /// Whether the inbox holds something.
    pub fn has_messages(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether something waits to be flushed.
    pub fn has_unsent(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether another request may be forwarded to `core`.
    pub fn may_forward(&self, core: u16) -> bool {
        let outbox = &self.outboxes[usize::from(core)];
        outbox.under_way < MAX_FORWARDED_PER_CORE && outbox.requests.bytes.len() < MAX_REQUEST_BATCH_BYTES
    }

    /// Requests that are under way to other cores.
    pub fn under_way(&self) -> usize {
        self.outboxes.iter().map(|outbox| outbox.under_way).sum()
    }

    /// Gives batches that are only kept for reuse back to the allocator.
    pub fn drop_spares(&mut self) {
        self.spare_requests = Vec::new();
        self.spare_replies = Vec::new();
    }

    /// Memory of the batches that are gathered and of those kept for reuse. What was sent belongs to the receiver.
    pub fn memory_bytes(&self) -> usize {
        let gathering =
            self.outboxes.iter().map(|outbox| outbox.requests.memory_bytes() + outbox.replies.memory_bytes());
        let spare_requests = self.spare_requests.iter().map(|batch| batch.memory_bytes());
        let spare_replies = self.spare_replies.iter().map(|batch| batch.memory_bytes());
        gathering.chain(spare_requests).chain(spare_replies).sum()
    }

    /// Adds a read to this turn's batch for `core`.
    #[inline]
    pub fn forward_read(&mut self, core: u16, mut head: ForwardedRequest, key: &[u8], query: KeyQuery) {
        let requests = self.requests_for(core);
        head.bytes = key.len() as u32;
        head.kind = ForwardedKind::Get;
        if query != KeyQuery::Value {
            head.kind = ForwardedKind::Query;
            requests.queries.push(query);
        }
        requests.heads.push(head);
        requests.bytes.extend_from_slice(key);
    }

    /// Adds a write to this turn's batch for `core`.
    #[inline]
    pub fn forward_write(&mut self, core: u16, mut head: ForwardedRequest, command: &Command<'_>) {
        let requests = self.requests_for(core);
        let start = requests.bytes.len();
        command.encode(&mut requests.bytes);
        head.bytes = (requests.bytes.len() - start) as u32;
        head.kind = ForwardedKind::Write;
        requests.heads.push(head);
    }

    /// Adds a SET of a large value to this turn's batch for `core`: its `command` as bytes, the value by reference.
    pub fn forward_large(&mut self, core: u16, mut head: ForwardedRequest, command: &[u8], value: MappedBytes) {
        let requests = self.requests_for(core);
        head.bytes = command.len() as u32;
        head.kind = ForwardedKind::Large;
        requests.heads.push(head);
        requests.bytes.extend_from_slice(command);
        requests.large.push_back(value);
    }

    /// Adds a request on all keys of `core` to this turn's batch for it.
    pub fn forward_keyspace(&mut self, core: u16, mut head: ForwardedRequest, request: KeyspaceRequest) {
        let requests = self.requests_for(core);
        head.kind = ForwardedKind::Keyspace;
        requests.heads.push(head);
        requests.keyspace.push(request);
    }

    #[inline]
    fn requests_for(&mut self, core: u16) -> &mut RequestBatch {
        debug_assert_ne!(core, self.core);
        self.mark(core);
        let outbox = &mut self.outboxes[usize::from(core)];
        outbox.under_way += 1;
        &mut outbox.requests
    }

    /// Adds a result to this turn's batch for the core that waits for it. Of the results of one gather, those beyond
    /// `gathered_bytes_max` would be dropped there, and are not even copied.
    #[inline]
    pub fn reply(&mut self, to: &ReplyTo, mut reply: Reply<'_>, gathered_bytes_max: usize) {
        self.mark(to.core);
        let outbox = &mut self.outboxes[usize::from(to.core)];
        if to.gathered {
            if (outbox.gather.0, outbox.gather.1) != (to.key, to.generation) {
                outbox.gather = (to.key, to.generation, 0);
            }
            if outbox.gather.2 >= gathered_bytes_max && reply.bulk_bytes().is_some() {
                reply = Reply::Error(ErrorCode::BatchTooLarge, REPLY_IS_FULL);
            }
        }
        let batch = &mut outbox.replies;
        // What a write returns is bounded before it enters: an error would say that it was not applied.
        if let Some(bytes) = reply.bulk_bytes() {
            if bytes >= LARGE_VALUE_BYTES && !is_write(to.operation) {
                // All gathers of a batch share what one of them may have: each keeps its parts until the last has come.
                let (holder, holder_bytes_max) =
                    if to.gathered { (None, gathered_bytes_max) } else { (Some(to.key), MAX_CONNECTION_BATCH_BYTES) };
                let held_bytes = outbox.large.entry(holder).or_insert(0);
                if *held_bytes >= holder_bytes_max || batch.bytes.len() >= MAX_REPLY_BATCH_BYTES {
                    let message = "too much is read from this core at once; ask again, for less at once";
                    reply = Reply::Error(ErrorCode::Busy, message);
                } else {
                    *held_bytes += bytes;
                }
            }
        }
        let start = batch.bytes.len();
        reply.put(to.form, &mut batch.bytes);
        let length = batch.bytes.len() - start;
        outbox.gather.2 += if to.gathered { length } else { 0 };
        batch.heads.push((*to, length as u32, reply.is_error()));
    }

    /// Adds a reply that refers to a large value. It is not copied, so no bound of bytes is touched; a connection takes
    /// nothing more until it has gone.
    pub fn large_reply(&mut self, to: &ReplyTo, reply: LargeReply) {
        self.mark(to.core);
        self.outboxes[usize::from(to.core)].replies.large.push((*to, reply));
    }

    /// Adds a result that is written already. Larger than usual ones are bounded by whoever wrote them.
    pub fn reply_bytes(&mut self, to: &ReplyTo, result: &[u8], failed: bool) {
        self.mark(to.core);
        let batch = &mut self.outboxes[usize::from(to.core)].replies;
        batch.bytes.extend_from_slice(result);
        batch.heads.push((*to, result.len() as u32, failed));
    }

    /// Adds a single message for `core`.
    pub fn post(&mut self, core: u16, message: Message) {
        self.mark(core);
        self.outboxes[usize::from(core)].others.push_back(message);
    }

    /// Notes that `count` forwarded requests were answered by `core`.
    pub fn answered(&mut self, core: u16, count: usize) {
        let outbox = &mut self.outboxes[usize::from(core)];
        assert!(outbox.under_way >= count, "core {core} answered more than it was asked");
        outbox.under_way -= count;
    }

    #[inline]
    fn mark(&mut self, core: u16) {
        let outbox = &self.outboxes[usize::from(core)];
        if outbox.requests.heads.is_empty() && outbox.replies.is_empty() && outbox.others.is_empty() {
            self.dirty.push(core);
        }
    }

    /// Sends what this turn has gathered, one message a kind and core, and wakes those that sleep.
    pub fn flush(&mut self) {
        let Self { core: own, outboxes, dirty, spare_requests, spare_replies, .. } = self;
        dirty.retain(|&core| {
            let outbox = &mut outboxes[usize::from(core)];
            let mut room = true;
            while let (true, Some(message)) = (room, outbox.others.pop_front()) {
                room = send(&outbox.inbox, message, |message| outbox.others.push_front(message));
            }
            if room && !outbox.replies.is_empty() {
                let batch = std::mem::replace(&mut outbox.replies, spare_replies.pop().unwrap_or_default());
                room = send(&outbox.inbox, Message::Replies(*own, batch), |message| {
                    let Message::Replies(_, batch) = message else { unreachable!("the message just sent") };
                    outbox.replies = batch;
                });
                // A batch that stays keeps what counts against its bounds.
                if room {
                    outbox.large.clear();
                }
            }
            if room && !outbox.requests.heads.is_empty() {
                let batch = std::mem::replace(&mut outbox.requests, spare_requests.pop().unwrap_or_default());
                room = send(&outbox.inbox, Message::Requests(batch), |message| {
                    let Message::Requests(batch) = message else { unreachable!("the message just sent") };
                    outbox.requests = batch;
                });
            }
            outbox.waker.wake();
            !room
        });
    }

    /// Takes a batch's memory back for reuse.
    pub fn recycle_requests(&mut self, mut batch: Box<RequestBatch>) {
        if self.spare_requests.len() < SPARE_BATCHES_MAX && batch.bytes.capacity() <= SPARE_BYTES_MAX {
            batch.heads.clear();
            batch.bytes.clear();
            batch.queries.clear();
            batch.keyspace.clear();
            self.spare_requests.push(batch);
        }
    }

    /// Takes a batch's memory back for reuse.
    pub fn recycle_replies(&mut self, mut batch: Box<ReplyBatch>) {
        if self.spare_replies.len() < SPARE_BATCHES_MAX && batch.bytes.capacity() <= SPARE_BYTES_MAX {
            batch.heads.clear();
            batch.bytes.clear();
            self.spare_replies.push(batch);
        }
    }
}

/// Sends `message`, or gives it to `keep` where the inbox is full. Returns whether it was sent. A core that has ended
/// takes nothing any more, and what is for it can be dropped.
fn send(inbox: &Sender<Message>, message: Message, keep: impl FnOnce(Message)) -> bool {
    match inbox.try_send(message) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => true,
        Err(TrySendError::Full(message)) => {
            keep(message);
            false
        }
    }
}

#[cfg(test)]
mod tests;
