//! Plants a fault into a correct history of operations on single keys: what a store with that bug would have answered.
//!
//! Place in the flow: the test of the checkers of `linear`.
//!
//! Invariant: what [`plant`] returns is not linearizable, and its reason needs no checker: a few operations that lie
//! apart in time, or a count. The reason stands at each fault. All of them rest on values being written once.
//!
//! Deliberately not here: faults that may or may not show; a place is looked for where it does.

use std::collections::BTreeMap;

use super::{generate, Generated, Mix, Random, Workload};
use crate::history::{Call, History, Key, Operation, Outcome, Reply, Time, Value};

/// A fault of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// A read returns what was overwritten before it began.
    StaleRead,
    /// A read returns what is written after it ended.
    FutureRead,
    /// An acknowledged write is never seen.
    LostWrite,
    /// A read returns the value of a write that failed.
    ReadOfFailedWrite,
    /// A read returns a value of nobody's.
    NeverWritten,
    /// From some time on, each half of the clients has a store of its own.
    SplitBrain,
    /// A late duplicate of a write takes effect after another write.
    DuplicateWrite,
    /// Two increments count once.
    LostIncrement,
    /// An increment counts twice.
    DuplicateIncrement,
    /// Two compare-and-sets that expect the same value both succeed.
    DoubleSwap,
    /// A read returns what was deleted before it began.
    IgnoredDelete,
    /// An acknowledged append is never seen.
    LostAppend,
    /// An element is appended twice.
    DuplicateAppend,
    /// Two reads see two elements in different orders.
    ReorderedAppends,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Anomaly; 14] = [
        Anomaly::StaleRead,
        Anomaly::FutureRead,
        Anomaly::LostWrite,
        Anomaly::ReadOfFailedWrite,
        Anomaly::NeverWritten,
        Anomaly::SplitBrain,
        Anomaly::DuplicateWrite,
        Anomaly::LostIncrement,
        Anomaly::DuplicateIncrement,
        Anomaly::DoubleSwap,
        Anomaly::IgnoredDelete,
        Anomaly::LostAppend,
        Anomaly::DuplicateAppend,
        Anomaly::ReorderedAppends,
    ];

    /// What clients do where this can happen.
    pub fn mix(self) -> Mix {
        match self {
            Anomaly::LostIncrement | Anomaly::DuplicateIncrement => Mix::Counters,
            Anomaly::DoubleSwap | Anomaly::IgnoredDelete => Mix::Conditions,
            Anomaly::LostAppend | Anomaly::DuplicateAppend | Anomaly::ReorderedAppends => Mix::Lists,
            _ => Mix::Registers,
        }
    }
}

/// Places that are tried before a history is said to have none.
const TRIES_MAX: usize = 20_000;

/// Generates the history of a seed, with the anomaly's mix, and plants the anomaly. `None` if the history has no
/// place for it: short ones may not.
pub fn plant(anomaly: Anomaly, workload: &Workload, seed: u64) -> Option<History> {
    let generated = generate(&Workload { mix: anomaly.mix(), ..*workload }, seed);
    let mut bed = Bed::new(generated, seed);
    let planted = (0..TRIES_MAX).any(|_| match anomaly {
        Anomaly::StaleRead => bed.stale_read(),
        Anomaly::FutureRead => bed.future_read(),
        Anomaly::LostWrite => bed.lost_write(),
        Anomaly::ReadOfFailedWrite => bed.read_of_failed_write(),
        Anomaly::NeverWritten => bed.never_written(),
        Anomaly::SplitBrain => bed.split_brain(),
        Anomaly::DuplicateWrite => bed.duplicate_write(),
        Anomaly::LostIncrement => bed.lost_increment(),
        Anomaly::DuplicateIncrement => bed.duplicate_increment(),
        Anomaly::DoubleSwap => bed.double_swap(),
        Anomaly::IgnoredDelete => bed.ignored_delete(),
        Anomaly::LostAppend => bed.lost_append(),
        Anomaly::DuplicateAppend => bed.duplicate_append(),
        Anomaly::ReorderedAppends => bed.reordered_appends(),
    });
    planted.then(|| History::new(bed.operations).expect("only replies have changed"))
}

/// A history in which a place is looked for. Each fault draws a place and says whether it took it; if not, nothing has
/// changed.
struct Bed {
    operations: Vec<Operation>,
    /// Positions by the time of the effect; those without one are left out.
    by_effect: Vec<usize>,
    by_key: BTreeMap<Key, Vec<usize>>,
    random: Random,
}

