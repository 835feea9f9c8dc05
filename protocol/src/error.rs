//! The stable error codes that travel on the wire, and the typed error of a request that could not be decoded.
//!
//! Place in the flow: any of the nine steps may end a request with one of these. A code never changes its meaning and
//! is never reused; new ones are appended. `docs/PROTOCOL.md` lists them, and a test keeps the list equal.

use crate::tlv::TlvError;

/// What kind of failure a reply reports. The number is what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The frame's structure is broken; the connection is closed after this reply.
    MalformedFrame = 1,
    /// A frame longer than the server's limit; the connection is closed after this reply.
    FrameTooLarge = 2,
    /// A protocol version this server does not speak.
    UnsupportedVersion = 3,
    /// An operation code this server does not know.
    UnknownOperation = 4,
    /// A flag or feature that this server does not offer (HELLO lists those it does).
    UnsupportedFeature = 5,
    /// The payload is not a valid TLV value.
    InvalidValue = 6,
    /// A valid payload that does not fit the operation: wrong number or type of arguments.
    InvalidArgument = 7,
    /// A key longer than [`crate::limits::MAX_KEY_BYTES`].
    KeyTooLarge = 8,
    /// A value longer than the server's limit.
    ValueTooLarge = 9,
    /// More operations in a batch than [`crate::limits::MAX_BATCH_OPERATIONS`].
    BatchTooLarge = 10,
    /// The server's memory limit is reached: not applied; retry after deleting, or raise `--max-memory`.
    OutOfMemory = 11,
    /// A queue of the server is full: not applied; retry with backoff.
    Busy = 12,
    /// The disk is full: not applied; writes come back when space does.
    NoSpace = 13,
    /// The deadline passed before the request was executed: not applied.
    DeadlineExceeded = 14,
    /// The server is stopping: not applied; reconnect.
    ShuttingDown = 15,
    /// The connection limit is reached; the connection is closed after this reply.
    TooManyConnections = 16,
    /// Whether the request was applied is unknown.
    Unknown = 17,
    /// The operation does not fit the type of the value under the key: not applied.
    WrongType = 18,
    /// What should be a number is none, or the result is out of its range: not applied.
    InvalidNumber = 19,
    /// The operation needs a key that does not exist: not applied.
    NoSuchKey = 20,
    /// The operation needs its keys in one shard, and they are not: not applied.
    CrossSlot = 21,
    /// The server wants a password, and this connection has not said it: not applied.
    AuthenticationRequired = 22,
    /// The user or the password is not right.
    AuthenticationFailed = 23,
    /// There is no snapshot of this shard at this index, or none any more: ask for the newest.
    NoSuchSnapshot = 24,
}

impl ErrorCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 24] = [
        Self::MalformedFrame,
        Self::FrameTooLarge,
        Self::UnsupportedVersion,
        Self::UnknownOperation,
        Self::UnsupportedFeature,
        Self::InvalidValue,
        Self::InvalidArgument,
        Self::KeyTooLarge,
        Self::ValueTooLarge,
        Self::BatchTooLarge,
        Self::OutOfMemory,
        Self::Busy,
        Self::NoSpace,
        Self::DeadlineExceeded,
        Self::ShuttingDown,
        Self::TooManyConnections,
        Self::Unknown,
        Self::WrongType,
        Self::InvalidNumber,
        Self::NoSuchKey,
        Self::CrossSlot,
        Self::AuthenticationRequired,
        Self::AuthenticationFailed,
        Self::NoSuchSnapshot,
    ];

    /// The code of a number from the wire; `None` for one that this version does not know.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The number that travels.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The stable name, as scripts and `--json` output show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedFrame => "MALFORMED_FRAME",
            Self::FrameTooLarge => "FRAME_TOO_LARGE",
            Self::UnsupportedVersion => "UNSUPPORTED_VERSION",
            Self::UnknownOperation => "UNKNOWN_OPERATION",
            Self::UnsupportedFeature => "UNSUPPORTED_FEATURE",
            Self::InvalidValue => "INVALID_VALUE",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::KeyTooLarge => "KEY_TOO_LARGE",
            Self::ValueTooLarge => "VALUE_TOO_LARGE",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::Busy => "BUSY",
            Self::NoSpace => "NO_SPACE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Self::Unknown => "UNKNOWN",
            Self::WrongType => "WRONG_TYPE",
            Self::InvalidNumber => "INVALID_NUMBER",
            Self::NoSuchKey => "NO_SUCH_KEY",
            Self::CrossSlot => "CROSS_SLOT",
            Self::AuthenticationRequired => "AUTHENTICATION_REQUIRED",
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
            Self::NoSuchSnapshot => "NO_SUCH_SNAPSHOT",
        }
    }

    /// Whether the same request may succeed later without being changed. Such a request was not applied.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory
                | Self::Busy
                | Self::NoSpace
                | Self::DeadlineExceeded
                | Self::ShuttingDown
                | Self::TooManyConnections
        )
    }

    /// Whether the server closes the connection after the reply, because it can no longer tell where a frame begins.
    pub const fn closes_connection(self) -> bool {
        matches!(self, Self::MalformedFrame | Self::FrameTooLarge | Self::TooManyConnections)
    }
}

/// A request or reply that could not be decoded: the code that the reply carries, and what was wrong, where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct ProtocolError {
    /// The stable code.
    pub code: ErrorCode,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl ProtocolError {
    /// An error of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<TlvError> for ProtocolError {
    fn from(error: TlvError) -> Self {
        // A sound value of another type than the operation takes is the argument's fault, not the encoding's.
        let code = match error {
            TlvError::Unexpected { .. } => ErrorCode::InvalidArgument,
            _ => ErrorCode::InvalidValue,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_names_are_distinct() {
        for (position, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, position + 1);
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        let names: std::collections::BTreeSet<_> = ErrorCode::ALL.map(ErrorCode::name).into_iter().collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(25), None);
    }
}
