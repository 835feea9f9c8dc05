//! Floating-point numbers with 64 bits of precision and 15 of exponent: what INCRBYFLOAT counts with.
//!
//! Place in the flow: step 8 (apply), for that one command.
//!
//! Redis counts in the `long double` of x86-64, whose texts its clients see (0.1 + 0.2 is 0.3, 3.0e3 + 200 is 3200).
//! The same arithmetic is done here in integers, so a log gives the same state on every machine, and the state that
//! Redis would have: a text is read to the nearest number (ties to even), a sum is rounded in the same way, and the
//! text of a number is its exact value rounded to 17 decimals, without trailing zeros.
//!
//! Deliberately not here: hexadecimal texts, NaN (which INCRBYFLOAT refuses), and numbers below 1e-100, which are taken
//! for zero: they change no text of 17 decimals.

/// Longest text that is read: a number's longest text has 4,933 digits, a sign, and no more decimals than 17.
const TEXT_BYTES_MAX: usize = 5119;

/// Largest power of ten of a first digit: 1.19e4932 is the largest number.
const MAX_POWER: i64 = 4932;
/// Smallest one that is read at all; below it Redis finds no number.
const MIN_POWER: i64 = -4951;
/// Below this a number is taken for zero.
const ZERO_POWER: i64 = -100;
/// Largest exponent of a number's first bit.
const MAX_BIT_EXPONENT: i32 = 16_383;

/// Decimals beyond so many are replaced by one that is not zero: the border between two numbers from 1e-100 on has
/// fewer (its last bit stands for 2^-397), so they cannot decide on which side of it a text lies.
const DECIMALS_MAX: i64 = 420;

/// Decimals of a text that is written.
const DECIMALS: u32 = 17;

/// A finite number: `mantissa * 2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    /// Its highest bit is set, unless the number is zero.
    mantissa: u64,
    exponent: i32,
}

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A finite number.
    Finite(Extended),
    /// An infinity, of either sign.
    Infinite,
}

impl Number {
    /// The number that is nearest to the decimal `text`; `None` where that is no number, or one out of range.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let negative = text.first() == Some(&b'-');
        let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite);
        }
        let decimal = Decimal::parse(unsigned)?;
        let (mantissa, exponent) = decimal.nearest()?;
        Some(Self::Finite(Extended { negative, mantissa, exponent }))
    }
}

impl Extended {
    /// Zero.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// The sum, rounded; `None` where it would not be finite.
    pub fn sum(self, other: Self) -> Option<Self> {
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        let size = |number: &Self| (number.exponent, number.mantissa);
        let (large, small) = if size(&self) >= size(&other) { (self, other) } else { (other, self) };
        let distance = (large.exponent - small.exponent) as u32;
        // With 63 bits more than a mantissa has: what falls out below is less than a quarter of the result's last bit,
        // so it is enough to know that it is not zero.
        let wide = |mantissa: u64| u128::from(mantissa) << 63;
        let (shifted, lost) = match distance {
            0..=63 => (wide(small.mantissa) >> distance, false),
            64..=126 => {
                let shifted = wide(small.mantissa) >> distance;
                (shifted, shifted << distance != wide(small.mantissa))
            }
            _ => (0, true),
        };
        let total = if large.negative == small.negative {
            wide(large.mantissa) + shifted
        } else {
            wide(large.mantissa) - shifted - u128::from(lost)
        };
        if total == 0 {
            return Some(Self::ZERO);
        }
        let (mantissa, exponent) = round(total, lost, large.exponent - 63)?;
        Some(Self { negative: large.negative, mantissa, exponent })
    }

    /// Appends the text of the number.
    pub fn put_text(self, out: &mut Vec<u8>) {
        if let Ok(shift) = usize::try_from(self.exponent) {
            if self.negative && self.mantissa != 0 {
                out.push(b'-');
            }
            Big::from_shifted(self.mantissa, shift).put_decimal(out);
            return;
        }
        let (whole, decimals) = self.split(self.exponent.unsigned_abs());
        if self.negative && (whole, decimals) != (0, 0) {
            out.push(b'-');
        }
        out.extend_from_slice(whole.to_string().as_bytes());
        if decimals > 0 {
            let width = DECIMALS as usize;
            let digits = format!(".{decimals:0width$}");
            out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
        }
    }

