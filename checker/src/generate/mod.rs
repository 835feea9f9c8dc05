//! Histories made up from a seed: correct ones, and ones with a planted fault.
//!
//! Place in the flow: beside it. Tests, benchmarks and whoever wants to see what a checker finds use it; no checker
//! does.
//!
//! Invariants: a history is a function of its settings and its seed. A correct one comes from clients of a store that
//! does one thing at a time; a planted fault is a violation by construction, whatever else the history holds.

mod clients;
mod plant;
mod plant_transactions;
mod random;
mod registers;
mod transactions;

pub use plant::{plant, Anomaly};
pub use plant_transactions::{plant_transaction, TransactionAnomaly};
pub use random::Random;
pub use registers::{generate, Generated, Mix, Workload};
pub use transactions::{generate_transactions, TransactionWorkload};