fn reply(operation: &Operation) -> Option<&Reply> {
    match &operation.outcome {
        Outcome::Done { reply, .. } => Some(reply),
        _ => None,
    }
}

/// The number that a call leaves, if it was told that it did.
fn left_by(operation: &Operation) -> Option<i64> {
    match (operation.call, reply(operation)?) {
        (Call::Write(value), _) | (Call::CompareAndSet { new: value, .. }, Reply::Swapped(true)) => Some(value),
        _ => None,
    }
}

fn answer(operation: &mut Operation, new: Reply) {
    if let Outcome::Done { reply, .. } = &mut operation.outcome {
        *reply = new;
    }
}

fn number(value: i64) -> Reply {
    Reply::Value(Some(Value::Int(value)))
}

impl Bed {
    fn new(generated: Generated, seed: u64) -> Self {
        let effects: Vec<Option<Time>> = generated.effects;
        let mut by_effect: Vec<usize> = (0..effects.len()).filter(|&position| effects[position].is_some()).collect();
        by_effect.sort_by_key(|&position| effects[position]);
        let by_key = generated.history.by_key();
        Bed { operations: generated.history.into_operations(), by_effect, by_key, random: Random::new(!seed) }
    }

    fn draw(&mut self) -> usize {
        self.random.below(self.operations.len() as u64) as usize
    }

    /// A read that was answered.
    fn draw_read(&mut self) -> Option<usize> {
        let position = self.draw();
        matches!(reply(&self.operations[position]), Some(Reply::Value(_))).then_some(position)
    }

    /// Another operation on the key of `position`, near or far.
    fn draw_beside(&mut self, position: usize) -> Option<usize> {
        let of_key = &self.by_key[&self.operations[position].key];
        let here = of_key.partition_point(|&other| other < position);
        let distance = 1 << self.random.below(1 + u64::from(of_key.len().ilog2()));
        let (from, to) = (here.saturating_sub(distance), (here + distance).min(of_key.len() - 1));
        let other = of_key[from + self.random.below((to - from + 1) as u64) as usize];
        (other != position).then_some(other)
    }

    /// Whether the first has ended before the second was invoked.
    fn is_before(&self, first: usize, second: usize) -> bool {
        self.operations[first].outcome.at().is_some_and(|at| at < self.operations[second].invoked)
    }

    /// `first` was overwritten by `second` for certain, and that before `read`.
    fn is_over(&self, first: usize, second: usize, read: usize) -> bool {
        self.is_before(first, second) && self.is_before(second, read)
    }

    /// Two writes, one after the other, both before a read: the first value, returned now, is stale.
    fn stale_read(&mut self) -> bool {
        let Some((read, value)) = self.draw_stale() else { return false };
        answer(&mut self.operations[read], number(value));
        true
    }

    /// A read, and a value that was overwritten before it began.
    fn draw_stale(&mut self) -> Option<(usize, i64)> {
        let read = self.draw_read()?;
        let (old, new) = (self.draw_beside(read)?, self.draw_beside(read)?);
        let value = left_by(&self.operations[old])?;
        left_by(&self.operations[new]).filter(|_| self.is_over(old, new, read))?;
        Some((read, value))
    }

    /// A read that has ended returns the value of a write that is to come.
    fn future_read(&mut self) -> bool {
        let Some(read) = self.draw_read() else { return false };
        let Some(write) = self.draw_beside(read).filter(|&write| self.is_before(read, write)) else { return false };
        let Call::Write(value) = self.operations[write].call else { return false };
        answer(&mut self.operations[read], number(value));
        true
    }

    /// The operations on the key of `position` that take effect after it, in that order.
    fn effects_after(&self, position: usize) -> Vec<usize> {
        let key = self.operations[position].key;
        let after = self.by_effect.iter().skip_while(|&&other| other != position).skip(1);
        after.copied().filter(|&other| self.operations[other].key == key).collect()
    }

