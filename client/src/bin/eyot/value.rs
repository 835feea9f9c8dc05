//! From text to a value of a type, and from a value to JSON.
//!
//! Place in the flow: what SET and BATCH are given, and what GET shows.
//!
//! Values that JSON lacks are shown as objects with one entry whose name begins with `$`: bytes `{"$bytes":"00ff"}`, a
//! map that is no JSON object `{"$map":[[key,value],...]}`, an error `{"$error":{"code":1,"message":"..."}}`. A
//! timestamp is its number of microseconds; a float that is no number is a string.

use std::fmt::Write;

use clap::ValueEnum;
use eyot_client::Value;

/// Under which type a value that was given as text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ValueType {
    String,
    Int32,
    Int64,
    #[value(alias = "float", alias = "double")]
    Float64,
    #[value(alias = "boolean")]
    Bool,
    #[value(alias = "hex")]
    Bytes,
    Json,
}

impl ValueType {
    /// The value that `text` names.
    ///
    /// # Errors
    /// Why it names none.
    pub fn parse(self, text: &[u8]) -> Result<Value, String> {
        let text = std::str::from_utf8(text).map_err(|error| {
            format!(
                "the value is not UTF-8 text (byte {}); store it with --type bytes, in hexadecimal",
                error.valid_up_to()
            )
        })?;
        // What came through a pipe often ends with a line break; a string keeps it.
        let trimmed = text.trim();
        let wrong = |expected: &str| format!("value {}: {expected}", shortened(trimmed));
        match self {
            Self::String => Ok(Value::String(text.to_owned())),
            Self::Int32 => trimmed.parse().map(Value::Int32).map_err(|_| wrong("not a whole number of 32 bits")),
            Self::Int64 => trimmed.parse().map(Value::Int64).map_err(|_| wrong("not a whole number of 64 bits")),
            Self::Float64 => trimmed.parse().map(Value::Float64).map_err(|_| wrong("not a number")),
            Self::Bool => match trimmed {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(wrong("give true or false")),
            },
            Self::Bytes => bytes_of_hex(trimmed)
                .map(Value::Bytes)
                .ok_or_else(|| wrong("not pairs of hexadecimal digits, as in 00ff7a or 0x00ff7a")),
            Self::Json => {
                let json = serde_json::from_str(trimmed).map_err(|error| wrong(&format!("not JSON: {error}")))?;
                value_of_json(json)
            }
        }
    }
}

