//! The settings of memory: limit, levels, eviction, buffers, batching of replies.
//!
//! Place in the flow: part of the configuration, on a page of its own because they are many. The names of the buffer
//! pool, the thresholds and the batching are those of the original system, and so are the defaults of the pool and the
//! batching.

use std::time::Duration;

use clap::Args;

use super::{parse_bytes, parse_duration};
use crate::error::Stop;
use crate::memory::{BufferPoolSettings, Thresholds};
use crate::net::connection::Batching;
use crate::shard::eviction::Policy;

/// Samples of one choice, at most: more would find nothing that these do not.
pub(super) const EVICTION_SAMPLES_MAX: u32 = 64;
/// Buffers that a core may keep at most: with the largest buffers, 4 GiB.
const BUFFER_POOL_SIZE_MAX: usize = 65_536;
/// A buffer that the pool keeps may have grown up to here.
const BUFFER_CAPACITY_MAX: u64 = 64 << 10 << 10;
/// What the original says of itself in a percentage is 100 % here: 1,000 thousandths.
const WHOLE: u16 = 1000;
/// Looking more often would only show the same pages.
const MEMORY_CHECK_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Replies that may wait for others, in bytes: beyond it they fill several sends.
const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Settings of memory. See [`super::Config`].
#[derive(Debug, Clone, Args)]
pub struct MemoryConfig {
    /// Limit of the memory of the node: a size such as 512MB or 4GiB; a share such as 60% of the machine's memory (or the
    /// container's); auto: three quarters of it; 0: no limit. At the limit keys are evicted by --eviction-policy, or
    /// writes are refused with OUT_OF_MEMORY
    #[arg(long, env = "EYOT_MAX_MEMORY", value_name = "BYTES", default_value = "auto")]
    pub max_memory: String,

    /// What goes at the limit, by Redis's names: noeviction (writes are refused), allkeys-lru, volatile-lru, allkeys-lfu,
    /// volatile-lfu, allkeys-random, volatile-random, volatile-ttl
    #[arg(long, env = "EYOT_EVICTION_POLICY", value_name = "POLICY", default_value = "noeviction")]
    pub eviction_policy: String,

    /// Keys that are looked at to choose one to evict, 1 to 64
    #[arg(long, env = "EYOT_EVICTION_SAMPLES", value_name = "NUMBER", default_value_t = 5)]
    pub eviction_samples: u32,

    /// The larger, the more uses of a key it takes to raise its counter (the lfu policies)
    #[arg(long, env = "EYOT_LFU_LOG_FACTOR", value_name = "NUMBER", default_value_t = 10)]
    pub lfu_log_factor: u32,

    /// Minutes without a use after which a key's counter loses one; 0: never (the lfu policies)
    #[arg(long, env = "EYOT_LFU_DECAY_TIME", value_name = "MINUTES", default_value_t = 1)]
    pub lfu_decay_time: u32,

    /// Share of the limit from which memory counts as elevated: spare buffers are given back
    #[arg(long, env = "EYOT_MEMORY_THRESHOLD", value_name = "SHARE", default_value = "80%")]
    pub memory_threshold: String,

    /// Share of the limit from which memory counts as high: expired keys are swept harder, and eviction begins
    #[arg(long, env = "EYOT_HIGH_MEMORY_THRESHOLD", value_name = "SHARE", default_value = "95%")]
    pub high_memory_threshold: String,

    /// How often the memory that the kernel counts is compared with the ledger, at least 10ms
    #[arg(long, env = "EYOT_MEMORY_CHECK_INTERVAL", value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    pub memory_check_interval: Duration,

    /// Hold the limit against the memory that the kernel counts, and log changes of the level. With false, against the
    /// ledger alone
    #[arg(long, env = "EYOT_MEMORY_MONITORING", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub memory_monitoring: bool,

    /// Give spare buffers back while memory is elevated
    #[arg(long, env = "EYOT_AUTO_CLEANUP", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub auto_cleanup: bool,

    /// Buffers for input and output that each core keeps for reuse; 0: none
    #[arg(long, env = "EYOT_BUFFER_POOL_SIZE", value_name = "NUMBER", default_value_t = 50)]
    pub buffer_pool_size: usize,

    /// What a new buffer has room for
    #[arg(long, env = "EYOT_BUFFER_INITIAL_CAPACITY", value_name = "BYTES", default_value = "4096", value_parser = parse_bytes)]
    pub buffer_initial_capacity: u64,

    /// A buffer that has grown beyond this is not kept
    #[arg(long, env = "EYOT_BUFFER_MAX_CAPACITY", value_name = "BYTES", default_value = "65536", value_parser = parse_bytes)]
    pub buffer_max_capacity: u64,

