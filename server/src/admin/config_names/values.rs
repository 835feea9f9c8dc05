//! Values of parameters: from the text of CONFIG SET, checked, and what is wrong with them in Redis's words.
//!
//! Place in the flow: see the parent.
//!
//! Units of memory are those of Redis, where `k` is 1,000 and `kb` is 1,024; the flags of the server, which have no
//! `k` of 1,000, are read elsewhere.

use std::ops::RangeInclusive;

use crate::config::OutputLimit;

/// A checked value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// A number.
    Number(i64),
    /// The place of a word in its list.
    Choice(u8),
    /// The output limit of clients that ask.
    Output(OutputLimit),
    /// What it is already.
    AsItIs,
}

/// A number in decimal digits, within `range`.
pub(super) fn number(text: &[u8], range: &RangeInclusive<i64>) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    within(number.ok_or("argument couldn't be parsed into an integer")?, range)
}

/// A size in bytes, within `range`.
pub(super) fn memory(text: &[u8], range: &RangeInclusive<i64>) -> Result<i64, String> {
    let bytes = size(text).and_then(|bytes| i64::try_from(bytes).ok());
    within(bytes.ok_or("argument must be a memory value")?, range)
}

fn within(number: i64, range: &RangeInclusive<i64>) -> Result<i64, String> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()))
}

/// A size with one of Redis's units; `None` if it is none.
pub(super) fn size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The place of a word among `words`, in any case.
pub(super) fn choice(text: &[u8], words: &[&str], listed: &[&str]) -> Result<u8, String> {
    let place = words.iter().position(|word| word.as_bytes().eq_ignore_ascii_case(text));
    let problem = || format!("argument(s) must be one of the following: {}", listed.join(", "));
    place.map(|place| place as u8).ok_or_else(problem)
}

/// The limits of classes of clients, of which only `normal` exists here: `now`, with what `text` changes.
pub(super) fn output_limit(text: &[u8], now: OutputLimit) -> Result<OutputLimit, String> {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limit = now;
    for class in words.chunks_exact(4) {
        if !["normal", "slave", "replica", "pubsub"].iter().any(|known| known.eq_ignore_ascii_case(class[0])) {
            return Err("Invalid client class specified in buffer limit configuration.".to_owned());
        }
        let (hard, soft) = (size(class[1].as_bytes()), size(class[2].as_bytes()));
        let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) = (hard, soft, class[3].parse::<u32>()) else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned());
        };
        if class[0].eq_ignore_ascii_case("normal") {
            limit = OutputLimit { hard_bytes, soft_bytes, soft_seconds: u64::from(soft_seconds) };
        }
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_redis() {
        for (text, bytes) in
            [("0", 0), ("17b", 17), ("1k", 1000), ("1KB", 1024), ("2m", 2_000_000), ("2Mb", 2 << 20), ("1gb", 1 << 30)]
        {
            assert_eq!(size(text.as_bytes()), Some(bytes), "{text}");
        }
        for text in ["", "kb", "-5", "5%", "1.5gb", "1 kb", "1tb", "99999999999gb", "\u{e9}"] {
            assert_eq!(size(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn output_limits_of_the_class_that_exists() {
        let now = OutputLimit { hard_bytes: 1, soft_bytes: 2, soft_seconds: 3 };
        assert_eq!(output_limit(b"slave 0 0 0 pubsub 1mb 1mb 1", now), Ok(now));
        let set = OutputLimit { hard_bytes: 1 << 20, soft_bytes: 1024, soft_seconds: 10 };
        assert_eq!(output_limit(b"pubsub 0 0 0  NORMAL 1mb 1kb 10", now), Ok(set));
        for (text, problem) in [
            ("normal 1 2", "Wrong number"),
            ("", "Wrong number"),
            ("other 1 2 3", "Invalid client class"),
            ("normal 1 2 -3", "Error in hard"),
            ("normal x 2 3", "Error in hard"),
        ] {
            assert!(output_limit(text.as_bytes(), now).unwrap_err().starts_with(problem), "{text}");
        }
    }
}
