//! Every bit of every header and every 16th of all others turns, of a log and of snapshots: each is noticed, no wrong
//! value comes of it, and a torn tail is told from damage.
//!
//! A log of some segments is read back by a whole start for every bit. A log of 16 MiB is judged batch by batch in
//! memory, and so are snapshots of a mebibyte; with `EYOT_DAMAGE_FULL=1`, of 16 MiB.

use std::path::{Path, PathBuf};

use eyot_protocol::snapshot::Decoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::lifetimes::{nothing, truths_of};
use super::node::{create_directories, Bug, Death, Node};
use super::truth::{self, Counts, Truth, NODE_ID, SHARDS, SNAPSHOTS, WAL};
use super::{complaining, from_environment, plant, Planted};
use crate::disk::{Disk, SimulatedDisk};
use crate::snapshot::store;
use crate::wal::format::{finish_batch, BatchHeader, BatchPlace, BATCH_HEADER_BYTES, BLOCK_BYTES};
use crate::wal::{LogIdentity, RecoveryError, Sequence};

const SEED: u64 = 0xDA_3A6E;
const SEGMENT_FIELDS_BYTES: usize = 86;
const LOG_BYTES: usize = 16 << 20;
const IDENTITY: LogIdentity = LogIdentity { node_id: NODE_ID, log_id: 0 };

/// A node that has ended, its disk, and what it has acknowledged, which is everything.
struct Ended {
    disk: SimulatedDisk,
    truth: Vec<Truth>,
    counts: Counts,
}

impl Ended {
    /// After so many batches, and snapshots behind some of them.
    fn after(batches: usize, snapshot_after: &[usize], closes: bool) -> Self {
        let mut dice = StdRng::seed_from_u64(SEED);
        let disk = SimulatedDisk::new();
        create_directories(&disk).unwrap();
        let restored = truth::restore(&disk).unwrap();
        let mut node = Node::open(&disk, (Bug::None, 1), restored, &nothing()).map_err(|Death(death)| death).unwrap();
        for batch in 1..=batches {
            node.append(dice.gen_range(0..SHARDS), &mut dice, 0);
            node.drain(&mut dice).map_err(|Death(death)| death).unwrap();
            if snapshot_after.contains(&batch) {
                (0..SHARDS).for_each(|shard| node.snapshot(shard));
            }
        }
        if closes {
            node.close(&mut dice).map_err(|Death(death)| death).unwrap();
        }
        let (truth, counts) = (truths_of(&node), node.acknowledged());
        drop(node);
        disk.end_process();
        Self { disk, truth, counts }
    }

    /// The segments and where their batches stand, oldest first.
    fn segments(&self) -> Vec<(PathBuf, Vec<(usize, BatchHeader)>)> {
        let directory = Path::new(WAL).join("core-0");
        let names = self.disk.list(&directory).unwrap();
        (1..)
            .zip(names)
            .map(|(segment, name)| {
                let path = directory.join(name);
                let bytes = self.disk.contents(&path);
                (path, batches(&bytes, segment))
            })
            .collect()
    }

    /// What a start finds: the counts, and whether it cut a torn tail off.
    fn start(&self) -> Result<(Counts, usize), Finding> {
        let restored = truth::restore(&self.disk).map_err(|refused| match refused {
            truth::Refused::Recovery(error) => Finding::Refused(Box::new(error)),
            truth::Refused::Snapshot(error) => Finding::Wrong(error.to_string()),
        })?;
        truth::check(&restored, &self.truth, Counts::default()).map_err(Finding::Wrong)?;
        Ok((restored.counts, restored.recovered.torn_tails.len()))
    }
}

#[derive(Debug)]
enum Finding {
    Refused(Box<RecoveryError>),
    /// It was believed, and is not true.
    Wrong(String),
}

fn place(segment: u64, offset: usize) -> BatchPlace {
    BatchPlace { identity: IDENTITY, segment, offset: offset as u64 }
}

fn batches(bytes: &[u8], segment: u64) -> Vec<(usize, BatchHeader)> {
    let (mut found, mut offset) = (Vec::new(), BLOCK_BYTES);
    while let Some(header) = bytes.get(offset..).and_then(|rest| BatchHeader::decode(rest, &place(segment, offset))) {
        found.push((offset, header));
        offset += header.padded_bytes();
    }
    found
}

/// The bits of a piece of `bytes`: all of its first `header` bytes, and every 16th behind them.
fn bits(bytes: std::ops::Range<usize>, header: usize) -> impl Iterator<Item = u64> {
    let (start, middle, end) = (8 * bytes.start as u64, 8 * (bytes.start + header) as u64, 8 * bytes.end as u64);
    // Not always the same bit of a byte.
    (start..middle).chain((middle..end).step_by(16).map(|bit| bit + bit / 16 % 16)).filter(move |bit| *bit < end)
}