    /// Count the use of buffers for STATS
    #[arg(long, env = "EYOT_BUFFER_MONITORING", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub buffer_monitoring: bool,

    /// Let replies of a pipeline wait a moment for those that another core is about to give, so that all leave in one
    /// send. With false, what is ready leaves with every turn
    #[arg(long, env = "EYOT_ENABLE_BATCHING", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_batching: bool,

    /// So many replies wait for others at most; when there are more, they leave
    #[arg(long, env = "EYOT_BATCH_SIZE", value_name = "NUMBER", default_value_t = 50)]
    pub batch_size: u32,

    /// So many bytes of replies wait for others at most; when there are more, they leave
    #[arg(long, env = "EYOT_BATCH_BYTES", value_name = "BYTES", default_value = "32768", value_parser = parse_bytes)]
    pub batch_bytes: u64,
}

/// The settings of memory, resolved and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorySettings {
    /// Limit of the node's memory; `None`: no limit. What holds now is in the tunables.
    pub max_memory_bytes: Option<u64>,
    /// What goes at the limit. What holds now is in the tunables.
    pub eviction_policy: Policy,
    /// Samples of a choice. What holds now is in the tunables.
    pub eviction_samples: u32,
    /// See [`MemoryConfig::lfu_log_factor`]. What holds now is in the tunables.
    pub lfu_log_factor: u32,
    /// See [`MemoryConfig::lfu_decay_time`]. What holds now is in the tunables.
    pub lfu_decay_minutes: u32,
    /// Where the levels begin.
    pub thresholds: Thresholds,
    /// How often the kernel's figure is read.
    pub check_interval: Duration,
    /// Whether it is read, and levels are logged.
    pub monitoring: bool,
    /// Whether spare buffers go while memory is elevated.
    pub auto_cleanup: bool,
    /// The pool of buffers of each core.
    pub buffer_pool: BufferPoolSettings,
    /// How long replies wait for others.
    pub batching: Batching,
}

impl MemorySettings {
    /// Checks `config` for a machine with so much memory.
    ///
    /// # Errors
    /// [`crate::error::StopReason::Usage`], naming the flag.
    pub fn resolve(config: &MemoryConfig, memory_total_bytes: Option<u64>) -> Result<Self, Stop> {
        let in_range = |flag: &str, holds: bool, rule: &str| {
            holds.then_some(()).ok_or_else(|| super::settings::usage(flag, rule, "choose a value in that range"))
        };
        let samples = config.eviction_samples;
        in_range("--eviction-samples", (1..=EVICTION_SAMPLES_MAX).contains(&samples), "1 to 64")?;
        let (initial, max) = (config.buffer_initial_capacity, config.buffer_max_capacity);
        in_range("--buffer-pool-size", config.buffer_pool_size <= BUFFER_POOL_SIZE_MAX, "0 to 65536")?;
        in_range("--buffer-max-capacity", (1..=BUFFER_CAPACITY_MAX).contains(&max), "1 byte to 64MiB")?;
        in_range("--buffer-initial-capacity", (1..=max).contains(&initial), "1 byte to --buffer-max-capacity")?;
        in_range("--batch-size", config.batch_size > 0, "at least 1")?;
        in_range("--batch-bytes", (1..=BATCH_BYTES_MAX).contains(&config.batch_bytes), "1 byte to 1MiB")?;
        let interval = config.memory_check_interval;
        in_range("--memory-check-interval", interval >= MEMORY_CHECK_INTERVAL_MIN, "at least 10ms")?;
        let elevated = parse_share("--memory-threshold", &config.memory_threshold)?;
        let high = parse_share("--high-memory-threshold", &config.high_memory_threshold)?;
        in_range("--memory-threshold", elevated <= high, "at most --high-memory-threshold")?;
        Ok(Self {
            max_memory_bytes: parse_max_memory(&config.max_memory, memory_total_bytes)?,
            eviction_policy: Policy::of_name(config.eviction_policy.trim()).ok_or_else(|| {
                let names = Policy::ALL.map(Policy::name).join(", ");
                super::settings::usage("--eviction-policy", &format!("one of {names}"), "choose one of them")
            })?,
            eviction_samples: samples,
            lfu_log_factor: config.lfu_log_factor,
            lfu_decay_minutes: config.lfu_decay_time,
            thresholds: Thresholds { elevated, high },
            check_interval: interval,
            monitoring: config.memory_monitoring,
            auto_cleanup: config.auto_cleanup,
            buffer_pool: BufferPoolSettings {
                buffers_max: config.buffer_pool_size,
                initial_bytes: initial as usize,
                buffer_bytes_max: max as usize,
                monitoring: config.buffer_monitoring,
            },
            batching: Batching {
                enabled: config.enable_batching,
                replies_max: config.batch_size,
                bytes_max: config.batch_bytes as usize,
            },
        })
    }
}

