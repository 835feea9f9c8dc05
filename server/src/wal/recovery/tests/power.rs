//! The log on a disk that loses its power: at every operation, every disk that a start may find gives back what was
//! acknowledged, and goes on.
//!
//! The node of these tests has one core and two shards. Its entries fill a segment in threes, it makes snapshots (a
//! file that says up to where; what it would hold is known), keeps the two newest of each shard, cuts its log below the
//! older one, and recycles. Its entries are long and mostly zero, so that few sectors of a write differ from what the
//! disk holds, and every subset of them can be tried.

use std::path::{Path, PathBuf};

use eyot_protocol::value_part::{UploadId, ValuePart};
use eyot_raft_glue::{EntryKind, EntryPosition, Index, ShardId, Term};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::super::simulation::{Core, Node};
use super::super::super::{OpenUploads, SnapshotPosition};
use super::*;
use crate::disk::{CrashPoint, Creation, Disk, DiskFile, Lie, OpenMode, SimulatedDisk};

const SEED: u64 = 0xC0FF_EE00;
/// Images of a crash point with more unsynced changes than are tried in every combination.
const RANDOM_IMAGES: usize = 12;
/// Of so many images, one is started with a second power cut at each of its operations.
const SECOND_CUT_OF: u32 = 64;
/// Images of a crash point of such a start.
const SECOND_CUT_IMAGES_MAX: usize = 2;
const SHARDS: u16 = 2;
/// Three entries fill a segment.
const ENTRY_BYTES: usize = 300 * 1024;
const SNAPSHOTS: &str = "/snapshots";

/// How many entries of each shard.
type Counts = [u64; SHARDS as usize];

/// What a node leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// The log is cut when a snapshot is written and not yet published.
    CutsBeforePublishing,
    /// A snapshot's file is not synced.
    PublishesUnsynced,
    /// Parts of large values are cut off with the rest.
    ForgetsUploads,
    /// The log is cut below the newest snapshot.
    CutsBelowNewest,
}

/// Of five entries of shard 0, the first and the third are parts of a large value that the fourth stores; all others
/// are commands.
fn entry(shard: u16, index: u64) -> (EntryKind, Vec<u8>) {
    let upload = UploadId::new(1, (index / 5) as u32);
    let mut bytes = payload(shard, index);
    bytes.resize(ENTRY_BYTES, 0);
    match index % 5 {
        1 | 3 if shard == 0 => {
            let (offset, total) = (index % 5 / 2 * ENTRY_BYTES as u64, 2 * ENTRY_BYTES as u64);
            let part = ValuePart::Bytes { upload, offset, total, bytes: &bytes };
            (EntryKind::ValuePart, [&part.header()[..], &bytes].concat())
        }
        _ => (EntryKind::Commands, bytes),
    }
}

/// The parts that the entry at `index` needs.
fn parts_of(shard: u16, index: u64) -> Vec<u64> {
    if shard == 0 && index % 5 == 4 {
        vec![index - 3, index - 1]
    } else {
        Vec::new()
    }
}

fn entries_up_to(shard: u16, count: u64) -> ShardEntries {
    (1..=count).map(|index| (1, entry(shard, index).1)).collect()
}

/// A node as it runs: what it knows that is not on its disk.
struct Running {
    disk: SimulatedDisk,
    core: Core<SimulatedDisk>,
    uploads: [OpenUploads; SHARDS as usize],
    counts: Counts,
    bug: Bug,
}

