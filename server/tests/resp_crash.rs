//! Writes over RESP, then a kill at a random moment: what was acknowledged is there, each of it once.
//!
//! Place in the flow: steps 5 to 9 and recovery, from outside, for commands that read and write in one.
//!
//! Each writer has keys of its own and counts what it sent and what was acknowledged. A counter must stand between the
//! two, and so must the length of what was appended: a lost or a doubled increment shows, and the appended text says
//! which one. The check is itself checked: a server that acknowledges before the disk must lose something.
//!
//! `EYOT_CRASH_ROUNDS` sets the number of kills.

mod support;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::{Rng, RngCore, SeedableRng};

use support::resp::put_command;
use support::servers::redis_is_the_subject;
use support::{directory, several_cores, Dice, Reply, RespClient, Subject};

const WRITERS: usize = 4;
const KEYS: usize = 12;
const PIPELINE: usize = 24;
/// An expiry that no test lives to see, in milliseconds; what is added to it counts the writes.
const FAR_MS: u64 = 4_102_444_800_000;

/// What a writer does to a key, by the key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Incr,
    IncrFloat,
    Append,
    ExpireAt,
}

impl Kind {
    fn of(key: usize) -> Self {
        [Self::Incr, Self::IncrFloat, Self::Append, Self::ExpireAt][key % 4]
    }

    /// The write that is the `number`th to `name`.
    fn command(self, name: &str, number: u64) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Incr => &["INCR", name],
            Self::IncrFloat => &["INCRBYFLOAT", name, "0.5"],
            Self::Append => &["APPEND", name, &format!("{number:08}")],
            Self::ExpireAt => &["SET", name, "x", "PXAT", &(FAR_MS + number).to_string()],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// Whether `reply` says that `number` writes have taken effect.
    fn acknowledges(self, reply: &Reply, number: u64) -> bool {
        match self {
            Self::Incr => *reply == Reply::Integer(number as i64),
            Self::IncrFloat => reply.bytes().is_some_and(|text| text == half(number).as_bytes()),
            Self::Append => *reply == Reply::Integer(8 * number as i64),
            Self::ExpireAt => *reply == Reply::status("OK"),
        }
    }

    /// How many writes to `name` have taken effect.
    fn count(self, client: &mut RespClient, name: &str) -> u64 {
        let value = client.call(&["GET", name]);
        if value.is_null() {
            return 0;
        }
        match self {
            Self::Incr => value.text().parse().expect("a number"),
            Self::IncrFloat => (value.text().parse::<f64>().expect("a number") * 2.0) as u64,
            Self::Append => {
                let text = value.text();
                let numbers: Vec<u64> = text
                    .as_bytes()
                    .chunks(8)
                    .map(|eight| std::str::from_utf8(eight).unwrap().parse().unwrap())
                    .collect();
                let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
                assert_eq!(numbers, expected, "{name} holds each piece once, in order");
                numbers.len() as u64
            }
            Self::ExpireAt => {
                let expiry = client.call(&["PEXPIRETIME", name]).integer();
                u64::try_from(expiry).ok().and_then(|at| at.checked_sub(FAR_MS)).expect("an expiry of ours")
            }
        }
    }
}

/// `number` halves, as the server writes them.
fn half(number: u64) -> String {
    match number % 2 {
        0 => format!("{}", number / 2),
        _ => format!("{}.5", number / 2),
    }
}

/// What a writer knows of one of its keys.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    sent: u64,
    acknowledged: u64,
}

fn name_of(writer: usize, key: usize) -> String {
    format!("crash:{writer}:{key}")
}

/// Writes until the server is gone; then the last writes are unknown.
fn write_until_gone(mut client: RespClient, writer: usize, known: &mut [Known], seed: u64, stop: &AtomicBool) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..PIPELINE {
            let key = rng.gen_range(0..KEYS);
            known[key].sent += 1;
            put_command(&mut bytes, &Kind::of(key).command(&name_of(writer, key), known[key].sent));
            waiting.push((key, known[key].sent));
        }
        if client.stream.write_all(&bytes).is_err() {
            return;
        }
        for (key, number) in waiting {
            match client.try_receive() {
                Ok(Some(reply)) => {
                    assert!(Kind::of(key).acknowledges(&reply, number), "{}: {reply:?}", name_of(writer, key));
                    known[key].acknowledged = number;
                }
                _ => return,
            }
        }
    }
}

