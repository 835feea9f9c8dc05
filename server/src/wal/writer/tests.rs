//! The writer without any file: when it writes, where, and what it calls durable.

use eyot_raft_glue::{Index, Term};
use eyot_ring::MappedFile;
use proptest::prelude::*;

use super::super::format::{bytes_at_most, positions, take_record, BatchHeader, POSITIONS_KIND};
use super::super::{SEGMENT_BYTES_MIN, WRITES_IN_FLIGHT_MAX};
use super::*;

const IDENTITY: LogIdentity = LogIdentity { node_id: 42, log_id: 0 };
const BLOCK: u64 = BLOCK_BYTES as u64;

fn writer_of(writes_in_flight_max: usize) -> LogWriter {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES_MIN, writes_in_flight_max };
    LogWriter::new(IDENTITY, options, LogStart::of_empty_log(1, 1), &[(ShardId(0), EntryPosition::default())])
}

/// A writer whose first segment is begun: batch 1 is durable.
fn running_writer() -> LogWriter {
    let mut writer = writer_of(2);
    provide(&mut writer);
    append(&mut writer, 1, b"first");
    complete_next(&mut writer);
    provide(&mut writer);
    writer
}

fn provide(writer: &mut LogWriter) -> Option<SegmentRequest> {
    let request = writer.wants_segment();
    if let Some(SegmentRequest { number, bytes }) = request {
        writer.segment_ready(ReadySegment { number, bytes, is_recycled: false });
    }
    request
}

fn append(writer: &mut LogWriter, index: u64, payload: &[u8]) -> Sequence {
    let position = EntryPosition { term: Term(1), index: Index(index) };
    writer.append(ShardId(0), position, EntryKind::Commands, payload)
}

fn complete_next(writer: &mut LogWriter) -> Sequence {
    let write = writer.next_write().expect("something to write");
    writer.written(write.sequence, write.buffer)
}

#[test]
fn everything_that_arrived_during_a_write_goes_out_together() {
    let mut writer = writer_of(1);
    provide(&mut writer);
    assert_eq!(append(&mut writer, 1, b"a"), Sequence(1));
    let first = writer.next_write().unwrap();
    for index in 2..=100 {
        assert_eq!(append(&mut writer, index, b"b"), Sequence(2));
        assert!(writer.next_write().is_none());
    }
    assert_eq!(writer.written(Sequence(1), first.buffer), Sequence(1));
    let second = writer.next_write().unwrap();
    let place = BatchPlace { identity: IDENTITY, segment: 1, offset: second.offset };
    let header = BatchHeader::decode(&second.buffer, &place).unwrap();
    assert_eq!((header.record_count, header.durable_sequence), (99, Sequence(1)));
    assert_eq!(writer.written(second.sequence, second.buffer), Sequence(2));
    assert!(!writer.has_open_records());
    assert_eq!(writer.pending_bytes(), 0);
}

#[test]
fn a_segment_begins_with_its_header_in_the_first_batchs_write() {
    let mut writer = writer_of(2);
    append(&mut writer, 1, b"a");
    assert!(writer.next_write().is_none(), "there is no segment yet");
    assert_eq!(provide(&mut writer), Some(SegmentRequest { number: 1, bytes: SEGMENT_BYTES_MIN }));
    let write = writer.next_write().unwrap();
    assert_eq!((write.segment, write.offset, write.buffer.len()), (1, 0, 2 * BLOCK_BYTES));
    let header = SegmentHeader::decode(write.buffer.first_chunk().unwrap()).unwrap();
    assert_eq!((header.number, header.first_sequence, header.previous_end), (1, Sequence(1), None));
    let place = BatchPlace { identity: IDENTITY, segment: 1, offset: BLOCK };
    let batch = &write.buffer[BLOCK_BYTES..];
    assert!(BatchHeader::decode(batch, &place).unwrap().covers(batch, &place));
}

