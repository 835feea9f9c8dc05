//! Logs that were cut off at their beginning, and recycled files: what is left is found, what is missing is named, and
//! what a file held before is never taken for what it holds now.

use std::fs;

use eyot_raft_glue::{EntryPosition, Index, ShardId, Term};

use super::super::super::simulation::{Core, Node};
use super::super::super::{Sequence, SnapshotPosition, RECYCLABLE_SEGMENTS_MIN};
use super::super::{Proof, RecoveryError};
use super::*;

/// Fills a segment together with what else stands in it.
fn long(shard: u16, index: u64) -> Vec<u8> {
    let mut bytes = payload(shard, index);
    // Nothing of it is zero, so that a recycled file is full of it.
    bytes.resize(700 * 1024, 1);
    bytes
}

fn longs(shard: u16, count: u64) -> ShardEntries {
    (1..=count).map(|index| (1, long(shard, index))).collect()
}

/// Snapshots by shard, at these indexes; 0: none.
fn snapshots_at(indexes: &[u64]) -> Vec<(ShardId, SnapshotPosition)> {
    let position = |index| EntryPosition { term: Term(1), index: Index(index) };
    let snapshot = |index| SnapshotPosition { position: position(index), needed_after: Index(index) };
    (0..).map(ShardId).zip(indexes.iter().copied().map(snapshot)).filter(|(_, at)| at.position.index.0 > 0).collect()
}

/// What is found by a node whose shards have snapshots at these indexes.
fn recover_from(
    node: &Node,
    core_count: u16,
    indexes: &[u64],
) -> Result<(Vec<super::super::Recovered>, Vec<ShardEntries>), RecoveryError> {
    let held = (0..).zip(indexes).map(|(shard, &index)| longs(shard, index)).collect();
    node.recover_from(core_count, &snapshots_at(indexes), held)
}

/// A node with one core and `shard_count` shards, and `count` entries of shard 0, each in its own segment.
fn node_with_segments(shard_count: u16, count: u64) -> (Node, Core) {
    let node = Node::fast(shard_count);
    let (mut cores, _) = node.start(1);
    let mut core = cores.remove(0);
    for index in 1..=count {
        core.append(0, &long(0, index));
        core.flush();
    }
    (node, core)
}

/// The numbers of the segments of a log.
fn numbers(node: &Node, log_id: u16) -> Vec<u64> {
    (1..100).filter(|&number| node.segment(log_id, number).exists()).collect()
}

#[test]
fn what_snapshots_hold_is_cut_off_and_what_is_left_goes_on_from_them() {
    let (node, mut core) = node_with_segments(2, 7);
    core.append(1, &long(1, 1));
    core.flush();
    core.needed_after.extend([(0, 5), (1, 0)]);
    assert_eq!(core.cut(), 5 - RECYCLABLE_SEGMENTS_MIN);
    // Segment 9 is the spare.
    assert_eq!(numbers(&node, 0), [4, 5, 6, 7, 8, 9]);
    for snapshot in 3..=7 {
        let (recovered, entries) = recover_from(&node, 1, &[snapshot, 0]).unwrap();
        assert_eq!(entries, [longs(0, 7), longs(1, 1)], "snapshot at {snapshot}");
        assert_eq!((recovered[0].records, recovered[0].start.next_segment), (8 - snapshot, 9));
        let found: Vec<u64> = recovered[0].segments.iter().map(|segment| segment.number).collect();
        assert_eq!(found, [4, 5, 6, 7, 8]);
        let newest = |number: usize| &recovered[0].segments[number - 4].newest[..];
        assert_eq!(newest(4), [(ShardId(0), Index(4))]);
        assert_eq!(newest(8), [(ShardId(1), Index(1))]);
    }
}

