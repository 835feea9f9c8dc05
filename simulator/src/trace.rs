//! What happened in a world: a hash of all of it, and on request the lines.
//!
//! Place in the flow: every event is noted here when it happens, before its consequences. Two runs of a seed are the
//! same run when their hashes are equal.
//!
//! Invariant: the hash does not depend on whether lines are kept.

use crate::clock::Time;

/// Most lines that are kept, the last ones: enough to see what led to a failure, and a bound for the memory.
pub const LINES_MAX: usize = 400_000;

/// The record of one run.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    notes: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A record of nothing yet, with lines or without.
    pub fn new(with_lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, notes: 0, lines: with_lines.then(Vec::new) }
    }

    /// Something happened: `kind` says what, the numbers say to whom and how.
    pub fn note(&mut self, time: Time, kind: u8, numbers: [u64; 3]) {
        self.notes += 1;
        let mut hash = self.hash ^ time ^ u64::from(kind).rotate_left(56);
        for number in numbers {
            hash = (hash.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        self.hash = hash;
    }

    /// The same in words, if somebody wants to read them.
    pub fn line(&mut self, time: Time, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() >= LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
            lines.push(format!("{:>10}.{:03} ms  {}", time / 1000, time % 1000, words()));
        }
    }

    /// Whether [`Self::line`] keeps anything.
    pub fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of everything noted.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many notes there were.
    pub fn notes(&self) -> u64 {
        self.notes
    }

    /// The lines that were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_every_number_and_no_line() {
        let hash = |with_lines, kind, numbers| {
            let mut trace = Trace::new(with_lines);
            trace.note(1, kind, numbers);
            trace.line(1, || "words".to_owned());
            trace.hash()
        };
        let whole = hash(false, 1, [1, 2, 3]);
        assert_eq!(whole, hash(true, 1, [1, 2, 3]));
        for other in [hash(false, 2, [1, 2, 3]), hash(false, 1, [0, 2, 3]), hash(false, 1, [1, 0, 3])] {
            assert_ne!(whole, other);
        }
        assert_ne!(whole, hash(false, 1, [1, 3, 2]));
    }

    #[test]
    fn lines_are_kept_on_request_up_to_a_bound() {
        let mut trace = Trace::new(true);
        (0..LINES_MAX as u64 + 10).for_each(|time| trace.line(time, String::new));
        assert!(trace.into_lines().len() <= LINES_MAX);
        assert!(Trace::new(false).into_lines().is_empty());
    }
}
