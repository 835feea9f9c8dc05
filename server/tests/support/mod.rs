//! What the end-to-end tests stand on: the real server as a process, a small blocking client, and seeded dice.
//!
//! Place in the flow: outside of it; the client stands where a user's stands, before step 1 and after step 9.
//!
//! Invariants:
//! - Every wait has a bound, generous enough for a loaded machine; nothing here asserts a speed.
//! - A server's process ends with its handle, whatever becomes of the test.
//! - Data lies beside the build (`CARGO_TARGET_TMPDIR`), on a real disk: where sync costs nothing, its absence is not
//!   seen.
//! - Whatever is random comes from one seed, which a failing test prints; `EYOT_TEST_SEED` sets it.

// Every test program uses its own part of this module.
#![allow(dead_code, unused_imports)]

pub mod claims;
mod client;
pub mod resp;
pub mod servers;

pub use client::{bytes_value, number_of, number_value, Answer, Client};
pub use resp::{Reply, RespClient};
pub use servers::{Redis, Subject};

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::SeedableRng;
use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

/// How long anything may take before a test gives up: a debug build on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(50);
/// How often a condition that has no event is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A directory that goes away with its handle.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("eyot-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk")
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The number of cores that tests with several use: two, where the machine has them.
pub fn several_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// Random numbers from one seed.
pub struct Dice {
    pub rng: StdRng,
    seed: u64,
}

impl Dice {
    /// Dice of the seed in `EYOT_TEST_SEED`, or of a new one.
    pub fn new() -> Self {
        let seed = match std::env::var("EYOT_TEST_SEED") {
            Ok(text) => text.parse().expect("EYOT_TEST_SEED is a number"),
            Err(_) => rand::random(),
        };
        Self { rng: StdRng::seed_from_u64(seed), seed }
    }

    /// What `EYOT_TEST_SEED` must be for the same numbers.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with EYOT_TEST_SEED={}", self.seed);
        }
    }
}

/// How a server ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails unless the process ended with `code` and each of `words` stands in what it wrote to standard error.
    #[track_caller]
    pub fn assert_code(&self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:#?}");
        }
    }
}

/// What a process has said so far on one of its outputs.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn text(&self) -> String {
        self.0.lock().expect("no reader panics").clone()
    }

    /// Gathers `output` to its end, on a thread of its own, which the receiver's end tells.
    fn listen(output: impl Read + Send + 'static) -> (Self, Receiver<String>) {
        let (said, (lines, heard)) = (Self::default(), channel());
        let gathered = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                let mut text = gathered.0.lock().expect("no reader panics");
                text.push_str(&line);
                text.push('\n');
                drop(text);
                // Nobody may be waiting for it any more.
                let _: Result<(), _> = lines.send(line);
            }
        });
        (said, heard)
    }
}

