//! The connections of one core.
//!
//! Place in the flow: steps 1, 2 and 9. Holds no policy of requests; it knows bytes.
//!
//! Invariant: memory of connections is bounded: slots by the connection limit, unfinished frames by
//! [`MAX_UNFINISHED_BYTES`] over all of them, replies by each connection's own bound, spare buffers by their pool.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use eyot_protocol::native::reply::put_error_reply;
use eyot_protocol::resp::error_line;
use eyot_protocol::ErrorCode;
use eyot_ring::{Piece, Ring};
use slab::Slab;

use super::connection::{Batching, Connection, Receiving, Stage};
use super::output::Output;
use super::session::{Session, Wire};
use crate::memory::large_values::needs_worker;
use crate::memory::BufferPool;
use crate::router::{LargeReply, Reply, ReplyTo};

/// Bytes of unfinished frames that a core keeps over all its connections. Beyond it, the connection that brings more is
/// closed: a frame's announced length is a promise that somebody has to pay for. Four of the largest values by default.
pub const MAX_UNFINISHED_BYTES: usize = 256 << 20;
/// Bytes of each connection that do not count: a request cut in two by the network is nobody's fault, and must not fail
/// because others have large ones under way.
pub const UNCOUNTED_UNFINISHED_BYTES: usize = 64 * 1024;
/// Bytes of one send: what the ring takes is bounded, and so is what one client's send pins.
const MAX_SEND_BYTES: usize = 256 << 20;

/// Room for replies that come before their turn, which is kept.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// The connections of one core.
#[derive(Debug)]
pub struct Connections {
    slots: Slab<Connection>,
    /// Those with something to send, each once.
    to_send: Vec<u32>,
    /// How many of `to_send` were held back in the last turn.
    held: usize,
    /// Those that may be over, or that may be read from again.
    to_review: Vec<u32>,
    pool: BufferPool,
    batching: Batching,
    /// Memory of all connections' buffers, as it was counted last.
    buffer_bytes: usize,
    /// Bytes beyond [`UNCOUNTED_UNFINISHED_BYTES`] of each connection's input.
    unfinished_bytes: usize,
    unfinished_bytes_max: usize,
    next_generation: u32,
    /// Where replies are written that come before their turn.
    scratch: Vec<u8>,
}

/// Hands what one send may have of a connection's output with large values to the ring. What is long, or not in memory,
/// is a worker's to send.
fn send_pieces(ring: &mut Ring, key: u32, connection: &mut Connection) {
    let pieces = connection.output.take_pieces();
    let in_worker = pieces.iter().any(|piece| match piece {
        Piece::Bytes(_) => false,
        Piece::Mapped(value, range) => needs_worker(value, range.clone()),
    });
    connection.sending_bytes = pieces.iter().map(Piece::len).sum();
    let own_bytes = |piece: &Piece| if let Piece::Bytes(bytes) = piece { bytes.capacity() } else { 0 };
    connection.sending_capacity = pieces.iter().map(own_bytes).sum();
    ring.send_pieces(connection.socket.as_raw_fd(), key, pieces, in_worker);
}

/// What `bytes` of input count.
fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(UNCOUNTED_UNFINISHED_BYTES)
}

