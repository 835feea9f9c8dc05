//! The golden vectors of the native protocol's frames, `golden/native.txt`: what is on disk is the contract, in both
//! directions. The head of that file explains its notation.

use eyot_protocol::command::Condition;
use eyot_protocol::native::batch::Batch;
use eyot_protocol::native::reply::{
    put_batch_head, put_boolean, put_error_reply, put_hello, put_reply, put_set, put_snapshot, put_stats, put_value,
    REPLY_FLAG_ERROR,
};
use eyot_protocol::native::{decode_reply, decode_request, encode_request, split_frame, Frame, FrameHeader, Split};
use eyot_protocol::request::{AckLevel, Expiry, Operation, ReadLevel, Request, RequestOptions, Set, SnapshotRequest};
use eyot_protocol::response::{ReplyError, Response, SetOutcome, SnapshotReply, SnapshotStatus};
use eyot_protocol::tlv::{Encoder, Value};
use eyot_protocol::ErrorCode;

const VECTORS: &str = include_str!("golden/native.txt");
/// The limits that the vectors were written for.
const MAX_FRAME_BYTES: usize = 1 << 20;
const MAX_VALUE_BYTES: usize = 1024;
/// A run of one letter that is longer is written with its length.
const RUN_SHOWN_MAX: usize = 64;
const REPLY_BIT: u8 = 0x80;

struct Vector<'a> {
    kind: &'a str,
    name: &'a str,
    bytes: Vec<u8>,
    meaning: &'a str,
}

fn vectors() -> Vec<Vector<'static>> {
    let lines = VECTORS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.splitn(3, '|').map(str::trim);
            let mut field = || fields.next().unwrap_or_else(|| panic!("three fields in: {line}"));
            let (kind, name) = field().split_once(' ').unwrap_or_else(|| panic!("kind and name in: {line}"));
            Vector { kind, name, bytes: hex(field()), meaning: field() }
        })
        .collect()
}

fn of_kind(kind: &str) -> Vec<Vector<'static>> {
    let found: Vec<_> = vectors().into_iter().filter(|vector| vector.kind == kind).collect();
    assert!(!found.is_empty(), "no vector of kind {kind}");
    found
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
            None => (1, after),
            Some(number) => {
                let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
                (number[..end].parse().expect("a number after *"), &number[end..])
            }
        };
        bytes.extend(group.repeat(times));
        rest = after.trim_start();
    }
    bytes
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    match split_frame(bytes, MAX_FRAME_BYTES) {
        Ok(Split::Frame { frame, consumed }) if consumed == bytes.len() => frame,
        other => panic!("not one whole frame: {other:?}"),
    }
}

fn write_text(text: &str) -> String {
    match text.chars().next() {
        Some(first) if text.len() > RUN_SHOWN_MAX && text.chars().all(|other| other == first) => {
            format!("\"{first}\"*{}", text.len())
        }
        _ => format!("{text:?}"),
    }
}

fn write_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => write_text(text),
        _ => write_hex(key),
    }
}

