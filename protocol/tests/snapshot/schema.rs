//! Reads and writes messages with a library of Protocol Buffers and `snapshot.proto` alone: what anybody else has.

use std::sync::LazyLock;

use eyot_protocol::snapshot::Problem;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value as Json;

use crate::fixtures::{boundaries, file, header, mixed, owned, read, shard, sorted, INDEX};

static MESSAGE: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protox::compile(["eyot/snapshot/v1/snapshot.proto"], [directory]).expect("a schema that compiles");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("a schema that is whole");
    pool.get_message_by_name("eyot.snapshot.v1.SnapshotMessage").expect("the envelope")
});

/// The bytes of a message that is given as JSON, its checksum as it stands there.
pub fn encode(json: &str) -> Vec<u8> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(MESSAGE.clone(), &mut deserializer);
    message.unwrap_or_else(|error| panic!("{error} in {json}")).encode_to_vec()
}

/// A message, without its length, as JSON.
pub fn decode(message: &[u8]) -> Json {
    let decoded = DynamicMessage::decode(MESSAGE.clone(), message).expect("a message of the schema");
    let options = SerializeOptions::new();
    decoded.serialize_with_options(serde_json::value::Serializer, &options).expect("a message has its JSON")
}

/// The checksum that a message is to have, from its bytes without it: by the words of the schema.
pub fn checksum(chain: u32, message_without: &[u8]) -> u32 {
    let length = message_without.len() as u32 + 5;
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &length.to_le_bytes()), message_without)
}

/// A stream of messages whose bytes are given without their checksums, which are put right.
pub fn seal(messages: &[Vec<u8>]) -> Vec<u8> {
    let (mut stream, mut chain) = (Vec::new(), 0);
    for message in messages {
        // A file's header and footer and a shard's header begin anew: fields 1, 8 and 2 of the envelope.
        let begins_anew = [0x0a, 0x42, 0x12].contains(message.first().unwrap_or(&0));
        chain = checksum(if begins_anew { 0 } else { chain }, message);
        stream.extend_from_slice(&(message.len() as u32 + 5).to_le_bytes());
        stream.extend_from_slice(message);
        stream.push(0x7d);
        stream.extend_from_slice(&chain.to_le_bytes());
    }
    stream
}

#[test]
fn every_message_is_one_of_the_schema_and_encodes_to_the_same_bytes() {
    let bytes = file(&mixed(5000), 3);
    let mut kinds = std::collections::BTreeSet::new();
    for pair in boundaries(&bytes).windows(2) {
        let message = &bytes[pair[0] + 4..pair[1]];
        let json = decode(message);
        kinds.extend(json.as_object().expect("an object").keys().cloned());
        assert!(encode(&json.to_string()) == message, "{json}");
    }
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["chunk", "crc32c", "fileFooter", "fileHeader", "shardFooter", "shardHeader"]);
}

