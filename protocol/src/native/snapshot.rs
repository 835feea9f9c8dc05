//! SNAPSHOT: snapshots of all shards are asked for, looked at, and read.
//!
//! Place in the flow: what a client that saves the whole database to a file goes by; an administrator's operation, a
//! few requests each megabyte. All numbers are int64.
//!
//! ```text
//! ["CREATE"]                                    -> [map { "request" }]        begun, or joined to those under way
//! ["STATUS", request]                           -> [map { "done", ... }]      0: what there is, no request meant
//! ["READ", shard, index, offset, length]        -> [bytes]                    at most length; none: the end
//! ```
//!
//! Invariant: which of the three a result answers shows in its bytes. A client that gets another than it asked for
//! gives the connection up.

use super::codec::{expect_count, wrong_count};
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::MAX_SNAPSHOT_READ_BYTES;
use crate::request::{Request, SnapshotRead, SnapshotRequest};
use crate::response::{ShardSnapshot, SnapshotReply, SnapshotStatus};
use crate::tlv::{Decoder, Encoder, ListRef, MapRef, ValueRef};

const CREATE: &str = "CREATE";
const STATUS: &str = "STATUS";
const READ: &str = "READ";
/// Numbers of a shard in a status.
const SHARD_FIELDS: usize = 5;

pub(crate) fn decode_snapshot<'a>(count: usize, decoder: &mut Decoder<'a>) -> Result<Request<'a>, ProtocolError> {
    let usage = "SNAPSHOT takes \"CREATE\", or \"STATUS\" and a request's number, or \"READ\", shard, index, offset \
                 and length";
    if count == 0 {
        return Err(wrong_count(count, usage));
    }
    let word = decoder.value()?;
    let mut number = |what: &str, max: u64| match decoder.value()? {
        ValueRef::Int64(number) if (0..=max).contains(&(number as u64)) => Ok(number as u64),
        other => Err(invalid(format!("SNAPSHOT: {what} is an int64 of 0 to {max}; got {other:?}"))),
    };
    let request = match word {
        ValueRef::String(CREATE) => {
            expect_count(count, 1, "SNAPSHOT \"CREATE\" takes nothing else")?;
            SnapshotRequest::Create
        }
        ValueRef::String(STATUS) => {
            expect_count(count, 2, "SNAPSHOT \"STATUS\" takes a request's number, or 0")?;
            SnapshotRequest::Status { request: number("the request", i64::MAX as u64)? }
        }
        ValueRef::String(READ) => {
            expect_count(count, 5, "SNAPSHOT \"READ\" takes shard, index, offset and length")?;
            SnapshotRequest::Read(SnapshotRead {
                shard: number("the shard", u64::from(u16::MAX))? as u16,
                index: number("the index", i64::MAX as u64)?,
                offset: number("the offset", i64::MAX as u64)?,
                length: number("the length", MAX_SNAPSHOT_READ_BYTES as u64)? as u32,
            })
        }
        other => return Err(invalid(format!("{usage}; got {other:?}"))),
    };
    Ok(Request::Snapshot(request))
}

#[cold]
fn invalid(message: String) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidArgument, message)
}

pub(crate) fn encode_snapshot(out: &mut Vec<u8>, request: &SnapshotRequest) {
    let mut put = |word: &str, numbers: &[u64]| {
        let mut encoder = Encoder::new(out);
        encoder.list(1 + numbers.len());
        encoder.string(word);
        for number in numbers {
            encoder.int64(saturated(*number));
        }
    };
    match *request {
        SnapshotRequest::Create => put(CREATE, &[]),
        SnapshotRequest::Status { request } => put(STATUS, &[request]),
        SnapshotRequest::Read(SnapshotRead { shard, index, offset, length }) => {
            put(READ, &[u64::from(shard), index, offset, u64::from(length)]);
        }
    }
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Appends the list that answers a SNAPSHOT.
pub(crate) fn encode_snapshot_reply(out: &mut Vec<u8>, reply: &SnapshotReply<'_>) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    match reply {
        SnapshotReply::Created { request } => {
            encoder.map(1);
            encoder.string("request");
            encoder.int64(saturated(*request));
        }
        SnapshotReply::Status(status) => encode_status(&mut encoder, status),
        SnapshotReply::Bytes(bytes) => encoder.bytes(bytes),
    }
}

