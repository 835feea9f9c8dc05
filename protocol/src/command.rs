//! What a shard's log entry says: a batch of commands, in the bytes that the log keeps and that peers will exchange.
//!
//! Place in the flow: step 5 (execute) writes an entry with [`EntryBuilder`], step 6 logs its bytes, step 8 (apply)
//! reads them back with [`EntryCommands`]. Recovery reads the same bytes with the same code.
//!
//! Invariants:
//! - An entry carries everything that applying it needs: expiry times are absolute, and `decided_at_us` is the leader's
//!   clock when the entry was formed, by which every replica judges whether a key had expired. Apply reads no clock.
//! - All integers are little-endian.
//!
//! ```text
//! entry    | decided_at_us i64 | command | command | ...            (until the end of the payload)
//!
//! command  | kind u8 | options u8 | reserved u16 = 0 | key_len u32 | value_len u32 |
//!          | expires_at_us i64 (if EXPIRES) | version u64 (if VERSION) | key | value |
//!
//! kind     1 SET   2 DELETE   3 EXPIRE (delete, if the key still has this version: a sweep's logged delete)
//! options  bit 0 EXPIRES   bit 1 IF_ABSENT   bit 2 IF_PRESENT   bit 3 VERSION (SET: only if it has this version)
//! ```

use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Bytes before the first command of an entry.
pub const ENTRY_HEADER_BYTES: usize = 8;
const COMMAND_HEADER_BYTES: usize = 12;

const KIND_SET: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_EXPIRE: u8 = 3;

const OPTION_EXPIRES: u8 = 1;
const OPTION_IF_ABSENT: u8 = 2;
const OPTION_IF_PRESENT: u8 = 4;
const OPTION_VERSION: u8 = 8;

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

/// One command of an entry. Keys and values are borrowed from the entry's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Store `value` (one encoded TLV value) under `key`.
    Set {
        /// The key, at most [`MAX_KEY_BYTES`].
        key: &'a [u8],
        /// The encoded value.
        value: &'a [u8],
        /// When the key ceases to exist, in microseconds since the epoch; `None`: never.
        expires_at_us: Option<i64>,
        /// When to store at all.
        condition: Condition,
    },
    /// Remove `key`.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Remove `key` if its last write still has `version`: it expired, and the leader's sweep found it.
    Expire {
        /// The key.
        key: &'a [u8],
        /// The version that expired.
        version: u64,
    },
}

impl Command<'_> {
    /// The key that the command is about.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Set { key, .. } | Self::Delete { key } | Self::Expire { key, .. } => key,
        }
    }

    /// How many bytes the command takes in an entry.
    pub fn encoded_bytes(&self) -> usize {
        COMMAND_HEADER_BYTES
            + match self {
                Self::Set { key, value, expires_at_us, condition } => {
                    let expiry = if expires_at_us.is_some() { 8 } else { 0 };
                    let version = if matches!(condition, Condition::IfVersion(_)) { 8 } else { 0 };
                    expiry + version + key.len() + value.len()
                }
                Self::Delete { key } => key.len(),
                Self::Expire { key, .. } => 8 + key.len(),
            }
    }
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
        assert!(!self.is_full(), "entry is full");
        if self.commands == 0 {
            self.payload.clear();
            self.payload.extend_from_slice(&now_us.to_le_bytes());
        }
        let position = self.commands as u16;
        self.commands += 1;
        match *command {
            Command::Set { key, value, expires_at_us, condition } => {
                let (option, version) = match condition {
                    Condition::Always => (0, None),
                    Condition::IfAbsent => (OPTION_IF_ABSENT, None),
                    Condition::IfPresent => (OPTION_IF_PRESENT, None),
                    Condition::IfVersion(version) => (OPTION_VERSION, Some(version)),
                };
                let expires = if expires_at_us.is_some() { OPTION_EXPIRES } else { 0 };
                self.header(KIND_SET, option | expires, key, value);
                if let Some(expires_at_us) = expires_at_us {
                    self.payload.extend_from_slice(&expires_at_us.to_le_bytes());
                }
                if let Some(version) = version {
                    self.payload.extend_from_slice(&version.to_le_bytes());
                }
                self.payload.extend_from_slice(key);
                self.payload.extend_from_slice(value);
            }
            Command::Delete { key } => {
                self.header(KIND_DELETE, 0, key, &[]);
                self.payload.extend_from_slice(key);
            }
            Command::Expire { key, version } => {
                self.header(KIND_EXPIRE, OPTION_VERSION, key, &[]);
                self.payload.extend_from_slice(&version.to_le_bytes());
                self.payload.extend_from_slice(key);
            }
        }
        position
    }

    /// The payload; the builder is empty afterwards and holds no buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.commands = 0;
        std::mem::take(&mut self.payload)
    }

    fn header(&mut self, kind: u8, options: u8, key: &[u8], value: &[u8]) {
        assert!(key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES, "key or value over the limit");
        let mut header = [0; COMMAND_HEADER_BYTES];
        header[0] = kind;
        header[1] = options;
        header[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
        self.payload.extend_from_slice(&header);
    }
}

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

/// The commands of an entry, in order; after the first error it ends.
#[derive(Debug, Clone)]
pub struct EntryCommands<'a> {
    payload: &'a [u8],
    offset: usize,
    decided_at_us: i64,
}

impl<'a> EntryCommands<'a> {
    /// Reads the header of `payload`.
    pub fn new(payload: &'a [u8]) -> Result<Self, CommandError> {
        let header = payload.first_chunk::<ENTRY_HEADER_BYTES>().ok_or(CommandError {
            problem: "shorter than its header",
            offset: 0,
            length: payload.len(),
        })?;
        Ok(Self { payload, offset: ENTRY_HEADER_BYTES, decided_at_us: i64::from_le_bytes(*header) })
    }

