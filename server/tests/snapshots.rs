//! Snapshots of the real server: made beside requests, found again after a crash, passed over when damaged, and the log
//! given up behind them.
//!
//! Place in the flow: from outside.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use eyot_protocol::request::{Request, SnapshotRead, SnapshotRequest};
use eyot_protocol::response::ShardSnapshot;
use rand::{Rng, RngCore};

use support::resp::{put_command, Reply, RespClient};
use support::servers::Subject;
use support::{directory, files_of, wait_until, Answer, Client, Dice};

/// No snapshot unless it is asked for.
const NEVER: [&str; 4] = ["--snapshot-log-size", "0", "--snapshot-interval", "0"];

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&NEVER, more].concat()
}

/// What a database holds: of each key its value and its expiry, in milliseconds since the epoch.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

fn content(client: &mut RespClient) -> Content {
    let mut content = Content::new();
    let mut cursor = b"0".to_vec();
    loop {
        let reply = client.call(&[&b"SCAN"[..], &cursor, b"COUNT", b"1000"]);
        let parts = reply.elements();
        for key in parts[1].elements() {
            let key = key.bytes().expect("a key").to_vec();
            let value = client.call(&[&b"GET"[..], &key]);
            let expiry = client.call(&[&b"PEXPIRETIME"[..], &key]).integer();
            content.insert(key, (value.bytes().expect("it is there").to_vec(), expiry));
        }
        cursor = parts[0].bytes().expect("a cursor").to_vec();
        if cursor == b"0" {
            return content;
        }
    }
}

/// Writes `count` things of all kinds: overwrites, deletes, expiries, numbers, texts that grow, values of any length.
fn write_some(client: &mut RespClient, dice: &mut Dice, count: usize) {
    let mut pipeline = Vec::new();
    let mut sent = 0;
    for _ in 0..count {
        let key = format!("key:{}", dice.rng.gen_range(0..count / 2 + 1)).into_bytes();
        let number = format!("number:{}", dice.rng.gen_range(0..50)).into_bytes();
        let length = match dice.rng.gen_range(0..1000) {
            0 => 300_000,
            1..=9 => 70_000,
            _ => dice.rng.gen_range(0..200),
        };
        let mut value = vec![0; length];
        dice.rng.fill_bytes(&mut value);
        let command: Vec<&[u8]> = match dice.rng.gen_range(0..20) {
            0 => vec![b"DEL", &key],
            1 => vec![b"INCRBY", &number, b"7"],
            2 => vec![b"APPEND", &key, b"more"],
            3 => vec![b"SET", &key, &value, b"PXAT", b"95617584000000"],
            4 => vec![b"PEXPIREAT", &key, b"95617584000123"],
            5 => vec![b"PERSIST", &key],
            6 => vec![b"SETRANGE", &key, b"3", b"xyz"],
            _ => vec![b"SET", &key, &value],
        };
        put_command(&mut pipeline, &command);
        sent += 1;
        if pipeline.len() > 200_000 {
            client.send_raw(&std::mem::take(&mut pipeline));
            (0..std::mem::take(&mut sent)).for_each(|_| assert_eq!(client.receive().error(), None));
        }
    }
    client.send_raw(&pipeline);
    (0..sent).for_each(|_| assert_eq!(client.receive().error(), None));
}

fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files_of(directory)
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .collect();
    found.sort();
    found
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    files_of(directory).into_iter().map(|(path, _)| path).filter(is_segment).collect()
}

/// Bytes of all files, of which some may go meanwhile.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_start_finds_the_snapshot_and_the_log_behind_it_on_any_number_of_cores() {
    let (directory, mut dice) = (directory(), Dice::new());
    let mut expected = Content::new();
    for (round, cores) in ["1", "2", "1", "2", "2", "1"].into_iter().enumerate() {
        let subject = Subject::start(directory.path(), &arguments(&["--cores", cores, "--shards", "8"]));
        let mut client = subject.connect();
        assert!(content(&mut client) == expected, "after {round} starts something else is there");
        write_some(&mut client, &mut dice, 3000);
        assert_eq!(client.say("SAVE"), Reply::status("OK"));
        write_some(&mut client, &mut dice, 1000);
        expected = content(&mut client);
        assert!(expected.len() > 500);
        subject.kill();
    }
    // Two of each shard are kept, and the log of the first starts is gone.
    assert_eq!(snapshots(directory.path()).len(), 16);
    // What has not changed keeps both: a snapshot of the same index would take the older one's place.
    let before = snapshots(directory.path());
    let subject = Subject::start(directory.path(), &arguments(&["--cores", "2", "--shards", "8"]));
    let mut client = subject.connect();
    client.must("SAVE");
    let once = snapshots(directory.path());
    for _ in 0..2 {
        client.must("SAVE");
    }
    assert_eq!(snapshots(directory.path()), once);
    assert!(once.len() == 16 && once != before, "the writes after the last SAVE were in none");
    subject.kill();
    let newest = once.iter().skip(1).step_by(2).next().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    bytes[70] ^= 1;
    fs::write(newest, bytes).unwrap();
    let subject = Subject::start(directory.path(), &arguments(&["--cores", "1", "--shards", "8"]));
    assert!(content(&mut subject.connect()) == expected, "after a damaged snapshot of a shard that was at rest");
    drop(subject);
    let first = segments(directory.path()).into_iter().filter(|path| path.ends_with("00000000000000000001.wal"));
    assert_eq!(first.count(), 0, "the log is cut behind the older snapshots");
}