fn write_hex(bytes: &[u8]) -> String {
    format!("x\"{}\"", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
}

fn write_value(value: &Value) -> String {
    let list = |values: &[Value]| values.iter().map(write_value).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => write_text(text),
        Value::Int32(number) => format!("int32 {number}"),
        Value::Int64(number) => format!("int64 {number}"),
        Value::Float64(number) => format!("float64 {number}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Timestamp(at_us) => format!("timestamp {at_us}"),
        Value::Bytes(bytes) => format!("bytes {}", bytes.len()),
        Value::Error { code, message } => format!("error {code} {message:?}"),
        Value::List(values) => format!("[{}]", list(values)),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{}: {}", write_value(key), write_value(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn write_encoded(bytes: &[u8]) -> String {
    write_value(&Value::decode(bytes).expect("a value that was decoded before"))
}

fn write_set(set: &Set<'_>) -> String {
    let expiry = match set.expiry {
        Expiry::Never => String::new(),
        Expiry::AfterMs(ms) => format!(", expires after {ms} ms"),
        Expiry::AtUs(at_us) => format!(", expires at {at_us} us"),
    };
    let condition = match set.condition {
        Condition::Always => String::new(),
        Condition::IfAbsent => ", if absent".to_owned(),
        Condition::IfPresent => ", if present".to_owned(),
        Condition::IfVersion(version) => format!(", if version {version}"),
    };
    format!("SET {} = {}{expiry}{condition}", write_key(set.key), write_encoded(set.value))
}

fn write_request(request: &Request<'_>) -> String {
    match request {
        Request::Hello(hello) => {
            let credentials = hello.credentials;
            let entries = [
                hello.client.map(|client| format!(" client {client:?}")),
                credentials.and_then(|said| said.user).map(|user| format!(" user {}", write_key(user))),
                credentials.map(|said| format!(" password {}", write_key(said.password))),
            ];
            format!("HELLO{}", entries.into_iter().flatten().collect::<Vec<_>>().join(","))
        }
        Request::Ping { payload } => format!("PING {}", write_encoded(payload)),
        Request::Get { key } => format!("GET {}", write_key(key)),
        Request::Delete { key } => format!("DELETE {}", write_key(key)),
        Request::Exists { key } => format!("EXISTS {}", write_key(key)),
        Request::Set(set) => write_set(set),
        Request::Batch(batch) => write_batch(batch),
        Request::Stats => "STATS".to_owned(),
        Request::Snapshot(SnapshotRequest::Create) => "SNAPSHOT create".to_owned(),
        Request::Snapshot(SnapshotRequest::Status { request }) => format!("SNAPSHOT status of {request}"),
        Request::Snapshot(SnapshotRequest::Read(read)) => format!(
            "SNAPSHOT read shard {}, index {}, offset {}, length {}",
            read.shard, read.index, read.offset, read.length
        ),
    }
}

fn write_status(status: &SnapshotStatus) -> String {
    let not = |truth: bool| if truth { "" } else { "not " };
    let shards = status.shards.iter().map(|shard| {
        let (number, core) = (shard.shard, shard.core);
        format!("{number} core {core} index {} bytes {} entries {}", shard.index, shard.bytes, shard.entries)
    });
    let uuid = format!("{:032x}", status.node_uuid);
    format!(
        "{}done, {}{}in progress, {} entries and {} bytes of {} keys, shards [{}] of {}, node {}-{}-{}-{}-{}",
        not(status.is_done),
        status.failure.as_ref().map_or_else(String::new, |failure| format!("failed {failure:?}, ")),
        not(status.is_in_progress),
        status.entries_done,
        status.bytes_done,
        status.keys,
        shards.collect::<Vec<_>>().join(", "),
        status.shard_count,
        &uuid[..8],
        &uuid[8..12],
        &uuid[12..16],
        &uuid[16..20],
        &uuid[20..],
    )
}

fn write_batch(batch: &Batch<'_>) -> String {
    let operations: Vec<String> = batch.requests().map(|request| write_request(&request)).collect();
    assert_eq!(operations.len(), batch.len());
    format!("BATCH [{}]", operations.join("; "))
}

fn write_options(options: &RequestOptions) -> String {
    let ack = match options.ack {
        AckLevel::Default => "",
        AckLevel::Memory => "; ack memory",
        AckLevel::Fsync => "; ack fsync",
        AckLevel::Quorum => "; ack quorum",
    };
    let read = match options.read {
        ReadLevel::Linearizable => String::new(),
        ReadLevel::Lease => "; read lease".to_owned(),
        ReadLevel::Bounded { max_age_ms } => format!("; read bounded {max_age_ms} ms"),
        ReadLevel::Any => "; read any".to_owned(),
    };
    let deadline = options.deadline_ms.map_or(String::new(), |ms| format!("; deadline {ms} ms"));
    format!("{ack}{read}{deadline}")
}

fn write_error(error: &ReplyError) -> String {
    let name = error.code().map_or_else(|| error.number.to_string(), |code| code.name().to_owned());
    format!("! {name} {:?}", error.message)
}

fn write_response(response: &Response<'_>) -> String {
    match response {
        Response::Hello(reply) => format!(
            "protocol {}, server {}, node {}, core {}, shards on cores {:?}, cores at {:?}, frame {}, key {}, \
             value {}, features {:?}",
            reply.protocol,
            reply.server,
            reply.node_id,
            reply.core,
            reply.shard_cores,
            reply.core_addresses,
            reply.max_frame_bytes,
            reply.max_key_bytes,
            reply.max_value_bytes,
            reply.features,
        ),
        Response::Pong { payload } => write_encoded(payload),
        Response::Value(None) => "absent".to_owned(),
        Response::Value(Some(found)) => format!("{}, version {}", write_encoded(found.value), found.version),
        Response::Set(SetOutcome::Stored { version }) => format!("stored, version {version}"),
        Response::Set(SetOutcome::NotStored { current: Some(version) }) => format!("not stored, version {version}"),
        Response::Set(SetOutcome::NotStored { current: None }) => "not stored, absent".to_owned(),
        Response::Deleted(truth) | Response::Exists(truth) => truth.to_string(),
        Response::Batch(results) => {
            format!("[{}]", results.iter().map(write_response).collect::<Vec<_>>().join("; "))
        }
        Response::Stats(json) => (*json).to_owned(),
        Response::Snapshot(SnapshotReply::Created { request }) => format!("request {request}"),
        Response::Snapshot(SnapshotReply::Status(status)) => write_status(status),
        Response::Snapshot(SnapshotReply::Bytes(bytes)) => format!("bytes {}", write_hex(bytes)),
        Response::Error(error) => write_error(error),
    }
}

/// Appends `response` as the server does.
fn put(out: &mut Vec<u8>, response: &Response<'_>) {
    match response {
        Response::Hello(reply) => put_hello(out, reply),
        Response::Pong { payload } => out.extend_from_slice(payload),
        Response::Value(found) => put_value(out, *found),
        Response::Set(outcome) => put_set(out, *outcome),
        Response::Deleted(truth) | Response::Exists(truth) => put_boolean(out, *truth),
        Response::Batch(results) => {
            put_batch_head(out, results.len());
            for result in results {
                put(out, result);
            }
        }
        Response::Stats(json) => put_stats(out, json),
        Response::Snapshot(reply) => put_snapshot(out, reply),
        Response::Error(error) => {
            let mut encoder = Encoder::new(out);
            encoder.list(1);
            encoder.error(error.number, &error.message);
        }
    }
}

/// The operations that a reply's meaning names behind `of`.
fn operations_named(meaning: &str) -> Vec<Operation> {
    let heading = meaning.split(" -> ").next().expect("the part before the arrow");
    let Some((_, names)) = heading.split_once(" of ") else { return Vec::new() };
    let named = |name: &str| Operation::ALL.into_iter().find(|operation| operation.name() == name);
    names.split(", ").map(|name| named(name).unwrap_or_else(|| panic!("operation {name}"))).collect()
}

/// A reply as text. One to operation 0 speaks of the connection, and is read as one to any other operation.
fn read_reply(vector: &Vector<'_>) -> String {
    let frame = whole(&vector.bytes);
    let header = frame.header;
    let operations = operations_named(vector.meaning);
    let of_connection = header.op == REPLY_BIT;
    let op = if of_connection { Operation::Stats.code() | REPLY_BIT } else { header.op };
    let readable = Frame { header: FrameHeader { op, ..header }, body: frame.body };
    let response = decode_reply(&readable, &operations).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
    let name = Operation::from_code(header.op & !REPLY_BIT).map_or("connection", Operation::name);
    let of: Vec<&str> = operations.iter().map(|operation| operation.name()).collect();
    let of = if of.is_empty() { String::new() } else { format!(" of {}", of.join(", ")) };
    format!("{} {name}{of} -> {}", header.request_id, write_response(&response))
}

fn read_request(bytes: &[u8]) -> (String, Vec<u8>) {
    let frame = whole(bytes);
    let (request, options) = decode_request(&frame, MAX_VALUE_BYTES).expect("a request that is accepted");
    let mut encoded = Vec::new();
    encode_request(&mut encoded, frame.header.request_id, &request, &options);
    (format!("{} {}{}", frame.header.request_id, write_request(&request), write_options(&options)), encoded)
}

#[test]
fn requests_are_their_bytes_in_both_directions() {
    for Vector { name, bytes, meaning, .. } in &of_kind("request") {
        let (text, encoded) = read_request(bytes);
        assert_eq!(text, *meaning, "{name}");
        assert_eq!(&encoded, bytes, "{name}: {meaning}");
    }
}

#[test]
fn other_forms_of_a_request_are_accepted() {
    for Vector { name, bytes, meaning, .. } in &of_kind("accepted") {
        let (text, encoded) = read_request(bytes);
        assert_eq!(text, *meaning, "{name}");
        assert_ne!(&encoded, bytes, "{name} is the form that is encoded: make it a `request`");
        assert_eq!(read_request(&encoded).0, text, "{name}");
    }
}

#[test]
fn part_of_a_frame_tells_how_much_it_needs() {
    for Vector { name, bytes, meaning, .. } in &of_kind("incomplete") {
        let needed = meaning.parse().expect("a number of bytes");
        assert_eq!(split_frame(bytes, MAX_FRAME_BYTES), Ok(Split::Incomplete { needed }), "{name}");
    }
}

#[test]
fn refused_requests_are_refused_with_their_code() {
    for Vector { name, bytes, meaning, .. } in &of_kind("refused") {
        let refused = match split_frame(bytes, MAX_FRAME_BYTES) {
            Err(error) => error,
            Ok(Split::Incomplete { needed }) => panic!("{name}: {needed} bytes needed, {} there", bytes.len()),
            Ok(Split::Frame { frame, consumed }) => {
                assert_eq!(consumed, bytes.len(), "{name}");
                decode_request(&frame, MAX_VALUE_BYTES).expect_err(name)
            }
        };
        assert_eq!(refused.code.name(), *meaning, "{name}: {refused}");
        assert!(!refused.message.is_empty(), "{name}");
    }
}

#[test]
fn replies_are_their_bytes_in_both_directions() {
    for vector in &of_kind("reply") {
        assert_eq!(read_reply(vector), vector.meaning, "{}", vector.name);
        let frame = whole(&vector.bytes);
        let (op, id) = (frame.header.op & !REPLY_BIT, frame.header.request_id);
        let header = FrameHeader { op: frame.header.op.max(REPLY_BIT | 1), ..frame.header };
        let response = decode_reply(&Frame { header, body: frame.body }, &operations_named(vector.meaning));
        let mut encoded = Vec::new();
        match response.expect("decoded above") {
            Response::Error(error) if error.code().is_some() => {
                put_error_reply(&mut encoded, op, id, error.code().expect("just seen"), &error.message);
            }
            // No server of this version has words for a code that it does not know.
            Response::Error(_) => continue,
            response => put_reply(&mut encoded, op, id, |out| put(out, &response)),
        }
        assert_eq!(encoded, vector.bytes, "{}: {}", vector.name, vector.meaning);
    }
}

#[test]
fn replies_of_other_versions_are_read() {
    for vector in &of_kind("readable") {
        assert_eq!(read_reply(vector), vector.meaning, "{}", vector.name);
    }
}

#[test]
fn unreadable_replies_are_refused() {
    for Vector { name, bytes, meaning, .. } in &of_kind("unreadable") {
        let error = decode_reply(&whole(bytes), &[]).expect_err(name);
        assert_eq!(error.code.name(), *meaning, "{name}: {error}");
    }
}

#[test]
fn every_operation_and_every_error_has_a_vector() {
    let vectors = vectors();
    for operation in Operation::ALL {
        for (kind, op) in [("request", operation.code()), ("reply", operation.code() | REPLY_BIT)] {
            let found = |vector: &&Vector<'_>| vector.kind == kind && vector.bytes[5] == op;
            assert!(vectors.iter().any(|vector| found(&vector)), "{kind} of {}", operation.name());
        }
    }
    for code in ErrorCode::ALL {
        let wanted = format!("! {} ", code.name());
        let is_error = |vector: &&Vector<'_>| vector.kind == "reply" && vector.meaning.contains(&wanted);
        assert!(vectors.iter().any(|vector| is_error(&vector)), "{wanted}");
    }
    // What decoding refuses; the other codes are the server's.
    for code in &ErrorCode::ALL[..10] {
        let refused = vectors.iter().any(|vector| vector.kind == "refused" && vector.meaning == code.name());
        assert!(refused, "no request is refused with {}", code.name());
    }
    let names: std::collections::BTreeSet<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), vectors.len(), "names are distinct");
    let known = ["request", "accepted", "incomplete", "refused", "reply", "readable", "unreadable"];
    assert!(vectors.iter().all(|vector| known.contains(&vector.kind)));
}

#[test]
fn a_long_error_message_is_cut_at_a_character() {
    let mut frame = Vec::new();
    put_error_reply(&mut frame, Operation::Get.code(), 1, ErrorCode::Busy, &"é".repeat(3000));
    let header = whole(&frame).header;
    assert_eq!(header.flags, REPLY_FLAG_ERROR);
    let Ok(Response::Error(error)) = decode_reply(&whole(&frame), &[]) else { panic!("no error") };
    assert_eq!(error.message, "é".repeat(2048));
}
