//! The simulated disk does what it says: it forgets exactly what was not synced, and fails where it is told to.

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::SeedableRng;

use super::*;
use crate::DiskFile;
use eyot_ring::AlignedBuffer;

const NEW: OpenMode = OpenMode::WRITE.creating(Creation::IfMissing);

fn file(disk: &SimulatedDisk, path: &str) -> SimulatedFile {
    disk.open(Path::new(path), NEW).unwrap()
}

/// A file with a durable name and `bytes`, durable too.
fn durable_file(disk: &SimulatedDisk, path: &str, bytes: &[u8]) -> SimulatedFile {
    let opened = file(disk, path);
    opened.write_all_at(bytes, 0).unwrap();
    opened.sync().unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    opened
}

/// Every disk that a power cut now may leave, where few changes are unsynced.
fn images(disk: &SimulatedDisk) -> Vec<SimulatedDisk> {
    let point = disk.crash_point();
    assert!(point.unsynced() <= EXHAUSTIVE_CHANGES_MAX, "{} changes", point.unsynced());
    let subsets = 0..1_u32 << point.unsynced();
    let fates = |subset: u32| (0..32).map(move |bit| if subset >> bit & 1 == 1 { Fate::Kept } else { Fate::Lost });
    subsets.map(|subset| point.image(&fates(subset).collect::<Vec<_>>())).collect()
}

fn names(disk: &SimulatedDisk) -> Vec<String> {
    disk.list(Path::new("/")).unwrap()
}

fn aligned(byte: u8, length: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(length);
    buffer.extend_from_slice(&vec![byte; length]);
    buffer
}

#[test]
fn what_was_written_is_read_and_what_was_not_is_zero() {
    let disk = SimulatedDisk::new();
    let opened = file(&disk, "/a");
    opened.write_all_at(b"hello", 700).unwrap();
    let mut bytes = [9; 1000];
    assert_eq!(opened.read_up_to(&mut bytes, 0).unwrap(), 705);
    assert!(bytes[..700].iter().all(|&byte| byte == 0) && &bytes[700..705] == b"hello");
    opened.set_length(702).unwrap();
    opened.set_length(705).unwrap();
    assert_eq!(&disk.contents(Path::new("/a"))[700..], b"he\0\0\0", "what was cut off comes back as zeros");
    assert!(opened.read_exact_at(&mut bytes, 0).is_err());
    assert_eq!(opened.read_at(&mut bytes, 705).unwrap(), 0);
}

#[test]
fn an_unsynced_write_survives_in_any_of_its_sectors_and_a_synced_one_in_all() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", &[1; 3 * SECTOR_BYTES]);
    assert_eq!(disk.crash_point().unsynced(), 0);
    opened.write_all_at(&[2; 3 * SECTOR_BYTES], 0).unwrap();
    let mut found: Vec<Vec<u8>> = images(&disk)
        .iter()
        .map(|image| image.contents(Path::new("/a")).chunks(SECTOR_BYTES).map(|sector| sector[0]).collect())
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 8, "each of three sectors is old or new");
    opened.sync().unwrap();
    assert_eq!(disk.crash_point().unsynced(), 0);
    assert_eq!(disk.crash_point().image(&[]).contents(Path::new("/a")), [2; 3 * SECTOR_BYTES]);
}

#[test]
fn every_content_since_the_last_sync_may_be_found_and_none_before_it() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", b"0");
    for content in [b"1", b"2"] {
        opened.write_all_at(content, 0).unwrap();
    }
    let mut found: Vec<Vec<u8>> = images(&disk).iter().map(|image| image.contents(Path::new("/a"))).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, [b"0", b"1", b"2"]);
}

#[test]
fn a_torn_sector_is_new_in_front_and_old_behind() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", &[1; SECTOR_BYTES]);
    opened.write_all_at(&[2; SECTOR_BYTES], 0).unwrap();
    let torn = disk.crash_point().image(&[Fate::Torn(100)]).contents(Path::new("/a"));
    assert!(torn[..100] == [2; 100] && torn[100..] == [1; SECTOR_BYTES - 100]);
}

#[test]
fn a_name_is_durable_when_its_directory_is_synced_and_not_before() {
    let disk = SimulatedDisk::new();
    let opened = file(&disk, "/a");
    opened.write_all_at(b"x", 0).unwrap();
    opened.sync().unwrap();
    let found: Vec<Vec<String>> = images(&disk).iter().map(names).collect();
    assert_eq!(found, [vec![], vec!["a".to_owned()]], "a synced file may have no name");
    disk.sync_directory(Path::new("/")).unwrap();
    disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
    let found: Vec<Vec<String>> = images(&disk).iter().map(names).collect();
    assert_eq!(found, [["a"], ["b"]], "a rename is whole or absent");
    disk.sync_directory(Path::new("/")).unwrap();
    disk.remove_file(Path::new("/b")).unwrap();
    let again = file(&disk, "/c");
    drop(again);
    let mut found: Vec<Vec<String>> = images(&disk).iter().map(names).collect();
    found.sort();
    assert_eq!(found, [vec![], vec!["b"], vec!["b", "c"], vec!["c"]], "names are lost one by one");
}

