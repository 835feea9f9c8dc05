//! Machines, directories and ports on which the server must not start: each a number of its own, with cause and remedy.
//!
//! Place in the flow: start-up. The numbers are those of `docs/OPERATIONS.md`.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use eyot_protocol::request::{Request, RequestOptions};
use eyot_server::error::StopReason;

use crate::support::{command, directory, files_of, number_value, run, run_command, several_cores, Server};

fn code(reason: StopReason) -> i32 {
    reason.exit_code()
}

#[test]
fn a_port_in_use_is_told_and_the_directory_is_left_alone() {
    let (used, unused) = (directory(), directory());
    let server = Server::start(used.path(), &[]);
    let address = server.address.to_string();
    let ended = run(unused.path(), &["--address", &address]);
    ended.assert_code(code(StopReason::Listen), &[&address, "remedy"]);
    assert!(files_of(unused.path()).is_empty());
    assert_eq!(server.stats()["storage"]["keys"], 0);
}

#[test]
fn two_servers_on_one_directory_are_one_too_many() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    server.connect().must_set(b"key", &number_value(1));
    let ended = run(directory.path(), &[]);
    ended.assert_code(code(StopReason::DataDirectoryInUse), &[&server.id().to_string(), "remedy"]);
    assert!(server.connect().get(b"key").value().is_some(), "the first one lives");
    assert_eq!(server.terminate().status.code(), Some(0));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    for path in [file.join("below"), file.clone(), "/proc/eyot-data".into()] {
        let ended = run(&path, &[]);
        ended.assert_code(code(StopReason::DataDirectory), &[path.to_str().unwrap(), "remedy"]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"in the way");
}

#[test]
fn another_nodes_directory_is_refused_unchanged() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--node-id", "first", "--shards", "4"]);
    server.connect().must_set(b"key", &number_value(1));
    assert_eq!(server.terminate().status.code(), Some(0));
    let before = files_of(directory.path());
    let foreign = code(StopReason::DataDirectoryForeign);
    run(directory.path(), &["--node-id", "second"]).assert_code(foreign, &["first", "second", "remedy"]);
    run(directory.path(), &["--shards", "8"]).assert_code(foreign, &["4 shards", "8", "remedy"]);
    assert!(before == files_of(directory.path()), "a refused start changed the directory");
    let server = Server::start(directory.path(), &["--node-id", "first", "--shards", "4"]);
    assert!(server.connect().get(b"key").value().is_some());
}

#[test]
fn a_damaged_or_missing_identity_is_refused() {
    let directory = directory();
    Server::start(directory.path(), &[]).terminate();
    let identity = directory.path().join("IDENTITY");
    let text = fs::read_to_string(&identity).unwrap();
    let foreign = code(StopReason::DataDirectoryForeign);
    fs::write(&identity, text.replace("shards=", "shards=1")).unwrap();
    run(directory.path(), &[]).assert_code(foreign, &["IDENTITY", "damaged"]);
    fs::remove_file(&identity).unwrap();
    run(directory.path(), &[]).assert_code(foreign, &["IDENTITY", "backup"]);
    fs::write(&identity, text).unwrap();
    Server::start(directory.path(), &[]);
}

#[test]
fn processors_that_the_machine_has_not_are_told() {
    let directory = directory();
    let ended = run(directory.path(), &["--cores", "4095"]);
    ended.assert_code(code(StopReason::Processors), &["--cores 4095", "remedy"]);
}

/// Runs the server under `wrapper`, another program that takes a command line; `None` where that program is not there.
fn run_under(wrapper: &[&str], directory: &std::path::Path) -> Option<crate::support::Ended> {
    let found = Command::new(wrapper[0]).arg("--version").output();
    if found.is_err() {
        eprintln!("skipped: no {}", wrapper[0]);
        return None;
    }
    let server = command(directory, &[]);
    let mut wrapped = Command::new(wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(server.get_program()).args(server.get_args());
    Some(run_command(&mut wrapped))
}

#[test]
fn limits_that_are_too_small_are_told_with_what_is_needed() {
    let directory = directory();
    if let Some(ended) = run_under(&["prlimit", "--memlock=65536:65536"], directory.path()) {
        ended.assert_code(code(StopReason::LockedMemory), &["64 KiB", "512 KiB", "remedy"]);
    }
    if let Some(ended) = run_under(&["prlimit", "--nofile=256:256"], directory.path()) {
        ended.assert_code(code(StopReason::OpenFiles), &["256 files", "--max-connections", "remedy"]);
    }
    assert!(files_of(directory.path()).is_empty());
}

#[test]
fn a_refused_io_uring_is_told_with_its_cause() {
    let directory = directory();
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no strace, or it may not trace here");
        return;
    }
    let inject = |error: &str| {
        let injected = format!("inject=io_uring_setup:error={error}");
        run_under(&["strace", "-f", "-o", "/dev/null", "-e", "trace=io_uring_setup", "-e", &injected], directory.path())
            .expect("strace was there")
    };
    inject("EPERM").assert_code(code(StopReason::IoUringRefused), &["io_uring", "remedy"]);
    inject("ENOSYS").assert_code(code(StopReason::IoUringRefused), &["io_uring", "remedy"]);
    inject("ENOMEM").assert_code(code(StopReason::LockedMemory), &["io_uring", "ulimit -l"]);
    inject("EINVAL").assert_code(code(StopReason::KernelTooOld), &["io_uring", "6.1"]);
}

#[test]
fn a_core_that_fails_ends_the_whole_node() {
    let directory = directory();
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) || several_cores() < 2 {
        eprintln!("skipped: no strace, or it may not trace here, or one processor only");
        return;
    }
    let server = command(directory.path(), &["--cores", "2"]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-o", "/dev/null", "-e", "trace=io_uring_enter"]);
    // Counted for each thread: only the core that is kept busy comes so far.
    traced.args(["-e", "inject=io_uring_enter:error=EINVAL:when=400+"]);
    traced.arg(server.get_program()).args(server.get_args());
    let server = Server::launch(&mut traced).expect("the node starts before the injected error");
    let mut client = server.connect_to_core(1);
    let mut ping = Vec::new();
    client.put(&mut ping, &Request::Ping { payload: &[3, 0] }, &RequestOptions::default());
    for _ in 0..2000 {
        let mut answer = [0; 64];
        if client.stream.write_all(&ping).is_err() || client.stream.read(&mut answer).is_ok_and(|count| count == 0) {
            break;
        }
    }
    let ended = server.wait();
    ended.assert_code(code(StopReason::RingFailed), &["io_uring_enter", "remedy"]);
}
