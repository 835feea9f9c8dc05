//! What applying one command did.
//!
//! Place in the flow: made in step 8 (apply), answered in step 9 (reply). A failure is an outcome like any other: the
//! entry was applied, and this command of it changed nothing.

use eyot_protocol::ErrorCode;
use eyot_raft_glue::Version;

use super::{LargeValue, Stored};

/// What applying one command did. What it borrows is valid until the next command is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A SET took effect. (One whose expiry had passed already has removed the key.)
    Stored {
        /// The key's new version.
        version: Version,
    },
    /// The condition of a SET did not hold; nothing changed.
    NotStored {
        /// The key's version; `None` when it does not exist or has expired.
        current: Option<Version>,
    },
    /// Of a SET that was to return the value that was there.
    Previous {
        /// That value, encoded; `None` when there was no key.
        value: Option<&'a [u8]>,
        /// That value, if it is a large one: see [`Stored::large`].
        large: Option<LargeValue<'a>>,
        /// Whether the SET took effect.
        stored: bool,
        /// The key's new version if it did, else the one that it has; version 0 when there is no key.
        version: Version,
    },
    /// A command that takes a key out, or changes its expiry, and was to return its value: what was there.
    Value(Option<Stored<'a>>),
    /// A DELETE: whether the key existed. An expired one did not, but its memory is free now.
    Deleted(bool),
    /// A logged removal (of a sweep, or for room): whether the key still had the version that was meant, and is gone
    /// now.
    Expired(bool),
    /// A change of an expiry, a conditional rename, a copy, or a SET of several keys: whether it took effect.
    Changed(bool),
    /// The number that is there now: a new value, or the new length of a text.
    Integer(i64),
    /// The text that is there now.
    Text(&'a [u8]),
    /// It is done, and there is nothing to tell.
    Done,
    /// It could not be done; nothing changed.
    Failed(Failure),
}

/// Why a command could not be done, or a question not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The value has no text: it is null, a list, a map or an error.
    WrongType,
    /// The value is not an integer of 64 bits.
    NotAnInteger,
    /// The value, or what should be added to it, is not a number.
    NotAFloat,
    /// The integer would leave its 64 bits.
    Overflow,
    /// The number would not be finite.
    NanOrInfinity,
    /// The value would be longer than any may be.
    TooLarge,
    /// The key does not exist.
    NoSuchKey,
}

impl Failure {
    /// The stable code.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::WrongType => ErrorCode::WrongType,
            Self::NotAnInteger | Self::NotAFloat | Self::Overflow | Self::NanOrInfinity => ErrorCode::InvalidNumber,
            Self::TooLarge => ErrorCode::ValueTooLarge,
            Self::NoSuchKey => ErrorCode::NoSuchKey,
        }
    }

    /// The words that Redis's clients match on, without the prefix.
    pub const fn message(self) -> &'static str {
        match self {
            Self::WrongType => "Operation against a key holding the wrong kind of value",
            Self::NotAnInteger => "value is not an integer or out of range",
            Self::NotAFloat => "value is not a valid float",
            Self::Overflow => "increment or decrement would overflow",
            Self::NanOrInfinity => "increment would produce NaN or Infinity",
            Self::TooLarge => "string exceeds maximum allowed size (proto-max-bulk-len)",
            Self::NoSuchKey => "no such key",
        }
    }
}
