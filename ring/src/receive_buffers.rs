//! The pool of receive buffers that the kernel picks from.
//!
//! Place in the flow: the first half of step 2 (decode): a completion names the buffer that it filled; the parser reads
//! it in place; the buffer goes back. Idle connections hold none.
//!
//! ```text
//! entries (shared with the kernel)   | addr, len, id | addr, len, id | ...        head: kernel   tail: ours
//! memory                             | buffer 0      | buffer 1      | ...
//! ```
//!
//! Invariant: a buffer's id is in the entries between head and tail, or in one [`ReceivedBytes`], never in both.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::IoUring;

static NEXT_POOL: AtomicU32 = AtomicU32::new(0);

/// The only buffer group of a ring.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// Bytes that were received, in a buffer of the pool until they are given back with `Ring::recycle`.
#[derive(Debug)]
pub struct ReceivedBytes {
    /// Which pool the buffer is of.
    pool: u32,
    id: u16,
    length: u32,
}

impl ReceivedBytes {
    /// How many bytes were received.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The pool. Its memory is never freed: the kernel may still hold it while a ring is torn down, and a ring lives as
/// long as its thread.
pub(crate) struct ReceiveBuffers {
    /// Told from every other pool of the process by this.
    number: u32,
    entries: *mut BufRingEntry,
    memory: *mut u8,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
    published: u16,
}

impl ReceiveBuffers {
    /// `count` buffers of `buffer_bytes` each; `count` is a power of two up to 32,768.
    pub(crate) fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "a power of two of receive buffers");
        // A mapping starts on a page, which is stricter than the entries' own alignment.
        #[allow(clippy::cast_ptr_alignment)]
        let entries = map_anonymous(usize::from(count) * std::mem::size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let memory = map_anonymous(usize::from(count) * buffer_bytes)?;
        // SAFETY: `entries` is a page-aligned mapping of `count` entries that is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, BUFFER_GROUP, 0)? };
        let number = NEXT_POOL.fetch_add(1, Ordering::Relaxed);
        let mut pool = Self { number, entries, memory, buffer_bytes, count, tail: 0, published: 0 };
        (0..count).for_each(|id| pool.put(id));
        pool.publish();
        Ok(pool)
    }

    /// The bytes that a completion of `length` bytes left in buffer `id`.
    pub(crate) fn received(&self, id: u16, length: u32) -> ReceivedBytes {
        assert!(id < self.count && length as usize <= self.buffer_bytes, "a buffer of this pool");
        ReceivedBytes { pool: self.number, id, length }
    }

    #[inline]
    pub(crate) fn bytes<'a>(&'a self, received: &'a ReceivedBytes) -> &'a [u8] {
        assert!(received.pool == self.number, "a buffer of this pool");
        // SAFETY: `received` was made by this pool, which checked its id and length, so the range lies in the mapping,
        // which was zeroed by the kernel; the buffer is not in the entries while `received` exists, so the kernel does
        // not write it.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.add(usize::from(received.id) * self.buffer_bytes),
                received.length as usize,
            )
        }
    }

    /// Takes a buffer back; the kernel sees it at the next [`ReceiveBuffers::publish`].
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // The value stands for the buffer: giving it up is the point.
    pub(crate) fn recycle(&mut self, received: ReceivedBytes) {
        assert!(received.pool == self.number, "a buffer of this pool");
        self.put(received.id);
    }

    #[inline]
    fn put(&mut self, id: u16) {
        // SAFETY: the index is masked to the ring, and the kernel does not read an entry before `publish`.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail & (self.count - 1))) };
        // SAFETY: `id` is below the count, so the address lies in the mapping.
        entry.set_addr(unsafe { self.memory.add(usize::from(id) * self.buffer_bytes) } as u64);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was put back since the last time.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.published != self.tail {
            // SAFETY: the tail is a field of the first entry of the registered ring, aligned to two bytes, and only
            // this thread writes it.
            unsafe {
                (*BufRingEntry::tail(self.entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
            }
            self.published = self.tail;
        }
    }
}

/// Memory with its pages: they are taken once, at the start, and by no request.
fn map_anonymous(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: a fresh anonymous mapping; nothing else refers to it.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.cast())
}
