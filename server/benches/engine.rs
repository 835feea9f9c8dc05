//! What one core pays for the shard engine alone: reads, overwrites, inserts and whole log entries, with 16-byte keys
//! and 64-byte values, at a size that fits the caches and at one that does not.
//!
//! The times are per operation (criterion's "elem"), keys in random order. Compare `get hit` with `get hit, prefetched
//! 16` to see what looking a pipeline's keys up together is worth.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use eyot_protocol::command::{Command, Condition, EntryBuilder, NewExpiry, Value};
use eyot_protocol::key;
use eyot_raft_glue::{Index, ShardId};
use eyot_server::shard::{Place, Shard, Stored};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 64;
const PIPELINE: usize = 16;
const SHARDS: u16 = 4;

/// Any fixed time.
const NOW_US: i64 = 1_700_000_000_000_000;

type Key = [u8; 16];

/// `count` keys of shard 0, in random order (a fixed one).
fn keys(count: usize, prefix: &str) -> Vec<Key> {
    let mut state = 1_u64;
    let numbered = (0..).map(|n: u64| {
        let key: Key = format!("{prefix}{n:012}").into_bytes().try_into().expect("a prefix of 4 bytes");
        key
    });
    let mut keys: Vec<Key> =
        numbered.filter(|key| key::shard_of_slot(key::slot(key), SHARDS) == 0).take(count).collect();
    for at in (1..keys.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        keys.swap(at, (state >> 33) as usize % (at + 1));
    }
    keys
}

fn value() -> Vec<u8> {
    let mut value = vec![0x07, VALUE_BYTES as u8];
    value.resize(2 + VALUE_BYTES, b'v');
    value
}

/// Entries of `batch` SETs each, over all `keys`.
fn entries(keys: &[Key], batch: usize, expires_at_us: Option<i64>) -> Vec<Vec<u8>> {
    let value = value();
    let mut builder = EntryBuilder::default();
    let expiry = expires_at_us.map_or(NewExpiry::Never, NewExpiry::At);
    let value = Value::Encoded(&value);
    let set = |key| Command::Set { key, value, expiry, condition: Condition::Always, return_old: false };
    keys.chunks(batch)
        .map(|chunk| {
            for key in chunk {
                builder.push(&set(key), NOW_US);
            }
            builder.take()
        })
        .collect()
}

fn apply_all(shard: &mut Shard, entries: &[Vec<u8>], next_index: &mut u64) {
    for payload in entries {
        *next_index += 1;
        let applied = shard.apply(Index(*next_index), payload, |_, outcome| {
            black_box(outcome);
        });
        applied.expect("a well-formed entry");
    }
}

fn filled(keys: &[Key]) -> Shard {
    let mut shard = Shard::new(ShardId(0), SHARDS, 42);
    apply_all(&mut shard, &entries(keys, PIPELINE, None), &mut 0);
    shard
}

fn reads(criterion: &mut Criterion) {
    for count in [100_000, 1_000_000] {
        let present = keys(count, "key:");
        let absent = keys(count, "not:");
        let shard = filled(&present);
        let mut group = criterion.benchmark_group("reads");
        group.throughput(Throughput::Elements(PIPELINE as u64));
        for (name, keys, prefetch) in [
            ("get hit", &present, false),
            ("get hit, prefetched 16", &present, true),
            ("get miss", &absent, false),
            ("get miss, prefetched 16", &absent, true),
        ] {
            let mut at = 0;
            let mut replies = Vec::new();
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    let pipeline = &keys[at..at + PIPELINE];
                    at = (at + PIPELINE) % (count - PIPELINE);
                    // What a server does around each read keeps the processor from overlapping the misses of a pipeline
                    // by itself, as it would if nothing but reads stood here: the slot is computed,
                    // the reply is written.
                    replies.clear();
                    let mut reply = |stored: Option<Stored<'_>>| {
                        if let Some(stored) = stored {
                            replies.extend_from_slice(&stored.version.0.to_le_bytes());
                            replies.extend_from_slice(stored.value);
                        }
                    };
                    if prefetch {
                        let place = |n: usize| shard.place(key::slot(&pipeline[n]), &pipeline[n]);
                        let places: [Place; PIPELINE] = std::array::from_fn(place);
                        for &place in &places {
                            shard.prefetch(place);
                        }
                        for (key, place) in pipeline.iter().zip(places) {
                            reply(shard.get_at(place, key, NOW_US));
                        }
                    } else {
                        for key in pipeline {
                            reply(shard.get(key::slot(key), key, NOW_US));
                        }
                    }
                    replies.len()
                });
            });
        }
        group.finish();
    }
}

fn writes(criterion: &mut Criterion) {
    for count in [100_000, 1_000_000] {
        let keys = keys(count, "key:");
        for batch in [1, 16] {
            let mut group = criterion.benchmark_group("writes");
            group.sample_size(20).throughput(Throughput::Elements(count as u64));
            for (name, expires_at_us) in [("set", None), ("set with expiry", Some(NOW_US + 60_000_000))] {
                let entries = entries(&keys, batch, expires_at_us);
                let mut shard = Shard::new(ShardId(0), SHARDS, 42);
                let mut index = 0;
                apply_all(&mut shard, &entries, &mut index);
                let id = BenchmarkId::new(format!("{name}, overwrite, {batch} per entry"), count);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| apply_all(&mut shard, &entries, &mut index));
                });
                drop(shard);
                let id = BenchmarkId::new(format!("{name}, insert, {batch} per entry"), count);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|iterations| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..iterations {
                            let mut shard = Shard::new(ShardId(0), SHARDS, 42);
                            let start = Instant::now();
                            apply_all(&mut shard, &entries, &mut 0);
                            spent += start.elapsed();
                        }
                        spent
                    });
                });
            }
            group.finish();
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    reads(&mut criterion);
    writes(&mut criterion);
    criterion.final_summary();
}
