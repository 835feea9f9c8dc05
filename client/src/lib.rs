//! The client library of Eyot: one connection carries many requests, every key goes to the core that owns it.
//!
//! Place in the flow: before step 1 (accept) and after step 9 (reply) of a request's life.
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | [`Client`]: the operations, and the loop that routes, sends and retries one call |
//! | [`batch`] | several operations in one call: split by owning core, put back in order |
//! | [`options`] | every setting with its default and its bounds |
//! | [`error`] | what can fail, and whether a write that failed may have been applied |
//! | [`password`] | the password from a file |
//! | [`topology`] | from a key to the address of the core that owns it |
//! | [`rows`] | entries as JSON lines and CSV, and back |
//! | [`retry`] | which failures are tried again, and after which pause |
//! | `pool` | the connections to one address: opened on demand, replaced when they break |
//! | `connection` | one TCP connection: many requests in flight, matched by request id |
//!
//! Invariants:
//! - Every call ends within the request timeout, with a result or with a typed error.
//! - An error says whether the request may have been applied ([`Outcome`]). A write is sent again only when it is known
//!   not to have been applied.
//! - Queues are bounded in requests and in bytes; a caller waits for room and gives up at its timeout.
//! - No length from the wire is trusted: memory grows only with bytes that have arrived.
//!
//! ```no_run
//! # async fn example() -> Result<(), eyot_client::Error> {
//! use eyot_client::{Client, Options};
//!
//! let client = Client::connect("127.0.0.1:6380", Options::default()).await?;
//! client.set("user:1", "John").await?;
//! if let Some(found) = client.get("user:1").await? {
//!     println!("{:?}, version {}", found.value, found.version);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It needs a tokio runtime with I/O and time enabled; a current-thread one is enough.

#![forbid(unsafe_code)]

pub mod client;

pub mod batch;
pub mod error;
pub mod options;
pub mod password;

pub mod retry;
pub mod rows;
pub mod topology;

mod connection;
mod pool;

pub use batch::{BatchOperation, BatchResult};
pub use client::{Client, Versioned};
pub use error::{Error, Outcome};
pub use options::{Options, SetOptions};
pub use password::read_password;
pub use retry::RetryPolicy;

pub use eyot_protocol::command::Condition;
pub use eyot_protocol::credentials::{Password, PasswordError};
pub use eyot_protocol::error::ProtocolError;
pub use eyot_protocol::request::{AckLevel, Expiry, Operation, ReadLevel, SnapshotRead};
pub use eyot_protocol::response::{HelloReply, ReplyError, SetOutcome, ShardSnapshot, SnapshotStatus};
pub use eyot_protocol::tlv::Value;
pub use eyot_protocol::ErrorCode;
