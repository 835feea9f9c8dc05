//! Forms the writes of one log: batches of records, placed in segments.
//!
//! Place in the flow: step 6. Pure: it makes buffers and says where they belong; the core's ring writes them.
//!
//! Group commit by occupancy: records gather in the open batch while earlier writes are in flight;
//! [`LogWriter::next_write`] closes the open batch as soon as a write may start. No timer is involved.
//!
//! Invariants:
//! - Batches are written in the order of their sequences, each once, at growing offsets; `durable + 1` is the first
//!   sequence in flight, or the next to be written.
//! - At most `writes_in_flight_max` writes are in flight, and none while a new segment's first write is formed: the
//!   header of a segment says where its predecessor ends, so every batch before it must be on disk.
//! - A segment is begun by one write, header and first batch together. The first batch ends with the positions of the
//!   core's shards before this segment: whatever is cut off in front of it later, they say what it was.
//! - A part of a large value may be appended by reference: it is a batch of its own, and copied into a buffer only when
//!   its write starts. So what waits for the disk takes no memory beside the value itself.
//!
//! Deliberately not here: admission. [`LogWriter::append`] always takes the record; who calls it asks
//! [`LogWriter::pending_bytes`] and [`LogWriter::writable_bytes`] first.

mod open_batch;
mod positions;

use std::collections::VecDeque;
use std::ops::Range;

use eyot_raft_glue::{EntryKind, EntryPosition, ShardId};
use eyot_ring::{AlignedBuffer, MappedBytes};

use self::open_batch::{GatheringBatch, OpenBatch, ReferringBatch};
use self::positions::Positions;
use super::format::{
    finish_batch, positions_bytes, record_header, BatchPlace, SegmentHeader, ShardPosition, BATCH_HEADER_BYTES,
    BLOCK_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES,
};
use super::{KeptSegment, LogIdentity, LogOptions, LogStart, SegmentEnd, Sequence};

/// A batch is closed before it would grow beyond this (1 MiB), unless it is a single record: the first record of a
/// batch waits for the last one's bytes, half a millisecond at this size on a usual disk, and the padding to a block is
/// already below half a percent.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Buffers kept for reuse: one that gathers and two in flight.
const SPARE_BUFFERS_MAX: usize = 3;
/// A kept buffer has at most this capacity: one large value must not hold its memory for ever.
const SPARE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a new buffer holds before it grows.
const BUFFER_BYTES_INITIAL: usize = 64 * 1024;

/// A write that the caller must make now: the whole buffer, at the offset, in one piece.
#[derive(Debug)]
pub struct LogWrite {
    /// The number of the segment.
    pub segment: u64,
    /// Bytes from the start of the file, a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
    /// What to write; its length is a multiple of [`BLOCK_BYTES`]. Give it back with [`LogWriter::written`].
    pub buffer: AlignedBuffer,
    /// The batch in it.
    pub sequence: Sequence,
}

/// A segment that the writer wants to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRequest {
    /// Its number.
    pub number: u64,
    /// Its size: the options' segment size, or more where a batch needs it.
    pub bytes: u64,
}

/// A segment that the writer may begin: durable, and nothing in it is of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadySegment {
    /// Its number.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether it was an older segment, whose bytes it still holds.
    pub is_recycled: bool,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    sequence: Sequence,
    /// Header, records; without padding and segment header: what [`LogWriter::pending_bytes`] counts.
    bytes: usize,
    /// Memory of its buffer.
    capacity: usize,
    completed: bool,
}

#[derive(Debug, Clone, Copy)]
struct CurrentSegment {
    number: u64,
    bytes: u64,
    /// Where the next batch goes; a multiple of [`BLOCK_BYTES`], `<= bytes`.
    offset: u64,
}

/// The writer of one log.
#[derive(Debug)]
pub struct LogWriter {
    identity: LogIdentity,
    options: LogOptions,
    start: LogStart,
    /// Batches not given out yet, oldest first; records go to the last one. Their sequences follow `last_given_out`.
    batches: VecDeque<OpenBatch>,
    /// Batches given out and not yet durable, oldest first; at most `writes_in_flight_max` of them are not completed.
    in_flight: VecDeque<InFlight>,
    last_given_out: Sequence,
    /// `<= last_given_out`.
    durable: Sequence,
    pending_bytes: usize,
    /// What of `pending_bytes` is referred to and not copied yet.
    referenced_bytes: usize,
    current: Option<CurrentSegment>,
    spare: Option<ReadySegment>,
    retired: VecDeque<KeptSegment>,
    positions: Positions,
    spare_buffers: Vec<AlignedBuffer>,
    batch_bytes_max: usize,
}

