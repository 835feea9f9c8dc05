//! Splitting one request off received bytes.
//!
//! Place in the flow: step 2 (decode), first half. Works on whatever part of the stream has arrived.
//!
//! ```text
//! *2\r\n  $3\r\nGET\r\n  $5\r\nkey:1\r\n
//! ```
//!
//! Invariants:
//! - What is found does not depend on how the bytes arrive: splitting after every byte finds the same.
//! - Counts and lengths are compared with [`RespLimits`] before a byte behind them is waited for, and no memory is
//!   taken because a count announces arguments: only for those that are there.
//! - A long unfinished request is not read again from its beginning: [`Unfinished`] keeps how far it was read. Nor is
//!   what was read copied: the list of its arguments moves to and fro, so that the next byte costs no more than itself.
//!
//! It is stricter than Redis in one thing: every line end must be `\r\n`, where Redis takes any byte for the `\n`, and
//! does not look at what stands behind an argument.

use super::args::{ArgList, RequestSpans, Span};
use super::error::RespError;
use super::inline::split_inline;
use crate::limits::{FRAME_OVERHEAD_BYTES, MAX_VALUE_BYTES};
use crate::tlv::parse_integer;

/// Fewest bytes of an argument on the wire: `$0\r\n\r\n`.
const MIN_ARGUMENT_BYTES: usize = 6;
const LINE_END: &[u8] = b"\r\n";
/// From so many arguments on, an unfinished request's are kept. Below it, reading again is cheaper than the memory.
const KEEP_FROM_ARGUMENTS: usize = 64;

/// What a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RespLimits {
    /// Most arguments, the command's name included.
    pub arguments_max: usize,
    /// Longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Longest inline request, and longest line that holds a count or length.
    pub line_bytes_max: usize,
    /// Longest request, in bytes on the wire; below 4 GiB.
    pub request_bytes_max: usize,
    /// A last argument of so many bytes is announced before it has arrived: see [`BigBulk`].
    pub big_bulk_bytes: usize,
    /// Whether the client has yet to authenticate: then an error says that this is why the limits are low.
    pub is_unauthenticated: bool,
}

impl RespLimits {
    /// Most arguments of a request (2^20): MSET of half a million keys. It bounds what one request makes a core gather.
    pub const ARGUMENTS_MAX: usize = 1 << 20;
    /// Longest inline request and longest line (64 KiB), as in Redis.
    pub const LINE_BYTES_MAX: usize = 64 * 1024;
    /// Longest request beyond its longest argument (1 GiB): what Redis keeps for one client at most.
    pub const REQUEST_BYTES_MAX: usize = 1 << 30;

    /// Most arguments before a client has authenticated, as in Redis: enough for HELLO with all its options.
    pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
    /// Longest argument before then, as in Redis (16 KiB).
    pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;
    /// Longest request before then (64 KiB): what a client that nobody knows may have kept for it.
    pub const UNAUTHENTICATED_REQUEST_BYTES_MAX: usize = 64 * 1024;
    /// Longest inline request before then (16 KiB): no longer than an argument.
    pub const UNAUTHENTICATED_LINE_BYTES_MAX: usize = 16 * 1024;

    /// The limits of a client that has not authenticated, where the server wants it to.
    pub const fn unauthenticated() -> Self {
        Self {
            arguments_max: Self::UNAUTHENTICATED_ARGUMENTS_MAX,
            bulk_bytes_max: Self::UNAUTHENTICATED_BULK_BYTES_MAX,
            line_bytes_max: Self::UNAUTHENTICATED_LINE_BYTES_MAX,
            request_bytes_max: Self::UNAUTHENTICATED_REQUEST_BYTES_MAX,
            big_bulk_bytes: usize::MAX,
            is_unauthenticated: true,
        }
    }

    /// The limits of a server that takes values of `value_bytes_max`. `big_bulk_bytes` is from where on a last
    /// argument is received into a place of its own.
    pub fn new(value_bytes_max: usize, big_bulk_bytes: usize) -> Self {
        assert!(value_bytes_max <= MAX_VALUE_BYTES, "a value over the protocol's limit");
        Self {
            arguments_max: Self::ARGUMENTS_MAX,
            bulk_bytes_max: value_bytes_max,
            line_bytes_max: Self::LINE_BYTES_MAX,
            request_bytes_max: Self::REQUEST_BYTES_MAX.max(value_bytes_max + FRAME_OVERHEAD_BYTES),
            big_bulk_bytes,
            is_unauthenticated: false,
        }
    }
}

