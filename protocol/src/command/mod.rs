//! What a shard's log entry says: a batch of commands, in the bytes that the log keeps and that peers will exchange.
//!
//! Place in the flow: step 5 (execute) writes an entry with [`EntryBuilder`], step 6 logs its bytes, step 8 (apply)
//! reads them back with [`EntryCommands`]. Recovery reads the same bytes with the same code. A command that another
//! core is to execute travels there in the same bytes.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Command`] and what it consists of |
//! | `encode` | a command's bytes, [`EntryBuilder`] |
//! | `decode` | [`EntryCommands`], one command from its bytes |
//! | `pairs` | [`PairList`]: the keys and values of a command on several keys |
//!
//! Invariants:
//! - An entry carries everything that applying it needs: expiry times are absolute, and `decided_at_us` is the leader's
//!   clock when the entry was formed, by which every replica judges whether a key had expired. Apply reads no clock.
//! - A command has exactly one encoding, and what is not one is refused.
//! - All integers are little-endian.
//!
//! ```text
//! entry    | decided_at_us i64 | command | command | ...            (until the end of the payload)
//!
//! command  | kind u8 | options u8 | reserved u16 = 0 | key_len u32 | value_len u32 | fields | key | value |
//!
//! options  bit 0 EXPIRES   bit 1 IF_ABSENT   bit 2 IF_PRESENT   bit 3 VERSION
//!          bit 4 KEEP      bit 5 RETURN      bit 6 IF_LATER     bit 7 IF_SOONER
//!
//! kind  name               options that it may have           fields                     value
//!  1    SET                one of EXPIRES, KEEP; one of       expires_at_us i64 if       the encoded value
//!                          IF_ABSENT, IF_PRESENT, VERSION;    EXPIRES, version u64 if
//!                          RETURN                             VERSION
//!  2    DELETE
//!  3    EXPIRE             VERSION, always                    version u64
//!  4    TAKE_OUT
//!  5    APPEND                                                                           the bytes to append
//!  6    INCREMENT                                             by i64
//!  7    INCREMENT_FLOAT                                                                  the text of the number
//!  8    SET_RANGE                                             offset u32                 the bytes to write there
//!  9    SET_EXPIRY         EXPIRES; one of IF_ABSENT,         at_us i64 if EXPIRES
//!                          IF_PRESENT, IF_LATER, IF_SOONER,
//!                          or IF_PRESENT with IF_SOONER (all
//!                          of the key's expiry); RETURN
//! 10    RENAME             IF_ABSENT (of the new key)                                    the new key
//! 11    COPY               IF_ABSENT (of the new key)                                    the new key
//! 12    SET_ALL_IF_ABSENT                                     count u32, at least 1      so many pairs; no key
//! 13    CLEAR                                                                            none, and no key
//! 14    SET_UPLOAD         as SET                             as SET                     the upload u64 of its parts
//!                                                                                        in the log: `value_part`
//! 15    APPEND_WITHIN                                         length_max u32             the bytes to append
//!
//! pair     | key_len u32 | value_len u32 | key | the encoded value |
//! ```
//!
//! Deliberately not here: what a command does (the shard engine), and whether a SET's value is a valid one (whoever
//! took it from a client has checked it).

mod decode;
mod encode;
mod pairs;
#[cfg(test)]
mod tests;

use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::tlv;
use crate::value_part::UploadId;

pub use decode::{CommandError, EntryCommands};
pub use encode::EntryBuilder;
pub use pairs::{PairIter, PairList};

/// Bytes before the first command of an entry.
pub const ENTRY_HEADER_BYTES: usize = 8;

/// Bytes of a command before its fields.
const COMMAND_HEADER_BYTES: usize = 12;
/// Bytes of a pair before its key.
const PAIR_HEADER_BYTES: usize = 8;

/// The kinds of commands, as they stand in a log.
mod kind {
    pub const SET: u8 = 1;
    pub const DELETE: u8 = 2;
    pub const EXPIRE: u8 = 3;
    pub const TAKE_OUT: u8 = 4;
    pub const APPEND: u8 = 5;
    pub const INCREMENT: u8 = 6;
    pub const INCREMENT_FLOAT: u8 = 7;
    pub const SET_RANGE: u8 = 8;
    pub const SET_EXPIRY: u8 = 9;
    pub const RENAME: u8 = 10;
    pub const COPY: u8 = 11;
    pub const SET_ALL_IF_ABSENT: u8 = 12;
    pub const CLEAR: u8 = 13;
    pub const SET_UPLOAD: u8 = 14;
    pub const APPEND_WITHIN: u8 = 15;
}

