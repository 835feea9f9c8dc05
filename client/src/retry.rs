//! Which failures are tried again, and after which pause.
//!
//! Place in the flow: around one call ([`crate::client`]) and around opening connections.
//!
//! Invariants:
//! - What may be retried is decided by [`Error::is_retryable`] alone: a write is never sent twice unless the first is
//!   known not to have been applied.
//! - Attempts are bounded, and so is the time: a call never outlives its request timeout. Pauses double up to a bound
//!   and are scattered, so that many clients do not return at the same moment.
//!
//! Pure: the random number comes in, the caller sleeps.

use std::time::Duration;

use crate::error::Error;

/// How often and after which pauses a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, with the first. Default 8: with the pauses below about two seconds, the restart of a server.
    pub max_attempts: u32,
    /// The first pause. Default 20 ms.
    pub first_pause: Duration,
    /// The longest pause. Default 1 s.
    pub max_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 8, first_pause: Duration::from_millis(20), max_pause: Duration::from_secs(1) }
    }
}

impl RetryPolicy {
    /// Every call is tried once.
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// The pause after attempt number `attempt` (from 1) failed with `error`; `None`: do not try again. `jitter` in
    /// `0..1` scatters the pause between half of it and all of it.
    pub(crate) fn pause_after(&self, attempt: u32, error: &Error, jitter: f64) -> Option<Duration> {
        (attempt < self.max_attempts && error.is_retryable()).then(|| self.pause(attempt, jitter))
    }

    /// The pause after the given number of failures in a row.
    pub(crate) fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first_pause.saturating_mul(1 << doublings).min(self.max_pause);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn refused() -> Error {
        Error::Connect { address: Arc::from("h:1"), reason: "refused".to_owned() }
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let policy = RetryPolicy::default();
        let pauses: Vec<u128> = (1..=8).map(|failures| policy.pause(failures, 1.0).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!(policy.pause(u32::MAX, 1.0), Duration::from_secs(1));
        assert_eq!(policy.pause(1, 0.0), Duration::from_millis(10));
    }

    #[test]
    fn attempts_are_bounded() {
        let policy = RetryPolicy { max_attempts: 3, ..RetryPolicy::default() };
        assert!(policy.pause_after(1, &refused(), 0.5).is_some());
        assert!(policy.pause_after(2, &refused(), 0.5).is_some());
        assert!(policy.pause_after(3, &refused(), 0.5).is_none());
        assert!(RetryPolicy::never().pause_after(1, &refused(), 0.5).is_none());
    }

    #[test]
    fn what_is_not_retryable_is_not_tried_again() {
        let wrong = Error::Address { address: "x".to_owned(), reason: "no port".to_owned() };
        assert!(RetryPolicy::default().pause_after(1, &wrong, 0.5).is_none());
    }
}