/// What the bytes at hand begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// A whole request, which takes `consumed` bytes.
    Request {
        /// Its length on the wire.
        consumed: usize,
        /// Its arguments, at least one: see [`ArgList::of`].
        request: RequestSpans,
    },
    /// A blank line or an array of nothing: no request, no reply.
    Empty {
        /// Its length on the wire.
        consumed: usize,
    },
    /// Part of a request.
    Incomplete {
        /// How many bytes it has at least: more than are at hand, never over the limit.
        needed: usize,
        /// Set where only the end of a large last argument is missing, of a request of few arguments.
        big_bulk: Option<BigBulk>,
    },
}

/// A request of which everything has arrived but the end of its last argument, which is large: its bytes can be
/// received into a place of their own, and [`Args::with_last`](super::Args::with_last) puts them behind the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BigBulk {
    /// The arguments before it.
    pub request: RequestSpans,
    /// Where its bytes begin in the input. The line end that follows them is not among them.
    pub value_start: usize,
    /// How many bytes it has.
    pub value_bytes: usize,
}

/// How far a connection's unfinished request was read. Belongs to the connection; the default is a fresh one.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Arguments that are complete.
    spans: Vec<Span>,
    /// Where the next one begins.
    position: usize,
    /// How many are to come; 0: nothing is kept.
    left: usize,
}

impl Unfinished {
    /// How many arguments are kept.
    pub fn kept(&self) -> usize {
        self.spans.len()
    }

    /// Memory of what is kept.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }
}

/// Takes the first request off `input` and appends its arguments to `args`.
///
/// After [`Split::Incomplete`] the next call with the same `unfinished` gets an `input` that begins with the same
/// bytes, and has more. Where a [`BigBulk`] was reported and the caller received its value elsewhere, the request is
/// over, and it begins anew with [`Unfinished::default`].
///
/// # Errors
/// The stream cannot be followed any further: every error closes the connection.
#[inline]
pub fn split_request(
    input: &[u8],
    limits: &RespLimits,
    args: &mut ArgList,
    unfinished: &mut Unfinished,
) -> Result<Split, RespError> {
    match input.first() {
        Some(b'*') => Multibulk { input, limits, args }.split(unfinished),
        Some(_) => split_inline(input, limits, args),
        None => Ok(incomplete(1)),
    }
}

pub(super) fn incomplete(needed: usize) -> Split {
    Split::Incomplete { needed, big_bulk: None }
}

/// What a line with a number held.
enum Line {
    Number { number: i64, after: usize },
    Incomplete,
}

/// What one argument's bytes held.
enum Argument {
    Whole { span: Span, after: usize },
    Incomplete { needed: usize, value: Option<Span> },
}

struct Multibulk<'i, 'l, 'a> {
    input: &'i [u8],
    limits: &'l RespLimits,
    args: &'a mut ArgList,
}

