//! Clients whose bytes are sound and whose behaviour is not: they never read, they ask for more than anybody can hold,
//! they are too many.
//!
//! Place in the flow: steps 1 (accept), 4 (route) and 9 (reply).
//!
//! Each bound is asserted on the process's own memory, with room for the allocator: a tenth of what the server would
//! take without the bound.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use eyot_protocol::key::{shard_of_slot, slot};
use eyot_protocol::request::{Operation, Request, RequestOptions, Set};
use eyot_protocol::ErrorCode;

use crate::support::{bytes_value, directory, number_value, several_cores, wait_until, Answer, Client, Server};

/// Long enough for a server to take what it will take of a client that waits for nothing.
const WHILE: Duration = Duration::from_millis(1500);
const MIB: u64 = 1 << 20;

/// A key that `core` owns.
fn key_of_core(client: &mut Client, core: u16) -> Vec<u8> {
    let hello = client.hello();
    let shards = hello.shard_cores.len() as u16;
    (0..100_000)
        .map(|number: u32| format!("big:{number}").into_bytes())
        .find(|key| hello.shard_cores[usize::from(shard_of_slot(slot(key), shards))] == core)
        .expect("every core owns some key")
}

/// Sends what fits into the sockets on the way and returns how many bytes that was: the rest is the client's own
/// problem.
fn push(client: &mut Client, bytes: &[u8]) -> usize {
    client.stream.set_write_timeout(Some(WHILE)).unwrap();
    let mut sent = 0;
    while sent < bytes.len() {
        match client.stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("the server hung up on a client that is only slow: {error}"),
        }
    }
    sent
}

/// Has a client that never reads ask 20,000 times for a value of 128 KiB on `core`, each pipeline opened by what
/// `first` appends, and holds the server's memory against 256 MiB: all the replies together would take 2.5 GiB.
fn never_read(server: &Server, core: usize, first: impl FnOnce(&mut Client, &mut Vec<u8>, &[u8])) {
    let mut other = server.connect_to_core(0);
    let key = key_of_core(&mut other, core as u16);
    other.must_set(&key, &bytes_value(&vec![7; 128 * 1024]));
    let before = server.rss_bytes();

    let mut greedy = server.connect_to_core(0);
    let mut frames = Vec::new();
    first(&mut greedy, &mut frames, &key);
    for _ in 0..20_000 {
        greedy.put(&mut frames, &Request::Get { key: &key }, &RequestOptions::default());
    }
    push(&mut greedy, &frames);
    for number in 0..20 {
        other.must_set(b"other", &number_value(number));
        assert_eq!(other.get(b"other").value(), Some(&number_value(number)[..]));
        sleep(WHILE / 20);
    }
    let grown = server.peak_rss_bytes().saturating_sub(before);
    assert!(grown < 256 * MIB, "the server's memory grew by {} MiB", grown / MIB);

    // The replies are still owed and still come, once somebody reads.
    for _ in 0..100 {
        assert!(!matches!(greedy.receive().1, Answer::Value(None)));
    }
}

#[test]
fn a_client_that_never_reads_is_bounded_for_keys_of_its_own_core() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    never_read(&server, 0, |_, _, _| {});
}

#[test]
fn a_client_that_never_reads_is_bounded_for_keys_of_another_core() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    never_read(&server, several_cores() - 1, |_, _, _| {});
}

#[test]
fn a_client_that_never_reads_is_bounded_for_reads_that_wait_for_its_own_write() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    never_read(&server, 0, |client, frames, key| {
        // Every read behind it waits for the disk, and they become due together.
        let value = bytes_value(&vec![8; 128 * 1024]);
        client.put(frames, &Request::Set(Set::new(key, &value)), &RequestOptions::default());
    });
}

