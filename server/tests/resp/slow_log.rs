//! SLOWLOG, LATENCY and the times of INFO: what a command on one key that took long leaves behind, and what others do
//! not.

use crate::support::servers::redis_is_the_subject;
use crate::support::{directory, several_cores, Reply, RespClient, Subject};

/// So long that no machine copies it within [`SLOW_US`].
const TEXT_BYTES: usize = 100 << 20;
const SLOW_US: i64 = 1000;

/// What SLOWLOG keeps of one command.
#[derive(Debug)]
struct Slow {
    took_us: i64,
    arguments: Vec<String>,
    client: String,
    name: String,
}

fn slow_log(client: &mut RespClient) -> Vec<Slow> {
    let text = |reply: &Reply| String::from_utf8_lossy(reply.bytes().expect("a bulk")).into_owned();
    let Reply::Array(entries) = client.say("SLOWLOG GET -1") else { panic!("no array") };
    let slow = |entry: &Reply| {
        let Reply::Array(fields) = entry else { panic!("{entry:?}") };
        let Reply::Array(arguments) = &fields[3] else { panic!("{entry:?}") };
        Slow {
            took_us: fields[2].integer(),
            arguments: arguments.iter().map(text).collect(),
            client: text(&fields[4]),
            name: text(&fields[5]),
        }
    };
    entries.iter().map(slow).collect()
}

/// A field of a command's line in `INFO commandstats`; 0 where there is no such line.
fn stat(client: &mut RespClient, command: &str, field: &str) -> f64 {
    let info = client.say("INFO commandstats");
    let prefix = format!("cmdstat_{command}:");
    let line = info.text().lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned));
    line.map_or(0.0, |line| {
        let value = line.split(',').find_map(|pair| pair.strip_prefix(&format!("{field}=")).map(str::to_owned));
        value.expect("a field of that name").parse().expect("a number")
    })
}

fn start(directory: &std::path::Path) -> Subject {
    let cores = several_cores().to_string();
    Subject::start(directory, &["--cores", &cores, "--sync-writes=false", "--max-value-size", "128MiB"])
}

#[test]
fn a_slow_command_on_one_key_is_told_with_its_arguments_its_client_and_its_time() {
    // It changes a text in place.
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = start(directory.path());
    let mut client = subject.connect();
    client.must("CLIENT SETNAME slowpoke");
    client.must(&format!("CONFIG SET slowlog-log-slower-than {SLOW_US} latency-monitor-threshold 1"));
    client.must("SET light 1");
    let last = TEXT_BYTES - 1;
    // Of eight keys some are each core's.
    let keys: Vec<String> = (0..8).map(|number| format!("text:{number}")).collect();
    for key in &keys {
        assert_eq!(client.say(&format!("SETRANGE {key} {last} z")), Reply::Integer(TEXT_BYTES as i64));
        assert_eq!(client.say(&format!("APPEND {key} tail")), Reply::Integer(TEXT_BYTES as i64 + 4));
        (0..10).for_each(|_| assert_eq!(client.say("GET light"), Reply::bulk("1")));
        let part = client.say(&format!("GETRANGE {key} 0 -2"));
        assert_eq!(part.bytes().map(<[u8]>::len), Some(TEXT_BYTES + 3));
        assert_eq!(client.say(&format!("DEL {key}")), Reply::Integer(1));
    }
    let address = client.stream.local_addr().expect("a connected socket").to_string();
    let slow = slow_log(&mut client);
    for key in &keys {
        for arguments in
            [format!("SETRANGE {key} {last} z"), format!("APPEND {key} tail"), format!("GETRANGE {key} 0 -2")]
        {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            let found: Vec<&Slow> = slow.iter().filter(|slow| slow.arguments == arguments).collect();
            let [found] = found[..] else { panic!("{arguments:?} is there {} times: {slow:#?}", found.len()) };
            assert!(found.took_us >= SLOW_US, "{found:?}");
            assert_eq!((found.client.as_str(), found.name.as_str()), (address.as_str(), "slowpoke"), "{found:?}");
        }
    }
    let events = client.say("LATENCY LATEST");
    let Reply::Array(events) = &events else { panic!("{events:?}") };
    assert!(events.iter().any(|event| matches!(event, Reply::Array(fields) if fields[0] == Reply::bulk("command"))));
    // The time is the slow command's own, and not that of those beside it.
    let told: i64 = slow.iter().filter(|slow| slow.arguments[0] == "APPEND").map(|slow| slow.took_us).sum();
    let counted = stat(&mut client, "append", "usec");
    assert!(counted >= told as f64 * 0.9, "APPEND took {told} us by SLOWLOG and {counted} us by INFO");
    let each = stat(&mut client, "get", "usec_per_call");
    assert!(each < 1000.0, "a light GET is told to take {each} us");
}

