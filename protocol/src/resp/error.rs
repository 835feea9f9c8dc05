//! The errors that a RESP client gets, as lines in Redis's words.
//!
//! Place in the flow: steps 2 (a request that is none) and 9 (a reply that is an error).
//!
//! Invariant: a line holds no line break and never more than [`MAX_ERROR_MESSAGE_BYTES`]; its first word is what
//! clients match on.

use std::borrow::Cow;

use crate::error::ErrorCode;
use crate::limits::MAX_ERROR_MESSAGE_BYTES;

/// A request that cannot be executed, and why. The text is Redis 7.0's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct RespError {
    line: Cow<'static, str>,
    closes_connection: bool,
}

impl RespError {
    /// An error whose whole line is `line`, its first word included.
    pub const fn fixed(line: &'static str) -> Self {
        Self { line: Cow::Borrowed(line), closes_connection: false }
    }

    /// The same for a line that was put together.
    #[cold]
    pub fn text(line: impl Into<String>) -> Self {
        Self { line: Cow::Owned(line.into()), closes_connection: false }
    }

    /// The stream cannot be followed any further: the connection is closed after this line.
    #[cold]
    pub fn protocol(line: impl Into<Cow<'static, str>>) -> Self {
        Self { line: line.into(), closes_connection: true }
    }

    /// The line, without `-` before and the line end behind it.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether nothing behind this request can be understood.
    pub fn closes_connection(&self) -> bool {
        self.closes_connection
    }
}

/// Appends the error line of `code` with `message`, from `-` to the line end.
#[cold]
pub fn error_line(code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    let prefix = match code {
        ErrorCode::OutOfMemory => "OOM",
        ErrorCode::Busy => "BUSY",
        ErrorCode::WrongType => "WRONGTYPE",
        ErrorCode::CrossSlot => "CROSSSLOT",
        ErrorCode::AuthenticationRequired => "NOAUTH",
        ErrorCode::AuthenticationFailed => "WRONGPASS",
        _ => "ERR",
    };
    out.extend_from_slice(b"-");
    out.extend_from_slice(prefix.as_bytes());
    out.push(b' ');
    put_line(message, out);
}

/// Appends `text` without its line breaks, cut to the longest error line, and the line end.
#[cold]
pub(super) fn put_line(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(MAX_ERROR_MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let start = out.len();
    out.extend_from_slice(&text.as_bytes()[..end]);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(code: ErrorCode, message: &str) -> String {
        let mut out = Vec::new();
        error_line(code, message, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_code_becomes_the_word_that_clients_match_on() {
        assert_eq!(line(ErrorCode::OutOfMemory, "no room"), "-OOM no room\r\n");
        assert_eq!(line(ErrorCode::Busy, "later"), "-BUSY later\r\n");
        assert_eq!(line(ErrorCode::WrongType, "no"), "-WRONGTYPE no\r\n");
        assert_eq!(line(ErrorCode::CrossSlot, "no"), "-CROSSSLOT no\r\n");
        assert_eq!(line(ErrorCode::AuthenticationRequired, "no"), "-NOAUTH no\r\n");
        assert_eq!(line(ErrorCode::AuthenticationFailed, "no"), "-WRONGPASS no\r\n");
        assert_eq!(line(ErrorCode::NoSpace, "disk full"), "-ERR disk full\r\n");
    }

    #[test]
    fn a_line_break_in_a_message_does_not_end_the_line() {
        assert_eq!(line(ErrorCode::Unknown, "a\r\nb"), "-ERR a  b\r\n");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = line(ErrorCode::Unknown, &"é".repeat(MAX_ERROR_MESSAGE_BYTES));
        assert_eq!(cut.len(), "-ERR \r\n".len() + MAX_ERROR_MESSAGE_BYTES);
    }
}