#[test]
fn a_client_that_never_reads_is_bounded_for_batches_of_either_core() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    for core in 0..several_cores() {
        let mut other = server.connect_to_core(0);
        let key = key_of_core(&mut other, core as u16);
        other.must_set(&key, &bytes_value(&vec![7; 8 << 20]));
        let before = server.rss_bytes();
        let mut greedy = server.connect_to_core(0);
        let mut frames = Vec::new();
        // The write makes the reads behind it wait, and come due together.
        greedy.put(
            &mut frames,
            &Request::Set(Set::new(&key, &bytes_value(&vec![8; 8 << 20]))),
            &RequestOptions::default(),
        );
        for _ in 0..300 {
            greedy.put_batch(&mut frames, &[Request::Get { key: &key }]);
        }
        push(&mut greedy, &frames);
        for number in 0..20 {
            other.must_set(b"other", &number_value(number));
            sleep(WHILE / 20);
        }
        let grown = server.peak_rss_bytes().saturating_sub(before);
        assert!(grown < 512 * MIB, "core {core}: the server's memory grew by {} MiB", grown / MIB);
        drop(greedy);
    }
}

#[test]
fn large_unfinished_frames_of_some_do_not_fail_small_ones_of_others() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--cores", "1"]);
    // Each announces a frame of 60 MiB, and leaves out its end: together they use up what the core keeps of such.
    let mut hoarders: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for hoarder in &mut hoarders {
        let mut frame = (60_u32 << 20).to_le_bytes().to_vec();
        frame.extend_from_slice(&[1, 4, 0, 0, 1, 0, 0, 0]);
        frame.resize(55 << 20, 0);
        hoarder.stream.set_write_timeout(Some(WHILE)).unwrap();
        // The last of them is refused, and may notice it while it still sends.
        let _: std::io::Result<()> = hoarder.stream.write_all(&frame);
    }
    for number in 0..20 {
        let mut client = server.connect();
        let mut frame = Vec::new();
        let value = bytes_value(&vec![number; 8 * 1024]);
        client.put(&mut frame, &Request::Set(Set::new(b"cut in two", &value)), &RequestOptions::default());
        let (first, second) = frame.split_at(5000);
        client.send_raw(first);
        sleep(WHILE / 30);
        client.send_raw(second);
        let (_, answer) = client.receive();
        assert!(matches!(answer, Answer::Stored(_)), "{answer:?}");
    }
}

#[test]
fn batches_that_ask_for_more_than_a_reply_holds_are_bounded() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-value-size", "1MiB"]);
    let mut client = server.connect_to_core(0);
    let before = server.rss_bytes();
    for core in 0..several_cores() {
        let key = key_of_core(&mut client, core as u16);
        client.must_set(&key, &bytes_value(&vec![1; 512 * 1024]));
        // Five gibibytes, if anybody were to gather them.
        let requests = vec![Request::Get { key: &key }; 10_000];
        let results = client.batch(&requests);
        assert_eq!(results.len(), requests.len());
        assert!(results[0].value().is_some(), "the first results fit");
        let refused = results.iter().filter(|result| result.code() == Some(ErrorCode::BatchTooLarge)).count();
        let read = results.iter().filter(|result| result.value().is_some()).count();
        assert!(refused > 9000 && refused + read == requests.len(), "{read} read, {refused} refused");
    }
    let grown = server.peak_rss_bytes().saturating_sub(before);
    assert!(grown < 256 * MIB, "the server's memory grew by {} MiB", grown / MIB);
}

#[test]
fn a_flood_of_requests_for_statistics_is_bounded() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut other = server.connect();
    let before = server.rss_bytes();
    let mut client = server.connect();
    let mut frames = Vec::new();
    let count = 4000;
    for _ in 0..count {
        client.put(&mut frames, &Request::Stats, &RequestOptions::default());
    }
    push(&mut client, &frames);
    for number in 0..10 {
        other.must_set(b"other", &number_value(number));
    }
    for _ in 0..count {
        match client.receive().1 {
            Answer::Stats(_) | Answer::Error(ErrorCode::Busy, _) => {}
            unexpected => panic!("{unexpected:?}"),
        }
    }
    let grown = server.peak_rss_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "the server's memory grew by {} MiB", grown / MIB);
}

/// A connection is paused at 16,384 requests in flight and must go on by itself, however its replies come due.
#[test]
fn pipelines_deeper_than_a_connection_may_have_in_flight_are_answered_whole() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    for round in 0..4_usize {
        let mut client = server.connect();
        let count = 60_000;
        let mut frames = Vec::new();
        for number in 0..count {
            let key = format!("deep:{}", number % 5000);
            let value = number_value(number as i64);
            let request = if number % (round + 1) == 0 {
                Request::Set(Set::new(key.as_bytes(), &value))
            } else {
                Request::Get { key: key.as_bytes() }
            };
            client.put(&mut frames, &request, &RequestOptions::default());
        }
        let mut seen = vec![false; count + 1];
        client.pipeline(&frames, count, |id, answer| {
            assert!(!matches!(answer, Answer::Error(..)), "{answer:?}");
            assert!(!std::mem::replace(&mut seen[id as usize], true), "two replies to request {id}");
        });
    }
}

