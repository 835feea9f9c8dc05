//! The golden vectors of snapshots, `golden/snapshot.txt`: what is on disk is the contract, in both directions, and the
//! schema says the same of every message.

use std::collections::BTreeSet;

use eyot_protocol::snapshot::{FileWriter, SnapshotError};

use crate::fixtures::{owned, read, read_in_pieces, shard, Owned, Told};
use crate::schema;

const VECTORS: &str = include_str!("../golden/snapshot.txt");

#[derive(Default)]
struct Vector<'a> {
    name: &'a str,
    /// Each message with its length, and its JSON where that is given.
    messages: Vec<(Vec<u8>, &'a str)>,
    entries: Vec<Owned>,
    /// `ok`, `ok, read only` or `! Problem at message N`.
    expected: &'a str,
}

impl Vector<'_> {
    fn bytes(&self) -> Vec<u8> {
        self.messages.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect()
    }
}

fn vectors() -> Vec<Vector<'static>> {
    let mut vectors = Vec::new();
    let mut vector = Vector::default();
    for line in VECTORS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("stream ") {
            vector.name = name;
        } else if line.starts_with("ok") || line.starts_with('!') {
            vector.expected = line;
            vectors.push(std::mem::take(&mut vector));
        } else if let Some(fields) = line.strip_prefix("entry ") {
            vector.entries.push(entry(fields));
        } else {
            let (bytes, json) = line.split_once('|').unwrap_or_else(|| panic!("bytes | JSON in: {line}"));
            vector.messages.push((hex(bytes), json.trim()));
        }
    }
    assert!(vector.messages.is_empty(), "{} ends with what is expected of it", vector.name);
    vectors
}

fn entry(fields: &str) -> Owned {
    let [key, value, version, expiry] = fields.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
        panic!("key | value | version | expiry in: {fields}")
    };
    let (index, position) = version.split_once('.').expect("index.position");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let expires_at_us = (expiry != "never").then(|| expiry.parse().expect("a time"));
    owned(&hex(key), &hex(value), (number(index) << 16) | number(position), expires_at_us)
}

/// Reads `61 62*3 (03 01)*2`.
fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('(') {
            Some(inside) => inside.split_once(')').expect("a closing parenthesis"),
            None => rest.split_at(2),
        };
        let group: Vec<u8> =
            group.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a hex byte")).collect();
        let (times, after) = match after.strip_prefix('*') {
            Some(number) => {
                let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
                (number[..end].parse().expect("a number after *"), &number[end..])
            }
            None => (1, after),
        };
        bytes.extend(group.repeat(times));
        rest = after.trim_start();
    }
    bytes
}

/// Reads a vector; a decompressor is there, and says that nothing is a frame.
fn read_vector(vector: &Vector<'_>) -> Result<Told, SnapshotError> {
    let refuses: eyot_protocol::snapshot::Decompress = Box::new(|_, _| false);
    read_in_pieces(&vector.bytes(), &[], (vector.name != "compressed_unread").then_some(refuses))
}

#[test]
fn streams_hold_their_entries() {
    for vector in vectors().iter().filter(|vector| vector.expected.starts_with("ok")) {
        let told = read_vector(vector).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let entries: Vec<Owned> = told.shards.into_iter().flat_map(|(_, entries, _)| entries).collect();
        assert!(entries == vector.entries, "{} holds other entries", vector.name);
    }
}

#[test]
fn entries_are_written_as_these_streams() {
    let vectors = vectors();
    let written = vectors.iter().filter(|vector| vector.expected == "ok");
    assert!(written.clone().count() >= 5);
    for vector in written {
        let told = read_vector(vector).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let mut bytes = Vec::new();
        let mut file = told.file_header.map(|header| FileWriter::new(header, &mut bytes));
        for (header, entries, footer) in &told.shards {
            let stream = shard(*header, entries);
            bytes.extend_from_slice(&stream);
            if let Some(file) = &mut file {
                file.shard(footer, stream.len() as u64);
            }
        }
        if let Some(file) = file {
            assert_eq!(Some(file.finish(&mut bytes)), told.file_footer, "{}", vector.name);
        }
        assert!(bytes == vector.bytes(), "{}", vector.name);
    }
}

#[test]
fn refused_streams_are_refused_with_the_problem_and_message_named() {
    for vector in vectors() {
        let Some(expected) = vector.expected.strip_prefix("! ") else { continue };
        let error = read_vector(&vector).map(|_| ()).expect_err(vector.name);
        let found = format!("{} at message {}", error.problem.name(), error.message);
        assert_eq!(found, expected, "{}: {error}", vector.name);
    }
}

#[test]
fn the_schema_says_the_same_of_every_message() {
    let mut compared = 0;
    for vector in vectors() {
        for (number, (bytes, json)) in vector.messages.iter().enumerate() {
            if *json == "-" {
                continue;
            }
            let of_bytes = schema::decode(&bytes[4..]);
            let of_text: serde_json::Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(of_bytes, of_text, "{}, message {number}", vector.name);
            assert!(schema::encode(json) == bytes[4..], "{}, message {number}", vector.name);
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} messages have their JSON");
}

#[test]
fn every_problem_has_a_vector() {
    let vectors = vectors();
    for problem in [
        "NotASnapshot",
        "FutureVersion",
        "TooLong",
        "Checksum",
        "Malformed",
        "Misplaced",
        "OutOfOrder",
        "ForeignSlot",
        "Disagrees",
        "Cut",
        "Trailing",
        "Compressed",
        "Decompression",
    ] {
        let wanted = format!("! {problem} at");
        assert!(vectors.iter().any(|vector| vector.expected.starts_with(&wanted)), "{problem}");
    }
    let names: BTreeSet<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), vectors.len(), "names are distinct");
    assert!(read(b"").is_err());
}

#[test]
fn the_example_of_the_document_is_a_vector() {
    let document = include_str!("../../../docs/SNAPSHOT.md");
    let fenced = document.split("```golden\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut lines = 0;
    for line in fenced.flat_map(str::lines).filter(|line| !line.trim().is_empty()) {
        assert!(VECTORS.lines().any(|vector| vector.trim() == line.trim()), "no vector has: {line}");
        lines += 1;
    }
    assert!(lines >= 4, "the document has {lines} lines of examples");
}
