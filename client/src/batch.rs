//! BATCH: several operations on keys in one call, one result each.
//!
//! Place in the flow: before sending (split by the core that owns each key, and into frames that the server takes) and
//! after the replies (every result back at its operation's position).
//!
//! Invariants:
//! - Operations whose keys one core owns travel in their order; a part is sent only when the part before it on the same
//!   core was answered, and not at all when that failed.
//! - Every operation gets exactly one result. A batch is not a transaction: each operation succeeds or fails alone.
//!
//! Pure: sends nothing.

use eyot_protocol::command::Condition;
use eyot_protocol::limits::MAX_BATCH_OPERATIONS;
use eyot_protocol::request::{Expiry, Request, Set};
use eyot_protocol::response::SetOutcome;
use eyot_protocol::tlv::Value;
use eyot_protocol::ErrorCode;

use crate::client::Versioned;
use crate::connection::request_bytes_max;
use crate::error::Error;

/// Most bytes that the client gathers into one BATCH frame (4 MiB), where several operations are in it: a larger frame
/// would only hold up what other callers send on the same connection.
pub const BATCH_FRAME_BYTES_MAX: usize = 4 << 20;

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchOperation {
    /// Read a key.
    Get {
        /// The key.
        key: Vec<u8>,
    },
    /// Write a key.
    Set {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Value,
        /// When the key ceases to exist.
        expiry: Expiry,
        /// When to store at all.
        condition: Condition,
    },
    /// Write a key whose value is encoded already.
    SetEncoded {
        /// The key.
        key: Vec<u8>,
        /// One encoded TLV value. The server checks it, with all others of its frame.
        value: Vec<u8>,
        /// When the key ceases to exist.
        expiry: Expiry,
        /// When to store at all.
        condition: Condition,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Is there a key?
    Exists {
        /// The key.
        key: Vec<u8>,
    },
}

impl BatchOperation {
    /// Read `key`.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Get { key: key.as_ref().to_vec() }
    }

    /// Write `value` under `key`, whatever was there, for ever.
    pub fn set(key: impl AsRef<[u8]>, value: impl Into<Value>) -> Self {
        let (key, value) = (key.as_ref().to_vec(), value.into());
        Self::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
    }

    /// Remove `key`.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete { key: key.as_ref().to_vec() }
    }

    /// Ask whether `key` exists.
    pub fn exists(key: impl AsRef<[u8]>) -> Self {
        Self::Exists { key: key.as_ref().to_vec() }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::SetEncoded { key, .. }
            | Self::Delete { key }
            | Self::Exists { key } => key,
        }
    }

    /// Encodes the value of a SET, and gives the operation its position in the caller's batch.
    ///
    /// # Errors
    /// The value nests deeper than the protocol allows.
    pub(crate) fn at(mut self, position: usize) -> Result<Positioned, Error> {
        let value = match &mut self {
            Self::Set { value, .. } => encode_value(value)?,
            Self::SetEncoded { value, .. } => std::mem::take(value),
            _ => Vec::new(),
        };
        Ok(Positioned { position, operation: self, value })
    }
}

/// The encoded bytes of `value`.
pub(crate) fn encode_value(value: &Value) -> Result<Vec<u8>, Error> {
    value.check_depth().map_err(|error| Error::invalid(ErrorCode::InvalidValue, error.to_string()))?;
    let mut encoded = Vec::new();
    value.encode(&mut encoded);
    Ok(encoded)
}

/// An operation, its position in the caller's batch, and the encoded value of a SET.
#[derive(Debug, PartialEq)]
pub(crate) struct Positioned {
    pub(crate) position: usize,
    operation: BatchOperation,
    value: Vec<u8>,
}

impl Positioned {
    pub(crate) fn key(&self) -> &[u8] {
        self.operation.key()
    }

    /// The encoded value of a SET; else empty.
    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// The request, borrowed from this operation.
    pub(crate) fn request(&self) -> Request<'_> {
        match &self.operation {
            BatchOperation::Get { key } => Request::Get { key },
            BatchOperation::Set { key, expiry, condition, .. }
            | BatchOperation::SetEncoded { key, expiry, condition, .. } => {
                Request::Set(Set { expiry: *expiry, condition: *condition, ..Set::new(key, &self.value) })
            }
            BatchOperation::Delete { key } => Request::Delete { key },
            BatchOperation::Exists { key } => Request::Exists { key },
        }
    }
}

