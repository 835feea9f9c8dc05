//! Correct histories of operations on single keys: concurrent clients of a store that does one thing at a time.
//!
//! Place in the flow: `plant` starts from one; tests judge it as it is.
//!
//! ```text
//! client   invoke ──────────── effect ─────────── done        each gap is drawn from the seed
//! store                        one at a time, by time
//! ```
//!
//! A reply may be lost: then the operation takes effect late or never, and its client goes on as another process.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::Random;
use crate::history::{Call, History, Key, Operation, Outcome, Process, Reply, Time, Value};

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

/// The longest of each gap between invocation, effect and reply.
const GAP_MAX: u64 = 1_000;

/// How much later than a reply would have come a lost operation may take effect.
const LATE_MAX: u64 = 20 * GAP_MAX;

/// Events by time; equal times in the order in which they were scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoke { client: usize },
    Effect { operation: usize },
}

/// Makes the history of a seed.
///
/// # Panics
/// If there are no clients or no keys.
pub fn generate(workload: &Workload, seed: u64) -> Generated {
    assert!(workload.clients > 0 && workload.keys > 0, "{workload:?} has nothing to do");
    let mut world = World::new(*workload, seed);
    for client in 0..workload.clients as usize {
        let at = world.random.below(GAP_MAX);
        world.schedule(at, Event::Invoke { client });
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        match event {
            Event::Invoke { client } => world.invoke(client, at),
            Event::Effect { operation } => world.effect(operation, at),
        }
    }
    let history = History::new(world.operations).expect("clients wait for their replies");
    Generated { history, effects: world.effects }
}

struct World {
    workload: Workload,
    random: Random,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    operations: Vec<Operation>,
    effects: Vec<Option<Time>>,
    store: BTreeMap<Key, Value>,
    /// By client: its process now.
    processes: Vec<Process>,
    next_process: u32,
    next_value: i64,
}

impl World {
    fn new(workload: Workload, seed: u64) -> Self {
        World {
            workload,
            random: Random::new(seed),
            events: BinaryHeap::new(),
            scheduled: 0,
            operations: Vec::with_capacity(workload.operations),
            effects: Vec::with_capacity(workload.operations),
            store: BTreeMap::new(),
            processes: (0..workload.clients).map(Process).collect(),
            next_process: workload.clients,
            next_value: 1,
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn gap(&mut self) -> u64 {
        1 + self.random.below(GAP_MAX)
    }

    fn invoke(&mut self, client: usize, now: u64) {
        let operation = self.operations.len();
        if operation == self.workload.operations {
            return;
        }
        let key = Key(self.random.below(self.workload.keys));
        let call = self.call(key);
        let process = self.processes[client];
        let effect_at = now + self.gap();
        let done_at = effect_at + self.gap();
        let mut outcome = Outcome::Unknown;
        if self.random.chance(self.workload.failed_permille) {
            outcome = Outcome::Failed { at: Time(done_at) };
        } else if self.random.chance(self.workload.unknown_permille) {
            // A half of them reaches the store, at any time.
            if self.random.chance(500) {
                let late = effect_at + self.random.below(LATE_MAX);
                self.schedule(late, Event::Effect { operation });
            }
            self.processes[client] = Process(self.next_process);
            self.next_process += 1;
        } else {
            self.schedule(effect_at, Event::Effect { operation });
            // The reply is filled in when the effect comes.
            outcome = Outcome::Done { at: Time(done_at), reply: Reply::Acknowledged };
        }
        self.operations.push(Operation { process, key, call, invoked: Time(now), outcome });
        self.effects.push(None);
        let next = done_at + self.gap();
        self.schedule(next, Event::Invoke { client });
    }

    fn fresh(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value - 1
    }

    fn call(&mut self, key: Key) -> Call {
        let draw = self.random.below(100);
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
        let mut few = || self.random.below(4) as i64;
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
            reply = match (call, self.random.below(3)) {
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
