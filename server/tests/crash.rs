//! The real server, killed at random moments: whatever was acknowledged is there after the next start.
//!
//! Place in the flow: steps 6 (log) and 9 (reply), and recovery, from outside.
//!
//! What counts as lost is said in `support/claims.rs`. The check is itself checked: against a server that acknowledges
//! before the disk, it must find losses.
//!
//! `EYOT_CRASH_ROUNDS` sets the number of kills, `EYOT_CRASH_ALL=1` has every byte of the last batch tried.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;

use support::claims::{Claims, Counts};
use support::{bytes_value, directory, files_of, number_value, run, several_cores, Dice, Server};

const CONNECTIONS: usize = 4;
const KEYS: usize = 40;
const BLOCK: usize = 4096;

fn claims() -> Claims {
    Claims::new(CONNECTIONS, KEYS, |rng| rng.gen_range(0..600))
}

/// Loads the server, kills it after a random while, starts it again and names the acknowledged writes that are gone.
fn kill_under_load(directory: &Path, arguments: &[&str], claims: &mut Claims, dice: &mut Dice) -> Vec<String> {
    let after = Duration::from_millis(dice.rng.gen_range(20..400));
    claims.load(Server::start(directory, arguments), dice, |server| {
        std::thread::sleep(after);
        server.kill();
    });
    let server = Server::start(directory, arguments);
    let losses = claims.find_losses(&mut server.connect());
    // Killed at rest, once more: reading may have changed nothing.
    server.kill();
    losses
}

fn rounds(default: usize) -> usize {
    std::env::var("EYOT_CRASH_ROUNDS").map_or(default, |text| text.parse().expect("EYOT_CRASH_ROUNDS is a number"))
}

/// What `rounds` kills must have left.
#[track_caller]
fn tell(claims: &Claims) {
    let Counts { sent, acknowledged, refused } = claims.counts;
    assert!(acknowledged > 0, "no load, no proof");
    assert_eq!(refused, 0, "nothing stands in the way of a write");
    eprintln!("{} kills, {sent} writes, {acknowledged} of them acknowledged: none is lost", rounds(8));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let (directory, mut dice, mut claims) = (directory(), Dice::new(), claims());
    let cores = several_cores().to_string();
    for round in 0..rounds(8) {
        // Every fourth round on another number of cores, so that logs of both kinds follow each other.
        let arguments = ["--cores", if round % 4 == 3 { "1" } else { &cores }, "--shards", "8"];
        let losses = kill_under_load(directory.path(), &arguments, &mut claims, &mut dice);
        assert!(losses.is_empty(), "round {round}: {losses:#?}");
    }
    tell(&claims);
}

#[test]
fn nothing_acknowledged_is_lost_while_snapshots_are_made_and_the_log_is_cut() {
    let (directory, mut dice, mut claims) = (directory(), Dice::new(), claims());
    let cores = several_cores().to_string();
    for round in 0..rounds(8) {
        let cores = if round % 4 == 3 { "1" } else { &cores };
        let arguments = ["--cores", cores, "--shards", "8", "--snapshot-log-size", "200KB"];
        let losses = kill_under_load(directory.path(), &arguments, &mut claims, &mut dice);
        assert!(losses.is_empty(), "round {round}: {losses:#?}");
    }
    tell(&claims);
    let files = files_of(directory.path());
    let count = |end: &str| files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(end)).count();
    // Two of each shard; a third where the kill came between a name and the removal of the oldest.
    assert!((8..=24).contains(&count(".snap")), "{} snapshots: no load, no proof", count(".snap"));
    let first = files.iter().filter(|(path, _)| path.ends_with("00000000000000000001.wal")).count();
    assert_eq!(first, 0, "the log is cut behind them");
}

#[test]
fn the_crash_test_finds_what_an_early_acknowledgement_loses() {
    let mut dice = Dice::new();
    for _ in 0..4 {
        let (directory, mut claims) = (directory(), claims());
        let arguments = ["--sync-writes=false", "--flush-interval", "10s"];
        let losses = kill_under_load(directory.path(), &arguments, &mut claims, &mut dice);
        if !losses.is_empty() {
            eprintln!("without the sync, {} keys are older than what was acknowledged: found", losses.len());
            return;
        }
    }
    panic!("a server that acknowledges before the disk passed: the crash test proves nothing");
}

/// A data directory of one core whose log holds one batch for each of `count` keys, all acknowledged, and its segment.
struct Written {
    directory: tempfile::TempDir,
    segment: PathBuf,
    /// Where each batch begins, and its length without the padding.
    batches: Vec<(usize, usize)>,
}

fn written(count: usize, stop_in_order: bool) -> Written {
    let directory = directory();
    let server = Server::start(directory.path(), &["--cores", "1"]);
    let mut client = server.connect();
    for number in 0..count {
        client.must_set(format!("key:{number}").as_bytes(), &bytes_value(&[number as u8; 60]));
    }
    if stop_in_order {
        assert_eq!(server.terminate().status.code(), Some(0));
    } else {
        server.kill();
    }
    let segment = directory.path().join("wal/core-0/00000000000000000001.wal");
    let bytes = fs::read(&segment).expect("the first segment");
    let batches: Vec<(usize, usize)> = (BLOCK..bytes.len())
        .step_by(BLOCK)
        .filter(|&start| bytes[start..].starts_with(b"EYOB"))
        .map(|start| (start, u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap()) as usize))
        .collect();
    assert!(batches.len() >= count, "{} batches for {count} writes that waited for each other", batches.len());
    Written { directory, segment, batches }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = directory();
    for (path, bytes) in files_of(from) {
        let path = to.path().join(path.strip_prefix(from).expect("found below it"));
        fs::create_dir_all(path.parent().expect("a directory")).unwrap();
        fs::write(path, bytes).unwrap();
    }
    to
}

