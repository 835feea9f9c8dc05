//! Requests about snapshots: SAVE, BGSAVE and LASTSAVE over RESP, SNAPSHOT over the native protocol.
//!
//! Place in the flow: step 5 (execute), on the core that holds the connection. Any core can ask for snapshots of all
//! and tell how far they are; any core's thread can read any core's file.
//!
//! Invariant: whoever asked for a snapshot is told of one that was begun afterwards.

use eyot_protocol::native::reply::{put_reply, put_snapshot};
use eyot_protocol::request::{Operation, SnapshotRead, SnapshotRequest};
use eyot_protocol::resp::RespError;
use eyot_protocol::response::{ShardSnapshot, SnapshotReply, SnapshotStatus};
use eyot_protocol::ErrorCode;
use eyot_raft_glue::{Index, ShardId};

use super::snapshot_thread::ReadRequest;
use super::Work;
use crate::router::{Reply, ReplySink, ReplyTo};
use crate::snapshot::SnapshotError;

impl Work {
    /// SNAPSHOT.
    pub(super) fn snapshot_request(&mut self, to: &ReplyTo, request: SnapshotRequest) {
        match request {
            SnapshotRequest::Create => {
                let request = self.shared.request_snapshots();
                self.reply_snapshot(to, &SnapshotReply::Created { request });
            }
            SnapshotRequest::Status { request } => {
                let status = self.snapshot_status(request);
                self.reply_snapshot(to, &SnapshotReply::Status(status));
            }
            SnapshotRequest::Read(SnapshotRead { shard, index, offset, length }) => {
                let request =
                    ReadRequest { shard: ShardId(shard), index: Index(index), offset, length: length as usize };
                if !self.snapshots.read(*to, request) {
                    let message = "too many clients read snapshots from this core; retry with backoff";
                    self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
                }
            }
        }
    }

    fn reply_snapshot(&mut self, to: &ReplyTo, reply: &SnapshotReply<'_>) {
        self.outlet().answer(to, 1, |out| {
            put_reply(out, to.operation.code(), to.number, |out| put_snapshot(out, reply));
        });
    }

    fn snapshot_status(&self, request: u64) -> SnapshotStatus {
        let board = &self.shared.snapshots;
        let outcome = if request == 0 { Some(Ok(())) } else { board.outcome(request) };
        let mut status = SnapshotStatus {
            is_done: outcome.is_some(),
            failure: outcome.and_then(Result::err),
            is_in_progress: false,
            entries_done: 0,
            bytes_done: 0,
            keys: 0,
            shards: Vec::new(),
            shard_count: self.shared.routes.shard_cores().len() as u16,
            node_uuid: self.shared.node_uuid,
        };
        for (number, core) in board.cores().into_iter().enumerate() {
            status.is_in_progress |= core.running_since_us.is_some();
            status.entries_done += core.entries_done;
            status.bytes_done += core.bytes_done;
            status.keys += core.keys;
            status.shards.extend(core.shards.iter().map(|snapshot| ShardSnapshot {
                shard: snapshot.shard.0,
                core: number as u16,
                index: snapshot.index.0,
                bytes: snapshot.bytes,
                entries: snapshot.entries,
            }));
        }
        status.shards.sort_by_key(|snapshot| snapshot.shard);
        status
    }

    /// What the thread has read for a client, or why not.
    pub(super) fn snapshot_read(&mut self, to: &ReplyTo, bytes: &[u8], outcome: Result<bool, SnapshotError>) {
        match outcome {
            Ok(true) => self.reply_snapshot(to, &SnapshotReply::Bytes(bytes)),
            Ok(false) => {
                let message = "there is no such snapshot any more: newer ones were made; ask for the status again";
                self.outlet().reply(to, Reply::Error(ErrorCode::NoSuchSnapshot, message));
            }
            Err(error) => {
                tracing::error!(core = self.core, %error, "a snapshot cannot be read");
                let message = "the snapshot cannot be read; the server's log says why";
                self.outlet().reply(to, Reply::Error(ErrorCode::Unknown, message));
            }
        }
    }

    /// SAVE: answered when new snapshots are on disk. Nothing behind it is taken before.
    pub(super) fn save(&mut self, key: u32) {
        let to = self.begin_alone(key, Operation::Admin, 1);
        let number = self.shared.request_snapshots();
        self.snapshots.wait_for(number, to);
    }

    /// BGSAVE.
    pub(super) fn background_save(&mut self, to: &ReplyTo, schedule: bool) {
        let is_busy = self.shared.snapshots.is_busy();
        if is_busy && !schedule {
            let message = "ERR Background save already in progress";
            return self.refuse(to, &RespError::fixed(message));
        }
        self.shared.request_snapshots();
        let status = if is_busy { "Background saving scheduled" } else { "Background saving started" };
        self.say(to, |writer| writer.status(status));
    }

    /// LASTSAVE.
    pub(super) fn last_save(&mut self, to: &ReplyTo) {
        let saved_at_us = self.shared.snapshots.last_success_us();
        let seconds = saved_at_us.map_or(self.shared.facts.started_unix_s as i64, |at_us| at_us / 1_000_000);
        self.say(to, |writer| writer.integer(seconds));
    }

    /// Answers those who wait for snapshots that are there now, or will not be.
    pub(super) fn answer_saves(&mut self, is_stopping: bool) {
        for (number, to) in self.snapshots.take_waiting() {
            match self.shared.snapshots.outcome(number) {
                Some(Ok(())) => self.say(&to, |writer| writer.status("OK")),
                Some(Err(failure)) => self.refuse(&to, &RespError::text(format!("ERR {failure}"))),
                None if is_stopping => {
                    self.refuse(&to, &RespError::fixed("ERR the server stops before the snapshot is done"));
                }
                None => self.snapshots.wait_for(number, to),
            }
        }
    }
}
