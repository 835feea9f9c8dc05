//! Requests with a large value: received into the value file, then set like any other.
//!
//! Place in the flow: step 2 (decode) on the core that holds the connection; step 5 (execute) begins when all of the
//! value is there. From then on `uploads` carries it into the log.
//!
//! ```text
//! RESP     *3 $3 SET $3 key $67108864 | value ............ | \r\n    what stands before the value is parsed as soon as
//! native   frame, list, key, 07 len   | value ............ | tail    it is there; the value goes to a region:
//!
//! region   | 07 len | value ............ | \r\n or tail |      one stored value, and what is left of the request
//! ```
//!
//! Invariants:
//! - While a large value comes, its connection takes nothing else, and none of its bytes is in a receive buffer: the
//!   ring has stopped filling those before it fills the region.
//! - A value that is refused, at its beginning or in its midst, is thrown away byte for byte, so the stream goes on
//!   behind it.
//! - A value counts what of it has come and the step that is next, not what it announced: so nobody fills the memory,
//!   or has others' keys evicted, with a few bytes.
//! - On the core that owns the key, the parts that are there are logged while the rest comes.

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use eyot_protocol::command::{Command, Condition, NewExpiry, Value};
use eyot_protocol::limits::MAX_VALUE_BYTES;
use eyot_protocol::native::{decode_request, large_set, split_frame, without_value, Split};
use eyot_protocol::request::{Operation, Request};
use eyot_protocol::resp::{parse, Args, BigBulk, RespRequest, Shape};
use eyot_protocol::tlv::{encoded_bytes_of_bytes, Encoder};
use eyot_protocol::value_part::UploadId;
use eyot_protocol::ErrorCode;
use eyot_ring::{MappedRegion, Ring};

use super::execute::Terms;
use super::requests::Home;
use super::Work;
use crate::memory::incoming::STEP_BYTES;
use crate::memory::large_values::INLINE_BYTES;
use crate::memory::{Incoming, IncomingStep};
use crate::net::connection::{LargeInput, Receiving, Stage};
use crate::replication::WriteAck;
use crate::router::mesh::{ForwardedKind, ForwardedRequest};
use crate::router::{Form, Reply, ReplySink, ReplyTo};
use crate::security::admit::{DISK_IS_FULL, NO_SPACE_FOR_VALUE};
use crate::shard::Failure;

/// The upload that a command names while nobody has given it one.
const NO_UPLOAD: UploadId = UploadId(0);

/// What is left to learn of a request when its value is there.
#[derive(Debug)]
enum Rest {
    /// A RESP request: the command is known; a line end must follow the value.
    Resp {
        /// The command, as it stands in an entry, naming no upload yet.
        command: Vec<u8>,
        terms: Terms,
    },
    /// A native frame: what stood before the value. Expiry and condition follow it.
    Native { head: Vec<u8> },
}

/// A request whose large value comes.
#[derive(Debug)]
pub(super) struct LargeRequest {
    to: ReplyTo,
    home: Home,
    rest: Rest,
    incoming: Incoming,
    /// Bytes of the encoded value.
    value_bytes: usize,
    /// Bytes that it counts in the ledger.
    charged_bytes: usize,
    /// The bytes of the step that is with the ring: where they go in it, and how many are wanted.
    receiving: Option<(usize, usize)>,
    /// The upload that carries it into the log; `None` where another core owns the key.
    pub upload: Option<UploadId>,
    /// Why it will not be set, although it is received.
    pub refused: Option<(ErrorCode, &'static str)>,
}

impl LargeRequest {
    /// Bytes that have come, of it and of what follows it.
    pub fn bytes_come(&self) -> usize {
        self.incoming.total_bytes() - self.incoming.missing_bytes()
    }

    /// The encoded value, as far as it is there.
    pub fn value_filled(&self) -> &[u8] {
        let filled = self.incoming.filled();
        &filled[..filled.len().min(self.value_bytes)]
    }
}

/// The requests of a core whose large values come, by connection.
#[derive(Debug, Default)]
pub(super) struct LargeRequests {
    by_connection: HashMap<u32, LargeRequest>,
    /// The sum of what each is charged.
    charged_bytes: u64,
}

impl LargeRequests {
    fn insert(&mut self, key: u32, request: LargeRequest) {
        self.charged_bytes += request.charged_bytes as u64;
        self.by_connection.insert(key, request);
    }

