//! One connection: what has come and is not a whole frame, what has to go, and how it ends.
//!
//! Place in the flow: steps 2 (decode) and 9 (reply).
//!
//! Invariants:
//! - Replies wait for those that another core is about to give to the same pipeline, so that both leave in one send: a
//!   send costs more than many requests. They wait until there are as many as [`Batching`] says, or for [`HOLD_US`].
//! - At most one send is in flight; replies gather in `output` meanwhile.
//! - A connection that owes its client [`MAX_OUTPUT_BYTES`] or has [`MAX_IN_FLIGHT`] requests unanswered is not read
//!   from: what it sends then waits in the kernel, and at last in the client.
//! - The slot of a connection is given up only after its last operation has ended, so that no completion can reach
//!   whoever gets the slot next; results of other cores are told by the generation.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Weak};

use super::output::Output;
use super::session::{Session, Wire};

/// Replies that may wait for a client, in bytes, before its requests do.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// What a result that is waited for is taken for before the first has come: so few reads are under way at first that
/// they are harmless even if their values are large, and after the first result the number fits the values.
const FIRST_AWAITED_REPLY_BYTES: usize = 64 * 1024;
/// How long replies may wait for another core's, in microseconds: many turns of a busy core, and still less than what
/// the network adds.
pub const HOLD_US: u64 = 1000;
/// Operations of one connection that may wait for the disk or for other cores; those of a BATCH count one by one.
pub const MAX_IN_FLIGHT: u32 = 16 * 1024;
/// Writes of one connection that return a value and may wait for the disk or for other cores. What they return is owed
/// whatever it takes, since they were applied; so only few enter before it is known how much that is.
pub const MAX_RETURNING_WRITES: u32 = 64;
/// Replies that a connection may be owed in all, in bytes. What is already asked for when [`MAX_OUTPUT_BYTES`] is
/// reached is still answered, since reads that waited come due together; beyond this, with BUSY.
pub const MAX_OWED_BYTES: usize = 32 << 20;

/// Bytes that a lingering connection may still send: what the buffers of both sides may hold.
pub const LINGER_BYTES: usize = 8 << 20;

/// How many replies may wait for another core's: beyond either bound, a send of their own is no waste.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Whether any wait at all.
    pub enabled: bool,
    /// How many.
    pub replies_max: u32,
    /// How many bytes.
    pub bytes_max: usize,
}

/// Whether the ring receives for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// It does.
    Armed,
    /// It was asked to stop, and may still bring something.
    Stopping,
    /// It does not.
    Stopped,
}

/// A large value that a connection's client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LargeInput {
    /// None.
    None,
    /// It comes into its place: nothing else is taken before it is there.
    Coming,
    /// It was refused: so many bytes are still to be thrown away.
    Refused(usize),
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Requests are taken.
    Open,
    /// No more requests are taken; what was asked is still answered. The client has closed its half, or the node
    /// stops, or the stream cannot be followed any further.
    Finishing,
    /// Everything is said, and the client was told that nothing more will come; what it still sends is thrown away,
    /// for a while: closing over unread bytes would reset the connection, and the client might never see why it
    /// was closed.
    Lingering,
    /// Nothing more is said: the connection is broken, or done. It ends with its last operation.
    Ended,
}

