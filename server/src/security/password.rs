//! The password of the node: whether an attempt at it is right, and how failed ones are told.
//!
//! Place in the flow: step 3 (admit), once a connection. Pure: the time is an argument.
//!
//! Invariants:
//! - Comparing takes the same time whatever the password and the attempt have in common.
//! - Of failed attempts at most one line a [`TOLD_EVERY_US`] is told on a core, which says how many there were since
//!   the last one: whoever guesses passwords must not fill the disk with lines.
//!
//! Deliberately not here: what an unauthenticated client may do, which is `core/authentication`'s.

use eyot_protocol::credentials::{Credentials, Password, DEFAULT_USER};
use eyot_protocol::limits::MAX_PASSWORD_BYTES;
use subtle::ConstantTimeEq;

/// How often a core tells of failed attempts, in microseconds.
pub const TOLD_EVERY_US: u64 = 1_000_000;

/// What is to be said to a client that says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the default user.
    Granted,
    /// It is not.
    Refused,
    /// It means the default user, who has no password here.
    NoPasswordIsSet,
}

/// Judges `said` by the node's password, if it has one.
pub fn judge(password: Option<&Password>, said: &Credentials<'_>) -> Verdict {
    // Who the users are is no secret.
    if said.user.is_some_and(|user| user != DEFAULT_USER) {
        return Verdict::Refused;
    }
    match password {
        None => Verdict::NoPasswordIsSet,
        Some(password) if is_right(password, said.password) => Verdict::Granted,
        Some(_) => Verdict::Refused,
    }
}

fn is_right(password: &Password, attempt: &[u8]) -> bool {
    // The attempt's own length is known to whoever made it.
    let mut padded = [0; MAX_PASSWORD_BYTES];
    let Some(place) = padded.get_mut(..attempt.len()) else { return false };
    place.copy_from_slice(attempt);
    let equal_bytes = padded.ct_eq(password.padded());
    // Zeros behind it must not make another password the same.
    let equal_length = (attempt.len() as u64).ct_eq(&(password.bytes().len() as u64));
    (equal_bytes & equal_length).into()
}

/// Failed attempts on one core that were not told yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct FailedAttempts {
    untold: u64,
    /// When they may be told again.
    again_us: u64,
}

impl FailedAttempts {
    /// Notes one at `now_us` of the monotonic clock; `Some`: a line is due, for so many.
    pub fn note(&mut self, now_us: u64) -> Option<u64> {
        self.untold += 1;
        if now_us < self.again_us {
            return None;
        }
        self.again_us = now_us + TOLD_EVERY_US;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(password: Option<&[u8]>, user: Option<&[u8]>, attempt: &[u8]) -> Verdict {
        let password = password.map(|bytes| Password::new(bytes).unwrap());
        judge(password.as_ref(), &Credentials { user, password: attempt })
    }

    #[test]
    fn only_the_whole_password_of_the_default_user_is_right() {
        let right = Some(&b"secret"[..]);
        assert_eq!(verdict(right, None, b"secret"), Verdict::Granted);
        assert_eq!(verdict(right, Some(b"default"), b"secret"), Verdict::Granted);
        for wrong in [&b""[..], b"s", b"secre", b"secret\0", b"secrets", b"Secret", &[b'x'; 10_000]] {
            assert_eq!(verdict(right, None, wrong), Verdict::Refused, "{}", wrong.escape_ascii());
        }
        for user in [&b"DEFAULT"[..], b"nobody", b""] {
            assert_eq!(verdict(right, Some(user), b"secret"), Verdict::Refused);
            assert_eq!(verdict(None, Some(user), b"secret"), Verdict::Refused);
        }
        let longest = [b'x'; MAX_PASSWORD_BYTES];
        assert_eq!(verdict(Some(&longest), None, &longest), Verdict::Granted);
        assert_eq!(verdict(Some(b"a\0"), None, b"a"), Verdict::Refused);
        assert_eq!(verdict(Some(b"a\0"), None, b"a\0"), Verdict::Granted);
    }

    #[test]
    fn without_a_password_there_is_nothing_to_be_right_about() {
        assert_eq!(verdict(None, None, b"secret"), Verdict::NoPasswordIsSet);
        assert_eq!(verdict(None, Some(b"default"), b""), Verdict::NoPasswordIsSet);
    }

    #[test]
    fn a_flood_of_attempts_is_one_line_a_second_that_counts_them() {
        let mut attempts = FailedAttempts::default();
        assert_eq!(attempts.note(5), Some(1));
        assert!((0..99).all(|_| attempts.note(TOLD_EVERY_US).is_none()));
        assert_eq!(attempts.note(TOLD_EVERY_US + 5), Some(100));
        assert_eq!(attempts.note(TOLD_EVERY_US + 6), None);
    }
}
