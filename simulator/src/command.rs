//! What clients ask of a group, and the bytes that stand for it in an entry.
//!
//! Place in the flow: a client makes a [`Command`], the leader's node gathers some into one entry, every node's
//! `Machine` takes them apart again.
//!
//! ```text
//! entry     command × n, 57 bytes each, all numbers little-endian:
//! command   operation u64 | session u64 | sequence u64 | acknowledged u64 | tag u8 | key u64 | first i64 | second i64
//! ```

/// A number that a client gave to what it wants, once in a world: what is asked twice has it twice.
pub type Operation = u64;

/// A key of a group.
pub type Key = u16;

/// What is to be done with a key, or for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Opens a session; the command's sequence is a number that the client thought of.
    Open,
    /// Sets the key.
    Put(Key, i64),
    /// Sets the key to the second if it holds the first; [`ABSENT`] is nothing.
    Cas(Key, i64, i64),
    /// Adds to the number there; nothing counts as 0.
    Add(Key, i64),
}

/// Stands for "the key must be absent" in [`Action::Cas`].
pub const ABSENT: i64 = i64::MIN;

/// Something to be done exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// What the client calls it.
    pub operation: Operation,
    /// Under which session.
    pub session: u64,
    /// Which of the session's.
    pub sequence: u64,
    /// Up to which of its sequence numbers the client will never ask again.
    pub acknowledged: u64,
    /// What.
    pub action: Action,
}

/// Bytes of one command.
pub const COMMAND_BYTES: usize = 57;

/// Appends the bytes of `command`.
pub fn encode(command: &Command, out: &mut Vec<u8>) {
    let (tag, key, first, second) = match command.action {
        Action::Open => (0, 0, 0, 0),
        Action::Put(key, value) => (1, key, value, 0),
        Action::Cas(key, expected, new) => (2, key, expected, new),
        Action::Add(key, amount) => (3, key, amount, 0),
    };
    for number in [command.operation, command.session, command.sequence, command.acknowledged] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(tag);
    out.extend_from_slice(&u64::from(key).to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&second.to_le_bytes());
}

/// The commands of an entry.
///
/// # Panics
/// When the bytes are not what [`encode`] made: an entry of the log was changed on its way, which nothing may do.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Command> + '_ {
    let whole = bytes.chunks_exact(COMMAND_BYTES);
    assert!(whole.remainder().is_empty(), "an entry of {} bytes is cut off", bytes.len());
    whole.map(|bytes| {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (key, first, second) = (number(33) as Key, number(41) as i64, number(49) as i64);
        let action = match bytes[32] {
            0 => Action::Open,
            1 => Action::Put(key, first),
            2 => Action::Cas(key, first, second),
            3 => Action::Add(key, first),
            tag => panic!("an entry with a command of kind {tag}, which nobody made"),
        };
        Command { operation: number(0), session: number(8), sequence: number(16), acknowledged: number(24), action }
    })
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The session is open under this number.
    Opened(u64),
    /// The key is set.
    Stored,
    /// Whether the key held what was expected, and is set.
    Swapped(bool),
    /// The sum.
    Sum(i64),
    /// Nothing was done: the session is not there.
    Expired,
    /// Nothing was done: the client had said that it would not ask again.
    Stale,
}

impl Answer {
    /// As one number and one byte, for session tables and hashes.
    pub fn to_bytes(self) -> [u8; 9] {
        let (tag, number) = match self {
            Self::Opened(session) => (0, session as i64),
            Self::Stored => (1, 0),
            Self::Swapped(done) => (2, i64::from(done)),
            Self::Sum(sum) => (3, sum),
            Self::Expired => (4, 0),
            Self::Stale => (5, 0),
        };
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// What [`Self::to_bytes`] made.
    ///
    /// # Panics
    /// On anything else: the session table changed what it was given.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let number = i64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
        match bytes[0] {
            0 => Self::Opened(number as u64),
            1 => Self::Stored,
            2 => Self::Swapped(number != 0),
            3 => Self::Sum(number),
            4 => Self::Expired,
            5 => Self::Stale,
            tag => panic!("an answer of kind {tag}, which nobody gave"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_survive_their_bytes() {
        let actions = [Action::Open, Action::Put(7, -1), Action::Cas(8, ABSENT, i64::MAX), Action::Add(9, 1)];
        let commands: Vec<Command> = actions
            .into_iter()
            .map(|action| Command { operation: 1, session: 2, sequence: 3, acknowledged: u64::MAX, action })
            .collect();
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| encode(command, &mut bytes));
        assert_eq!(decode(&bytes).collect::<Vec<_>>(), commands);
        for answer in [
            Answer::Opened(u64::MAX),
            Answer::Stored,
            Answer::Swapped(true),
            Answer::Sum(-5),
            Answer::Expired,
            Answer::Stale,
        ] {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), answer);
        }
    }
}