    /// The whole part, and the decimals as a number of [`DECIMALS`] digits, rounded, of `mantissa / 2^shift`.
    fn split(self, shift: u32) -> (u128, u128) {
        let mantissa = u128::from(self.mantissa);
        let (whole, rest) = if shift < 64 { (mantissa >> shift, mantissa & ((1 << shift) - 1)) } else { (0, mantissa) };
        // Below 2^121; a shift by more leaves less than a half.
        let scaled = rest * 10_u128.pow(DECIMALS);
        if shift > 121 {
            return (whole, 0);
        }
        let (decimals, lost, half) = (scaled >> shift, scaled & ((1 << shift) - 1), 1 << (shift - 1));
        let up = lost > half || (lost == half && decimals & 1 == 1);
        let decimals = decimals + u128::from(up);
        if decimals == 10_u128.pow(DECIMALS) {
            (whole + 1, 0)
        } else {
            (whole, decimals)
        }
    }
}

/// The number nearest to `bits * 2^exponent`, and a little more if `lost`; `None` beyond the largest. `bits` is not
/// zero, and has more than 64 bits where `lost`.
fn round(bits: u128, lost: bool, exponent: i32) -> Option<(u64, i32)> {
    let length = 128 - bits.leading_zeros();
    let (mantissa, exponent) = if length <= 64 {
        debug_assert!(!lost && bits > 0);
        ((bits as u64) << (64 - length), exponent - (64 - length) as i32)
    } else {
        let shift = length - 64;
        let (kept, rest, half) = ((bits >> shift) as u64, bits & ((1 << shift) - 1), 1_u128 << (shift - 1));
        let exponent = exponent + shift as i32;
        if rest > half || (rest == half && (lost || kept & 1 == 1)) {
            match kept.checked_add(1) {
                Some(kept) => (kept, exponent),
                None => (1 << 63, exponent + 1),
            }
        } else {
            (kept, exponent)
        }
    };
    (exponent + 63 <= MAX_BIT_EXPONENT).then_some((mantissa, exponent))
}

/// A text, taken apart: `0.d1 d2 d3 ... * 10^(power + 1)`, with `d1` and the last digit not zero.
struct Decimal<'a> {
    /// Digits from the first to the last that is not zero, with the point perhaps between them; empty for zero.
    digits: &'a [u8],
    /// The power of ten that the first digit stands for.
    power: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mantissa_bytes = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.');
        let (mantissa, exponent) = text.split_at(mantissa_bytes.unwrap_or(text.len()));
        let exponent = match exponent {
            [] => 0,
            [b'e' | b'E', b'-', digits @ ..] => -parse_exponent(digits)?,
            [b'e' | b'E', b'+', digits @ ..] | [b'e' | b'E', digits @ ..] => parse_exponent(digits)?,
            _ => return None,
        };
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        let decimals = mantissa.get(point + 1..).unwrap_or_default();
        if point + decimals.len() == 0 || decimals.contains(&b'.') {
            return None;
        }
        let is_significant = |byte: &u8| matches!(byte, b'1'..=b'9');
        let Some(first) = mantissa.iter().position(is_significant) else {
            return Some(Self { digits: &[], power: 0 });
        };
        let last = mantissa.iter().rposition(is_significant)?;
        let power = if first < point { point as i64 - first as i64 - 1 } else { point as i64 - first as i64 };
        Some(Self { digits: &mantissa[first..=last], power: power + exponent })
    }

    /// Mantissa and exponent of the nearest number; `None` when it is out of range.
    fn nearest(&self) -> Option<(u64, i32)> {
        if self.digits.is_empty() {
            return Some((0, 0));
        }
        if self.power > MAX_POWER || self.power < MIN_POWER {
            return None;
        }
        if self.power < ZERO_POWER {
            return Some((0, 0));
        }
        let mut integer = Big::ZERO;
        // What the last digit that was taken stands for is ten to this.
        let mut power = self.power + 1;
        for digit in self.digits.iter().filter(|byte| **byte != b'.') {
            power -= 1;
            if power < -DECIMALS_MAX {
                integer.multiply_add(10, 1);
                break;
            }
            integer.multiply_add(10, u32::from(digit - b'0'));
        }
        if let Ok(power) = u32::try_from(power) {
            integer.multiply_by_power_of_ten(power);
            return integer.round(false, 0);
        }
        // So many bits that dividing leaves more than 66: ten is less than two to the 107/32.
        let divisions = power.unsigned_abs() as u32;
        let shift = (70 + divisions as usize * 107 / 32).saturating_sub(integer.bits());
        integer.shift_left(shift);
        let lost = integer.divide_by_power_of_ten(divisions);
        integer.round(lost, -(shift as i32))
    }
}

