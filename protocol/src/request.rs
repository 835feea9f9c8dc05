//! The one closed set of requests, whatever wire they came over.
//!
//! Place in the flow: what decode (step 2) returns and what admit, route and execute (steps 3 to 5) take; what a client
//! builds. Keys and values are borrowed from the bytes that were received: nothing is copied or allocated.
//!
//! Invariant: a request that exists is valid: key and value lengths, nesting and text encoding were checked.

use crate::command::Condition;
use crate::credentials::Credentials;
use crate::native::batch::Batch;

/// What a client may ask for, in classes as they are counted. The number of the first nine is the operation code of
/// the native protocol; the others are reached over RESP, many commands each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Agree on a protocol version, learn the features and the shard map.
    Hello = 1,
    /// Is the server there? Sends the payload back.
    Ping = 2,
    /// Read a key.
    Get = 3,
    /// Write a key.
    Set = 4,
    /// Remove a key.
    Delete = 5,
    /// Is there a key?
    Exists = 6,
    /// Several operations, one result each.
    Batch = 7,
    /// The server's figures as JSON.
    Stats = 8,
    /// Make, watch and read snapshots.
    Snapshot = 9,
    /// Any other read of one key, or of several.
    Query = 10,
    /// Any other write.
    Modify = 11,
    /// What looks at all keys.
    Keyspace = 12,
    /// What is about the server or the connection.
    Admin = 13,
}

impl Operation {
    /// Every operation of the native protocol, in the order of its code.
    pub const ALL: [Self; 9] = [
        Self::Hello,
        Self::Ping,
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Exists,
        Self::Batch,
        Self::Stats,
        Self::Snapshot,
    ];

    /// Every class that is counted, in the order of its number.
    pub const COUNTED: [Self; 13] = [
        Self::Hello,
        Self::Ping,
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Exists,
        Self::Batch,
        Self::Stats,
        Self::Snapshot,
        Self::Query,
        Self::Modify,
        Self::Keyspace,
        Self::Admin,
    ];

    /// The operation of a code from the wire; `None` for one that this version does not know.
    #[inline]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).wrapping_sub(1)).copied()
    }

    /// The code that travels.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name in statistics, messages and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Ping => "PING",
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Exists => "EXISTS",
            Self::Batch => "BATCH",
            Self::Stats => "STATS",
            Self::Snapshot => "SNAPSHOT",
            Self::Query => "QUERY",
            Self::Modify => "MODIFY",
            Self::Keyspace => "KEYSPACE",
            Self::Admin => "ADMIN",
        }
    }
}

/// When the reply to a write leaves. It never decides when or whether state changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AckLevel {
    /// As the server is configured: `Quorum`.
    #[default]
    Default,
    /// The leader has it in memory: a crash may lose it.
    Memory,
    /// It is on the leader's disk.
    Fsync,
    /// It is on the disks of a majority; on a node that stands alone, the same as `Fsync`.
    Quorum,
}

/// How fresh a read must be. A node that stands alone always answers with its newest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadLevel {
    /// At least as new as anything acknowledged before the read was sent.
    #[default]
    Linearizable,
    /// As the leader's lease allows.
    Lease,
    /// At least as new as this maximum age.
    Bounded {
        /// In milliseconds.
        max_age_ms: u32,
    },
    /// Whatever the asked replica has.
    Any,
}

/// What a client may ask for beside the operation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestOptions {
    /// When the reply to a write leaves.
    pub ack: AckLevel,
    /// How fresh a read must be.
    pub read: ReadLevel,
    /// Milliseconds from receipt after which the request must no longer be executed; at least 1.
    pub deadline_ms: Option<u32>,
}

/// When a written key ceases to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// This many milliseconds after the server has taken the write; at least 1.
    AfterMs(u64),
    /// At this time, in microseconds since the epoch.
    AtUs(i64),
}

