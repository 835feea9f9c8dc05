//! What goes to a disk or to a node in one piece: several items behind one header and one checksum.
//!
//! Place in the flow: step 6 for batches of the log, step 7 for frames between nodes.
//!
//! ```text
//!  0         4         8         12                20        24
//! +---------+---------+---------+-----------------+---------+-------------------------------+
//! | magic   | length  | crc32c  | tag             | count   | count × (length, item)        |
//! +---------+---------+---------+-----------------+---------+-------------------------------+
//! ```
//! `magic` is `EYRB` for a batch of records, whose tag is its number, and `EYRF` for a frame of messages, whose tag is
//! the node that sent it. Fixed fields are little-endian. `length` is that of the whole; the checksum is over all that
//! stands behind it. An item's length is a number as in `wire.rs`.
//!
//! Invariants: an envelope has exactly one encoding; its length and checksum are checked before anything else is
//! believed.

use bytes::Bytes;

use crate::wire::{put_number, DecodeError, Reader};

/// The bytes of the header.
pub const ENVELOPE_HEADER_BYTES: usize = 24;

/// The longest envelope that is read: a frame is at most its node's budget and one message above it, a batch at most
/// what the groups of a core give out in a turn.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The most items in one envelope.
pub const ENVELOPE_ITEMS_MAX: usize = 1 << 20;

/// Room that an envelope begins with: most hold a few small messages.
const FIRST_BYTES: usize = 256;

/// Where the checksum begins to count.
const CHECKED_FROM: usize = 12;

/// What an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvelopeKind {
    Batch,
    Frame,
}

impl EnvelopeKind {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Batch => *b"EYRB",
            Self::Frame => *b"EYRF",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Batch => "a batch",
            Self::Frame => "a frame",
        }
    }
}

/// An envelope that is being filled.
#[derive(Debug)]
pub(super) struct EnvelopeWriter {
    bytes: Vec<u8>,
    item: Vec<u8>,
    count: u32,
}

impl EnvelopeWriter {
    pub(super) fn new(kind: EnvelopeKind, tag: u64) -> Self {
        let mut bytes = Vec::with_capacity(FIRST_BYTES);
        bytes.resize(ENVELOPE_HEADER_BYTES, 0);
        bytes[..4].copy_from_slice(&kind.magic());
        bytes[12..20].copy_from_slice(&tag.to_le_bytes());
        Self { bytes, item: Vec::new(), count: 0 }
    }

    pub(super) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.item.clear();
        encode(&mut self.item);
        put_number(&mut self.bytes, self.item.len() as u64);
        self.bytes.extend_from_slice(&self.item);
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    pub(super) fn byte_length(&self) -> usize {
        self.bytes.len()
    }

    /// Completes the header.
    pub(super) fn finish(mut self) -> Vec<u8> {
        assert!(self.bytes.len() <= ENVELOPE_BYTES_MAX, "an envelope of {} bytes", self.bytes.len());
        let length = self.bytes.len() as u32;
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[20..24].copy_from_slice(&self.count.to_le_bytes());
        let checksum = crc32c::crc32c(&self.bytes[CHECKED_FROM..]);
        self.bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// The length of the envelope that begins with `header`, of which at least 8 bytes are there; for whoever reads a
/// stream and must know how much to wait for.
pub fn envelope_length(header: &[u8]) -> Result<usize, DecodeError> {
    let word = |at: usize| header.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let magic = word(0).ok_or(DecodeError::Truncated("an envelope's header"))?;
    let length = u32::from_le_bytes(word(4).ok_or(DecodeError::Truncated("an envelope's header"))?) as usize;
    let known = [EnvelopeKind::Batch, EnvelopeKind::Frame].iter().any(|kind| kind.magic() == magic);
    if !known || !(ENVELOPE_HEADER_BYTES..=ENVELOPE_BYTES_MAX).contains(&length) {
        return Err(DecodeError::OutOfRange("an envelope's header"));
    }
    Ok(length)
}

/// Checks header and checksum of an envelope, which is all of `bytes`, and gives its tag and its items one by one.
pub(super) fn open(kind: EnvelopeKind, bytes: &Bytes) -> Result<(u64, Items), DecodeError> {
    let what = kind.name();
    let length = envelope_length(bytes)?;
    if bytes.len() < ENVELOPE_HEADER_BYTES || bytes.len() < length {
        return Err(DecodeError::Truncated(what));
    }
    if bytes.len() > length {
        return Err(DecodeError::LeftOver(what));
    }
    if bytes[..4] != kind.magic() {
        return Err(DecodeError::OutOfRange(what));
    }
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if crc32c::crc32c(&bytes[CHECKED_FROM..]) != word(8) {
        return Err(DecodeError::Checksum(what));
    }
    let tag = u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes"));
    let left = word(20) as usize;
    if left > ENVELOPE_ITEMS_MAX || left > bytes.len() - ENVELOPE_HEADER_BYTES {
        return Err(DecodeError::OutOfRange(what));
    }
    Ok((tag, Items { reader: Reader::new(bytes.slice(ENVELOPE_HEADER_BYTES..)), left, what, done: false }))
}

/// The items of an envelope. Ends after the first error.
pub(super) struct Items {
    reader: Reader,
    left: usize,
    what: &'static str,
    done: bool,
}

impl Iterator for Items {
    type Item = Result<Bytes, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = if self.left == 0 {
            self.done = true;
            self.reader.end(self.what).err().map(Err)
        } else {
            self.left -= 1;
            Some(self.reader.bytes(ENVELOPE_BYTES_MAX, self.what))
        };
        self.done |= matches!(item, Some(Err(_)));
        item
    }
}
