//! Every operation over the wire, against the real server with several cores.
//!
//! Place in the flow: all nine steps, from a client's side.
//!
//! What a request means is tested here with as little as shows it; random pipelines against a model find what nobody
//! thought of; restarts show that state is a function of the log.

mod support;

#[path = "e2e_requests/lifetimes.rs"]
mod lifetimes;
#[path = "e2e_requests/memory.rs"]
mod memory;
#[path = "e2e_requests/operations.rs"]
mod operations;
#[path = "e2e_requests/pipelines.rs"]
mod pipelines;