/// Turns each of the bits, and says what a start makes of it.
fn each_bit(
    ended: &Ended,
    path: &Path,
    bits: impl Iterator<Item = u64>,
    is_right: impl Fn(&Result<(Counts, usize), Finding>) -> bool,
) -> usize {
    let mut count = 0;
    for bit in bits {
        ended.disk.flip_bit(path, bit);
        let found = ended.start();
        assert!(is_right(&found), "bit {bit} of {}: {found:?}", path.display());
        ended.disk.flip_bit(path, bit);
        count += 1;
    }
    count
}

fn is_damage(found: &Result<(Counts, usize), Finding>) -> bool {
    let Err(Finding::Refused(error)) = found else { return false };
    matches!(**error, RecoveryError::Damaged { .. } | RecoveryError::HeaderDamaged { .. })
}

#[test]
fn every_turned_bit_of_a_log_is_noticed_and_a_torn_tail_is_no_damage() {
    for closes in [true, false] {
        let ended = Ended::after(20, &[], closes);
        let segments = ended.segments();
        let used: Vec<_> = segments.iter().filter(|(_, batches)| !batches.is_empty()).collect();
        assert!(used.len() >= 3, "{} segments", used.len());
        let mut count = 0;
        for (number, (path, batches)) in used.iter().enumerate() {
            count += each_bit(&ended, path, bits(0..BLOCK_BYTES, SEGMENT_FIELDS_BYTES), is_damage);
            for (position, (offset, header)) in batches.iter().enumerate() {
                let bits = bits(*offset..offset + header.padded_bytes(), BATCH_HEADER_BYTES);
                let is_last = number + 1 == used.len() && position + 1 == batches.len();
                // The last batch may be what a crash interrupted: it is cut off, and said so. In a log that was
                // closed it holds nothing.
                let lost = u64::from(!closes);
                let is_torn = |found: &Result<(Counts, usize), Finding>| {
                    let total: u64 = ended.counts.iter().sum();
                    matches!(found, Ok((counts, 1)) if counts.iter().sum::<u64>() + lost == total)
                };
                count += each_bit(&ended, path, bits, |found| if is_last { is_torn(found) } else { is_damage(found) });
            }
        }
        // Behind the end nothing is read but headers that testify.
        let (path, batches) = used.last().unwrap();
        let (offset, last) = batches.last().unwrap();
        let end = offset + last.padded_bytes();
        let harmless = bits(end..ended.disk.contents(path).len(), 0);
        count += each_bit(&ended, path, harmless, |found| matches!(found, Ok((counts, 1)) if *counts == ended.counts));
        assert!(count > 20_000, "{count} bits");
    }
}

/// The same bits of 16 MiB of batches, each judged where it stands: what is not whole is for the rules above.
#[test]
fn every_turned_bit_of_16_mebibytes_of_batches_is_noticed() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let blocks = LOG_BYTES / BLOCK_BYTES;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (1..blocks).skip(thread).step_by(threads).for_each(turn_bits_of_batch));
        }
    });
}

fn turn_bits_of_batch(block: usize) {
    let mut dice = StdRng::seed_from_u64(SEED + block as u64);
    let mut batch = vec![0; BLOCK_BYTES];
    let length = dice.gen_range(BATCH_HEADER_BYTES..=BLOCK_BYTES);
    dice.fill(&mut batch[BATCH_HEADER_BYTES..length]);
    let (place, sequence) = (place(1, block * BLOCK_BYTES), block as u64);
    finish_batch(&mut batch, length, 1, (Sequence(sequence), Sequence(sequence - 1)), &place);
    let is_whole = |batch: &[u8]| {
        let header = BatchHeader::decode(batch, &place);
        header.is_some_and(|header| header.padded_bytes() == batch.len() && header.covers(batch, &place))
    };
    assert!(is_whole(&batch));
    for bit in bits(0..BLOCK_BYTES, BATCH_HEADER_BYTES) {
        batch[bit as usize / 8] ^= 1 << (bit % 8);
        assert!(!is_whole(&batch), "bit {bit} of the batch in block {block}");
        batch[bit as usize / 8] ^= 1 << (bit % 8);
    }
}

/// The newest snapshots of the shards.
fn newest_snapshots(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let of = |shard| {
        let directory = store::shard_directory(Path::new(SNAPSHOTS), eyot_raft_glue::ShardId(shard));
        let newest = *store::list(disk, &directory).unwrap().first().expect("a snapshot was made");
        store::snapshot_path(&directory, newest.index)
    };
    (0..SHARDS).map(of).collect()
}

