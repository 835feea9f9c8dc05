//! Replies in the order of their requests, for wires that match them by order alone (RESP).
//!
//! Place in the flow: step 9 (reply). Each request of a connection takes a number; its reply goes straight to the
//! output when all before it have left, and waits here when it came early: results of several shards, of the disk and
//! of other cores come in any order.
//!
//! Invariants:
//! - Every number is answered exactly once; a reply may be empty (a client that wants none).
//! - What waits is bounded by the requests that a connection may have in flight, and by what it may be owed, which
//!   counts [`OrderedReplies::waiting_bytes`].

use std::collections::VecDeque;

use super::output::Output;
use crate::router::LargeReply;

/// Bytes of a reply that are kept in its place: `+OK`, any integer, any null.
const INLINE_BYTES: usize = 22;
/// Places that are kept for reuse when nothing waits any more.
const PLACES_KEPT: usize = 1024;

/// A reply that came before its turn.
#[derive(Debug)]
enum Early {
    /// It has not come.
    Missing,
    /// A short one.
    Inline(u8, [u8; INLINE_BYTES]),
    /// A longer one.
    Long(Box<[u8]>),
    /// One that refers to a large value.
    Large(Box<LargeReply>),
}

/// The order of one connection's replies.
#[derive(Debug, Default)]
pub struct OrderedReplies {
    /// The number whose reply leaves next.
    head: u32,
    /// The number that the next request takes.
    next: u32,
    /// From `head` on; shorter than the numbers in use where none of the last ones has come.
    waiting: VecDeque<Early>,
    waiting_bytes: usize,
    /// Bytes of large values that they refer to.
    waiting_large_bytes: usize,
}

impl OrderedReplies {
    /// Takes a number for a request.
    #[inline]
    pub fn take_number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Bytes of the replies that wait for those before them.
    #[inline]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of large values to which those replies refer.
    #[inline]
    pub fn waiting_large_bytes(&self) -> usize {
        self.waiting_large_bytes
    }

    /// Whether every request that took a number is answered.
    pub fn is_settled(&self) -> bool {
        self.head == self.next
    }

    /// Answers `number` with what `put` appends: to `output` if its turn has come, with all that waited for it; else to
    /// `scratch`, from which it is kept.
    ///
    /// # Panics
    /// When `number` was not taken or is answered already.
    #[inline]
    pub fn answer(&mut self, number: u32, output: &mut Output, scratch: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
        self.check(number);
        if number == self.head {
            put(&mut output.bytes);
            self.go_on(output);
            return;
        }
        scratch.clear();
        put(scratch);
        self.keep(number, scratch);
    }

    /// Answers `number` with `reply`, which is short enough to be kept in its place.
    ///
    /// # Panics
    /// As [`OrderedReplies::answer`].
    #[inline]
    pub fn answer_short(&mut self, number: u32, output: &mut Output, reply: &[u8]) {
        self.check(number);
        if number == self.head {
            output.bytes.extend_from_slice(reply);
            self.go_on(output);
        } else {
            self.keep(number, reply);
        }
    }

    /// Answers `number` with a reply that refers to a large value.
    ///
    /// # Panics
    /// As [`OrderedReplies::answer`].
    pub fn answer_large(&mut self, number: u32, output: &mut Output, reply: LargeReply) {
        self.check(number);
        if number == self.head {
            output.put_large(reply);
            self.go_on(output);
        } else {
            self.waiting_large_bytes += reply.range.len();
            *self.place(number) = Early::Large(Box::new(reply));
        }
    }

    /// Answers `number`, whose turn has come, with what `put` appends to the output.
    ///
    /// # Panics
    /// As [`OrderedReplies::answer`], and where replies before it are missing.
    pub fn answer_alone(&mut self, number: u32, output: &mut Output, put: impl FnOnce(&mut Output)) {
        self.check(number);
        assert!(number == self.head, "a request that is answered alone has others before it");
        put(output);
        self.go_on(output);
    }

    #[inline]
    fn check(&self, number: u32) {
        assert!(self.next.wrapping_sub(number).wrapping_sub(1) < self.next.wrapping_sub(self.head), "answered twice");
    }

    /// The reply of the head is written: those that waited for it follow.
    #[inline]
    fn go_on(&mut self, output: &mut Output) {
        self.head = self.head.wrapping_add(1);
        if !self.waiting.is_empty() {
            self.waiting.pop_front();
            self.drain(output);
        }
    }

    /// The place in which the reply to `number` waits.
    fn place(&mut self, number: u32) -> &mut Early {
        let place = number.wrapping_sub(self.head) as usize;
        if self.waiting.len() <= place {
            self.waiting.resize_with(place + 1, || Early::Missing);
        }
        assert!(matches!(self.waiting[place], Early::Missing), "request {number} is answered twice");
        &mut self.waiting[place]
    }

    fn keep(&mut self, number: u32, reply: &[u8]) {
        self.waiting_bytes += reply.len();
        *self.place(number) = if reply.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..reply.len()].copy_from_slice(reply);
            Early::Inline(reply.len() as u8, bytes)
        } else {
            Early::Long(Box::from(reply))
        };
    }

    /// Appends what waits and whose turn has come.
    fn drain(&mut self, output: &mut Output) {
        while !matches!(self.waiting.front(), Some(Early::Missing)) {
            let Some(reply) = self.waiting.pop_front() else {
                self.waiting.shrink_to(PLACES_KEPT);
                return;
            };
            let bytes = match &reply {
                Early::Inline(length, bytes) => &bytes[..usize::from(*length)],
                Early::Long(bytes) => bytes,
                Early::Missing | Early::Large(_) => &[],
            };
            output.bytes.extend_from_slice(bytes);
            self.waiting_bytes -= bytes.len();
            if let Early::Large(reply) = reply {
                self.waiting_large_bytes -= reply.range.len();
                output.put_large(*reply);
            }
            self.head = self.head.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn replies_leave_in_order_whatever_order_they_come_in(
            lengths in proptest::collection::vec(0_usize..60, 1..40),
            swaps in proptest::collection::vec((0_usize..40, 0_usize..40), 0..80),
            start in any::<u32>(),
        ) {
            let mut ordered = OrderedReplies { head: start, next: start, ..OrderedReplies::default() };
            let numbers: Vec<u32> = lengths.iter().map(|_| ordered.take_number()).collect();
            let mut order: Vec<usize> = (0..lengths.len()).collect();
            for (from, to) in swaps {
                let count = order.len();
                order.swap(from % count, to % count);
            }
            let reply = |place: usize| vec![place as u8; lengths[place]];
            let (mut output, mut scratch) = (Output::default(), Vec::new());
            for &place in &order {
                let out_before = output.bytes.len();
                ordered.answer(numbers[place], &mut output, &mut scratch, |out| out.extend_from_slice(&reply(place)));
                prop_assert!(output.bytes.len() >= out_before);
            }
            let expected: Vec<u8> = (0..lengths.len()).flat_map(reply).collect();
            prop_assert_eq!(output.bytes, expected);
            prop_assert_eq!(ordered.waiting_bytes(), 0);
            prop_assert!(ordered.is_settled());
        }
    }

    #[test]
    #[should_panic(expected = "answered twice")]
    fn a_second_answer_is_a_bug() {
        let mut ordered = OrderedReplies::default();
        let (first, _) = (ordered.take_number(), ordered.take_number());
        let (mut output, mut scratch) = (Output::default(), Vec::new());
        ordered.answer(first, &mut output, &mut scratch, |_| {});
        ordered.answer(first, &mut output, &mut scratch, |_| {});
    }
}
