//! One TCP connection that carries many requests, matched by request id.
//!
//! Place in the flow: the client's end of accept (1) and reply (9).
//!
//! ```text
//! callers --enqueue--> state (one buffer of frames) --take--> writer task --one write--> socket
//! callers <--oneshot-- state (pending by id) <--answered-- reader task <--frames-------- socket
//! ```
//!
//! Invariants:
//! - At most `max_in_flight` requests wait for a reply and at most [`QUEUED_BYTES_MAX`] wait for the writer (one larger
//!   frame may wait alone); further callers wait for room, and give up at their deadline.
//! - When the connection breaks, every request on it ends at once, each with its own outcome.
//! - Dropping the connection ends both tasks and closes the socket.

mod call;
mod state;
mod tasks;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use eyot_protocol::request::{Operation, RequestOptions};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{timeout, timeout_at, Instant};

pub(crate) use call::{request_bytes_max, Call, Reply, SnapshotAnswer};
use state::State;

use crate::error::{Error, Outcome};
use crate::options::Options;

/// Most bytes of frames that wait for the writer of one connection (8 MiB): enough to keep any network busy, little
/// enough that a server that does not read cannot make its clients grow.
pub(crate) const QUEUED_BYTES_MAX: u32 = 8 << 20;

/// How long a call may take, and how its error names that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    pub(crate) fn error(
        &self,
        operation: Operation,
        address: &Arc<str>,
        waiting_for: &'static str,
        outcome: Outcome,
    ) -> Error {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        Error::Timeout { operation, address: Arc::clone(address), timeout_ms, waiting_for, outcome }
    }

    /// Milliseconds that are left, at least 1.
    fn left_ms(&self) -> u32 {
        let left = self.at.saturating_duration_since(Instant::now());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }
}

/// What callers and both tasks share.
struct Shared {
    address: Arc<str>,
    state: Mutex<State>,
    /// Told when something was queued or the connection was closed.
    wake_writer: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}

/// One open connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    room: Arc<Semaphore>,
    tasks: [AbortHandle; 2],
    peer: Option<IpAddr>,
    /// Set when HELLO was answered, and the answer was taken notice of.
    pub(crate) introduced: OnceCell<()>,
}

impl Connection {
    /// Opens a connection to `address` and starts its tasks.
    pub(crate) async fn open(address: &Arc<str>, options: &Options) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Connect { address: Arc::clone(address), reason };
        let stream = match timeout(options.connect_timeout, TcpStream::connect(&**address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(refuse(error.to_string())),
            Err(_) => return Err(refuse(format!("no answer within {} ms", options.connect_timeout.as_millis()))),
        };
        // Frames are coalesced here already; waiting for more would only delay them.
        stream.set_nodelay(true).map_err(|error: io::Error| refuse(error.to_string()))?;
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        let (read_half, write_half) = stream.into_split();
        let shared = Arc::new(Shared {
            address: Arc::clone(address),
            state: Mutex::new(State::default()),
            wake_writer: Notify::new(),
        });
        let tasks = [
            tokio::spawn(tasks::write(Arc::clone(&shared), write_half)).abort_handle(),
            tokio::spawn(tasks::read(Arc::clone(&shared), read_half, options.max_reply_bytes)).abort_handle(),
        ];
        Ok(Self {
            shared,
            in_flight: Arc::new(Semaphore::new(options.max_in_flight)),
            room: Arc::new(Semaphore::new(QUEUED_BYTES_MAX as usize)),
            tasks,
            peer,
            introduced: OnceCell::new(),
        })
    }

    /// Whether a new request may use it.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.shared.state();
        state.closed.is_none() && !state.retired
    }

    /// Where the other end is.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Sends one call and waits for its reply. A reply that is an error is a [`Reply::Error`]. With `send_deadline` the
    /// server learns how long the call still has. A caller that stops waiting (drops the future) leaves it open whether
    /// a write is applied.
    pub(crate) async fn call(
        &self,
        call: &Call<'_>,
        mut options: RequestOptions,
        deadline: &Deadline,
        send_deadline: bool,
    ) -> Result<Reply, Error> {
        let (operation, address) = (call.operation(), &self.shared.address);
        let not_sent = if call.is_write() { Outcome::NotApplied } else { Outcome::Failed };
        let Ok((in_flight, room)) = timeout_at(deadline.at, self.make_room(call.frame_bytes_max())).await else {
            return Err(deadline.error(operation, address, "too many requests are in flight", not_sent));
        };
        if send_deadline {
            options.deadline_ms = Some(deadline.left_ms());
        }
        let (id, mut reply) = {
            let mut state = self.shared.state();
            if let Some(cause) = &state.closed {
                return Err(cause.error(operation, address, not_sent));
            }
            state.enqueue(call, &options, in_flight, room).map_err(Error::Invalid)?
        };
        self.shared.wake_writer.notify_one();
        if let Ok(answer) = timeout_at(deadline.at, &mut reply).await {
            return answer.expect("a request is answered before it is dropped");
        }
        let given_up = self.shared.state().give_up(id);
        match given_up {
            Some(given_up) => Err(deadline.error(operation, address, given_up.waiting_for, given_up.outcome)),
            // The reply came between the timeout and the lock.
            None => reply.await.expect("a request is answered before it is dropped"),
        }
    }

    /// Waits for room for one request and for its bytes. A frame that is larger than the whole queue takes all of it.
    async fn make_room(&self, frame_bytes: usize) -> (OwnedSemaphorePermit, OwnedSemaphorePermit) {
        let bytes = u32::try_from(frame_bytes).unwrap_or(u32::MAX).min(QUEUED_BYTES_MAX);
        let in_flight = Arc::clone(&self.in_flight).acquire_owned().await;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        (in_flight.expect("never closed"), room.expect("never closed"))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
