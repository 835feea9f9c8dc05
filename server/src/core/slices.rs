//! Requests on very many keys, taken apart over several turns.
//!
//! Place in the flow: step 4 (route), for MGET, MSET, DEL and the like over RESP. A request on a few keys is routed
//! where it is found; one on more than [`SLICE_KEYS`] is kept, and each turn routes a slice of it, so that no client
//! holds a core.
//!
//! Invariant: while a request is sliced, nothing else of its connection is taken, so its order holds.

use eyot_protocol::command::Command;
use eyot_protocol::request::{KeyQuery, Operation};
use eyot_protocol::resp::Args;

use super::execute::{KeyRequest, Terms};
use super::resp::plain_set;
use super::Work;
use crate::router::scatter::Combine;
use crate::router::ReplyTo;

/// Keys that are routed in one turn: some hundred microseconds.
pub const SLICE_KEYS: usize = 1024;

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

/// A request of which some keys are not routed yet.
#[derive(Debug)]
pub(super) struct Sliced {
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
        let to = self.begin_resp(key, operation, false, count as u32);
        let Some((gather, generation)) = self.open_gather(&to, combine, count) else { return };
        let part = self.part_of(&to, gather, generation);
        if count > SLICE_KEYS {
            self.connections.get_mut(key).barrier = true;
            let mut sliced =
                Sliced { each, part, terms, bytes: Vec::new(), ends: Vec::with_capacity(args.len()), position: 0 };
            for argument in args.iter() {
                sliced.bytes.extend_from_slice(argument);
                sliced.ends.push(sliced.bytes.len());
            }
            self.sliced.push_back(sliced);
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
        let Some(mut sliced) = self.sliced.pop_front() else { return };
        let arguments = sliced.each.arguments();
        let count = sliced.ends.len() / arguments;
        let end = count.min(sliced.position + SLICE_KEYS);
        for position in sliced.position..end {
            let first = position * arguments;
            let value = if sliced.each == Each::Set { sliced.argument(first + 1) } else { &[] };
            self.dispatch_part(&sliced.part, position, sliced.each, sliced.argument(first), value, sliced.terms);
        }
        sliced.position = end;
        if end < count {
            self.sliced.push_back(sliced);
        }
    }
}
