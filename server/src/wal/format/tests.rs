//! The bytes are a contract: golden vectors, computed independently of this code; every bit of a header counts.

use super::*;

const IDENTITY: LogIdentity = LogIdentity { node_id: 0x100f_0e0d_0c0b_0a09_0807_0605_0403_0201, log_id: 3 };
const PLACE: BatchPlace = BatchPlace { identity: IDENTITY, segment: 7, offset: 4096 };

const GOLDEN_SEGMENT_HEADER: &str = "\
    45594f5457414c00 01000000 ed85270d 0102030405060708090a0b0c0d0e0f10 0700000000000000 0900000000000000 \
    0201000000000000 0101000000000000 0600000000000000 0020000000000000 0300 0400";
const GOLDEN_BATCH: &str = "\
    45594f42 4d000000 01000000 00000000 0700000000000000 0201000000000000 0101000000000000 36814091 46a3bd84 \
    05000000 0102 01 00 0200000000000000 4d00000000000000 68656c6c6f";
const GOLDEN_POSITIONS: &str = "\
    24000000 0000 80 00 0000000000000000 0000000000000000 \
    0200 0000000000000000 0000000000000000 0102 0300000000000000 4d00000000000000";

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn header() -> SegmentHeader {
    SegmentHeader {
        identity: IDENTITY,
        number: 7,
        epoch: 9,
        core_count: 4,
        first_sequence: Sequence(258),
        durable_sequence: Sequence(257),
        previous_end: Some(SegmentEnd { number: 6, end_offset: 8192 }),
        is_recycled: false,
    }
}

fn batch() -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    let position = EntryPosition { term: Term(2), index: Index(77) };
    batch.extend_from_slice(&record_header(5, ShardId(513), 1, position));
    batch.extend_from_slice(b"hello");
    let byte_length = batch.len();
    batch.resize(BLOCK_BYTES, 0);
    finish_batch(&mut batch, byte_length, 1, (Sequence(258), Sequence(257)), &PLACE);
    batch
}

fn is_whole(batch: &[u8], place: &BatchPlace) -> bool {
    BatchHeader::decode(batch, place)
        .is_some_and(|header| header.padded_bytes() == batch.len() && header.covers(batch, place))
}

#[test]
fn a_segment_header_has_its_golden_bytes() {
    let block = header().encode();
    let golden = bytes_of(GOLDEN_SEGMENT_HEADER);
    assert_eq!(block[..golden.len()], golden[..]);
    assert!(block[golden.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(SegmentHeader::decode(&block), Ok(header()));
}

#[test]
fn a_batch_has_its_golden_bytes() {
    let batch = batch();
    let golden = bytes_of(GOLDEN_BATCH);
    assert_eq!(batch[..golden.len()], golden[..]);
    assert!(batch[golden.len()..].iter().all(|&byte| byte == 0));
    let header = BatchHeader::decode(&batch, &PLACE).unwrap();
    assert_eq!((header.sequence, header.durable_sequence), (Sequence(258), Sequence(257)));
    assert!(header.covers(&batch, &PLACE));
    let mut records = &batch[BATCH_HEADER_BYTES..header.byte_length];
    let record = take_record(&mut records).unwrap();
    assert_eq!((record.shard, record.kind_number, record.payload), (ShardId(513), 1, &b"hello"[..]));
    assert_eq!(record.position, EntryPosition { term: Term(2), index: Index(77) });
    assert!(records.is_empty());
}

#[test]
fn a_recycled_segment_says_so_and_says_nothing_else_there() {
    let header = SegmentHeader { is_recycled: true, ..header() };
    let mut block = header.encode();
    assert_eq!(block[84..86], [1, 0]);
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
    block[84] = 2;
    let checksum = segment_checksum(&block);
    block[SEGMENT_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&block), Err(SegmentHeaderError::Invalid));
}

#[test]
fn positions_have_their_golden_bytes() {
    let position = |term, index| EntryPosition { term: Term(term), index: Index(index) };
    let shards = [(ShardId(2), position(0, 0)), (ShardId(513), position(3, 77))];
    let record = positions_record(&shards);
    assert_eq!(record, bytes_of(GOLDEN_POSITIONS));
    assert_eq!(record.len(), positions_bytes(2));
    let mut records = &record[..];
    let raw = take_record(&mut records).unwrap();
    assert!(raw.kind_number == POSITIONS_KIND && records.is_empty());
    assert!(positions(raw.payload).unwrap().eq(shards));
    assert!(positions(&raw.payload[..35]).is_err(), "cut off");
    let swapped = [&raw.payload[18..], &raw.payload[..18]].concat();
    assert!(positions(&swapped).is_err() && positions(&[swapped.clone(), swapped].concat()).is_err(), "out of order");
    assert_eq!(positions(&[]).unwrap().count(), 0);
}

#[test]
fn any_flipped_bit_makes_a_segment_header_invalid() {
    let block = header().encode();
    for bit in (0..128 * 8).chain((128 * 8..block.len() * 8).step_by(61)) {
        let mut flipped = block;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&flipped), Err(SegmentHeaderError::Invalid), "bit {bit}");
    }
}

