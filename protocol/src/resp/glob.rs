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
//! Invariant: the work is bounded by pattern length times text length. Only the last `*` is ever returned to: what an
//! earlier one could take instead, the last one can take as well. There is no recursion.

/// Whether `text` is what `pattern` describes, whole. Letters are compared as they are.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte)
}

/// The same where upper and lower case of ASCII letters are equal.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte.to_ascii_lowercase())
}

#[inline]
fn matches_with(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    if text.is_empty() {
        // As Redis 7.0 has it: a second star is not looked at when there is nothing to match.
        return pattern.is_empty() || pattern == b"*";
    }
    let (mut in_pattern, mut in_text) = (0, 0);
    // Behind the last star: where the pattern goes on, and how much of the text it leaves to the rest.
    let mut last_star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(in_pattern) == Some(&b'*') {
            in_pattern += 1;
            if in_pattern == pattern.len() {
                return true;
            }
            last_star = Some((in_pattern, in_text));
            continue;
        }
        let step = match text.get(in_text) {
            Some(byte) if in_pattern < pattern.len() => one(pattern, in_pattern, *byte, fold),
            Some(_) => None,
            None if in_pattern == pattern.len() => return true,
            // A longer share for the star would leave even less text.
            None => return false,
        };
        match (step, &mut last_star) {
            (Some(next), _) => {
                in_pattern = next;
                in_text += 1;
            }
            (None, Some((after_star, left_from))) => {
                *left_from += 1;
                (in_pattern, in_text) = (*after_star, *left_from);
            }
            (None, None) => return false,
        }
    }
}

/// Compares `byte` with the one element of `pattern` at `at`, which is no star; returns where the next begins if it
/// fits.
#[inline]
fn one(pattern: &[u8], at: usize, byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => {
            let (fits, next) = class(pattern, at + 1, fold(byte), fold);
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
