//! Correct histories of transactions on lists: concurrent clients of a store that runs one transaction at a time.
//!
//! Place in the flow: `plant_transactions` starts from one; tests judge it as it is.
//!
//! Keys are used up: after some appends a fresh one takes the place of a key, so lists stay short in a long history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::Random;
use crate::history::{Key, Process, Time};
use crate::transactions::{End, Step, Transaction, TransactionHistory};

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionWorkload {
    /// Clients that are busy at the same time.
    pub clients: u32,
    /// Transactions in all.
    pub transactions: usize,
    /// Keys that are in use at a time.
    pub keys: usize,
    /// Appends after which a key is used up.
    pub appends_per_key: u32,
    /// Steps of a transaction, at most.
    pub steps_max: u64,
    /// Transactions of 1,000 whose reply is lost.
    pub unknown_permille: u32,
    /// Transactions of 1,000 that abort.
    pub aborted_permille: u32,
}

impl Default for TransactionWorkload {
    fn default() -> Self {
        TransactionWorkload {
            clients: 16,
            transactions: 4_000,
            keys: 8,
            appends_per_key: 128,
            steps_max: 4,
            unknown_permille: 5,
            aborted_permille: 20,
        }
    }
}

/// The longest of each gap between beginning, effect and end.
const GAP_MAX: u64 = 1_000;

/// How much later than a reply would have come a lost transaction may run.
const LATE_MAX: u64 = 20 * GAP_MAX;

/// Events by time; equal times in the order in which they were scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoke { client: usize },
    Run { transaction: usize },
}

/// Makes the history of a seed.
///
/// # Panics
/// If there are no clients, no keys or no steps.
pub fn generate_transactions(workload: &TransactionWorkload, seed: u64) -> TransactionHistory {
    assert!(workload.clients > 0 && workload.keys > 0 && workload.steps_max > 0, "{workload:?} has nothing to do");
    let mut world = World {
        workload: *workload,
        random: Random::new(seed),
        events: BinaryHeap::new(),
        scheduled: 0,
        transactions: Vec::with_capacity(workload.transactions),
        store: BTreeMap::new(),
        keys: (0..workload.keys as u64).map(|key| (Key(key), 0)).collect(),
        next_key: workload.keys as u64,
        processes: (0..workload.clients).map(Process).collect(),
        next_process: workload.clients,
    };
    for client in 0..workload.clients as usize {
        let at = world.random.below(GAP_MAX);
        world.schedule(at, Event::Invoke { client });
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        match event {
            Event::Invoke { client } => world.invoke(client, at),
            Event::Run { transaction } => world.run(transaction),
        }
    }
    TransactionHistory::new(world.transactions).expect("clients wait for their replies")
}

struct World {
    workload: TransactionWorkload,
    random: Random,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    transactions: Vec<Transaction>,
    store: BTreeMap<Key, Vec<i64>>,
    /// The keys in use, and how many appends each was asked for.
    keys: Vec<(Key, u32)>,
    next_key: u64,
    /// By client: its process now.
    processes: Vec<Process>,
    next_process: u32,
}

impl World {
    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn gap(&mut self) -> u64 {
        1 + self.random.below(GAP_MAX)
    }

    fn invoke(&mut self, client: usize, now: u64) {
        let transaction = self.transactions.len();
        if transaction == self.workload.transactions {
            return;
        }
        let process = self.processes[client];
        let run_at = now + self.gap();
        let done_at = run_at + self.gap();
        let mut end = End::Unknown;
        if self.random.chance(self.workload.aborted_permille) {
            end = End::Aborted { at: Time(done_at) };
        } else if self.random.chance(self.workload.unknown_permille) {
            // A half of them reaches the store, at any time.
            if self.random.chance(500) {
                let late = run_at + self.random.below(LATE_MAX);
                self.schedule(late, Event::Run { transaction });
            }
            self.processes[client] = Process(self.next_process);
            self.next_process += 1;
        } else {
            self.schedule(run_at, Event::Run { transaction });
            end = End::Committed { at: Time(done_at) };
        }
        let count = 1 + self.random.below(self.workload.steps_max);
        let steps = (0..count).map(|_| self.step()).collect();
        self.transactions.push(Transaction { process, steps, invoked: Time(now), end });
        let next = done_at + self.gap();
        self.schedule(next, Event::Invoke { client });
    }

    fn step(&mut self) -> Step {
        let place = self.random.below(self.keys.len() as u64) as usize;
        let (key, appends) = &mut self.keys[place];
        let key = *key;
        if !self.random.chance(500) {
            return Step::Read { key, list: None };
        }
        *appends += 1;
        let element = i64::from(*appends);
        if *appends == self.workload.appends_per_key {
            self.keys[place] = (Key(self.next_key), 0);
            self.next_key += 1;
        }
        Step::Append { key, element }
    }

    fn run(&mut self, transaction: usize) {
        let Transaction { steps, end, .. } = &mut self.transactions[transaction];
        let is_told = matches!(end, End::Committed { .. });
        for step in steps {
            match step {
                Step::Append { key, element } => self.store.entry(*key).or_default().push(*element),
                Step::Read { key, list } if is_told => *list = Some(self.store.get(key).cloned().unwrap_or_default()),
                Step::Read { .. } => {}
            }
        }
    }
}