#[test]
fn beyond_the_connection_limit_a_client_is_told_so_and_the_others_are_served() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--max-connections", "8"]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.must_set(b"key", &number_value(1));
    }
    for _ in 0..20 {
        let mut refused = server.connect();
        assert_eq!(refused.receive().1.code(), Some(ErrorCode::TooManyConnections));
        refused.assert_closed();
    }
    for client in &mut clients {
        assert!(client.get(b"key").value().is_some());
    }
    assert_eq!(clients[0].stats()["network"]["refused_connections"], 20);
    clients.truncate(4);
    wait_until("the places of closed connections are free", || {
        clients[0].stats()["network"]["active_connections"] == 4
    });
    for _ in 0..4 {
        let mut client = server.connect();
        assert!(client.get(b"key").value().is_some());
        clients.push(client);
    }
    assert_eq!(server.connect().receive().1.code(), Some(ErrorCode::TooManyConnections));
}

#[test]
fn five_thousand_idle_connections_take_at_most_8_kib_each() {
    const COUNT: usize = 5000;
    let have = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    if have < COUNT as u64 + 100 {
        eprintln!("skipped: this process may open {have} files");
        return;
    }
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let mut active = server.connect();
    active.must_set(b"key", &number_value(1));
    let before = server.rss_bytes();
    let mut idle: Vec<Client> = (0..COUNT)
        .map(|_| {
            let mut client = server.connect();
            client.get(b"key");
            client
        })
        .collect();
    assert_eq!(active.stats()["network"]["active_connections"], COUNT as u64 + 1);
    let grown = server.rss_bytes().saturating_sub(before) / COUNT as u64;
    assert!(grown <= 8 * 1024, "{grown} bytes for an idle connection");
    assert!(active.get(b"key").value().is_some());
    assert!(idle[COUNT / 2].get(b"key").value().is_some());
    drop(idle);
    wait_until("closed connections are gone", || active.stats()["network"]["active_connections"] == 1);
}

#[test]
fn an_idle_server_sleeps() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let _idle: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.connect().must_set(b"key", &number_value(1));
    sleep(WHILE);
    let before = server.cpu_ticks();
    sleep(Duration::from_secs(4));
    let used = server.cpu_ticks() - before;
    // 1 % of one core would be 4 ticks of 10 ms; a core that spins or wakes by a timer would take hundreds.
    assert!(used <= 4, "{used} ticks of 10 ms in 4 seconds of idleness");
}

/// An unfinished request is a promise of memory that somebody has to keep: at a bound it is refused, and others live.
#[test]
fn unfinished_requests_are_bounded_over_all_connections() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--enable-mmap=false"]);
    let mut other = server.connect_to_core(0);
    let value = bytes_value(&vec![0; 60 << 20]);
    let mut frame = Vec::new();
    other.put(&mut frame, &Request::Set(Set::new(b"huge", &value)), &RequestOptions::default());
    let unfinished = &frame[..frame.len() - 1];
    let mut refused = 0;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect_to_core(0);
        // A write fails where the server has hung up already; its reason is still there to be read.
        if client.stream.write_all(unfinished).is_err() {
            refused += 1;
            match client.try_receive(&[Operation::Set]) {
                Ok(Some((_, answer))) => assert_eq!(answer.code(), Some(ErrorCode::Busy)),
                other => panic!("hung up without a reason: {other:?}"),
            }
        }
        clients.push(client);
    }
    assert!(refused > 0, "480 MiB of unfinished requests were all kept");
    assert!(server.peak_rss_bytes() < 900 * MIB, "{} MiB", server.peak_rss_bytes() / MIB);
    other.must_set(b"other", &number_value(1));
    drop(clients);
    wait_until("their places are given back", || other.stats()["network"]["active_connections"] == 1);
    // What they held is not counted any more: as much is taken again.
    for _ in 0..2 {
        other.must_set(b"huge", &value);
    }
}
