//! Replies to and from the payloads of frames.
//!
//! Place in the flow: step 9 (reply) in the server; receiving in a client.
//!
//! A result is one TLV DataInput. A reply frame carries one; the reply to a BATCH is a list of them.
//!
//! ```text
//! any     [error]                       code and message; a frame's flag says so, a BATCH's result has none
//! HELLO   [map]                         see `hello`
//! PING    what was sent
//! GET     [value, int64 version]        []  where the key does not exist
//! SET     [int64 version]               stored
//!         [null, int64 version]         not stored; the key has this version
//!         [null]                        not stored; the key does not exist
//! DELETE  [boolean]                     whether the key existed
//! EXISTS  [boolean]
//! BATCH   [result, result, ...]
//! STATS   [string]                      JSON
//! SNAPSHOT [map] or [bytes]             see `snapshot`
//! ```

use super::frame::{self, Frame, FrameHeader, HEADER_BYTES, LENGTH_BYTES, PROTOCOL_VERSION, REPLY_BIT};
use super::hello::{decode_hello_reply, encode_hello_reply};
use super::snapshot::{decode_snapshot_reply, encode_snapshot_reply};
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::MAX_ERROR_MESSAGE_BYTES;
use crate::request::Operation;
use crate::response::{HelloReply, ReplyError, Response, SetOutcome, SnapshotReply, StoredValue};
use crate::tlv::{Decoder, Encoder, ValueRef};

pub use super::frame::REPLY_FLAG_ERROR;

/// Appends the result of a GET.
#[inline]
pub fn put_value(out: &mut Vec<u8>, found: Option<StoredValue<'_>>) {
    let mut encoder = Encoder::new(out);
    match found {
        None => encoder.list(0),
        Some(StoredValue { value, version }) => {
            encoder.list(2);
            encoder.raw(value);
            encoder.int64(version as i64);
        }
    }
}

/// The reply to a GET without its value: what stands before an encoded value of `value_bytes`, and what stands behind
/// it, so that the value itself can be sent from where it is.
pub fn value_reply_around(op: u8, request_id: u32, value_bytes: usize, version: u64) -> (Vec<u8>, Vec<u8>) {
    let header = FrameHeader { version: PROTOCOL_VERSION, op: op | REPLY_BIT, flags: 0, request_id };
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let start = frame::begin(&mut head, header);
    Encoder::new(&mut head).list(2);
    Encoder::new(&mut tail).int64(version as i64);
    let length = head.len() - start - LENGTH_BYTES + value_bytes + tail.len();
    let length = u32::try_from(length).expect("a frame of less than 4 GiB");
    head[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    (head, tail)
}

/// Appends the result of a SET.
#[inline]
pub fn put_set(out: &mut Vec<u8>, outcome: SetOutcome) {
    let mut encoder = Encoder::new(out);
    match outcome {
        SetOutcome::Stored { version } => {
            encoder.list(1);
            encoder.int64(version as i64);
        }
        SetOutcome::NotStored { current } => {
            encoder.list(1 + usize::from(current.is_some()));
            encoder.null();
            if let Some(version) = current {
                encoder.int64(version as i64);
            }
        }
    }
}

/// Appends the result of a DELETE or an EXISTS.
#[inline]
pub fn put_boolean(out: &mut Vec<u8>, value: bool) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.boolean(value);
}

/// Appends a number as a result: a length, a counter, a time.
pub fn put_integer(out: &mut Vec<u8>, number: i64) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.int64(number);
}

/// Appends bytes as a result that are not a stored value.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.bytes(text);
}

/// Appends the result of a STATS.
pub fn put_stats(out: &mut Vec<u8>, json: &str) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.string(json);
}

/// Appends the result of a HELLO.
pub fn put_hello(out: &mut Vec<u8>, reply: &HelloReply) {
    encode_hello_reply(out, reply);
}