/// Where the messages of a stream begin, and its end.
fn boundaries(stream: &[u8]) -> Vec<usize> {
    let mut all = vec![0];
    while let Some(length) = stream[all[all.len() - 1]..].first_chunk::<4>() {
        all.push(all[all.len() - 1] + 4 + u32::from_le_bytes(*length) as usize);
    }
    all
}

#[test]
fn every_turned_bit_of_a_snapshot_has_the_older_one_used() {
    let ended = Ended::after(40, &[15, 30], true);
    for path in newest_snapshots(&ended.disk) {
        let length = ended.disk.contents(&path).len();
        for bit in bits(0..length, 200) {
            ended.disk.flip_bit(&path, bit);
            let restored = truth::restore(&ended.disk).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            assert_eq!(restored.rejected, 1, "bit {bit} of {}", path.display());
            truth::check(&restored, &ended.truth, ended.counts).unwrap();
            ended.disk.flip_bit(&path, bit);
        }
    }
}

#[test]
fn every_turned_bit_of_many_snapshots_is_noticed() {
    let is_full = from_environment("EYOT_DAMAGE_FULL").is_some();
    let ended = Ended::after(60, &[50], true);
    let mut stream = ended.disk.contents(&newest_snapshots(&ended.disk)[0]);
    let passes = if is_full { LOG_BYTES } else { 1 << 20 } / stream.len();
    let is_whole = |mut stream: &[u8]| {
        let mut decoder = Decoder::new();
        let read = loop {
            match decoder.next(&mut stream) {
                Ok(Some(_)) => {}
                Ok(None) => break decoder.finish(),
                Err(error) => break Err(error),
            }
        };
        read.is_ok()
    };
    assert!(is_whole(&stream));
    for pass in 0..passes {
        // Another 16th of the bits each time.
        for bit in (0..stream.len() * 8).skip(pass % 16).step_by(16) {
            stream[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&stream), "bit {bit}");
            stream[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// A snapshot that ends at a message is not believed.
fn ends_early() -> Result<(), String> {
    let ended = Ended::after(40, &[15, 30], true);
    for path in newest_snapshots(&ended.disk) {
        let stream = ended.disk.contents(&path);
        let boundaries = boundaries(&stream);
        assert!(boundaries.len() >= 4 && boundaries.last() == Some(&stream.len()), "{boundaries:?}");
        for &end in &boundaries[..boundaries.len() - 1] {
            ended.disk.overwrite(&path, &stream[..end]);
            let restored = truth::restore(&ended.disk).map_err(|error| error.to_string())?;
            truth::check(&restored, &ended.truth, ended.counts)?;
            if restored.rejected != 1 {
                return Err(format!("a snapshot that ends at byte {end} is believed"));
            }
        }
        ended.disk.overwrite(&path, &stream);
    }
    Ok(())
}

/// A batch that another node wrote at the same place is not believed: the disk has had another one, or gives an old
/// block back.
fn another_nodes_batch() -> Result<(), String> {
    let ended = Ended::after(12, &[], true);
    for (segment, (path, batches)) in (1..).zip(ended.segments()) {
        let bytes = ended.disk.contents(&path);
        for (offset, header) in &batches {
            let records = offset + BATCH_HEADER_BYTES..offset + header.byte_length;
            for byte in records.step_by(7) {
                let mut bytes = bytes.clone();
                bytes[byte] ^= 1;
                let identity = LogIdentity { node_id: NODE_ID + 1, log_id: 0 };
                let theirs = BatchPlace { identity, segment, offset: *offset as u64 };
                let batch = &mut bytes[*offset..offset + header.padded_bytes()];
                let sequences = (header.sequence, header.durable_sequence);
                finish_batch(batch, header.byte_length, header.record_count, sequences, &theirs);
                ended.disk.overwrite(&path, &bytes);
                match ended.start() {
                    Err(Finding::Wrong(complaint)) => return Err(format!("byte {byte}: {complaint}")),
                    Ok((counts, 0)) if counts == ended.counts => return Err(format!("byte {byte}: believed")),
                    _ => {}
                }
            }
        }
        ended.disk.overwrite(&path, &bytes);
    }
    Ok(())
}

#[test]
fn what_ends_early_or_is_of_another_node_is_not_believed() {
    assert_eq!(ends_early(), Ok(()));
    assert_eq!(another_nodes_batch(), Ok(()));
}

/// The canaries of the tests above.
#[test]
fn each_planted_bug_is_found() {
    let finders = [
        (Planted::FooterNotChecked, ends_early as fn() -> Result<(), String>),
        (Planted::PositionNotInChecksum, another_nodes_batch),
    ];
    for (bug, find) in finders {
        plant(Some(bug));
        let found = complaining(find);
        plant(None);
        assert!(found.is_err(), "{bug:?} is not found");
    }
}
