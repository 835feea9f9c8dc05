//! Judges a register whose every value is written once, by its zones: Gibbons and Korach, "Testing Shared Memories"
//! (SIAM J. Comput. 26, 1997), theorem 4.5, with operations whose outcome is unknown.
//!
//! Place in the flow: `linear` calls it for keys that only know reads and writes, with distinct values. It takes
//! O(n log n), where the search of `search` may take exponentially long.
//!
//! The operations of one value (its write and the reads that returned it) are its cluster; in any order that explains
//! the replies they stand together. Let `f` be the earliest end in a cluster, and `s` the latest beginning. Cluster
//! `a` must come before `b` if an operation of `a` ended before one of `b` began, which is `f(a) < s(b)`. So the
//! history is linearizable if and only if no read ended before its write began, and no two clusters must each come
//! before the other. Pairs suffice: in a cycle without a shorter one, `a` before `b` but not `b` before `a` gives
//! `f(b) >= s(a) > f(the one before a)`, all around, which no numbers fulfil.
//!
//! A cluster with `f < s` holds its value at least from `f` to `s`: a forward zone. Others, backward zones, can be
//! placed in any instant from `s` to `f`:
//!
//! ```text
//! write 1  |---|                       value 1: f and s as marked: a forward zone
//! read  1            |-----|
//!              f     s
//! write 2        |-|                   value 2: a backward zone inside that of 1: a violation
//!                s f
//! ```
//!
//! Two clusters must each come before the other if their forward zones overlap, or if a backward zone lies inside of a
//! forward one; two backward zones never conflict.
//!
//! A write whose outcome is unknown counts if its value was read, and then has no end. An absent key is the value of a
//! write before all others.

use std::collections::BTreeMap;

use crate::history::{Call, Operation, Outcome, Reply, Value};

/// What makes a register's history impossible. Numbers are positions in the operations that were judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A read returned a value that nobody wrote.
    NeverWritten {
        /// The read.
        read: usize,
    },
    /// A read returned the value of a write that failed for certain.
    WriteFailed {
        /// The write.
        write: usize,
        /// The read.
        read: usize,
    },
    /// A read ended before its value's write began.
    ReadBeforeWrite {
        /// The write.
        write: usize,
        /// The read.
        read: usize,
    },
    /// Two values must each have been there before the other.
    EachBeforeTheOther(Box<Crossing>),
}

/// Two values, each of which must come before the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// The two clusters' values; `None` is absence.
    pub values: [Option<i64>; 2],
    /// The operation of the first value that ended before `begins[1]` began; `None` is the initial absence. And the
    /// same of the second value, which ended before `begins[0]` began.
    pub ends: [Option<usize>; 2],
    /// The operation of each value that began last.
    pub begins: [usize; 2],
    /// The write of each value; absence has none.
    pub writes: [Option<usize>; 2],
}

/// Whether the zones decide a key: it knows nothing but reads and writes, no write tells what was before, and no
/// value is written twice.
pub fn decide(operations: &[&Operation]) -> bool {
    let mut written: Vec<i64> = Vec::with_capacity(operations.len());
    for operation in operations {
        match (operation.call, &operation.outcome) {
            (Call::Read, _) => {}
            (Call::Write(value), Outcome::Done { reply: Reply::Acknowledged, .. } | Outcome::Unknown) => {
                written.push(value);
            }
            // It wrote nothing, but a read of its value is told from a read of nobody's.
            (Call::Write(value), Outcome::Failed { .. }) => written.push(value),
            _ => return false,
        }
    }
    written.sort_unstable();
    written.windows(2).all(|pair| pair[0] != pair[1])
}

/// The first conflict of a key that [`decide`] allows; `None` if there is an order that explains every reply.
///
/// # Panics
/// If the zones do not decide the key.
pub fn judge(operations: &[&Operation]) -> Option<Conflict> {
    let mut clusters = match clusters(operations) {
        Ok(clusters) => clusters,
        Err(conflict) => return Some(conflict),
    };
    // What was neither read nor acknowledged need not have happened.
    clusters.retain(|cluster| cluster.earliest_end.0 < NEVER);
    crossing(&clusters).map(|[first, second]| {
        Conflict::EachBeforeTheOther(Box::new(Crossing {
            values: [first.value, second.value],
            ends: [first.earliest_end.1, second.earliest_end.1],
            begins: [first.latest_begin.1, second.latest_begin.1]
                .map(|begin| begin.expect("nothing comes before the initial absence")),
            writes: [first.write, second.write],
        }))
    })
}

