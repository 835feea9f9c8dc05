//! Writes the stream of a shard, and what stands around the streams in a whole-database file.
//!
//! Place in the flow: whoever walks a shard pushes its entries and takes the bytes away from the buffer that it gives;
//! a client that saves a database puts the streams into one file.
//!
//! Invariants:
//! - The same header and the same entries give the same bytes, however often the buffer is emptied.
//! - What is held is one chunk. The buffer grows by one message at a time.
//! - An entry that no reader would take is refused, and nothing of it is written.
//!
//! Deliberately not here: the walk, the file, and what the bytes of a value mean.

use super::columns::Columns;
use super::entry::{Entry, Order};
use super::error::WriteError;
use super::message::{body, encode_compressed, FileFooter, FileHeader, LargeValue, ShardFooter, ShardHeader, Totals};
use super::wire::{put_bytes, put_envelope, put_envelope_of};
use super::{MAX_INLINE_VALUE_BYTES, VALUE_PART_BYTES};
use crate::key::slots_of_shard;
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Compresses a chunk: appends one Zstandard frame with the bytes that it is given. The same bytes must always give the
/// same frame.
pub type Compress = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// Writes the stream of one shard into a buffer of the caller, who may empty it between any two calls.
pub struct ShardWriter {
    header: ShardHeader,
    slots: std::ops::Range<u16>,
    order: Order,
    columns: Columns,
    compress: Option<Compress>,
    /// Bytes of the large value that have not come yet.
    part_left: u64,
    totals: Totals,
    messages: u64,
    stream_bytes: u64,
    chain: u32,
    /// A message's body before it is written.
    body: Vec<u8>,
    compressed: Vec<u8>,
}

impl std::fmt::Debug for ShardWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { header, totals, messages, stream_bytes, .. } = self;
        let mut fields = formatter.debug_struct("ShardWriter");
        fields.field("header", header).field("totals", totals).field("messages", messages);
        fields.field("stream_bytes", stream_bytes).finish_non_exhaustive()
    }
}

impl ShardWriter {
    /// Begins a stream: the header is in `out`.
    ///
    /// # Panics
    /// If the header names a shard that is none of its `shard_count`, or an index of more than 48 bits.
    pub fn new(header: ShardHeader, out: &mut Vec<u8>) -> Self {
        assert!(header.shard < header.shard_count && header.index < 1 << 48, "a header of this node: {header:?}");
        let mut writer = Self {
            header,
            slots: slots_of_shard(header.shard, header.shard_count),
            order: Order::default(),
            columns: Columns::default(),
            compress: None,
            part_left: 0,
            totals: Totals::default(),
            messages: 0,
            stream_bytes: 0,
            chain: 0,
            body: header.encode(),
            compressed: Vec::new(),
        };
        writer.put(body::SHARD_HEADER, out);
        writer
    }

    /// Compresses the chunks that are smaller then.
    #[must_use]
    pub fn compressed_by(mut self, compress: Compress) -> Self {
        self.compress = Some(compress);
        self
    }

    /// Takes the next entry in the order of slots and, within a slot, of the keys' bytes; its value has 1 to
    /// [`MAX_INLINE_VALUE_BYTES`]. Appends a chunk to `out` when one is full.
    #[inline]
    pub fn push(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let value_bytes = entry.value.len();
        if value_bytes == 0 || value_bytes > MAX_INLINE_VALUE_BYTES {
            return Err(WriteError::ValueLength { bytes: value_bytes as u64 });
        }
        let (shared, index_behind) = self.next_key(entry.slot, entry.key, entry.version)?;
        self.columns.push(entry, shared, index_behind);
        self.order.advance(entry.slot, shared, &entry.key[shared..]);
        self.count(entry.key, value_bytes as u64, entry.expires_at_us);
        if self.columns.is_full() {
            self.close_chunk(out);
        }
        Ok(())
    }

    /// Takes the next entry, in the same order, if its value is longer than [`MAX_INLINE_VALUE_BYTES`]. Its bytes
    /// follow: [`ShardWriter::push_part`].
    pub fn begin_large(&mut self, entry: &LargeValue<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if entry.value_bytes <= MAX_INLINE_VALUE_BYTES as u64 || entry.value_bytes > MAX_VALUE_BYTES as u64 {
            return Err(WriteError::ValueLength { bytes: entry.value_bytes });
        }
        let (shared, _) = self.next_key(entry.slot, entry.key, entry.version)?;
        self.close_chunk(out);
        self.body = entry.encode(self.header.index);
        self.put(body::LARGE_VALUE, out);
        self.order.advance(entry.slot, shared, &entry.key[shared..]);
        self.count(entry.key, entry.value_bytes, entry.expires_at_us);
        self.totals.large_values += 1;
        self.part_left = entry.value_bytes;
        Ok(())
    }

    /// Takes the next bytes of a large value: [`VALUE_PART_BYTES`], or what is left of it.
    pub fn push_part(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        let expected = self.part_left.min(VALUE_PART_BYTES as u64);
        if bytes.len() as u64 != expected || expected == 0 {
            return Err(WriteError::PartLength { bytes: bytes.len() as u64, expected });
        }
        self.put_of(body::VALUE_PART, out, |_, out| {
            out.reserve(bytes.len() + 64);
            put_bytes(out, 1, bytes);
        });
        self.part_left -= expected;
        Ok(())
    }

