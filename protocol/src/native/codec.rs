//! Requests to and from the payloads of frames.
//!
//! Place in the flow: the second half of step 2 (decode) in the server; sending in a client.
//!
//! Every payload is one TLV DataInput (list). A `key` is a string (0x01) or bytes (0x07); the two are the same key.
//!
//! ```text
//! HELLO  [map { "client": string, "user": bytes, "password": bytes, ... }]     unknown entries are ignored
//! PING   [anything ...]                      comes back as it was
//! GET    [key]
//! SET    [key, value]  or  [key, value, expiry, condition]
//!        expiry     null | int64 milliseconds from now | timestamp
//!        condition  null | int32 1 only if absent | int32 2 only if present | int64 only if it has this version
//! DELETE [key]
//! EXISTS [key]
//! BATCH  [[int32 op, ...the operation's own payload...], ...]
//! STATS  []
//! SNAPSHOT [string, number ...]              see `snapshot`
//! ```

use super::batch::{encode_batch_payload, Batch};
use super::frame::{self, Frame, FrameHeader, PROTOCOL_VERSION};
use super::hello::{decode_hello, encode_hello};
use super::snapshot::{decode_snapshot, encode_snapshot};
use crate::command::Condition;
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::{MAX_KEY_BYTES, MAX_PING_BYTES};
use crate::request::{Expiry, Operation, Request, RequestOptions, Set};
use crate::tlv::{text_place, Decoder, Encoder, ValueRef, TYPE_BYTES};

const CONDITION_IF_ABSENT: i32 = 1;
const CONDITION_IF_PRESENT: i32 = 2;

/// Decodes the request of a frame. Nothing is copied. `max_value_bytes` bounds an encoded value.
///
/// # Errors
/// What was wrong, as the reply will say it. The stream itself is still sound: only this request fails.
#[inline]
pub fn decode_request<'a>(
    frame: &Frame<'a>,
    max_value_bytes: usize,
) -> Result<(Request<'a>, RequestOptions), ProtocolError> {
    if frame.header.version != PROTOCOL_VERSION {
        return Err(unsupported_version(frame.header.version));
    }
    let operation = Operation::from_code(frame.header.op).ok_or_else(|| unknown_operation(frame.header.op))?;
    let (options, payload) = frame::take_options(frame)?;
    let mut decoder = Decoder::new(payload);
    let count = decoder.list()?;
    let request = match operation {
        Operation::Hello => decode_hello(count, &mut decoder)?,
        Operation::Ping => decode_ping(payload)?,
        Operation::Stats => {
            expect_count(count, 0, "STATS takes no arguments")?;
            Request::Stats
        }
        Operation::Snapshot => decode_snapshot(count, &mut decoder)?,
        Operation::Batch => return Ok((Request::Batch(Batch::decode(payload, max_value_bytes)?), options)),
        _ => decode_keyed(operation, count, &mut decoder, max_value_bytes)?,
    };
    if !matches!(request, Request::Ping { .. }) {
        decoder.finish()?;
    }
    Ok((request, options))
}

/// Decodes the arguments of an operation on one key, `count` values of a list that was entered.
#[inline]
pub(crate) fn decode_keyed<'a>(
    operation: Operation,
    count: usize,
    decoder: &mut Decoder<'a>,
    max_value_bytes: usize,
) -> Result<Request<'a>, ProtocolError> {
    match operation {
        Operation::Get => {
            expect_count(count, 1, "GET takes one key")?;
            Ok(Request::Get { key: decode_key(decoder)? })
        }
        Operation::Delete => {
            expect_count(count, 1, "DELETE takes one key")?;
            Ok(Request::Delete { key: decode_key(decoder)? })
        }
        Operation::Exists => {
            expect_count(count, 1, "EXISTS takes one key")?;
            Ok(Request::Exists { key: decode_key(decoder)? })
        }
        Operation::Set => decode_set(count, decoder, max_value_bytes),
        _ => Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            format!("{} is not allowed in a BATCH; it takes GET, SET, DELETE and EXISTS", operation.name()),
        )),
    }
}