/// What is asked about one key. Nothing of it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyQuery {
    /// Its value, with its version and expiry.
    Value,
    /// Whether it exists.
    Exists,
    /// Whether it exists; for eviction that is a use of the key.
    Touch,
    /// How many bytes the text of its value has.
    Length,
    /// A part of the text of its value.
    Range {
        /// The first byte; a negative one counts from the end, -1 being the last.
        start: i64,
        /// The last byte, counted in the same way.
        end: i64,
    },
    /// When it ceases to exist.
    TimeToLive {
        /// In milliseconds; else in seconds.
        milliseconds: bool,
        /// As a time since the epoch; else from now on.
        absolute: bool,
    },
    /// The type of its value, in Redis's words.
    Type,
    /// The form that its value is kept in, in Redis's words.
    Encoding,
    /// How often it is used, in the measure of the eviction policies by frequency.
    Frequency,
    /// How long it has not been used, in seconds.
    IdleTime,
    /// How many bytes of memory it takes.
    MemoryUsage,
}

/// A write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// The key.
    pub key: &'a [u8],
    /// One encoded TLV value, kept and returned as it is.
    pub value: &'a [u8],
    /// When the key ceases to exist.
    pub expiry: Expiry,
    /// When to store at all.
    pub condition: Condition,
}

impl<'a> Set<'a> {
    /// An unconditional write that never expires.
    pub fn new(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { key, value, expiry: Expiry::Never, condition: Condition::Always }
    }
}

/// A client's introduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hello<'a> {
    /// The client's name and version, for the server's logs and statistics.
    pub client: Option<&'a str>,
    /// Who it is.
    pub credentials: Option<Credentials<'a>>,
}

/// What is wanted of the server's snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotRequest {
    /// New snapshots of all shards. They hold whatever was acknowledged before.
    Create,
    /// How far they are, and what there is.
    Status {
        /// The number that [`SnapshotRequest::Create`] was answered with; 0: none is meant.
        request: u64,
    },
    /// Bytes of a snapshot.
    Read(SnapshotRead),
}

/// Which bytes of which snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRead {
    /// The shard.
    pub shard: u16,
    /// The index of the shard's log at which the snapshot was taken.
    pub index: u64,
    /// The first byte.
    pub offset: u64,
    /// At most so many bytes: [`MAX_SNAPSHOT_READ_BYTES`](crate::limits::MAX_SNAPSHOT_READ_BYTES) or fewer.
    pub length: u32,
}

/// One request. See [`Operation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Agree on a protocol version, learn the features and the shard map.
    Hello(Hello<'a>),
    /// Send `payload` (an encoded DataInput) back.
    Ping {
        /// The encoded list that comes back.
        payload: &'a [u8],
    },
    /// Read a key.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Write a key.
    Set(Set<'a>),
    /// Remove a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Is there a key?
    Exists {
        /// The key.
        key: &'a [u8],
    },
    /// Several operations on keys.
    Batch(Batch<'a>),
    /// The server's figures.
    Stats,
    /// Snapshots.
    Snapshot(SnapshotRequest),
}

impl<'a> Request<'a> {
    /// The key of a request on one key.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Get { key } | Self::Delete { key } | Self::Exists { key } => Some(key),
            Self::Set(set) => Some(set.key),
            Self::Hello(_) | Self::Ping { .. } | Self::Batch(_) | Self::Stats | Self::Snapshot(_) => None,
        }
    }

    /// Which operation this is.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Hello(_) => Operation::Hello,
            Self::Ping { .. } => Operation::Ping,
            Self::Get { .. } => Operation::Get,
            Self::Set(_) => Operation::Set,
            Self::Delete { .. } => Operation::Delete,
            Self::Exists { .. } => Operation::Exists,
            Self::Batch(_) => Operation::Batch,
            Self::Stats => Operation::Stats,
            Self::Snapshot(_) => Operation::Snapshot,
        }
    }
}
