//! The load generator: puts a measured load on an Eyot or Redis server and says what it saw.
//!
//! Place in the flow: the client's end of all nine steps. One thread must outrun one core of the server, so a request
//! costs the generator less than the server: no allocation, no copy of a reply, one system call and one clock reading a
//! turn.
//!
//! | file | what it holds |
//! |---|---|
//! | `args` | the command line |
//! | `run` | the coordinator: connects, starts the threads, leads them through preload, warm-up and measurement |
//! | `engine` | a thread's turn on its ring |
//! | `traffic` | a thread's outstanding requests |
//! | `closed_loop`, `open_loop` | when requests are sent |
//! | `workload`, `zipf` | which requests |
//! | `wire` | their bytes: native, RESP, memcached |
//! | `topology`, `password` | connections, the password that they say first, the shard map |
//! | `verify` | values that name themselves, and what a read may return |
//! | `measure`, `report`, `progress` | what is counted and shown |
//! | `machine`, `server_process` | facts and CPU time from `/proc` |
//!
//! Invariants:
//! - Waiting is counted: in an open loop latency begins when a request is due, in a closed loop before it is encoded.
//! - A request counts once: answered, answered with an error, or the run ends with a named trouble.
//!
//! Deliberately not here: a client library. This crate speaks only GET, SET, HELLO and AUTH, and is built to be
//! measured with.

#![forbid(unsafe_code)]

pub mod args;
pub mod closed_loop;
pub mod engine;
pub mod error;
pub mod machine;
pub mod measure;
pub mod open_loop;
pub mod password;
pub mod progress;
pub mod report;
pub mod run;
pub mod server_process;
pub mod topology;
pub mod traffic;
pub mod verify;
pub mod wire;
pub mod workload;
pub mod zipf;

pub use args::Args;
pub use error::LoadError;
pub use report::Report;
pub use run::run;