/// Appends the result of a SNAPSHOT.
pub fn put_snapshot(out: &mut Vec<u8>, reply: &SnapshotReply<'_>) {
    encode_snapshot_reply(out, reply);
}

/// Appends the result of a request that failed.
pub fn put_error(out: &mut Vec<u8>, code: ErrorCode, message: &str) {
    let mut end = message.len().min(MAX_ERROR_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.error(code.number(), &message[..end]);
}

/// Appends the head of a BATCH's result: `count` results follow.
pub fn put_batch_head(out: &mut Vec<u8>, count: usize) {
    Encoder::new(out).list(count);
}

/// Appends a reply frame whose result `put` appends.
#[inline]
pub fn put_reply(out: &mut Vec<u8>, op: u8, request_id: u32, put: impl FnOnce(&mut Vec<u8>)) {
    put_reply_with_flags(out, op, request_id, 0, put);
}

/// Appends a reply frame for a request that failed.
pub fn put_error_reply(out: &mut Vec<u8>, op: u8, request_id: u32, code: ErrorCode, message: &str) {
    put_reply_with_flags(out, op, request_id, REPLY_FLAG_ERROR, |out| put_error(out, code, message));
}

#[inline]
fn put_reply_with_flags(out: &mut Vec<u8>, op: u8, request_id: u32, flags: u16, put: impl FnOnce(&mut Vec<u8>)) {
    let header = FrameHeader { version: PROTOCOL_VERSION, op: op | REPLY_BIT, flags, request_id };
    let start = frame::begin(out, header);
    put(out);
    frame::finish(out, start);
}

/// The length of a reply frame, with its length field, whose result takes `result_bytes`.
pub const fn reply_bytes(result_bytes: usize) -> usize {
    HEADER_BYTES + result_bytes
}

const _: () = assert!(HEADER_BYTES == LENGTH_BYTES + frame::MIN_FRAME_BYTES);

/// Decodes a reply frame. Values are borrowed from it. `batch` names the operations of the BATCH that it answers, which
/// decide how its results read (a stored null and a SET that was not stored have the same bytes); else it is not used.
///
/// # Errors
/// The reply is not what the protocol allows; the connection should be given up.
///
/// # Panics
/// When the reply answers a BATCH and `batch` names an operation that no BATCH takes: the caller never sent that.
pub fn decode_reply<'a>(frame: &Frame<'a>, batch: &[Operation]) -> Result<Response<'a>, ProtocolError> {
    let operation = (frame.header.op & REPLY_BIT != 0)
        .then(|| Operation::from_code(frame.header.op & !REPLY_BIT))
        .flatten()
        .ok_or_else(|| unexpected(&format!("operation {:#04x} is not a reply", frame.header.op)))?;
    if frame.header.version != PROTOCOL_VERSION {
        return Err(unexpected(&format!("version {}", frame.header.version)));
    }
    let mut decoder = Decoder::new(frame.body);
    // Not the payload decides: a PING may have sent a list of one error, which then comes back.
    let failed = frame.header.flags & REPLY_FLAG_ERROR != 0;
    let response = match operation {
        _ if failed => decode_error(&mut decoder)?,
        Operation::Ping => decode_pong(&mut decoder)?,
        Operation::Batch => decode_batch(batch, &mut decoder)?,
        _ => decode_result(operation, &take_result(&mut decoder)?)?,
    };
    decoder.finish()?;
    Ok(response)
}

fn unexpected(what: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::MalformedFrame, format!("unexpected reply: {what}"))
}

/// The values of one result; no result has more than two, save that of PING.
fn take_result<'a>(decoder: &mut Decoder<'a>) -> Result<Values<'a>, ProtocolError> {
    let count = decoder.list()?;
    let mut values = Values { count, first: None, second: None };
    if count > 2 {
        return Err(unexpected(&format!("a result of {count} values")));
    }
    if count > 0 {
        values.first = Some(take_raw(decoder)?);
    }
    if count > 1 {
        values.second = Some(take_raw(decoder)?.1);
    }
    Ok(values)
}

