//! Writing and reading a shard's stream: entries of a 20-byte key and a 100-byte value, in the order of a walk.
//!
//! Run it with `cargo bench -p eyot-protocol --bench snapshot`. Criterion's elements are entries. "counters" are keys
//! that differ in their last digits, as `key:00000001234`, so that chunks leave out what they share; "random" ones
//! share nothing. "read" visits every entry; "verify" leaves the chunks alone, so that what remains is checksums and
//! lengths.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use eyot_protocol::key::slot;
use eyot_protocol::snapshot::{Decoder, Entry, Event, ShardHeader, ShardWriter};

const ENTRIES: u64 = 200_000;
const INDEX: u64 = 1 << 20;
const HEADER: ShardHeader =
    ShardHeader { node_uuid: 1, shard: 0, shard_count: 1, index: INDEX, term: 1, needed_after: INDEX };

struct Owned {
    slot: u16,
    key: Vec<u8>,
    value: Vec<u8>,
    version: u64,
}

fn entries(key: impl Fn(u64) -> Vec<u8>) -> Vec<Owned> {
    let mut entries: Vec<Owned> = (0..ENTRIES)
        .map(|number| {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (key, value) = (key(number), [&[1, 100][..], &[b'v'; 100]].concat());
            assert_eq!(key.len(), 20);
            Owned { slot: slot(&key), key, value, version: ((spread % INDEX) << 16) | (number % 64) }
        })
        .collect();
    entries.sort_by(|a, b| (a.slot, &a.key).cmp(&(b.slot, &b.key)));
    entries
}

/// Writes them all, emptying the buffer as a file would, and returns the length of the stream.
fn write(entries: &[Owned], out: &mut Vec<u8>) -> u64 {
    out.clear();
    let mut writer = ShardWriter::new(HEADER, out);
    for Owned { slot, key, value, version } in entries {
        let entry = Entry { slot: *slot, key, value, version: *version, expires_at_us: None };
        writer.push(&entry, out).expect("sorted entries");
        if out.len() > 1 << 20 {
            black_box(&*out);
            out.clear();
        }
    }
    let bytes = writer.stream_bytes();
    writer.finish(out).expect("no part is missing");
    bytes
}

fn stream(entries: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ShardWriter::new(HEADER, &mut out);
    for Owned { slot, key, value, version } in entries {
        let entry = Entry { slot: *slot, key, value, version: *version, expires_at_us: None };
        writer.push(&entry, &mut out).expect("sorted entries");
    }
    writer.finish(&mut out).expect("no part is missing");
    out
}

/// Reads a stream in pieces of 1 MiB; returns a number that depends on every entry that was visited.
fn read(stream: &[u8], walks: bool) -> u64 {
    let (mut decoder, mut sum) = (Decoder::new(), 0_u64);
    for mut piece in stream.chunks(1 << 20) {
        while let Some(event) = decoder.next(&mut piece).expect("a whole stream") {
            let Event::Chunk(mut chunk) = event else { continue };
            if !walks {
                continue;
            }
            while let Some(entry) = chunk.next_entry().expect("sorted entries") {
                sum = sum.wrapping_add(entry.version ^ u64::from(entry.slot) ^ entry.value.len() as u64);
            }
        }
    }
    decoder.finish().expect("a whole stream");
    sum
}

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let counters = entries(|number| format!("key:{number:016}").into_bytes());
    let random = entries(|number| {
        let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        [&spread.to_be_bytes()[..], b"rand"].concat()
    });
    for (name, entries) in [("counters", &counters), ("random", &random)] {
        let bytes = stream(entries);
        println!("{name}: {:.1} bytes an entry", bytes.len() as f64 / ENTRIES as f64);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(ENTRIES));
        let mut out = Vec::new();
        group.bench_function("write", |bencher| bencher.iter(|| write(black_box(entries), &mut out)));
        group.bench_function("read", |bencher| bencher.iter(|| read(black_box(&bytes), true)));
        group.bench_function("verify", |bencher| bencher.iter(|| read(black_box(&bytes), false)));
        group.finish();
    }
    criterion.final_summary();
}
