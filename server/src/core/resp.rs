//! RESP: from bytes to requests, and requests on keys to what executes them.
//!
//! Place in the flow: steps 2 (decode) and 4 (route), on the core that holds the connection. What is about the
//! connection or the server goes on in `admin`.
//!
//! Invariants:
//! - Every request takes a number in its connection's order and is answered exactly once, at once or later.
//! - A request on all keys, or one that is answered over several turns, begins when everything before it is answered,
//!   and nothing behind it is taken before it is: a pipeline sees what it would see if sent one by one.

use eyot_protocol::command::Command;
use eyot_protocol::key::SLOT_COUNT;
use eyot_protocol::request::{KeyQuery, Operation};
use eyot_protocol::resp::request::TypeFilter;
use eyot_protocol::resp::{
    parse, split_request, Args, Combine as Wanted, Parsed, RespError, RespRequest, Shape, Split, Writer,
};

use super::execute::{KeyRequest, Terms};
use super::slices::Each;
use super::Work;
use crate::metrics::heavy::HEAVY_BYTES;
use crate::replication::WriteAck;
use crate::router::keyspace::{KeyspaceRequest, OwnedScan};
use crate::router::mesh::{ForwardedKind, ForwardedRequest};
use crate::router::scatter::Combine;
use crate::router::{Form, ReplyTo, Route};
use crate::shard::{Place, ScanCursor};

/// Argument memory that is kept from request to request.
const ARGUMENT_BYTES_KEPT: usize = 64 * 1024;
/// Requests between two looks at the clock.
const REQUESTS_PER_LOOK: usize = 32;

impl Work {
    /// Executes the whole requests of `input`, until the connection is full. Returns how many bytes were consumed.
    pub(super) fn parse_resp(&mut self, key: u32, input: &[u8]) -> usize {
        let mut arguments = std::mem::take(&mut self.arguments);
        let mut unfinished = std::mem::take(&mut self.connections.get_mut(key).session.resp().unfinished);
        let (mut consumed, mut count) = (0, 0);
        while consumed < input.len() {
            arguments.clear();
            match split_request(&input[consumed..], &self.resp_limits, &mut arguments, &mut unfinished) {
                Ok(Split::Request { consumed: length, request }) => {
                    let args = arguments.of(request, &input[consumed..]);
                    if !self.resp_request(key, args, length) {
                        // Looked for again later, from its beginning.
                        break;
                    }
                    consumed += length;
                }
                Ok(Split::Empty { consumed: length }) => consumed += length,
                Ok(Split::Incomplete { big_bulk: Some(bulk), .. })
                    if self.begin_large_resp(
                        key,
                        arguments.of(bulk.request, &input[consumed..]),
                        &input[consumed..],
                        &bulk,
                    ) =>
                {
                    consumed = input.len();
                    break;
                }
                Ok(Split::Incomplete { .. }) => {
                    self.connections.get_mut(key).session.resp().unfinished = unfinished;
                    break;
                }
                Err(error) => {
                    self.fail_resp_stream(key, &error);
                    consumed = input.len();
                    break;
                }
            }
            count += 1;
            if self.pauses(key) || (count % REQUESTS_PER_LOOK == 0 && self.must_yield(key)) {
                break;
            }
        }
        arguments.clear();
        if arguments.capacity_bytes() > ARGUMENT_BYTES_KEPT {
            arguments.shrink_to_bytes(ARGUMENT_BYTES_KEPT);
        }
        self.arguments = arguments;
        consumed
    }

    /// Whether a request on all keys has to wait until what the connection has asked before is answered. It is looked
    /// at again then.
    fn must_wait(&mut self, key: u32, request: &RespRequest<'_>) -> bool {
        let alone = matches!(
            request,
            RespRequest::Scan(_)
                | RespRequest::Keys { .. }
                | RespRequest::DbSize
                | RespRequest::RandomKey
                | RespRequest::Flush
        );
        if !alone {
            return false;
        }
        self.flush_reads();
        let connection = self.connections.get_mut(key);
        connection.barrier = connection.in_flight > 0;
        let waits = connection.barrier;
        if waits {
            self.connections.review(key);
        }
        waits
    }

