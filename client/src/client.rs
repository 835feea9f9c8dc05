//! The operations, and the one loop that routes, sends and retries a call.
//!
//! Place in the flow: the first and the last thing that a request of an application meets.
//!
//! Invariants:
//! - A call has one deadline for everything: waiting for room, connecting, retries, the reply.
//! - A connection is used for requests only after the server at its other end has answered HELLO, and, on the address
//!   of a core, only if that is the node that the user's address led to.
//! - What cannot reach the owning core goes to the user's address, and the server forwards it.

mod dispatch;
mod routes;
mod snapshots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use eyot_protocol::request::{AckLevel, Operation, Request, RequestOptions, Set};
use eyot_protocol::response::{HelloReply, SetOutcome};
use eyot_protocol::tlv::Value;
use eyot_protocol::ErrorCode;
use tokio::task::JoinSet;

use crate::batch::{encode_value, split, BatchOperation, BatchResult, CorePart, Positioned, BATCH_FRAME_BYTES_MAX};
use crate::connection::{Call, Reply};
use crate::error::Error;
use crate::options::{Options, SetOptions};
use dispatch::{check_key, Dispatcher};

/// An empty list, encoded: the payload of the client's PINGs.
const EMPTY_LIST: [u8; 2] = [3, 0];

/// A value that was read, with the version of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Where its last write stands in its shard's log; for [`crate::Condition::IfVersion`].
    pub version: u64,
}

