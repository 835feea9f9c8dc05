//! Properties of the native protocol over random requests, replies, streams and bytes.

use eyot_protocol::command::Condition;
use eyot_protocol::credentials::Credentials;
use eyot_protocol::limits::{FRAME_OVERHEAD_BYTES, MAX_DEPTH, MAX_SNAPSHOT_READ_BYTES};
use eyot_protocol::native::batch::Batch;
use eyot_protocol::native::codec::encode_batch;
use eyot_protocol::native::reply::{
    put_batch_head, put_boolean, put_error, put_error_reply, put_reply, put_set, put_snapshot, put_stats, put_value,
};
use eyot_protocol::native::{
    decode_reply, decode_request, encode_request, split_frame, Frame, FrameHeader, Split, HEADER_BYTES,
};
use eyot_protocol::request::{
    AckLevel, Expiry, Hello, Operation, ReadLevel, Request, RequestOptions, Set, SnapshotRead, SnapshotRequest,
};
use eyot_protocol::response::{
    ReplyError, Response, SetOutcome, ShardSnapshot, SnapshotReply, SnapshotStatus, StoredValue,
};
use eyot_protocol::tlv::Value;
use eyot_protocol::ErrorCode;
use proptest::collection::vec;
use proptest::prelude::*;

const MAX_VALUE_BYTES: usize = 64 * 1024;
const MAX_FRAME_BYTES: usize = MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES;

/// A request on one key that owns what it names.
#[derive(Debug, Clone)]
enum Keyed {
    Get(Vec<u8>),
    Set { key: Vec<u8>, value: Vec<u8>, expiry: Expiry, condition: Condition },
    Delete(Vec<u8>),
    Exists(Vec<u8>),
}

impl Keyed {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Get(key) => Request::Get { key },
            Self::Delete(key) => Request::Delete { key },
            Self::Exists(key) => Request::Exists { key },
            Self::Set { key, value, expiry, condition } => {
                Request::Set(Set { key, value, expiry: *expiry, condition: *condition })
            }
        }
    }
}

/// Any request that owns what it names.
#[derive(Debug, Clone)]
enum Any {
    /// The client's name; its user and its password.
    Hello(Option<String>, Option<(Option<Vec<u8>>, Vec<u8>)>),
    Ping(Vec<u8>),
    Keyed(Keyed),
    Batch(Vec<Keyed>),
    Stats,
    Snapshot(SnapshotRequest),
}

impl Any {
    fn encode(&self, out: &mut Vec<u8>, id: u32, options: &RequestOptions) {
        let request = match self {
            Self::Hello(client, credentials) => {
                let credentials = credentials.as_ref();
                let credentials = credentials.map(|(user, password)| Credentials { user: user.as_deref(), password });
                Request::Hello(Hello { client: client.as_deref(), credentials })
            }
            Self::Ping(payload) => Request::Ping { payload },
            Self::Keyed(keyed) => keyed.request(),
            Self::Stats => Request::Stats,
            Self::Snapshot(request) => Request::Snapshot(*request),
            Self::Batch(operations) => {
                let requests: Vec<Request<'_>> = operations.iter().map(Keyed::request).collect();
                return encode_batch(out, id, &requests, options).expect("operations that a batch takes");
            }
        };
        encode_request(out, id, &request, options);
    }

    /// Whether `request` says the same.
    fn is(&self, request: &Request<'_>) -> bool {
        match (self, request) {
            (Self::Hello(client, credentials), Request::Hello(hello)) => {
                let found = hello.credentials.map(|said| (said.user.map(<[u8]>::to_vec), said.password.to_vec()));
                client.as_deref() == hello.client && *credentials == found
            }
            (Self::Ping(payload), Request::Ping { payload: found }) => payload == found,
            (Self::Keyed(keyed), found) => keyed.request() == *found,
            (Self::Batch(operations), Request::Batch(batch)) => {
                batch.len() == operations.len()
                    && batch.requests().zip(operations).all(|(found, keyed)| keyed.request() == found)
            }
            (Self::Stats, Request::Stats) => true,
            (Self::Snapshot(request), Request::Snapshot(found)) => request == found,
            _ => false,
        }
    }
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<bool>().prop_map(Value::Boolean),
        "[ -~é]{0,40}".prop_map(Value::String),
        vec(any::<u8>(), 0..200).prop_map(Value::Bytes),
        (any::<u32>(), "[a-z]{0,10}").prop_map(|(code, message)| Value::Error { code, message }),
    ];
    let value = scalar.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    });
    value.prop_map(|value| encoded(&value))
}

