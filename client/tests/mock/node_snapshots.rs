//! The snapshots of the mock, and snapshots for tests: their entries, their streams, their files.

use std::collections::VecDeque;

use eyot_client::{ShardSnapshot, SnapshotStatus, Value};
use eyot_protocol::key::{shard_of_slot, slot};
use eyot_protocol::request::{SnapshotRead, SnapshotRequest};
use eyot_protocol::response::SnapshotReply;
use eyot_protocol::snapshot::{
    Entry, FileHeader, FileWriter, LargeValue, ShardFooter, ShardHeader, ShardWriter, MAX_INLINE_VALUE_BYTES,
    VALUE_PART_BYTES,
};

pub const SHARDS: u16 = 3;
pub const NODE: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

/// Key, encoded value, expiry.
pub type Entries = Vec<(Vec<u8>, Vec<u8>, Option<i64>)>;

pub fn encoded(value: impl Into<Value>) -> Vec<u8> {
    let mut encoded = Vec::new();
    value.into().encode(&mut encoded);
    encoded
}

/// Entries of every kind: plain ones, keys that are no text, values of every type, some that expire, a large one.
pub fn entries() -> Entries {
    let mut entries: Entries = (0..2_000)
        .map(|number| (format!("user:{number}").into_bytes(), encoded(format!("value {number}")), None))
        .collect();
    let values = [
        Value::Null,
        Value::Int32(-5),
        Value::Int64(i64::MIN),
        Value::Float64(f64::NAN),
        Value::Float64(-0.0),
        Value::Boolean(true),
        Value::Timestamp(1_767_225_600_000_000),
        Value::Bytes(vec![0, 255, 10, 13, 34]),
        Value::Bytes(b"text".to_vec()),
        Value::from("two\nlines, \"quoted\""),
        Value::Error { code: 12, message: "later".to_owned() },
        Value::List(vec![Value::Null, Value::from("x"), Value::Int32(1)]),
        Value::Map(vec![(Value::from("name"), Value::from("Ann")), (Value::Int32(1), Value::List(vec![]))]),
    ];
    for (number, value) in values.into_iter().enumerate() {
        let expires_at_us = (number % 2 == 0).then_some(1_900_000_000_000_000 + number as i64);
        entries.push((vec![0xff, number as u8, 0], encoded(value), expires_at_us));
    }
    entries.push((b"empty value".to_vec(), encoded(""), None));
    entries.push((Vec::new(), encoded("of the empty key"), None));
    entries.push((
        b"large".to_vec(),
        encoded(Value::Bytes((0..2_500_000_u32).map(|n| (n % 251) as u8).collect())),
        None,
    ));
    entries
}

/// The stream of a shard, with its footer.
pub fn stream(entries: &Entries, shard: u16, index: u64) -> (Vec<u8>, ShardFooter) {
    let mut own: Vec<_> = entries
        .iter()
        .map(|entry| (slot(&entry.0), entry))
        .filter(|(slot, _)| shard_of_slot(*slot, SHARDS) == shard)
        .collect();
    own.sort_by(|one, other| (one.0, &one.1 .0).cmp(&(other.0, &other.1 .0)));
    let mut out = Vec::new();
    let header = ShardHeader { node_uuid: NODE, shard, shard_count: SHARDS, index, term: 1, needed_after: index };
    let mut writer = ShardWriter::new(header, &mut out);
    for (slot, (key, value, expires_at_us)) in own {
        let (slot, expires_at_us, version) = (slot, *expires_at_us, 1 << 16);
        if value.len() <= MAX_INLINE_VALUE_BYTES {
            writer.push(&Entry { slot, key, value, version, expires_at_us }, &mut out).expect("in order");
            continue;
        }
        let large = LargeValue { slot, key, value_bytes: value.len() as u64, version, expires_at_us };
        writer.begin_large(&large, &mut out).expect("in order");
        value.chunks(VALUE_PART_BYTES).for_each(|part| writer.push_part(part, &mut out).expect("in order"));
    }
    let footer = writer.finish(&mut out).expect("whole");
    (out, footer)
}