impl Connections {
    /// No connections yet, of a server that takes frames of `max_frame_bytes`: at least two such may be under way.
    pub fn new(max_frame_bytes: usize, pool: BufferPool, batching: Batching) -> Self {
        Self {
            slots: Slab::new(),
            to_send: Vec::new(),
            held: 0,
            to_review: Vec::new(),
            pool,
            batching,
            buffer_bytes: 0,
            unfinished_bytes: 0,
            unfinished_bytes_max: MAX_UNFINISHED_BYTES.max(2 * max_frame_bytes),
            next_generation: 0,
            scratch: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a connection in and begins to receive.
    pub fn open(&mut self, ring: &mut Ring, socket: OwnedFd, wire: Wire, id: u64, now_us: u64) -> u32 {
        let key = self.insert(socket, wire, id, now_us);
        let connection = &mut self.slots[key as usize];
        connection.receiving = Receiving::Armed;
        ring.receive(connection.socket.as_raw_fd(), key);
        key
    }

    /// Tells a connection why it cannot be taken, then closes it.
    pub fn refuse(&mut self, socket: OwnedFd, wire: Wire, code: ErrorCode, message: &str) {
        let key = self.insert(socket, wire, 0, 0);
        self.say_error(key, 0, 0, code, message);
        self.finish_and_linger(key);
    }

    /// Appends an error to the output of connection `key`, in its wire's form, behind whatever stands there: not for a
    /// connection that may have requests in flight and whose replies have an order.
    pub fn say_error(&mut self, key: u32, op: u8, request_id: u32, code: ErrorCode, message: &str) {
        let native = matches!(self.slots[key as usize].session, Session::Native);
        let output = self.output(key);
        if native {
            put_error_reply(output, op, request_id, code, message);
        } else {
            error_line(code, message, output);
        }
    }

    /// Appends a reply to the output of the connection that waits for it, in its order: where the wire has one and it
    /// is not its turn, it is kept until those before it have come.
    #[inline]
    pub fn answer(&mut self, to: &ReplyTo, put: impl FnOnce(&mut Vec<u8>)) {
        self.output(to.key);
        let connection = &mut self.slots[to.key as usize];
        match &mut connection.session {
            Session::Native => put(&mut connection.output.bytes),
            Session::Resp(session) => {
                session.ordered.answer(to.number, &mut connection.output, &mut self.scratch, put);
                if self.scratch.capacity() > SCRATCH_BYTES_MAX {
                    self.scratch = Vec::new();
                }
            }
        }
    }

    /// Appends the same `reply`, of a few bytes, to `count` requests of a RESP connection; see [`Connections::answer`].
    pub fn answer_alike(&mut self, key: u32, count: u32, numbers: impl Iterator<Item = u32>, reply: &[u8]) {
        self.output(key);
        let connection = &mut self.slots[key as usize];
        connection.output_replies += count - 1;
        let ordered = &mut connection.session.resp().ordered;
        numbers.for_each(|number| ordered.answer_short(number, &mut connection.output, reply));
    }

    /// Appends a reply that refers to a large value; see [`Connections::answer`].
    pub fn answer_large(&mut self, to: &ReplyTo, reply: LargeReply) {
        self.output(to.key);
        let connection = &mut self.slots[to.key as usize];
        match &mut connection.session {
            Session::Native => connection.output.put_large(reply),
            Session::Resp(session) => session.ordered.answer_large(to.number, &mut connection.output, reply),
        }
    }

    /// Appends a long reply, which `put` hands over, to a RESP connection that has asked nothing else before it.
    pub fn answer_alone(&mut self, to: &ReplyTo, put: impl FnOnce(&mut Output)) {
        self.output(to.key);
        let connection = &mut self.slots[to.key as usize];
        connection.session.resp().ordered.answer_alone(to.number, &mut connection.output, put);
    }

    /// Appends `reply`; see [`Connections::answer`].
    #[inline]
    pub fn reply(&mut self, to: &ReplyTo, reply: &Reply<'_>) {
        self.answer(to, |out| reply.put_whole(to, out));
    }

    /// Takes no more requests of connection `key`, and makes sure that the client sees the last reply.
    pub fn finish_and_linger(&mut self, key: u32) {
        let connection = &mut self.slots[key as usize];
        connection.lingers = true;
        connection.finish();
        self.review(key);
    }

    fn insert(&mut self, socket: OwnedFd, wire: Wire, id: u64, now_us: u64) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        let connection = Connection::new(TcpStream::from(socket), self.next_generation, wire, id, now_us);
        self.slots.insert(connection) as u32
    }

    /// The connection in slot `key`.
    #[inline]
    pub fn get_mut(&mut self, key: u32) -> &mut Connection {
        &mut self.slots[key as usize]
    }

    /// The connection in slot `key`, if there is one.
    pub fn find(&mut self, key: u32) -> Option<&mut Connection> {
        self.slots.get_mut(key as usize)
    }

    /// The connection in slot `key`, if it still is the one of `generation`.
    #[inline]
    pub fn get_of(&mut self, key: u32, generation: u32) -> Option<&mut Connection> {
        self.slots.get_mut(key as usize).filter(|connection| connection.generation == generation)
    }

    /// Where replies to connection `key` are appended. What is appended leaves at the end of the turn.
    #[inline]
    pub fn output(&mut self, key: u32) -> &mut Vec<u8> {
        let connection = &mut self.slots[key as usize];
        connection.output_replies += 1;
        if !connection.queued {
            connection.queued = true;
            self.to_send.push(key);
            if connection.output.bytes.capacity() == 0 {
                connection.output.bytes = self.pool.take();
            }
        }
        &mut connection.output.bytes
    }

    /// Has connection `key` looked at before the turn ends.
    pub fn review(&mut self, key: u32) {
        self.to_review.push(key);
    }

    /// Those that were marked for review.
    pub fn take_reviews(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.to_review)
    }