    fn remove(&mut self, key: u32) -> Option<LargeRequest> {
        let request = self.by_connection.remove(&key)?;
        self.charged_bytes -= request.charged_bytes as u64;
        Some(request)
    }

    fn charge(&mut self, key: u32, bytes: usize) {
        if let Some(request) = self.by_connection.get_mut(&key) {
            request.charged_bytes += bytes;
            self.charged_bytes += bytes as u64;
        }
    }

    /// The one of connection `key`.
    pub fn get(&self, key: u32) -> Option<&LargeRequest> {
        self.by_connection.get(&key)
    }

    /// The one of connection `key`.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut LargeRequest> {
        self.by_connection.get_mut(&key)
    }
}

/// The beginning of a request with a large value.
struct Beginning<'a> {
    to: ReplyTo,
    home: Home,
    rest: Rest,
    /// The encoded value's bytes, as far as they came, behind `tlv_head`.
    tlv_head: Vec<u8>,
    came: &'a [u8],
    value_bytes: usize,
    tail_bytes: usize,
}

impl Work {
    /// Begins a RESP request of which all but the end of its last argument has come. `false`: its value belongs
    /// elsewhere, and the request is waited for as any other.
    pub(super) fn begin_large_resp(&mut self, key: u32, args: Args<'_>, input: &[u8], bulk: &BigBulk) -> bool {
        let Ok(parsed) = parse(args.with_last(&[]), self.clock.wall_us()) else { return false };
        let RespRequest::Write { command: Command::Set { key: name, expiry, condition, return_old, .. }, shape } =
            parsed.request
        else {
            return false;
        };
        let value_bytes = encoded_bytes_of_bytes(bulk.value_bytes);
        let Some(region) = self.region_for(value_bytes + LINE_END.len()) else { return false };
        let after_own_writes = self.connections.get_mut(key).writes_in_flight > 0;
        self.connections.get_mut(key).session.resp().last_command = Some(parsed.id);
        let to = self.begin_resp(key, Operation::Set, shape == Shape::Flag, 1);
        let terms = Terms { ack: WriteAck::Applied, after_own_writes, deadline_us: u64::MAX };
        let rest = Rest::Resp { command: set_upload(name, expiry, condition, return_old, NO_UPLOAD), terms };
        let mut tlv_head = Vec::new();
        Encoder::new(&mut tlv_head).bytes_head(bulk.value_bytes);
        let came = &input[bulk.value_start..];
        let home = self.home(name);
        let tail_bytes = LINE_END.len();
        self.begin_large(Beginning { to, home, rest, tlv_head, came, value_bytes, tail_bytes }, region);
        true
    }

    /// Begins a native SET of which the frame's beginning has come; `false` as above.
    pub(super) fn begin_large_native(&mut self, key: u32, input: &[u8]) -> bool {
        let Some(values) = &self.large_values else { return false };
        let Some(set) = large_set(input, values.threshold_bytes(), self.max_value_bytes) else { return false };
        let Some(region) = self.region_for(set.value_bytes + set.tail_bytes) else { return false };
        let home = self.home(set.key);
        let to = self.begin(key, Operation::Set, Form::Native, set.header.request_id, 1);
        let (head, came) = input.split_at(set.value_start);
        let rest = Rest::Native { head: head.to_vec() };
        let (value_bytes, tail_bytes) = (set.value_bytes, set.tail_bytes);
        let beginning = Beginning { to, home, rest, tlv_head: Vec::new(), came, value_bytes, tail_bytes };
        self.begin_large(beginning, region);
        true
    }

    fn region_for(&mut self, bytes: usize) -> Option<MappedRegion> {
        let values = self.large_values.as_mut()?;
        if values.takes(bytes) {
            values.allocate(bytes)
        } else {
            None
        }
    }

