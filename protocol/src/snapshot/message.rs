//! The small messages of a snapshot: headers, footers, and what announces a large value.
//!
//! Place in the flow: the writer encodes them, the decoder hands them out; chunks have files of their own.
//!
//! Deliberately not here: whether a message stands in its place, and whether a footer's numbers are true. The decoder
//! knows what came before.

use super::error::Problem;
use super::wire::{
    put_bytes, put_fixed32, put_message, put_number, put_number_always, unzigzag, zigzag, Field, Fields,
};
use super::{FORMAT_NAME, FORMAT_VERSION, MAX_INLINE_VALUE_BYTES};
use crate::key::SLOT_COUNT;
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// The highest number that the format gives to a field: one of these stands once.
pub(super) const HIGHEST_FIELD: u32 = 15;

/// The numbers of the envelope's fields.
pub(super) mod body {
    /// None of the bodies below.
    pub(crate) const UNKNOWN: u32 = 0;
    pub(crate) const FILE_HEADER: u32 = 1;
    pub(crate) const SHARD_HEADER: u32 = 2;
    pub(crate) const CHUNK: u32 = 3;
    pub(crate) const COMPRESSED_CHUNK: u32 = 4;
    pub(crate) const LARGE_VALUE: u32 = 5;
    pub(crate) const VALUE_PART: u32 = 6;
    pub(crate) const SHARD_FOOTER: u32 = 7;
    pub(crate) const FILE_FOOTER: u32 = 8;
    pub(crate) const CHECKSUM: u32 = 15;

    /// What a message is called in errors.
    pub(crate) const fn name(number: u32) -> &'static str {
        match number {
            FILE_HEADER => "a file's header",
            SHARD_HEADER => "a shard's header",
            CHUNK | COMPRESSED_CHUNK => "a chunk",
            LARGE_VALUE => "a large value",
            VALUE_PART => "a part of a value",
            SHARD_FOOTER => "a shard's footer",
            FILE_FOOTER => "a file's footer",
            _ => "a message of a later version",
        }
    }
}

/// What begins a whole-database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The random number of the node that the data came from.
    pub node_uuid: u128,
    /// How many shards follow: 1 to [`SLOT_COUNT`].
    pub shard_count: u16,
}

/// What begins a shard's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardHeader {
    /// The random number of the node that wrote it.
    pub node_uuid: u128,
    /// The shard, below `shard_count`.
    pub shard: u16,
    /// How many shards the node has: 1 to [`SLOT_COUNT`].
    pub shard_count: u16,
    /// The index of the last log entry that is in it; all before it are, and none after it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Behind which index the shard's log is needed with this snapshot: `index`, or less where parts of a large value
    /// stand in the log before it and the command that names them behind it. At most `index`.
    pub needed_after: u64,
}

/// An entry whose value is longer than [`MAX_INLINE_VALUE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeValue<'a> {
    /// The key's slot.
    pub slot: u16,
    /// The key.
    pub key: &'a [u8],
    /// Bytes of the value, which follow in parts.
    pub value_bytes: u64,
    /// Log index and position, as one number: index * 65,536 + position.
    pub version: u64,
    /// When it expires, in microseconds since the epoch.
    pub expires_at_us: Option<i64>,
}

/// What a stream or a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries, large ones included.
    pub entries: u64,
    /// Sum of the lengths of all keys.
    pub key_bytes: u64,
    /// Sum of the lengths of all values.
    pub value_bytes: u64,
    /// Entries that expire.
    pub expiring: u64,
    /// Entries whose value came in parts.
    pub large_values: u64,
}

/// What ends a shard's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardFooter {
    /// What the stream holds.
    pub totals: Totals,
    /// Messages before the footer.
    pub messages: u64,
    /// Bytes before the footer.
    pub stream_bytes: u64,
    /// The footer's own checksum, which covers the whole stream.
    pub crc32c: u32,
}

/// What ends a whole-database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFooter {
    /// What the file holds.
    pub totals: Totals,
    /// How many shards that were.
    pub shard_count: u16,
    /// Bytes before the footer.
    pub file_bytes: u64,
    /// Of the checksums of the file's header and of all shards' footers.
    pub shards_crc32c: u32,
}

impl FileHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_format(&mut body, self.node_uuid, self.shard_count);
        body
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Problem> {
        let common = Common::decode(body)?;
        Ok(Self { node_uuid: common.node_uuid, shard_count: common.shard_count })
    }
}

