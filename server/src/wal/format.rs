//! Every byte of a segment file. `docs/LOG.md` has the same diagrams, and says why.
//!
//! Place in the flow: step 6; the writer encodes with it, recovery decodes with it. Pure.
//!
//! Invariants: all integers are little-endian; a batch starts on a block of [`BLOCK_BYTES`]; nothing read from a file
//! is believed before the checksum that covers it has held.
//!
//! ```text
//! segment  | block 0: header | batch | batch | ... | zeros, not written yet |
//!
//! header   |  0 magic 8 "EYOTWAL\0"       |  8 format version u32 = 1      | 12 crc32c u32                |
//! (block 0)| 16 node id u128              | 32 segment number u64          | 40 epoch u64                 |
//!          | 48 first sequence u64        | 56 durable sequence u64        | 64 previous segment u64      |
//!          | 72 previous end offset u64   | 80 log id u16                  | 82 core count u16            |
//!          | 84 recycled u16 = 0 or 1         | 86 zeros up to 4096                                       |
//!          crc32c: of all 4096 bytes but itself, not keyed, so that another node's file can be told by its name.
//!
//! batch    |  0 magic u32 "EYOB"          |  4 byte length u32             |  8 record count u32          |
//!          | 12 reserved u32 = 0          | 16 segment number u64          | 24 sequence u64              |
//!          | 32 durable sequence u64      | 40 body crc32c u32             | 44 header crc32c u32         |
//!          | 48 record | record | ... | zeros up to a multiple of 4096 |
//!          byte length: header and records, without the padding.
//!          body crc32c: from byte 48 to the end of the padding. header crc32c: bytes 0 to 43.
//!          Both are keyed: they start from the crc32c of | node id u128 | log id u16 | segment number u64 |
//!          offset of the batch in the file u64 |, so that a batch at another place is not a batch.
//!
//! record   |  0 payload length u32        |  4 shard u16  |  6 kind u8  |  7 flags u8 = 0  |
//!          |  8 term u64                  | 16 index u64                                   |
//!          | 24 payload                                                                     |
//!
//! positions, the payload of a record of kind 128 with shard, term and index 0: the last record of a segment's first
//! batch. For every shard of the log, by number, its newest entry before this segment; index 0 where it has none.
//!          |  0 shard u16  |  2 term u64  | 10 index u64  | 18 the next shard's ...              |
//! ```

use eyot_raft_glue::{EntryPosition, Index, ShardId, Term};

use super::{LogIdentity, SegmentEnd, Sequence};

#[cfg(test)]
use crate::prover::{is_planted, Planted};

pub use eyot_ring::BLOCK_BYTES;

/// The version that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment's header: one block.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;
/// Bytes before a batch's first record.
pub const BATCH_HEADER_BYTES: usize = 48;
/// Bytes before a record's payload.
pub const RECORD_HEADER_BYTES: usize = 24;
/// The kind of the record that says where the shards stand where a segment begins. Kinds from 128 on are the log's own
/// and no shard's entries.
pub const POSITIONS_KIND: u8 = 128;
/// Bytes of one shard's position in such a record.
pub const POSITION_BYTES: usize = 18;
/// Longest payload of a record: an entry of the largest value fits twice, and a batch's length fits its 32 bits.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Numbers, epochs and sequences stay below it: no log lives that long, and what counts on from a header never
/// overflows.
const COUNT_MAX: u64 = 1 << 62;

const SEGMENT_MAGIC: [u8; 8] = *b"EYOTWAL\0";
const BATCH_MAGIC: [u8; 4] = *b"EYOB";
const SEGMENT_CHECKSUM: std::ops::Range<usize> = 12..16;
const BATCH_BODY_CHECKSUM: std::ops::Range<usize> = 40..44;
const BATCH_HEADER_CHECKSUM: std::ops::Range<usize> = 44..48;

const _: () = assert!(BATCH_HEADER_CHECKSUM.end == BATCH_HEADER_BYTES);
const _: () = assert!(BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + PAYLOAD_BYTES_MAX < u32::MAX as usize);

/// Bytes that the positions of `shard_count` shards add to a segment's first batch.
pub const fn positions_bytes(shard_count: usize) -> usize {
    RECORD_HEADER_BYTES + shard_count * POSITION_BYTES
}

