//! The real program: its help, its exit codes, its JSON, its answer to a signal.

mod support;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::{io_uring_is_refused, Behaviour, Mock};

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eyot-loadgen"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Runs the program against a server of this behaviour; returns its exit code and all that it printed.
fn run(behaviour: Behaviour, line: &str) -> (i32, String) {
    let mock = Mock::start(behaviour);
    let protocol = if behaviour.resp { "resp" } else { "native" };
    let line = format!("--address {} --protocol {protocol} --warmup 0s --keys 100 {line}", mock.address);
    let output = command(&line).output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

#[test]
fn help_names_every_option_and_exit_code() {
    let output = command("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output);
    for word in [
        "--address",
        "--protocol",
        "--clients",
        "--pipeline",
        "--ratio",
        "--value-size",
        "--keys",
        "--key-prefix",
        "--distribution",
        "--requests",
        "--duration",
        "--rate",
        "--warmup",
        "--threads",
        "--cpu",
        "--preload",
        "--verify",
        "--ack",
        "--route",
        "--foreign-share",
        "--server-pid",
        "--json",
        "--quiet",
        "--seed",
        "--timeout",
        "Exit codes",
    ] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_option() {
    for (line, names) in [
        ("--no-such-option", "--no-such-option"),
        ("--ratio 1", "--ratio"),
        ("--verify --value-size 1", "--value-size"),
        ("--server-pid 4294967295", "--server-pid"),
    ] {
        let output = command(line).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output).contains(names), "{line}: {}", text(&output));
    }
}

#[test]
fn no_server_ends_with_3() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = command(&format!("--address {closed}")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains(&closed.to_string()));
    let unknown = command("--address no.such.host.invalid:1").output().unwrap();
    assert_eq!(unknown.status.code(), Some(3), "{}", text(&unknown));
}

#[test]
fn what_the_server_does_decides_the_exit_code() {
    if io_uring_is_refused() {
        return;
    }
    let right = Behaviour::default();
    for resp in [false, true] {
        for (behaviour, line, code, says) in [
            (right, "--verify", 0, "verified"),
            (Behaviour { refuse_sets: true, ..right }, "--ratio 1:1", 1, "BUSY"),
            (Behaviour { close_at: Some(50), ..right }, "", 4, "lost"),
            (Behaviour { silent_from: Some(50), ..right }, "--timeout 300ms", 4, "not answered within 300ms"),
            (Behaviour { flip_bit_in: Some(500), ..right }, "--verify --ratio 1:1", 5, "VIOLATION"),
        ] {
            let line = format!("--clients 4 --requests 1000 {line}");
            let (got, printed) = run(Behaviour { resp, ..behaviour }, &line);
            assert_eq!(got, code, "{line}: {printed}");
            assert!(printed.contains(says), "{line}: {printed}");
        }
    }
}

#[test]
fn the_other_protocol_is_told_and_not_waited_for() {
    if io_uring_is_refused() {
        return;
    }
    // A native client reads this as a frame of more than 700 MiB.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::io::Write::write_all(&mut socket.unwrap(), b"-ERR unknown command\r\n").unwrap();
        }
    });
    let output = command(&format!("--address {address} --warmup 0s --requests 10 --clients 1")).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    let routed = command(&format!("--address {address} --route")).output().unwrap();
    assert_eq!(routed.status.code(), Some(3), "{}", text(&routed));
}

#[test]
fn json_has_arguments_machine_and_latencies_with_units() {
    if io_uring_is_refused() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let line = format!("--requests 500 --server-pid {} --json {}", std::process::id(), file.display());
    let (code, printed) = run(Behaviour::default(), &line);
    assert_eq!(code, 0, "{printed}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for (pointer, is) in [
        ("/arguments/clients", serde_json::json!(50)),
        ("/arguments/ratio", serde_json::json!("1:10")),
        ("/arguments/timeout_s", serde_json::json!(10.0)),
        ("/requests", serde_json::json!(500)),
        ("/phase", serde_json::json!("measuring")),
    ] {
        assert_eq!(report.pointer(pointer), Some(&is), "{pointer}");
    }
    for pointer in [
        "/machine/cpu_model",
        "/machine/kernel",
        "/rate_per_s",
        "/elapsed_s",
        "/get/p50_us",
        "/get/p90_us",
        "/get/p99_us",
        "/get/p99_9_us",
        "/get/p99_99_us",
        "/get/max_us",
        "/get/mean_us",
        "/set/count",
        "/server/cpu_us_per_operation",
        "/server/voluntary_context_switches",
        "/generator_process/cpu_us_per_operation",
        "/received_bytes_per_s",
    ] {
        assert!(report.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer} in {report}");
    }
    for line in ["p99.99", "server CPU", "machine ", "operations/s"] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
}

#[test]
fn an_interruption_ends_the_load_and_prints_what_there_is() {
    if io_uring_is_refused() {
        return;
    }
    let mock = Mock::start(Behaviour::default());
    let line = format!("--address {} --warmup 0s --duration 60s --clients 2", mock.address);
    let child = command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while mock.requests() < 100 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("by a signal") && text(&output).contains("p99.99"), "{}", text(&output));
}
