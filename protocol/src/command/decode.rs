//! Commands from their bytes.
//!
//! Place in the flow: step 8 (apply) and recovery, for every entry; step 4 (route), on the core that executes a write
//! for another one.
//!
//! Invariants:
//! - No length is believed before it was compared with its limit and with the bytes that are there.
//! - What encoding would not have written is refused: bits without a meaning, combinations that say nothing, bytes that
//!   are left.

use super::{
    kind, option, Command, Condition, ExpiryCondition, NewExpiry, PairList, Value, COMMAND_HEADER_BYTES,
    ENTRY_HEADER_BYTES,
};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::value_part::UploadId;

const IF_PRESENT_AND_SOONER: u8 = option::IF_PRESENT | option::IF_SOONER;

const UNKNOWN: &str = "unknown kind or options";

/// An entry's payload that does not say what it should. From a log whose checksum held, it means another version wrote
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry payload: {problem} at byte {offset} of {length}")]
pub struct CommandError {
    /// What is wrong.
    pub problem: &'static str,
    /// Where, in bytes from the start of the payload.
    pub offset: usize,
    /// How long the payload is.
    pub length: usize,
}

impl<'a> Command<'a> {
    /// The one command that `bytes` hold, as [`Command::encode`] has written it.
    ///
    /// # Errors
    /// When they hold anything else; offsets count from the start of `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CommandError> {
        let mut reader = Reader { bytes, offset: 0 };
        let error = |problem, offset| CommandError { problem, offset, length: bytes.len() };
        let command = reader.command().map_err(|problem| error(problem, 0))?;
        if reader.offset < bytes.len() {
            return Err(error("bytes after the command", reader.offset));
        }
        Ok(command)
    }
}

/// The commands of an entry, in order; after the first error it ends.
#[derive(Debug, Clone)]
pub struct EntryCommands<'a> {
    reader: Reader<'a>,
    decided_at_us: i64,
}

impl<'a> EntryCommands<'a> {
    /// Reads the header of `payload`.
    ///
    /// # Errors
    /// When it is shorter than that.
    pub fn new(payload: &'a [u8]) -> Result<Self, CommandError> {
        let header = payload.first_chunk::<ENTRY_HEADER_BYTES>().ok_or(CommandError {
            problem: "shorter than its header",
            offset: 0,
            length: payload.len(),
        })?;
        let reader = Reader { bytes: payload, offset: ENTRY_HEADER_BYTES };
        Ok(Self { reader, decided_at_us: i64::from_le_bytes(*header) })
    }

    /// The leader's clock when the entry was formed, in microseconds since the epoch.
    pub fn decided_at_us(&self) -> i64 {
        self.decided_at_us
    }

    /// Where in the payload the next command begins.
    #[inline]
    pub fn offset(&self) -> usize {
        self.reader.offset
    }
}

impl<'a> Iterator for EntryCommands<'a> {
    type Item = Result<Command<'a>, CommandError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (start, length) = (self.reader.offset, self.reader.bytes.len());
        if start >= length {
            return None;
        }
        Some(self.reader.command().map_err(|problem| {
            self.reader.offset = length;
            CommandError { problem, offset: start, length }
        }))
    }
}

