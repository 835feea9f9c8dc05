//! What is asked for: which operation, on which key.
//!
//! Place in the flow: asked once for each request, by the thread that sends it; a choice costs a few nanoseconds and no
//! memory, for any number of keys.
//!
//! Invariant: the same seed makes the same choices.
//!
//! ```text
//! key 12,345 of prefix "key:"    k e y : 0 0 0 0 0 0 0 1 2 3 4 5       16 bytes, up to 10^12 keys
//! ```

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Serialize, Serializer};

use crate::zipf::Zipf;

/// Digits of a key's number: with a prefix of four bytes, a key has exactly 16.
pub const DIGITS: usize = 12;
/// Most keys: what the digits can name.
pub const MAX_KEYS: u64 = 1_000_000_000_000;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Get,
    /// Write.
    Set,
}

/// The keys' common form.
#[derive(Debug, Clone)]
pub struct KeyForm {
    key: Vec<u8>,
}

impl KeyForm {
    /// Keys that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        let mut key = prefix.as_bytes().to_vec();
        key.extend_from_slice(&[b'0'; DIGITS]);
        Self { key }
    }

    /// The bytes of key `number`, valid until the next call.
    #[inline]
    pub fn key(&mut self, number: u64) -> &[u8] {
        let digits = self.key.last_chunk_mut::<DIGITS>().expect("a key ends with its digits");
        write_digits(digits, number);
        &self.key
    }

    /// Which key these bytes are, where they are one.
    pub fn number(&self, key: &[u8]) -> Option<u64> {
        let (prefix, digits) = key.split_last_chunk::<DIGITS>()?;
        let own_prefix = &self.key[..self.key.len() - DIGITS];
        (prefix == own_prefix && digits.iter().all(u8::is_ascii_digit))
            .then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    }
}

/// Writes `number`, below 10^12, in decimal with leading zeros.
#[inline]
pub fn write_digits(digits: &mut [u8; DIGITS], mut number: u64) {
    debug_assert!(number < MAX_KEYS);
    for pair in digits.rchunks_exact_mut(2) {
        let two = (number % 100) as usize;
        number /= 100;
        pair.copy_from_slice(&PAIRS[two]);
    }
}

/// `00` to `99`: halves the divisions.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Writes to reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Parts that are writes.
    pub sets: u32,
    /// Parts that are reads.
    pub gets: u32,
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no ratio; write SETS:GETS such as 1:10, 0:1 or 1:0");
        let (sets, gets) = text.split_once(':').ok_or_else(wrong)?;
        let part = |text: &str| text.parse::<u32>().ok().filter(|part| *part <= 1_000_000).ok_or_else(wrong);
        let ratio = Self { sets: part(sets)?, gets: part(gets)? };
        if ratio.sets + ratio.gets == 0 {
            return Err(wrong());
        }
        Ok(ratio)
    }
}

impl Ratio {
    /// The share of writes as a threshold of 32 random bits: a number below it is a write.
    fn set_threshold(self) -> u64 {
        (u64::from(self.sets) << 32) / u64::from(self.sets + self.gets)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.sets, self.gets))
    }
}

