//! The Eyot server: a durable, thread-per-core key-value database.
//!
//! A request's nine steps, each with one home; `docs/ARCHITECTURE.md` leads along them:
//!
//! ```text
//! accept(1) -> decode(2) -> admit(3) -> route(4) -> execute(5) -> log(6) -> replicate(7) -> apply(8) -> reply(9)
//! ```

#![deny(unsafe_code)]

pub mod config;
pub mod error;
pub mod logging;
pub mod node;
pub mod preflight;

pub mod core;
pub mod net;
pub mod security;

pub mod router;

pub mod replication;
pub mod shard;

pub mod disk;
pub mod snapshot;
pub mod wal;

pub mod admin;
pub mod memory;
pub mod metrics;

#[cfg(test)]
mod prover;
