//! Properties of the native protocol's decoders, the server's and the client's.

use eyot_protocol::native::batch::Batch;
use eyot_protocol::native::reply::{
    put_batch_head, put_boolean, put_hello, put_set, put_snapshot, put_stats, put_value,
};
use eyot_protocol::native::{
    decode_reply, decode_request, encode_request, split_frame, Frame, FrameHeader, Split, HEADER_BYTES,
    PROTOCOL_VERSION, REPLY_BIT,
};
use eyot_protocol::request::{Operation, Request, RequestOptions};
use eyot_protocol::tlv::Encoder;
use eyot_protocol::Response;

/// Low, so that inputs of a few kilobytes reach it.
const FRAME_BYTES_MAX: usize = 2048;
/// Low for the same reason.
const VALUE_BYTES_MAX: usize = 1024;
/// A batch in a reply may have as many operations as the input's fourth byte says; more would show nothing new.
const BATCH_OPERATIONS_MAX: usize = 8;
/// What a client can have asked for in a batch.
const IN_BATCH: [Operation; 4] = [Operation::Get, Operation::Set, Operation::Delete, Operation::Exists];

/// What was found in a stream, in words, so that two readings can be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    frames: Vec<String>,
    /// Why the stream ended, if not for want of bytes.
    broken: Option<String>,
}

impl Reading {
    /// Takes whole frames off `stream` and returns how many bytes they took.
    fn take_frames(&mut self, stream: &[u8]) -> usize {
        let mut taken = 0;
        while self.broken.is_none() {
            match split_frame(&stream[taken..], FRAME_BYTES_MAX) {
                Ok(Split::Frame { frame, consumed }) => {
                    assert!(consumed <= stream.len() - taken && consumed == HEADER_BYTES + frame.body.len());
                    taken += consumed;
                    self.frames.push(describe(&frame));
                }
                Ok(Split::Incomplete { needed }) => {
                    assert!(needed > stream.len() - taken, "waits for bytes that are there");
                    assert!(needed <= FRAME_BYTES_MAX + HEADER_BYTES, "waits for more than the limit");
                    break;
                }
                Err(error) => self.broken = Some(error.to_string()),
            }
        }
        taken
    }
}

fn describe(frame: &Frame<'_>) -> String {
    match decode_request(frame, VALUE_BYTES_MAX) {
        Ok((request, options)) => {
            check_request(&request, &options);
            format!("{} {request:?} {options:?}", frame.header.request_id)
        }
        Err(error) => format!("{} {error}", frame.header.request_id),
    }
}

/// A request that was accepted is the same after it was encoded and decoded again.
fn check_request(request: &Request<'_>, options: &RequestOptions) {
    if let Request::Batch(batch) = request {
        assert_eq!(batch.requests().count(), batch.len());
        assert_eq!(Batch::decode(batch.payload(), VALUE_BYTES_MAX).as_ref(), Ok(batch));
    }
    let mut encoded = Vec::new();
    encode_request(&mut encoded, 7, request, options);
    let Ok(Split::Frame { frame, consumed }) = split_frame(&encoded, usize::MAX) else {
        panic!("an encoded request is no frame: {encoded:02x?}")
    };
    assert_eq!((consumed, frame.header.request_id), (encoded.len(), 7));
    assert_eq!(decode_request(&frame, VALUE_BYTES_MAX).as_ref(), Ok(&(*request, *options)));
}

/// Reads `input` as a client's stream, at once and byte by byte.
///
/// # Panics
/// When the two readings differ, or a request changes when it is encoded and decoded again.
pub fn native_frame(input: &[u8]) {
    let mut at_once = Reading::default();
    at_once.take_frames(input);

    let (mut by_bytes, mut start) = (Reading::default(), 0);
    for end in 1..=input.len() {
        start += by_bytes.take_frames(&input[start..end]);
    }
    assert_eq!(at_once, by_bytes, "what is found depends on how the bytes arrive");
}

/// Reads `input` as a reply: operation, flags, and operations of the batch that it answers; then the payload.
///
/// # Panics
/// When part of a reply is taken for a whole one, or a reply changes when it is encoded and decoded again.
pub fn native_response(input: &[u8]) {
    let [op, flags, version, batch_len, rest @ ..] = input else { return };
    let Some((codes, body)) = rest.split_at_checked(usize::from(*batch_len) % (BATCH_OPERATIONS_MAX + 1)) else {
        return;
    };
    // Mostly versions and operations that exist: the checks of one byte need no fuzzing of their own.
    let header = FrameHeader {
        version: if *version == u8::MAX { 2 } else { PROTOCOL_VERSION },
        op: op | REPLY_BIT,
        flags: u16::from(*flags),
        request_id: 7,
    };
    let operations: Vec<Operation> = codes.iter().map(|code| IN_BATCH[usize::from(*code) % IN_BATCH.len()]).collect();
    let decode = |body| decode_reply(&Frame { header, body }, &operations);
    let Ok(response) = decode(body) else { return };
    for length in 0..body.len().min(256) {
        assert!(decode(&body[..length]).is_err(), "a reply was found in part of one");
    }
    let mut encoded = Vec::new();
    put(&mut encoded, &response);
    assert_eq!(decode(&encoded), Ok(response), "a reply changed on the way");
}

/// Appends `response` as the server would.
fn put(out: &mut Vec<u8>, response: &Response<'_>) {
    match response {
        Response::Hello(reply) => put_hello(out, reply),
        Response::Pong { payload } => out.extend_from_slice(payload),
        Response::Value(found) => put_value(out, *found),
        Response::Set(outcome) => put_set(out, *outcome),
        Response::Deleted(answer) | Response::Exists(answer) => put_boolean(out, *answer),
        Response::Batch(responses) => {
            put_batch_head(out, responses.len());
            for response in responses {
                put(out, response);
            }
        }
        Response::Stats(json) => put_stats(out, json),
        Response::Snapshot(reply) => put_snapshot(out, reply),
        // Not `put_error`: a server knows its codes and cuts its messages, a client takes any.
        Response::Error(error) => {
            let mut encoder = Encoder::new(out);
            encoder.list(1);
            encoder.error(error.number, &error.message);
        }
    }
}
