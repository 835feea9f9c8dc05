//! Starts in order: empty logs, many restarts, another number of cores.

use super::super::super::format::{bytes_at_most, positions_bytes};
use super::super::super::simulation::{Node, NODE_ID};
use super::super::super::{placement, Sequence};
use super::super::{next_epoch, recover, RecoveryError, RecoveryScope};
use super::*;
use crate::disk::RealDisk;
use eyot_raft_glue::ShardId;

#[test]
fn an_empty_log_starts_at_the_beginning() {
    let node = Node::new(4);
    let (recovered, entries) = node.recover(2).unwrap();
    assert!(entries.iter().all(Vec::is_empty));
    for recovered in recovered {
        let start = recovered.start;
        assert_eq!((start.epoch, start.next_segment, start.next_sequence), (1, 1, Sequence(1)));
        assert!(start.previous_end.is_none() && recovered.spare.is_none());
    }
    assert_eq!(next_epoch(&RealDisk, &node.wal().join("does-not-exist"), NODE_ID).unwrap(), 1);
}

#[test]
fn a_start_without_a_write_changes_nothing() {
    let node = Node::new(1);
    for round in 0..5 {
        let (mut cores, entries) = node.start(1);
        assert_eq!(entries, expected(&[round]));
        cores[0].prepare_segment();
        drop(cores);
        let (mut cores, _) = node.start(1);
        cores[0].append(0, &payload(0, round + 1));
        cores[0].flush();
        assert_eq!(next_epoch(&RealDisk, node.wal(), NODE_ID).unwrap(), round + 2);
    }
}

#[test]
fn large_and_small_entries_come_back_over_many_segments() {
    let node = Node::new(3);
    let (mut cores, _) = node.start(1);
    let sizes = [0, 1, 4024, 4025, 100_000, 700_000, 1_100_000, 5_000_000, 3, 900_000, 12_000_000, 8];
    let mut wanted = vec![Vec::new(); 3];
    for (position, size) in sizes.into_iter().cycle().take(36).enumerate() {
        let shard = (position % 3) as u16;
        let payload: Vec<u8> = (0..size).map(|byte| (byte / 7 + position) as u8).collect();
        cores[0].append(shard, &payload);
        wanted[usize::from(shard)].push((1, payload));
        if position % 5 == 4 {
            cores[0].flush();
        }
    }
    cores[0].flush();
    let (recovered, entries) = node.recover(1).unwrap();
    assert!(entries == wanted);
    assert_eq!(recovered[0].records, 36);
    assert!(recovered[0].start.next_segment > 10);
    assert_eq!(recovered[0].torn_tails, []);
}

#[test]
fn a_batch_may_fill_a_segment_to_its_last_byte() {
    let node = Node::fast(1);
    let (mut cores, _) = node.start(1);
    let room = node.options.segment_bytes - BLOCK;
    let bytes = room as usize - 72 - positions_bytes(1);
    assert_eq!(bytes_at_most(bytes), room);
    for _ in 0..3 {
        cores[0].append(0, &vec![1; bytes]);
    }
    cores[0].flush();
    let (recovered, entries) = node.recover(1).unwrap();
    assert_eq!(entries[0].len(), 3);
    assert_eq!(recovered[0].start.previous_end.unwrap().end_offset, node.options.segment_bytes);
    assert_eq!(recovered[0].start.next_segment, 4);
    let (mut cores, _) = node.start(1);
    cores[0].append(0, b"more");
    cores[0].flush();
    assert_eq!(node.recover(1).unwrap().1[0].len(), 4);
}

#[test]
fn every_entry_survives_changes_of_the_number_of_cores_in_order() {
    let node = Node::new(7);
    let mut count = 0;
    for core_count in [1, 2, 1, 3, 7, 2, 2, 9, 1] {
        let (mut cores, entries) = node.start(core_count);
        assert_eq!(entries, expected(&[count; 7]), "{core_count} cores");
        for round in 1..=3 {
            for shard in 0..7 {
                let core = placement(ShardId(shard), 7, core_count);
                cores[usize::from(core)].append(shard, &payload(shard, count + round));
            }
            cores.iter_mut().for_each(super::super::super::simulation::Core::flush);
        }
        count += 3;
    }
    for core_count in 1..=8 {
        assert_eq!(node.recover(core_count).unwrap().1, expected(&[count; 7]));
    }
}

