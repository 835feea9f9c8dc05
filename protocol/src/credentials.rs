//! Who a client says it is, and the password that it must know.
//!
//! Place in the flow: decoded with HELLO and AUTH (step 2); compared by the server's security, sent by the clients. A
//! password's source, a file or the environment, is read by each program; what makes a password is decided here.
//!
//! Invariants:
//! - A [`Password`] has 1 to [`MAX_PASSWORD_BYTES`] bytes, and lies among zeros, so that comparing it can take the same
//!   time whatever it is.
//! - Neither a password nor an attempt at one is ever shown: `Debug` leaves them out.
//!
//! It deliberately does not compare: that is the server's, in constant time.

use std::fmt;

use crate::limits::MAX_PASSWORD_BYTES;

/// The one user that there is.
pub const DEFAULT_USER: &[u8] = b"default";

/// Bytes of a password's file that are worth reading: one more than the longest password with its line end.
pub const PASSWORD_FILE_BYTES_MAX: usize = MAX_PASSWORD_BYTES + "\r\n".len() + 1;

/// Who a client says it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Its name; `None`: only a password was said, which means the default user.
    pub user: Option<&'a [u8]>,
    /// The password.
    pub password: &'a [u8],
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the name: people type passwords where names belong.
        formatter.write_str("Credentials(redacted)")
    }
}

/// Why bytes are no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There are none.
    #[error("the password is empty")]
    Empty,
    /// There are too many.
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
}

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    padded: Box<[u8; MAX_PASSWORD_BYTES]>,
    length: usize,
}

impl Password {
    /// The password of these bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, PasswordError> {
        let mut padded = Box::new([0; MAX_PASSWORD_BYTES]);
        match padded.get_mut(..bytes.len()) {
            None => Err(PasswordError::TooLong),
            Some([]) => Err(PasswordError::Empty),
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(Self { padded, length: bytes.len() })
            }
        }
    }

    /// The password of a file that holds `bytes`: without one line end behind it, which editors add.
    pub fn of_file(bytes: &[u8]) -> Result<Self, PasswordError> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let without_end = if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        Self::new(without_end)
    }

    /// Its bytes, to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.padded[..self.length]
    }

    /// Its bytes with zeros behind them, to be compared.
    pub fn padded(&self) -> &[u8; MAX_PASSWORD_BYTES] {
        &self.padded
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(redacted)")
    }
}

/// Whether only its owner may read a file of these permissions.
pub fn is_private(mode: u32) -> bool {
    const OF_GROUP_AND_OTHERS: u32 = 0o077;
    mode & OF_GROUP_AND_OTHERS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_password_and_at_most_one_line_end() {
        for (bytes, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\n\n", b"secret\n"),
            (b" se cret ", b" se cret "),
            (b"secret\r", b"secret\r"),
            (b"\x00\xff\n", b"\x00\xff"),
        ] {
            assert_eq!(Password::of_file(bytes).unwrap().bytes(), password, "{}", bytes.escape_ascii());
        }
        for empty in [&b""[..], b"\n", b"\r\n"] {
            assert_eq!(Password::of_file(empty), Err(PasswordError::Empty));
        }
    }

    #[test]
    fn the_longest_password_fits_its_file_and_a_longer_one_is_told() {
        let longest = vec![b'x'; MAX_PASSWORD_BYTES];
        assert_eq!(Password::new(&longest).unwrap().bytes(), longest);
        let file = [&longest[..], b"\r\n"].concat();
        assert_eq!(Password::of_file(&file), Password::new(&longest));
        assert!(file.len() < PASSWORD_FILE_BYTES_MAX, "one more byte shows that a file has too many");
        assert_eq!(Password::new(&vec![b'x'; MAX_PASSWORD_BYTES + 1]), Err(PasswordError::TooLong));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let (password, said) =
            (Password::new(b"canary").unwrap(), Credentials { user: Some(b"canary"), password: b"canary" });
        assert!(!format!("{password:?} {said:?} {:#?}", Some(&password)).contains("canary"));
    }

    #[test]
    fn a_file_that_others_may_read_is_not_private() {
        assert!(is_private(0o100_600) && is_private(0o100_400));
        assert!(!is_private(0o100_640) && !is_private(0o100_604) && !is_private(0o100_620));
    }
}
