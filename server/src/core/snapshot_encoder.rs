//! What a snapshot's slices do: the engine's entries become the bytes of a stream.
//!
//! Place in the flow: between the engine's walk and the snapshot thread.
//!
//! Invariants:
//! - A step is some tens of microseconds, or the copy of a mebibyte of a large value.
//! - The core does not wait for the disk: pages of a large value that are not in memory are told, and brought by the
//!   thread, before they are read.
//!
//! Deliberately not here: when a step is done, and where the bytes go.

use std::ops::{ControlFlow, Range};

use eyot_protocol::snapshot::{
    Entry, LargeValue, ShardHeader, ShardWriter, WriteError, CHUNK_CONTENT_BYTES, MAX_INLINE_VALUE_BYTES,
    VALUE_PART_BYTES,
};
use eyot_ring::MappedBytes;

use crate::replication::ShardDriver;
use crate::shard::SnapshotStep;

/// Steps of the walk between two looks at the clock: some tens of microseconds.
const WALK_STEPS: usize = 500;
/// A buffer of at least this size goes to the thread: a chunk of the stream.
pub const BUFFER_BYTES: usize = 256 << 10;
/// What a buffer has room for: the chunk that makes it full comes on top.
pub const BUFFER_ROOM_BYTES: usize = 512 << 10;

const _: () = assert!(BUFFER_ROOM_BYTES >= BUFFER_BYTES + CHUNK_CONTENT_BYTES);

/// A large value that is copied into the stream, a part at a time.
struct CopiedValue {
    slot: u16,
    key: Vec<u8>,
    value: MappedBytes,
    version: u64,
    expires_at_us: Option<i64>,
    /// How many bytes are in the stream; `None`: not even its beginning.
    done: Option<usize>,
    /// Whether the pages of the next part were brought into memory: whatever the system does with them since.
    is_touched: bool,
}

impl CopiedValue {
    /// The bytes that go into the stream next.
    fn next_part(&self) -> Range<usize> {
        let start = self.done.unwrap_or(0);
        start..self.value.len().min(start + VALUE_PART_BYTES)
    }
}

/// One shard's stream in the making.
pub(super) struct SnapshotEncoder {
    /// `None`: the footer is written.
    writer: Option<ShardWriter>,
    out: Vec<u8>,
    large: Option<CopiedValue>,
    /// Whether the engine has nothing more.
    is_walked: bool,
    entries: u64,
    stream_bytes: u64,
}

impl SnapshotEncoder {
    /// Begins a stream in `buffer`, which is empty.
    pub fn new(header: ShardHeader, mut buffer: Vec<u8>) -> Self {
        let writer = ShardWriter::new(header, &mut buffer);
        Self { writer: Some(writer), out: buffer, large: None, is_walked: false, entries: 0, stream_bytes: 0 }
    }

    /// Entries in the stream.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Its bytes.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// Memory of the buffer.
    pub fn memory_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// Whether the buffer should go to the disk.
    pub fn is_full(&self) -> bool {
        self.out.len() >= BUFFER_BYTES
    }

    /// The full buffer, for the empty one `next`.
    pub fn take(&mut self, next: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.out, next)
    }

    /// Does one step. [`SnapshotStep::Done`]: the stream is whole, its last bytes are in the buffer.
    pub fn step(&mut self, driver: &mut ShardDriver) -> SnapshotStep {
        if self.large.is_some() {
            self.copy_large();
        } else if !self.is_walked {
            self.is_walked = self.walk(driver) == SnapshotStep::Done;
        }
        if !self.is_walked || self.large.is_some() {
            return SnapshotStep::More;
        }
        let writer = self.writer.take().expect("a stream is finished once");
        self.entries = writer.totals().entries;
        let footer = writer.finish(&mut self.out).expect("a walk that is over has no value half written");
        self.stream_bytes = footer.stream_bytes;
        SnapshotStep::Done
    }

    fn note(&mut self, writer: &ShardWriter) {
        (self.entries, self.stream_bytes) = (writer.totals().entries, writer.stream_bytes());
    }

    /// A slice of the engine's walk, encoded.
    fn walk(&mut self, driver: &mut ShardDriver) -> SnapshotStep {
        let mut writer = self.writer.take().expect("a walk has its writer until it is done");
        let Self { out, large, .. } = self;
        let step = driver.snapshot_some(WALK_STEPS, |slot, key, stored| {
            let (version, expires_at_us) = (stored.version.0, stored.expires_at_us);
            if let Some(found) = stored.large {
                let (key, value) = (key.to_vec(), found.pin());
                let (done, is_touched) = (None, false);
                *large = Some(CopiedValue { slot, key, value, version, expires_at_us, done, is_touched });
                return ControlFlow::Break(());
            }
            let value = stored.value;
            if value.len() > MAX_INLINE_VALUE_BYTES {
                // On the heap, with mapping off: it is there to be copied, and rare.
                let beginning = LargeValue { slot, key, value_bytes: value.len() as u64, version, expires_at_us };
                expect(writer.begin_large(&beginning, out));
                value.chunks(VALUE_PART_BYTES).for_each(|part| expect(writer.push_part(part, out)));
            } else {
                expect(writer.push(&Entry { slot, key, value, version, expires_at_us }, out));
            }
            if out.len() >= BUFFER_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.note(&writer);
        self.writer = Some(writer);
        step
    }

    /// Pages that the next step needs and that are not in memory. They are asked for once.
    pub fn missing_pages(&self) -> Option<(MappedBytes, Range<usize>)> {
        let copied = self.large.as_ref()?;
        let range = copied.next_part();
        (!copied.is_touched && !copied.value.is_resident(range.clone())).then(|| (copied.value.clone(), range))
    }

    /// The pages came, or cannot be read: then the process ends when it reads them.
    pub fn touched(&mut self) {
        if let Some(copied) = &mut self.large {
            copied.is_touched = true;
        }
    }

    /// Copies a part of the large value into the stream.
    fn copy_large(&mut self) {
        let Self { writer: Some(writer), out, large: Some(copied), .. } = self else {
            unreachable!("a large value is being copied")
        };
        let range = copied.next_part();
        let CopiedValue { slot, key, value, version, expires_at_us, .. } = &*copied;
        let (slot, version, expires_at_us, bytes) = (*slot, *version, *expires_at_us, value.bytes());
        if bytes.len() <= MAX_INLINE_VALUE_BYTES {
            expect(writer.push(&Entry { slot, key, value: bytes, version, expires_at_us }, out));
        } else {
            if copied.done.is_none() {
                let beginning = LargeValue { slot, key, value_bytes: bytes.len() as u64, version, expires_at_us };
                expect(writer.begin_large(&beginning, out));
            }
            expect(writer.push_part(&bytes[range.clone()], out));
        }
        let is_over = range.end == bytes.len();
        (copied.done, copied.is_touched) = (Some(range.end), false);
        if is_over {
            self.large = None;
        }
    }
}

/// What the engine yields is in order and within the limits.
fn expect(outcome: Result<(), WriteError>) {
    outcome.unwrap_or_else(|error| panic!("the engine yields what a snapshot takes: {error}"));
}
