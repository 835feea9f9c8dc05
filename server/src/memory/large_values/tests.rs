//! The value file of a core as a whole.
//!
//! Place in the flow: tests of `large_values`.

use super::*;

fn values() -> (tempfile::TempDir, LargeValues) {
    let directory = tempfile::tempdir().unwrap();
    let values = LargeValues::open(&prepare_directory(directory.path()).unwrap(), 64 << 10).unwrap();
    (directory, values)
}

/// What the ring does, without it.
fn give_back(values: &mut LargeValues, now: Instant) -> usize {
    let mut bytes = 0;
    while let Some(region) = values.maintain(now) {
        bytes += region.len();
        values.given_back(region, Ok(()));
    }
    bytes
}

#[test]
fn leftovers_of_a_killed_process_are_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let values = prepare_directory(directory.path()).unwrap();
    std::fs::write(values.join("1-0.values"), b"left").unwrap();
    std::fs::write(values.join("README"), b"mine").unwrap();
    prepare_directory(directory.path()).unwrap();
    let names: Vec<_> = std::fs::read_dir(&values).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["README"]);
}

#[test]
fn a_value_file_has_no_name_and_takes_disk_only_where_values_are() {
    let (directory, mut values) = values();
    assert_eq!(std::fs::read_dir(directory.path().join("values")).unwrap().count(), 0);
    assert_eq!(values.disk_bytes().unwrap(), 0);
    let mut region = values.allocate(1 << 20).unwrap();
    region.bytes_mut().fill(1);
    assert_eq!(values.live_bytes(), 1 << 20);
}

#[test]
fn only_values_from_the_threshold_on_are_taken() {
    let (_directory, values) = values();
    assert!(values.takes(64 << 10) && !values.takes((64 << 10) - 1));
}

#[test]
fn a_deleted_value_serves_the_next_one_and_goes_back_when_none_comes() {
    let (_directory, mut values) = values();
    let mut region = values.allocate(3 << 20).unwrap();
    let start = region.start();
    region.bytes_mut().fill(1);
    let value = region.share(3 << 20);
    let reply = value.clone();
    drop(value);
    assert_eq!(values.live_bytes(), 3 << 20, "a reply still refers to it");
    std::thread::spawn(move || drop(reply)).join().unwrap();
    let mut now = Instant::now();
    assert_eq!(give_back(&mut values, now), 0);
    assert_eq!((values.live_bytes(), values.warm_bytes()), (0, 3 << 20));
    let mut next = values.allocate(2 << 20).unwrap();
    assert_eq!((next.start(), next.is_filled()), (start, true));
    next.bytes_mut().fill(2);
    let next = next.share(2 << 20);
    now += INTERVAL;
    assert_eq!(give_back(&mut values, now), 0, "the interval began with nothing warm");
    now += INTERVAL;
    assert_eq!(give_back(&mut values, now), 1 << 20, "what no value needed for a whole interval");
    assert!(next.bytes().iter().all(|&byte| byte == 2));
    drop(next);
    assert_eq!(give_back(&mut values, now), 0);
    assert!(values.next_deadline().is_some(), "the core must wake for it");
    now += INTERVAL;
    assert_eq!(give_back(&mut values, now), 0);
    now += INTERVAL;
    assert_eq!(give_back(&mut values, now), 2 << 20);
    now += INTERVAL;
    assert_eq!(give_back(&mut values, now), 0);
    assert_eq!((values.live_bytes(), values.warm_bytes(), values.next_deadline()), (0, 0, None));
}

#[test]
fn a_region_that_never_held_a_value_goes_back_at_once() {
    let (_directory, mut values) = values();
    let mut region = values.allocate(40 << 20).unwrap();
    region.bytes_mut()[0] = 1;
    drop(region);
    assert_eq!(give_back(&mut values, Instant::now()), 40 << 20);
    assert_eq!(values.live_bytes(), 0);
}

#[test]
fn a_file_system_that_keeps_the_space_costs_only_the_space() {
    let (_directory, mut values) = values();
    drop(values.allocate(1 << 20).unwrap());
    let region = values.maintain(Instant::now()).unwrap();
    assert!(values.maintain(Instant::now()).is_none(), "one at a time");
    values.given_back(region, Err(io::Error::from_raw_os_error(95)));
    assert_eq!(values.live_bytes(), 0);
    assert!(values.allocate(1 << 20).is_some());
}
