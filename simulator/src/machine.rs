//! The state machine of a group: a small map, and the sessions that make each command happen once.
//!
//! Place in the flow: every replica applies the same entries to its own. A snapshot is a copy of it.
//!
//! Invariants:
//! - The state is a function of the entries applied, in their order, and of nothing else.
//! - [`Machine::chain`] is a hash over all entries and answers so far, and [`Machine::content`] one over the map: two
//!   machines at one index have the same of both, or somebody went wrong.

mod wire;

use std::collections::BTreeMap;

pub use self::wire::boundary_before;

use eyot_raft_glue::session::{Admission, SessionId, SessionTable};
use eyot_raft_glue::{EntryBody, GroupId, Index, LogEntry, Version};

use crate::bugs::{table_with, Bug};
use crate::command::{decode, Action, Answer, Command, Key, Operation, ABSENT};
use crate::dice::mix;

/// What every replica of a group makes its state machine with.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Sessions that there are at once.
    pub sessions_max: usize,
    /// A mistake to plant in the sessions.
    pub bug: Option<Bug>,
}

/// One replica's state.
#[derive(Debug, Clone)]
pub struct Machine {
    group: GroupId,
    applied: Index,
    values: BTreeMap<Key, i64>,
    sessions: SessionTable,
    recipe: Recipe,
    chain: u64,
    content: u64,
}

/// What came of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub operation: Operation,
    /// What its client may be told.
    pub answer: Answer,
    /// Whether it was executed now; if not, it was before, or never will be.
    pub is_executed: bool,
}

impl Machine {
    /// The state of a group before the entry after `applied`: nothing.
    pub fn new(group: GroupId, applied: Index, recipe: Recipe) -> Self {
        let sessions = table_with(SessionTable::new(recipe.sessions_max), recipe.bug);
        Self { group, applied, values: BTreeMap::new(), sessions, recipe, chain: 0, content: 0 }
    }

    /// The state as it comes out of a snapshot: the sessions went through their bytes.
    #[must_use]
    pub fn out_of_snapshot(&self) -> Self {
        let mut bytes = Vec::new();
        self.sessions.encode(&mut bytes);
        let sessions = SessionTable::decode(&bytes.into()).expect("a table can be read that was written");
        Self { sessions: table_with(sessions, self.recipe.bug), ..self.clone() }
    }

    /// Whose state it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The last entry that it contains.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// What a key holds.
    pub fn value(&self, key: Key) -> Option<i64> {
        self.values.get(&key).copied()
    }

    /// Hash over all that was applied, with its answers.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// Hash over the map, kept up to date by every write.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// The same, computed anew: after a copy has travelled.
    pub fn content_from_scratch(&self) -> u64 {
        self.values.iter().map(|(key, value)| part(*key, *value)).fold(0, |sum, part| sum ^ part)
    }