#[test]
fn durability_follows_contiguous_completions_only() {
    let mut writer = running_writer();
    append(&mut writer, 2, b"a");
    let second = writer.next_write().unwrap();
    append(&mut writer, 3, b"b");
    let third = writer.next_write().unwrap();
    append(&mut writer, 4, b"c");
    assert!(writer.next_write().is_none(), "two are in flight");
    assert_eq!(writer.written(Sequence(3), third.buffer), Sequence(1));
    assert!(writer.next_write().is_none(), "the third completed, but the second may be stuck");
    assert!(writer.pending_bytes() > 0);
    assert_eq!(writer.written(Sequence(2), second.buffer), Sequence(3));
    assert_eq!(complete_next(&mut writer), Sequence(4));
    assert_eq!(writer.pending_bytes(), 0);
}

#[test]
fn a_new_segment_waits_for_every_write_to_the_old_one() {
    let mut writer = running_writer();
    let large = vec![7; 500 * 1024];
    append(&mut writer, 2, &large);
    let second = writer.next_write().unwrap();
    append(&mut writer, 3, &large);
    let third = writer.next_write();
    assert!(third.is_some(), "both fit");
    append(&mut writer, 4, &large);
    let third = third.unwrap();
    writer.written(Sequence(3), third.buffer);
    assert!(writer.next_write().is_none());
    writer.written(Sequence(2), second.buffer);
    let fourth = writer.next_write().unwrap();
    assert_eq!((fourth.segment, fourth.offset), (2, 0));
    let header = SegmentHeader::decode(fourth.buffer.first_chunk().unwrap()).unwrap();
    assert_eq!(header.durable_sequence, Sequence(3));
    let end = header.previous_end.unwrap();
    assert_eq!(end.number, 1);
    assert_eq!(end.end_offset, 3 * BLOCK + 2 * (bytes_at_most(large.len())) - BLOCK);
    let retired = writer.segment_retired().unwrap();
    assert_eq!((retired.log_id, retired.number, retired.bytes), (0, 1, SEGMENT_BYTES_MIN));
    assert_eq!((retired.last_sequence, &retired.newest[..]), (Sequence(3), &[(ShardId(0), Index(3))][..]));
    assert_eq!(writer.segment_retired(), None);
    assert_eq!(writer.wants_segment(), Some(SegmentRequest { number: 3, bytes: SEGMENT_BYTES_MIN }));
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_size() {
    let mut writer = running_writer();
    let huge = vec![9; 3 * 1024 * 1024];
    let needed = bytes_at_most(huge.len()) + BLOCK;
    append(&mut writer, 2, b"before");
    append(&mut writer, 3, &huge);
    assert_eq!(append(&mut writer, 4, b"after"), Sequence(4), "a large entry has a batch of its own");
    complete_next(&mut writer);
    assert!(writer.next_write().is_none(), "the spare is too small");
    assert_eq!(writer.wants_segment(), Some(SegmentRequest { number: 2, bytes: needed }));
    writer.segment_ready(ReadySegment { number: 2, bytes: needed, is_recycled: false });
    let write = writer.next_write().unwrap();
    assert_eq!((write.segment, write.offset, write.buffer.len() as u64), (2, 0, needed));
    assert_eq!(write.buffer.capacity() as u64, needed, "made to measure");
    writer.written(write.sequence, write.buffer);
    assert_eq!(provide(&mut writer), Some(SegmentRequest { number: 3, bytes: SEGMENT_BYTES_MIN }));
    assert_eq!(complete_next(&mut writer), Sequence(4));
}

#[test]
fn a_batch_is_bounded_while_it_waits() {
    let mut writer = writer_of(1);
    // With its header of 24 bytes a record takes a kilobyte; 1019 of them fit 1 MiB with the other headers.
    for index in 1..=3000 {
        assert_eq!(append(&mut writer, index, &[0; 1000]), Sequence(1 + (index - 1) / 1019), "entry {index}");
    }
    assert!(writer.pending_bytes() >= 3000 * 1024);
    assert_eq!(writer.batches.len(), 3);
    assert!(writer.batches.iter().all(|batch| batch.byte_length() <= writer.batch_bytes_max));
}

#[test]
fn writable_bytes_promise_no_room_twice() {
    let mut writer = writer_of(1);
    assert_eq!(writer.writable_bytes(), 0);
    provide(&mut writer);
    let room = SEGMENT_BYTES_MIN - 2 * BLOCK;
    assert_eq!(writer.writable_bytes(), room, "without the header, and the positions where they take a block");
    let payload = vec![0; 600 * 1024];
    append(&mut writer, 1, &payload);
    let batch = bytes_at_most(payload.len());
    assert_eq!(writer.writable_bytes(), room - batch);
    complete_next(&mut writer);
    assert_eq!(writer.writable_bytes(), room - batch + BLOCK, "the rest of the only segment");
    provide(&mut writer);
    assert_eq!(writer.writable_bytes(), room, "an entry of this size goes to the spare and leaves the rest unused");
    append(&mut writer, 2, &payload);
    assert_eq!(writer.writable_bytes(), room - batch, "what waits is bound for the spare");
}

#[test]
fn few_and_small_buffers_are_kept() {
    let mut writer = writer_of(WRITES_IN_FLIGHT_MAX);
    for index in 1..=40 {
        provide(&mut writer);
        append(&mut writer, index, &vec![0; if index % 2 == 0 { 5 * 1024 * 1024 } else { 10 }]);
        provide(&mut writer);
        complete_next(&mut writer);
    }
    assert!(writer.spare_buffers.len() <= SPARE_BUFFERS_MAX);
    assert!(writer.spare_buffers.iter().all(|buffer| buffer.capacity() <= SPARE_BUFFER_BYTES_MAX));
    writer.recycle(AlignedBuffer::with_capacity(SPARE_BUFFER_BYTES_MAX + 1));
    assert!(writer.spare_buffers.iter().all(|buffer| buffer.capacity() <= SPARE_BUFFER_BYTES_MAX));
}

#[test]
fn closing_writes_one_batch_that_testifies_to_the_others() {
    assert_eq!(writer_of(2).close(), None, "nothing was written, so there is nothing to testify to");
    let mut writer = running_writer();
    assert_eq!(writer.close(), Some(Sequence(2)));
    let write = writer.next_write().unwrap();
    let place = BatchPlace { identity: IDENTITY, segment: 1, offset: write.offset };
    let header = BatchHeader::decode(&write.buffer, &place).unwrap();
    assert_eq!((header.record_count, header.durable_sequence), (0, Sequence(1)));
}

#[test]
#[should_panic(expected = "entries pending")]
fn closing_with_entries_pending_is_a_bug() {
    let mut writer = running_writer();
    append(&mut writer, 2, b"a");
    writer.close();
}

#[test]
#[should_panic(expected = "a completion belongs to a write in flight")]
fn completing_a_write_twice_is_a_bug() {
    let mut writer = running_writer();
    writer.written(Sequence(1), AlignedBuffer::with_capacity(1));
}

#[test]
#[should_panic(expected = "segment out of order")]
fn a_segment_nobody_asked_for_is_a_bug() {
    running_writer().segment_ready(ReadySegment { number: 3, bytes: SEGMENT_BYTES_MIN, is_recycled: false });
}

/// Reads the records of a write back: their indexes.
fn indexes_in(write: &LogWrite) -> Vec<u64> {
    let lead = if write.offset == 0 { SEGMENT_HEADER_BYTES } else { 0 };
    let place = BatchPlace { identity: IDENTITY, segment: write.segment, offset: write.offset + lead as u64 };
    let batch = &write.buffer[lead..];
    let header = BatchHeader::decode(batch, &place).unwrap();
    assert!(header.covers(batch, &place));
    let mut records = &batch[BATCH_HEADER_BYTES..header.byte_length];
    let records = (0..header.record_count).map(|_| take_record(&mut records).unwrap());
    records.filter(|record| record.kind_number != POSITIONS_KIND).map(|record| record.position.index.0).collect()
}

#[test]
fn a_segments_first_batch_ends_with_the_positions_before_it() {
    let options = LogOptions { segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() };
    let position = |index| EntryPosition { term: Term(3), index: Index(index) };
    let mut start = [4, 5, 9].map(|shard| (ShardId(shard), position(0)));
    start[2].1 = position(70);
    let mut writer = LogWriter::new(IDENTITY, options, LogStart::of_empty_log(1, 1), &start);
    let positions_in = |write: &LogWrite| {
        let batch = &write.buffer[SEGMENT_HEADER_BYTES..];
        let place = BatchPlace { identity: IDENTITY, segment: write.segment, offset: BLOCK };
        let header = BatchHeader::decode(batch, &place).unwrap();
        assert!(write.offset == 0 && header.covers(batch, &place));
        let mut records = &batch[BATCH_HEADER_BYTES..header.byte_length];
        let records: Vec<_> = (0..header.record_count).map(|_| take_record(&mut records).unwrap()).collect();
        assert!(records[..records.len() - 1].iter().all(|record| record.kind_number != POSITIONS_KIND));
        let last = records.last().unwrap();
        assert_eq!(last.kind_number, POSITIONS_KIND);
        positions(last.payload).unwrap().map(|(shard, position)| (shard.0, position.index.0)).collect::<Vec<_>>()
    };
    let large = vec![7; 600 * 1024];
    let mut found = Vec::new();
    for (shard, index) in [(9, 71), (4, 1), (9, 72), (4, 2)] {
        provide(&mut writer);
        writer.append(ShardId(shard), position(index), EntryKind::Commands, &large);
        let write = writer.next_write().unwrap();
        found.push(positions_in(&write));
        writer.written(write.sequence, write.buffer);
        assert_eq!(writer.pending_bytes(), 0);
    }
    let expected = [(0, 70), (0, 71), (1, 71), (1, 72)].map(|(four, nine)| vec![(4, four), (5, 0), (9, nine)]);
    assert_eq!(found, expected, "each without the entries of the batch that carries it");
    let retired: Vec<_> = std::iter::from_fn(|| writer.segment_retired()).map(|segment| segment.newest).collect();
    let newest = [(9, 71), (4, 1), (9, 72)].map(|(shard, index)| Box::from([(ShardId(shard), Index(index))]));
    assert_eq!(retired, newest);
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Write,
    Complete(usize),
    Provide,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0_usize..5000, 200_000_usize..600_000].prop_map(Step::Append),
        3 => Just(Step::Write),
        3 => (0_usize..8).prop_map(Step::Complete),
        1 => Just(Step::Provide),
    ]
}