/// A client of one node. Cheap to clone: clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Dispatcher>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("address", &self.inner.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `address` (`HOST:PORT`) and learns the server's limits and shard map.
    ///
    /// Tries once: whoever starts a client wants to know at once that the address is wrong. Later calls connect again
    /// by [`Options::retry`].
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Invalid`] (options), [`Error::Connect`], or what became of HELLO.
    pub async fn connect(address: &str, options: Options) -> Result<Self, Error> {
        options.check()?;
        let inner = Dispatcher::new(address, options)?;
        inner.introduce_first().await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the server said of itself when the last connection was opened.
    pub fn server_info(&self) -> HelloReply {
        self.inner.hello().as_ref().clone()
    }

    /// The core that owns `key`; `None` without a shard map, or with routing off.
    pub fn owner_of(&self, key: impl AsRef<[u8]>) -> Option<u16> {
        self.inner.owner_of(key.as_ref())
    }

    /// Reads `key`: its value and version, or `None` where it does not exist.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned<Value>>, Error> {
        let key = key.as_ref();
        let Some(found) = self.get_raw(key).await? else { return Ok(None) };
        Ok(Some(self.inner.decode_value(Operation::Get, &found)?))
    }

    /// Reads `key`: its value as the encoded TLV bytes that were stored.
    pub async fn get_raw(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned<Vec<u8>>>, Error> {
        let key = key.as_ref();
        check_key(key)?;
        match self.inner.run(Some(key), Call::One(Request::Get { key }), self.read_options()).await? {
            Reply::Value(found) => Ok(found.map(|(value, version)| Versioned { value, version })),
            other => unreachable!("GET was answered by {other:?}, which decoding refuses"),
        }
    }

    /// Writes `value` under `key`, whatever was there, for ever; returns the new version.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Result<u64, Error> {
        match self.set_with(key, value, SetOptions::default()).await? {
            SetOutcome::Stored { version } => Ok(version),
            SetOutcome::NotStored { .. } => Err(Error::invalid(
                ErrorCode::InvalidArgument,
                "the server did not store an unconditional SET; it does not keep to the protocol",
            )),
        }
    }

    /// Writes `value` under `key` as `options` say.
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        options: SetOptions,
    ) -> Result<SetOutcome, Error> {
        let encoded = encode_value(&value.into())?;
        self.set_raw(key, &encoded, options).await
    }

    /// Writes `value`, one encoded TLV value, under `key` as `options` say. The server checks the encoding.
    pub async fn set_raw(&self, key: impl AsRef<[u8]>, value: &[u8], options: SetOptions) -> Result<SetOutcome, Error> {
        let key = key.as_ref();
        check_key(key)?;
        self.inner.check_value(value)?;
        let set = Set { expiry: options.expiry, condition: options.condition, ..Set::new(key, value) };
        let request_options = self.write_options(options.ack);
        match self.inner.run(Some(key), Call::One(Request::Set(set)), request_options).await? {
            Reply::Set(outcome) => Ok(outcome),
            other => unreachable!("SET was answered by {other:?}, which decoding refuses"),
        }
    }

    /// Removes `key`; returns whether it existed.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        check_key(key)?;
        match self.inner.run(Some(key), Call::One(Request::Delete { key }), self.write_options(None)).await? {
            Reply::Deleted(existed) => Ok(existed),
            other => unreachable!("DELETE was answered by {other:?}, which decoding refuses"),
        }
    }

    /// Whether `key` exists.
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = key.as_ref();
        check_key(key)?;
        match self.inner.run(Some(key), Call::One(Request::Exists { key }), self.read_options()).await? {
            Reply::Exists(exists) => Ok(exists),
            other => unreachable!("EXISTS was answered by {other:?}, which decoding refuses"),
        }
    }

    /// Executes `operations` and returns one result for each, in their order.
    ///
    /// Not a transaction: each succeeds or fails alone. Those on keys of one core happen in their order; those of
    /// different cores at the same time, when routing is on. Each frame of the batch has the whole request timeout.
    pub async fn batch(&self, operations: Vec<BatchOperation>) -> Vec<Result<BatchResult, Error>> {
        let mut results: Vec<Option<Result<BatchResult, Error>>> = (0..operations.len()).map(|_| None).collect();
        let mut sound = Vec::with_capacity(operations.len());
        for (position, operation) in operations.into_iter().enumerate() {
            match operation.at(position).and_then(|operation| self.checked(operation)) {
                Ok(operation) => sound.push(operation),
                Err(error) => results[position] = Some(Err(error)),
            }
        }
        let frame_bytes_max = self.inner.max_frame_bytes().min(BATCH_FRAME_BYTES_MAX);
        let core_of = |key: &[u8]| self.inner.owner_of(key).map_or(0, usize::from);
        let mut running = JoinSet::new();
        for part in split(sound, core_of, frame_bytes_max) {
            let client = self.clone();
            running.spawn(async move { client.batch_part(part).await });
        }
        while let Some(part) = running.join_next().await {
            for (position, result) in part.expect("a part of a batch neither panics nor is cancelled") {
                results[position] = Some(result);
            }
        }
        results.into_iter().map(|result| result.expect("each operation is in one part")).collect()
    }

    /// Asks whether the server is there; returns how long the answer took.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        let request = Request::Ping { payload: &EMPTY_LIST };
        match self.inner.run(None, Call::One(request), RequestOptions::default()).await? {
            Reply::Pong => Ok(started.elapsed()),
            other => unreachable!("PING was answered by {other:?}, which decoding refuses"),
        }
    }

    /// The server's figures, as JSON text.
    pub async fn stats_text(&self) -> Result<String, Error> {
        match self.inner.run(None, Call::One(Request::Stats), RequestOptions::default()).await? {
            Reply::Stats(json) => Ok(json),
            other => unreachable!("STATS was answered by {other:?}, which decoding refuses"),
        }
    }

    /// The server's figures.
    pub async fn stats(&self) -> Result<serde_json::Value, Error> {
        let text = self.stats_text().await?;
        serde_json::from_str(&text)
            .map_err(|error| self.inner.malformed(Operation::Stats, format!("not JSON: {error}")))
    }

    fn read_options(&self) -> RequestOptions {
        RequestOptions { read: self.inner.options().read, ..RequestOptions::default() }
    }

    fn write_options(&self, ack: Option<AckLevel>) -> RequestOptions {
        RequestOptions { ack: ack.unwrap_or(self.inner.options().ack), ..RequestOptions::default() }
    }

    fn checked(&self, operation: Positioned) -> Result<Positioned, Error> {
        check_key(operation.key())?;
        self.inner.check_value(operation.value())?;
        Ok(operation)
    }

    /// Sends the frames of one core, one after the other. After one failed, the rest is not sent: on the same keys it
    /// could overtake what may still be under way.
    async fn batch_part(&self, part: CorePart) -> Vec<(usize, Result<BatchResult, Error>)> {
        let options =
            RequestOptions { ack: self.inner.options().ack, read: self.inner.options().read, deadline_ms: None };
        let mut results = Vec::new();
        let mut failed: Option<Error> = None;
        for frame in part.frames {
            let requests: Vec<Request<'_>> = frame.iter().map(Positioned::request).collect();
            let each = |error_of: &dyn Fn(Operation) -> Error| -> Vec<_> {
                let with_position = frame.iter().zip(&requests);
                with_position.map(|(at, request)| (at.position, Err(error_of(request.operation())))).collect()
            };
            if let Some(error) = &failed {
                results.extend(each(&|operation| error.skipping(operation)));
                continue;
            }
            match self.inner.run(frame.first().map(Positioned::key), Call::Batch(&requests), options).await {
                Ok(Reply::Batch(replies)) => results.extend(
                    frame
                        .iter()
                        .zip(replies)
                        .map(|(at, reply)| (at.position, self.inner.batch_result(at.request().operation(), reply))),
                ),
                Ok(other) => unreachable!("BATCH was answered by {other:?}, which decoding refuses"),
                Err(error) => {
                    results.extend(each(&|operation| error.for_operation(operation)));
                    failed = Some(error);
                }
            }
        }
        results
    }
}