    pub(super) fn fail_resp_stream(&mut self, key: u32, error: &RespError) {
        let to = self.begin_resp(key, Operation::Admin, false, 1);
        self.metrics.errors += 1;
        self.say(&to, |writer| writer.error(error.line()));
        self.connections.finish_and_linger(key);
    }

    /// A bulk does not end where it said.
    pub(super) fn fail_resp_value(&mut self, key: u32, to: &ReplyTo) {
        self.metrics.errors += 1;
        let error = RespError::protocol("ERR Protocol error: invalid bulk length");
        self.say(to, |writer| writer.error(error.line()));
        self.connections.finish_and_linger(key);
    }

    /// Counts a request as taken, in its connection's order.
    #[inline]
    pub(super) fn begin_resp(&mut self, key: u32, operation: Operation, flag: bool, operations: u32) -> ReplyTo {
        let session = self.connections.get_mut(key).session.resp();
        let number = session.ordered.take_number();
        let form = match (session.take_reply_mode(), flag) {
            (false, _) => Form::Silent,
            (true, false) => Form::Resp(session.version),
            (true, true) => Form::RespFlag(session.version),
        };
        self.begin(key, operation, form, number, operations)
    }

    /// Executes one request, of `bytes` on the wire. `false`: it has to wait, and nothing behind it is taken before it.
    fn resp_request(&mut self, key: u32, args: Args<'_>, bytes: usize) -> bool {
        let parsed = match parse(args, self.clock.wall_us()) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.refuse_request(key, &error);
                return true;
            }
        };
        if self.must_wait(key, &parsed.request) {
            return false;
        }
        let connection = self.connections.get_mut(key);
        let after_own_writes = connection.writes_in_flight > 0;
        connection.session.resp().last_command = Some(parsed.id);
        self.metrics.commands.called(parsed.id as usize);
        let terms = Terms { ack: WriteAck::Applied, after_own_writes, deadline_us: u64::MAX };
        if is_quick(&parsed.request) && bytes < HEAVY_BYTES && !self.times_each {
            self.execute_resp(key, &parsed, terms);
        } else {
            self.execute_timed(key, args, &parsed, terms);
        }
        true
    }

    /// Answers what is no request that can be executed; hangs up where nothing behind it can be one.
    #[cold]
    pub(super) fn refuse_request(&mut self, key: u32, error: &RespError) {
        if error.closes_connection() {
            return self.fail_resp_stream(key, error);
        }
        let to = self.begin_resp(key, Operation::Admin, false, 1);
        self.refuse(&to, error);
    }

    pub(super) fn execute_resp(&mut self, key: u32, parsed: &Parsed<'_>, terms: Terms) {
        match &parsed.request {
            RespRequest::Read { key: name, query } => {
                let to = self.begin_resp(key, operation_of_query(*query), false, 1);
                let request = KeyRequest::Read { key: name, query: *query };
                let home = self.home(name);
                self.dispatch(&to, &request, terms, home);
            }
            RespRequest::Write { command, shape } => {
                let home = self.home(command.key().expect("FLUSH is a request of its own"));
                self.prefetch_write(home);
                let to = self.begin_resp(key, operation_of_command(command), *shape == Shape::Flag, 1);
                if command.returns_value() {
                    self.connections.get_mut(key).returning_writes += 1;
                }
                self.dispatch(&to, &KeyRequest::Write(*command), terms, home);
            }
            RespRequest::ReadEach { keys, query, combine } => {
                let combine = if *combine == Wanted::Sum { Combine::Sum } else { Combine::Array };
                self.scatter_resp(key, Operation::Query, combine, Each::Read(*query), *keys, terms);
            }
            RespRequest::DeleteEach { keys } => {
                self.scatter_resp(key, Operation::Batch, Combine::Sum, Each::Delete, *keys, terms);
            }
            RespRequest::SetEach { pairs } => {
                self.scatter_resp(key, Operation::Batch, Combine::AllDone, Each::Set, *pairs, terms);
            }
            RespRequest::Scan(scan) => {
                let to = self.begin_alone(key, Operation::Keyspace, 1);
                let request = OwnedScan {
                    asker: self.connections.get_mut(key).asks(),
                    count: usize::try_from(scan.count).unwrap_or(usize::MAX),
                    pattern: scan.pattern.map(Box::from),
                    filter: scan.filter,
                };
                let cursor = ScanCursor(scan.cursor);
                match u16::try_from(cursor.slot()).ok().filter(|slot| usize::from(*slot) < SLOT_COUNT) {
                    Some(slot) => {
                        let route = self.shared.routes.of_slot(slot);
                        self.ask_core(&to, route, KeyspaceRequest::Scan { cursor, request });
                    }
                    // No cursor that SCAN has given: the end, as Redis answers it.
                    None => self.outlet().answer(&to, 1, |out| put_scan_end(out, to.form)),
                }
            }
            RespRequest::Keys { pattern } => {
                let asker = self.connections.get_mut(key).asks();
                let (pattern, filter) = (Some(Box::from(*pattern)), TypeFilter::Any);
                let request = KeyspaceRequest::Walk(OwnedScan { asker, count: 0, pattern, filter });
                self.ask_keyspace(key, Combine::Keys, &request);
            }
            RespRequest::DbSize => self.ask_keyspace(key, Combine::Sum, &KeyspaceRequest::Count),
            RespRequest::RandomKey => {
                let at = self.random();
                self.ask_keyspace(key, Combine::RandomKey(at), &KeyspaceRequest::RandomKey(at));
            }
            RespRequest::Flush => self.flush_all(key, terms),
            other => self.admin_request(key, parsed.id, other),
        }
    }

    /// Where the parts of a gathered reply go.
    pub(super) fn part_of(&mut self, to: &ReplyTo, gather: u32, generation: u32) -> ReplyTo {
        // Parts are written even for a client that wants no reply: they are what is counted.
        let form = Form::Resp(self.connections.get_mut(to.key).session.resp().version);
        ReplyTo { gathered: true, form, key: gather, generation, ..*to }
    }

    /// Counts a request as taken before whose answer nothing else of the connection is taken.
    pub(super) fn begin_alone(&mut self, key: u32, operation: Operation, operations: u32) -> ReplyTo {
        let to = self.begin_resp(key, operation, false, operations);
        self.connections.get_mut(key).barrier = true;
        to
    }

    /// Asks every core the same of its keys.
    fn ask_keyspace(&mut self, key: u32, combine: Combine, request: &KeyspaceRequest) {
        let cores = self.mesh.core_count();
        let to = self.begin_alone(key, Operation::Keyspace, u32::from(cores));
        let Some((gather, generation)) = self.open_gather(&to, combine, usize::from(cores)) else { return };
        let part = self.part_of(&to, gather, generation);
        for core in 0..cores {
            let part = ReplyTo { number: u32::from(core), ..part };
            self.ask_core(&part, Route { slot: 0, core, local_shard: 0 }, request.clone());
        }
    }

    /// Asks the core of `route` something of its keys.
    pub(super) fn ask_core(&mut self, to: &ReplyTo, route: Route, request: KeyspaceRequest) {
        if route.core == self.core {
            self.keyspace(to, &request);
            return;
        }
        if !to.gathered {
            self.connections.get_mut(to.key).awaited_reads += 1;
        }
        let head = Self::keyspace_head(to, route, ForwardedKind::Keyspace);
        self.mesh.forward_keyspace(route.core, head, request);
    }

    fn keyspace_head(to: &ReplyTo, route: Route, kind: ForwardedKind) -> ForwardedRequest {
        ForwardedRequest {
            reply_to: *to,
            deadline_us: u64::MAX,
            bytes: 0,
            slot: route.slot,
            local_shard: route.local_shard,
            kind,
            ack: WriteAck::Applied,
            after_own_writes: false,
        }
    }

    /// Empties every shard, each by an entry of its own log.
    fn flush_all(&mut self, key: u32, terms: Terms) {
        let shared = std::sync::Arc::clone(&self.shared);
        let shards = shared.routes.shard_cores();
        let to = self.begin_alone(key, Operation::Batch, shards.len() as u32);
        let Some((gather, generation)) = self.open_gather(&to, Combine::AllDone, shards.len()) else { return };
        let part = self.part_of(&to, gather, generation);
        for (number, route) in shared.routes.shards().enumerate() {
            let part = ReplyTo { operation: Operation::Modify, number: number as u32, ..part };
            // The command has no key, so any place does.
            let place = (route.core == self.core).then(Place::default);
            self.dispatch(&part, &KeyRequest::Write(Command::Clear), terms, (route, place));
        }
    }

    /// Answers with what `put` writes.
    pub(super) fn say(&mut self, to: &ReplyTo, put: impl FnOnce(&mut Writer<'_>)) {
        let to = *to;
        self.outlet().answer(&to, 1, |out| {
            if let Form::Resp(version) | Form::RespFlag(version) = to.form {
                put(&mut Writer { out, version });
            }
        });
    }

    /// A request on one slot of whatever core.
    pub(super) fn ask_slot(&mut self, key: u32, slot: u16, request: KeyspaceRequest) {
        let to = self.begin_alone(key, Operation::Keyspace, 1);
        let route = self.shared.routes.of_slot(slot);
        self.ask_core(&to, route, request);
    }

    /// Answers an error of this request alone.
    pub(super) fn refuse(&mut self, to: &ReplyTo, error: &RespError) {
        self.metrics.errors += 1;
        self.metrics.commands.error(error.line().as_bytes());
        self.say(to, |writer| writer.error(error.line()));
    }

    /// A random number, for choices that decide nothing that is stored.
    pub(super) fn random(&mut self) -> u64 {
        self.random.next()
    }
}