/// Changes a copy of the segment by `change` and returns the copied directory.
fn changed(written: &Written, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let copy = copy(written.directory.path());
    let segment = copy.path().join(written.segment.strip_prefix(written.directory.path()).expect("below"));
    let mut bytes = fs::read(&segment).unwrap();
    change(&mut bytes);
    fs::write(&segment, bytes).unwrap();
    (copy, segment)
}

/// Starts on `directory` and returns which of `count` keys are there; the server must also take a write and stop.
fn keys_after_start(directory: &Path, count: usize) -> (Vec<bool>, String) {
    let server = Server::start(directory, &["--cores", "1"]);
    let mut client = server.connect();
    let present = (0..count)
        .map(|number| {
            let answer = client.get(format!("key:{number}").as_bytes());
            let value = bytes_value(&[number as u8; 60]);
            assert!(answer.value().is_none_or(|found| found == value), "a wrong value: {answer:?}");
            answer.value().is_some()
        })
        .collect();
    client.must_set(b"after", &number_value(1));
    let ended = server.terminate();
    assert_eq!(ended.status.code(), Some(0));
    (present, ended.stderr)
}

fn samples(length: usize, step: usize) -> Vec<usize> {
    let step = if std::env::var_os("EYOT_CRASH_ALL").is_some() { 1 } else { step };
    (0..length).step_by(step).chain([length - 1, length]).collect()
}

#[test]
fn a_last_write_cut_at_any_byte_loses_itself_alone() {
    const COUNT: usize = 4;
    let written = written(COUNT, false);
    let (start, length) = *written.batches.last().unwrap();
    let started = Instant::now();
    for cut in samples(length, 11) {
        for shorten in [false, true] {
            let (directory, _) = changed(&written, |bytes| {
                bytes[start + cut..].fill(0);
                if shorten {
                    bytes.truncate(start + cut);
                }
            });
            let (present, said) = keys_after_start(directory.path(), COUNT);
            // A file that ends within the padding has lost part of the write, too.
            let whole = cut >= length && !shorten;
            assert_eq!(present, [true, true, true, whole], "cut at byte {cut}, shortened: {shorten}; {said}");
            if cut > 0 && !whole && !shorten {
                assert!(said.contains("interrupted"), "cut at byte {cut}: {said}");
            }
        }
    }
    eprintln!("every cut took {:?}", started.elapsed());
}

#[test]
fn a_flipped_bit_in_the_middle_is_refused_with_file_and_offset() {
    const COUNT: usize = 4;
    let written = written(COUNT, false);
    let (start, length) = written.batches[1];
    let mut dice = Dice::new();
    for at in samples(length, 13) {
        let bit = dice.rng.gen_range(0..8);
        let (directory, segment) = changed(&written, |bytes| bytes[start + at] ^= 1 << bit);
        let before = files_of(directory.path());
        let ended = run(directory.path(), &["--cores", "1"]);
        let words = [segment.to_str().unwrap(), &format!("byte {start}"), "remedy"];
        ended.assert_code(17, &words);
        assert!(before == files_of(directory.path()), "a refused start changed the directory (byte {at}, bit {bit})");
    }
}

#[test]
fn a_flipped_bit_in_the_segments_header_is_refused() {
    let written = written(3, false);
    for at in [0, 9, 13, 20, 40, 60, 82, 100, 4095] {
        let (directory, segment) = changed(&written, |bytes| bytes[at] ^= 1);
        let before = files_of(directory.path());
        let ended = run(directory.path(), &["--cores", "1"]);
        assert!(matches!(ended.status.code(), Some(16 | 17)), "byte {at}: {ended:#?}");
        assert!(ended.stderr.contains(segment.to_str().unwrap()), "byte {at}: {ended:#?}");
        assert!(before == files_of(directory.path()), "a refused start changed the directory (byte {at})");
    }
}

#[test]
fn a_flipped_bit_in_the_last_write_is_a_torn_tail() {
    const COUNT: usize = 4;
    let written = written(COUNT, false);
    let (start, length) = *written.batches.last().unwrap();
    for at in samples(length, 29) {
        let (directory, _) = changed(&written, |bytes| bytes[start + at] ^= 0x10);
        let (present, said) = keys_after_start(directory.path(), COUNT);
        assert_eq!(present, [true, true, true, false], "byte {at}: {said}");
    }
}

/// An orderly stop leaves a last word that all before it is on disk: what decays after it is told from a torn tail.
#[test]
fn a_flipped_bit_in_the_last_write_after_an_orderly_stop_is_damage() {
    const COUNT: usize = 3;
    let written = written(COUNT, true);
    let (start, length) = written.batches[COUNT - 1];
    for at in samples(length, 41) {
        let (directory, segment) = changed(&written, |bytes| bytes[start + at] ^= 0x10);
        let ended = run(directory.path(), &["--cores", "1"]);
        ended.assert_code(17, &[segment.to_str().unwrap(), &format!("byte {start}")]);
    }
}
