//! RESP2, as far as GET and SET need it; RESP3's null is understood, too.
//!
//! ```text
//! out   *2 CRLF $3 CRLF GET CRLF $16 CRLF key CRLF
//!       *3 CRLF $3 CRLF SET CRLF $16 CRLF key CRLF $64 CRLF value CRLF
//! in    +text CRLF    stored                $n CRLF n bytes CRLF    found
//!       -CODE text CRLF    failed           $-1 CRLF or _ CRLF      not found
//! ```

use eyot_protocol::limits::MAX_VALUE_BYTES;

use super::{Reply, WireError};

/// What ends a line and a bulk string.
pub(super) const LINE_END: &[u8] = b"\r\n";
/// Longest line that is waited for; Redis's own limit of an inline line.
const MAX_LINE_BYTES: usize = 64 * 1024;

pub(super) fn get(key: &[u8]) -> Vec<u8> {
    let mut out = b"*2\r\n$3\r\nGET\r\n".to_vec();
    put_bulk(&mut out, key);
    out
}

pub(super) fn set(key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> Vec<u8> {
    let mut out = if ttl_ms.is_some() { b"*5\r\n$3\r\nSET\r\n".to_vec() } else { b"*3\r\n$3\r\nSET\r\n".to_vec() };
    put_bulk(&mut out, key);
    put_bulk(&mut out, value);
    if let Some(ttl_ms) = ttl_ms {
        put_bulk(&mut out, b"PX");
        put_bulk(&mut out, ttl_ms.to_string().as_bytes());
    }
    out
}

/// The request that says the password. Redis takes it in this form as well, of whatever version.
pub fn auth(password: &[u8]) -> Vec<u8> {
    let mut out = b"*2\r\n$4\r\nAUTH\r\n".to_vec();
    put_bulk(&mut out, password);
    out
}

/// The answer to [`auth`], once all of it is there.
///
/// # Errors
/// The server refused.
pub fn auth_reply(input: &[u8]) -> Result<Option<()>, WireError> {
    match reply(input)? {
        None => Ok(None),
        Some((_, Reply::Stored)) => Ok(Some(())),
        Some((_, Reply::Error { message, .. })) => Err(WireError(message.to_owned())),
        Some((_, other)) => Err(WireError(format!("{other:?} does not answer AUTH"))),
    }
}

fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(LINE_END);
}

/// The first reply of `input`: the bytes it takes, what it says. `None`: it is not all there.
///
/// # Errors
/// What is there is no reply to GET or SET.
#[inline]
pub fn reply(input: &[u8]) -> Result<Option<(usize, Reply<'_>)>, WireError> {
    let Some((line, line_bytes)) = line(input)? else { return Ok(None) };
    match line.split_first() {
        Some((b'+', _)) => Ok(Some((line_bytes, Reply::Stored))),
        Some((b'$', b"-1") | (b'_', b"")) => Ok(Some((line_bytes, Reply::Missing))),
        Some((b'$', digits)) => {
            let length = number(digits)?;
            let end = line_bytes + length;
            let Some(bulk) = input.get(line_bytes..end + LINE_END.len()) else { return Ok(None) };
            match bulk.split_at(length) {
                (value, LINE_END) => Ok(Some((end + LINE_END.len(), Reply::Value(value)))),
                _ => Err(WireError(format!("a bulk string of {length} bytes does not end after them"))),
            }
        }
        Some((b'-', text)) => {
            let message = std::str::from_utf8(text).unwrap_or("(an error that is not UTF-8)");
            let code = message.split(' ').next().unwrap_or_default();
            Ok(Some((line_bytes, Reply::Error { code, message })))
        }
        _ => Err(WireError(format!("a line \"{}\"", line.escape_ascii()))),
    }
}

/// The first line without its end, and its length with it.
#[inline]
pub(super) fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, WireError> {
    let searched = &input[..input.len().min(MAX_LINE_BYTES)];
    match searched.iter().position(|&byte| byte == b'\r') {
        Some(end) => match input.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((&input[..end], end + LINE_END.len()))),
            Some(other) => Err(WireError(format!("CR is followed by {other:#04x}"))),
        },
        None if searched.len() == MAX_LINE_BYTES => Err(WireError(format!("a line over {MAX_LINE_BYTES} bytes"))),
        None => Ok(None),
    }
}

/// The length of what follows.
#[inline]
pub(super) fn number(digits: &[u8]) -> Result<usize, WireError> {
    /// More would be over any limit, and overflow the sum.
    const MAX_DIGITS: usize = 12;
    let valid = !digits.is_empty() && digits.len() <= MAX_DIGITS && digits.iter().all(u8::is_ascii_digit);
    let value = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    match valid.then(|| value(digits)) {
        Some(length) if length <= MAX_VALUE_BYTES => Ok(length),
        _ => Err(WireError(format!("a value of \"{}\" bytes", digits.escape_ascii()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_all_kinds_are_read_wherever_the_stream_is_cut() {
        let stream = b"+OK\r\n$3\r\na\rb\r\n$0\r\n\r\n$-1\r\n_\r\n-LOADING wait a bit\r\n";
        let expected = [
            Reply::Stored,
            Reply::Value(b"a\rb"),
            Reply::Value(b""),
            Reply::Missing,
            Reply::Missing,
            Reply::Error { code: "LOADING", message: "LOADING wait a bit" },
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
    fn a_password_is_a_bulk_and_its_answer_is_a_status() {
        assert_eq!(auth(b"two words"), b"*2\r\n$4\r\nAUTH\r\n$9\r\ntwo words\r\n");
        assert_eq!(auth_reply(b"+O"), Ok(None));
        assert_eq!(auth_reply(b"+OK\r\n"), Ok(Some(())));
        assert_eq!(auth_reply(b"-WRONGPASS no\r\n"), Err(WireError("WRONGPASS no".to_owned())));
        assert!(auth_reply(b"$-1\r\n").is_err());
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_never_a_panic() {
        for wrong in [
            &b"*1\r\n"[..],
            b"$abc\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"$99999999999999999999\r\n",
            b"$999999999999\r\n",
            b"$3\r\nabcde\r\n",
            b"+OK\rx",
            b"\r\n",
        ] {
            assert!(reply(wrong).is_err(), "{}", wrong.escape_ascii());
        }
        assert!(reply(&vec![b'+'; MAX_LINE_BYTES]).is_err());
    }
}
