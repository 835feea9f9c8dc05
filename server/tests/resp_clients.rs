//! The clients that people have, unchanged, against the real server: redis-cli, redis-benchmark, redis-py, redis-rs.
//!
//! Place in the flow: all nine steps from outside, through the RESP listener, and through each core's own.
//!
//! | module | client |
//! |---|---|
//! | `tools` | redis-cli and redis-benchmark, as Debian packs them |
//! | `libraries` | redis-py (scripts beside it) and redis-rs |
//!
//! `EYOT_RESP_SUBJECT=redis` asks all of it of redis-server: what fails there is a fault of the test. `EYOT_PYTHON`
//! names the interpreter whose redis-py is meant.

mod support;

#[path = "resp/libraries.rs"]
mod libraries;
#[path = "resp/tools.rs"]
mod tools;