/// The digits of an exponent, at least one; what is beyond all range stays beyond it.
fn parse_exponent(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |exponent, byte| {
        byte.is_ascii_digit().then(|| (exponent * 10 + i64::from(byte - b'0')).min(1_000_000))
    })
}

/// Enough for 5,354 decimal digits: those before the point of the largest number, and [`DECIMALS_MAX`] after it.
const LIMBS: usize = 576;

/// A natural number, on the stack.
struct Big {
    /// Lowest first.
    limbs: [u32; LIMBS],
    /// How many are in use; the highest of them is not zero.
    length: usize,
}

impl Big {
    const ZERO: Self = Self { limbs: [0; LIMBS], length: 0 };

    fn from_shifted(number: u64, shift: usize) -> Self {
        let mut big = Self::ZERO;
        big.limbs[0] = number as u32;
        big.limbs[1] = (number >> 32) as u32;
        big.length = 2;
        big.trim();
        big.shift_left(shift);
        big
    }

    fn trim(&mut self) {
        while self.length > 0 && self.limbs[self.length - 1] == 0 {
            self.length -= 1;
        }
    }

    fn bits(&self) -> usize {
        match self.length {
            0 => 0,
            length => length * 32 - self.limbs[length - 1].leading_zeros() as usize,
        }
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.limbs[..self.length] {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.limbs[self.length] = carry as u32;
            self.length += 1;
        }
    }

    fn multiply_by_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10_u32.pow(power % 9), 0);
    }

    /// Divides, and returns what is left.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0_u64;
        for limb in self.limbs[..self.length].iter_mut().rev() {
            let dividend = rest << 32 | u64::from(*limb);
            *limb = (dividend / u64::from(divisor)) as u32;
            rest = dividend % u64::from(divisor);
        }
        self.trim();
        rest as u32
    }

    /// Divides, and returns whether anything was left.
    fn divide_by_power_of_ten(&mut self, power: u32) -> bool {
        let mut lost = self.divide(10_u32.pow(power % 9)) != 0;
        for _ in 0..power / 9 {
            lost |= self.divide(1_000_000_000) != 0;
        }
        lost
    }

    fn shift_left(&mut self, shift: usize) {
        let (limbs, bits) = (shift / 32, shift % 32);
        self.limbs.copy_within(..self.length, limbs);
        self.limbs[..limbs].fill(0);
        self.length += limbs;
        self.multiply_add(1 << bits, 0);
        self.trim();
    }

    /// The number nearest to this one (and a little more, if `lost`) times two to `exponent`.
    fn round(&self, mut lost: bool, exponent: i32) -> Option<(u64, i32)> {
        let (below, top) = self.limbs[..self.length].split_at(self.length.saturating_sub(4));
        lost |= below.iter().any(|limb| *limb != 0);
        let bits = top.iter().rev().fold(0_u128, |bits, limb| bits << 32 | u128::from(*limb));
        round(bits, lost, exponent + 32 * below.len() as i32)
    }

    /// Appends the decimal digits.
    fn put_decimal(mut self, out: &mut Vec<u8>) {
        let start = out.len();
        while self.length > 0 {
            let mut group = self.divide(1_000_000_000);
            for _ in 0..9 {
                out.push(b'0' + (group % 10) as u8);
                group /= 10;
                if self.length == 0 && group == 0 {
                    break;
                }
            }
        }
        if out.len() == start {
            out.push(b'0');
        }
        out[start..].reverse();
    }
}

#[cfg(test)]
mod tests;
