//! A state as messages, which is how it travels to a replica that lacks it.
//!
//! Place in the flow: `streams.rs` sends the bytes piece by piece; the receiver makes a state of what has arrived when
//! the stream ends.
//!
//! ```text
//! stream    (length u32 | message) × n, all numbers little-endian
//! message   tag u8 | payload
//!   0 head       index u64 | chain u64             the first
//!   1 sessions   the table of raft-glue
//!   2 value      key u16 | value i64               one for each key
//!   3 foot       messages before it u32 | hash u64 over their bytes, the last
//! ```
//!
//! Invariant: whatever part of a stream has arrived, it is either all of it or refused. A stream that ends between two
//! messages looks sound up to there: only the foot tells.

use bytes::Bytes;
use eyot_raft_glue::session::SessionTable;
use eyot_raft_glue::{GroupId, Index};

use super::{part, Machine, Recipe};
use crate::bugs::{needs_no_foot, table_with};
use crate::command::Key;
use crate::dice::mix;

/// Longest message that is believed: a full table of sessions with all their answers is far below it.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

const HEAD: u8 = 0;
const SESSIONS: u8 = 1;
const VALUE: u8 = 2;
const FOOT: u8 = 3;

/// Why what has arrived is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The stream ends inside of a message.
    Truncated,
    /// The stream ends between two messages, before its foot.
    NoFoot,
    /// The foot does not fit what stands before it.
    WrongFoot,
    /// A message is too long, of a kind that nobody knows, out of its place, or not as long as it must be.
    Malformed,
}

impl Machine {
    /// The bytes of a stream that carries this state.
    pub fn to_stream(&self) -> Vec<u8> {
        let mut sessions = Vec::new();
        self.sessions.encode(&mut sessions);
        let mut stream = Vec::new();
        put(&mut stream, &[&[HEAD], &self.applied.0.to_le_bytes(), &self.chain.to_le_bytes()]);
        put(&mut stream, &[&[SESSIONS], &sessions]);
        for (key, value) in &self.values {
            put(&mut stream, &[&[VALUE], &key.to_le_bytes(), &value.to_le_bytes()]);
        }
        let count = 2 + self.values.len() as u32;
        let hash = hash(&stream);
        put(&mut stream, &[&[FOOT], &count.to_le_bytes(), &hash.to_le_bytes()]);
        stream
    }

    /// The state that a stream carries, of which so much has arrived and nothing more will.
    pub fn from_stream(group: GroupId, recipe: Recipe, stream: &[u8]) -> Result<Self, Broken> {
        let mut machine = Self::new(group, Index(0), recipe);
        let (mut at, mut count) = (0, 0_u32);
        while at < stream.len() {
            let message = message_at(stream, at)?;
            let Some((tag, payload)) = message.split_first() else { return Err(Broken::Malformed) };
            match (*tag, count) {
                (HEAD, 0) => {
                    let [index, chain] = numbers(payload)?;
                    (machine.applied, machine.chain) = (Index(index), chain);
                }
                (SESSIONS, 1) => {
                    let table = SessionTable::decode(&Bytes::copy_from_slice(payload));
                    machine.sessions = table_with(table.map_err(|_| Broken::Malformed)?, recipe.bug);
                }
                (VALUE, 2..) => machine.take_value(payload)?,
                (FOOT, 2..) => {
                    let is_last = at + 4 + message.len() == stream.len();
                    let expected = [&count.to_le_bytes()[..], &hash(&stream[..at]).to_le_bytes()].concat();
                    return if is_last && payload == expected { Ok(machine) } else { Err(Broken::WrongFoot) };
                }
                _ => return Err(Broken::Malformed),
            }
            at += 4 + message.len();
            count += 1;
        }
        if needs_no_foot(recipe.bug) && count > 0 {
            return Ok(machine);
        }
        Err(Broken::NoFoot)
    }