fn any_list() -> impl Strategy<Value = Vec<u8>> {
    vec(any_value(), 0..5).prop_map(|values| {
        let mut list = vec![0x03, values.len() as u8];
        for value in &values {
            list.extend_from_slice(value);
        }
        list
    })
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..60)
}

fn any_keyed() -> impl Strategy<Value = Keyed> {
    let expiry = prop_oneof![
        Just(Expiry::Never),
        (1..i64::MAX as u64).prop_map(Expiry::AfterMs),
        (1..i64::MAX).prop_map(Expiry::AtUs),
    ];
    let condition = prop_oneof![
        Just(Condition::Always),
        Just(Condition::IfAbsent),
        Just(Condition::IfPresent),
        (0..i64::MAX as u64).prop_map(Condition::IfVersion),
    ];
    prop_oneof![
        any_key().prop_map(Keyed::Get),
        any_key().prop_map(Keyed::Delete),
        any_key().prop_map(Keyed::Exists),
        (any_key(), any_value(), expiry, condition).prop_map(|(key, value, expiry, condition)| Keyed::Set {
            key,
            value,
            expiry,
            condition
        }),
    ]
}

fn any_snapshot_request() -> impl Strategy<Value = SnapshotRequest> {
    let number = || 0..=i64::MAX as u64;
    let read = (any::<u16>(), number(), number(), 0..=MAX_SNAPSHOT_READ_BYTES as u32);
    prop_oneof![
        Just(SnapshotRequest::Create),
        number().prop_map(|request| SnapshotRequest::Status { request }),
        read.prop_map(|(shard, index, offset, length)| {
            SnapshotRequest::Read(SnapshotRead { shard, index, offset, length })
        }),
    ]
}

fn any_snapshot_status() -> impl Strategy<Value = SnapshotStatus> {
    let number = || 0..=i64::MAX as u64;
    let shards = prop::collection::btree_map(0..u16::MAX, (any::<u16>(), number(), number(), number()), 0..20);
    let flags = (any::<bool>(), proptest::option::of("[ -~é]{0,30}"), any::<bool>());
    (flags, (number(), number(), number()), shards, any::<u128>()).prop_map(
        |((is_done, failure, is_in_progress), (entries_done, bytes_done, keys), shards, node_uuid)| SnapshotStatus {
            is_done,
            failure,
            is_in_progress,
            entries_done,
            bytes_done,
            keys,
            shard_count: shards.keys().next_back().map_or(0, |last| last + 1),
            shards: shards
                .into_iter()
                .map(|(shard, (core, index, bytes, entries))| ShardSnapshot { shard, core, index, bytes, entries })
                .collect(),
            node_uuid,
        },
    )
}

fn any_request() -> impl Strategy<Value = Any> {
    prop_oneof![
        1 => (
            proptest::option::of("[ -~é]{0,30}"),
            proptest::option::of((proptest::option::of(vec(any::<u8>(), 0..20)), vec(any::<u8>(), 0..20))),
        )
            .prop_map(|(client, credentials)| Any::Hello(client, credentials)),
        1 => any_list().prop_map(Any::Ping),
        6 => any_keyed().prop_map(Any::Keyed),
        2 => vec(any_keyed(), 0..12).prop_map(Any::Batch),
        1 => Just(Any::Stats),
        1 => any_snapshot_request().prop_map(Any::Snapshot),
    ]
}

fn any_options() -> impl Strategy<Value = RequestOptions> {
    let ack =
        prop_oneof![Just(AckLevel::Default), Just(AckLevel::Memory), Just(AckLevel::Fsync), Just(AckLevel::Quorum),];
    let read = prop_oneof![
        Just(ReadLevel::Linearizable),
        Just(ReadLevel::Lease),
        any::<u32>().prop_map(|max_age_ms| ReadLevel::Bounded { max_age_ms }),
        Just(ReadLevel::Any),
    ];
    (ack, read, proptest::option::of(1_u32..)).prop_map(|(ack, read, deadline_ms)| RequestOptions {
        ack,
        read,
        deadline_ms,
    })
}