#[test]
fn a_torn_log_of_a_core_that_is_gone_stays_cut_and_can_be_continued() {
    let node = Node::fast(2);
    let (mut cores, _) = node.start(2);
    cores[1].append(1, &payload(1, 1));
    cores[1].flush();
    cores[1].append(1, b"never acknowledged");
    cores[1].submit();
    let _also_in_flight = cores[1].append(1, b"nor this");
    cores[1].submit();
    cores[1].land(1);
    drop(cores);
    let (recovered, entries) = node.recover(1).unwrap();
    assert_eq!(entries, expected(&[0, 1]));
    assert_eq!(recovered[0].torn_tails.len(), 1);
    for (round, core_count) in [1, 1, 2, 2, 1].into_iter().enumerate() {
        let count = round as u64 + 1;
        let (mut cores, entries) = node.start(core_count);
        assert_eq!(entries, expected(&[0, count]), "round {round}");
        cores[usize::from(core_count) - 1].append(1, &payload(1, count + 1));
        cores[usize::from(core_count) - 1].flush();
    }
}

#[test]
fn a_log_that_was_removed_leaves_a_gap_that_is_noticed() {
    let node = Node::new(2);
    for core_count in [2, 1] {
        let (mut cores, entries) = node.start(core_count);
        let core = usize::from(core_count) - 1;
        cores[core].append(1, &payload(1, entries[1].len() as u64 + 1));
        cores[core].flush();
    }
    std::fs::remove_dir_all(node.wal().join("core-1")).unwrap();
    let error = node.recover(1).unwrap_err();
    assert!(matches!(error, RecoveryError::MissingEntries { shard: 1, after: 1, found: 0, .. }), "{error}");
}

#[test]
fn with_an_unchanged_number_of_cores_each_reads_its_own_log_only() {
    let node = Node::new(4);
    let (mut cores, _) = node.start(2);
    for shard in 0..4 {
        cores[usize::from(shard / 2)].append(shard, &payload(shard, 1));
    }
    cores.iter_mut().for_each(super::super::super::simulation::Core::flush);
    let (recovered, _) = node.recover(2).unwrap();
    for (core, recovered) in recovered.iter().enumerate() {
        assert_eq!((recovered.batches, recovered.records, recovered.bytes), (1, 2, BLOCK));
        let shards: Vec<usize> = recovered.positions.iter().map(|(shard, _)| usize::from(shard.0)).collect();
        assert_eq!(shards, [2 * core, 2 * core + 1]);
    }
}

#[test]
fn an_entry_that_its_shard_refuses_stops_recovery_with_its_place() {
    let node = node_with_batches(2);
    let scope = RecoveryScope { node_id: NODE_ID, core: 0, core_count: 1, shard_count: 1, epoch: 2 };
    let error = recover(&RealDisk, node.wal(), scope, &[], &mut |record| match record.position.index.0 {
        2 => Err("no such command".into()),
        _ => Ok(()),
    })
    .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("entry 2 of shard 0") && message.contains("no such command"), "{message}");
    assert!(message.contains("at byte 8192"), "{message}");
}

#[test]
fn shards_are_placed_in_even_contiguous_ranges() {
    for shard_count in [1_u16, 3, 8, 16, 100, 16_384] {
        for core_count in [1_u16, 2, 3, 8, 100] {
            let cores: Vec<u16> =
                (0..shard_count).map(|shard| placement(ShardId(shard), shard_count, core_count)).collect();
            assert!(cores.windows(2).all(|pair| pair[0] <= pair[1]));
            assert!(cores.iter().all(|&core| core < core_count));
            let of_core = |core| cores.iter().filter(|&&found| found == core).count();
            let counts: Vec<usize> = (0..core_count).map(of_core).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{shard_count} on {core_count}");
        }
    }
}
