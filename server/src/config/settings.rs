//! What the configuration comes to on this machine: resolved, checked, immutable, shared by every core.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use eyot_protocol::credentials::Password;
use eyot_protocol::limits::{FRAME_OVERHEAD_BYTES, MAX_VALUE_BYTES};

use super::memory::MemorySettings;
use super::snapshots::SnapshotSettings;
use super::Config;
use crate::error::{Stop, StopReason};

/// Most cores of a node: their numbers are 16 bits wide in forwarded requests, and a mesh of them grows with the
/// square.
pub const MAX_CORES: usize = 256;
/// Most shards of a data directory: a shard has at least four slots.
pub const MAX_SHARDS: u16 = 4096;
const SHARDS_PER_CORE: u16 = 4;
const MIN_SEGMENT_BYTES: u64 = 1 << 20;
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
const BLOCK_BYTES: u64 = 4096;
/// Least value that gets pages of its own: what a smaller one leaves of its last page unused would be most of it.
const MIN_MMAP_THRESHOLD: u64 = 4096;
/// How far the cores' own ports are from the shared one: apart enough that those of both wires never meet, as long as
/// their shared ports are neighbours.
const NATIVE_CORE_PORTS_FROM: u16 = 100;
/// See [`NATIVE_CORE_PORTS_FROM`].
const RESP_CORE_PORTS_FROM: u16 = 1000;

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See [`Config::node_id`].
    pub node_id: Option<String>,
    /// The shared address; its port is 0 until the listeners are bound.
    pub address: SocketAddr,
    /// First port of the cores' own listeners; 0: any free ones.
    pub core_port_base: u16,
    /// The shared address of the Redis protocol; `None`: it is not spoken.
    pub resp_address: Option<SocketAddr>,
    /// First port of the cores' own listeners for the Redis protocol; 0: any free ones.
    pub resp_core_port_base: u16,
    /// See [`Config::data_dir`].
    pub data_dir: PathBuf,
    /// See [`Config::sync_writes`].
    pub sync_writes: bool,
    /// See [`Config::flush_interval`].
    pub flush_interval: Duration,
    /// See [`Config::enable_metrics`].
    pub enable_metrics: bool,
    /// The processors, one core each.
    pub processors: Vec<usize>,
    /// The number of shards that was asked for; `None`: whatever the data directory has, else four per core.
    pub shards_wanted: Option<u16>,
    /// See [`Config::max_connections`].
    pub max_connections: usize,
    /// See [`Config::idle_timeout`]; zero: never.
    pub idle_timeout: Duration,
    /// See [`Config::handshake_timeout`].
    pub handshake_timeout: Duration,
    /// Longest encoded value.
    pub max_value_bytes: usize,
    /// From where on a value is kept in a mapped file; `None`: never.
    pub mmap_threshold_bytes: Option<usize>,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// When snapshots are made.
    pub snapshots: SnapshotSettings,
    /// See [`Config::spin_us`].
    pub spin: Duration,
    /// What clients have to say before anything else; `None`: nothing. Of [`super::load_password`].
    pub password: Option<Password>,
    /// Memory: limit, levels, eviction, buffers, batching.
    pub memory: MemorySettings,
}

