//! The bank: transfers between accounts leave their sum as it was, so every reading of all accounts must have that
//! sum.
//!
//! Place in the flow: beside `transactions`, for stores whose values are not lists. A recorder hands over what its
//! transactions read of all accounts.
//!
//! Invariant: each finding is a violation of any isolation in which a reading is one instant: snapshot isolation,
//! serializability.
//!
//! Deliberately not here: which transfer is to blame. A sum cannot tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Key, Process, Time};

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    /// The accounts, each once.
    pub accounts: Vec<Key>,
    /// What they have together, always.
    pub total: i64,
    /// Whether a transfer may leave less than nothing.
    pub may_be_negative: bool,
}

/// What one committed transaction read of all accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Who read.
    pub process: Process,
    /// When it knew.
    pub at: Time,
    /// The accounts with their balances, in any order.
    pub balances: Vec<(Key, i64)>,
}

/// What is wrong with a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BankFault {
    /// Another sum than the bank has.
    Sum {
        /// The sum that was read.
        got: i128,
        /// The sum that it should be.
        expected: i64,
    },
    /// An account with less than nothing.
    Negative {
        /// The account.
        account: Key,
        /// Its balance.
        balance: i64,
    },
    /// An account that was not read.
    Missing {
        /// The account.
        account: Key,
    },
    /// An account that the bank does not have, or one that was read twice.
    Surplus {
        /// The account.
        account: Key,
    },
}

/// A fault, and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankFinding {
    /// The position of the reading.
    pub reading: usize,
    /// Who read.
    pub process: Process,
    /// When it knew.
    pub at: Time,
    /// What is wrong.
    pub fault: BankFault,
}

impl Bank {
    /// Every fault of every reading, in their order. A reading of the wrong accounts is told as that, and not summed
    /// up.
    pub fn check(&self, readings: &[Reading]) -> Vec<BankFinding> {
        let accounts: BTreeSet<Key> = self.accounts.iter().copied().collect();
        let mut findings = Vec::new();
        for (position, reading) in readings.iter().enumerate() {
            let (process, at) = (reading.process, reading.at);
            let faults = self.faults(&accounts, reading).into_iter();
            findings.extend(faults.map(|fault| BankFinding { reading: position, process, at, fault }));
        }
        findings
    }

    fn faults(&self, accounts: &BTreeSet<Key>, reading: &Reading) -> Vec<BankFault> {
        let mut balances: BTreeMap<Key, i64> = BTreeMap::new();
        let mut faults = Vec::new();
        for &(account, balance) in &reading.balances {
            if !accounts.contains(&account) || balances.insert(account, balance).is_some() {
                faults.push(BankFault::Surplus { account });
            }
        }
        let missing = accounts.iter().filter(|account| !balances.contains_key(account));
        faults.extend(missing.map(|&account| BankFault::Missing { account }));
        if !faults.is_empty() {
            return faults;
        }
        let got: i128 = balances.values().map(|&balance| i128::from(balance)).sum();
        if got != i128::from(self.total) {
            faults.push(BankFault::Sum { got, expected: self.total });
        }
        let negative = balances.iter().filter(|(_, &balance)| balance < 0 && !self.may_be_negative);
        faults.extend(negative.map(|(&account, &balance)| BankFault::Negative { account, balance }));
        faults
    }
}

impl fmt::Display for BankFinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "reading {} of process {}, at {}: ", self.reading, self.process.0, self.at.0)?;
        match &self.fault {
            BankFault::Sum { got, expected } => write!(formatter, "the accounts have {got} together, not {expected}"),
            BankFault::Negative { account, balance } => write!(formatter, "account {} has {balance}", account.0),
            BankFault::Missing { account } => write!(formatter, "account {} was not read", account.0),
            BankFault::Surplus { account } => {
                write!(formatter, "account {} is not one of the bank, or was read twice", account.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(balances: &[(u64, i64)]) -> Vec<String> {
        let bank = Bank { accounts: vec![Key(1), Key(2), Key(3)], total: 30, may_be_negative: false };
        let balances = balances.iter().map(|&(account, balance)| (Key(account), balance)).collect();
        let fine =
            Reading { process: Process(1), at: Time(5), balances: vec![(Key(3), 0), (Key(1), 12), (Key(2), 18)] };
        let reading = Reading { process: Process(2), at: Time(9), balances };
        bank.check(&[fine, reading]).iter().map(BankFinding::to_string).collect()
    }

    #[test]
    fn a_sum_that_stays_is_fine_and_any_other_is_told() {
        assert_eq!(found(&[(1, 10), (2, 10), (3, 10)]), Vec::<String>::new());
        let sum = "reading 1 of process 2, at 9: the accounts have 25 together, not 30";
        assert_eq!(found(&[(1, 5), (2, 10), (3, 10)]), [sum]);
    }

    #[test]
    fn an_account_with_less_than_nothing_is_told() {
        assert_eq!(found(&[(1, -1), (2, 21), (3, 10)]), ["reading 1 of process 2, at 9: account 1 has -1"]);
    }

    #[test]
    fn wrong_accounts_are_told_and_not_summed_up() {
        let expected = [
            "reading 1 of process 2, at 9: account 9 is not one of the bank, or was read twice",
            "reading 1 of process 2, at 9: account 2 is not one of the bank, or was read twice",
            "reading 1 of process 2, at 9: account 3 was not read",
        ];
        assert_eq!(found(&[(1, 10), (2, 10), (9, 10), (2, 10)]), expected);
    }

    #[test]
    fn extreme_balances_are_summed_up() {
        let bank = Bank { accounts: vec![Key(1), Key(2)], total: 0, may_be_negative: true };
        let balances = vec![(Key(1), i64::MAX), (Key(2), i64::MAX)];
        let findings = bank.check(&[Reading { process: Process(1), at: Time(1), balances }]);
        assert_eq!(findings[0].fault, BankFault::Sum { got: 2 * i128::from(i64::MAX), expected: 0 });
    }
}
