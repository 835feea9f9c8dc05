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
