//! Why a key is not linearizable: the shortest beginning of its history that is not, and the few operations that show
//! it.
//!
//! Place in the flow: `linear` asks for it once a key has failed. Every beginning of a linearizable history is
//! linearizable, so the shortest that is not is found by halving.
//!
//! Invariant: the operations that are named are operations of the history, and those of a fault that the zones found
//! contradict each other by themselves.
//!
//! Deliberately not here: a smallest set of operations where the search was needed. Reads and conditions that did not
//! hold are left out where the failure stays without them, which is sound since they change nothing; a write can hide
//! another's fault, so writes stay.

use std::fmt::Write;

use super::search::{search, Answer, Model};
use super::zones::{self, Conflict, Crossing};
use super::{judge, Fault, Judged, KeyModel, Limits, Prefix, State, Violation};
use crate::history::{Call, Key, Operation, Outcome, Reply, Time, Value};

/// Searches that leaving out operations may take, beside the one that failed.
const SHRINKING_SEARCHES_MAX: usize = 64;

/// Configurations that a search for an explanation may remember: a story is worth less time than the verdict.
const EXPLAINING_CONFIGURATIONS_MAX: u64 = 50_000;

/// Operations that a story lists; a reader holds no more in the head.
const LISTED_OPERATIONS_MAX: usize = 12;

/// Explains a key that has failed. `positions` are those of `operations` in the history.
pub fn violation(key: Key, operations: &[&Operation], positions: &[usize], limits: Limits) -> Violation {
    let brief = Limits { configurations_max: limits.configurations_max.min(EXPLAINING_CONFIGURATIONS_MAX) };
    let (prefix, cut) = shortest_prefix(operations, brief);
    let shown = Shown { operations, positions };
    let cut: Vec<(usize, &Operation)> = cut.iter().map(|(position, operation)| (*position, operation)).collect();
    let beginning: Vec<&Operation> = cut.iter().map(|(_, operation)| *operation).collect();
    let (fault, mut named, reason) = if zones::decide(&beginning) {
        let conflict = zones::judge(&beginning).expect("the prefix was chosen because it fails");
        by_zones(conflict, &cut, &shown)
    } else {
        by_search(&cut, &shown, limits, brief)
    };
    named.sort_unstable();
    named.dedup();
    let mut story = format!(
        "key {}: {reason}\n  first seen at {}, when operation {} ended; {} operations were invoked on the key by then{}",
        key.0,
        prefix.until.0,
        positions[prefix.ends_with],
        prefix.operations,
        if prefix.is_shortest { "" } else { "; maybe it shows before" }
    );
    let listed = &named[named.len().saturating_sub(LISTED_OPERATIONS_MAX)..];
    if listed.len() < named.len() {
        write!(story, "\n  ({} earlier operations are left out)", named.len() - listed.len()).expect("a string");
    }
    for &position in listed {
        write!(story, "\n  operation {}: {}", positions[position], operations[position]).expect("a string");
    }
    let operations = listed.iter().map(|&position| positions[position]).collect();
    let prefix = Prefix { ends_with: positions[prefix.ends_with], ..prefix };
    Violation { key, fault, operations, prefix, story }
}

/// The operations of the key and their positions in the history, to name them.
struct Shown<'a> {
    operations: &'a [&'a Operation],
    positions: &'a [usize],
}

/// What was known at a time: positions and operations.
fn known_at(operations: &[&Operation], until: Time) -> Vec<(usize, Operation)> {
    let invoked = operations.iter().enumerate().filter(|(_, operation)| operation.invoked <= until);
    let known = invoked.map(|(position, operation)| {
        let mut operation = (*operation).clone();
        if operation.outcome.at().is_none_or(|at| at > until) {
            operation.outcome = Outcome::Unknown;
        }
        (position, operation)
    });
    known.collect()
}

