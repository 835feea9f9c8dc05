//! What a connection remembers: the frames that wait for the writer, and the requests that wait for a reply.
//!
//! Place in the flow: between the callers, the writer task and the reader task of one connection, under one short lock.
//!
//! Invariants:
//! - A request is in `pending` from the moment its frame is queued until its reply came or the connection broke. Its
//!   permit is held as long, also when its caller has given up: requests in flight stay bounded whatever the server
//!   does.
//! - The frame of a queued request may still be taken out, and then certainly never reaches the server. What the writer
//!   has taken counts as sent.
//!
//! Pure: no socket; the clock comes in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use eyot_protocol::error::ProtocolError;
use eyot_protocol::request::{Operation, RequestOptions};
use eyot_protocol::response::ReplyError;
use eyot_protocol::ErrorCode;
use tokio::sync::{oneshot, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::call::{Call, Reply};
use crate::error::{Error, Outcome};

/// A write buffer that grew beyond this for a large value is given back instead of being kept (1 MiB).
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// Why a connection is of no use any more.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The peer closed it, or the system reported an error.
    Broken(String),
    /// The peer sent what the protocol does not allow.
    Malformed(String),
    /// The server said why it closes the connection.
    Refused(ReplyError),
}

impl Cause {
    /// Whether the server turned the connection away without looking at what was sent on it.
    fn came_before_any_request(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some(ErrorCode::TooManyConnections))
    }

    pub(crate) fn error(&self, operation: Operation, address: &Arc<str>, outcome: Outcome) -> Error {
        let address = Arc::clone(address);
        match self {
            Self::Broken(reason) => Error::ConnectionLost { operation, address, reason: reason.clone(), outcome },
            Self::Malformed(reason) => Error::MalformedReply { operation, address, reason: reason.clone(), outcome },
            Self::Refused(error) => Error::Server { operation, address, error: error.clone(), outcome },
        }
    }
}

/// A request that waits for its reply.
pub(crate) struct Pending {
    pub(crate) operation: Operation,
    /// The operations of a BATCH.
    pub(crate) batch: Box<[Operation]>,
    pub(crate) write: bool,
    /// When the writer took its frame; `None`: still queued.
    pub(crate) sent_at: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
    /// Room for one request in flight.
    _in_flight: OwnedSemaphorePermit,
}

impl Pending {
    fn outcome(&self) -> Outcome {
        match (self.write, self.sent_at) {
            (false, _) => Outcome::Failed,
            (true, None) => Outcome::NotApplied,
            (true, Some(_)) => Outcome::Unknown,
        }
    }

    /// Ends the request, because the connection ends.
    pub(crate) fn fail(self, cause: &Cause, address: &Arc<str>) {
        let outcome = match self.outcome() {
            Outcome::Unknown if cause.came_before_any_request() => Outcome::NotApplied,
            outcome => outcome,
        };
        // A caller that has given up does not listen.
        let _ = self.reply.send(Err(cause.error(self.operation, address, outcome)));
    }
}

/// A frame in `State::out` that the writer has not taken.
struct Queued {
    id: u32,
    bytes: usize,
    /// Room for its bytes.
    _room: OwnedSemaphorePermit,
}

/// What the writer takes at once.
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    /// Given back when the bytes are written.
    _room: VecDeque<Queued>,
}

/// What became of a request whose caller does not wait any longer.
pub(crate) struct GivenUp {
    pub(crate) outcome: Outcome,
    pub(crate) waiting_for: &'static str,
}

#[derive(Default)]
pub(crate) struct State {
    /// Set once, and then nothing is queued any more.
    pub(crate) closed: Option<Cause>,
    /// No new request should use this connection: the server has not been heard on it for a whole timeout.
    pub(crate) retired: bool,
    last_id: u32,
    out: Vec<u8>,
    /// The frames in `out`, in order; their lengths add up to its length.
    queued: VecDeque<Queued>,
    pending: HashMap<u32, Pending>,
    pub(crate) heard_at: Option<Instant>,
}