impl Running {
    /// Starts on `disk`, with its newest snapshots or, if `falls_back`, the older ones; says what is wrong with what it
    /// finds.
    fn start(disk: &SimulatedDisk, falls_back: bool, bug: Bug) -> Result<Self, String> {
        let kept = snapshots(disk);
        let chosen = (0..).zip(&kept).filter_map(|(shard, kept)| {
            let newest = kept.last()?;
            let older = if falls_back { &kept[kept.len().saturating_sub(2)] } else { newest };
            Some((ShardId(shard), *older))
        });
        let chosen: Vec<(ShardId, SnapshotPosition)> = chosen.collect();
        let mut held = vec![Vec::new(); usize::from(SHARDS)];
        for (shard, snapshot) in &chosen {
            held[usize::from(shard.0)] = entries_up_to(shard.0, snapshot.position.index.0);
        }
        let held_counts: Vec<u64> = held.iter().map(|held| held.len() as u64).collect();
        let node = Node::on(disk.clone(), PathBuf::from("/"), SHARDS);
        let (recovered, entries) = node.recover_from(1, &chosen, held).map_err(|error| error.to_string())?;
        let mut counts = [0; SHARDS as usize];
        for shard in 0..SHARDS {
            let found = &entries[usize::from(shard)];
            counts[usize::from(shard)] = found.len() as u64;
            if *found != entries_up_to(shard, found.len() as u64) {
                return Err(format!("shard {shard} has other entries"));
            }
            let snapshot = held_counts[usize::from(shard)];
            let needed = (snapshot + 1..=found.len() as u64).flat_map(|index| parts_of(shard, index));
            let covered = node.covered.borrow();
            if let Some(part) = needed.filter(|&part| part <= snapshot).find(|&part| !covered.contains(&(shard, part)))
            {
                return Err(format!("part {part} of a large value in shard {shard} is gone"));
            }
        }
        let uploads = Default::default();
        let mut running = Self { disk: disk.clone(), core: node.open(0, &recovered[0]), uploads, counts, bug };
        // These uploads go on after a start, which makes it harder.
        for index in 1..=counts[0] {
            running.note_upload(index, &entry(0, index));
        }
        running.note_superfluous(&kept);
        Ok(running)
    }

    fn append(&mut self, shard: u16) {
        let count = &mut self.counts[usize::from(shard)];
        *count += 1;
        let (index, (kind, payload)) = (*count, entry(shard, *count));
        self.core.append_kind(shard, kind, &payload);
        if shard == 0 {
            self.note_upload(index, &(kind, payload));
        }
    }

    fn note_upload(&mut self, index: u64, (kind, payload): &(EntryKind, Vec<u8>)) {
        if *kind == EntryKind::ValuePart {
            self.uploads[0].part(Index(index), &ValuePart::decode(payload).unwrap());
        } else if !parts_of(0, index).is_empty() {
            self.uploads[0].ended(UploadId::new(1, (index / 5) as u32), Index(index));
        }
    }

    /// Publishes a snapshot of each shard, and cuts.
    fn snapshot(&mut self) {
        for shard in 0..SHARDS {
            let index = Index(self.counts[usize::from(shard)]);
            let mut needed_after = self.uploads[usize::from(shard)].needed_after(index);
            if self.bug == Bug::ForgetsUploads {
                needed_after = index;
            }
            let snapshot = SnapshotPosition { position: EntryPosition { term: Term(1), index }, needed_after };
            let temporary = write_snapshot(&self.disk, &snapshot, self.bug);
            if self.bug == Bug::CutsBeforePublishing {
                let mut kept = snapshots(&self.disk);
                kept[usize::from(shard)].push(snapshot);
                self.note_superfluous(&kept);
                self.core.cut();
            }
            publish_snapshot(&self.disk, shard, &snapshot, &temporary);
        }
        self.note_superfluous(&snapshots(&self.disk));
        self.core.cut();
    }

    /// What the older of two snapshots makes superfluous.
    fn note_superfluous(&mut self, kept: &[Vec<SnapshotPosition>]) {
        for (shard, kept) in (0..).zip(kept) {
            let back = if self.bug == Bug::CutsBelowNewest { 1 } else { 2 };
            let older = kept.len().checked_sub(back).map(|position| kept[position]);
            self.core.needed_after.insert(shard, older.map_or(0, |older| older.needed_after.0));
        }
    }
}

