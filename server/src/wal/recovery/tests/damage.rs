//! Damage to what was acknowledged is refused, with file and offset.

use std::fs;

use super::super::super::format::{finish_batch, BatchHeader, BatchPlace, SegmentHeader};
use super::super::super::simulation::{Node, NODE_ID};
use super::super::super::{LogIdentity, Sequence};
use super::super::{Proof, RecoveryError};
use super::*;

const IDENTITY: LogIdentity = LogIdentity { node_id: NODE_ID, log_id: 0 };

fn damage(error: RecoveryError) -> (std::path::PathBuf, u64, Sequence, Proof) {
    match error {
        RecoveryError::Damaged { file, offset, expected, proof } => (file, offset, expected, proof),
        other => panic!("{other}"),
    }
}

#[test]
fn a_flipped_bit_in_a_middle_batch_is_refused_with_its_place() {
    let node = node_with_batches(5);
    let path = node.segment(0, 1);
    for bit in bits_of_batch(3 * BLOCK) {
        flip_bit(&path, bit);
        let error = node.recover(1).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("at byte 12288") && message.contains(path.to_str().unwrap()), "{message}");
        let (file, offset, expected, proof) = damage(error);
        assert_eq!((&file, offset, expected), (&path, 3 * BLOCK, Sequence(3)), "bit {bit}");
        let later = Proof::LaterBatch { file, offset: 4 * BLOCK, sequence: Sequence(4) };
        assert_eq!(proof, later, "bit {bit}");
        flip_bit(&path, bit);
    }
    assert_eq!(node.recover(1).unwrap().1, expected(&[5]));
}

#[test]
fn a_flipped_bit_in_a_header_with_batches_behind_it_is_refused() {
    let node = node_with_batches(2);
    let path = node.segment(0, 1);
    for bit in (0..100 * 8).chain((100 * 8..BLOCK * 8).step_by(991)) {
        flip_bit(&path, bit);
        let (file, offset, expected, _) = damage(node.recover(1).unwrap_err());
        assert_eq!((&file, offset, expected), (&path, 0, Sequence(1)), "bit {bit}");
        flip_bit(&path, bit);
    }
}

#[test]
fn the_last_batch_of_a_closed_log_is_proven_by_the_closing_batch() {
    let node = Node::fast(1);
    let (mut cores, _) = node.start(1);
    cores[0].append(0, &payload(0, 1));
    cores[0].flush();
    assert_eq!(cores[0].writer.close(), Some(Sequence(2)));
    cores[0].flush();
    assert_eq!(node.recover(1).unwrap().1, expected(&[1]));
    flip_bit(&node.segment(0, 1), (BLOCK + 60) * 8);
    assert_eq!(damage(node.recover(1).unwrap_err()).1, BLOCK);
}

#[test]
fn a_sealed_segment_is_damaged_by_anything_before_its_end_and_by_nothing_after() {
    let node = Node::fast(1);
    for round in 0..2 {
        let (mut cores, _) = node.start(1);
        cores[0].append(0, &payload(0, round + 1));
        cores[0].flush();
    }
    let path = node.segment(0, 1);
    let whole = fs::read(&path).unwrap();
    let mut ignored = whole.clone();
    ignored[2 * BLOCK_BYTES..3 * BLOCK_BYTES].fill(0xEE);
    fs::write(&path, &ignored).unwrap();
    assert_eq!(node.recover(1).unwrap().1, expected(&[2]), "behind the end");
    fs::write(&path, &whole[..2 * BLOCK_BYTES]).unwrap();
    assert_eq!(node.recover(1).unwrap().1, expected(&[2]), "cut at the end");
    fs::write(&path, &whole[..2 * BLOCK_BYTES - 1]).unwrap();
    let (file, offset, _, proof) = damage(node.recover(1).unwrap_err());
    assert_eq!((&file, offset), (&path, BLOCK));
    assert_eq!(proof, Proof::NextSegment { file: node.segment(0, 2) });
    for bit in bits_of_batch(BLOCK) {
        fs::write(&path, &whole).unwrap();
        flip_bit(&path, bit);
        assert_eq!(damage(node.recover(1).unwrap_err()).1, BLOCK, "bit {bit}");
    }
}

