//! What clients asked and were told, as the checker of histories wants it.
//!
//! Place in the flow: clients write to it; when the world has ended it is judged, key by key.
//!
//! Deliberately not here: how a history is judged; `eyot-checker` does that.

use eyot_checker::history as checker;
use eyot_checker::linear::{check, Limits};

use crate::client::Ask;
use crate::clock::Time;
use crate::command::{Action, Answer, Key, ABSENT};

/// What the search of one key may remember: a world's keys are small, and one that is not is given up.
const CONFIGURATIONS_MAX: u64 = 20_000;

/// What was asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// What does it hold?
    Read,
    /// Set it.
    Put(i64),
    /// Swap it, if it holds the first.
    Cas(i64, i64),
    /// Add to it.
    Add(i64),
}

impl Called {
    /// What this asks of which key; opening a session asks nothing of any.
    pub fn of(ask: &Ask) -> Option<(Key, Self)> {
        match *ask {
            Ask::Read { key, .. } => Some((key, Self::Read)),
            Ask::Write(command) => match command.action {
                Action::Open => None,
                Action::Put(key, value) => Some((key, Self::Put(value))),
                Action::Cas(key, expected, new) => Some((key, Self::Cas(expected, new))),
                Action::Add(key, amount) => Some((key, Self::Add(amount))),
            },
        }
    }
}

/// How it ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this answer.
    Answer(Answer),
    /// With this value, or none.
    Value(Option<i64>),
    /// It was not applied, and never will be.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

/// One call of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Who: a client, or what it became after a lost reply.
    pub process: u32,
    /// Of which group.
    pub group: u32,
    /// Of which key.
    pub key: Key,
    /// What.
    pub called: Called,
    /// From when.
    pub from: Time,
    /// Until when, and how; `None`: it has not ended.
    pub ended: Option<(Time, Ended)>,
}

/// All calls of a world, in the order in which they began.
#[derive(Debug, Default)]
pub struct History {
    calls: Vec<Call>,
}

impl History {
    /// A call begins. Returns its number.
    pub fn begin(&mut self, process: u32, group: u32, key: Key, called: Called, now: Time) -> usize {
        self.calls.push(Call { process, group, key, called, from: now, ended: None });
        self.calls.len() - 1
    }

    /// The call of this number ends.
    pub fn end(&mut self, number: usize, ended: Ended, now: Time) {
        self.calls[number].ended = Some((now, ended));
    }

    /// Judges every key. Returns how many were linearizable; keys that were given up count for neither.
    ///
    /// # Errors
    /// The story of the first that is not.
    pub fn judge(&self) -> Result<u64, String> {
        let operations = self.calls.iter().map(|call| call.to_checker()).collect();
        let history = checker::History::new(operations).map_err(|error| format!("the simulator's record: {error}"))?;
        let report = check(&history, Limits { configurations_max: CONFIGURATIONS_MAX });
        match report.violations.first() {
            Some(violation) => Err(violation.to_string()),
            None => Ok((report.keys_by_zones + report.keys_by_search - report.undecided.len()) as u64),
        }
    }
}

impl Call {
    fn to_checker(self) -> checker::Operation {
        let call = match self.called {
            Called::Read => checker::Call::Read,
            Called::Put(value) => checker::Call::Write(value),
            Called::Cas(expected, new) => {
                checker::Call::CompareAndSet { expected: (expected != ABSENT).then_some(expected), new }
            }
            Called::Add(amount) => checker::Call::Increment(amount),
        };
        checker::Operation {
            process: checker::Process(self.process),
            key: checker::Key(u64::from(self.group) << 32 | u64::from(self.key)),
            call,
            invoked: checker::Time(self.from),
            outcome: self.outcome(),
        }
    }

    fn outcome(self) -> checker::Outcome {
        let Some((at, ended)) = self.ended else { return checker::Outcome::Unknown };
        let at = checker::Time(at);
        let reply = match ended {
            Ended::Value(value) => checker::Reply::Value(value.map(checker::Value::Int)),
            Ended::Answer(Answer::Stored) => checker::Reply::Acknowledged,
            Ended::Answer(Answer::Swapped(done)) => checker::Reply::Swapped(done),
            Ended::Answer(Answer::Sum(sum)) => checker::Reply::Number(sum),
            Ended::Answer(Answer::Opened(_) | Answer::Expired | Answer::Stale) | Ended::Unknown => {
                return checker::Outcome::Unknown
            }
            Ended::NotApplied => return checker::Outcome::Failed { at },
        };
        checker::Outcome::Done { at, reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_is_found_and_a_fresh_one_is_not() {
        let judged = |read: Option<i64>| {
            let mut history = History::default();
            let write = history.begin(1, 0, 0, Called::Put(7), 10);
            history.end(write, Ended::Answer(Answer::Stored), 20);
            let reading = history.begin(2, 0, 0, Called::Read, 30);
            history.end(reading, Ended::Value(read), 40);
            history.judge()
        };
        assert_eq!(judged(Some(7)), Ok(1));
        assert!(judged(None).is_err());
        assert!(judged(Some(8)).is_err());
    }

    #[test]
    fn swaps_sums_and_lost_replies_are_understood() {
        let mut history = History::default();
        let lost = history.begin(1, 0, 1, Called::Put(5), 0);
        history.end(lost, Ended::Unknown, 5);
        let swap = history.begin(2, 0, 1, Called::Cas(5, 6), 10);
        history.end(swap, Ended::Answer(Answer::Swapped(true)), 20);
        let add = history.begin(2, 1, 1, Called::Add(3), 30);
        history.end(add, Ended::Answer(Answer::Sum(3)), 40);
        assert_eq!(history.judge(), Ok(2));
        let again = history.begin(2, 1, 1, Called::Add(3), 50);
        history.end(again, Ended::Answer(Answer::Sum(3)), 60);
        assert!(history.judge().is_err());
    }
}
