//! Crashes: everything acknowledged is found, nothing is invented, and the log goes on.

use std::fs;

use proptest::prelude::*;

use super::super::super::simulation::{Core, Node};
use super::super::super::{placement, Sequence};
use super::*;
use crate::disk::RealDisk;

#[test]
fn every_cut_of_the_last_batch_recovers_everything_before_it() {
    let node = node_with_batches(4);
    let path = node.segment(0, 1);
    let whole = fs::read(&path).unwrap();
    let last = 4 * BLOCK;
    for length in last..=last + BLOCK {
        fs::write(&path, &whole[..length as usize]).unwrap();
        let (recovered, entries) = node.recover(1).unwrap();
        let is_whole = length == last + BLOCK;
        assert_eq!(entries, expected(&[if is_whole { 4 } else { 3 }]), "cut at {length}");
        assert_eq!(recovered[0].start.next_sequence, Sequence(if is_whole { 5 } else { 4 }));
        let torn: Vec<_> =
            recovered[0].torn_tails.iter().map(|torn| (&torn.file, torn.offset, torn.sequence)).collect();
        let is_torn = !is_whole && length > last;
        assert_eq!(torn, if is_torn { vec![(&path, last, Sequence(4))] } else { vec![] }, "cut at {length}");
    }
}

#[test]
fn a_last_batch_that_is_zero_from_any_byte_on_is_cut_off() {
    let node = node_with_batches(3);
    let path = node.segment(0, 1);
    let whole = fs::read(&path).unwrap();
    let last = 3 * BLOCK;
    let used = whole.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    for from in last..used {
        let mut torn = whole.clone();
        torn[from as usize..].fill(0);
        fs::write(&path, &torn).unwrap();
        let (recovered, entries) = node.recover(1).unwrap();
        assert_eq!(entries, expected(&[2]), "zero from {from}");
        let rest = torn.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
        let bytes: Vec<u64> = recovered[0].torn_tails.iter().map(|torn| torn.bytes).collect();
        assert_eq!(bytes, if rest > last { vec![rest - last] } else { vec![] }, "zero from {from}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_batch_looks_torn_and_is_reported() {
    let node = node_with_batches(3);
    let path = node.segment(0, 1);
    for bit in bits_of_batch(3 * BLOCK) {
        flip_bit(&path, bit);
        let (recovered, entries) = node.recover(1).unwrap();
        assert_eq!(entries, expected(&[2]), "bit {bit}");
        assert_eq!(recovered[0].torn_tails.len(), 1, "bit {bit}");
        assert_eq!(recovered[0].torn_tails[0].offset, 3 * BLOCK);
        flip_bit(&path, bit);
    }
}

#[test]
fn any_blocks_of_the_last_write_may_be_missing() {
    for missing in 0..3 {
        let node = Node::fast(1);
        let (mut cores, _) = node.start(1);
        cores[0].append(0, &payload(0, 1));
        cores[0].flush();
        cores[0].append(0, &[7; 2 * BLOCK_BYTES]);
        cores[0].submit();
        cores[0].land_blocks(0, |block| block != missing);
        let (recovered, entries) = node.recover(1).unwrap();
        assert_eq!(entries, expected(&[1]));
        assert_eq!(recovered[0].torn_tails.len(), 1);
        let (mut cores, _) = node.start(1);
        cores[0].append(0, &payload(0, 2));
        cores[0].flush();
        let (recovered, entries) = node.recover(1).unwrap();
        assert_eq!(entries, expected(&[2]));
        assert_eq!(recovered[0].torn_tails, [], "sealed by the segment after it");
    }
}

/// The first write to a segment is its header and its first batch; any part of it may reach the disk.
#[test]
fn any_blocks_of_a_segments_first_write_may_be_missing() {
    for begins_log in [true, false] {
        for landed in 0..8 {
            let node = Node::fast(1);
            let (mut cores, _) = node.start(1);
            let acknowledged = u64::from(!begins_log);
            if !begins_log {
                cores[0].append(0, &payload(0, 1));
                cores[0].flush();
                (cores, _) = node.start(1);
            }
            // Two blocks of batch behind the header's block.
            cores[0].append(0, &[3; BLOCK_BYTES]);
            cores[0].submit();
            cores[0].land_blocks(0, |block| landed & (1 << block) != 0);
            let is_whole = landed == 7;
            let found = acknowledged + u64::from(is_whole);
            for _ in 0..2 {
                let (_, entries) = node.recover(1).unwrap();
                assert_eq!(entries[0].len() as u64, found, "blocks {landed:03b}");
            }
            let (mut cores, _) = node.start(1);
            cores[0].append(0, &payload(0, found + 1));
            cores[0].flush();
            let (_, entries) = node.recover(1).unwrap();
            assert_eq!(entries[0].len() as u64, found + 1, "blocks {landed:03b}");
            assert_eq!(entries[0].last().unwrap().1, payload(0, found + 1));
        }
    }
}

/// Two writes in flight, the second lands, the first does not: neither was acknowledged, and the second never comes
/// back.
#[test]
fn a_whole_batch_behind_a_torn_one_is_never_taken_for_real() {
    let node = Node::fast(1);
    let (mut cores, _) = node.start(1);
    cores[0].append(0, &payload(0, 1));
    cores[0].flush();
    let first = cores[0].append(0, b"first in flight");
    cores[0].submit();
    let second = cores[0].append(0, b"second in flight");
    cores[0].submit();
    assert_eq!((first, second, cores[0].in_flight.len()), (Sequence(2), Sequence(3), 2));
    assert_eq!(cores[0].land(1), Sequence(1), "not durable, because the one before it is not");
    for round in 1..4 {
        let (mut cores, entries) = node.start(1);
        assert_eq!(entries, expected(&[round]));
        cores[0].append(0, &payload(0, round + 1));
        cores[0].flush();
    }
}

/// A disk may take its time: a write of the last start lands when this start has already sealed the log before it.
#[test]
fn a_write_that_lands_behind_the_sealed_end_is_ignored() {
    let node = Node::fast(1);
    let (mut before, _) = node.start(1);
    before[0].append(0, &payload(0, 1));
    before[0].flush();
    before[0].append(0, b"late");
    before[0].submit();
    let (mut cores, entries) = node.start(1);
    assert_eq!(entries, expected(&[1]));
    cores[0].append(0, &payload(0, 2));
    cores[0].flush();
    before[0].land(0);
    assert_eq!(node.recover(1).unwrap().1, expected(&[2]));
}

#[test]
fn the_end_of_a_sealed_segment_can_be_given_back() {
    let node = Node::fast(1);
    for round in 0..4 {
        let (recovered, entries) = node.recover(1).unwrap();
        assert_eq!(entries, expected(&[round]));
        let mut core = node.open(0, &recovered[0]);
        core.append(0, &payload(0, round + 1));
        core.flush();
        // The start's first batch is durable, and with it the header that names the end.
        if let Some(end) = recovered[0].start.previous_end {
            super::super::super::segment::truncate(&RealDisk, &core.directory, end).unwrap();
            assert_eq!(fs::metadata(node.segment(0, end.number)).unwrap().len(), end.end_offset);
        }
    }
    assert_eq!(node.recover(1).unwrap().1, expected(&[4]));
}

#[test]
fn leftovers_of_interrupted_creations_are_removed_and_the_spare_is_used() {
    let node = Node::new(1);
    let (mut cores, _) = node.start(1);
    cores[0].append(0, &payload(0, 1));
    cores[0].flush();
    assert!(node.segment(0, 2).exists(), "the spare");
    let temporary = node.segment(0, 3).with_extension("wal.tmp");
    fs::write(&temporary, [1; 100]).unwrap();
    let short = node.segment(0, 3);
    fs::write(&short, [0; 100]).unwrap();
    let (recovered, _) = node.recover(1).unwrap();
    assert_eq!(recovered[0].spare.unwrap().number, 2);
    let mut core = node.open(0, &recovered[0]);
    assert!(!temporary.exists() && !short.exists() && node.segment(0, 2).exists());
    core.append(0, &payload(0, 2));
    core.flush();
    assert_eq!(node.recover(1).unwrap().1, expected(&[2]));
}

#[test]
fn a_torn_file_shorter_than_a_header_is_a_leftover() {
    let node = Node::fast(1);
    fs::create_dir(node.wal().join("core-0")).unwrap();
    for length in [0, 1, 4095, 4096, 4097] {
        fs::write(node.segment(0, 1), vec![0; length]).unwrap();
        let (recovered, _) = node.recover(1).unwrap();
        assert!(recovered[0].spare.is_none() && recovered[0].torn_tails.is_empty(), "{length}");
        recovered[0].clean_up(&RealDisk).unwrap();
        assert!(!node.segment(0, 1).exists());
    }
}

/// What a client may rely on: per shard, entries that were appended, and the newest that was acknowledged.
#[derive(Default, Clone)]
struct History {
    appended: Vec<Vec<u8>>,
    acknowledged: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Append { shard: u16, bytes: usize },
    Submit { core: u16 },
    Land { core: u16, which: usize },
    Crash { seed: u64, core_count: u16 },
}

const SHARDS: u16 = 5;

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![0_usize..200, 4000_usize..9000, 300_000_usize..500_000, Just(1_300_000)];
    prop_oneof![
        6 => (0..SHARDS, bytes).prop_map(|(shard, bytes)| Step::Append { shard, bytes }),
        5 => (0_u16..4).prop_map(|core| Step::Submit { core }),
        5 => (0_u16..4, 0_usize..3).prop_map(|(core, which)| Step::Land { core, which }),
        1 => (any::<u64>(), 1_u16..4).prop_map(|(seed, core_count)| Step::Crash { seed, core_count }),
    ]
}

/// Lets a random subset of the blocks in flight reach the disk.
fn land_anything(core: &Core, seed: u64) {
    let mut state = seed | 1;
    for position in 0..core.in_flight.len() {
        // A whole write, none of it, or each block by the toss of a coin.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let choice = state >> 62;
        let coins = state >> 16;
        core.land_blocks(position, |block| choice == 0 || (choice > 1 && coins >> (block % 40) & 1 == 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Random loads, random crashes, random numbers of cores: after every start each shard has a prefix of what was
    /// appended to it, with everything that was acknowledged.
    #[test]
    fn any_history_of_crashes_keeps_what_was_acknowledged(steps in proptest::collection::vec(step(), 1..90)) {
        let node = Node::fast(SHARDS);
        let mut core_count = 2;
        let (mut cores, _) = node.start(core_count);
        let mut histories = vec![History::default(); usize::from(SHARDS)];
        let mut waiting: Vec<Vec<(Sequence, u16, usize)>> = vec![Vec::new(); 4];
        let mut serial = 0_u64;
        let last = Step::Crash { seed: 0, core_count: 3 };
        for step in steps.into_iter().chain([last.clone(), last]) {
            match step {
                Step::Append { shard, bytes } => {
                    serial += 1;
                    let mut payload = serial.to_le_bytes().to_vec();
                    payload.resize(8 + bytes, serial as u8);
                    let core = placement(eyot_raft_glue::ShardId(shard), SHARDS, core_count);
                    let sequence = cores[usize::from(core)].append(shard, &payload);
                    let history = &mut histories[usize::from(shard)];
                    history.appended.push(payload);
                    waiting[usize::from(core)].push((sequence, shard, history.appended.len()));
                }
                Step::Submit { core } => cores[usize::from(core % core_count)].submit(),
                Step::Land { core, which } => {
                    let core = usize::from(core % core_count);
                    if cores[core].in_flight.is_empty() {
                        continue;
                    }
                    let position = which % cores[core].in_flight.len();
                    let durable = cores[core].land(position);
                    waiting[core].retain(|&(sequence, shard, count)| {
                        let acknowledged = &mut histories[usize::from(shard)].acknowledged;
                        if sequence <= durable {
                            *acknowledged = (*acknowledged).max(count);
                        }
                        sequence > durable
                    });
                }
                Step::Crash { seed, core_count: next_core_count } => {
                    for core in &cores {
                        land_anything(core, seed);
                    }
                    drop(cores);
                    waiting.iter_mut().for_each(Vec::clear);
                    core_count = next_core_count;
                    let entries;
                    (cores, entries) = node.start(core_count);
                    for (history, found) in histories.iter_mut().zip(entries) {
                        prop_assert!((history.acknowledged..=history.appended.len()).contains(&found.len()));
                        history.appended.truncate(found.len());
                        prop_assert!(found.iter().map(|(_, payload)| payload).eq(&history.appended));
                        // It was served: it must stay.
                        history.acknowledged = found.len();
                    }
                }
            }
        }
    }
}

/// The canary of the test above: the same crash with an acknowledgement before the write is on disk must be noticed.
#[test]
fn an_acknowledgement_before_the_write_is_noticed() {
    let node = Node::fast(1);
    let (mut cores, _) = node.start(1);
    let sequence = cores[0].append(0, &payload(0, 1));
    cores[0].submit();
    let write = cores[0].in_flight.remove(0);
    assert_eq!(cores[0].writer.written(write.sequence, write.buffer), sequence, "acknowledged, never written");
    assert_eq!(node.recover(1).unwrap().1, expected(&[0]), "so the entry is gone, and a test sees that");
}