/// Whether a request is on one key: so short, mostly, that looking at the clock would cost a good part of it. What it
/// takes beyond that is timed where it happens: see [`crate::metrics::heavy`].
#[inline]
fn is_quick(request: &RespRequest<'_>) -> bool {
    matches!(request, RespRequest::Read { .. } | RespRequest::Write { .. } | RespRequest::Ping(_))
}

/// SET without options.
pub(super) fn plain_set<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    use eyot_protocol::command::{Condition, NewExpiry, Value};
    Command::Set {
        key,
        value: Value::Bytes(value),
        expiry: NewExpiry::Never,
        condition: Condition::Always,
        return_old: false,
    }
}

fn put_scan_end(out: &mut Vec<u8>, form: Form) {
    if let Form::Resp(version) | Form::RespFlag(version) = form {
        let mut writer = Writer { out, version };
        writer.array(2);
        writer.bulk(b"0");
        writer.array(0);
    }
}

/// The class that a read is counted in.
#[inline]
fn operation_of_query(query: KeyQuery) -> Operation {
    match query {
        KeyQuery::Value => Operation::Get,
        KeyQuery::Exists => Operation::Exists,
        _ => Operation::Query,
    }
}

/// The class that a write is counted in.
#[inline]
fn operation_of_command(command: &Command<'_>) -> Operation {
    match command {
        Command::Set { .. } => Operation::Set,
        Command::Delete { .. } => Operation::Delete,
        _ => Operation::Modify,
    }
}
