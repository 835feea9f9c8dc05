//! The set of operations that the search has placed, in a form that is short to remember.
//!
//! Place in the flow: a part of `search`; with the state it is a configuration.
//!
//! Invariant: equal sets have equal words, and others have others.

use super::Entry;

/// The set of placed operations. Those with an outcome have bits in the order of their calls, so that all but a few
/// words are full or empty; those without one, which may stay unplaced for ever, have bits of their own behind them.
pub struct Placed {
    bit: Vec<u32>,
    words: Vec<u64>,
    /// Words with bits of operations that have an outcome.
    answered_words: usize,
    /// All words before this one are full.
    full: usize,
    /// All of `answered_words` from this one on are empty.
    empty: usize,
}

impl Placed {
    /// The empty set of some entries.
    pub fn new<Call>(entries: &[Entry<Call>]) -> Self {
        let answered = entries.iter().filter(|entry| entry.completed.is_some()).count();
        let answered_words = answered.div_ceil(64);
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|&position| (entries[position].completed.is_none(), entries[position].invoked, position));
        let mut bit = vec![0; entries.len()];
        for (rank, &position) in order.iter().enumerate() {
            let gap = if rank < answered { 0 } else { answered_words * 64 - answered };
            bit[position] = (rank + gap) as u32;
        }
        let words = vec![0; answered_words + (entries.len() - answered).div_ceil(64)];
        Placed { bit, words, answered_words, full: 0, empty: 0 }
    }

    /// Adds an operation.
    pub fn insert(&mut self, position: usize) {
        let bit = self.bit[position] as usize;
        self.words[bit / 64] |= 1 << (bit % 64);
        if bit / 64 < self.answered_words {
            self.empty = self.empty.max(bit / 64 + 1);
            while self.full < self.empty && self.words[self.full] == u64::MAX {
                self.full += 1;
            }
        }
    }

    /// Takes an operation away.
    pub fn remove(&mut self, position: usize) {
        let bit = self.bit[position] as usize;
        self.words[bit / 64] &= !(1 << (bit % 64));
        if bit / 64 < self.answered_words {
            self.full = self.full.min(bit / 64);
            while self.empty > self.full && self.words[self.empty - 1] == 0 {
                self.empty -= 1;
            }
        }
    }

    /// The set: the number of full words, the number of words that follow, these, and the words of those without an
    /// outcome. Equal sets have equal words.
    pub fn words(&self) -> Box<[u64]> {
        let window = &self.words[self.full..self.empty.max(self.full)];
        let unanswered = &self.words[self.answered_words..];
        let used = unanswered.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        let mut words = Vec::with_capacity(1 + window.len() + used);
        words.push((self.full as u64) << 32 | window.len() as u64);
        words.extend_from_slice(window);
        words.extend_from_slice(&unanswered[..used]);
        words.into_boxed_slice()
    }
}