#[test]
fn swapped_batches_are_refused() {
    let node = node_with_batches(5);
    let path = node.segment(0, 1);
    let mut bytes = fs::read(&path).unwrap();
    let (left, right) = bytes.split_at_mut(3 * BLOCK_BYTES);
    left[2 * BLOCK_BYTES..].swap_with_slice(&mut right[..BLOCK_BYTES]);
    fs::write(&path, &bytes).unwrap();
    let (_, offset, expected, _) = damage(node.recover(1).unwrap_err());
    assert_eq!((offset, expected), (2 * BLOCK, Sequence(2)));
}

#[test]
fn an_older_copy_of_a_block_is_refused() {
    let node = node_with_batches(5);
    let path = node.segment(0, 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.copy_within(2 * BLOCK_BYTES..3 * BLOCK_BYTES, 3 * BLOCK_BYTES);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(damage(node.recover(1).unwrap_err()).1, 3 * BLOCK);
}

#[test]
fn a_missing_segment_is_named() {
    for missing in [1, 2] {
        let node = Node::fast(1);
        for round in 0..3 {
            let (mut cores, _) = node.start(1);
            cores[0].append(0, &payload(0, round + 1));
            cores[0].flush();
        }
        let path = node.segment(0, missing);
        fs::remove_file(&path).unwrap();
        match node.recover(1).unwrap_err() {
            RecoveryError::MissingSegment { file, later } => assert_eq!((missing, file, later), (2, path, 3)),
            RecoveryError::MissingEntries { file, after, found, .. } => {
                assert_eq!((missing, file, after, found), (1, node.segment(0, 2), 1, 0));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_damaged_header_in_the_middle_is_named() {
    let node = Node::fast(1);
    for round in 0..3 {
        let (mut cores, _) = node.start(1);
        cores[0].append(0, &payload(0, round + 1));
        cores[0].flush();
    }
    flip_bit(&node.segment(0, 2), 321);
    match node.recover(1).unwrap_err() {
        RecoveryError::HeaderDamaged { file, later } => assert_eq!((file, later), (node.segment(0, 2), 3)),
        other => panic!("{other}"),
    }
}

#[test]
fn a_segment_of_another_node_log_or_number_is_refused_by_name() {
    let node = node_with_batches(2);
    let path = node.segment(0, 1);
    let whole = fs::read(&path).unwrap();
    let header = SegmentHeader::decode(whole.first_chunk().unwrap()).unwrap();
    let with_header = |header: SegmentHeader| [&header.encode()[..], &whole[BLOCK_BYTES..]].concat();

    let foreign = LogIdentity { node_id: 5, ..header.identity };
    fs::write(&path, with_header(SegmentHeader { identity: foreign, ..header })).unwrap();
    let error = node.recover(1).unwrap_err();
    assert!(matches!(error, RecoveryError::ForeignNode { found: 5, expected: NODE_ID, .. }), "{error}");

    let other_log = LogIdentity { log_id: 1, ..header.identity };
    fs::write(&path, with_header(SegmentHeader { identity: other_log, core_count: 2, ..header })).unwrap();
    let error = node.recover(1).unwrap_err();
    assert!(matches!(error, RecoveryError::Misplaced { found_log: 1, found_number: 1, .. }), "{error}");

    fs::write(&path, &whole).unwrap();
    fs::rename(&path, node.segment(0, 2)).unwrap();
    let error = node.recover(1).unwrap_err();
    assert!(matches!(error, RecoveryError::Misplaced { found_log: 0, found_number: 1, .. }), "{error}");
}

/// Rewrites the batch at block 1 with `change` made to its records, under valid checksums.
fn rewrite_first_batch(node: &Node, change: impl Fn(&mut [u8], &mut u32)) {
    let path = node.segment(0, 1);
    let mut bytes = fs::read(&path).unwrap();
    let place = BatchPlace { identity: IDENTITY, segment: 1, offset: BLOCK };
    let batch = &mut bytes[BLOCK_BYTES..2 * BLOCK_BYTES];
    let header = BatchHeader::decode(batch, &place).unwrap();
    let mut record_count = header.record_count;
    change(&mut batch[BATCH_HEADER_BYTES..header.byte_length], &mut record_count);
    finish_batch(batch, header.byte_length, record_count, (header.sequence, header.durable_sequence), &place);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn whole_batches_that_this_version_cannot_read_are_refused_and_not_skipped() {
    type Change = fn(&mut [u8], &mut u32);
    let changes: [(Change, &str); 6] = [
        (|records, _| records[6] = 200, "unknown kind"),
        (|records, _| records[7] = 1, "flags"),
        (|records, _| records[4] = 9, "shard that does not exist"),
        (|records, _| records[1] += 1, "longer than its batch"),
        (|_, record_count| *record_count = 0, "more bytes than its records"),
        (|_, record_count| *record_count = 3, "longer than its batch"),
    ];
    for (change, problem) in changes {
        let node = node_with_batches(1);
        rewrite_first_batch(&node, change);
        match node.recover(1).unwrap_err() {
            RecoveryError::InvalidRecord { offset, problem: found, .. } => {
                assert!(offset == BLOCK && found.contains(problem), "{found} for {problem}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_batch_with_another_sequence_is_not_the_expected_one() {
    let node = node_with_batches(2);
    let path = node.segment(0, 1);
    let mut bytes = fs::read(&path).unwrap();
    let place = BatchPlace { identity: IDENTITY, segment: 1, offset: BLOCK };
    let batch = &mut bytes[BLOCK_BYTES..2 * BLOCK_BYTES];
    let header = BatchHeader::decode(batch, &place).unwrap();
    finish_batch(batch, header.byte_length, header.record_count, (Sequence(2), Sequence(0)), &place);
    fs::write(&path, bytes).unwrap();
    let (_, offset, expected, _) = damage(node.recover(1).unwrap_err());
    assert_eq!((offset, expected), (BLOCK, Sequence(1)));
}

#[test]
fn cores_that_disagree_about_their_number_are_refused() {
    let node = Node::fast(2);
    let (mut cores, _) = node.start(2);
    for shard in 0..2 {
        cores[usize::from(shard)].append(shard, &payload(shard, 1));
        cores[usize::from(shard)].flush();
    }
    let path = node.segment(1, 1);
    let mut bytes = fs::read(&path).unwrap();
    let header = SegmentHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    bytes[..BLOCK_BYTES].copy_from_slice(&SegmentHeader { core_count: 3, ..header }.encode());
    fs::write(&path, bytes).unwrap();
    match node.recover(2).unwrap_err() {
        RecoveryError::Contradiction { file, .. } => assert_eq!(file, path),
        other => panic!("{other}"),
    }
}

#[test]
fn the_log_of_a_core_that_is_gone_is_checked_too() {
    let node = Node::fast(3);
    let (mut cores, _) = node.start(3);
    for round in 1..=2 {
        cores[2].append(2, &payload(2, round));
        cores[2].flush();
    }
    let path = node.segment(2, 1);
    flip_bit(&path, 0);
    let (file, offset, ..) = damage(node.recover(1).unwrap_err());
    assert_eq!((&file, offset), (&path, 0));
    assert!(node.recover(2).is_err());
}

#[test]
fn an_index_that_does_not_follow_is_refused_with_its_place() {
    let node = node_with_batches(1);
    rewrite_first_batch(&node, |records, _| records[16] = 3);
    match node.recover(1).unwrap_err() {
        RecoveryError::IndexGap { file, offset, shard, found, expected } => {
            assert_eq!((file, offset, shard, found, expected), (node.segment(0, 1), BLOCK, 0, 3, 1));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_term_that_goes_back_is_refused() {
    let node = node_with_batches(2);
    rewrite_first_batch(&node, |records, _| records[8] = 2);
    match node.recover(1).unwrap_err() {
        RecoveryError::TermDecreased { offset, index, found, before, .. } => {
            assert_eq!((offset, index, found, before), (2 * BLOCK, 2, 1, 2));
        }
        other => panic!("{other}"),
    }
}

/// The bytes of a log's directory can be anything.
#[test]
fn arbitrary_bytes_never_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let node = node_with_batches(6);
    let path = node.segment(0, 1);
    let whole = fs::read(&path).unwrap();
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let start = (state >> 8) as usize % bytes.len();
            let end = (start + (state >> 40) as usize % 600).min(bytes.len());
            bytes[start..end].fill(state as u8);
        }
        fs::write(&path, &bytes).unwrap();
        // Either refused, or a prefix.
        if let Ok((_, entries)) = node.recover(1) {
            let count = entries[0].len() as u64;
            assert_eq!(entries, expected(&[count]));
        }
    }
}
