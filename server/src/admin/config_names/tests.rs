//! CONFIG, compared with what Redis 7.0.15 answers to the same words.

use std::cell::Cell;

use clap::Parser;
use eyot_protocol::resp::RespVersion;

use super::*;
use crate::admin::words::Words;
use crate::config::Config;

#[derive(Debug)]
struct Memory([Cell<u64>; 5]);

/// Each value in a cell of its own, by its place.
macro_rules! cells {
    ($($place:literal: $get:ident, $set:ident as $number:ty;)+) => {
        impl MemoryTunables for Memory {
            $(fn $get(&self) -> $number {
                self.0[$place].get() as $number
            }

            fn $set(&self, value: $number) {
                self.0[$place].set(u64::from(value));
            })+
        }
    };
}

cells! {
    0: max_memory_bytes, set_max_memory_bytes as u64;
    1: policy, set_policy as u8;
    2: samples, set_samples as u32;
    3: lfu_log_factor, set_lfu_log_factor as u32;
    4: lfu_decay_minutes, set_lfu_decay_minutes as u32;
}

struct Node {
    settings: Settings,
    tunables: ServerTunables,
    memory: Memory,
}

impl Node {
    fn new() -> Self {
        let config = Config::parse_from(["eyot-server", "--max-memory", "1GiB"]);
        let settings = Settings::resolve(&config, &[0, 1], None).unwrap();
        let tunables = ServerTunables::new(&settings);
        let memory = Memory([1 << 30, 0, 5, 10, 1].map(Cell::new));
        Self { settings, tunables, memory }
    }

    fn context(&self) -> ConfigContext<'_> {
        ConfigContext {
            settings: &self.settings,
            tunables: &self.tunables,
            memory: &self.memory,
            resp_address: "127.0.0.1:6379".parse().unwrap(),
            clients_possible: 19_968,
            cluster_enabled: true,
        }
    }

    /// The reply to CONFIG GET, as words.
    fn get(&self, patterns: &str) -> String {
        let mut out = Vec::new();
        get(&self.context(), Words::new(patterns).args(), &mut Writer::new(&mut out, RespVersion::Three));
        let text = String::from_utf8(out).unwrap();
        text.split("\r\n").filter(|line| !line.starts_with('$')).collect::<Vec<_>>().join(" ")
    }

    /// `OK`, or the error line.
    fn set(&self, pairs: &str) -> String {
        let done = set(&self.context(), Words::new(pairs).args());
        done.map_or_else(|error| error.line().to_owned(), |()| "OK".to_owned())
    }
}

#[test]
fn parameters_are_sorted_and_named_once_so_that_a_list_is_easy_to_read() {
    let names: Vec<_> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names.len(), sorted.len());
}

#[test]
fn patterns_in_any_case_find_each_parameter_once() {
    let node = Node::new();
    assert_eq!(node.get("MAXMEMORY maxmem?ry"), "%1 maxmemory 1073741824 ");
    let found = node.get("max* *policy");
    assert!(found.starts_with("%5 ") && found.contains("maxclients 10000 maxmemory 1073741824 "), "{found}");
    assert_eq!(node.get("nope"), "%0 ");
    assert_eq!(node.get("*").split(' ').next(), Some(&*format!("%{}", PARAMETERS.len())));
    assert_eq!(
        node.get("save appendonly appendfsync databases"),
        "%4 appendfsync always appendonly yes databases 1 save  "
    );
}