/// The shortest prefix that fails, with what was known then.
fn shortest_prefix(operations: &[&Operation], limits: Limits) -> (Prefix, Vec<(usize, Operation)>) {
    let mut ends: Vec<(Time, usize)> = operations
        .iter()
        .enumerate()
        .filter_map(|(position, operation)| operation.outcome.at().map(|at| (at, position)))
        .collect();
    ends.sort_unstable();
    let mut is_shortest = true;
    // All ends before `fine` leave a linearizable prefix (or an undecided one), the one at `fails` does not.
    let (mut fine, mut fails) = (0, ends.len() - 1);
    while fine < fails {
        let middle = usize::midpoint(fine, fails);
        let known = known_at(operations, ends[middle].0);
        let known: Vec<&Operation> = known.iter().map(|(_, operation)| operation).collect();
        match judge(&known, limits).0 {
            Judged::Violated => fails = middle,
            Judged::Linearizable => fine = middle + 1,
            Judged::Undecided { .. } => {
                is_shortest = false;
                fine = middle + 1;
            }
        }
    }
    let (until, ends_with) = ends[fails];
    let known = known_at(operations, until);
    (Prefix { until, ends_with, operations: known.len(), is_shortest }, known)
}

/// A fault, the operations that show it (positions among the key's), and a sentence.
type Explained = (Fault, Vec<usize>, String);

fn by_zones(conflict: Conflict, cut: &[(usize, &Operation)], shown: &Shown<'_>) -> Explained {
    let name = |position: usize| shown.positions[position];
    match conflict {
        Conflict::NeverWritten { read } => {
            let (read, operation) = cut[read];
            // At the time of the read its write may have been to come, or to fail.
            let writes = |other: &&Operation| {
                let Outcome::Done { reply: Reply::Value(Some(value)), .. } = &operation.outcome else {
                    return false;
                };
                matches!(other.call, Call::Write(written) if Value::Int(written) == *value)
            };
            match shown.operations.iter().position(writes) {
                Some(write) => future(read, write, name),
                None => {
                    let reason = format!("operation {} read a value that nobody wrote", name(read));
                    (Fault::NeverWritten, vec![read], reason)
                }
            }
        }
        Conflict::WriteFailed { write, read } => {
            let (write, read) = (cut[write].0, cut[read].0);
            let (read_name, write_name) = (name(read), name(write));
            let reason =
                format!("operation {read_name} read what operation {write_name} wrote, and that failed for certain");
            (Fault::ReadOfFailedWrite, vec![write, read], reason)
        }
        Conflict::ReadBeforeWrite { write, read } => future(cut[read].0, cut[write].0, name),
        Conflict::EachBeforeTheOther(crossing) => each_before_the_other(&crossing, cut, name),
    }
}

fn future(read: usize, write: usize, name: impl Fn(usize) -> usize) -> Explained {
    let reason = format!(
        "operation {} had read its value before operation {}, which wrote it, was invoked",
        name(read),
        name(write)
    );
    (Fault::ReadFromTheFuture, vec![write, read], reason)
}

fn each_before_the_other(crossing: &Crossing, cut: &[(usize, &Operation)], name: impl Fn(usize) -> usize) -> Explained {
    let value = |side: usize| match crossing.values[side] {
        Some(value) => format!("value {value}"),
        None => "absence".to_owned(),
    };
    let sentence = |earlier: usize, later: usize| {
        let begin = name(cut[crossing.begins[later]].0);
        let (earlier_value, later_value) = (value(earlier), value(later));
        match crossing.ends[earlier] {
            Some(end) => {
                let end = name(cut[end].0);
                format!(
                    "operation {end} ended before operation {begin} was invoked, so {earlier_value} was there before {later_value}"
                )
            }
            None => format!("{earlier_value} was there before all"),
        }
    };
    let sides = [crossing.ends, crossing.writes].concat();
    let named = sides.into_iter().flatten().chain(crossing.begins).map(|position| cut[position].0).collect();
    (Fault::EachBeforeTheOther, named, format!("{}; and {}", sentence(0, 1), sentence(1, 0)))
}

