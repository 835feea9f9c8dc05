//! A file system that fills up under writes and is extended while the server runs: writes get a typed error, reads go
//! on, writes come back without a restart, and nothing acknowledged is missing after a kill.
//!
//! Place in the flow: steps 3 (admit) and 6 (log), and snapshots, which need space as well.
//!
//! The tests of `bad_input` fill a tmpfs, which has neither a disk nor a journal; here a file system reserves,
//! allocates and journals, and its space comes back by being extended, as an operator's does.

use std::collections::BTreeSet;
use std::time::Duration;

use eyot_protocol::ErrorCode;
use eyot_server::error::StopReason;

use super::image::{FileSystem, Image, MIB};
use crate::support::servers::redis_is_the_subject;
use crate::support::{self, bytes_value, wait_until, Answer, Client, Reply, RespClient, Server, Subject};

/// What the server has for itself, of an image that may have to be larger.
const ROOM_BYTES: u64 = 48 * MIB;
/// What is added to the image each time.
const EXTENSION_BYTES: u64 = 64 * MIB;
const VALUE_BYTES: usize = 16 * 1024;
/// Of every 25th value: it is kept in a file of its core, which needs space, too.
const LARGE_VALUE_BYTES: usize = 200 * 1024;
/// What is left free at most when somebody else takes all space: less than a start makes.
const TOO_LITTLE_BYTES: u64 = 128 * 1024;
/// More refusals in a row than keys would find by chance, if any core still took writes.
const REFUSALS_IN_A_ROW: usize = 64;
/// More than the second after which the server looks again whether there is space.
const LONGER_THAN_A_RETRY: Duration = Duration::from_millis(1500);

const ARGUMENTS: [&str; 4] = ["--snapshot-log-size", "4MiB", "--wal-segment-size", "1MiB"];

fn key_of(number: u32) -> Vec<u8> {
    format!("full:{number}").into_bytes()
}

/// A value that names its number all over.
fn value_of(number: u32) -> Vec<u8> {
    let bytes = if number.is_multiple_of(25) { LARGE_VALUE_BYTES } else { VALUE_BYTES };
    number.to_le_bytes().repeat(bytes / 4)
}

/// A connection of each protocol, and what was acknowledged on them.
struct Writers {
    native: Client,
    resp: RespClient,
    next: u32,
    /// Numbers of acknowledged writes.
    acknowledged: BTreeSet<u32>,
    refused: usize,
}

impl Writers {
    fn connect(subject: &Subject) -> Self {
        let native = subject.eyot().expect("Eyot").connect();
        Self { native, resp: subject.connect(), next: 0, acknowledged: BTreeSet::new(), refused: 0 }
    }

    /// Goes on with connections to another start of the server.
    fn connect_again(&mut self, subject: &Subject) {
        (self.native, self.resp) = (subject.eyot().expect("Eyot").connect(), subject.connect());
    }

    /// Writes under a new key, by one protocol or the other; whether it was stored.
    ///
    /// # Panics
    /// Where it is refused for anything but space.
    #[track_caller]
    fn write(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        let (key, value) = (key_of(number), value_of(number));
        let stored = if number.is_multiple_of(2) {
            match self.native.set(&key, &bytes_value(&value)) {
                Answer::Stored(_) => true,
                Answer::Error(ErrorCode::NoSpace, message) if message.contains("not applied") => false,
                unexpected => panic!("{unexpected:?}"),
            }
        } else {
            match self.resp.call(&[&b"SET"[..], &key, &value]) {
                stored if stored == Reply::status("OK") => true,
                Reply::Error(line) if line.starts_with("ERR ") && line.contains("not applied") => false,
                unexpected => panic!("{unexpected:?}"),
            }
        };
        if stored {
            self.acknowledged.insert(number);
        } else {
            self.refused += 1;
        }
        stored
    }

    /// Writes until every core refuses, and does so still after the server has looked for space again: a snapshot that
    /// did not fit has given its own back by then.
    fn write_until_full(&mut self, image: &Image) {
        let at_most = image.free_bytes() as usize / VALUE_BYTES * 4 + 10 * REFUSALS_IN_A_ROW;
        let mut in_a_row = 0;
        let mut of_last_look = usize::MAX;
        for _ in 0..at_most {
            in_a_row = if self.write() { 0 } else { in_a_row + 1 };
            if in_a_row >= REFUSALS_IN_A_ROW {
                if of_last_look == self.acknowledged.len() {
                    return;
                }
                of_last_look = self.acknowledged.len();
                in_a_row = 0;
                std::thread::sleep(LONGER_THAN_A_RETRY);
            }
        }
        panic!("{at_most} writes, and the disk is not full: {} bytes are free", image.free_bytes());
    }