impl ShardHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_format(&mut body, self.node_uuid, self.shard_count);
        put_number(&mut body, 5, u64::from(self.shard));
        put_number(&mut body, 6, self.index);
        put_number(&mut body, 7, self.term);
        put_number(&mut body, 8, self.index - self.needed_after);
        body
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Problem> {
        let Common { node_uuid, shard_count } = Common::decode(body)?;
        let mut header = Self { node_uuid, shard: 0, shard_count, index: 0, term: 0, needed_after: 0 };
        let mut overlap = 0;
        let mut fields = Fields::of(body);
        while let Some((number, field)) = fields.next()? {
            match number {
                5 => header.shard = field.number_to(u64::from(shard_count) - 1)? as u16,
                6 => header.index = field.number_to(u64::MAX / MAX_COMMANDS_PER_ENTRY as u64)?,
                7 => header.term = field.number()?,
                8 => overlap = field.number()?,
                _ => {}
            }
        }
        let too_long = Problem::Malformed { what: "a header names more overlap with the log than there is log" };
        header.needed_after = header.index.checked_sub(overlap).ok_or(too_long)?;
        Ok(header)
    }
}

fn put_format(body: &mut Vec<u8>, node_uuid: u128, shard_count: u16) {
    put_bytes(body, 1, FORMAT_NAME);
    put_number(body, 2, u64::from(FORMAT_VERSION));
    put_bytes(body, 3, &node_uuid.to_be_bytes());
    put_number(body, 4, u64::from(shard_count));
}

/// The fields that both headers begin with.
struct Common {
    node_uuid: u128,
    shard_count: u16,
}

impl Common {
    fn decode(body: &[u8]) -> Result<Self, Problem> {
        Self::check_format(body)?;
        let (mut node_uuid, mut shard_count) = (None, 0);
        let mut fields = Fields::of(body);
        while let Some((number, field)) = fields.next()? {
            match number {
                3 => node_uuid = field.bytes()?.try_into().ok().map(u128::from_be_bytes),
                4 => shard_count = field.number_to(SLOT_COUNT as u64)? as u16,
                _ => {}
            }
        }
        let node_uuid = node_uuid.ok_or(Problem::Malformed { what: "a header's node_uuid is not of 16 bytes" })?;
        if shard_count == 0 {
            return Err(Problem::Malformed { what: "a header names no number of shards" });
        }
        Ok(Self { node_uuid, shard_count })
    }

    /// Comes before everything else: another version may have other fields.
    fn check_format(body: &[u8]) -> Result<(), Problem> {
        let mut fields = Fields::of(body);
        let mut version = None;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, field) if field.bytes()? != FORMAT_NAME => return Err(Problem::NotASnapshot),
                (2, field) => version = Some(field.number_to(u64::from(u32::MAX))? as u32),
                _ => {}
            }
        }
        match version {
            Some(FORMAT_VERSION) => Ok(()),
            Some(found) if found > FORMAT_VERSION => Err(Problem::FutureVersion { found }),
            _ => Err(Problem::Malformed { what: "a header names no format version" }),
        }
    }
}

impl<'a> LargeValue<'a> {
    /// `index` is the snapshot's; the caller has checked that the version is not later.
    pub(super) fn encode(&self, index: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.key.len() + 64);
        put_bytes(&mut body, 1, self.key);
        put_number(&mut body, 2, self.value_bytes);
        put_number(&mut body, 3, index - (self.version >> 16));
        put_number(&mut body, 4, self.version & 0xffff);
        if let Some(at_us) = self.expires_at_us {
            put_number_always(&mut body, 5, zigzag(at_us));
        }
        body
    }

    pub(super) fn decode(body: &'a [u8], index: u64) -> Result<Self, Problem> {
        let (mut key, mut value_bytes, mut behind, mut position, mut expires_at_us) = (&[][..], 0, 0, 0, None);
        let mut fields = Fields::of(body);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => key = field.bytes()?,
                2 => value_bytes = field.number_to(MAX_VALUE_BYTES as u64)?,
                3 => behind = field.number_to(index)?,
                4 => position = field.number_to(MAX_COMMANDS_PER_ENTRY as u64 - 1)?,
                5 => expires_at_us = Some(unzigzag(field.number()?)),
                _ => {}
            }
        }
        if key.len() > MAX_KEY_BYTES || value_bytes <= MAX_INLINE_VALUE_BYTES as u64 {
            return Err(Problem::Malformed { what: "a large value's key is too long, or its value too short" });
        }
        let version = (index - behind) << 16 | position;
        Ok(Self { slot: crate::key::slot(key), key, value_bytes, version, expires_at_us })
    }
}