/// A size, a share of the machine's memory, `auto`, or 0 for none.
fn parse_max_memory(text: &str, memory_total_bytes: Option<u64>) -> Result<Option<u64>, Stop> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("auto") {
        return Ok(memory_total_bytes.map(|total| total / 4 * 3));
    }
    if text.ends_with('%') {
        let thousandths = parse_share("--max-memory", text)?;
        let total = memory_total_bytes.ok_or_else(|| {
            super::settings::usage("--max-memory", "the machine does not tell its memory", "write a size such as 4GiB")
        })?;
        return Ok(Some((u128::from(total) * u128::from(thousandths) / u128::from(WHOLE)) as u64));
    }
    match parse_bytes(text) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(problem) => {
            let remedy = "write auto, 0, a size such as 4GiB, or a share such as 60%";
            Err(super::settings::usage("--max-memory", &problem, remedy))
        }
    }
}

/// A share from 0.1 % to 100 %, as `80%`, `97.5%` or `0.8`, in thousandths.
fn parse_share(flag: &str, text: &str) -> Result<u16, Stop> {
    let text = text.trim();
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 10.0),
        None => (text, f64::from(WHOLE)),
    };
    let thousandths = number.parse::<f64>().ok().map(|number| (number * scale).round());
    match thousandths {
        Some(thousandths) if (1.0..=f64::from(WHOLE)).contains(&thousandths) => Ok(thousandths as u16),
        _ => Err(super::settings::usage(flag, &format!("{text:?} is no share from 0.1% to 100%"), "write it like 80%")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use clap::Parser;

    fn resolve(arguments: &[&str]) -> Result<MemorySettings, Stop> {
        let config = Config::parse_from(["eyot-server"].iter().chain(arguments));
        MemorySettings::resolve(&config.memory, Some(1000))
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.max_memory_bytes, Some(750));
        assert_eq!(settings.eviction_policy, Policy::NoEviction);
        let BufferPoolSettings { buffers_max, initial_bytes, buffer_bytes_max, monitoring } = settings.buffer_pool;
        assert_eq!((buffers_max, initial_bytes, buffer_bytes_max, monitoring), (50, 4096, 65536, true));
        assert_eq!(settings.batching, Batching { enabled: true, replies_max: 50, bytes_max: 32768 });
        assert_eq!(settings.thresholds, Thresholds { elevated: 800, high: 950 });
    }

    #[test]
    fn limits_and_shares() {
        let limit = |text| resolve(&["--max-memory", text]).map(|settings| settings.max_memory_bytes);
        assert_eq!(limit("auto").unwrap(), Some(750));
        assert_eq!(limit("60%").unwrap(), Some(600));
        assert_eq!(limit("12.5 %").unwrap(), Some(125));
        assert_eq!(limit("0").unwrap(), None);
        assert_eq!(limit("1KB").unwrap(), Some(1024));
        let settings = resolve(&["--memory-threshold", "0.5", "--eviction-policy", "ALLKEYS-LFU"]).unwrap();
        assert_eq!((settings.thresholds.elevated, settings.eviction_policy), (500, Policy::AllKeysLfu));
        let config = Config::parse_from(["eyot-server", "--max-memory", "50%"]);
        assert!(MemorySettings::resolve(&config.memory, None).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (flag, value) in [
            ("--max-memory", "lots"),
            ("--max-memory", "101%"),
            ("--max-memory", "0%"),
            ("--eviction-policy", "lru"),
            ("--eviction-samples", "0"),
            ("--eviction-samples", "65"),
            ("--memory-threshold", "96%"),
            ("--memory-threshold", "NaN"),
            ("--high-memory-threshold", "x"),
            ("--high-memory-threshold", "101%"),
            ("--memory-check-interval", "1ms"),
            ("--buffer-pool-size", "65537"),
            ("--buffer-initial-capacity", "65537"),
            ("--buffer-max-capacity", "0"),
            ("--batch-size", "0"),
            ("--batch-bytes", "0"),
            ("--batch-bytes", "2MiB"),
        ] {
            let stop = resolve(&[flag, value]).expect_err(value);
            let named = stop.to_string().contains(flag) || flag == "--high-memory-threshold";
            assert!(named, "{flag} {value}: {stop}");
        }
    }
}
