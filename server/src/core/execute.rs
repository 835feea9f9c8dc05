//! Executing requests on keys: here, or on the core that owns the key.
//!
//! Place in the flow: steps 3 (admit), 4 (route) and 5 (execute), for every wire; and on the owning core for what
//! another core has forwarded.
//!
//! Invariant: a write is a log command from here on. What another core forwards is the command's own bytes, so both
//! ways into the log's entry are one.

use eyot_protocol::command::Command;
use eyot_protocol::key::slot;
use eyot_protocol::limits::MAX_KEY_BYTES;
use eyot_protocol::request::KeyQuery;
use eyot_protocol::ErrorCode;

use super::requests::Home;
use super::Work;
use crate::replication::{Cost, Read, ReadProgress, ShardDriver, WriteAck};
use crate::router::mesh::{ForwardedKind, ForwardedRequest, RequestBatch};
use crate::router::scatter::Combine;
use crate::router::{is_write, Reply, ReplySink, ReplyTo, Route};
use crate::security::admit::{COUNTED_RETURN_BYTES, DISK_IS_FULL, MAX_RETURNED_BYTES};
use crate::shard::{Failure, Place};

/// A request on the keys of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyRequest<'a> {
    /// A read of one key.
    Read {
        /// The key.
        key: &'a [u8],
        /// What is asked.
        query: KeyQuery,
    },
    /// A write.
    Write(Command<'a>),
}

/// How a request is to be executed, beside what it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// When a write is answered.
    pub ack: WriteAck,
    /// Whether the connection has writes that are not answered.
    pub after_own_writes: bool,
    /// Not to be executed after this time of the node's monotonic clock; `u64::MAX`: any time.
    pub deadline_us: u64,
}

impl Work {
    /// Sends a request to where its key lives.
    #[inline]
    pub(super) fn dispatch(&mut self, to: &ReplyTo, request: &KeyRequest<'_>, terms: Terms, home: Home) {
        let (route, place) = home;
        if let Some(place) = place {
            match request {
                KeyRequest::Read { key, query } => {
                    let read = Read { place, key, query: *query, after_own_writes: terms.after_own_writes };
                    self.take_read(to, route.local_shard, &read, terms.deadline_us);
                }
                KeyRequest::Write(command) => {
                    self.write(to, route.local_shard, command, place, terms.ack, terms.deadline_us);
                }
            }
        } else {
            self.forward(to, request, terms, route);
        }
    }