/// The valid snapshots on `disk` by shard, oldest first.
fn snapshots(disk: &SimulatedDisk) -> Vec<Vec<SnapshotPosition>> {
    let mut kept = vec![Vec::new(); usize::from(SHARDS)];
    for name in disk.list(Path::new(SNAPSHOTS)).unwrap_or_default() {
        let bytes = disk.contents(&Path::new(SNAPSHOTS).join(&name));
        let shard = name.split_once('-').and_then(|(shard, _)| shard.parse::<usize>().ok());
        let Some(([fields @ .., _, _, _, _], shard)) = bytes.first_chunk::<20>().zip(shard) else { continue };
        if bytes[16..20] != crc32c::crc32c(fields).to_le_bytes() {
            continue;
        }
        let field = |at: usize| Index(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
        let position = EntryPosition { term: Term(1), index: field(0) };
        kept[shard].push(SnapshotPosition { position, needed_after: field(8) });
    }
    kept
}

fn snapshot_path(shard: u16, snapshot: &SnapshotPosition) -> PathBuf {
    PathBuf::from(format!("{SNAPSHOTS}/{shard}-{:020}", snapshot.position.index.0))
}

fn write_snapshot(disk: &SimulatedDisk, snapshot: &SnapshotPosition, bug: Bug) -> PathBuf {
    let temporary = Path::new(SNAPSHOTS).join("next");
    let file = disk.open(&temporary, OpenMode::WRITE.creating(Creation::Emptied)).unwrap();
    let fields = [snapshot.position.index.0.to_le_bytes(), snapshot.needed_after.0.to_le_bytes()].concat();
    file.write_all_at(&[&fields[..], &crc32c::crc32c(&fields).to_le_bytes()].concat(), 0).unwrap();
    if bug != Bug::PublishesUnsynced {
        file.sync().unwrap();
    }
    temporary
}

/// Gives a snapshot its name, and removes all but the two newest.
fn publish_snapshot(disk: &SimulatedDisk, shard: u16, snapshot: &SnapshotPosition, temporary: &Path) {
    let directory = Path::new(SNAPSHOTS);
    disk.rename(temporary, &snapshot_path(shard, snapshot)).unwrap();
    disk.sync_directory(directory).unwrap();
    let kept = &snapshots(disk)[usize::from(shard)];
    for old in &kept[..kept.len().saturating_sub(2)] {
        disk.remove_file(&snapshot_path(shard, old)).unwrap();
        disk.sync_directory(directory).unwrap();
    }
}

/// Crash points carry how many entries were acknowledged.
fn mark(disk: &SimulatedDisk, counts: Counts) {
    disk.mark(counts[0] << 32 | counts[1]);
}

fn acknowledged(point: &CrashPoint) -> Counts {
    [point.mark >> 32, point.mark & 0xFFFF_FFFF]
}

/// Two starts with so many steps each: entries one by one and two at a time, the second first on disk; snapshots after
/// so many steps.
fn lifetime(disk: &SimulatedDisk, (steps, snapshot_every): (u64, u64), bug: Bug) -> Result<Vec<CrashPoint>, String> {
    disk.create_directory(Path::new(SNAPSHOTS)).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    disk.record();
    for _ in 0..2 {
        let mut node = Running::start(disk, false, bug)?;
        for step in 1..=steps {
            node.append(u16::from(step % 3 == 0));
            node.core.submit();
            if step % 4 == 2 {
                node.append(0);
                node.core.submit();
            }
            while !node.core.in_flight.is_empty() {
                node.core.land(node.core.in_flight.len() - 1);
            }
            node.core.flush();
            mark(disk, node.counts);
            if step % snapshot_every == 1 {
                node.snapshot();
            }
        }
    }
    Ok(disk.crash_points())
}

/// Starts on `image` and goes on for a while, over the end of a segment, with snapshots.
fn go_on(image: &SimulatedDisk, bug: Bug) -> Result<Counts, String> {
    let mut node = Running::start(image, false, bug)?;
    mark(image, node.counts);
    for shard in [0, 1, 0, 0] {
        node.append(shard);
        node.core.flush();
        mark(image, node.counts);
    }
    node.snapshot();
    node.snapshot();
    Ok(node.counts)
}

/// What is wrong with what a start finds on `image`, where `acknowledged` entries must be there.
fn complaint(image: &SimulatedDisk, acknowledged: Counts, bug: Bug) -> Option<String> {
    // Recovery changes nothing, so the same image serves for both.
    for falls_back in [true, false] {
        let disk = image.crash_point().image(&[]);
        let found = match Running::start(&disk, falls_back, bug) {
            Err(complaint) => return Some(format!("{complaint} (older snapshot: {falls_back})")),
            Ok(running) => running.counts,
        };
        if (0..usize::from(SHARDS)).any(|shard| found[shard] < acknowledged[shard]) {
            return Some(format!("{found:?} entries of {acknowledged:?} that were acknowledged"));
        }
    }
    None
}

/// The first complaint about an image of a crash point, and how many images there were up to then.
#[derive(Default)]
struct Verdict {
    complaint: Option<String>,
    images: usize,
}

impl Verdict {
    /// `images_max`: of one crash point.
    fn of(points: &[CrashPoint], images_max: usize, second_cuts: bool, bug: Bug, dice: &mut StdRng) -> Self {
        let mut verdict = Self::default();
        for point in points {
            let mut fates = point.fates(RANDOM_IMAGES, dice);
            let (fates, _) = fates.partial_shuffle(dice, images_max);
            for fates in fates.iter() {
                verdict.images += 1;
                let image = point.image(fates);
                let mut found = complaint(&image, acknowledged(point), bug);
                if found.is_none() && second_cuts && dice.gen_ratio(1, SECOND_CUT_OF) {
                    image.record();
                    let ended = go_on(&image, bug);
                    let second = Self::of(&image.crash_points(), SECOND_CUT_IMAGES_MAX, false, bug, dice);
                    verdict.images += second.images;
                    found = ended.err().or(second.complaint);
                }
                if let Some(complaint) = found {
                    let operation = point.operation.as_ref().map_or(String::new(), ToString::to_string);
                    verdict.complaint = Some(format!("seed {SEED:#x}, {operation}, fates {fates:?}: {complaint}"));
                    return verdict;
                }
            }
        }
        verdict
    }

    fn of_lifetime(disk: &SimulatedDisk, steps: (u64, u64), second_cuts: bool, bug: Bug) -> Self {
        let points = match lifetime(disk, steps, bug) {
            Ok(points) => points,
            Err(complaint) => return Self { complaint: Some(complaint), images: 0 },
        };
        Self::of(&points, usize::MAX, second_cuts, bug, &mut StdRng::seed_from_u64(SEED))
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let disk = SimulatedDisk::new();
    let Verdict { complaint, images } = Verdict::of_lifetime(&disk, (16, 3), true, Bug::None);
    assert_eq!(complaint, None, "image {images}");
    assert!(images > 5_000, "{images} images");
    // It has cut and recycled.
    let operations = disk.operations();
    let of_log = |kind| {
        operations
            .iter()
            .filter(|operation| {
                operation.site.kind == kind
                    && operation.path.starts_with("/core-0")
                    && operation.path.extension().is_some_and(|suffix| suffix == "wal")
            })
            .count()
    };
    let (renamed, removed) = (of_log(crate::disk::Kind::Rename), of_log(crate::disk::Kind::RemoveFile));
    assert!(renamed >= 3 && removed >= 1, "{renamed} segments recycled, {removed} removed");
}

/// The canaries of the test above: each thing that is left out is noticed.
#[test]
fn a_sync_that_is_left_out_is_noticed() {
    for lie in [Lie::DurableWrites, Lie::SyncDirectory] {
        let disk = SimulatedDisk::new();
        disk.lie(lie);
        let Verdict { complaint, images } = Verdict::of_lifetime(&disk, (8, 3), false, Bug::None);
        assert!(complaint.is_some(), "{lie:?} passes in {images} images");
    }
}

#[test]
fn a_cut_that_comes_too_early_or_goes_too_far_is_noticed() {
    for bug in [Bug::CutsBeforePublishing, Bug::PublishesUnsynced, Bug::ForgetsUploads, Bug::CutsBelowNewest] {
        let Verdict { complaint, images } = Verdict::of_lifetime(&SimulatedDisk::new(), (30, 12), false, bug);
        assert!(complaint.is_some(), "{bug:?} passes in {images} images");
    }
}