    /// Reads that would have seen a write see the one before, which was over when it began, and one of them began when
    /// the write had ended.
    fn lost_write(&mut self) -> bool {
        let write = self.draw();
        let Some(value) = left_by(&self.operations[write]) else { return false };
        let Some(old) = self.draw_beside(write).filter(|&old| self.is_before(old, write)) else { return false };
        let Some(old_value) = left_by(&self.operations[old]) else { return false };
        let after = self.effects_after(write);
        // The old value must be the one that was there before, for this to be what a lost write looks like.
        let between = self.effects_after(old);
        let overwritten = between
            .iter()
            .take_while(|&&other| other != write)
            .any(|&other| matches!(self.operations[other].call, Call::Write(_)));
        let seen: Vec<usize> =
            after.into_iter().filter(|&read| reply(&self.operations[read]) == Some(&number(value))).collect();
        if overwritten || !seen.iter().any(|&read| self.is_before(write, read)) {
            return false;
        }
        for read in seen {
            answer(&mut self.operations[read], number(old_value));
        }
        true
    }

    fn read_of_failed_write(&mut self) -> bool {
        let write = self.draw();
        let (Call::Write(value), Outcome::Failed { .. }) =
            (self.operations[write].call, &self.operations[write].outcome)
        else {
            return false;
        };
        let Some(read) = self.draw_beside(write) else { return false };
        if !matches!(reply(&self.operations[read]), Some(Reply::Value(_))) {
            return false;
        }
        answer(&mut self.operations[read], number(value));
        true
    }

    fn never_written(&mut self) -> bool {
        let Some(read) = self.draw_read() else { return false };
        answer(&mut self.operations[read], number(-1));
        true
    }

    /// Each half goes on with a copy of the store. It shows where one half has overwritten a value and a later read of
    /// the other half returns it.
    fn split_brain(&mut self) -> bool {
        let split = self.draw();
        let from = self.by_effect.iter().position(|&position| position == split);
        let Some(from) = from else { return false };
        let mut replies: Vec<(usize, Reply)> = Vec::new();
        let mut shows = false;
        let after = self.effects_after(split);
        // The last write before, and then each half's own.
        let key = self.operations[split].key;
        let is_write = |position: &usize| matches!(self.operations[*position].call, Call::Write(_));
        let before = self.by_effect[..=from].iter().rev().copied();
        let last = before.filter(|&position| self.operations[position].key == key).find(|position| is_write(position));
        let Some(last) = last else { return false };
        let mut current = [last, last];
        for position in after {
            let half = self.operations[position].process.0 as usize % 2;
            if is_write(&position) {
                current[half] = position;
            } else if reply(&self.operations[position]).is_some() {
                let Call::Write(value) = self.operations[current[half]].call else { unreachable!("is_write") };
                replies.push((position, number(value)));
                shows |= self.is_over(current[half], current[1 - half], position);
            }
        }
        if shows {
            for (position, reply) in replies {
                answer(&mut self.operations[position], reply);
            }
        }
        shows
    }

    /// From a read on, until the next write takes effect, all reads return a value that was overwritten before the
    /// read.
    fn duplicate_write(&mut self) -> bool {
        let Some((read, value)) = self.draw_stale() else { return false };
        let after = self.effects_after(read);
        let until = after.iter().position(|&other| matches!(self.operations[other].call, Call::Write(_)));
        for &other in [read].iter().chain(&after[..until.unwrap_or(after.len())]) {
            answer(&mut self.operations[other], number(value));
        }
        true
    }

    /// Moves every number that is returned after `increment`.
    fn shift_after(&mut self, increment: usize, by: i64) {
        for position in self.effects_after(increment) {
            let shifted = match reply(&self.operations[position]) {
                Some(Reply::Number(sum)) => Reply::Number(sum + by),
                Some(Reply::Value(Some(Value::Int(sum)))) => number(sum + by),
                _ => continue,
            };
            answer(&mut self.operations[position], shifted);
        }
    }

    fn draw_increment(&mut self) -> Option<usize> {
        let position = self.draw();
        matches!(reply(&self.operations[position]), Some(Reply::Number(_))).then_some(position)
    }

    /// The next increment returns the same sum, which no counter that only grows returns twice.
    fn lost_increment(&mut self) -> bool {
        let Some(increment) = self.draw_increment() else { return false };
        let after = self.effects_after(increment);
        let next = after.iter().find(|&&position| matches!(self.operations[position].call, Call::Increment(_)));
        if next.is_none_or(|&next| reply(&self.operations[next]).is_none()) {
            return false;
        }
        self.shift_after(increment, -1);
        true
    }

