//! What can fail, where, and whether the request may have been applied.
//!
//! Place in the flow: the end of every call that did not succeed.
//!
//! Invariant: [`Error::outcome`] never says that a write was not applied unless that is certain: it was never handed to
//! the network, or the server said so.

use std::sync::Arc;

use eyot_protocol::error::ProtocolError;
use eyot_protocol::request::Operation;
use eyot_protocol::response::ReplyError;
use eyot_protocol::ErrorCode;

/// Whether a request that failed may have changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A read failed: there was nothing to apply.
    Failed,
    /// A write was certainly not applied.
    NotApplied,
    /// A write was sent and its reply did not come: it may or may not have been applied.
    Unknown,
}

impl Outcome {
    /// What a user should know and do.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Failed => "nothing was changed; try again",
            Self::NotApplied => "not applied; it is safe to try again",
            Self::Unknown => "whether it was applied is unknown; read the key before trying again",
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be understood.
    #[error("address {address:?}: {reason}; give HOST:PORT, for example 127.0.0.1:6380")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection could be made. Nothing was sent.
    #[error("cannot connect to {address}: {reason}; is the server running, and is this its native port?")]
    Connect {
        /// Where to.
        address: Arc<str>,
        /// What the system said.
        reason: String,
    },
    /// No reply came in time.
    #[error("{} to {address} did not finish within {timeout_ms} ms: {waiting_for}; {}", operation.name(), outcome.advice())]
    Timeout {
        /// What was asked.
        operation: Operation,
        /// The server's address.
        address: Arc<str>,
        /// The time that the call had.
        timeout_ms: u64,
        /// What the call was waiting for when its time was over.
        waiting_for: &'static str,
        /// Whether it may have been applied.
        outcome: Outcome,
    },
    /// The connection broke before the reply came.
    #[error("{}: connection to {address} lost: {reason}; {}", operation.name(), outcome.advice())]
    ConnectionLost {
        /// What was asked.
        operation: Operation,
        /// The server's address.
        address: Arc<str>,
        /// How it broke.
        reason: String,
        /// Whether it may have been applied.
        outcome: Outcome,
    },
    /// What came back is not a reply of the native protocol. The connection was given up.
    #[error(
        "{}: {address} does not answer in the native protocol: {reason}; is this the native port of an Eyot server (6380)? {}",
        operation.name(), outcome.advice()
    )]
    MalformedReply {
        /// What was asked.
        operation: Operation,
        /// The server's address.
        address: Arc<str>,
        /// What was wrong with the reply.
        reason: String,
        /// Whether it may have been applied.
        outcome: Outcome,
    },
    /// The server answered with an error.
    #[error("{} refused by {address}: {error}", operation.name())]
    Server {
        /// What was asked.
        operation: Operation,
        /// The server's address.
        address: Arc<str>,
        /// The server's code and words.
        error: ReplyError,
        /// Whether it may have been applied.
        outcome: Outcome,
    },
    /// An operation of a batch that was not sent, because an earlier part of the batch on the same core failed.
    #[error("{} not sent, since an earlier part of the batch failed ({reason}); {}", operation.name(), outcome.advice())]
    Skipped {
        /// What was asked.
        operation: Operation,
        /// The error of the earlier part.
        reason: String,
        /// Whether it may have been applied: certainly not.
        outcome: Outcome,
    },
    /// The client refuses to send the request, or to start with these options.
    #[error("not sent: {0}")]
    Invalid(ProtocolError),
}

impl Error {
    /// An error for a request or an option that is wrong by itself.
    pub(crate) fn invalid(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Invalid(ProtocolError::new(code, message))
    }

    /// The error of a reply that is one. `write`: whether the request could change anything.
    pub(crate) fn from_reply(operation: Operation, write: bool, address: &Arc<str>, error: ReplyError) -> Self {
        let outcome = match error.code() {
            _ if !write => Outcome::Failed,
            // A number of a newer server may mean anything.
            Some(ErrorCode::Unknown) | None => Outcome::Unknown,
            Some(_) => Outcome::NotApplied,
        };
        Self::Server { operation, address: Arc::clone(address), error, outcome }
    }

    /// The error of `operation`, which was not sent because the HELLO before it failed with this error.
    pub(crate) fn before(mut self, not_sent: Operation, not_sent_outcome: Outcome) -> Self {
        match &mut self {
            Self::Timeout { operation, outcome, .. }
            | Self::ConnectionLost { operation, outcome, .. }
            | Self::MalformedReply { operation, outcome, .. }
            | Self::Server { operation, outcome, .. }
            | Self::Skipped { operation, outcome, .. } => (*operation, *outcome) = (not_sent, not_sent_outcome),
            Self::Address { .. } | Self::Connect { .. } | Self::Invalid(_) => {}
        }
        self
    }

