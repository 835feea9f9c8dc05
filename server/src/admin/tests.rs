//! Requests as a client sends them, from the parser to the reply, on a node of two cores that are structs.

use std::sync::atomic::AtomicU64;

use clap::Parser;
use eyot_protocol::resp::{parse, RespVersion};

use super::client_list::{client_id, ClientInfo};
use super::config_names::MemoryTunables;
use super::gather::{question, CoreSide, ListedClients, Question, CLIENTS_PER_SLICE};
use super::latency::{Event, LatencyEvents};
use super::slowlog::SlowLog;
use super::words::Words;
use super::*;
use crate::config::{Config, ServerTunables, Settings};
use crate::memory::{CoreMemory, Ledger};
use crate::metrics::Metrics;

const NOW_US: i64 = 1_795_262_303_540_906;

#[derive(Debug)]
struct NoLimit;

impl MemoryTunables for NoLimit {
    fn max_memory_bytes(&self) -> u64 {
        0
    }
    fn set_max_memory_bytes(&self, _: u64) {}
    fn policy(&self) -> u8 {
        0
    }
    fn set_policy(&self, _: u8) {}
    fn samples(&self) -> u32 {
        5
    }
    fn set_samples(&self, _: u32) {}
    fn lfu_log_factor(&self) -> u32 {
        10
    }
    fn set_lfu_log_factor(&self, _: u32) {}
    fn lfu_decay_minutes(&self) -> u32 {
        1
    }
    fn set_lfu_decay_minutes(&self, _: u32) {}
}

struct FakeCore {
    core: u16,
    slow_log: SlowLog,
    events: LatencyEvents,
    metrics: Metrics,
    /// Sequence numbers of its connections.
    clients: Vec<u64>,
    closed: Vec<(u64, bool)>,
}

impl FakeCore {
    fn new(core: u16) -> Self {
        Self {
            core,
            slow_log: SlowLog::new(core, 2),
            events: LatencyEvents::default(),
            metrics: Metrics::new(true),
            clients: vec![0, 1],
            closed: Vec::new(),
        }
    }
}

impl CoreSide for FakeCore {
    fn slow_log(&mut self) -> &mut SlowLog {
        &mut self.slow_log
    }

    fn events(&mut self) -> &mut LatencyEvents {
        &mut self.events
    }

    fn metrics(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    fn report(&mut self) -> CoreReport {
        CoreReport {
            memory: CoreMemory { ledger: Ledger { entries: 100, ..Ledger::default() }, ..CoreMemory::default() },
            core: self.core,
            processor: 0,
            keys: 5,
            expiring_keys: 1,
            memory_bytes: 100,
            entries: 0,
            shards: 4,
            connections: 2,
            log_pending_bytes: 0,
            log_kept_bytes: 0,
            read_only: false,
            metrics: self.metrics.snapshot(),
        }
    }

    fn visit_clients(&mut self, from: usize, count: usize, each: &mut dyn FnMut(ClientInfo)) -> usize {
        let client = |&sequence: &u64| ClientInfo {
            key: sequence as u32,
            id: client_id(sequence, self.core, 2),
            addr: format!("127.0.0.1:{}", 5000 + sequence * 2 + u64::from(self.core)).parse().unwrap(),
            laddr: "127.0.0.1:6379".parse().unwrap(),
            fd: 8,
            name: String::new(),
            age_s: 1,
            idle_s: 1,
            flags: Vec::new(),
            query_bytes: 0,
            query_free_bytes: 0,
            output_bytes: 0,
            output_items: 0,
            memory_bytes: 0,
            command: "ping",
            version: RespVersion::Two,
            library: String::new(),
            library_version: String::new(),
            core: self.core,
        };
        self.clients.iter().skip(from).take(count).map(client).for_each(each);
        let next = from + count;
        if next < self.clients.len() {
            next
        } else {
            0
        }
    }

    fn close(&mut self, client: &ClientInfo, is_asking: bool) {
        self.closed.push((client.id, is_asking));
    }
}

struct Node {
    facts: NodeFacts,
    peak: AtomicU64,
    settings: Settings,
    tunables: ServerTunables,
    snapshots: SnapshotBoard,
    routes: Routes,
    addresses: Vec<SocketAddr>,
    cores: [FakeCore; 2],
}

impl Node {
    fn new() -> Self {
        let config = Config::parse_from(["eyot-server", "--cores", "2"]);
        let settings = Settings::resolve(&config, &[0, 1], None).unwrap();
        Self {
            facts: NodeFacts { cluster_enabled: true, ..NodeFacts::of_this_process("island", 7, 1_795_262_214) },
            peak: AtomicU64::new(0),
            tunables: ServerTunables::new(&settings),
            settings,
            snapshots: SnapshotBoard::new(2, 8),
            routes: Routes::new(8, 2),
            addresses: ["0.0.0.0:6480", "0.0.0.0:6481"].map(|address| address.parse().unwrap()).to_vec(),
            cores: [FakeCore::new(0), FakeCore::new(1)],
        }
    }

