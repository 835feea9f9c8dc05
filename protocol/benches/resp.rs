//! The way of a RESP request: splitting, parsing, writing the reply.
//!
//! Run it with `cargo bench -p eyot-protocol --bench resp`. Each figure is for a pipeline of 64 requests with 16-byte
//! keys and 64-byte values, as clients send them; divided by 64, it is the cost of one request.

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use eyot_protocol::command::Command;
use eyot_protocol::resp::table::lookup;
use eyot_protocol::resp::{
    parse, split_request, ArgList, RespLimits, RespRequest, RespVersion, Split, Unfinished, Writer,
};
use eyot_protocol::tlv::Value;

const PIPELINE: usize = 64;
const NOW_US: i64 = 1_700_000_000_000_000;

fn pipeline(words: impl Fn(usize) -> Vec<String>) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..PIPELINE {
        let words = words(number);
        let mut writer = Writer::new(&mut out, RespVersion::Two);
        writer.array(words.len());
        words.iter().for_each(|word| writer.bulk_text(word));
    }
    out
}

/// Splits and parses all of `input`, and returns a number that depends on every request.
fn read(input: &[u8], limits: &RespLimits, args: &mut ArgList, parses: bool) -> usize {
    let (mut at, mut sum, mut unfinished) = (0, 0, Unfinished::default());
    while at < input.len() {
        args.clear();
        let rest = &input[at..];
        let Ok(Split::Request { consumed, request }) = split_request(rest, limits, args, &mut unfinished) else {
            panic!("a whole request");
        };
        let words = args.of(request, rest);
        sum += words.at(1).len();
        if parses {
            match parse(words, NOW_US).expect("a sound request").request {
                RespRequest::Read { key, .. } => sum += key.len(),
                RespRequest::Write { command: Command::Set { key, value, .. }, .. } => {
                    sum += key.len() + value.encoded_bytes();
                }
                other => panic!("{other:?}"),
            }
        }
        at += consumed;
    }
    sum
}

fn requests(criterion: &mut Criterion) {
    let limits = RespLimits::new(64 << 20, 64 << 10);
    let mut args = ArgList::default();
    let (key, value) = (|number: usize| format!("key:{number:012}"), "v".repeat(64));
    let streams = [
        ("get", pipeline(|number| vec!["GET".to_owned(), key(number)])),
        ("set", pipeline(|number| vec!["SET".to_owned(), key(number), value.clone()])),
        ("set_ex", pipeline(|number| ["SET", &key(number), &value, "EX", "3600"].map(str::to_owned).to_vec())),
    ];
    let mut group = criterion.benchmark_group("resp");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    for (name, stream) in &streams {
        for (what, parses) in [("split", false), ("split_and_parse", true)] {
            group.bench_function(format!("{what}/{name}"), |bencher| {
                bencher.iter(|| read(black_box(stream), &limits, &mut args, parses));
            });
        }
    }
    let names = ["GET", "set", "INCRBYFLOAT", "del"].map(str::as_bytes);
    group.bench_function("lookup", |bencher| {
        bencher.iter(|| (0..PIPELINE / names.len()).map(|_| black_box(names).map(lookup)).all(|ids| ids[0].is_some()));
    });
    let mut encoded = Vec::new();
    Value::Bytes(value.into_bytes()).encode(&mut encoded);
    let mut out = Vec::new();
    group.bench_function("write/value", |bencher| {
        bencher.iter(|| {
            out.clear();
            for _ in 0..PIPELINE {
                Writer::new(&mut out, RespVersion::Two).value(black_box(&encoded));
            }
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