fn encode_status(encoder: &mut Encoder<'_>, status: &SnapshotStatus) {
    encoder.map(9);
    encoder.string("done");
    encoder.boolean(status.is_done);
    encoder.string("failure");
    match &status.failure {
        None => encoder.null(),
        Some(failure) => encoder.string(failure),
    }
    encoder.string("in_progress");
    encoder.boolean(status.is_in_progress);
    for (name, number) in
        [("entries_done", status.entries_done), ("bytes_done", status.bytes_done), ("keys", status.keys)]
    {
        encoder.string(name);
        encoder.int64(saturated(number));
    }
    encoder.string("shards");
    encoder.list(status.shards.len());
    for ShardSnapshot { shard, core, index, bytes, entries } in &status.shards {
        encoder.list(SHARD_FIELDS);
        for number in [u64::from(*shard), u64::from(*core), *index, *bytes, *entries] {
            encoder.int64(saturated(number));
        }
    }
    encoder.string("shard_count");
    encoder.int64(i64::from(status.shard_count));
    encoder.string("node_uuid");
    encoder.bytes(&status.node_uuid.to_be_bytes());
}

pub(crate) fn decode_snapshot_reply(value: ValueRef<'_>) -> Result<SnapshotReply<'_>, ProtocolError> {
    match value {
        ValueRef::Bytes(bytes) => Ok(SnapshotReply::Bytes(bytes)),
        ValueRef::Map(map) if map.get("request").is_some() => {
            Ok(SnapshotReply::Created { request: number(&map, "request")? })
        }
        ValueRef::Map(map) => decode_status(&map).map(SnapshotReply::Status),
        _ => Err(bad("the result", "bytes or a map")),
    }
}

fn decode_status(map: &MapRef<'_>) -> Result<SnapshotStatus, ProtocolError> {
    let shard_count = small(number(map, "shard_count")?, "shard_count")?;
    let Some(ValueRef::List(list)) = map.get("shards") else { return Err(bad("shards", "a list")) };
    let shards = list.iter().map(decode_shard).collect::<Result<Vec<_>, _>>()?;
    let is_ascending = shards.windows(2).all(|pair| pair[0].shard < pair[1].shard);
    if !is_ascending || shards.last().is_some_and(|last| last.shard >= shard_count) {
        return Err(bad("shards", "in ascending order and below shard_count"));
    }
    let node_uuid = match map.get("node_uuid") {
        Some(ValueRef::Bytes(bytes)) => bytes.try_into().ok().map(u128::from_be_bytes),
        _ => None,
    };
    Ok(SnapshotStatus {
        is_done: truth(map, "done")?,
        failure: match map.get("failure") {
            None | Some(ValueRef::Null) => None,
            Some(ValueRef::String(failure)) => Some(failure.to_owned()),
            Some(_) => return Err(bad("failure", "null or a string")),
        },
        is_in_progress: truth(map, "in_progress")?,
        entries_done: number(map, "entries_done")?,
        bytes_done: number(map, "bytes_done")?,
        keys: number(map, "keys")?,
        shards,
        shard_count,
        node_uuid: node_uuid.ok_or_else(|| bad("node_uuid", "16 bytes"))?,
    })
}

fn decode_shard(value: ValueRef<'_>) -> Result<ShardSnapshot, ProtocolError> {
    let wanted = || bad("a shard", "a list of shard, core, index, bytes and entries");
    let ValueRef::List(list) = value else { return Err(wanted()) };
    let [shard, core, index, bytes, entries] = numbers(&list).ok_or_else(wanted)?;
    Ok(ShardSnapshot { shard: small(shard, "a shard")?, core: small(core, "a core")?, index, bytes, entries })
}

/// The numbers of a list that has nothing else.
fn numbers(list: &ListRef<'_>) -> Option<[u64; SHARD_FIELDS]> {
    let mut numbers = [0; SHARD_FIELDS];
    if list.len() != SHARD_FIELDS {
        return None;
    }
    for (number, value) in numbers.iter_mut().zip(list) {
        *number = match value {
            ValueRef::Int64(found) => u64::try_from(found).ok()?,
            _ => return None,
        };
    }
    Some(numbers)
}

fn bad(what: &str, expected: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidValue, format!("SNAPSHOT reply: {what} must be {expected}"))
}

fn small(number: u64, what: &str) -> Result<u16, ProtocolError> {
    u16::try_from(number).map_err(|_| bad(what, "a number of 0 to 65535"))
}

fn number(map: &MapRef<'_>, name: &str) -> Result<u64, ProtocolError> {
    match map.get(name) {
        Some(ValueRef::Int64(number)) if number >= 0 => Ok(number as u64),
        _ => Err(bad(name, "a whole number")),
    }
}

fn truth(map: &MapRef<'_>, name: &str) -> Result<bool, ProtocolError> {
    match map.get(name) {
        Some(ValueRef::Boolean(truth)) => Ok(truth),
        _ => Err(bad(name, "a boolean")),
    }
}