impl State {
    /// Queues the frame of `call`. Returns its id and where its reply will come.
    pub(crate) fn enqueue(
        &mut self,
        call: &Call<'_>,
        options: &RequestOptions,
        in_flight: OwnedSemaphorePermit,
        room: OwnedSemaphorePermit,
    ) -> Result<(u32, oneshot::Receiver<Result<Reply, Error>>), ProtocolError> {
        let id = self.next_id();
        let before = self.out.len();
        call.encode(&mut self.out, id, options)?;
        self.queued.push_back(Queued { id, bytes: self.out.len() - before, _room: room });
        let (reply, receiver) = oneshot::channel();
        let pending = Pending {
            operation: call.operation(),
            batch: call.batch_operations(),
            write: call.is_write(),
            sent_at: None,
            reply,
            _in_flight: in_flight,
        };
        self.pending.insert(id, pending);
        Ok((id, receiver))
    }

    /// The next id that no request in flight has; never 0, by which a server speaks of the connection as a whole.
    /// Ends, since far fewer requests are in flight than there are ids.
    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.pending.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Takes everything that is queued, as one buffer. `spare` becomes the next queue's memory.
    pub(crate) fn take(&mut self, mut spare: Vec<u8>, now: Instant) -> Option<Taken> {
        if self.queued.is_empty() {
            return None;
        }
        for queued in &self.queued {
            if let Some(pending) = self.pending.get_mut(&queued.id) {
                pending.sent_at = Some(now);
            }
        }
        spare.clear();
        if spare.capacity() > KEPT_BUFFER_BYTES {
            spare = Vec::new();
        }
        Some(Taken { bytes: std::mem::replace(&mut self.out, spare), _room: std::mem::take(&mut self.queued) })
    }

    /// Hands over the request that a reply names; `None` where no such request was sent.
    pub(crate) fn answered(&mut self, id: u32) -> Option<Pending> {
        self.pending.get(&id)?.sent_at?;
        self.pending.remove(&id)
    }

    /// The caller of request `id` does not wait any longer. A frame that is still queued is taken out again.
    pub(crate) fn give_up(&mut self, id: u32) -> Option<GivenUp> {
        let pending = self.pending.get(&id)?;
        let outcome = pending.outcome();
        let Some(sent_at) = pending.sent_at else {
            self.remove_queued(id);
            self.pending.remove(&id);
            return Some(GivenUp { outcome, waiting_for: "the server took no more bytes" });
        };
        if self.heard_at.is_none_or(|heard_at| heard_at < sent_at) {
            self.retired = true;
        }
        Some(GivenUp { outcome, waiting_for: "no reply came" })
    }

    fn remove_queued(&mut self, id: u32) {
        let mut start = 0;
        for position in 0..self.queued.len() {
            let bytes = self.queued[position].bytes;
            if self.queued[position].id == id {
                self.out.drain(start..start + bytes);
                self.queued.remove(position);
                return;
            }
            start += bytes;
        }
    }

    /// Ends every request with `cause`. Only the first cause counts.
    pub(crate) fn close(&mut self, cause: Cause, address: &Arc<str>) {
        if self.closed.is_some() {
            return;
        }
        for (_, pending) in self.pending.drain() {
            pending.fail(&cause, address);
        }
        self.queued.clear();
        self.out = Vec::new();
        self.closed = Some(cause);
    }

    #[cfg(test)]
    fn queued_bytes(&self) -> usize {
        debug_assert_eq!(self.queued.iter().map(|queued| queued.bytes).sum::<usize>(), self.out.len());
        self.out.len()
    }
}

#[cfg(test)]
mod tests {
    use eyot_protocol::native::{split_frame, Split};
    use eyot_protocol::request::{Request, Set};
    use tokio::sync::Semaphore;

    use super::*;

    struct Fixture {
        state: State,
        in_flight: Arc<Semaphore>,
        room: Arc<Semaphore>,
    }

    type Receiver = oneshot::Receiver<Result<Reply, Error>>;

    impl Fixture {
        fn new() -> Self {
            Self {
                state: State::default(),
                in_flight: Arc::new(Semaphore::new(10)),
                room: Arc::new(Semaphore::new(10)),
            }
        }

        fn enqueue(&mut self, request: Request<'_>) -> (u32, Receiver) {
            let permit = |semaphore: &Arc<Semaphore>| Arc::clone(semaphore).try_acquire_owned().expect("room");
            let (in_flight, room) = (permit(&self.in_flight), permit(&self.room));
            self.state.enqueue(&Call::One(request), &RequestOptions::default(), in_flight, room).expect("encodes")
        }

        fn get(&mut self) -> (u32, Receiver) {
            self.enqueue(Request::Get { key: b"key" })
        }

