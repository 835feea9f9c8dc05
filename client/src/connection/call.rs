//! What one call puts into a frame, and what comes back, owned.
//!
//! Place in the flow: the client's end of step 2 (encoding) and of step 9 (decoding).

use eyot_protocol::error::ProtocolError;
use eyot_protocol::native::codec::encode_batch;
use eyot_protocol::native::encode_request;
use eyot_protocol::request::{Operation, Request, RequestOptions};
use eyot_protocol::response::{HelloReply, ReplyError, Response, SetOutcome, SnapshotReply, SnapshotStatus};

/// More than the header, the optional fields and the TLV heads of one operation take.
pub(crate) const OPERATION_OVERHEAD_BYTES: usize = 64;

/// One request, or the requests of a BATCH.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    /// Anything but a BATCH.
    One(Request<'a>),
    /// A BATCH of operations on keys.
    Batch(&'a [Request<'a>]),
}

impl Call<'_> {
    pub(crate) fn operation(&self) -> Operation {
        match self {
            Self::One(request) => request.operation(),
            Self::Batch(_) => Operation::Batch,
        }
    }

    /// The operations that the reply to a BATCH is read by; empty for anything else.
    pub(crate) fn batch_operations(&self) -> Box<[Operation]> {
        match self {
            Self::One(_) => Box::default(),
            Self::Batch(requests) => requests.iter().map(Request::operation).collect(),
        }
    }

    /// Whether it may change anything.
    pub(crate) fn is_write(&self) -> bool {
        let writes = |request: &Request<'_>| matches!(request, Request::Set(_) | Request::Delete { .. });
        match self {
            Self::One(request) => writes(request),
            Self::Batch(requests) => requests.iter().any(writes),
        }
    }

    /// At least the bytes of its frame.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        match self {
            Self::One(request) => request_bytes_max(request),
            Self::Batch(requests) => OPERATION_OVERHEAD_BYTES + requests.iter().map(request_bytes_max).sum::<usize>(),
        }
    }

    /// Appends the frame. On an error nothing is appended.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, id: u32, options: &RequestOptions) -> Result<(), ProtocolError> {
        match self {
            Self::One(request) => {
                encode_request(out, id, request, options);
                Ok(())
            }
            Self::Batch(requests) => encode_batch(out, id, requests, options),
        }
    }
}

/// At least the bytes that `request` takes in a frame.
pub(crate) fn request_bytes_max(request: &Request<'_>) -> usize {
    OPERATION_OVERHEAD_BYTES
        + match request {
            Request::Get { key } | Request::Delete { key } | Request::Exists { key } => key.len(),
            Request::Set(set) => set.key.len() + set.value.len(),
            Request::Ping { payload } => payload.len(),
            Request::Hello(hello) => {
                let said = hello.credentials.map_or(0, |said| said.user.map_or(0, <[u8]>::len) + said.password.len());
                hello.client.map_or(0, str::len) + said
            }
            Request::Batch(batch) => batch.payload().len(),
            Request::Stats | Request::Snapshot(_) => 0,
        }
}

/// A reply that outlives the buffer that it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Hello(Box<HelloReply>),
    Pong,
    /// The encoded value and its version.
    Value(Option<(Vec<u8>, u64)>),
    Set(SetOutcome),
    Deleted(bool),
    Exists(bool),
    Batch(Vec<Reply>),
    Stats(String),
    Snapshot(SnapshotAnswer),
    Error(ReplyError),
}

impl From<Response<'_>> for Reply {
    fn from(response: Response<'_>) -> Self {
        match response {
            Response::Hello(hello) => Self::Hello(Box::new(hello)),
            Response::Pong { .. } => Self::Pong,
            Response::Value(found) => Self::Value(found.map(|stored| (stored.value.to_vec(), stored.version))),
            Response::Set(outcome) => Self::Set(outcome),
            Response::Deleted(existed) => Self::Deleted(existed),
            Response::Exists(exists) => Self::Exists(exists),
            Response::Batch(results) => Self::Batch(results.into_iter().map(Self::from).collect()),
            Response::Stats(json) => Self::Stats(json.to_owned()),
            Response::Snapshot(reply) => Self::Snapshot(reply.into()),
            Response::Error(error) => Self::Error(error),
        }
    }
}

/// A reply to SNAPSHOT that outlives the buffer that it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SnapshotAnswer {
    Created(u64),
    Status(Box<SnapshotStatus>),
    Bytes(Vec<u8>),
}

impl From<SnapshotReply<'_>> for SnapshotAnswer {
    fn from(reply: SnapshotReply<'_>) -> Self {
        match reply {
            SnapshotReply::Created { request } => Self::Created(request),
            SnapshotReply::Status(status) => Self::Status(Box::new(status)),
            SnapshotReply::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}
