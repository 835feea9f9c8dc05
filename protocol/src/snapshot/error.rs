//! What can be wrong with a snapshot that is read, and with one that is written.
//!
//! Place in the flow: recovery answers a [`SnapshotError`] by falling back to an older snapshot, a restore by stopping;
//! both show its text. A [`WriteError`] is a bug of whoever walks the shard, and ends that snapshot only.

use super::{FORMAT_VERSION, MAX_MESSAGE_BYTES};

/// Bytes that are not a whole snapshot, and where that was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("snapshot message {message}, which begins at byte {offset}: {problem}; {}", problem.remedy())]
pub struct SnapshotError {
    /// Where the message begins (with its length), counted from the first byte that the decoder was given.
    pub offset: u64,
    /// Its number, from 0.
    pub message: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first message is none of ours.
    #[error("this is not the beginning of a snapshot of Eyot")]
    NotASnapshot,
    /// Written by a later version of Eyot, in a format that this one does not know.
    #[error("it has format version {found}, and this program reads version {FORMAT_VERSION}")]
    FutureVersion {
        /// The version that the header names.
        found: u32,
    },
    /// A length above [`MAX_MESSAGE_BYTES`].
    #[error("it claims to have {length} bytes, and no message has more than {MAX_MESSAGE_BYTES}")]
    TooLong {
        /// What it claims, in bytes.
        length: u32,
    },
    /// The bytes are not those that were written, or messages are missing, repeated or from elsewhere.
    #[error("its checksum is {stored:#010x}, and its bytes after those before it give {computed:#010x}")]
    Checksum {
        /// As it stands there.
        stored: u32,
        /// As it would be right.
        computed: u32,
    },
    /// The checksum holds, and the message does not keep the format.
    #[error("{what}")]
    Malformed {
        /// What it does.
        what: &'static str,
    },
    /// A message where another belongs.
    #[error("{found} stands where {expected} belongs")]
    Misplaced {
        /// What is there.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A key that does not come after the one before it.
    #[error("a key of slot {slot} does not come after the key before it")]
    OutOfOrder {
        /// The key's slot.
        slot: u16,
    },
    /// A key of another shard.
    #[error("a key of slot {slot} does not belong to shard {shard} of {shard_count}")]
    ForeignSlot {
        /// The key's slot.
        slot: u16,
        /// The shard of the stream.
        shard: u16,
        /// How many there are.
        shard_count: u16,
    },
    /// A number that says something else than what is there.
    #[error("{what}: it says {stated}, and it is {counted}")]
    Disagrees {
        /// Which number.
        what: &'static str,
        /// As it stands there.
        stated: u64,
        /// As it is.
        counted: u64,
    },
    /// The bytes end before the footer does.
    #[error("the bytes end here, {present} bytes into the message, and the footer has not come")]
    Cut {
        /// Bytes of the unfinished message.
        present: u64,
    },
    /// Bytes after the footer.
    #[error("it stands behind the last footer, where nothing belongs")]
    Trailing,
    /// A compressed chunk, and the decoder was not given the means.
    #[error("it is compressed, and this reader does not decompress")]
    Compressed,
    /// A compressed chunk that is none.
    #[error("its compressed bytes do not give a chunk of the {chunk_bytes} bytes that it claims")]
    Decompression {
        /// The length that it claims, in bytes.
        chunk_bytes: u32,
    },
}

impl Problem {
    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotASnapshot => "name a file that `eyot snapshot save` wrote, or a `.snap` file of a data directory",
            Self::FutureVersion { .. } => "read it with the version of Eyot that wrote it, or a later one",
            Self::Cut { .. } => "it was not written, or not copied, to its end: take another copy or an older snapshot",
            Self::Compressed => "read it with the `eyot` command",
            _ => "it is damaged: take another copy or an older snapshot",
        }
    }

    /// The name of the kind of problem, as the golden vectors give it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotASnapshot => "NotASnapshot",
            Self::FutureVersion { .. } => "FutureVersion",
            Self::TooLong { .. } => "TooLong",
            Self::Checksum { .. } => "Checksum",
            Self::Malformed { .. } => "Malformed",
            Self::Misplaced { .. } => "Misplaced",
            Self::OutOfOrder { .. } => "OutOfOrder",
            Self::ForeignSlot { .. } => "ForeignSlot",
            Self::Disagrees { .. } => "Disagrees",
            Self::Cut { .. } => "Cut",
            Self::Trailing => "Trailing",
            Self::Compressed => "Compressed",
            Self::Decompression { .. } => "Decompression",
        }
    }
}

/// An entry that the writer does not take, since no reader would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Entries are pushed in the order of slots, and of keys within a slot.
    #[error("an entry of slot {slot} was pushed after one of slot {last_slot} that does not come before it")]
    OutOfOrder {
        /// Its slot.
        slot: u16,
        /// The slot of the entry before it.
        last_slot: u16,
    },
    /// The slot is another shard's.
    #[error("an entry of slot {slot} was pushed to a snapshot of shard {shard}, which does not have it")]
    ForeignSlot {
        /// Its slot.
        slot: u16,
        /// The shard that is written.
        shard: u16,
    },
    /// Longer than [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES).
    #[error("a key of {bytes} bytes is longer than any may be")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// No value, or one whose length asks for the other way to push it.
    #[error("a value of {bytes} bytes was pushed whole, or begun in parts, where the other belongs")]
    ValueLength {
        /// Its length.
        bytes: u64,
    },
    /// Written after the index that the header names.
    #[error("an entry of log index {index} was pushed to a snapshot at index {snapshot_index}")]
    LaterVersion {
        /// The entry's index.
        index: u64,
        /// The snapshot's.
        snapshot_index: u64,
    },
    /// Parts are 1 MiB long, the last one what is left; something else is pushed only when the value is whole.
    #[error("{bytes} bytes of a large value were pushed where {expected} belong")]
    PartLength {
        /// Bytes that were pushed; 0 for another entry or the end.
        bytes: u64,
        /// Bytes that belong there.
        expected: u64,
    },
}
