//! A command's bytes, and the entry that gathers them.
//!
//! Place in the flow: step 5 (execute), once for each write; and step 4 (route), where a write goes to another core.
//!
//! Invariant: what is written here is read back by `decode` as the same command (values as their encoded bytes).

use super::{
    kind, option, Command, Condition, ExpiryCondition, NewExpiry, Value, COMMAND_HEADER_BYTES, ENTRY_HEADER_BYTES,
};
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_KEY_BYTES, MAX_VALUE_BYTES};

impl Command<'_> {
    /// How many bytes the command takes in an entry.
    pub fn encoded_bytes(&self) -> usize {
        COMMAND_HEADER_BYTES
            + match *self {
                Self::Set { key, value, expiry, condition, .. } => {
                    let expiry = if matches!(expiry, NewExpiry::At(_)) { 8 } else { 0 };
                    let version = if matches!(condition, Condition::IfVersion(_)) { 8 } else { 0 };
                    expiry + version + key.len() + value.encoded_bytes()
                }
                Self::Delete { key } | Self::TakeOut { key } => key.len(),
                Self::Expire { key, .. } | Self::Increment { key, .. } => 8 + key.len(),
                Self::Append { key, bytes, length_max } => length_max.map_or(0, |_| 4) + key.len() + bytes.len(),
                Self::IncrementFloat { key, by } => key.len() + by.len(),
                Self::SetRange { key, bytes, .. } => 4 + key.len() + bytes.len(),
                Self::SetExpiry { key, at_us, .. } => at_us.map_or(0, |_| 8) + key.len(),
                Self::Rename { from, to, .. } | Self::Copy { from, to, .. } => from.len() + to.len(),
                Self::SetAllIfAbsent { pairs } => 4 + pairs.encoded_bytes(),
                Self::Clear => 0,
            }
    }

    /// Appends the bytes that the command has in an entry.
    ///
    /// # Panics
    /// When a key or value is over the protocol's limit: that is checked at admission
    /// ([`Command::is_within_limits`]).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Set { key, value, expiry, condition, return_old } => {
                let returns = if return_old { option::RETURN } else { 0 };
                let options = condition_option(condition) | new_expiry_option(expiry) | returns;
                let kind = if matches!(value, Value::Upload(_)) { kind::SET_UPLOAD } else { kind::SET };
                header(out, kind, options, key.len(), value.encoded_bytes());
                if let NewExpiry::At(at_us) = expiry {
                    out.extend_from_slice(&at_us.to_le_bytes());
                }
                if let Condition::IfVersion(version) = condition {
                    out.extend_from_slice(&version.to_le_bytes());
                }
                out.extend_from_slice(key);
                value.encode(out);
            }
            Self::Delete { key } => whole(out, kind::DELETE, 0, &[], key, &[]),
            Self::Expire { key, version } => {
                whole(out, kind::EXPIRE, option::VERSION, &version.to_le_bytes(), key, &[]);
            }
            _ => self.encode_rarer(out),
        }
    }

    /// [`Command::encode`] of what is not the bulk of a log.
    fn encode_rarer(&self, out: &mut Vec<u8>) {
        let if_absent = |only: bool| if only { option::IF_ABSENT } else { 0 };
        match *self {
            Self::Set { .. } | Self::Delete { .. } | Self::Expire { .. } => unreachable!("encoded by the caller"),
            Self::TakeOut { key } => whole(out, kind::TAKE_OUT, 0, &[], key, &[]),
            Self::Append { key, bytes, length_max } => match length_max {
                Some(max) => whole(out, kind::APPEND_WITHIN, 0, &max.to_le_bytes(), key, bytes),
                None => whole(out, kind::APPEND, 0, &[], key, bytes),
            },
            Self::Increment { key, by } => whole(out, kind::INCREMENT, 0, &by.to_le_bytes(), key, &[]),
            Self::IncrementFloat { key, by } => whole(out, kind::INCREMENT_FLOAT, 0, &[], key, by),
            Self::SetRange { key, offset, bytes } => {
                whole(out, kind::SET_RANGE, 0, &offset.to_le_bytes(), key, bytes);
            }
            Self::SetExpiry { key, at_us, condition, return_value } => {
                let returns = if return_value { option::RETURN } else { 0 };
                let options = expiry_condition_option(condition) | returns;
                match at_us {
                    Some(at_us) => {
                        whole(out, kind::SET_EXPIRY, options | option::EXPIRES, &at_us.to_le_bytes(), key, &[]);
                    }
                    None => whole(out, kind::SET_EXPIRY, options, &[], key, &[]),
                }
            }
            Self::Rename { from, to, if_absent: only } => {
                assert!(to.len() <= MAX_KEY_BYTES, "key over the limit");
                whole(out, kind::RENAME, if_absent(only), &[], from, to);
            }
            Self::Copy { from, to, replace } => {
                assert!(to.len() <= MAX_KEY_BYTES, "key over the limit");
                whole(out, kind::COPY, if_absent(!replace), &[], from, to);
            }
            Self::SetAllIfAbsent { pairs } => {
                assert!(self.is_within_limits(), "no pairs, or a key or value over the limit");
                header(out, kind::SET_ALL_IF_ABSENT, 0, 0, pairs.encoded_bytes());
                out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
                pairs.encode(out);
            }
            Self::Clear => whole(out, kind::CLEAR, 0, &[], &[], &[]),
        }
    }
}