/// A process of the real server. It is killed when this is dropped.
pub struct Server {
    child: Child,
    stdout: Said,
    stderr: Said,
    lines: Receiver<String>,
    complaints: Receiver<String>,
    /// The address that every core listens on.
    pub address: SocketAddr,
    /// For each core, the address whose connections it holds.
    pub core_addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts a server with its data in `directory`, and waits until it is ready. `arguments` go before the tests'
    /// defaults: a free port, segments of 1 MiB, several cores.
    #[track_caller]
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        match Self::launch(&mut command(directory, arguments)) {
            Ok(server) => server,
            Err(ended) => panic!("the server did not start: {ended:#?}"),
        }
    }

    /// Starts the server of `command` (see [`command`]) and waits until it is ready, or has ended.
    pub fn launch(command: &mut Command) -> Result<Self, Ended> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's program starts");
        let (stdout, lines) = Said::listen(child.stdout.take().expect("piped"));
        let (stderr, complaints) = Said::listen(child.stderr.take().expect("piped"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child, stdout, stderr, lines, complaints, address: nowhere, core_addresses: Vec::new() };
        let started = Instant::now();
        loop {
            match server.lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    if server.heard_all(&line) {
                        return Ok(server);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(server.wait()),
                Err(RecvTimeoutError::Timeout) => panic!("not ready in {PATIENCE:?}: {}", server.said()),
            }
        }
    }

    /// Takes a line of standard output; whether all addresses are known by it.
    fn heard_all(&mut self, line: &str) -> bool {
        let address_after = |mark: &str| {
            let rest = line.split_once(mark)?.1;
            rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
        };
        if let Some(address) = address_after(" is ready: listening on ") {
            self.address = address;
            if line.contains("(1 cores, ") {
                self.core_addresses = vec![address];
                return true;
            }
        }
        self.core_addresses.extend(address_after(" also listens on "));
        let cores = self.stdout.text();
        let count = cores.split_once(" cores, ").and_then(|(before, _)| before.rsplit_once('(')?.1.parse().ok());
        count == Some(self.core_addresses.len())
    }

    /// All that the server has said so far.
    pub fn said(&self) -> String {
        format!("stdout:\n{}stderr:\n{}", self.stdout.text(), self.stderr.text())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A new connection that `core` holds.
    #[track_caller]
    pub fn connect_to_core(&self, core: usize) -> Client {
        Client::connect(self.core_addresses[core])
    }

    /// What STATS says, asked over a connection of its own.
    #[track_caller]
    pub fn stats(&self) -> serde_json::Value {
        self.connect().stats()
    }

    /// Ends the process at once, as a crash does, and waits until it is gone. What it had said is returned.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("the process is ours");
        self.wait()
    }

    /// Asks the process to end.
    pub fn ask_to_end(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the process is ours");
    }

    /// Asks the process to end and waits for it.
    pub fn terminate(self) -> Ended {
        self.ask_to_end();
        self.wait()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        };
        // Both outputs end with the process: their last lines are waited for.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        while self.complaints.recv_timeout(PATIENCE).is_ok() {}
        Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Memory that the process holds now.
    pub fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that the process has held.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kibibytes") * 1024
    }

    /// Processor time that the process has used, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the process runs");
        // The name, in parentheses, is the only field that may hold spaces; user and system time are the 14th and 15th.
        let fields = stat.rsplit_once(')').expect("a name in parentheses").1;
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server had said:\n{}", self.said());
        }
        // An error means that it has ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

/// The server's command line: `arguments`, then the tests' defaults for what they leave out.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let cores = several_cores().to_string();
    let data_dir = directory.to_str().expect("a readable path");
    let mut command = Command::new(env!("CARGO_BIN_EXE_eyot-server"));
    // What the tester has set for other servers is not meant for this one.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EYOT_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    let defaults = [
        ("--address", "127.0.0.1:0"),
        ("--resp-address", "127.0.0.1:0"),
        ("--wal-segment-size", "1MiB"),
        ("--cores", &cores),
        ("--data-dir", data_dir),
    ];
    for (flag, value) in defaults {
        let given = |argument: &&str| argument.split('=').next() == Some(flag);
        if !arguments.iter().any(given) {
            command.args([flag, value]);
        }
    }
    command
}

/// Runs the server to its end, which must come by itself.
#[track_caller]
pub fn run(directory: &Path, arguments: &[&str]) -> Ended {
    run_command(&mut command(directory, arguments))
}

/// Runs `command` to its end, which must come by itself.
#[track_caller]
pub fn run_command(command: &mut Command) -> Ended {
    match Server::launch(command) {
        Ok(server) => panic!("the server started, but should not have: {}", server.said()),
        Err(ended) => ended,
    }
}

/// Every file of a data directory with its bytes, but for the lock file, which each start writes its process id into.
pub fn files_of(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().is_some_and(|name| name != "LOCK") {
                match fs::read(&path) {
                    Ok(bytes) => found.push((path, bytes)),
                    // A server that runs removes and renames some: segments, and snapshots that are done.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => panic!("a readable file: {}: {error}", path.display()),
                }
            }
        }
    }
    found.sort();
    found
}
