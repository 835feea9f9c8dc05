//! Large values end to end: both wires, own and foreign cores, crashes, memory, disk, pages that left memory.
//!
//! Place in the flow: the whole of it, with values that lie in the value file.
//!
//! Deliberately not here: how fast they move. `ring/examples/large.rs` and `scripts/bench.sh large` measure that.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use eyot_protocol::ErrorCode;
use support::{bytes_value, directory, wait_until, Answer, Reply, RespClient, Server};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// As long as a value may be by default, encoded: five bytes are its head.
const LONGEST: usize = 64 * MIB - 5;

/// Bytes that are different at every place and for every `seed`.
fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut pattern = Vec::with_capacity(bytes + 8);
    while pattern.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern.extend_from_slice(&state.to_le_bytes());
    }
    pattern.truncate(bytes);
    pattern
}

/// Where the server listens for Redis clients, by what it said.
fn resp_address(server: &Server) -> SocketAddr {
    let mut address = None;
    wait_until("it says where it listens", || {
        let said = server.said();
        let rest = said.split_once("RESP listening on ").map(|(_, rest)| rest.to_owned());
        address = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        address.is_some()
    });
    address.expect("just seen")
}

fn resp(server: &Server) -> RespClient {
    RespClient::connect(resp_address(server))
}

#[track_caller]
fn assert_holds(client: &mut RespClient, key: &str, value: &[u8]) {
    let reply = client.call(&[&b"GET"[..], key.as_bytes()]);
    assert!(reply.bytes() == Some(value), "{key} holds {reply:?} instead of {} bytes", value.len());
}

/// The server's value files: no name leads to them but these.
fn value_files(server: &Server) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.id())).expect("the process runs");
    let files = descriptors
        .map(|file| file.expect("a descriptor").path())
        .filter(|path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().ends_with(".values (deleted)")));
    files.collect()
}

/// Disk space that the server's value files take.
fn value_bytes_on_disk(server: &Server) -> u64 {
    value_files(server).iter().map(|file| fs::metadata(file).expect("an open file").blocks() * 512).sum()
}

fn status_kib(server: &Server, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim().trim_end_matches(" kB").parse().expect("kibibytes")
}

#[test]
fn values_of_every_size_come_back_on_both_wires_from_every_core() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let (mut resp, mut native) = (resp(&server), server.connect());
    for (number, bytes) in
        [64 * KIB - 1, 64 * KIB, 100_000, MIB - 5, MIB, MIB + 1, 5 * MIB + 77].into_iter().enumerate()
    {
        // Eight keys are on both cores of two.
        for key in 0..8_u64 {
            let (name, value) = (format!("key-{key}"), pattern(bytes, key + number as u64));
            if key % 2 == 0 {
                assert_eq!(resp.call(&[b"SET", name.as_bytes(), &value]), Reply::status("OK"));
            } else {
                native.must_set(name.as_bytes(), &bytes_value(&value));
            }
        }
        for key in 0..8_u64 {
            let (name, value) = (format!("key-{key}"), pattern(bytes, key + number as u64));
            assert_holds(&mut resp, &name, &value);
            let Answer::Value(Some((found, _))) = native.get(name.as_bytes()) else { panic!("{name} is not there") };
            assert!(found == bytes_value(&value), "{name} of {bytes} bytes over the native wire");
            assert_eq!(resp.say(&format!("STRLEN {name}")), Reply::Integer(bytes as i64));
            let part = resp.say(&format!("GETRANGE {name} {} {}", bytes / 2, bytes / 2 + 9));
            assert!(part.bytes() == Some(&value[bytes / 2..bytes / 2 + 10]), "a part of {name}: {part:?}");
            let part = resp.say(&format!("GETRANGE {name} 1 -2"));
            assert!(part.bytes() == Some(&value[1..bytes - 1]), "most of {name}: {part:?}");
        }
    }
    assert_eq!(resp.say("TYPE key-0"), Reply::status("string"));
    assert_eq!(resp.say("OBJECT ENCODING key-0").bytes(), Some(&b"raw"[..]));
}

