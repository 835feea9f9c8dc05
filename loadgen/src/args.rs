//! The command line: what can be asked for, its defaults and its bounds.
//!
//! Place in the flow: read once, before anything is connected. What leaves here was checked as far as it can be checked
//! without the server.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use eyot_protocol::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use eyot_protocol::request::AckLevel;
use serde::{Serialize, Serializer};

use crate::error::LoadError;
use crate::verify::MIN_NAMED_VALUE_BYTES;
use crate::wire::memcached;
use crate::workload::{Distribution, Ratio, DIGITS, MAX_KEYS};

/// Most requests that may be outstanding over all clients: each takes about 50 bytes here, and a reply's room there.
pub const MAX_OUTSTANDING: usize = 1 << 22;
/// Most bytes that one client may have outstanding: one send carries them all, and a send takes less than 2 GiB.
pub const MAX_CLIENT_BYTES: usize = 1 << 30;
/// Most keys with `--verify`: twelve bytes of memory each.
pub const MAX_VERIFIED_KEYS: u64 = 100_000_000;
/// How long is measured when neither `--requests` nor `--duration` says it.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(10);

const EXIT_CODES: &str = "\
Exit codes:
  0  all requests were answered, none with an error
  1  the server answered some requests with an error
  2  wrong usage
  3  cannot connect, or the server refused HELLO
  4  a connection was lost, or a request was not answered within --timeout
  5  --verify found a wrong, torn, stale or missing value
  6  this machine refuses what the load generator needs (io_uring)

Without --rate the load is a closed loop: a client sends its next --pipeline requests when the last of its previous ones
was answered, and latency counts from the sending. With --rate it is an open loop: requests are due at fixed intervals
whatever the server does, and latency counts from when a request was due.";

/// What to do. See `--help`.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "eyot-loadgen", version, args_override_self = true, about = "Puts a measured load on an Eyot, Redis or memcached server.", after_help = EXIT_CODES)]
#[allow(clippy::struct_excessive_bools)] // Each is one switch of the command line.
pub struct Args {
    /// The server, as HOST:PORT
    #[arg(long, default_value = "127.0.0.1:6380")]
    pub address: String,
    /// The wire: Eyot's own, RESP as Redis speaks it, or memcached's text
    #[arg(long, value_enum, default_value_t = Protocol::Native)]
    pub protocol: Protocol,
    /// File with the server's password; only its owner may have access to it. Or set EYOT_PASSWORD to the password
    /// itself
    #[arg(long, env = "EYOT_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<std::path::PathBuf>,
    /// Clients that work at the same time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub clients: u32,
    /// Requests that each client keeps outstanding
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub pipeline: u32,
    /// Writes to reads, as SETS:GETS
    #[arg(long, default_value = "1:10")]
    pub ratio: Ratio,
    /// Bytes of a written value
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    #[serde(rename = "value_size_bytes")]
    pub value_size: usize,
    /// How long written values last, such as 60s; without it they do not expire
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[serde(rename = "ttl_s", serialize_with = "optional_seconds")]
    pub ttl: Option<Duration>,
    /// How many different keys are used
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=MAX_KEYS))]
    pub keys: u64,
    /// What keys begin with; 12 digits follow
    #[arg(long, default_value = "key:")]
    pub key_prefix: String,
    /// How often each key is used: `uniform`, `zipf` (0.99), `zipf:THETA`, or `sequential:FIRST` in order
    #[arg(long, default_value = "uniform")]
    pub distribution: Distribution,
    /// Measure this many requests
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Measure for this long, such as 500ms, 30s or 5m [default: 10s]
    #[arg(long, value_parser = parse_duration)]
    #[serde(rename = "duration_s", serialize_with = "optional_seconds")]
    pub duration: Option<Duration>,
    /// Open loop: this many requests are due each second, over all clients
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    #[serde(rename = "rate_per_s")]
    pub rate: Option<f64>,
    /// Load for this long before the measurement
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    #[serde(rename = "warmup_s", serialize_with = "seconds")]
    pub warmup: Duration,
    /// Threads that share the clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Pin the threads, in turn, to these CPUs, such as 1 or 0,2-5
    #[arg(long, value_name = "LIST")]
    pub cpu: Option<CpuList>,
    /// Write every key once before the warm-up
    #[arg(long)]
    pub preload: bool,
    /// What follows a read that found nothing: `nothing`, or `set`, which writes the key, as a client of a cache does
    #[arg(long, value_enum, default_value_t = OnMiss::Nothing)]
    pub on_miss: OnMiss,
    /// Write values that name themselves and check every read; demands that nobody else writes these keys
    #[arg(long)]
    pub verify: bool,
    /// When writes are acknowledged (native only)
    #[arg(long, value_enum, default_value_t = Ack::Default)]
    pub ack: Ack,
    /// Ask for the shard map, connect each client to every core, send each key to its owner (not memcached)
    #[arg(long, conflicts_with = "foreign_share")]
    pub route: bool,
    /// Connect each client to one core and use keys of which this share, 0 to 1, belongs to others (not memcached)
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub foreign_share: Option<f64>,
    /// The server's process on this machine: report its CPU time per operation
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the report here as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
    /// No progress line and no text report
    #[arg(long)]
    pub quiet: bool,
    /// Where the random choices start: the same seed makes the same choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long a request may stay unanswered, and a connection attempt take
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    #[serde(rename = "timeout_s", serialize_with = "seconds")]
    pub timeout: Duration,
}

