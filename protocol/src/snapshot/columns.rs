//! The chunk that is being filled: entries come in, columns go out.
//!
//! Place in the flow: the writer pushes entries until the chunk is full, and writes it.
//!
//! Invariants:
//! - What is written depends on the entries alone: which columns have one element for all, and whether keys leave out
//!   what they share, follows from the content.
//! - A chunk is full at [`CHUNK_CONTENT_BYTES`], so the next entry is the first of another one, whoever writes.

use super::entry::Entry;
use super::wire::{put_bytes, put_number, put_varint, varint_bytes, zigzag};
use super::{CHUNK_CONTENT_BYTES, ENTRY_CONTENT_BYTES};

/// Columns of one chunk.
#[derive(Debug, Default)]
pub(super) struct Columns {
    key_bytes: Vec<u32>,
    shared_bytes: Vec<u32>,
    /// Whole keys, one behind the other.
    keys: Vec<u8>,
    value_bytes: Vec<u32>,
    values: Vec<u8>,
    index_behind: Vec<u64>,
    position: Vec<u32>,
    expiring_gap: Vec<u32>,
    /// Entries since the last one that expires.
    gap: u32,
    expires_at_us: Vec<i64>,
    /// Sum of `shared_bytes`, and of what its numbers take.
    shared_sum: usize,
    shared_encoded_bytes: usize,
    /// A column as it is written.
    packed: Vec<u8>,
}

impl Columns {
    pub(super) fn is_empty(&self) -> bool {
        self.key_bytes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.keys.len() + self.values.len() + self.key_bytes.len() * ENTRY_CONTENT_BYTES >= CHUNK_CONTENT_BYTES
    }

    /// Appends an entry whose key has its first `shared` bytes in common with the key before it in the stream.
    #[inline]
    pub(super) fn push(&mut self, entry: &Entry<'_>, shared: usize, index_behind: u64) {
        let shared = if self.is_empty() { 0 } else { shared };
        self.key_bytes.push(entry.key.len() as u32);
        self.shared_bytes.push(shared as u32);
        self.shared_sum += shared;
        self.shared_encoded_bytes += varint_bytes(shared as u64);
        self.keys.extend_from_slice(entry.key);
        self.value_bytes.push(entry.value.len() as u32);
        self.values.extend_from_slice(entry.value);
        self.index_behind.push(index_behind);
        self.position.push(entry.version as u32 & 0xffff);
        match entry.expires_at_us {
            None => self.gap += 1,
            Some(at_us) => {
                self.expiring_gap.push(std::mem::take(&mut self.gap));
                self.expires_at_us.push(at_us);
            }
        }
    }

    /// Appends the chunk, a message without its envelope, and begins another one.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        put_number(out, 1, self.key_bytes.len() as u64);
        put_one_or_all(out, &mut self.packed, 2, &self.key_bytes);
        if self.leaves_out_shared() {
            put_packed(out, &mut self.packed, 3, self.shared_bytes.iter().copied().map(u64::from));
            self.packed.clear();
            let mut keys = self.keys.as_slice();
            for (&length, &shared) in self.key_bytes.iter().zip(&self.shared_bytes) {
                let (key, rest) = keys.split_at(length as usize);
                self.packed.extend_from_slice(&key[shared as usize..]);
                keys = rest;
            }
            put_bytes(out, 4, &self.packed);
        } else {
            put_bytes(out, 4, &self.keys);
        }
        put_one_or_all(out, &mut self.packed, 5, &self.value_bytes);
        put_bytes(out, 6, &self.values);
        put_one_or_all(out, &mut self.packed, 7, &self.index_behind);
        put_one_or_all(out, &mut self.packed, 8, &self.position);
        self.put_expiries(out);
        self.clear();
    }

    /// Whether the chunk is smaller when keys leave out what they share.
    fn leaves_out_shared(&self) -> bool {
        let written = self.keys.len() - self.shared_sum;
        let column = field_bytes(self.shared_encoded_bytes) + field_bytes(written);
        column < field_bytes(self.keys.len())
    }

    fn put_expiries(&mut self, out: &mut Vec<u8>) {
        let Some(&earliest) = self.expires_at_us.iter().min() else { return };
        put_packed(out, &mut self.packed, 9, self.expiring_gap.iter().copied().map(u64::from));
        put_number(out, 10, zigzag(earliest));
        // The difference of two 64-bit numbers, the earlier one taken away, always fits 64 bits without a sign.
        let after = self.expires_at_us.iter().map(|&at_us| at_us.wrapping_sub(earliest) as u64);
        put_packed(out, &mut self.packed, 11, after);
    }

    fn clear(&mut self) {
        let Self { key_bytes, shared_bytes, keys, value_bytes, values, index_behind, position, .. } = self;
        key_bytes.clear();
        shared_bytes.clear();
        keys.clear();
        value_bytes.clear();
        values.clear();
        index_behind.clear();
        position.clear();
        self.expiring_gap.clear();
        self.expires_at_us.clear();
        (self.gap, self.shared_sum, self.shared_encoded_bytes) = (0, 0, 0);
    }
}

/// What a field with bytes takes: its tag, its length and they themselves; nothing where there are none.
fn field_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else {
        1 + varint_bytes(bytes as u64) + bytes
    }
}

/// Appends a column: one element if it is the same for all entries, of which there is at least one.
fn put_one_or_all<T: Copy + PartialEq + Into<u64>>(out: &mut Vec<u8>, packed: &mut Vec<u8>, number: u32, column: &[T]) {
    let same = column.iter().all(|element| *element == column[0]);
    let elements = if same { &column[..1] } else { column };
    put_packed(out, packed, number, elements.iter().map(|&element| element.into()));
}

fn put_packed(out: &mut Vec<u8>, packed: &mut Vec<u8>, number: u32, column: impl Iterator<Item = u64>) {
    packed.clear();
    for element in column {
        put_varint(packed, element);
    }
    put_bytes(out, number, packed);
}
