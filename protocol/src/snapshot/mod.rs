//! Snapshots: the stream of a shard, and the file of a whole database.
//!
//! Place in the flow: beside it. Snapshots, recovery, backup and restore write and read these bytes; the log is cut
//! below them.
//!
//! ```text
//! stream   | length u32 | message | length u32 | message | ...
//!
//! message  | body | 7d | crc32c u32 |
//!          a SnapshotMessage of protocol/proto/eyot/snapshot/v1/snapshot.proto, at most 4 MiB; its checksum is its
//!          last field. crc32c: of the length and the body, starting from the crc32c of the message before in the same
//!          shard's stream; from 0 in a shard header, a file header and a file footer.
//!
//! shard    | shard header | chunk, or large value and its parts | ... | shard footer |
//!
//! file     | file header | shard 0 | shard 1 | ... | file footer |
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `wire.rs` | fields of Protocol Buffers, and the envelope with its checksum |
//! | `message.rs` | headers, footers, large values |
//! | `entry.rs` | one entry, and the order of entries |
//! | `columns.rs`, `writer.rs` | writing: entries into chunks, chunks into a stream |
//! | `chunk.rs`, `decoder.rs` | reading: bytes as they come into messages, chunks into entries |
//!
//! Invariants:
//! - The same entries at the same index give the same bytes: sorted by slot and key, and nothing depends on time, on
//!   the number of cores or on how the bytes were handed on.
//! - Every bit stands under a checksum, and every checksum under the next one: a message that is damaged, missing,
//!   repeated or from elsewhere is found where it stands.
//! - What has no footer is not a snapshot, wherever it ends.
//! - Nothing is allocated from a length that was read; a decoder holds one message.
//!
//! Deliberately not here: files, and Zstandard itself, which a caller passes in as a function.
//!
//! The written contract, with byte diagrams, is `docs/SNAPSHOT.md`.

mod error;
mod wire;

mod entry;
mod message;

mod columns;
mod writer;

mod chunk;
mod decoder;

pub use chunk::Chunk;
pub use decoder::{Decoder, Decompress, Event};
pub use entry::Entry;
pub use error::{Problem, SnapshotError, WriteError};
pub use message::{FileFooter, FileHeader, LargeValue, ShardFooter, ShardHeader, Totals};
pub use writer::{Compress, FileWriter, ShardWriter};

/// What every header begins with.
pub const FORMAT_NAME: &[u8] = b"eyot snapshot";

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Longest message, without its length (4 MiB): what a reader may have to hold.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A chunk is closed when its keys, its values and [`ENTRY_CONTENT_BYTES`] for each entry come to this (256 KiB): large
/// enough that what a message costs is nothing, small enough to be written in one go.
pub const CHUNK_CONTENT_BYTES: usize = 256 << 10;

/// What an entry counts beside its key and its value, about what its other columns take.
pub const ENTRY_CONTENT_BYTES: usize = 8;

/// Most entries of a chunk: so many empty ones fill it. A reader's work on one message has this bound.
pub const MAX_CHUNK_ENTRIES: usize = CHUNK_CONTENT_BYTES / ENTRY_CONTENT_BYTES;

/// Longest value that stands in a chunk (1 MiB).
pub const MAX_INLINE_VALUE_BYTES: usize = 1 << 20;

/// Bytes of each part of a longer value, but for the last (1 MiB).
pub const VALUE_PART_BYTES: usize = 1 << 20;

// A chunk that is one entry short of its end, and then gets the largest one, fits a message: its keys and values, and
// at most 5 + 5 + 5 + 10 + 5 bytes an entry in the columns of numbers, 5 + 10 more where all expire, and the fields'
// heads.
const _: () = assert!(
    CHUNK_CONTENT_BYTES + crate::limits::MAX_KEY_BYTES + MAX_INLINE_VALUE_BYTES + MAX_CHUNK_ENTRIES * 45 + 1024
        <= MAX_MESSAGE_BYTES
);

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_has_the_same_diagram_and_bounds() {
        let source = include_str!("mod.rs");
        let lines = source.lines().map(|line| line.strip_prefix("//!").unwrap_or(line));
        let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
        let diagram: Vec<&str> =
            lines.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```").collect();
        assert_eq!(diagram.len(), 10);
        let document = include_str!("../../../docs/SNAPSHOT.md");
        assert!(document.contains(&diagram.join("\n")), "docs/SNAPSHOT.md differs from the diagram of snapshot/mod.rs");
        for (name, value) in [
            ("MAX_MESSAGE_BYTES", super::MAX_MESSAGE_BYTES),
            ("CHUNK_CONTENT_BYTES", super::CHUNK_CONTENT_BYTES),
            ("ENTRY_CONTENT_BYTES", super::ENTRY_CONTENT_BYTES),
            ("MAX_CHUNK_ENTRIES", super::MAX_CHUNK_ENTRIES),
            ("MAX_INLINE_VALUE_BYTES", super::MAX_INLINE_VALUE_BYTES),
            ("VALUE_PART_BYTES", super::VALUE_PART_BYTES),
        ] {
            let row = document.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")));
            let shown = row.and_then(|row| row.split(' ').next()).expect("a row of the bound").replace(',', "");
            assert_eq!(shown, value.to_string(), "{name}");
        }
    }
}