#[inline]
fn decode_set<'a>(
    count: usize,
    decoder: &mut Decoder<'a>,
    max_value_bytes: usize,
) -> Result<Request<'a>, ProtocolError> {
    if count != 2 && count != 4 {
        return Err(wrong_count(count, "SET takes key and value, or key, value, expiry and condition"));
    }
    let key = decode_key(decoder)?;
    let value = decoder.raw_value()?;
    if value.len() > max_value_bytes {
        return Err(value_too_large(value.len(), max_value_bytes));
    }
    let mut set = Set::new(key, value);
    if count == 4 {
        set.expiry = decode_expiry(decoder.value()?)?;
        set.condition = decode_condition(decoder.value()?)?;
    }
    Ok(Request::Set(set))
}

/// A SET of which everything up to its value has arrived, and whose value is bytes: so that they can be received into a
/// place of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeSet<'a> {
    /// The frame's header.
    pub header: FrameHeader,
    /// The key.
    pub key: &'a [u8],
    /// Where the encoded value begins in the frame, with the length field.
    pub value_start: usize,
    /// How long the encoded value is.
    pub value_bytes: usize,
    /// What follows it in the frame: expiry and condition.
    pub tail_bytes: usize,
}

/// Looks at the beginning of a frame for a [`LargeSet`] whose value has at least `value_bytes_min`. `None`: it is
/// something else, or not enough of it has arrived, or it is to be refused, which [`decode_request`] does when all of
/// it is there.
pub fn large_set(input: &[u8], value_bytes_min: usize, value_bytes_max: usize) -> Option<LargeSet<'_>> {
    /// More than an expiry and a condition can take.
    const TAIL_BYTES_MAX: usize = 64;
    let (head, body) = input.split_first_chunk::<{ frame::HEADER_BYTES }>()?;
    let frame_bytes = frame::LENGTH_BYTES + u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let flags = u16::from_le_bytes([head[6], head[7]]);
    let request_id = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let header = FrameHeader { version: head[4], op: head[5], flags, request_id };
    if header.version != PROTOCOL_VERSION || header.op != Operation::Set.code() {
        return None;
    }
    let (_, payload) = frame::take_options(&Frame { header, body }).ok()?;
    let mut decoder = Decoder::new(payload);
    let count = decoder.list().ok()?;
    let key = decode_key(&mut decoder).ok()?;
    let value = decoder.remaining();
    if !matches!(count, 2 | 4) || value.first() != Some(&TYPE_BYTES) {
        return None;
    }
    let value_bytes = text_place(value)?.end;
    let value_start = input.len() - value.len();
    let tail_bytes = frame_bytes.checked_sub(value_start.checked_add(value_bytes)?)?;
    let fits = (value_bytes_min..=value_bytes_max).contains(&value_bytes);
    let tail_fits = if count == 2 { tail_bytes == 0 } else { (1..=TAIL_BYTES_MAX).contains(&tail_bytes) };
    (fits && tail_fits).then_some(LargeSet { header, key, value_start, value_bytes, tail_bytes })
}

/// The frame of a [`LargeSet`] without its value: `head` is what stood before it, `tail` what stood behind it. It
/// decodes as the same SET of no bytes.
pub fn without_value(head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut frame = head.to_vec();
    Encoder::new(&mut frame).bytes(&[]);
    frame.extend_from_slice(tail);
    frame::finish(&mut frame, 0);
    frame
}

fn decode_expiry(value: ValueRef<'_>) -> Result<Expiry, ProtocolError> {
    match value {
        ValueRef::Null => Ok(Expiry::Never),
        ValueRef::Int64(ms) if ms > 0 => Ok(Expiry::AfterMs(ms as u64)),
        ValueRef::Timestamp(at_us) if at_us > 0 => Ok(Expiry::AtUs(at_us)),
        other => Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            format!("expiry of SET: null, an int64 of milliseconds above 0, or a timestamp above 0; got {other:?}"),
        )),
    }
}

fn decode_condition(value: ValueRef<'_>) -> Result<Condition, ProtocolError> {
    match value {
        ValueRef::Null => Ok(Condition::Always),
        ValueRef::Int32(CONDITION_IF_ABSENT) => Ok(Condition::IfAbsent),
        ValueRef::Int32(CONDITION_IF_PRESENT) => Ok(Condition::IfPresent),
        ValueRef::Int64(version) if version >= 0 => Ok(Condition::IfVersion(version as u64)),
        other => Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            format!(
                "condition of SET: null, int32 1 (if absent), int32 2 (if present) or an int64 version; got {other:?}"
            ),
        )),
    }
}

