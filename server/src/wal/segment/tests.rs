//! Segment files on a real file system.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::SegmentRequest;
use super::*;

const BYTES: u64 = 3 * 1024 * 1024 + 4096;

#[test]
fn a_new_segment_is_whole_zero_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let segment = create(&RealDisk, directory.path(), 1, BYTES).unwrap();
    assert_eq!(segment.bytes, BYTES);
    let path = segment_path(directory.path(), 1);
    assert_eq!(path.file_name().unwrap(), "00000000000000000001.wal");
    let contents = fs::read(&path).unwrap();
    assert_eq!(contents.len() as u64, BYTES);
    assert!(contents.iter().all(|&byte| byte == 0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn an_unused_spare_is_replaced_by_a_larger_one() {
    let directory = tempfile::tempdir().unwrap();
    create(&RealDisk, directory.path(), 2, 1024 * 1024).unwrap();
    let larger = create(&RealDisk, directory.path(), 2, BYTES).unwrap();
    assert_eq!(larger.file.metadata().unwrap().len(), BYTES);
    assert_eq!(fs::metadata(segment_path(directory.path(), 2)).unwrap().len(), BYTES);
}

#[test]
fn a_segment_that_holds_something_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = segment_path(directory.path(), 2);
    let mut contents = vec![0; 1024 * 1024];
    contents[5000] = 1;
    fs::write(&path, &contents).unwrap();
    assert!(matches!(create(&RealDisk, directory.path(), 2, BYTES), Err(SegmentError::InUse { .. })));
    assert_eq!(fs::read(&path).unwrap(), contents);
}

#[test]
fn a_leftover_of_an_interrupted_creation_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("00000000000000000004.wal.tmp"), vec![1; 9 * 1024 * 1024]).unwrap();
    create(&RealDisk, directory.path(), 4, BYTES).unwrap();
    let contents = fs::read(segment_path(directory.path(), 4)).unwrap();
    assert!(contents.len() as u64 == BYTES && contents.iter().all(|&byte| byte == 0));
}

/// `/dev/full` answers every write with ENOSPC.
#[test]
fn a_full_disk_is_named_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let full = || io::Error::from_raw_os_error(libc::ENOSPC);
    let path = segment_path(directory.path(), 1);
    let temporary = directory.path().join("00000000000000000001.wal.tmp");
    for (error, is_space) in [
        (full(), true),
        (io::Error::from_raw_os_error(libc::EDQUOT), true),
        (io::Error::from_raw_os_error(libc::EIO), false),
    ] {
        let error = refusal("write zeros to", &temporary, &path, BYTES)(error);
        assert_eq!(matches!(error, SegmentError::NoSpace { .. }), is_space, "{error}");
    }
    assert_eq!(write_zeros(&RealDisk, Path::new("/dev/full"), BYTES).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn cutting_gives_back_the_unused_end_only() {
    let directory = tempfile::tempdir().unwrap();
    create(&RealDisk, directory.path(), 1, BYTES).unwrap();
    let end = SegmentEnd { number: 1, end_offset: 8192 };
    truncate(&RealDisk, directory.path(), end).unwrap();
    assert_eq!(fs::metadata(segment_path(directory.path(), 1)).unwrap().len(), 8192);
    truncate(&RealDisk, directory.path(), SegmentEnd { number: 1, end_offset: 1024 * 1024 }).unwrap();
    assert_eq!(fs::metadata(segment_path(directory.path(), 1)).unwrap().len(), 8192, "a file never grows by cutting");
}

#[test]
fn a_recycled_segment_has_its_size_its_new_name_and_two_zero_blocks() {
    const BLOCK: u64 = BLOCK_BYTES as u64;
    for old_bytes in [BYTES, BYTES + 3 * BLOCK, 5 * BLOCK, 0] {
        let directory = tempfile::tempdir().unwrap();
        let (old_path, path) = (segment_path(directory.path(), 3), segment_path(directory.path(), 9));
        fs::write(&old_path, vec![7; old_bytes as usize]).unwrap();
        // What an attempt that was interrupted has left, and a spare that was too small.
        fs::write(temporary_path(&path), [1; 100]).unwrap();
        fs::write(&path, vec![0; 1024 * 1024]).unwrap();
        let request = SegmentRequest { number: 9, bytes: BYTES };
        let segment = recycle(&RealDisk, directory.path(), Recycling { old: 3, request }).unwrap();
        assert_eq!(segment.ready(9), ReadySegment { number: 9, bytes: BYTES, is_recycled: true });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "one file under one name");
        let contents = fs::read(&path).unwrap();
        let kept = old_bytes.clamp(2 * BLOCK, BYTES) as usize;
        assert_eq!(contents.len() as u64, BYTES);
        assert!(contents[..2 * BLOCK_BYTES].iter().all(|&byte| byte == 0));
        assert!(contents[2 * BLOCK_BYTES..kept].iter().all(|&byte| byte == 7));
        assert!(contents[kept..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_segment_in_use_is_not_recycled_over() {
    let directory = tempfile::tempdir().unwrap();
    for number in [3, 9] {
        fs::write(segment_path(directory.path(), number), vec![number as u8; 1024 * 1024]).unwrap();
    }
    let request = SegmentRequest { number: 9, bytes: BYTES };
    let refused = recycle(&RealDisk, directory.path(), Recycling { old: 3, request });
    assert!(matches!(refused, Err(SegmentError::InUse { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn names_are_read_as_they_are_written_and_no_other_way() {
    for number in [1, 77, u64::MAX] {
        let path = segment_path(Path::new("x"), number);
        assert_eq!(classify(path.file_name().unwrap().to_str().unwrap()), FileName::Segment(number));
    }
    assert_eq!(classify("00000000000000000000.wal"), FileName::Foreign);
    assert_eq!(classify("99999999999999999999.wal"), FileName::Foreign);
    assert_eq!(classify("+0000000000000000001.wal"), FileName::Foreign);
    assert_eq!(classify("1.wal"), FileName::Foreign);
    assert_eq!(classify("00000000000000000001.wal.tmp"), FileName::Temporary);
    for log_id in [0, 7, u16::MAX] {
        assert_eq!(
            log_id_of(log_directory(Path::new("x"), log_id).file_name().unwrap().to_str().unwrap()),
            Some(log_id)
        );
    }
    for name in ["core-", "core-01", "core-+1", "core-65536", "core1", "lost+found"] {
        assert_eq!(log_id_of(name), None, "{name}");
    }
}
