//! What a connection has to send: bytes of its own, and large values by reference between them.
//!
//! Place in the flow: step 9 (reply). Replies are appended as bytes; a large value is noted at its place among them,
//! and so is a chunk of a long reply that was written elsewhere: it is copied as it is sent, a piece at a time.
//!
//! ```text
//! bytes       | $64\r\n | \r\n+OK\r\n$64\r\n | \r\n |
//! references          ▲ value A            ▲ value B        each before the byte at its place
//! ```
//!
//! Invariants:
//! - References stand in the order of their places, and no place is beyond the bytes.
//! - A value is pinned until the last send of it has completed, since every piece has a handle.

use std::collections::VecDeque;
use std::ops::Range;

use eyot_ring::{MappedBytes, Piece, MAX_PIECES};

use crate::router::LargeReply;

/// Bytes of one send that has a large value in it: some tenths of a millisecond of copying by the kernel, so that a
/// core that does it itself is not held longer, and others get their turn.
pub const MAX_REFERENCE_SEND_BYTES: usize = 1 << 20;

/// Bytes of one send of a value that is longer than that, which a worker of the kernel's does: each hand-over waits for
/// a turn of the core, and a worker that sends longer holds nobody.
pub const MAX_WORKER_SEND_BYTES: usize = 8 << 20;

/// What goes out by reference.
#[derive(Debug)]
enum Body {
    /// A large value.
    Mapped(MappedBytes),
    /// A chunk: memory of the connection's own.
    Own(Vec<u8>),
}

/// A value or a chunk that goes out by reference.
#[derive(Debug)]
struct Reference {
    /// Before which of the bytes.
    at: usize,
    body: Body,
    /// What of it is still to go.
    range: Range<usize>,
}

/// What a connection has to send.
#[derive(Debug, Default)]
pub struct Output {
    /// The bytes of its own.
    pub bytes: Vec<u8>,
    references: VecDeque<Reference>,
    referenced_bytes: usize,
    /// Bytes of chunks that are still to go.
    chunk_bytes: usize,
}

