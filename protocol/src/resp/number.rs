//! Numbers as Redis reads and writes them, beside those that have a text in the store: [`crate::tlv`].
//!
//! Place in the flow: inside splitting and parsing (step 2) and writing (step 9).
//!
//! Invariant: an integer has one text, that of [`parse_integer`](crate::tlv::parse_integer); only a cursor may have
//! others.

/// Longest text of a number of 64 bits: 20 digits, or a sign and 19.
const MAX_DIGITS: usize = 20;

/// A cursor of SCAN as C's `strtoul` reads it: a sign may come first, and no digit at all is 0, but no space.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let negative = text.first() == Some(&b'-');
    let digits = unsigned(text);
    if digits.is_empty() && !text.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(if negative { number.wrapping_neg() } else { number })
}

/// Longest text of a float that is read as one.
const MAX_FLOAT_BYTES: usize = 255;

/// Whether `text` is a number that INCRBYFLOAT takes: decimal, with an optional fraction and exponent, or an infinity.
/// Hexadecimal floats, which C reads, are none.
pub fn is_float(text: &[u8]) -> bool {
    if text.len() > MAX_FLOAT_BYTES {
        return false;
    }
    let unsigned = unsigned(text);
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return true;
    }
    let (whole, rest) = digits(unsigned);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest),
        rest => (0, rest),
    };
    let exponent_is_sound = match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            matches!(digits(exponent), (1.., []))
        }
        _ => false,
    };
    whole + fraction > 0 && exponent_is_sound
}

/// `text` without its sign.
fn unsigned(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"+").or_else(|| text.strip_prefix(b"-")).unwrap_or(text)
}

/// How many digits `text` begins with, and what follows them.
fn digits(text: &[u8]) -> (usize, &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count, &text[count..])
}

/// The decimal text of an integer, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Digits {
    bytes: [u8; MAX_DIGITS],
    start: u8,
}

impl Digits {
    /// The text of `number`.
    #[inline]
    pub fn of(number: i64) -> Self {
        let mut digits = Self::of_unsigned(number.unsigned_abs());
        if number < 0 {
            digits.start -= 1;
            digits.bytes[usize::from(digits.start)] = b'-';
        }
        digits
    }

    /// The text of `number`.
    #[inline]
    pub fn of_unsigned(number: u64) -> Self {
        let mut bytes = [0; MAX_DIGITS];
        let mut rest = number;
        let mut start = MAX_DIGITS;
        loop {
            start -= 1;
            bytes[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self { bytes, start: start as u8 };
            }
        }
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for number in [0, 1, -1, 9, 10, 99, 100, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1, -1_000_000] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
        assert_eq!(Digits::of_unsigned(u64::MAX).as_bytes(), u64::MAX.to_string().as_bytes());
    }

    #[test]
    fn a_cursor_is_read_as_c_does() {
        for (text, cursor) in
            [("0", 0), ("", 0), ("007", 7), ("+5", 5), ("18446744073709551615", u64::MAX), ("-1", u64::MAX)]
        {
            assert_eq!(parse_cursor(text.as_bytes()), Some(cursor), "{text:?}");
        }
        for text in [" 1", "1 ", "a", "1a", "18446744073709551616", "-", "+", "--1"] {
            assert_eq!(parse_cursor(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn floats_are_decimal() {
        for text in ["0", "1", "+1", "-1", "1.", ".5", "1.5", "1e5", "1E+5", "1.5e-300", "inf", "-Infinity", "007"] {
            assert!(is_float(text.as_bytes()), "{text:?}");
        }
        for text in ["", "+", ".", "e5", "1e", "1e+", "1.5.", "nan", " 1", "1 ", "0x10", "1,5", "--1", "1e5x", "infx"] {
            assert!(!is_float(text.as_bytes()), "{text:?}");
        }
        assert!(!is_float("1".repeat(256).as_bytes()));
    }
}