/// One connection.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, most of them true for a moment.
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Told from earlier holders of the same slot by this.
    pub generation: u32,
    /// Its number in CLIENT LIST: never given again while the node runs.
    pub id: u64,
    /// What it has agreed on with its client.
    pub session: Session,
    /// When it was opened, and when it last sent something, in microseconds of the node's monotonic clock.
    pub opened_us: u64,
    /// See `opened_us`.
    pub heard_us: u64,
    /// Since when it has to say who it is, in microseconds; `None`: it has said so, or need not.
    pub locked_since_us: Option<u64>,
    /// Requests that it has asked.
    pub requests: u64,
    /// Since when it is owed more than the soft limit of output, in microseconds.
    pub owes_since_us: Option<u64>,
    /// Since when it sends one large request, in microseconds, and how many requests it had asked before.
    pub sends_since_us: Option<(u64, u64)>,
    /// Where it is in its life.
    pub stage: Stage,
    /// Whether the ring receives for it.
    pub receiving: Receiving,
    /// Bytes that came and were not consumed: part of a frame, or whole ones while reading is paused.
    pub input: Vec<u8>,
    /// Replies that were not handed to the ring yet.
    pub output: Output,
    /// Replies among `output`, as far as one of them may still be held back.
    pub output_replies: u32,
    /// A large value that comes, beside what goes through `input`.
    pub large: LargeInput,
    /// Whether a region of memory is with the ring for it, to be filled.
    pub region_with_ring: bool,
    /// Bytes of the send in flight; 0: none.
    pub sending_bytes: usize,
    /// When it was handed to the ring, in microseconds of the node's monotonic clock.
    pub sending_since_us: u64,
    /// Memory of the buffer in flight.
    pub sending_capacity: usize,
    /// Memory of its buffers, as it was counted last.
    pub counted_bytes: usize,
    /// Whether the client has closed its half: nothing more will come, what came is still to be answered.
    pub peer_closed: bool,
    /// Whether it is to linger after its last reply: its stream could not be followed any further, or it was refused.
    pub lingers: bool,
    /// Bytes that were thrown away while it lingered.
    pub discarded_bytes: usize,
    /// Whether it is in the list of those that have something to send.
    pub queued: bool,
    /// Operations that are not answered.
    pub in_flight: u32,
    /// Writes among them.
    pub writes_in_flight: u32,
    /// Writes that return a value which were begun since no write was in flight: at least as many as are in flight.
    pub returning_writes: u32,
    /// Reads among them that another core answers, within a turn or two.
    pub awaited_reads: u32,
    /// What a result that is waited for takes, as far as is known: the largest of late.
    pub awaited_reply_bytes: usize,
    /// Nothing more is parsed until everything before is answered: what comes next looks at more than one key's shard,
    /// or is answered in more than one turn.
    pub barrier: bool,
    /// Not everything that it sent was looked at: the turn was over, or who its client is has changed.
    pub yields: bool,
    /// Bytes of results that wait for the rest of their BATCH.
    pub gathered_bytes: usize,
    /// Since when its replies wait for those.
    held_since_us: Option<u64>,
    /// What walks over keys that it has asked for look at, to end with it.
    asking: Option<Arc<()>>,
}

impl Connection {
    /// A new connection.
    pub fn new(socket: TcpStream, generation: u32, wire: Wire, id: u64, now_us: u64) -> Self {
        Self {
            socket,
            generation,
            id,
            session: Session::new(wire),
            opened_us: now_us,
            heard_us: now_us,
            locked_since_us: None,
            requests: 0,
            owes_since_us: None,
            sends_since_us: None,
            stage: Stage::Open,
            receiving: Receiving::Stopped,
            input: Vec::new(),
            output: Output::default(),
            large: LargeInput::None,
            region_with_ring: false,
            output_replies: 0,
            sending_bytes: 0,
            sending_since_us: 0,
            sending_capacity: 0,
            counted_bytes: 0,
            peer_closed: false,
            lingers: false,
            discarded_bytes: 0,
            queued: false,
            in_flight: 0,
            writes_in_flight: 0,
            returning_writes: 0,
            awaited_reads: 0,
            awaited_reply_bytes: FIRST_AWAITED_REPLY_BYTES,
            barrier: false,
            yields: false,
            gathered_bytes: 0,
            held_since_us: None,
            asking: None,
        }
    }