/// The bits of a command's options, as they stand in a log.
mod option {
    pub const EXPIRES: u8 = 1;
    pub const IF_ABSENT: u8 = 1 << 1;
    pub const IF_PRESENT: u8 = 1 << 2;
    pub const VERSION: u8 = 1 << 3;
    pub const KEEP: u8 = 1 << 4;
    pub const RETURN: u8 = 1 << 5;
    pub const IF_LATER: u8 = 1 << 6;
    pub const IF_SOONER: u8 = 1 << 7;
}

/// Under which condition a SET is applied. Judged when the entry is applied, never before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if the key does not exist.
    IfAbsent,
    /// Only if the key exists.
    IfPresent,
    /// Only if the key exists and its last write has this version.
    IfVersion(u64),
}

/// When a key that is written ceases to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewExpiry {
    /// Never.
    #[default]
    Never,
    /// At this time, in microseconds since the epoch.
    At(i64),
    /// When the key that was there would have; never, if there was none.
    Keep,
}

/// Under which condition an expiry is set, judged by the expiry that the key has when the entry is applied. A key
/// without one counts as one that expires after any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpiryCondition {
    /// Always.
    #[default]
    Always,
    /// Only if the key has none.
    IfNone,
    /// Only if the key has one.
    IfAny,
    /// Only if the new one is later.
    IfLater,
    /// Only if the new one is sooner.
    IfSooner,
    /// Only if the key has one, and the new one is sooner.
    IfAnySooner,
}

/// A value that a command stores. What was read from an entry is [`Value::Encoded`] or [`Value::Upload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// One encoded TLV value.
    Encoded(&'a [u8]),
    /// Bytes that become a TLV value of type bytes as they are written into the entry.
    Bytes(&'a [u8]),
    /// A large value whose parts the shard's log has already. Only a SET may have one.
    Upload(UploadId),
}

impl Value<'_> {
    /// How many bytes the value has in the command.
    #[inline]
    pub fn encoded_bytes(&self) -> usize {
        match self {
            Self::Encoded(encoded) => encoded.len(),
            Self::Bytes(bytes) => tlv::encoded_bytes_of_bytes(bytes.len()),
            Self::Upload(_) => size_of::<UploadId>(),
        }
    }

    /// Appends what it has in the command.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Encoded(encoded) => out.extend_from_slice(encoded),
            Self::Bytes(bytes) => tlv::Encoder::new(out).bytes(bytes),
            Self::Upload(upload) => out.extend_from_slice(&upload.0.to_le_bytes()),
        }
    }
}

/// One command of an entry. Keys and values are borrowed: from the entry's bytes, or from the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Store `value` under `key`.
    Set {
        /// The key, at most [`MAX_KEY_BYTES`].
        key: &'a [u8],
        /// The value, at most [`MAX_VALUE_BYTES`] when encoded.
        value: Value<'a>,
        /// When the key ceases to exist.
        expiry: NewExpiry,
        /// When to store at all.
        condition: Condition,
        /// Whether the outcome is the value that was there.
        return_old: bool,
    },
    /// Remove `key`.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Remove `key` if its last write still has `version`: it expired, or is to make room.
    Expire {
        /// The key.
        key: &'a [u8],
        /// The version that is meant.
        version: u64,
    },
    /// Remove `key`; the outcome is the value that was there.
    TakeOut {
        /// The key.
        key: &'a [u8],
    },
    /// Append `bytes` to the text under `key`, which is empty if it does not exist.
    Append {
        /// The key.
        key: &'a [u8],
        /// The bytes.
        bytes: &'a [u8],
        /// How long the text may become: what the node that took the command allows, and so what every replica judges
        /// by. `None`: as long as the format allows.
        length_max: Option<u32>,
    },
    /// Add `by` to the integer under `key`, which is 0 if it does not exist.
    Increment {
        /// The key.
        key: &'a [u8],
        /// How much to add.
        by: i64,
    },
    /// Add a decimal number to the one under `key`, which is 0 if it does not exist.
    IncrementFloat {
        /// The key.
        key: &'a [u8],
        /// The text of the number to add.
        by: &'a [u8],
    },
    /// Write `bytes` over the text under `key` from `offset` on; zeros fill what is missing before it.
    SetRange {
        /// The key.
        key: &'a [u8],
        /// Where to begin, in bytes.
        offset: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Change when `key` ceases to exist.
    SetExpiry {
        /// The key.
        key: &'a [u8],
        /// The time, in microseconds since the epoch; `None`: never.
        at_us: Option<i64>,
        /// When to change it at all.
        condition: ExpiryCondition,
        /// Whether the outcome is the key's value.
        return_value: bool,
    },
    /// Give what is under `from` the key `to`, in the place of what was there.
    Rename {
        /// The key, which must exist.
        from: &'a [u8],
        /// The key that it gets, of the same shard.
        to: &'a [u8],
        /// Only if `to` does not exist.
        if_absent: bool,
    },
    /// Store what is under `from` under `to` as well.
    Copy {
        /// The key.
        from: &'a [u8],
        /// The other key, of the same shard.
        to: &'a [u8],
        /// Also if `to` exists.
        replace: bool,
    },
    /// Store every pair, if none of the keys exists; else none.
    SetAllIfAbsent {
        /// The keys, all of one shard, and their values. Of pairs with the same key the last counts.
        pairs: PairList<'a>,
    },
    /// Remove every key of the shard.
    Clear,
}

