//! Correct histories of transactions on lists: concurrent clients of a store that runs one transaction at a time.
//!
//! Place in the flow: `plant_transactions` starts from one; tests judge it as it is.
//!
//! Keys are used up: after some appends a fresh one takes the place of a key, so lists stay short in a long history.

use std::collections::BTreeMap;

use super::clients::{Clients, Event, Fate};
use crate::history::{Key, Time};
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

/// Makes the history of a seed.
///
/// # Panics
/// If there are no clients, no keys or no steps.
pub fn generate_transactions(workload: &TransactionWorkload, seed: u64) -> TransactionHistory {
    assert!(workload.clients > 0 && workload.keys > 0 && workload.steps_max > 0, "{workload:?} has nothing to do");
    let mut world = World {
        workload: *workload,
        clients: Clients::new(workload.clients, seed),
        transactions: Vec::with_capacity(workload.transactions),
        store: BTreeMap::new(),
        keys: (0..workload.keys as u64).map(|key| (Key(key), 0)).collect(),
        next_key: workload.keys as u64,
    };
    while let Some((at, event)) = world.clients.next() {
        match event {
            Event::Ask { client } => world.invoke(client, at),
            Event::Effect { request } => world.run(request),
        }
    }
    TransactionHistory::new(world.transactions).expect("clients wait for their replies")
}

struct World {
    workload: TransactionWorkload,
    clients: Clients,
    transactions: Vec<Transaction>,
    store: BTreeMap<Key, Vec<i64>>,
    /// The keys in use, and how many appends each was asked for.
    keys: Vec<(Key, u32)>,
    next_key: u64,
}

impl World {
    fn invoke(&mut self, client: usize, now: u64) {
        let transaction = self.transactions.len();
        if transaction == self.workload.transactions {
            return;
        }
        let TransactionWorkload { aborted_permille, unknown_permille, steps_max, .. } = self.workload;
        let asked = self.clients.ask(client, transaction, now, aborted_permille, unknown_permille);
        let at = Time(asked.done_at);
        let end = match asked.fate {
            Fate::Answered => End::Committed { at },
            Fate::Refused => End::Aborted { at },
            Fate::Lost => End::Unknown,
        };
        let count = 1 + self.clients.random.below(steps_max);
        let steps = (0..count).map(|_| self.step()).collect();
        self.transactions.push(Transaction { process: asked.process, steps, invoked: Time(now), end });
        self.clients.ask_again(client, asked.done_at);
    }

    fn step(&mut self) -> Step {
        let place = self.clients.random.below(self.keys.len() as u64) as usize;
        let (key, appends) = &mut self.keys[place];
        let key = *key;
        if !self.clients.random.chance(500) {
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