impl Settings {
    /// Resolves `config` for a machine on which `allowed` processors may be used.
    ///
    /// # Errors
    /// [`StopReason::Usage`] or [`StopReason::Processors`], naming the flag.
    pub fn resolve(config: &Config, allowed: &[usize], memory_total_bytes: Option<u64>) -> Result<Self, Stop> {
        if !config.peers.trim().is_empty() {
            return Err(usage("--peers", "this version runs alone", "leave --peers empty"));
        }
        let max_value_bytes = usize::try_from(config.max_value_size).unwrap_or(usize::MAX);
        if max_value_bytes == 0 || max_value_bytes > MAX_VALUE_BYTES {
            return Err(usage("--max-value-size", "a value may take 1 byte to 512MiB", "choose a size in that range"));
        }
        if !(MIN_MMAP_THRESHOLD..=MAX_VALUE_BYTES as u64).contains(&config.mmap_threshold) {
            return Err(usage("--mmap-threshold", "4KiB to 512MiB", "choose a size in that range"));
        }
        let segment_bytes = config.wal_segment_size;
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment_bytes)
            || !segment_bytes.is_multiple_of(BLOCK_BYTES)
        {
            return Err(usage("--wal-segment-size", "1MiB to 1GiB, a multiple of 4KiB", "choose a size in that range"));
        }
        if config.max_connections == 0 {
            return Err(usage("--max-connections", "at least 1", "choose a larger number"));
        }
        if config.flush_interval.is_zero() {
            return Err(usage("--flush-interval", "more than 0", "use --sync-writes=true to wait for no flush"));
        }
        let processors = parse_cores(&config.cores, allowed)?;
        let resp_address = parse_address("--resp-address", &config.resp_address)?;
        Ok(Self {
            node_id: config.node_id.clone(),
            address: config.address,
            core_port_base: core_port_base(
                "--core-port-base",
                NATIVE_CORE_PORTS_FROM,
                config.core_port_base,
                Some(config.address),
                processors.len(),
            )?,
            resp_address,
            resp_core_port_base: core_port_base(
                "--resp-core-port-base",
                RESP_CORE_PORTS_FROM,
                config.resp_core_port_base,
                resp_address,
                processors.len(),
            )?,
            data_dir: config.data_dir.clone(),
            sync_writes: config.sync_writes,
            flush_interval: config.flush_interval,
            enable_metrics: config.enable_metrics,
            shards_wanted: parse_shards(&config.shards)?,
            processors,
            max_connections: config.max_connections,
            idle_timeout: config.idle_timeout,
            handshake_timeout: config.handshake_timeout,
            max_value_bytes,
            mmap_threshold_bytes: config.enable_mmap.then_some(config.mmap_threshold as usize),
            segment_bytes,
            snapshots: SnapshotSettings::resolve(config)?,
            spin: Duration::from_micros(u64::from(config.spin_us)),
            password: None,
            memory: MemorySettings::resolve(&config.memory, memory_total_bytes)?,
        })
    }

    /// How many cores run.
    pub fn core_count(&self) -> u16 {
        self.processors.len() as u16
    }

    /// The shards of a new data directory.
    pub fn shards_of_new_directory(&self) -> u16 {
        self.shards_wanted.unwrap_or(self.core_count() * SHARDS_PER_CORE)
    }

    /// The longest frame that is taken: one value and what goes with it.
    pub fn max_frame_bytes(&self) -> usize {
        self.max_value_bytes + FRAME_OVERHEAD_BYTES
    }
}

/// A stop that names the flag, the rule that it breaks, and what to do.
pub(super) fn usage(flag: &str, rule: &str, remedy: &str) -> Stop {
    Stop::new(StopReason::Usage, format!("{flag}: {rule}"), remedy)
}

/// An address, or none where the text is empty.
fn parse_address(flag: &str, text: &str) -> Result<Option<SocketAddr>, Stop> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().map_err(|_| {
        usage(
            flag,
            &format!("{text:?} is no address"),
            "write for instance 127.0.0.1:6379, or nothing to switch it off",
        )
    })?;
    Ok(Some(address))
}

fn core_port_base(
    flag: &str,
    distance: u16,
    base: Option<u16>,
    address: Option<SocketAddr>,
    cores: usize,
) -> Result<u16, Stop> {
    let base = match (base, address) {
        (Some(base), _) => base,
        (None, None) => 0,
        (None, Some(address)) if address.port() == 0 => 0,
        (None, Some(address)) => address.port().checked_add(distance).unwrap_or(0),
    };
    if base != 0 && usize::from(base) + cores - 1 > usize::from(u16::MAX) {
        return Err(usage(flag, &format!("{base} and {cores} cores pass 65535"), "choose a lower port"));
    }
    Ok(base)
}

fn parse_shards(text: &str) -> Result<Option<u16>, Stop> {
    if text.trim().eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    match text.trim().parse::<u16>() {
        Ok(shards @ 1..=MAX_SHARDS) => Ok(Some(shards)),
        _ => Err(usage("--shards", &format!("auto, or 1 to {MAX_SHARDS}; got {text:?}"), "choose such a number")),
    }
}

