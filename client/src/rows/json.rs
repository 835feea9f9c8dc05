//! A value as JSON from which the same value can be read, and a key.
//!
//! Place in the flow: inside a row of JSON lines; in CSV for what one cell cannot say.
//!
//! ```text
//! null, boolean     as in JSON
//! string            "..."
//! int64             a whole number: 5
//! float64           a number with a point or an exponent: 5.0; where it is none: {"$float64_bits":"7ff8000000000000"}
//! list              [...]
//! map               {"name":...}, if its keys are strings, each once, none of which begins with $;
//!                   else {"$map":[[key,value],...]}
//! int32             {"$int32":5}
//! timestamp         {"$timestamp_us":5}, microseconds since 1970
//! bytes             {"$bytes_text":"..."}, if they are UTF-8; else {"$bytes_base64":"..."}
//! error             {"$error":{"code":1,"message":"..."}}
//! ```
//!
//! Entries of maps keep their order.

use std::collections::HashSet;
use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::json;

use crate::Value;

/// `bytes` in base64, with `=` at the end.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of base64.
///
/// # Errors
/// Why it is none.
pub fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))
}

/// A key as the field `key`, or as `key_base64` where it is no text.
pub fn key_fields(key: &[u8]) -> serde_json::Map<String, serde_json::Value> {
    let (name, text) = match std::str::from_utf8(key) {
        Ok(text) => ("key", text.to_owned()),
        Err(_) => ("key_base64", base64(key)),
    };
    [(name.to_owned(), json!(text))].into_iter().collect()
}

/// Appends `text` as a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes everything, and text is text");
}

/// Appends `value` as JSON. Recursion is bounded: no value is nested deeper than the protocol allows.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::String(text) => put_string(out, text),
        Value::Int64(number) => put(out, &json!(number)),
        Value::Int32(number) => put(out, &json!({ "$int32": number })),
        Value::Timestamp(at_us) => put(out, &json!({ "$timestamp_us": at_us })),
        Value::Error { code, message } => put(out, &json!({ "$error": { "code": code, "message": message } })),
        Value::Float64(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => put(out, &number.into()),
            None => put(out, &json!({ "$float64_bits": format!("{:016x}", number.to_bits()) })),
        },
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => put(out, &json!({ "$bytes_text": text })),
            Err(_) => put(out, &json!({ "$bytes_base64": base64(bytes) })),
        },
        Value::List(values) => put_list(out, values.iter(), put_value),
        Value::Map(pairs) => put_map(out, pairs),
    }
}

fn put(out: &mut Vec<u8>, json: &serde_json::Value) {
    serde_json::to_writer(out, json).expect("a Vec takes everything");
}

fn put_list<T>(out: &mut Vec<u8>, elements: impl Iterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (position, element) in elements.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        put(out, element);
    }
    out.push(b']');
}

fn put_map(out: &mut Vec<u8>, pairs: &[(Value, Value)]) {
    let mut names = HashSet::new();
    let is_object =
        pairs.iter().all(|(key, _)| matches!(key, Value::String(name) if !name.starts_with('$') && names.insert(name)));
    if !is_object {
        out.extend_from_slice(b"{\"$map\":");
        put_list(out, pairs.iter(), |out, (key, value)| put_list(out, [key, value].into_iter(), put_value));
        out.push(b'}');
        return;
    }
    out.push(b'{');
    for (position, (name, value)) in pairs.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        put_value(out, name);
        out.push(b':');
        put_value(out, value);
    }
    out.push(b'}');
}

/// A value that is read from JSON.
#[derive(Debug)]
pub struct FromJson(pub Value);

impl<'de> Deserialize<'de> for FromJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Boolean(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int64(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        let too_large =
            || E::custom(format!("{number} is over the largest int64; write it as a string or with a point"));
        i64::try_from(number).map(Value::Int64).map_err(|_| too_large())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float64(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(FromJson(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            if !name.starts_with('$') {
                pairs.push((Value::String(name), entries.next_value::<FromJson>()?.0));
                continue;
            }
            let value = tagged(&name, &mut entries)?;
            if !pairs.is_empty() || entries.next_key::<String>()?.is_some() {
                return Err(A::Error::custom(format!(
                    "{name:?} stands alone in its object; a map of such names is a $map"
                )));
            }
            return Ok(value);
        }
        Ok(Value::Map(pairs))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorFields {
    code: u32,
    message: String,
}

/// The value of an object's one entry, whose name says the type.
fn tagged<'de, A: MapAccess<'de>>(name: &str, entries: &mut A) -> Result<Value, A::Error> {
    Ok(match name {
        "$int32" => Value::Int32(entries.next_value()?),
        "$timestamp_us" => Value::Timestamp(entries.next_value()?),
        "$bytes_text" => Value::Bytes(entries.next_value::<String>()?.into_bytes()),
        "$bytes_base64" => {
            let text: String = entries.next_value()?;
            Value::Bytes(from_base64(&text).map_err(A::Error::custom)?)
        }
        "$float64_bits" => {
            let text: String = entries.next_value()?;
            let bits = u64::from_str_radix(&text, 16).ok().filter(|_| text.len() == 16);
            let bits = bits.ok_or_else(|| A::Error::custom("$float64_bits takes 16 hexadecimal digits"))?;
            Value::Float64(f64::from_bits(bits))
        }
        "$error" => {
            let ErrorFields { code, message } = entries.next_value()?;
            Value::Error { code, message }
        }
        "$map" => {
            let pairs: Vec<(FromJson, FromJson)> = entries.next_value()?;
            Value::Map(pairs.into_iter().map(|(key, value)| (key.0, value.0)).collect())
        }
        unknown => return Err(A::Error::custom(format!("{unknown:?} names no type of value"))),
    })
}

/// The encoded value of `value`.
///
/// # Errors
/// It is nested too deeply.
pub fn encoded(value: &Value) -> Result<Vec<u8>, String> {
    value.check_depth().map_err(|error| error.to_string())?;
    let mut encoded = Vec::new();
    value.encode(&mut encoded);
    Ok(encoded)
}
