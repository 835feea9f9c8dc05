//! No memory left, no disk left: writes are refused with a typed error, reads go on, and writes come back by
//! themselves.
//!
//! Place in the flow: steps 3 (admit) and 6 (log).
//!
//! The full disk is a small file system of its own, which takes a user that may mount; where that is refused, the tests
//! say so and are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use eyot_protocol::request::{Request, RequestOptions, Set};
use eyot_protocol::ErrorCode;
use eyot_server::error::StopReason;
use tempfile::TempDir;

use crate::support::{bytes_value, directory, number_value, run, wait_until, Answer, Client, Server};

/// A small file system, unmounted with its handle.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let directory = directory();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            refused => {
                eprintln!("skipped: a small file system cannot be mounted here: {refused:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let filler = vec![0_u8; 64 * 1024];
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &filler).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since a server of a failed test may not be gone yet.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}

/// Writes values of 16 KiB under ever new keys until the disk is full; every acknowledged key goes into `written`.
fn write_until_full(client: &mut Client, written: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for number in 0..100_000_u32 {
        let key = format!("full:{}:{number}", written.len()).into_bytes();
        let value = bytes_value(&vec![number as u8; 16 * 1024]);
        match client.set(&key, &value) {
            Answer::Stored(_) => {
                written.insert(key, value);
            }
            Answer::Error(ErrorCode::NoSpace, message) => {
                assert!(message.contains("not applied"), "{message}");
                return;
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }
    panic!("the disk never filled");
}

#[test]
fn a_full_disk_refuses_writes_and_heals_without_a_restart() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let data = disk.path().join("data");
    let server = Server::start(&data, &["--cores", "1"]);
    let mut client = server.connect();
    let mut written = BTreeMap::new();
    for round in 0..2 {
        disk.fill();
        write_until_full(&mut client, &mut written);
        assert_eq!(client.stats()["storage"]["read_only"], true);
        for (key, value) in &written {
            assert_eq!(client.get(key).value(), Some(&value[..]), "reads go on");
        }
        disk.free();
        wait_until("writes are taken again", || {
            matches!(client.set(b"again", &number_value(round)), Answer::Stored(_))
        });
    }
    server.kill();
    let server = Server::start(&data, &["--cores", "1"]);
    let mut client = server.connect();
    for (key, value) in &written {
        assert_eq!(client.get(key).value(), Some(&value[..]), "acknowledged and lost");
    }
    assert_eq!(client.get(b"again").value(), Some(&number_value(1)[..]));
}

/// Writes that were taken before the next segment turned out not to fit wait for it. They must not keep the process
/// from ending: they are not acknowledged.
#[test]
fn a_server_with_a_full_disk_can_be_stopped() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let data = disk.path().join("data");
    let server = Server::start(&data, &["--cores", "1"]);
    let mut client = server.connect();
    client.must_set(b"before", &number_value(1));
    disk.fill();
    // More in one pipeline than the segments that exist have room for.
    let value = bytes_value(&vec![5; 60 * 1024]);
    let mut frames = Vec::new();
    for number in 0..200 {
        let key = format!("stuck:{number}");
        client.put(&mut frames, &Request::Set(Set::new(key.as_bytes(), &value)), &RequestOptions::default());
    }
    let mut sender = client.stream.try_clone().unwrap();
    let mut acknowledged = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &frames));
        wait_until("the disk is full", || server.stats()["storage"]["read_only"] == true);
        server.ask_to_end();
        while let Ok(Some((id, answer))) = client.try_receive(&[]) {
            if matches!(answer, Answer::Stored(_)) {
                acknowledged.push(id);
            }
        }
    });
    // Its own bound is ten seconds.
    let ended = server.wait();
    assert!(ended.status.code().is_some(), "{ended:?}");
    disk.free();
    let server = Server::start(&data, &["--cores", "1"]);
    let mut client = server.connect();
    assert!(client.get(b"before").value().is_some());
    for id in acknowledged {
        // The first request of the connection had id 1, the pipeline's first id 2.
        let key = format!("stuck:{}", id - 2);
        assert_eq!(client.get(key.as_bytes()).value(), Some(&value[..]), "{key} was acknowledged and lost");
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_told() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    disk.fill();
    let ended = run(&disk.path().join("data"), &[]);
    ended.assert_code(StopReason::DiskFull.exit_code(), &["space", "remedy"]);
}

#[test]
fn at_the_memory_limit_writes_are_refused_and_deletes_make_room() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-memory", "8MiB", "--cores", "1"]);
    let mut client = server.connect();
    let value = bytes_value(&vec![3; 32 * 1024]);
    let key = |number: usize| format!("memory:{number}").into_bytes();
    let mut count = 0;
    loop {
        match client.set(&key(count), &value) {
            Answer::Stored(_) => count += 1,
            Answer::Error(ErrorCode::OutOfMemory, message) => {
                assert!(message.contains("not applied"), "{message}");
                break;
            }
            unexpected => panic!("{unexpected:?}"),
        }
        assert!(count < 1000, "32 MiB in 8");
    }
    assert!(count > 100, "only {count} values of 32 KiB fit 8 MiB");
    assert_eq!(client.get(&key(count)), Answer::Value(None), "refused is not applied");
    for number in 0..count {
        assert_eq!(client.get(&key(number)).value(), Some(&value[..]), "reads go on");
    }
    // What a write was expected to take may have been more than it took: then another one fits.
    while client.set(&key(count), &value).code().is_none() {
        count += 1;
        assert!(count < 1000, "32 MiB in 8");
    }
    assert_eq!(client.set(&key(count), &value).code(), Some(ErrorCode::OutOfMemory), "still");
    for number in 0..10 {
        assert_eq!(client.delete(&key(number)), Answer::Deleted(true), "deletes go on");
    }
    for number in 0..5 {
        client.must_set(&key(number), &value);
    }
    // Above the limit, a restart still serves what is there.
    assert_eq!(server.terminate().status.code(), Some(0));
    let server = Server::start(directory.path(), &["--max-memory", "1MiB", "--cores", "1"]);
    let mut client = server.connect();
    assert_eq!(client.get(&key(count - 1)).value(), Some(&value[..]));
    assert_eq!(client.set(b"small", &number_value(1)).code(), Some(ErrorCode::OutOfMemory));
}
