//! A disk whose reads do not get anywhere: a start ends over it, and says so.

use std::path::PathBuf;

use super::super::super::simulation::Node;
use super::super::RecoveryError;
use super::*;
use crate::disk::{Failure, Fault, Kind, SimulatedDisk, Site, Target};

/// More reads than a start of one small log makes, the bounded tries of a read that fails included.
const READS_MAX: usize = 100;

/// Where the reader of segments reads.
fn sites_of_the_reader(disk: &SimulatedDisk) -> Vec<Site> {
    let is_its = |site: &Site| site.kind == Kind::Read && site.location.file().ends_with("recovery/reader.rs");
    let mut sites: Vec<Site> = disk.operations().iter().map(|operation| operation.site).filter(is_its).collect();
    sites.sort();
    sites.dedup();
    sites
}

#[test]
fn reads_that_never_bring_a_whole_block_end_and_are_told() {
    let disk = SimulatedDisk::new();
    let node = Node::on(disk.clone(), PathBuf::from("/"), 1);
    let (mut cores, _) = node.start(1);
    for index in 1..=3 {
        cores[0].append(0, &payload(0, index));
        cores[0].flush();
    }
    drop(cores);
    assert_eq!(node.recover(1).unwrap().1, expected(&[3]));
    let sites = sites_of_the_reader(&disk);
    assert!(!sites.is_empty(), "it reads");
    for site in sites {
        for failure in [Failure::Short, Failure::Error(libc::EINTR)] {
            let before = disk.operations().len();
            disk.inject(Fault { target: Target::Site(site), failure, lasts: true });
            match node.recover(1) {
                Err(RecoveryError::Io { action: "read", path, source }) => {
                    assert!(path.ends_with("00000000000000000001.wal"), "{}", path.display());
                    assert!(source.to_string().contains("again and again"), "{failure:?}: {source}");
                }
                other => panic!("{failure:?} at {site}: {other:?}"),
            }
            disk.heal();
            let operations = disk.operations().split_off(before);
            let reads = operations.iter().filter(|operation| operation.site.kind == Kind::Read).count();
            assert!(reads < READS_MAX, "{failure:?} at {site}: {reads} reads");
            // Once in a while is no reason to end.
            disk.inject(Fault { target: Target::Site(site), failure, lasts: false });
            assert_eq!(node.recover(1).unwrap().1, expected(&[3]), "{failure:?} at {site}");
        }
    }
}
