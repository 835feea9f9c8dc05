//! Is each key's history linearizable: is there one order of the operations, in which each took effect at once between
//! its invocation and its reply, that explains every reply (Herlihy and Wing 1990).
//!
//! Place in the flow: [`check`] takes a `History` apart by keys. A key whose values are all written once goes through
//! `zones`, in O(n log n); any other through `search`, which may give up at a budget. What fails is explained by
//! `explain`.
//!
//! Invariant: the answer is a function of the history and the limits.
//!
//! Deliberately not here: guarantees across keys (`transactions`), and weaker ones.

mod explain;
mod model;
mod search;
mod zones;

use std::fmt;

pub use model::{Deleted, KeyModel, State, Step};
pub use search::{search, Answer, Entry, Gives, Model};
pub use zones::{Conflict, Crossing};

use crate::history::{History, Key, Operation, Time};

/// What [`Limits::default`] allows the search of one key to remember: some 100 MB of configurations.
pub const CONFIGURATIONS_MAX_DEFAULT: u64 = 1_000_000;

/// How much a check may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Configurations that the search of one key may remember, about 100 bytes each; beyond it the key is undecided.
    pub configurations_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { configurations_max: CONFIGURATIONS_MAX_DEFAULT }
    }
}

/// What was found in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Operations that were looked at.
    pub operations: usize,
    /// Keys that the zones decided.
    pub keys_by_zones: usize,
    /// Keys that went through the search.
    pub keys_by_search: usize,
    /// Keys that are not linearizable, ascending, with why.
    pub violations: Vec<Violation>,
    /// Keys that nobody knows about, ascending.
    pub undecided: Vec<Undecided>,
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every key is linearizable.
    Linearizable,
    /// Some key is not.
    Violated,
    /// No violation was found, and some key was given up.
    Undecided,
}

/// A key whose search was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecided {
    /// The key.
    pub key: Key,
    /// Configurations that were looked at.
    pub configurations: u64,
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A read returned a value that nobody wrote.
    NeverWritten,
    /// A read returned the value of a write that failed for certain.
    ReadOfFailedWrite,
    /// A read returned a value before its write began.
    ReadFromTheFuture,
    /// Two values must each have been there before the other: a stale read, a lost write, a split brain.
    EachBeforeTheOther,
    /// No order explains the replies.
    NoOrder,
}

/// Why a key is not linearizable. `Display` gives the whole story, in some lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// What is wrong.
    pub fault: Fault,
    /// Positions in the history of the operations that show it; not more than a few.
    pub operations: Vec<usize>,
    /// The shortest beginning of the history in which it shows.
    pub prefix: Prefix,
    story: String,
}

/// A beginning of a history: what was known at a time. Operations whose outcome came later are without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The time.
    pub until: Time,
    /// The operation whose outcome, at that time, is the last one known.
    pub ends_with: usize,
    /// How many operations of the key were invoked by then.
    pub operations: usize,
    /// Whether every shorter one is linearizable for certain; no where the search gave up on one of them.
    pub is_shortest: bool,
}

impl Report {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match (self.violations.is_empty(), self.undecided.is_empty()) {
            (false, _) => Verdict::Violated,
            (true, false) => Verdict::Undecided,
            (true, true) => Verdict::Linearizable,
        }
    }
}

/// Judges every key of a history.
pub fn check(history: &History, limits: Limits) -> Report {
    let mut report = Report {
        operations: history.operations().len(),
        keys_by_zones: 0,
        keys_by_search: 0,
        violations: Vec::new(),
        undecided: Vec::new(),
    };
    for (key, positions) in history.by_key() {
        let operations: Vec<&Operation> = positions.iter().map(|&position| &history.operations()[position]).collect();
        let (judged, by_zones) = judge(&operations, limits);
        report.keys_by_zones += usize::from(by_zones);
        report.keys_by_search += usize::from(!by_zones);
        match judged {
            Judged::Linearizable => {}
            Judged::Undecided { configurations } => report.undecided.push(Undecided { key, configurations }),
            Judged::Violated => report.violations.push(explain::violation(key, &operations, &positions, limits)),
        }
    }
    report
}

/// Judges every key by the search alone, also those that the zones decide: to hold the two against each other.
pub fn check_by_search(history: &History, limits: Limits) -> Verdict {
    let mut verdict = Verdict::Linearizable;
    for positions in history.by_key().values() {
        let operations: Vec<&Operation> = positions.iter().map(|&position| &history.operations()[position]).collect();
        match judge_by_search(&operations, limits) {
            Judged::Linearizable => {}
            Judged::Violated => return Verdict::Violated,
            Judged::Undecided { .. } => verdict = Verdict::Undecided,
        }
    }
    verdict
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Linearizable,
    Violated,
    Undecided { configurations: u64 },
}

/// Judges the operations on one key, and says whether the zones did.
fn judge(operations: &[&Operation], limits: Limits) -> (Judged, bool) {
    if !zones::decide(operations) {
        return (judge_by_search(operations, limits), false);
    }
    match zones::judge(operations) {
        None => (Judged::Linearizable, true),
        Some(_) => (Judged::Violated, true),
    }
}

fn judge_by_search(operations: &[&Operation], limits: Limits) -> Judged {
    let (mut model, entries, _) = KeyModel::new(operations);
    match search(&mut model, &entries, limits.configurations_max) {
        Answer::Explained { .. } => Judged::Linearizable,
        Answer::Unexplained { .. } => Judged::Violated,
        Answer::Undecided { configurations } => Judged::Undecided { configurations },
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.story)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys_by_zones + self.keys_by_search;
        writeln!(
            formatter,
            "{} operations on {keys} keys ({} by zones, {} by search): {} not linearizable, {} undecided",
            self.operations,
            self.keys_by_zones,
            self.keys_by_search,
            self.violations.len(),
            self.undecided.len()
        )?;
        for violation in &self.violations {
            writeln!(formatter, "{violation}")?;
        }
        for undecided in &self.undecided {
            let (key, configurations) = (undecided.key.0, undecided.configurations);
            writeln!(formatter, "key {key} is undecided after {configurations} configurations: raise the limit")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod brute;
#[cfg(test)]
mod tests;