    /// The leader's clock when the entry was formed, in microseconds since the epoch.
    pub fn decided_at_us(&self) -> i64 {
        self.decided_at_us
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.payload.get(self.offset..).and_then(<[u8]>::first_chunk::<N>).ok_or("cut off")?;
        self.offset += N;
        Ok(*bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.payload[self.offset..];
        let bytes = rest.get(..length).ok_or("a key or value is cut off")?;
        self.offset += length;
        Ok(bytes)
    }

    #[inline]
    fn command(&mut self) -> Result<Command<'a>, &'static str> {
        let [kind, options, reserved_low, reserved_high, k0, k1, k2, k3, v0, v1, v2, v3] = self.take()?;
        let key_bytes = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        if reserved_low != 0 || reserved_high != 0 {
            return Err("reserved bits are set");
        }
        if key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
            return Err("a length over the limit");
        }
        match kind {
            KIND_SET => {
                let expires_at_us =
                    if options & OPTION_EXPIRES == 0 { None } else { Some(i64::from_le_bytes(self.take()?)) };
                let condition = match options & !OPTION_EXPIRES {
                    0 => Condition::Always,
                    OPTION_IF_ABSENT => Condition::IfAbsent,
                    OPTION_IF_PRESENT => Condition::IfPresent,
                    OPTION_VERSION => Condition::IfVersion(u64::from_le_bytes(self.take()?)),
                    _ => return Err("unknown options"),
                };
                let (key, value) = (self.bytes(key_bytes)?, self.bytes(value_bytes)?);
                Ok(Command::Set { key, value, expires_at_us, condition })
            }
            KIND_DELETE if options == 0 && value_bytes == 0 => Ok(Command::Delete { key: self.bytes(key_bytes)? }),
            KIND_EXPIRE if options == OPTION_VERSION && value_bytes == 0 => {
                let version = u64::from_le_bytes(self.take()?);
                Ok(Command::Expire { key: self.bytes(key_bytes)?, version })
            }
            _ => Err("unknown kind or options"),
        }
    }
}

impl<'a> Iterator for EntryCommands<'a> {
    type Item = Result<Command<'a>, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.payload.len() {
            return None;
        }
        let start = self.offset;
        Some(self.command().map_err(|problem| {
            self.offset = self.payload.len();
            CommandError { problem, offset: start, length: self.payload.len() }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn every_shape() -> Vec<Command<'static>> {
        let mut commands = vec![Command::Delete { key: b"gone" }, Command::Expire { key: b"old", version: 9 << 16 }];
        for condition in
            [Condition::Always, Condition::IfAbsent, Condition::IfPresent, Condition::IfVersion(3 << 16 | 1)]
        {
            for expires_at_us in [None, Some(1_700_000_000_000_000)] {
                commands.push(Command::Set { key: b"key", value: &[1, 1, b'v'], expires_at_us, condition });
            }
        }
        commands
    }

    fn encode(commands: &[Command<'_>]) -> Vec<u8> {
        let mut builder = EntryBuilder::default();
        for (position, command) in commands.iter().enumerate() {
            let before = builder.payload_bytes().max(ENTRY_HEADER_BYTES);
            assert_eq!(usize::from(builder.push(command, 42)), position);
            assert_eq!(builder.payload_bytes() - before, command.encoded_bytes());
        }
        builder.take()
    }

    #[test]
    fn golden_bytes() {
        let set = Command::Set {
            key: b"k",
            value: &[2, 42, 0, 0, 0],
            expires_at_us: Some(258),
            condition: Condition::IfVersion(0x0001_0002),
        };
        #[rustfmt::skip]
        let expected = [
            42, 0, 0, 0, 0, 0, 0, 0,
            1, 0b1001, 0, 0,  1, 0, 0, 0,  5, 0, 0, 0,
            2, 1, 0, 0, 0, 0, 0, 0,
            2, 0, 1, 0, 0, 0, 0, 0,
            b'k', 2, 42, 0, 0, 0,
        ];
        assert_eq!(encode(&[set]), expected);
    }

    #[test]
    fn every_shape_round_trips() {
        let commands = every_shape();
        let payload = encode(&commands);
        let decoded = EntryCommands::new(&payload).unwrap();
        assert_eq!(decoded.decided_at_us(), 42);
        assert_eq!(decoded.collect::<Result<Vec<_>, _>>().unwrap(), commands);
    }

    #[test]
    fn every_truncation_ends_in_an_error_or_at_a_command_boundary() {
        let commands = every_shape();
        let payload = encode(&commands);
        let mut boundaries = vec![ENTRY_HEADER_BYTES];
        for command in &commands {
            boundaries.push(boundaries.last().unwrap() + command.encoded_bytes());
        }
        for length in 0..payload.len() {
            let outcome = EntryCommands::new(&payload[..length]).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            assert_eq!(outcome.is_ok(), boundaries.contains(&length), "cut at {length}");
        }
    }

    #[test]
    fn a_length_bomb_is_refused_without_being_believed() {
        let mut payload = encode(&[Command::Delete { key: b"k" }]);
        payload[ENTRY_HEADER_BYTES + 4..ENTRY_HEADER_BYTES + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = EntryCommands::new(&payload).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error.problem, "a length over the limit");
        assert_eq!(error.offset, ENTRY_HEADER_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(commands) = EntryCommands::new(&bytes) {
                for command in commands {
                    let _ = command;
                }
            }
        }
    }
}
