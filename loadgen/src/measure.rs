//! What is counted while the load runs: latencies by operation, errors by code, bytes, findings.
//!
//! Place in the flow: each thread fills its own [`Measurement`]; they are summed when a phase has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::workload::Action;

/// Latencies are recorded with this many significant digits: within 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The largest latency that is told apart from longer ones: an hour, in nanoseconds. `--timeout` is usually far below.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;
/// Most different error codes that are told apart, so that a server that invents codes cannot fill the memory.
const MAX_ERROR_CODES: usize = 64;
/// How many findings of `--verify`, and first messages of errors, are kept to be printed.
pub const MAX_EXAMPLES: usize = 10;

/// An empty histogram of nanoseconds.
pub fn latencies_ns() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, SIGNIFICANT_DIGITS).expect("constant and valid bounds")
}

/// Why a thread had to stop before its work was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A connection ended or broke.
    #[error("connection of client {client} lost with {outstanding} requests outstanding: {why}")]
    ConnectionLost {
        /// Whose.
        client: u64,
        /// Requests without an answer on all connections of the thread.
        outstanding: u64,
        /// What happened.
        why: String,
    },
    /// A request stayed without an answer for too long.
    #[error("{count} requests were not answered within {timeout:?}")]
    Timeout {
        /// How many.
        count: u64,
        /// The limit.
        timeout: Duration,
    },
    /// The ring itself failed.
    #[error("io_uring failed: {0}")]
    Ring(String),
}

/// What one thread, or all together, saw in one phase.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Latencies of reads that were answered without an error, in nanoseconds.
    pub get_ns: Histogram<u64>,
    /// Latencies of writes that were answered without an error, in nanoseconds.
    pub set_ns: Histogram<u64>,
    /// How much later than due requests were sent, in nanoseconds (open loop).
    pub lateness_ns: Histogram<u64>,
    /// Error replies by code.
    pub errors: BTreeMap<String, u64>,
    /// The first messages of error replies.
    pub error_examples: Vec<String>,
    /// Reads that found no value.
    pub missing: u64,
    /// Writes that followed such a read (`--on-miss set`).
    pub fills: u64,
    /// Reads of keys that this run had not written (`--verify`).
    pub unverified: u64,
    /// Reads that were checked (`--verify`).
    pub verified: u64,
    /// Writes that became reads because every key tried had a write outstanding (`--verify`).
    pub deferred_sets: u64,
    /// How many values were wrong (`--verify`).
    pub violations: u64,
    /// The first of them.
    pub violation_examples: Vec<String>,
    /// Bytes handed to the kernel.
    pub sent_bytes: u64,
    /// Bytes taken from the kernel.
    pub received_bytes: u64,
    /// Requests sent on a connection of another core than their key's (`--foreign-share`).
    pub foreign: u64,
    /// Most requests that were due and not sent, at any time (open loop).
    pub max_backlog: u64,
    /// Requests that were due and never sent (open loop).
    pub unsent: u64,
    /// From the phase's start to its last answer.
    pub elapsed: Duration,
    /// What ended it early.
    pub troubles: Vec<Trouble>,
    /// Whether it was interrupted by a signal.
    pub interrupted: bool,
}

impl Default for Measurement {
    fn default() -> Self {
        Self {
            get_ns: latencies_ns(),
            set_ns: latencies_ns(),
            lateness_ns: latencies_ns(),
            errors: BTreeMap::new(),
            error_examples: Vec::new(),
            missing: 0,
            fills: 0,
            unverified: 0,
            verified: 0,
            deferred_sets: 0,
            violations: 0,
            violation_examples: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            foreign: 0,
            max_backlog: 0,
            unsent: 0,
            elapsed: Duration::ZERO,
            troubles: Vec::new(),
            interrupted: false,
        }
    }
}

impl Measurement {
    /// A request was answered without an error.
    #[inline]
    pub fn answered(&mut self, action: Action, latency_ns: u64) {
        match action {
            Action::Get => self.get_ns.saturating_record(latency_ns),
            Action::Set => self.set_ns.saturating_record(latency_ns),
        }
    }

    /// A request was answered with an error.
    #[cold]
    pub fn failed(&mut self, code: &str, message: &str) {
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
        } else {
            let code = if self.errors.len() < MAX_ERROR_CODES { code } else { "OTHER_CODES" };
            *self.errors.entry(code.to_owned()).or_default() += 1;
            if self.error_examples.len() < MAX_EXAMPLES {
                self.error_examples.push(format!("{code}: {message}"));
            }
        }
    }

    /// `--verify` found a wrong value.
    #[cold]
    pub fn violated(&mut self, example: impl FnOnce() -> String) {
        self.violations += 1;
        if self.violation_examples.len() < MAX_EXAMPLES {
            self.violation_examples.push(example());
        }
    }

    /// Requests that were answered without an error.
    pub fn succeeded(&self) -> u64 {
        self.get_ns.len() + self.set_ns.len()
    }

    /// Requests that were answered with an error.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds what another thread saw in the same phase.
    pub fn add(&mut self, other: &Self) {
        for (own, others) in [
            (&mut self.get_ns, &other.get_ns),
            (&mut self.set_ns, &other.set_ns),
            (&mut self.lateness_ns, &other.lateness_ns),
        ] {
            own.add(others).expect("histograms of the same bounds");
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        for (own, others) in [
            (&mut self.error_examples, &other.error_examples),
            (&mut self.violation_examples, &other.violation_examples),
        ] {
            own.extend(others.iter().take(MAX_EXAMPLES - own.len()).cloned());
        }
        for (own, others) in [
            (&mut self.missing, other.missing),
            (&mut self.fills, other.fills),
            (&mut self.unverified, other.unverified),
            (&mut self.verified, other.verified),
            (&mut self.deferred_sets, other.deferred_sets),
            (&mut self.violations, other.violations),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.foreign, other.foreign),
            // Threads keep separate schedules: the sum is the most that can have been due at one time.
            (&mut self.max_backlog, other.max_backlog),
            (&mut self.unsent, other.unsent),
        ] {
            *own += others;
        }
        self.elapsed = self.elapsed.max(other.elapsed);
        self.troubles.extend(other.troubles.iter().cloned());
        self.interrupted |= other.interrupted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth_and_sums_keep_them() {
        let (mut odd, mut even) = (Measurement::default(), Measurement::default());
        for latency_us in 1..=100_000_u64 {
            let half = if latency_us % 2 == 0 { &mut even } else { &mut odd };
            half.answered(Action::Get, latency_us * 1000);
        }
        odd.add(&even);
        assert_eq!(odd.succeeded(), 100_000);
        for (quantile, expected_us) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.9999, 99_990.0)] {
            let got_us = odd.get_ns.value_at_quantile(quantile) as f64 / 1000.0;
            assert!((got_us - expected_us).abs() / expected_us < 0.0011, "{quantile}: {got_us}");
        }
    }

    #[test]
    fn errors_are_counted_by_code_within_a_bound() {
        let mut measurement = Measurement::default();
        for number in 0..1000 {
            measurement.failed(&format!("CODE{}", number % 100), "no");
        }
        assert_eq!(measurement.error_count(), 1000);
        assert_eq!(measurement.errors.len(), MAX_ERROR_CODES + 1);
        assert_eq!(measurement.error_examples.len(), MAX_EXAMPLES);
    }
}