    /// Waits until writes are taken again, on all cores.
    fn wait_for_space(&mut self) {
        let mut in_a_row = 0;
        wait_until("writes are taken again", || {
            while self.write() {
                in_a_row += 1;
                if in_a_row == REFUSALS_IN_A_ROW {
                    return true;
                }
            }
            in_a_row = 0;
            false
        });
    }

    /// Reads everything that was acknowledged. What was refused must not be there: it said that it was not applied.
    #[track_caller]
    fn check(&mut self) {
        for number in 0..self.next {
            let answer = self.native.get(&key_of(number));
            let expected = self.acknowledged.contains(&number).then(|| bytes_value(&value_of(number)));
            assert!(answer.value() == expected.as_deref(), "write {number} of {}: {:?}", self.next, answer.code());
        }
    }
}

#[track_caller]
fn assert_is_read_only(subject: &Subject, expected: bool) {
    let stats = subject.eyot().expect("Eyot").stats();
    assert_eq!(stats["storage"]["read_only"], expected, "{} refused", stats["metrics"]["errors"]);
    assert_eq!(subject.info("aof_last_write_status"), if expected { "err" } else { "ok" });
}

fn fills_up_and_is_extended(file_system: FileSystem) {
    if redis_is_the_subject() {
        return;
    }
    let Some(mut image) = Image::make_to_extend(file_system, EXTENSION_BYTES, 2) else { return };
    image.leave_free("ballast", ROOM_BYTES);
    let subject = Subject::start(&image.data(), &ARGUMENTS);
    let mut writers = Writers::connect(&subject);
    writers.write_until_full(&image);
    assert_is_read_only(&subject, true);
    writers.check();
    // Whether there is room for a snapshot or not: asking for one harms nothing.
    let saved = writers.resp.say("SAVE");
    writers.check();
    let (name, of_first, room) = (file_system.name(), writers.acknowledged.len(), image.free_bytes());
    eprintln!("{name}: full after {of_first} writes, {room} bytes free; SAVE then: {saved:?}");

    let extended = image.extend(EXTENSION_BYTES);
    writers.wait_for_space();
    assert_is_read_only(&subject, false);
    assert_eq!(writers.resp.say("SAVE"), Reply::status("OK"), "snapshots have space, too");
    (0..REFUSALS_IN_A_ROW).for_each(|_| assert!(writers.write(), "there is space"));
    let of_second = writers.acknowledged.len() - of_first;
    subject.kill();
    let subject = Subject::start(&image.data(), &ARGUMENTS);
    writers.connect_again(&subject);
    writers.check();

    // Full once more, killed so, and somebody else takes what it has given back: the next start says what is wrong, or
    // serves reads.
    writers.write_until_full(&image);
    subject.kill();
    image.leave_free("other", TOO_LITTLE_BYTES);
    let started = Server::launch(&mut support::command(&image.data(), &ARGUMENTS));
    let instead = match started {
        Ok(server) => {
            writers.native = server.connect();
            writers.check();
            server.kill();
            "is served"
        }
        Err(ended) => {
            ended.assert_code(StopReason::DiskFull.exit_code(), &["space", "remedy"]);
            "is refused by name"
        }
    };
    image.extend(EXTENSION_BYTES);
    let subject = Subject::start(&image.data(), &ARGUMENTS);
    writers.connect_again(&subject);
    writers.check();
    writers.wait_for_space();
    eprintln!(
        "{name}: {extended} while it ran: {of_second} more writes, then full again at {}; a start on the full disk \
         {instead}; {} were refused, each with its error; no acknowledged write is missing",
        writers.acknowledged.len(),
        writers.refused
    );
}

#[test]
fn ext4_that_fills_up_and_is_extended_takes_writes_again_without_a_restart() {
    fills_up_and_is_extended(FileSystem::Ext4);
}

#[test]
fn xfs_that_fills_up_and_is_extended_takes_writes_again_without_a_restart() {
    fills_up_and_is_extended(FileSystem::Xfs);
}