#[test]
fn the_longest_value_survives_a_crash_and_what_was_not_finished_does_not() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--wal-segment-size", "64MiB"]);
    let mut client = resp(&server);
    let (long, other) = (pattern(LONGEST, 1), pattern(3 * MIB, 2));
    client.must("SET {r}old x");
    assert_eq!(client.call(&[b"SET", &b"long"[..], &long]), Reply::status("OK"));
    for key in ["{r}old", "old-2", "gone"] {
        assert_eq!(client.call(&[b"SET", key.as_bytes(), &other]), Reply::status("OK"));
    }
    assert_eq!(client.say("DEL gone"), Reply::Integer(1));
    client.must("SET old-2 small");
    assert_eq!(client.say("RENAME {r}old {r}new"), Reply::status("OK"));
    assert_eq!(client.say("COPY {r}new {r}copied"), Reply::Integer(1));
    // Half of a value, in a connection that stays open.
    let mut half = resp(&server);
    half.send_raw(format!("*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n${}\r\n", 8 * MIB).as_bytes());
    half.send_raw(&other);
    assert_holds(&mut client, "long", &long);
    server.kill();

    let server = Server::start(directory.path(), &["--wal-segment-size", "64MiB"]);
    let mut client = resp(&server);
    assert_holds(&mut client, "long", &long);
    assert_holds(&mut client, "{r}new", &other);
    assert_holds(&mut client, "{r}copied", &other);
    assert_holds(&mut client, "old-2", b"small");
    for key in ["gone", "half", "{r}old"] {
        assert!(client.say(&format!("GET {key}")).is_null(), "{key} is not there");
    }
    assert!(server.terminate().status.success());
    // Without the files the same log gives the same values.
    let server = Server::start(directory.path(), &["--wal-segment-size", "64MiB", "--enable-mmap=false"]);
    assert_holds(&mut resp(&server), "{r}new", &other);
    assert!(value_files(&server).is_empty());
}

#[test]
fn a_pipeline_around_large_values_is_answered_in_order() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = resp(&server);
    let values: Vec<Vec<u8>> = (0..6).map(|seed| pattern(200_000 + seed as usize, seed)).collect();
    let mut pipeline = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let name = format!("p-{number}");
        support::resp::put_command(&mut pipeline, &[b"SET", name.as_bytes(), value]);
        support::resp::put_command(&mut pipeline, &[b"STRLEN", name.as_bytes()]);
        support::resp::put_command(&mut pipeline, &[b"GET", name.as_bytes()]);
        support::resp::put_command(&mut pipeline, &[b"SET", name.as_bytes(), b"small"]);
        support::resp::put_command(&mut pipeline, &[b"GET", name.as_bytes()]);
    }
    // From another thread, since the server stops reading while it is owed much.
    let replies = client.pipeline(&pipeline, 5 * values.len());
    for (replies, value) in replies.chunks(5).zip(&values) {
        assert_eq!((&replies[0], &replies[1]), (&Reply::status("OK"), &Reply::Integer(value.len() as i64)));
        assert!(replies[2].bytes() == Some(&value[..]));
        assert_eq!((&replies[3], replies[4].bytes()), (&Reply::status("OK"), Some(&b"small"[..])));
    }
}

#[test]
fn the_options_of_a_set_hold_for_large_values_too() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = resp(&server);
    let (first, second) = (pattern(300_000, 1), pattern(400_000, 2));
    assert_eq!(client.call(&[b"SETNX", &b"k"[..], &first]), Reply::Integer(1));
    assert_eq!(client.call(&[b"SETNX", &b"k"[..], &second]), Reply::Integer(0));
    assert_holds(&mut client, "k", &first);
    assert!(client.call(&[b"GETSET", &b"k"[..], &second]).bytes() == Some(&first[..]));
    assert_eq!(client.call(&[b"SETEX", &b"k"[..], b"1000", &first]), Reply::status("OK"));
    assert_eq!(client.say("TTL k"), Reply::Integer(1000));
    assert_eq!(client.call(&[b"SET", &b"k"[..], &second, b"KEEPTTL"]), Reply::status("OK"));
    assert_eq!(client.say("TTL k"), Reply::Integer(1000));
    assert_eq!(client.call(&[b"APPEND", &b"k"[..], b"!"]), Reply::Integer(400_001));
    assert!(client.say("GETDEL k").bytes() == Some(&[&second[..], b"!"].concat()[..]));
    assert_eq!(client.say("EXISTS k"), Reply::Integer(0));
    let mut native = server.connect();
    let version = native.must_set(b"n", &bytes_value(&first));
    let request = |condition| {
        let value = bytes_value(&second);
        (value, condition)
    };
    for (condition, stored) in [
        (eyot_protocol::command::Condition::IfAbsent, false),
        (eyot_protocol::command::Condition::IfVersion(version), true),
        (eyot_protocol::command::Condition::IfVersion(version), false),
    ] {
        let (value, condition) = request(condition);
        let set = eyot_protocol::request::Set { condition, ..eyot_protocol::request::Set::new(b"n", &value) };
        let answer = native.call(&eyot_protocol::Request::Set(set));
        assert_eq!(matches!(answer, Answer::Stored(_)), stored, "{condition:?}: {answer:?}");
    }
}

