//! Correct histories of operations on single keys: concurrent clients of a store that does one thing at a time.
//!
//! Place in the flow: `plant` starts from one; tests judge it as it is.

use std::collections::BTreeMap;

use super::clients::{Clients, Event, Fate};
use crate::history::{Call, History, Key, Operation, Outcome, Reply, Time, Value};

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Reads, and writes of values that are each written once: what the zones decide.
    Registers,
    /// Reads, writes and compare-and-sets of such values, deletes.
    Conditions,
    /// Reads and increments by 1.
    Counters,
    /// Reads and appends of elements that are each appended once.
    Lists,
    /// All calls, on few values that come again and again.
    Everything,
}

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Clients that are busy at the same time.
    pub clients: u32,
    /// Operations in all.
    pub operations: usize,
    /// Keys that they choose from.
    pub keys: u64,
    /// What they do.
    pub mix: Mix,
    /// Operations of 1,000 whose reply is lost.
    pub unknown_permille: u32,
    /// Operations of 1,000 that fail, for certain.
    pub failed_permille: u32,
}

/// A correct history.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The history.
    pub history: History,
    /// When each operation took effect; `None` if it never did.
    pub effects: Vec<Option<Time>>,
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            clients: 16,
            operations: 4_000,
            keys: 8,
            mix: Mix::Registers,
            unknown_permille: 2,
            failed_permille: 5,
        }
    }
}

/// Makes the history of a seed.
///
/// # Panics
/// If there are no clients or no keys.
pub fn generate(workload: &Workload, seed: u64) -> Generated {
    assert!(workload.clients > 0 && workload.keys > 0, "{workload:?} has nothing to do");
    let mut world = World::new(*workload, seed);
    while let Some((at, event)) = world.clients.next() {
        match event {
            Event::Ask { client } => world.invoke(client, at),
            Event::Effect { request } => world.effect(request, at),
        }
    }
    let history = History::new(world.operations).expect("clients wait for their replies");
    Generated { history, effects: world.effects }
}

struct World {
    workload: Workload,
    clients: Clients,
    operations: Vec<Operation>,
    effects: Vec<Option<Time>>,
    store: BTreeMap<Key, Value>,
    next_value: i64,
}

impl World {
    fn new(workload: Workload, seed: u64) -> Self {
        World {
            workload,
            clients: Clients::new(workload.clients, seed),
            operations: Vec::with_capacity(workload.operations),
            effects: Vec::with_capacity(workload.operations),
            store: BTreeMap::new(),
            next_value: 1,
        }
    }

    fn invoke(&mut self, client: usize, now: u64) {
        let operation = self.operations.len();
        if operation == self.workload.operations {
            return;
        }
        let key = Key(self.clients.random.below(self.workload.keys));
        let call = self.call(key);
        let Workload { failed_permille, unknown_permille, .. } = self.workload;
        let asked = self.clients.ask(client, operation, now, failed_permille, unknown_permille);
        let at = Time(asked.done_at);
        let outcome = match asked.fate {
            // The reply is filled in when the effect comes.
            Fate::Answered => Outcome::Done { at, reply: Reply::Acknowledged },
            Fate::Refused => Outcome::Failed { at },
            Fate::Lost => Outcome::Unknown,
        };
        self.operations.push(Operation { process: asked.process, key, call, invoked: Time(now), outcome });
        self.effects.push(None);
        self.clients.ask_again(client, asked.done_at);
    }

    fn fresh(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value - 1
    }

    fn call(&mut self, key: Key) -> Call {
        let draw = self.clients.random.below(100);
        match self.workload.mix {
            Mix::Registers if draw < 50 => Call::Write(self.fresh()),
            Mix::Conditions if draw < 15 => Call::Write(self.fresh()),
            Mix::Conditions if draw < 55 => {
                // The value of now is often the one of the effect, and often not.
                let expected = match self.store.get(&key) {
                    Some(Value::Int(number)) => Some(*number),
                    _ => None,
                };
                Call::CompareAndSet { expected, new: self.fresh() }
            }
            Mix::Conditions if draw < 60 => Call::Delete,
            Mix::Counters if draw < 60 => Call::Increment(1),
            Mix::Lists if draw < 50 => Call::Append(self.fresh()),
            Mix::Everything => self.any_call(draw),
            _ => Call::Read,
        }
    }

    fn any_call(&mut self, draw: u64) -> Call {
        let mut few = || self.clients.random.below(4) as i64;
        match draw {
            0..20 => Call::Write(few()),
            20..35 => Call::CompareAndSet { expected: Some(few()), new: few() },
            35..40 => Call::CompareAndSet { expected: None, new: few() },
            40..50 => Call::Increment(few() - 1),
            50..58 => Call::Append(few()),
            58..66 => Call::Delete,
            _ => Call::Read,
        }
    }

    fn effect(&mut self, operation: usize, now: u64) {
        let (key, call) = (self.operations[operation].key, self.operations[operation].call);
        let before = self.store.get(&key).cloned();
        let Some((after, mut reply)) = apply(before.clone(), call) else {
            // A call on a value of another kind: an error, without effect.
            if let Some(at) = self.operations[operation].outcome.at() {
                self.operations[operation].outcome = Outcome::Failed { at };
            }
            return;
        };
        match after {
            Some(value) => self.store.insert(key, value),
            None => self.store.remove(&key),
        };
        self.effects[operation] = Some(Time(now));
        if self.workload.mix == Mix::Everything {
            reply = match (call, self.clients.random.below(3)) {
                (Call::Write(_) | Call::Delete, 0) => Reply::Value(before),
                (Call::Increment(_) | Call::Append(_) | Call::Delete, 1) => Reply::Acknowledged,
                _ => reply,
            };
        }
        if let Outcome::Done { reply: told, .. } = &mut self.operations[operation].outcome {
            *told = reply;
        }
    }
}

/// What a call makes of a value, and its reply; `None` if the value is of another kind.
fn apply(before: Option<Value>, call: Call) -> Option<(Option<Value>, Reply)> {
    Some(match call {
        Call::Read => (before.clone(), Reply::Value(before)),
        Call::Write(value) => (Some(Value::Int(value)), Reply::Acknowledged),
        Call::CompareAndSet { expected, new } => {
            let holds = before == expected.map(Value::Int);
            (if holds { Some(Value::Int(new)) } else { before }, Reply::Swapped(holds))
        }
        Call::Increment(delta) => {
            let sum = match before {
                None => delta,
                Some(Value::Int(number)) => number + delta,
                Some(Value::List(_)) => return None,
            };
            (Some(Value::Int(sum)), Reply::Number(sum))
        }
        Call::Append(value) => {
            let mut list = match before {
                None => Vec::new(),
                Some(Value::List(list)) => list,
                Some(Value::Int(_)) => return None,
            };
            list.push(value);
            let length = list.len() as u64;
            (Some(Value::List(list)), Reply::Length(length))
        }
        Call::Delete => (None, Reply::Existed(before.is_some())),
    })
}