    fn take_value(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let Some((key, value)) = payload.split_first_chunk::<2>() else { return Err(Broken::Malformed) };
        let value = i64::from_le_bytes(value.try_into().map_err(|_| Broken::Malformed)?);
        let key = Key::from_le_bytes(*key);
        self.content ^= part(key, value);
        self.values.insert(key, value).map_or(Ok(()), |_| Err(Broken::Malformed))
    }
}

fn put(stream: &mut Vec<u8>, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
    stream.extend_from_slice(&length.to_le_bytes());
    parts.iter().for_each(|part| stream.extend_from_slice(part));
}

/// The last place at or before `end` that lies between two messages of a whole stream.
pub fn boundary_before(stream: &[u8], end: usize) -> usize {
    let mut at = 0;
    while let Ok(message) = message_at(stream, at) {
        if at + 4 + message.len() > end {
            break;
        }
        at += 4 + message.len();
    }
    at
}

fn message_at(stream: &[u8], at: usize) -> Result<&[u8], Broken> {
    let rest = stream.get(at..).ok_or(Broken::Truncated)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(Broken::Truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Broken::Malformed);
    }
    rest.get(..length).ok_or(Broken::Truncated)
}

fn numbers(payload: &[u8]) -> Result<[u64; 2], Broken> {
    let (first, second) = payload.split_at_checked(8).ok_or(Broken::Malformed)?;
    let number = |bytes: &[u8]| Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Broken::Malformed)?));
    Ok([number(first)?, number(second)?])
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, part| {
        let number = part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        mix(hash ^ number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Action;

    const RECIPE: Recipe = Recipe { sessions_max: 4, bug: None };

    fn machine() -> Machine {
        let mut machine = Machine::new(GroupId(3), Index(17), RECIPE);
        machine.sessions.open(eyot_raft_glue::Version::new(Index(9), 0));
        machine.chain = 77;
        for key in 1..=5 {
            let _ = machine.execute(Action::Put(key, i64::from(key) * 10));
        }
        machine
    }

    #[test]
    fn a_whole_stream_gives_the_state_and_no_part_of_it_does() {
        let machine = machine();
        let stream = machine.to_stream();
        let back = Machine::from_stream(GroupId(3), RECIPE, &stream).expect("it is whole");
        assert_eq!((back.applied, back.chain, &back.values), (machine.applied, machine.chain, &machine.values));
        assert_eq!((back.content, back.sessions), (machine.content, machine.sessions));
        let mut boundaries = 0;
        for end in 0..stream.len() {
            let is_boundary = boundary_before(&stream, end) == end;
            boundaries += usize::from(is_boundary);
            let expected = if is_boundary { Broken::NoFoot } else { Broken::Truncated };
            let refused = Machine::from_stream(GroupId(3), RECIPE, &stream[..end]).err();
            assert_eq!(refused, Some(expected), "cut at {end}");
        }
        assert_eq!(boundaries, 8, "before the head, and after each message but the foot");
    }

    #[test]
    fn what_is_changed_on_the_way_is_refused() {
        let stream = machine().to_stream();
        for at in 0..stream.len() {
            let mut changed = stream.clone();
            changed[at] ^= 0x40;
            assert!(Machine::from_stream(GroupId(3), RECIPE, &changed).is_err(), "byte {at}");
        }
        let longer = [stream.clone(), stream].concat();
        assert_eq!(Machine::from_stream(GroupId(3), RECIPE, &longer).err(), Some(Broken::WrongFoot));
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn the_planted_mistake_takes_a_stream_that_ends_between_messages_and_no_other() {
        let recipe = Recipe { bug: Some(crate::Bug::SnapshotCutAtMessage), ..RECIPE };
        let stream = machine().to_stream();
        let cut = boundary_before(&stream, stream.len() - 20);
        assert!(Machine::from_stream(GroupId(3), recipe, &stream[..cut]).is_ok());
        assert_eq!(Machine::from_stream(GroupId(3), recipe, &stream[..=cut]).err(), Some(Broken::Truncated));
    }
}
