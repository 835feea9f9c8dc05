//! The TLV codec against prost, rmp-serde and `serde_json`: the same values, in the same run, both directions.
//!
//! Run it with `cargo bench -p eyot-protocol --bench codec`. It takes less than a minute, prints what criterion
//! measures, and then one table with the limits that the project set itself and the figures that the original
//! published.
//!
//! What is compared, and how the others are treated at least as well as Eyot:
//! - A message is a list of 10 or 1,000 elements: text of 8 to 16 bytes, 32-bit and 64-bit integers, floats, booleans.
//! - Every codec writes into a buffer that is reused, and starts from a message that is already in memory in the form
//!   it likes best (prost: its own struct with owned strings).
//! - Decoding visits every element and folds it into a checksum. prost merges into a message that is reused. The two
//!   serde formats are measured twice: into a `Vec` of elements that borrow their text, as programs usually have it,
//!   and "streamed": a visitor that keeps no element and allocates nothing. Their elements are written without tags and
//!   read by a hand-written visitor, which is faster than what `derive` makes of an untagged enum.
//! - Eyot is measured twice, too: "stepped", value by value as the server reads a frame, and "whole": the list is
//!   validated as one value and then iterated. "validated" is what the server does with the value of a SET: it reads no
//!   element.
//!
//! The table's times are medians of the samples that criterion took.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use eyot_protocol::tlv::{Decoder, Encoder, ValueRef};
use prost::Message as _;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::Serialize;

/// Counts allocations while it is told to; otherwise it costs one relaxed load.
struct CountingAllocator;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn count_allocation() {
    if COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to `System` as it came; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: as above; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of one call of `operation`, once its buffers have their size.
fn allocations_of(operation: &mut dyn FnMut() -> u64) -> u64 {
    black_box(operation());
    ALLOCATIONS.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    black_box(operation());
    COUNTING.store(false, Ordering::Relaxed);
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// One element of a message.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
enum Element<'a> {
    Text(&'a str),
    Int32(i32),
    Int64(i64),
    Float64(f64),
    Boolean(bool),
}

impl Element<'_> {
    /// What decoding folds each element into, so that all of it must be there. Integers count alike whatever their
    /// width: two of the formats do not keep it.
    #[inline]
    fn fold(self, sum: u64) -> u64 {
        let bits = match self {
            Self::Text(text) => text.len() as u64 ^ u64::from(text.as_bytes().last().copied().unwrap_or(0)) << 8,
            Self::Int32(number) => i64::from(number) as u64,
            Self::Int64(number) => number as u64,
            Self::Float64(number) => number.to_bits(),
            Self::Boolean(boolean) => u64::from(boolean),
        };
        sum.rotate_left(5) ^ bits
    }
}

const TEXTS: [&str; 4] = ["user:104", "session-7f3a", "eu-central-1", "John Appleseed-2"];

/// A message of `count` elements: of each ten, four texts, two of each integer, a float and a boolean.
fn message(count: usize) -> Vec<Element<'static>> {
    (0..count)
        .map(|position| {
            let number = position as i32 * 7_919;
            match position % 10 {
                0 | 3 | 5 | 8 => Element::Text(TEXTS[position / 2 % TEXTS.len()]),
                1 | 6 => Element::Int32(number),
                2 | 7 => Element::Int64(i64::from(number) << 20),
                4 => Element::Float64(f64::from(number) + 0.25),
                _ => Element::Boolean(position % 20 == 9),
            }
        })
        .collect()
}

mod eyot {
    use super::{Decoder, Element, Encoder, ValueRef};

