//! Who is waiting for a result, and what a result is.
//!
//! Place in the flow: made in step 4 (route), carried through log and apply, used in step 9 (reply). A [`ReplyTo`]
//! travels with a request to the core that owns its key and comes back unread.

use eyot_protocol::native::reply::{put_boolean, put_error, put_set, put_value};
use eyot_protocol::request::Operation;
use eyot_protocol::response::{SetOutcome, StoredValue};
use eyot_protocol::ErrorCode;

/// Who is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// The core that holds the connection.
    pub core: u16,
    /// What was asked.
    pub operation: Operation,
    /// Whether the result goes into a gathered one, of which [`ReplyTo::number`] is then the position; else it is a
    /// reply of its own, of which that is the request id.
    pub gathered: bool,
    /// Key of the connection or of the gather.
    pub key: u32,
    /// Generation of that key: a late result must not reach whoever came after.
    pub generation: u32,
    /// Request id, or position in the gather.
    pub number: u32,
    /// When the request was received, in microseconds of the node's monotonic clock.
    pub arrived_us: u64,
}

/// A result of an operation on one key.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// Of GET.
    Value(Option<StoredValue<'a>>),
    /// Of SET.
    Set(SetOutcome),
    /// Of DELETE and EXISTS.
    Boolean(bool),
    /// Of anything.
    Error(ErrorCode, &'a str),
}

impl Reply<'_> {
    /// Appends the result as the native protocol writes it.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Value(found) => put_value(out, found),
            Self::Set(outcome) => put_set(out, outcome),
            Self::Boolean(value) => put_boolean(out, value),
            Self::Error(code, message) => put_error(out, code, message),
        }
    }

    /// Whether the result is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(..))
    }
}

/// Where results go: to connections, gathers and other cores in the server; into a list in tests.
pub trait ReplySink {
    /// Takes one result.
    fn reply(&mut self, to: &ReplyTo, reply: Reply<'_>);
}
