//! The data directory on a real file system, and on one that loses its power.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rand::rngs::StdRng;
use rand::SeedableRng;

use super::*;

const WANTED: NewIdentity<'_> = NewIdentity { node_id: None, shards: None, shards_default: 8, now_us: 1_700_000_000 };

fn open(path: &Path) -> Result<DataDir, DataDirError> {
    DataDir::open(&RealDisk, path, WANTED)
}

#[test]
fn a_new_directory_gets_an_identity_that_stays() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/data");
    let data = open(&path).unwrap();
    assert!(data.is_new() && data.wal_directory().is_dir());
    let identity = data.identity().clone();
    assert_eq!((identity.shards, identity.created_at_us), (8, 1_700_000_000));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for file in ["IDENTITY", "LOCK"] {
        assert_eq!(fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    drop(data);
    let later = NewIdentity { shards_default: 99, now_us: 5, ..WANTED };
    let data = DataDir::open(&RealDisk, &path, later).unwrap();
    assert!(!data.is_new());
    assert_eq!(*data.identity(), identity, "the directory's own number of shards wins over a default");
    let other = open(&root.path().join("other")).unwrap();
    assert_ne!(other.identity().node_uuid, identity.node_uuid);
    // The name is shown to everybody, the number keys the log's checksums and the cores' names.
    let digits = identity.node_id.strip_prefix("eyot-").unwrap();
    assert!(digits.len() == 8 && !format!("{:032x}", identity.node_uuid).contains(digits), "{identity:?}");
}

#[test]
fn the_identity_file_has_its_golden_text() {
    let root = tempfile::tempdir().unwrap();
    let text = "format=1\nnode_uuid=0000000000000000000000000000002a\nnode_id=n-1\nshards=8\ncreated_at_us=-7\n";
    let text = format!("{text}crc32c={:08x}\n", crc32c::crc32c(text.as_bytes()));
    fs::write(root.path().join("IDENTITY"), &text).unwrap();
    let data = open(root.path()).unwrap();
    let identity = Identity { node_uuid: 42, node_id: "n-1".to_owned(), shards: 8, created_at_us: -7 };
    assert_eq!(*data.identity(), identity);
    assert_eq!(fs::read_to_string(root.path().join("IDENTITY")).unwrap(), text);
}

#[test]
fn a_second_opening_is_refused_by_the_process_id_of_the_first() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path()).unwrap();
    match open(root.path()).unwrap_err() {
        DataDirError::Locked { process, .. } => assert_eq!(process, std::process::id().to_string()),
        other => panic!("{other}"),
    }
    drop(first);
    open(root.path()).unwrap();
}

#[test]
fn the_number_of_shards_is_fixed_when_the_directory_is_created() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDir::open(&RealDisk, root.path(), NewIdentity { shards: Some(3), ..WANTED }).unwrap());
    drop(DataDir::open(&RealDisk, root.path(), NewIdentity { shards: Some(3), ..WANTED }).unwrap());
    let error = DataDir::open(&RealDisk, root.path(), NewIdentity { shards: Some(4), ..WANTED }).unwrap_err();
    assert!(matches!(error, DataDirError::ShardsFixed { found: 3, wanted: 4, .. }), "{error}");
    assert!(matches!(
        DataDir::open(&RealDisk, root.path(), NewIdentity { shards: Some(0), ..WANTED }),
        Err(DataDirError::NoShards)
    ));
}

#[test]
fn another_nodes_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let named = |node_id| DataDir::open(&RealDisk, root.path(), NewIdentity { node_id: Some(node_id), ..WANTED });
    drop(named("alpha").unwrap());
    assert_eq!(open(root.path()).unwrap().identity().node_id, "alpha");
    let error = named("beta").unwrap_err();
    assert!(error.to_string().contains("--node-id alpha"), "{error}");
    assert!(matches!(error, DataDirError::OtherNode { .. }));
    for invalid in ["", "a b", "a\nshards=9", "ä", &"x".repeat(65)] {
        assert!(matches!(named(invalid), Err(DataDirError::InvalidNodeId { .. })), "{invalid:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_identity_is_refused() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()).unwrap());
    let path = root.path().join("IDENTITY");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(open(root.path()), Err(DataDirError::DamagedIdentity { .. })), "cut at {length}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        assert!(matches!(open(root.path()), Err(DataDirError::DamagedIdentity { .. })), "bit {bit}");
    }
    fs::write(&path, &whole).unwrap();
    open(root.path()).unwrap();
}

