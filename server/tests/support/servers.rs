//! The servers that RESP tests talk to: Eyot with its RESP listener, and Debian's redis-server, the yardstick.
//!
//! Place in the flow: outside of it.
//!
//! Invariants:
//! - Both are processes of the test's own, with their data in a directory of its own; they end with their handles.
//! - `EYOT_RESP_SUBJECT=redis` puts redis-server in Eyot's place: what a test asks of Eyot, Redis must then fulfil, so
//!   that the test itself is tested. What only Eyot promises is left out there.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::resp::{Reply, RespClient};
use super::{directory, wait_until, Server, PATIENCE};

/// What to do where a program of the tests is missing.
pub const REMEDY: &str = "run scripts/setup.sh --test, which installs what the tests need";

/// Attempts to find a port that nobody took between the looking and the listening.
const PORT_ATTEMPTS: usize = 20;

/// Whether redis-server stands in for Eyot.
pub fn redis_is_the_subject() -> bool {
    std::env::var("EYOT_RESP_SUBJECT").is_ok_and(|subject| subject == "redis")
}

/// A process of redis-server: one database, nothing on disk. It is killed when this is dropped.
pub struct Redis {
    child: Child,
    pub address: SocketAddr,
    _directory: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When there is no redis-server on this machine, with the remedy.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            if let Some(redis) = Self::start_on(free_port(), arguments) {
                return redis;
            }
        }
        panic!("redis-server found no free port in {PORT_ATTEMPTS} attempts");
    }

    fn start_on(port: u16, arguments: &[&str]) -> Option<Self> {
        let directory = directory();
        let spawned = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--databases", "1"])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no"])
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = spawned.unwrap_or_else(|error| panic!("redis-server does not start ({error}): {REMEDY}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut redis = Self { child, address, _directory: directory };
        let id = redis.child.id().to_string();
        let (mut ended, mut ours) = (false, false);
        wait_until("redis-server answers", || {
            ended = redis.child.try_wait().expect("a child").is_some();
            // Another server may have the port: the one that answers must be the one that was started.
            ours = !ended && redis.process_id().is_some_and(|answering| answering == id);
            ended || ours
        });
        ours.then_some(redis)
    }

    /// The id of the process that answers on the port, if one does.
    fn process_id(&self) -> Option<String> {
        let stream = std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        let mut client = RespClient::of(stream);
        let mut request = Vec::new();
        super::resp::put_command(&mut request, &["INFO", "server"]);
        std::io::Write::write_all(&mut client.stream, &request).ok()?;
        let info = client.try_receive().ok()??;
        let line = info.text().lines().find_map(|line| line.strip_prefix("process_id:"))?;
        Some(line.to_owned())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<std::process::ExitStatus> = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}

/// The server that a test is about.
pub enum Subject {
    Eyot { server: Box<Server>, address: SocketAddr, core_addresses: Vec<SocketAddr> },
    Redis(Redis),
}

impl Subject {
    /// Starts Eyot with its data in `directory` and a RESP listener on a free port.
    #[track_caller]
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        if redis_is_the_subject() {
            return Self::Redis(Redis::start(&[]));
        }
        let mut all = vec!["--resp-address", "127.0.0.1:0"];
        all.extend_from_slice(arguments);
        let server = Box::new(Server::start(directory, &all));
        let (address, core_addresses) = resp_addresses(&server);
        Self::Eyot { server, address, core_addresses }
    }

    /// As [`start`](Self::start), for tests of clusters: each of Eyot's cores is a node, and a redis-server in its
    /// place a cluster of one.
    #[track_caller]
    pub fn start_cluster(directory: &Path, arguments: &[&str]) -> Self {
        if !redis_is_the_subject() {
            return Self::start(directory, arguments);
        }
        let redis = Redis::start(&["--cluster-enabled", "yes"]);
        let mut client = RespClient::connect(redis.address);
        client.must("CLUSTER ADDSLOTSRANGE 0 16383");
        wait_until("the cluster is up", || client.say("CLUSTER INFO").text().contains("cluster_state:ok"));
        Self::Redis(redis)
    }

    /// Requests that reached a core that does not own their key, since the start.
    pub fn forwarded(&self) -> u64 {
        let Some(server) = self.eyot() else { return 0 };
        let stats = server.stats();
        let cores = stats["cores"].as_array().expect("a list of cores");
        cores.iter().map(|core| core["forwarded"].as_u64().expect("a count")).sum()
    }

    /// Where it speaks RESP.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Eyot { address, .. } => *address,
            Self::Redis(redis) => redis.address,
        }
    }

    /// For each core, the RESP address whose connections it holds.
    pub fn core_addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Eyot { core_addresses, .. } => core_addresses.clone(),
            Self::Redis(redis) => vec![redis.address],
        }
    }

    pub fn id(&self) -> u32 {
        match self {
            Self::Eyot { server, .. } => server.id(),
            Self::Redis(redis) => redis.id(),
        }
    }

    /// Eyot's process, if it is Eyot.
    pub fn eyot(&self) -> Option<&Server> {
        match self {
            Self::Eyot { server, .. } => Some(server),
            Self::Redis(_) => None,
        }
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> RespClient {
        RespClient::connect(self.address())
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(self) {
        match self {
            Self::Eyot { server, .. } => drop(server.kill()),
            Self::Redis(redis) => drop(redis),
        }
    }

    /// What INFO says under `name`, as its text.
    #[track_caller]
    pub fn info(&self, name: &str) -> String {
        let reply = self.connect().say("INFO everything");
        let line = reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_else(|| panic!("INFO has no {name}: {reply:?}"))
    }

    /// Memory that the process holds now.
    pub fn rss_bytes(&self) -> u64 {
        status_bytes(self.id(), "VmRSS:")
    }

    /// The most memory that the process has held.
    pub fn peak_rss_bytes(&self) -> u64 {
        status_bytes(self.id(), "VmHWM:")
    }
}

fn status_bytes(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kibibytes") * 1024
}

/// The RESP address of the node, and that of each core, from what the server says once it is ready.
fn resp_addresses(server: &Server) -> (SocketAddr, Vec<SocketAddr>) {
    let mut found = None;
    wait_until("the RESP listener is announced", || {
        let said = server.said();
        let after = |line: &str, mark: &str| line.split_once(mark)?.1.split_whitespace().next()?.parse().ok();
        let Some(address) = said.lines().find_map(|line| after(line, "RESP listening on ")) else { return false };
        let of_core = |line: &str| {
            let (_, both) = line.split_once(" also listens on ")?;
            both.split_once(" and ")?.1.trim().parse().ok()
        };
        let cores: Vec<SocketAddr> = said.lines().filter_map(of_core).collect();
        let complete = server.core_addresses.len() == 1 || cores.len() == server.core_addresses.len();
        found = complete.then(|| (address, if cores.is_empty() { vec![address] } else { cores }));
        complete
    });
    found.unwrap_or_else(|| panic!("not in {PATIENCE:?}"))
}

/// The path of the program `name`, which a package of this machine must have brought.
///
/// # Panics
/// When it is not there, with the remedy.
#[track_caller]
pub fn program(name: &str) -> String {
    let paths = std::env::var("PATH").unwrap_or_default();
    let found = paths.split(':').map(|place| Path::new(place).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: {REMEDY}")).to_string_lossy().into_owned()
}

/// The keys of a reply that lists some, sorted.
#[track_caller]
pub fn sorted_keys(reply: &Reply) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> =
        reply.elements().iter().map(|key| key.bytes().expect("a key is a bulk").to_vec()).collect();
    keys.sort();
    keys
}
