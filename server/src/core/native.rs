//! Native frames: from bytes to requests.
//!
//! Place in the flow: step 2 (decode), on the core that holds the connection.

use eyot_protocol::command::{Command, NewExpiry, Value};
use eyot_protocol::native::batch::Batch;
use eyot_protocol::native::reply::{put_batch_head, put_error_reply, put_hello, put_reply};
use eyot_protocol::native::{decode_request, split_frame, Frame, Split};
use eyot_protocol::request::{AckLevel, Expiry, Hello, KeyQuery, Request, RequestOptions, Set};
use eyot_protocol::response::HelloReply;
use eyot_protocol::ErrorCode;

use super::execute::{KeyRequest, Terms};
use super::Work;
use crate::replication::WriteAck;
use crate::router::scatter::Combine;
use crate::router::{is_write, Form, Reply, ReplySink, ReplyTo};

/// Requests between two looks at the clock.
const REQUESTS_PER_LOOK: usize = 32;

impl Work {
    /// Executes the whole frames of `input`, until the connection is full. Returns how many bytes were consumed.
    pub(super) fn parse_native(&mut self, key: u32, input: &[u8]) -> usize {
        let (mut consumed, mut count) = (0, 0);
        loop {
            match split_frame(&input[consumed..], self.max_frame_bytes) {
                Ok(Split::Frame { frame, consumed: length }) => {
                    consumed += length;
                    self.native_request(key, &frame);
                }
                Ok(Split::Incomplete { needed }) => {
                    let input = &input[consumed..];
                    let is_large = self.large_values.as_ref().is_some_and(|values| values.takes(needed));
                    let begun = is_large && self.begin_large_native(key, input);
                    return if begun { consumed + input.len() } else { consumed };
                }
                Err(error) => {
                    self.fail_stream(key, 0, 0, error.code, &error.message);
                    return input.len();
                }
            }
            count += 1;
            if self.pauses(key) || (count % REQUESTS_PER_LOOK == 0 && self.must_yield(key)) {
                return consumed;
            }
        }
    }

    pub(super) fn native_request(&mut self, key: u32, frame: &Frame<'_>) {
        let header = frame.header;
        let decoded = decode_request(frame, self.max_value_bytes);
        let (request, options) = match &decoded {
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
        let after_own_writes = self.connections.get_mut(key).writes_in_flight > 0;
        let to = self.begin(key, request.operation(), Form::Native, header.request_id, operations_of(request));
        let terms = self.terms(options, after_own_writes);
        match request {
            Request::Get { .. } | Request::Set(_) | Request::Delete { .. } | Request::Exists { .. } => {
                let home = self.home(request.key().expect("a request on one key"));
                self.dispatch(&to, &on_one_key(request, self.clock.wall_us()), terms, home);
            }
            Request::Batch(batch) => self.scatter_batch(&to, batch, terms),
            Request::Ping { payload } => self.outlet().answer(&to, 1, |out| {
                put_reply(out, to.operation.code(), to.number, |out| out.extend_from_slice(payload));
            }),
            Request::Hello(hello) => self.hello(&to, hello),
            Request::Stats => self.ask_statistics(&to),
            Request::Snapshot(request) => self.snapshot_request(&to, *request),
        }
    }

    fn hello(&mut self, to: &ReplyTo, hello: &Hello<'_>) {
        tracing::debug!(core = self.core, client = hello.client, "hello");
        if let Err((code, message)) = self.authenticate_native(to.key, hello.credentials.as_ref()) {
            self.metrics.errors += 1;
            self.outlet().reply(to, Reply::Error(code, message));
            return;
        }
        let reply = HelloReply { core: self.core, ..self.shared.hello.clone() };
        self.outlet().answer(to, 1, |out| {
            put_reply(out, to.operation.code(), to.number, |out| put_hello(out, &reply));
        });
    }

    /// Whether more is asked for than the configuration can promise.
    #[inline]
    pub(super) fn refuses(&self, options: &RequestOptions) -> bool {
        matches!(options.ack, AckLevel::Fsync | AckLevel::Quorum) && !self.shared.settings.sync_writes
    }

    pub(super) fn terms(&self, options: &RequestOptions, after_own_writes: bool) -> Terms {
        let ack = if options.ack == AckLevel::Memory { WriteAck::Memory } else { WriteAck::Applied };
        let deadline_us = options.deadline_ms.map_or(u64::MAX, |ms| self.clock.monotonic_us() + u64::from(ms) * 1000);
        Terms { ack, after_own_writes, deadline_us }
    }

    /// Takes a BATCH apart.
    fn scatter_batch(&mut self, to: &ReplyTo, batch: &Batch<'_>, mut terms: Terms) {
        if batch.is_empty() {
            self.outlet().answer(to, 1, |out| {
                put_reply(out, to.operation.code(), to.number, |out| put_batch_head(out, 0));
            });
            return;
        }
        let Some((key, generation)) = self.open_gather(to, Combine::Array, batch.len()) else { return };
        let now_us = self.clock.wall_us();
        for (position, request) in batch.requests().enumerate() {
            let operation = request.operation();
            let part = ReplyTo { operation, gathered: true, key, generation, number: position as u32, ..*to };
            let home = self.home(request.key().expect("a batch is made of requests on keys"));
            self.dispatch(&part, &on_one_key(&request, now_us), terms, home);
            terms.after_own_writes |= is_write(operation);
        }
    }
}

/// A request on one key as it is executed.
#[inline]
fn on_one_key<'a>(request: &Request<'a>, now_us: i64) -> KeyRequest<'a> {
    match *request {
        Request::Get { key } => KeyRequest::Read { key, query: KeyQuery::Value },
        Request::Exists { key } => KeyRequest::Read { key, query: KeyQuery::Exists },
        Request::Delete { key } => KeyRequest::Write(Command::Delete { key }),
        Request::Set(Set { key, value, expiry, condition }) => KeyRequest::Write(Command::Set {
            key,
            value: Value::Encoded(value),
            expiry: absolute(expiry, now_us),
            condition,
            return_old: false,
        }),
        Request::Hello(_) | Request::Ping { .. } | Request::Batch(_) | Request::Stats | Request::Snapshot(_) => {
            unreachable!("not a request on one key")
        }
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

pub(super) fn absolute(expiry: Expiry, now_us: i64) -> NewExpiry {
    match expiry {
        Expiry::Never => NewExpiry::Never,
        Expiry::AtUs(at_us) => NewExpiry::At(at_us),
        Expiry::AfterMs(ms) => {
            let after_us = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000);
            NewExpiry::At(now_us.saturating_add(after_us))
        }
    }
}