/// A file of the whole database, as a sequential writer makes it.
pub fn file(entries: &Entries, indexes: [u64; SHARDS as usize]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = FileWriter::new(FileHeader { node_uuid: NODE, shard_count: SHARDS }, &mut file);
    for (shard, index) in (0..SHARDS).zip(indexes) {
        let (bytes, footer) = stream(entries, shard, index);
        file.extend_from_slice(&bytes);
        writer.shard(&footer, bytes.len() as u64);
    }
    writer.finish(&mut file);
    file
}

/// The snapshots of one round, by shard: index, stream, entries.
#[derive(Clone, Default)]
pub struct Round(pub Vec<(u64, Vec<u8>, u64)>);

impl Round {
    pub fn of(entries: &Entries, indexes: [u64; SHARDS as usize]) -> Self {
        let each = (0..SHARDS).zip(indexes).map(|(shard, index)| {
            let (bytes, footer) = stream(entries, shard, index);
            (index, bytes, footer.totals.entries)
        });
        Self(each.collect())
    }
}

/// What the mock answers SNAPSHOT from.
#[derive(Default)]
pub struct NodeSnapshots {
    /// The first is what there is; the others take its place one after the other.
    pub rounds: VecDeque<Round>,
    /// How often STATUS says that it is not done yet.
    pub polls_before_done: u32,
    pub failure: Option<String>,
    /// READs until the next round takes the place of the one before; `None`: never.
    pub reads_per_round: Option<u32>,
    pub reads: u32,
    /// Most bytes of an answer; 0: as many as are asked for.
    pub read_bytes_max: usize,
}

impl NodeSnapshots {
    pub fn of(rounds: impl IntoIterator<Item = Round>) -> Self {
        Self { rounds: rounds.into_iter().collect(), ..Self::default() }
    }

    /// `None`: there is no such snapshot.
    pub fn answer(&mut self, request: SnapshotRequest) -> Option<SnapshotReply<'_>> {
        match request {
            SnapshotRequest::Create => Some(SnapshotReply::Created { request: 7 }),
            SnapshotRequest::Status { request } => {
                assert!(matches!(request, 0 | 7), "request {request} was never made");
                Some(SnapshotReply::Status(self.status(request)))
            }
            SnapshotRequest::Read(read) => self.read(read),
        }
    }

    fn status(&mut self, request: u64) -> SnapshotStatus {
        let is_done = request == 0 || self.polls_before_done == 0;
        self.polls_before_done = self.polls_before_done.saturating_sub(1);
        let round = self.rounds.front().cloned().unwrap_or_default();
        let shards = (0_u16..).zip(&round.0).map(|(shard, (index, bytes, entries))| ShardSnapshot {
            shard,
            core: shard % 2,
            index: *index,
            bytes: bytes.len() as u64,
            entries: *entries,
        });
        SnapshotStatus {
            is_done,
            failure: self.failure.clone().filter(|_| is_done),
            is_in_progress: !is_done,
            entries_done: 10,
            bytes_done: 1000,
            keys: 20,
            shards: shards.collect(),
            shard_count: SHARDS,
            node_uuid: NODE,
        }
    }

    fn read(&mut self, read: SnapshotRead) -> Option<SnapshotReply<'_>> {
        self.reads += 1;
        if self.reads_per_round.is_some_and(|reads| self.reads > reads) && self.rounds.len() > 1 {
            self.rounds.pop_front();
            self.reads = 0;
        }
        let (index, bytes, _) = &self.rounds.front()?.0[usize::from(read.shard)];
        if *index != read.index {
            return None;
        }
        let rest = bytes.get(read.offset as usize..).unwrap_or_default();
        let limit = if self.read_bytes_max == 0 { usize::MAX } else { self.read_bytes_max };
        Some(SnapshotReply::Bytes(&rest[..rest.len().min(read.length as usize).min(limit)]))
    }
}
