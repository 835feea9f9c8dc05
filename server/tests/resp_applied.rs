//! What an error says of a write: one that is refused was not applied, and one that was applied is answered with what
//! it did, however much a pipeline asks to be told.
//!
//! Place in the flow: steps 3 (admit), 8 (apply) and 9 (reply) from outside.
//!
//! Memory is asserted with room for the allocator: a fraction of what a server without the bound would take.

mod support;

use support::resp::put_command;
use support::{directory, Reply, RespClient, Subject};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The pipeline of the commands that `command` makes of the numbers below `count`.
fn pipeline_of(count: usize, command: impl Fn(usize) -> Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..count).for_each(|number| put_command(&mut bytes, &command(number)));
    bytes
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Sets `count` keys, `k:0` and so on, to `value`.
fn fill(client: &mut RespClient, count: usize, value: &[u8]) {
    let pipeline = pipeline_of(count, |number| [words(&format!("SET k:{number}")), vec![value.to_vec()]].concat());
    let replies = client.pipeline(&pipeline, count);
    assert!(replies.iter().all(|reply| *reply == Reply::status("OK")), "{replies:?}");
}

#[test]
fn a_write_that_returns_a_value_is_not_refused_after_it_was_applied() {
    const COUNT: usize = 1000;
    let value = vec![b'v'; 60 * KIB];
    for cores in ["1", "2"] {
        let directory = directory();
        let subject = Subject::start(directory.path(), &["--cores", cores]);
        let mut client = RespClient::connect(subject.core_addresses()[0]);
        for line in ["GETEX k:# EX 1000", "SET k:# v XX GET", "GETSET k:# v", "GETDEL k:#"] {
            fill(&mut client, COUNT, &value);
            client.send_raw(&pipeline_of(COUNT, |number| words(&line.replace('#', &number.to_string()))));
            for number in 0..COUNT {
                let reply = client.receive();
                assert!(reply.bytes() == Some(&value[..]), "{line} of number {number} on {cores} cores: {reply:?}");
            }
        }
    }
}

#[test]
fn parts_of_values_are_owed_within_the_same_bound_as_values() {
    const COUNT: usize = 100;
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--cores", "1"]);
    let mut client = subject.connect();
    assert_eq!(client.say("SETRANGE big 39999999 x").integer(), 40_000_000);
    let before = subject.rss_bytes();
    let reads = pipeline_of(COUNT, |_| words("GETRANGE big 0 -1"));
    // Found together; and together again after a write that all of them wait for.
    for pipeline in [reads.clone(), [pipeline_of(1, |_| words("EXPIRE big 1000")), reads].concat()] {
        client.send_raw(&pipeline);
        if pipeline.starts_with(b"*3\r\n$6") {
            assert_eq!(client.receive().integer(), 1);
        }
        for number in 0..COUNT {
            let reply = client.receive();
            let whole = reply.bytes().is_some_and(|bytes| bytes.len() == 40_000_000);
            assert!(whole || reply.error_word() == Some("BUSY"), "number {number}: {reply:?}");
            assert!(whole || number > 0, "the first one is never refused");
        }
    }
    let grown = subject.peak_rss_bytes().saturating_sub(before) as usize;
    assert!(grown < 512 * MIB, "the server's memory grew by {} MiB", grown / MIB);
}

/// What a limit of 256 MiB leaves of a pipeline that asks for gigabytes in few bytes.
#[track_caller]
fn assert_limit_holds(subject: &Subject, client: &mut RespClient, first: usize, pipeline: &[u8], count: usize) {
    client.send_raw(pipeline);
    let mut refused = 0;
    for number in 0..count {
        let reply = client.receive();
        match reply.error_word() {
            None => {}
            Some("OOM") if number >= first => refused += 1,
            other => panic!("number {number}: {other:?} {reply:?}"),
        }
    }
    assert!(refused > 0 && refused < count - first, "{refused} of {count} were refused");
    let peak = subject.peak_rss_bytes() as usize;
    assert!(peak < 450 * MIB, "the server took {} MiB", peak / MIB);
    assert_eq!(client.say("PING"), Reply::status("PONG"));
}

#[test]
fn a_write_is_charged_what_it_makes_and_not_what_it_says() {
    const COUNT: usize = 60;
    const ARGUMENTS: [&str; 6] = ["--cores", "1", "--max-memory", "256MB", "--eviction-policy", "noeviction"];
    let ranges = pipeline_of(COUNT, |number| words(&format!("SETRANGE k:{number} 40000000 x")));
    let copies = pipeline_of(COUNT, |number| words(&format!("COPY {{k}}a {{k}}b:{number}")));
    let source = pipeline_of(1, |_| words("SETRANGE {k}a 40000000 x"));
    let renamed = [source.clone(), pipeline_of(1, |_| words("RENAME {k}a {k}r"))].concat();
    let copies_of_renamed = pipeline_of(COUNT, |number| words(&format!("COPY {{k}}r {{k}}b:{number}")));
    for (first, pipeline) in [
        (0, ranges),
        // The source comes in the same pipeline, under its name or another one.
        (1, [source, copies].concat()),
        (2, [renamed, copies_of_renamed].concat()),
    ] {
        let directory = directory();
        let subject = Subject::start(directory.path(), &ARGUMENTS);
        let mut client = subject.connect();
        assert_limit_holds(&subject, &mut client, first, &pipeline, first + COUNT);
    }
}

#[test]
fn small_writes_to_a_long_text_are_not_charged_for_all_of_it() {
    const COUNT: usize = 300;
    for sync_writes in ["true", "false"] {
        let directory = directory();
        let arguments = ["--cores", "1", "--max-memory", "256MB", "--sync-writes", sync_writes];
        let subject = Subject::start(directory.path(), &arguments);
        let mut client = subject.connect();
        assert_eq!(client.say("SETRANGE {k}a 20000000 x").integer(), 20_000_001);
        assert_eq!(client.say("SETRANGE {k}small 1000 x").integer(), 1001);
        let pipeline = pipeline_of(COUNT, |number| match number % 4 {
            0 => words(&format!("SETRANGE {{k}}a {number} y")),
            1 => words("APPEND {k}a z"),
            2 => words("STRLEN {k}a"),
            _ => words(&format!("COPY {{k}}small {{k}}b:{number}")),
        });
        client.send_raw(&pipeline);
        let mut length = 20_000_001;
        for number in 0..COUNT {
            length += i64::from(number % 4 == 1);
            let expected = if number % 4 == 3 { 1 } else { length };
            assert_eq!(client.receive(), Reply::Integer(expected), "number {number}");
        }
    }
}