    /// Whether its client has yet to say who it is.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.locked_since_us.is_some()
    }

    /// What a walk over keys is given that this connection asks for: it is gone when the connection is.
    pub fn asks(&mut self) -> Weak<()> {
        Arc::downgrade(self.asking.get_or_insert_default())
    }

    /// Bytes of replies that are not sent, and are in memory for that alone.
    #[inline]
    pub fn owed_bytes(&self) -> usize {
        let waiting_bytes = match &self.session {
            Session::Native => 0,
            Session::Resp(session) => session.ordered.waiting_bytes(),
        };
        self.output.bytes.len() + self.output.chunk_bytes() + self.sending_bytes + waiting_bytes
    }

    /// Bytes that the client has asked for and not taken: those, and the large values that wait for it by reference.
    #[inline]
    pub fn unread_bytes(&self) -> usize {
        let waiting_bytes = match &self.session {
            Session::Native => 0,
            Session::Resp(session) => session.ordered.waiting_large_bytes(),
        };
        self.owed_bytes() + self.output.referenced_bytes() + waiting_bytes
    }

    /// Counts a request that was taken, of so many operations.
    #[inline]
    pub fn begin(&mut self, operations: u32, is_write: bool) {
        self.requests += 1;
        self.in_flight += operations;
        self.writes_in_flight += u32::from(is_write);
    }

    /// Counts a request that is answered.
    #[inline]
    pub fn complete(&mut self, operations: u32, is_write: bool) {
        self.completed(operations, u32::from(is_write));
    }

    /// Counts `count` requests of one operation each that are answered.
    #[inline]
    pub fn complete_alike(&mut self, count: u32, are_writes: bool) {
        self.completed(count, if are_writes { count } else { 0 });
    }

    #[inline]
    fn completed(&mut self, operations: u32, writes: u32) {
        self.in_flight -= operations;
        self.writes_in_flight -= writes;
        if self.writes_in_flight == 0 {
            self.returning_writes = 0;
        }
        self.barrier &= self.in_flight > 0;
    }

    /// Notes what a result that was waited for took. A small one after large ones is believed only little by little.
    #[inline]
    pub fn learn_reply_bytes(&mut self, bytes: usize) {
        self.awaited_reply_bytes = bytes.max(self.awaited_reply_bytes - self.awaited_reply_bytes / 4);
    }

    /// Those, and what the reads that wait for another core and the writes that return a value will bring, if they are
    /// like the last ones.
    #[inline]
    fn expected_bytes(&self) -> usize {
        self.unread_bytes()
            + self.gathered_bytes
            + (self.awaited_reads + self.returning_writes) as usize * self.awaited_reply_bytes
    }

    /// Whether it should not be read from for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.expected_bytes() >= MAX_OUTPUT_BYTES
            || self.in_flight >= MAX_IN_FLIGHT
            || self.returning_writes >= MAX_RETURNING_WRITES
            || self.barrier
            || self.large == LargeInput::Coming
    }

    /// Whether a connection that was full has drained enough to be read from again: half, so that it does not flutter.
    pub fn has_drained(&self) -> bool {
        self.expected_bytes() <= MAX_OUTPUT_BYTES / 2
            && self.in_flight <= MAX_IN_FLIGHT / 2
            && self.returning_writes <= MAX_RETURNING_WRITES / 2
            && !self.barrier
            && self.large != LargeInput::Coming
    }

    /// Memory of its buffers, and of what its session keeps, now.
    #[inline]
    pub fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.output.memory_bytes() + self.sending_capacity + self.session.memory_bytes()
    }

    /// Whether its replies should wait a little, at `now_us`, for those of another core.
    #[inline]
    pub fn is_held(&mut self, now_us: u64, batching: &Batching) -> bool {
        let enough = self.output.bytes.len() >= batching.bytes_max || self.output_replies >= batching.replies_max;
        let enough = enough || self.output.has_references();
        if self.awaited_reads == 0 || enough || !batching.enabled {
            self.held_since_us = None;
            return false;
        }
        let since_us = *self.held_since_us.get_or_insert(now_us);
        let held = now_us - since_us < HOLD_US;
        if !held {
            self.held_since_us = None;
        }
        held
    }

    /// Counts bytes that nobody reads any more.
    #[inline]
    pub fn discard(&mut self, bytes: usize) {
        if self.stage != Stage::Open {
            self.discarded_bytes += bytes;
        }
    }

    /// Whether everything that was asked is answered and sent.
    pub fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.output.is_empty() && self.sending_bytes == 0
    }

    /// Takes no more requests.
    pub fn finish(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Finishing;
        }
    }

    /// Tells the client that nothing more will come.
    pub fn linger(&mut self) {
        self.stage = Stage::Lingering;
        // An error means that the other side was faster.
        let _: std::io::Result<()> = self.socket.shutdown(Shutdown::Write);
    }

    /// Says nothing more and makes the operations in flight end.
    pub fn end(&mut self) {
        if self.stage != Stage::Ended {
            self.stage = Stage::Ended;
            self.input = Vec::new();
            self.output.clear();
            self.asking = None;
            // An error means that the other side was faster.
            let _: std::io::Result<()> = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether its slot may be given up.
    pub fn is_over(&self) -> bool {
        let with_ring = self.receiving != Receiving::Stopped || self.sending_bytes > 0 || self.region_with_ring;
        self.stage == Stage::Ended && !with_ring && !self.queued
    }
}
