//! The binary, fed through a pipe, and with a reader that goes away.

use std::io::Read;
use std::process::{Output, Stdio};

use eyot_client::{ErrorCode, Operation};

use crate::command_line::{code, eyot, with_input};
use crate::server::{Act, Mock};

fn feed(mock: &Mock, options: &[&str], input: &str) -> Output {
    let mut command = eyot();
    command.args(["--address", &mock.address.to_string()]).args(options);
    with_input(command, input.as_bytes())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn commands_come_one_a_line_without_a_prompt() {
    let mock = Mock::start();
    let output = feed(&mock, &[], "SET a \"one two\"\n\n  get a\nput b 'x\\ny'\nGET b\nPING");
    assert_eq!(text(&output.stdout), "OK\none two\nOK\nx\\ny\nPONG\n");
    assert_eq!(code(&output), 0);
    assert!(output.stderr.is_empty());
}

#[test]
fn one_that_fails_does_not_stop_the_others() {
    let mock = Mock::start();
    let output = feed(&mock, &[], "GET nobody\nfrobnicate\nSET a 1\nGET 'a\nGET a\n");
    assert_eq!(text(&output.stdout), "(nil)\nOK\n1\n");
    assert_eq!(code(&output), 1, "the first that failed");
    let errors = text(&output.stderr);
    assert!(errors.contains("unknown command \"frobnicate\"") && errors.contains("no closing '"), "{errors}");
}

#[test]
fn nothing_follows_quit() {
    let mock = Mock::start();
    let output = feed(&mock, &[], "SET a 1\nquit\nSET b 2\n");
    assert_eq!((code(&output), mock.count(Operation::Set)), (0, 1));
}

#[test]
fn json_answers_come_one_a_line() {
    let mock = Mock::scripted(|seen| match seen.operation {
        Operation::Exists => Act::Refuse(ErrorCode::InvalidArgument, "no"),
        _ => Act::Serve,
    });
    let output = feed(&mock, &["--json"], "SET a 1\nGET a\nEXISTS a\nnonsense\nHELP get\n");
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ok: Vec<_> = lines.iter().map(|line| line["ok"].as_bool()).collect();
    assert_eq!(ok, [Some(true), Some(true), Some(false), Some(false), Some(true)]);
    assert_eq!(lines[2]["error"]["code"], "INVALID_ARGUMENT");
    assert_eq!(lines[3]["error"]["code"], "USAGE");
}

#[test]
fn no_input_is_no_error() {
    let mock = Mock::start();
    let output = feed(&mock, &[], "");
    assert_eq!((code(&output), output.stdout.len()), (0, 0));
}

#[test]
fn input_without_an_address_that_answers_is_exit_code_3() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let mut command = eyot();
    command.args(["--address", &address]);
    assert_eq!(code(&with_input(command, b"GET a\n")), 3);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mock = Mock::start();
    let mut command = eyot();
    command.args(["--address", &mock.address.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // `head -c 1`: reads a little, and closes.
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        for _ in 0..100_000 {
            if stdin.write_all(b"PING\n").is_err() {
                return;
            }
        }
    });
    stdout.read_exact(&mut [0]).expect("the first answer begins");
    drop(stdout);
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}