/// Starts on `directory`, writes, kills, starts again and counts. Returns how many keys lost something.
fn kill_under_load(directory: &Path, arguments: &[&str], known: &mut [Vec<Known>], dice: &mut Dice) -> usize {
    let subject = Subject::start(directory, arguments);
    let stop = AtomicBool::new(false);
    let after = Duration::from_millis(dice.rng.gen_range(20..400));
    std::thread::scope(|scope| {
        for (writer, known) in known.iter_mut().enumerate() {
            let (client, seed, stop) = (subject.connect(), dice.rng.next_u64(), &stop);
            scope.spawn(move || write_until_gone(client, writer, known, seed, stop));
        }
        std::thread::sleep(after);
        subject.kill();
        stop.store(true, Ordering::Relaxed);
    });
    let subject = Subject::start(directory, arguments);
    let mut client = subject.connect();
    let mut lost = 0;
    for (writer, known) in known.iter_mut().enumerate() {
        for (key, known) in known.iter_mut().enumerate() {
            let name = name_of(writer, key);
            let found = Kind::of(key).count(&mut client, &name);
            assert!(found <= known.sent, "{name} counts {found} writes, of {} that were sent", known.sent);
            lost += usize::from(found < known.acknowledged);
            // The next round goes on from what is there, acknowledged or not.
            *known = Known { sent: found, acknowledged: found };
        }
    }
    subject.kill();
    lost
}

fn rounds(default: usize) -> usize {
    std::env::var("EYOT_CRASH_ROUNDS").map_or(default, |text| text.parse().expect("EYOT_CRASH_ROUNDS is a number"))
}

#[test]
fn each_acknowledged_increment_and_append_is_there_once_after_a_kill() {
    if redis_is_the_subject() {
        return;
    }
    let (directory, mut dice) = (directory(), Dice::new());
    let mut known = vec![vec![Known::default(); KEYS]; WRITERS];
    let cores = several_cores().to_string();
    for round in 0..rounds(6) {
        // Every third round on another number of cores, so that logs of both kinds follow each other.
        let arguments = ["--cores", if round % 3 == 2 { "1" } else { &cores }, "--shards", "8"];
        let lost = kill_under_load(directory.path(), &arguments, &mut known, &mut dice);
        assert_eq!(lost, 0, "round {round}: {lost} keys hold less than what was acknowledged");
    }
    let kept: u64 = known.iter().flatten().map(|known| known.acknowledged).sum();
    assert!(kept > 0, "no load, no proof");
    eprintln!("{} kills, {kept} writes kept, each once", rounds(6));
}

#[test]
fn the_count_finds_what_an_early_acknowledgement_loses() {
    let mut dice = Dice::new();
    for _ in 0..4 {
        let directory = directory();
        let mut known = vec![vec![Known::default(); KEYS]; WRITERS];
        // Redis as these tests start it keeps nothing on disk: it serves as well.
        let arguments = ["--sync-writes=false", "--flush-interval", "10s"];
        if kill_under_load(directory.path(), &arguments, &mut known, &mut dice) > 0 {
            return;
        }
    }
    panic!("a server that acknowledges before the disk passed: the count proves nothing");
}

/// Where keys lie follows from a number that each start draws anew: who learns it, or tries keys until they fall on
/// each other, has nothing that the next start believes.
#[test]
fn each_start_walks_the_same_keys_in_another_order() {
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let walk = |subject: &Subject| -> Vec<String> {
        let reply = subject.connect().say("SCAN 0 COUNT 1000");
        let keys = reply.elements()[1].elements();
        keys.iter().map(|key| key.text().to_owned()).collect()
    };
    let first = Subject::start(directory.path(), &["--cores", "1"]);
    let mut client = first.connect();
    let keys: Vec<String> = (0..200).map(|number| format!("{{t}}{number}")).collect();
    keys.iter().for_each(|key| client.must(&format!("SET {key} value")));
    let mut order = walk(&first);
    first.kill();
    let second = Subject::start(directory.path(), &["--cores", "1"]);
    let mut other_order = walk(&second);
    assert_ne!(order, other_order);
    order.sort();
    other_order.sort();
    assert_eq!(order, other_order);
}

