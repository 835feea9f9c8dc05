//! Patterns of KEYS, SCAN and CONFIG GET.
//!
//! Place in the flow: step 5 (execute) of those commands, on every key they look at.
//!
//! ```text
//! *        any bytes, also none           [abc]   one of these bytes
//! ?        one byte                       [^abc]  one byte, but none of these
//! \c       the byte c itself              [a-c]   one byte of this range, whichever end comes first
//! ```
//!
//! An unfinished class ends with the pattern; `\` at the end is itself.
//!
//! Invariants:
//! - The work is bounded by pattern length times text length. Only the last `*` is ever returned to: what an earlier
//!   one could take instead, the last one can take as well. There is no recursion.
//! - That product may still be seconds, so every comparison counts its steps and stops when the caller's are used up.
//!   A [`Comparison`] then goes on where it was.

/// Longest pattern of KEYS and SCAN, in bytes. A class is read whole for each byte that it is compared with, so the
/// work of one key grows with the pattern; and each core keeps a copy of it.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Steps that CONFIG GET or COMMAND LIST takes for its patterns: about a millisecond. Each name takes a few steps for
/// an ordinary pattern.
pub const PATTERN_STEPS_MAX: usize = 1 << 20;

/// Whether `text` is what `pattern` describes, whole. Letters are compared as they are. `None`: it takes more than
/// `steps`, which are counted down.
pub fn matches(pattern: &[u8], text: &[u8], steps: &mut usize) -> Option<bool> {
    Comparison::default().go_on(pattern, text, steps)
}

/// The same where upper and lower case of ASCII letters are equal.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8], steps: &mut usize) -> Option<bool> {
    Comparison::default().go_on_with(pattern, text, steps, |byte| byte.to_ascii_lowercase())
}

/// How far a pattern and a text are compared; the default is before the first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    in_pattern: usize,
    in_text: usize,
    /// Behind the last star: where the pattern goes on, and how much of the text it leaves to the rest.
    last_star: Option<(usize, usize)>,
}

impl Comparison {
    /// Goes on with the same `pattern` and `text` until it is known whether they match, or until `steps` are used up:
    /// then it is `None`, and the next call goes on from here. Each byte that is compared is a step, and so is each
    /// byte of a class. `steps` may fall short by one class, never by more.
    pub fn go_on(&mut self, pattern: &[u8], text: &[u8], steps: &mut usize) -> Option<bool> {
        self.go_on_with(pattern, text, steps, |byte| byte)
    }

    #[inline]
    fn go_on_with(
        &mut self,
        pattern: &[u8],
        text: &[u8],
        steps: &mut usize,
        fold: impl Fn(u8) -> u8 + Copy,
    ) -> Option<bool> {
        if text.is_empty() {
            // As Redis 7.0 has it: a second star is not looked at when there is nothing to match.
            return Some(pattern.is_empty() || pattern == b"*");
        }
        let Self { in_pattern, in_text, last_star } = self;
        loop {
            *steps = steps.checked_sub(1)?;
            if pattern.get(*in_pattern) == Some(&b'*') {
                *in_pattern += 1;
                if *in_pattern == pattern.len() {
                    return Some(true);
                }
                *last_star = Some((*in_pattern, *in_text));
                continue;
            }
            let next = match text.get(*in_text) {
                Some(byte) if *in_pattern < pattern.len() => one(pattern, *in_pattern, *byte, steps, fold),
                Some(_) => None,
                None if *in_pattern == pattern.len() => return Some(true),
                // A longer share for the star would leave even less text.
                None => return Some(false),
            };
            match (next, last_star.as_mut()) {
                (Some(next), _) => {
                    *in_pattern = next;
                    *in_text += 1;
                }
                (None, Some((after_star, left_from))) => {
                    *left_from += 1;
                    (*in_pattern, *in_text) = (*after_star, *left_from);
                }
                (None, None) => return Some(false),
            }
        }
    }
}

/// Compares `byte` with the one element of `pattern` at `at`, which is no star; returns where the next begins if it
/// fits. The bytes of a class are counted in `steps`.
#[inline]
fn one(pattern: &[u8], at: usize, byte: u8, steps: &mut usize, fold: impl Fn(u8) -> u8 + Copy) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => {
            let (fits, next) = class(pattern, at + 1, fold(byte), fold);
            *steps = steps.saturating_sub(next - at);
            fits.then_some(next)
        }
        b'\\' if at + 1 < pattern.len() => (fold(pattern[at + 1]) == fold(byte)).then_some(at + 2),
        other => (fold(other) == fold(byte)).then_some(at + 1),
    }
}

/// Compares `byte` with the class whose `[` stands before `at`; returns whether it fits and where the class ends.
fn class(pattern: &[u8], mut at: usize, byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match pattern.get(at..).unwrap_or_default() {
            [] => break,
            [b'\\', escaped, ..] => {
                found |= fold(*escaped) == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (*from.min(to), *from.max(to));
                found |= (fold(from)..=fold(to)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                found |= fold(*one) == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}