#[test]
fn a_low_threshold_times_every_command() {
    let directory = directory();
    let subject = start(directory.path());
    let mut client = subject.connect();
    client.must("SET before 1");
    client.must("CONFIG SET slowlog-log-slower-than 0");
    client.must("SET a 1");
    assert_eq!(client.say("GET a"), Reply::bulk("1"));
    assert_eq!(client.say("INCR a"), Reply::Integer(2));
    client.must("CONFIG SET slowlog-log-slower-than 10000");
    assert_eq!(client.say("GET a"), Reply::bulk("2"));
    let slow = slow_log(&mut client);
    let names: Vec<String> = slow.iter().rev().map(|slow| slow.arguments.join(" ")).collect();
    let config = "CONFIG SET slowlog-log-slower-than 0";
    assert_eq!(names, [config, "SET a 1", "GET a", "INCR a"]);
    assert!(slow.iter().all(|slow| slow.took_us < 1_000_000), "{slow:?}");
}

#[test]
fn statistics_are_reset_right_behind_a_slow_command() {
    let directory = directory();
    let subject =
        Subject::start(directory.path(), &["--cores", "1", "--sync-writes=false", "--max-value-size", "128MiB"]);
    let mut client = subject.connect();
    assert_eq!(client.say(&format!("SETRANGE text {} z", TEXT_BYTES - 1)), Reply::Integer(TEXT_BYTES as i64));
    // So long that its entry is sealed, and it is applied, before the next request of the pipeline is taken.
    let part = "p".repeat(2 << 20);
    let mut pipeline = Vec::new();
    crate::support::resp::put_command(&mut pipeline, &["APPEND", "text", &part]);
    crate::support::resp::put_command(&mut pipeline, &["CONFIG", "RESETSTAT"]);
    let replies = client.pipeline(&pipeline, 2);
    assert_eq!(replies, [Reply::Integer((TEXT_BYTES + part.len()) as i64), Reply::status("OK")]);
    assert_eq!(client.say("PING"), Reply::status("PONG"));
}

#[test]
fn a_large_request_and_a_large_reply_are_timed_without_a_value_file_too() {
    if redis_is_the_subject() {
        return;
    }
    let directory = directory();
    let subject = Subject::start(
        directory.path(),
        &["--cores", "1", "--sync-writes=false", "--max-value-size", "128MiB", "--enable-mmap=false"],
    );
    let mut client = subject.connect();
    client.must(&format!("CONFIG SET slowlog-log-slower-than {SLOW_US}"));
    let text = "t".repeat(TEXT_BYTES);
    assert_eq!(client.call(&["SET", "text", &text]), Reply::status("OK"));
    assert_eq!(client.say("GET text").bytes().map(<[u8]>::len), Some(TEXT_BYTES));
    assert_eq!(client.say("COPY text {text}2"), Reply::Integer(1));
    assert_eq!(client.say("GETDEL text").bytes().map(<[u8]>::len), Some(TEXT_BYTES));
    let slow = slow_log(&mut client);
    for name in ["SET", "GET", "COPY", "GETDEL"] {
        let found = slow.iter().find(|slow| slow.arguments[0] == name);
        let found = found.unwrap_or_else(|| panic!("{name} is not there: {slow:?}"));
        assert_eq!(found.arguments[1], "text");
    }
    // Of a long argument only its beginning is kept.
    let set = slow.iter().find(|slow| slow.arguments[0] == "SET").expect("just seen");
    assert!(set.arguments[2].ends_with(&format!("... ({} more bytes)", TEXT_BYTES - 128)), "{set:?}");
}
