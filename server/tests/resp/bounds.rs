//! Requests of a few bytes that are a lot of work or memory: the work is done in slices or refused, and others are
//! served in between.

use crate::support::{directory, Reply, RespClient, Subject};

/// Sends `request`, and counts how many PINGs of another client are answered until its reply is there.
fn served_during<A: AsRef<[u8]>>(subject: &Subject, request: &[A]) -> (usize, Reply) {
    let (mut asking, mut other) = (subject.connect(), subject.connect());
    assert_eq!(other.say("PING"), Reply::status("PONG"));
    asking.send(request);
    asking.stream.set_nonblocking(true).expect("an option of every socket");
    let mut served = 0;
    loop {
        assert_eq!(other.say("PING"), Reply::status("PONG"));
        served += 1;
        let nothing = asking.stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        if !nothing {
            asking.stream.set_nonblocking(false).expect("an option of every socket");
            return (served, asking.receive());
        }
    }
}

/// Each key takes 500 steps for each of its 60,000 bytes: half a second of work for all, and every other client would
/// wait for it if it were done in one turn.
#[test]
fn patterns_that_take_long_make_nobody_else_wait() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut client: RespClient = subject.connect();
    for n in 0..10 {
        let key = format!("{n}{}", "a".repeat(60_000));
        assert_eq!(client.call(&["SET", &key, "v"]), Reply::status("OK"));
    }
    let bomb = format!("*{}b", "a".repeat(500));
    let (served, reply) = served_during(&subject, &["KEYS", &bomb]);
    assert_eq!(reply, Reply::Array(Vec::new()));
    assert!(served > 100, "KEYS: {served} other requests were served meanwhile");
    let (served, reply) = served_during(&subject, &["SCAN", "0", "MATCH", &bomb, "COUNT", "1000"]);
    assert_eq!(reply.elements()[1], Reply::Array(Vec::new()));
    assert!(served > 100, "SCAN: {served} other requests were served meanwhile");
    // What is ordinary finds what it always did.
    assert_eq!(client.say("KEYS 7a*").elements().len(), 1);
    assert_eq!(client.say("SCAN 0 MATCH [3-5]* COUNT 1000").elements()[1].elements().len(), 3);
    let too_long = "x".repeat(1025);
    assert_eq!(client.call(&["KEYS", &too_long]).error(), Some("ERR pattern is longer than 1024 bytes"));
    let class = format!("*[{}]x", "a".repeat(100_000));
    let refused = client.call(&["CONFIG", "GET", &class]);
    assert!(refused.error().is_some_and(|line| line.contains("takes too long")), "{refused:?}");
}

/// Keys may be long, so what is found is bounded by its bytes, too.
#[test]
fn long_keys_come_a_few_at_a_time() {
    const KEYS: usize = 60;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut client = subject.connect();
    for n in 0..KEYS {
        assert_eq!(client.call(&["SET", &format!("{{tag}}{n}{}", "k".repeat(60_000)), "v"]), Reply::status("OK"));
    }
    let slot = client.say("CLUSTER KEYSLOT tag").integer();
    let some = client.say(&format!("CLUSTER GETKEYSINSLOT {slot} 1000")).elements().len();
    assert!((10..30).contains(&some), "{some} keys of a slot");
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), 0, 0);
    while calls == 0 || cursor != "0" {
        let reply = client.say(&format!("SCAN {cursor} COUNT 1000")).elements();
        cursor = reply[0].text().to_owned();
        found += reply[1].elements().len();
        calls += 1;
    }
    assert_eq!(found, KEYS);
    assert!(calls >= 3, "{calls} calls for {KEYS} long keys");
    assert_eq!(client.say("KEYS *").elements().len(), KEYS);
}

/// Small values are bounded like large ones, where there are very many of them.
#[test]
fn a_reply_of_very_many_small_values_is_bounded() {
    const KEYS: usize = 400_000;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut client = subject.connect();
    assert_eq!(client.call(&["SET", "k", &"v".repeat(250)]), Reply::status("OK"));
    let mut request = vec!["MGET"];
    request.resize(1 + KEYS, "k");
    let values = client.call(&request).elements();
    let is_left_out = |value: &&Reply| value.error().is_some_and(|line| line.ends_with("the reply is full"));
    let left_out = values.iter().filter(is_left_out).count();
    assert!(values
        .iter()
        .all(|value| value.bytes().is_some_and(|bytes| bytes.len() == 250) || value.error().is_some()));
    assert_eq!(values.len(), KEYS);
    // A reply holds about 64 MiB: 260,000 such values.
    assert!((KEYS - 280_000..KEYS - 240_000).contains(&left_out), "{left_out} of {KEYS} values left out");
    assert_eq!(client.say("GET k").bytes().map(<[u8]>::len), Some(250));
    request[0] = "EXISTS";
    assert_eq!(client.call(&request), Reply::Integer(KEYS as i64));
}

/// What KEYS has found is memory: it is counted while it is gathered and sent, and goes with the connection.
#[test]
fn a_long_list_of_keys_is_whole_and_a_killed_client_s_is_given_up() {
    const KEYS: usize = 20_000;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "2"]);
    let mut client = subject.connect();
    for first in (0..KEYS).step_by(1000) {
        let mut request = vec!["MSET".to_owned()];
        for n in first..first + 1000 {
            request.extend([format!("{n:0100}"), "v".to_owned()]);
        }
        assert_eq!(client.call(&request), Reply::status("OK"));
    }
    let mut found: Vec<Vec<u8>> =
        client.say("KEYS *").elements().iter().map(|key| key.bytes().unwrap().to_vec()).collect();
    found.sort_unstable();
    assert_eq!(found.len(), KEYS);
    assert!(
        found.iter().enumerate().all(|(n, key)| *key == format!("{n:0100}").into_bytes()),
        "a key is not what it was"
    );
    // A pipeline behind it is answered in its order.
    let pipelined = client.pipeline(b"KEYS 0*\r\nPING\r\nKEYS 1*\r\nPING\r\n", 4);
    assert_eq!(pipelined[0].elements().len(), KEYS);
    assert_eq!(pipelined[1..], [Reply::status("PONG"), Reply::Array(Vec::new()), Reply::status("PONG")]);
    // Seconds of work, of a client that somebody kills.
    let mut long = subject.connect();
    let id = long.say("CLIENT ID").integer();
    let bomb = format!("*[{}]x", "0".repeat(1000));
    long.send(&["KEYS", &bomb]);
    let killed = client.call(&["CLIENT", "KILL", "ID", &id.to_string()]);
    assert_eq!(killed, Reply::Integer(1));
    long.assert_closed();
    assert_eq!(client.say("KEYS 00*7").elements().len(), KEYS / 10);
}