    /// Ends the stream: appends what is left and the footer, which it returns.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<ShardFooter, WriteError> {
        self.no_part_is_due()?;
        self.close_chunk(out);
        let Self { totals, messages, stream_bytes, .. } = self;
        let mut footer = ShardFooter { totals, messages, stream_bytes, crc32c: 0 };
        self.body = footer.encode();
        self.put(body::SHARD_FOOTER, out);
        footer.crc32c = self.chain;
        Ok(footer)
    }

    /// What has been pushed.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Bytes that have been appended to the buffer, in all.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// What the key has in common with the last one, and how far its version is behind; if it may come next.
    #[inline]
    fn next_key(&self, slot: u16, key: &[u8], version: u64) -> Result<(usize, u64), WriteError> {
        self.no_part_is_due()?;
        if key.len() > MAX_KEY_BYTES {
            return Err(WriteError::KeyTooLong { bytes: key.len() });
        }
        if !self.slots.contains(&slot) {
            return Err(WriteError::ForeignSlot { slot, shard: self.header.shard });
        }
        let (shared, follows) = self.order.compare(slot, key);
        if !follows {
            let last_slot = self.order.last_slot().unwrap_or_default();
            return Err(WriteError::OutOfOrder { slot, last_slot });
        }
        let (index, snapshot_index) = (version >> 16, self.header.index);
        let behind = snapshot_index.checked_sub(index).ok_or(WriteError::LaterVersion { index, snapshot_index })?;
        Ok((shared, behind))
    }

    #[inline]
    fn no_part_is_due(&self) -> Result<(), WriteError> {
        match self.part_left {
            0 => Ok(()),
            left => Err(WriteError::PartLength { bytes: 0, expected: left.min(VALUE_PART_BYTES as u64) }),
        }
    }

    #[inline]
    fn count(&mut self, key: &[u8], value_bytes: u64, expires_at_us: Option<i64>) {
        self.totals.entries += 1;
        self.totals.key_bytes += key.len() as u64;
        self.totals.value_bytes += value_bytes;
        self.totals.expiring += u64::from(expires_at_us.is_some());
    }

    fn close_chunk(&mut self, out: &mut Vec<u8>) {
        if self.columns.is_empty() {
            return;
        }
        let Some(compress) = &mut self.compress else {
            return self.put_of(body::CHUNK, out, Columns::take);
        };
        self.body.clear();
        self.columns.take(&mut self.body);
        self.compressed.clear();
        compress(&self.body, &mut self.compressed);
        let packed = encode_compressed(self.body.len(), &self.compressed);
        if packed.len() < self.body.len() {
            self.body = packed;
            self.put(body::COMPRESSED_CHUNK, out);
        } else {
            self.put(body::CHUNK, out);
        }
    }

    /// Appends a message with the body that is prepared.
    fn put(&mut self, number: u32, out: &mut Vec<u8>) {
        let body = std::mem::take(&mut self.body);
        self.put_of(number, out, |_, out| out.extend_from_slice(&body));
        self.body = body;
    }

    /// Appends a message whose body `body` appends.
    fn put_of(&mut self, number: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Columns, &mut Vec<u8>)) {
        let before = out.len();
        put_envelope_of(out, &mut self.chain, number, |out| body(&mut self.columns, out));
        self.messages += 1;
        self.stream_bytes += (out.len() - before) as u64;
    }
}

/// Writes what stands around the streams of the shards in a whole-database file.
#[derive(Debug)]
pub struct FileWriter {
    shard_count: u16,
    shards_added: u16,
    totals: Totals,
    file_bytes: u64,
    shards_crc32c: u32,
}

impl FileWriter {
    /// Begins a file: the header is in `out`. The streams of the shards follow as they are, in their order.
    pub fn new(header: FileHeader, out: &mut Vec<u8>) -> Self {
        let (before, mut chain) = (out.len(), 0);
        put_envelope(out, &mut chain, body::FILE_HEADER, &header.encode());
        Self {
            shard_count: header.shard_count,
            shards_added: 0,
            totals: Totals::default(),
            file_bytes: (out.len() - before) as u64,
            shards_crc32c: crc32c::crc32c(&chain.to_le_bytes()),
        }
    }

    /// Counts the next shard, whose stream of `stream_bytes`, footer included, is in the file.
    pub fn shard(&mut self, footer: &ShardFooter, stream_bytes: u64) {
        self.shards_added += 1;
        self.totals.add(&footer.totals);
        self.file_bytes += stream_bytes;
        self.shards_crc32c = crc32c::crc32c_append(self.shards_crc32c, &footer.crc32c.to_le_bytes());
    }

    /// Ends the file.
    ///
    /// # Panics
    /// If not all shards have been added.
    pub fn finish(self, out: &mut Vec<u8>) -> FileFooter {
        let Self { shard_count, shards_added, totals, file_bytes, shards_crc32c } = self;
        assert_eq!(shards_added, shard_count, "a file holds every shard");
        let footer = FileFooter { totals, shard_count, file_bytes, shards_crc32c };
        put_envelope(out, &mut 0, body::FILE_FOOTER, &footer.encode());
        footer
    }
}
