//! The configuration: each setting once, as flag, `EYOT_` environment variable, default and document.
//!
//! Place in the flow: read once by `main`; what the cores need of it reaches them as [`Settings`], resolved and
//! checked. The reference page `docs/CONFIGURATION.md` is generated from it, and a test keeps the page equal.

mod memory;
mod password;
mod server_tunables;
mod settings;
mod snapshots;
mod tunables;
mod units;

pub use memory::{MemoryConfig, MemorySettings};
pub use password::{load_password, PASSWORD_VARIABLE};
pub use server_tunables::{OutputLimit, ServerTunables, QUERY_BUFFER_BYTES_MAX};
pub use settings::{Settings, MAX_CORES, MAX_SHARDS};
pub use snapshots::SnapshotSettings;
pub use tunables::Tunables;
pub use units::{parse_bytes, parse_duration};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

/// Eyot: a durable, thread-per-core key-value database.
#[derive(Debug, Clone, Parser)]
#[command(name = "eyot-server", version, about, max_term_width = 110)]
#[command(
    after_help = "Exit codes and their remedies: docs/OPERATIONS.md. With no options every listener is on loopback."
)]
#[allow(clippy::struct_excessive_bools)] // Switches, each a setting of its own.
pub struct Config {
    /// Name of this node, kept in its data directory. Default: the directory's, or a new one
    #[arg(long, env = "EYOT_NODE_ID", value_name = "NAME")]
    pub node_id: Option<String>,

    /// Address of the native protocol. Every core listens on it; port 0 takes a free one
    #[arg(long, env = "EYOT_ADDRESS", value_name = "IP:PORT", default_value = "127.0.0.1:6380")]
    pub address: SocketAddr,

    /// First port of the cores' own listeners, by which a client reaches the core that owns a key: core N listens on
    /// this plus N. Default: the port of --address plus 100; only used with more than one core
    #[arg(long, env = "EYOT_CORE_PORT_BASE", value_name = "PORT")]
    pub core_port_base: Option<u16>,

    /// Address of the Redis protocol (RESP2 and RESP3). Every core listens on it; port 0 takes a free one; empty: do
    /// not listen
    #[arg(long, env = "EYOT_RESP_ADDRESS", value_name = "IP:PORT", default_value = "127.0.0.1:6379")]
    pub resp_address: String,

    /// As --core-port-base, for the Redis protocol: what CLUSTER SLOTS tells. Default: the port of --resp-address plus
    /// 1000
    #[arg(long, env = "EYOT_RESP_CORE_PORT_BASE", value_name = "PORT")]
    pub resp_core_port_base: Option<u16>,

    /// Other nodes of the cluster. This version runs alone: only the empty list is accepted
    #[arg(long, env = "EYOT_PEERS", value_name = "LIST", default_value = "")]
    pub peers: String,

    /// Where log and snapshots are kept; created if missing
    #[arg(long, env = "EYOT_DATA_DIR", value_name = "DIR", default_value = "./data")]
    pub data_dir: PathBuf,

    /// Reply to a write when its bytes are on disk. With false, reply from memory: a crash loses at most the last
    /// --flush-interval
    #[arg(long, env = "EYOT_SYNC_WRITES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub sync_writes: bool,

    /// With --sync-writes=false: how long a write may wait for the disk
    #[arg(long, env = "EYOT_FLUSH_INTERVAL", value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    pub flush_interval: Duration,

    /// Measure latencies of operations for STATS
    #[arg(long, env = "EYOT_ENABLE_METRICS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_metrics: bool,

    /// Processors to run on, one core each: auto (all that this process may use), a number, or a list such as 0,2-5
    #[arg(long, env = "EYOT_CORES", value_name = "CORES", default_value = "auto")]
    pub cores: String,

    /// Shards of a new data directory, fixed from then on; auto: 4 per core
    #[arg(long, env = "EYOT_SHARDS", value_name = "NUMBER", default_value = "auto")]
    pub shards: String,

    /// Most connections at a time, over all cores
    #[arg(long, env = "EYOT_MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 10_000)]
    pub max_connections: usize,

    /// Close a connection that has asked nothing for so long; 0: never. CONFIG SET timeout changes it
    #[arg(long, env = "EYOT_IDLE_TIMEOUT", value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub idle_timeout: Duration,

