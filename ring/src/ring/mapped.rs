//! Operations on mapped files: receive into a region, send from one, and bring pages in or give them back.
//!
//! Place in the flow: steps 2 (receive) and 9 (send) of large values.
//!
//! How a page that is not in memory never stalls the thread: [`Ring::populate`], [`Ring::page_in`] and
//! [`Ring::give_back`] always run on a worker thread of the kernel's, since they are about waiting for pages. A receive
//! or a send runs there if it is told to (`in_worker`), and then whichever thread it wakes on later, the copy itself
//! always runs on a worker. `ring/examples/large.rs` measures the ways against each other.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::{Owned, Ring, KIND_MAPPED};
use crate::mapping::page_bytes;
use crate::{MappedBytes, MappedRegion};

/// Buffers of one gathered send: what the kernel takes is 1,024.
pub const MAX_PIECES: usize = 64;

/// A part of what is sent: bytes of its own, or a range of a mapped value.
#[derive(Debug)]
pub enum Piece {
    /// Bytes that the piece owns.
    Bytes(Vec<u8>),
    /// A range of a value, by reference.
    Mapped(MappedBytes, Range<usize>),
}

impl Piece {
    /// Its bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Mapped(_, range) => range.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn vector(&self) -> libc::iovec {
        match self {
            Self::Bytes(bytes) => libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
            Self::Mapped(value, range) => {
                assert!(range.start <= range.end && range.end <= value.len(), "a part of the value");
                // SAFETY: the range lies in the value.
                let start = unsafe { value.address().add(range.start) };
                libc::iovec { iov_base: start.cast_mut().cast(), iov_len: range.len() }
            }
        }
    }
}

/// An operation on a mapped file that has ended.
#[derive(Debug)]
pub enum MappedEvent {
    /// A receive into a region has ended.
    ReceivedInto {
        /// The connection's token.
        token: u32,
        /// The region, with the bytes.
        region: MappedRegion,
        /// How many came; fewer than were asked for where the stream has ended.
        result: io::Result<usize>,
    },
    /// A gathered send has ended.
    SentPieces {
        /// The connection's token.
        token: u32,
        /// The pieces, for reuse.
        pieces: Vec<Piece>,
        /// How many of their bytes were sent.
        result: io::Result<usize>,
    },
    /// The pages of a region are in memory.
    Populated {
        /// The caller's token.
        token: u64,
        /// The region.
        region: MappedRegion,
        /// `EFAULT`: the disk has no room, or is broken.
        result: io::Result<()>,
    },
    /// The pages of a part of a value are in memory.
    PagedIn {
        /// The caller's token.
        token: u64,
        /// The value.
        value: MappedBytes,
        /// `EFAULT`: the disk is broken.
        result: io::Result<()>,
    },
    /// The space of a region was given back.
    GivenBack {
        /// The caller's token.
        token: u64,
        /// The region.
        region: MappedRegion,
        /// An error means that the file system cannot do it, and the region is what it was.
        result: io::Result<()>,
    },
}