#[inline]
fn decode_key<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], ProtocolError> {
    let key = decoder.key()?;
    if key.len() > MAX_KEY_BYTES {
        return Err(key_too_large(key.len()));
    }
    Ok(key)
}

fn decode_ping(payload: &[u8]) -> Result<Request<'_>, ProtocolError> {
    if payload.len() > MAX_PING_BYTES {
        return Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            format!("PING payload of {} bytes; at most {MAX_PING_BYTES}", payload.len()),
        ));
    }
    let mut decoder = Decoder::new(payload);
    decoder.raw_value()?;
    decoder.finish()?;
    Ok(Request::Ping { payload })
}

#[inline]
pub(crate) fn expect_count(count: usize, expected: usize, rule: &str) -> Result<(), ProtocolError> {
    if count == expected {
        Ok(())
    } else {
        Err(wrong_count(count, rule))
    }
}

#[cold]
pub(crate) fn wrong_count(count: usize, rule: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidArgument, format!("{rule}; got {count} values"))
}

#[cold]
fn key_too_large(bytes: usize) -> ProtocolError {
    ProtocolError::new(ErrorCode::KeyTooLarge, format!("key of {bytes} bytes; at most {MAX_KEY_BYTES}"))
}

#[cold]
fn value_too_large(bytes: usize, limit: usize) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::ValueTooLarge,
        format!("value of {bytes} encoded bytes; this server's limit is {limit} (--max-value-size)"),
    )
}

#[cold]
fn unsupported_version(version: u8) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::UnsupportedVersion,
        format!("protocol version {version}; this server speaks {PROTOCOL_VERSION}"),
    )
}

#[cold]
fn unknown_operation(code: u8) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::UnknownOperation,
        format!("operation {code:#04x}; this server knows 0x01 to {:#04x}", Operation::ALL.len()),
    )
}

/// Appends the frame of `request` to `out`.
#[inline]
pub fn encode_request(out: &mut Vec<u8>, request_id: u32, request: &Request<'_>, options: &RequestOptions) {
    let header = FrameHeader {
        version: PROTOCOL_VERSION,
        op: request.operation().code(),
        flags: frame::option_flags(options),
        request_id,
    };
    let start = frame::begin(out, header);
    frame::put_option_fields(out, options);
    match request {
        Request::Hello(hello) => encode_hello(out, hello),
        Request::Ping { payload } => out.extend_from_slice(payload),
        Request::Batch(batch) => out.extend_from_slice(batch.payload()),
        Request::Stats => Encoder::new(out).list(0),
        Request::Snapshot(request) => encode_snapshot(out, request),
        Request::Get { .. } | Request::Set(_) | Request::Delete { .. } | Request::Exists { .. } => {
            Encoder::new(out).list(argument_count(request));
            encode_arguments(out, request);
        }
    }
    frame::finish(out, start);
}

