//! What can go wrong with snapshots on the command line, and the exit code that says so.
//!
//! Place in the flow: the end of every command behind `eyot snapshot` that did not succeed.

use std::io;
use std::path::Path;

use eyot_client::{Error, Outcome};
use eyot_protocol::snapshot::{SnapshotError, WriteError};

use crate::output::Exit;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] Error),
    /// A file is no whole snapshot.
    #[error("{source_name}: {error}")]
    Damaged {
        /// The file, or the shard of the node.
        source_name: String,
        /// Where, what, and what to do.
        error: SnapshotError,
    },
    /// A value in a sound snapshot is none.
    #[error("{file}: the value of key \"{key}\" is not a TLV value: {reason}; it was not written by Eyot")]
    Value { file: String, key: String, reason: String },
    /// A line of a text is no entry.
    #[error("{file}: line {line}: {what}; the lines before it were imported, none from it on")]
    Row { file: String, line: u64, what: String },
    /// A local file cannot be read or written.
    #[error("cannot {action} {file}: {error}; {remedy}")]
    File { action: &'static str, file: String, error: io::Error, remedy: &'static str },
    /// The node has keys.
    #[error(
        "the node at {address} has {keys} keys: restore into an empty node, or overwrite the keys that the snapshot has \
         and keep the others with --replace"
    )]
    NotEmpty { address: String, keys: u64 },
    /// The node's snapshot did not come to be what was asked for.
    #[error("the node at {address}: {what}")]
    Node { address: String, what: String },
    /// Some of it was done.
    #[error("{failure}. {written} entries were written before that: {remedy}")]
    Partly { written: u64, failure: Box<Failure>, remedy: &'static str },
    /// The writer refuses what the decoder has let through.
    #[error("{0}; the snapshot is not in order, take another copy")]
    Order(#[from] WriteError),
    /// By a signal.
    #[error("interrupted; nothing was left behind")]
    Interrupted,
    /// Standard output does not take the answer.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
}

impl Failure {
    /// Of a local file.
    pub fn file(action: &'static str, path: &Path, error: io::Error) -> Self {
        let remedy = match (action, error.kind()) {
            (_, io::ErrorKind::NotFound) => "give the path of a file that is there",
            (_, io::ErrorKind::PermissionDenied) => "run as a user who may, or choose another place",
            (_, io::ErrorKind::StorageFull) => "free space, or choose another place; nothing was left behind",
            ("read", _) => "check the disk, or take another copy",
            _ => "choose another place; nothing was left behind",
        };
        Self::File { action, file: path.display().to_string(), error, remedy }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => Exit::of(error),
            Self::Damaged { .. } | Self::Value { .. } | Self::Row { .. } | Self::Order(_) => Exit::Damaged,
            Self::File { .. } | Self::Output(_) => Exit::LocalFile,
            Self::NotEmpty { .. } => Exit::NotFound,
            Self::Node { .. } => Exit::Refused,
            Self::Partly { failure, .. } => failure.exit(),
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// A stable name for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Client(error) => error.name(),
            Self::Damaged { .. } | Self::Order(_) => "SNAPSHOT_DAMAGED",
            Self::Value { .. } => "SNAPSHOT_VALUE",
            Self::Row { .. } => "INVALID_ROW",
            Self::File { .. } => "LOCAL_FILE",
            Self::NotEmpty { .. } => "NOT_EMPTY",
            Self::Node { .. } => "SNAPSHOT_FAILED",
            Self::Partly { failure, .. } => failure.name(),
            Self::Interrupted => "INTERRUPTED",
            Self::Output(_) => "OUTPUT",
        }
    }

    /// Whether anything was changed in the node.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Client(error) => error.outcome(),
            Self::Partly { .. } | Self::Row { .. } => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }
}