    /// Applies the next entry.
    ///
    /// # Panics
    /// When it is not the next.
    pub fn apply(&mut self, entry: &LogEntry) -> Vec<Outcome> {
        assert_eq!(entry.position.index, self.applied.next(), "entries are applied without a gap");
        self.applied = entry.position.index;
        self.chain = mix(self.chain ^ entry.position.term.0.rotate_left(40) ^ entry.position.index.0);
        let bytes = match &entry.body {
            EntryBody::Empty => return Vec::new(),
            EntryBody::Membership(bytes) => {
                bytes.iter().for_each(|byte| self.chain = mix(self.chain ^ u64::from(*byte)));
                return Vec::new();
            }
            EntryBody::Data { bytes, .. } => bytes,
        };
        for part in bytes.chunks(8) {
            let number = part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            self.chain = (self.chain.rotate_left(29) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let numbered = decode(bytes).enumerate();
        numbered.map(|(place, command)| self.apply_command(place as u16, &command)).collect()
    }

    fn apply_command(&mut self, place: u16, command: &Command) -> Outcome {
        let at = Version::new(self.applied, place);
        let Command { operation, session, sequence, acknowledged, action } = *command;
        let outcome = |answer, is_executed| Outcome { operation, answer, is_executed };
        let outcome = if action == Action::Open {
            outcome(Answer::Opened(self.sessions.open(at).0 .0), false)
        } else {
            let id = SessionId(Version(session));
            match self.sessions.admit(at, id, sequence, acknowledged) {
                Admission::Execute => {
                    let answer = self.execute(action);
                    self.sessions.complete(id, sequence, &answer.to_bytes().to_vec().into());
                    outcome(answer, true)
                }
                Admission::Repeated(Some(bytes)) => outcome(Answer::from_bytes(&bytes), false),
                Admission::Repeated(None) => panic!("an answer of nine bytes is kept"),
                Admission::Stale => outcome(Answer::Stale, false),
                Admission::TooFarAhead => panic!("a client that does one thing at a time is never ahead"),
                Admission::Expired => outcome(Answer::Expired, false),
            }
        };
        let [tag, number @ ..] = outcome.answer.to_bytes();
        self.chain = mix(self.chain ^ operation ^ u64::from(tag) << 56);
        self.chain = mix(self.chain ^ u64::from_le_bytes(number) ^ u64::from(outcome.is_executed) << 63);
        outcome
    }

    fn execute(&mut self, action: Action) -> Answer {
        match action {
            Action::Open => unreachable!("sessions are opened without one"),
            Action::Put(key, value) => {
                self.set(key, value);
                Answer::Stored
            }
            Action::Cas(key, expected, new) => {
                let holds = self.value(key).unwrap_or(ABSENT) == expected;
                if holds {
                    self.set(key, new);
                }
                Answer::Swapped(holds)
            }
            Action::Add(key, amount) => {
                let sum = self.value(key).unwrap_or(0).wrapping_add(amount);
                self.set(key, sum);
                Answer::Sum(sum)
            }
        }
    }

    fn set(&mut self, key: Key, value: i64) {
        if let Some(before) = self.values.insert(key, value) {
            self.content ^= part(key, before);
        }
        self.content ^= part(key, value);
    }
}

/// What one key adds to the hash of the map.
fn part(key: Key, value: i64) -> u64 {
    mix(mix(u64::from(key) + 1) ^ value as u64)
}

#[cfg(test)]
mod tests {
    use eyot_raft_glue::{EntryKind, EntryPosition, Term};

    use super::*;
    use crate::command::encode;

    fn entry(index: u64, commands: &[Command]) -> LogEntry {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| encode(command, &mut bytes));
        let position = EntryPosition { term: Term(1), index: Index(index) };
        LogEntry { position, body: EntryBody::Data { kind: EntryKind::Commands, bytes: bytes.into() } }
    }

    fn command(operation: Operation, session: u64, sequence: u64, action: Action) -> Command {
        Command { operation, session, sequence, acknowledged: 0, action }
    }

    fn new(applied: Index) -> Machine {
        Machine::new(GroupId(0), applied, Recipe { sessions_max: 4, bug: None })
    }

    #[test]
    fn a_command_is_executed_once_and_answered_as_often_as_it_comes() {
        let mut machine = new(Index(0));
        let opened = machine.apply(&entry(1, &[command(1, 0, 77, Action::Open)]));
        let Answer::Opened(session) = opened[0].answer else { panic!("{opened:?}") };
        let add = command(2, session, 1, Action::Add(3, 5));
        let first = machine.apply(&entry(2, &[add, add]));
        assert_eq!(first.iter().map(|outcome| outcome.answer).collect::<Vec<_>>(), [Answer::Sum(5); 2]);
        assert_eq!(first.iter().map(|outcome| outcome.is_executed).collect::<Vec<_>>(), [true, false]);
        assert_eq!(machine.value(3), Some(5));
        let nobody = machine.apply(&entry(3, &[command(3, 999, 1, Action::Add(3, 5))]));
        assert_eq!((nobody[0].answer, nobody[0].is_executed), (Answer::Expired, false));
    }

    #[test]
    fn equal_entries_give_equal_hashes_and_others_do_not() {
        let run = |last: Action| {
            let mut machine = new(Index(0));
            machine.apply(&entry(1, &[command(1, 0, 7, Action::Open)]));
            let session = Version::new(Index(1), 0).0;
            let writes = [Action::Put(1, 4), Action::Cas(1, 4, 6), Action::Add(2, 1), last];
            for (number, action) in writes.into_iter().enumerate() {
                machine.apply(&entry(
                    number as u64 + 2,
                    &[command(number as u64 + 2, session, number as u64 + 1, action)],
                ));
            }
            assert_eq!(machine.content(), machine.content_from_scratch());
            (machine.chain(), machine.content())
        };
        assert_eq!(run(Action::Put(1, 9)), run(Action::Put(1, 9)));
        assert_ne!(run(Action::Put(1, 9)).1, run(Action::Put(1, 8)).1);
        assert_ne!(run(Action::Cas(1, 4, 6)).0, run(Action::Cas(1, 4, 7)).0);
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn a_gap_is_noticed() {
        new(Index(3)).apply(&entry(5, &[]));
    }
}
