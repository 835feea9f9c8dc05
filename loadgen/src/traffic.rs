//! The requests of one thread: what is outstanding where, and what becomes of each reply. No I/O.
//!
//! Place in the flow: between the pace (`closed_loop`, `open_loop`), which says when, and the engine, which moves
//! bytes.
//!
//! ```text
//! client c, connections c * fan ..    fan: 1, or with --route one for each core of the server
//! slot   c * pipeline ..              one for each request that the client may have outstanding
//!
//! native   the request id is the slot's number: replies are matched in any order
//! others   each connection keeps the slots of its requests in order
//! ```
//!
//! Invariant: a slot is active from the encoding of its request to its reply; a reply for a slot that is not active, or
//! is another client's, is an error of the server.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::args::Protocol;
use crate::measure::{Measurement, Trouble};
use crate::topology::ShardMap;
use crate::verify::{Ledger, Verified};
use crate::wire::{memcached, native, resp, Encoder, Reply, WireError};
use crate::workload::{Action, KeyForm, Workload};

/// How often another key is tried when a write's key has a write outstanding (`--verify`), before it becomes a read.
const MAX_CLAIMS: u32 = 64;
/// How often a random key is drawn in search of a local or a foreign one, before keys are tried one after the other.
const MAX_DRAWS: u32 = 1000;

/// What a phase asks for.
#[derive(Debug, Clone)]
pub enum Source {
    /// Reads and writes as the workload chooses.
    Mixed,
    /// A write of each of these keys.
    WriteEach(Range<u64>),
}

/// A server that refuses a connection says so in an error that answers no request.
#[cold]
fn unasked(id: u32, reply: Reply<'_>) -> WireError {
    match reply {
        Reply::Error { code, message } => WireError(format!("{code}: {message}")),
        _ => WireError(format!("a reply to request {id}, which this connection never sent")),
    }
}

/// One client's place on one core, for `--foreign-share`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client {
    /// Its number in the whole run.
    pub number: u64,
    /// The core that it is connected to.
    pub home: u16,
    /// Foreign keys owed, in `0..1`: a share p adds p for each request.
    foreign_owed: f64,
}

impl Client {
    /// Client `number` of the run, connected to core `home`.
    pub fn new(number: u64, home: u16) -> Self {
        Self { number, home, foreign_owed: 0.0 }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Requests that are still to be sent.
    pub out: Vec<u8>,
    /// The buffer of the last send, for reuse.
    pub spare: Vec<u8>,
    /// Whether a send is under way.
    pub sending: bool,
    /// Whether it stands in `Traffic::dirty`.
    dirty: bool,
    /// The beginning of a reply.
    partial: Vec<u8>,
    /// Without ids on the wire: the slots of unanswered requests, oldest first.
    order: VecDeque<u32>,
}

impl Connection {
    /// A connection without requests.
    pub fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            out: Vec::new(),
            spare: Vec::new(),
            sending: false,
            dirty: false,
            partial: Vec::new(),
            order: VecDeque::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// When the request was due: in a closed loop, when it was sent.
    due_ns: u64,
    sent_ns: u64,
    key: u64,
    /// A write's sequence, or a read's floor (`--verify`).
    sequence: u32,
    action: Action,
    active: bool,
}

const FREE: Slot = Slot { due_ns: 0, sent_ns: 0, key: 0, sequence: 0, action: Action::Get, active: false };

/// What all requests of a run have in common.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The wire.
    pub protocol: Protocol,
    /// Keys of the run.
    pub keys: u64,
    /// What keys look like.
    pub form: KeyForm,
    /// Payload bytes of a value.
    pub value_bytes: usize,
    /// With `--route` or `--foreign-share`.
    pub shards: Option<ShardMap>,
    /// With `--foreign-share`.
    pub foreign_share: Option<f64>,
    /// With `--verify`.
    pub ledger: Option<Arc<Ledger>>,
    /// With `--on-miss set`: a read that found nothing is followed by a write of its key.
    pub fills: bool,
}

