//! HELLO: what client and server tell each other first.
//!
//! Place in the flow: the first request of a connection that wants the shard map; not demanded. Both sides send a map
//! and ignore entries that they do not know, so that either can learn more later.

use super::codec::expect_count;
use crate::credentials::Credentials;
use crate::error::{ErrorCode, ProtocolError};
use crate::request::{Hello, Request};
use crate::response::HelloReply;
use crate::tlv::{Decoder, Encoder, MapRef, ValueRef};

pub(crate) fn decode_hello<'a>(count: usize, decoder: &mut Decoder<'a>) -> Result<Request<'a>, ProtocolError> {
    expect_count(count, 1, "HELLO takes one map")?;
    let ValueRef::Map(map) = decoder.value()? else {
        return Err(ProtocolError::new(ErrorCode::InvalidArgument, "HELLO takes one map"));
    };
    if map.get("token").is_some() {
        let message = "HELLO: this server takes no \"token\"; send a \"password\"";
        return Err(ProtocolError::new(ErrorCode::UnsupportedFeature, message));
    }
    let client = match map.get("client") {
        None => None,
        Some(ValueRef::String(client)) => Some(client),
        Some(_) => return Err(ProtocolError::new(ErrorCode::InvalidArgument, "HELLO: \"client\" is a string")),
    };
    let credentials = match (bytes(&map, "user")?, bytes(&map, "password")?) {
        (None, None) => None,
        (user, Some(password)) => Some(Credentials { user, password }),
        (Some(_), None) => {
            return Err(ProtocolError::new(ErrorCode::InvalidArgument, "HELLO: a \"user\" has a \"password\""))
        }
    };
    Ok(Request::Hello(Hello { client, credentials }))
}

/// The bytes of an entry that is a string or bytes. What is in it is not repeated in an error.
fn bytes<'a>(map: &MapRef<'a>, name: &str) -> Result<Option<&'a [u8]>, ProtocolError> {
    match map.get(name) {
        None => Ok(None),
        Some(ValueRef::String(text)) => Ok(Some(text.as_bytes())),
        Some(ValueRef::Bytes(bytes)) => Ok(Some(bytes)),
        Some(_) => {
            let message = format!("HELLO: \"{name}\" is a string or bytes");
            Err(ProtocolError::new(ErrorCode::InvalidArgument, message))
        }
    }
}

pub(crate) fn encode_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    let user = hello.credentials.and_then(|credentials| credentials.user);
    let password = hello.credentials.map(|credentials| credentials.password);
    let entries = [hello.client.is_some(), user.is_some(), password.is_some()];
    encoder.map(entries.into_iter().map(usize::from).sum());
    if let Some(client) = hello.client {
        encoder.string("client");
        encoder.string(client);
    }
    for (name, bytes) in [("user", user), ("password", password)] {
        if let Some(bytes) = bytes {
            encoder.string(name);
            encoder.bytes(bytes);
        }
    }
}

/// Appends the list that answers HELLO.
pub(crate) fn encode_hello_reply(out: &mut Vec<u8>, reply: &HelloReply) {
    let mut encoder = Encoder::new(out);
    encoder.list(1);
    encoder.map(10);
    encoder.string("protocol");
    encoder.int32(i32::from(reply.protocol));
    encoder.string("server");
    encoder.string(&reply.server);
    encoder.string("node_id");
    encoder.string(&reply.node_id);
    encoder.string("core");
    encoder.int32(i32::from(reply.core));
    encoder.string("shard_cores");
    encoder.list(reply.shard_cores.len());
    for core in &reply.shard_cores {
        encoder.int32(i32::from(*core));
    }
    encoder.string("core_addresses");
    encoder.list(reply.core_addresses.len());
    for address in &reply.core_addresses {
        encoder.string(address);
    }
    for (name, bytes) in [
        ("max_frame_bytes", reply.max_frame_bytes),
        ("max_key_bytes", reply.max_key_bytes),
        ("max_value_bytes", reply.max_value_bytes),
    ] {
        encoder.string(name);
        encoder.int64(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    encoder.string("features");
    encoder.list(reply.features.len());
    for feature in &reply.features {
        encoder.string(feature);
    }
}

pub(crate) fn decode_hello_reply(value: ValueRef<'_>) -> Result<HelloReply, ProtocolError> {
    let ValueRef::Map(map) = value else { return Err(bad("the reply", "a map")) };
    let reply = HelloReply {
        protocol: u8::try_from(int(&map, "protocol")?).map_err(|_| bad("protocol", "an int32 below 256"))?,
        server: text(&map, "server")?,
        node_id: text(&map, "node_id")?,
        core: core_number(int(&map, "core")?)?,
        shard_cores: elements(&map, "shard_cores", |value| match value {
            ValueRef::Int32(core) => core_number(i64::from(core)),
            _ => Err(bad("shard_cores", "a list of int32")),
        })?,
        core_addresses: elements(&map, "core_addresses", owned_text)?,
        max_frame_bytes: int(&map, "max_frame_bytes")? as u64,
        max_key_bytes: int(&map, "max_key_bytes")? as u64,
        max_value_bytes: int(&map, "max_value_bytes")? as u64,
        features: elements(&map, "features", owned_text)?,
    };
    if let Some(core) = reply.shard_cores.iter().find(|core| usize::from(**core) >= reply.core_addresses.len()) {
        return Err(bad(&format!("shard_cores: core {core}"), "a core with an address"));
    }
    Ok(reply)
}

fn bad(what: &str, expected: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidValue, format!("HELLO reply: {what} must be {expected}"))
}

fn int(map: &MapRef<'_>, name: &str) -> Result<i64, ProtocolError> {
    match map.get(name) {
        Some(ValueRef::Int32(number)) if number >= 0 => Ok(i64::from(number)),
        Some(ValueRef::Int64(number)) if number >= 0 => Ok(number),
        _ => Err(bad(name, "a whole number")),
    }
}

fn text(map: &MapRef<'_>, name: &str) -> Result<String, ProtocolError> {
    map.get(name).map_or_else(|| Err(bad(name, "a string")), owned_text)
}

fn owned_text(value: ValueRef<'_>) -> Result<String, ProtocolError> {
    match value {
        ValueRef::String(text) => Ok(text.to_owned()),
        _ => Err(bad("an element", "a string")),
    }
}

fn core_number(number: i64) -> Result<u16, ProtocolError> {
    u16::try_from(number).map_err(|_| bad("a core number", "0 to 65535"))
}

fn elements<T>(
    map: &MapRef<'_>,
    name: &str,
    each: impl FnMut(ValueRef<'_>) -> Result<T, ProtocolError>,
) -> Result<Vec<T>, ProtocolError> {
    match map.get(name) {
        Some(ValueRef::List(list)) => list.iter().map(each).collect(),
        _ => Err(bad(name, "a list")),
    }
}