fn condition_option(condition: Condition) -> u8 {
    match condition {
        Condition::Always => 0,
        Condition::IfAbsent => option::IF_ABSENT,
        Condition::IfPresent => option::IF_PRESENT,
        Condition::IfVersion(_) => option::VERSION,
    }
}

fn new_expiry_option(expiry: NewExpiry) -> u8 {
    match expiry {
        NewExpiry::Never => 0,
        NewExpiry::At(_) => option::EXPIRES,
        NewExpiry::Keep => option::KEEP,
    }
}

fn expiry_condition_option(condition: ExpiryCondition) -> u8 {
    match condition {
        ExpiryCondition::Always => 0,
        ExpiryCondition::IfNone => option::IF_ABSENT,
        ExpiryCondition::IfAny => option::IF_PRESENT,
        ExpiryCondition::IfLater => option::IF_LATER,
        ExpiryCondition::IfSooner => option::IF_SOONER,
        ExpiryCondition::IfAnySooner => option::IF_PRESENT | option::IF_SOONER,
    }
}

fn whole(out: &mut Vec<u8>, kind: u8, options: u8, fields: &[u8], key: &[u8], value: &[u8]) {
    header(out, kind, options, key.len(), value.len());
    out.extend_from_slice(fields);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

fn header(out: &mut Vec<u8>, kind: u8, options: u8, key_bytes: usize, value_bytes: usize) {
    assert!(key_bytes <= MAX_KEY_BYTES && value_bytes <= MAX_VALUE_BYTES, "key or value over the limit");
    let mut header = [0; COMMAND_HEADER_BYTES];
    header[0] = kind;
    header[1] = options;
    header[4..8].copy_from_slice(&(key_bytes as u32).to_le_bytes());
    header[8..12].copy_from_slice(&(value_bytes as u32).to_le_bytes());
    out.extend_from_slice(&header);
}

/// Forms the payload of one entry, in a buffer that is reused from entry to entry.
#[derive(Debug, Default)]
pub struct EntryBuilder {
    payload: Vec<u8>,
    commands: usize,
}

impl EntryBuilder {
    /// A builder that writes into `payload` (its contents are dropped, its memory is kept).
    pub fn with_buffer(mut payload: Vec<u8>) -> Self {
        payload.clear();
        Self { payload, commands: 0 }
    }

    /// Whether no command has been pushed.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// How many commands have been pushed.
    pub fn len(&self) -> usize {
        self.commands
    }

    /// Whether the entry holds as many commands as positions exist.
    pub fn is_full(&self) -> bool {
        self.commands >= MAX_COMMANDS_PER_ENTRY
    }

    /// Bytes of the payload so far.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Appends `command` and returns its position. `now_us` becomes the entry's clock if this is its first command.
    ///
    /// # Panics
    /// When the entry is full, or a key or value is over the protocol's limit: both are checked at admission.
    pub fn push(&mut self, command: &Command<'_>, now_us: i64) -> u16 {
        let position = self.begin(now_us);
        command.encode(&mut self.payload);
        position
    }

    /// [`EntryBuilder::push`] of a command that is encoded already, as [`Command::encode`] does it: one that another
    /// core has forwarded.
    ///
    /// # Panics
    /// When the entry is full.
    pub fn push_encoded(&mut self, command: &[u8], now_us: i64) -> u16 {
        debug_assert!(Command::decode(command).is_ok(), "not a command");
        let position = self.begin(now_us);
        self.payload.extend_from_slice(command);
        position
    }

    /// The payload; the builder is empty afterwards and holds no buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.commands = 0;
        std::mem::take(&mut self.payload)
    }

    fn begin(&mut self, now_us: i64) -> u16 {
        assert!(!self.is_full(), "entry is full");
        if self.commands == 0 {
            self.payload.clear();
            self.payload.reserve(ENTRY_HEADER_BYTES);
            self.payload.extend_from_slice(&now_us.to_le_bytes());
        }
        let position = self.commands as u16;
        self.commands += 1;
        position
    }
}