struct Values<'a> {
    count: usize,
    /// The first value, as its bytes and decoded.
    first: Option<(&'a [u8], ValueRef<'a>)>,
    second: Option<ValueRef<'a>>,
}

fn take_raw<'a>(decoder: &mut Decoder<'a>) -> Result<(&'a [u8], ValueRef<'a>), ProtocolError> {
    let before = decoder.remaining();
    let value = decoder.value()?;
    Ok((&before[..before.len() - decoder.remaining().len()], value))
}

fn reply_error(values: &Values<'_>) -> Option<ReplyError> {
    match values.first {
        Some((_, ValueRef::Error(error))) if values.count == 1 => {
            Some(ReplyError { number: error.code, message: error.message.to_owned() })
        }
        _ => None,
    }
}

fn decode_error<'a>(decoder: &mut Decoder<'a>) -> Result<Response<'a>, ProtocolError> {
    let error = reply_error(&take_result(decoder)?);
    error.map(Response::Error).ok_or_else(|| unexpected("it is marked as an error and is none"))
}

fn decode_pong<'a>(decoder: &mut Decoder<'a>) -> Result<Response<'a>, ProtocolError> {
    match take_raw(decoder)? {
        (payload, ValueRef::List(_)) => Ok(Response::Pong { payload }),
        _ => Err(unexpected("PING's payload is no list")),
    }
}

/// The results of the operations in `batch`. They have no flags of their own: a list of one error is an error.
fn decode_batch<'a>(batch: &[Operation], decoder: &mut Decoder<'a>) -> Result<Response<'a>, ProtocolError> {
    let count = decoder.list()?;
    if count != batch.len() {
        return Err(unexpected(&format!("{count} results for a batch of {}", batch.len())));
    }
    let results = batch.iter().map(|&operation| {
        let keyed = matches!(operation, Operation::Get | Operation::Set | Operation::Delete | Operation::Exists);
        assert!(keyed, "{} is not allowed in a BATCH", operation.name());
        let values = take_result(decoder)?;
        match reply_error(&values) {
            Some(error) => Ok(Response::Error(error)),
            None => decode_result(operation, &values),
        }
    });
    Ok(Response::Batch(results.collect::<Result<_, _>>()?))
}