/// Takes the whole frames off `stream`; returns each as its header and body, and how many bytes they took.
fn frames(stream: &[u8]) -> (Vec<(FrameHeader, Vec<u8>)>, usize) {
    let (mut found, mut taken) = (Vec::new(), 0);
    while let Ok(Split::Frame { frame, consumed }) = split_frame(&stream[taken..], MAX_FRAME_BYTES) {
        found.push((frame.header, frame.body.to_vec()));
        taken += consumed;
    }
    (found, taken)
}

fn one_frame(bytes: &[u8]) -> Frame<'_> {
    match split_frame(bytes, MAX_FRAME_BYTES) {
        Ok(Split::Frame { frame, consumed }) if consumed == bytes.len() => frame,
        other => panic!("not one whole frame: {other:?}"),
    }
}

/// A frame of `frame`'s header around `body`.
fn frame_of(header: [u8; HEADER_BYTES], body: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(body);
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// A result of one operation on a key, owned.
#[derive(Debug, Clone)]
enum Answer {
    Value(Option<(Vec<u8>, u64)>),
    Set(SetOutcome),
    Deleted(bool),
    Exists(bool),
    Error(ErrorCode, String),
}

impl Answer {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(found) => {
                put_value(out, found.as_ref().map(|(value, version)| StoredValue { value, version: *version }));
            }
            Self::Set(outcome) => put_set(out, *outcome),
            Self::Deleted(truth) | Self::Exists(truth) => put_boolean(out, *truth),
            Self::Error(code, message) => put_error(out, *code, message),
        }
    }

    fn response(&self) -> Response<'_> {
        match self {
            Self::Value(found) => {
                Response::Value(found.as_ref().map(|(value, version)| StoredValue { value, version: *version }))
            }
            Self::Set(outcome) => Response::Set(*outcome),
            Self::Deleted(truth) => Response::Deleted(*truth),
            Self::Exists(truth) => Response::Exists(*truth),
            Self::Error(code, message) => {
                Response::Error(ReplyError { number: code.number(), message: message.clone() })
            }
        }
    }
}

/// An operation with a result that it can have.
fn any_answer() -> impl Strategy<Value = (Operation, Answer)> {
    let outcome = prop_oneof![
        any::<u64>().prop_map(|version| SetOutcome::Stored { version }),
        proptest::option::of(any::<u64>()).prop_map(|current| SetOutcome::NotStored { current }),
    ];
    let keyed = prop::sample::select(vec![Operation::Get, Operation::Set, Operation::Delete, Operation::Exists]);
    prop_oneof![
        proptest::option::of((any_value(), any::<u64>())).prop_map(|found| (Operation::Get, Answer::Value(found))),
        outcome.prop_map(|outcome| (Operation::Set, Answer::Set(outcome))),
        any::<bool>().prop_map(|truth| (Operation::Delete, Answer::Deleted(truth))),
        any::<bool>().prop_map(|truth| (Operation::Exists, Answer::Exists(truth))),
        (keyed, prop::sample::select(ErrorCode::ALL.to_vec()), "[ -~é]{0,60}")
            .prop_map(|(operation, code, message)| (operation, Answer::Error(code, message))),
    ]
}

fn put_answer(out: &mut Vec<u8>, operation: Operation, id: u32, answer: &Answer) {
    match answer {
        Answer::Error(code, message) => put_error_reply(out, operation.code(), id, *code, message),
        _ => put_reply(out, operation.code(), id, |out| answer.put(out)),
    }
}