/// The time after all others: of an end that never came.
const NEVER: u128 = u128::MAX;

/// The operations of one value. Times are shifted by one, so that 0 is before everything; the longer type has room for
/// that.
#[derive(Debug, Clone)]
struct Cluster {
    value: Option<i64>,
    write: Option<usize>,
    /// `f`, and whose it is.
    earliest_end: (u128, Option<usize>),
    /// `s`, and whose it is.
    latest_begin: (u128, Option<usize>),
}

impl Cluster {
    fn add(&mut self, position: usize, operation: &Operation) {
        let end = operation.outcome.at().map_or(NEVER, |at| u128::from(at.0) + 1);
        if end < self.earliest_end.0 {
            self.earliest_end = (end, Some(position));
        }
        let begin = u128::from(operation.invoked.0) + 1;
        if begin > self.latest_begin.0 {
            self.latest_begin = (begin, Some(position));
        }
    }

    fn is_forward(&self) -> bool {
        self.earliest_end.0 < self.latest_begin.0
    }

    /// Whether this one must come before the other.
    fn before(&self, other: &Cluster) -> bool {
        self.earliest_end.0 < other.latest_begin.0
    }
}

/// The clusters of all values; a conflict of a read with its own value's write is found on the way.
fn clusters(operations: &[&Operation]) -> Result<Vec<Cluster>, Conflict> {
    let absence = Cluster { value: None, write: None, earliest_end: (0, None), latest_begin: (0, None) };
    let mut clusters: BTreeMap<Option<i64>, Cluster> = BTreeMap::from([(None, absence)]);
    let mut failed: BTreeMap<i64, usize> = BTreeMap::new();
    for (position, operation) in operations.iter().enumerate() {
        match (operation.call, &operation.outcome) {
            (Call::Write(value), Outcome::Failed { .. }) => {
                failed.insert(value, position);
            }
            (Call::Write(value), _) => {
                let mut cluster = Cluster {
                    value: Some(value),
                    write: Some(position),
                    earliest_end: (NEVER, None),
                    latest_begin: (0, None),
                };
                cluster.add(position, operation);
                let earlier = clusters.insert(Some(value), cluster);
                assert!(earlier.is_none(), "{value} is written twice");
            }
            (Call::Read, _) => {}
            (call, _) => panic!("zones do not decide a key with: {call}"),
        }
    }
    for (read, operation) in operations.iter().enumerate() {
        let (Call::Read, Outcome::Done { at, reply: Reply::Value(value) }) = (operation.call, &operation.outcome)
        else {
            continue;
        };
        let value = match value {
            None => None,
            Some(Value::Int(value)) => Some(*value),
            // Nobody appends here, and an empty list is an absent key.
            Some(Value::List(list)) if list.is_empty() => None,
            Some(Value::List(_)) => return Err(Conflict::NeverWritten { read }),
        };
        let Some(cluster) = clusters.get_mut(&value) else {
            let write = value.and_then(|value| failed.get(&value));
            return Err(match write {
                Some(&write) => Conflict::WriteFailed { write, read },
                None => Conflict::NeverWritten { read },
            });
        };
        if let Some(write) = cluster.write.filter(|&write| *at < operations[write].invoked) {
            return Err(Conflict::ReadBeforeWrite { write, read });
        }
        cluster.add(read, operation);
    }
    Ok(clusters.into_values().collect())
}

/// Two clusters that must each come before the other.
fn crossing(clusters: &[Cluster]) -> Option<[&Cluster; 2]> {
    let mut forward: Vec<&Cluster> = clusters.iter().filter(|cluster| cluster.is_forward()).collect();
    forward.sort_by_key(|cluster| (cluster.earliest_end.0, cluster.latest_begin.0));
    for pair in forward.windows(2) {
        // Where no neighbours overlap, none do: the next one's end is behind this one's, which is behind all before.
        if pair[1].before(pair[0]) {
            return Some([pair[0], pair[1]]);
        }
    }
    for backward in clusters.iter().filter(|cluster| !cluster.is_forward()) {
        // Forward zones do not overlap here, so of those that begin before, the last one ends last.
        let begun = forward.partition_point(|cluster| cluster.before(backward));
        let last = begun.checked_sub(1).map(|last| forward[last]);
        if let Some(last) = last.filter(|last| backward.before(last)) {
            return Some([last, backward]);
        }
    }
    None
}