#[test]
fn a_rename_between_directories_may_be_lost_by_halves() {
    let disk = SimulatedDisk::new();
    disk.create_directory(Path::new("/d")).unwrap();
    durable_file(&disk, "/a", b"x");
    disk.rename(Path::new("/a"), Path::new("/d/b")).unwrap();
    let found = |disk: &SimulatedDisk| {
        let paths = ["/a", "/d/b"].map(Path::new);
        paths.map(|path| disk.metadata(path).is_ok())
    };
    assert_eq!(found(&disk), [false, true], "it is seen whole");
    let mut images: Vec<[bool; 2]> = images(&disk).iter().map(found).collect();
    images.sort_unstable();
    assert_eq!(images, [[false, false], [false, true], [true, false], [true, true]]);
    disk.sync_directory(Path::new("/")).unwrap();
    let after: Vec<[bool; 2]> = self::images(&disk).iter().map(found).collect();
    assert!(after.iter().all(|[old, _]| !old), "the old name is gone durably: {after:?}");
}

#[test]
fn a_directory_that_is_lost_takes_what_is_in_it() {
    let disk = SimulatedDisk::new();
    disk.create_directory(Path::new("/d")).unwrap();
    drop(durable_file(&disk, "/d/a", b"x"));
    disk.sync_directory(Path::new("/d")).unwrap();
    // `durable_file` synced the root as well, which made the directory's own name durable.
    assert_eq!(disk.crash_point().unsynced(), 0);
    disk.create_directory(Path::new("/e")).unwrap();
    drop(file(&disk, "/e/a"));
    disk.sync_directory(Path::new("/e")).unwrap();
    assert_eq!(names(&images(&disk)[0]), ["d"]);
    assert_eq!(images(&disk)[1].list(Path::new("/e")).unwrap(), ["a"]);
}

#[test]
fn a_durable_write_is_durable_when_it_is_complete_and_so_is_its_length() {
    let disk = SimulatedDisk::new();
    drop(durable_file(&disk, "/a", b""));
    let opened = disk.open(Path::new("/a"), OpenMode::WRITE.direct().durable_writes()).unwrap();
    let buffer = aligned(7, 1024);
    let (first, second) = (opened.start_write(&buffer, 0).unwrap(), opened.start_write(&buffer, 1024).unwrap());
    assert!(disk.crash_point().unsynced() > 4);
    assert_eq!(opened.finish_write(second).unwrap(), 1024);
    let lost = disk.crash_point().image(&[]).contents(Path::new("/a"));
    assert_eq!(lost.len(), 2048);
    assert!(lost[..1024] == [0; 1024] && lost[1024..] == [7; 1024], "each write completes by itself");
    assert_eq!(opened.finish_write(first).unwrap(), 1024);
    assert_eq!(disk.crash_point().unsynced(), 0);
}

#[test]
fn a_sync_does_not_cover_a_write_that_is_under_way() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", &[1; SECTOR_BYTES]);
    let write = opened.start_write(&[2; SECTOR_BYTES], 0).unwrap();
    opened.sync().unwrap();
    assert_eq!(disk.crash_point().image(&[]).contents(Path::new("/a"))[0], 1);
    opened.finish_write(write).unwrap();
    opened.sync().unwrap();
    assert_eq!(disk.crash_point().image(&[]).contents(Path::new("/a"))[0], 2);
}

#[test]
fn direct_access_is_in_whole_sectors_or_refused() {
    let disk = SimulatedDisk::new();
    drop(durable_file(&disk, "/a", &[1; 2048]));
    let direct = OpenMode::WRITE.direct();
    let opened = disk.open(Path::new("/a"), direct).unwrap();
    let mut buffer = aligned(3, 1024);
    opened.write_all_at(&buffer, 512).unwrap();
    opened.read_exact_at(&mut buffer, 0).unwrap();
    for (start, end, offset) in [(0, 1024, 1), (0, 1000, 0), (8, 520, 0)] {
        let error = opened.write_at(&buffer[start..end], offset).unwrap_err();
        assert!(crate::refuses_direct(&error), "{start}..{end} at {offset}");
    }
    disk.set_direct(Direct::RefusedAtAccess);
    assert!(crate::refuses_direct(&opened.read_at(&mut buffer, 0).unwrap_err()));
    disk.set_direct(Direct::RefusedAtOpen);
    assert!(crate::refuses_direct(&disk.open(Path::new("/a"), direct).unwrap_err()));
}