/// Most bytes of a segment that one record of `payload_bytes` can take: a batch of its own, padded.
pub fn bytes_at_most(payload_bytes: usize) -> u64 {
    (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES) as u64
}

/// What block 0 of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Node and core that wrote the segment.
    pub identity: LogIdentity,
    /// The segment's number, counted from 1 per log.
    pub number: u64,
    /// The start of the node in which the segment was begun.
    pub epoch: u64,
    /// How many cores the node had then.
    pub core_count: u16,
    /// The sequence of the batch at block 1.
    pub first_sequence: Sequence,
    /// The highest sequence known durable when the header was written: always the one before the first.
    pub durable_sequence: Sequence,
    /// Where the segment before this one ends; `None` in a log's first segment.
    pub previous_end: Option<SegmentEnd>,
    /// Whether the file was an older segment: then bytes of that one may stand behind this one's batches.
    pub is_recycled: bool,
}

/// Why a block is not the header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentHeaderError {
    /// No magic, or a checksum or field that does not hold.
    Invalid,
    /// Whole, but of a version that this code does not know.
    Version(u32),
}

impl SegmentHeader {
    /// The block that says it.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let (previous_number, previous_offset) = self.previous_end.map_or((0, 0), |end| (end.number, end.end_offset));
        block[0..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.identity.node_id.to_le_bytes());
        block[32..40].copy_from_slice(&self.number.to_le_bytes());
        block[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        block[48..56].copy_from_slice(&self.first_sequence.0.to_le_bytes());
        block[56..64].copy_from_slice(&self.durable_sequence.0.to_le_bytes());
        block[64..72].copy_from_slice(&previous_number.to_le_bytes());
        block[72..80].copy_from_slice(&previous_offset.to_le_bytes());
        block[80..82].copy_from_slice(&self.identity.log_id.to_le_bytes());
        block[82..84].copy_from_slice(&self.core_count.to_le_bytes());
        block[84] = self.is_recycled.into();
        let checksum = segment_checksum(&block);
        block[SEGMENT_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads block 0 of a segment.
    pub fn decode(block: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, SegmentHeaderError> {
        if block[0..8] != SEGMENT_MAGIC || u32_at(block, SEGMENT_CHECKSUM.start) != segment_checksum(block) {
            return Err(SegmentHeaderError::Invalid);
        }
        let version = u32_at(block, 8);
        if version != FORMAT_VERSION {
            return Err(SegmentHeaderError::Version(version));
        }
        let mut node_id = [0; 16];
        node_id.copy_from_slice(&block[16..32]);
        let previous_end = match u64_at(block, 64) {
            0 => None,
            number => Some(SegmentEnd { number, end_offset: u64_at(block, 72) }),
        };
        let is_recycled = match u16_at(block, 84) {
            0 => false,
            1 => true,
            _ => return Err(SegmentHeaderError::Invalid),
        };
        let header = Self {
            identity: LogIdentity { node_id: u128::from_le_bytes(node_id), log_id: u16_at(block, 80) },
            number: u64_at(block, 32),
            epoch: u64_at(block, 40),
            core_count: u16_at(block, 82),
            first_sequence: Sequence(u64_at(block, 48)),
            durable_sequence: Sequence(u64_at(block, 56)),
            previous_end,
            is_recycled,
        };
        if header.is_consistent() {
            Ok(header)
        } else {
            Err(SegmentHeaderError::Invalid)
        }
    }

    /// What the writer guarantees about the fields among themselves.
    fn is_consistent(&self) -> bool {
        let previous_is_sound = match self.previous_end {
            None => self.number == 1 && self.first_sequence == Sequence(1),
            Some(end) => {
                end.number.checked_add(1) == Some(self.number)
                    && end.end_offset >= SEGMENT_HEADER_BYTES as u64
                    && end.end_offset.is_multiple_of(BLOCK_BYTES as u64)
            }
        };
        previous_is_sound
            && self.epoch > 0
            && [self.number, self.epoch, self.first_sequence.0].iter().all(|&count| count < COUNT_MAX)
            && self.identity.log_id < self.core_count
            && self.durable_sequence.0.checked_add(1) == Some(self.first_sequence.0)
    }
}

fn segment_checksum(block: &[u8; SEGMENT_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..SEGMENT_CHECKSUM.start]), &block[SEGMENT_CHECKSUM.end..])
}

/// Where a batch stands, which is what its checksums are keyed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlace {
    /// Whose log.
    pub identity: LogIdentity,
    /// Which segment.
    pub segment: u64,
    /// Bytes from the start of the file.
    pub offset: u64,
}