/// The bytes of a part.
pub(super) fn decode_value_part(body: &[u8]) -> Result<&[u8], Problem> {
    let mut bytes = &[][..];
    let mut fields = Fields::of(body);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            bytes = field.bytes()?;
        }
    }
    Ok(bytes)
}

/// A compressed chunk: the length of the chunk in it, and its bytes.
pub(super) fn decode_compressed(body: &[u8]) -> Result<(u32, &[u8]), Problem> {
    let (mut compression, mut chunk_bytes, mut compressed) = (0, 0, &[][..]);
    let mut fields = Fields::of(body);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => compression = field.number()?,
            2 => chunk_bytes = field.number_to(super::MAX_MESSAGE_BYTES as u64)? as u32,
            3 => compressed = field.bytes()?,
            _ => {}
        }
    }
    if compression != COMPRESSION_ZSTD {
        return Err(Problem::Malformed { what: "a chunk is compressed in a way that this program does not know" });
    }
    Ok((chunk_bytes, compressed))
}

const COMPRESSION_ZSTD: u64 = 1;

pub(super) fn encode_compressed(chunk_bytes: usize, compressed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(compressed.len() + 16);
    put_number(&mut body, 1, COMPRESSION_ZSTD);
    put_number(&mut body, 2, chunk_bytes as u64);
    put_bytes(&mut body, 3, compressed);
    body
}

impl Totals {
    /// Adds those of another part.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.key_bytes += other.key_bytes;
        self.value_bytes += other.value_bytes;
        self.expiring += other.expiring;
        self.large_values += other.large_values;
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let numbers = [self.entries, self.key_bytes, self.value_bytes, self.expiring, self.large_values];
        for (number, value) in (1..).zip(numbers) {
            put_number(&mut body, number, value);
        }
        body
    }

    fn decode(field: Field<'_>) -> Result<Self, Problem> {
        let mut totals = Self::default();
        let mut fields = Fields::of(field.bytes()?);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => totals.entries = field.number()?,
                2 => totals.key_bytes = field.number()?,
                3 => totals.value_bytes = field.number()?,
                4 => totals.expiring = field.number()?,
                5 => totals.large_values = field.number()?,
                _ => {}
            }
        }
        Ok(totals)
    }

    /// Holds what a footer says against what was counted.
    pub(super) fn compare(&self, counted: &Self) -> Result<(), Problem> {
        check("the number of entries", self.entries, counted.entries)?;
        check("the bytes of all keys", self.key_bytes, counted.key_bytes)?;
        check("the bytes of all values", self.value_bytes, counted.value_bytes)?;
        check("the number of entries that expire", self.expiring, counted.expiring)?;
        check("the number of large values", self.large_values, counted.large_values)
    }
}

/// Refuses a number that says something else than what is there.
pub(super) fn check(what: &'static str, stated: u64, counted: u64) -> Result<(), Problem> {
    if stated == counted {
        Ok(())
    } else {
        Err(Problem::Disagrees { what, stated, counted })
    }
}

impl ShardFooter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_message(&mut body, 1, &self.totals.encode());
        put_number(&mut body, 2, self.messages);
        put_number(&mut body, 3, self.stream_bytes);
        body
    }

    pub(super) fn decode(body: &[u8], crc32c: u32) -> Result<Self, Problem> {
        let mut footer = Self { totals: Totals::default(), messages: 0, stream_bytes: 0, crc32c };
        let mut fields = Fields::of(body);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => footer.totals = Totals::decode(field)?,
                2 => footer.messages = field.number()?,
                3 => footer.stream_bytes = field.number()?,
                _ => {}
            }
        }
        Ok(footer)
    }
}

impl FileFooter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_message(&mut body, 1, &self.totals.encode());
        put_number(&mut body, 2, u64::from(self.shard_count));
        put_number(&mut body, 3, self.file_bytes);
        put_fixed32(&mut body, 4, self.shards_crc32c);
        body
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Problem> {
        let mut footer = Self { totals: Totals::default(), shard_count: 0, file_bytes: 0, shards_crc32c: 0 };
        let mut fields = Fields::of(body);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => footer.totals = Totals::decode(field)?,
                2 => footer.shard_count = field.number_to(SLOT_COUNT as u64)? as u16,
                3 => footer.file_bytes = field.number()?,
                4 => footer.shards_crc32c = field.fixed32()?,
                _ => {}
            }
        }
        Ok(footer)
    }
}