impl LogWriter {
    /// A writer that goes on where recovery ended, without a segment yet. `positions`: the newest entry of every shard
    /// of the core, by shard; it takes entries of no other.
    ///
    /// # Panics
    /// When `options` do not validate, the log's number is not below the number of cores, or shards are out of order.
    pub fn new(identity: LogIdentity, options: LogOptions, start: LogStart, positions: &[ShardPosition]) -> Self {
        options.validate().expect("log options are validated where they are configured");
        Self::with_any_segments(identity, options, start, positions)
    }

    /// [`Self::new`] without a lower bound of the segments, so that a test can fill many of them.
    pub(crate) fn with_any_segments(
        identity: LogIdentity,
        options: LogOptions,
        start: LogStart,
        positions: &[ShardPosition],
    ) -> Self {
        assert!(identity.log_id < start.core_count, "log {} of {} cores", identity.log_id, start.core_count);
        let before_first = Sequence(start.next_sequence.0 - 1);
        Self {
            identity,
            options,
            start,
            batches: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_given_out: before_first,
            durable: before_first,
            pending_bytes: 0,
            referenced_bytes: 0,
            current: None,
            spare: None,
            retired: VecDeque::new(),
            positions: Positions::new(positions),
            spare_buffers: Vec::new(),
            batch_bytes_max: BATCH_BYTES_MAX
                .min(options.segment_bytes as usize - SEGMENT_HEADER_BYTES - positions_bytes(positions.len())),
        }
    }

    /// Appends one entry to the open batch and returns the sequence that makes it durable.
    ///
    /// # Panics
    /// When the payload is over [`PAYLOAD_BYTES_MAX`]: admission bounds entries far below.
    pub fn append(&mut self, shard: ShardId, position: EntryPosition, kind: EntryKind, payload: &[u8]) -> Sequence {
        self.append_gathered(shard, position, kind, [payload, &[]])
    }

