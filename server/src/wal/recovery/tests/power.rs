//! The log on a disk that loses its power: at every operation, every disk that a start may find gives back what was
//! acknowledged, and goes on.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::SeedableRng;

use super::super::super::simulation::Node;
use super::*;
use crate::disk::{CrashPoint, Lie, SimulatedDisk};

const SEED: u64 = 0xC0FF_EE00;
/// Images of a crash point with more unsynced changes than are tried in every combination.
const RANDOM_IMAGES: usize = 12;
const ENTRIES: u64 = 6;

/// A log's first start on `disk`, then a second one, with an entry a write; crash points carry how many entries were
/// acknowledged.
fn two_starts(disk: &SimulatedDisk) -> Vec<CrashPoint> {
    disk.record();
    let node = Node::on(disk.clone(), PathBuf::from("/"), 1);
    for start in 0..2 {
        let (mut cores, _) = node.start(1);
        for index in 1..=ENTRIES / 2 {
            let index = start * ENTRIES / 2 + index;
            cores[0].append(0, &payload(0, index));
            cores[0].flush();
            disk.mark(index);
        }
    }
    disk.crash_points()
}

/// What is wrong with what a start finds on `image`, where `acknowledged` entries must be there.
fn complaint(image: &SimulatedDisk, acknowledged: u64) -> Option<String> {
    let node = Node::on(image.clone(), PathBuf::from("/"), 1);
    let found = match node.recover(1) {
        Err(error) => return Some(error.to_string()),
        Ok((_, entries)) => entries[0].len() as u64,
    };
    if !(acknowledged..=ENTRIES).contains(&found) {
        return Some(format!("{found} entries of {acknowledged} that were acknowledged"));
    }
    // Starting writes, and a third start must find what the second one has served.
    let (mut cores, entries) = node.start(1);
    assert_eq!(entries, expected(&[found]));
    cores[0].append(0, &payload(0, found + 1));
    cores[0].flush();
    let (_, entries) = Node::on(image.crash_point().image(&[]), PathBuf::from("/"), 1).recover(1).unwrap();
    (entries != expected(&[found + 1])).then(|| "what was served is gone".to_owned())
}

/// All complaints about all images of all crash points, and how many images there were.
fn complaints(disk: &SimulatedDisk) -> (Vec<String>, usize) {
    let mut dice = StdRng::seed_from_u64(SEED);
    let (mut found, mut images) = (Vec::new(), 0);
    for point in two_starts(disk) {
        for fates in point.fates(RANDOM_IMAGES, &mut dice) {
            images += 1;
            if let Some(complaint) = complaint(&point.image(&fates), point.mark) {
                let operation = point.operation.as_ref().map_or(String::new(), ToString::to_string);
                found.push(format!("seed {SEED:#x}, {operation}, fates {fates:?}: {complaint}"));
            }
        }
    }
    (found, images)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let disk = SimulatedDisk::new();
    let (complaints, images) = complaints(&disk);
    assert!(complaints.is_empty(), "{} of {images} images; the first: {}", complaints.len(), complaints[0]);
    assert!(images > 300, "{images} images");
    assert!(disk.operations().iter().any(|operation| operation.path == Path::new("/core-0")));
}

/// The canaries of the test above: each thing that is left out is noticed.
#[test]
fn a_sync_that_is_left_out_is_noticed() {
    for lie in [Lie::DurableWrites, Lie::SyncDirectory] {
        let disk = SimulatedDisk::new();
        disk.lie(lie);
        let (complaints, images) = complaints(&disk);
        assert!(!complaints.is_empty(), "{lie:?} passes in {images} images");
    }
}