    pub fn encode(out: &mut Vec<u8>, elements: &[Element<'_>]) {
        let mut encoder = Encoder::new(out);
        encoder.list(elements.len());
        for element in elements {
            match *element {
                Element::Text(text) => encoder.string(text),
                Element::Int32(number) => encoder.int32(number),
                Element::Int64(number) => encoder.int64(number),
                Element::Float64(number) => encoder.float64(number),
                Element::Boolean(boolean) => encoder.boolean(boolean),
            }
        }
    }

    #[inline]
    fn fold(sum: u64, value: ValueRef<'_>) -> u64 {
        match value {
            ValueRef::String(text) => Element::Text(text).fold(sum),
            ValueRef::Int32(number) => Element::Int32(number).fold(sum),
            ValueRef::Int64(number) => Element::Int64(number).fold(sum),
            ValueRef::Float64(number) => Element::Float64(number).fold(sum),
            ValueRef::Boolean(boolean) => Element::Boolean(boolean).fold(sum),
            other => panic!("not in the message: {other:?}"),
        }
    }

    pub fn decode_stepped(bytes: &[u8]) -> u64 {
        let mut decoder = Decoder::new(bytes);
        let count = decoder.list().expect("a list");
        let mut sum = 0;
        for _ in 0..count {
            sum = fold(sum, decoder.value().expect("a value"));
        }
        decoder.finish().expect("nothing after the list");
        sum
    }

    pub fn decode_whole(bytes: &[u8]) -> u64 {
        let Ok(ValueRef::List(list)) = Decoder::new(bytes).value() else { panic!("a list") };
        list.iter().fold(0, fold)
    }

    pub fn validate(bytes: &[u8]) -> u64 {
        Decoder::new(bytes).raw_value().expect("a value").len() as u64
    }
}

mod protobuf {
    use super::Element;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct List {
        #[prost(message, repeated, tag = "1")]
        pub elements: Vec<Item>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Item {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
        pub kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int32, tag = "2")]
        Int32(i32),
        #[prost(int64, tag = "3")]
        Int64(i64),
        #[prost(double, tag = "4")]
        Float64(f64),
        #[prost(bool, tag = "5")]
        Boolean(bool),
    }

    pub fn list(elements: &[Element<'_>]) -> List {
        let kind = |element: &Element<'_>| match *element {
            Element::Text(text) => Kind::Text(text.to_owned()),
            Element::Int32(number) => Kind::Int32(number),
            Element::Int64(number) => Kind::Int64(number),
            Element::Float64(number) => Kind::Float64(number),
            Element::Boolean(boolean) => Kind::Boolean(boolean),
        };
        List { elements: elements.iter().map(|element| Item { kind: Some(kind(element)) }).collect() }
    }

    pub fn fold(list: &List) -> u64 {
        list.elements.iter().fold(0, |sum, item| match item.kind.as_ref().expect("a kind") {
            Kind::Text(text) => Element::Text(text).fold(sum),
            Kind::Int32(number) => Element::Int32(*number).fold(sum),
            Kind::Int64(number) => Element::Int64(*number).fold(sum),
            Kind::Float64(number) => Element::Float64(*number).fold(sum),
            Kind::Boolean(boolean) => Element::Boolean(*boolean).fold(sum),
        })
    }
}

impl<'de> Deserialize<'de> for Element<'de> {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number or a boolean")
            }
            #[inline]
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Element<'de>, E> {
                Ok(Element::Text(text))
            }
            #[inline]
            fn visit_i64<E>(self, number: i64) -> Result<Element<'de>, E> {
                Ok(Element::Int64(number))
            }
            #[inline]
            fn visit_u64<E>(self, number: u64) -> Result<Element<'de>, E> {
                Ok(Element::Int64(number as i64))
            }
            #[inline]
            fn visit_f64<E>(self, number: f64) -> Result<Element<'de>, E> {
                Ok(Element::Float64(number))
            }
            #[inline]
            fn visit_bool<E>(self, boolean: bool) -> Result<Element<'de>, E> {
                Ok(Element::Boolean(boolean))
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

/// Deserializes to the checksum of a message without keeping an element.
struct Streamed(u64);

impl<'de> Deserialize<'de> for Streamed {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StreamVisitor;

        impl<'de> Visitor<'de> for StreamVisitor {
            type Value = Streamed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            #[inline]
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Streamed, A::Error> {
                let mut sum = 0;
                while let Some(element) = elements.next_element::<Element<'de>>()? {
                    sum = element.fold(sum);
                }
                Ok(Streamed(sum))
            }
        }

        deserializer.deserialize_seq(StreamVisitor)
    }
}

fn fold_all(elements: &[Element<'_>]) -> u64 {
    elements.iter().fold(0, |sum, element| element.fold(sum))
}

/// One line of the table.
struct Row {
    codec: &'static str,
    is_eyot: bool,
    elements: usize,
    encode: Option<Measured>,
    decode: Measured,
    bytes: usize,
}

#[derive(Clone, Copy)]
struct Measured {
    median_ns: f64,
    allocations: u64,
}

const SAMPLES: usize = 20;

/// Measures `operation`, which returns something that depends on all of its work.
fn measure(
    criterion: &mut Criterion,
    direction: &str,
    codec: &str,
    elements: usize,
    operation: &mut dyn FnMut() -> u64,
) -> Measured {
    let allocations = allocations_of(operation);
    let mut samples_ns = Vec::new();
    let mut group = criterion.benchmark_group(format!("{direction}/{elements}"));
    group.bench_function(codec, |bencher| {
        bencher.iter_custom(|iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(operation());
            }
            let elapsed = start.elapsed();
            samples_ns.push(elapsed.as_nanos() as f64 / iterations as f64);
            elapsed
        });
    });
    group.finish();
    // The calls before the last `SAMPLES` were warm-up.
    let samples_ns = &mut samples_ns[..];
    let first = samples_ns.len().saturating_sub(SAMPLES);
    let samples_ns = &mut samples_ns[first..];
    samples_ns.sort_by(f64::total_cmp);
    let median_ns = samples_ns.get(samples_ns.len() / 2).copied().unwrap_or(f64::NAN);
    Measured { median_ns, allocations }
}

