//! Whole clusters in one thread and virtual time: one seed is one world, and a world that goes wrong goes wrong again.
//!
//! Place in the flow: beside the database. It runs `raft-glue` exactly as a server would, with a network, disks,
//! clocks, clients and an operator of its own making, all of which fail as the seed wants; it checks after every step.
//! `docs/SIMULATOR.md` tells how to run it and what a failure looks like.
//!
//! | module | job |
//! |---|---|
//! | `plan` | what a seed stands for: sizes, habits, faults |
//! | `world` | the loop, and its events |
//! | `turn`, `streams` | a node at work: the caller's duties towards `raft-glue` |
//! | `mischief`, `traps`, `operator` | faults; membership |
//! | `clock`, `network`, `disk`, `machine`, `client` | the parts |
//! | `truth`, `judgement`, `history` | the checks |
//! | `trace`, `shrink`, `campaign`, `supervisor` | replay, reduce, run many, lose none |
//!
//! Invariants:
//! - The same seed gives the same trace, on every machine and in every build.
//! - Nothing of what a check knows helps the cluster.
//!
//! Deliberately not here: the format of the server's log, which has tests of its own, and the server's code around
//! consensus.

#![forbid(unsafe_code)]

pub mod bugs;
pub mod campaign;
pub mod clock;
pub mod command;
pub mod counts;
pub mod dice;
pub mod history;
pub mod plan;
pub mod shrink;
pub mod supervisor;
pub mod trace;
pub mod truth;
pub mod world;

mod client;
mod disk;
mod judgement;
mod machine;
mod mischief;
mod network;
mod node;
mod operator;
mod streams;
mod traps;
mod turn;

pub use bugs::Bug;
pub use plan::Plan;
pub use world::{run, Options, Report};