#[test]
fn what_was_set_is_told_and_takes_effect() {
    let node = Node::new();
    for (pairs, name, told) in [
        ("maxmemory 1k", "maxmemory", "1000"),
        ("maxmemory 10MB", "maxmemory", "10485760"),
        ("maxmemory-policy AllKeys-LFU", "maxmemory-policy", "allkeys-lfu"),
        ("maxmemory-samples 10", "maxmemory-samples", "10"),
        ("maxclients 19968", "maxclients", "19968"),
        ("timeout 30", "timeout", "30"),
        ("tcp-keepalive 0", "tcp-keepalive", "0"),
        ("slowlog-log-slower-than -1", "slowlog-log-slower-than", "-1"),
        ("slowlog-max-len 10000", "slowlog-max-len", "10000"),
        ("latency-monitor-threshold 100", "latency-monitor-threshold", "100"),
        ("proto-max-bulk-len 2mb", "proto-max-bulk-len", "2097152"),
        ("client-query-buffer-limit 1mb", "client-query-buffer-limit", "1048576"),
        ("lfu-log-factor 1", "lfu-log-factor", "1"),
        ("lfu-decay-time 2", "lfu-decay-time", "2"),
        ("SAVE ''", "save", ""),
        ("appendonly YES", "appendonly", "yes"),
        ("hz 10", "hz", "10"),
    ] {
        assert_eq!(node.set(pairs), "OK", "{pairs}");
        assert_eq!(node.get(name), format!("%1 {name} {told} "), "{pairs}");
    }
    assert_eq!(node.set("client-output-buffer-limit 'normal 1mb 2mb 10'"), "OK");
    assert_eq!(
        node.get("client-output-buffer-limit"),
        "%1 client-output-buffer-limit normal 1048576 2097152 10 slave 0 0 0 pubsub 0 0 0 "
    );
    assert_eq!(node.memory.policy(), 3);
    assert_eq!(node.tunables.slowlog_threshold_us(), -1);
}

#[test]
fn errors_have_the_words_of_redis() {
    let node = Node::new();
    let failed = |name: &str, problem: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {problem}")
    };
    let policies = "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, \
                    volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction";
    let clients = "The operating system is not able to handle the specified number of clients, try with 19968";
    for (pairs, name, problem) in [
        ("maxmemory abc", "maxmemory", "argument must be a memory value"),
        ("maxmemory 5%", "maxmemory", "argument must be a memory value"),
        ("MAXMEMORY 10mb maxmemory 20mb", "maxmemory", "duplicate parameter"),
        ("maxmemory-policy foo", "maxmemory-policy", policies),
        ("databases 4", "databases", "can't set immutable config"),
        ("cluster-enabled yes", "cluster-enabled", "can't set immutable config"),
        ("appendonly no", "appendonly", "can't set immutable config"),
        ("maxclients 0", "maxclients", "argument must be between 1 and 4294967295 inclusive"),
        ("maxclients 99999999", "maxclients", clients),
        ("timeout -1", "timeout", "argument must be between 0 and 2147483647 inclusive"),
        ("timeout abc", "timeout", "argument couldn't be parsed into an integer"),
        ("maxmemory-samples 0", "maxmemory-samples", "argument must be between 1 and 2147483647 inclusive"),
        (
            "slowlog-log-slower-than -2",
            "slowlog-log-slower-than",
            "argument must be between -1 and 9223372036854775807 inclusive",
        ),
        (
            "client-query-buffer-limit 1",
            "client-query-buffer-limit",
            "argument must be between 1048576 and 1073741824 inclusive",
        ),
        (
            "client-output-buffer-limit 'normal 1 2'",
            "client-output-buffer-limit",
            "Wrong number of arguments in buffer limit configuration.",
        ),
    ] {
        assert_eq!(node.set(pairs), failed(name, problem), "{pairs}");
    }
    assert_eq!(node.set("Foo bar"), "ERR Unknown option or number of arguments for CONFIG SET - 'Foo'");
}

#[test]
fn all_of_a_set_takes_effect_or_none() {
    let node = Node::new();
    assert_eq!(node.set("maxmemory 1mb timeout 9 slowlog-max-len 3"), "OK");
    assert_eq!(node.memory.max_memory_bytes(), 1 << 20);
    for pairs in ["maxmemory 2mb foo 1", "maxmemory 2mb timeout x", "maxmemory 2mb databases 1"] {
        assert!(node.set(pairs).starts_with("ERR "), "{pairs}");
        assert_eq!(node.memory.max_memory_bytes(), 1 << 20, "{pairs}");
    }
}