/// What one run measures at one size of message.
struct Bench<'c> {
    criterion: &'c mut Criterion,
    elements: Vec<Element<'static>>,
    checksum: u64,
    rows: Vec<Row>,
}

impl Bench<'_> {
    /// Encodes with `encode` into a reused buffer, measures that, and returns the encoded bytes.
    fn encode(&mut self, codec: &str, encode: &mut dyn FnMut(&mut Vec<u8>)) -> (Measured, Vec<u8>) {
        let mut out = Vec::new();
        let measured = measure(self.criterion, "encode", codec, self.elements.len(), &mut || {
            out.clear();
            encode(black_box(&mut out));
            out.len() as u64
        });
        (measured, out)
    }

    /// Measures `decode`, which must find every element of the message in `bytes`.
    fn decode(
        &mut self,
        codec: &'static str,
        encode: Option<Measured>,
        bytes: &[u8],
        decode: &mut dyn FnMut(&[u8]) -> u64,
    ) {
        assert_eq!(decode(bytes), self.checksum, "{codec} does not return what it was given");
        self.decode_unchecked(codec, encode, bytes, decode);
    }

    fn decode_unchecked(
        &mut self,
        codec: &'static str,
        encode: Option<Measured>,
        bytes: &[u8],
        decode: &mut dyn FnMut(&[u8]) -> u64,
    ) {
        let elements = self.elements.len();
        let decode = measure(self.criterion, "decode", codec, elements, &mut || decode(black_box(bytes)));
        self.rows.push(Row { codec, is_eyot: codec.starts_with("eyot"), elements, encode, decode, bytes: bytes.len() });
    }

    fn run(&mut self) {
        let elements = self.elements.clone();

        let (encode, bytes) = self.encode("eyot", &mut |out| eyot::encode(out, black_box(&elements)));
        self.decode("eyot, stepped", Some(encode), &bytes, &mut eyot::decode_stepped);
        self.decode("eyot, whole", Some(encode), &bytes, &mut eyot::decode_whole);
        self.decode_unchecked("eyot, validated", None, &bytes, &mut eyot::validate);

        let list = protobuf::list(&elements);
        let (encode, bytes) = self.encode("prost", &mut |out| black_box(&list).encode(out).expect("a growing buffer"));
        let mut decoded = protobuf::List::default();
        self.decode("prost", Some(encode), &bytes, &mut |mut bytes| {
            decoded.clear();
            decoded.merge(&mut bytes).expect("a message");
            protobuf::fold(&decoded)
        });

        let (encode, bytes) = self.encode("rmp-serde", &mut |out| {
            rmp_serde::encode::write(out, black_box(&elements)).expect("a growing buffer");
        });
        self.decode("rmp-serde, Vec", Some(encode), &bytes, &mut |bytes| {
            fold_all(&rmp_serde::from_slice::<Vec<Element<'_>>>(bytes).expect("a message"))
        });
        self.decode("rmp-serde, streamed", Some(encode), &bytes, &mut |bytes| {
            rmp_serde::from_slice::<Streamed>(bytes).expect("a message").0
        });

        let (encode, bytes) = self.encode("serde_json", &mut |out| {
            serde_json::to_writer(out, black_box(&elements)).expect("a growing buffer");
        });
        self.decode("serde_json, Vec", Some(encode), &bytes, &mut |bytes| {
            fold_all(&serde_json::from_slice::<Vec<Element<'_>>>(bytes).expect("a message"))
        });
        self.decode("serde_json, streamed", Some(encode), &bytes, &mut |bytes| {
            serde_json::from_slice::<Streamed>(bytes).expect("a message").0
        });
    }
}

/// What the original published, and the limits for Eyot, at one size of message.
struct Reference {
    elements: usize,
    original_encode_ns: f64,
    original_decode_ns: f64,
    original_allocations: Option<(u64, u64)>,
    limit_ns: f64,
}

const REFERENCES: [Reference; 2] = [
    Reference {
        elements: 10,
        original_encode_ns: 1_052.0,
        original_decode_ns: 1_183.0,
        original_allocations: Some((8, 12)),
        limit_ns: 100.0,
    },
    Reference {
        elements: 1_000,
        original_encode_ns: 108_000.0,
        original_decode_ns: 125_000.0,
        original_allocations: None,
        limit_ns: 10_000.0,
    },
];

/// What the row is judged by: for Eyot the limits and the others, for the others how much slower they are than Eyot.
fn verdict(row: &Row, rows: &[Row], limit_ns: f64) -> String {
    let Some(encode) = row.encode else { return "reads no element: not judged".to_owned() };
    if !row.is_eyot {
        let eyot = rows.iter().find(|row| row.is_eyot).expect("Eyot is measured first");
        let eyot_encode_ns = eyot.encode.map_or(f64::NAN, |encode| encode.median_ns);
        let (encode, decode) = (encode.median_ns / eyot_encode_ns, row.decode.median_ns / eyot.decode.median_ns);
        return format!("{encode:.1} and {decode:.1} times Eyot's (stepped) time");
    }
    let others = || rows.iter().filter(|row| !row.is_eyot);
    let faster = others().all(|other| {
        other.decode.median_ns > row.decode.median_ns
            && other.encode.is_some_and(|other| other.median_ns > encode.median_ns)
    });
    let missed: Vec<_> = [
        (encode.median_ns <= limit_ns, "encode limit"),
        (row.decode.median_ns <= limit_ns, "decode limit"),
        (encode.allocations + row.decode.allocations == 0, "no allocation"),
        (faster, "faster than all others"),
    ]
    .into_iter()
    .filter_map(|(met, what)| (!met).then_some(what))
    .collect();
    if missed.is_empty() {
        format!("met: at most {limit_ns:.0} ns each way, no allocation, faster than all others")
    } else {
        format!("MISSED: {}", missed.join(", "))
    }
}

fn print_line(codec: &str, elements: usize, figures: [String; 5], verdict: &str) {
    let [encode, decode, bytes, encode_allocations, decode_allocations] = figures;
    println!(
        "{codec:<22} {elements:>8} {encode:>11} {decode:>11} {bytes:>7} {encode_allocations:>9} {decode_allocations:>9}  {verdict}"
    );
}

fn print_table(rows: &[Row], reference: &Reference) {
    let nanoseconds = |ns: f64| format!("{ns:.1}");
    let (encode_allocations, decode_allocations) = reference
        .original_allocations
        .map_or(("-".to_owned(), "-".to_owned()), |(encode, decode)| (encode.to_string(), decode.to_string()));
    let original = [
        nanoseconds(reference.original_encode_ns),
        nanoseconds(reference.original_decode_ns),
        "-".to_owned(),
        encode_allocations,
        decode_allocations,
    ];
    print_line("original (published)", reference.elements, original, "another machine; what Eyot set out to beat");
    for row in rows {
        let figures = [
            row.encode.map_or("-".to_owned(), |encode| nanoseconds(encode.median_ns)),
            nanoseconds(row.decode.median_ns),
            row.bytes.to_string(),
            row.encode.map_or("-".to_owned(), |encode| encode.allocations.to_string()),
            row.decode.allocations.to_string(),
        ];
        print_line(row.codec, row.elements, figures, &verdict(row, rows, reference.limit_ns));
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
        .configure_from_args();
    let mut tables = Vec::new();
    for reference in &REFERENCES {
        let elements = message(reference.elements);
        let checksum = fold_all(&elements);
        let mut bench = Bench { criterion: &mut criterion, elements, checksum, rows: Vec::new() };
        bench.run();
        tables.push((bench.rows, reference));
    }
    criterion.final_summary();
    // `cargo test --benches` runs every benchmark once, to see that it works: that is no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let measured = |row: &Row| row.decode.median_ns.is_finite() && row.encode.is_none_or(|e| e.median_ns.is_finite());
    if !tables.iter().all(|(rows, _)| rows.iter().all(measured)) {
        println!("No table: a filter left benchmarks out.");
        return;
    }
    println!();
    let head = ["encode ns", "decode ns", "bytes", "allocs/en", "allocs/de"].map(str::to_owned);
    println!("Medians per message. Allocations per operation, with buffers reused.");
    let [encode, decode, bytes, encode_allocations, decode_allocations] = head;
    println!(
        "{:<22} {:>8} {encode:>11} {decode:>11} {bytes:>7} {encode_allocations:>9} {decode_allocations:>9}  verdict",
        "codec", "elements"
    );
    for (rows, reference) in &tables {
        print_table(rows, reference);
    }
}
