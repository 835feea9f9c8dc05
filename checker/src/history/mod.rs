//! Histories: what clients asked of single keys, when, and what they were told.
//!
//! Place in the flow: a recorder or the line format makes a [`History`]; the checkers of `linear` judge it.
//!
//! Invariants of a [`History`], proved when it is made:
//! - No operation ends before it begins, and its reply is one that its call can have.
//! - A process does one thing at a time: its operations do not overlap, and after an operation whose outcome is
//!   unknown it does nothing more. Whoever goes on after a lost reply goes on under a new process number.
//!
//! Times are numbers of one clock, in any unit. An operation comes before another if it ended *before* the other
//! began; if the two times are equal they count as concurrent, so a coarse clock hides violations and invents none.
//!
//! Deliberately not here: what a call means (`linear`), and the order of keys among each other: linearizability is
//! local, a history is linearizable if it is so for each key alone (Herlihy and Wing 1990, theorem 1).

mod recorder;

use std::collections::BTreeMap;
use std::fmt;

pub use recorder::{OperationId, Recorder, RecorderError};

/// Operations in one history: indexes stay in 32 bits, and a checker's tables in memory.
pub const OPERATIONS_MAX: usize = 1 << 24;

/// Who asks: a client that waits for each reply before it asks again. A connection with many requests under way is as
/// many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// When, by a clock that all processes share and that never goes back; the unit is the recorder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// What a key holds, if it is there at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number; it also stands for a text or a blob that the recorder has given a number.
    Int(i64),
    /// What appends make, in their order.
    List(Vec<i64>),
}

/// What was asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Returns the value.
    Read,
    /// Sets the key, whatever it held.
    Write(i64),
    /// Sets the key if it holds `expected`; nothing expected means that the key must be absent.
    CompareAndSet {
        /// What the key must hold.
        expected: Option<i64>,
        /// What it holds afterwards.
        new: i64,
    },
    /// Adds to the number; an absent key counts as 0.
    Increment(i64),
    /// Adds an element at the end of the list; an absent key counts as an empty one.
    Append(i64),
    /// Makes the key absent.
    Delete,
}

/// What the client was told. Which replies a call can have:
///
/// | call | replies |
/// |---|---|
/// | read | `Value` |
/// | write | `Acknowledged`, `Value` (what was there before) |
/// | compare-and-set | `Swapped` |
/// | increment | `Acknowledged`, `Number` (the sum) |
/// | append | `Acknowledged`, `Length` (of the list with the new element) |
/// | delete | `Acknowledged`, `Existed`, `Value` (what was there before) |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It was done, and nothing more is known.
    Acknowledged,
    /// The value; `None` is an absent key.
    Value(Option<Value>),
    /// Whether the condition held.
    Swapped(bool),
    /// The sum.
    Number(i64),
    /// Whether there was something to delete.
    Existed(bool),
    /// Elements of the list.
    Length(u64),
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The client was told that it was done.
    Done {
        /// When the client knew.
        at: Time,
        /// What it was told.
        reply: Reply,
    },
    /// The client was told that it was not done, and that it never will be.
    Failed {
        /// When the client knew.
        at: Time,
    },
    /// Nobody knows: it took effect at any time after its invocation, or will, or never.
    Unknown,
}

/// One operation of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Who asked.
    pub process: Process,
    /// Of what.
    pub key: Key,
    /// What.
    pub call: Call,
    /// When.
    pub invoked: Time,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why operations are no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Time went back within an operation.
    #[error(
        "operation {operation} of process {} ended at {} and was invoked at {}: take both times from one clock",
        process.0, ended.0, invoked.0
    )]
    EndsBeforeItBegins {
        /// Its position in the history, from 0.
        operation: usize,
        /// Who asked.
        process: Process,
        /// When.
        invoked: Time,
        /// When it ended, earlier.
        ended: Time,
    },
    /// Two operations of a process at once.
    #[error(
        "process {} does operation {first} until {} and invoked operation {second} at {}: \
         give each request that is under way a process of its own",
        process.0, first_ended.0, second_invoked.0
    )]
    OverlapsItself {
        /// Who asked.
        process: Process,
        /// Position of the earlier operation.
        first: usize,
        /// When that ended.
        first_ended: Time,
        /// Position of the later operation.
        second: usize,
        /// When that was invoked, earlier.
        second_invoked: Time,
    },
    /// An operation may still take effect while its process goes on.
    #[error(
        "process {} goes on with operation {second} after operation {first}, whose outcome is unknown: \
         take a new process number after a lost reply",
        process.0
    )]
    GoesOnAfterUnknown {
        /// Who asked.
        process: Process,
        /// Position of the operation with the unknown outcome.
        first: usize,
        /// Position of the next one.
        second: usize,
    },
    /// A reply to another question.
    #[error("operation {operation} is to {call} and has the reply \"{reply}\": record the reply that belongs to it")]
    ReplyToAnotherCall {
        /// Its position in the history, from 0.
        operation: usize,
        /// What was asked.
        call: Call,
        /// What cannot be the answer.
        reply: Reply,
    },
    /// More than a checker takes.
    #[error("{count} operations, and at most {OPERATIONS_MAX} are checked at once: split the history by keys")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// Operations that belong together and contradict no rule of recording; see the invariants of this module. What the
