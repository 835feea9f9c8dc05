//! From bytes to executed requests.
//!
//! Place in the flow: steps 2 (decode) to 5 (execute), on the core that holds the connection; and step 5 again on the
//! core that owns the key, for what another core forwarded.
//!
//! Invariants:
//! - A request is decoded in place; it is copied only into the log's entry or into the batch for another core.
//! - Requests of one connection reach each shard in the order in which they came.

use eyot_protocol::command::{Command, NewExpiry, Value};
use eyot_protocol::error::ProtocolError;
use eyot_protocol::native::batch::Batch;
use eyot_protocol::native::reply::{put_error_reply, put_hello, put_reply, put_stats};
use eyot_protocol::native::{decode_request, split_frame, Frame, FrameHeader, Split};
use eyot_protocol::request::{AckLevel, Expiry, Hello, Operation, Request, RequestOptions, Set};
use eyot_protocol::response::HelloReply;
use eyot_protocol::ErrorCode;

use super::log::CoreLog;
use super::outlet::{is_write, Outlet};
use super::Work;
use crate::metrics::{report_json, CoreReport};
use crate::net::connection::Stage;
use crate::replication::{Read, ReadProgress, ShardDriver, WriteAck};
use crate::router::mesh::{ForwardedRequest, Message, RequestBatch, SetOptions};
use crate::router::{Reply, ReplySink, ReplyTo, Route};
use crate::security::admit::DISK_IS_FULL;
use crate::shard::Place;

/// Frames that are decoded before the first of them is executed.
const DECODE_AHEAD: usize = 32;
/// From this many on, asking for their memory ahead is worth the two extra passes.
const PREFETCH_FROM: usize = 4;

/// A frame that was decoded and is not executed yet.
struct Decoded<'a> {
    header: FrameHeader,
    request: Result<(Request<'a>, RequestOptions), ProtocolError>,
    /// Where its key lives, if it is a request on one key.
    home: Option<(Route, Option<Place>)>,
    /// Where it ends in the input.
    end: usize,
}

/// How a request on one key is to be executed, beside what it says.
#[derive(Debug, Clone, Copy)]
struct Terms {
    ack: WriteAck,
    after_own_writes: bool,
    deadline_us: u64,
}

impl Work {
    /// Takes what connection `key` has sent.
    pub(super) fn received(&mut self, key: u32, bytes: &[u8]) {
        if self.connections.get_mut(key).stage != Stage::Open {
            return;
        }
        if self.connections.get_mut(key).input.is_empty() && !self.connections.get_mut(key).is_full() {
            let consumed = self.parse(key, bytes);
            if consumed < bytes.len() {
                self.keep(key, &bytes[consumed..]);
            }
        } else {
            self.keep(key, bytes);
            self.parse_kept(key);
        }
    }

    fn keep(&mut self, key: u32, bytes: &[u8]) {
        if self.connections.get_mut(key).stage == Stage::Open && !self.connections.keep_input(key, bytes) {
            let message = "too many unfinished requests on this core; reconnect and retry with backoff";
            self.fail_stream(key, 0, 0, ErrorCode::Busy, message);
        }
    }

    /// Parses what connection `key` has sent and could not be parsed when it came.
    pub(super) fn parse_kept(&mut self, key: u32) {
        let connection = self.connections.get_mut(key);
        if connection.stage != Stage::Open || connection.is_full() || connection.input.is_empty() {
            return;
        }
        let input = self.connections.take_input(key);
        let consumed = self.parse(key, &input);
        self.connections.put_input_back(key, input, consumed);
    }