    /// The reply to a line of words, asked by the connection 1 of the first core in RESP3.
    fn ask(&mut self, line: &str) -> String {
        let Self { facts, peak, settings, tunables, snapshots, routes, addresses, cores } = self;
        let config = ConfigContext {
            settings,
            tunables,
            memory: &NoLimit,
            resp_address: "0.0.0.0:6379".parse().unwrap(),
            clients_possible: 20_000,
            cluster_enabled: true,
        };
        let context = AdminContext {
            facts,
            memory_peak: peak,
            config,
            snapshots,
            routes,
            core_addresses: addresses,
            core: 0,
            arrived_on: "10.0.0.7".parse().unwrap(),
            moment: Moment { wall_us: NOW_US, monotonic_us: 90_000_000 },
        };
        let words = Words::new(line);
        let mut out = Vec::new();
        let mut reply = Writer::new(&mut out, RespVersion::Three);
        match parse(words.args(), NOW_US) {
            Err(error) => reply.error(error.line()),
            Ok(parsed) => match question(&parsed.request, 1, tunables.slowlog_len()) {
                Some((question, pending)) => {
                    let answers = cores.iter_mut().map(|core| question.clone().answer(core)).collect();
                    pending.reply(answers, &context, &mut reply);
                }
                None => assert!(answer(&parsed.request, &context, &mut reply), "{line} is answered by nobody"),
            },
        }
        String::from_utf8(out).unwrap()
    }
}

#[test]
fn what_one_core_answers_alone() {
    let mut node = Node::new();
    assert_eq!(node.ask("TIME"), "*2\r\n$10\r\n1795262303\r\n$6\r\n540906\r\n");
    assert_eq!(node.ask("CLUSTER KEYSLOT foo"), ":12182\r\n");
    assert!(node
        .ask("CLUSTER SLOTS")
        .starts_with("*2\r\n*3\r\n:0\r\n:8191\r\n*4\r\n$8\r\n10.0.0.7\r\n:6480\r\n$40\r\n"));
    assert!(node.ask("CLUSTER NODES").starts_with('='));
    assert!(node.ask("LOLWUT").contains("Eyot ver. "));
    assert_eq!(node.ask("CONFIG GET databases hz"), "%2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n$2\r\nhz\r\n$2\r\n10\r\n");
    assert_eq!(node.ask("CONFIG SET timeout 7"), "+OK\r\n");
    assert_eq!(node.tunables.idle_timeout_seconds(), 7);
    let unknown = "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n";
    assert_eq!(node.ask("CONFIG SET foo bar"), unknown);
    assert_eq!(node.ask("CONFIG REWRITE"), "-ERR The server is running without a config file\r\n");
}

#[test]
fn info_and_memory_are_of_all_cores() {
    let mut node = Node::new();
    let keyspace = "# Keyspace\r\ndb0:keys=10,expires=2,avg_ttl=0\r\n";
    assert_eq!(node.ask("INFO keyspace"), format!("={}\r\ntxt:{keyspace}\r\n", keyspace.len() + 4));
    assert!(node.ask("INFO").contains("\r\nused_memory:200\r\n"));
    assert!(node.ask("MEMORY STATS").contains("keys.count\r\n:10\r\n"));
    assert!(node.ask("MEMORY DOCTOR").contains("Nothing to worry about."));
}

#[test]
fn statistics_are_reset_on_all_cores() {
    let mut node = Node::new();
    for core in &mut node.cores {
        core.metrics.commands.called_for(eyot_protocol::resp::CommandId::Get as usize, 1500);
    }
    assert!(node.ask("INFO commandstats").contains("cmdstat_get:calls=2,usec=3,usec_per_call=1.50,"));
    let histogram = "%1\r\n$3\r\nget\r\n%2\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n%1\r\n:2\r\n:2\r\n";
    assert_eq!(node.ask("LATENCY HISTOGRAM GET set nope"), histogram);
    assert_eq!(node.ask("LATENCY HISTOGRAM"), histogram);
    assert_eq!(node.ask("LATENCY HISTOGRAM nope"), "%0\r\n");
    assert_eq!(node.ask("CONFIG RESETSTAT"), "+OK\r\n");
    assert_eq!(node.ask("LATENCY HISTOGRAM"), "%0\r\n");
}

#[test]
fn slow_commands_of_all_cores_are_told_newest_first() {
    let mut node = Node::new();
    for (place, second) in [(0, 5), (1, 6), (0, 7)] {
        let arguments = vec![b"GET".to_vec(), b"k".to_vec()];
        let client = ("127.0.0.1:5000".to_owned(), Vec::new());
        node.cores[place].slow_log.note(8, second * 1_000_000, 99, arguments, client);
    }
    assert_eq!(node.ask("SLOWLOG LEN"), ":3\r\n");
    assert!(node.ask("SLOWLOG GET 2").starts_with("*2\r\n*6\r\n:2\r\n:7\r\n:99\r\n*2\r\n$3\r\nGET\r\n"));
    assert_eq!(node.ask("SLOWLOG GET -1").matches("*6\r\n").count(), 3);
    node.ask("CONFIG SET slowlog-max-len 2");
    assert_eq!(node.ask("SLOWLOG LEN"), ":2\r\n");
    assert_eq!(node.ask("SLOWLOG RESET"), "+OK\r\n");
    assert_eq!(node.ask("SLOWLOG GET"), "*0\r\n");
}

#[test]
fn events_of_all_cores_are_one_series() {
    let mut node = Node::new();
    node.cores[0].events.note(1, Event::Turn, 2_000_000, 3000);
    node.cores[1].events.note(1, Event::Turn, 2_000_000, 8000);
    assert_eq!(node.ask("LATENCY LATEST"), "*1\r\n*4\r\n$4\r\nturn\r\n:2\r\n:8\r\n:8\r\n");
    assert_eq!(node.ask("LATENCY HISTORY turn"), "*1\r\n*2\r\n:2\r\n:8\r\n");
    assert!(node.ask("LATENCY GRAPH turn").contains("turn - high 8 ms, low 8 ms"));
    assert_eq!(node.ask("LATENCY GRAPH nope"), "-ERR No samples available for event 'nope'\r\n");
    assert!(node.ask("LATENCY DOCTOR").contains("latency-monitor-threshold"));
    assert_eq!(node.ask("LATENCY RESET nope"), ":0\r\n");
    assert_eq!(node.ask("LATENCY RESET"), ":1\r\n");
    assert_eq!(node.ask("LATENCY LATEST"), "*0\r\n");
}

#[test]
fn clients_of_all_cores_are_listed_and_killed() {
    let mut node = Node::new();
    let ids = |text: &str| -> Vec<String> {
        let words = text.split_ascii_whitespace().map(|word| word.trim_start_matches("txt:"));
        words.filter_map(|word| word.strip_prefix("id=")).map(str::to_owned).collect()
    };
    assert_eq!(ids(&node.ask("CLIENT LIST")), ["1", "2", "3", "4"]);
    assert_eq!(ids(&node.ask("CLIENT LIST ID 4 2 9")), ["2", "4"]);
    for core in &mut node.cores {
        core.clients = (0..1000).collect();
    }
    assert_eq!(ids(&node.ask("CLIENT LIST")).len(), 2000);
    let mut slices = 1;
    let mut walk = Question::Clients(ListedClients::default()).into_walk().expect("a walk");
    while walk.go_on(&mut node.cores[0]).is_none() {
        slices += 1;
    }
    assert_eq!(slices, 1000_usize.div_ceil(CLIENTS_PER_SLICE));
    for core in &mut node.cores {
        core.clients.truncate(2);
    }
    assert_eq!(node.ask("CLIENT LIST TYPE pubsub"), "=4\r\ntxt:\r\n");
    assert_eq!(node.ask("CLIENT KILL ID 99"), ":0\r\n");
    assert_eq!(node.ask("CLIENT KILL LADDR 127.0.0.1:6379"), ":3\r\n");
    assert_eq!((&node.cores[0].closed, &node.cores[1].closed), (&vec![(3, false)], &vec![(2, false), (4, false)]));
    assert_eq!(node.ask("CLIENT KILL 127.0.0.1:5000"), "+OK\r\n");
    assert_eq!(node.cores[0].closed[1..], [(1, true)]);
    assert_eq!(node.ask("CLIENT KILL 1.2.3.4:5"), "-ERR No such client\r\n");
}
