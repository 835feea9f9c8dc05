//! Properties of the write-ahead log's decoders.
//!
//! Checksums keep made-up bytes out, so the input is given a checksum that holds: what is fuzzed is what stands
//! behind it.

use eyot_server::wal::format::{
    finish_batch, positions, positions_record, record_header, take_record, BatchHeader, BatchPlace, SegmentHeader,
    BATCH_HEADER_BYTES, BLOCK_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
};
use eyot_server::wal::{LogIdentity, Sequence};

/// Where a segment's header keeps its checksum.
const SEGMENT_CHECKSUM: std::ops::Range<usize> = 12..16;
/// Where the fields of a segment's header end; zeros follow.
const SEGMENT_FIELDS_END: usize = 86;

const PLACE: BatchPlace =
    BatchPlace { identity: LogIdentity { node_id: 0x0123_4567_89ab_cdef, log_id: 3 }, segment: 7, offset: 8192 };

/// Reads `input` as a segment's header, as a batch where it stands, and as the records of a batch whose checksums hold.
///
/// # Panics
/// When damage is not noticed, or when what was accepted is not what encoding it gives.
pub fn wal_batch(input: &[u8]) {
    segment_header(input);
    batch_as_it_is(input);
    sealed_batch(input);
    records(input);
    shard_positions(input);
}

fn segment_header(input: &[u8]) {
    let mut block = [0; SEGMENT_HEADER_BYTES];
    let length = input.len().min(SEGMENT_FIELDS_END);
    block[..length].copy_from_slice(&input[..length]);
    let as_it_is = SegmentHeader::decode(&block);
    let checksum =
        crc32c::crc32c_append(crc32c::crc32c(&block[..SEGMENT_CHECKSUM.start]), &block[SEGMENT_CHECKSUM.end..]);
    let checksum = checksum.to_le_bytes();
    assert!(as_it_is.is_err() || block[SEGMENT_CHECKSUM] == checksum, "a wrong checksum was believed");
    block[SEGMENT_CHECKSUM].copy_from_slice(&checksum);
    if let Ok(header) = SegmentHeader::decode(&block) {
        // Without a segment before it, the offset where that one ended says nothing.
        let end_offset_counts = header.previous_end.is_some();
        let encoded = header.encode();
        assert_eq!(SegmentHeader::decode(&encoded), Ok(header));
        assert!(!end_offset_counts || encoded == block, "a segment's header has one encoding");
    }
}

fn batch_as_it_is(input: &[u8]) {
    let Some(header) = BatchHeader::decode(input, &PLACE) else { return };
    assert!(header.byte_length >= BATCH_HEADER_BYTES && header.padded_bytes() % BLOCK_BYTES == 0);
    if let Some(batch) = input.get(..header.padded_bytes()) {
        header.covers(batch, &PLACE);
    }
}

/// A batch with a right checksum is found where it was written, and neither elsewhere nor with a bit turned.
fn sealed_batch(input: &[u8]) {
    let byte_length = BATCH_HEADER_BYTES + input.len();
    let mut batch = vec![0; byte_length.next_multiple_of(BLOCK_BYTES)];
    batch[BATCH_HEADER_BYTES..byte_length].copy_from_slice(input);
    let sequences = (Sequence(9), Sequence(8));
    finish_batch(&mut batch, byte_length, 2, sequences, &PLACE);
    let holds = |batch: &[u8], place: &BatchPlace| match BatchHeader::decode(batch, place) {
        Some(header) => header.padded_bytes() == batch.len() && header.covers(batch, place),
        None => false,
    };
    let header = BatchHeader::decode(&batch, &PLACE).expect("the header that was just written");
    assert_eq!((header.byte_length, header.record_count), (byte_length, 2));
    assert_eq!((header.sequence, header.durable_sequence), sequences);
    assert!(holds(&batch, &PLACE));
    for elsewhere in [
        BatchPlace { offset: PLACE.offset + BLOCK_BYTES as u64, ..PLACE },
        BatchPlace { segment: PLACE.segment + 1, ..PLACE },
        BatchPlace { identity: LogIdentity { log_id: 4, ..PLACE.identity }, ..PLACE },
    ] {
        assert!(!holds(&batch, &elsewhere), "a misplaced batch was taken for real");
    }
    // The input chooses the bit.
    let chosen = input.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let bit = chosen % (batch.len() * 8);
    batch[bit / 8] ^= 1 << (bit % 8);
    assert!(!holds(&batch, &PLACE), "bit {bit} was turned and not noticed");
}

fn shard_positions(input: &[u8]) {
    if let Ok(shards) = positions(input) {
        let shards: Vec<_> = shards.collect();
        let record = positions_record(&shards);
        assert_eq!(&record[RECORD_HEADER_BYTES..], input, "positions have one encoding");
    }
}

fn records(input: &[u8]) {
    let (mut rest, mut encoded) = (input, Vec::new());
    while !rest.is_empty() {
        let before = rest.len();
        let Ok(record) = take_record(&mut rest) else { break };
        assert_eq!(before - rest.len(), RECORD_HEADER_BYTES + record.payload.len());
        let header = record_header(record.payload.len(), record.shard, record.kind_number, record.position);
        encoded.extend_from_slice(&header);
        encoded.extend_from_slice(record.payload);
    }
    assert_eq!(encoded, &input[..encoded.len()], "a record has one encoding");
}
