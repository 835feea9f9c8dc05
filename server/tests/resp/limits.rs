//! Where a connection ends, or a request is refused: by the words that Redis has for it, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::servers::redis_is_the_subject;
use crate::support::{directory, wait_until, Redis, Reply, RespClient, Subject};

/// What no client should send, each with the start of a stream that is none.
const BROKEN: [&[u8]; 17] = [
    b"*1\r\nPING\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$999999999999\r\n",
    b"*1\r\n$536870913\r\n",
    b"*2147483648\r\n",
    b"*999999999999999999999\r\n",
    b"*x\r\n",
    b"*-x\r\n",
    b"*\r\n",
    b"*1\r\n$\r\n",
    b"*2\r\n$4\r\nECHO\r\n*1\r\n",
    b"GET \"a\r\n",
    b"GET 'a\r\n",
    b"SET a \"b\"c\r\n",
    b"*1\r\n$18446744073709551616\r\n",
];

/// What both servers say to `bytes` until they close; the rest of the stream may not be looked at.
fn last_words(client: &mut RespClient, bytes: &[u8]) -> Vec<u8> {
    // A server may close before it has read everything.
    let _: std::io::Result<()> = client.stream.write_all(bytes);
    client.rest()
}

#[test]
fn errors_of_the_protocol_end_the_connection_with_the_words_of_redis() {
    let directory = directory();
    let (redis, subject) = (Redis::start(&[]), Subject::start(directory.path(), &[]));
    let mut witness = subject.connect();
    for broken in BROKEN {
        // A good request before it is answered, one behind it is not.
        let bytes = [b"*1\r\n$4\r\nPING\r\n", broken].concat();
        let expected = last_words(&mut RespClient::connect(redis.address), &bytes);
        let said = last_words(&mut subject.connect(), &bytes);
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert!(expected.starts_with(b"+PONG\r\n-ERR Protocol error"), "no error to Redis: {}", shown(broken));
        assert_eq!(shown(&said), shown(&expected), "{}", shown(broken));
        assert_eq!(witness.say("PING"), Reply::status("PONG"), "another connection, after {}", shown(broken));
    }
    // A line without an end, longer than any command.
    for endless in [vec![b'a'; 70_000], [b"*1\r\n".to_vec(), vec![b'1'; 70_000]].concat(), vec![b'*'; 70_000]] {
        let expected = last_words(&mut RespClient::connect(redis.address), &endless);
        let said = last_words(&mut subject.connect(), &endless);
        // Redis may reset before its words are read, and says which end of the line it misses; that it ends is what
        // counts.
        let names_it = |bytes: &[u8]| bytes.starts_with(b"-ERR Protocol error: ");
        assert!(expected.is_empty() || names_it(&expected), "{}", expected.escape_ascii());
        assert!(said.is_empty() || names_it(&said), "{}", said.escape_ascii());
    }
    assert_eq!(witness.say("PING"), Reply::status("PONG"));
}

#[test]
fn empty_lines_and_empty_arrays_are_no_requests() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &[]);
    let mut client = subject.connect();
    client.send_raw(b"\r\n\r\n*0\r\n*-1\r\n\n   \r\nPING\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!((client.receive(), client.receive()), (Reply::status("PONG"), Reply::status("PONG")));
    client.close_half();
    client.assert_closed();
}

#[test]
fn an_unfinished_request_takes_no_memory_for_what_it_promises() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let before = subject.rss_bytes();
    let mut waiting: Vec<RespClient> = (0..100)
        .map(|_| {
            let mut client = subject.connect();
            // Each promises what is allowed, and sends next to nothing of it.
            client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$33554432\r\nabc");
            client
        })
        .collect();
    let mut witness = subject.connect();
    for _ in 0..50 {
        assert_eq!(witness.say("PING"), Reply::status("PONG"));
    }
    let grown = subject.rss_bytes().saturating_sub(before);
    assert!(redis_is_the_subject() || grown < 64 << 20, "{grown} bytes for 100 promises");
    assert_eq!(witness.say("GET a"), Reply::NullBulk);
    // One of them keeps its promise.
    let mut rest = vec![b'x'; 33_554_432 - 3];
    rest.extend_from_slice(b"\r\n");
    waiting[7].send_raw(&rest);
    assert_eq!(waiting[7].receive(), Reply::status("OK"));
    drop(waiting);
    assert_eq!(witness.say("STRLEN a"), Reply::Integer(33_554_432));
}

