//! A node with a password: nothing without it, over either wire; the words and the order of Redis; and nobody hears of
//! it, in whatever the node says.
//!
//! Place in the flow: steps 1 to 3 from outside. Clients that people have are in `resp_clients`.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eyot_protocol::credentials::Credentials;
use eyot_protocol::limits::MAX_UNAUTHENTICATED_FRAME_BYTES;
use eyot_protocol::request::{Hello, Operation, Request, RequestOptions, Set, SnapshotRequest};
use eyot_protocol::ErrorCode;
use eyot_server::error::StopReason;
use rand::Rng;
use support::resp::put_command;
use support::{
    bytes_value, command, directory, run, run_command, several_cores, wait_until, Answer, Client, Dice, Redis, Reply,
    RespClient, Server, Subject,
};

const PASSWORD: &str = "canary-7f3a";

fn password_file(directory: &Path, contents: &str, mode: u32) -> PathBuf {
    let path = directory.join("password");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A node with [`PASSWORD`], and what its files are in.
fn node(arguments: &[&str]) -> (Subject, tempfile::TempDir) {
    let directory = directory();
    let path = password_file(directory.path(), &format!("{PASSWORD}\n"), 0o600);
    let mut all = vec!["--password-file", path.to_str().unwrap(), "--sync-writes=false"];
    all.extend_from_slice(arguments);
    let data = directory.path().join("data");
    (Subject::start(&data, &all), directory)
}

fn eyot(subject: &Subject) -> &Server {
    subject.eyot().expect("these tests are about Eyot")
}

fn known(subject: &Subject) -> RespClient {
    let mut client = subject.connect();
    client.must(&format!("AUTH {PASSWORD}"));
    client
}

fn said(password: &str) -> Request<'_> {
    let credentials = Some(Credentials { user: None, password: password.as_bytes() });
    Request::Hello(Hello { client: Some("test"), credentials })
}

/// What clients say, right and wrong, before and after they have authenticated.
const LINES: [&str; 52] = [
    "PING",
    "PING a b",
    "NOPE x",
    "GET",
    "GET a",
    "SET a b",
    "SET a b NOPE",
    "MSET a",
    "MGET a b",
    "DEL a",
    "CONFIG",
    "CONFIG NOPE",
    "CONFIG GET",
    "CONFIG GET nothing",
    "CONFIG SET a",
    "COMMAND NOPE",
    "COMMAND COUNT x",
    "CLIENT GETNAME",
    "CLIENT ID x",
    "CLIENT SETNAME me",
    "CLIENT REPLY",
    "SELECT x",
    "SELECT 0",
    "AUTH",
    "AUTH a b c",
    "AUTH wrong",
    "AUTH nobody canary-7f3a",
    "AUTH DEFAULT canary-7f3a",
    "AUTH default wrong",
    "AUTH default canary-7f3",
    "AUTH canary-7f3a",
    "AUTH default canary-7f3a",
    "HELLO",
    "HELLO 2",
    "HELLO x",
    "HELLO 9",
    "HELLO 3 SETNAME",
    "HELLO 2 AUTH default wrong",
    "HELLO 3 AUTH nobody canary-7f3a",
    "HELLO 3 AUTH default canary-7f3a",
    "HELLO 2 AUTH default canary-7f3a",
    "HELLO 2 AUTH default",
    "RESET",
    "RESET",
    "RESET a",
    "OBJECT",
    "OBJECT NOPE a",
    "OBJECT ENCODING",
    "SHUTDOWN NOPE",
    "KEYS",
    "ECHO x",
    "DBSIZE",
];

#[test]
fn replies_before_and_after_authentication_are_those_of_redis() {
    const EPISODES: usize = 300;
    let (subject, _directory) = node(&[]);
    let redis = Redis::start(&[]);
    RespClient::connect(redis.address).must(&format!("CONFIG SET requirepass {PASSWORD}"));
    let mut dice = Dice::new();
    let mut refusals = 0;
    for episode in 0..EPISODES {
        let (mut theirs, mut ours) = (RespClient::connect(redis.address), subject.connect());
        // Every line once, each on a connection of its own; then random pipelines, sent at once.
        let lines: Vec<&str> = match LINES.get(episode) {
            Some(line) => vec![line],
            None => (0..40).map(|_| LINES[dice.rng.gen_range(0..LINES.len())]).collect(),
        };
        let mut bytes = Vec::new();
        for line in &lines {
            put_command(&mut bytes, &line.split(' ').collect::<Vec<_>>());
        }
        theirs.send_raw(&bytes);
        ours.send_raw(&bytes);
        for (place, line) in lines.iter().enumerate() {
            let (expected, found) = (theirs.receive(), ours.receive());
            refusals += usize::from(expected.error_word() == Some("NOAUTH"));
            let both_greet = line.starts_with("HELLO") && expected.error().is_none() && found.error().is_none();
            let same = if both_greet { expected.field("proto") == found.field("proto") } else { expected == found };
            assert!(same, "{line}: Redis {expected:?}, Eyot {found:?}, after {:?}", &lines[..place]);
        }
    }
    assert!(refusals > 500, "only {refusals} refusals were compared");
}

