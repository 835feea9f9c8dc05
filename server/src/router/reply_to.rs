//! Who is waiting for a result, in which form, and what a result is.
//!
//! Place in the flow: made in step 4 (route), carried through log and apply, used in step 9 (reply). A [`ReplyTo`]
//! travels with a request to the core that owns its key and comes back unread; that core writes the result in the form
//! that the client wants, so the core that holds the connection only passes bytes on.

use std::ops::Range;

use eyot_protocol::command::Command;
use eyot_protocol::native::reply::{
    put_boolean, put_error, put_error_reply, put_integer, put_reply, put_set, put_text, put_value, value_reply_around,
};
use eyot_protocol::request::{KeyQuery, Operation};
use eyot_protocol::resp::{error_line, RespVersion, Writer};
use eyot_protocol::response::{SetOutcome, StoredValue};
use eyot_protocol::tlv::text_place;
use eyot_protocol::ErrorCode;
use eyot_ring::MappedBytes;

use crate::shard::LargeValue;

/// Whether `operation` is a write, which later reads of its connection must see, and whose result is never replaced by
/// an error once there is one: it would say that the write was not applied.
#[inline]
pub fn is_write(operation: Operation) -> bool {
    matches!(operation, Operation::Set | Operation::Delete | Operation::Modify | Operation::Batch)
}

/// In which form a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a native frame.
    Native,
    /// As a RESP reply; where a write took effect or not, in words: `+OK` or null.
    Resp(RespVersion),
    /// As a RESP reply; where a write took effect or not, as a number: 1 or 0.
    RespFlag(RespVersion),
    /// Not at all: the client asked for no replies.
    Silent,
}

/// Who is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// The core that holds the connection.
    pub core: u16,
    /// What was asked.
    pub operation: Operation,
    /// Whether the result goes into a gathered one, of which [`ReplyTo::number`] is then the position; else it is a
    /// reply of its own, of which that is the request id or the place in the connection's order.
    pub gathered: bool,
    /// In which form the result is wanted.
    pub form: Form,
    /// Key of the connection or of the gather.
    pub key: u32,
    /// Generation of that key: a late result must not reach whoever came after.
    pub generation: u32,
    /// Request id, place in the order, or position in the gather.
    pub number: u32,
    /// When the request was received, in microseconds of the node's monotonic clock.
    pub arrived_us: u64,
}

const _: () = assert!(size_of::<ReplyTo>() <= 32, "half a cache line: it moves between processors with each request");