#[test]
fn fields_and_messages_of_a_later_version_are_skipped() {
    let entries = sorted(&mixed(50), 0, 1);
    let stream = shard(header(0, 1), &entries);
    let mut messages: Vec<Vec<u8>> =
        boundaries(&stream).windows(2).map(|pair| stream[pair[0] + 4..pair[1] - 5].to_vec()).collect();
    // An unknown field of each type behind the body: numbers 16, 17, 18 and 19.
    let unknown = [&[0x80, 1, 5][..], &[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[0x92, 1, 1, 0], &[0x9d, 1, 0, 0, 0, 0]];
    for message in &mut messages {
        message.extend(unknown.concat());
    }
    // And one inside the header's body: the length before it grows with it. It is shorter than 125 bytes.
    let without = messages[0].len() - unknown.concat().len();
    messages[0].truncate(without);
    messages[0].extend_from_slice(&[0x80, 1, 5]);
    messages[0][1] += 3;
    // A message of a kind that is not known, before the chunk. The footer counts it, so that is made anew.
    messages.insert(1, vec![0x92, 1, 1, 0]);
    let before: usize = messages[..3].iter().map(|message| message.len() + 9).sum();
    let mut footer = decode(&messages[3]);
    footer["shardFooter"]["messages"] = Json::from(3);
    footer["shardFooter"]["streamBytes"] = Json::from(before);
    messages[3] = encode(&footer.to_string());
    let told = read(&seal(&messages)).expect("unknown fields are read over");
    assert_eq!(told.unknown, 1);
    assert_eq!(told.shards[0].0, header(0, 1));
    assert!(told.shards[0].1 == entries);
}

/// A stream of a header, one message of this JSON, and a footer that would be right.
fn with_message(json: &str) -> Result<(), Problem> {
    let stream = shard(header(0, 1), &[]);
    let header = stream[4..boundaries(&stream)[1] - 5].to_vec();
    let message = encode(json);
    let bytes = header.len() + message.len() + 18;
    let totals = r#"{"entries":2,"keyBytes":2,"valueBytes":2}"#;
    let footer = format!(r#"{{"shardFooter":{{"totals":{totals},"messages":2,"streamBytes":{bytes}}}}}"#);
    read(&seal(&[header, message, encode(&footer)])).map(|_| ()).map_err(|error| error.problem)
}

/// A sound chunk of two entries with some fields changed: the keys "b" and "a" (slots 3,300 and 15,495), with values of
/// one byte.
fn chunk(change: &[(&str, &str)]) -> String {
    let mut chunk: Json = serde_json::from_str(
        r#"{"entryCount":2,"keyBytes":[1],"keys":"YmE=",
            "valueBytes":[1],"values":"AAA=","indexBehind":[0],"position":[0]}"#,
    )
    .expect("a chunk");
    for (field, value) in change {
        chunk[*field] = serde_json::from_str(value).expect("a value");
    }
    format!(r#"{{"chunk":{chunk}}}"#)
}

#[test]
fn a_chunk_that_does_not_keep_the_format_is_refused_by_name() {
    assert_eq!(with_message(&chunk(&[])), Ok(()));
    let index_behind_too_far = format!("[\"{}\"]", INDEX + 1);
    let refused: &[(&[(&str, &str)], &str)] = &[
        (&[("entryCount", "0")], "no entries"),
        (&[("entryCount", "32769"), ("keys", "\"\""), ("keyBytes", "[0]")], "more than 32,768"),
        (&[("keyBytes", "[]")], "not one number"),
        (&[("keyBytes", "[1,1,0]")], "not one number"),
        (&[("keyBytes", "[2]")], "lengths"),
        (&[("keyBytes", "[65537,1]")], "bounds"),
        (&[("sharedBytes", "[0]"), ("keyBytes", "[1]")], "not one number"),
        (&[("sharedBytes", "[0,0,0]")], "not one number"),
        (&[("sharedBytes", "[1,0]")], "lengths"),
        (&[("sharedBytes", "[0,2]")], "lengths"),
        (&[("sharedBytes", "[0,1]")], "lengths"),
        (&[("valueBytes", "[0,2]")], "bounds"),
        (&[("valueBytes", "[1048577,1]")], "bounds"),
        (&[("valueBytes", "[1,2]")], "lengths"),
        (&[("values", "\"AA==\"")], "lengths"),
        (&[("valueBytes", "[]")], "not one number"),
        (&[("indexBehind", &index_behind_too_far)], "bounds"),
        (&[("indexBehind", "[]")], "not one number"),
        (&[("position", "[65536]")], "bounds"),
        (&[("position", "[0,0,0]")], "not one number"),
        (&[("expiringGap", "[0]")], "expiries"),
        (&[("expiresAfterUs", "[\"0\"]")], "expiries"),
        (&[("expiringGap", "[2]"), ("expiresAfterUs", "[\"0\"]")], "expiries"),
        (&[("expiringGap", "[1,0]"), ("expiresAfterUs", "[\"0\",\"0\"]")], "expiries"),
        (
            &[("expiringGap", "[0]"), ("expiresFromUs", "\"1\""), ("expiresAfterUs", "[\"9223372036854775807\"]")],
            "expiries",
        ),
    ];
    for (change, what) in refused {
        let problem = with_message(&chunk(change)).expect_err("a chunk that does not keep the format");
        assert_eq!(problem.name(), "Malformed", "{change:?}: {problem}");
        assert!(problem.to_string().contains(what), "{change:?}: {problem}, and not {what}");
    }
    let swapped = with_message(&chunk(&[("keys", "\"YWI=\"")]));
    assert_eq!(swapped, Err(Problem::OutOfOrder { slot: 3300 }));
    let twice = with_message(&chunk(&[("keys", "\"YmI=\"")]));
    assert_eq!(twice, Err(Problem::OutOfOrder { slot: 3300 }));
    let counted = Problem::Disagrees { what: "the number of entries that expire", stated: 0, counted: 1 };
    let expires = with_message(&chunk(&[("expiringGap", "[1]"), ("expiresAfterUs", "[\"7\"]")]));
    assert_eq!(expires, Err(counted));
}

#[test]
fn other_messages_that_do_not_keep_the_format_are_refused_by_name() {
    let valid = shard(header(0, 1), &[owned(b"a", b"v", 0, None)]);
    let cuts = boundaries(&valid);
    let message = |number: usize| valid[cuts[number] + 4..cuts[number + 1] - 5].to_vec();
    let (begins, chunk, ends) = (message(0), message(1), message(2));
    let changed = |bytes: &[u8], change: &dyn Fn(&mut Json)| {
        let mut json = decode(bytes);
        change(&mut json);
        encode(&json.to_string())
    };
    let header_with = |field: &str, value: Json| changed(&begins, &|json| json["shardHeader"][field] = value.clone());
    let footer_with = |field: &str, value: Json| {
        let change = |json: &mut Json| match field {
            "messages" | "streamBytes" => json["shardFooter"][field] = value.clone(),
            _ => json["shardFooter"]["totals"][field] = value.clone(),
        };
        changed(&ends, &change)
    };
    let large = |bytes: u64| encode(&format!(r#"{{"largeValue":{{"key":"Yg==","valueBytes":"{bytes}"}}}}"#));
    let part = |bytes: usize| [&[0x32][..], &inner(bytes)].concat();
    let two_bodies = [&chunk[..], &chunk[..]].concat();
    let node_uuid = "AAAAAAAAAAAAAAAAAAAAAA==";
    let file_header =
        format!(r#"{{"format":"eyot snapshot","formatVersion":1,"nodeUuid":"{node_uuid}","shardCount":1}}"#);
    let file_header = encode(&format!(r#"{{"fileHeader":{file_header}}}"#));
    let compressed = encode(r#"{"compressedChunk":{"compression":7,"chunkBytes":9,"compressed":"AA=="}}"#);
    for (messages, name) in [
        (vec![begins.clone(), chunk.clone(), ends.clone()], "Ok"),
        (vec![header_with("formatVersion", 2.into()), ends.clone()], "FutureVersion"),
        (vec![header_with("formatVersion", u32::MAX.into()), ends.clone()], "FutureVersion"),
        (vec![header_with("formatVersion", 0.into()), ends.clone()], "Malformed"),
        (vec![header_with("format", "other".into()), ends.clone()], "NotASnapshot"),
        (vec![header_with("shardCount", 0.into()), ends.clone()], "Malformed"),
        (vec![header_with("shardCount", 16_385.into()), ends.clone()], "Malformed"),
        (vec![header_with("shard", 1.into()), ends.clone()], "Malformed"),
        (vec![header_with("nodeUuid", "AAAA".into()), ends.clone()], "Malformed"),
        (vec![header_with("index", (1_u64 << 48).to_string().into()), ends.clone()], "Malformed"),
        (vec![header_with("shardCount", 2.into()), chunk.clone(), ends.clone()], "ForeignSlot"),
        (vec![begins.clone(), two_bodies, ends.clone()], "Malformed"),
        (vec![begins.clone(), begins.clone()], "Checksum"),
        (vec![chunk.clone(), ends.clone()], "Misplaced"),
        (vec![begins.clone(), file_header.clone()], "Checksum"),
        (vec![file_header.clone(), chunk.clone()], "Checksum"),
        (vec![file_header, begins.clone()], "Malformed"),
        (vec![begins.clone(), part(5)], "Misplaced"),
        (vec![begins.clone(), large(1 << 20)], "Malformed"),
        (vec![begins.clone(), large((512 << 20) + 1)], "Malformed"),
        (vec![begins.clone(), large((1 << 20) + 1), chunk.clone()], "Misplaced"),
        (vec![begins.clone(), large((1 << 20) + 1), ends.clone()], "Misplaced"),
        (vec![begins.clone(), large((1 << 20) + 1), part(5)], "Disagrees"),
        (vec![begins.clone(), large((1 << 20) + 1), part(1 << 20), part(2)], "Disagrees"),
        (
            vec![begins.clone(), chunk.clone(), encode(r#"{"largeValue":{"key":"YQ==","valueBytes":"2000000"}}"#)],
            "OutOfOrder",
        ),
        (vec![begins.clone(), compressed], "Malformed"),
        (vec![begins.clone(), chunk.clone(), footer_with("messages", 1.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("streamBytes", 1.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("entries", 2.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("keyBytes", 2.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("valueBytes", 2.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("expiring", 1.into())], "Disagrees"),
        (vec![begins.clone(), chunk.clone(), footer_with("largeValues", 1.into())], "Disagrees"),
    ] {
        let read = read(&seal(&messages)).map_err(|error| (error.problem.name(), error.to_string()));
        let found = read.as_ref().map_or_else(|(found, _)| *found, |_| "Ok");
        assert_eq!(found, name, "{read:?} for {:?}", messages.iter().map(Vec::len).collect::<Vec<_>>());
    }
}

/// A ValuePart of so many bytes, with its length before it.
fn inner(bytes: usize) -> Vec<u8> {
    let field = [&[0x0a][..], &varint(bytes), &vec![b'v'; bytes]].concat();
    [varint(field.len()), field].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn a_file_whose_shards_are_not_those_that_it_names_is_refused() {
    let bytes = file(&mixed(30), 2);
    let cuts = boundaries(&bytes);
    let messages: Vec<Vec<u8>> = cuts.windows(2).map(|pair| bytes[pair[0] + 4..pair[1] - 5].to_vec()).collect();
    assert_eq!(seal(&messages), bytes);
    assert_eq!(messages.len(), 8, "a file's header, twice header, chunk and footer, a file's footer");
    let refused = |messages: &[Vec<u8>]| read(&seal(messages)).expect_err("a file that is not whole").problem.name();
    let second_first: Vec<Vec<u8>> = [0, 4, 5, 6, 1, 2, 3, 7].map(|number| messages[number].clone()).to_vec();
    assert_eq!(refused(&second_first), "Disagrees");
    let one_missing: Vec<Vec<u8>> = [0, 1, 2, 3, 7].map(|number| messages[number].clone()).to_vec();
    assert_eq!(refused(&one_missing), "Disagrees");
    for (field, value) in [("shardCount", 1), ("fileBytes", 5), ("shardsCrc32c", 7)] {
        let mut changed = messages.clone();
        let mut footer = decode(&messages[7]);
        footer["fileFooter"][field] = Json::from(value);
        changed[7] = encode(&footer.to_string());
        assert_eq!(refused(&changed), "Disagrees", "{field}");
    }
    for (field, value) in [("shardCount", Json::from(3)), ("nodeUuid", Json::from("AAAAAAAAAAAAAAAAAAAAAA=="))] {
        let mut changed = messages.clone();
        let mut header = decode(&messages[1]);
        header["shardHeader"][field] = value;
        changed[1] = encode(&header.to_string());
        assert!(["Disagrees", "Malformed"].contains(&refused(&changed)), "{field}");
    }
}