impl Output {
    /// Whether there is nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.references.is_empty()
    }

    /// Whether large values are in it.
    #[inline]
    pub fn has_references(&self) -> bool {
        !self.references.is_empty()
    }

    /// Bytes of large values that are still to go. They take no memory of the connection's own.
    #[inline]
    pub fn referenced_bytes(&self) -> usize {
        self.referenced_bytes
    }

    /// Bytes of chunks that are still to go: they are the connection's own, as those of `bytes` are.
    #[inline]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Appends `chunk` without a copy.
    pub fn put_chunk(&mut self, chunk: Vec<u8>) {
        let range = 0..chunk.len();
        if !range.is_empty() {
            self.chunk_bytes += range.len();
            self.references.push_back(Reference { at: self.bytes.len(), body: Body::Own(chunk), range });
        }
    }

    /// Appends a reply with a large value.
    pub fn put_large(&mut self, reply: LargeReply) {
        let LargeReply { head, value, range, tail } = reply;
        self.bytes.extend_from_slice(&head);
        self.referenced_bytes += range.len();
        if !range.is_empty() {
            self.references.push_back(Reference { at: self.bytes.len(), body: Body::Mapped(value), range });
        }
        self.bytes.extend_from_slice(&tail);
    }

    /// Takes what one send may have off the front, in pieces.
    pub fn take_pieces(&mut self) -> Vec<Piece> {
        let (mut pieces, mut taken, mut left) = (Vec::new(), 0, self.send_bytes_max());
        let take = |from: usize, length: usize| Piece::Bytes(self.bytes[from..from + length].to_vec());
        while let (Some(reference), true) = (self.references.front_mut(), left > 0 && pieces.len() + 2 <= MAX_PIECES) {
            let before = (reference.at - taken).min(left);
            if before > 0 {
                pieces.push(take(taken, before));
                taken += before;
                left -= before;
            }
            if taken < reference.at || left == 0 {
                break;
            }
            let length = reference.range.len().min(left);
            let start = reference.range.start;
            match &reference.body {
                Body::Mapped(value) => {
                    pieces.push(Piece::Mapped(value.clone(), start..start + length));
                    self.referenced_bytes -= length;
                }
                Body::Own(bytes) => {
                    pieces.push(Piece::Bytes(bytes[start..start + length].to_vec()));
                    self.chunk_bytes -= length;
                }
            }
            reference.range.start += length;
            left -= length;
            if reference.range.is_empty() {
                self.references.pop_front();
            }
        }
        if self.references.is_empty() {
            let last = (self.bytes.len() - taken).min(left);
            if last > 0 && pieces.len() < MAX_PIECES {
                pieces.push(take(taken, last));
                taken += last;
            }
        }
        self.bytes.drain(..taken);
        self.references.iter_mut().for_each(|reference| reference.at -= taken);
        pieces
    }

    /// What the next send may have.
    fn send_bytes_max(&self) -> usize {
        let is_long =
            |next: &Reference| matches!(next.body, Body::Mapped(_)) && next.range.len() > MAX_REFERENCE_SEND_BYTES;
        if self.references.front().is_some_and(is_long) {
            MAX_WORKER_SEND_BYTES
        } else {
            MAX_REFERENCE_SEND_BYTES
        }
    }

    /// Memory of its own: the bytes, and the list of what is referred to.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.references.capacity() * size_of::<Reference>() + self.chunk_bytes
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use eyot_ring::{page_bytes, MappedFile};
    use proptest::prelude::*;

    use super::*;

    fn value(bytes: &[u8]) -> MappedBytes {
        let length = bytes.len().max(1).next_multiple_of(page_bytes());
        let (_, mut region) = MappedFile::create(&std::env::temp_dir(), length).unwrap();
        region.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        region.share(bytes.len())
    }

    fn content(piece: &Piece) -> &[u8] {
        match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Mapped(value, range) => &value.bytes()[range.clone()],
        }
    }

    proptest! {
        #[test]
        fn everything_leaves_in_order_and_no_send_is_too_long(
            replies in proptest::collection::vec((0_usize..50, proptest::option::of(0_usize..3_000_000)), 0..12),
            appended_late in 0_usize..12,
        ) {
            let (mut output, mut expected, mut sent) = (Output::default(), Vec::new(), Vec::new());
            let late = appended_late.min(replies.len());
            let (early, later) = replies.split_at(late);
            for (round, replies) in [early, later].into_iter().enumerate() {
                for (number, &(small, large)) in replies.iter().enumerate() {
                    let small = vec![number as u8; small];
                    expected.extend_from_slice(&small);
                    output.bytes.extend_from_slice(&small);
                    if let Some(length) = large.filter(|length| length % 2 == 0) {
                        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
                        for chunk in [&bytes[length / 4..length / 2], &bytes[length / 2..]] {
                            expected.extend_from_slice(chunk);
                            output.put_chunk(chunk.to_vec());
                        }
                    } else if let Some(length) = large {
                        let bytes: Vec<u8> = (0..length).map(|at| (at + number) as u8).collect();
                        let range = length / 3..length;
                        expected.extend_from_slice(b"head");
                        expected.extend_from_slice(&bytes[range.clone()]);
                        expected.extend_from_slice(b"tail");
                        let (head, tail) = (b"head".to_vec(), b"tail".to_vec());
                        output.put_large(LargeReply { head, value: value(&bytes), range, tail });
                    }
                }
                // One send between the rounds, all at the end.
                while !output.is_empty() {
                    let bytes_max = output.send_bytes_max();
                    let pieces = output.take_pieces();
                    prop_assert!(!pieces.is_empty() && pieces.len() <= MAX_PIECES);
                    let bytes: usize = pieces.iter().map(Piece::len).sum();
                    prop_assert!(bytes > 0 && bytes <= bytes_max);
                    pieces.iter().for_each(|piece| sent.extend_from_slice(content(piece)));
                    if round == 0 {
                        break;
                    }
                }
            }
            prop_assert!(sent == expected);
            prop_assert_eq!((output.referenced_bytes(), output.chunk_bytes()), (0, 0));
        }
    }
}