/// A result of an operation on one key.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// The key's value, or that there is none.
    Value(Option<StoredValue<'a>>),
    /// The key's value, which is a large one: sent from where it is, if it is a reply of its own.
    Large(StoredValue<'a>, LargeValue<'a>),
    /// What became of a write with or without a condition.
    Set(SetOutcome),
    /// Whether something is, or was done.
    Boolean(bool),
    /// A number: a length, a counter, a time.
    Integer(i64),
    /// Text that is not a stored value: part of one, or a number's.
    Text(&'a [u8]),
    /// Part of a large value that is a text: its bytes, at which of the value's they begin, and the value: sent from
    /// where it is, if that is worth it.
    Part(&'a [u8], usize, LargeValue<'a>),
    /// A word, such as a type's name.
    Status(&'static str),
    /// That there is nothing.
    Null,
    /// That it failed.
    Error(ErrorCode, &'a str),
}

impl Reply<'_> {
    /// Appends the result as it stands among others in the form of `to`: in a gathered reply, or on its way between
    /// cores.
    #[inline]
    pub fn put(&self, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Native => self.put_native(out),
            Form::Resp(version) => self.put_resp(version, false, out),
            Form::RespFlag(version) => self.put_resp(version, true, out),
            Form::Silent => {}
        }
    }

    /// Appends the result as a reply of its own.
    #[inline]
    pub fn put_whole(&self, to: &ReplyTo, out: &mut Vec<u8>) {
        match (to.form, *self) {
            (Form::Native, Self::Error(code, message)) => {
                put_error_reply(out, to.operation.code(), to.number, code, message);
            }
            (Form::Native, _) => put_reply(out, to.operation.code(), to.number, |out| self.put_native(out)),
            (form, _) => self.put(form, out),
        }
    }

    #[inline]
    fn put_native(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Value(found) => put_value(out, found),
            Self::Large(found, _) => put_value(out, Some(found)),
            Self::Set(outcome) => put_set(out, outcome),
            Self::Boolean(value) => put_boolean(out, value),
            Self::Integer(number) => put_integer(out, number),
            Self::Text(text) | Self::Part(text, ..) => put_text(out, text),
            Self::Status(word) => put_text(out, word.as_bytes()),
            Self::Null => put_value(out, None),
            Self::Error(code, message) => put_error(out, code, message),
        }
    }

    #[inline]
    #[allow(clippy::match_same_arms)] // In the order of the outcomes, not of their forms.
    fn put_resp(&self, version: RespVersion, flag: bool, out: &mut Vec<u8>) {
        let mut writer = Writer { out, version };
        match *self {
            Self::Value(Some(found)) | Self::Large(found, _) => writer.value(found.value),
            Self::Value(None) | Self::Null => writer.null(),
            Self::Set(SetOutcome::Stored { .. }) if flag => writer.integer(1),
            Self::Set(SetOutcome::Stored { .. }) => writer.status("OK"),
            Self::Set(SetOutcome::NotStored { .. }) if flag => writer.integer(0),
            Self::Set(SetOutcome::NotStored { .. }) => writer.null(),
            Self::Boolean(value) => writer.integer(i64::from(value)),
            Self::Integer(number) => writer.integer(number),
            Self::Text(text) | Self::Part(text, ..) => writer.bulk(text),
            Self::Status(word) => writer.status(word),
            Self::Error(code, message) => error_line(code, message, out),
        }
    }

    /// Bytes of the value or text that it is, if it is one: what a client can be owed much of.
    #[inline]
    pub fn bulk_bytes(&self) -> Option<usize> {
        match self {
            Self::Value(found) => found.map(|found| found.value.len()),
            Self::Large(found, _) => Some(found.value.len()),
            Self::Text(text) | Self::Part(text, ..) => Some(text.len()),
            _ => None,
        }
    }

    /// The result as a reply of its own that refers to the value instead of copying it; `None` where that cannot be,
    /// and [`Reply::put`] is to be used.
    pub fn by_reference(&self, to: &ReplyTo) -> Option<LargeReply> {
        let (found, large) = match self {
            Self::Large(found, large) => (found, large),
            Self::Part(text, first, large) if is_part_referred_to(to, text.len()) => {
                let head = format!("${}\r\n", text.len()).into_bytes();
                let range = *first..first + text.len();
                return Some(LargeReply { head, value: large.pin(), range, tail: b"\r\n".to_vec() });
            }
            _ => return None,
        };
        if to.gathered {
            return None;
        }
        let (head, range, tail) = match to.form {
            Form::Native => {
                let bytes = found.value.len();
                let (head, tail) = value_reply_around(to.operation.code(), to.number, bytes, found.version);
                (head, 0..bytes, tail)
            }
            Form::Resp(_) | Form::RespFlag(_) => {
                // Only a text is the same bytes on both sides. Nothing else comes into a value file: it would be copied
                // here, page by page from the disk where it has left memory.
                let range = text_place(large.head());
                debug_assert!(range.is_some(), "a large value that is no text");
                let range = range?;
                (format!("${}\r\n", range.len()).into_bytes(), range, b"\r\n".to_vec())
            }
            Form::Silent => return None,
        };
        Some(LargeReply { head, value: large.pin(), range, tail })
    }

    /// Bytes that writing the result copies, unless it refers to them.
    #[inline]
    pub fn copied_bytes(&self) -> usize {
        match self {
            Self::Value(Some(found)) | Self::Large(found, _) => found.value.len(),
            Self::Text(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether the result is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(..))
    }
}

/// A part of a large value is referred to from this length on; a shorter one is copied, which costs less than the sends
/// that a reference takes.
pub const REFERRED_PART_BYTES: usize = 64 * 1024;

/// Whether a part of `bytes` of a large value is sent to `to` from where it is, so that the core touches none of it.
pub fn is_part_referred_to(to: &ReplyTo, bytes: usize) -> bool {
    !to.gathered && bytes >= REFERRED_PART_BYTES && matches!(to.form, Form::Resp(_) | Form::RespFlag(_))
}

/// A reply that consists of a value by reference, and what stands before and behind it.
#[derive(Debug)]
pub struct LargeReply {
    /// What comes first.
    pub head: Vec<u8>,
    /// The value, pinned until it is sent.
    pub value: MappedBytes,
    /// Which of its bytes come then.
    pub range: Range<usize>,
    /// What comes last.
    pub tail: Vec<u8>,
}

/// What was asked of a key.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// A question about this key.
    Read(&'a [u8], KeyQuery),
    /// This command of the log.
    Write(&'a Command<'a>),
}

/// Where results go: to connections, gathers and other cores in the server; into a list in tests.
pub trait ReplySink {
    /// Takes one result.
    fn reply(&mut self, to: &ReplyTo, reply: Reply<'_>);

    /// Takes the result of what has moved, or will move, so much memory that its time may be worth telling.
    fn reply_to_heavy(&mut self, to: &ReplyTo, reply: Reply<'_>, asked: Asked<'_>) {
        let _ = asked;
        self.reply(to, reply);
    }

    /// Takes the results of writes that were stored, of those who are [`ReplyTo::is_alike`] and want `+OK`.
    fn stored(&mut self, run: &mut dyn ExactSizeIterator<Item = &ReplyTo>);
}

impl ReplyTo {
    /// Whether a write that was stored is answered with the same bytes whatever it was: it may be answered together
    /// with others.
    #[inline]
    pub fn is_plain(&self) -> bool {
        matches!(self.form, Form::Resp(_)) && !self.gathered
    }

    /// Whether this, which is plain, is the same connection's request as `other`, of the same kind, in the same form,
    /// and received in the same turn.
    #[inline]
    pub fn is_alike(&self, other: &Self) -> bool {
        Self { number: self.number, ..*other } == *self
    }
}