#[test]
fn a_cut_stops_everything_at_its_operation() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", &[1; SECTOR_BYTES]);
    let next = disk.operations().len() as u64 + 1;
    disk.cut_power_at(next + 1);
    opened.write_all_at(&[2; SECTOR_BYTES], 0).unwrap();
    assert!(opened.sync().is_err() && opened.sync().is_err() && disk.list(Path::new("/")).is_err());
    assert_eq!(disk.crash_point().unsynced(), 1, "the sync had begun, no more");
}

#[test]
fn a_fault_meets_its_operation_once_or_for_ever() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", b"1");
    let number = disk.operations().len() as u64 + 1;
    let eio = Failure::Error(libc::EIO);
    disk.inject(Fault { target: Target::Operation(number + 1), failure: eio, lasts: false });
    opened.length().unwrap();
    assert_eq!(opened.length().unwrap_err().raw_os_error(), Some(libc::EIO));
    opened.length().unwrap();
    let length_here = || opened.length();
    length_here().unwrap();
    let site = disk.operations().last().unwrap().site;
    for lasts in [false, true] {
        disk.inject(Fault { target: Target::Site(site), failure: eio, lasts });
        opened.length().expect("another place");
        assert!(length_here().is_err());
        assert_eq!(length_here().is_err(), lasts);
    }
    disk.inject(Fault { target: Target::Operation(1), failure: eio, lasts: true });
    assert!(opened.sync().is_err() && opened.sync().is_err());
}

#[test]
fn what_a_failed_sync_should_have_written_is_never_durable() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", b"1");
    opened.write_all_at(b"2", 0).unwrap();
    let number = disk.operations().len() as u64 + 1;
    disk.inject(Fault { target: Target::Operation(number), failure: Failure::Error(libc::EIO), lasts: false });
    assert!(opened.sync().is_err());
    opened.sync().expect("it says so");
    assert_eq!(disk.contents(Path::new("/a")), b"2");
    assert_eq!(disk.crash_point().image(&[]).contents(Path::new("/a")), b"1");
    opened.write_all_at(b"3", 0).unwrap();
    opened.sync().unwrap();
    for image in images(&disk) {
        assert_eq!(image.contents(Path::new("/a")), b"3", "and does not come back over what was synced later");
    }
}

#[test]
fn a_write_that_failed_may_be_on_disk_in_any_part() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", &[1; 2 * SECTOR_BYTES]);
    let number = disk.operations().len() as u64 + 1;
    disk.inject(Fault { target: Target::Operation(number), failure: Failure::Error(libc::EIO), lasts: false });
    assert!(opened.write_at(&[2; 2 * SECTOR_BYTES], 0).is_err());
    assert_eq!(disk.contents(Path::new("/a")), [1; 2 * SECTOR_BYTES]);
    opened.sync().unwrap();
    assert_eq!(images(&disk).len(), 4);
}

#[test]
fn short_writes_and_reads_go_on_where_they_stopped() {
    let disk = SimulatedDisk::new();
    let opened = durable_file(&disk, "/a", b"");
    for failure in [Failure::Short, Failure::Error(libc::EINTR)] {
        let number = disk.operations().len() as u64 + 1;
        disk.inject(Fault { target: Target::Operation(number), failure, lasts: false });
        opened.write_all_at(&[5; 5000], 0).unwrap();
        assert_eq!(disk.operations().len() as u64, number + 1);
        disk.inject(Fault { target: Target::Operation(number + 2), failure, lasts: false });
        let mut bytes = [0; 5000];
        opened.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [5; 5000]);
    }
}

#[test]
fn a_full_disk_takes_nothing_more_until_there_is_space() {
    let disk = SimulatedDisk::new();
    disk.set_capacity(3000);
    let opened = durable_file(&disk, "/a", &[1; 2000]);
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 1000);
    let error = opened.write_all_at(&[2; 2000], 2000).unwrap_err();
    assert!(crate::is_full(&error), "{error}");
    opened.write_all_at(&[3; 2000], 0).expect("what is there already needs no space");
    assert!(crate::is_full(&opened.set_length(4000).unwrap_err()));
    drop(file(&disk, "/b"));
    disk.remove_file(Path::new("/a")).unwrap();
    file(&disk, "/b").write_all_at(&[2; 3000], 0).unwrap();
}