    /// The error of one operation of a BATCH that failed as a whole with this error.
    pub(crate) fn for_operation(&self, part: Operation) -> Self {
        let mut error = self.clone();
        match &mut error {
            Self::Timeout { operation, outcome, .. }
            | Self::ConnectionLost { operation, outcome, .. }
            | Self::MalformedReply { operation, outcome, .. }
            | Self::Server { operation, outcome, .. }
            | Self::Skipped { operation, outcome, .. } => {
                *operation = part;
                if !changes_something(part) {
                    *outcome = Outcome::Failed;
                }
            }
            Self::Address { .. } | Self::Connect { .. } | Self::Invalid(_) => {}
        }
        error
    }

    /// The error of an operation that was not sent, because an earlier part of its batch ended with this error.
    pub(crate) fn skipping(&self, operation: Operation) -> Self {
        let outcome = if changes_something(operation) { Outcome::NotApplied } else { Outcome::Failed };
        Self::Skipped { operation, reason: self.to_string(), outcome }
    }

    /// Whether the request may have been applied.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Address { .. } | Self::Connect { .. } | Self::Invalid(_) => Outcome::NotApplied,
            Self::Timeout { outcome, .. }
            | Self::ConnectionLost { outcome, .. }
            | Self::MalformedReply { outcome, .. }
            | Self::Skipped { outcome, .. }
            | Self::Server { outcome, .. } => *outcome,
        }
    }

    /// A stable name for scripts: the server's error code, or one of `ADDRESS`, `CONNECT`, `TIMEOUT`,
    /// `CONNECTION_LOST`, `MALFORMED_REPLY`, `SKIPPED`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Address { .. } => "ADDRESS",
            Self::Connect { .. } => "CONNECT",
            Self::Timeout { .. } => "TIMEOUT",
            Self::ConnectionLost { .. } => "CONNECTION_LOST",
            Self::MalformedReply { .. } => "MALFORMED_REPLY",
            Self::Skipped { .. } => "SKIPPED",
            Self::Server { error, .. } => error.name(),
            Self::Invalid(error) => error.code.name(),
        }
    }

    /// Whether the same request may succeed if it is sent again, and sending it again is safe.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Skipped { .. } => true,
            Self::ConnectionLost { outcome, .. } => *outcome != Outcome::Unknown,
            Self::Server { error, outcome, .. } => {
                *outcome != Outcome::Unknown && error.code().is_some_and(ErrorCode::is_retryable)
            }
            // A timeout has used up the time of the call; the others fail in the same way again.
            Self::Timeout { .. } | Self::MalformedReply { .. } | Self::Address { .. } | Self::Invalid(_) => false,
        }
    }
}

fn changes_something(operation: Operation) -> bool {
    matches!(operation, Operation::Set | Operation::Delete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u32, write: bool) -> Error {
        let error = ReplyError { number, message: "words".to_owned() };
        Error::from_reply(Operation::Set, write, &Arc::from("h:1"), error)
    }

    #[test]
    fn a_refused_write_is_not_applied_unless_the_code_leaves_it_open() {
        assert_eq!(server(ErrorCode::Busy.number(), true).outcome(), Outcome::NotApplied);
        assert_eq!(server(ErrorCode::Unknown.number(), true).outcome(), Outcome::Unknown);
        assert_eq!(server(9_999, true).outcome(), Outcome::Unknown);
        assert_eq!(server(9_999, false).outcome(), Outcome::Failed);
    }

    #[test]
    fn only_what_is_safe_and_may_help_is_retryable() {
        assert!(server(ErrorCode::Busy.number(), true).is_retryable());
        assert!(!server(ErrorCode::Unknown.number(), true).is_retryable());
        assert!(!server(ErrorCode::KeyTooLarge.number(), true).is_retryable());
        assert!(!server(9_999, false).is_retryable());
        let lost = |outcome| Error::ConnectionLost {
            operation: Operation::Set,
            address: Arc::from("h:1"),
            reason: "closed".to_owned(),
            outcome,
        };
        assert!(lost(Outcome::NotApplied).is_retryable());
        assert!(lost(Outcome::Failed).is_retryable());
        assert!(!lost(Outcome::Unknown).is_retryable());
    }

    #[test]
    fn a_message_says_what_where_and_what_to_do() {
        let text = Error::Timeout {
            operation: Operation::Set,
            address: Arc::from("db:6380"),
            timeout_ms: 250,
            waiting_for: "the reply",
            outcome: Outcome::Unknown,
        }
        .to_string();
        for part in ["SET", "db:6380", "250 ms", "the reply", "unknown", "read the key"] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
        assert!(server(ErrorCode::Busy.number(), true).to_string().contains("BUSY: words"));
    }
}