/// What became of one operation of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchResult {
    /// Of a read: the value, or `None` where the key does not exist.
    Value(Option<Versioned<Value>>),
    /// Of a write.
    Set(SetOutcome),
    /// Of a delete: whether the key existed.
    Deleted(bool),
    /// Of an exists.
    Exists(bool),
}

/// The operations of one core, as frames that are sent one after the other.
#[derive(Debug, PartialEq)]
pub(crate) struct CorePart {
    pub(crate) frames: Vec<Vec<Positioned>>,
}

/// Splits a batch by the core that owns each key, and each core's operations into frames of at most
/// [`MAX_BATCH_OPERATIONS`] operations and, where there are several, `frame_bytes_max` bytes.
pub(crate) fn split(
    operations: Vec<Positioned>,
    core_of: impl Fn(&[u8]) -> usize,
    frame_bytes_max: usize,
) -> Vec<CorePart> {
    let mut parts: Vec<(usize, CorePart, usize)> = Vec::new();
    for operation in operations {
        let core = core_of(operation.key());
        let bytes = request_bytes_max(&operation.request());
        let found = parts.iter().position(|(other, ..)| *other == core).unwrap_or_else(|| {
            parts.push((core, CorePart { frames: vec![Vec::new()] }, 0));
            parts.len() - 1
        });
        let (_, part, frame_bytes) = &mut parts[found];
        let full = part.frames.last().is_some_and(|frame| {
            !frame.is_empty() && (frame.len() == MAX_BATCH_OPERATIONS || *frame_bytes + bytes > frame_bytes_max)
        });
        if full {
            part.frames.push(Vec::new());
            *frame_bytes = 0;
        }
        *frame_bytes += bytes;
        part.frames.last_mut().expect("never without a frame").push(operation);
    }
    parts.into_iter().map(|(_, part, _)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_at(position: usize, key: &str) -> Positioned {
        BatchOperation::get(key).at(position).expect("no value")
    }

    fn gets(keys: &[&str]) -> Vec<Positioned> {
        keys.iter().enumerate().map(|(position, key)| get_at(position, key)).collect()
    }

    fn positions(parts: &[CorePart]) -> Vec<Vec<Vec<usize>>> {
        let of_frame = |frame: &Vec<Positioned>| frame.iter().map(|operation| operation.position).collect();
        parts.iter().map(|part| part.frames.iter().map(of_frame).collect()).collect()
    }

    fn by_first_byte(key: &[u8]) -> usize {
        usize::from(key[0])
    }

    #[test]
    fn each_core_gets_its_operations_in_their_order() {
        let parts = split(gets(&["a1", "b1", "a2", "c1", "b2", "a3"]), by_first_byte, usize::MAX);
        assert_eq!(positions(&parts), [vec![vec![0, 2, 5]], vec![vec![1, 4]], vec![vec![3]]]);
    }

    #[test]
    fn frames_are_bounded_in_operations() {
        let operations: Vec<Positioned> = (0..=MAX_BATCH_OPERATIONS).map(|position| get_at(position, "k")).collect();
        let parts = split(operations, |_| 0, usize::MAX);
        let lengths: Vec<usize> = parts[0].frames.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_BATCH_OPERATIONS, 1]);
    }

    #[test]
    fn frames_are_bounded_in_bytes_but_never_empty() {
        let one = request_bytes_max(&Request::Get { key: b"k1" });
        assert_eq!(positions(&split(gets(&["k1", "k2", "k3"]), |_| 0, 2 * one)), [vec![vec![0, 1], vec![2]]]);
        assert_eq!(positions(&split(gets(&["k1", "k2"]), |_| 0, 1)), [vec![vec![0], vec![1]]]);
    }

    #[test]
    fn a_value_that_nests_too_deep_is_refused() {
        let deep = (0..40).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        let error = BatchOperation::set("k", deep).at(0).expect_err("too deep");
        assert_eq!(error.name(), "INVALID_VALUE");
    }

    #[test]
    fn an_empty_batch_has_no_parts() {
        assert_eq!(split(Vec::new(), |_| 0, 1), []);
    }
}
