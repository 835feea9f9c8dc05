//! Why a log cannot be recovered: what, where, and what an operator can do.
//!
//! Place in the flow: start-up; each of these ends the process before it serves anything.

use std::io;
use std::path::PathBuf;

use super::super::Sequence;

/// What an operator can do about a log that has lost something which was acknowledged.
const REMEDY: &str = "restore the data directory from a backup, or, in a cluster, empty it and let this node copy its \
    data from its peers; removing log files instead gives up acknowledged writes";

/// What shows that a batch which cannot be read was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The next segment was begun only after it was on disk.
    NextSegment {
        /// The next segment.
        file: PathBuf,
    },
    /// A later batch says that it was known to be on disk.
    LaterBatch {
        /// The file of the later batch.
        file: PathBuf,
        /// Where it stands there.
        offset: u64,
        /// Its number.
        sequence: Sequence,
    },
    /// The log was cut off in front of it, which happens only when it is on disk.
    Cut,
}

impl std::fmt::Display for Proof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NextSegment { file } => write!(formatter, "segment {} follows it", file.display()),
            Self::Cut => write!(formatter, "the log was cut off in front of it"),
            Self::LaterBatch { file, offset, sequence } => {
                write!(formatter, "batch {sequence} at byte {offset} of {} follows it", file.display())
            }
        }
    }
}

/// Why a log cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A batch that was acknowledged is not whole: not a torn tail, but damage.
    #[error("log damaged: {file} at byte {offset}: batch {expected} is not whole, although {proof}; {REMEDY}")]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the batch should stand, in bytes from the start of the file.
        offset: u64,
        /// The batch's number.
        expected: Sequence,
        /// Why it must have been whole once.
        proof: Proof,
    },
    /// A segment has no valid header, although a later segment has one.
    #[error(
        "log damaged: {file} at byte 0: the segment's header is not whole, although segment {later} follows it; \
        {REMEDY}"
    )]
    HeaderDamaged {
        /// The segment.
        file: PathBuf,
        /// A later segment's number.
        later: u64,
    },
    /// A segment is not there, although a later one is.
    #[error("log damaged: {file} is missing, although segment {later} follows it; {REMEDY}")]
    MissingSegment {
        /// The segment that should be there.
        file: PathBuf,
        /// The later segment's number.
        later: u64,
    },
    /// Headers that are whole, but contradict each other.
    #[error("log damaged: {file} at byte 0: the segment's header {problem}; {REMEDY}")]
    Contradiction {
        /// The segment.
        file: PathBuf,
        /// How.
        problem: &'static str,
    },
    /// A segment of another node.
    #[error(
        "{file} belongs to node {found:032x}, this is node {expected:032x}: put each node's own data directory \
        back in its place"
    )]
    ForeignNode {
        /// The segment.
        file: PathBuf,
        /// The node that wrote it.
        found: u128,
        /// This node.
        expected: u128,
    },
    /// A segment of another core's log, or one under another segment's name.
    #[error("{file} holds segment {found_number} of the log of core {found_log}: move it back to its own name")]
    Misplaced {
        /// The segment.
        file: PathBuf,
        /// The log that its header names.
        found_log: u16,
        /// The number that its header names.
        found_number: u64,
    },
    /// A segment that a newer version wrote.
    #[error(
        "{file} has log format version {found}, this server reads up to version {supported}: start the newer \
        server again"
    )]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this server reads.
        supported: u32,
    },
    /// A whole batch whose contents this version cannot read.
    #[error(
        "{file}: the batch at byte {offset} is whole, but {problem}: a newer server may have written it; start \
        that one again"
    )]
    InvalidRecord {
        /// The segment.
        file: PathBuf,
        /// Where the batch stands.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry of a shard is missing, or there twice.
    #[error(
        "log damaged: {file}: the batch at byte {offset} has entry {found} of shard {shard}, expected entry \
        {expected}; {REMEDY}"
    )]
    IndexGap {
        /// The segment.
        file: PathBuf,
        /// Where the batch stands.
        offset: u64,
        /// The shard.
        shard: u16,
        /// The index that was found.
        found: u64,
        /// The index that should follow.
        expected: u64,
    },
    /// Entries are neither in the log nor in the snapshot that it goes on from.
    #[error(
        "log damaged: {file}: the segment begins after entry {after} of shard {shard}, but what is there before it, \
        {found_in}, ends with entry {found}; {REMEDY}"
    )]
    MissingEntries {
        /// The segment that comes after them.
        file: PathBuf,
        /// The shard.
        shard: u16,
        /// The newest entry that stood before the segment.
        after: u64,
        /// The newest entry that was found.
        found: u64,
        /// Where: in the log, or in a snapshot.
        found_in: &'static str,
    },
    /// A shard's snapshot holds entries that its log has never had.
    #[error(
        "log damaged: {wal_directory}: the snapshot of shard {shard} ends with entry {snapshot}, the log with entry \
        {found}: an older log was put back, or its end is lost; {REMEDY}"
    )]
    BehindSnapshot {
        /// Where the logs are.
        wal_directory: PathBuf,
        /// The shard.
        shard: u16,
        /// The newest entry of the snapshot.
        snapshot: u64,
        /// The newest entry that the log knows of; 0: none.
        found: u64,
    },
    /// An entry of a shard is of an earlier term than the entry before it.
    #[error(
        "log damaged: {file}: the batch at byte {offset} has entry {index} of shard {shard} with term {found}, \
        after term {before}; {REMEDY}"
    )]
    TermDecreased {
        /// The segment.
        file: PathBuf,
        /// Where the batch stands.
        offset: u64,
        /// The shard.
        shard: u16,
        /// The entry's index.
        index: u64,
        /// Its term.
        found: u64,
        /// The term of the entry before it.
        before: u64,
    },
    /// The shard refused an entry.
    #[error("{file}: entry {index} of shard {shard}, in the batch at byte {offset}, cannot be applied: {source}")]
    Refused {
        /// The segment.
        file: PathBuf,
        /// Where the batch stands.
        offset: u64,
        /// The shard.
        shard: u16,
        /// The entry's index.
        index: u64,
        /// Why.
        source: super::Refusal,
    },
    /// The system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