/// database did wrong is not looked at here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl Outcome {
    /// When the client knew the outcome; `None` if it never did.
    pub fn at(&self) -> Option<Time> {
        match self {
            Outcome::Done { at, .. } | Outcome::Failed { at } => Some(*at),
            Outcome::Unknown => None,
        }
    }
}

impl Call {
    /// Whether this call can have this reply.
    pub fn allows(&self, reply: &Reply) -> bool {
        match self {
            Call::Read => matches!(reply, Reply::Value(_)),
            Call::Write(_) => matches!(reply, Reply::Acknowledged | Reply::Value(_)),
            Call::CompareAndSet { .. } => matches!(reply, Reply::Swapped(_)),
            Call::Increment(_) => matches!(reply, Reply::Acknowledged | Reply::Number(_)),
            Call::Append(_) => matches!(reply, Reply::Acknowledged | Reply::Length(_)),
            Call::Delete => matches!(reply, Reply::Acknowledged | Reply::Existed(_) | Reply::Value(_)),
        }
    }
}

impl History {
    /// Makes a history of operations in any order; they keep their positions.
    ///
    /// # Errors
    /// The first rule of recording that is broken.
    pub fn new(operations: Vec<Operation>) -> Result<Self, HistoryError> {
        if operations.len() > OPERATIONS_MAX {
            return Err(HistoryError::TooMany { count: operations.len() });
        }
        for (position, operation) in operations.iter().enumerate() {
            validate(position, operation)?;
        }
        one_thing_at_a_time(&operations)?;
        Ok(History { operations })
    }

    /// All operations, in the order in which they were given.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The positions of each key's operations, ascending.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<usize>> {
        let mut keys: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (position, operation) in self.operations.iter().enumerate() {
            keys.entry(operation.key).or_default().push(position);
        }
        keys
    }

    /// The operations, to change them; [`History::new`] makes a history of them again.
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}

fn validate(position: usize, operation: &Operation) -> Result<(), HistoryError> {
    let (process, invoked) = (operation.process, operation.invoked);
    if let Some(ended) = operation.outcome.at().filter(|ended| *ended < invoked) {
        return Err(HistoryError::EndsBeforeItBegins { operation: position, process, invoked, ended });
    }
    match &operation.outcome {
        Outcome::Done { reply, .. } if !operation.call.allows(reply) => {
            let (call, reply) = (operation.call, reply.clone());
            Err(HistoryError::ReplyToAnotherCall { operation: position, call, reply })
        }
        _ => Ok(()),
    }
}

fn one_thing_at_a_time(operations: &[Operation]) -> Result<(), HistoryError> {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    // An operation without an end is its process's last; of two that begin at once, the one that ends first is first.
    let end = |operation: &Operation| (operation.outcome.at().is_none(), operation.outcome.at());
    order.sort_by_key(|&at| (operations[at].process, operations[at].invoked, end(&operations[at]), at));
    for pair in order.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let (earlier, later) = (&operations[first], &operations[second]);
        let process = later.process;
        if earlier.process != process {
            continue;
        }
        let Some(first_ended) = earlier.outcome.at() else {
            return Err(HistoryError::GoesOnAfterUnknown { process, first, second });
        };
        if later.invoked < first_ended {
            let second_invoked = later.invoked;
            return Err(HistoryError::OverlapsItself { process, first, first_ended, second, second_invoked });
        }
    }
    Ok(())
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(number) => write!(formatter, "{number}"),
            Value::List(elements) => write!(formatter, "{elements:?}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Read => write!(formatter, "read"),
            Call::Write(value) => write!(formatter, "write {value}"),
            Call::CompareAndSet { expected: Some(expected), new } => {
                write!(formatter, "write {new} if it is {expected}")
            }
            Call::CompareAndSet { expected: None, new } => write!(formatter, "write {new} if it is absent"),
            Call::Increment(delta) => write!(formatter, "add {delta}"),
            Call::Append(value) => write!(formatter, "append {value}"),
            Call::Delete => write!(formatter, "delete"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Acknowledged => write!(formatter, "done"),
            Reply::Value(Some(value)) => write!(formatter, "{value}"),
            Reply::Value(None) => write!(formatter, "absent"),
            Reply::Swapped(true) => write!(formatter, "written"),
            Reply::Swapped(false) => write!(formatter, "not written"),
            Reply::Number(number) => write!(formatter, "now {number}"),
            Reply::Existed(true) => write!(formatter, "deleted"),
            Reply::Existed(false) => write!(formatter, "was absent"),
            Reply::Length(length) => write!(formatter, "now of length {length}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (process, key, invoked) = (self.process.0, self.key.0, self.invoked.0);
        write!(formatter, "process {process}, key {key}, from {invoked} ")?;
        match &self.outcome {
            Outcome::Done { at, reply } => write!(formatter, "to {}: {} -> {reply}", at.0, self.call),
            Outcome::Failed { at } => write!(formatter, "to {}: {} -> failed, without effect", at.0, self.call),
            Outcome::Unknown => write!(formatter, "on: {} -> outcome unknown", self.call),
        }
    }
}

#[cfg(test)]
mod tests;