    fn begin_large(&mut self, beginning: Beginning<'_>, region: MappedRegion) {
        let Beginning { to, home, rest, tlv_head: mut head, came, value_bytes, tail_bytes } = beginning;
        let total_bytes = value_bytes + tail_bytes;
        let came = &came[..came.len().min(total_bytes - head.len())];
        head.extend_from_slice(came);
        let owned = home.0.core == self.core;
        let first_bytes = value_bytes.min(STEP_BYTES.max(head.len()));
        if let Err((code, message)) = self.admit_coming(value_bytes, first_bytes, owned) {
            drop(region);
            self.outlet().reply(&to, Reply::Error(code, message));
            let missing = total_bytes - head.len();
            let connection = self.connections.get_mut(to.key);
            connection.large = if missing > 0 { LargeInput::Refused(missing) } else { LargeInput::None };
            return;
        }
        let incoming = Incoming::new(region, head, total_bytes);
        let upload = owned.then(|| self.open_upload(to.key, to.generation, home.0.local_shard, value_bytes));
        let (charged_bytes, receiving, refused) = (first_bytes, None, None);
        let request = LargeRequest { to, home, rest, incoming, value_bytes, charged_bytes, receiving, upload, refused };
        self.large_requests.insert(to.key, request);
        let connection = self.connections.get_mut(to.key);
        connection.large = LargeInput::Coming;
        // Until it is answered, too: a pipeline's later requests are taken after it.
        connection.barrier = true;
        self.connections.review(to.key);
    }

    /// Whether a value may begin to come, and, if this core owns its key, be logged. It takes room for its first step
    /// alone; where nothing can be evicted for the rest, there must be room for all of it now.
    fn admit_coming(&mut self, bytes: usize, first_bytes: usize, owned: bool) -> Result<(), (ErrorCode, &'static str)> {
        is_storable(bytes)?;
        let growth = if self.may_make_room(bytes) { first_bytes } else { bytes };
        self.make_room(first_bytes);
        self.budget.admit(growth, bytes)?;
        if owned && !self.log.has_segment_for(bytes) {
            return Err((ErrorCode::NoSpace, DISK_IS_FULL));
        }
        self.budget.take(first_bytes, 0);
        Ok(())
    }

    /// Takes room for the next step of the large value of connection `key`; `false`: there is none, and the value is
    /// refused.
    fn take_step(&mut self, key: u32) -> bool {
        let Some(request) = self.large_requests.get(key) else { return true };
        let reach = request.incoming.bytes_with_next_step().min(request.value_bytes);
        let growth = reach.saturating_sub(request.charged_bytes);
        if growth == 0 {
            return true;
        }
        self.make_room(growth);
        if let Err((code, message)) = self.budget.admit_memory(growth) {
            self.refuse_coming(key, code, message);
            return false;
        }
        self.budget.take(growth, 0);
        self.large_requests.charge(key, growth);
        true
    }

    /// Refuses a value in its midst: what has come gives its place back, and what is missing is thrown away.
    fn refuse_coming(&mut self, key: u32, code: ErrorCode, message: &'static str) {
        let Some(request) = self.large_requests.remove(key) else { return };
        self.uploads.note_news(request.upload);
        self.outlet().reply(&request.to, Reply::Error(code, message));
        let missing = request.incoming.missing_bytes();
        let connection = self.connections.get_mut(key);
        connection.large = if missing > 0 { LargeInput::Refused(missing) } else { LargeInput::None };
        self.connections.review(key);
    }

    /// Whether a value that is there may be kept, and, if this core owns its key, be logged.
    pub(super) fn admit_large(&mut self, bytes: usize, owned: bool) -> Result<(), (ErrorCode, &'static str)> {
        is_storable(bytes)?;
        self.make_room(bytes);
        self.budget.admit(bytes, bytes)?;
        if owned && !self.log.has_segment_for(bytes) {
            return Err((ErrorCode::NoSpace, DISK_IS_FULL));
        }
        // Of the log it takes nothing at once: its parts enter as there is room for them.
        self.budget.take(bytes, 0);
        Ok(())
    }