impl BatchPlace {
    fn checksum_seed(&self) -> u32 {
        #[cfg(test)]
        if is_planted(Planted::PositionNotInChecksum) {
            return 0;
        }
        let mut key = [0; 34];
        key[0..16].copy_from_slice(&self.identity.node_id.to_le_bytes());
        key[16..18].copy_from_slice(&self.identity.log_id.to_le_bytes());
        key[18..26].copy_from_slice(&self.segment.to_le_bytes());
        key[26..34].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&key)
    }
}

/// The header of a batch whose header checksum held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Header and records, in bytes, without the padding; at least [`BATCH_HEADER_BYTES`].
    pub byte_length: usize,
    /// How many records; 0 in the batch that closes a log.
    pub record_count: u32,
    /// The batch's number.
    pub sequence: Sequence,
    /// The highest sequence that was known durable when the batch was written.
    pub durable_sequence: Sequence,
    body_checksum: u32,
}

impl BatchHeader {
    /// Bytes of the batch in the file.
    pub fn padded_bytes(&self) -> usize {
        self.byte_length.next_multiple_of(BLOCK_BYTES)
    }

    /// Reads the header at the start of `block`; `None` if there is none that belongs to `place`.
    pub fn decode(block: &[u8], place: &BatchPlace) -> Option<Self> {
        let header = block.first_chunk::<BATCH_HEADER_BYTES>()?;
        if header[0..4] != BATCH_MAGIC {
            return None;
        }
        let checksum = crc32c::crc32c_append(place.checksum_seed(), &header[..BATCH_HEADER_CHECKSUM.start]);
        let decoded = Self {
            byte_length: u32_at(header, 4) as usize,
            record_count: u32_at(header, 8),
            sequence: Sequence(u64_at(header, 24)),
            durable_sequence: Sequence(u64_at(header, 32)),
            body_checksum: u32_at(header, BATCH_BODY_CHECKSUM.start),
        };
        let holds = checksum == u32_at(header, BATCH_HEADER_CHECKSUM.start)
            && u32_at(header, 12) == 0
            && u64_at(header, 16) == place.segment
            && decoded.byte_length >= BATCH_HEADER_BYTES
            && decoded.durable_sequence < decoded.sequence;
        holds.then_some(decoded)
    }

    /// Whether `block`, which is no header of `place`, was written to be the one of `sequence` there: a field that only
    /// that one has is still in it. What else can stand there is of an older segment.
    pub fn resembles(block: &[u8], place: &BatchPlace, sequence: Sequence) -> bool {
        block.len() >= BATCH_HEADER_BYTES && (u64_at(block, 16) == place.segment || u64_at(block, 24) == sequence.0)
    }

    /// Whether `batch`, all of its padded bytes, is what this header announced.
    pub fn covers(&self, batch: &[u8], place: &BatchPlace) -> bool {
        debug_assert_eq!(batch.len(), self.padded_bytes());
        #[cfg(test)]
        if is_planted(Planted::ChecksumNotChecked) {
            return true;
        }
        crc32c::crc32c_append(place.checksum_seed(), &batch[BATCH_HEADER_BYTES..]) == self.body_checksum
    }
}