/// Reads on from `offset`, which is never behind the end of `bytes`.
#[derive(Debug, Clone)]
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// What every command begins with.
#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    options: u8,
    key_bytes: usize,
    value_bytes: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.bytes[self.offset..].first_chunk::<N>().ok_or("cut off")?;
        self.offset += N;
        Ok(*bytes)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let bytes = self.bytes[self.offset..].get(..length).ok_or("a key or value is cut off")?;
        self.offset += length;
        Ok(bytes)
    }

    fn key_and_value(&mut self, header: Header) -> Result<(&'a [u8], &'a [u8]), &'static str> {
        Ok((self.slice(header.key_bytes)?, self.slice(header.value_bytes)?))
    }

    #[inline]
    fn command(&mut self) -> Result<Command<'a>, &'static str> {
        let [kind, options, reserved_low, reserved_high, k0, k1, k2, k3, v0, v1, v2, v3] =
            self.take::<COMMAND_HEADER_BYTES>()?;
        let key_bytes = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if reserved_low != 0 || reserved_high != 0 {
            return Err("reserved bits are set");
        }
        if key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
            return Err("a length over the limit");
        }
        match kind {
            kind::SET => self.set(options, key_bytes, |reader| Ok(Value::Encoded(reader.slice(value_bytes)?))),
            kind::DELETE if options == 0 && value_bytes == 0 => Ok(Command::Delete { key: self.slice(key_bytes)? }),
            kind::EXPIRE if options == option::VERSION && value_bytes == 0 => {
                let version = u64::from_le_bytes(self.take()?);
                Ok(Command::Expire { key: self.slice(key_bytes)?, version })
            }
            _ => self.rarer(Header { kind, options, key_bytes, value_bytes }),
        }
    }

    #[inline]
    fn set(
        &mut self,
        options: u8,
        key_bytes: usize,
        value: impl FnOnce(&mut Self) -> Result<Value<'a>, &'static str>,
    ) -> Result<Command<'a>, &'static str> {
        let expiry = match options & (option::EXPIRES | option::KEEP) {
            0 => NewExpiry::Never,
            option::EXPIRES => NewExpiry::At(i64::from_le_bytes(self.take()?)),
            option::KEEP => NewExpiry::Keep,
            _ => return Err(UNKNOWN),
        };
        let condition = match options & !(option::EXPIRES | option::KEEP | option::RETURN) {
            0 => Condition::Always,
            option::IF_ABSENT => Condition::IfAbsent,
            option::IF_PRESENT => Condition::IfPresent,
            option::VERSION => Condition::IfVersion(u64::from_le_bytes(self.take()?)),
            _ => return Err(UNKNOWN),
        };
        let (key, value) = (self.slice(key_bytes)?, value(self)?);
        Ok(Command::Set { key, value, expiry, condition, return_old: options & option::RETURN != 0 })
    }

    /// The kinds that are not the bulk of a log.
    #[inline(never)]
    fn rarer(&mut self, header: Header) -> Result<Command<'a>, &'static str> {
        let Header { kind, options, key_bytes, value_bytes } = header;
        let if_absent = options & option::IF_ABSENT != 0;
        match kind {
            kind::TAKE_OUT if options == 0 && value_bytes == 0 => Ok(Command::TakeOut { key: self.slice(key_bytes)? }),
            kind::APPEND if options == 0 => {
                let (key, bytes) = self.key_and_value(header)?;
                Ok(Command::Append { key, bytes, length_max: None })
            }
            kind::APPEND_WITHIN if options == 0 => {
                let length_max = Some(u32::from_le_bytes(self.take()?));
                let (key, bytes) = self.key_and_value(header)?;
                Ok(Command::Append { key, bytes, length_max })
            }
            kind::INCREMENT if options == 0 && value_bytes == 0 => {
                let by = i64::from_le_bytes(self.take()?);
                Ok(Command::Increment { key: self.slice(key_bytes)?, by })
            }
            kind::INCREMENT_FLOAT if options == 0 => {
                let (key, by) = self.key_and_value(header)?;
                Ok(Command::IncrementFloat { key, by })
            }
            kind::SET_RANGE if options == 0 => {
                let offset = u32::from_le_bytes(self.take()?);
                let (key, bytes) = self.key_and_value(header)?;
                Ok(Command::SetRange { key, offset, bytes })
            }
            kind::SET_EXPIRY if value_bytes == 0 => self.set_expiry(options, key_bytes),
            kind::RENAME | kind::COPY if options & !option::IF_ABSENT == 0 => {
                if value_bytes > MAX_KEY_BYTES {
                    return Err("a length over the limit");
                }
                let (from, to) = self.key_and_value(header)?;
                Ok(if kind == kind::RENAME {
                    Command::Rename { from, to, if_absent }
                } else {
                    Command::Copy { from, to, replace: !if_absent }
                })
            }
            kind::SET_ALL_IF_ABSENT if options == 0 && key_bytes == 0 => {
                let count = u32::from_le_bytes(self.take()?);
                Ok(Command::SetAllIfAbsent { pairs: PairList::decode(count, self.slice(value_bytes)?)? })
            }
            kind::SET_UPLOAD if value_bytes == size_of::<UploadId>() => {
                let upload = |reader: &mut Self| Ok(Value::Upload(UploadId(u64::from_le_bytes(reader.take()?))));
                self.set(options, key_bytes, upload)
            }
            kind::CLEAR if options == 0 && key_bytes == 0 && value_bytes == 0 => Ok(Command::Clear),
            _ => Err(UNKNOWN),
        }
    }

    fn set_expiry(&mut self, options: u8, key_bytes: usize) -> Result<Command<'a>, &'static str> {
        let at_us = if options & option::EXPIRES == 0 { None } else { Some(i64::from_le_bytes(self.take()?)) };
        let condition = match options & !(option::EXPIRES | option::RETURN) {
            0 => ExpiryCondition::Always,
            option::IF_ABSENT => ExpiryCondition::IfNone,
            option::IF_PRESENT => ExpiryCondition::IfAny,
            option::IF_LATER => ExpiryCondition::IfLater,
            option::IF_SOONER => ExpiryCondition::IfSooner,
            IF_PRESENT_AND_SOONER => ExpiryCondition::IfAnySooner,
            _ => return Err(UNKNOWN),
        };
        let key = self.slice(key_bytes)?;
        Ok(Command::SetExpiry { key, at_us, condition, return_value: options & option::RETURN != 0 })
    }
}
