//! Every byte that Eyot puts on a wire or into a log entry.
//!
//! Place in the flow: step 2 (decode) and step 9 (reply) of a request's life, on both ends of every connection; and the
//! payload of the log entries of step 6 (log) and step 8 (apply).
//!
//! | module | what it holds |
//! |---|---|
//! | [`tlv`] | the self-describing values: borrowed decoding, encoding into a caller's buffer |
//! | [`native`] | the frames of the native protocol (port 6380) |
//! | [`resp`] | the protocol of Redis and its clients (port 6379) |
//! | [`mod@request`], [`response`] | the one closed set of requests and replies, whatever wire they came over |
//! | [`snapshot`] | the stream of a shard and the file of a whole database, written and read |
//! | [`command`] | what a shard's log entry says: the commands that apply changes state with |
//! | [`credentials`] | who a client says it is, and the password that it must know |
//! | [`key`] | slots: CRC-16/XMODEM of a key or of its hash tag |
//! | [`limits`] | every bound, with its reason |
//! | [`error`] | the stable error codes |
//!
//! Invariants:
//! - Pure: no file, socket, clock, thread, or random number is ever seen here.
//! - No length that came over a wire is trusted before it was compared with the bytes that are there.
//! - Decoding never panics and never recurses deeper than [`limits::MAX_DEPTH`], whatever the bytes.
//!
//! The written contract, with byte diagrams and golden vectors, is `docs/PROTOCOL.md`.

#![forbid(unsafe_code)]

pub mod error;
pub mod limits;

pub mod credentials;
pub mod key;
pub mod tlv;

pub mod request;
pub mod response;

pub mod command;
pub mod native;
pub mod resp;
pub mod snapshot;
pub mod value_part;

pub use error::ErrorCode;
pub use request::Request;
pub use response::Response;