#[test]
fn a_stall_is_counted_and_nobody_waits() {
    let disk = SimulatedDisk::new();
    let delay = Duration::from_secs(3600);
    disk.inject(Fault { target: Target::Operation(2), failure: Failure::Stall(delay), lasts: true });
    drop(durable_file(&disk, "/a", b"x"));
    assert_eq!(disk.stalled(), delay * 3, "the write and both syncs");
}

#[test]
fn a_lie_leaves_things_unsynced_and_says_they_are_not() {
    for (lie, unsynced) in [(Lie::Sync, 2), (Lie::SyncDirectory, 1)] {
        let disk = SimulatedDisk::new();
        disk.lie(lie);
        drop(durable_file(&disk, "/a", b"x"));
        assert_eq!(disk.crash_point().unsynced(), unsynced, "{lie:?}");
    }
    let disk = SimulatedDisk::new();
    drop(durable_file(&disk, "/a", b"0"));
    disk.lie(Lie::DurableWrites);
    let opened = disk.open(Path::new("/a"), OpenMode::WRITE.durable_writes()).unwrap();
    opened.write_all_at(b"1", 0).unwrap();
    assert_eq!(disk.crash_point().unsynced(), 1);
    disk.lie(Lie::ShortWrites);
    let number = disk.operations().len() as u64 + 1;
    disk.inject(Fault { target: Target::Operation(number), failure: Failure::Short, lasts: false });
    assert_eq!(opened.write_at(&[2; 1024], 0).unwrap(), 1024);
    assert_eq!(disk.contents(Path::new("/a")).len(), 512);
}

#[test]
fn a_lock_is_one_handles_until_it_is_closed() {
    let disk = SimulatedDisk::new();
    let (first, second) = (file(&disk, "/LOCK"), file(&disk, "/LOCK"));
    assert!(first.try_lock_exclusive().unwrap() && first.try_lock_exclusive().unwrap());
    assert!(!second.try_lock_exclusive().unwrap());
    drop(first);
    assert!(second.try_lock_exclusive().unwrap());
}

#[test]
fn crash_points_are_kept_of_every_change_with_what_the_test_said() {
    let disk = SimulatedDisk::new();
    disk.record();
    let opened = file(&disk, "/a");
    disk.mark(1);
    opened.write_all_at(b"x", 0).unwrap();
    opened.length().unwrap();
    opened.sync().unwrap();
    let points = disk.crash_points();
    let seen: Vec<_> = points.iter().map(|point| (point.mark, point.unsynced())).collect();
    assert_eq!(seen, [(0, 1), (1, 3), (1, 3), (1, 1)]);
    let mut dice = StdRng::seed_from_u64(1);
    assert_eq!(points[1].fates(5, &mut dice).len(), 8 + 3);
    let again = points[1].fates(5, &mut StdRng::seed_from_u64(1));
    assert_eq!(again, points[1].fates(5, &mut StdRng::seed_from_u64(1)), "the same dice, the same fates");
}

#[test]
fn a_flipped_bit_is_on_the_disk_and_in_the_cache() {
    let disk = SimulatedDisk::new();
    drop(durable_file(&disk, "/a", &[0; 1000]));
    disk.flip_bit(Path::new("/a"), 8 * 999 + 3);
    assert_eq!(disk.contents(Path::new("/a"))[999], 8);
    assert_eq!(disk.crash_point().image(&[]).contents(Path::new("/a"))[999], 8);
    disk.flip_bit(Path::new("/a"), 8 * 999 + 3);
    assert_eq!(disk.contents(Path::new("/a")), [0; 1000]);
}

#[test]
fn the_same_errors_as_the_real_disk_has() {
    let root = tempfile::tempdir().unwrap();
    let (real, simulated) = (crate::RealDisk, SimulatedDisk::new());
    let kinds = |kinds: [io::Result<()>; 9]| kinds.map(|result| result.unwrap_err().kind());
    assert_eq!(kinds(refusals(&real, root.path())), kinds(refusals(&simulated, Path::new("/"))));
}

/// What no disk does.
fn refusals<D: Disk>(disk: &D, root: &Path) -> [io::Result<()>; 9] {
    let (missing, present, directory) = (root.join("missing"), root.join("present"), root.join("directory"));
    disk.create_directory(&directory).unwrap();
    drop(disk.open(&present, NEW).unwrap());
    let below = present.join("below");
    [
        disk.open(&missing, OpenMode::READ).map(drop),
        disk.open(&present, OpenMode::WRITE.creating(Creation::Exclusive)).map(drop),
        disk.open(&below, NEW).map(drop),
        disk.create_directory(&directory),
        disk.rename(&missing, &present),
        disk.remove_file(&missing),
        disk.list(&missing).map(drop),
        disk.metadata(&below).map(drop),
        disk.open(&directory, OpenMode::WRITE).map(drop),
    ]
}