/// Whatever the bytes are, both sides end with a value or a typed error.
fn decode_any(bytes: &[u8]) {
    if let Ok(Split::Frame { frame, .. }) = split_frame(bytes, MAX_FRAME_BYTES) {
        if let Ok((Request::Batch(batch), _)) = decode_request(&frame, MAX_VALUE_BYTES) {
            assert_eq!(batch.requests().count(), batch.len());
        }
        for batch in [&[][..], &[Operation::Get, Operation::Set], &[Operation::Delete, Operation::Exists]] {
            let _ = decode_reply(&frame, batch);
        }
    }
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was(request in any_request(), options in any_options(), id in any::<u32>()) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes, id, &options);
        let frame = one_frame(&bytes);
        prop_assert_eq!(frame.header.request_id, id);
        let (found, found_options) = decode_request(&frame, MAX_VALUE_BYTES).expect("an encoded request");
        prop_assert!(request.is(&found), "{found:?}");
        prop_assert_eq!(found_options, options);
    }

    #[test]
    fn a_reply_comes_back_as_it_was((operation, answer) in any_answer(), id in any::<u32>()) {
        let mut bytes = Vec::new();
        put_answer(&mut bytes, operation, id, &answer);
        let frame = one_frame(&bytes);
        prop_assert_eq!(frame.header.request_id, id);
        prop_assert_eq!(decode_reply(&frame, &[]), Ok(answer.response()));
    }

    #[test]
    fn any_list_comes_back_from_a_ping(payload in any_list(), id in any::<u32>()) {
        let mut bytes = Vec::new();
        put_reply(&mut bytes, Operation::Ping.code(), id, |out| out.extend_from_slice(&payload));
        prop_assert_eq!(decode_reply(&one_frame(&bytes), &[]), Ok(Response::Pong { payload: &payload }));
    }

    #[test]
    fn a_batch_reply_comes_back_as_it_was(answers in vec(any_answer(), 0..12), json in "[ -~]{0,40}") {
        let mut bytes = Vec::new();
        put_reply(&mut bytes, Operation::Batch.code(), 1, |out| {
            put_batch_head(out, answers.len());
            for (_, answer) in &answers {
                answer.put(out);
            }
        });
        let operations: Vec<Operation> = answers.iter().map(|(operation, _)| *operation).collect();
        let expected: Vec<Response<'_>> = answers.iter().map(|(_, answer)| answer.response()).collect();
        prop_assert_eq!(decode_reply(&one_frame(&bytes), &operations), Ok(Response::Batch(expected)));

        let mut stats = Vec::new();
        put_reply(&mut stats, Operation::Stats.code(), 1, |out| put_stats(out, &json));
        prop_assert_eq!(decode_reply(&one_frame(&stats), &[]), Ok(Response::Stats(&json)));
    }

    #[test]
    fn a_reply_to_snapshot_comes_back_as_it_was(
        status in any_snapshot_status(), request in 0..=i64::MAX as u64, bytes in vec(any::<u8>(), 0..200),
    ) {
        let replies =
            [SnapshotReply::Status(status), SnapshotReply::Created { request }, SnapshotReply::Bytes(&bytes)];
        for reply in replies {
            let mut frame = Vec::new();
            put_reply(&mut frame, Operation::Snapshot.code(), 1, |out| put_snapshot(out, &reply));
            let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().expect("a whole frame");
            for end in 0..body.len() {
                prop_assert!(decode_reply(&one_frame(&frame_of(*header, &body[..end])), &[]).is_err());
            }
            prop_assert_eq!(decode_reply(&one_frame(&frame), &[]), Ok(Response::Snapshot(reply)));
        }
    }

    #[test]
    fn wherever_a_stream_is_split_it_holds_the_same_frames(
        requests in vec((any_request(), any_options()), 1..6),
        answers in vec(any_answer(), 0..4),
    ) {
        let mut stream = Vec::new();
        for (number, (request, options)) in requests.iter().enumerate() {
            request.encode(&mut stream, number as u32, options);
        }
        for (operation, answer) in &answers {
            put_answer(&mut stream, *operation, 7, answer);
        }
        let (whole, taken) = frames(&stream);
        prop_assert_eq!((whole.len(), taken), (requests.len() + answers.len(), stream.len()));
        for cut in 0..=stream.len() {
            let (mut found, first_end) = frames(&stream[..cut]);
            let (rest, rest_taken) = frames(&stream[first_end..]);
            prop_assert_eq!(first_end + rest_taken, stream.len());
            found.extend(rest);
            prop_assert_eq!(&found, &whole, "cut at {}", cut);
        }
    }

    #[test]
    fn part_of_a_frame_waits_for_no_more_than_the_frame(request in any_request(), options in any_options()) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes, 1, &options);
        for end in 0..bytes.len() {
            match split_frame(&bytes[..end], MAX_FRAME_BYTES) {
                Ok(Split::Incomplete { needed }) => prop_assert!(end < needed && needed <= bytes.len()),
                other => prop_assert!(false, "{} bytes of {}: {:?}", end, bytes.len(), other),
            }
        }
    }

    #[test]
    fn a_payload_that_is_cut_is_a_typed_error(
        request in any_request(), options in any_options(), (operation, answer) in any_answer(),
    ) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes, 1, &options);
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a whole frame");
        for end in 0..body.len() {
            let cut = frame_of(*header, &body[..end]);
            let refused = decode_request(&one_frame(&cut), MAX_VALUE_BYTES).map(|_| ());
            let code = refused.map_err(|error| error.code);
            let is_typed = matches!(
                code,
                Err(ErrorCode::InvalidValue | ErrorCode::InvalidArgument | ErrorCode::MalformedFrame)
            );
            prop_assert!(is_typed, "{} of {} bytes: {:?}", end, body.len(), code);
        }
        let mut bytes = Vec::new();
        put_answer(&mut bytes, operation, 1, &answer);
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a whole frame");
        for end in 0..body.len() {
            let cut = frame_of(*header, &body[..end]);
            prop_assert!(decode_reply(&one_frame(&cut), &[]).is_err(), "{} of {} bytes", end, body.len());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), op in 0_u8..=255, flags in 0_u16..0x800) {
        decode_any(&bytes);
        // Random bytes are rarely a frame: give them a header, so that they are taken for a payload.
        let [f0, f1] = flags.to_le_bytes();
        decode_any(&frame_of([0, 0, 0, 0, 1, op, f0, f1, 7, 0, 0, 0], &bytes));
        decode_any(&frame_of([0, 0, 0, 0, 1, (op % 16) | (op & 0x80), 0, 0, 7, 0, 0, 0], &bytes));
        let _ = Batch::decode(&bytes, MAX_VALUE_BYTES);
    }

    #[test]
    fn a_damaged_frame_never_panics(
        request in any_request(), options in any_options(), (operation, answer) in any_answer(),
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        request.encode(&mut sent, 1, &options);
        put_answer(&mut received, operation, 1, &answer);
        for mut bytes in [sent, received] {
            for (place, byte) in &damages {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            decode_any(&bytes);
        }
    }

    #[test]
    fn a_batch_is_decoded_whole_or_refused(operations in vec(any_keyed(), 0..20), cut in any::<prop::sample::Index>()) {
        let requests: Vec<Request<'_>> = operations.iter().map(Keyed::request).collect();
        let mut frame = Vec::new();
        encode_batch(&mut frame, 1, &requests, &RequestOptions::default()).expect("operations that a batch takes");
        let payload = &frame[HEADER_BYTES..];
        let batch = Batch::decode(payload, MAX_VALUE_BYTES).expect("an encoded batch");
        prop_assert_eq!(batch.requests().collect::<Vec<_>>(), requests);
        prop_assert_eq!((batch.payload(), batch.is_empty()), (payload, operations.is_empty()));
        prop_assert!(Batch::decode(&payload[..cut.index(payload.len())], MAX_VALUE_BYTES).is_err());
        let mut longer = payload.to_vec();
        longer.push(0);
        prop_assert!(Batch::decode(&longer, MAX_VALUE_BYTES).is_err());
    }
}

#[test]
fn a_value_may_be_as_deep_in_a_batch_as_alone() {
    let deepest = [[0x03, 1].repeat(MAX_DEPTH - 1), vec![0x03, 0]].concat();
    let too_deep = [vec![0x03, 1], deepest.clone()].concat();
    for (value, is_taken) in [(deepest, true), (too_deep, false)] {
        let set = Request::Set(Set::new(b"k", &value));
        let (mut alone, mut in_batch) = (Vec::new(), Vec::new());
        encode_request(&mut alone, 1, &set, &RequestOptions::default());
        encode_batch(&mut in_batch, 1, &[set], &RequestOptions::default()).expect("a batch of a SET");
        for bytes in [alone, in_batch] {
            assert_eq!(decode_request(&one_frame(&bytes), MAX_VALUE_BYTES).is_ok(), is_taken);
        }
    }
}
