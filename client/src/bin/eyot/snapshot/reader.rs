//! A snapshot's file as what is in it: headers, entries, footers.
//!
//! Place in the flow: what `verify`, `inspect`, `export` and `restore` read through.
//!
//! Invariants:
//! - Every byte is checked on the way, and the end is a footer, before [`read`] says that it is done.
//! - An entry comes whole, its value valid, however its bytes were split over chunks and parts. Memory: a piece, a
//!   message, and one value, which grows with the bytes that have come.
//!
//! Deliberately not here: what anybody does with the entries.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use eyot_protocol::snapshot::{Decoder, Entry, Event, FileHeader, ShardFooter, ShardHeader, SnapshotError};
use eyot_protocol::tlv;

use super::compression::decompressor;
use super::failure::Failure;

/// What is read at a time: large enough that most messages lie whole in it.
const PIECE_BYTES: usize = 1 << 20;

/// What a file holds, in order; behind the last shard's footer comes at most the file's, which the decoder checks.
pub enum Item<'a> {
    FileHeader(FileHeader),
    ShardHeader(ShardHeader),
    Entry(Entry<'a>),
    ShardFooter(ShardFooter),
}

/// Takes the items; and hears how many bytes of the file were read, for a bar.
pub trait Visitor {
    /// Why it wants no more.
    type Error: From<Failure>;

    fn item(&mut self, item: Item<'_>) -> Result<(), Self::Error>;

    fn read(&mut self, _file_bytes: u64) {}
}

/// Reads all of `path`.
pub fn read<V: Visitor>(path: &Path, visitor: &mut V) -> Result<(), V::Error> {
    let mut file = File::open(path).map_err(|error| Failure::file("open", path, error))?;
    let mut entries = Entries::default();
    let mut decoder = Decoder::new().decompressed_by(decompressor());
    let mut buffer = vec![0; PIECE_BYTES];
    let damaged = |error: SnapshotError| Failure::Damaged { source_name: path.display().to_string(), error };
    let mut file_bytes = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::file("read", path, error).into()),
        };
        let mut piece = &buffer[..count];
        while let Some(event) = decoder.next(&mut piece).map_err(damaged)? {
            entries.take(event, path, visitor)?;
        }
        file_bytes += count as u64;
        visitor.read(file_bytes);
    }
    Ok(decoder.finish().map_err(damaged)?)
}

/// Bytes of a file, for a bar.
pub fn length(path: &Path) -> Result<u64, Failure> {
    std::fs::metadata(path).map(|metadata| metadata.len()).map_err(|error| Failure::file("open", path, error))
}

/// Puts large values together.
#[derive(Default)]
struct Entries {
    slot: u16,
    key: Vec<u8>,
    version: u64,
    expires_at_us: Option<i64>,
    value: Vec<u8>,
}

impl Entries {
    fn take<V: Visitor>(&mut self, event: Event<'_>, path: &Path, visitor: &mut V) -> Result<(), V::Error> {
        let damaged = |error: SnapshotError| Failure::Damaged { source_name: path.display().to_string(), error };
        match event {
            Event::FileHeader(header) => visitor.item(Item::FileHeader(header)),
            Event::ShardHeader(header) => visitor.item(Item::ShardHeader(header)),
            Event::ShardFooter(footer) => visitor.item(Item::ShardFooter(footer)),
            Event::Chunk(mut chunk) => {
                while let Some(entry) = chunk.next_entry().map_err(damaged)? {
                    check_value(&entry, path)?;
                    visitor.item(Item::Entry(entry))?;
                }
                Ok(())
            }
            Event::LargeValue(large) => {
                self.key.clear();
                self.key.extend_from_slice(large.key);
                (self.slot, self.version, self.expires_at_us) = (large.slot, large.version, large.expires_at_us);
                Ok(())
            }
            Event::ValuePart { bytes, is_last } => {
                self.value.extend_from_slice(bytes);
                if is_last {
                    let value = std::mem::take(&mut self.value);
                    let Self { slot, ref key, version, expires_at_us, .. } = *self;
                    let entry = Entry { slot, key, value: &value, version, expires_at_us };
                    check_value(&entry, path)?;
                    visitor.item(Item::Entry(entry))?;
                }
                Ok(())
            }
            Event::FileFooter(_) | Event::Unknown => Ok(()),
        }
    }
}

fn check_value(entry: &Entry<'_>, path: &Path) -> Result<(), Failure> {
    let mut decoder = tlv::Decoder::new(entry.value);
    let checked = decoder.value().map(|_| ()).and_then(|()| decoder.finish());
    checked.map_err(|error| Failure::Value {
        file: path.display().to_string(),
        key: entry.key.escape_ascii().to_string(),
        reason: error.to_string(),
    })
}
