//! When a core's shards are snapshotted.
//!
//! Place in the flow: resolved once, at start-up.

use std::time::Duration;

use super::settings::usage;
use super::units::parse_bytes;
use super::Config;
use crate::error::Stop;

/// Of the data of a core, one part in so many of log makes it time for snapshots. The disk then holds two snapshots, a
/// third of one shard, and about twice that much log: a larger part of log would hold more, and a smaller one have
/// everything written more often.
const DATA_BY_LOG: u64 = 12;
/// Below so much log nothing is snapshotted: a start reads it in a fraction of a second.
const LOG_BYTES_MIN: u64 = 64 << 20;

/// When snapshots are made without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSettings {
    after: LogSize,
    /// So long after the last time, if anything was written; `None`: never.
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogSize {
    Never,
    Bytes(u64),
    OfData,
}

impl SnapshotSettings {
    /// Reads the flags.
    ///
    /// # Errors
    /// [`crate::error::StopReason::Usage`], naming the flag.
    pub fn resolve(config: &Config) -> Result<Self, Stop> {
        let text = config.snapshot_log_size.trim();
        let after = if text.eq_ignore_ascii_case("auto") {
            LogSize::OfData
        } else {
            let remedy = "write auto, a size such as 256MiB, or 0 for never";
            match parse_bytes(text).map_err(|problem| usage("--snapshot-log-size", &problem, remedy))? {
                0 => LogSize::Never,
                bytes => LogSize::Bytes(bytes),
            }
        };
        let interval = Some(config.snapshot_interval).filter(|interval| !interval.is_zero());
        Ok(Self { after, interval })
    }

    /// The bytes of log after which a core with `data_bytes` of keys and values makes snapshots; `None`: never.
    pub fn log_bytes(&self, data_bytes: u64) -> Option<u64> {
        match self.after {
            LogSize::Never => None,
            LogSize::Bytes(bytes) => Some(bytes),
            LogSize::OfData => Some(LOG_BYTES_MIN.max(data_bytes / DATA_BY_LOG)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn resolve(arguments: &[&str]) -> Result<SnapshotSettings, Stop> {
        let config = Config::parse_from([&["eyot-server"], arguments].concat());
        SnapshotSettings::resolve(&config)
    }

    #[test]
    fn the_size_follows_the_data_unless_it_is_said() {
        let auto = resolve(&[]).unwrap();
        assert_eq!(auto.log_bytes(1 << 20), Some(64 << 20));
        assert_eq!(auto.log_bytes(12 << 30), Some(1 << 30));
        assert_eq!(auto.interval, Some(Duration::from_secs(3600)));
        let said = resolve(&["--snapshot-log-size", "2MiB", "--snapshot-interval", "0"]).unwrap();
        assert_eq!((said.log_bytes(8 << 30), said.interval), (Some(2 << 20), None));
        assert_eq!(resolve(&["--snapshot-log-size", "0"]).unwrap().log_bytes(8 << 30), None);
        let error = resolve(&["--snapshot-log-size", "lots"]).unwrap_err();
        assert!(error.to_string().contains("--snapshot-log-size"), "{error}");
    }
}