/// Appends a BATCH frame of `requests`, each of which must be a GET, SET, DELETE or EXISTS.
///
/// # Errors
/// `BATCH_TOO_LARGE` or `INVALID_ARGUMENT`, before anything is appended.
pub fn encode_batch(
    out: &mut Vec<u8>,
    request_id: u32,
    requests: &[Request<'_>],
    options: &RequestOptions,
) -> Result<(), ProtocolError> {
    let mut payload = Vec::new();
    encode_batch_payload(&mut payload, requests)?;
    let header = FrameHeader {
        version: PROTOCOL_VERSION,
        op: Operation::Batch.code(),
        flags: frame::option_flags(options),
        request_id,
    };
    let start = frame::begin(out, header);
    frame::put_option_fields(out, options);
    out.extend_from_slice(&payload);
    frame::finish(out, start);
    Ok(())
}

pub(crate) fn argument_count(request: &Request<'_>) -> usize {
    match request {
        Request::Set(set) if set.expiry == Expiry::Never && set.condition == Condition::Always => 2,
        Request::Set(_) => 4,
        _ => 1,
    }
}

/// Appends the arguments of an operation on one key.
#[inline]
pub(crate) fn encode_arguments(out: &mut Vec<u8>, request: &Request<'_>) {
    let mut encoder = Encoder::new(out);
    match request {
        Request::Get { key } | Request::Delete { key } | Request::Exists { key } => encoder.bytes(key),
        Request::Set(set) => {
            encoder.bytes(set.key);
            encoder.raw(set.value);
            if argument_count(request) == 4 {
                match set.expiry {
                    Expiry::Never => encoder.null(),
                    Expiry::AfterMs(ms) => encoder.int64(i64::try_from(ms).unwrap_or(i64::MAX)),
                    Expiry::AtUs(at_us) => encoder.timestamp(at_us),
                }
                match set.condition {
                    Condition::Always => encoder.null(),
                    Condition::IfAbsent => encoder.int32(CONDITION_IF_ABSENT),
                    Condition::IfPresent => encoder.int32(CONDITION_IF_PRESENT),
                    Condition::IfVersion(version) => encoder.int64(version as i64),
                }
            }
        }
        Request::Hello(_) | Request::Ping { .. } | Request::Batch(_) | Request::Stats | Request::Snapshot(_) => {
            unreachable!("not an operation on one key")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{split_frame, Split};

    #[test]
    fn a_large_set_is_seen_as_soon_as_its_value_begins_and_decodes_without_it() {
        let mut value = Vec::new();
        Encoder::new(&mut value).bytes(&[7; 5000]);
        let options = RequestOptions { deadline_ms: Some(9), ..RequestOptions::default() };
        for (expiry, condition) in [
            (Expiry::Never, Condition::Always),
            (Expiry::AfterMs(5), Condition::IfAbsent),
            (Expiry::AtUs(1 << 50), Condition::IfVersion(1 << 60)),
        ] {
            let set = Set { key: b"key", value: &value, expiry, condition };
            let mut frame = Vec::new();
            encode_request(&mut frame, 77, &Request::Set(set), &options);
            let whole = large_set(&frame, 4096, 1 << 20).expect("a large SET");
            assert_eq!((whole.key, whole.header.request_id, whole.value_bytes), (&b"key"[..], 77, value.len()));
            let tail_start = whole.value_start + whole.value_bytes;
            assert_eq!(&frame[whole.value_start..tail_start], &value[..]);
            assert_eq!(frame.len(), tail_start + whole.tail_bytes);
            // Type and length of the value take three bytes.
            for cut in 0..whole.value_start + 3 {
                assert_eq!(large_set(&frame[..cut], 4096, 1 << 20), None, "cut at {cut}");
            }
            for cut in whole.value_start + 3..frame.len() {
                assert_eq!(large_set(&frame[..cut], 4096, 1 << 20), Some(whole), "cut at {cut}");
            }
            assert_eq!(large_set(&frame, 5004, 1 << 20), None, "too small");
            assert_eq!(large_set(&frame, 10, 5000), None, "too large");
            let small = without_value(&frame[..whole.value_start], &frame[tail_start..]);
            let Ok(Split::Frame { frame: small, .. }) = split_frame(&small, 1 << 20) else { panic!("no frame") };
            let (Request::Set(decoded), decoded_options) = decode_request(&small, 10).unwrap() else {
                panic!("no SET")
            };
            assert_eq!((decoded, decoded_options), (Set { value: &[TYPE_BYTES, 0], ..set }, options));
        }
    }

    #[test]
    fn what_is_no_large_set_of_bytes_is_left_to_the_decoder() {
        let frame = |request: &Request<'_>| {
            let mut frame = Vec::new();
            encode_request(&mut frame, 1, request, &RequestOptions::default());
            frame
        };
        let mut text = Vec::new();
        Encoder::new(&mut text).string(&"x".repeat(5000));
        assert_eq!(large_set(&frame(&Request::Set(Set::new(b"k", &text))), 4096, 1 << 20), None);
        assert_eq!(large_set(&frame(&Request::Get { key: &[1; 5000] }), 4096, 1 << 20), None);
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes).bytes(&[1; 5000]);
        let mut set = frame(&Request::Set(Set::new(b"k", &bytes)));
        assert!(large_set(&set, 4096, 1 << 20).is_some());
        set.push(0);
        set[0] += 1;
        assert_eq!(large_set(&set, 4096, 1 << 20), None, "something stands behind the value");
        set[0] -= 2;
        assert_eq!(large_set(&set, 4096, 1 << 20), None, "the value is longer than its frame");
        set[4] = 9;
        assert_eq!(large_set(&set, 4096, 1 << 20), None, "another version");
    }
}
