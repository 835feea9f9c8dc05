//! Recovery on real files: what a crash leaves, what decay leaves, and how they are told apart.

mod crash;
mod cut;
mod damage;
mod power;
mod reading;
mod starts;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::format::{BATCH_HEADER_BYTES, BLOCK_BYTES};
use super::super::simulation::{Node, ShardEntries};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The payload of an entry, which says whose it is.
fn payload(shard: u16, index: u64) -> Vec<u8> {
    format!("entry {index} of shard {shard}").into_bytes()
}

/// What recovery should find: `counts[shard]` entries of each shard.
fn expected(counts: &[u64]) -> Vec<ShardEntries> {
    let of_shard = |shard: u16, count: u64| (1..=count).map(|index| (1, payload(shard, index))).collect();
    (0..).zip(counts).map(|(shard, &count)| of_shard(shard, count)).collect()
}

/// A node with one core, one shard and `batches` batches of one entry each, one block each, from byte 4096 on.
/// Its only segment is cut behind the last batch and two more blocks, to make reading it cheap.
fn node_with_batches(batches: u64) -> Node {
    let node = Node::fast(1);
    let (mut cores, _) = node.start(1);
    for index in 1..=batches {
        cores[0].append(0, &payload(0, index));
        cores[0].flush();
    }
    let _ = fs::remove_file(node.segment(0, 2));
    let file = OpenOptions::new().write(true).open(node.segment(0, 1)).unwrap();
    file.set_len((batches + 3) * BLOCK).unwrap();
    node
}

fn flip_bit(path: &Path, bit: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

/// The bits of a batch of one small entry that are worth flipping: all of its header, of its record, and samples of the
/// padding.
fn bits_of_batch(offset: u64) -> impl Iterator<Item = u64> {
    let start = offset * 8;
    let header_end = start + BATCH_HEADER_BYTES as u64 * 8;
    let record_end = header_end + 64 * 8;
    (start..header_end).chain((header_end..record_end).step_by(16)).chain((record_end..start + BLOCK * 8).step_by(997))
}