    fn forward(&mut self, to: &ReplyTo, request: &KeyRequest<'_>, terms: Terms, route: Route) {
        // It travels as it would stand in an entry.
        if matches!(request, KeyRequest::Write(command) if !has_encoding(command, command.encoded_bytes())) {
            self.refuse_too_long(to);
            return;
        }
        if !self.mesh.may_forward(route.core) {
            let message = "the core that owns the key is behind; not applied. Retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        self.metrics.forwarded += 1;
        if !to.gathered && !is_write(to.operation) {
            self.connections.get_mut(to.key).awaited_reads += 1;
        }
        let head = ForwardedRequest {
            reply_to: *to,
            deadline_us: terms.deadline_us,
            bytes: 0,
            slot: route.slot,
            local_shard: route.local_shard,
            ack: terms.ack,
            after_own_writes: terms.after_own_writes,
            kind: ForwardedKind::Write,
        };
        match request {
            KeyRequest::Read { key, query } => self.mesh.forward_read(route.core, head, key, *query),
            KeyRequest::Write(command) => self.mesh.forward_write(route.core, head, command),
        }
    }

    /// Takes a read of a key of this core.
    #[inline]
    fn take_read(&mut self, to: &ReplyTo, local_shard: u16, read: &Read<'_>, deadline_us: u64) {
        if read.after_own_writes {
            self.read(to, local_shard, read, deadline_us);
        } else {
            self.defer(to, local_shard, read, deadline_us);
        }
    }

    /// Executes a read of a key of this core.
    #[inline]
    pub(super) fn read(&mut self, to: &ReplyTo, local_shard: u16, read: &Read<'_>, deadline_us: u64) {
        if !self.is_late(to, deadline_us) && !self.waits_for_pages(to, local_shard, read, deadline_us) {
            self.read_now(to, local_shard, read);
        }
    }

    /// Executes a read that need not wait for memory.
    #[inline]
    pub(super) fn read_now(&mut self, to: &ReplyTo, local_shard: u16, read: &Read<'_>) {
        let now_us = self.clock.wall_us();
        loop {
            let (shards, _, mut outlet) = self.parts();
            match shards[usize::from(local_shard)].read(read, now_us, to, &mut outlet) {
                ReadProgress::Answered | ReadProgress::Waits => return,
                // At most once: after it, nothing of the open entry is left to wait for.
                ReadProgress::SealFirst => self.seal(local_shard),
            }
        }
    }

    /// Executes a write to keys of this core; `place` is that of its first key.
    #[inline]
    pub(super) fn write(
        &mut self,
        to: &ReplyTo,
        local_shard: u16,
        command: &Command<'_>,
        place: Place,
        ack: WriteAck,
        deadline_us: u64,
    ) {
        if self.is_late(to, deadline_us) {
            return;
        }
        // What a command makes of a text is bounded by this server's settings: at once where the length is known, by
        // the command itself where only the content tells it.
        let bounded;
        let text_bytes_max = self.resp_limits.bulk_bytes_max;
        let command = match *command {
            Command::SetRange { offset, bytes, .. } if offset as usize + bytes.len() > text_bytes_max => {
                self.refuse_too_long(to);
                return;
            }
            Command::Append { key, bytes, .. } => {
                bounded = Command::Append { key, bytes, length_max: Some(text_bytes_max as u32) };
                &bounded
            }
            _ => command,
        };
        let cost = self.shards[usize::from(local_shard)].cost_of(command, place);
        let (growth, bytes) = (cost.growth, command.encoded_bytes());
        if !has_encoding(command, bytes) {
            self.refuse_too_long(to);
            return;
        }
        if cost.returned >= COUNTED_RETURN_BYTES && self.returned_bytes() >= MAX_RETURNED_BYTES {
            let message = "too much is being returned by writes of this core; not applied. Retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        self.make_room(growth);
        let admitted = self
            .budget
            .admit(growth, bytes)
            .and_then(|()| self.log.has_segment_for(bytes).then_some(()).ok_or((ErrorCode::NoSpace, DISK_IS_FULL)));
        if let Err((code, message)) = admitted {
            self.outlet().reply(to, Reply::Error(code, message));
            return;
        }
        self.budget.take(growth, bytes);
        self.enter_write(to, local_shard, command, (place, &cost), ack);
    }

    #[cold]
    fn refuse_too_long(&mut self, to: &ReplyTo) {
        let too_large = Failure::TooLarge;
        self.outlet().reply(to, Reply::Error(too_large.code(), too_large.message()));
    }

    /// What the writes of this core that are not applied will return, in bytes.
    fn returned_bytes(&self) -> usize {
        self.shards.iter().map(ShardDriver::returned_bytes).sum()
    }

    /// Puts an admitted write into its shard's open entry; with its first key's place and what it will take.
    #[inline]
    pub(super) fn enter_write(
        &mut self,
        to: &ReplyTo,
        local_shard: u16,
        command: &Command<'_>,
        keyed: (Place, &Cost),
        ack: WriteAck,
    ) {
        let now_us = self.clock.wall_us();
        let shard = &mut self.shards[usize::from(local_shard)];
        if !shard.has_open_entry() {
            self.open_shards.push(local_shard);
        }
        shard.write(command, keyed, now_us, ack, *to);
        self.seal_if_full(local_shard);
    }

    /// Whether the request's deadline has passed; it is answered so.
    #[inline]
    pub(super) fn is_late(&mut self, to: &ReplyTo, deadline_us: u64) -> bool {
        let late = self.clock.monotonic_us() > deadline_us;
        if late {
            let message = "the deadline passed before the request was executed; not applied";
            self.outlet().reply(to, Reply::Error(ErrorCode::DeadlineExceeded, message));
        }
        late
    }

    /// Opens a gather of `parts` results for `to`; answers that there is no room for one.
    pub(super) fn open_gather(&mut self, to: &ReplyTo, combine: Combine, parts: usize) -> Option<(u32, u32)> {
        if self.gathers.has_room() {
            return Some(self.gathers.open(*to, combine, parts));
        }
        self.metrics.errors += 1;
        let message = "too many requests on many keys under way on this core; not applied. Retry with backoff";
        self.outlet().answer(to, parts as u32, |out| Reply::Error(ErrorCode::Busy, message).put_whole(to, out));
        None
    }

    /// Executes what another core has forwarded.
    pub(super) fn forwarded(&mut self, mut batch: Box<RequestBatch>) {
        let mut start = 0;
        let mut large = std::mem::take(&mut batch.large).into_iter();
        let (mut queries, mut keyspace) = (batch.queries.iter(), batch.keyspace.iter());
        for head in &batch.heads {
            let bytes = &batch.bytes[start..start + head.bytes as usize];
            start += bytes.len();
            let ForwardedRequest { reply_to: to, deadline_us, local_shard, after_own_writes, .. } = head;
            let shard = self.shards[usize::from(*local_shard)].shard();
            match head.request(bytes, &mut queries) {
                Some(KeyRequest::Read { key, query }) => {
                    let read =
                        Read { place: shard.place(head.slot, key), key, query, after_own_writes: *after_own_writes };
                    self.take_read(to, *local_shard, &read, *deadline_us);
                }
                Some(KeyRequest::Write(command)) => {
                    let place = command.key().map_or(Place::default(), |key| shard.place(slot(key), key));
                    self.write(to, *local_shard, &command, place, head.ack, *deadline_us);
                }
                None if head.kind == ForwardedKind::Large => {
                    let value = large.next().expect("a core of this process sends one for each such head");
                    self.large_set_of_other_core(head, bytes, value);
                }
                None => {
                    let request = keyspace.next().expect("a core of this process sends one for each such head");
                    self.keyspace(to, request);
                }
            }
        }
        self.flush_reads();
        self.mesh.recycle_requests(batch);
    }
}

/// Whether `command`, of so many `bytes` when encoded, can stand in an entry. A request may be longer than that where
/// the server takes the longest values that there are: their encoding has a head, and several values may be one
/// command.
#[inline]
fn has_encoding(command: &Command<'_>, bytes: usize) -> bool {
    // The smaller of the two limits: below it there is nothing to look at.
    bytes <= MAX_KEY_BYTES || command.is_within_limits()
}

impl ForwardedRequest {
    /// The request on keys whose `bytes` these are; `None`: it is one on all keys.
    fn request<'a>(&self, bytes: &'a [u8], queries: &mut std::slice::Iter<'_, KeyQuery>) -> Option<KeyRequest<'a>> {
        Some(match self.kind {
            ForwardedKind::Keyspace | ForwardedKind::Large => return None,
            ForwardedKind::Get => KeyRequest::Read { key: bytes, query: KeyQuery::Value },
            ForwardedKind::Query => {
                let query = *queries.next().expect("a core of this process sends a query for each such head");
                KeyRequest::Read { key: bytes, query }
            }
            ForwardedKind::Write => {
                KeyRequest::Write(Command::decode(bytes).expect("a command of this process decodes"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::command::{Condition, NewExpiry, PairList, Value};
    use eyot_protocol::limits::MAX_VALUE_BYTES;

    use super::*;

    /// What a request may bring at the longest setting; its pages are never touched.
    fn longest() -> Vec<u8> {
        vec![0; MAX_VALUE_BYTES]
    }

    #[test]
    fn what_decoding_would_refuse_has_no_encoding() {
        let (long, long_key) = (longest(), vec![0; MAX_KEY_BYTES + 1]);
        let set = |key, value| Command::Set {
            key,
            value: Value::Bytes(value),
            expiry: NewExpiry::Never,
            condition: Condition::Always,
            return_old: false,
        };
        let half = &long[..MAX_VALUE_BYTES / 2];
        let pairs = [(&b"a"[..], half), (&b"b"[..], half)];
        for (command, can) in [
            (set(b"k", b"v"), true),
            (set(b"k", &long[..MAX_VALUE_BYTES - 6]), true),
            (set(b"k", &long[..MAX_VALUE_BYTES - 5]), false),
            (set(b"k", &long), false),
            (set(&long_key, b""), false),
            (Command::Delete { key: &long_key }, false),
            (Command::Delete { key: &long_key[1..] }, true),
            (Command::Append { key: b"k", bytes: &long, length_max: None }, true),
            (Command::SetRange { key: b"k", offset: 0, bytes: &long }, true),
            (Command::SetAllIfAbsent { pairs: PairList::new(&pairs[..1]) }, true),
            (Command::SetAllIfAbsent { pairs: PairList::new(&pairs) }, false),
            (Command::Rename { from: b"k", to: &long_key, if_absent: false }, false),
        ] {
            assert_eq!(has_encoding(&command, command.encoded_bytes()), can);
            assert_eq!(command.is_within_limits(), can, "below the limit of keys nothing has to be looked at");
        }
    }
}