#[test]
fn a_damaged_snapshot_is_told_and_the_older_one_taken() {
    let (directory, mut dice) = (directory(), Dice::new());
    let all = arguments(&["--cores", "1", "--shards", "2"]);
    let subject = Subject::start(directory.path(), &all);
    let mut client = subject.connect();
    for _ in 0..3 {
        write_some(&mut client, &mut dice, 1000);
        client.must("SAVE");
    }
    write_some(&mut client, &mut dice, 200);
    let expected = content(&mut client);
    subject.kill();
    let files = snapshots(directory.path());
    assert_eq!(files.len(), 4, "{files:?}");
    // The newest of both shards: one bit of one, the end of the other.
    let mut bytes = fs::read(&files[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&files[1], &bytes).unwrap();
    let bytes = fs::read(&files[3]).unwrap();
    fs::write(&files[3], &bytes[..bytes.len() - 20]).unwrap();
    let subject = Subject::start(directory.path(), &all);
    let said = subject.eyot().expect("Eyot").said();
    for file in [&files[1], &files[3]] {
        assert!(said.contains(file.to_str().unwrap()), "{said}");
    }
    assert!(said.contains("damaged"), "{said}");
    let mut client = subject.connect();
    assert!(content(&mut client) == expected, "the older snapshot and its log give the same");
    // The next ones push out the damaged, and keep the sound one beside them.
    client.must("SAVE");
    let after = snapshots(directory.path());
    assert!(after.contains(&files[0]) && after.contains(&files[2]) && after.len() == 4, "{after:?}");
    assert!(!after.contains(&files[1]) && !after.contains(&files[3]), "{after:?}");
}

#[test]
fn without_a_sound_snapshot_and_without_the_log_a_start_is_refused_by_name() {
    let (directory, mut dice) = (directory(), Dice::new());
    let all = arguments(&["--cores", "1", "--shards", "1"]);
    let subject = Subject::start(directory.path(), &all);
    let mut client = subject.connect();
    for _ in 0..4 {
        write_some(&mut client, &mut dice, 4000);
        client.must("SAVE");
    }
    wait_until("the log is cut", || !segments(directory.path())[0].ends_with("00000000000000000001.wal"));
    subject.kill();
    for file in snapshots(directory.path()) {
        fs::remove_file(file).unwrap();
    }
    let ended = support::run(directory.path(), &["--cores", "1"]);
    ended.assert_code(17, &["wal/core-0", "remedy"]);
}

#[test]
fn a_snapshot_of_another_node_is_passed_over_by_name() {
    let (own, other, mut dice) = (directory(), directory(), Dice::new());
    let all = arguments(&["--cores", "1", "--shards", "1"]);
    let mut foreign = None;
    let mut expected = Content::new();
    for place in [other.path(), own.path()] {
        let subject = Subject::start(place, &all);
        let mut client = subject.connect();
        write_some(&mut client, &mut dice, 500);
        expected = content(&mut client);
        if foreign.is_none() {
            client.must("SAVE");
            foreign = snapshots(place).pop();
        }
        subject.kill();
    }
    let foreign = foreign.expect("one was made");
    let there = own.path().join("snapshots/shard-0");
    fs::create_dir_all(&there).unwrap();
    fs::copy(&foreign, there.join(foreign.file_name().unwrap())).unwrap();
    let subject = Subject::start(own.path(), &all);
    assert!(content(&mut subject.connect()) == expected);
    assert!(subject.eyot().unwrap().said().contains("belongs to the node"), "{}", subject.eyot().unwrap().said());
}

#[test]
fn snapshots_are_made_beside_requests_and_hold_what_was_there_when_they_began() {
    let (directory, mut dice) = (directory(), Dice::new());
    let all = arguments(&["--cores", "2", "--shards", "4"]);
    let subject = Subject::start(directory.path(), &all);
    let stop = AtomicBool::new(false);
    let mut client = subject.connect();
    let expected = std::thread::scope(|scope| {
        let writer = scope.spawn({
            let (stop, dice, client) = (&stop, &mut dice, &mut client);
            move || {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    write_some(client, dice, 2000);
                    written += 2000;
                }
                written
            }
        });
        let mut other = subject.connect();
        for _ in 0..5 {
            other.must("SAVE");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().expect("the writer") > 0);
        content(&mut other)
    });
    subject.kill();
    let subject = Subject::start(directory.path(), &all);
    assert!(content(&mut subject.connect()) == expected);
    assert_eq!(snapshots(directory.path()).len(), 8);
}

