//! What an operator may change of clients and logs while the node runs: one number each, read by every core, written by
//! CONFIG SET. What may be changed of memory stands beside it.
//!
//! Place in the flow: made from [`Settings`] at the start, kept beside it in what the cores share. A core reads what it
//! needs once a turn or less, never for each request.
//!
//! Invariants: every value here was checked before it was stored, so a reader need not; two values that were set by one
//! CONFIG SET may be seen one without the other for the length of a turn.
//!
//! Deliberately not here: names, units and texts (`server/src/admin/config_names.rs`), and what a value does.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use eyot_protocol::resp::RespLimits;

use super::Settings;

/// The output limit of clients that ask, as `client-output-buffer-limit` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimit {
    /// A client that is owed more bytes is closed at once; 0: no such limit.
    pub hard_bytes: u64,
    /// A client that is owed more bytes for `soft_seconds` is closed; 0: no such limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// How much a request of a client may take: Redis's default of `client-query-buffer-limit`, and the most that there is.
pub const QUERY_BUFFER_BYTES_MAX: u64 = RespLimits::REQUEST_BYTES_MAX as u64;
/// Redis's default of `tcp-keepalive`.
const KEEPALIVE_SECONDS_DEFAULT: u64 = 300;
/// Redis's defaults of `slowlog-log-slower-than` and `slowlog-max-len`.
const SLOWLOG_THRESHOLD_US_DEFAULT: i64 = 10_000;
/// See [`SLOWLOG_THRESHOLD_US_DEFAULT`].
const SLOWLOG_LEN_DEFAULT: u64 = 128;

/// Declares the numbers that can be changed: field, how it is read and set, and what it means.
macro_rules! tunables {
    ($($(#[$doc:meta])+ $field:ident, $set:ident: $atomic:ident as $number:ty;)+) => {
        /// The numbers that can be changed while the node runs.
        #[derive(Debug)]
        pub struct ServerTunables {
            $($field: $atomic,)+
        }

        impl ServerTunables {
            $(
                $(#[$doc])+
                #[inline]
                pub fn $field(&self) -> $number {
                    self.$field.load(Ordering::Relaxed)
                }

                #[doc = concat!("Changes [`ServerTunables::", stringify!($field), "`].")]
                pub fn $set(&self, value: $number) {
                    self.$field.store(value, Ordering::Relaxed);
                }
            )+
        }
    };
}

tunables! {
    /// Most connections at a time, over all cores; at least 1.
    max_clients, set_max_clients: AtomicU64 as u64;
    /// Seconds after which a connection without requests is closed; 0: never.
    idle_timeout_seconds, set_idle_timeout_seconds: AtomicU64 as u64;
    /// Seconds between the probes of an idle connection's other end; 0: none. Holds for connections made later.
    keepalive_seconds, set_keepalive_seconds: AtomicU64 as u64;
    /// Bytes that a request may take on the wire.
    query_buffer_bytes, set_query_buffer_bytes: AtomicU64 as u64;
    /// Longest bulk string of a request, in bytes.
    bulk_bytes, set_bulk_bytes: AtomicU64 as u64;
    /// Commands that took at least so many microseconds enter the slow log; negative: none does.
    slowlog_threshold_us, set_slowlog_threshold_us: AtomicI64 as i64;
    /// Entries of the slow log of the node.
    slowlog_len, set_slowlog_len: AtomicU64 as u64;
    /// Events that took at least so many milliseconds are kept for LATENCY; 0: none is.
    latency_threshold_ms, set_latency_threshold_ms: AtomicU64 as u64;
    /// See [`OutputLimit::hard_bytes`].
    output_hard_bytes, set_output_hard_bytes: AtomicU64 as u64;
    /// See [`OutputLimit::soft_bytes`].
    output_soft_bytes, set_output_soft_bytes: AtomicU64 as u64;
    /// See [`OutputLimit::soft_seconds`].
    output_soft_seconds, set_output_soft_seconds: AtomicU64 as u64;
}

impl ServerTunables {
    /// What `settings` say, and Redis's defaults for what they do not.
    pub fn new(settings: &Settings) -> Self {
        Self {
            max_clients: AtomicU64::new(settings.max_connections as u64),
            idle_timeout_seconds: AtomicU64::new(settings.idle_timeout.as_secs()),
            keepalive_seconds: AtomicU64::new(KEEPALIVE_SECONDS_DEFAULT),
            query_buffer_bytes: AtomicU64::new(QUERY_BUFFER_BYTES_MAX),
            bulk_bytes: AtomicU64::new(settings.max_value_bytes as u64),
            slowlog_threshold_us: AtomicI64::new(SLOWLOG_THRESHOLD_US_DEFAULT),
            slowlog_len: AtomicU64::new(SLOWLOG_LEN_DEFAULT),
            latency_threshold_ms: AtomicU64::new(0),
            output_hard_bytes: AtomicU64::new(0),
            output_soft_bytes: AtomicU64::new(0),
            output_soft_seconds: AtomicU64::new(0),
        }
    }

    /// The three numbers of the output limit.
    pub fn output_limit(&self) -> OutputLimit {
        OutputLimit {
            hard_bytes: self.output_hard_bytes(),
            soft_bytes: self.output_soft_bytes(),
            soft_seconds: self.output_soft_seconds(),
        }
    }

    /// Changes the output limit.
    pub fn set_output_limit(&self, limit: OutputLimit) {
        self.set_output_hard_bytes(limit.hard_bytes);
        self.set_output_soft_bytes(limit.soft_bytes);
        self.set_output_soft_seconds(limit.soft_seconds);
    }
}
