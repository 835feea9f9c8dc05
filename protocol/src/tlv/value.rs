//! Values that own their memory: for clients, tests and everything off the hot path.
//!
//! Place in the flow: none of the server's nine steps needs one; a client builds and keeps them.
//!
//! Invariant: nothing is allocated for a count before the bytes were validated whole, so memory stays proportional to
//! the bytes that really came.

use super::view::{ErrorRef, ListRef, MapRef, ValueRef};
use super::{Decoder, Encoder, TlvError};
use crate::limits::MAX_DEPTH;

/// One value, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// Text.
    String(String),
    /// A 32-bit integer.
    Int32(i32),
    /// Several values.
    List(Vec<Value>),
    /// A float.
    Float64(f64),
    /// True or false.
    Boolean(bool),
    /// Microseconds since the epoch.
    Timestamp(i64),
    /// Bytes without meaning.
    Bytes(Vec<u8>),
    /// A 64-bit integer.
    Int64(i64),
    /// An error.
    Error {
        /// The number of the error code; see [`ErrorCode`](crate::ErrorCode).
        code: u32,
        /// What happened.
        message: String,
    },
    /// Pairs of key and value, in order.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Decodes the one value that `bytes` hold.
    ///
    /// # Errors
    /// What is wrong with the bytes, also when some are left after the value.
    pub fn decode(bytes: &[u8]) -> Result<Self, TlvError> {
        let mut decoder = Decoder::new(bytes);
        let value = decoder.value()?;
        decoder.finish()?;
        Ok(Self::from(value))
    }

    /// Appends the encoded value to `out`.
    ///
    /// # Panics
    /// When the value nests deeper than [`MAX_DEPTH`], which no decoder would take: see [`Value::check_depth`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_at(out, 0);
    }

    /// Checks that lists and maps nest at most [`MAX_DEPTH`] deep.
    ///
    /// # Errors
    /// [`TlvError::TooDeep`], with offset 0, since there are no bytes yet.
    pub fn check_depth(&self) -> Result<(), TlvError> {
        if self.fits(MAX_DEPTH) {
            Ok(())
        } else {
            Err(TlvError::TooDeep { offset: 0, limit: MAX_DEPTH })
        }
    }

    /// Whether at most `levels` lists and maps are inside each other. Stops where that is answered.
    fn fits(&self, levels: usize) -> bool {
        match self {
            Self::List(values) => levels > 0 && values.iter().all(|value| value.fits(levels - 1)),
            Self::Map(pairs) => {
                levels > 0 && pairs.iter().all(|(key, value)| key.fits(levels - 1) && value.fits(levels - 1))
            }
            _ => true,
        }
    }

    fn encode_at(&self, out: &mut Vec<u8>, depth: usize) {
        let mut encoder = Encoder::new(out);
        match self {
            Self::Null => encoder.null(),
            Self::String(text) => encoder.string(text),
            Self::Int32(number) => encoder.int32(*number),
            Self::Float64(number) => encoder.float64(*number),
            Self::Boolean(boolean) => encoder.boolean(*boolean),
            Self::Timestamp(at_us) => encoder.timestamp(*at_us),
            Self::Bytes(bytes) => encoder.bytes(bytes),
            Self::Int64(number) => encoder.int64(*number),
            Self::Error { code, message } => encoder.error(*code, message),
            Self::List(values) => {
                assert!(depth < MAX_DEPTH, "value nests deeper than {MAX_DEPTH} lists and maps");
                encoder.list(values.len());
                for value in values {
                    value.encode_at(out, depth + 1);
                }
            }
            Self::Map(pairs) => {
                assert!(depth < MAX_DEPTH, "value nests deeper than {MAX_DEPTH} lists and maps");
                encoder.map(pairs.len());
                for (key, value) in pairs {
                    key.encode_at(out, depth + 1);
                    value.encode_at(out, depth + 1);
                }
            }
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::String(text) => Self::String(text.to_owned()),
            ValueRef::Int32(number) => Self::Int32(number),
            ValueRef::List(list) => Self::from(list),
            ValueRef::Float64(number) => Self::Float64(number),
            ValueRef::Boolean(boolean) => Self::Boolean(boolean),
            ValueRef::Timestamp(at_us) => Self::Timestamp(at_us),
            ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
            ValueRef::Int64(number) => Self::Int64(number),
            ValueRef::Error(ErrorRef { code, message }) => Self::Error { code, message: message.to_owned() },
            ValueRef::Map(map) => Self::from(map),
        }
    }
}

impl From<ListRef<'_>> for Value {
    fn from(list: ListRef<'_>) -> Self {
        Self::List(list.iter().map(Self::from).collect())
    }
}

impl From<MapRef<'_>> for Value {
    fn from(map: MapRef<'_>) -> Self {
        Self::Map(map.iter().map(|(key, value)| (Self::from(key), Self::from(value))).collect())
    }
}

macro_rules! from_type {
    ($($type:ty => $value:expr),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(from: $type) -> Self {
                $value(from)
            }
        })+
    };
}

from_type! {
    String => Value::String,
    &str => |text: &str| Value::String(text.to_owned()),
    i32 => Value::Int32,
    i64 => Value::Int64,
    f64 => Value::Float64,
    bool => Value::Boolean,
    Vec<u8> => Value::Bytes,
    &[u8] => |bytes: &[u8]| Value::Bytes(bytes.to_owned()),
    Vec<Value> => Value::List,
    Vec<(Value, Value)> => Value::Map,
}
