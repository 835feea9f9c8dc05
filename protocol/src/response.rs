//! The one closed set of replies, whatever wire they leave by.
//!
//! Place in the flow: step 9 (reply); what a client gets back.

use crate::error::ProtocolError;
use crate::ErrorCode;

/// What became of a SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// Stored, as this version of the key.
    Stored {
        /// Where the write stands in its shard's log.
        version: u64,
    },
    /// The condition did not hold; nothing was changed.
    NotStored {
        /// The version that the key has; `None`: the key does not exist.
        current: Option<u64>,
    },
}

/// One reply. Values are borrowed from the bytes that hold them.
#[derive(Debug, Clone, PartialEq)]
pub enum Response<'a> {
    /// To HELLO.
    Hello(HelloReply),
    /// To PING: the encoded list that was sent.
    Pong {
        /// The encoded list.
        payload: &'a [u8],
    },
    /// To GET: the value and its version, or `None` where the key does not exist.
    Value(Option<StoredValue<'a>>),
    /// To SET.
    Set(SetOutcome),
    /// To DELETE: whether the key existed.
    Deleted(bool),
    /// To EXISTS.
    Exists(bool),
    /// To BATCH: one reply for each operation, in its order.
    Batch(Vec<Response<'a>>),
    /// To STATS: JSON text.
    Stats(&'a str),
    /// To SNAPSHOT.
    Snapshot(SnapshotReply<'a>),
    /// Any request may end so.
    Error(ReplyError),
}

/// What a SNAPSHOT is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotReply<'a> {
    /// New snapshots are being made.
    Created {
        /// The number by which STATUS tells when they are done.
        request: u64,
    },
    /// How far they are, and what there is.
    Status(SnapshotStatus),
    /// Bytes of a snapshot; none: the end.
    Bytes(&'a [u8]),
}

/// How far a server is with its snapshots, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotStatus {
    /// Whether the request that was named has come to its end. True if none was named.
    pub is_done: bool,
    /// Why that request failed, if it did.
    pub failure: Option<String>,
    /// Whether snapshots are being made now, asked for or not.
    pub is_in_progress: bool,
    /// Entries that are encoded of those under way.
    pub entries_done: u64,
    /// And bytes.
    pub bytes_done: u64,
    /// Keys that the node holds now: about as many entries as a snapshot will have.
    pub keys: u64,
    /// The newest snapshot of each shard that has one, by shard, ascending.
    pub shards: Vec<ShardSnapshot>,
    /// How many shards there are.
    pub shard_count: u16,
    /// The identity of the node's data.
    pub node_uuid: u128,
}

/// A shard's newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: u16,
    /// The core that owns it.
    pub core: u16,
    /// The index of its log at which it was taken.
    pub index: u64,
    /// Bytes of its stream.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
}

/// A value that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredValue<'a> {
    /// The encoded TLV value, as it was written.
    pub value: &'a [u8],
    /// Where its last write stands in its shard's log.
    pub version: u64,
}

/// An error that a server reports. The number is kept, since a newer server may know codes that this client does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.name())]
pub struct ReplyError {
    /// The number that travelled.
    pub number: u32,
    /// The server's words.
    pub message: String,
}

impl ReplyError {
    /// The code, where this version knows it.
    pub fn code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.number)
    }

    /// The code's stable name.
    pub fn name(&self) -> &'static str {
        self.code().map_or("UNKNOWN_CODE", ErrorCode::name)
    }
}

impl From<ProtocolError> for ReplyError {
    fn from(error: ProtocolError) -> Self {
        Self { number: error.code.number(), message: error.message }
    }
}

/// What a server says of itself: limits, features, and the shard map by which a client can send each key to the core
/// that owns it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HelloReply {
    /// The highest protocol version that both sides speak.
    pub protocol: u8,
    /// The server's name and version.
    pub server: String,
    /// The node's name.
    pub node_id: String,
    /// The core that holds this connection.
    pub core: u16,
    /// For each shard, in order, the core that owns it. Shards divide the slots as
    /// [`crate::key::shard_of_slot`] says.
    pub shard_cores: Vec<u16>,
    /// For each core, the address whose connections it holds (`ip:port`).
    pub core_addresses: Vec<String>,
    /// Longest frame that the server takes.
    pub max_frame_bytes: u64,
    /// Longest key.
    pub max_key_bytes: u64,
    /// Longest encoded value.
    pub max_value_bytes: u64,
    /// The optional parts of the protocol that the server offers.
    pub features: Vec<String>,
}