/// What the kernel reads while it sends pieces: it stays where it is until the send has ended.
pub(super) struct Gathered {
    pieces: Vec<Piece>,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Ring {
    /// Receives into `region` from `filled` on: `at_most` bytes, fewer only where the stream ends or breaks. Comes back
    /// as [`MappedEvent::ReceivedInto`]; ends early by a shutdown of the socket. `in_worker`: the bytes are copied by a
    /// thread of the kernel's, which then takes the waits for pages that are not in memory.
    ///
    /// # Panics
    /// When the bytes do not fit the region.
    pub fn receive_into(
        &mut self,
        socket: RawFd,
        token: u32,
        region: MappedRegion,
        filled: usize,
        at_most: usize,
        in_worker: bool,
    ) {
        assert!(filled + at_most <= region.len(), "a receive within its region");
        let length = u32::try_from(at_most).expect("a receive of less than 4 GiB");
        // SAFETY: `filled` is within the region.
        let start = unsafe { region.address().add(filled) };
        let key = self.owned.insert(Owned::ReceiveInto { token, region });
        let entry = opcode::Recv::new(Fd(socket), start, length).flags(libc::MSG_WAITALL).build();
        self.push_mapped(entry, key, in_worker);
    }

    /// Sends all of `pieces`, in order; comes back as [`MappedEvent::SentPieces`], and pins what they refer to until
    /// then. `in_worker`: as for [`Ring::receive_into`].
    ///
    /// # Panics
    /// Over [`MAX_PIECES`], or 2 GiB.
    pub fn send_pieces(&mut self, socket: RawFd, token: u32, pieces: Vec<Piece>, in_worker: bool) {
        assert!(!pieces.is_empty() && pieces.len() <= MAX_PIECES, "{} pieces in one send", pieces.len());
        let bytes: usize = pieces.iter().map(Piece::len).sum();
        assert!(i32::try_from(bytes).is_ok(), "a send of less than 2 GiB");
        let vectors = pieces.iter().map(Piece::vector).collect();
        // SAFETY: a message of zeros is one without address, buffers and control data.
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut gathered = Box::new(Gathered { pieces, vectors, message });
        gathered.message.msg_iov = gathered.vectors.as_mut_ptr();
        gathered.message.msg_iovlen = gathered.vectors.len() as _;
        let message: *const libc::msghdr = &raw const gathered.message;
        let key = self.owned.insert(Owned::SendPieces { token, gathered });
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsg::new(Fd(socket), message).flags(flags).build();
        self.push_mapped(entry, key, in_worker);
    }

    /// Brings the pages of `region` into memory, with disk space behind them, ready to be written: on a worker. Comes
    /// back as [`MappedEvent::Populated`]. Regions of about 1 MiB keep others, who change the address space meanwhile,
    /// from waiting long.
    pub fn populate(&mut self, token: u64, region: MappedRegion) {
        let (start, length) = (region.address(), region.len());
        let key = self.owned.insert(Owned::Populate { token, region });
        self.push_advice(key, start, length, libc::MADV_POPULATE_WRITE);
    }

    /// Brings the pages of `range` of `value` into memory, to be read: on a worker. Comes back as
    /// [`MappedEvent::PagedIn`].
    pub fn page_in(&mut self, token: u64, value: MappedBytes, range: Range<usize>) {
        assert!(range.start < range.end && range.end <= value.len(), "a part of the value");
        let from = range.start / page_bytes() * page_bytes();
        // SAFETY: `from` is within the value.
        let start = unsafe { value.address().add(from) };
        let key = self.owned.insert(Owned::PageIn { token, value });
        self.push_advice(key, start, range.end - from, libc::MADV_POPULATE_READ);
    }

    /// Gives the disk space and the memory of `region` back to the system, on a worker; it reads as zeros then. Comes
    /// back as [`MappedEvent::GivenBack`].
    pub fn give_back(&mut self, token: u64, region: MappedRegion) {
        let (file, start, length) = (region.descriptor(), region.start() as u64, region.len() as u64);
        let key = self.owned.insert(Owned::GiveBack { token, region });
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let entry = opcode::Fallocate::new(Fd(file), length).offset(start).mode(mode).build();
        self.push_mapped(entry, key, true);
    }

    fn push_advice(&mut self, key: usize, start: *const u8, length: usize, advice: libc::c_int) {
        // The kernel reads the length as 32 bits.
        assert!(u32::try_from(length).is_ok(), "advice about less than 4 GiB");
        let entry = opcode::Madvise::new(start.cast(), length as libc::off_t, advice).build();
        self.push_mapped(entry, key, true);
    }

    fn push_mapped(&mut self, entry: squeue::Entry, key: usize, in_worker: bool) {
        let flags = if in_worker { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        self.push(&entry.flags(flags).user_data(KIND_MAPPED | key as u64));
    }
}

/// The event of an operation on a mapping that has ended.
pub(super) fn event(owned: Owned, result: io::Result<usize>) -> MappedEvent {
    let done = |result: io::Result<usize>| result.map(|_| ());
    match owned {
        Owned::ReceiveInto { token, region } => MappedEvent::ReceivedInto { token, region, result },
        Owned::SendPieces { token, gathered } => MappedEvent::SentPieces { token, pieces: gathered.pieces, result },
        Owned::Populate { token, mut region } => {
            region.set_filled(result.is_ok());
            MappedEvent::Populated { token, region, result: done(result) }
        }
        Owned::PageIn { token, value } => MappedEvent::PagedIn { token, value, result: done(result) },
        Owned::GiveBack { token, mut region } => {
            region.set_filled(region.is_filled() && result.is_err());
            MappedEvent::GivenBack { token, region, result: done(result) }
        }
        Owned::Send { .. } | Owned::Write { .. } => unreachable!("a plain buffer under a mapped operation's key"),
    }
}