/// Writes every key anew, and has all shards snapshotted.
fn overwrite_and_save(client: &mut RespClient, round: u8) {
    let mut pipeline = Vec::new();
    for number in 0..400 {
        put_command(&mut pipeline, &[&b"SET"[..], format!("key:{number}").as_bytes(), &[round; 4000]]);
    }
    client.send_raw(&pipeline);
    // A snapshot has what was acknowledged before it was asked for.
    (0..400).for_each(|_| assert_eq!(client.receive(), Reply::status("OK")));
    assert_eq!(client.call(&[b"SAVE"]), Reply::status("OK"));
}

/// Files are written over by newer snapshots: not while a client reads from them, through whatever core.
#[test]
fn what_is_read_of_a_snapshot_is_of_that_one_while_newer_ones_take_its_place() {
    const PART: u32 = 1000;
    let directory = directory();
    let subject = Subject::start(directory.path(), &arguments(&["--cores", "2", "--shards", "4"]));
    let (server, mut client) = (subject.eyot().expect("Eyot"), subject.connect());
    overwrite_and_save(&mut client, 0);
    let path_of = |shard: u16, index: u64| {
        let files = snapshots(directory.path());
        let name = format!("shard-{shard}/{index:020}.snap");
        files.into_iter().find(|path| path.ends_with(&name))
    };
    let mut readers = [server.connect_to_core(0), server.connect_to_core(1)];
    let Answer::SnapshotStatus(status) = readers[0].call(&Request::Snapshot(SnapshotRequest::Status { request: 0 }))
    else {
        panic!("no status")
    };
    assert_eq!(status.shards.len(), 4);
    let contents: Vec<Vec<u8>> = status
        .shards
        .iter()
        .map(|found| fs::read(path_of(found.shard, found.index).expect("it is there")).unwrap())
        .collect();
    let read = |reader: &mut Client, place: usize, offset: usize| {
        let ShardSnapshot { shard, index, .. } = status.shards[place];
        let read = SnapshotRead { shard, index, offset: offset as u64, length: PART };
        reader.call(&Request::Snapshot(SnapshotRequest::Read(read)))
    };
    let part = |place: usize, offset: usize| contents[place][offset..offset + PART as usize].to_vec();
    for reader in &mut readers {
        for place in 0..4 {
            assert_eq!(read(reader, place, 0), Answer::SnapshotBytes(part(place, 0)));
        }
    }
    for round in 1..6 {
        overwrite_and_save(&mut client, round);
        for reader in &mut readers {
            for (place, content) in contents.iter().enumerate() {
                let offset = content.len() / 8 * usize::from(round);
                assert_eq!(read(reader, place, offset), Answer::SnapshotBytes(part(place, offset)), "round {round}");
            }
        }
    }
    let superseded = status.shards.iter().all(|found| path_of(found.shard, found.index).is_none());
    assert!(superseded, "newer ones have taken their places");
}

#[test]
fn bgsave_lastsave_and_info_tell_of_them_as_redis_does() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &arguments(&["--cores", "1"]));
    let mut client = subject.connect();
    let before = client.say("LASTSAVE").integer();
    assert_eq!(subject.info("rdb_last_bgsave_time_sec"), "-1");
    client.must("SET k v");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(client.say("BGSAVE"), Reply::status("Background saving started"));
    wait_until("it is saved", || subject.info("rdb_bgsave_in_progress") == "0" && subject.info("rdb_saves") == "1");
    assert!(client.say("LASTSAVE").integer() > before);
    assert_eq!(subject.info("rdb_last_bgsave_status"), "ok");
    assert_eq!(client.say("BGSAVE now").error_word(), Some("ERR"));
    assert_eq!(client.say("SAVE"), Reply::status("OK"));
    assert_eq!(subject.info("rdb_saves"), "2");
    assert_eq!(client.say("GET k"), Reply::bulk("v"));
}

#[test]
fn the_disk_holds_a_bounded_log_under_a_steady_overwrite() {
    let directory = directory();
    let all = ["--cores", "1", "--shards", "4", "--snapshot-log-size", "4MiB", "--wal-segment-size", "1MiB"];
    let subject = Subject::start(directory.path(), &all);
    let mut client = subject.connect();
    let value = vec![7; 4000];
    let mut most = 0;
    for round in 0..60 {
        let mut pipeline = Vec::new();
        for number in 0..256 {
            put_command(&mut pipeline, &[&b"SET"[..], format!("key:{number}").as_bytes(), &value]);
        }
        client.send_raw(&pipeline);
        (0..256).for_each(|_| assert_eq!(client.receive(), Reply::status("OK")));
        if round % 10 == 9 {
            most = most.max(bytes_below(directory.path()));
        }
    }
    // 60 MiB were written; two rounds of log, what came while they were made, and two snapshots of 1 MiB stay.
    assert!(most < 24 << 20, "{most} bytes");
    let expected = content(&mut client);
    subject.kill();
    let subject = Subject::start(directory.path(), &all);
    assert!(content(&mut subject.connect()) == expected);
}
