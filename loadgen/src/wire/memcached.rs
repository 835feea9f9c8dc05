//! memcached's text protocol, as far as a read and a write need it: what a comparison with it is driven by.
//!
//! ```text
//! out   mg key v CRLF
//!       set key 0 0 64 CRLF value CRLF          flags 0, no expiry
//! in    STORED CRLF                                          stored
//!       VA n CRLF n bytes CRLF                               found
//!       EN CRLF                                              not found
//!       ERROR, CLIENT_ERROR text, SERVER_ERROR text CRLF     failed
//! ```
//!
//! The form is that of `doc/protocol.txt` in memcached's sources. Reads are `mg` and not `get`, because memcached 1.6
//! answers pipelined `mg` with one system call, but every `get` with its own: its CPU time for a read at pipeline 16
//! would be several times what it need be.
//!
//! Deliberately not here: the binary protocol.

use super::{resp, Reply, WireError};

/// Longest key that memcached takes.
pub const MAX_KEY_BYTES: usize = 250;

pub(super) fn get(key: &[u8]) -> Vec<u8> {
    [b"mg ", key, b" v", resp::LINE_END].concat()
}

pub(super) fn set(key: &[u8], value: &[u8]) -> Vec<u8> {
    let numbers = format!(" 0 0 {}", value.len());
    [b"set ", key, numbers.as_bytes(), resp::LINE_END, value, resp::LINE_END].concat()
}

/// The first reply of `input`: the bytes it takes, what it says. `None`: it is not all there.
///
/// # Errors
/// What is there is no reply to `mg` or `set`.
#[inline]
pub fn reply(input: &[u8]) -> Result<Option<(usize, Reply<'_>)>, WireError> {
    let Some((line, line_bytes)) = resp::line(input)? else { return Ok(None) };
    match line {
        b"STORED" => return Ok(Some((line_bytes, Reply::Stored))),
        b"EN" => return Ok(Some((line_bytes, Reply::Missing))),
        _ => {}
    }
    let Some(found) = line.strip_prefix(b"VA ") else {
        return error(line).map(|reply| Some((line_bytes, reply)));
    };
    let length = resp::number(found)?;
    let end = line_bytes + length;
    let Some(rest) = input.get(line_bytes..end + resp::LINE_END.len()) else { return Ok(None) };
    match rest.split_at(length) {
        (value, resp::LINE_END) => Ok(Some((end + resp::LINE_END.len(), Reply::Value(value)))),
        _ => Err(WireError(format!("a value of {length} bytes does not end after them"))),
    }
}

#[cold]
fn error(line: &[u8]) -> Result<Reply<'_>, WireError> {
    let text = std::str::from_utf8(line).unwrap_or("(a line that is not UTF-8)");
    let code = text.split(' ').next().unwrap_or_default();
    match code {
        "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR" => Ok(Reply::Error { code, message: text }),
        _ => Err(WireError(format!("a line \"{}\"", line.escape_ascii()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_all_kinds_are_read_wherever_the_stream_is_cut() {
        let stream = b"STORED\r\nVA 3\r\na\rb\r\nVA 0\r\n\r\nEN\r\n\
            SERVER_ERROR out of memory storing object\r\nERROR\r\n";
        let expected = [
            Reply::Stored,
            Reply::Value(b"a\rb"),
            Reply::Value(b""),
            Reply::Missing,
            Reply::Error { code: "SERVER_ERROR", message: "SERVER_ERROR out of memory storing object" },
            Reply::Error { code: "ERROR", message: "ERROR" },
        ];
        let mut at = 0;
        for says in expected {
            let (consumed, got) = reply(&stream[at..]).unwrap().unwrap();
            assert_eq!(got, says);
            for cut in at..at + consumed {
                assert_eq!(reply(&stream[at..cut]).unwrap(), None);
            }
            at += consumed;
        }
        assert_eq!(at, stream.len());
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_never_a_panic() {
        for wrong in [
            &b"+OK\r\n"[..],
            b"VA \r\n",
            b"VA x\r\n",
            b"VA -1\r\n",
            b"VA 3 t1\r\n",
            b"VA 99999999999999999999\r\n",
            b"VA 3\r\nabcde\r\n",
            b"HD\r\n",
            b"NOT_STORED\r\n",
            b"\r\n",
        ] {
            assert!(reply(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