#[test]
fn a_part_that_is_referred_to_is_written_as_a_copied_one_would_be() {
    const PART: std::ops::Range<usize> = 100..3 * BLOCK_BYTES + 17;
    let (_file, mut region) = MappedFile::create(&std::env::temp_dir(), 4 * BLOCK_BYTES).unwrap();
    region.bytes_mut().iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 251) as u8);
    let value = region.share(4 * BLOCK_BYTES);
    let position = EntryPosition { term: Term(1), index: Index(3) };
    let (mut copying, mut referring) = (running_writer(), running_writer());
    for writer in [&mut copying, &mut referring] {
        append(writer, 2, b"before");
    }
    // A batch of its own on both sides, so that they are the same to the last byte.
    copying.batch_bytes_max = 0;
    let payload = [&b"head"[..], &value.bytes()[PART]];
    copying.append_gathered(ShardId(0), position, EntryKind::ValuePart, payload);
    let before = referring.memory_bytes();
    let source = (value.clone(), PART);
    let sequence = referring.append_referring(ShardId(0), position, EntryKind::ValuePart, b"head", source);
    assert_eq!(sequence, Sequence(3));
    assert!(referring.memory_bytes() < before + BLOCK_BYTES, "nothing is copied yet");
    assert_eq!(referring.pending_bytes(), copying.pending_bytes());
    assert!(referring.next_reference().is_none(), "another batch is written first");
    for writer in [&mut copying, &mut referring] {
        append(writer, 4, b"after");
    }
    for step in 0..3 {
        assert_eq!(referring.next_reference().is_some(), step == 1);
        let (copied, referred) = (copying.next_write().unwrap(), referring.next_write().unwrap());
        assert_eq!((copied.segment, copied.offset), (referred.segment, referred.offset));
        assert!(copied.buffer[..] == referred.buffer[..], "write {step}");
        copying.written(copied.sequence, copied.buffer);
        referring.written(referred.sequence, referred.buffer);
        assert_eq!(referring.referenced_bytes() > 0, step == 0);
        if step == 1 {
            drop(value.clone());
        }
    }
    assert_eq!((referring.pending_bytes(), referring.referenced_bytes()), (0, 0));
}