#[test]
fn a_value_that_is_refused_is_read_past_and_a_false_end_ends_the_connection() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-memory", "40MB", "--cores", "1"]);
    let mut client = resp(&server);
    let value = pattern(48 * MIB, 1);
    let reply = client.call(&[b"SET", &b"k"[..], &value]);
    assert!(reply.error().is_some_and(|line| line.starts_with("OOM ")), "{reply:?}");
    assert_eq!(client.say("PING"), Reply::status("PONG"));
    let mut native = server.connect();
    let answer = native.set(b"k", &bytes_value(&value));
    assert!(matches!(&answer, Answer::Error(ErrorCode::OutOfMemory, _)), "{answer:?}");
    assert_eq!(native.get(b"k"), Answer::Value(None));
    client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n");
    client.send_raw(&value[..100_000]);
    client.send_raw(b"xx");
    let reply = client.receive();
    assert!(reply.error().is_some_and(|line| line.contains("Protocol error")), "{reply:?}");
    client.assert_closed();
    assert!(resp(&server).say("GET k").is_null());
}

/// The beginning of a SET of a value of `bytes`, of which nothing follows.
fn announcement(key: &str, bytes: usize) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len()).into_bytes()
}

#[test]
fn what_is_announced_takes_no_room_and_evicts_nobody() {
    for policy in ["noeviction", "allkeys-lru"] {
        let directory = directory();
        let arguments = ["--cores", "1", "--max-memory", "256MB", "--eviction-policy", policy];
        let server = Server::start(directory.path(), &arguments);
        let mut witness = resp(&server);
        for key in 0..500 {
            witness.must(&format!("SET small-{key} {}", "v".repeat(5_000)));
        }
        // Twice the limit, in a few hundred bytes.
        let mut announcers: Vec<RespClient> = (0..8).map(|_| resp(&server)).collect();
        for (number, client) in announcers.iter_mut().enumerate() {
            client.send_raw(&announcement(&format!("large-{number}"), LONGEST));
            client.send_raw(b"a few bytes");
        }
        for key in 500..1000 {
            witness.must(&format!("SET small-{key} {}", "v".repeat(5_000)));
        }
        assert_eq!(witness.say("DBSIZE"), Reply::Integer(1000), "{policy}");
        drop(announcers);
    }
}

#[test]
fn a_value_that_finds_no_room_on_its_way_is_refused_and_read_past() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--cores", "1", "--max-memory", "192MB"]);
    let mut clients: Vec<RespClient> = (0..4).map(|_| resp(&server)).collect();
    // Each finds room for itself.
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_raw(&announcement(&format!("large-{number}"), LONGEST));
    }
    wait_until("all of them are taken", || value_bytes_on_disk(&server) > 0);
    let value = pattern(LONGEST, 7);
    let mut stored = 0;
    for client in &mut clients {
        client.send_raw(&value);
        client.send_raw(b"\r\nECHO behind\r\n");
        match client.receive() {
            Reply::Error(message) => assert!(message.starts_with("OOM"), "{message}"),
            reply => {
                assert_eq!(reply, Reply::status("OK"));
                stored += 1;
            }
        }
        assert_eq!(client.receive(), Reply::bulk("behind"));
    }
    assert!((1..=2).contains(&stored), "{stored} values of 64 MiB in 192 MB");
    assert_holds(&mut clients[3], "large-0", &value);
}

