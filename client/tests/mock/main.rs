//! The client library and the command line against a server that misbehaves on demand.
//!
//! One binary, so that the crate is linked once. [`server`] is the mock; the other modules are named by behaviour. The
//! real server meets the same client in the server crate's tests.

#![forbid(unsafe_code)]

mod server;

mod batches;
mod failures;
mod multiplexing;
mod operations;
mod passwords;
mod routing;

mod command_line;
mod piped;

mod node_snapshots;
mod snapshot_files;
mod snapshot_saves;
mod snapshot_writes;