/// At most 40 characters of what the user gave, quoted.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.strip_prefix("0x").unwrap_or(text).as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Recursion is bounded: the JSON parser takes no deeper nesting than 128.
fn value_of_json(json: serde_json::Value) -> Result<Value, String> {
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(boolean) => Value::Boolean(boolean),
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => Value::Int64(whole),
            (None, Some(large), _) => {
                return Err(format!("{large} is over the largest int64; write it as a string, \"{large}\""))
            }
            (None, None, Some(float)) => Value::Float64(float),
            (None, None, None) => return Err(format!("{number} is out of range; write it as a string")),
        },
        serde_json::Value::Array(elements) => {
            Value::List(elements.into_iter().map(value_of_json).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(name, entry)| Ok((Value::String(name), value_of_json(entry)?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

/// `value` as JSON, on one line. Entries of maps keep their order.
pub fn json(value: &Value) -> String {
    let mut text = String::new();
    put_json(&mut text, value);
    text
}

/// A JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Recursion is bounded: no value that came over a wire is nested deeper than the protocol allows.
fn put_json(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
        Value::Int32(number) => out.push_str(&number.to_string()),
        Value::Int64(number) | Value::Timestamp(number) => out.push_str(&number.to_string()),
        Value::Float64(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => out.push_str(&number.to_string()),
            None => out.push_str(&json_string(&number.to_string())),
        },
        Value::String(text) => out.push_str(&json_string(text)),
        Value::Bytes(bytes) => {
            out.push_str("{\"$bytes\":\"");
            out.push_str(&hex(bytes));
            out.push_str("\"}");
        }
        Value::Error { code, message } => {
            write!(out, "{{\"$error\":{{\"code\":{code},\"message\":{}}}}}", json_string(message))
                .expect("a String takes everything");
        }
        Value::List(elements) => put_list(out, elements.iter(), put_json),
        Value::Map(entries) => put_map(out, entries),
    }
}

fn put_list<T>(out: &mut String, elements: impl Iterator<Item = T>, mut put: impl FnMut(&mut String, T)) {
    out.push('[');
    for (position, element) in elements.enumerate() {
        if position > 0 {
            out.push(',');
        }
        put(out, element);
    }
    out.push(']');
}

fn put_map(out: &mut String, entries: &[(Value, Value)]) {
    let mut names = std::collections::HashSet::new();
    let is_object = entries.iter().all(|(key, _)| matches!(key, Value::String(name) if names.insert(name)));
    if !is_object {
        out.push_str("{\"$map\":");
        put_list(out, entries.iter(), |out, (key, value)| put_list(out, [key, value].into_iter(), put_json));
        out.push('}');
        return;
    }
    out.push('{');
    for (position, (name, value)) in entries.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        put_json(out, name);
        out.push(':');
        put_json(out, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_a_value_of_the_type() {
        assert_eq!(ValueType::String.parse(b"42\n"), Ok(Value::String("42\n".to_owned())));
        assert_eq!(ValueType::Int32.parse(b"-42\n"), Ok(Value::Int32(-42)));
        assert_eq!(ValueType::Int64.parse(b"4294967296"), Ok(Value::Int64(1 << 32)));
        assert_eq!(ValueType::Float64.parse(b"2.5"), Ok(Value::Float64(2.5)));
        assert_eq!(ValueType::Bool.parse(b"true"), Ok(Value::Boolean(true)));
        assert_eq!(ValueType::Bytes.parse(b"0x00fF"), Ok(Value::Bytes(vec![0, 255])));
        assert_eq!(ValueType::Bytes.parse(b""), Ok(Value::Bytes(vec![])));
    }

    #[test]
    fn text_that_is_no_such_value_is_refused() {
        for (value_type, text) in [
            (ValueType::Int32, "2147483648"),
            (ValueType::Int64, "1.5"),
            (ValueType::Float64, "x"),
            (ValueType::Bool, "yes"),
            (ValueType::Bytes, "abc"),
            (ValueType::Bytes, "zz"),
            (ValueType::Json, "{"),
            (ValueType::Json, "18446744073709551615"),
        ] {
            let error = value_type.parse(text.as_bytes()).expect_err(text);
            assert!(!error.is_empty());
        }
        assert!(ValueType::String.parse(&[0xFF]).expect_err("not text").contains("--type bytes"));
        let long = "é".repeat(1_000);
        assert!(ValueType::Int32.parse(long.as_bytes()).expect_err("no number").len() < 200);
    }

    #[test]
    fn json_goes_in_and_comes_out() {
        let text = r#"{"age":30,"name":"J\"n","tags":["a",null,true,1.5]}"#;
        let value = ValueType::Json.parse(text.as_bytes()).expect("JSON");
        assert!(matches!(&value, Value::Map(entries) if entries[0].1 == Value::Int64(30)));
        assert_eq!(json(&value), text);
    }

    #[test]
    fn what_json_lacks_is_marked() {
        assert_eq!(json(&Value::Bytes(vec![0, 255])), r#"{"$bytes":"00ff"}"#);
        assert_eq!(json(&Value::Float64(f64::NAN)), r#""NaN""#);
        let error = Value::Error { code: 12, message: "no".to_owned() };
        assert_eq!(json(&error), r#"{"$error":{"code":12,"message":"no"}}"#);
        let by_number = Value::Map(vec![(Value::Int32(1), Value::Null)]);
        assert_eq!(json(&by_number), r#"{"$map":[[1,null]]}"#);
        let twice = Value::Map(vec![(Value::from("a"), Value::Null), (Value::from("a"), Value::Null)]);
        assert_eq!(json(&twice), r#"{"$map":[["a",null],["a",null]]}"#);
    }
}
