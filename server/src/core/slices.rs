//! Requests on very many keys, taken apart over several turns.
//!
//! Place in the flow: step 4 (route), for MGET, MSET, DEL and the like over RESP. A request on a few keys is routed
//! where it is found; one on more than [`SLICE_KEYS`] is kept, and each turn routes a slice of it, so that no client
//! holds a core.
//!
//! Invariants:
//! - While a request is sliced, nothing else of its connection is taken, so its order holds.
//! - What is kept is bounded ([`MAX_SLICED_BYTES`]) and counted; a request beyond it is refused whole.

use std::collections::VecDeque;

use eyot_protocol::command::Command;
use eyot_protocol::request::{KeyQuery, Operation};
use eyot_protocol::resp::Args;
use eyot_protocol::ErrorCode;

use super::execute::{KeyRequest, Terms};
use super::resp::plain_set;
use super::Work;
use crate::router::scatter::Combine;
use crate::router::{Reply, ReplyTo};

/// Keys that are routed in one turn: some hundred microseconds.
pub const SLICE_KEYS: usize = 1024;
/// Keys of it that are routed in any case, however long the turn has already taken: between two looks at the clock.
const KEYS_PER_LOOK: usize = 128;
/// Arguments of requests that are sliced, in bytes, with the list of where they end. Beyond it `BUSY`; one alone may be
/// larger. More would only wait: a core routes a few million keys a second.
pub const MAX_SLICED_BYTES: usize = 64 << 20;

/// What is done with each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Each {
    /// A read.
    Read(KeyQuery),
    /// A removal.
    Delete,
    /// A write of the value that follows the key.
    Set,
}

impl Each {
    /// Arguments that one key takes.
    fn arguments(self) -> usize {
        if self == Self::Set {
            2
        } else {
            1
        }
    }

    /// The class that each part is counted in.
    fn operation(self) -> Operation {
        match self {
            Self::Read(KeyQuery::Value) => Operation::Get,
            Self::Read(KeyQuery::Exists) => Operation::Exists,
            Self::Read(_) => Operation::Query,
            Self::Delete => Operation::Delete,
            Self::Set => Operation::Set,
        }
    }

    fn request<'a>(self, key: &'a [u8], value: &'a [u8]) -> KeyRequest<'a> {
        match self {
            Self::Read(query) => KeyRequest::Read { key, query },
            Self::Delete => KeyRequest::Write(Command::Delete { key }),
            Self::Set => KeyRequest::Write(plain_set(key, value)),
        }
    }
}

/// The requests of which some keys are not routed yet.
#[derive(Debug, Default)]
pub(super) struct SlicedRequests {
    queue: VecDeque<Sliced>,
    bytes: usize,
}

impl SlicedRequests {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Memory of their arguments.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one that takes `bytes` may be kept.
    fn has_room(&self, bytes: usize) -> bool {
        self.queue.is_empty() || self.bytes + bytes <= MAX_SLICED_BYTES
    }

    fn push(&mut self, sliced: Sliced) {
        self.bytes += sliced.memory_bytes();
        self.queue.push_back(sliced);
    }

    fn pop(&mut self) -> Option<Sliced> {
        let sliced = self.queue.pop_front()?;
        self.bytes -= sliced.memory_bytes();
        Some(sliced)
    }
}

/// A request of which some keys are not routed yet.
#[derive(Debug)]
struct Sliced {
    each: Each,
    part: ReplyTo,
    terms: Terms,
    /// The arguments, one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The key that is routed next.
    position: usize,
}

impl Sliced {
    /// A request on the keys of `args`, whose bytes are `bytes` in all.
    fn new(each: Each, part: ReplyTo, terms: Terms, args: Args<'_>, bytes: usize) -> Self {
        let (mut all, mut ends) = (Vec::with_capacity(bytes), Vec::with_capacity(args.len()));
        for argument in args.iter() {
            all.extend_from_slice(argument);
            ends.push(all.len());
        }
        Self { each, part, terms, bytes: all, ends, position: 0 }
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    fn argument(&self, place: usize) -> &[u8] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[start..self.ends[place]]
    }
}