#[test]
fn an_identity_of_a_newer_format_is_named() {
    let root = tempfile::tempdir().unwrap();
    let text = "format=2\nsomething=new\n";
    fs::write(root.path().join("IDENTITY"), format!("{text}crc32c={:08x}\n", crc32c::crc32c(text.as_bytes()))).unwrap();
    assert!(matches!(open(root.path()), Err(DataDirError::NewerFormat { found: 2, .. })));
}

#[test]
fn logs_without_an_identity_are_not_given_a_new_one() {
    let root = tempfile::tempdir().unwrap();
    let data = open(root.path()).unwrap();
    fs::create_dir(data.wal_directory().join("core-0")).unwrap();
    drop(data);
    fs::remove_file(root.path().join("IDENTITY")).unwrap();
    assert!(matches!(open(root.path()), Err(DataDirError::MissingIdentity { .. })));
    assert!(!root.path().join("IDENTITY").exists());
}

#[test]
fn an_interrupted_creation_is_repeated() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("IDENTITY.tmp"), "format=1\nnode_u").unwrap();
    fs::create_dir(root.path().join("wal")).unwrap();
    assert!(open(root.path()).unwrap().is_new());
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "x").unwrap();
    assert!(matches!(open(&path), Err(DataDirError::NotADirectory { .. })));
    assert!(matches!(open(&path.join("below")), Err(DataDirError::NotADirectory { .. })));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere but here.
    let is_root = fs::write(path.join("probe"), "").is_ok();
    let path = if is_root { Path::new("/proc/eyot-data") } else { &path };
    let error = open(path).unwrap_err();
    let is_named = matches!(error, DataDirError::NotWritable { .. })
        || (is_root && matches!(error, DataDirError::Io { .. } | DataDirError::NotADirectory { .. }));
    assert!(is_named, "{error}");
}

/// Below a directory that does not exist either, so that every name on the way has to become durable.
const SIMULATED: &str = "/srv/data";

/// What is wrong with the directory on `image`, if `identity` was given to somebody.
fn complaint(image: &SimulatedDisk, identity: Option<&Identity>) -> Option<String> {
    let data = match DataDir::open(image, Path::new(SIMULATED), WANTED) {
        Ok(data) => data,
        Err(error) => return Some(error.to_string()),
    };
    match identity {
        Some(identity) if data.identity() != identity => Some(format!("{:?} for {identity:?}", data.identity())),
        _ => None,
    }
}

/// All complaints about all disks that a power cut may leave while the directory is created and opened again.
fn complaints(disk: &SimulatedDisk) -> Vec<String> {
    let mut dice = StdRng::seed_from_u64(0x00DA_7A01);
    disk.record();
    let open = || DataDir::open(disk, Path::new(SIMULATED), WANTED).unwrap().identity().clone();
    let identity = open();
    disk.mark(1);
    assert_eq!(open(), identity);
    let points = disk.crash_points();
    assert!(points.len() > 15, "{} moments", points.len());
    let mut found = Vec::new();
    for point in points {
        for fates in point.fates(20, &mut dice) {
            if let Some(complaint) = complaint(&point.image(&fates), (point.mark == 1).then_some(&identity)) {
                found.push(format!("{:?}, {fates:?}: {complaint}", point.operation));
            }
        }
    }
    found
}

#[test]
fn a_power_cut_at_any_operation_leaves_no_identity_or_the_one_that_was_told() {
    assert_eq!(complaints(&SimulatedDisk::new()), Vec::<String>::new());
}

/// The canary of the test above.
#[test]
fn an_identity_that_is_not_synced_is_noticed() {
    for lie in [Lie::Sync, Lie::SyncDirectory] {
        let disk = SimulatedDisk::new();
        disk.lie(lie);
        assert!(!complaints(&disk).is_empty(), "{lie:?}");
    }
}