    /// Executes the whole frames of `input`, until the connection is full. Returns how many bytes were consumed.
    ///
    /// Frames are decoded a handful ahead, and the memory that their keys live in is asked for, before the first of
    /// them is executed: so the waits for memory overlap.
    fn parse(&mut self, key: u32, input: &[u8]) -> usize {
        let mut consumed = 0;
        loop {
            let mut ahead: [Option<Decoded<'_>>; DECODE_AHEAD] = [const { None }; DECODE_AHEAD];
            let (mut end, mut count, mut broken) = (consumed, 0, None);
            while count < DECODE_AHEAD {
                match split_frame(&input[end..], self.max_frame_bytes) {
                    Ok(Split::Frame { frame, consumed: length }) => {
                        end += length;
                        ahead[count] = Some(self.decode(&frame, end));
                        count += 1;
                    }
                    Ok(Split::Incomplete { .. }) => break,
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            if count >= PREFETCH_FROM {
                for decoded in ahead[..count].iter().flatten() {
                    // A write touches the table when its entry is applied, which asks for the memory itself.
                    let reads = matches!(decoded.request, Ok((Request::Get { .. } | Request::Exists { .. }, _)));
                    if let (true, Some((route, Some(place)))) = (reads, decoded.home) {
                        self.shards[usize::from(route.local_shard)].shard().prefetch(place);
                    }
                }
            }
            for decoded in ahead[..count].iter().flatten() {
                consumed = decoded.end;
                self.request(key, decoded);
                let connection = self.connections.get_mut(key);
                if connection.is_full() || connection.stage != Stage::Open {
                    self.connections.review(key);
                    return consumed;
                }
            }
            if let Some(error) = broken {
                self.fail_stream(key, 0, 0, error.code, &error.message);
                return input.len();
            }
            if count < DECODE_AHEAD {
                return consumed;
            }
        }
    }

    /// Decodes a frame, which ends at byte `end` of the input, and finds out where its key lives.
    #[inline]
    fn decode<'a>(&self, frame: &Frame<'a>, end: usize) -> Decoded<'a> {
        let request = decode_request(frame, self.max_value_bytes);
        let home = match &request {
            Ok((request, _)) => request.key().map(|key| self.home(key)),
            Err(_) => None,
        };
        Decoded { header: frame.header, request, home, end }
    }

    /// Where `key` lives; with its place in the table, if that is on this core.
    #[inline]
    fn home(&self, key: &[u8]) -> (Route, Option<Place>) {
        let route = self.shared.routes.route(key);
        let place = (route.core == self.core)
            .then(|| self.shards[usize::from(route.local_shard)].shard().place(route.slot, key));
        (route, place)
    }

    /// Tells connection `key` what is wrong with its stream, answers what it asked before, and closes.
    fn fail_stream(&mut self, key: u32, op: u8, request_id: u32, code: ErrorCode, message: &str) {
        self.metrics.errors += 1;
        put_error_reply(self.connections.output(key), op, request_id, code, message);
        self.connections.finish_and_linger(key);
    }

    fn request(&mut self, key: u32, decoded: &Decoded<'_>) {
        let header = decoded.header;
        let (request, options) = match &decoded.request {
            Ok((_, options)) if self.refuses(options) => {
                self.metrics.errors += 1;
                let message =
                    "this server answers from memory (--sync-writes=false) and cannot promise more; not applied";
                let output = self.connections.output(key);
                put_error_reply(output, header.op, header.request_id, ErrorCode::UnsupportedFeature, message);
                return;
            }
            Ok(decoded) => decoded,
            Err(error) if error.code.closes_connection() => {
                self.fail_stream(key, header.op, header.request_id, error.code, &error.message);
                return;
            }
            Err(error) => {
                self.metrics.errors += 1;
                let output = self.connections.output(key);
                put_error_reply(output, header.op, header.request_id, error.code, &error.message);
                return;
            }
        };
        let connection = self.connections.get_mut(key);
        let operation = request.operation();
        let after_own_writes = connection.writes_in_flight > 0;
        connection.in_flight += operations_of(request);
        connection.writes_in_flight += u32::from(is_write(operation));
        let to = ReplyTo {
            core: self.core,
            operation,
            gathered: false,
            key,
            generation: connection.generation,
            number: header.request_id,
            arrived_us: self.clock.monotonic_us(),
        };
        let terms = self.terms(options, after_own_writes);
        match request {
            Request::Get { .. } | Request::Set(_) | Request::Delete { .. } | Request::Exists { .. } => {
                let home = decoded.home.expect("found when it was decoded");
                self.dispatch(&to, request, terms, home);
            }
            Request::Batch(batch) => self.scatter(&to, batch, terms),
            Request::Ping { payload } => self.outlet().answer(&to, 1, |out| {
                put_reply(out, to.operation.code(), to.number, |out| out.extend_from_slice(payload));
            }),
            Request::Hello(hello) => self.hello(&to, hello),
            Request::Stats => self.ask_reports(&to),
        }
    }

    fn hello(&mut self, to: &ReplyTo, hello: &Hello<'_>) {
        tracing::debug!(core = self.core, client = hello.client, "hello");
        let reply = HelloReply { core: self.core, ..self.shared.hello.clone() };
        self.outlet().answer(to, 1, |out| {
            put_reply(out, to.operation.code(), to.number, |out| put_hello(out, &reply));
        });
    }

    /// Whether more is asked for than the configuration can promise.
    #[inline]
    fn refuses(&self, options: &RequestOptions) -> bool {
        matches!(options.ack, AckLevel::Fsync | AckLevel::Quorum) && !self.shared.settings.sync_writes
    }

    fn terms(&self, options: &RequestOptions, after_own_writes: bool) -> Terms {
        let ack = if options.ack == AckLevel::Memory { WriteAck::Memory } else { WriteAck::Applied };
        let deadline_us = options.deadline_ms.map_or(u64::MAX, |ms| self.clock.monotonic_us() + u64::from(ms) * 1000);
        Terms { ack, after_own_writes, deadline_us }
    }

    /// Sends a request on one key to where the key lives.
    #[inline]
    fn dispatch(&mut self, to: &ReplyTo, request: &Request<'_>, terms: Terms, home: (Route, Option<Place>)) {
        let (key, value, options) = match request {
            Request::Get { key } | Request::Exists { key } | Request::Delete { key } => {
                (*key, &[][..], SetOptions::default())
            }
            Request::Set(Set { key, value, expiry, condition }) => {
                (*key, *value, SetOptions { expiry: *expiry, condition: *condition })
            }
            Request::Hello(_) | Request::Ping { .. } | Request::Batch(_) | Request::Stats => {
                unreachable!("not a request on one key")
            }
        };
        let (route, place) = home;
        let head = ForwardedRequest {
            reply_to: *to,
            deadline_us: terms.deadline_us,
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
            slot: route.slot,
            local_shard: route.local_shard,
            ack: terms.ack,
            after_own_writes: terms.after_own_writes,
            has_options: false,
        };
        if let Some(place) = place {
            self.execute(&head, key, value, options, place);
        } else if self.mesh.may_forward(route.core) {
            self.metrics.forwarded += 1;
            if !to.gathered && !is_write(to.operation) {
                self.connections.get_mut(to.key).awaited_reads += 1;
            }
            self.mesh.forward(route.core, head, key, value, options);
        } else {
            let message = "the core that owns the key is behind; not applied. Retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
        }
    }

    /// Executes a request on a key of this core.
    #[inline]
    fn execute(&mut self, head: &ForwardedRequest, key: &[u8], value: &[u8], options: SetOptions, place: Place) {
        if self.clock.monotonic_us() > head.deadline_us {
            let message = "the deadline passed before the request was executed; not applied";
            self.outlet().reply(&head.reply_to, Reply::Error(ErrorCode::DeadlineExceeded, message));
            return;
        }
        let now_us = self.clock.wall_us();
        let command = match head.reply_to.operation {
            Operation::Get | Operation::Exists => {
                let exists_only = head.reply_to.operation == Operation::Exists;
                let read = Read { place, key, exists_only, after_own_writes: head.after_own_writes };
                self.read(head, &read, now_us);
                return;
            }
            Operation::Delete => Command::Delete { key },
            Operation::Set => {
                let expiry = absolute(options.expiry, now_us).map_or(NewExpiry::Never, NewExpiry::At);
                let value = Value::Encoded(value);
                Command::Set { key, value, expiry, condition: options.condition, return_old: false }
            }
            other => unreachable!("{other:?} is not an operation on one key"),
        };
        let bytes = if value.is_empty() { 0 } else { key.len() + value.len() };
        let admitted = self.budget.admit(bytes).and_then(|()| {
            let fits = self.log.has_segment_for(command.encoded_bytes());
            fits.then_some(()).ok_or((ErrorCode::NoSpace, DISK_IS_FULL))
        });
        if let Err((code, message)) = admitted {
            self.outlet().reply(&head.reply_to, Reply::Error(code, message));
            return;
        }
        self.budget.pending_log_bytes += command.encoded_bytes();
        let shard = &mut self.shards[usize::from(head.local_shard)];
        if !shard.has_open_entry() {
            self.open_shards.push(head.local_shard);
        }
        shard.write(&command, place, now_us, head.ack, head.reply_to);
        if shard.open_entry_is_full() {
            self.seal(head.local_shard);
        }
    }

    #[inline]
    fn read(&mut self, head: &ForwardedRequest, read: &Read<'_>, now_us: i64) {
        loop {
            let (shards, _, mut outlet) = self.parts();
            let driver = &mut shards[usize::from(head.local_shard)];
            match driver.read(read, now_us, &head.reply_to, &mut outlet) {
                ReadProgress::Answered | ReadProgress::Waits => return,
                // At most once: after it, nothing of the open entry is left to wait for.
                ReadProgress::SealFirst => self.seal(head.local_shard),
            }
        }
    }

    /// Takes a BATCH apart.
    fn scatter(&mut self, to: &ReplyTo, batch: &Batch<'_>, mut terms: Terms) {
        if batch.is_empty() {
            self.outlet().answer(to, 1, |out| {
                put_reply(out, to.operation.code(), to.number, |out| {
                    eyot_protocol::native::reply::put_batch_head(out, 0);
                });
            });
            return;
        }
        if !self.gathers.has_room() {
            let message = "too many batches under way on this core; not applied. Retry with backoff";
            self.metrics.errors += 1;
            self.outlet().answer(to, batch.len() as u32, |out| {
                put_error_reply(out, to.operation.code(), to.number, ErrorCode::Busy, message);
            });
            return;
        }
        let (key, generation) = self.gathers.open(*to, batch.len());
        for (position, request) in batch.requests().enumerate() {
            let operation = request.operation();
            let part = ReplyTo { operation, gathered: true, key, generation, number: position as u32, ..*to };
            let home = self.home(request.key().expect("a batch is made of requests on keys"));
            self.dispatch(&part, &request, terms, home);
            terms.after_own_writes |= is_write(operation);
        }
    }

    /// Takes what another core has sent.
    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Requests(batch) => self.forwarded(batch),
            Message::Replies(from, batch) => {
                self.mesh.answered(from, batch.heads.len());
                let mut outlet = self.outlet();
                let mut start = 0;
                for (to, length, failed) in &batch.heads {
                    let end = start + *length as usize;
                    outlet.encoded(to, &batch.bytes[start..end], *failed);
                    start = end;
                }
                self.mesh.recycle_replies(batch);
            }
            Message::ReportWanted(from, gather) => {
                let report = Box::new(self.report());
                self.mesh.post(from, Message::Report(gather, report));
            }
            Message::Report(gather, report) => self.put_report(gather, *report),
        }
    }

    fn forwarded(&mut self, batch: Box<RequestBatch>) {
        let mut start = 0;
        let mut options = batch.options.iter();
        for heads in batch.heads.chunks(DECODE_AHEAD) {
            let mut places = [None; DECODE_AHEAD];
            let mut end = start;
            for (head, place) in heads.iter().zip(&mut places) {
                let key = &batch.bytes[end..end + head.key_bytes as usize];
                let shard = self.shards[usize::from(head.local_shard)].shard();
                let found = shard.place(head.slot, key);
                shard.prefetch(found);
                *place = Some(found);
                end += (head.key_bytes + head.value_bytes) as usize;
            }
            for (head, place) in heads.iter().zip(places) {
                let key_end = start + head.key_bytes as usize;
                let end = key_end + head.value_bytes as usize;
                let place = place.expect("found above");
                let options = if head.has_options { options.next().copied() } else { None }.unwrap_or_default();
                self.execute(head, &batch.bytes[start..key_end], &batch.bytes[key_end..end], options, place);
                start = end;
            }
        }
        self.mesh.recycle_requests(batch);
    }

    fn ask_reports(&mut self, to: &ReplyTo) {
        if !self.gathers.has_room_for_reports() {
            let message = "statistics are being gathered for others; retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        let gather = self.gathers.open_reports(*to, usize::from(self.mesh.core_count()));
        for core in (0..self.mesh.core_count()).filter(|&core| core != self.core) {
            self.mesh.post(core, Message::ReportWanted(self.core, gather));
        }
        let report = self.report();
        self.put_report(gather, report);
    }

    fn put_report(&mut self, gather: u32, report: CoreReport) {
        if let Some((to, reports)) = self.gathers.put_report(gather, report) {
            let json = report_json(&self.shared.report, self.clock.uptime(), &reports);
            self.outlet().answer(&to, 1, |out| {
                put_reply(out, Operation::Stats.code(), to.number, |out| put_stats(out, &json));
            });
        }
    }

    fn report(&self) -> CoreReport {
        let sum = |figure: fn(&crate::shard::Shard) -> usize| -> u64 {
            self.shards.iter().map(|driver| figure(driver.shard()) as u64).sum()
        };
        CoreReport {
            core: self.core,
            processor: self.shared.settings.processors[usize::from(self.core)],
            keys: sum(crate::shard::Shard::key_count),
            expiring_keys: sum(crate::shard::Shard::expiring_key_count),
            memory_bytes: sum(crate::shard::Shard::memory_bytes),
            entries: self.shards.iter().map(|driver| driver.last_index().0).sum(),
            shards: self.shards.len() as u16,
            connections: self.connections.len() as u64,
            log_pending_bytes: self.log.pending_bytes() as u64,
            read_only: self.log.blocked().is_some(),
            metrics: self.metrics.snapshot(),
        }
    }

    /// The parts that replies pass through.
    #[inline]
    pub(super) fn outlet(&mut self) -> Outlet<'_> {
        self.parts().2
    }

    /// The shards, the log, and the parts that replies pass through: what executing and applying need at once.
    #[inline]
    pub(super) fn parts(&mut self) -> (&mut [ShardDriver], &mut CoreLog, Outlet<'_>) {
        let Self { core, max_frame_bytes, shards, log, connections, gathers, mesh, metrics, clock, .. } = self;
        let outlet = Outlet {
            core: *core,
            max_frame_bytes: *max_frame_bytes,
            connections,
            gathers,
            mesh,
            metrics,
            clock: *clock,
        };
        (shards, log, outlet)
    }
}

/// How much of [`crate::net::connection::MAX_IN_FLIGHT`] a request takes.
#[inline]
fn operations_of(request: &Request<'_>) -> u32 {
    match request {
        Request::Batch(batch) => (batch.len() as u32).max(1),
        _ => 1,
    }
}

fn absolute(expiry: Expiry, now_us: i64) -> Option<i64> {
    match expiry {
        Expiry::Never => None,
        Expiry::AtUs(at_us) => Some(at_us),
        Expiry::AfterMs(ms) => {
            let after_us = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000);
            Some(now_us.saturating_add(after_us))
        }
    }
}