#[test]
fn any_flipped_bit_makes_a_batch_invalid() {
    let batch = batch();
    for bit in 0..batch.len() * 8 {
        let mut flipped = batch.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_whole(&flipped, &PLACE), "bit {bit}");
    }
}

#[test]
fn a_batch_counts_only_at_its_own_place() {
    let batch = batch();
    assert!(is_whole(&batch, &PLACE));
    let other_node = LogIdentity { node_id: IDENTITY.node_id ^ 1 << 127, ..IDENTITY };
    let other_log = LogIdentity { log_id: 2, ..IDENTITY };
    for place in [
        BatchPlace { identity: other_node, ..PLACE },
        BatchPlace { identity: other_log, ..PLACE },
        BatchPlace { segment: 8, ..PLACE },
        BatchPlace { offset: 8192, ..PLACE },
    ] {
        assert!(!is_whole(&batch, &place), "{place:?}");
    }
}

#[test]
fn a_newer_version_is_named_and_not_taken_for_damage() {
    let mut block = header().encode();
    block[8] = 2;
    assert_eq!(SegmentHeader::decode(&block), Err(SegmentHeaderError::Invalid));
    let checksum = segment_checksum(&block);
    block[SEGMENT_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&block), Err(SegmentHeaderError::Version(2)));
}

#[test]
fn headers_that_contradict_themselves_are_invalid() {
    let first = SegmentHeader { previous_end: None, ..header() };
    let skipped = SegmentHeader { previous_end: Some(SegmentEnd { number: 5, end_offset: 8192 }), ..header() };
    let unaligned = SegmentHeader { previous_end: Some(SegmentEnd { number: 6, end_offset: 8193 }), ..header() };
    let undrained = SegmentHeader { durable_sequence: Sequence(256), ..header() };
    let no_such_core = SegmentHeader { core_count: 3, ..header() };
    let endless = SegmentHeader { epoch: u64::MAX, ..header() };
    for header in [first, skipped, unaligned, undrained, no_such_core, endless] {
        assert_eq!(SegmentHeader::decode(&header.encode()), Err(SegmentHeaderError::Invalid), "{header:?}");
    }
}

#[test]
fn a_record_longer_than_its_batch_is_refused() {
    let header = record_header(6, ShardId(0), 1, EntryPosition::default());
    let whole = [&header[..], b"hello!"].concat();
    for length in 0..whole.len() {
        assert!(take_record(&mut &whole[..length]).is_err(), "{length}");
    }
    assert!(take_record(&mut &whole[..]).is_ok());
    let bomb = record_header(u32::MAX as usize, ShardId(0), 1, EntryPosition::default());
    assert!(take_record(&mut &bomb[..]).is_err());
}

#[test]
fn the_documentation_has_the_same_diagrams() {
    let source = include_str!("../format.rs");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/LOG.md");
    let Ok(document) = std::fs::read_to_string(path) else {
        panic!("cannot read {path}");
    };
    let diagram: Vec<&str> = source
        .lines()
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.strip_prefix("//!").unwrap().strip_prefix(' ').unwrap_or(""))
        .collect();
    assert!(diagram.len() > 20);
    assert!(document.contains(&diagram.join("\n")), "docs/LOG.md differs from the diagrams of format.rs");
}