/// Commands of every kind that writes, and what a reader must find after them. `{t}` keeps keys in one slot.
const WRITES: [&str; 44] = [
    "SET gone:1 x",
    "SET gone:2 x",
    "FLUSHALL",
    "SET plain value",
    "SET nx:1 first NX",
    "SET nx:1 second NX",
    "SET xx:1 x XX",
    "SETNX nx:2 y",
    "SETEX fleeting 1000 z",
    "PSETEX fleeting:2 1000000 z",
    "SET kept a PXAT 4102444800000",
    "SET kept b KEEPTTL",
    "SET dropped a PXAT 4102444800000",
    "SET dropped b",
    "SET swapped old",
    "GETSET swapped new",
    "SET taken x",
    "GETDEL taken",
    "SET got x",
    "GETEX got PXAT 4102444800001",
    "MSET m:1 1 m:2 2 m:3 3",
    "DEL m:2",
    "MSETNX {t}1 1 {t}2 2",
    "MSETNX {t}2 3 {t}3 3",
    "APPEND line abc",
    "APPEND line def",
    "SETRANGE line 4 XY",
    "INCR number",
    "INCRBY number 10",
    "DECRBY number 3",
    "DECR number",
    "SET float 10.5",
    "INCRBYFLOAT float 0.25",
    "EXPIREAT plain 4102444802",
    "SET lasting x EX 1000",
    "PERSIST lasting",
    "RENAME {t}1 {t}renamed",
    "RENAMENX {t}renamed {t}2",
    "COPY {t}renamed {t}copy",
    "COPY swapped {swapped}2 REPLACE",
    "SET late x",
    "PEXPIREAT late 1",
    "UNLINK m:3 nothing",
    "TOUCH plain",
];

const READS: [(&str, &str); 31] = [
    ("GET gone:1", "$-1"),
    ("GET plain", "$\"value\""),
    ("PEXPIRETIME plain", ":4102444802000"),
    ("GET nx:1", "$\"first\""),
    ("GET xx:1", "$-1"),
    ("GET nx:2", "$\"y\""),
    ("GET fleeting", "$\"z\""),
    ("GET fleeting:2", "$\"z\""),
    ("GET kept", "$\"b\""),
    ("PEXPIRETIME kept", ":4102444800000"),
    ("GET dropped", "$\"b\""),
    ("PTTL dropped", ":-1"),
    ("GET swapped", "$\"new\""),
    ("GET taken", "$-1"),
    ("PEXPIRETIME got", ":4102444800001"),
    ("GET m:1", "$\"1\""),
    ("GET m:2", "$-1"),
    ("GET m:3", "$-1"),
    ("GET {t}1", "$-1"),
    ("GET {t}2", "$\"2\""),
    ("GET {t}3", "$-1"),
    ("GET {t}renamed", "$\"1\""),
    ("GET {t}copy", "$\"1\""),
    ("GET {swapped}2", "$\"new\""),
    ("GET line", "$\"abcdXY\""),
    ("GET number", "$\"7\""),
    ("GET float", "$\"10.75\""),
    ("TTL lasting", ":-1"),
    ("GET lasting", "$\"x\""),
    ("GET late", "$-1"),
    ("DBSIZE", ":18"),
];

#[track_caller]
fn assert_all_there(client: &mut RespClient, when: &str) {
    for (line, expected) in READS {
        assert_eq!(format!("{:?}", client.say(line)), expected, "{line}, {when}");
    }
    assert!((900..=1000).contains(&client.say("TTL fleeting").integer()), "an expiry outlives the server, {when}");
}

#[test]
fn every_kind_of_write_is_there_after_a_kill_and_after_an_orderly_end() {
    let directory = directory();
    let arguments = ["--cores", &several_cores().to_string(), "--shards", "8"];
    let subject = Subject::start(directory.path(), &arguments);
    let mut client = subject.connect();
    for line in WRITES {
        let reply = client.say(line);
        assert!(reply.error().is_none(), "{line}: {reply:?}");
    }
    assert_all_there(&mut client, "before the kill");
    if redis_is_the_subject() {
        return;
    }
    subject.kill();
    let subject = Subject::start(directory.path(), &arguments);
    assert_all_there(&mut subject.connect(), "after the kill");
    // An orderly end, asked for over RESP: nothing is said, the connection ends, and so does the process.
    let mut client = subject.connect();
    client.send(&["SHUTDOWN", "NOSAVE"]);
    client.assert_closed();
    let Subject::Eyot { server, .. } = subject else { panic!("Eyot was started") };
    assert_eq!(server.wait().status.code(), Some(0), "an orderly end");
    let subject = Subject::start(directory.path(), &arguments);
    assert_all_there(&mut subject.connect(), "after the shutdown");
    subject.connect().must("FLUSHALL");
    subject.kill();
    let subject = Subject::start(directory.path(), &arguments);
    assert_eq!(subject.connect().say("DBSIZE"), Reply::Integer(0), "what was flushed stays so");
}