#[test]
fn a_connection_whose_bytes_cannot_be_kept_is_told_so_behind_what_it_asked_before() {
    const ASKED: usize = 300;
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    // All but 100 KiB of what a core keeps of unfinished requests is taken: 256 MiB, beside 64 KiB of each.
    let mut unfinished = b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$67108864\r\n".to_vec();
    unfinished.resize(unfinished.len() + (64 << 20), b'x');
    unfinished.extend_from_slice(b"\r\n$1\r\nb\r\n$67108864\r\n");
    unfinished.resize((64 << 20) + (39 << 10), b'y');
    let holders: Vec<RespClient> = (0..4)
        .map(|_| {
            let mut client = subject.connect();
            client.send_raw(&unfinished);
            client
        })
        .collect();
    let mut witness = subject.connect();
    let kept = format!(" qbuf={} ", unfinished.len());
    wait_until("all of it has come", || witness.say("CLIENT LIST").text().matches(&kept).count() == holders.len());
    for _ in 0..5 {
        let mut client = subject.connect();
        let mut bytes: Vec<u8> = (0..ASKED).flat_map(|_| b"SET k v\r\n".to_vec()).collect();
        bytes.extend_from_slice(&unfinished[..300 << 10]);
        let _: std::io::Result<()> = client.stream.write_all(&bytes);
        let said = client.rest();
        let (sets, last) = said.split_at(said.len().min(ASKED * b"+OK\r\n".len()));
        assert!(sets == b"+OK\r\n".repeat(ASKED), "{}", said.escape_ascii());
        assert!(last.starts_with(b"-BUSY ") && last.ends_with(b"\r\n"), "{}", last.escape_ascii());
    }
    drop(holders);
}

#[test]
fn one_connection_too_many_is_told_so() {
    const ALLOWED: usize = 5;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1", "--max-connections", &ALLOWED.to_string()]);
    if redis_is_the_subject() {
        subject.connect().must(&format!("CONFIG SET maxclients {ALLOWED}"));
    }
    let mut inside: Vec<RespClient> = Vec::new();
    for _ in 0..ALLOWED {
        let mut client = subject.connect();
        assert_eq!(client.say("PING"), Reply::status("PONG"));
        inside.push(client);
    }
    let mut outside = subject.connect();
    assert_eq!(outside.receive(), Reply::Error("ERR max number of clients reached".to_owned()));
    outside.assert_closed();
    for client in &mut inside {
        assert_eq!(client.say("PING"), Reply::status("PONG"));
    }
    // Room again, once one has left.
    inside.pop();
    wait_until("there is room again", || {
        let mut client = subject.connect();
        let _: std::io::Result<()> = client.stream.write_all(b"PING\r\n");
        matches!(client.try_receive(), Ok(Some(Reply::Status(_))))
    });
}

#[test]
fn client_kill_ends_the_connection_that_it_names_and_no_other() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &[]);
    let mut clients: Vec<RespClient> = (0..8).map(|_| subject.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.must(&format!("CLIENT SETNAME number-{number}"));
    }
    let ids: Vec<i64> = clients.iter_mut().map(|client| client.say("CLIENT ID").integer()).collect();
    let mut killer = clients.remove(0);
    assert_eq!(killer.say(&format!("CLIENT KILL ID {}", ids[3])), Reply::Integer(1));
    clients[2].assert_closed();
    assert_eq!(killer.say(&format!("CLIENT KILL ID {}", ids[3])), Reply::Integer(0));
    let address = clients[4].stream.local_addr().expect("a connected socket");
    assert_eq!(killer.say(&format!("CLIENT KILL ADDR {address}")), Reply::Integer(1));
    clients[4].assert_closed();
    let address = clients[5].stream.local_addr().expect("a connected socket");
    killer.must(&format!("CLIENT KILL {address}"));
    clients[5].assert_closed();
    assert_eq!(killer.say(&format!("CLIENT KILL {address}")), Reply::Error("ERR No such client".to_owned()));
    let list = killer.say("CLIENT LIST");
    let mut names: Vec<&str> =
        list.text().lines().filter_map(|line| line.split(' ').find_map(|field| field.strip_prefix("name="))).collect();
    names.sort_unstable();
    assert_eq!(names, ["number-0", "number-1", "number-2", "number-4", "number-7"]);
    for at in [0, 1, 3, 6] {
        assert_eq!(clients[at].say("PING"), Reply::status("PONG"));
    }
}