/// `auto`, a number, or a list of processors with ranges.
fn parse_cores(text: &str, allowed: &[usize]) -> Result<Vec<usize>, Stop> {
    let text = text.trim();
    let processors = if text.eq_ignore_ascii_case("auto") {
        allowed.to_vec()
    } else if let Ok(count) = text.parse::<usize>() {
        if count == 0 || count > allowed.len() {
            let have = allowed.len();
            return Err(Stop::new(
                StopReason::Processors,
                format!("--cores {count}, but this process may use {have} processors"),
                format!("choose 1 to {have}, or widen the CPU set (taskset, cgroup) of the process"),
            ));
        }
        allowed[..count].to_vec()
    } else {
        parse_list(text)?
    };
    if let Some(missing) = processors.iter().find(|processor| !allowed.contains(processor)) {
        return Err(Stop::new(
            StopReason::Processors,
            format!("--cores {text}: processor {missing} is not among those that this process may use, {allowed:?}"),
            "choose others, or widen the CPU set (taskset, cgroup) of the process",
        ));
    }
    let mut distinct = processors.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if processors.is_empty() || processors.len() > MAX_CORES || distinct.len() != processors.len() {
        return Err(usage(
            "--cores",
            &format!("1 to {MAX_CORES} processors, none of them twice; got {text:?}"),
            "write auto, a number, or a list such as 0,2-5",
        ));
    }
    Ok(processors)
}

fn parse_list(text: &str) -> Result<Vec<usize>, Stop> {
    let refuse = || usage("--cores", &format!("{text:?} is no list"), "write auto, a number, or a list such as 0,2-5");
    let mut processors = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| refuse())?;
        let last: usize = last.trim().parse().map_err(|_| refuse())?;
        if first > last || last - first >= MAX_CORES {
            return Err(refuse());
        }
        processors.extend(first..=last);
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn resolve(arguments: &[&str]) -> Result<Settings, Stop> {
        let config = Config::parse_from(["eyot-server"].iter().chain(arguments));
        Settings::resolve(&config, &[0, 1, 4, 5], Some(1000))
    }

    #[test]
    fn cores_by_number_list_and_default() {
        assert_eq!(resolve(&[]).unwrap().processors, [0, 1, 4, 5]);
        assert_eq!(resolve(&["--cores", "2"]).unwrap().processors, [0, 1]);
        assert_eq!(resolve(&["--cores", "1,4-5"]).unwrap().processors, [1, 4, 5]);
        for (cores, reason) in [
            ("0", StopReason::Processors),
            ("5", StopReason::Processors),
            ("2-3", StopReason::Processors),
            ("0-1,1", StopReason::Usage),
            ("5-4", StopReason::Usage),
            ("0,", StopReason::Usage),
            ("all", StopReason::Usage),
            ("0-99999999999", StopReason::Usage),
        ] {
            assert_eq!(resolve(&["--cores", cores]).unwrap_err().reason, reason, "{cores}");
        }
    }

    #[test]
    fn sizes_and_limits() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.memory.max_memory_bytes, Some(750));
        assert_eq!(settings.shards_of_new_directory(), 16);
        assert_eq!(settings.mmap_threshold_bytes, Some(64 << 10));
        assert_eq!(resolve(&["--enable-mmap", "false"]).unwrap().mmap_threshold_bytes, None);
        assert_eq!((settings.core_port_base, settings.resp_core_port_base), (6480, 7379));
        assert_eq!(resolve(&["--resp-address", ""]).unwrap().resp_address, None);
        assert_eq!(resolve(&["--address", "127.0.0.1:0"]).unwrap().core_port_base, 0);
        for bad in [
            &["--max-memory", "lots"][..],
            &["--shards", "0"],
            &["--shards", "4097"],
            &["--peers", "b:6381"],
            &["--max-value-size", "513MiB"],
            &["--max-value-size", "0"],
            &["--wal-segment-size", "4KiB"],
            &["--wal-segment-size", "1048577"],
            &["--mmap-threshold", "4095"],
            &["--mmap-threshold", "1GiB"],
            &["--max-connections", "0"],
            &["--core-port-base", "65534"],
            &["--resp-core-port-base", "65534"],
            &["--resp-address", "localhost"],
            &["--flush-interval", "0ms"],
        ] {
            assert_eq!(resolve(bad).unwrap_err().reason, StopReason::Usage, "{bad:?}");
        }
    }
}