    /// [`Self::append`] of an entry whose payload stands in two places: the only copy of a large value on its way in is
    /// the one into the batch.
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_gathered(
        &mut self,
        shard: ShardId,
        position: EntryPosition,
        kind: EntryKind,
        payload: [&[u8]; 2],
    ) -> Sequence {
        let payload_bytes = payload[0].len() + payload[1].len();
        assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "entry of {payload_bytes} bytes");
        let header = record_header(payload_bytes, shard, kind as u8, position);
        let record_bytes = header.len() + payload_bytes;
        let batch = self.batch_for(record_bytes);
        batch.buffer.extend_from_slice(&header);
        payload.iter().for_each(|part| batch.buffer.extend_from_slice(part));
        batch.record_count += 1;
        self.pending_bytes += record_bytes;
        self.last_appended()
    }

    /// The open batch, or a fresh one where it has no room for a record of `record_bytes` with its header.
    fn batch_for(&mut self, record_bytes: usize) -> &mut GatheringBatch {
        let joins = match self.batches.back() {
            Some(OpenBatch::Gathering(batch)) => batch.buffer.len() + record_bytes <= self.batch_bytes_max,
            _ => false,
        };
        if !joins {
            let buffer = self.fresh_buffer(BATCH_HEADER_BYTES + record_bytes);
            self.pending_bytes += BATCH_HEADER_BYTES;
            self.batches.push_back(OpenBatch::Gathering(GatheringBatch { buffer, record_count: 0 }));
        }
        match self.batches.back_mut() {
            Some(OpenBatch::Gathering(batch)) => batch,
            _ => unreachable!("an open batch was just seen or made"),
        }
    }

    /// [`Self::append`] of an entry whose payload is `payload_head` and then `range` of `value`, which is copied when
    /// its write starts: see [`Self::next_reference`].
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_referring(
        &mut self,
        shard: ShardId,
        position: EntryPosition,
        kind: EntryKind,
        payload_head: &[u8],
        (value, range): (MappedBytes, Range<usize>),
    ) -> Sequence {
        let payload_bytes = payload_head.len() + range.len();
        assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "entry of {payload_bytes} bytes");
        assert!(range.end <= value.len(), "a part of the value");
        let record_header = record_header(payload_bytes, shard, kind as u8, position);
        let batch = ReferringBatch { record_header, payload_head: payload_head.to_vec(), value, range };
        let batch = OpenBatch::Referring(batch);
        self.pending_bytes += batch.byte_length();
        self.referenced_bytes += batch.byte_length();
        self.batches.push_back(batch);
        self.last_appended()
    }

    /// The bytes that [`Self::next_write`] would copy out of a value file, if it would: who may not wait for the disk
    /// sees to it that they are in memory.
    pub fn next_reference(&self) -> Option<(&MappedBytes, Range<usize>)> {
        match self.batches.front() {
            Some(OpenBatch::Referring(batch)) if self.may_write() => Some((&batch.value, batch.range.clone())),
            _ => None,
        }
    }

    /// Bytes of [`Self::pending_bytes`] that are referred to: of them the writer holds no copy yet.
    pub fn referenced_bytes(&self) -> usize {
        self.referenced_bytes
    }

    /// Asks for a last batch without records, which testifies that all batches before it are durable: with it, a bit
    /// flipped in the last batch with records is told from a torn write. For an orderly shutdown, once
    /// [`Self::pending_bytes`] is 0. Returns its sequence; `None` if this writer has written nothing.
    ///
    /// # Panics
    /// When anything is pending.
    pub fn close(&mut self) -> Option<Sequence> {
        assert_eq!(self.pending_bytes, 0, "closed a log with entries pending");
        self.current?;
        let buffer = self.fresh_buffer(BATCH_HEADER_BYTES);
        self.pending_bytes += BATCH_HEADER_BYTES;
        self.batches.push_back(OpenBatch::Gathering(GatheringBatch { buffer, record_count: 0 }));
        Some(self.last_appended())
    }

    /// The sequence of the newest batch that has records, or of the batch before the first.
    pub fn last_appended(&self) -> Sequence {
        Sequence(self.last_given_out.0 + self.batches.len() as u64)
    }

    /// Bytes appended and not yet durable.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether records wait for [`Self::next_write`].
    pub fn has_open_records(&self) -> bool {
        !self.batches.is_empty()
    }

    /// How many writes have been given out and not completed.
    pub fn writes_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|write| !write.completed).count()
    }

    /// The next write, if there is something to write and it may start: the caller must make it, and call
    /// [`Self::written`] when all of it is on disk. `None` when nothing is open, enough is in flight, the segment is
    /// missing, or the writes to the last segment must complete first.
    pub fn next_write(&mut self) -> Option<LogWrite> {
        if !self.may_write() {
            return None;
        }
        let batch = self.batches.pop_front()?;
        let begins_segment = self.begins_segment(batch.padded_bytes());
        let batch = match batch {
            OpenBatch::Gathering(batch) => batch,
            OpenBatch::Referring(batch) => self.copied(&batch),
        };
        let sequence = self.last_given_out.next();
        let write = if begins_segment { self.first_write(batch, sequence) } else { self.later_write(batch, sequence) };
        self.last_given_out = sequence;
        Some(write)
    }

    /// Whether a batch is open and its write may start.
    fn may_write(&self) -> bool {
        // The queue is counted, not the writes: a stuck write must not let completed ones gather behind it without
        // bound.
        let Some(batch) = self.batches.front() else { return false };
        self.in_flight.len() < self.options.writes_in_flight_max
            && (!self.begins_segment(batch.padded_bytes()) || self.may_begin_segment(batch))
    }

    /// Whether the present segment has no room for `needed` bytes.
    fn begins_segment(&self, needed: u64) -> bool {
        self.current.is_none_or(|current| current.bytes - current.offset < needed)
    }

    /// The same batch with its bytes in a buffer: the only copy of a large value on its way in.
    fn copied(&mut self, batch: &ReferringBatch) -> GatheringBatch {
        let ReferringBatch { record_header, payload_head, value, range } = batch;
        let byte_length = BATCH_HEADER_BYTES + record_header.len() + payload_head.len() + range.len();
        self.referenced_bytes -= byte_length;
        let mut buffer = self.fresh_buffer(byte_length);
        buffer.extend_from_slice(record_header);
        buffer.extend_from_slice(payload_head);
        buffer.extend_from_slice(&value.bytes()[range.clone()]);
        GatheringBatch { buffer, record_count: 1 }
    }

    fn may_begin_segment(&self, batch: &OpenBatch) -> bool {
        let needed = batch.bytes_as_first(self.positions.record_bytes());
        self.in_flight.is_empty() && self.spare.is_some_and(|spare| spare.bytes >= needed)
    }

    /// Moves to the spare segment: its header and `batch` in one write.
    fn first_write(&mut self, mut batch: GatheringBatch, sequence: Sequence) -> LogWrite {
        let spare = self.spare.take().expect("a spare segment was checked");
        let previous_end = match self.current.take() {
            Some(previous) => {
                let kept = self.kept(previous);
                self.retired.push_back(kept);
                Some(SegmentEnd { number: previous.number, end_offset: previous.offset })
            }
            None => self.start.previous_end,
        };
        batch.buffer.extend_from_slice(&self.positions.record());
        self.pending_bytes += self.positions.record_bytes();
        batch.record_count += 1;
        let header = SegmentHeader {
            identity: self.identity,
            number: spare.number,
            epoch: self.start.epoch,
            core_count: self.start.core_count,
            first_sequence: sequence,
            durable_sequence: self.durable,
            previous_end,
            is_recycled: spare.is_recycled,
        };
        self.current =
            Some(CurrentSegment { number: spare.number, bytes: spare.bytes, offset: SEGMENT_HEADER_BYTES as u64 });
        // Once per segment, the batch moves up by a block, to make room for the header in front of it.
        let length = batch.buffer.len();
        batch.buffer.resize(length + SEGMENT_HEADER_BYTES);
        batch.buffer.copy_within(..length, SEGMENT_HEADER_BYTES);
        batch.buffer[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
        self.write_from(batch, sequence, SEGMENT_HEADER_BYTES)
    }

    /// What is to be known of the current segment once its last batch was given out.
    fn kept(&mut self, CurrentSegment { number, bytes, .. }: CurrentSegment) -> KeptSegment {
        let (log_id, last_sequence) = (self.identity.log_id, self.last_given_out);
        KeptSegment { log_id, number, bytes, last_sequence, newest: self.positions.end_segment() }
    }

    fn later_write(&mut self, batch: GatheringBatch, sequence: Sequence) -> LogWrite {
        self.write_from(batch, sequence, 0)
    }

    /// Finishes `batch`, which starts at `lead` bytes of its buffer, and places it at the current offset.
    fn write_from(&mut self, mut batch: GatheringBatch, sequence: Sequence, lead: usize) -> LogWrite {
        self.positions.note_entries(&batch.buffer[lead + BATCH_HEADER_BYTES..]);
        let current = self.current.as_mut().expect("a current segment");
        let place = BatchPlace { identity: self.identity, segment: current.number, offset: current.offset };
        let byte_length = batch.buffer.len() - lead;
        batch.buffer.pad_to_multiple_of(BLOCK_BYTES);
        let sequences = (sequence, self.durable);
        finish_batch(&mut batch.buffer[lead..], byte_length, batch.record_count, sequences, &place);
        let offset = current.offset - lead as u64;
        current.offset = offset + batch.buffer.len() as u64;
        assert!(current.offset <= current.bytes, "a batch beyond its segment's end");
        self.in_flight.push_back(InFlight {
            sequence,
            bytes: byte_length,
            capacity: batch.buffer.capacity(),
            completed: false,
        });
        LogWrite { segment: current.number, offset, buffer: batch.buffer, sequence }
    }

    /// The write of `sequence` is on disk, whole. Returns the durable sequence, which follows contiguous completions
    /// only.
    ///
    /// # Panics
    /// When no such write is in flight.
    pub fn written(&mut self, sequence: Sequence, buffer: AlignedBuffer) -> Sequence {
        let write = self.in_flight.iter_mut().find(|write| write.sequence == sequence && !write.completed);
        write.expect("a completion belongs to a write in flight").completed = true;
        while let Some(first) = self.in_flight.front().copied().filter(|write| write.completed) {
            self.in_flight.pop_front();
            self.durable = first.sequence;
            self.pending_bytes -= first.bytes;
        }
        self.recycle(buffer);
        self.durable
    }

    /// Memory of the open batches, those in flight, and the spare buffers: a handful, and some dozens when the disk is
    /// behind.
    pub fn memory_bytes(&self) -> usize {
        let open = self.batches.iter().map(|batch| match batch {
            OpenBatch::Gathering(batch) => batch.buffer.capacity(),
            OpenBatch::Referring(_) => size_of::<OpenBatch>(),
        });
        let in_flight = self.in_flight.iter().filter(|write| !write.completed).map(|write| write.capacity);
        open.chain(in_flight).chain(self.spare_buffers.iter().map(AlignedBuffer::capacity)).sum()
    }

    /// Every batch up to this one is on disk.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// The segment that should be created now, if one is missing: the spare, ahead of its use, or a larger one under
    /// the same number where a waiting batch does not fit the spare. It keeps asking until [`Self::segment_ready`]: a
    /// caller that is creating one already finishes that first.
    pub fn wants_segment(&self) -> Option<SegmentRequest> {
        let number = self.next_number();
        let room_in_current = self.current.map_or(0, |current| current.bytes - current.offset);
        let first = self.batches.front().filter(|batch| batch.padded_bytes() > room_in_current);
        let needed = first.map_or(0, |batch| batch.bytes_as_first(self.positions.record_bytes()));
        let bytes = needed.max(self.options.segment_bytes);
        let ready = self.spare.is_some_and(|spare| spare.bytes >= needed);
        (!ready).then_some(SegmentRequest { number, bytes })
    }

    fn next_number(&self) -> u64 {
        self.current.map_or(self.start.next_segment, |current| current.number + 1)
    }

    /// The segment exists and is durable, and nothing in it can be taken for a batch of its number. Where the writer
    /// had asked for a larger one in place of the spare, the spare's file has been replaced and is not written to.
    ///
    /// # Panics
    /// When it is not the segment that the writer waits for.
    pub fn segment_ready(&mut self, segment: ReadySegment) {
        assert_eq!(segment.number, self.next_number(), "segment out of order");
        assert!(
            segment.bytes > SEGMENT_HEADER_BYTES as u64 && segment.bytes.is_multiple_of(BLOCK_BYTES as u64),
            "{segment:?}"
        );
        self.spare = Some(segment);
    }

    /// A segment that is full and has no write in flight: its file may be closed, and [`Retention`](super::Retention)
    /// keeps it in mind. Each is named once.
    pub fn segment_retired(&mut self) -> Option<KeptSegment> {
        self.retired.pop_front()
    }

    /// How many bytes of batches ([`super::format::bytes_at_most`] of each entry) can surely be written to the segments
    /// that exist. When no further segment can be created, entries beyond it must be refused.
    pub fn writable_bytes(&self) -> u64 {
        let lead = (SEGMENT_HEADER_BYTES + self.positions.record_bytes().next_multiple_of(BLOCK_BYTES)) as u64;
        let room_in_current = self.current.map_or(0, |current| current.bytes - current.offset);
        let room_in_spare = self.spare.map_or(0, |spare| spare.bytes.saturating_sub(lead));
        let waiting: u64 = self.batches.iter().map(OpenBatch::padded_bytes).sum();
        if waiting <= room_in_current {
            // What does not fit the current segment's rest leaves that rest unused, so the two do not add up.
            (room_in_current - waiting).max(room_in_spare)
        } else {
            room_in_spare.saturating_sub(waiting)
        }
    }

    fn fresh_buffer(&mut self, bytes: usize) -> AlignedBuffer {
        let needed = bytes + self.positions.record_bytes() + SEGMENT_HEADER_BYTES;
        let mut buffer = if needed > SPARE_BUFFER_BYTES_MAX {
            // A large record's buffer is made to measure: growing by doubling would take twice its memory.
            AlignedBuffer::with_capacity(needed)
        } else {
            self.spare_buffers.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(needed.max(BUFFER_BYTES_INITIAL)))
        };
        buffer.clear();
        buffer.resize(BATCH_HEADER_BYTES);
        buffer
    }

    fn recycle(&mut self, buffer: AlignedBuffer) {
        if self.spare_buffers.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            self.spare_buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests;