/// Writes the header of `batch`: its first [`BATCH_HEADER_BYTES`] were left free, its records follow, `byte_length`
/// bytes in all, and zeros up to whole blocks.
///
/// # Panics
/// When `batch` is not in whole blocks or not what `byte_length` says.
pub fn finish_batch(
    batch: &mut [u8],
    byte_length: usize,
    record_count: u32,
    (sequence, durable_sequence): (Sequence, Sequence),
    place: &BatchPlace,
) {
    assert_eq!(batch.len(), byte_length.next_multiple_of(BLOCK_BYTES), "a batch is written in whole blocks");
    assert!(byte_length >= BATCH_HEADER_BYTES && durable_sequence < sequence);
    let seed = place.checksum_seed();
    let body_checksum = crc32c::crc32c_append(seed, &batch[BATCH_HEADER_BYTES..]);
    batch[0..4].copy_from_slice(&BATCH_MAGIC);
    batch[4..8].copy_from_slice(&(byte_length as u32).to_le_bytes());
    batch[8..12].copy_from_slice(&record_count.to_le_bytes());
    batch[12..16].fill(0);
    batch[16..24].copy_from_slice(&place.segment.to_le_bytes());
    batch[24..32].copy_from_slice(&sequence.0.to_le_bytes());
    batch[32..40].copy_from_slice(&durable_sequence.0.to_le_bytes());
    batch[BATCH_BODY_CHECKSUM].copy_from_slice(&body_checksum.to_le_bytes());
    let header_checksum = crc32c::crc32c_append(seed, &batch[..BATCH_HEADER_CHECKSUM.start]);
    batch[BATCH_HEADER_CHECKSUM].copy_from_slice(&header_checksum.to_le_bytes());
}

/// The bytes before a record's payload.
#[inline]
pub fn record_header(
    payload_bytes: usize,
    shard: ShardId,
    kind_number: u8,
    position: EntryPosition,
) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[0..4].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    header[4..6].copy_from_slice(&shard.0.to_le_bytes());
    header[6] = kind_number;
    header[8..16].copy_from_slice(&position.term.0.to_le_bytes());
    header[16..24].copy_from_slice(&position.index.0.to_le_bytes());
    header
}

/// A record of a batch whose checksum held. The kind is still a number: an unknown one is the reader's to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The number of the entry's kind.
    pub kind_number: u8,
    /// Term and index.
    pub position: EntryPosition,
    /// The payload.
    pub payload: &'a [u8],
}

/// Takes the first record off `records`. An error names what is wrong: another version wrote it, since a checksum held.
#[inline]
pub fn take_record<'a>(records: &mut &'a [u8]) -> Result<RawRecord<'a>, &'static str> {
    let (header, rest) =
        records.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or("a record's header is longer than its batch")?;
    let payload_bytes = u32_at(header, 0) as usize;
    let (payload, rest) = rest.split_at_checked(payload_bytes).ok_or("a record's payload is longer than its batch")?;
    if header[7] != 0 {
        return Err("a record's flags are not zero");
    }
    *records = rest;
    Ok(RawRecord {
        shard: ShardId(u16_at(header, 4)),
        kind_number: header[6],
        position: EntryPosition { term: Term(u64_at(header, 8)), index: Index(u64_at(header, 16)) },
        payload,
    })
}

/// Where a shard stands: its newest entry.
pub type ShardPosition = (ShardId, EntryPosition);

/// The record that says where the shards stand, in order of their numbers: the last one of a segment's first batch.
pub fn positions_record(positions: &[ShardPosition]) -> Vec<u8> {
    debug_assert!(positions.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let mut record = Vec::with_capacity(positions_bytes(positions.len()));
    let payload_bytes = positions.len() * POSITION_BYTES;
    record.extend_from_slice(&record_header(payload_bytes, ShardId(0), POSITIONS_KIND, EntryPosition::default()));
    for (shard, position) in positions {
        record.extend_from_slice(&shard.0.to_le_bytes());
        record.extend_from_slice(&position.term.0.to_le_bytes());
        record.extend_from_slice(&position.index.0.to_le_bytes());
    }
    record
}

/// Reads the payload of such a record. An error names what is wrong.
pub fn positions(payload: &[u8]) -> Result<impl Iterator<Item = ShardPosition> + '_, &'static str> {
    let (positions, rest) = payload.as_chunks::<POSITION_BYTES>();
    if !rest.is_empty() {
        return Err("its positions of shards are cut off");
    }
    if positions.windows(2).any(|pair| u16_at(&pair[0], 0) >= u16_at(&pair[1], 0)) {
        return Err("its positions of shards are not in order");
    }
    let position = |bytes: &[u8; POSITION_BYTES]| {
        let position = EntryPosition { term: Term(u64_at(bytes, 2)), index: Index(u64_at(bytes, 10)) };
        (ShardId(u16_at(bytes, 0)), position)
    };
    Ok(positions.iter().map(position))
}

// The callers read within arrays whose length they have checked: an offset out of range is a bug.

#[inline]
fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

#[inline]
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

#[inline]
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
