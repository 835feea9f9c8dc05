//! BATCH: several operations on keys in one frame, one result each.
//!
//! Place in the flow: decoded in step 2; the router (step 4) walks it with [`Batch::requests`] and sends each operation
//! to the core that owns its key. A batch is not a transaction: operations on one shard happen in their order, and each
//! succeeds or fails alone.
//!
//! Invariant: a [`Batch`] that exists was walked once, so that walking it again cannot fail, and nothing of an invalid
//! batch is ever executed.

use super::codec::{argument_count, decode_keyed, encode_arguments};
use crate::error::{ErrorCode, ProtocolError};
use crate::limits::MAX_BATCH_OPERATIONS;
use crate::request::{Operation, Request};
use crate::tlv::{Decoder, Encoder, ValueRef};

/// A validated batch, still as its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    payload: &'a [u8],
    count: usize,
    max_value_bytes: usize,
}

impl<'a> Batch<'a> {
    /// Validates `payload`, an encoded list of operations.
    ///
    /// # Errors
    /// What is wrong with which operation (counted from 1).
    pub fn decode(payload: &'a [u8], max_value_bytes: usize) -> Result<Self, ProtocolError> {
        let mut decoder = Decoder::new(payload);
        let count = decoder.list()?;
        if count > MAX_BATCH_OPERATIONS {
            return Err(too_many(count));
        }
        for number in 1..=count {
            decode_operation(&mut decoder, max_value_bytes)
                .map_err(|error| ProtocolError::new(error.code, format!("operation {number}: {}", error.message)))?;
        }
        decoder.finish()?;
        Ok(Self { payload, count, max_value_bytes })
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no operation.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded list.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The operations, in order.
    pub fn requests(&self) -> impl Iterator<Item = Request<'a>> {
        let (mut decoder, max_value_bytes) = (Decoder::new(self.payload), self.max_value_bytes);
        decoder.list().expect("walked when the batch was decoded");
        (0..self.count)
            .map(move |_| decode_operation(&mut decoder, max_value_bytes).expect("walked when the batch was decoded"))
    }
}

fn too_many(count: usize) -> ProtocolError {
    ProtocolError::new(
        ErrorCode::BatchTooLarge,
        format!("batch of {count} operations; at most {MAX_BATCH_OPERATIONS}, send several"),
    )
}

fn decode_operation<'a>(decoder: &mut Decoder<'a>, max_value_bytes: usize) -> Result<Request<'a>, ProtocolError> {
    let count = decoder.list()?;
    let first = if count == 0 { ValueRef::Null } else { decoder.value()? };
    let ValueRef::Int32(code) = first else {
        return Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            "an operation of a BATCH is a list that begins with its code as an int32",
        ));
    };
    let operation = u8::try_from(code)
        .ok()
        .and_then(Operation::from_code)
        .ok_or_else(|| ProtocolError::new(ErrorCode::UnknownOperation, format!("operation code {code}")))?;
    decode_keyed(operation, count - 1, decoder, max_value_bytes)
}

/// Appends the payload of a BATCH of `requests`.
pub(crate) fn encode_batch_payload(out: &mut Vec<u8>, requests: &[Request<'_>]) -> Result<(), ProtocolError> {
    if requests.len() > MAX_BATCH_OPERATIONS {
        return Err(too_many(requests.len()));
    }
    let keyed = |request: &Request<'_>| {
        matches!(request, Request::Get { .. } | Request::Set(_) | Request::Delete { .. } | Request::Exists { .. })
    };
    if let Some(other) = requests.iter().find(|request| !keyed(request)) {
        return Err(ProtocolError::new(
            ErrorCode::InvalidArgument,
            format!("{} is not allowed in a BATCH", other.operation().name()),
        ));
    }
    Encoder::new(out).list(requests.len());
    for request in requests {
        let mut encoder = Encoder::new(out);
        encoder.list(1 + argument_count(request));
        encoder.int32(i32::from(request.operation().code()));
        encode_arguments(out, request);
    }
    Ok(())
}