/// What `values` say as the result of an operation that did not fail.
fn decode_result<'a>(operation: Operation, values: &Values<'a>) -> Result<Response<'a>, ProtocolError> {
    match (operation, values.count, values.first, values.second) {
        (Operation::Get, 0, ..) => Ok(Response::Value(None)),
        (Operation::Get, 2, Some((value, _)), Some(ValueRef::Int64(version))) => {
            Ok(Response::Value(Some(StoredValue { value, version: version as u64 })))
        }
        (Operation::Set, 1, Some((_, ValueRef::Int64(version))), None) => {
            Ok(Response::Set(SetOutcome::Stored { version: version as u64 }))
        }
        (Operation::Set, 1, Some((_, ValueRef::Null)), None) => {
            Ok(Response::Set(SetOutcome::NotStored { current: None }))
        }
        (Operation::Set, 2, Some((_, ValueRef::Null)), Some(ValueRef::Int64(version))) => {
            Ok(Response::Set(SetOutcome::NotStored { current: Some(version as u64) }))
        }
        (Operation::Delete, 1, Some((_, ValueRef::Boolean(existed))), None) => Ok(Response::Deleted(existed)),
        (Operation::Exists, 1, Some((_, ValueRef::Boolean(exists))), None) => Ok(Response::Exists(exists)),
        (Operation::Stats, 1, Some((_, ValueRef::String(json))), None) => Ok(Response::Stats(json)),
        (Operation::Hello, 1, Some((_, value)), None) => decode_hello_reply(value).map(Response::Hello),
        (Operation::Snapshot, 1, Some((_, value)), None) => decode_snapshot_reply(value).map(Response::Snapshot),
        _ => Err(unexpected(&format!("a result of {} values that {} does not have", values.count, operation.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{split_frame, Split};

    fn decode<'a>(frame: &'a [u8], batch: &[Operation]) -> Result<Response<'a>, ProtocolError> {
        match split_frame(frame, usize::MAX) {
            Ok(Split::Frame { frame, consumed }) => {
                assert_eq!(consumed, HEADER_BYTES + frame.body.len());
                decode_reply(&frame, batch)
            }
            other => panic!("no whole frame: {other:?}"),
        }
    }

    fn error_list() -> Vec<u8> {
        let mut list = Vec::new();
        put_error(&mut list, ErrorCode::Busy, "later");
        list
    }

    #[test]
    fn the_parts_around_a_value_and_the_value_are_the_usual_reply() {
        for length in [1, 200, 70_000] {
            let mut value = Vec::new();
            Encoder::new(&mut value).bytes(&vec![7; length]);
            let (head, tail) = value_reply_around(Operation::Get.code(), 9, value.len(), 77);
            let mut whole = Vec::new();
            put_reply(&mut whole, Operation::Get.code(), 9, |out| {
                put_value(out, Some(StoredValue { value: &value, version: 77 }));
            });
            assert_eq!([head, value, tail].concat(), whole);
        }
    }

    #[test]
    fn a_ping_whose_payload_is_an_error_value_comes_back_as_it_was() {
        let (mut frame, payload) = (Vec::new(), error_list());
        put_reply(&mut frame, Operation::Ping.code(), 1, |out| out.extend_from_slice(&payload));
        assert_eq!(decode(&frame, &[]), Ok(Response::Pong { payload: &payload }));
    }

    #[test]
    fn the_flag_decides_whether_a_reply_is_an_error() {
        for operation in Operation::ALL {
            let (mut flagged, mut plain) = (Vec::new(), Vec::new());
            put_error_reply(&mut flagged, operation.code(), 1, ErrorCode::Busy, "later");
            let expected = ReplyError { number: ErrorCode::Busy.number(), message: "later".to_owned() };
            assert_eq!(decode(&flagged, &[]), Ok(Response::Error(expected)), "{operation:?}");
            put_reply(&mut plain, operation.code(), 1, |out| out.extend_from_slice(&error_list()));
            assert!(!matches!(decode(&plain, &[]), Ok(Response::Error(_))), "{operation:?}");
        }
    }

    #[test]
    fn a_flagged_reply_that_carries_no_error_is_refused() {
        for operation in Operation::ALL {
            let mut frame = Vec::new();
            put_reply_with_flags(&mut frame, operation.code(), 1, REPLY_FLAG_ERROR, |out| put_boolean(out, true));
            let refused = decode(&frame, &[]).map_err(|error| error.code);
            assert_eq!(refused, Err(ErrorCode::MalformedFrame), "{operation:?}");
        }
    }

    #[test]
    fn in_a_batch_a_list_of_one_error_is_an_error() {
        let mut frame = Vec::new();
        put_reply(&mut frame, Operation::Batch.code(), 1, |out| {
            put_batch_head(out, 2);
            out.extend_from_slice(&error_list());
            put_boolean(out, true);
        });
        let error = ReplyError { number: ErrorCode::Busy.number(), message: "later".to_owned() };
        let results = vec![Response::Error(error), Response::Deleted(true)];
        assert_eq!(decode(&frame, &[Operation::Get, Operation::Delete]), Ok(Response::Batch(results)));
    }

    #[test]
    #[should_panic(expected = "PING is not allowed in a BATCH")]
    fn a_batch_of_other_operations_is_a_bug_of_the_caller() {
        let mut frame = Vec::new();
        put_reply(&mut frame, Operation::Batch.code(), 1, |out| {
            put_batch_head(out, 1);
            put_boolean(out, true);
        });
        let _ = decode(&frame, &[Operation::Ping]);
    }
}
