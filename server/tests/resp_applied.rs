//! What an error says of a write: one that is refused was not applied, and one that was applied is answered with what
//! it did, however much a pipeline asks to be told.
//!
//! Place in the flow: steps 3 (admit), 8 (apply) and 9 (reply) from outside.

mod support;

use support::resp::put_command;
use support::{directory, Reply, RespClient, Subject};

const KIB: usize = 1 << 10;

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
