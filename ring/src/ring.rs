//! The ring itself: operations in, events out.
//!
//! Place in the flow: see the crate's head. Requires Linux 6.1 (`SINGLE_ISSUER`, `DEFER_TASKRUN`, multishot receive,
//! provided buffers).
//!
//! ```text
//! user_data   63       56 55                                             0
//!            | kind      | accept, receive, watch: the caller's token     |
//!            |           | send, write: the key of the owned buffer       |
//!            |           | mapped: the key of the owned region or value   |
//! ```
//!
//! Operations on mapped files stand in `ring/mapped.rs`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode, squeue, IoUring};
use slab::Slab;

use crate::receive_buffers::{ReceiveBuffers, BUFFER_GROUP};
use crate::{AlignedBuffer, MappedBytes, MappedRegion, ReceivedBytes};

mod mapped;

use mapped::Gathered;
pub use mapped::{MappedEvent, Piece, MAX_PIECES};

const KIND_SHIFT: u32 = 56;
const KIND_ACCEPT: u64 = 1 << KIND_SHIFT;
const KIND_RECEIVE: u64 = 2 << KIND_SHIFT;
const KIND_SEND: u64 = 3 << KIND_SHIFT;
const KIND_WRITE: u64 = 4 << KIND_SHIFT;
const KIND_WATCH: u64 = 5 << KIND_SHIFT;
/// A cancel request's own completion, which says nothing that the cancelled operation's does not.
const KIND_IGNORED: u64 = 6 << KIND_SHIFT;
const KIND_MAPPED: u64 = 7 << KIND_SHIFT;

/// Sizes of a ring.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Entries of the submission queue: what one turn can queue before an extra system call submits it.
    pub submission_entries: u32,
    /// Entries of the completion queue: what can be due at once before the kernel has to allocate.
    pub completion_entries: u32,
    /// Receive buffers, a power of two. Where they run out, the sockets keep the bytes.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer: the most that one completion can bring.
    pub receive_buffer_bytes: usize,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            submission_entries: 1024,
            completion_entries: 8192,
            // 256 of 16 KiB: 4 MiB a core, so that a turn's input stays in the second-level cache's reach.
            receive_buffers: 256,
            receive_buffer_bytes: 16 * 1024,
        }
    }
}

/// How long [`Ring::enter`] may wait for something to be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something is due, or for this long.
    For(Duration),
    /// Until something is due.
    Forever,
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received {
    /// Bytes, to be given back with [`Ring::recycle`].
    Bytes(ReceivedBytes),
    /// The other side has closed its half.
    Closed,
    /// No receive buffer was free. The bytes are still in the socket: receive again.
    NoBuffer,
    /// The receive was cancelled with [`Ring::cancel_receive`].
    Cancelled,
    /// The connection is broken.
    Failed(io::Error),
}

/// Something that is due. `armed`: the operation goes on by itself; where not, it must be started again.
#[derive(Debug)]
pub enum Event {
    /// A listener has a new connection, or could not take one.
    Accepted {
        /// The listener's token.
        token: u32,
        /// The connection.
        socket: io::Result<OwnedFd>,
        /// Whether the listener goes on accepting.
        armed: bool,
    },
    /// A connection has received something.
    Received {
        /// The connection's token.
        token: u32,
        /// What came.
        received: Received,
        /// Whether the connection goes on receiving.
        armed: bool,
    },
    /// A send has ended.
    Sent {
        /// The connection's token.
        token: u32,
        /// The bytes, for reuse.
        buffer: Vec<u8>,
        /// How many of them were sent.
        result: io::Result<usize>,
    },
    /// A file write has ended.
    Written {
        /// The write's token.
        token: u64,
        /// The bytes, for reuse.
        buffer: AlignedBuffer,
        /// How many of them were written.
        result: io::Result<usize>,
    },
    /// An operation on a mapped file has ended.
    Mapped(MappedEvent),
    /// A watched descriptor became readable.
    Woken {
        /// The watch's token.
        token: u32,
        /// Whether the watch goes on.
        armed: bool,
    },
}

/// Memory that the kernel reads from or writes to until its operation completes.
enum Owned {
    Send { token: u32, buffer: Vec<u8> },
    Write { token: u64, buffer: AlignedBuffer },
    ReceiveInto { token: u32, region: MappedRegion },
    SendPieces { token: u32, gathered: Box<Gathered> },
    Populate { token: u64, region: MappedRegion },
    PageIn { token: u64, value: MappedBytes },
    GiveBack { token: u64, region: MappedRegion },
}