/// The requests of one thread.
#[derive(Debug)]
pub struct Traffic {
    setting: Setting,
    encoder: Encoder,
    workload: Workload,
    source: Source,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    /// Connections of each client.
    fan: usize,
    /// Slots of each client.
    pipeline: usize,
    slots: Vec<Slot>,
    outstanding: usize,
    /// Connections that have something to send.
    pub dirty: Vec<u32>,
    /// Slots whose reply came since the engine took them last.
    pub answered: Vec<u32>,
    /// What was seen in this phase.
    pub measurement: Measurement,
    /// Latencies since the last progress report, in nanoseconds, where one is wanted.
    pub interval_ns: Option<Histogram<u64>>,
}

impl Traffic {
    /// `connections`: `fan` for each of `clients`, in order.
    pub fn new(
        setting: Setting,
        encoder: Encoder,
        workload: Workload,
        clients: Vec<Client>,
        connections: Vec<Connection>,
    ) -> Self {
        assert!(
            !clients.is_empty() && connections.len().is_multiple_of(clients.len()),
            "each client has the same connections"
        );
        Self {
            fan: connections.len() / clients.len(),
            setting,
            encoder,
            workload,
            source: Source::Mixed,
            clients,
            connections,
            pipeline: 0,
            slots: Vec::new(),
            outstanding: 0,
            dirty: Vec::new(),
            answered: Vec::new(),
            measurement: Measurement::default(),
            interval_ns: None,
        }
    }

    /// Begins a phase in which each client may have `pipeline` requests outstanding.
    pub fn begin(&mut self, source: Source, pipeline: usize) {
        assert_eq!(self.outstanding, 0, "the last phase was drained");
        self.source = source;
        self.pipeline = pipeline;
        self.slots.clear();
        self.slots.resize(self.clients.len() * pipeline, FREE);
        self.measurement = Measurement::default();
    }

    /// Clients of this thread.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// The connections, to send and receive on.
    pub fn connections(&mut self) -> &mut [Connection] {
        &mut self.connections
    }

    /// Unanswered requests.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The number in the run of the client that `connection` belongs to.
    pub fn client_number(&self, connection: u32) -> u64 {
        self.clients[connection as usize / self.fan].number
    }

    /// The first slot of a client.
    #[inline]
    pub fn first_slot(&self, client: u32) -> u32 {
        client * self.pipeline as u32
    }

    /// The client of a slot.
    #[inline]
    pub fn client_of(&self, slot: u32) -> u32 {
        slot / self.pipeline as u32
    }

    /// Encodes the next request of the source into its connection's buffer, as `slot`.
    #[inline]
    pub fn issue(&mut self, slot: u32, due_ns: u64, now_ns: u64) {
        let client = self.client_of(slot) as usize;
        let (action, key, sequence) = self.choose(client);
        self.put(slot, Slot { due_ns, sent_ns: now_ns, key, sequence, action, active: true });
        self.outstanding += 1;
    }