impl Work {
    /// Takes a request on several keys apart.
    pub(super) fn scatter_resp(
        &mut self,
        key: u32,
        operation: Operation,
        combine: Combine,
        each: Each,
        args: Args<'_>,
        terms: Terms,
    ) {
        let count = args.len() / each.arguments();
        let is_sliced = count > SLICE_KEYS;
        let bytes = if is_sliced { args.iter().map(<[u8]>::len).sum() } else { 0 };
        let to = self.begin_resp(key, operation, false, count as u32);
        if is_sliced && !self.sliced.has_room(bytes + args.len() * size_of::<usize>()) {
            self.metrics.errors += 1;
            let message = "too many keys of such requests wait on this core; not applied. Retry with backoff";
            let error = Reply::Error(ErrorCode::Busy, message);
            return self.outlet().answer(&to, count as u32, |out| error.put_whole(&to, out));
        }
        let Some((gather, generation)) = self.open_gather(&to, combine, count) else { return };
        let part = self.part_of(&to, gather, generation);
        if is_sliced {
            self.connections.get_mut(key).barrier = true;
            self.sliced.push(Sliced::new(each, part, terms, args, bytes));
            return;
        }
        for position in 0..count {
            let first = position * each.arguments();
            let value = if each == Each::Set { args.at(first + 1) } else { &[] };
            self.dispatch_part(&part, position, each, args.at(first), value, terms);
        }
    }

    fn dispatch_part(&mut self, part: &ReplyTo, position: usize, each: Each, key: &[u8], value: &[u8], terms: Terms) {
        let part = ReplyTo { operation: each.operation(), number: position as u32, ..*part };
        let home = self.home(key);
        self.dispatch(&part, &each.request(key, value), terms, home);
    }

    /// Routes the next slice of the request whose turn it is.
    pub(super) fn route_slice(&mut self) {
        let Some(mut sliced) = self.sliced.pop() else { return };
        let arguments = sliced.each.arguments();
        let count = sliced.ends.len() / arguments;
        let end = count.min(sliced.position + SLICE_KEYS);
        for position in sliced.position..end {
            let first = position * arguments;
            let value = if sliced.each == Each::Set { sliced.argument(first + 1) } else { &[] };
            self.dispatch_part(&sliced.part, position, sliced.each, sliced.argument(first), value, sliced.terms);
            sliced.position = position + 1;
            if sliced.position.is_multiple_of(KEYS_PER_LOOK) && self.clock.is_over() {
                break;
            }
        }
        if sliced.position < count {
            self.sliced.push(sliced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::WriteAck;
    use crate::router::Form;
    use eyot_protocol::resp::{split_request, ArgList, RespLimits, Split, Unfinished};

    /// A request on `count` keys of 64 KiB.
    fn sliced(count: usize) -> Sliced {
        let key = [&b"$65536\r\n"[..], &[b'k'; 65_536], b"\r\n"].concat();
        let request = [format!("*{count}\r\n").into_bytes(), key.repeat(count)].concat();
        let (mut args, limits) = (ArgList::default(), RespLimits::new(1 << 20, 1 << 20));
        let split = split_request(&request, &limits, &mut args, &mut Unfinished::default());
        let Ok(Split::Request { request: spans, .. }) = split else { panic!("{split:?}") };
        let (core, key, generation, number, arrived_us) = (0, 0, 0, 0, 0);
        let (operation, gathered, form) = (Operation::Query, true, Form::Silent);
        let part = ReplyTo { core, operation, gathered, form, key, generation, number, arrived_us };
        let terms = Terms { ack: WriteAck::Applied, after_own_writes: false, deadline_us: u64::MAX };
        Sliced::new(Each::Delete, part, terms, args.of(spans, &request), count * 65_536)
    }

    #[test]
    fn what_is_kept_is_bounded_and_one_request_always_fits() {
        let mut requests = SlicedRequests::default();
        assert!(requests.has_room(2 * MAX_SLICED_BYTES));
        let one = sliced(100);
        assert_eq!((one.argument(99).len(), one.memory_bytes()), (65_536, 100 * (65_536 + 8)));
        let bytes = one.memory_bytes();
        requests.push(one);
        while requests.has_room(bytes) {
            requests.push(sliced(100));
        }
        assert_eq!(requests.queue.len(), MAX_SLICED_BYTES / bytes);
        assert!(!requests.has_room(2 * MAX_SLICED_BYTES) && requests.memory_bytes() <= MAX_SLICED_BYTES);
        while requests.pop().is_some() {}
        assert_eq!(requests.memory_bytes(), 0);
    }
}
