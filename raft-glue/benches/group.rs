//! What consensus costs: one group of one and of three voters, from the proposal to the applied entry, without I/O.
//!
//! Run it with `cargo bench -p eyot-raft-glue`. It takes less than a minute, prints what criterion measures, and then
//! one table with the limits that the project set itself.
//!
//! What is measured:
//! - One round proposes one entry with 1, 16 or 256 commands of 100 bytes, and goes on until the leader has committed
//!   and applied it, and nothing is left to do. Followers learn with the next append what is committed, so they apply
//!   the entry of the round before. The disk is a number that is told back at once; applying looks at the payload's
//!   length.
//! - "in memory" hands messages over as they are; "encoded" puts each poll's messages and records into bytes and reads
//!   the messages back, as a frame and a log would.
//! - The figure is the time of a round, divided by its commands and by the replicas that did the work. All replicas
//!   run on one core, one after the other.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use eyot_raft_glue::{
    EntryBody, EntryKind, Group, GroupId, Identity, Index, Membership, Output, PeerId, PeerMessage, Recovered,
    Settings, SnapshotId,
};

const COMMAND_BYTES: usize = 100;

/// Entries after which the log in memory is cut, as a server would after a snapshot.
const COMPACT_EVERY: u64 = 1024;

/// Voters, commands of an entry, and the limit in nanoseconds per command and replica.
const CASES: [(u64, usize, Option<f64>); 6] = [
    (1, 1, None),
    (1, 16, Some(300.0)),
    (1, 256, Some(60.0)),
    (3, 1, None),
    (3, 16, Some(300.0)),
    (3, 256, Some(60.0)),
];

struct Bench {
    groups: Vec<Group>,
    out: Output,
    wire: Vec<PeerMessage>,
    encoded: bool,
    bytes: Vec<u8>,
    applied_bytes: usize,
}

impl Bench {
    fn new(voters: u64, encoded: bool) -> Self {
        let membership = Membership::new((1..=voters).map(PeerId), []);
        let group = |peer| {
            let identity = Identity { group: GroupId(1), peer: PeerId(peer), incarnation: 1, seed: 3 };
            let recovered = Recovered::founding(membership.clone());
            Group::new(identity, Settings::default(), recovered).expect("a sound start")
        };
        let groups = (1..=voters).map(group).collect();
        let mut bench =
            Self { groups, out: Output::default(), wire: Vec::new(), encoded, bytes: Vec::new(), applied_bytes: 0 };
        bench.groups[0].campaign();
        bench.settle();
        assert!(bench.groups[0].is_leader());
        bench
    }

    fn settle(&mut self) {
        loop {
            for place in 0..self.groups.len() {
                self.poll(place);
            }
            if self.wire.is_empty() {
                return;
            }
            for message in std::mem::take(&mut self.wire) {
                let place = message.to().0 as usize - 1;
                // Every message is one that its receiver waits for.
                let _ = self.groups[place].receive(message);
            }
        }
    }

    fn poll(&mut self, place: usize) {
        let group = &mut self.groups[place];
        while group.has_work() {
            group.poll(&mut self.out);
            if let Some(record) = self.out.persist.last() {
                let number = record.number;
                if self.encoded {
                    self.bytes.clear();
                    self.out.persist.iter().for_each(|record| record.encode(&mut self.bytes));
                    black_box(&self.bytes);
                }
                group.persisted(number);
            }
            for apply in &self.out.apply {
                if let EntryBody::Data { bytes, .. } = &apply.entry.body {
                    self.applied_bytes += bytes.len();
                }
            }
            if let Some(last) = self.out.apply.last() {
                group.applied(last.entry.position.index);
            }
            for message in self.out.send.drain(..) {
                self.wire.push(if self.encoded { over_the_wire(&message) } else { message });
            }
            self.out.clear();
        }
    }

    fn round(&mut self, payload: &Bytes) {
        let position = self.groups[0].propose(EntryKind::Commands, payload.clone()).expect("the leader");
        self.settle();
        assert!(self.groups[0].last_applied() >= position.index);
        assert!(self.groups.iter().all(|group| group.last_applied() >= Index(position.index.0 - 1)));
        if position.index.0.is_multiple_of(COMPACT_EVERY) {
            for group in &mut self.groups {
                group.snapshot_built(group.snapshot_point(SnapshotId(position.index.0)));
                group.compact(Index::MAX);
            }
        }
    }

    fn rounds(&mut self, payload: &Bytes, count: u64) -> Duration {
        let start = Instant::now();
        (0..count).for_each(|_| self.round(payload));
        start.elapsed()
    }
}

fn over_the_wire(message: &PeerMessage) -> PeerMessage {
    let mut bytes = Vec::with_capacity(message.byte_length_max());
    message.encode(&mut bytes);
    PeerMessage::decode(&bytes.into()).expect("what was encoded")
}

/// The median of several runs, in nanoseconds per command and replica.
fn figure(voters: u64, commands: usize, encoded: bool) -> f64 {
    const ROUNDS: u64 = 2000;
    let payload = Bytes::from(vec![0x5a; commands * COMMAND_BYTES]);
    let mut bench = Bench::new(voters, encoded);
    bench.rounds(&payload, ROUNDS);
    let mut figures: Vec<f64> = (0..9)
        .map(|_| bench.rounds(&payload, ROUNDS).as_nanos() as f64 / (ROUNDS as f64 * commands as f64 * voters as f64))
        .collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("group");
    for (voters, commands, _) in CASES {
        let payload = Bytes::from(vec![0x5a; commands * COMMAND_BYTES]);
        group.throughput(Throughput::Elements(commands as u64));
        let mut bench = Bench::new(voters, false);
        let id = BenchmarkId::new(format!("voters_{voters}"), commands);
        group.bench_function(id, |bencher| bencher.iter_custom(|count| bench.rounds(&payload, count)));
    }
    group.finish();
    println!("\nvoters  commands  in memory  encoded  limit   (ns per command and replica)");
    for (voters, commands, limit) in CASES {
        let (plain, encoded) = (figure(voters, commands, false), figure(voters, commands, true));
        let limit = limit.map_or_else(String::new, |limit| format!("{limit:5.0}"));
        println!("{voters:6}  {commands:8}  {plain:9.1}  {encoded:7.1}  {limit:>5}");
    }
    criterion.final_summary();
}
