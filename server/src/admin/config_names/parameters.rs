//! The table of parameters.
//!
//! Place in the flow: see the parent. A row says where a value is read, whether it can be changed, and where it is
//! stored then.

use std::ops::RangeInclusive;

use super::values::{choice, memory, number, output_limit, Value};
use super::ConfigContext;
use crate::admin::slowlog::SLOWLOG_LEN_MAX;
use crate::config::QUERY_BUFFER_BYTES_MAX;

/// The eviction policies; their places here are their numbers everywhere.
pub const POLICY_NAMES: [&str; 8] = [
    "noeviction",
    "allkeys-lru",
    "volatile-lru",
    "allkeys-lfu",
    "volatile-lfu",
    "allkeys-random",
    "volatile-random",
    "volatile-ttl",
];
/// The same in the order in which Redis's error lists them.
const POLICY_NAMES_LISTED: [&str; 8] = [
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

const INT_MAX: i64 = i32::MAX as i64;
/// The longest time that the kernel takes for `tcp-keepalive`.
const KEEPALIVE_SECONDS_MAX: i64 = 32_767;
/// The smallest that Redis takes for the lengths of requests.
const REQUEST_BYTES_MIN: i64 = 1 << 20;

/// What may be done with a parameter.
pub(super) enum Rule {
    /// A number in this range.
    Number(RangeInclusive<i64>, fn(&ConfigContext<'_>, i64)),
    /// A size in this range.
    Memory(RangeInclusive<i64>, fn(&ConfigContext<'_>, i64)),
    /// The longest bulk: a size that the node's longest value bounds.
    BulkBytes,
    /// Connections: a number that the limit of open files bounds.
    Clients,
    /// One of the eviction policies.
    Policy,
    /// Limits for classes of clients.
    Output,
    /// It may be set to what it is.
    Fixed,
    /// Whether there is a password is told, and nothing more; it cannot be set.
    Password,
    /// It may not be set, as in Redis.
    Immutable,
}

/// One parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    get: fn(&ConfigContext<'_>) -> String,
}

impl Parameter {
    /// Its value.
    pub(super) fn get(&self, context: &ConfigContext<'_>) -> String {
        (self.get)(context)
    }

    /// What `text` comes to, or what is wrong with it.
    pub(super) fn check(&self, context: &ConfigContext<'_>, text: &[u8]) -> Result<Value, String> {
        match &self.rule {
            Rule::Number(range, _) => number(text, range).map(Value::Number),
            Rule::Memory(range, _) => memory(text, range).map(Value::Number),
            Rule::BulkBytes => {
                let max = context.settings.max_value_bytes as i64;
                memory(text, &(REQUEST_BYTES_MIN.min(max)..=max)).map(Value::Number)
            }
            Rule::Clients => {
                let wanted = number(text, &(1..=i64::from(u32::MAX)))?;
                let possible = context.clients_possible;
                if wanted as u64 > possible {
                    return Err(format!(
                        "The operating system is not able to handle the specified number of clients, try with \
                         {possible}"
                    ));
                }
                Ok(Value::Number(wanted))
            }
            Rule::Policy => choice(text, &POLICY_NAMES, &POLICY_NAMES_LISTED).map(Value::Choice),
            Rule::Output => output_limit(text, context.tunables.output_limit()).map(Value::Output),
            Rule::Password if text.is_empty() && context.settings.password.is_none() => Ok(Value::AsItIs),
            Rule::Password => Err("the password is given at the start: --password-file or EYOT_PASSWORD".to_owned()),
            Rule::Fixed if self.get(context).as_bytes().eq_ignore_ascii_case(text) => Ok(Value::AsItIs),
            Rule::Fixed | Rule::Immutable => Err("can't set immutable config".to_owned()),
        }
    }

    /// Stores what [`Parameter::check`] made.
    pub(super) fn store(&self, context: &ConfigContext<'_>, value: Value) {
        match (&self.rule, value) {
            (Rule::Number(_, store) | Rule::Memory(_, store), Value::Number(number)) => store(context, number),
            (Rule::BulkBytes, Value::Number(number)) => context.tunables.set_bulk_bytes(number as u64),
            (Rule::Clients, Value::Number(number)) => context.tunables.set_max_clients(number as u64),
            (Rule::Policy, Value::Choice(policy)) => context.memory.set_policy(policy),
            (Rule::Output, Value::Output(limit)) => context.tunables.set_output_limit(limit),
            (Rule::Fixed | Rule::Password, Value::AsItIs) => {}
            _ => unreachable!("a value is of the parameter that checked it"),
        }
    }
}

const fn of(name: &'static str, rule: Rule, get: fn(&ConfigContext<'_>) -> String) -> Parameter {
    Parameter { name, rule, get }
}

/// A number that is stored as it is.
macro_rules! tunable {
    ($name:literal, $kind:ident($range:expr), $of:ident, $get:ident, $set:ident) => {
        of($name, Rule::$kind($range, |context, number| context.$of.$set(number as _)), |context| {
            context.$of.$get().to_string()
        })
    };
}

/// A fact that is the same on every node.
macro_rules! always {
    ($name:literal, $value:literal) => {
        of($name, Rule::Fixed, |_| $value.to_owned())
    };
}

fn yes_or_no(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}

/// The classes that do not exist here are told as Redis tells them when nothing limits them.
fn output_limits(context: &ConfigContext<'_>) -> String {
    let normal = context.tunables.output_limit();
    format!("normal {} {} {} slave 0 0 0 pubsub 0 0 0", normal.hard_bytes, normal.soft_bytes, normal.soft_seconds)
}

/// Every parameter, by name.
pub(super) static PARAMETERS: &[Parameter] = &[
    always!("activedefrag", "no"),
    of("appendfsync", Rule::Fixed, |context| {
        (if context.settings.sync_writes { "always" } else { "everysec" }).to_owned()
    }),
    always!("appendonly", "yes"),
    of("bind", Rule::Fixed, |context| context.resp_address.ip().to_string()),
    of("client-output-buffer-limit", Rule::Output, output_limits),
    tunable!(
        "client-query-buffer-limit",
        Memory(REQUEST_BYTES_MIN..=QUERY_BUFFER_BYTES_MAX as i64),
        tunables,
        query_buffer_bytes,
        set_query_buffer_bytes
    ),
    of("cluster-enabled", Rule::Immutable, |context| yes_or_no(context.cluster_enabled)),
    of("daemonize", Rule::Immutable, |_| "no".to_owned()),
    of("databases", Rule::Immutable, |_| "1".to_owned()),
    of("dir", Rule::Fixed, |context| {
        let directory = &context.settings.data_dir;
        directory.canonicalize().unwrap_or_else(|_| directory.clone()).display().to_string()
    }),
    always!("dynamic-hz", "no"),
    always!("hz", "10"),
    of("io-threads", Rule::Immutable, |context| context.settings.core_count().to_string()),
    of("latency-tracking", Rule::Fixed, |context| yes_or_no(context.settings.enable_metrics)),
    always!("latency-tracking-info-percentiles", "50 99 99.9"),
    tunable!(
        "latency-monitor-threshold",
        Number(0..=i64::MAX),
        tunables,
        latency_threshold_ms,
        set_latency_threshold_ms
    ),
    tunable!("lfu-decay-time", Number(0..=INT_MAX), memory, lfu_decay_minutes, set_lfu_decay_minutes),
    tunable!("lfu-log-factor", Number(0..=INT_MAX), memory, lfu_log_factor, set_lfu_log_factor),
    always!("logfile", ""),
    of("maxclients", Rule::Clients, |context| context.tunables.max_clients().to_string()),
    tunable!("maxmemory", Memory(0..=i64::MAX), memory, max_memory_bytes, set_max_memory_bytes),
    always!("maxmemory-clients", "0"),
    of("maxmemory-policy", Rule::Policy, |context| {
        POLICY_NAMES[usize::from(context.memory.policy()) % POLICY_NAMES.len()].to_owned()
    }),
    tunable!("maxmemory-samples", Number(1..=INT_MAX), memory, samples, set_samples),
    always!("min-replicas-to-write", "0"),
    always!("notify-keyspace-events", ""),
    of("port", Rule::Fixed, |context| context.resp_address.port().to_string()),
    of("proto-max-bulk-len", Rule::BulkBytes, |context| context.tunables.bulk_bytes().to_string()),
    always!("replicaof", ""),
    of("requirepass", Rule::Password, |context| {
        (if context.settings.password.is_some() { "(redacted)" } else { "" }).to_owned()
    }),
    always!("save", ""),
    always!("slaveof", ""),
    tunable!(
        "slowlog-log-slower-than",
        Number(-1..=i64::MAX),
        tunables,
        slowlog_threshold_us,
        set_slowlog_threshold_us
    ),
    tunable!("slowlog-max-len", Number(0..=SLOWLOG_LEN_MAX as i64), tunables, slowlog_len, set_slowlog_len),
    of("supervised", Rule::Immutable, |_| "no".to_owned()),
    tunable!("tcp-keepalive", Number(0..=KEEPALIVE_SECONDS_MAX), tunables, keepalive_seconds, set_keepalive_seconds),
    tunable!("timeout", Number(0..=INT_MAX), tunables, idle_timeout_seconds, set_idle_timeout_seconds),
    always!("tls-port", "0"),
];