    /// Encodes `request` into its connection's buffer, as `slot`.
    #[inline]
    fn put(&mut self, slot: u32, request: Slot) {
        let Slot { key, sequence, action, .. } = request;
        let core = if self.fan > 1 { self.owner(key) } else { 0 };
        let at = self.client_of(slot) as usize * self.fan + usize::from(core);
        let connection = &mut self.connections[at];
        match action {
            Action::Get => self.encoder.get(&mut connection.out, slot, key),
            Action::Set => {
                let value = self.encoder.set(&mut connection.out, slot, key);
                if let Some(ledger) = &self.setting.ledger {
                    ledger.name_value(&mut connection.out[value], key, sequence);
                }
            }
        }
        if self.setting.protocol != Protocol::Native {
            connection.order.push_back(slot);
        }
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(at as u32);
        }
        debug_assert!(!self.slots[slot as usize].active, "a slot holds one request");
        self.slots[slot as usize] = request;
    }

    fn choose(&mut self, client: usize) -> (Action, u64, u32) {
        let action = match &self.source {
            Source::Mixed => self.workload.action(),
            Source::WriteEach(_) => Action::Set,
        };
        let key = self.choose_key(client);
        let Some(ledger) = self.setting.ledger.clone() else { return (action, key, 0) };
        if action == Action::Get {
            return (action, key, ledger.floor(key));
        }
        if let Some(sequence) = ledger.claim(key) {
            return (action, key, sequence);
        }
        for _ in 1..MAX_CLAIMS {
            let other = self.choose_key(client);
            if let Some(sequence) = ledger.claim(other) {
                return (action, other, sequence);
            }
        }
        self.measurement.deferred_sets += 1;
        (Action::Get, key, ledger.floor(key))
    }

    #[inline]
    fn choose_key(&mut self, client: usize) -> u64 {
        if let Source::WriteEach(keys) = &mut self.source {
            return keys.next().expect("as many requests as keys");
        }
        match self.setting.foreign_share {
            None => self.workload.key(),
            Some(share) => self.choose_local_or_foreign_key(client, share),
        }
    }

    fn choose_local_or_foreign_key(&mut self, client: usize, share: f64) -> u64 {
        let Client { home, ref mut foreign_owed, .. } = self.clients[client];
        *foreign_owed += share;
        let foreign = *foreign_owed >= 1.0;
        if foreign {
            *foreign_owed -= 1.0;
            self.measurement.foreign += 1;
        }
        let mut key = self.workload.key();
        let mut draws = 1;
        while (self.owner(key) != home) != foreign {
            // It was checked before the run that every core owns a key, so this ends.
            key = if draws < MAX_DRAWS { self.workload.key() } else { (key + 1) % self.setting.keys };
            draws += 1;
        }
        key
    }

    fn owner(&mut self, key: u64) -> u16 {
        let Setting { shards, form, .. } = &mut self.setting;
        shards.as_ref().expect("routing has a shard map").owner(form.key(key))
    }

    /// Takes what `connection` received, at `now_ns`.
    ///
    /// # Errors
    /// The server sent what cannot be a reply, or answers what was not asked.
    #[inline]
    pub fn receive(&mut self, connection: u32, bytes: &[u8], now_ns: u64) -> Result<(), WireError> {
        self.measurement.received_bytes += bytes.len() as u64;
        let mut partial = std::mem::take(&mut self.connections[connection as usize].partial);
        if partial.is_empty() {
            let consumed = self.take_replies(connection, bytes, now_ns)?;
            partial.extend_from_slice(&bytes[consumed..]);
        } else {
            partial.extend_from_slice(bytes);
            let consumed = self.take_replies(connection, &partial, now_ns)?;
            partial.drain(..consumed);
        }
        self.connections[connection as usize].partial = partial;
        Ok(())
    }

    fn take_replies(&mut self, connection: u32, input: &[u8], now_ns: u64) -> Result<usize, WireError> {
        let mut at = 0;
        match self.setting.protocol {
            Protocol::Native => {
                while let Some((consumed, id, reply)) = native::reply(&input[at..])? {
                    at += consumed;
                    if id as usize >= self.slots.len() || self.client_of(id) as usize != connection as usize / self.fan
                    {
                        return Err(unasked(id, reply));
                    }
                    self.complete(id, reply, now_ns)?;
                }
            }
            Protocol::Resp => {
                while let Some((consumed, reply)) = resp::reply(&input[at..])? {
                    at += consumed;
                    self.complete_oldest(connection, reply, now_ns)?;
                }
            }
            Protocol::Memcached => {
                while let Some((consumed, reply)) = memcached::reply(&input[at..])? {
                    at += consumed;
                    self.complete_oldest(connection, reply, now_ns)?;
                }
            }
        }
        Ok(at)
    }

    #[inline]
    fn complete_oldest(&mut self, connection: u32, reply: Reply<'_>, now_ns: u64) -> Result<(), WireError> {
        let order = &mut self.connections[connection as usize].order;
        let slot = order.pop_front().ok_or_else(|| WireError("a reply to no request".to_owned()))?;
        self.complete(slot, reply, now_ns)
    }

    #[inline]
    fn complete(&mut self, slot: u32, reply: Reply<'_>, now_ns: u64) -> Result<(), WireError> {
        let request = &mut self.slots[slot as usize];
        if !request.active {
            return Err(WireError(format!("a second reply to request {slot}")));
        }
        request.active = false;
        let Slot { due_ns, key, sequence, action, .. } = *request;
        match (action, reply) {
            // A RESP server may answer a read with a simple string; one that keeps nothing (the floor) always does.
            (Action::Get, Reply::Value(_) | Reply::Missing | Reply::Stored) | (Action::Set, Reply::Stored) => {
                let latency_ns = now_ns.saturating_sub(due_ns);
                self.measurement.answered(action, latency_ns);
                if let Some(interval_ns) = &mut self.interval_ns {
                    interval_ns.saturating_record(latency_ns);
                }
            }
            (_, Reply::Error { code, message }) => self.measurement.failed(code, message),
            (action, reply) => return Err(WireError(format!("{reply:?} answers a {action:?}"))),
        }
        self.measurement.missing += u64::from(reply == Reply::Missing);
        if self.setting.fills && reply == Reply::Missing {
            // The client goes on only when its cache has been filled: the slot stays its.
            self.measurement.fills += 1;
            self.put(slot, Slot { due_ns: now_ns, sent_ns: now_ns, key, sequence, action: Action::Set, active: true });
            return Ok(());
        }
        self.outstanding -= 1;
        self.answered.push(slot);
        if let Some(ledger) = self.setting.ledger.clone() {
            match action {
                Action::Set => ledger.settle(key, sequence, reply == Reply::Stored),
                Action::Get => self.check_read(&ledger, key, sequence, reply),
            }
        }
        Ok(())
    }

    fn check_read(&mut self, ledger: &Ledger, key: u64, floor: u32, reply: Reply<'_>) {
        let found = match reply {
            Reply::Missing => None,
            Reply::Value(value) => Some(match self.setting.protocol {
                // A value of another type is not one of this run's.
                Protocol::Native => native::payload(value).unwrap_or_default(),
                Protocol::Resp | Protocol::Memcached => value,
            }),
            // Not a value that this program writes.
            Reply::Stored => Some(&[][..]),
            Reply::Error { .. } => return,
        };
        match ledger.check(key, floor, found, self.setting.value_bytes) {
            Ok(Verified::Checked) => self.measurement.verified += 1,
            Ok(Verified::NothingToCompare) => self.measurement.unverified += 1,
            Err(violation) => {
                let name = self.setting.form.key(key).escape_ascii().to_string();
                self.measurement.violated(|| format!("{name}: {violation}"));
            }
        }
    }

    /// A connection has nothing more to send for now.
    #[inline]
    pub fn clean(&mut self, connection: u32) {
        self.connections[connection as usize].dirty = false;
    }

    /// A send of `connection` has ended; `buffer` was its.
    #[inline]
    pub fn sent(&mut self, connection: u32, mut buffer: Vec<u8>) {
        let state = &mut self.connections[connection as usize];
        buffer.clear();
        state.spare = buffer;
        state.sending = false;
        if !state.out.is_empty() && !state.dirty {
            state.dirty = true;
            self.dirty.push(connection);
        }
    }

    /// Whether requests have been outstanding for longer than `timeout`.
    pub fn overdue(&self, now_ns: u64, timeout: Duration) -> Option<Trouble> {
        let limit_ns = timeout.as_nanos() as u64;
        let late = |slot: &&Slot| slot.active && now_ns.saturating_sub(slot.sent_ns) > limit_ns;
        match self.slots.iter().filter(late).count() as u64 {
            0 => None,
            count => Some(Trouble::Timeout { count, timeout }),
        }
    }

    /// How much later than due the request of `slot` was sent goes into the measurement.
    #[inline]
    pub fn note_lateness(&mut self, due_ns: u64, now_ns: u64) {
        self.measurement.lateness_ns.saturating_record(now_ns.saturating_sub(due_ns).max(1));
    }
}
