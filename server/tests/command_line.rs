//! The server's command line: help, preflight, environment, and what it says to values that will not do.
//!
//! Place in the flow: before step 1. What the values mean is tested where they act.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use eyot_server::config::Config;
use rustix::process::{kill_process, Pid, Signal};

use support::{command, directory, files_of, run, run_command, wait_until, Server};

#[test]
fn help_mentions_every_flag_and_its_variable() {
    let ended = run(directory().path(), &["--help"]);
    assert_eq!(ended.status.code(), Some(0));
    for argument in Config::command().get_arguments() {
        let flag = format!("--{}", argument.get_long().expect("every setting is a flag"));
        assert!(ended.stdout.contains(&flag), "{flag} is not in\n{}", ended.stdout);
        if let Some(name) = argument.get_env() {
            let name = name.to_string_lossy();
            assert!(ended.stdout.contains(&*name), "{name} is not in\n{}", ended.stdout);
        }
    }
    let version = run(directory().path(), &["--version"]);
    assert_eq!(version.stdout.trim(), concat!("eyot-server ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn preflight_tells_each_need_and_starts_nothing() {
    let directory = directory();
    let ended = run(directory.path(), &["--preflight"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    for need in ["kernel 6.1", "io_uring", "locked memory", "open files", "data directory"] {
        assert!(ended.stdout.lines().any(|line| line.starts_with("ok") && line.contains(need)), "{need}: {ended:#?}");
    }
    assert!(files_of(directory.path()).is_empty(), "a look around leaves nothing behind");
}

#[test]
fn preflight_fails_with_the_number_of_the_first_need_that_is_not_met_and_tells_the_others() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let ended = run(&file.join("below"), &["--preflight"]);
    ended.assert_code(14, &["remedy"]);
    assert!(ended.stdout.contains("FAIL  data directory") && ended.stdout.contains("ok    io_uring"), "{ended:#?}");

    let server = command(&file.join("below"), &["--preflight"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--memlock=65536:65536").arg(server.get_program()).args(server.get_args());
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("skipped: no prlimit");
        return;
    }
    let ended = run_command(&mut limited);
    ended.assert_code(12, &["locked memory", "remedy"]);
    assert_eq!(ended.stdout.matches("FAIL").count(), 2, "{ended:#?}");
}

#[test]
fn settings_come_from_the_environment_and_flags_win() {
    let directory = directory();
    let mut environment = command(directory.path(), &["--node-id", "by-flag"]);
    environment.env("EYOT_NODE_ID", "by-environment").env("EYOT_SHARDS", "6").env("EYOT_MAX_MEMORY", "64MB");
    environment.env("EYOT_SYNC_WRITES", "false").env("EYOT_MAX_CONNECTIONS", "77").env("EYOT_LOG_FORMAT", "json");
    let server = Server::launch(&mut environment).expect("a start");
    let stats = server.stats();
    assert_eq!(stats["raft"]["node_id"], "by-flag");
    assert_eq!(stats["raft"]["shards"], 6);
    assert_eq!(stats["storage"]["max_memory"], 64 << 20);
    assert_eq!(stats["storage"]["sync_writes"], false);
    let ended = server.terminate();
    assert_eq!(ended.status.code(), Some(0));
    assert!(!ended.stderr.is_empty(), "stopping is logged");
    for line in ended.stderr.lines() {
        let _: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    }
}

#[test]
fn a_value_that_will_not_do_names_its_flag() {
    let directory = directory();
    for (flag, value) in [
        ("--address", "nowhere"),
        ("--address", "127.0.0.1"),
        ("--core-port-base", "65536"),
        ("--peers", "b:6381"),
        ("--max-memory", "lots"),
        ("--sync-writes", "maybe"),
        ("--flush-interval", "0ms"),
        ("--flush-interval", "soon"),
        ("--enable-metrics", "2"),
        ("--cores", "0-"),
        ("--cores", "0,0"),
        ("--shards", "0"),
        ("--shards", "4097"),
        ("--max-connections", "0"),
        ("--max-connections", "-1"),
        ("--max-value-size", "1TB"),
        ("--wal-segment-size", "12KiB"),
        ("--spin-us", "-5"),
        ("--log-format", "xml"),
        ("--log-level", "=loud"),
        ("--unknown", "1"),
    ] {
        let ended = run(directory.path(), &[&format!("{flag}={value}")]);
        ended.assert_code(2, &[flag]);
    }
    let ended = run(directory.path(), &["--node-id", "no spaces"]);
    ended.assert_code(2, &["no spaces"]);
    let mut environment = command(directory.path(), &[]);
    environment.env("EYOT_SHARDS", "none");
    run_command(&mut environment).assert_code(2, &["--shards", "none"]);
}

/// As under a pipe whose reader ended: what is logged then goes nowhere, and the node goes on until it is stopped.
#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let directory = directory();
    let mut server = command(directory.path(), &[]);
    let mut child = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server starts");
    drop(child.stderr.take());
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it says where it listens");
    assert!(line.contains("is ready"), "{line}");
    drop(output);
    // The stop is logged.
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
    let mut ended = None;
    wait_until("the server ends", || {
        ended = child.try_wait().expect("a child");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