#[test]
fn what_is_too_long_for_an_entry_of_the_log_is_refused_and_the_node_lives() {
    // The longest that may be configured. Its bytes fit, and what stands before them in an entry does not.
    const LONGEST_OF_ALL: usize = 512 * MIB;
    let directory = directory();
    let cores = support::several_cores().to_string();
    let arguments = ["--max-value-size", "512MiB", "--cores", &cores, "--max-memory", "8GiB"];
    let server = Server::start(directory.path(), &arguments);
    let mut client = resp(&server);
    let value = vec![b'v'; LONGEST_OF_ALL];
    // Keys of every core; each way in which a value comes to the log.
    for key in ["k-0", "k-1"] {
        let half = &value[..300 * MIB];
        let (first, second) = (format!("{{{key}}}1"), format!("{{{key}}}2"));
        for request in [
            &[b"SET", key.as_bytes(), &value][..],
            &[b"MSET", key.as_bytes(), &value],
            &[b"MSETNX", first.as_bytes(), half, second.as_bytes(), half],
        ] {
            let reply = client.call(request);
            let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
            assert_eq!(reply, Reply::Error(too_long.to_owned()), "{}", String::from_utf8_lossy(request[0]));
        }
    }
    assert_eq!(client.say("DBSIZE"), Reply::Integer(0));
    client.must("SET k-0 short");
    server.kill();
    let server = Server::start(directory.path(), &arguments);
    assert_holds(&mut resp(&server), "k-0", b"short");
}

#[test]
fn memory_beyond_the_mapped_file_does_not_grow_with_the_values() {
    let directory = directory();
    // A snapshot, which has some 5 MiB of buffers while it is made, would begin after the first value.
    let arguments = ["--cores", "1", "--wal-segment-size", "64MiB", "--snapshot-log-size", "0"];
    let server = Server::start(directory.path(), &arguments);
    let mut client = resp(&server);
    client.must("SET warm up");
    let before_kib = status_kib(&server, "RssAnon:");
    let value = pattern(LONGEST, 3);
    for round in 0..3 {
        assert_eq!(client.call(&[b"SET", &b"k"[..], &value]), Reply::status("OK"));
        let set_kib = status_kib(&server, "RssAnon:");
        assert_holds(&mut client, "k", &value);
        let grown_kib = set_kib.max(status_kib(&server, "RssAnon:")) - before_kib;
        assert!(grown_kib < 10 * 1024, "round {round}: {grown_kib} KiB more than before");
    }
    assert!(status_kib(&server, "RssFile:") > 64 * 1024, "the value is in memory, in the file");
}

#[test]
fn deleted_and_overwritten_values_give_their_disk_space_back() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut client = resp(&server);
    for key in 0..6_u64 {
        let name = format!("k-{key}");
        assert_eq!(client.call(&[b"SET", name.as_bytes(), &pattern(4 * MIB, key)]), Reply::status("OK"));
    }
    assert!(value_bytes_on_disk(&server) >= 24 * MIB as u64);
    for key in 0..3 {
        client.must(&format!("SET k-{key} small"));
        assert_eq!(client.say(&format!("DEL k-{}", key + 3)), Reply::Integer(1));
    }
    // A client that vanishes in the middle of its value leaves nothing, either.
    let mut half = resp(&server);
    half.send_raw(format!("*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n${}\r\n", 8 * MIB).as_bytes());
    half.send_raw(&pattern(3 * MIB, 9));
    drop(half);
    wait_until("the space comes back", || value_bytes_on_disk(&server) < MIB as u64);
    client.must("FLUSHALL");
    assert!(server.terminate().status.success());
}

/// Writes the value files' pages to disk and has them leave memory. `false`: the system does not let us.
fn evict_values(server: &Server) -> bool {
    for file in value_files(server) {
        fs::File::open(file).and_then(|file| file.sync_all()).expect("an open file");
    }
    // The kernel does it for a process that asks on behalf of another (process_madvise, MADV_PAGEOUT); the call has no
    // safe wrapper in Rust.
    let script = r#"
import ctypes, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_size_t), ("length", ctypes.c_size_t)]
descriptor = libc.syscall(434, pid, 0)
for line in open(f"/proc/{pid}/maps"):
    if ".values" in line:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        # Far more is mapped than is used.
        for at in range(start, min(end, start + (1 << 30)), 1 << 24):
            part = Range(at, 1 << 24)
            if libc.syscall(440, descriptor, ctypes.byref(part), 1, 21, 0) < 0:
                sys.exit(f"process_madvise: {ctypes.get_errno()}")