/// One io_uring, used by one thread.
pub struct Ring {
    uring: IoUring,
    buffers: ReceiveBuffers,
    owned: Slab<Owned>,
    /// Submissions queued since the last enter.
    queued: u32,
    /// Submissions that the queue had no room for; they go first at the next enter.
    spilled: VecDeque<squeue::Entry>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ring")
            .field("owned", &self.owned.len())
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS`: io_uring is refused or missing; `EINVAL`: the kernel is older than 6.1; `ENOMEM`: the locked
    /// memory limit is too small.
    pub fn new(options: RingOptions) -> io::Result<Self> {
        let uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(options.completion_entries)
            .build(options.submission_entries)?;
        let buffers = ReceiveBuffers::register(&uring, options.receive_buffers, options.receive_buffer_bytes)?;
        Ok(Self { uring, buffers, owned: Slab::new(), queued: 0, spilled: VecDeque::new() })
    }

    /// Starts accepting on `listener`; each connection is an [`Event::Accepted`]. The socket comes with `CLOEXEC`.
    pub fn accept(&mut self, listener: RawFd, token: u32) {
        let entry = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.push(&entry.user_data(KIND_ACCEPT | u64::from(token)));
    }

    /// Stops accepting.
    pub fn cancel_accept(&mut self, token: u32) {
        let entry = opcode::AsyncCancel::new(KIND_ACCEPT | u64::from(token)).build();
        self.push(&entry.user_data(KIND_IGNORED));
    }

    /// Starts receiving on `socket`; each piece is an [`Event::Received`].
    pub fn receive(&mut self, socket: RawFd, token: u32) {
        let entry = opcode::RecvMulti::new(Fd(socket), BUFFER_GROUP).build();
        self.push(&entry.user_data(KIND_RECEIVE | u64::from(token)));
    }

    /// Stops receiving. What was received before still comes; the last event is not `armed`.
    pub fn cancel_receive(&mut self, token: u32) {
        let entry = opcode::AsyncCancel::new(KIND_RECEIVE | u64::from(token)).build();
        self.push(&entry.user_data(KIND_IGNORED));
    }

    /// Sends all of `buffer`; comes back as [`Event::Sent`].
    ///
    /// # Panics
    /// Over 2 GiB: no queue of replies may grow so far.
    pub fn send(&mut self, socket: RawFd, token: u32, buffer: Vec<u8>) {
        assert!(i32::try_from(buffer.len()).is_ok(), "a send of less than 2 GiB");
        let (start, length) = (buffer.as_ptr(), buffer.len() as u32);
        let key = self.owned.insert(Owned::Send { token, buffer });
        let entry = opcode::Send::new(Fd(socket), start, length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(KIND_SEND | key as u64);
        self.push(&entry);
    }

    /// Writes all of `buffer` at `offset` of `file`; comes back as [`Event::Written`].
    ///
    /// # Panics
    /// Over 2 GiB, which one write cannot carry.
    pub fn write(&mut self, file: RawFd, token: u64, buffer: AlignedBuffer, offset: u64) {
        assert!(i32::try_from(buffer.len()).is_ok(), "a write of less than 2 GiB");
        let (start, length) = (buffer.as_ptr(), buffer.len() as u32);
        let key = self.owned.insert(Owned::Write { token, buffer });
        let entry =
            opcode::Write::new(Fd(file), start, length).offset(offset).build().user_data(KIND_WRITE | key as u64);
        self.push(&entry);
    }

    /// Watches `descriptor` for readability; each time is an [`Event::Woken`].
    pub fn watch(&mut self, descriptor: RawFd, token: u32) {
        let entry = opcode::PollAdd::new(Fd(descriptor), libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(KIND_WATCH | u64::from(token)));
    }

    /// The received bytes, in place.
    #[inline]
    pub fn bytes<'a>(&'a self, received: &'a ReceivedBytes) -> &'a [u8] {
        self.buffers.bytes(received)
    }

    /// Gives a receive buffer back.
    #[inline]
    pub fn recycle(&mut self, received: ReceivedBytes) {
        self.buffers.recycle(received);
    }

    /// Whether completions are due, or would be after an enter: told without a system call.
    #[inline]
    pub fn has_due(&mut self) -> bool {
        let taskrun = self.uring.submission().taskrun();
        taskrun || !self.uring.completion().is_empty()
    }

    /// How many submissions wait for the next enter.
    pub fn queued(&self) -> u32 {
        self.queued + self.spilled.len() as u32
    }

    /// Submits what was queued and makes completions due; waits as `wait` says.
    ///
    /// # Errors
    /// Any that means that the ring itself is broken. Interruption and time-out are none.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        const GETEVENTS: u32 = 1;
        self.buffers.publish();
        while self.spilled.front().is_some_and(|entry| Self::try_push(&mut self.uring, entry)) {
            self.spilled.pop_front();
            self.queued += 1;
        }
        // What is still spilled must not wait for something that only it can bring.
        let wait = if self.spilled.is_empty() { wait } else { Wait::No };
        let outcome = match wait {
            Wait::No => {
                // SAFETY: no argument is passed, so there is no memory to be wrong.
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(self.queued, 0, GETEVENTS, None) }
            }
            Wait::Forever => {
                // SAFETY: as above.
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(self.queued, 1, GETEVENTS, None) }
            }
            Wait::For(duration) => {
                let timeout = Timespec::from(duration);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        match outcome {
            Ok(submitted) => {
                self.queued = self.queued.saturating_sub(submitted as u32);
                Ok(())
            }
            Err(error) => {
                // How many were taken before the error is in the queue itself.
                self.queued = self.uring.submission().len() as u32;
                match error.raw_os_error() {
                    // EBUSY, EAGAIN: completions must be reaped first, which the caller does next.
                    Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    /// Moves at most `limit` due events to `events`.
    pub fn reap(&mut self, limit: usize, events: &mut Vec<Event>) {
        let Self { uring, buffers, owned, .. } = self;
        for completion in uring.completion().take(limit) {
            if let Some(event) = interpret(buffers, owned, &completion) {
                events.push(event);
            }
        }
    }

    /// Queues `entry`. A full queue is submitted; where the kernel wants completions reaped before it takes more, the
    /// entry waits for the next enter.
    fn push(&mut self, entry: &squeue::Entry) {
        if self.spilled.is_empty() {
            if Self::try_push(&mut self.uring, entry) {
                self.queued += 1;
                return;
            }
            // An error of the ring itself comes back at the turn's own enter.
            if self.enter(Wait::No).is_ok() && Self::try_push(&mut self.uring, entry) {
                self.queued += 1;
                return;
            }
        }
        self.spilled.push_back(entry.clone());
    }

    fn try_push(uring: &mut IoUring, entry: &squeue::Entry) -> bool {
        // SAFETY: every buffer that an entry points to is owned by `owned` until its completion, or mapped for ever.
        unsafe { uring.submission().push(entry) }.is_ok()
    }
}

fn interpret(buffers: &ReceiveBuffers, owned: &mut Slab<Owned>, completion: &cqueue::Entry) -> Option<Event> {
    const KEY: u64 = (1 << KIND_SHIFT) - 1;
    let key = completion.user_data() & KEY;
    let armed = cqueue::more(completion.flags());
    let result = match completion.result() {
        count if count >= 0 => Ok(count as usize),
        error => Err(io::Error::from_raw_os_error(-error)),
    };
    match completion.user_data() & !KEY {
        KIND_RECEIVE => {
            let received = interpret_received(buffers, completion);
            Some(Event::Received { token: key as u32, received, armed })
        }
        KIND_SEND => match owned.remove(key as usize) {
            Owned::Send { token, buffer } => Some(Event::Sent { token, buffer, result }),
            _ => unreachable!("another operation's memory under a send's key"),
        },
        KIND_WRITE => match owned.remove(key as usize) {
            Owned::Write { token, buffer } => Some(Event::Written { token, buffer, result }),
            _ => unreachable!("another operation's memory under a write's key"),
        },
        KIND_MAPPED => Some(Event::Mapped(mapped::event(owned.remove(key as usize), result))),
        KIND_ACCEPT => {
            // SAFETY: an accept that succeeded returns a fresh descriptor that nothing else owns.
            let socket = result.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) });
            Some(Event::Accepted { token: key as u32, socket, armed })
        }
        KIND_WATCH => Some(Event::Woken { token: key as u32, armed }),
        KIND_IGNORED => None,
        other => unreachable!("unknown completion kind {other:#x}"),
    }
}

fn interpret_received(buffers: &ReceiveBuffers, completion: &cqueue::Entry) -> Received {
    match (completion.result(), cqueue::buffer_select(completion.flags())) {
        (length, Some(id)) if length > 0 => Received::Bytes(buffers.received(id, length as u32)),
        (0, _) => Received::Closed,
        (error, _) if error == -libc::ENOBUFS => Received::NoBuffer,
        (error, _) if error == -libc::ECANCELED => Received::Cancelled,
        (error, _) if error < 0 => Received::Failed(io::Error::from_raw_os_error(-error)),
        (length, None) => unreachable!("{length} bytes received without a buffer"),
        (length, Some(_)) => unreachable!("receive result {length}"),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel tears a ring down after its descriptor was closed, and may read these until then.
        std::mem::forget(std::mem::take(&mut self.owned));
    }
}

#[cfg(test)]
mod tests;
