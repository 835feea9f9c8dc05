//! A batch before its write: records that were copied, or one whose bytes are still where they came from.
//!
//! Place in the flow: step 6, between an entry's arrival in the log and the write that carries it.

use std::ops::Range;

use eyot_ring::{AlignedBuffer, MappedBytes};

use super::super::format::{BATCH_HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// A batch that gathers records, or waits for its write.
#[derive(Debug)]
pub(super) enum OpenBatch {
    Gathering(GatheringBatch),
    Referring(ReferringBatch),
}

/// Records, copied.
#[derive(Debug)]
pub(super) struct GatheringBatch {
    /// The batch's header, left free, and its records.
    pub(super) buffer: AlignedBuffer,
    pub(super) record_count: u32,
}

/// One record whose payload ends with bytes of a value file, which are not copied yet.
#[derive(Debug)]
pub(super) struct ReferringBatch {
    pub(super) record_header: [u8; RECORD_HEADER_BYTES],
    /// The payload's own first bytes: a part's header.
    pub(super) payload_head: Vec<u8>,
    pub(super) value: MappedBytes,
    pub(super) range: Range<usize>,
}

impl OpenBatch {
    /// Header and records, without padding.
    pub(super) fn byte_length(&self) -> usize {
        match self {
            Self::Gathering(batch) => batch.buffer.len(),
            Self::Referring(batch) => {
                BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + batch.payload_head.len() + batch.range.len()
            }
        }
    }

    pub(super) fn padded_bytes(&self) -> u64 {
        self.byte_length().next_multiple_of(BLOCK_BYTES) as u64
    }

    /// What it takes of a segment that it begins, where so many bytes of positions follow its records.
    pub(super) fn bytes_as_first(&self, positions_bytes: usize) -> u64 {
        (SEGMENT_HEADER_BYTES + (self.byte_length() + positions_bytes).next_multiple_of(BLOCK_BYTES)) as u64
    }
}