"#;
    let evicted = Command::new("python3").args(["-c", script, &server.id().to_string()]).status();
    evicted.is_ok_and(|status| status.success())
}

/// Waits for the disk that the server's core threads have had for want of a page: major faults.
fn waits_of_cores(server: &Server) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).expect("the process runs");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let cores = stats.filter_map(|stat| {
        let (head, fields) = stat.rsplit_once(')')?;
        let faults = fields.split_whitespace().nth(9)?.parse::<u64>().ok()?;
        head.contains("(core-").then_some(faults)
    });
    cores.sum()
}

#[test]
fn what_a_set_displaces_goes_out_by_reference_and_a_type_is_told_without_a_page() {
    const COUNT: usize = 8;
    let directory = directory();
    let server = Server::start(directory.path(), &["--cores", "1", "--wal-segment-size", "64MiB"]);
    let mut client = resp(&server);
    let values: Vec<Vec<u8>> = (0..COUNT as u64).map(|seed| pattern(4 * MIB, seed)).collect();
    for (key, value) in values.iter().enumerate() {
        assert_eq!(client.call(&[b"SET", format!("k-{key}").as_bytes(), value]), Reply::status("OK"));
    }
    let resident_kib = status_kib(&server, "RssFile:");
    if !evict_values(&server) || status_kib(&server, "RssFile:") + 16 * 1024 > resident_kib {
        eprintln!("skipped: the pages of another process cannot be evicted here");
        return;
    }
    let waits = waits_of_cores(&server);
    let scanned = client.say("SCAN 0 COUNT 1000 TYPE string").elements()[1].elements();
    assert_eq!(scanned.len(), COUNT);
    assert_eq!(waits_of_cores(&server) - waits, 0, "a core has waited for pages to tell a type");
    for (key, value) in values.iter().enumerate() {
        let command =
            ["GETSET k-{} new", "SET k-{} new GET", "SET k-{} new NX GET", "SET k-{} new KEEPTTL GET"][key % 4];
        let reply = client.say(&command.replace("{}", &key.to_string()));
        assert!(reply.bytes() == Some(&value[..]), "{command}: {reply:?}");
        let kept = if key % 4 == 2 { 4 * MIB as i64 } else { 3 };
        assert_eq!(client.say(&format!("STRLEN k-{key}")), Reply::Integer(kept));
    }
    let waited = waits_of_cores(&server) - waits;
    assert!(waited <= 4, "a core has waited for {waited} of 8,000 pages");
}

#[test]
fn a_page_that_left_memory_is_waited_for_by_a_worker_and_never_by_a_core() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--wal-segment-size", "64MiB"]);
    let mut client = resp(&server);
    let values: Vec<Vec<u8>> = (0..4).map(|seed| pattern(16 * MIB, seed)).collect();
    for (key, value) in values.iter().enumerate() {
        assert_eq!(client.call(&[b"SET", format!("k-{key}").as_bytes(), value]), Reply::status("OK"));
    }
    let resident_kib = status_kib(&server, "RssFile:");
    if !evict_values(&server) || status_kib(&server, "RssFile:") + 32 * 1024 > resident_kib {
        eprintln!("skipped: the pages of another process cannot be evicted here");
        return;
    }
    let waits = waits_of_cores(&server);
    let mut other = resp(&server);
    let mut native = server.connect();
    client.send(&[b"GET", &b"k-0"[..]]);
    // Others are served meanwhile.
    for _ in 0..20 {
        assert_eq!(other.say("PING"), Reply::status("PONG"));
    }
    assert!(client.receive().bytes() == Some(&values[0][..]));
    for (key, value) in values.iter().enumerate().skip(1) {
        assert_eq!(other.say(&format!("STRLEN k-{key}")), Reply::Integer(value.len() as i64));
        let part = other.say(&format!("GETRANGE k-{key} 9000000 9000009"));
        assert!(part.bytes() == Some(&value[9_000_000..9_000_010]), "{part:?}");
        let Answer::Value(Some((found, _))) = native.get(format!("k-{key}").as_bytes()) else { panic!("not there") };
        assert!(found == bytes_value(value));
    }
    // Of some 12,000 pages. The kernel counts as a wait, too, that a page which is there has others read ahead.
    let waited = waits_of_cores(&server) - waits;
    assert_eq!(waited, 0, "a core has waited for pages");
}