    /// Close a connection whose first request is not complete after so long, one of the native protocol that has sent
    /// nothing, and, where there is a password, one that has not said it; 0: never
    #[arg(long, env = "EYOT_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub handshake_timeout: Duration,

    /// File with the password that clients must know, 1 to 512 bytes; a line end behind it does not count. Only its
    /// owner may have access to it. Or set EYOT_PASSWORD to the password itself. Default: no password
    #[arg(long, env = "EYOT_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Longest encoded value, up to 512MiB
    #[arg(long, env = "EYOT_MAX_VALUE_SIZE", value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub max_value_size: u64,

    /// From this size on, 4KiB to 512MiB, a value is kept in a memory-mapped file of its core, received straight into
    /// it and sent from it without a copy
    #[arg(long, env = "EYOT_MMAP_THRESHOLD", value_name = "BYTES", default_value = "64KiB", value_parser = parse_bytes)]
    pub mmap_threshold: u64,

    /// Keep large values in memory-mapped files. With false they are kept on the heap
    #[arg(long, env = "EYOT_ENABLE_MMAP", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_mmap: bool,

    /// Size of a log segment, 1MiB to 1GiB; a larger one is made for a larger value
    #[arg(long, env = "EYOT_WAL_SEGMENT_SIZE", value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub wal_segment_size: u64,

    /// Snapshot a core's shards after so many bytes of log: auto (a twelfth of its data, at least 64MiB), a size, or 0
    /// for never. Older log is given up: less keeps the disk emptier and starts quicker, more writes less
    #[arg(long, env = "EYOT_SNAPSHOT_LOG_SIZE", value_name = "BYTES", default_value = "auto")]
    pub snapshot_log_size: String,

    /// Snapshot a core's shards so long after the last time, if anything was written; 0: never
    #[arg(long, env = "EYOT_SNAPSHOT_INTERVAL", value_name = "TIME", default_value = "60m", value_parser = parse_duration)]
    pub snapshot_interval: Duration,

    /// How long an idle core looks for work before it sleeps, in microseconds; worth raising only where cores are
    /// dedicated
    #[arg(long, env = "EYOT_SPIN_US", value_name = "MICROSECONDS", default_value_t = 0)]
    pub spin_us: u32,

    /// Memory: limit, levels, eviction, buffers, batching
    #[command(flatten)]
    pub memory: MemoryConfig,

    /// How log lines look: text, or json with one object each
    #[arg(long, env = "EYOT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "EYOT_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Check whether this machine can run the server, print what was found, and exit
    #[arg(long)]
    pub preflight: bool,
}

/// The reference page of the configuration, in Markdown.
pub fn reference() -> String {
    use clap::CommandFactory;
    use std::fmt::Write;

    let mut page = String::from(
        "# Configuration\n\nGenerated from the definitions in `server/src/config/mod.rs`; a test keeps it equal. A flag wins over its\n\
         environment variable, which wins over the default.\n\n\
         Settings of parts that this version does not have are not known to it: the addresses of the gRPC,\n\
         HTTP and peer listeners.\n\n| flag | environment | default | meaning |\n|---|---|---|---|\n",
    );
    for argument in Config::command().get_arguments() {
        let Some(flag) = argument.get_long().filter(|flag| !matches!(*flag, "help" | "version")) else { continue };
        let environment = argument.get_env().map_or(String::new(), |name| format!("`{}`", name.to_string_lossy()));
        let default = match argument.get_default_values() {
            [value] if !value.is_empty() && argument.get_action().takes_values() => {
                format!("`{}`", value.to_string_lossy())
            }
            _ => String::new(),
        };
        let help = argument.get_help().map_or(String::new(), ToString::to_string);
        let _ = writeln!(page, "| `--{flag}` | {environment} | {default} | {help} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound_and_every_setting_has_its_environment_variable() {
        Config::command().debug_assert();
        for argument in Config::command().get_arguments() {
            let flag = argument.get_long().expect("every setting is a flag");
            if matches!(flag, "help" | "version" | "preflight") {
                continue;
            }
            let expected = format!("EYOT_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().map(|name| name.to_string_lossy().into_owned()), Some(expected));
            assert!(argument.get_help().is_some(), "--{flag} has no help");
        }
    }

    #[test]
    fn an_empty_configuration_listens_on_loopback_and_syncs() {
        let config = Config::parse_from(["eyot-server"]);
        assert!(config.address.ip().is_loopback());
        assert!(config.sync_writes);
    }
}