/// The wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Eyot's native protocol.
    Native,
    /// RESP2, as Redis speaks it.
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// What follows a read that found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// The next request.
    Nothing,
    /// A write of the key, then the next request.
    Set,
}

/// When writes are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// As the server is configured.
    Default,
    /// From the leader's memory.
    Memory,
    /// From the leader's disk.
    Fsync,
    /// From the disks of a majority.
    Quorum,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Default => Self::Default,
            Ack::Memory => Self::Memory,
            Ack::Fsync => Self::Fsync,
            Ack::Quorum => Self::Quorum,
        }
    }
}

/// CPUs to pin to, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CpuList(pub Vec<usize>);

impl std::str::FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// More than any kernel's `CONFIG_NR_CPUS`.
        const MAX_CPU: usize = 8191;
        let wrong = || format!("\"{text}\" is no list of CPUs from 0 to {MAX_CPU}, such as 1 or 0,2-5");
        let number = |text: &str| text.parse::<usize>().ok().filter(|cpu| *cpu <= MAX_CPU).ok_or_else(wrong);
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

/// Reads a duration: a number with `us`, `ms`, `s`, `m` or `h`; without a unit, seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    /// A year: longer ones are typing errors, and must not overflow the clock's arithmetic.
    const MAX_S: f64 = 366.0 * 86_400.0;
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit \"{unit}\"; use us, ms, s, m or h")),
    };
    let seconds = digits.parse::<f64>().map_err(|error| format!("{error}; write it like 500ms, 30s or 5m"))? * unit_s;
    if !(0.0..=MAX_S).contains(&seconds) {
        return Err("a duration is from 0 to 366 days".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number of requests a second, from 0.001 to 1000000000".to_owned()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[allow(clippy::ref_option)] // The signature that serde demands.
fn optional_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

impl Args {
    /// Checks what the options demand of each other.
    ///
    /// # Errors
    /// [`LoadError::Usage`], which names the option and what to do.
    pub fn check(&self) -> Result<(), LoadError> {
        let refuse = |message: String| Err(LoadError::Usage(message));
        if self.threads > self.clients {
            return refuse(format!(
                "--threads {} with --clients {}: a thread needs a client",
                self.threads, self.clients
            ));
        }
        if self.clients as usize * self.pipeline as usize > MAX_OUTSTANDING {
            return refuse(format!("--clients times --pipeline is over {MAX_OUTSTANDING}; lower one of them"));
        }
        if self.key_prefix.len() > MAX_KEY_BYTES - DIGITS {
            return refuse(format!("--key-prefix is over {} bytes", MAX_KEY_BYTES - DIGITS));
        }
        if self.value_size > MAX_VALUE_BYTES - 16 {
            return refuse(format!("--value-size is over {} bytes", MAX_VALUE_BYTES - 16));
        }
        let request_bytes = self.value_size + self.key_prefix.len() + 128;
        if request_bytes.saturating_mul(self.pipeline as usize) > MAX_CLIENT_BYTES {
            return refuse(format!(
                "--pipeline {} requests of up to {request_bytes} bytes are over {MAX_CLIENT_BYTES} bytes for a client; \
                 lower --pipeline or --value-size",
                self.pipeline
            ));
        }
        if self.verify && self.value_size < MIN_NAMED_VALUE_BYTES {
            return refuse(format!("--verify needs --value-size {MIN_NAMED_VALUE_BYTES} or more"));
        }
        if self.verify && self.on_miss == OnMiss::Set {
            return refuse("--on-miss set does not go with --verify, which gives each write its turn".to_owned());
        }
        if self.verify && self.keys > MAX_VERIFIED_KEYS {
            return refuse(format!("--verify takes at most {MAX_VERIFIED_KEYS} keys; lower --keys"));
        }
        if self.ttl.is_some_and(|ttl| ttl.as_millis() == 0) || (self.ttl.is_some() && self.verify) {
            return refuse(
                "--ttl is at least 1ms, and does not go with --verify, which takes a missing key for lost".to_owned(),
            );
        }
        if self.timeout.is_zero() || self.duration.is_some_and(|duration| duration.is_zero()) {
            return refuse("--timeout and --duration must be above 0".to_owned());
        }
        if self.protocol == Protocol::Memcached {
            let is_text = |byte: u8| byte.is_ascii_graphic();
            if !self.key_prefix.bytes().all(is_text) || self.key_prefix.len() > memcached::MAX_KEY_BYTES - DIGITS {
                return refuse(format!(
                    "--key-prefix over memcached's wire: at most {} printable characters without spaces",
                    memcached::MAX_KEY_BYTES - DIGITS
                ));
            }
        }
        if self.protocol == Protocol::Memcached && (self.route || self.foreign_share.is_some()) {
            let option = if self.route { "--route" } else { "--foreign-share" };
            return refuse(format!("{option} needs --protocol native or resp: memcached has no shard map"));
        }
        if self.protocol == Protocol::Memcached && self.ttl.is_some() {
            return refuse("--ttl needs --protocol native or resp: it is not written over memcached's wire".to_owned());
        }
        if self.protocol != Protocol::Native && self.ack != Ack::Default {
            return refuse("--ack needs --protocol native".to_owned());
        }
        Ok(())
    }

    /// How long is measured; `None`: until `--requests` were answered.
    pub fn measured_duration(&self) -> Option<Duration> {
        match self.requests {
            Some(_) => None,
            None => Some(self.duration.unwrap_or(DEFAULT_DURATION)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args, String> {
        let words = std::iter::once("eyot-loadgen").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "5d", "-1s", "nan", "inf", "1e300h", "5 s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!("1".parse(), Ok(CpuList(vec![1])));
        assert_eq!("0,2-4".parse(), Ok(CpuList(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "3-1", "1,", "0-999999999"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn defaults_are_valid_and_measure_ten_seconds() {
        let args = args("").unwrap();
        assert_eq!(args.measured_duration(), Some(Duration::from_secs(10)));
        assert_eq!(super::Args { requests: Some(5), ..args }.measured_duration(), None);
    }

    #[test]
    fn wrong_combinations_name_the_option() {
        for (line, names) in [
            ("--requests 5 --duration 5s", "--duration"),
            ("--threads 3 --clients 2", "--threads"),
            ("--verify --value-size 8", "--value-size"),
            ("--verify --keys 1000000000", "--keys"),
            ("--verify --on-miss set", "--on-miss"),
            ("--verify --ttl 5s", "--ttl"),
            ("--ttl 0s", "--ttl"),
            ("--protocol resp --ack fsync", "--ack"),
            ("--protocol memcached --route", "--route"),
            ("--protocol memcached --ttl 5s", "--ttl needs"),
            ("--protocol memcached --foreign-share 0.5", "--foreign-share"),
            ("--protocol memcached --ack fsync", "--ack"),
            ("--protocol memcached --key-prefix é", "--key-prefix"),
            ("--route --foreign-share 0.5", "--foreign-share"),
            ("--foreign-share 1.5", "0 to 1"),
            ("--rate 0", "0.001"),
            ("--ratio 0:0", "0:0"),
            ("--distribution pareto", "pareto"),
            ("--pipeline 0", "--pipeline"),
            ("--pipeline 65536 --value-size 100000", "--pipeline"),
            ("--pipeline 65536 --clients 50000", "--pipeline"),
            ("--timeout 0s", "--timeout"),
        ] {
            let error = args(line).expect_err(line);
            assert!(error.contains(names), "{line}: {error}");
        }
    }
}