/// How often each key is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// All keys alike.
    Uniform,
    /// Key number n, counted from 1, in proportion to `1 / n^theta`.
    Zipf {
        /// The skew.
        theta: f64,
    },
    /// One key after the other, round and round: what fills a server while its latencies are measured.
    Sequential {
        /// The key to begin with.
        first: u64,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// The skew of YCSB.
        const DEFAULT_THETA: f64 = 0.99;
        let wrong = || {
            format!(
                "\"{text}\" is no distribution; use uniform, zipf or zipf:THETA with THETA from 0.01 to 5, \
                 sequential or sequential:FIRST"
            )
        };
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipf" => Ok(Self::Zipf { theta: DEFAULT_THETA }),
            None if text == "sequential" => Ok(Self::Sequential { first: 0 }),
            Some(("sequential", first)) => match first.parse::<u64>() {
                Ok(first) if first < MAX_KEYS => Ok(Self::Sequential { first }),
                _ => Err(wrong()),
            },
            Some(("zipf", theta)) => match theta.parse::<f64>() {
                Ok(theta) if (0.01..=5.0).contains(&theta) => Ok(Self::Zipf { theta }),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => formatter.write_str("uniform"),
            Self::Zipf { theta } => write!(formatter, "zipf:{theta}"),
            Self::Sequential { first } => write!(formatter, "sequential:{first}"),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thread's stream of choices.
#[derive(Debug)]
pub struct Workload {
    random: SmallRng,
    set_threshold: u64,
    keys: u64,
    order: Order,
}

/// How the next key is found.
#[derive(Debug)]
enum Order {
    Uniform,
    Zipf(Zipf),
    Sequential { next: u64 },
}

impl Workload {
    /// Choices among `keys` keys.
    pub fn new(ratio: Ratio, distribution: Distribution, keys: u64, seed: u64) -> Self {
        assert!((1..=MAX_KEYS).contains(&keys), "checked with the arguments");
        let order = match distribution {
            Distribution::Uniform => Order::Uniform,
            Distribution::Zipf { theta } => Order::Zipf(Zipf::new(keys, theta)),
            Distribution::Sequential { first } => Order::Sequential { next: first % keys },
        };
        Self { random: SmallRng::seed_from_u64(seed), set_threshold: ratio.set_threshold(), keys, order }
    }

    /// The stream of thread `thread` of `threads`: sequential keys are cut into as many pieces, so that each key is
    /// used once by as many requests as there are keys from the first one on.
    #[must_use]
    pub fn of_thread(mut self, thread: u64, threads: u64) -> Self {
        if let Order::Sequential { next } = &mut self.order {
            *next += (u128::from(self.keys - *next) * u128::from(thread) / u128::from(threads)) as u64;
        }
        self
    }

    /// The next operation.
    #[inline]
    pub fn action(&mut self) -> Action {
        if u64::from(self.random.next_u32()) < self.set_threshold {
            Action::Set
        } else {
            Action::Get
        }
    }

    /// The number of the next key, from 0.
    #[inline]
    pub fn key(&mut self) -> u64 {
        match &mut self.order {
            // The high half of the product: uniform to within 10^12 / 2^64.
            Order::Uniform => ((u128::from(self.random.next_u64()) * u128::from(self.keys)) >> 64) as u64,
            Order::Zipf(zipf) => zipf.sample(|| self.random.gen::<f64>()) - 1,
            Order::Sequential { next } => {
                let key = *next;
                *next = (key + 1) % self.keys;
                key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_and_read_back() {
        let mut form = KeyForm::new("key:");
        assert_eq!(form.key(12_345), b"key:000000012345");
        for number in [0, 7, 99, 100, 123_456_789_012, MAX_KEYS - 1] {
            let key = form.key(number).to_vec();
            assert_eq!(key.len(), 16);
            assert_eq!(form.number(&key), Some(number));
        }
        for other in [&b"kex:000000012345"[..], b"key:00000001234", b"key:0000000x2345", b"", b"key:0000000123456"] {
            assert_eq!(form.number(other), None);
        }
    }

    #[test]
    fn ratios() {
        assert_eq!("1:10".parse(), Ok(Ratio { sets: 1, gets: 10 }));
        for wrong in ["", "1", "1:", "0:0", "-1:2", "1:2:3", "9999999:1"] {
            assert!(wrong.parse::<Ratio>().is_err(), "{wrong}");
        }
        for (ratio, share) in [("1:10", 1.0 / 11.0), ("0:1", 0.0), ("1:0", 1.0), ("1:1", 0.5)] {
            let mut workload = Workload::new(ratio.parse().unwrap(), Distribution::Uniform, 10, 3);
            let sets = (0..100_000).filter(|_| workload.action() == Action::Set).count();
            assert!((sets as f64 / 100_000.0 - share).abs() < 0.006, "{ratio}: {sets}");
        }
    }

    #[test]
    fn uniform_keys_fill_the_range_evenly() {
        let mut workload = Workload::new(Ratio { sets: 0, gets: 1 }, Distribution::Uniform, 10, 7);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[workload.key() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn sequential_keys_are_cut_up_among_the_threads_and_begin_again() {
        let stream = |text: &str, thread, threads| {
            let distribution: Distribution = text.parse().unwrap();
            assert_eq!(distribution.to_string().parse(), Ok(distribution));
            let mut workload = Workload::new(Ratio { sets: 1, gets: 0 }, distribution, 7, 3).of_thread(thread, threads);
            (0..6).map(|_| workload.key()).collect::<Vec<_>>()
        };
        assert_eq!(stream("sequential", 0, 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(stream("sequential:5", 0, 1), [5, 6, 0, 1, 2, 3]);
        assert_eq!(stream("sequential", 0, 2), [0, 1, 2, 3, 4, 5]);
        assert_eq!(stream("sequential", 1, 2), [3, 4, 5, 6, 0, 1]);
        for wrong in ["sequential:", "sequential:x", "sequential:1000000000000"] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let choices = |seed| {
            let mut workload = Workload::new(Ratio { sets: 1, gets: 1 }, "zipf".parse().unwrap(), 1000, seed);
            (0..100).map(|_| (workload.action() == Action::Set, workload.key())).collect::<Vec<_>>()
        };
        assert_eq!(choices(5), choices(5));
        assert_ne!(choices(5), choices(6));
    }
}
