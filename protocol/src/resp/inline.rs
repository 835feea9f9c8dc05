//! Inline requests: a line of words, as somebody types it into a terminal.
//!
//! Place in the flow: inside splitting (step 2). Not a hot path: the words are copied.
//!
//! ```text
//! word        up to the next space, tab or line end
//! "a b\n"     escapes: \n \r \t \b \a, \xHH for a byte, \ and any other byte for that byte
//! 'a b'       one escape: \'
//! ```
//!
//! Invariants: a closing quote is followed by a space or the line's end, as in Redis; a line longer than the limit is
//! refused before its end is waited for.
//!
//! It deliberately takes a NUL byte for a part of a word, where Redis takes it for the end of the line.

use super::args::{ArgList, RequestSpans, Span};
use super::decode::{incomplete, RespLimits, Split};
use super::error::RespError;

/// Takes one line off `input`.
#[inline(never)]
pub(super) fn split_inline(input: &[u8], limits: &RespLimits, args: &mut ArgList) -> Result<Split, RespError> {
    let within = &input[..input.len().min(limits.line_bytes_max)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if input.len() >= limits.line_bytes_max {
            return Err(RespError::protocol("ERR Protocol error: too big inline request"));
        }
        return Ok(incomplete(input.len() + 1));
    };
    let consumed = end + 1;
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let first = args.spans.len();
    let mut words = Words { rest: line, args };
    while words.next_word()? {}
    let count = args.spans.len() - first;
    if count == 0 {
        return Ok(Split::Empty { consumed });
    }
    let request = RequestSpans { first: first as u32, count: count as u32, is_unquoted: true };
    Ok(Split::Request { consumed, request })
}

struct Words<'i, 'a> {
    rest: &'i [u8],
    args: &'a mut ArgList,
}

impl Words<'_, '_> {
    fn next_word(&mut self) -> Result<bool, RespError> {
        let Some(start) = self.rest.iter().position(|byte| !is_space(*byte)) else { return Ok(false) };
        self.rest = &self.rest[start..];
        let begin = self.args.unquoted.len();
        loop {
            match self.take() {
                None | Some(b' ' | b'\n' | b'\r' | b'\t') => break,
                Some(b'"') => {
                    self.double_quoted()?;
                    break;
                }
                Some(b'\'') => {
                    self.single_quoted()?;
                    break;
                }
                Some(byte) => self.args.unquoted.push(byte),
            }
        }
        let length = self.args.unquoted.len() - begin;
        self.args.spans.push(Span { start: begin as u32, length: length as u32 });
        Ok(true)
    }

    fn double_quoted(&mut self) -> Result<(), RespError> {
        loop {
            match self.take().ok_or_else(unbalanced)? {
                b'"' => return self.after_quote(),
                b'\\' => {
                    let byte = self.escape()?;
                    self.args.unquoted.push(byte);
                }
                byte => self.args.unquoted.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, RespError> {
        if let [b'x', high, low, rest @ ..] = self.rest {
            if let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) {
                self.rest = rest;
                return Ok(high << 4 | low);
            }
        }
        Ok(match self.take().ok_or_else(unbalanced)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'a' => 0x07,
            other => other,
        })
    }

    fn single_quoted(&mut self) -> Result<(), RespError> {
        loop {
            match self.take().ok_or_else(unbalanced)? {
                b'\'' => return self.after_quote(),
                b'\\' if self.rest.first() == Some(&b'\'') => {
                    self.rest = &self.rest[1..];
                    self.args.unquoted.push(b'\'');
                }
                byte => self.args.unquoted.push(byte),
            }
        }
    }

    fn after_quote(&mut self) -> Result<(), RespError> {
        match self.rest.first() {
            Some(byte) if !is_space(*byte) => Err(unbalanced()),
            _ => Ok(()),
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }
}

/// What C's `isspace` says.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cold]
fn unbalanced() -> RespError {
    RespError::protocol("ERR Protocol error: unbalanced quotes in request")
}