#[test]
fn quit_is_answered_and_then_the_connection_ends() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &[]);
    let mut client = subject.connect();
    client.send_raw(b"SET q 1\r\nQUIT\r\nSET q 2\r\n");
    assert_eq!((client.receive(), client.receive()), (Reply::status("OK"), Reply::status("OK")));
    client.assert_closed();
    assert_eq!(subject.connect().say("GET q"), Reply::bulk("1"));
}

#[test]
fn a_client_that_says_nothing_for_longer_than_the_timeout_is_closed() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &[]);
    let (mut busy, mut idle) = (subject.connect(), subject.connect());
    assert_eq!(idle.say("PING"), Reply::status("PONG"));
    busy.must("CONFIG SET timeout 1");
    wait_until("the idle connection ends", || {
        assert_eq!(busy.say("PING"), Reply::status("PONG"), "who speaks is not idle");
        idle.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("an option of every socket");
        matches!(idle.try_receive(), Ok(None))
    });
    busy.must("CONFIG SET timeout 0");
}

#[test]
fn a_first_request_that_does_not_get_complete_ends_its_client_and_silence_over_resp_does_not() {
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--handshake-timeout", "1s"]);
    let mut established: Vec<RespClient> = (0..20).map(|_| subject.connect()).collect();
    established.iter_mut().for_each(|client| assert_eq!(client.say("PING"), Reply::status("PONG")));
    // What pools of clients open for later.
    let mut silent: Vec<RespClient> = (0..20).map(|_| subject.connect()).collect();
    let mut begun: Vec<RespClient> = (0..20).map(|_| subject.connect()).collect();
    begun.iter_mut().for_each(|client| client.send_raw(b"*1\r\n$4\r\nPI"));
    let mut native = TcpStream::connect(subject.eyot().expect("it is Eyot").address).expect("the server accepts");
    for client in &mut begun {
        assert!(client.rest().starts_with(b"-ERR"), "it is told why");
    }
    assert_eq!(native.read(&mut [0]).expect("it is closed, not reset"), 0);
    silent.iter_mut().for_each(|client| assert_eq!(client.say("PING"), Reply::status("PONG")));
    established.iter_mut().for_each(|client| assert_eq!(client.say("PING"), Reply::status("PONG")));
}

/// A client that has said its last word is judged by what it does not read, as any other.
#[test]
fn who_asks_leaves_and_never_reads_is_ended_by_the_limit_of_output() {
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut witness = subject.connect();
    assert_eq!(witness.call(&["SET", "key", &"v".repeat(1 << 20)]), Reply::status("OK"));
    let limit = witness.call(&["CONFIG", "SET", "client-output-buffer-limit", "normal 100kb 0 0"]);
    assert_eq!(limit, Reply::status("OK"));
    // More than the kernel's buffers hold, and few enough to be answered together; behind them what ends a stream.
    let mut deaf: Vec<RespClient> = (0..4).map(|_| subject.connect()).collect();
    let requests = [b"GET key\r\n".repeat(63), b"*x\r\n".to_vec()].concat();
    deaf.iter_mut().for_each(|client| client.send_raw(&requests));
    wait_until("the clients that do not read are ended", || subject.info("connected_clients") == "2");
    // Who reads gets all that was asked for, however it leaves.
    let no_limit = witness.call(&["CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0"]);
    assert_eq!(no_limit, Reply::status("OK"));
    let mut reader = subject.connect();
    reader.send_raw(&b"GET key\r\n".repeat(63));
    reader.close_half();
    let said = reader.rest();
    assert_eq!(said.len(), 63 * ((1 << 20) + 12), "{}", said[..20].escape_ascii());
}

