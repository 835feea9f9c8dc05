//! The binary, one command at a time: answers, errors, exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use eyot_client::{ErrorCode, Expiry, Operation};

use crate::server::{Act, Mock};

/// The binary, with an environment that does not depend on who runs the tests.
pub fn eyot() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eyot"));
    for name in ["EYOT_ADDRESS", "EYOT_PASSWORD", "EYOT_PASSWORD_FILE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub fn run(mock: &Mock, arguments: &[&str]) -> Output {
    eyot().args(["--address", &mock.address.to_string()]).args(arguments).output().expect("runs")
}

/// Exit code and standard output.
pub fn answer(mock: &Mock, arguments: &[&str]) -> (i32, String) {
    let output = run(mock, arguments);
    (code(&output), String::from_utf8(output.stdout).expect("text"))
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code, not a signal")
}

pub fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // The process may end before it has read everything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("ends")
}

fn done(text: &str) -> (i32, String) {
    (0, format!("{text}\n"))
}

#[test]
fn set_then_get_prints_the_value_raw() {
    let mock = Mock::start();
    let json = r#"{"name":"John","age":30}"#;
    assert_eq!(answer(&mock, &["set", "user:1", json]), done("OK"));
    assert_eq!(answer(&mock, &["get", "user:1"]), done(json));
    assert_eq!(answer(&mock, &["PUT", "n", "-5"]), done("OK"));
    assert_eq!(answer(&mock, &["GET", "n"]), done("-5"));
    assert_eq!(mock.stored("n").as_deref(), Some(&b"\x01\x02-5"[..]));
}

#[test]
fn a_missing_key_is_nil_and_exit_code_1() {
    let mock = Mock::start();
    assert_eq!(answer(&mock, &["get", "nobody"]), (1, "(nil)\n".to_owned()));
    let json = "{\"ok\":true,\"value\":null,\"version\":null}\n".to_owned();
    assert_eq!(answer(&mock, &["get", "nobody", "--json"]), (1, json));
    assert_eq!(answer(&mock, &["delete", "a", "b"]), (1, "0\n".to_owned()));
    assert_eq!(answer(&mock, &["exists", "a"]), (1, "0\n".to_owned()));
}

