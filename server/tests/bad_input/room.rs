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

use crate::support::resp::put_command;
use crate::support::{
    bytes_value, command, directory, number_value, run, wait_until, Answer, Client, Reply, Server, Subject,
};

/// A small file system, unmounted with its handle.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        Self::mount_with(&format!("size={mebibytes}m"))
    }

    fn mount_with(options: &str) -> Option<Self> {
        let directory = directory();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory.path()).output();
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

    /// Gives so much of it back.
    fn give_back(&self, bytes: usize) {
        let file = fs::File::options().write(true).open(self.path().join("filler")).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - bytes as u64).unwrap();
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

/// A file system has room for so many files: here each file that a start makes is the one too many, once.
#[test]
fn a_start_without_room_for_one_of_its_files_is_told_as_a_full_disk_whichever_it_is() {
    let Some(disk) = SmallDisk::mount_with("size=64m,nr_inodes=100") else { return };
    let (data, arguments) = (disk.path().join("data"), ["--cores", "1", "--shards", "2"]);
    let server = Server::start(&data, &arguments);
    server.connect().must_set(b"before", &number_value(1));
    server.kill();
    let names = (0..).map(|number| disk.path().join(format!("filler-{number}")));
    let mut fillers: Vec<_> = names.take_while(|name| fs::File::create(name).is_ok()).collect();
    let refused = fillers.len();
    let server = loop {
        match Server::launch(&mut command(&data, &arguments)) {
            Ok(server) => break server,
            Err(ended) => ended.assert_code(StopReason::DiskFull.exit_code(), &["space", "remedy"]),
        }
        fs::remove_file(fillers.pop().expect("with all of them it has started before")).unwrap();
    };
    assert!(refused > fillers.len(), "a start makes a file");
    assert_eq!(server.connect().get(b"before").value(), Some(&number_value(1)[..]));
}

/// Large values are kept in a file, so a start needs space for what the log or a snapshot has of them. Where somebody
/// else has taken it, nothing is damaged.
#[test]
fn a_start_without_space_for_large_values_is_told_as_a_full_disk_and_not_as_damage() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let value = vec![7; 1 << 20];
    let key = |number: usize| format!("large:{number}").into_bytes();
    for snapshot in [false, true] {
        let (data, arguments) = (disk.path().join(format!("data-{snapshot}")), ["--cores", "1", "--shards", "2"]);
        let subject = Subject::start(&data, &arguments);
        let mut client = subject.connect();
        (0..8).for_each(|number| assert_eq!(client.call(&[b"SET", &key(number)[..], &value]), Reply::status("OK")));
        if snapshot {
            client.must("SAVE");
        }
        subject.kill();
        disk.fill();
        // The log's next segment may stand beside it, but not eight values.
        let ended = run(&data, &arguments);
        ended.assert_code(StopReason::DiskFull.exit_code(), &["room for", "large value", "free space", "remedy"]);
        disk.free();
        let subject = Subject::start(&data, &arguments);
        let mut client = subject.connect();
        (0..8).for_each(|number| assert!(client.call(&[b"GET", &key(number)[..]]).bytes() == Some(&value[..])));
        subject.kill();
        fs::remove_dir_all(&data).unwrap();
    }
}

/// Whatever the disk has room for of a large value: its error comes, and what is behind it on the connection is served.
#[test]
fn a_large_value_without_space_is_refused_and_its_connection_goes_on() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let subject = Subject::start(&disk.path().join("data"), &["--cores", "1"]);
    let (mut native, mut resp) = (subject.eyot().expect("Eyot").connect(), subject.connect());
    native.must_set(b"before", &number_value(1));
    // All space, and all but some pages: then some of the value comes before there is none.
    for left_kib in [0_usize, 40, 92] {
        disk.fill();
        disk.give_back(left_kib * 1024);
        for kib in [100, 180, 250] {
            let value = vec![kib as u8; kib * 1024];
            let answer = native.set(b"large", &bytes_value(&value));
            assert_eq!(answer.code(), Some(ErrorCode::NoSpace), "{kib} of {left_kib} KiB: {answer:?}");
            assert_eq!(native.get(b"before").value(), Some(&number_value(1)[..]), "{kib} of {left_kib} KiB");
            let mut pipeline = Vec::new();
            put_command(&mut pipeline, &[&b"SET"[..], b"large", &value]);
            put_command(&mut pipeline, &[&b"EXISTS"[..], b"before", b"large"]);
            resp.send_raw(&pipeline);
            let refused = resp.receive();
            assert!(refused.error().is_some_and(|line| line.contains("not applied")), "{refused:?}");
            assert_eq!(resp.receive(), Reply::Integer(1), "{kib} of {left_kib} KiB");
        }
        disk.free();
    }
    let value = bytes_value(&vec![9; 250 * 1024]);
    wait_until("writes are taken again", || matches!(native.set(b"large", &value), Answer::Stored(_)));
    assert_eq!(native.get(b"large").value(), Some(&value[..]));
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
