//! SNAPSHOT: ask a node for snapshots, look at them, read them.
//!
//! Place in the flow: operations of [`Client`] like the others. They go to the user's address: any core answers them.

use eyot_protocol::request::{Operation, Request, RequestOptions, SnapshotRead, SnapshotRequest};
use eyot_protocol::response::SnapshotStatus;

use super::Client;
use crate::connection::{Call, Reply, SnapshotAnswer};
use crate::error::Error;

impl Client {
    /// Has the node make new snapshots of all shards, which hold whatever was acknowledged before. Returns at once,
    /// with the number by which [`Client::snapshot_status`] tells when they are done.
    pub async fn create_snapshots(&self) -> Result<u64, Error> {
        match self.snapshot(SnapshotRequest::Create).await? {
            SnapshotAnswer::Created(request) => Ok(request),
            _ => Err(self.another_answer()),
        }
    }

    /// How far the node is with `request`, and what snapshots there are. 0 names no request.
    pub async fn snapshot_status(&self, request: u64) -> Result<SnapshotStatus, Error> {
        match self.snapshot(SnapshotRequest::Status { request }).await? {
            SnapshotAnswer::Status(status) => Ok(*status),
            _ => Err(self.another_answer()),
        }
    }

    /// Bytes of a shard's snapshot, as many as `read` asks for or fewer; none: the end.
    ///
    /// # Errors
    /// `NO_SUCH_SNAPSHOT`, among others: it was superseded.
    pub async fn read_snapshot(&self, read: SnapshotRead) -> Result<Vec<u8>, Error> {
        match self.snapshot(SnapshotRequest::Read(read)).await? {
            SnapshotAnswer::Bytes(bytes) if bytes.len() <= read.length as usize => Ok(bytes),
            _ => Err(self.another_answer()),
        }
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<SnapshotAnswer, Error> {
        let call = Call::One(Request::Snapshot(request));
        match self.inner.run(None, call, RequestOptions::default()).await? {
            Reply::Snapshot(answer) => Ok(answer),
            other => unreachable!("SNAPSHOT was answered by {other:?}, which decoding refuses"),
        }
    }

    fn another_answer(&self) -> Error {
        self.inner.malformed(Operation::Snapshot, "it answers another word than was asked".to_owned())
    }
}