#[test]
fn conditions_and_times_to_live_stand_behind_the_value() {
    let mock = Mock::start();
    assert_eq!(answer(&mock, &["set", "k", "v", "EX", "60", "NX"]), done("OK"));
    assert_eq!(mock.seen()[0].expiry, Some(Expiry::AfterMs(60_000)));
    let (code, text) = answer(&mock, &["set", "k", "v", "nx"]);
    assert_eq!((code, text.as_str()), (1, "not stored: the key exists, version 1\n"));
    let json = answer(&mock, &["--json", "set", "k", "w", "IFVERSION", "1"]);
    assert_eq!(json, done(r#"{"ok":true,"value":true,"version":"2"}"#));
}

#[test]
fn delete_and_exists_count_keys() {
    let mock = Mock::start();
    for key in ["a", "b"] {
        run(&mock, &["set", key, "v"]);
    }
    assert_eq!(answer(&mock, &["exists", "a", "b", "c"]), done("2"));
    assert_eq!(answer(&mock, &["del", "a", "b", "c"]), done("2"));
}

#[test]
fn values_have_types() {
    let mock = Mock::start();
    for (value_type, given, stored, shown) in [
        ("int32", "42", &b"\x02\x2a\0\0\0"[..], "42"),
        ("bool", "true", &b"\x05\x01"[..], "true"),
        ("bytes", "0x00ff", &b"\x07\x02\x00\xff"[..], "0x00ff"),
        ("json", r#"["foo",null]"#, &b"\x03\x02\x01\x03foo\x00"[..], r#"["foo",null]"#),
    ] {
        assert_eq!(answer(&mock, &["set", "k", given, "--type", value_type]), done("OK"));
        assert_eq!(mock.stored("k").as_deref(), Some(stored), "{value_type}");
        assert_eq!(answer(&mock, &["get", "k"]), done(shown));
    }
    assert_eq!(answer(&mock, &["set", "k", "x", "--type", "int32"]).0, 2);
}

#[test]
fn a_dash_reads_the_value_from_standard_input() {
    let mock = Mock::start();
    let mut command = eyot();
    command.args(["-a", &mock.address.to_string(), "set", "k", "-"]);
    assert_eq!(code(&with_input(command, "two\nlines\n".as_bytes())), 0);
    assert_eq!(mock.stored("k").as_deref(), Some(&b"\x01\x0atwo\nlines\n"[..]));
    let mut command = eyot();
    command.args(["-a", &mock.address.to_string(), "set", "k", "-"]);
    let refused = with_input(command, &[0xFF, 0xFE]);
    assert_eq!(code(&refused), 2);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--type bytes"));
}

#[test]
fn a_batch_prints_one_result_a_line() {
    let mock = Mock::start();
    let arguments = ["batch", "set", "a", "1", "get", "a", "get", "b", "delete", "a"];
    assert_eq!(answer(&mock, &arguments), done("OK\n1\n(nil)\n1"));
    let (code, json) = answer(&mock, &["--json", "batch", "get", "a", "exists", "a"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, json["value"].as_array().map(Vec::len)), (0, Some(2)));
}

#[test]
fn stats_and_ping_answer() {
    let mock = Mock::start();
    run(&mock, &["set", "a", "1"]);
    let (code, text) = answer(&mock, &["stats"]);
    let stats: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &stats["storage"]["keys"]), (0, &serde_json::json!(1)));
    assert_eq!(answer(&mock, &["ping"]), done("PONG"));
    let (code, line) = answer(&mock, &["stats", "--json"]);
    assert_eq!((code, line.lines().count()), (0, 1));
}

#[test]
fn the_address_may_come_from_the_environment() {
    let mock = Mock::start();
    let output = eyot().env("EYOT_ADDRESS", mock.address.to_string()).arg("ping").output().expect("runs");
    assert_eq!(code(&output), 0);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let mock = Mock::start();
    for arguments in [
        &["get"][..],
        &["frobnicate"],
        &["set", "k", "v", "EX"],
        &["set", "k", "v", "--type", "complex"],
        &["ping", "--timeout", "soon"],
        &["--address", "nowhere", "ping"],
        &["batch", "get"],
    ] {
        let output = run(&mock, arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} is explained");
        assert!(output.stdout.is_empty(), "{arguments:?} prints no answer");
    }
    assert!(mock.seen().is_empty());
}

#[test]
fn no_server_is_exit_code_3_at_once() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    let started = Instant::now();
    let output = eyot().args(["--address", &address, "get", "k"]).output().expect("runs");
    assert_eq!(code(&output), 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
    let output = eyot().args(["--address", &address, "get", "k", "--json"]).output().expect("runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &json["error"]["code"]), (3, &serde_json::json!("CONNECT")));
    assert!(started.elapsed().as_secs() < 3);
}

#[test]
fn something_else_at_the_address_is_exit_code_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let impostor = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    let output = eyot().args(["--address", &address, "ping"]).output().expect("runs");
    impostor.join().expect("ends");
    assert_eq!(code(&output), 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("native port"));
}

#[test]
fn a_refusal_is_exit_code_4() {
    let mock = Mock::scripted(|_| Act::Refuse(ErrorCode::NoSpace, "the disk is full"));
    let output = run(&mock, &["--timeout", "300ms", "set", "k", "v"]);
    assert_eq!(code(&output), 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("NO_SPACE: the disk is full"));
    let (code, json) = answer(&mock, &["--timeout", "300ms", "--json", "set", "k", "v"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["ok"]), (4, &serde_json::json!(false)));
    assert_eq!(json["error"]["code"], "NO_SPACE");
    assert_eq!(json["error"]["outcome"], "not_applied");
}

#[test]
fn no_answer_and_unknown_outcomes_are_exit_code_5() {
    let mock = Mock::scripted(|seen| match seen.operation {
        Operation::Delete => Act::Close,
        Operation::Exists => Act::Refuse(ErrorCode::Unknown, "the log failed"),
        _ => Act::Swallow,
    });
    assert_eq!(answer(&mock, &["--timeout", "200ms", "get", "k"]).0, 5);
    assert_eq!(answer(&mock, &["--timeout", "200ms", "set", "k", "v"]).0, 5);
    let output = run(&mock, &["delete", "k"]);
    assert_eq!(code(&output), 5);
    assert!(String::from_utf8_lossy(&output.stderr).contains("whether it was applied is unknown"));
}

#[test]
fn help_tells_the_exit_codes_and_every_command() {
    let output = eyot().arg("--help").output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0));
    for part in ["Exit codes", "EYOT_ADDRESS", "--no-route", "--type", "get", "set", "batch", "benchmark", "put"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn a_benchmark_measures_and_cleans_up() {
    let mock = Mock::start();
    let (code, json) = answer(&mock, &["--json", "benchmark", "500", "bench", "32"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["ok"]), (0, &serde_json::json!(true)));
    for phase in ["set", "get"] {
        let figures = &json["value"][phase];
        assert_eq!(figures["operations"], 500);
        assert!(figures["ops_per_sec"].as_f64().is_some_and(|rate| rate > 0.0));
        assert!(figures["p50_us"].as_u64() <= figures["p99_9_us"].as_u64());
    }
    assert_eq!((mock.count(Operation::Set), mock.count(Operation::Get)), (500, 500));
    assert_eq!(mock.stored("bench:0"), None);
    let (code, text) = answer(&mock, &["benchmark", "10"]);
    assert_eq!(code, 0);
    assert!(text.contains("SET:") && text.contains("GET:") && text.contains("p99.9"), "{text}");
}