#[test]
fn an_unknown_client_is_held_to_the_low_limits_of_redis() {
    let (subject, _directory) = node(&[]);
    let redis = Redis::start(&[]);
    RespClient::connect(redis.address).must(&format!("CONFIG SET requirepass {PASSWORD}"));
    for bytes in [
        &b"*11\r\n"[..],
        b"*2\r\n$4\r\nAUTH\r\n$16385\r\n",
        b"*2147483648\r\n",
        b"*2\r\n$999999999\r\n",
        b"*2\r\n$-1\r\n",
        b"*1\r\n$4\r\nPING\r\n*1000000\r\n",
    ] {
        let last_words = |mut client: RespClient| {
            client.send_raw(bytes);
            client.rest().escape_ascii().to_string()
        };
        let (expected, found) = (last_words(RespClient::connect(redis.address)), last_words(subject.connect()));
        assert_eq!(found, expected, "{}", bytes.escape_ascii());
    }
    // What is allowed is waited for; all of it together is not.
    let mut client = subject.connect();
    client.send_raw(b"*10\r\n");
    for _ in 0..4 {
        client.send_raw(b"$16384\r\n");
        client.send_raw(&[b'x'; 16_384]);
        client.send_raw(b"\r\n");
    }
    let last_words = String::from_utf8(client.rest()).unwrap();
    assert!(last_words.starts_with("-ERR Protocol error: request of at least"), "{last_words}");
    let mut client = subject.connect();
    client.send_raw(&[b'x'; 20_000]);
    assert!(client.rest().starts_with(b"-ERR Protocol error: too big inline request"));
    // Both limits are gone with the right password, within one pipeline.
    let mut client = subject.connect();
    let (mut bytes, value) = (Vec::new(), vec![b'v'; 300_000]);
    put_command(&mut bytes, &["AUTH", PASSWORD]);
    put_command(&mut bytes, &[&b"SET"[..], b"large", &value]);
    put_command(&mut bytes, &["MGET", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
    put_command(&mut bytes, &["STRLEN", "large"]);
    let replies = client.pipeline(&bytes, 4);
    assert_eq!(replies[..2], [Reply::status("OK"), Reply::status("OK")]);
    assert_eq!((replies[2].elements().len(), &replies[3]), (11, &Reply::Integer(300_000)));
    // And back with RESET.
    client.send_raw(b"RESET\r\n*11\r\n");
    assert_eq!(client.receive(), Reply::status("RESET"));
    assert_eq!(client.rest(), b"-ERR Protocol error: unauthenticated multibulk length\r\n");
}

#[test]
fn a_pipeline_is_judged_command_by_command() {
    let (subject, _directory) = node(&[]);
    let mut client = subject.connect();
    let bytes =
        format!("GET a\r\nAUTH {PASSWORD}\r\nSET a 1\r\nRESET\r\nGET a\r\nAUTH {PASSWORD}\r\nGET a\r\nRESET\r\n");
    // However the bytes arrive.
    for piece in [1, 7, bytes.len()] {
        for part in bytes.as_bytes().chunks(piece) {
            client.send_raw(part);
        }
        let replies: Vec<Reply> = (0..8).map(|_| client.receive()).collect();
        let words: Vec<String> = replies.iter().map(|reply| format!("{reply:?}")).collect();
        let refused = "-\"NOAUTH Authentication required.\"";
        let expected = [refused, "+\"OK\"", "+\"OK\"", "+\"RESET\"", refused, "+\"OK\"", "$\"1\"", "+\"RESET\""];
        assert_eq!(words, expected, "in pieces of {piece}");
    }
    // A client that has said all it wants is let go, although who it is changed with its last word.
    client.send_raw(format!("AUTH {PASSWORD}\r\nRESET\r\n").as_bytes());
    client.close_half();
    assert_eq!((client.receive(), client.receive()), (Reply::status("OK"), Reply::status("RESET")));
    client.assert_closed();
}

#[test]
fn the_native_wire_answers_nothing_but_hello() {
    let (subject, _directory) = node(&[]);
    let server = eyot(&subject);
    known(&subject).must("SET a 1");
    let mut client = server.connect();
    let value = bytes_value(b"x");
    let requests = [
        Request::Ping { payload: &[3, 0] },
        Request::Get { key: b"a" },
        Request::Set(Set::new(b"a", &value)),
        Request::Delete { key: b"a" },
        Request::Exists { key: b"a" },
        Request::Stats,
        Request::Snapshot(SnapshotRequest::Create),
        Request::Hello(Hello { client: Some("x"), credentials: None }),
    ];
    for request in &requests {
        assert_eq!(client.call(request).code(), Some(ErrorCode::AuthenticationRequired), "{request:?}");
    }
    let mut frame = Vec::new();
    client.put_batch(&mut frame, &[Request::Delete { key: b"a" }]);
    client.send_raw(&frame);
    let (_, refused) = client.receive_batch(&[Operation::Delete]);
    assert_eq!(refused.code(), Some(ErrorCode::AuthenticationRequired));
    for wrong in ["", "canary", "canary-7f3a ", &"x".repeat(10_000)] {
        assert_eq!(client.call(&said(wrong)).code(), Some(ErrorCode::AuthenticationFailed));
    }
    let nobody = Some(Credentials { user: Some(b"nobody"), password: PASSWORD.as_bytes() });
    let nobody = Request::Hello(Hello { client: None, credentials: nobody });
    assert_eq!(client.call(&nobody).code(), Some(ErrorCode::AuthenticationFailed));
    assert_eq!(client.call(&Request::Stats).code(), Some(ErrorCode::AuthenticationRequired));
    // Requests may follow the password without a wait; a later wrong one changes nothing.
    let mut frames = Vec::new();
    let hello = client.put(&mut frames, &said(PASSWORD), &RequestOptions::default());
    let get = client.put(&mut frames, &Request::Get { key: b"a" }, &RequestOptions::default());
    client.send_raw(&frames);
    let (first, second) = (client.receive(), client.receive());
    assert_eq!((first.0, second.0), (hello, get));
    let Answer::Hello(told) = first.1 else { panic!("no HELLO: {first:?}") };
    assert!(told.features.iter().any(|feature| feature == "password"));
    assert!(second.1.value().is_some());
    assert_eq!(client.call(&said("wrong")).code(), Some(ErrorCode::AuthenticationFailed));
    assert!(client.get(b"a").value().is_some());
    let large = bytes_value(&vec![b'x'; 500_000]);
    client.must_set(b"large", &large);
    // Each core's own listener asks for it as well.
    for core in 0..server.core_addresses.len() {
        let mut client = server.connect_to_core(core);
        assert_eq!(client.get(b"a").code(), Some(ErrorCode::AuthenticationRequired));
    }
    let stats = client.stats();
    assert_eq!(stats["network"]["failed_authentications"], 6);
    assert_eq!(subject_info(&subject, "acl_access_denied_auth"), "6");
}

fn subject_info(subject: &Subject, name: &str) -> String {
    let reply = known(subject).say("INFO everything");
    let found = reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
    found.unwrap_or_else(|| panic!("INFO has no {name}"))
}

#[test]
fn a_large_native_frame_ends_the_connection_of_a_client_that_nobody_knows() {
    let (subject, _directory) = node(&["--mmap-threshold", "4KiB"]);
    let mut client = eyot(&subject).connect();
    let value = bytes_value(&vec![b'x'; MAX_UNAUTHENTICATED_FRAME_BYTES]);
    let mut frame = Vec::new();
    client.put(&mut frame, &Request::Set(Set::new(b"k", &value)), &RequestOptions::default());
    client.send_raw(&frame[..100]);
    let (_, answer) = client.receive();
    assert_eq!(answer.code(), Some(ErrorCode::FrameTooLarge), "{answer:?}");
    client.assert_closed();
    // One that would be received apart, if it were known, is a refused request like any other.
    let value = bytes_value(&[b'x'; 8_000]);
    let mut client = eyot(&subject).connect();
    assert_eq!(client.set(b"k", &value).code(), Some(ErrorCode::AuthenticationRequired));
    assert_eq!(client.call(&said(PASSWORD)).code(), None);
    assert_eq!(client.get(b"k"), Answer::Value(None));
}

#[test]
fn a_client_that_does_not_say_the_password_in_time_is_ended_and_others_are_not() {
    let (subject, _directory) = node(&["--handshake-timeout", "500ms"]);
    let mut kept = known(&subject);
    let mut kept_native = eyot(&subject).connect();
    assert_eq!(kept_native.call(&said(PASSWORD)).code(), None);
    let mut silent = subject.connect();
    let mut talking = subject.connect();
    assert_eq!(talking.say("PING").error_word(), Some("NOAUTH"));
    let mut silent_native = eyot(&subject).connect();
    silent.assert_closed();
    talking.assert_closed();
    silent_native.assert_closed();
    assert_eq!(kept.say("PING"), Reply::status("PONG"));
    assert_eq!(kept_native.get(b"a"), Answer::Value(None));
    // RESET begins its time anew.
    assert_eq!(kept.say("RESET"), Reply::status("RESET"));
    assert_eq!(kept.say("PING").error_word(), Some("NOAUTH"));
    kept.assert_closed();
}

#[test]
fn replies_that_an_unknown_client_does_not_read_are_few() {
    let (subject, _directory) = node(&[]);
    let mut stream = std::net::TcpStream::connect(subject.address()).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let requests = b"PING\r\n".repeat(1 << 20);
    // The server may close before it has read everything.
    let _: std::io::Result<()> = stream.write_all(&requests);
    let mut replies = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _: std::io::Result<usize> = stream.read_to_end(&mut replies);
    assert!(replies.len() < 10 << 20, "{} bytes of refusals", replies.len());
    assert_eq!(known(&subject).say("PING"), Reply::status("PONG"));
}

#[test]
fn the_password_is_in_nothing_that_the_node_says() {
    let (subject, _directory) = node(&["--log-level", "trace", "--log-format", "json"]);
    let mut client = subject.connect();
    let mut heard: Vec<String> = Vec::new();
    let mut say = |client: &mut RespClient, line: &str| heard.push(format!("{:?}", client.say(line).bytes()));
    // Wrong ones are secrets as well: they are often right elsewhere.
    for line in ["AUTH canary-wrong", "AUTH canary-user canary-wrong", "HELLO 3 AUTH canary-user canary-wrong"] {
        assert_eq!(client.say(line).error_word(), Some("WRONGPASS"));
    }
    assert_eq!(eyot(&subject).connect().call(&said("canary-wrong")).code(), Some(ErrorCode::AuthenticationFailed));
    client.must(&format!("AUTH {PASSWORD}"));
    client.must("CONFIG SET slowlog-log-slower-than 0");
    client.must(&format!("AUTH {PASSWORD}"));
    client.must(&format!("AUTH default {PASSWORD}"));
    assert_eq!(client.say("AUTH canary-wrong").error_word(), Some("WRONGPASS"));
    let greeting = client.say(&format!("HELLO 2 AUTH default {PASSWORD}"));
    assert_eq!(greeting.error(), None);
    let refused = client.say(&format!("CONFIG SET requirepass {PASSWORD}"));
    assert!(refused.error().is_some_and(|line| line.contains("--password-file") && !line.contains("canary")));
    assert!(client.say("CONFIG SET requirepass (redacted)").error().is_some(), "it would change nothing");
    let log = client.say("SLOWLOG GET 100");
    let told = format!("{log:?}");
    let entries: Vec<Vec<Reply>> = log.elements().iter().map(|entry| entry.elements()[3].elements()).collect();
    let redacted = entries.iter().filter(|arguments| arguments.last() == Some(&Reply::bulk("(redacted)"))).count();
    assert!(redacted >= 6 && !told.contains("canary"), "{redacted}: {entries:?}");
    for line in ["INFO everything", "CLIENT LIST", "CLIENT INFO", "LATENCY LATEST", "MEMORY DOCTOR"] {
        say(&mut client, line);
    }
    let config = client.say("CONFIG GET *");
    assert_eq!(config.field("requirepass"), Reply::bulk("(redacted)"));
    heard.extend(config.elements().iter().map(|reply| String::from_utf8_lossy(reply.bytes().unwrap()).into_owned()));
    let mut native = eyot(&subject).connect();
    assert_eq!(native.call(&said(PASSWORD)).code(), None);
    heard.push(native.stats().to_string());
    let Subject::Eyot { server, .. } = subject else { unreachable!("it is Eyot") };
    let ended = server.terminate();
    assert!(ended.stderr.contains("authentication failed") && ended.stderr.contains("127.0.0.1:"), "{}", ended.stderr);
    heard.extend([ended.stdout, ended.stderr]);
    for text in heard {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn a_password_that_cannot_be_had_is_a_numbered_stop_without_the_password() {
    let directory = directory();
    let code = StopReason::Password.exit_code();
    let data = directory.path().join("data");
    let with_file = |contents: &str, mode| {
        let path = password_file(directory.path(), contents, mode);
        let ended = run(&data, &["--password-file", path.to_str().unwrap()]);
        assert!(!ended.stderr.contains("canary") && !data.exists(), "{}", ended.stderr);
        ended
    };
    with_file(PASSWORD, 0o644).assert_code(code, &["644", "chmod 600", "remedy"]);
    with_file(PASSWORD, 0o640).assert_code(code, &["640", "remedy"]);
    with_file("\n", 0o600).assert_code(code, &["empty", "remedy"]);
    with_file(&"canary".repeat(1000), 0o600).assert_code(code, &["512", "remedy"]);
    run(&data, &["--password-file", "/nowhere/at/all"]).assert_code(code, &["/nowhere/at/all", "remedy"]);
    let mut environment = command(&data, &[]);
    run_command(environment.env("EYOT_PASSWORD", "")).assert_code(code, &["EYOT_PASSWORD", "empty"]);
    let path = password_file(directory.path(), PASSWORD, 0o600);
    let mut both = command(&data, &["--password-file", path.to_str().unwrap()]);
    let ended = run_command(both.env("EYOT_PASSWORD", PASSWORD));
    ended.assert_code(StopReason::Usage.exit_code(), &["--password-file", "EYOT_PASSWORD"]);
    assert!(!ended.stderr.contains("canary"));
}

#[test]
fn the_environment_may_hold_the_password_and_its_files_name() {
    let directory = directory();
    let path = password_file(directory.path(), PASSWORD, 0o400);
    for (name, value) in [("EYOT_PASSWORD", PASSWORD), ("EYOT_PASSWORD_FILE", path.to_str().unwrap())] {
        let data = directory.path().join(name);
        let server = Server::launch(command(&data, &["--cores", "1"]).env(name, value)).expect("it starts");
        let mut client = server.connect();
        assert_eq!(client.get(b"a").code(), Some(ErrorCode::AuthenticationRequired));
        assert_eq!(client.call(&said(PASSWORD)).code(), None);
    }
}

#[test]
fn a_node_without_a_password_says_so_to_whoever_has_one() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", &several_cores().to_string()]);
    let mut native: Client = eyot(&subject).connect();
    assert_eq!(native.call(&said(PASSWORD)).code(), Some(ErrorCode::UnsupportedFeature));
    assert_eq!(native.get(b"a"), Answer::Value(None));
    let mut client = subject.connect();
    assert!(client.say("AUTH x").error().is_some_and(|line| line.starts_with("ERR AUTH <password> called without")));
    client.must("AUTH default anything");
    assert_eq!(client.say("AUTH nobody x").error_word(), Some("WRONGPASS"));
    assert_eq!(client.say("CONFIG GET requirepass").field("requirepass"), Reply::bulk(""));
    // RESET changes nothing about who may ask.
    client.send_raw(b"RESET\r\nPING\r\n");
    assert_eq!((client.receive(), client.receive()), (Reply::status("RESET"), Reply::status("PONG")));
    wait_until("the refusal is counted", || subject.info("acl_access_denied_auth") == "1");
}

#[test]
fn a_browser_that_was_led_to_the_port_is_hung_up_on() {
    let (with_password, _directory) = node(&[]);
    let plain_directory = directory();
    let without = Subject::start(plain_directory.path(), &["--sync-writes=false"]);
    for subject in [&with_password, &without] {
        for head in ["POST / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", "Host: x\r\n"] {
            let mut client = subject.connect();
            // What a page makes a browser send behind the head are commands, if anybody reads on.
            client.send_raw(format!("{head}\r\nSET smuggled 1\r\nAUTH {PASSWORD}\r\nSET smuggled 2\r\n").as_bytes());
            let said = String::from_utf8(client.rest()).unwrap();
            assert!(said.ends_with("-ERR this is not an HTTP server\r\n"), "{said}");
        }
    }
    assert_eq!(without.connect().say("GET smuggled"), Reply::NullBulk);
    assert_eq!(known(&with_password).say("GET smuggled"), Reply::NullBulk);
}