impl<'a> Command<'a> {
    /// The first key that the command is about; `None` for [`Command::Clear`], which is about all of them.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Set { key, .. }
            | Self::Delete { key }
            | Self::Expire { key, .. }
            | Self::TakeOut { key }
            | Self::Append { key, .. }
            | Self::Increment { key, .. }
            | Self::IncrementFloat { key, .. }
            | Self::SetRange { key, .. }
            | Self::SetExpiry { key, .. }
            | Self::Rename { from: key, .. }
            | Self::Copy { from: key, .. } => Some(key),
            Self::SetAllIfAbsent { pairs } => pairs.iter().next().map(|(key, _)| key),
            Self::Clear => None,
        }
    }

    /// Every key that the command is about, in its order; none for [`Command::Clear`].
    #[inline]
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        let (first, second, pairs) = match *self {
            Self::Rename { from, to, .. } | Self::Copy { from, to, .. } => (Some(from), Some(to), None),
            Self::SetAllIfAbsent { pairs } => (None, None, Some(pairs)),
            _ => (self.key(), None, None),
        };
        let pairs = pairs.into_iter().flat_map(|pairs| pairs.iter().map(|(key, _)| key));
        first.into_iter().chain(second).chain(pairs)
    }

    /// Whether applying the command may take memory. Removals and changes of an expiry must go through when there is
    /// none left, since they are what gives some back.
    #[inline]
    pub fn grows(&self) -> bool {
        match self {
            Self::Set { .. }
            | Self::Append { .. }
            | Self::Increment { .. }
            | Self::IncrementFloat { .. }
            | Self::SetRange { .. }
            | Self::Rename { .. }
            | Self::Copy { .. }
            | Self::SetAllIfAbsent { .. } => true,
            Self::Delete { .. } | Self::Expire { .. } | Self::TakeOut { .. } | Self::SetExpiry { .. } | Self::Clear => {
                false
            }
        }
    }

    /// Whether the outcome is a value of the key, of whatever length.
    #[inline]
    pub fn returns_value(&self) -> bool {
        matches!(
            self,
            Self::Set { return_old: true, .. } | Self::TakeOut { .. } | Self::SetExpiry { return_value: true, .. }
        )
    }

    /// Whether every key and value is within the protocol's limits, as [`Command::encode`] demands.
    #[inline]
    pub fn is_within_limits(&self) -> bool {
        let fits = |key: &[u8], value_bytes: usize| key.len() <= MAX_KEY_BYTES && value_bytes <= MAX_VALUE_BYTES;
        match *self {
            Self::Set { key, value, .. } => fits(key, value.encoded_bytes()),
            Self::Append { key, bytes, .. }
            | Self::IncrementFloat { key, by: bytes }
            | Self::SetRange { key, bytes, .. } => fits(key, bytes.len()),
            Self::Rename { from, to, .. } | Self::Copy { from, to, .. } => fits(from, 0) && fits(to, 0),
            Self::SetAllIfAbsent { pairs } => {
                !pairs.is_empty()
                    && pairs.encoded_bytes() <= MAX_VALUE_BYTES
                    && pairs.iter().all(|(key, value)| fits(key, value.encoded_bytes()))
            }
            Self::Delete { key }
            | Self::Expire { key, .. }
            | Self::TakeOut { key }
            | Self::Increment { key, .. }
            | Self::SetExpiry { key, .. } => fits(key, 0),
            Self::Clear => true,
        }
    }
}
