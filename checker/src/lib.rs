//! Judges recorded histories: what clients asked of a store, when, and what they were told, against what a correct
//! store could have said.
//!
//! Place in the flow: beside it. The simulator and the load generator record a [`history::History`] or a
//! [`transactions::TransactionHistory`] and have it judged here; `docs/CHECKER.md` tells which guarantees are checked,
//! how, and what a check does not see.
//!
//! | module | what it is |
//! |---|---|
//! | [`history`] | operations on single keys, and a recorder for them |
//! | [`linear`] | is each key linearizable: by zones where values are written once, by search elsewhere |
//! | [`transactions`] | are transactions isolated: cycles of dependencies |
//! | [`bank`] | does the sum of all accounts stay |
//! | [`lines`] | histories as lines of JSON |
//! | [`generate`] | correct histories from a seed, and faults to plant into them |
//!
//! ```
//! use eyot_checker::history::{Call, Key, Process, Recorder, Reply, Time, Value};
//! use eyot_checker::linear::{check, Limits, Verdict};
//!
//! let mut recorder = Recorder::default();
//! let write = recorder.invoke(Process(1), Key(7), Call::Write(5), Time(100));
//! recorder.done(write, Time(200), Reply::Acknowledged)?;
//! let read = recorder.invoke(Process(2), Key(7), Call::Read, Time(300));
//! recorder.done(read, Time(400), Reply::Value(None))?;
//!
//! let report = check(&recorder.history()?, Limits::default());
//! assert_eq!(report.verdict(), Verdict::Violated);
//! println!("{report}"); // names both operations, and why no order has them
//! # assert!(report.to_string().contains("operation 0: process 1, key 7, from 100 to 200: write 5 -> done"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants:
//! - Pure: no file, socket, clock, thread or random number. What is judged is an argument, and the same history gives
//!   the same report, text included.
//! - A violation that is reported is one: whatever a checker cannot decide within its limits is reported as undecided.
//!
//! Deliberately not here: driving clients, and reading files.

#![forbid(unsafe_code)]

pub mod history;

pub mod linear;

pub mod transactions;

pub mod bank;

pub mod lines;

pub mod generate;
