//! What stands behind the last whole batch of a log, or in a file that has no header.
//!
//! Place in the flow: start-up, once for each log, when everything before it has been read. It goes through the rest of
//! the file block by block.
//!
//! Invariant: only a batch header that belongs where it stands says anything; whatever else is there counts for nothing
//! but the report.

use std::path::PathBuf;

use super::super::format::{BatchPlace, BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use super::super::Sequence;
use super::error::Proof;
use super::reader::{SegmentReader, Trace};
use super::RecoveryError;
use crate::disk::Disk;

/// What stands behind the end of a log.
#[derive(Default)]
pub(super) struct Behind {
    /// Where the last byte stands that is not zero.
    pub(super) used_end: Option<u64>,
    /// Where the last thing ends that can be told for a write to this segment: in a recycled file, the rest may be the
    /// old segment's.
    pub(super) own_end: Option<u64>,
}

/// Goes through every block from `from` to the end of the file. A batch header that knows the batch `cut` (file,
/// offset, sequence) to be durable makes it damage; otherwise returns what is there.
pub(super) fn search_behind<D: Disk>(
    reader: &mut SegmentReader<'_, D>,
    from: BatchPlace,
    cut: &(PathBuf, u64, Sequence),
) -> Result<Behind, RecoveryError> {
    let mut behind = Behind::default();
    let mut place = from;
    while place.offset < reader.length() {
        let Trace { header, used, resembles } = reader.trace(&place, cut.2)?;
        if used > 0 {
            behind.used_end = Some(place.offset + used as u64);
        }
        // The first two blocks are zero until the segment is begun; at its end, a header may be damaged.
        let is_begun = used > 0 && place.offset <= SEGMENT_HEADER_BYTES as u64;
        if is_begun || (resembles && place.offset == from.offset) {
            behind.own_end = behind.own_end.max(behind.used_end);
        }
        if let Some(header) = &header {
            let end = place.offset + header.padded_bytes() as u64;
            behind.own_end = behind.own_end.max(Some(end.min(reader.length())));
        }
        if let Some(header) = header.filter(|header| header.durable_sequence >= cut.2) {
            let file = reader.path().to_owned();
            let proof = Proof::LaterBatch { file, offset: place.offset, sequence: header.sequence };
            return Err(RecoveryError::Damaged { file: cut.0.clone(), offset: cut.1, expected: cut.2, proof });
        }
        place.offset += BLOCK_BYTES as u64;
    }
    Ok(behind)
}