    /// In the end there is a sum above the number of increments by 1.
    fn duplicate_increment(&mut self) -> bool {
        let Some(increment) = self.draw_increment() else { return false };
        let key = self.operations[increment].key;
        let of_key = self.operations.iter().filter(|operation| operation.key == key);
        let may_count = |operation: &&Operation| {
            matches!(operation.call, Call::Increment(_)) && !matches!(operation.outcome, Outcome::Failed { .. })
        };
        let count = of_key.filter(may_count).count() as i64;
        let is_last = |position: &usize| reply(&self.operations[*position]) == Some(&Reply::Number(count));
        if !self.effects_after(increment).iter().any(is_last) {
            return false;
        }
        self.shift_after(increment, 1);
        true
    }

    /// A value is there once, and is gone with the first that succeeds.
    fn double_swap(&mut self) -> bool {
        let first = self.draw();
        let Some(second) = self.draw_beside(first) else { return false };
        let expects = |position: usize| match self.operations[position].call {
            Call::CompareAndSet { expected, .. } => expected,
            _ => None,
        };
        let same = expects(first).is_some() && expects(first) == expects(second);
        let replies = [first, second].map(|position| reply(&self.operations[position]));
        if !same || replies != [Some(&Reply::Swapped(true)), Some(&Reply::Swapped(false))] {
            return false;
        }
        answer(&mut self.operations[second], Reply::Swapped(true));
        true
    }

    /// A value that was there before a delete began is returned after it has ended.
    fn ignored_delete(&mut self) -> bool {
        let Some(read) = self.draw_read() else { return false };
        let (Some(old), Some(delete)) = (self.draw_beside(read), self.draw_beside(read)) else { return false };
        let Some(value) = left_by(&self.operations[old]) else { return false };
        let deleted = reply(&self.operations[delete]) == Some(&Reply::Existed(true));
        if !deleted || !self.is_over(old, delete, read) {
            return false;
        }
        answer(&mut self.operations[read], number(value));
        true
    }

    /// Changes every list that was read of the key of `position` by `edit`, and every length by `longer`.
    fn edit_lists(&mut self, position: usize, longer: i64, edit: impl Fn(&mut Vec<i64>)) {
        let key = self.operations[position].key;
        let after = self.effects_after(position);
        for operation in self.operations.iter_mut().filter(|operation| operation.key == key) {
            if let Outcome::Done { reply: Reply::Value(seen @ Some(Value::List(_))), .. } = &mut operation.outcome {
                let Some(Value::List(list)) = seen else { unreachable!("matched above") };
                edit(list);
                if list.is_empty() {
                    *seen = None;
                }
            }
        }
        for other in after {
            if let Outcome::Done { reply: Reply::Length(length), .. } = &mut self.operations[other].outcome {
                *length = length.saturating_add_signed(longer);
            }
        }
    }

    /// An append that was acknowledged, its element, and a read that begins afterwards and has it.
    fn draw_append(&mut self) -> Option<(usize, i64)> {
        let append = self.draw();
        let Call::Append(element) = self.operations[append].call else { return None };
        reply(&self.operations[append])?;
        let has_it = |read: usize| match reply(&self.operations[read]) {
            Some(Reply::Value(Some(Value::List(list)))) => list.contains(&element),
            _ => false,
        };
        let mut after = self.effects_after(append).into_iter();
        after.any(|read| self.is_before(append, read) && has_it(read)).then_some((append, element))
    }

    fn lost_append(&mut self) -> bool {
        let Some((append, element)) = self.draw_append() else { return false };
        self.edit_lists(append, -1, |list| list.retain(|&other| other != element));
        true
    }

    fn duplicate_append(&mut self) -> bool {
        let Some((append, element)) = self.draw_append() else { return false };
        self.edit_lists(append, 1, |list| {
            if let Some(at) = list.iter().position(|&other| other == element) {
                list.insert(at, element);
            }
        });
        true
    }

    /// Another read has the two elements in their order, and nothing is ever removed.
    fn reordered_appends(&mut self) -> bool {
        let Some(read) = self.draw_read() else { return false };
        let Some(other) = self.draw_beside(read) else { return false };
        let list = |position: usize| match reply(&self.operations[position]) {
            Some(Reply::Value(Some(Value::List(list)))) => Some(list.clone()),
            _ => None,
        };
        let (Some(mut list), Some(longer)) = (list(read), list(other)) else { return false };
        if list.len() < 2 || longer.len() < list.len() {
            return false;
        }
        let at = self.random.below(list.len() as u64 - 1) as usize;
        list.swap(at, at + 1);
        answer(&mut self.operations[read], Reply::Value(Some(Value::List(list))));
        true
    }
}