#[test]
fn what_neither_the_log_nor_a_snapshot_has_is_named() {
    let (node, mut core) = node_with_segments(2, 7);
    core.needed_after.insert(0, 5);
    core.cut();
    for snapshot in 0..3 {
        let error = recover_from(&node, 1, &[snapshot, 0]).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("begins after entry 3 of shard 0"), "{message}");
        assert!(message.contains(&format!("snapshot, ends with entry {snapshot}")), "{message}");
        assert!(message.contains(node.segment(0, 4).to_str().unwrap()), "{message}");
    }
    // A shard that has nothing in the segments that are left is missed as well.
    let (node, mut core) = node_with_segments(2, 0);
    core.append(1, &long(1, 1));
    for index in 1..=6 {
        core.append(0, &long(0, index));
        core.flush();
    }
    core.needed_after.extend([(0, 5), (1, 1)]);
    assert!(core.cut() > 0);
    recover_from(&node, 1, &[5, 1]).unwrap();
    let error = recover_from(&node, 1, &[5, 0]).unwrap_err();
    assert!(matches!(error, RecoveryError::MissingEntries { shard: 1, after: 1, found: 0, .. }), "{error}");
}

#[test]
fn a_log_that_is_older_than_its_snapshots_is_refused() {
    let (node, core) = node_with_segments(1, 3);
    recover_from(&node, 1, &[3]).unwrap();
    let error = recover_from(&node, 1, &[4]).unwrap_err();
    assert!(matches!(error, RecoveryError::BehindSnapshot { shard: 0, snapshot: 4, found: 3, .. }), "{error}");
    fs::remove_dir_all(&core.directory).unwrap();
    let error = recover_from(&node, 1, &[3]).unwrap_err();
    assert!(matches!(error, RecoveryError::BehindSnapshot { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("an older log was put back"));
}

#[test]
fn the_first_batch_that_is_left_was_on_disk_when_the_log_was_cut() {
    let (node, mut core) = node_with_segments(1, 5);
    core.needed_after.insert(0, 4);
    core.cut();
    for number in [3, 4] {
        fs::remove_file(node.segment(0, number)).unwrap();
    }
    fs::remove_file(node.segment(0, 6)).unwrap();
    let path = node.segment(0, 5);
    for bit in bits_of_batch(BLOCK).step_by(7).chain([8 * (BLOCK + 500_000)]) {
        flip_bit(&path, bit);
        match recover_from(&node, 1, &[4]).unwrap_err() {
            RecoveryError::Damaged { file, offset, expected, proof } => {
                assert_eq!((file, offset, expected), (path.clone(), BLOCK, Sequence(5)));
                assert_eq!(proof, Proof::Cut);
            }
            other => panic!("{other}"),
        }
        flip_bit(&path, bit);
    }
    recover_from(&node, 1, &[4]).unwrap();
    // Without its header it is not even a segment, and the log's last one is never cut off.
    flip_bit(&path, 100);
    match recover_from(&node, 1, &[4]).unwrap_err() {
        RecoveryError::MissingSegment { file, later } => assert_eq!((file, later), (node.segment(0, 4), 5)),
        other => panic!("{other}"),
    }
}

/// The header of segment 5 was written and its first batch was not; the next start went on in segment 6, whose header
/// says so. Later the log is cut up to there.
#[test]
fn a_segment_whose_first_write_was_torn_may_be_the_first_that_is_left() {
    let (node, mut core) = node_with_segments(1, 4);
    core.append(0, &long(0, 5));
    core.submit();
    core.land_blocks(0, |block| block == 0);
    drop(core);
    let (mut cores, entries) = node.start(1);
    assert_eq!(entries, [longs(0, 4)]);
    let mut core = cores.remove(0);
    for index in 5..=7 {
        core.append(0, &long(0, index));
        core.flush();
    }
    core.needed_after.insert(0, 5);
    core.cut();
    assert_eq!(numbers(&node, 0), [5, 6, 7, 8, 9], "9 is the spare");
    for snapshot in 5..=7 {
        let (recovered, entries) = recover_from(&node, 1, &[snapshot]).unwrap();
        assert_eq!(entries, [longs(0, 7)], "snapshot at {snapshot}");
        assert!(recovered[0].torn_tails.is_empty(), "what segment 6 has told was told once");
    }
    // What the next header says to be there must be: a header alone excuses nothing.
    let path = node.segment(0, 6);
    flip_bit(&path, 8 * (BLOCK + 100));
    let error = recover_from(&node, 1, &[5]).unwrap_err();
    assert!(matches!(error, RecoveryError::Damaged { ref file, .. } if *file == path), "{error}");
}

/// The entry that begins segment 4 in [`recycled_node`]: too long for what is left of segment 3, and shorter than what
/// its file held before.
fn medium() -> Vec<u8> {
    let mut bytes = payload(0, 4);
    bytes.resize(400 * 1024, 2);
    bytes
}

/// A node whose log's last segment is the fourth, which was the first, and has one batch; behind it stand the bytes of
/// entry 1. The core has no spare.
fn recycled_node() -> (Node, Core) {
    let (node, mut core) = node_with_segments(1, 2);
    core.needed_after.insert(0, 1);
    core.append(0, &long(0, 3));
    core.flush();
    assert_eq!(numbers(&node, 0), [2, 3, 4]);
    core.needed_after.clear();
    core.append(0, &medium());
    core.flush();
    fs::remove_file(node.segment(0, 5)).unwrap();
    (node, core)
}

/// Where the batch behind that of [`medium`] stands in segment 4.
fn end_of_medium(node: &Node) -> u64 {
    let (recovered, entries) = recover_from(node, 1, &[1]).unwrap();
    assert_eq!(entries[0][3].1, medium());
    recovered[0].start.previous_end.unwrap().end_offset
}

#[test]
fn what_a_recycled_file_held_before_is_neither_a_torn_tail_nor_damage() {
    let (node, core) = recycled_node();
    let end = end_of_medium(&node);
    let path = node.segment(0, 4);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes[end as usize..end as usize + BLOCK_BYTES].iter().all(|&byte| byte == 1), "entry 1 is still there");
    for bit in (end * 8..(end + BLOCK) * 8).step_by(1009) {
        flip_bit(&path, bit);
        let (recovered, entries) = recover_from(&node, 1, &[1]).unwrap();
        assert_eq!((entries[0].len(), &recovered[0].torn_tails[..]), (4, &[][..]), "bit {bit}");
        assert_eq!(recovered[0].start.next_sequence, Sequence(5));
    }
    drop(core);
}

#[test]
fn in_a_recycled_file_damage_and_torn_tails_are_told_apart() {
    let (node, mut core) = recycled_node();
    let end = end_of_medium(&node);
    let path = node.segment(0, 4);
    core.append(0, &payload(0, 5));
    core.flush();
    for bit in bits_of_batch(end) {
        flip_bit(&path, bit);
        let (recovered, entries) = recover_from(&node, 1, &[1]).unwrap();
        assert_eq!(entries[0].len(), 4, "bit {bit}");
        let torn: Vec<_> = recovered[0].torn_tails.iter().map(|torn| (torn.offset, torn.sequence)).collect();
        assert_eq!(torn, [(end, Sequence(5))], "bit {bit}");
        flip_bit(&path, bit);
    }
    core.append(0, &payload(0, 6));
    core.flush();
    for bit in bits_of_batch(end) {
        flip_bit(&path, bit);
        match recover_from(&node, 1, &[1]).unwrap_err() {
            RecoveryError::Damaged { file, offset, expected, proof } => {
                assert_eq!((&file, offset, expected), (&path, end, Sequence(5)), "bit {bit}");
                assert_eq!(proof, Proof::LaterBatch { file, offset: end + BLOCK, sequence: Sequence(6) });
            }
            other => panic!("{other}"),
        }
        flip_bit(&path, bit);
    }
    assert_eq!(recover_from(&node, 1, &[1]).unwrap().1[0].len(), 6);
}

#[test]
fn a_recycled_file_that_was_not_begun_is_removed_by_the_next_start_and_not_reported() {
    let (node, mut core) = node_with_segments(1, 2);
    core.needed_after.insert(0, 1);
    core.append(0, &long(0, 3));
    core.flush();
    assert_eq!(numbers(&node, 0), [2, 3, 4]);
    let (recovered, _) = recover_from(&node, 1, &[1]).unwrap();
    assert!(recovered[0].spare.is_none() && recovered[0].torn_tails.is_empty());
    let mut core = node.open(0, &recovered[0]);
    assert_eq!(numbers(&node, 0), [2, 3]);
    core.append(0, &long(0, 4));
    core.flush();
    assert_eq!(recover_from(&node, 1, &[1]).unwrap().1, [longs(0, 4)]);
}

/// Of the first two writes to a recycled segment, the second is on disk and the first in some parts. The next start
/// uses the number again: what the last one has left under it must not come back behind its own batch.
#[test]
fn writes_to_a_recycled_segment_that_was_never_begun_do_not_come_back() {
    for landed in 0..4 {
        let (node, mut core) = node_with_segments(1, 2);
        core.needed_after.insert(0, 1);
        core.append(0, &long(0, 3));
        core.flush();
        // More than is left of segment 3; then one block.
        core.append(0, &medium());
        core.submit();
        core.append(0, &payload(0, 5));
        core.submit();
        assert!(core.in_flight.len() == 2 && core.in_flight[0].segment == 4 && core.in_flight[0].offset == 0);
        core.land_blocks(0, |block| block > 1 || landed & (1 << block) != 0);
        core.land_blocks(1, |_| true);
        let begun = landed == 3;
        let (recovered, entries) = recover_from(&node, 1, &[1]).unwrap();
        assert_eq!(entries[0].len(), if begun { 5 } else { 3 }, "blocks {landed:02b}");
        assert_eq!(recovered[0].torn_tails.len(), usize::from(!begun), "blocks {landed:02b}");
        let mut core = node.open(0, &recovered[0]);
        let count = entries[0].len() as u64;
        core.append(0, &medium());
        core.flush();
        drop(core);
        let (_, again) = recover_from(&node, 1, &[1]).unwrap();
        assert_eq!(again[0].len() as u64, count + 1, "blocks {landed:02b}");
        assert_eq!(again[0].last().unwrap().1, medium());
    }
}

#[test]
fn the_log_of_a_core_that_is_gone_is_cut_to_its_last_segment_by_who_looks_after_it() {
    let node = Node::fast(2);
    let (mut cores, _) = node.start(2);
    for index in 1..=4 {
        for shard in 0..2 {
            cores[usize::from(shard)].append(shard, &long(shard, index));
            cores[usize::from(shard)].flush();
        }
    }
    drop(cores);
    let (recovered, entries) = node.recover(1).unwrap();
    assert_eq!(entries, [longs(0, 4), longs(1, 4)]);
    let logs: Vec<_> = recovered[0].segments.iter().map(|segment| (segment.log_id, segment.number)).collect();
    assert_eq!(logs, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)]);
    let mut core = node.open(0, &recovered[0]);
    core.needed_after.extend([(0, 0), (1, 4)]);
    assert_eq!(core.cut(), 3);
    assert_eq!((numbers(&node, 0), numbers(&node, 1)), (vec![1, 2, 3, 4, 5], vec![4]));
    core.append(1, &long(1, 5));
    core.flush();
    for core_count in 1..=3 {
        assert_eq!(recover_from(&node, core_count, &[0, 4]).unwrap().1, [longs(0, 4), longs(1, 5)]);
        let error = recover_from(&node, core_count, &[0, 2]).unwrap_err();
        assert!(matches!(error, RecoveryError::MissingEntries { shard: 1, after: 3, found: 2, .. }), "{error}");
    }
}