/// The bytes of a large value that goes out by reference are what a client does not read, too.
#[test]
fn values_by_reference_count_as_output() {
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut witness = subject.connect();
    assert_eq!(witness.call(&["SET", "key", &"v".repeat(24 << 20)]), Reply::status("OK"));
    let limit = witness.call(&["CONFIG", "SET", "client-output-buffer-limit", "normal 4mb 0 0"]);
    assert_eq!(limit, Reply::status("OK"));
    let mut deaf = subject.connect();
    deaf.send_raw(b"GET key\r\n");
    wait_until("the client that does not read is ended", || subject.info("connected_clients") == "2");
}

/// Whoever asks for more than it reads is stopped or closed, and what it is owed stays within bounds.
#[test]
fn replies_that_nobody_reads_do_not_fill_the_memory() {
    const VALUE_BYTES: usize = 256 << 10;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    if redis_is_the_subject() {
        let reply = subject.connect().call(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 1mb 0"]);
        assert_eq!(reply, Reply::status("OK"));
    }
    let mut witness = subject.connect();
    assert_eq!(witness.call(&["SET", "big", &"b".repeat(VALUE_BYTES)]), Reply::status("OK"));
    let before = subject.rss_bytes();
    let mut requests = Vec::new();
    (0..20_000).for_each(|_| crate::support::resp::put_command(&mut requests, &["GET", "big"]));
    let mut greedy: Vec<TcpStream> = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(subject.address()).expect("the server accepts");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("an option of every socket");
        // 5 GB of replies asked for; the writing ends where the server no longer reads.
        let _: std::io::Result<()> = stream.write_all(&requests);
        greedy.push(stream);
        assert_eq!(witness.say("PING"), Reply::status("PONG"));
    }
    let grown = subject.peak_rss_bytes().saturating_sub(before);
    assert!(redis_is_the_subject() || grown < 256 << 20, "{grown} bytes for four clients that do not read");
    drop(greedy);
    assert_eq!(witness.say("STRLEN big"), Reply::Integer(VALUE_BYTES as i64));
}

/// A SET of `value_bytes` under the key `k`.
fn set_of(value_bytes: usize) -> Vec<u8> {
    let mut request = Vec::new();
    crate::support::resp::put_command(&mut request, &[&b"SET"[..], b"k", &vec![b'v'; value_bytes]]);
    request
}

#[test]
fn an_argument_may_be_as_long_as_proto_max_bulk_len_says() {
    const MIB: usize = 1 << 20;
    const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1", "--sync-writes=false"]);
    let mut client = subject.connect();
    // From the next request of the same pipeline on.
    let request = [&b"CONFIG SET proto-max-bulk-len 1mb\r\n"[..], &set_of(MIB), &set_of(MIB + 1)].concat();
    let said = last_words(&mut client, &request);
    assert_eq!(said.escape_ascii().to_string(), r"+OK\r\n+OK\r\n-ERR Protocol error: invalid bulk length\r\n");
    let mut client = subject.connect();
    assert_eq!(client.say("SETRANGE k 1048575 x"), Reply::Integer(MIB as i64));
    assert_eq!(client.say("SETRANGE k 1048576 x"), Reply::Error(TOO_LONG.to_owned()));
    client.must("CONFIG SET proto-max-bulk-len 2mb");
    client.send_raw(&set_of(MIB + 1));
    assert_eq!(client.receive(), Reply::status("OK"));
    assert_eq!(client.say("SETRANGE k 1048577 x"), Reply::Integer(MIB as i64 + 2));
}