    /// Takes bytes of connection `key` that belong to a large value; returns those behind it.
    pub(super) fn large_bytes<'a>(&mut self, key: u32, bytes: &'a [u8]) -> &'a [u8] {
        let connection = self.connections.get_mut(key);
        match connection.large {
            LargeInput::None => bytes,
            LargeInput::Refused(missing) => {
                let refused = missing.min(bytes.len());
                let missing = missing - refused;
                connection.large = if missing > 0 { LargeInput::Refused(missing) } else { LargeInput::None };
                &bytes[refused..]
            }
            LargeInput::Coming => match self.large_requests.get_mut(key) {
                Some(request) if !request.incoming.has_come() => request.incoming.add_head(bytes),
                _ => bytes,
            },
        }
    }

    /// Bytes of values that come, or are on their way into the log: no entry counts them yet.
    pub(super) fn arriving_bytes(&self) -> u64 {
        self.large_requests.charged_bytes + self.uploads.whole_bytes()
    }

    /// Starts what is next for the large value of connection `key`, if it can be.
    pub(super) fn drive_large(&mut self, ring: &mut Ring, key: u32) {
        let connection = self.connections.get_mut(key);
        if connection.large != LargeInput::Coming || connection.region_with_ring {
            return;
        }
        if connection.stage != Stage::Open {
            self.give_up_large(key);
            return;
        }
        let Some(request) = self.large_requests.get_mut(key) else { return };
        if connection.receiving != Receiving::Stopped && !request.incoming.has_come() {
            return;
        }
        if request.refused.is_none() && !self.take_step(key) {
            return;
        }
        let connection = self.connections.get_mut(key);
        let Some(request) = self.large_requests.get_mut(key) else { return };
        match request.incoming.next_step() {
            IncomingStep::Populate(region) => {
                connection.region_with_ring = true;
                ring.populate(u64::from(key), region);
            }
            IncomingStep::Receive { region, filled, at_most } => {
                if connection.peer_closed {
                    // What is missing will never come.
                    drop(region);
                    self.give_up_large(key);
                    return;
                }
                connection.region_with_ring = true;
                request.receiving = Some((filled, at_most));
                // Pages that are not in memory are waited for by a worker, and so is what takes long to copy.
                let ready =
                    region.is_filled() && at_most <= INLINE_BYTES && region.is_resident(filled..filled + at_most);
                ring.receive_into(connection.socket.as_raw_fd(), key, region, filled, at_most, !ready);
            }
            IncomingStep::Wait => {}
            IncomingStep::Done => self.finish_large(key),
        }
    }

    /// Drops the large value of connection `key`, which ends with it: what of it was logged is given up.
    pub(super) fn give_up_large(&mut self, key: u32) {
        if let Some(request) = self.large_requests.remove(key) {
            // Its upload, if it had one, is given up.
            self.uploads.note_news(request.upload);
        }
        self.connections.get_mut(key).large = LargeInput::None;
        self.connections.end(key);
    }

    /// The pages for a part of the large value of connection `key` are there, or cannot be.
    #[allow(clippy::needless_pass_by_value)] // As the event brings it.
    pub(super) fn populated(&mut self, key: u32, region: MappedRegion, result: std::io::Result<()>) {
        self.connections.get_mut(key).region_with_ring = false;
        self.connections.review(key);
        let Some(request) = self.large_requests.get_mut(key) else { return };
        match result {
            Ok(()) => request.incoming.populated(region),
            Err(_) => {
                request.incoming.refused(region, 0);
                self.refuse_coming(key, ErrorCode::NoSpace, NO_SPACE_FOR_VALUE);
            }
        }
    }

    /// A part of the large value of connection `key` has come, or the stream has ended.
    pub(super) fn received_into(&mut self, key: u32, region: MappedRegion, result: std::io::Result<usize>) {
        let now_us = self.clock.monotonic_us();
        let connection = self.connections.get_mut(key);
        connection.region_with_ring = false;
        connection.heard_us = now_us;
        self.metrics.counters.received(&result);
        self.connections.review(key);
        let Some(request) = self.large_requests.get_mut(key) else { return };
        let (filled, at_most) = request.receiving.take().expect("a receive was under way");
        self.uploads.note_news(request.upload);
        match result {
            Ok(count) if count > 0 => request.incoming.received(region, filled, at_most, count),
            // Its pages could not be had: the disk is full. A receive that fails so takes nothing from the stream; one
            // that had taken something before ends short, and the next one fails.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                request.incoming.refused(region, filled);
                self.refuse_coming(key, ErrorCode::NoSpace, NO_SPACE_FOR_VALUE);
            }
            // The client is gone, in the middle of its request.
            _ => self.give_up_large(key),
        }
    }

    /// All of the request is there: it is executed.
    fn finish_large(&mut self, key: u32) {
        let request = self.large_requests.remove(key).expect("one that comes");
        self.uploads.note_news(request.upload);
        self.connections.get_mut(key).large = LargeInput::None;
        let LargeRequest { to, home, rest, incoming, value_bytes, upload, refused, .. } = request;
        let tail = incoming.filled()[value_bytes..].to_vec();
        let (command, terms) = match self.finished(key, &to, rest, &tail) {
            Ok(finished) => finished,
            Err(reply) => {
                if let Some((code, message)) = reply {
                    self.metrics.errors += 1;
                    self.outlet().reply(&to, Reply::Error(code, message));
                }
                return;
            }
        };
        if let Some((code, message)) = refused {
            self.outlet().reply(&to, Reply::Error(code, message));
            return;
        }
        let value = incoming.finish(value_bytes);
        let (route, _) = home;
        if let Some(upload) = upload {
            self.upload_has_come(upload, to, command, terms.ack, terms.deadline_us, value);
        } else if self.mesh.may_forward(route.core) {
            self.metrics.forwarded += 1;
            let head = ForwardedRequest {
                reply_to: to,
                deadline_us: terms.deadline_us,
                bytes: 0,
                slot: route.slot,
                local_shard: route.local_shard,
                kind: ForwardedKind::Large,
                ack: terms.ack,
                after_own_writes: terms.after_own_writes,
            };
            self.mesh.forward_large(route.core, head, &command, value);
        } else {
            let message = "the core that owns the key is behind; not applied. Retry with backoff";
            self.outlet().reply(&to, Reply::Error(ErrorCode::Busy, message));
        }
    }

    /// What a request says beside its value. An error is what it is to be answered with; `None`: its stream has failed.
    #[allow(clippy::type_complexity)] // A command and its terms, or why not.
    fn finished(
        &mut self,
        key: u32,
        to: &ReplyTo,
        rest: Rest,
        tail: &[u8],
    ) -> Result<(Vec<u8>, Terms), Option<(ErrorCode, &'static str)>> {
        let head = match rest {
            Rest::Resp { command, terms } if tail == LINE_END => return Ok((command, terms)),
            Rest::Resp { .. } => {
                self.fail_resp_value(key, to);
                return Err(None);
            }
            Rest::Native { head } => head,
        };
        let frame = without_value(&head, tail);
        let Ok(Split::Frame { frame, .. }) = split_frame(&frame, self.max_frame_bytes) else {
            unreachable!("a frame that was put together")
        };
        let (set, options) = match decode_request(&frame, self.max_value_bytes) {
            Ok((_, options)) if self.refuses(&options) => {
                let message =
                    "this server answers from memory (--sync-writes=false) and cannot promise more; not applied";
                return Err(Some((ErrorCode::UnsupportedFeature, message)));
            }
            Ok((Request::Set(set), options)) => (set, options),
            Ok(_) => unreachable!("only a SET has a large value"),
            Err(error) => return Err(Some((error.code, "expiry or condition of SET: see the protocol; not applied"))),
        };
        let after_own_writes = self.connections.get_mut(key).writes_in_flight > 1;
        let expiry = super::native::absolute(set.expiry, self.clock.wall_us());
        let command = set_upload(set.key, expiry, set.condition, false, NO_UPLOAD);
        Ok((command, self.terms(&options, after_own_writes)))
    }
}

/// Whether an entry of the log can hold a value of `bytes`. The head of its encoding is more than was asked about where
/// its length was compared with the setting.
fn is_storable(bytes: usize) -> Result<(), (ErrorCode, &'static str)> {
    if bytes > MAX_VALUE_BYTES {
        return Err((Failure::TooLarge.code(), Failure::TooLarge.message()));
    }
    Ok(())
}

/// What follows a RESP bulk.
const LINE_END: &[u8] = b"\r\n";

/// The bytes of a SET of an upload.
fn set_upload(key: &[u8], expiry: NewExpiry, condition: Condition, return_old: bool, upload: UploadId) -> Vec<u8> {
    let mut bytes = Vec::new();
    Command::Set { key, value: Value::Upload(upload), expiry, condition, return_old }.encode(&mut bytes);
    bytes
}
