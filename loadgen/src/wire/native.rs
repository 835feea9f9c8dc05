//! Eyot's native protocol. The bytes themselves are the protocol crate's work.

use eyot_protocol::credentials::{Credentials, Password};
use eyot_protocol::limits::{FRAME_OVERHEAD_BYTES, MAX_VALUE_BYTES};
use eyot_protocol::native::reply::REPLY_FLAG_ERROR;
use eyot_protocol::native::{decode_reply, encode_request, split_frame, Split, HEADER_BYTES};
use eyot_protocol::request::{Expiry, Hello, Request, RequestOptions, Set};
use eyot_protocol::response::{HelloReply, SetOutcome};
use eyot_protocol::tlv::{Decoder, Encoder, ValueRef};
use eyot_protocol::{ErrorCode, Response};

use super::{Reply, WireError};

/// Where a frame's request id stands: the last four bytes of the header.
pub(super) const ID_AT: usize = HEADER_BYTES - 4;
/// Longest reply that is waited for: the longest value that any server stores.
const MAX_REPLY_BYTES: usize = MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES;

pub(super) fn get(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(&mut out, 0, &Request::Get { key }, &RequestOptions::default());
    out
}

pub(super) fn set(key: &[u8], value: &[u8], options: &RequestOptions, ttl_ms: Option<u64>) -> Vec<u8> {
    let (mut out, mut encoded) = (Vec::new(), Vec::new());
    Encoder::new(&mut encoded).bytes(value);
    let set = Set { expiry: ttl_ms.map_or(Expiry::Never, Expiry::AfterMs), ..Set::new(key, &encoded) };
    encode_request(&mut out, 0, &Request::Set(set), options);
    out
}

/// The request that asks for the shard map, and says the password.
pub fn hello(password: Option<&Password>) -> Vec<u8> {
    let mut out = Vec::new();
    let credentials = password.map(|password| Credentials { user: None, password: password.bytes() });
    let client = Some(concat!("eyot-loadgen/", env!("CARGO_PKG_VERSION")));
    encode_request(&mut out, 0, &Request::Hello(Hello { client, credentials }), &RequestOptions::default());
    out
}

/// The answer to [`hello`], once all of it is there.
///
/// # Errors
/// The server refused, or does not speak the protocol.
pub fn hello_reply(input: &[u8]) -> Result<Option<HelloReply>, WireError> {
    /// A shard map is some kilobytes; another protocol's bytes must not be taken for a length.
    const MAX_HELLO_BYTES: usize = 1 << 20;
    let Split::Frame { frame, .. } = split_frame(input, MAX_HELLO_BYTES).map_err(|error| broken(&error))? else {
        return Ok(None);
    };
    match decode_reply(&frame, &[]).map_err(|error| broken(&error))? {
        Response::Hello(reply) => Ok(Some(reply)),
        Response::Error(error) => Err(WireError(error.to_string())),
        other => Err(WireError(format!("{other:?} does not answer HELLO"))),
    }
}

/// The first reply of `input`: the bytes it takes, its id, what it says. `None`: it is not all there.
///
/// # Errors
/// What is there is no reply to GET or SET.
#[inline]
pub fn reply(input: &[u8]) -> Result<Option<(usize, u32, Reply<'_>)>, WireError> {
    let Split::Frame { frame, consumed } = split_frame(input, MAX_REPLY_BYTES).map_err(|error| broken(&error))? else {
        return Ok(None);
    };
    if frame.header.flags & REPLY_FLAG_ERROR != 0 {
        let (code, message) = error(frame.body)?;
        return Ok(Some((consumed, frame.header.request_id, Reply::Error { code, message })));
    }
    let reply = match decode_reply(&frame, &[]).map_err(|error| broken(&error))? {
        Response::Value(Some(found)) => Reply::Value(found.value),
        Response::Value(None) => Reply::Missing,
        Response::Set(SetOutcome::Stored { .. }) => Reply::Stored,
        other => return Err(WireError(format!("{other:?} answers neither GET nor SET"))),
    };
    Ok(Some((consumed, frame.header.request_id, reply)))
}

/// The payload of an encoded value, where it is of the type that the load generator writes.
pub fn payload(value: &[u8]) -> Option<&[u8]> {
    match Decoder::new(value).value() {
        Ok(ValueRef::Bytes(payload)) => Some(payload),
        _ => None,
    }
}

#[cold]
fn error(body: &[u8]) -> Result<(&str, &str), WireError> {
    let mut decoder = Decoder::new(body);
    match decoder.list().and_then(|_| decoder.value()) {
        Ok(ValueRef::Error(error)) => {
            let name = ErrorCode::from_number(error.code).map_or("UNKNOWN_CODE", ErrorCode::name);
            Ok((name, error.message))
        }
        _ => Err(WireError("an error reply without an error".to_owned())),
    }
}

#[cold]
fn broken(error: &eyot_protocol::error::ProtocolError) -> WireError {
    WireError(error.to_string())
}

#[cfg(test)]
mod tests {
    use eyot_protocol::native::reply::{put_error_reply, put_reply, put_set, put_value};
    use eyot_protocol::request::Operation;
    use eyot_protocol::response::StoredValue;

    use super::*;

    #[test]
    fn replies_of_all_kinds_are_read_wherever_the_stream_is_cut() {
        let mut value = Vec::new();
        Encoder::new(&mut value).bytes(b"payload");
        let mut stream = Vec::new();
        let found = StoredValue { value: &value, version: 9 };
        put_reply(&mut stream, Operation::Get.code(), 3, |out| put_value(out, Some(found)));
        put_reply(&mut stream, Operation::Get.code(), 4, |out| put_value(out, None));
        put_reply(&mut stream, Operation::Set.code(), 5, |out| put_set(out, SetOutcome::Stored { version: 1 }));
        put_error_reply(&mut stream, Operation::Set.code(), 6, ErrorCode::Busy, "later");
        let expected = [
            (3, Reply::Value(&value)),
            (4, Reply::Missing),
            (5, Reply::Stored),
            (6, Reply::Error { code: "BUSY", message: "later" }),
        ];
        let mut at = 0;
        for (id, says) in expected {
            let (consumed, got_id, got) = reply(&stream[at..]).unwrap().unwrap();
            assert_eq!((got_id, got), (id, says));
            for cut in at..at + consumed {
                assert_eq!(reply(&stream[at..cut]).unwrap(), None);
            }
            at += consumed;
        }
        assert_eq!(at, stream.len());
        assert_eq!(payload(&value), Some(&b"payload"[..]));
    }

    #[test]
    fn another_protocols_bytes_are_an_error() {
        assert!(reply(b"-ERR unknown command\r\n").is_err());
        assert!(hello_reply(b"HTTP/1.1 400 Bad Request\r\n").is_err());
    }
}