#[test]
fn the_reference_is_named_only_when_its_write_may_start() {
    let (_file, region) = MappedFile::create(&std::env::temp_dir(), BLOCK_BYTES).unwrap();
    let value = region.share(BLOCK_BYTES);
    let mut writer = running_writer();
    let position = EntryPosition { term: Term(1), index: Index(2) };
    let mut writes = Vec::new();
    for _ in 0..2 {
        writer.append_referring(ShardId(0), position, EntryKind::ValuePart, b"", (value.clone(), 0..10));
        assert!(writer.next_reference().is_some());
        writes.push(writer.next_write().unwrap());
    }
    writer.append_referring(ShardId(0), position, EntryKind::ValuePart, b"", (value, 0..10));
    assert!(writer.next_reference().is_none() && writer.next_write().is_none(), "two are in flight");
    for write in writes {
        writer.written(write.sequence, write.buffer);
    }
    assert!(writer.next_reference().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the order of completions: records come out once and in order, writes never overlap, what is called
    /// durable has completed, and what `writable_bytes` promises can be written.
    #[test]
    fn any_schedule_keeps_the_invariants(
        steps in proptest::collection::vec(step(), 1..120),
        in_flight_max in 1_usize..4,
    ) {
        let mut writer = writer_of(in_flight_max);
        let mut in_flight: Vec<LogWrite> = Vec::new();
        let mut completed = std::collections::BTreeSet::new();
        let (mut appended, mut written, mut end) = (0, 0, (0, 0));
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    let promised = writer.writable_bytes();
                    appended += 1;
                    append(&mut writer, appended, &vec![0; bytes]);
                    if promised >= bytes_at_most(bytes) {
                        let room = writer.current.map_or(0, |current| current.bytes - current.offset);
                        let last = writer.batches.back().unwrap();
                        let first = last.bytes_as_first(writer.positions.record_bytes());
                        let fits_spare = writer.spare.is_some_and(|spare| spare.bytes >= first);
                        prop_assert!(fits_spare || room >= last.padded_bytes(), "promised room is there");
                    }
                }
                Step::Write => {
                    if let Some(write) = writer.next_write() {
                        prop_assert!((write.segment, write.offset) >= end);
                        prop_assert!(write.segment == end.0 || in_flight.is_empty());
                        end = (write.segment, write.offset + write.buffer.len() as u64);
                        for index in indexes_in(&write) {
                            written += 1;
                            prop_assert_eq!(index, written);
                        }
                        in_flight.push(write);
                        prop_assert!(in_flight.len() <= in_flight_max);
                    }
                }
                Step::Complete(which) if !in_flight.is_empty() => {
                    let write = in_flight.remove(which % in_flight.len());
                    completed.insert(write.sequence);
                    let durable = writer.written(write.sequence, write.buffer);
                    prop_assert!((1..=durable.0).all(|sequence| completed.contains(&Sequence(sequence))));
                    prop_assert!(!completed.contains(&durable.next()));
                }
                Step::Complete(_) => {}
                Step::Provide => drop(provide(&mut writer)),
            }
        }
        // Everything comes out in the end.
        for _ in 0..1000 {
            provide(&mut writer);
            while let Some(write) = writer.next_write() {
                written += indexes_in(&write).len() as u64;
                in_flight.push(write);
            }
            if in_flight.is_empty() {
                break;
            }
            let write = in_flight.remove(0);
            writer.written(write.sequence, write.buffer);
        }
        prop_assert_eq!(written, appended);
        prop_assert_eq!(writer.pending_bytes(), 0);
        prop_assert!(!writer.has_open_records());
    }
}