        fn set(&mut self) -> (u32, Receiver) {
            self.enqueue(Request::Set(Set::new(b"key", &[0])))
        }
    }

    fn ids(mut bytes: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        while !bytes.is_empty() {
            let Ok(Split::Frame { frame, consumed }) = split_frame(bytes, 1_000) else {
                panic!("not a frame: {bytes:?}")
            };
            ids.push(frame.header.request_id);
            bytes = &bytes[consumed..];
        }
        ids
    }

    fn outcome(mut receiver: Receiver) -> Outcome {
        receiver.try_recv().expect("an answer").expect_err("an error").outcome()
    }

    #[test]
    fn queued_frames_are_taken_as_one_buffer() {
        let mut fixture = Fixture::new();
        let expected: Vec<u32> = (0..3).map(|_| fixture.get().0).collect();
        let taken = fixture.state.take(Vec::new(), Instant::now()).expect("frames");
        assert_eq!(ids(&taken.bytes), expected);
        assert_eq!(fixture.room.available_permits(), 7, "room comes back when the bytes are written");
        drop(taken);
        assert_eq!(fixture.room.available_permits(), 10);
        assert!(fixture.state.take(Vec::new(), Instant::now()).is_none());
    }

    #[test]
    fn giving_up_a_queued_write_takes_its_frame_out() {
        let mut fixture = Fixture::new();
        let (first, _a) = fixture.set();
        let (second, _b) = fixture.set();
        let (third, _c) = fixture.set();
        assert_eq!(fixture.state.give_up(second).expect("pending").outcome, Outcome::NotApplied);
        assert!(fixture.state.queued_bytes() > 0);
        let taken = fixture.state.take(Vec::new(), Instant::now()).expect("frames");
        assert_eq!(ids(&taken.bytes), [first, third]);
        assert_eq!(fixture.in_flight.available_permits(), 8);
    }

    #[test]
    fn giving_up_a_sent_write_is_unknown_and_keeps_its_room() {
        let mut fixture = Fixture::new();
        let (id, receiver) = fixture.set();
        fixture.state.take(Vec::new(), Instant::now());
        assert_eq!(fixture.state.give_up(id).expect("pending").outcome, Outcome::Unknown);
        drop(receiver);
        assert!(fixture.state.retired, "nothing was heard since it was sent");
        assert_eq!(fixture.in_flight.available_permits(), 9);
        assert!(fixture.state.answered(id).is_some(), "a late reply is still expected");
        assert_eq!(fixture.in_flight.available_permits(), 10);
    }

    #[test]
    fn a_connection_that_was_heard_is_not_retired() {
        let mut fixture = Fixture::new();
        let (id, _receiver) = fixture.get();
        let now = Instant::now();
        fixture.state.take(Vec::new(), now);
        fixture.state.heard_at = Some(now);
        assert_eq!(fixture.state.give_up(id).expect("pending").outcome, Outcome::Failed);
        assert!(!fixture.state.retired);
    }

    #[test]
    fn closing_tells_each_request_its_own_outcome() {
        let mut fixture = Fixture::new();
        let (_, sent_write) = fixture.set();
        let (_, sent_read) = fixture.get();
        fixture.state.take(Vec::new(), Instant::now());
        let (_, queued_write) = fixture.set();
        fixture.state.close(Cause::Broken("reset".to_owned()), &Arc::from("h:1"));
        assert_eq!(outcome(sent_write), Outcome::Unknown);
        assert_eq!(outcome(sent_read), Outcome::Failed);
        assert_eq!(outcome(queued_write), Outcome::NotApplied);
        assert_eq!((fixture.in_flight.available_permits(), fixture.room.available_permits()), (10, 10));
    }

    #[test]
    fn replies_to_what_was_not_sent_are_refused() {
        let mut fixture = Fixture::new();
        let (id, _receiver) = fixture.get();
        assert!(fixture.state.answered(id).is_none(), "still queued");
        assert!(fixture.state.answered(id + 1).is_none(), "never asked");
    }

    #[test]
    fn ids_wrap_around_zero_and_skip_those_in_flight() {
        let mut fixture = Fixture::new();
        let (first, _a) = fixture.get();
        assert_eq!(first, 1);
        fixture.state.last_id = u32::MAX;
        let (second, _b) = fixture.get();
        assert_eq!(second, 2);
    }
}
