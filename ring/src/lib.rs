//! One io_uring per thread behind a safe interface: sockets, log writes, sleep and wake.
//!
//! Place in the flow: steps 1 (accept), 2 (receive), 6 (log writes) and 9 (send) of the server's core, and the client's
//! end of every connection of the load generator. A turn of either is: [`Ring::enter`] once, [`Ring::reap`] what is
//! due, queue what follows; one system call carries everything.
//!
//! Invariants:
//! - Memory that the kernel reads or writes is owned by the ring until its completion: a buffer is moved in with the
//!   operation and comes back in the [`Event`]. So no safe caller can free or change it too early.
//! - A ring belongs to the thread that made it (`SINGLE_ISSUER`); completions run only when that thread enters
//!   (`DEFER_TASKRUN`), so a busy core is never interrupted.
//! - Every byte of a mapped file has one owner: a region, or the handles of one value.
//! - Every receive buffer is either the kernel's or inside one [`ReceivedBytes`], never both.
//!
//! Deliberately not here: what the bytes mean, timers (a sleep takes a timeout), and any policy.

#![deny(unsafe_op_in_unsafe_fn)]

mod aligned;
mod mapping;
mod receive_buffers;
mod ring;
mod waker;

pub use aligned::{AlignedBuffer, BLOCK_BYTES};
pub use mapping::{page_bytes, MappedBytes, MappedFile, MappedRegion};
pub use receive_buffers::ReceivedBytes;
pub use ring::{Event, MappedEvent, Piece, Received, Ring, RingOptions, Wait, MAX_PIECES};
pub use waker::{Sleeper, Waker};