    /// Takes the list of [`Connections::take_reviews`] back for reuse.
    pub fn give_reviews_back(&mut self, mut reviews: Vec<u32>) {
        reviews.clear();
        if self.to_review.is_empty() {
            self.to_review = reviews;
        }
    }

    /// Keeps `bytes` of connection `key` for later. Returns whether they were kept: beyond the bound they are not.
    pub fn keep_input(&mut self, key: u32, bytes: &[u8]) -> bool {
        let input = &mut self.slots[key as usize].input;
        let grown = counted(input.len() + bytes.len()) - counted(input.len());
        if grown > 0 && self.unfinished_bytes + grown > self.unfinished_bytes_max {
            return false;
        }
        self.unfinished_bytes += grown;
        if input.capacity() == 0 {
            *input = self.pool.take();
        }
        input.extend_from_slice(bytes);
        self.recount(key);
        true
    }

    /// Counts the memory of connection `key`'s buffers anew: to be called after it has changed, sooner or later.
    fn recount(&mut self, key: u32) {
        let connection = &mut self.slots[key as usize];
        let bytes = connection.buffer_bytes();
        self.buffer_bytes = self.buffer_bytes + bytes - connection.counted_bytes;
        connection.counted_bytes = bytes;
    }

    /// Memory of slots, buffers and spare buffers. A buffer that has grown is counted when it is handed to the ring.
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Connection>() + self.buffer_bytes + self.pool.spare_bytes()
    }

    /// The pool of buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// The pool of buffers, to make it smaller or larger.
    pub fn pool_mut(&mut self) -> &mut BufferPool {
        &mut self.pool
    }

    /// Takes the kept bytes of connection `key`.
    pub fn take_input(&mut self, key: u32) -> Vec<u8> {
        let input = std::mem::take(&mut self.slots[key as usize].input);
        self.unfinished_bytes -= counted(input.len());
        input
    }

    /// Puts the bytes of [`Connections::take_input`] from `consumed` on back; drops memory that is not needed any more.
    pub fn put_input_back(&mut self, key: u32, mut input: Vec<u8>, consumed: usize) {
        if consumed == input.len() {
            self.pool.give(input);
            self.recount(key);
            return;
        }
        input.drain(..consumed);
        if input.capacity() > self.pool.buffer_bytes_max() && input.len() < input.capacity() / 4 {
            input.shrink_to(input.len() * 2);
        }
        self.unfinished_bytes += counted(input.len());
        self.slots[key as usize].input = input;
        self.recount(key);
    }

    /// Ends connection `key`: nothing more is read or said.
    pub fn end(&mut self, key: u32) {
        self.drop_buffers(key);
        self.slots[key as usize].end();
        self.review(key);
    }

    /// Takes the buffers of connection `key`, whose contents nobody wants any more.
    fn drop_buffers(&mut self, key: u32) {
        let connection = &mut self.slots[key as usize];
        self.unfinished_bytes -= counted(connection.input.len());
        self.pool.give(std::mem::take(&mut connection.input));
        self.pool.give(std::mem::take(&mut connection.output.bytes));
        self.recount(key);
    }

    /// Gives up the slot of connection `key`, which is over.
    pub fn remove(&mut self, key: u32) {
        let connection = self.slots.remove(key as usize);
        debug_assert!(connection.is_over());
        self.buffer_bytes -= connection.counted_bytes;
    }

    /// Hands each connection's replies to the ring: one send a connection. Those that wait for another core's replies
    /// are held back a little.
    pub fn send_all(&mut self, ring: &mut Ring, now_us: u64) {
        let Self { slots, to_send, to_review, held, pool, batching, buffer_bytes, .. } = self;
        to_send.retain(|&key| {
            let connection = &mut slots[key as usize];
            let counted_bytes = &mut connection.counted_bytes;
            *buffer_bytes -= std::mem::take(counted_bytes);
            let held = connection.stage == Stage::Open && connection.is_held(now_us, batching);
            if held {
                connection.counted_bytes = connection.buffer_bytes();
                *buffer_bytes += connection.counted_bytes;
                return true;
            }
            connection.queued = false;
            connection.output_replies = 0;
            if connection.stage == Stage::Ended {
                pool.give(std::mem::take(&mut connection.output.bytes));
                connection.output.clear();
                to_review.push(key);
            } else if connection.sending_bytes == 0 && connection.output.has_references() {
                connection.sending_since_us = now_us;
                send_pieces(ring, key, connection);
            } else if connection.sending_bytes == 0 && !connection.output.is_empty() {
                let mut buffer = std::mem::take(&mut connection.output.bytes);
                if buffer.len() > MAX_SEND_BYTES {
                    connection.output.bytes = buffer.split_off(MAX_SEND_BYTES);
                }
                connection.sending_bytes = buffer.len();
                connection.sending_since_us = now_us;
                connection.sending_capacity = buffer.capacity();
                ring.send(connection.socket.as_raw_fd(), key, buffer);
            }
            connection.counted_bytes = connection.buffer_bytes();
            *buffer_bytes += connection.counted_bytes;
            false
        });
        *held = to_send.len();
    }

    /// Whether replies are held back.
    pub fn has_held(&self) -> bool {
        self.held > 0
    }

    /// A send of pieces has ended.
    pub fn sent_pieces(&mut self, key: u32, pieces: Vec<Piece>, result: std::io::Result<usize>) {
        // The last reference to a value may go with them.
        drop(pieces);
        self.sent(key, Vec::new(), result);
    }

    /// A send has ended.
    pub fn sent(&mut self, key: u32, buffer: Vec<u8>, result: std::io::Result<usize>) {
        let connection = &mut self.slots[key as usize];
        let wanted = std::mem::take(&mut connection.sending_bytes);
        connection.sending_capacity = 0;
        if result.is_ok_and(|count| count == wanted) {
            if !connection.output.is_empty() && !connection.queued {
                connection.queued = true;
                self.to_send.push(key);
            }
        } else {
            self.drop_buffers(key);
            self.slots[key as usize].end();
        }
        let connection = &self.slots[key as usize];
        if connection.stage != Stage::Open || connection.receiving != Receiving::Armed {
            self.to_review.push(key);
        }
        self.pool.give(buffer);
        self.recount(key);
    }

    /// Shows `each` at most `count` connections, from place `from` on; returns where to go on, 0 after the last.
    pub fn visit(&mut self, from: usize, count: usize, mut each: impl FnMut(u32, &mut Connection)) -> usize {
        let end = self.slots.capacity().min(from + count);
        for place in from..end {
            if let Some(connection) = self.slots.get_mut(place) {
                each(place as u32, connection);
            }
        }
        if end >= self.slots.capacity() {
            0
        } else {
            end
        }
    }

    /// The keys of all connections.
    pub fn keys(&self) -> Vec<u32> {
        self.slots.iter().map(|(key, _)| key as u32).collect()
    }

    /// Whether something waits to be sent or reviewed.
    pub fn has_work(&self) -> bool {
        self.to_send.len() > self.held || !self.to_review.is_empty()
    }
}