#[test]
fn what_append_makes_is_bounded_like_what_setrange_makes_and_stays_so_in_the_log() {
    const MIB: usize = 1 << 20;
    const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1", "--max-value-size", "1MiB"]);
    let mut client = subject.connect();
    client.must("CONFIG SET proto-max-bulk-len 1mb");
    client.send_raw(&set_of(MIB - 1));
    assert_eq!(client.receive(), Reply::status("OK"));
    assert_eq!(client.say("APPEND k xy"), Reply::Error(TOO_LONG.to_owned()));
    assert_eq!(client.say("APPEND k x"), Reply::Integer(MIB as i64));
    // In one entry of the log, where the second finds what the first has left.
    let part = "p".repeat(600_000);
    let mut pipeline = Vec::new();
    (0..3).for_each(|_| crate::support::resp::put_command(&mut pipeline, &["APPEND", "parts", &part]));
    let too_long = || Reply::Error(TOO_LONG.to_owned());
    assert_eq!(client.pipeline(&pipeline, 3), [Reply::Integer(600_000), too_long(), too_long()]);
    if redis_is_the_subject() {
        return;
    }
    subject.kill();
    // Another bound now does not change what was then.
    let subject = Subject::start(directory.path(), &["--cores", "1", "--max-value-size", "4MiB"]);
    let mut client = subject.connect();
    assert_eq!(client.say("STRLEN k"), Reply::Integer(MIB as i64));
    assert_eq!(client.say("STRLEN parts"), Reply::Integer(600_000));
    assert_eq!(client.say("APPEND k xy"), Reply::Integer(MIB as i64 + 2));
}

#[test]
fn a_request_may_be_as_long_as_client_query_buffer_limit_says() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1", "--sync-writes=false"]);
    let mut witness = subject.connect();
    witness.must("CONFIG SET client-query-buffer-limit 1mb");
    // One long argument, and many short ones.
    let mut many: Vec<String> = vec!["MSET".to_owned()];
    many.extend((0..200_000).map(|number| format!("key:{number:06}")));
    let mut of_many = Vec::new();
    crate::support::resp::put_command(&mut of_many, &many);
    assert!(of_many.len() > 3 << 20);
    for long in [set_of(2 << 20), of_many.clone()] {
        if redis_is_the_subject() && long == of_many {
            // It counts what it has not taken apart.
            continue;
        }
        let said = last_words(&mut subject.connect(), &long);
        // Redis ends it without a word.
        let expected = if redis_is_the_subject() { "" } else { "-ERR Protocol error: request of at least " };
        assert!(said.starts_with(expected.as_bytes()), "{}", said.escape_ascii());
        assert_eq!(witness.say("DBSIZE"), Reply::Integer(0));
    }
    // A pipeline is no request.
    let pipeline: Vec<u8> = (0..100).flat_map(|_| set_of(60_000)).collect();
    assert!(witness.pipeline(&pipeline, 100).iter().all(|reply| *reply == Reply::status("OK")));
    witness.must("CONFIG SET client-query-buffer-limit 1gb");
    witness.send_raw(&of_many);
    assert_eq!(witness.receive(), Reply::status("OK"));
}

/// Seconds until the kernel looks whether the other end of `client`'s connection is still there, as the server's side
/// has it; `None`: it does not look.
fn keepalive_seconds(client: &RespClient) -> Option<u64> {
    let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("a connected socket").port();
    let (server, own) = (port(client.stream.peer_addr()), port(client.stream.local_addr()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells its connections");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ends_with = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
    let mut of_server = fields.filter(|fields| ends_with(fields[1], server) && ends_with(fields[2], own));
    let (timer, when) = of_server.next().expect("the server's side")[5].split_once(':').expect("timer and time");
    // In hundredths of a second.
    (timer == "02").then(|| u64::from_str_radix(when, 16).expect("a number") / 100)
}

#[test]
fn connections_are_kept_alive_as_tcp_keepalive_said_when_they_came() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &[]);
    let connect = || {
        let mut client = subject.connect();
        client.must("CLIENT SETNAME kept");
        client
    };
    let near = |client: &RespClient, seconds: u64| {
        wait_until("nothing but the keepalive is timed", || {
            keepalive_seconds(client).is_some_and(|left| (seconds - 10..=seconds).contains(&left))
        });
    };
    let mut first = connect();
    near(&first, 300);
    first.must("CONFIG SET tcp-keepalive 60");
    let second = connect();
    near(&second, 60);
    near(&first, 300);
    first.must("CONFIG SET tcp-keepalive 0");
    let third = connect();
    wait_until("no keepalive is timed", || keepalive_seconds(&third).is_none());
    near(&second, 60);
}