fn by_search(cut: &[(usize, &Operation)], shown: &Shown<'_>, limits: Limits, brief: Limits) -> Explained {
    let essential = essential(cut, brief);
    let operations: Vec<&Operation> = essential.iter().map(|(_, operation)| *operation).collect();
    let (mut model, entries, kept) = KeyModel::new(&operations);
    let names: Vec<usize> = kept.into_iter().map(|position| essential[position].0).collect();
    // What was left out makes a search shorter, if anything; should it end otherwise, the verdict stands without an
    // order.
    let deepest = match search(&mut model, &entries, limits.configurations_max) {
        Answer::Unexplained { deepest } => deepest,
        Answer::Explained { .. } | Answer::Undecided { .. } => Vec::new(),
    };
    let state = deepest.iter().fold(State::Absent, |state, &entry| {
        model.apply(&state, &entries[entry].call).expect("the search placed it here")
    });
    let mut is_placed = vec![false; entries.len()];
    deepest.iter().for_each(|&entry| is_placed[entry] = true);
    let without_place = (0..entries.len()).filter(|&entry| entries[entry].completed.is_some() && !is_placed[entry]);
    let mut named: Vec<usize> = without_place.map(|entry| names[entry]).take(LISTED_OPERATIONS_MAX).collect();
    let listed: Vec<String> = named.iter().map(|&position| shown.positions[position].to_string()).collect();
    let reason = format!(
        "no order of its operations explains their replies; the longest one found has {} of {}, leaves {}, and goes on \
         to no order that has {}",
        deepest.len(),
        entries.len(),
        described(state, &model),
        listed.join(", ")
    );
    // What has no place, and what was placed last, tell the story; the beginning of the order was fine.
    let last = deepest.iter().rev().take(LISTED_OPERATIONS_MAX - named.len());
    named.extend(last.map(|&entry| names[entry]));
    (Fault::NoOrder, named, reason)
}

/// The operations without those that change nothing and whose absence leaves the failure.
fn essential<'a>(cut: &[(usize, &'a Operation)], limits: Limits) -> Vec<(usize, &'a Operation)> {
    let mut essential = cut.to_vec();
    let mut searches = 0;
    // Halves first, then quarters, and so on: many are left out at once where few matter.
    let mut chunk = essential.len().div_ceil(2);
    while chunk > 0 {
        let mut end = essential.len();
        while end > 0 && searches < SHRINKING_SEARCHES_MAX {
            let begin = end.saturating_sub(chunk);
            let mut without = essential.clone();
            let mut at = 0;
            without.retain(|(_, operation)| {
                at += 1;
                !(begin..end).contains(&(at - 1)) || !changes_nothing(operation)
            });
            end = begin;
            if without.len() == essential.len() {
                continue;
            }
            searches += 1;
            let operations: Vec<&Operation> = without.iter().map(|(_, operation)| *operation).collect();
            let (mut model, entries, _) = KeyModel::new(&operations);
            if let Answer::Unexplained { .. } = search(&mut model, &entries, limits.configurations_max) {
                essential = without;
            }
        }
        chunk /= 2;
    }
    essential
}

fn changes_nothing(operation: &Operation) -> bool {
    match &operation.outcome {
        Outcome::Failed { .. } | Outcome::Done { reply: Reply::Swapped(false) | Reply::Existed(false), .. } => true,
        Outcome::Done { reply: Reply::Value(None), .. } if operation.call == Call::Delete => true,
        Outcome::Done { .. } | Outcome::Unknown => operation.call == Call::Read,
    }
}

fn described(state: State, model: &KeyModel) -> String {
    match state {
        State::Absent => "the key absent".to_owned(),
        _ if model.is_unasked(state) => "a value that nobody saw".to_owned(),
        State::Int(number) => format!("{number}"),
        State::List(list) => {
            let elements = model.elements(list);
            let from = elements.len().saturating_sub(8);
            format!("a list of {} that ends with {:?}", elements.len(), &elements[from..])
        }
    }
}
