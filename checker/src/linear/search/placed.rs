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

    /// The set, in as few words as say it: where the full words end, the words that follow, and those of operations
    /// without an outcome. Equal sets have equal words.
    ///
    /// ```text
    /// full << 32 | following      then the words that follow the full ones, if they are few
    /// full << 32 | SPARSE | ...   then the number of each that is not full, and the word: an operation that stays
    ///                             open for long leaves a hole behind, and full words after it
    /// words of operations without an outcome, up to the last that is not 0
    /// ```
    pub fn words(&self) -> Box<[u64]> {
        let window = &self.words[self.full..self.empty.max(self.full)];
        let unanswered = &self.words[self.answered_words..];
        let used = unanswered.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        let head = (self.full as u64) << 32 | window.len() as u64;
        let mut words = Vec::with_capacity(1 + window.len().min(DENSE_WORDS_MAX) + used);
        if window.len() <= DENSE_WORDS_MAX {
            words.push(head);
            words.extend_from_slice(window);
        } else {
            let holes = || window.iter().enumerate().filter(|(_, &word)| word != u64::MAX);
            words.push(head | SPARSE);
            words.push(holes().count() as u64);
            words.extend(holes().flat_map(|(at, &word)| [at as u64, word]));
        }
        words.extend_from_slice(&unanswered[..used]);
        words.into_boxed_slice()
    }
}

/// Words behind the full ones that are remembered as they are.
const DENSE_WORDS_MAX: usize = 8;

/// Marks the head of a set of which full words are left out. A history has fewer operations than would reach it.
const SPARSE: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::generate::Random;

    #[test]
    fn equal_sets_have_equal_words_and_others_have_others() {
        // 14 words of operations with an outcome, of which one operation each comes and goes, and the others are placed
        // or, behind the last word that matters, not; 3 operations without an outcome, far apart.
        let entry = |invoked, completed| Entry { call: (), invoked, completed };
        let answered = (0..14 * 64_u64).map(|at| entry(at, Some(at)));
        let lost = (0..200).map(|at| entry(at, None));
        let entries: Vec<Entry<()>> = answered.chain(lost).collect();
        let turning: Vec<usize> =
            (0..14).map(|word| word * 64 + 5).chain([14 * 64, 14 * 64 + 70, 14 * 64 + 199]).collect();
        let mut random = Random::new(7);
        let mut seen: HashMap<Box<[u64]>, (usize, u32)> = HashMap::new();
        let mut sets: HashMap<(usize, u32), Box<[u64]>> = HashMap::new();
        for full_words in [3, 12, 14] {
            let mut placed = Placed::new(&entries);
            let is_still = |position: &usize| !turning.contains(position);
            (0..full_words * 64).filter(is_still).for_each(|position| placed.insert(position));
            let mut turned = 0_u32;
            for _ in 0..20_000 {
                let choice = random.below(turning.len() as u64) as usize;
                turned ^= 1 << choice;
                if turned & 1 << choice == 0 {
                    placed.remove(turning[choice]);
                } else {
                    placed.insert(turning[choice]);
                }
                let (words, set) = (placed.words(), (full_words, turned));
                assert_eq!(*seen.entry(words.clone()).or_insert(set), set, "{words:x?}");
                assert_eq!(*sets.entry(set).or_insert_with(|| words.clone()), words, "{set:x?}");
            }
        }
        assert!(seen.len() > 10_000, "only {} sets", seen.len());
    }
}