impl Multibulk<'_, '_, '_> {
    #[inline]
    fn split(&mut self, unfinished: &mut Unfinished) -> Result<Split, RespError> {
        let first = self.args.spans.len();
        let (mut position, mut left) = if unfinished.left == 0 {
            match self.line(1, "too big mbulk count string", "invalid multibulk length")? {
                Line::Incomplete => return Ok(incomplete(self.input.len() + 1)),
                Line::Number { number, after } if number <= 0 => return Ok(Split::Empty { consumed: after }),
                Line::Number { number, after } => (after, self.count(number)?),
            }
        } else {
            if first == 0 {
                self.args.spans = std::mem::take(&mut unfinished.spans);
            } else {
                self.args.spans.append(&mut unfinished.spans);
            }
            (unfinished.position, std::mem::take(&mut unfinished.left))
        };
        while left > 0 {
            match self.argument(position, left)? {
                Argument::Whole { span, after } => {
                    self.args.spans.push(span);
                    position = after;
                    left -= 1;
                }
                Argument::Incomplete { needed, value } => {
                    return Ok(self.unfinished(first, position, left, needed, value, unfinished))
                }
            }
        }
        Ok(Split::Request { consumed: position, request: self.request(first) })
    }

    #[inline]
    fn count(&self, number: i64) -> Result<usize, RespError> {
        match usize::try_from(number) {
            Ok(count) if count <= self.limits.arguments_max => Ok(count),
            Ok(count) if self.limits.is_unauthenticated && i32::try_from(count).is_ok() => {
                Err(RespError::protocol("ERR Protocol error: unauthenticated multibulk length"))
            }
            _ => Err(RespError::protocol("ERR Protocol error: invalid multibulk length")),
        }
    }

    /// The argument that begins at `position`; `left` arguments are missing, this one included.
    #[inline]
    fn argument(&self, position: usize, left: usize) -> Result<Argument, RespError> {
        let others = MIN_ARGUMENT_BYTES * (left - 1);
        self.check_request(position + MIN_ARGUMENT_BYTES + others)?;
        match self.input.get(position) {
            Some(b'$') => {}
            Some(other) => return Err(no_dollar(*other)),
            None => return Ok(Argument::Incomplete { needed: position + MIN_ARGUMENT_BYTES + others, value: None }),
        }
        let (number, start) = match self.line(position + 1, "too big bulk count string", "invalid bulk length")? {
            Line::Number { number, after } => (number, after),
            Line::Incomplete => return Ok(Argument::Incomplete { needed: self.input.len() + 1, value: None }),
        };
        let length = match usize::try_from(number) {
            Ok(length) if length <= self.limits.bulk_bytes_max => length,
            Ok(length) if self.limits.is_unauthenticated && length <= MAX_VALUE_BYTES => {
                return Err(RespError::protocol("ERR Protocol error: unauthenticated bulk length"))
            }
            _ => return Err(RespError::protocol("ERR Protocol error: invalid bulk length")),
        };
        let end = start + length;
        let after = end + LINE_END.len();
        self.check_request(after + others)?;
        let span = Span { start: start as u32, length: length as u32 };
        match self.input.get(end..after) {
            Some(LINE_END) => Ok(Argument::Whole { span, after }),
            Some(_) => Err(RespError::protocol("ERR Protocol error: expected '\\r\\n' after an argument")),
            None => Ok(Argument::Incomplete { needed: after + others, value: Some(span) }),
        }
    }

    /// The number in the line that begins at `at`. Nearly all have one or two digits.
    #[inline]
    fn line(&self, at: usize, too_long: &str, invalid: &str) -> Result<Line, RespError> {
        match self.input.get(at..) {
            Some([digit @ b'0'..=b'9', b'\r', b'\n', ..]) => {
                Ok(Line::Number { number: i64::from(digit - b'0'), after: at + 3 })
            }
            Some([tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..]) => {
                Ok(Line::Number { number: i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), after: at + 4 })
            }
            Some(rest) => self.any_line(rest, at, too_long, invalid),
            None => Ok(Line::Incomplete),
        }
    }

    fn any_line(&self, rest: &[u8], at: usize, too_long: &str, invalid: &str) -> Result<Line, RespError> {
        let within = &rest[..rest.len().min(self.limits.line_bytes_max)];
        let Some(length) = within.iter().position(|byte| *byte == b'\r') else {
            if rest.len() >= self.limits.line_bytes_max {
                return Err(RespError::protocol(format!("ERR Protocol error: {too_long}")));
            }
            return Ok(Line::Incomplete);
        };
        match rest.get(length + 1) {
            None => return Ok(Line::Incomplete),
            Some(b'\n') => {}
            Some(_) => return Err(RespError::protocol(format!("ERR Protocol error: {invalid}"))),
        }
        match parse_integer(&rest[..length]) {
            Some(number) => Ok(Line::Number { number, after: at + length + LINE_END.len() }),
            None => Err(RespError::protocol(format!("ERR Protocol error: {invalid}"))),
        }
    }

    #[inline]
    fn check_request(&self, bytes: usize) -> Result<(), RespError> {
        if bytes <= self.limits.request_bytes_max {
            Ok(())
        } else {
            Err(too_long(bytes, self.limits.request_bytes_max))
        }
    }

    fn request(&self, first: usize) -> RequestSpans {
        RequestSpans { first: first as u32, count: (self.args.spans.len() - first) as u32, is_unquoted: false }
    }

    /// Reports an unfinished request, and keeps what was read of a long one.
    fn unfinished(
        &mut self,
        first: usize,
        position: usize,
        left: usize,
        needed: usize,
        value: Option<Span>,
        unfinished: &mut Unfinished,
    ) -> Split {
        let complete = self.args.spans.len() - first;
        if complete >= KEEP_FROM_ARGUMENTS {
            (unfinished.position, unfinished.left) = (position, left);
            if first == 0 {
                unfinished.spans = std::mem::take(&mut self.args.spans);
            } else {
                unfinished.spans.extend(self.args.spans.drain(first..));
            }
            // No command that has so many arguments before it takes a large last one.
            return incomplete(needed);
        }
        let big_bulk = match value {
            Some(value) if left == 1 && complete > 0 && value.length as usize >= self.limits.big_bulk_bytes => {
                Some(BigBulk {
                    request: self.request(first),
                    value_start: value.start as usize,
                    value_bytes: value.length as usize,
                })
            }
            _ => {
                self.args.spans.truncate(first);
                None
            }
        };
        Split::Incomplete { needed, big_bulk }
    }
}

#[cold]
fn too_long(bytes: usize, limit: usize) -> RespError {
    RespError::protocol(format!("ERR Protocol error: request of at least {bytes} bytes is over the limit of {limit}"))
}

#[cold]
fn no_dollar(found: u8) -> RespError {
    RespError::protocol(format!("ERR Protocol error: expected '$', got '{}'", char::from(found)))
}
